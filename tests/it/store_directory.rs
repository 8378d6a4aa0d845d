//! What only a directory store does: file modes, odd files, full and read-only file systems, leftovers.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use bytes::Bytes;
use redis_backup::edge::store::{Directory, Error, PART_BYTES, Store};
use tempfile::TempDir;

use crate::store_contract::{get, key, noise, put, write_all};

/// A tmpfs of its own, unmounted at the end also of a failed test.
struct Tmpfs {
    folder: TempDir,
}

impl Tmpfs {
    fn mount(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()));
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn remount(&self, options: &str) {
        run(Command::new("mount").arg("-o").arg(format!("remount,{options}")).arg(self.path()));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn only_their_owner_may_read_backups() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("deep/root");
    let store = Directory::new(&root);
    store.create(&key("source/manifests/one.json"), Bytes::from_static(b"{}")).await.unwrap();
    put(&store, &key("source/archives/one/dump.rdb"), &noise(99)).await.unwrap();
    for folder in ["", "source", "source/manifests", "source/archives/one", ".staging"] {
        assert_eq!(mode(&root.join(folder)), 0o700, "{folder}");
    }
    for file in ["source/manifests/one.json", "source/archives/one/dump.rdb"] {
        assert_eq!(mode(&root.join(file)), 0o600, "{file}");
    }
    assert_eq!(fs::read_dir(root.join(".staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn links_and_odd_files_are_no_objects() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::new(root.path());
    store.create(&key("s/real"), Bytes::from_static(b"real")).await.unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), root.path().join("s/folder")).unwrap();
    symlink(outside.path().join("secret"), root.path().join("s/file")).unwrap();
    fs::write(root.path().join("s/no key"), "").unwrap();
    fs::create_dir(root.path().join("s/empty")).unwrap();
    run(Command::new("mkfifo").arg(root.path().join("s/pipe")));

    let listed = store.list("").await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    for odd in ["s/file", "s/pipe", "s/empty"] {
        let read = store.read(&key(odd), 99).await;
        assert!(matches!(read, Err(Error::NotFound { .. })), "{odd}: {read:?}");
    }
    let replaced = store.create(&key("s/file"), Bytes::new()).await;
    assert!(matches!(replaced, Err(Error::AlreadyExists { .. })), "{replaced:?}");
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
}

#[tokio::test]
async fn a_root_that_is_a_file_is_a_clear_error() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("file");
    fs::write(&root, "").unwrap();
    let store = Directory::new(&root);
    let errors = [
        store.create(&key("a"), Bytes::new()).await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.clock().await.unwrap_err(),
    ];
    for error in errors {
        let text = redis_backup::failure::chain(&error);
        assert!(matches!(error, Error::Permanent { .. }), "{text}");
        assert!(text.contains("Not a directory") && text.contains("/file"), "{text}");
    }
}

#[tokio::test]
async fn deleting_removes_folders_that_became_empty_but_never_the_root() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::new(root.path());
    for text in ["s/archives/one/shard-0000/dump", "s/archives/two/shard-0000/dump"] {
        store.create(&key(text), Bytes::new()).await.unwrap();
    }
    store.delete(&key("s/archives/one/shard-0000/dump")).await.unwrap();
    assert!(!root.path().join("s/archives/one").exists());
    assert!(root.path().join("s/archives/two").exists());
    store.delete(&key("s/archives/two/shard-0000/dump")).await.unwrap();
    assert!(!root.path().join("s").exists() && root.path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_and_deleting_in_the_same_folder_do_not_disturb_each_other() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::new(root.path());
    let churn = |name: &'static str| {
        let store = store.clone();
        tokio::spawn(async move {
            let object = key(&format!("s/folder/{name}"));
            for _ in 0..1000 {
                store.create(&object, Bytes::from_static(b"body")).await.unwrap();
                assert_eq!(&store.read(&object, 4).await.unwrap()[..], b"body");
                store.delete(&object).await.unwrap();
            }
        })
    };
    for task in [churn("one"), churn("two"), churn("three")] {
        task.await.unwrap();
    }
    assert_eq!(store.list("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_as_such_and_leaves_nothing() {
    let disk = Tmpfs::mount("size=20m");
    let store = Directory::new(disk.path().join("store"));
    store.create(&key("s/small"), Bytes::from_static(b"small")).await.unwrap();
    let (large, body) = (key("s/large"), noise(3 * PART_BYTES));

    let mut upload = store.upload(&large).await.unwrap();
    if let Err(error) = write_all(&mut *upload, &body).await {
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
        upload.abort().await.unwrap();
    } else {
        let error = upload.finish(crate::store_contract::digests(&body)).await.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
    }
    assert_eq!(store.list("").await.unwrap().len(), 1);
    assert_eq!(store.unfinished("").await.unwrap(), []);

    let body = noise(2 * PART_BYTES);
    put(&store, &large, &body).await.unwrap();
    assert!(get(&store, &large, None).await.unwrap() == body, "there is room again");
}

#[tokio::test]
async fn a_disk_without_inodes_is_full_too() {
    let disk = Tmpfs::mount("nr_inodes=6");
    let store = Directory::new(disk.path());
    let mut created = 0;
    let error = loop {
        match store.create(&key(&format!("object-{created}")), Bytes::new()).await {
            Ok(_) => created += 1,
            Err(error) => break error,
        }
        assert!(created < 6, "the disk has six inodes");
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(store.list("").await.unwrap().len(), created);
}

#[tokio::test]
async fn a_read_only_mount_can_be_read_and_says_what_it_needs() {
    let disk = Tmpfs::mount("size=1m");
    let store = Directory::new(disk.path());
    let object = key("s/object");
    store.create(&object, Bytes::from_static(b"body")).await.unwrap();
    disk.remount("ro");
    assert_eq!(&store.read(&object, 4).await.unwrap()[..], b"body");
    assert_eq!(store.list("").await.unwrap().len(), 1);
    let errors = [
        store.create(&key("s/other"), Bytes::new()).await.unwrap_err(),
        store.delete(&object).await.unwrap_err(),
    ];
    for error in errors {
        let Error::Denied { advice, .. } = &error else { panic!("{error:?}") };
        assert!(advice.contains("read-only"), "{advice}");
        assert!(error.to_string().contains(disk.path().to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn a_folder_of_somebody_else_is_denied_with_advice() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::new(root.path());
    store.create(&key("s/object"), Bytes::from_static(b"body")).await.unwrap();
    // Root may write anywhere, but not into a folder that is marked immutable.
    let disk = root.path().join("s");
    let chattr = Command::new("chattr").arg("+i").arg(&disk).output().unwrap();
    assert!(chattr.status.success(), "chattr: {}", String::from_utf8_lossy(&chattr.stderr));
    let denied = store.create(&key("s/other"), Bytes::new()).await;
    run(Command::new("chattr").arg("-i").arg(&disk));
    let Err(Error::Denied { advice, .. }) = &denied else { panic!("{denied:?}") };
    assert!(advice.contains("access to"), "{advice}");
    assert_eq!(store.unfinished("").await.unwrap(), []);
}

#[tokio::test]
async fn the_leftover_of_a_killed_process_is_found_and_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::new(root.path());
    let (object, body) = (key("s/object"), noise(PART_BYTES));
    let mut upload = store.upload(&object).await.unwrap();
    write_all(&mut *upload, &body).await.unwrap();
    // A process killed between the link and the removal of the staged name leaves both.
    let staged = store.unfinished("s/").await.unwrap();
    let staged_path = root.path().join(".staging").join(&staged[0].id);
    fs::hard_link(&staged_path, root.path().join("s-object")).unwrap();
    drop(upload);
    assert_eq!(store.unfinished("s/").await.unwrap().len(), 1);
    store.forget(&staged[0]).await.unwrap();
    assert!(!staged_path.exists());
    assert!(root.path().join("s-object").exists(), "forgetting a name keeps the object");

    fs::write(root.path().join("outside"), "").unwrap();
    let mut evil = staged[0].clone();
    "../outside".clone_into(&mut evil.id);
    assert!(store.forget(&evil).await.is_err());
    assert!(root.path().join("outside").exists());
}
