//! One fork at a time on each host: two copies of datasets in its memory are one too many. Only makes wait.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::{
    domain::source::NodeAddress,
    edge::redis_node::{Access, bgsave::wait_for_child, connection::resolve},
};

/// The hosts of a source, as its addresses tell them apart.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    by_host: Mutex<BTreeMap<Host, LastFork>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Address(IpAddr),
    /// A Kubernetes node.
    Machine(String),
    /// One that cannot be resolved here.
    Name(String),
}

/// The node that forked last.
type LastFork = Arc<tokio::sync::Mutex<Option<NodeAddress>>>;

/// Until it is dropped no other node of the same host is asked for a fork.
#[derive(Debug)]
pub(crate) struct Turn {
    _held: OwnedMutexGuard<Option<NodeAddress>>,
}

impl Hosts {
    /// Waits until no capture has a fork on the node's host, and the child of the last one has ended.
    pub(super) async fn turn(&self, node: &NodeAddress, access: &Access) -> Turn {
        let host = host(node, access).await;
        let last_fork = {
            let mut by_host = self.by_host.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(by_host.entry(host).or_default())
        };
        if Arc::clone(&last_fork).try_lock_owned().is_err() {
            tracing::info!(%node, "another node of its host has a fork; waiting for its end");
        }
        let mut held = last_fork.lock_owned().await;
        if let Some(last) = held.replace(node.clone()) {
            // A server reaps its child some time after the last byte, or after we are gone.
            wait_for_child(&last, access).await;
        }
        Turn { _held: held }
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
        let hosts = Hosts::default();
        let access = Access { dial: Some(Arc::new(Nobody)), ..Access::default() };
        let pod = |host: &str| NodeAddress::new(host, 6379);
        let first = hosts.turn(&pod("10.244.0.1"), &access).await;
        assert!(timeout(SHORT, hosts.turn(&pod("10.244.9.1"), &access)).await.is_err());
        timeout(access.connect_timeout, hosts.turn(&pod("10.244.0.2"), &access)).await.unwrap();
        drop(first);
        hosts.turn(&pod("10.244.9.1"), &access).await;
    }

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn nodes_of_one_host_take_turns_and_other_hosts_do_not_wait() {
        let (hosts, access) = (Hosts::default(), Access::default());
        // Nobody listens there: the child of who does not answer is not waited for.
        let node = |host: &str, port| NodeAddress::new(host, port);
        let first = hosts.turn(&node("127.0.0.1", 1), &access).await;
        for same in [node("127.0.0.1", 2), node("localhost", 3)] {
            let turn = timeout(SHORT, hosts.turn(&same, &access)).await;
            assert!(turn.is_err(), "{same}");
        }
        timeout(access.connect_timeout, hosts.turn(&node("127.0.0.2", 1), &access)).await.unwrap();
        drop(first);
        hosts.turn(&node("127.0.0.1", 2), &access).await;
    }
}
