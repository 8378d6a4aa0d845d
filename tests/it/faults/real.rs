//! What really happens: servers die, hang and refuse, lines are slow, disks are full. The exit is documented, the text names the thing and the fix, no secret is told.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use tempfile::TempDir;

use super::{
    bench::{BUCKET, Bench, Ended, Place, SOURCE, digest, files, fill, on_disk, run, s3_text},
    signals::{ended, send},
    tally::Tally,
};
use crate::{
    servers::{
        Certificates, Version,
        redis::{Options, Server},
        replicated::Replicated,
        s3::SECRET_KEY,
        wait_for,
    },
    tcp_proxy::{Fault, TcpProxy},
};

/// In every message, log and object this must not be found.
const PASSWORD: &str = "correct-horse-battery";

/// So slow that the transfer is met in its middle.
pub(super) const SLOW_LINES: [&str; 1] = ["rdb-key-save-delay 2000"];

/// A tmpfs of so many MiB, gone when dropped.
pub(super) struct SmallVolume(pub(super) TempDir);

impl SmallVolume {
    pub(super) fn mount(mebibytes: u32) -> Self {
        let folder = on_disk();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path());
        assert!(mount.status().unwrap().success(), "mount needs root");
        Self(folder)
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

pub(super) fn spawn(command: &mut Command) -> std::process::Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The failure as `--output json` tells it.
#[track_caller]
fn assert_fails(ended: &Ended, code: u8, texts: &[&str]) {
    ended.assert_code(code);
    let report = ended.json();
    for text in texts {
        assert!(report.to_string().contains(text), "{text:?} is not told: {report}");
    }
    assert_ne!(report["hint"].as_str().unwrap(), "");
    assert_tells_no_secret(ended);
}

#[track_caller]
fn assert_tells_no_secret(ended: &Ended) {
    for secret in [PASSWORD, SECRET_KEY] {
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{ended:?}");
    }
}

#[track_caller]
fn assert_holds_no_secret(folder: &Path) {
    for file in files(folder) {
        let bytes = fs::read(&file).unwrap();
        for secret in [PASSWORD, SECRET_KEY] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret", file.display());
        }
    }
}

/// Waits until a server sends its dataset to a backup.
fn wait_for_transfer(server: &Server) {
    wait_for("a transfer", || (server.info("rdb_bgsave_in_progress")? == "1").then_some(()));
}

#[test]
fn a_redis_that_dies_in_mid_transfer_leaves_no_backup() {
    let mut tally = Tally::of("backup into S3", "the Redis dies in mid-transfer");
    let source = Server::start(&Version::usual(), &SLOW_LINES);
    let mut bench = Bench::on(source, Place::s3(), 150);
    let run = spawn(&mut bench.backup());
    wait_for_transfer(&bench.source);
    bench.source.kill9();
    assert_fails(&ended(run), 10, &["capture shard 0 from 127.0.0.1", "cut", "run again"]);
    assert!(bench.listed().is_empty());
    bench.assert_nothing_remains();
    assert_eq!(bench.runs().last().unwrap()["exit"], 10);
    tally.ended();
    tally.write();
}

#[test]
fn another_replica_takes_over_from_one_that_dies_in_mid_transfer() {
    let mut tally =
        Tally::of("backup into a directory", "the replica that is captured dies, another is there");
    let options = Options::new(&Version::usual()).config(SLOW_LINES[0]);
    let Replicated { primary, mut replicas } = Replicated::of(&options, 2);
    let bench = Bench::on(primary, Place::directory(), 100);
    let offsets = || {
        let offset = |server: &Server| server.info("master_repl_offset").unwrap();
        replicas.iter().all(|replica| offset(replica) == offset(&bench.source)).then_some(())
    };
    wait_for("the replicas to hold all", offsets);
    let run = spawn(&mut bench.backup());
    let chosen = wait_for("a transfer", || {
        let is_captured = |it: &Server| it.info("rdb_bgsave_in_progress").unwrap() == "1";
        replicas.iter().position(is_captured)
    });
    replicas[chosen].kill9();
    let ended = ended(run);
    ended.assert_code(0);
    ended.assert_says(&["trying the next way"]);
    assert_eq!(bench.assert_listed_are_whole(&mut std::collections::BTreeSet::default()), 1);
    bench.assert_nothing_remains();
    tally.held();
    tally.write();
}

#[test]
fn an_s3_server_that_dies_or_freezes_in_mid_upload_leaves_no_backup() {
    let mut tally = Tally::of("backup into S3", "the store dies or freezes in mid-upload");
    let source = Server::start(&Version::usual(), &SLOW_LINES);
    let mut bench = Bench::on(source, Place::s3(), 300);
    let before = digest(&bench.source);
    let run = spawn(&mut bench.backup());
    wait_for("an upload", || (!bench.place.unfinished().is_empty()).then_some(()));
    let Place::S3(server) = &mut bench.place else { panic!("S3") };
    server.stop();
    assert_fails(&ended(run), 11, &["store", BUCKET, "run again when the store answers"]);
    let Place::S3(server) = &mut bench.place else { panic!("S3") };
    server.start_again();
    assert!(bench.listed().is_empty());

    let run = spawn(&mut bench.backup());
    let left = bench.place.unfinished().len();
    wait_for("an upload", || (bench.place.unfinished().len() > left).then_some(()));
    let Place::S3(server) = &mut bench.place else { panic!("S3") };
    server.freeze();
    // The store is frozen, the source is not held: its fork ends all the same.
    wait_for("the fork of the source to end", || {
        (bench.source.info("rdb_bgsave_in_progress")? == "0").then_some(())
    });
    wait_for("the line of the source to end", || {
        (bench.source.info("connected_slaves")? == "0").then_some(())
    });
    send(&run, rustix::process::Signal::TERM);
    let stopped = ended(run);
    let Place::S3(server) = &mut bench.place else { panic!("S3") };
    server.thaw();
    stopped.assert_code(143);
    assert!(bench.listed().is_empty());
    assert_eq!(digest(&bench.source), before);
    bench.back_up();
    assert_eq!(bench.listed().len(), 1);
    tally.ended();
    tally.ended();
    tally.write();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_and_one_that_is_busy_at_first_hold_no_fork_and_get_the_backup() {
    let mut tally = Tally::of("backup into S3", "the store is busy (500, 503) and then slow");
    let bench = Bench::new(Place::s3(), 300);
    let Place::S3(server) = &bench.place else { panic!("S3") };
    let proxy = TcpProxy::start(server.port).await;
    proxy.add("PUT", 1, Fault::Answer(500));
    proxy.add("POST", 1, Fault::Answer(503));
    proxy.add("partNumber=1", 1, Fault::Answer(503));
    proxy.add("partNumber", 64, Fault::Slow);
    let run = spawn(&mut bench.backup_at(&s3_text(&proxy.endpoint())));
    let run = thread::spawn(move || ended(run));
    // The source is drained long before the store has it all.
    wait_for("the source to be drained", || {
        let is_done = bench.source.info("rdb_bgsave_in_progress")? == "0"
            && bench.source.info("total_forks")? != "0";
        is_done.then_some(())
    });
    let ended = run.join().unwrap();
    ended.assert_code(0);
    assert!(proxy.count("partNumber=1") > 1, "the busy answer was not met");
    assert_eq!(bench.assert_listed_are_whole(&mut std::collections::BTreeSet::default()), 1);
    bench.assert_nothing_remains();
    tally.held();
    tally.write();
}

#[test]
fn a_full_store_is_told_and_nothing_is_left() {
    let mut tally = Tally::of("backup into a directory", "the store is full");
    let volume = SmallVolume::mount(4);
    let bench = Bench::new(Place::directory(), 150);
    let store = volume.0.path().join("backups");
    let ended = run(&mut bench.backup_at(&store.display().to_string()));
    assert_fails(&ended, 11, &["no space left in the store", "make room"]);
    let left: Vec<_> =
        files(&store).into_iter().filter(|path| !path.ends_with("origin.json")).collect();
    assert!(
        left.iter().all(|path| path.components().any(|part| part.as_os_str() == "runs")),
        "{left:?}"
    );
    tally.ended();
    tally.write();
}

#[test]
fn a_full_spool_ends_the_backup_and_one_in_memory_is_refused() {
    let mut tally =
        Tally::of("backup into S3", "the spool is full, lies in memory or cannot hold what it may");
    let mut bench = Bench::new(Place::s3(), 700);
    let spool = |path: &Path, size: &str| {
        format!("    spool: {{path: \"{}\", bytesMax: {size}}}", path.display())
    };
    let folder = bench.folder.path().to_owned();
    let mut backup = bench.backup_configured(&bench.place.text(), &spool(&folder, "1MiB"));
    let Place::S3(server) = &mut bench.place else { panic!("S3") };
    let run_one = spawn(&mut backup);
    // Frozen in mid-upload: what the source sends has nowhere to go.
    let root = server.data_dir().join(BUCKET).join(".sgwtmp/multipart");
    wait_for("an upload", || {
        (!files(&root).is_empty() || !super::bench::entries(&root).is_empty()).then_some(())
    });
    server.freeze();
    let full = ended(run_one);
    server.thaw();
    assert_fails(&full, 11, &["spool", "bytesMax", "too slowly"]);
    assert!(bench.listed().is_empty());

    let mut backup =
        bench.backup_configured(&bench.place.text(), &spool("/dev/shm".as_ref(), "1MiB"));
    assert_fails(&run(&mut backup), 23, &["/dev/shm", "tmpfs", "spool: {path, bytesMax}"]);
    let mut backup = bench.backup_configured(&bench.place.text(), &spool(&folder, "900TiB"));
    assert_fails(&run(&mut backup), 23, &["bytes free", "spool: {path, bytesMax}"]);
    assert_eq!(bench.source.info("connected_slaves").as_deref(), Some("0"));
    tally.ended();
    tally.ended();
    tally.ended();
    tally.write();
}

#[test]
fn a_full_data_directory_is_refused_before_anything_is_touched() {
    let mut tally = Tally::of("restore into a data directory", "the volume is too small");
    let bench = Bench::new(Place::directory(), 150);
    let backup = bench.back_up();
    let volume = SmallVolume::mount(4);
    let dump = volume.0.path().join("dump.rdb");
    fs::write(&dump, "the old dataset").unwrap();
    let mut restore = bench.verb(&format!("restore {backup} --output json --redis-defaults"));
    restore.args(["--server-version", "7.0.15", "--data-dir"]).arg(volume.0.path());
    assert_fails(&run(&mut restore), 23, &["make room on the volume"]);
    assert_eq!(fs::read(&dump).unwrap(), b"the old dataset");
    assert_eq!(files(volume.0.path()), [dump]);
    tally.ended();
    tally.write();
}

#[test]
fn a_wrong_password_or_one_without_rights_is_named_and_never_told() {
    let mut tally =
        Tally::of("backup into a directory", "the password is wrong, or its user has no rights");
    let source = Options::new(&Version::usual())
        .config(format!(
            "user poor on >{PASSWORD} resetkeys -@all +ping +info +role +time +replconf"
        ))
        .password(PASSWORD)
        .start();
    let bench = Bench::on(source, Place::directory(), 1);
    let store = bench.place.text();
    let with = |name: &str, password: &str| {
        let auth = format!("    auth: {{username: {name}, passwordFrom: {{env: SECRET}}}}");
        let mut backup = bench.backup_configured(&store, &auth);
        run(backup.arg("-vv").env("SECRET", password))
    };
    assert_fails(&with("default", "wrong-horse"), 10, &["127.0.0.1", "password"]);
    assert!(!with("default", "wrong-horse").stderr.contains("wrong-horse"));
    assert_fails(&with("poor", PASSWORD), 10, &["psync"]);
    assert!(bench.listed().is_empty());
    let done = with("default", PASSWORD);
    done.assert_code(0);
    assert_tells_no_secret(&done);
    let checked = run(bench
        .program()
        .args(["check", "--output", "json", "-vv", "--config"])
        .arg(bench.folder.path().join("config.yaml"))
        .args(["--store", &store])
        .env("SECRET", PASSWORD));
    assert_tells_no_secret(&checked);
    assert_holds_no_secret(&bench.place.root());
    assert_holds_no_secret(bench.folder.path());
    tally.ended();
    tally.ended();
    tally.write();
}

#[test]
fn a_wrong_authority_is_named() {
    let mut tally = Tally::of("backup into a directory", "the certificate is of another authority");
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let source = Options::new(&Version::usual()).tls(&certificates).start();
    let bench = Bench::on(source, Place::directory(), 1);
    let with = |authority: &Certificates| {
        let mut backup = bench.backup();
        backup.arg("--tls-ca").arg(authority.authority());
        backup.arg("--tls-cert").arg(certificates.file("client.crt"));
        backup.arg("--tls-key").arg(certificates.file("client.key"));
        run(&mut backup)
    };
    assert_fails(&with(&others), 10, &["127.0.0.1", "certificate"]);
    assert!(bench.listed().is_empty());
    with(&certificates).assert_code(0);
    tally.ended();
    tally.write();
}

#[test]
fn a_store_that_refuses_is_named_with_the_right_that_is_missing() {
    let mut tally =
        Tally::of("backup", "the store refuses: a wrong key, a volume that is read-only");
    let bench = Bench::new(Place::s3(), 1);
    let mut backup = bench.backup();
    backup.env("AWS_SECRET_ACCESS_KEY", "another-secret");
    let ended = run(&mut backup);
    assert_fails(&ended, 11, &[BUCKET, "the access key or its secret is wrong"]);
    assert!(!format!("{ended:?}").contains("another-secret"));
    assert!(bench.listed().is_empty());

    // Root may write where a mode forbids it, but not on a volume that is mounted read-only.
    let volume = SmallVolume::mount(64);
    let mut mount = Command::new("mount");
    mount.args(["-o", "remount,ro"]).arg(volume.0.path());
    assert!(mount.status().unwrap().success());
    let ended = run(&mut bench.backup_at(&volume.0.path().display().to_string()));
    let path = volume.0.path().display().to_string();
    assert_fails(&ended, 11, &[&path, "read-only", "grant what the message names"]);
    tally.ended();
    tally.ended();
    tally.write();
}

#[test]
fn what_the_store_holds_is_no_secret() {
    let bench =
        Bench::on(Options::new(&Version::usual()).password(PASSWORD).start(), Place::s3(), 1);
    fill(&bench.source, 1, 3);
    let mut backup = bench.backup();
    backup.args(["--password-from", "env:SECRET", "-vv", "--log", "json"]).env("SECRET", PASSWORD);
    let done = run(&mut backup);
    done.assert_code(0);
    assert_tells_no_secret(&done);
    assert_holds_no_secret(&bench.place.root());
    let fetched = bench.folder.path().join("fetched");
    let mut fetch = bench.verb("fetch --latest");
    run(fetch.arg("--into").arg(&fetched)).assert_code(0);
    assert_holds_no_secret(&fetched);
    let installation =
        bench.place.archives().into_iter().find(|key| key.contains("installation")).unwrap();
    let packed = fs::File::open(bench.place.root().join(installation)).unwrap();
    let plain = String::from_utf8(zstd::decode_all(packed).unwrap()).unwrap();
    assert!(plain.contains(SOURCE) && !plain.contains(PASSWORD), "{plain}");
}
