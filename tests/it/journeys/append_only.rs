//! A backup that holds append-only files of real servers: proven, fetched, restored, and every value compared.

use std::{fs, path::PathBuf};

use redis_backup::domain::{
    aof::{
        Scanner,
        list::{FileList, Role},
    },
    archive::{Codec, Encryption},
    catalog,
    digest::{Crc64Nvme, Digester, Sha256},
    identity::{BackupId, SourceName},
    installation::PlainArchive,
    manifest::{
        AofCapture, AofFile, AofRole, Archive, Manifest, NodeRole, Object, ReplicationPoint,
    },
    rdb::Expectations,
};
use serde_json::{Value, json};

use super::{Tool, configure, into, start, start_and_compare, wipe};
use crate::servers::{
    Version,
    dataset::{Digest, assert_same, fill},
    redis::{Options, Server},
    wait_for,
};

/// Files as they were captured.
const CLEAR: (Codec, Encryption) = (Codec::None, Encryption::None);

const KEYS: usize = 300;

/// A command and a transaction that a crash cut short.
const TAIL: &[u8] =
    b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\nlost\r\n$1\r\n1\r\n*3\r\n$3\r\nSET\r\n$4\r\nlo";

/// Where the values of every type are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    InBase,
    InCommands,
}

impl Values {
    /// Commands do not tell when a stream's consumer was last heard of.
    fn digest(self, server: &Server) -> Digest {
        match self {
            Self::InBase => Digest::of(&mut server.connection()),
            Self::InCommands => Digest::portable(&mut server.connection()),
        }
    }
}

/// A stopped server whose data directory is a source of append-only files.
struct Source {
    tool: Tool,
    server: Server,
    digest: Digest,
    /// Role, number and bytes of each file, in the order in which a server loads them.
    files: Vec<(PathBuf, AofRole, u64)>,
}

impl Source {
    /// An RDB is backed up, then a rewrite runs, then more is written.
    fn new(version: &Version, values: Values) -> Self {
        let mut options = Options::new(version).config("appendonly yes");
        if version.is_seven() {
            options = options
                .config("aof-timestamp-enabled yes")
                .config("appendfilename \"my Appendonly.aof\"");
        }
        let mut server = options.start();
        fill(&mut server.connection(), 31, KEYS);
        let tool = Tool::new(version);
        tool.back_up(&server.url());
        rewrite(&server);
        if values == Values::InCommands {
            let () = server.command("FLUSHALL");
            if version.is_seven() {
                let () = server.command("FUNCTION FLUSH");
            }
            fill(&mut server.connection(), 33, KEYS);
        }
        let mut pipeline = redis::pipe();
        pipeline
            .atomic()
            .cmd("LPUSH")
            .arg("list")
            .arg(&["b", "a"])
            .cmd("SET")
            .arg("one")
            .arg("1\r\n*3\r\n")
            .cmd("SET")
            .arg("two")
            .arg("2");
        let () = pipeline.query(&mut server.connection()).unwrap();
        let point = ReplicationPoint {
            id: server.info("master_replid").unwrap(),
            offset: server.info("master_repl_offset").unwrap().parse().unwrap(),
        };
        let digest = values.digest(&server);
        server.kill9();
        let files = files(&server);
        let source = Self { tool, server, digest, files };
        source.put_into_backup(point);
        source
    }

    /// Does what a capture of the data directory does.
    fn put_into_backup(&self, replication: ReplicationPoint) {
        let store = self.tool.store();
        let backup: BackupId = self.tool.backups()[0].parse().unwrap();
        let source: SourceName = "journey".parse().unwrap();
        let path = store.join(catalog::manifest_key(&source, &backup).as_str());
        let mut manifest = Manifest::decode(&fs::read(&path).unwrap()).unwrap();
        let mut plain = Vec::new();
        let mut captured = Vec::new();
        for (index, (file, role, sequence)) in self.files.iter().enumerate() {
            let bytes = fs::read(file).unwrap();
            let mut scanner = Scanner::new(&Expectations::default());
            scanner.feed(&bytes).unwrap();
            let facts = scanner.finish().unwrap().facts;
            assert_eq!(facts.whole_bytes, bytes.len() as u64, "{}", file.display());
            let archive = catalog::aof_archive(index);
            let key = catalog::archive_key(&source, &backup, 0, &archive, CLEAR, 0).unwrap();
            let objects = vec![write(&store, key, &bytes)];
            manifest.shards[0].archives.push(Archive {
                name: archive.clone(),
                codec: Codec::None,
                encryption: Encryption::None,
                objects,
            });
            let mut digester = Digester::default();
            digester.update(&bytes);
            plain.push(PlainArchive::new(&archive, &digester.finish()));
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            captured.push(AofFile { name, sequence: *sequence, role: *role, archive, facts });
        }
        manifest.shards[0].aof = Some(AofCapture {
            captured_at: manifest.ended,
            captured_from: NodeRole::Primary,
            replication,
            files: captured,
        });
        let old = manifest.installation.objects[0].key.as_str();
        let text = zstd::decode_all(&*fs::read(store.join(old)).unwrap()).unwrap();
        let mut installation: Value = serde_json::from_slice(&text).unwrap();
        let archives = installation["shards"][0]["archives"].as_array_mut().unwrap();
        archives.extend(plain.iter().map(|archive| json!(archive)));
        let key = catalog::installation_key(&source, &backup, CLEAR, 0);
        manifest.installation.codec = Codec::None;
        manifest.installation.objects =
            vec![write(&store, key, installation.to_string().as_bytes())];
        manifest.check().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, manifest.encode().unwrap()).unwrap();
    }
}

fn write(store: &std::path::Path, key: catalog::Key, bytes: &[u8]) -> Object {
    fs::write(store.join(key.as_str()), bytes).unwrap();
    Object {
        key,
        version_id: None,
        bytes: bytes.len() as u64,
        sha256: Sha256::of(bytes),
        crc64nvme: Crc64Nvme::of(bytes),
    }
}

fn rewrite(server: &Server) {
    let _: String = server.command("BGREWRITEAOF");
    wait_for("the rewrite to end", || {
        let is = |field: &str, value| server.info(field).as_deref() == Some(value);
        (is("aof_rewrite_in_progress", "0") && is("aof_rewrite_scheduled", "0")).then_some(())
    });
    assert_eq!(server.info("aof_last_bgrewrite_status").as_deref(), Some("ok"));
}

fn files(server: &Server) -> Vec<(PathBuf, AofRole, u64)> {
    if !server.version.is_seven() {
        return vec![(server.data_dir().join("appendonly.aof"), AofRole::Base, 1)];
    }
    let folder = server.data_dir().join("appendonlydir");
    let text = fs::read(folder.join("my Appendonly.aof.manifest")).unwrap();
    let list = FileList::parse(&text).unwrap();
    assert!(list.files().iter().all(|file| file.role != Role::History), "{list:?}");
    let found: Vec<_> = list
        .load_order()
        .map(|file| (folder.join(&file.name), file.role.into(), file.sequence))
        .collect();
    assert_eq!(found.len(), 2, "{list:?}");
    found
}

/// The path that names the whole set.
fn set(source: &Source) -> PathBuf {
    let (file, _, _) = &source.files[0];
    if source.server.version.is_seven() { file.parent().unwrap().to_owned() } else { file.clone() }
}

#[test]
fn append_only_files_of_every_version_come_back_value_by_value() {
    for version in Version::all() {
        let mut source = Source::new(&version, Values::InBase);
        let Source { tool, server, digest, files: _ } = &mut source;
        for level in ["content", "load"] {
            let report = tool.done("verify", &["--latest", "--level", level]);
            let backup = &report["backups"][0];
            assert_eq!(backup["proven"], true, "{version}: {report:#}");
            let evidence = backup["evidence"].to_string();
            assert!(evidence.contains("append-only file"), "{version}: {evidence}");
        }
        configure(server, "aof-load-truncated no");
        wipe(server);
        let plan = tool.done("restore", &into(server, &["--latest", "--dry-run"]));
        assert!(plan["steps"][0].as_str().unwrap().contains("append-only files"), "{plan:#}");
        let report = tool.done("restore", &into(server, &["--latest"]));
        let taken = report["steps"][0].as_str().unwrap();
        assert!(taken.starts_with("take the append-only files: it reaches to offset"), "{taken}");
        start_and_compare(server, digest);
        let () = server.command("SET since 1");
        rewrite(server);
        server.kill9();
        start(server);
        assert_eq!(server.command::<i64>("DEL since"), 1, "{version}");
        assert_same(digest, &Digest::of(&mut server.connection()));
        server.kill9();
        tool.done("restore", &into(server, &["--finish"])[..5]);
        start_and_compare(server, digest);
        server.kill9();
    }
}

#[test]
fn fetched_append_only_files_are_the_servers_own_and_start_one() {
    for version in [Version::named("redis-6.2"), Version::usual(), Version::named("valkey-newest")]
    {
        let mut source = Source::new(&version, Values::InCommands);
        let folder = source.tool.folder().join("fetched");
        let into = folder.display().to_string();
        source.tool.done("fetch", &["--latest", "--into", &into]);
        for (file, _, _) in &source.files {
            let fetched = folder.join("appendonlydir").join(file.file_name().unwrap());
            assert_eq!(fs::read(fetched).unwrap(), fs::read(file).unwrap());
        }
        let again = source.tool.fails("fetch", &["--latest", "--into", &into], 23);
        assert!(again.contains("is there already"), "{again}");
        wipe(&source.server);
        let data = source.server.data_dir();
        if version.is_seven() {
            fs::rename(folder.join("appendonlydir"), data.join("appendonlydir")).unwrap();
        } else {
            let from = folder.join("appendonlydir/appendonly.aof");
            fs::rename(from, data.join("appendonly.aof")).unwrap();
        }
        start(&mut source.server);
        assert_same(&source.digest, &Values::InCommands.digest(&source.server));
    }
}

#[test]
fn a_set_cut_where_inspect_says_loads_in_the_server_that_takes_no_cut_file() {
    for version in Version::all() {
        let mut source = Source::new(&version, Values::InCommands);
        let (last, _, _) = source.files.last().unwrap().clone();
        let whole = fs::read(&last).unwrap();
        fs::write(&last, [&whole[..], TAIL].concat()).unwrap();
        configure(&source.server, "aof-load-truncated no");
        source.server.try_start_again().unwrap_err();

        let report = source.tool.done("inspect", &[set(&source)]);
        let facts = &report["aof"]["files"].as_array().unwrap().last().unwrap()["facts"];
        assert_eq!(report["valid"], true, "{version}: {report:#}");
        assert_eq!(facts["wholeBytes"], whole.len() as u64, "{version}: {report:#}");
        assert_eq!(facts["bytes"], (whole.len() + TAIL.len()) as u64);
        // Redis annotates only when the second is another one.
        let is_annotated =
            whole.windows(5).any(|bytes| bytes == b"\n#TS:") || whole.starts_with(b"#TS:");
        assert_eq!(facts["firstTimestamp"].is_string(), is_annotated, "{report:#}");

        let cut = facts["wholeBytes"].as_u64().unwrap();
        fs::OpenOptions::new().write(true).open(&last).unwrap().set_len(cut).unwrap();
        start(&mut source.server);
        assert_same(&source.digest, &Values::InCommands.digest(&source.server));
    }
}

#[test]
fn a_broken_set_is_told_with_its_file_and_offset() {
    let source = Source::new(&Version::usual(), Values::InBase);
    let (base, increment) = (&source.files[0].0, &source.files[1].0);
    let whole = fs::read(increment).unwrap();
    let list = base.parent().unwrap().join("my Appendonly.aof.manifest");

    fs::write(increment, [&whole[..], b"PING\r\n"].concat()).unwrap();
    let run = source.tool.run("inspect", &[&list]);
    assert_eq!(run.exit, Some(20), "{run:?}");
    assert_eq!(run.report["error"]["offset"], whole.len() as u64);
    assert!(run.report["error"]["message"].as_str().unwrap().contains("incr.aof"), "{run:?}");

    let text = fs::read_to_string(&list).unwrap();
    fs::write(&list, format!("{text}file \"later\" seq 9 type i\n")).unwrap();
    let run = source.tool.run("inspect", &[&list]);
    assert_eq!(run.exit, Some(20), "{run:?}");
    fs::write(increment, &whole[..whole.len() - 1]).unwrap();
    fs::write(list.with_file_name("later"), "").unwrap();
    let run = source.tool.run("inspect", &[&list]);
    assert!(run.report["error"]["message"].as_str().unwrap().contains("cut short"), "{run:?}");
    fs::remove_file(increment).unwrap();
    let run = source.tool.run("inspect", &[&list]);
    assert!(run.report["error"]["message"].as_str().unwrap().contains("is missing"), "{run:?}");
}

#[test]
fn a_server_that_reads_no_append_only_files_gets_an_rdb_of_them_value_by_value() {
    for (version, values) in Version::all()
        .into_iter()
        .map(|version| (version, Values::InBase))
        .chain([(Version::usual(), Values::InCommands)])
    {
        let mut source = Source::new(&version, values);
        let Source { tool, server, digest, files: _ } = &mut source;
        configure(server, "appendonly no");
        wipe(server);
        let plan = tool.done("restore", &into(server, &["--latest", "--dry-run"]));
        assert!(plan["steps"][1].as_str().unwrap().contains("throw-away"), "{plan:#}");
        assert!(!server.data_dir().join("dump.rdb").exists());
        let report = tool.done("restore", &into(server, &["--latest"]));
        let taken = report["steps"][0].as_str().unwrap();
        assert!(taken.contains("makes an RDB of them"), "{version}: {taken}");
        start(server);
        assert_same(digest, &values.digest(server));
        server.kill9();
        // Where a server's version has a form of its own for that.
        if version.is_seven() {
            configure(server, "appendonly yes");
            start(server);
            assert_same(digest, &values.digest(server));
            server.kill9();
        }
        assert_eq!(fs::read_dir(tool.folder().join("tmp")).unwrap().count(), 0, "{version}");
    }
}

#[test]
fn without_a_server_that_could_make_an_rdb_none_is_restored_and_undo_brings_back_what_was() {
    let mut source = Source::new(&Version::usual(), Values::InBase);
    let Source { tool, server, digest, files: _ } = &mut source;
    configure(server, "appendonly no");
    // One of the other flavour, and one that is newer than the server that shall load its RDB.
    let newer = tool.clone().with_servers_of(&Version::named("redis-newest"));
    for (tool, server_version) in [(&*tool, "valkey-8.1.5"), (&newer, "7.0.15")] {
        let other = into(server, &["--latest", "--server-version", server_version]);
        let failed = tool.run("restore", &other);
        assert_eq!(failed.exit, Some(2), "{failed:?}");
        assert!(failed.report["hint"].as_str().unwrap().contains("--from rdb"), "{failed:?}");
    }
    let report = tool.done("restore", &into(server, &["--latest", "--from", "rdb", "--dry-run"]));
    assert!(report["steps"][0].as_str().unwrap().contains("take the RDB: as was asked for"));

    // Over a dataset of the other form, back, and forth once more.
    configure(server, "appendonly yes");
    wipe(server);
    start(server);
    let () = server.command("SET before 1");
    let () = server.command("SAVE");
    let before = Digest::of(&mut server.connection());
    server.kill9();
    tool.done("restore", &into(server, &["--latest", "--from", "aof"]));
    assert!(!server.data_dir().join("dump.rdb").exists());
    tool.done("restore", &into(server, &["--undo"])[..5]);
    assert!(server.data_dir().join("dump.rdb").exists());
    start_and_compare(server, &before);
    server.kill9();
    tool.done("restore", &into(server, &["--latest", "--from", "aof"]));
    start_and_compare(server, digest);
}
