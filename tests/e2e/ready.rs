//! What installations need before they are backed up: certificates, keys, replicas that follow and sentinels that agree.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{
    cluster::wait_for,
    namespace::{Namespace, PATIENCE},
};

pub const KEYS: u32 = 2000;
pub const KEYS_AS_TOLD: &str = "2 000 keys";

/// Sentinels find the replicas, and each other, some seconds after they found the primary.
pub fn wait_for_quorum(namespace: &Namespace, sentinel: &[&str], master: &str) {
    let ask = |what: &str| {
        let command =
            [&["exec"], sentinel, &["--", "redis-cli", "-p", "26379", "sentinel", what, master]];
        namespace.try_ask(&command.concat())
    };
    wait_for("two replicas and three sentinels", PATIENCE, || {
        let is_agreed = ask("ckquorum")?.contains("3 usable");
        let linked = ask("replicas")?.matches("master-link-status\nok").count();
        (is_agreed && linked == 2).then_some(())
    });
}

/// Fills a Cluster by `cli` in a pod of it, once every shard has a linked replica.
pub fn fill_cluster(namespace: &Namespace, pod: &str, cli: &str) {
    let shell = |script: &str| namespace.try_ask(&["exec", pod, "--", "sh", "-c", script]);
    wait_for("three linked replicas", PATIENCE, || {
        let is_up = shell(&format!("{cli} cluster info"))?.contains("cluster_state:ok");
        let all = shell(&format!("{cli} --cluster call 127.0.0.1:6379 info replication"))?;
        (is_up && all.matches("state=online").count() == 3).then_some(())
    });
    // redis-cli follows each key to its shard, so one key at a time.
    let keys = format!("for n in $(seq {KEYS}); do echo \"set key:$n value-$n\"; done");
    let filled = shell(&format!("{keys} | {cli} -c | grep -c OK"));
    assert_eq!(filled.unwrap().trim(), KEYS.to_string());
}

/// The Secret `redis-tls`, as cert-manager makes it; gives the authority's certificate.
pub fn certificates(namespace: &Namespace) -> String {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name.push(DnType::CommonName, "end-to-end tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let names = ["redis-analytics", "*.redis-analytics"].map(str::to_owned);
    let mut leaf = CertificateParams::new(names).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "redis-analytics");
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    let entries =
        [("ca.crt", authority.pem()), ("tls.crt", leaf.pem()), ("tls.key", key.serialize_pem())];
    namespace.secret("redis-tls", &entries.each_ref().map(|(name, pem)| (*name, pem.as_str())));
    authority.pem()
}
