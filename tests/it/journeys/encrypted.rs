//! Encrypted backups: taken without an identity, read with one, by this program and by age itself. Nothing without it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Tool, into, listing, restore_and_compare, start_and_compare, wipe};
use crate::servers::{
    Version,
    dataset::{Digest, fill},
    redis::Server,
    s3::{ACCESS_KEY, REGION, S3Server, SECRET_KEY},
    version::folder,
};

const KEYS: usize = 600;

/// A value that nothing outside an encrypted archive may hold.
const NEEDLE: &str = "needle-in-a-key-name";

/// Pairs made for these tests; the public half lies beside the secret one.
pub(super) fn key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys").join(name)
}

pub(super) fn identity(name: &str) -> String {
    format!("file:{}", key(name).display())
}

pub(super) fn public(name: &str) -> String {
    let text = fs::read_to_string(key(&format!("{name}.pub"))).unwrap();
    text.trim().to_owned()
}

fn filled(version: &Version, seed: u64) -> (Server, Digest) {
    let server = Server::start(version, &[]);
    fill(&mut server.connection(), seed, KEYS);
    let () = server.command(&format!("SET {NEEDLE} value"));
    let digest = Digest::of(&mut server.connection());
    (server, digest)
}

fn back_up(tool: &Tool, server: &Server, recipients: &[&str]) -> String {
    let mut arguments = vec!["--source-url".to_owned(), server.url()];
    for name in recipients {
        arguments.extend(["--recipient".to_owned(), public(name)]);
    }
    let report = tool.done("backup", &arguments);
    report["backups"][0]["backup"].as_str().unwrap().to_owned()
}

/// Said to be in clear, an encrypted archive is no archive.
#[test]
fn an_encrypted_backup_whose_manifest_denies_it_is_broken() {
    let version = Version::usual();
    let (server, _source) = filled(&version, 87);
    let tool = Tool::new(&version);
    let backup = back_up(&tool, &server, &["x25519"]);
    let path = tool.store().join(format!("journey/manifests/{backup}.json"));
    let manifest = fs::read_to_string(&path).unwrap();
    fs::write(&path, manifest.replace("\"encryption\": \"age\"", "\"encryption\": \"none\""))
        .unwrap();
    tool.fails("verify", &[backup.as_str()], 20);
}

/// What a store holds, without the archives that are named encrypted, has no key's name and no plain digest.
fn assert_nothing_in_clear(store: &Path, plain: &[&str]) {
    let mut encrypted = 0;
    for path in listing(store).keys().filter(|path| path.is_file()) {
        let bytes = fs::read(path).unwrap();
        if path.to_string_lossy().contains(".age.") {
            assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "{}", path.display());
            encrypted += 1;
        }
        let text = String::from_utf8_lossy(&bytes);
        for secret in plain.iter().chain(&[NEEDLE]) {
            assert!(!text.contains(secret), "{secret} stands in {}", path.display());
        }
    }
    assert_eq!(encrypted, 2, "the RDB and the installation");
}

#[test]
fn an_encrypted_backup_needs_its_identity_to_be_read_and_for_nothing_else() {
    let version = Version::usual();
    let (mut server, source) = filled(&version, 81);
    let tool = Tool::new(&version);
    back_up(&tool, &server, &["x25519", "ed25519"]);
    assert_eq!(tool.backups().len(), 1);
    let manifest = tool.manifest();
    assert_eq!(manifest["shards"][0]["archives"][0]["encryption"], "age");
    assert_eq!(manifest["installation"]["encryption"], "age");
    tool.done("verify", &["--latest", "--level", "stored"]);

    for name in ["x25519", "ed25519"] {
        let identity = identity(name);
        let by = ["--latest", "--identity-from", &identity];
        tool.done("verify", &[&by[..], &["--level", "content"]].concat());
        tool.done("verify", &[&by[..], &["--level", "load"]].concat());
    }
    let tool = tool.with_config(&format!(
        "encryption: {{identityFrom: {{file: {}}}}}\n",
        key("x25519").display()
    ));
    let fetched = tool.done("fetch", &["--latest", "--into", "fetched"]);
    let digest = fetched["files"][0]["sha256"].as_str().unwrap();
    assert_nothing_in_clear(&tool.store(), &[digest]);
    server.kill9();
    restore_and_compare(&tool, &mut server, &source);
}

#[test]
fn an_encrypted_backup_comes_back_from_s3() {
    let version = Version::named("valkey-8.1");
    let (mut server, source) = filled(&version, 82);
    let s3 = S3Server::start(false);
    s3.create_bucket("sealed", true);
    let tool = Tool::new(&version)
        .with_environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .with_environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .with_environment("IDENTITY", &fs::read_to_string(key("rsa")).unwrap())
        .with_store(&format!(
            "s3://sealed/prefix?endpoint={}&region={REGION}&pathStyle=true",
            s3.endpoint()
        ))
        .with_config(&format!(
            "sources:\n  journey:\n    nodes: [{}]\n    encryption: {{recipientsFile: {}}}\n\
             encryption: {{identityFrom: {{env: IDENTITY}}}}\n",
            server.url(),
            key("rsa.pub").display(),
        ));
    tool.done("backup", &[] as &[&str]);
    tool.done("verify", &["--latest", "--level", "stored"]);
    tool.verify_by_load();
    server.kill9();
    restore_and_compare(&tool, &mut server, &source);
}

#[test]
fn a_missing_or_wrong_identity_is_told_and_changes_nothing() {
    let version = Version::usual();
    let (server, _source) = filled(&version, 83);
    let tool = Tool::new(&version);
    back_up(&tool, &server, &["x25519", "rsa"]);
    super::save(&server);
    drop(server);
    let target = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(target.path().join("dump.rdb"), "the old dataset").unwrap();
    let before = (listing(&tool.store()), listing(target.path()));
    let into = target.path().display().to_string();
    let fetch = target.path().join("fetched").display().to_string();
    let restore = ["--latest", "--data-dir", &into, "--redis-defaults"];
    let dry_run = [&restore[..], &["--dry-run"]].concat();
    let calls: [(&str, &[&str]); 5] = [
        ("verify", &["--latest"]),
        ("verify", &["--latest", "--level", "load"]),
        ("fetch", &["--latest", "--into", &fetch]),
        ("restore", &restore),
        ("restore", &dry_run),
    ];
    let other = identity("ed25519");
    for (verb, arguments) in calls {
        let said = tool.fails(verb, arguments, 2);
        assert!(said.contains("encrypted to 1 X25519, 1 ssh-rsa"), "{verb}: {said}");
        assert!(said.contains("no identity was given"), "{verb}: {said}");
        let wrong = [arguments, &["--identity-from", &other]].concat();
        let said = tool.fails(verb, &wrong, 2);
        assert!(said.contains("none of the given identities opens it"), "{verb}: {said}");
        let gone = [arguments, &["--identity-from", "file:/is/not/there"]].concat();
        let said = tool.fails(verb, &gone, 2);
        assert!(said.contains("read the identity file /is/not/there"), "{verb}: {said}");
    }
    let after = (listing(&tool.store()), listing(target.path()));
    assert_eq!(after, before, "no record, no file");
    tool.done("restore", &[&restore[..], &["--identity-from", &identity("rsa")]].concat());
}

#[test]
fn keys_that_cannot_be_used_are_told_and_never_repeated() {
    let version = Version::usual();
    let server = Server::start(&version, &[]);
    let tool = Tool::new(&version);
    let secret = fs::read_to_string(key("x25519")).unwrap();
    let secret = secret.lines().find(|line| line.starts_with("AGE-SECRET")).unwrap();
    let url = server.url();
    let by_flag = ["--source-url", &url, "--recipient", secret];
    let run = tool.run("backup", &by_flag);
    assert_eq!(run.exit, Some(2), "{run:#?}");
    assert!(run.report["error"].as_str().unwrap().contains("a secret key"), "{run:#?}");
    assert!(!format!("{run:?}").contains(&secret[20..]), "{run:#?}");

    let config = |recipient: &str| {
        format!(
            "sources:\n  journey:\n    nodes: [{url}]\n    encryption:\n      recipients:\n        - {}\n        - {recipient}\n",
            public("x25519")
        )
    };
    let tool = tool.with_config(&config(secret));
    let run = tool.run("backup", &[] as &[&str]);
    let said = run.report["error"].as_str().unwrap();
    assert!(said.starts_with("redis-backup.yaml:"), "{said}");
    assert!(said.contains("encryption.recipients: recipient 2: this is an identity"), "{said}");
    assert!(!format!("{run:?}").contains(&secret[20..]), "{run:#?}");

    let tool = tool.with_config(&config("age1nobody"));
    assert!(tool.fails("backup", &[] as &[&str], 2).contains("this is no recipient"));
    let tool = tool.with_config("stores: {}\n");
    back_up(&tool, &server, &["ed25519"]);
    let passphrase = identity("ed25519-passphrase");
    let said = tool.fails("verify", &["--latest", "--identity-from", &passphrase], 2);
    assert!(said.contains("itself encrypted with a passphrase"), "{said}");
    let run = tool.run("verify", &["--latest", "--identity-from", secret]);
    assert_eq!(run.exit, Some(2), "{run:#?}");
    assert!(!format!("{run:?}").contains(&secret[20..]), "{run:#?}");
}

#[test]
fn old_backups_stay_readable_by_the_old_identity_after_a_rotation() {
    let version = Version::usual();
    let (mut server, source) = filled(&version, 84);
    let tool = Tool::new(&version);
    let old = back_up(&tool, &server, &["x25519"]);
    let new = back_up(&tool, &server, &["ed25519"]);
    for (backup, opens, does_not) in [(&old, "x25519", "ed25519"), (&new, "ed25519", "x25519")] {
        tool.done("verify", &[backup, "--identity-from", &identity(opens)]);
        tool.fails("verify", &[backup, "--identity-from", &identity(does_not)], 2);
    }
    // With both, nobody needs to know which is which.
    let both = ["--identity-from", &identity("x25519"), "--identity-from", &identity("ed25519")];
    tool.done("verify", &[&["--all"], &both[..]].concat());
    server.kill9();
    wipe(&server);
    let arguments = into(&server, &[&[old.as_str()], &both[..]].concat());
    tool.done("restore", &arguments);
    start_and_compare(&mut server, &source);
}

#[test]
fn damaged_ciphertext_is_a_broken_backup_also_where_it_looks_like_another_key() {
    let version = Version::usual();
    let (server, _source) = filled(&version, 85);
    let tool = Tool::new(&version);
    let by = identity("x25519");
    for part in ["shard-0000/dump.rdb.zst.age.000", "installation.json.zst.age.000"] {
        let backup = back_up(&tool, &server, &["x25519"]);
        let object = tool.store().join("journey/archives").join(&backup).join(part);
        let whole = fs::read(&object).unwrap();
        // In the header the recipient's own part, behind it the first and the last of the bytes.
        let share = whole.windows(3).position(|bytes| bytes == b"-> ").unwrap() + 20;
        for at in [0, share, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            // Still a letter of base64, so that the header can be read.
            damaged[at] = if whole[at] == b'A' { b'B' } else { b'A' };
            fs::write(&object, damaged).unwrap();
            let run = tool.run("verify", &[&backup, "--identity-from", &by]);
            assert_eq!(run.exit, Some(20), "{part} at {at}: {run:#?}");
        }
        fs::write(&object, &whole[..whole.len() - 1]).unwrap();
        let run = tool.run("verify", &[&backup, "--identity-from", &by]);
        assert_eq!(run.exit, Some(20), "{part} cut: {run:#?}");
        let shown: Value = tool.done("show", &[&backup]);
        let record = &shown["records"][0]["event"]["verified"]["findings"][0];
        assert!(record.as_str().unwrap().contains("1 findings, told to whoever"), "{shown:#}");
    }
}

#[test]
fn what_is_stored_opens_by_age_itself() {
    let version = Version::usual();
    let (server, _source) = filled(&version, 86);
    let tool = Tool::new(&version);
    let backup = back_up(&tool, &server, &["x25519", "ed25519", "rsa"]);
    let fetch = ["--latest", "--into", "fetched", "--identity-from", &identity("rsa")];
    tool.done("fetch", &fetch);
    let fetched = fs::read(tool.folder().join("fetched/dump.rdb")).unwrap();
    let shard = tool.store().join("journey/archives").join(backup).join("shard-0000");
    for name in ["x25519", "ed25519", "rsa"] {
        let identity = tool.folder().join("identity");
        fs::copy(key(name), &identity).unwrap();
        let by_hand = Command::new("sh")
            .arg("-c")
            .arg("cat dump.rdb.zst.age.* | \"$AGE\" -d -i \"$IDENTITY\" | zstd -d -q")
            .env("AGE", folder("age").join("bin/age"))
            .env("IDENTITY", identity)
            .current_dir(&shard)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(by_hand.status.success(), "{name}: {by_hand:?}");
        assert!(by_hand.stdout == fetched, "{name}: other bytes");
    }
}
