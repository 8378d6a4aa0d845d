//! A primary, two replicas and three sentinels that watch them with a quorum of two.

use std::collections::BTreeMap;

use super::{
    Version,
    redis::{Options, Server},
    replicated::Replicated,
    wait_for,
};

pub const MASTER_NAME: &str = "mymaster";

const SENTINELS: usize = 3;
const REPLICAS: usize = 2;
const QUORUM: usize = 2;

#[derive(Debug)]
pub struct SentinelGroup {
    pub nodes: Replicated,
    pub sentinels: Vec<Server>,
}

impl SentinelGroup {
    /// Returns once every sentinel knows both replicas and the other sentinels.
    pub fn start(version: &Version) -> Self {
        Self::of(&Options::new(version))
    }

    /// All nodes with these options, the sentinels without.
    pub fn of(options: &Options<'_>) -> Self {
        let nodes = Replicated::of(options, REPLICAS);
        let mut options = Options::new(&options.version)
            .config(format!(
                "sentinel monitor {MASTER_NAME} 127.0.0.1 {} {QUORUM}",
                nodes.primary.port
            ))
            .config(format!("sentinel down-after-milliseconds {MASTER_NAME} 3000"))
            .config(format!("sentinel failover-timeout {MASTER_NAME} 20000"));
        options.is_sentinel = true;
        let sentinels = (0..SENTINELS).map(|_| options.clone().start()).collect();
        let group = Self { nodes, sentinels };
        group.wait_for_agreement();
        group
    }

    /// `sentinel://` and the address of the first sentinel and the master's name.
    pub fn url(&self) -> String {
        format!("sentinel://{}/{MASTER_NAME}", self.sentinels[0].address())
    }

    /// The port of the primary that the first sentinel names.
    pub fn primary_port(&self) -> u16 {
        let master = master(&self.sentinels[0]).expect("the sentinel knows its master");
        master["port"].parse().unwrap()
    }

    /// Whichever of the three nodes listens there now.
    pub fn node(&self, port: u16) -> &Server {
        let mut nodes = self.nodes.replicas.iter().chain([&self.nodes.primary]);
        nodes.find(|node| node.port == port).expect("the port is a node's")
    }

    /// Makes a replica the primary and returns its port once all sentinels name it.
    pub fn fail_over(&self) -> u16 {
        let before = self.primary_port();
        let () = self.sentinels[0].command(&format!("SENTINEL FAILOVER {MASTER_NAME}"));
        wait_for("a failover", || {
            let named =
                self.sentinels.iter().map(|sentinel| Some(master(sentinel)?["port"].clone()));
            let mut ports: Vec<Option<String>> = named.collect();
            ports.dedup();
            let [Some(port)] = &ports[..] else { return None };
            let port = port.parse().unwrap();
            (port != before).then_some(port)
        })
    }

    fn wait_for_agreement(&self) {
        for sentinel in &self.sentinels {
            wait_for("the sentinels to agree", || {
                let master = master(sentinel)?;
                let counts = [&master["num-slaves"], &master["num-other-sentinels"]];
                let all = [REPLICAS.to_string(), (SENTINELS - 1).to_string()];
                (counts == [&all[0], &all[1]] && master["flags"] == "master").then_some(())
            });
        }
    }
}

fn master(sentinel: &Server) -> Option<BTreeMap<String, String>> {
    let mut connection = sentinel.try_connection().ok()?;
    redis::cmd("SENTINEL").arg("MASTER").arg(MASTER_NAME).query(&mut connection).ok()
}

#[test]
fn sentinels_agree_and_fail_over() {
    let group = SentinelGroup::start(&Version::usual());
    let port = group.fail_over();
    wait_for("the new primary", || {
        (group.node(port).info("role").unwrap() == "master").then_some(())
    });
}

#[test]
fn sentinels_of_every_version_agree() {
    for version in Version::all() {
        let group = SentinelGroup::start(&version);
        assert_eq!(group.primary_port(), group.nodes.primary.port, "{version}");
    }
}
