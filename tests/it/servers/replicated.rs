//! A primary with replicas that follow it.

use super::{
    Version,
    redis::{Options, Server},
    wait_for,
};

/// The roles are those of the start; a failover does not move the fields.
#[derive(Debug)]
pub struct Replicated {
    pub primary: Server,
    pub replicas: Vec<Server>,
}

impl Replicated {
    /// Returns once every link is up.
    pub fn start(version: &Version, replicas: usize) -> Self {
        Self::of(&Options::new(version), replicas)
    }

    /// All of them with these options.
    pub fn of(options: &Options<'_>, replicas: usize) -> Self {
        let primary = options.clone().start();
        let follow = format!("replicaof 127.0.0.1 {}", primary.port);
        let replicas: Vec<Server> =
            (0..replicas).map(|_| options.clone().config(&follow).start()).collect();
        let group = Self { primary, replicas };
        group.wait_for_links();
        group
    }

    pub fn wait_for_links(&self) {
        for replica in &self.replicas {
            wait_for_link(replica);
        }
    }
}

pub(super) fn wait_for_link(replica: &Server) {
    wait_for("a replica to follow its primary", || {
        (replica.info("master_link_status").as_deref() == Some("up")).then_some(())
    });
}

#[test]
fn replicas_of_every_version_follow() {
    for version in Version::all() {
        let group = Replicated::start(&version, 2);
        assert_eq!(group.primary.info("connected_slaves").unwrap(), "2", "{version}");
    }
}
