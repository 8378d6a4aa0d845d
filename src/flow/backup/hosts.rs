//! So many forks at a time on each host, one unless the config allows more: copies of datasets in its memory. Only makes wait.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    domain::source::NodeAddress,
    edge::redis_node::{Access, bgsave::wait_for_child, connection::resolve},
    failure::Failure,
};

/// The hosts of a source, as its addresses tell them apart.
#[derive(Debug)]
pub(super) struct Hosts {
    forks_max: usize,
    by_host: Mutex<BTreeMap<Host, Arc<Forks>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Address(IpAddr),
    /// A Kubernetes node.
    Machine(String),
    /// One that cannot be resolved here.
    Name(String),
}

/// The forks of one host.
#[derive(Debug)]
struct Forks {
    free: Arc<Semaphore>,
    /// The nodes that had one, of which the child may still live.
    last: Mutex<Vec<NodeAddress>>,
}

/// Until it is dropped, one node less of the same host is asked for a fork.
#[derive(Debug)]
pub(crate) struct Turn {
    node: NodeAddress,
    forks: Arc<Forks>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.forks.last.lock().unwrap_or_else(PoisonError::into_inner).push(self.node.clone());
    }
}

impl Hosts {
    pub(super) fn new(forks_max: usize) -> Self {
        Self { forks_max, by_host: Mutex::default() }
    }

    /// Waits until the node's host may have one more fork of ours, and the child of who had it last has ended.
    pub(super) async fn turn(&self, node: &NodeAddress, access: &Access) -> Result<Turn, Failure> {
        let host = host(node, access).await;
        let forks = {
            let mut by_host = self.by_host.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Forks::new(self.forks_max));
            Arc::clone(by_host.entry(host).or_insert_with(fresh))
        };
        if forks.free.available_permits() == 0 {
            tracing::info!(%node, "other nodes of its host have forks; waiting for the end of one");
        }
        let free = Arc::clone(&forks.free);
        // The semaphore is never closed.
        let attempt = "wait for the turn of a host";
        let permit = free.acquire_owned().await.map_err(|_| Failure::Worker { attempt })?;
        let last = forks.last.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let turn = Turn { node: node.clone(), forks, _permit: permit };
        if let Some(last) = last {
            // A server reaps its child some time after the last byte, or after we are gone.
            wait_for_child(&last, access).await;
        }
        Ok(turn)
    }
}

impl Forks {
    fn new(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), last: Mutex::default() }
    }
}

async fn host(node: &NodeAddress, access: &Access) -> Host {
    // The addresses of pods do not tell which of them share a machine.
    if let Some(dial) = &access.dial {
        let machine = dial.machine(node);
        return machine.map_or_else(|| Host::Name(node.host().to_owned()), Host::Machine);
    }
    match resolve(node, access.connect_timeout).await {
        Some(address) => Host::Address(address),
        None => Host::Name(node.host().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use tokio::time::timeout;

    use super::*;
    use crate::edge::redis_node::{Dial, Dialed};

    /// Pods on the machine that the last letter of their host names, and nobody answers.
    #[derive(Debug)]
    struct Nobody;

    #[async_trait]
    impl Dial for Nobody {
        async fn dial(&self, _: &NodeAddress) -> std::io::Result<Dialed> {
            Err(std::io::ErrorKind::ConnectionRefused.into())
        }

        fn machine(&self, address: &NodeAddress) -> Option<String> {
            Some(address.host().chars().last()?.to_string())
        }
    }

    #[tokio::test]
    async fn pods_of_one_kubernetes_node_take_turns_whatever_their_addresses() {
        let hosts = Hosts::new(1);
        let access = Access { dial: Some(Arc::new(Nobody)), ..Access::default() };
        let pod = |host: &str| NodeAddress::new(host, 6379);
        let first = hosts.turn(&pod("10.244.0.1"), &access).await.unwrap();
        assert!(timeout(SHORT, hosts.turn(&pod("10.244.9.1"), &access)).await.is_err());
        let elsewhere = pod("10.244.0.2");
        timeout(access.connect_timeout, hosts.turn(&elsewhere, &access)).await.unwrap().unwrap();
        drop(first);
        hosts.turn(&pod("10.244.9.1"), &access).await.unwrap();
    }

    #[tokio::test]
    async fn a_host_has_as_many_forks_as_it_may_and_no_more() {
        let hosts = Hosts::new(2);
        let access = Access { dial: Some(Arc::new(Nobody)), ..Access::default() };
        let pod = |host: &str| NodeAddress::new(host, 6379);
        let first = hosts.turn(&pod("10.244.0.1"), &access).await.unwrap();
        let _second = hosts.turn(&pod("10.244.1.1"), &access).await.unwrap();
        assert!(timeout(SHORT, hosts.turn(&pod("10.244.2.1"), &access)).await.is_err());
        drop(first);
        hosts.turn(&pod("10.244.2.1"), &access).await.unwrap();
    }

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn nodes_of_one_host_take_turns_and_other_hosts_do_not_wait() {
        let (hosts, access) = (Hosts::new(1), Access::default());
        // Nobody listens there: the child of who does not answer is not waited for.
        let node = |host: &str, port| NodeAddress::new(host, port);
        let first = hosts.turn(&node("127.0.0.1", 1), &access).await.unwrap();
        for same in [node("127.0.0.1", 2), node("localhost", 3)] {
            let turn = timeout(SHORT, hosts.turn(&same, &access)).await;
            assert!(turn.is_err(), "{same}");
        }
        let elsewhere = node("127.0.0.2", 1);
        timeout(access.connect_timeout, hosts.turn(&elsewhere, &access)).await.unwrap().unwrap();
        drop(first);
        hosts.turn(&node("127.0.0.1", 2), &access).await.unwrap();
    }
}
