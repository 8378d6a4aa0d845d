//! From one version to another: what the matrix allows comes back whole; what it refuses changes nothing.

use super::{Tool, into, listing, start, wipe};
use crate::servers::{
    Version,
    dataset::{Digest, assert_same, fill},
    redis::Server,
};

const KEYS: usize = 500;

/// A backup of a server of that version, and what was in it.
fn backed_up(name: &str) -> (Tool, Digest) {
    let version = Version::named(name);
    let server = Server::start(&version, &[]);
    fill(&mut server.connection(), 61, KEYS);
    let tool = Tool::new(&version);
    tool.back_up(&server.url());
    (tool, Digest::portable(&mut server.connection()))
}

fn goes_to(tool: &Tool, source: &Digest, name: &str) {
    let version = Version::named(name);
    let mut server = Server::start(&version, &["appendonly yes"]);
    server.kill9();
    wipe(&server);
    let tool = tool.clone().with_servers_of(&version);
    tool.done("restore", &into(&server, &["--latest"]));
    start(&mut server);
    assert_same(source, &Digest::portable(&mut server.connection()));
    tool.verify_by_load();
}

fn is_refused_by(tool: &Tool, name: &str, reason: &str) {
    let version = Version::named(name);
    let mut server = Server::start(&version, &[]);
    let () = server.command("SET present value");
    let () = server.command("SAVE");
    server.kill9();
    let before = listing(&server.data_dir());
    let tool = tool.clone().with_servers_of(&version);
    let said = tool.fails("restore", &into(&server, &["--latest"]), 22);
    assert!(said.contains(reason), "{version}: {said}");
    let said = tool.fails("verify", &["--latest", "--level", "load"], 22);
    assert!(said.contains(reason), "{version}: {said}");
    assert_eq!(listing(&server.data_dir()), before, "{version}");
    start(&mut server);
    assert_eq!(server.command::<String>("GET present"), "value");
}

#[test]
fn redis_6_2_goes_to_7_0_and_to_the_newest_valkey() {
    let (tool, source) = backed_up("redis-6.2");
    goes_to(&tool, &source, "redis-7.0");
    goes_to(&tool, &source, "valkey-newest");
}

#[test]
fn redis_7_0_goes_to_8_and_to_valkey_but_not_to_6_2() {
    let (tool, source) = backed_up("redis-7.0");
    for name in ["redis-8.0", "redis-newest", "valkey-8.1"] {
        goes_to(&tool, &source, name);
    }
    is_refused_by(&tool, "redis-6.2", "newer than Redis 6.2");
}

#[test]
fn redis_8_goes_to_the_newest_but_neither_back_nor_to_valkey() {
    let (tool, source) = backed_up("redis-8.0");
    goes_to(&tool, &source, "redis-newest");
    is_refused_by(&tool, "redis-7.0", "newer than Redis 7.0");
    is_refused_by(&tool, "valkey-8.1", "no Valkey does");
}

#[test]
fn valkey_goes_to_a_newer_valkey_and_never_to_redis() {
    let (tool, source) = backed_up("valkey-8.1");
    goes_to(&tool, &source, "valkey-newest");
    let (tool, _) = backed_up("valkey-newest");
    is_refused_by(&tool, "redis-newest", "other flavour");
    is_refused_by(&tool, "valkey-8.1", "Valkey 9 or later");
}
