//! Restores into data directories, killed at every act: a start finds the old dataset or the new, never neither.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use redis_backup::{
    domain::{
        compatibility::ServerVersion,
        dataset::{AppendOnly, Dataset, Form, Names},
        identity::BackupId,
        manifest::Flavour,
    },
    edge::data_directory::{
        Acts, Begun, DataDirectory, Error, Finished, Phase, Restore, Undone, look, state,
    },
};
use tempfile::TempDir;

use crate::{
    faults::tally::Tally,
    throw_away::{Server, installed, rdb_with},
};

/// More than any operation has.
const ACTS_MAX: usize = 200;

/// A directory as a server left it: names and contents, folders by their files.
type Tree = BTreeMap<&'static str, &'static [u8]>;

/// Contents to be found at the places of a dataset; real ones for real servers.
#[derive(Clone, Copy)]
struct Content {
    old_dump: &'static [u8],
    old_base: &'static [u8],
    old_increment: &'static [u8],
    new: &'static [u8],
}

const TEXT: Content = Content {
    old_dump: b"OLD-DUMP",
    old_base: b"OLD-BASE",
    old_increment: b"OLD-INCREMENT",
    new: b"NEW",
};

/// One start of the story: what lies there, and how the server is configured.
struct Case {
    name: &'static str,
    tree: Tree,
    names: Names,
    form: Form,
    server: &'static str,
}

fn cases(content: Content) -> Vec<Case> {
    let dump: Tree = BTreeMap::from([("dump.rdb", content.old_dump), ("nodes.conf", b"mine")]);
    let folder: Tree = BTreeMap::from([
        ("appendonlydir/appendonly.aof.1.base.rdb", content.old_base),
        ("appendonlydir/appendonly.aof.1.incr.aof", content.old_increment),
        (
            "appendonlydir/appendonly.aof.manifest",
            b"file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n".as_slice(),
        ),
    ]);
    let capital: Tree = BTreeMap::from([
        ("appendonlydir/Appendonly.aof.1.base.rdb", content.old_base),
        (
            "appendonlydir/Appendonly.aof.manifest",
            b"file Appendonly.aof.1.base.rdb seq 1 type b\n".as_slice(),
        ),
    ]);
    let single: Tree = BTreeMap::from([("appendonly.aof", content.old_base)]);
    let both = |one: &Tree, other: &Tree| one.iter().chain(other).map(|(&k, &v)| (k, v)).collect();
    let trees: [(&'static str, Tree, &'static str, &'static str); 8] = [
        ("empty", Tree::new(), "appendonly.aof", "7.0.15"),
        ("only dump", dump.clone(), "appendonly.aof", "7.0.15"),
        ("dump and folder", both(&dump, &folder), "appendonly.aof", "7.0.15"),
        ("capital", both(&dump, &capital), "Appendonly.aof", "7.0.15"),
        ("folder of another name", both(&dump, &folder), "Appendonly.aof", "7.0.15"),
        ("single file of 6.2 under 7.0", both(&dump, &single), "appendonly.aof", "7.0.15"),
        ("single file", both(&dump, &single), "appendonly.aof", "6.2.14"),
        ("empty for 6.2", Tree::new(), "appendonly.aof", "6.2.14"),
    ];
    let mut cases = Vec::new();
    for (name, tree, appendfilename, server) in trees {
        for (appendonly, form) in [(false, Form::Rdb), (true, Form::Rdb), (true, Form::Aof)] {
            let names =
                Names { appendonly, appendfilename: appendfilename.into(), ..Names::default() };
            cases.push(Case { name, tree: tree.clone(), names, form, server });
        }
    }
    // Tests name cases of the first form by their place.
    cases.sort_by_key(|case| case.form == Form::Aof);
    cases
}

impl Case {
    /// In memory where there is a folder for that: order is what is proven here, and a disk takes its time for
    /// each of thousands of syncs.
    fn lay_out(&self) -> TempDir {
        let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        for (name, content) in &self.tree {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn restore(&self, content: Content) -> Restore {
        Restore {
            backup: backup("a"),
            shard: 0,
            dataset: Dataset::new(self.names.clone(), self.form, self.server.parse().unwrap())
                .unwrap(),
            bytes: content.new.len() as u64,
        }
    }

    fn title(&self) -> String {
        format!("{}, appendonly {}, {:?}", self.name, self.names.appendonly, self.form)
    }

    /// The content that a server starts from: loadDataFromDisk of Redis in a nutshell.
    fn starts_from(&self, dir: &Path) -> Vec<u8> {
        if !self.names.appendonly {
            return fs::read(dir.join(&self.names.dbfilename)).unwrap_or_default();
        }
        let single = || fs::read(dir.join(&self.names.appendfilename)).unwrap_or_default();
        if !version(self.server).has_append_only_folder() {
            return single();
        }
        let folder = dir.join(&self.names.appenddirname);
        let manifest = folder.join(format!("{}.manifest", self.names.appendfilename));
        let Ok(manifest) = fs::read_to_string(manifest) else { return single() };
        assert!(manifest.ends_with('\n'));
        manifest
            .lines()
            .flat_map(|line| {
                let name = line.split(' ').nth(1).unwrap();
                fs::read(folder.join(name)).expect("a listed file is missing: refuses to start")
            })
            .collect()
    }
}

fn version(text: &str) -> ServerVersion {
    text.parse().unwrap()
}

fn backup(end: &str) -> BackupId {
    format!("20261120T020000Z-daily-k3x9q{end}").parse().unwrap()
}

/// Acts that stop after so many, as a kill would.
fn stopping_after(count: usize) -> Acts {
    let done = AtomicUsize::new(0);
    Acts::watched(move |_| {
        if done.fetch_add(1, Ordering::Relaxed) < count {
            Ok(())
        } else {
            Err(io::Error::other("killed"))
        }
    })
}

/// All files below, without those of an unfinished restore.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(dir: &Path, at: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_owned();
            if path.is_dir() {
                walk(dir, &path, files);
            } else {
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(dir, dir, &mut files);
    files.retain(|name, _| !name.starts_with(".redis-backup"));
    files
}

/// Everything that `restore --data-dir` does.
fn restore(dir: &Path, restore: &Restore, content: Content, acts: Acts) -> Result<(), Error> {
    let directory = DataDirectory::open(dir, acts)?;
    match directory.begin(restore)? {
        Begun::Stage(mut stage) => {
            for chunk in content.new.chunks(7) {
                stage.write(chunk)?;
            }
            let staged = stage.seal()?;
            assert_eq!(fs::read(staged).unwrap(), content.new);
            directory.confirm_staged()?;
            directory.swap().map(drop)
        }
        Begun::Swap => directory.swap().map(drop),
        Begun::InPlace => Ok(()),
    }
}

fn undo(dir: &Path, acts: Acts) -> Result<Undone, Error> {
    DataDirectory::open(dir, acts)?.undo()
}

fn finish(dir: &Path, acts: Acts) -> Result<Finished, Error> {
    DataDirectory::open(dir, acts)?.finish()
}

/// Runs `operation` stopped after 0, 1, 2 … acts, each in a directory of its own, until it completes.
fn at_every_act(
    prepare: impl Fn() -> TempDir,
    operation: impl Fn(&Path, Acts) -> Result<(), Error>,
    mut look: impl FnMut(usize, &Path),
) -> usize {
    for count in 0..ACTS_MAX {
        let dir = prepare();
        let outcome = operation(dir.path(), stopping_after(count));
        look(count, dir.path());
        match outcome {
            Ok(()) => return count,
            Err(Error::Act { source, .. }) if source.to_string() == "killed" => {}
            Err(error) => panic!("stopped after {count}: {error:?}"),
        }
    }
    panic!("it never completes");
}

#[test]
fn a_killed_restore_leaves_the_old_or_the_new_dataset_and_goes_on() {
    let mut tally =
        Tally::of("restore into a data directory", "stopped before each act on the disk");
    for case in cases(TEXT) {
        let wanted = case.restore(TEXT);
        let old = case.starts_from(case.lay_out().path());
        let acts = at_every_act(
            || case.lay_out(),
            |dir, acts| restore(dir, &wanted, TEXT, acts),
            |count, dir| {
                let found = case.starts_from(dir);
                assert!(found == old || found == TEXT.new, "{}, {count} acts", case.title());
                restore(dir, &wanted, TEXT, Acts::default()).unwrap();
                assert_eq!(case.starts_from(dir), TEXT.new, "{}, {count} acts", case.title());
                assert_eq!(state(dir).unwrap().unwrap().phase, Phase::Swapped);
                tally.add(found == TEXT.new);
            },
        );
        assert!(acts > 8, "{acts} acts are too few to prove anything");
    }
    tally.write();
}

#[test]
fn a_restore_killed_anywhere_is_undone_exactly() {
    for case in cases(TEXT) {
        let wanted = case.restore(TEXT);
        let before = tree(case.lay_out().path());
        at_every_act(
            || case.lay_out(),
            |dir, acts| restore(dir, &wanted, TEXT, acts),
            |count, dir| {
                undo(dir, Acts::default()).unwrap();
                assert_eq!(tree(dir), before, "{}, {count} acts", case.title());
                assert!(!dir.join(".redis-backup").exists(), "{}", case.title());
                assert_eq!(state(dir).unwrap(), None);
            },
        );
    }
}

#[test]
fn a_killed_undo_leaves_the_old_or_the_new_dataset_and_goes_on() {
    let mut tally = Tally::of("restore --undo", "stopped before each act on the disk");
    for case in cases(TEXT) {
        let wanted = case.restore(TEXT);
        let laid_out = case.lay_out();
        let (before, old) = (tree(laid_out.path()), case.starts_from(laid_out.path()));
        let restored = || {
            let dir = case.lay_out();
            restore(dir.path(), &wanted, TEXT, Acts::default()).unwrap();
            dir
        };
        at_every_act(
            restored,
            |dir, acts| undo(dir, acts).map(drop),
            |count, dir| {
                let found = case.starts_from(dir);
                assert!(found == old || found == TEXT.new, "{}, {count} acts", case.title());
                undo(dir, Acts::default()).unwrap();
                assert_eq!(tree(dir), before, "{}, {count} acts", case.title());
                tally.add(found == old);
            },
        );
    }
    tally.write();
}

#[test]
fn a_killed_finish_keeps_the_new_dataset_and_goes_on() {
    let mut tally = Tally::of("restore --finish", "stopped before each act on the disk");
    for case in cases(TEXT) {
        let wanted = case.restore(TEXT);
        let restored = || {
            let dir = case.lay_out();
            restore(dir.path(), &wanted, TEXT, Acts::default()).unwrap();
            dir
        };
        at_every_act(
            restored,
            |dir, acts| finish(dir, acts).map(drop),
            |count, dir| {
                assert_eq!(case.starts_from(dir), TEXT.new, "{}, {count} acts", case.title());
                finish(dir, Acts::default()).unwrap();
                assert_eq!(case.starts_from(dir), TEXT.new, "{}, {count} acts", case.title());
                assert!(!dir.join(".redis-backup").exists(), "{}", case.title());
                // A later switch of appendonly must not bring back what is stale by then.
                let unused = Case {
                    names: Names { appendonly: !case.names.appendonly, ..case.names.clone() },
                    tree: Tree::new(),
                    ..case
                };
                assert_eq!(unused.starts_from(dir), b"", "{}, {count} acts", case.title());
                tally.held();
            },
        );
    }
    tally.write();
}

#[test]
fn what_is_none_of_ours_stays() {
    for case in cases(TEXT).into_iter().filter(|case| case.tree.contains_key("nodes.conf")) {
        let dir = case.lay_out();
        restore(dir.path(), &case.restore(TEXT), TEXT, Acts::default()).unwrap();
        assert_eq!(fs::read(dir.path().join("nodes.conf")).unwrap(), b"mine");
        finish(dir.path(), Acts::default()).unwrap();
        assert_eq!(fs::read(dir.path().join("nodes.conf")).unwrap(), b"mine");
    }
}

#[test]
fn owner_and_mode_are_those_of_the_old_files() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let case = &cases(TEXT)[4];
    let dir = case.lay_out();
    for name in case.tree.keys() {
        chown(dir.path().join(name), Some(999), Some(998)).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    restore(dir.path(), &case.restore(TEXT), TEXT, Acts::default()).unwrap();
    let files: Vec<PathBuf> = tree(dir.path()).into_keys().collect();
    assert!(files.len() > 3, "{files:?}");
    for name in files {
        let found = fs::metadata(dir.path().join(&name)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (999, 998, 0o640), "{name:?}");
    }
}

#[test]
fn another_backup_waits_for_finish_or_undo() {
    let case = &cases(TEXT)[4];
    let first = case.restore(TEXT);
    let other = Restore { backup: backup("b"), ..first.clone() };
    let attempt = |dir: &Path| restore(dir, &other, TEXT, Acts::default());
    for count in 0.. {
        let dir = case.lay_out();
        let done = restore(dir.path(), &first, TEXT, stopping_after(count)).is_ok();
        if state(dir.path()).unwrap().is_none() {
            continue;
        }
        let refused = attempt(dir.path()).unwrap_err();
        assert!(matches!(refused, Error::Unfinished { .. }), "{count}: {refused}");
        undo(dir.path(), Acts::default()).unwrap();
        attempt(dir.path()).unwrap();
        if done {
            break;
        }
    }
}

#[test]
fn two_runs_exclude_each_other() {
    let dir = TempDir::new().unwrap();
    let first = DataDirectory::open(dir.path(), Acts::default()).unwrap();
    let second = DataDirectory::open(dir.path(), Acts::default()).unwrap_err();
    assert!(matches!(second, Error::Locked { .. }), "{second}");
    first.close().unwrap();
    assert!(!dir.path().join(".redis-backup").exists());
    DataDirectory::open(dir.path(), Acts::default()).unwrap().close().unwrap();
}

#[test]
fn what_a_server_wrote_since_is_kept_by_an_undo() {
    let case = &cases(TEXT)[5];
    let dir = case.lay_out();
    let before = tree(dir.path());
    restore(dir.path(), &case.restore(TEXT), TEXT, Acts::default()).unwrap();
    let increment = dir.path().join("appendonlydir/appendonly.aof.2.restored.incr.aof");
    fs::write(&increment, "written since").unwrap();
    let Undone::Back { kept: Some(kept) } = undo(dir.path(), Acts::default()).unwrap() else {
        panic!("what was written since is lost");
    };
    assert_eq!(tree(dir.path()), before);
    let found = kept.join("appendonlydir").join(increment.file_name().unwrap());
    assert_eq!(fs::read(found).unwrap(), b"written since");
    assert_eq!(fs::read(kept.join("dump.rdb")).unwrap(), TEXT.new);
    assert_eq!(state(dir.path()).unwrap(), None);
}

#[test]
fn a_finish_leaves_the_form_that_a_server_wrote_since() {
    let case = &cases(TEXT)[5];
    assert!(case.names.appendonly);
    let dir = case.lay_out();
    restore(dir.path(), &case.restore(TEXT), TEXT, Acts::default()).unwrap();
    fs::write(dir.path().join("dump.rdb.new"), "saved since").unwrap();
    fs::rename(dir.path().join("dump.rdb.new"), dir.path().join("dump.rdb")).unwrap();
    let Finished::Settled { removed: None, left: Some(left) } =
        finish(dir.path(), Acts::default()).unwrap()
    else {
        panic!("a file of the server was removed");
    };
    assert_eq!(left, "dump.rdb");
    assert_eq!(fs::read(dir.path().join("dump.rdb")).unwrap(), b"saved since");
}

#[test]
fn a_server_that_ran_between_kill_and_retry_loses_nothing() {
    let case = &cases(TEXT)[4];
    for count in 0..ACTS_MAX {
        let dir = case.lay_out();
        if restore(dir.path(), &case.restore(TEXT), TEXT, stopping_after(count)).is_ok() {
            return;
        }
        if case.starts_from(dir.path()) != TEXT.old_dump {
            continue;
        }
        fs::write(dir.path().join("dump.rdb.new"), "saved between").unwrap();
        fs::rename(dir.path().join("dump.rdb.new"), dir.path().join("dump.rdb")).unwrap();
        restore(dir.path(), &case.restore(TEXT), TEXT, Acts::default()).unwrap();
        assert_eq!(case.starts_from(dir.path()), TEXT.new);
        undo(dir.path(), Acts::default()).unwrap();
        assert_eq!(case.starts_from(dir.path()), b"saved between", "{count} acts");
    }
}

#[test]
fn links_and_foreign_things_in_the_place_of_a_dataset_are_refused() {
    let case = &cases(TEXT)[2];
    let dir = case.lay_out();
    let elsewhere = TempDir::new().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("appendonlydir")).unwrap();
    let error = restore(dir.path(), &case.restore(TEXT), TEXT, Acts::default()).unwrap_err();
    assert!(matches!(error, Error::Unsuitable { .. }), "{error}");
    assert_eq!(fs::read(dir.path().join("dump.rdb")).unwrap(), TEXT.old_dump);
}

/// A file system of its own, gone with this value.
struct SmallVolume(TempDir);

impl SmallVolume {
    fn mount(megabytes: u32) -> Self {
        let folder = TempDir::new().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting a tmpfs needs root");
        Self(folder)
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_volume_is_refused_before_anything_is_touched() {
    let volume = SmallVolume::mount(8);
    let dir = volume.0.path();
    fs::write(dir.join("dump.rdb"), TEXT.old_dump).unwrap();
    let case = &cases(TEXT)[2];
    let too_big = Restore { bytes: 8 << 20, ..case.restore(TEXT) };
    let directory = DataDirectory::open(dir, Acts::default()).unwrap();
    let refused = directory.begin(&too_big).unwrap_err();
    assert!(matches!(refused, Error::NoSpace { .. }) && refused.is_full(), "{refused}");
    directory.close().unwrap();
    assert_eq!(tree(dir), BTreeMap::from([("dump.rdb".into(), TEXT.old_dump.to_vec())]));
    assert!(!dir.join(".redis-backup").exists());
}

#[test]
fn a_volume_that_fills_up_while_staging_keeps_the_old_dataset() {
    let volume = SmallVolume::mount(8);
    let dir = volume.0.path();
    fs::write(dir.join("dump.rdb"), TEXT.old_dump).unwrap();
    let case = &cases(TEXT)[2];
    let directory = DataDirectory::open(dir, Acts::default()).unwrap();
    let Begun::Stage(mut stage) = directory.begin(&case.restore(TEXT)).unwrap() else {
        panic!("nothing was staged before");
    };
    let piece = vec![0_u8; 1 << 20];
    let full = (0..9).find_map(|_| stage.write(&piece).err()).expect("the volume never fills up");
    assert!(full.is_full(), "{full}");
    drop((stage, directory));
    assert_eq!(fs::read(dir.join("dump.rdb")).unwrap(), TEXT.old_dump);
    undo(dir, Acts::default()).unwrap();
    assert!(!dir.join(".redis-backup").exists());
}

#[test]
fn a_volume_that_a_server_filled_up_since_takes_an_undo() {
    let volume = SmallVolume::mount(8);
    let dir = volume.0.path();
    for (case, name) in cases(TEXT).iter().zip(["dump.rdb", "dump.rdb", "dump.rdb"]) {
        fs::write(dir.join(name), TEXT.old_dump).unwrap();
        restore(dir, &case.restore(TEXT), TEXT, Acts::default()).unwrap();
        let filler = dir.join("filler");
        let outcome = fs::write(&filler, vec![0_u8; 9 << 20]);
        assert!(outcome.is_err(), "the volume never fills up");
        undo(dir, Acts::default()).unwrap();
        fs::remove_file(filler).unwrap();
        assert_eq!(fs::read(dir.join(name)).unwrap(), TEXT.old_dump);
    }
}

/// Real RDBs, leaked once for the whole run.
fn real(binary: &Path) -> Content {
    let leak = |prefix: &str| -> &'static [u8] {
        Box::leak(
            rdb_with(binary, &[&format!("SET {prefix}:1 x"), &format!("SET {prefix}:2 x")])
                .into_boxed_slice(),
        )
    };
    Content { old_dump: leak("dump"), old_base: leak("aof"), old_increment: b"", new: leak("new") }
}

#[test]
fn real_servers_start_from_the_old_or_the_new_dataset() {
    let cases_run: usize = thread::scope(|scope| {
        let servers = installed().into_iter();
        let runs: Vec<_> = servers
            .map(|(binary, server)| scope.spawn(move || crash_before(&binary, server)))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert!(cases_run > 16, "only {cases_run} cases ran");
}

/// Every case for that server, killed at every act; how many there were.
fn crash_before(binary: &Path, server: ServerVersion) -> usize {
    let content = real(binary);
    // All of it on the oldest of either form; the others differ in what they write.
    let is_thorough = server.flavour == Flavour::Redis && !server.at_least(7, 2);
    let fits = |case: &Case| {
        version(case.server).has_append_only_folder() == server.has_append_only_folder()
            && (is_thorough || case.name == "dump and folder")
    };
    let cases: Vec<Case> = cases(content).into_iter().filter(fits).collect();
    let new = ["new:1", "new:2"].map(String::from);
    for case in &cases {
        let old = keys_before(case);
        let wanted = case.restore(content);
        let mut seen = tree(case.lay_out().path());
        assert_eq!(started(binary, case.lay_out().path(), &case.names), old, "{}", case.title());
        at_every_act(
            || case.lay_out(),
            |dir, acts| restore(dir, &wanted, content, acts),
            |count, dir| {
                // Only what differs from the act before needs a start.
                let now = tree(dir);
                if now != seen {
                    seen = now;
                    let keys = started(binary, dir, &case.names);
                    let title = case.title();
                    assert!(keys == old || keys == new, "{server}: {title}, {count}: {keys:?}");
                }
            },
        );
        let restored = case.lay_out();
        restore(restored.path(), &wanted, content, Acts::default()).unwrap();
        assert_eq!(started(binary, restored.path(), &case.names), new, "{}", case.title());
    }
    cases.len()
}

/// What each start finds, measured: appendonly yes never falls back to dump.rdb.
fn keys_before(case: &Case) -> Vec<String> {
    let has_aof = case.tree.keys().any(|name| name.contains(&case.names.appendfilename));
    let keys: &[&str] = match (case.names.appendonly, case.tree.is_empty(), has_aof) {
        (_, true, _) | (true, false, false) => &[],
        (true, false, true) => &["aof:1", "aof:2"],
        (false, false, _) => &["dump:1", "dump:2"],
    };
    keys.iter().map(ToString::to_string).collect()
}

/// The keys that a server finds in a copy of the directory.
fn started(binary: &Path, dir: &Path, names: &Names) -> Vec<String> {
    let copy = TempDir::new().unwrap();
    let all = format!("{}/.", dir.display());
    let copied = Command::new("cp").args(["-a", "--", &all]).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    Server::start(binary, copy.path(), names).keys()
}

#[test]
fn a_server_that_runs_in_the_directory_is_noticed() {
    let (binary, _) = installed().remove(0);
    let case = &cases(TEXT)[1];
    let dir = TempDir::new().unwrap();
    assert!(look(dir.path()).unwrap().is_free());
    let server = Server::start(&binary, dir.path(), &case.names);
    let sight = look(dir.path()).unwrap();
    assert_eq!(sight.servers.iter().map(|found| found.id).collect::<Vec<_>>(), [server.id()]);
    assert!(!sight.unseen.is_empty(), "other hosts are never seen");
    let refused = restore(dir.path(), &case.restore(TEXT), TEXT, Acts::default()).unwrap_err();
    assert!(matches!(refused, Error::ServerRuns { .. }), "{refused}");
    drop(server);
    assert!(look(dir.path()).unwrap().is_free());
    assert_eq!(AppendOnly::Folder, case.restore(TEXT).dataset.append_only);
}
