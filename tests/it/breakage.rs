//! What a hostile or careless hand leaves in the way of a restore or an inspection: each was a defect once.

use std::{fs, io::Read as _, os::unix::fs::symlink, process::Stdio, time::Duration};

use redis_backup::{
    domain::dataset::Names,
    edge::data_directory::{Acts, DataDirectory, Error, is_suitable},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cli::{program, run};

/// A minute, at 20 ms each.
const LOOKS_MAX: usize = 3000;

#[test]
fn a_work_folder_that_leads_elsewhere_is_refused_and_nothing_there_is_touched() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::create_dir(elsewhere.path().join("stage")).unwrap();
    fs::write(elsewhere.path().join("stage/precious"), "mine").unwrap();
    symlink(elsewhere.path(), dir.path().join(".redis-backup")).unwrap();
    let refused = DataDirectory::open(dir.path(), Acts::default()).unwrap_err();
    assert!(matches!(refused, Error::Unsuitable { .. }), "{refused}");
    assert_eq!(fs::read(elsewhere.path().join("stage/precious")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn without_a_restore_undo_and_finish_claim_nothing() {
    for (flag, claim) in [("--undo", "previous dataset"), ("--finish", "deleted")] {
        let dir = TempDir::new().unwrap();
        let said = run(program().args(["restore", flag, "--data-dir"]).arg(dir.path()));
        assert_eq!(said.exit, 0, "{said:?}");
        assert!(said.stdout.starts_with("nothing was changed in "), "{said:?}");
        assert!(!said.stdout.contains(claim), "{said:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_cannot_be_replaced_is_known_before_anything_is_touched() {
    let dir = TempDir::new().unwrap();
    let names = Names::default();
    is_suitable(dir.path(), &names).unwrap();
    symlink("/etc/hostname", dir.path().join("dump.rdb")).unwrap();
    let refused = is_suitable(dir.path(), &names).unwrap_err();
    assert!(matches!(refused, Error::Unsuitable { .. }), "{refused}");
    let refused = is_suitable(&dir.path().join("missing"), &names).unwrap_err();
    assert!(matches!(refused, Error::NotADirectory { .. }), "{refused}");
}

#[test]
fn an_inspection_of_a_pipe_that_never_ends_ends_by_a_signal() {
    let mut child = program()
        .args(["inspect", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Signals are watched before the scan begins, and a scan that begins says nothing.
    std::thread::sleep(Duration::from_millis(500));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut looks = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        looks += 1;
        if looks > LOOKS_MAX {
            child.kill().unwrap();
            panic!("it still reads");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(130), "{said}");
}

/// It answers every question by the length of a huge text, and then by zeros without end.
fn endless_server() -> u16 {
    use std::{io::Write as _, net::TcpListener};

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut question = [0; 4096];
                // The greeting is a PING.
                let _ = stream.read(&mut question);
                let _ = stream.write_all(b"+PONG\r\n");
                let _ = stream.read(&mut question);
                let _ = stream.write_all(b"$9223372036854775807\r\n");
                while stream.write_all(&[b'0'; 4096]).is_ok() {}
            });
        }
    });
    port
}

#[test]
fn a_server_that_answers_without_end_is_left_before_it_fills_our_memory() {
    let (store, url) = (TempDir::new().unwrap(), format!("redis://127.0.0.1:{}", endless_server()));
    let said = run(program()
        .args(["backup", "--source-name", "endless", "--source-url", &url, "--store"])
        .arg(store.path().join("store")));
    assert_eq!(said.exit, 10, "{said:?}");
    assert!(said.stderr.contains("more than 16777216 bytes of replies"), "{said:?}");
}
