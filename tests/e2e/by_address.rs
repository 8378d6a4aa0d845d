//! Every installation by its address alone, without a word to Kubernetes: our image in a pod beside it captures each shard
//! from a replica, over replication, and proves what it stored.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{
    cluster::wait_for,
    installation::{
        ANALYTICS, ANALYTICS_TLS, GATEWAY, Installation, LEADERS, OPERATOR, SHOP, SMALL_DISK,
    },
    namespace::{Namespace, PATIENCE},
    product, s3,
};

pub const KEYS: u32 = 2000;
pub const KEYS_AS_TOLD: &str = "2 000 keys";
const ANALYTICS_ADDRESS: &str = "redis://redis-analytics-0.redis-analytics:6379";
/// What the plan calls the node that it chose.
const A_REPLICA: &str = "capture: a replica, ";

/// Backs an installation up by `source` and reads every byte back; gives what the backup said.
#[track_caller]
fn backed_up(namespace: &Namespace, store: &str, secret: Option<&str>, source: &[&str]) -> String {
    let place = ["--source-name", "source", "--store", store];
    let run = |name, arguments: &[&str]| {
        product::run(namespace, name, secret, &[arguments, &place].concat()).well()
    };
    let backup = run("backup", &[&["backup"], source].concat());
    assert!(backup.contains(KEYS_AS_TOLD), "{backup}");
    let verified = run("verify", &["verify", "--latest", "--level", "content"]);
    assert!(verified.contains("proven"), "{verified}");
    backup
}

fn prepared(purpose: &str, installation: &Installation) -> (Namespace, String) {
    let namespace = Namespace::create_lenient(purpose);
    let store = s3::store_of(&namespace);
    namespace.install(installation);
    (namespace, store)
}

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

#[test]
fn shop_is_backed_up_by_its_sentinels_from_a_replica() {
    let (namespace, store) = prepared("shop", &SHOP);
    namespace.fill(namespace.primary(&["redis-0", "redis-1", "redis-2"]), KEYS);
    wait_for_quorum(&namespace, &["redis-sentinel-0"], "mymaster");
    let source = ["--source-url", "sentinel://redis-sentinel:26379/mymaster"];
    let backup = backed_up(&namespace, &store, None, &source);
    assert!(backup.contains(A_REPLICA) && !backup.contains("the primary"), "{backup}");
}

#[test]
fn gateway_is_backed_up_by_its_sentinels_from_a_replica() {
    let (namespace, store) = prepared("gateway", &GATEWAY);
    let pods = ["redis-gateway-0", "redis-gateway-1", "redis-gateway-2"];
    namespace.fill(namespace.primary(&pods), KEYS);
    wait_for_quorum(&namespace, &["redis-gateway-0", "-c", "sentinel"], "gateway-master");
    let source = ["--source-url", "sentinel://redis-gateway-sentinel:26379/gateway-master"];
    let backup = backed_up(&namespace, &store, None, &source);
    assert!(backup.contains(A_REPLICA) && !backup.contains("the primary"), "{backup}");
}

#[test]
fn operator_is_backed_up_by_its_sentinels_from_a_replica() {
    let (namespace, store) = prepared("operator", &OPERATOR);
    let pods = ["rfr-redis-cluster-0", "rfr-redis-cluster-1", "rfr-redis-cluster-2"];
    namespace.fill(namespace.primary(&pods), KEYS);
    wait_for_quorum(&namespace, &["deployment/rfs-redis-cluster", "-c", "sentinel"], "mymaster");
    let source = ["--source-url", "sentinel://rfs-redis-cluster:26379/mymaster"];
    let backup = backed_up(&namespace, &store, None, &source);
    assert!(backup.contains(A_REPLICA) && !backup.contains("the primary"), "{backup}");
}

#[test]
fn analytics_is_backed_up_shard_by_shard_from_its_replicas() {
    let (namespace, store) = prepared("analytics", &ANALYTICS);
    fill_cluster(&namespace, "redis-analytics-0", "redis-cli");
    let source =
        ["--source-url", ANALYTICS_ADDRESS, "--password-from", "file:/secret/redis-password"];
    let backup = backed_up(&namespace, &store, Some("redis-auth"), &source);
    assert!(backup.contains("in 3 shards") && !backup.contains("the primary"), "{backup}");
}

#[test]
fn analytics_is_backed_up_over_tls() {
    let namespace = Namespace::create_lenient("analytics-tls");
    let store = s3::store_of(&namespace);
    let authority = certificates(&namespace);
    namespace.install(&ANALYTICS_TLS);
    fill_cluster(&namespace, "redis-analytics-0", "redis-cli --tls --cacert /tls/ca.crt");
    let password = ("redis-password", "analytics-and-secret");
    namespace.secret("client", &[password, ("ca.crt", &authority)]);
    let address = ANALYTICS_ADDRESS.replace("redis://", "rediss://");
    let source = [
        &["--source-url", &address, "--password-from", "file:/secret/redis-password"][..],
        &["--tls-ca", "/secret/ca.crt", "--tls-server-name", "redis-analytics"],
    ];
    let backup = backed_up(&namespace, &store, Some("client"), &source.concat());
    assert!(backup.contains("in 3 shards"), "{backup}");
}

#[test]
fn a_server_whose_disk_is_full_is_backed_up_all_the_same() {
    let (namespace, store) = prepared("full-disk", &SMALL_DISK);
    let shell = |script: &str| namespace.ask(&["exec", "redis-0", "--", "sh", "-c", script]);
    shell(&format!("for n in $(seq {KEYS}); do echo \"set key:$n value-$n\"; done | valkey-cli"));
    shell("head -c 100000000 /dev/zero >/data/filled; valkey-cli bgsave");
    wait_for("a save that fails for want of room", PATIENCE, || {
        shell("valkey-cli info persistence").contains("rdb_last_bgsave_status:err").then_some(())
    });
    backed_up(&namespace, &store, None, &["--source-url", "redis://redis:6379"]);
}

#[test]
fn leaders_are_backed_up_from_their_followers() {
    let (namespace, store) = prepared("leaders", &LEADERS);
    let cli = "REDISCLI_AUTH=$REDIS_PASSWORD redis-cli";
    fill_cluster(&namespace, "sessions-leader-0", cli);
    let source = [
        &["--source-url", "redis://sessions-leader:6379"][..],
        &["--password-from", "file:/secret/password"],
    ];
    let backup = backed_up(&namespace, &store, Some("redis-secret"), &source.concat());
    assert!(backup.contains("in 3 shards") && !backup.contains("the primary"), "{backup}");
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
