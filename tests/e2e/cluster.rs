//! The cluster under test and its kubectl: the one of `tests/cluster`, or the one that KUBECONFIG names.

use std::{
    env,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Our image, as `tests/cluster/build-product` names it.
pub fn product_image() -> String {
    env::var("PRODUCT_IMAGE").unwrap_or_else(|_| "localhost/redis-backup:test".to_owned())
}

/// Images that a node must have: they come from no registry.
const IMAGES: [&str; 5] = [
    "localhost/redis:6.2",
    "localhost/redis:7.0",
    "localhost/redis:8.0",
    "localhost/valkey:8.1",
    "localhost/versitygw:1",
];

/// kubectl of the cluster, after a look whether the cluster has what the tests need.
pub fn kubectl(arguments: &[&str]) -> Command {
    static LOOKED: OnceLock<()> = OnceLock::new();
    LOOKED.get_or_init(look);
    bare(arguments)
}

/// What kubectl printed; fails with what it complained of.
#[track_caller]
pub fn ask(arguments: &[&str]) -> String {
    let output = kubectl(arguments).output().unwrap();
    assert!(output.status.success(), "kubectl {}:\n{}", arguments.join(" "), told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// One object, or a list of them.
#[track_caller]
pub fn get(arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = [&["get", "-o", "json"], arguments].concat();
    serde_json::from_str(&ask(&arguments)).unwrap()
}

/// Applies objects written as YAML or JSON.
#[track_caller]
pub fn apply(namespace: Option<&str>, objects: &str) {
    let mut arguments = vec!["apply", "-f", "-"];
    arguments.extend(namespace.iter().flat_map(|name| ["--namespace", *name]));
    let mut child = kubectl(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(objects.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "kubectl apply:\n{}\nof\n{objects}", told(&output));
}

/// For programs that find the cluster by themselves.
pub fn kubeconfig() -> PathBuf {
    programs().1
}

/// Returns what `attempt` gives once it gives something; fails after `limit`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = now();
    loop {
        if let Some(outcome) = attempt() {
            return outcome;
        }
        assert!(began.elapsed() < limit, "gave up waiting for {what}");
        // Each look may be a kubectl, which costs a fifth of a second of processor.
        thread::sleep(Duration::from_secs(1));
    }
}

pub fn told(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[expect(clippy::disallowed_methods, reason = "a real cluster takes real time")]
fn now() -> Instant {
    Instant::now()
}

fn bare(arguments: &[&str]) -> Command {
    let (program, kubeconfig) = programs();
    let mut command = Command::new(program);
    command.env("KUBECONFIG", kubeconfig).args(arguments);
    command
}

/// kubectl and kubeconfig.
fn programs() -> (PathBuf, PathBuf) {
    if let Some(kubeconfig) = env::var_os("KUBECONFIG") {
        return ("kubectl".into(), kubeconfig.into());
    }
    let cluster = cluster_folder();
    (cluster.join("bin/kubectl"), cluster.join("kubeconfig"))
}

/// The programs of the node of `tests/cluster`, which is this machine.
pub fn node_folder() -> PathBuf {
    cluster_folder().join("node")
}

fn cluster_folder() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"));
    cache.join("redis-backup/cluster")
}

#[track_caller]
fn look() {
    let answers = bare(&["get", "nodes", "-o", "json"]).output();
    let output =
        answers.unwrap_or_else(|error| panic!("kubectl: {error}; `make cluster` brings it"));
    assert!(
        output.status.success(),
        "no cluster answers; `make cluster` brings one, or KUBECONFIG names yours:\n{}",
        told(&output)
    );
    let nodes = String::from_utf8(output.stdout).unwrap();
    let needed = IMAGES.map(ToOwned::to_owned).into_iter().chain([product_image()]);
    let missing: Vec<String> =
        needed.filter(|name| !nodes.contains(&format!("\"{name}\""))).collect();
    assert!(
        missing.is_empty(),
        "no node has {}; `tests/cluster/build-images` and `build-product` make them below the cache folder, \
         as files that `kind load image-archive` and `k3d image import` take",
        missing.join(", ")
    );
    let classes = told(&bare(&["get", "storageclasses", "-o", "json"]).output().unwrap());
    assert!(
        classes.contains("is-default-class\": \"true"),
        "the cluster has no default StorageClass, which the installations' volumes need"
    );
}
