//! Reaching real nodes: access refused and granted, one RDB captured to its proven end or not at all.

use std::{fs, path::Path, process::Command, time::Duration};

use bytes::BytesMut;
use redis_backup::{
    domain::{
        secret::Secret,
        source::{NodeAddress, SourceAddress, SourceUrl},
    },
    edge::redis_node::{
        self, Access, Credentials, Error, Snapshot, SourceAccess, Tls, replication::Limits, tls,
    },
};
use tempfile::TempDir;

use crate::servers::{
    Certificates, Version,
    redis::{Options, Server},
};

/// What the documentation tells to allow, and nothing more.
pub const MINIMAL: &str =
    "user backup on >secret resetkeys resetchannels -@all +psync +replconf +ping +info +role +time";

pub fn address(server: &Server) -> NodeAddress {
    NodeAddress::new("127.0.0.1", server.port)
}

pub fn as_user(username: &str, password: &str) -> Access {
    let credentials =
        Credentials { username: Some(username.to_owned()), password: Some(Secret::new(password)) };
    Access { credentials, ..Access::default() }
}

pub fn by_default_user() -> SourceAccess {
    SourceAccess::default()
}

/// A megabyte, not to be compressed away.
fn fill(server: &Server) {
    let () = server.command("CONFIG SET rdbcompression no");
    let mut connection = server.connection();
    let () = redis::cmd("DEBUG")
        .arg(&["POPULATE", "2000", "key", "500"])
        .query(&mut connection)
        .unwrap();
}

/// Captures into a file and has the server's own tool look at it.
pub async fn capture(server: &Server, access: &Access, folder: &Path) -> Result<u64, Error> {
    let node = redis_node::observe_node(&address(server), access).await?;
    let mut snapshot =
        Snapshot::begin(&address(server), access, &node.server, Limits::default()).await?;
    assert!(snapshot.asked_at() >= node.clock);
    let (mut file, mut buffer) = (Vec::new(), BytesMut::with_capacity(1 << 20));
    while snapshot.read(&mut buffer).await? > 0 {
        file.extend_from_slice(&buffer);
        buffer.clear();
    }
    let path = folder.join("captured.rdb");
    fs::write(&path, &file).unwrap();
    let output =
        Command::new(server.version.program("redis-check-rdb")).arg(&path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("RDB looks OK"), "{}: {text}", server.version);
    Ok(file.len() as u64)
}

#[tokio::test]
async fn a_minimal_user_captures_in_both_framings_on_every_version() {
    let folder = TempDir::new().unwrap();
    for version in Version::all() {
        for diskless in ["yes", "no"] {
            let diskless = format!("repl-diskless-sync {diskless}");
            let server = Server::start(&version, &[MINIMAL, &diskless]);
            fill(&server);
            let bytes = capture(&server, &as_user("backup", "secret"), folder.path())
                .await
                .unwrap_or_else(|error| panic!("{version}, {diskless}: {error}"));
            assert!(bytes > 2000 * 500, "{version}, {diskless}: {bytes}");
            let magic = if version.is_valkey([9, 0]) { "VALKEY" } else { "REDIS0" };
            let file = fs::read(folder.path().join("captured.rdb")).unwrap();
            assert!(file.starts_with(magic.as_bytes()), "{version}: not its own RDB version");
        }
    }
}

#[tokio::test]
async fn facts_that_a_minimal_user_may_not_ask_are_missing_and_said_so() {
    for version in Version::all() {
        let server = Server::start(&version, &[MINIMAL, "maxmemory 1gb", "databases 5"]);
        let minimal = as_user("backup", "secret");
        let minimal = redis_node::observe_node(&address(&server), &minimal).await.unwrap();
        assert_eq!(minimal.settings.dir, None, "{version}");
        assert!(minimal.settings.missing.unwrap().contains("CONFIG GET"), "{version}");
        assert_eq!(minimal.settings.maxmemory_bytes, Some(1 << 30), "{version}");
        assert_eq!(minimal.sentinel_watched, None, "{version}");

        let full = redis_node::observe_node(&address(&server), &Access::default()).await.unwrap();
        assert_eq!(full.server.flavour, version.flavour);
        let numbers = version.numbers.map(|number| number.to_string()).join(".");
        assert_eq!(full.server.version, numbers);
        assert_eq!(full.settings.dir, Some(server.data_dir().display().to_string()), "{version}");
        assert_eq!(full.settings.databases, Some(5), "{version}");
        assert_eq!(full.settings.appendonly, Some(false), "{version}");
        assert_eq!(full.settings.missing, None, "{version}");
        assert_eq!(full.sentinel_watched, Some(false), "{version}");
    }
}

#[tokio::test]
async fn a_refused_login_and_a_missing_permission_are_named() {
    let folder = TempDir::new().unwrap();
    for version in Version::all() {
        let without_psync = MINIMAL.replace("user backup", "user blind").replace("+psync ", "");
        let without_info = MINIMAL.replace("user backup", "user mute").replace("+info ", "");
        let without_time = MINIMAL.replace("user backup", "user late").replace("+time", "");
        let server = Options::new(&version)
            .config(MINIMAL)
            .config(without_psync)
            .config(without_info)
            .config(without_time)
            .password("other")
            .start();
        let failure =
            async |access: &Access| capture(&server, access, folder.path()).await.unwrap_err();
        let error = failure(&as_user("backup", "wrong")).await;
        assert!(matches!(error, Error::AuthenticationRefused { .. }), "{version}: {error}");
        assert!(error.to_string().contains("WRONGPASS"), "{version}: {error}");
        assert!(!error.to_string().contains("wrong\""), "{version}: {error}");
        let error = failure(&Access::default()).await;
        assert!(error.to_string().contains("give a password"), "{version}: {error}");
        for (username, rule) in [("blind", "+psync"), ("mute", "+info"), ("late", "+time")] {
            let error = failure(&as_user(username, "secret")).await;
            assert!(matches!(error, Error::PermissionDenied { .. }), "{version}: {error}");
            assert!(error.to_string().contains(rule), "{version}: {error}");
        }
    }
}

#[tokio::test]
async fn who_does_not_listen_is_unreachable() {
    let mut server = Server::start(&Version::usual(), &[]);
    server.kill9();
    let error = redis_node::observe_node(&address(&server), &Access::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let error = redis_node::observe(&source(&server.url()), &by_default_user()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_frozen_server_is_a_timeout() {
    let mut server = Server::start(&Version::usual(), &[]);
    server.freeze();
    let access = Access { response_timeout: Duration::from_millis(300), ..Access::default() };
    let error = redis_node::observe_node(&address(&server), &access).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

fn over_tls(certificates: &Certificates, server_name: Option<&str>) -> Access {
    let files = tls::Files {
        ca: Some(certificates.authority()),
        certificate: Some(certificates.file("client.crt")),
        key: Some(certificates.file("client.key")),
    };
    Access { tls: Some(Tls::load(&files, server_name).unwrap()), ..Access::default() }
}

#[tokio::test]
async fn tls_captures_with_the_right_certificates_and_names_what_is_wrong_with_others() {
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let folder = TempDir::new().unwrap();
    for version in Version::all_with_tls() {
        let server = Options::new(&version).tls(&ours).start();
        fill(&server);
        for name in [None, Some("localhost")] {
            let access = over_tls(&ours, name);
            assert!(capture(&server, &access, folder.path()).await.unwrap() > 1_000_000);
        }
        let anonymous = tls::Files { ca: Some(ours.authority()), ..tls::Files::default() };
        let anonymous = Tls::load(&anonymous, None).unwrap();
        let anonymous = Access { tls: Some(anonymous), ..Access::default() };
        for (access, expected) in [
            (over_tls(&theirs, None), "set tls.caFile"),
            (over_tls(&ours, Some("redis.example")), "set tls.serverName"),
            (anonymous, "set tls.certFile and tls.keyFile"),
        ] {
            let error = capture(&server, &access, folder.path()).await.unwrap_err();
            assert!(matches!(error, Error::Tls { .. }), "{version}: {error:?}");
            assert!(error.to_string().contains(expected), "{version}: {error}");
        }
        let error = capture(&server, &Access::default(), folder.path()).await.unwrap_err();
        assert!(matches!(error, Error::Cut { .. } | Error::Protocol { .. }), "{version}: {error}");

        let plain = Server::start(&version, &[]);
        let hasty = Access { connect_timeout: Duration::from_secs(1), ..over_tls(&ours, None) };
        let error = capture(&plain, &hasty, folder.path()).await.unwrap_err();
        assert!(error.to_string().contains("TLS port"), "{version}: {error}");
    }
}

/// More than all socket buffers hold.
pub fn fill_much(server: &Server) {
    let () = server.command("CONFIG SET rdbcompression no");
    let () = server.command("DEBUG POPULATE 60000 key 1000");
}

#[tokio::test]
async fn a_server_killed_in_mid_transfer_is_an_error() {
    for version in Version::all() {
        for (diskless, expected) in [("yes", "without the mark"), ("no", " of ")] {
            let diskless = format!("repl-diskless-sync {diskless}");
            let mut server = Server::start(&version, &[&diskless]);
            fill_much(&server);
            let access = Access::default();
            let node = redis_node::observe_node(&address(&server), &access).await.unwrap();
            let limits = Limits::default();
            let mut snapshot =
                Snapshot::begin(&address(&server), &access, &node.server, limits).await.unwrap();
            let mut buffer = BytesMut::with_capacity(1 << 20);
            assert!(snapshot.read(&mut buffer).await.unwrap() > 0);
            let child: Vec<String> = children(server.pid());
            server.kill9();
            // A child that writes to the socket by itself outlives its parent.
            for child in child {
                let _ = Command::new("kill").args(["-9", &child]).status();
            }
            let error = loop {
                buffer.clear();
                match snapshot.read(&mut buffer).await {
                    Ok(0) => panic!("{version}, {diskless}: a cut passes for an end"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, Error::Cut { .. }), "{version}: {error}");
            assert!(error.to_string().contains(expected), "{version}, {diskless}: {error}");
        }
    }
}

fn children(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

pub fn source(url: &str) -> SourceAddress {
    url.parse::<SourceUrl>().unwrap().address
}
