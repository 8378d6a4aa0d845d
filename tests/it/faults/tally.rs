//! Notes how often a fault was injected and what came of it, for docs/RELIABILITY.md. Judges nothing: a test that sees a loss panics and so notes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One line of the table: a fault, and what became of the work it was injected into.
#[derive(Debug)]
pub struct Tally {
    /// What was running, as a verb of the program.
    work: &'static str,
    fault: &'static str,
    /// The work was done all the same, or the fault was noticed as it must be.
    held: usize,
    /// The work ended where it was, or with an error, and left nothing that counts as done.
    ended: usize,
}

impl Tally {
    /// Takes back what an earlier run of the same test noted.
    pub fn of(work: &'static str, fault: &'static str) -> Self {
        let tally = Self { work, fault, held: 0, ended: 0 };
        let _ = fs::remove_file(tally.path());
        tally
    }

    pub fn held(&mut self) {
        self.held += 1;
    }

    pub fn ended(&mut self) {
        self.ended += 1;
    }

    pub fn add(&mut self, is_held: bool) {
        if is_held { self.held() } else { self.ended() }
    }

    /// Comes last in a test, after everything it asserts.
    pub fn write(self) {
        let Self { work, fault, held, ended } = &self;
        let injected = held + ended;
        assert!(injected > 0, "{work}: {fault}: nothing was injected");
        fs::create_dir_all(folder()).unwrap();
        // Nothing lost: whoever comes here has asserted it of each.
        let line = format!("{work}\t{fault}\t{injected}\t{held}\t{ended}\t0\n");
        fs::write(self.path(), line).unwrap();
        eprintln!("{work}: {fault}: {injected} injected, {held} held, {ended} ended");
    }

    fn path(&self) -> PathBuf {
        let name = format!("{} {}", self.work, self.fault);
        let slug = name.replace(|sign: char| !sign.is_ascii_alphanumeric(), "-");
        folder().join(format!("{slug}.tsv"))
    }
}

/// Beside what the tests are built into.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("reliability")
}

#[test]
fn a_note_is_taken_back_when_its_test_begins_again() {
    let begin = || Tally::of("nothing", "of the test of the tally");
    let mut tally = begin();
    let path = tally.path();
    tally.held();
    tally.add(false);
    tally.write();
    let line = fs::read_to_string(&path).unwrap();
    assert_eq!(line, "nothing\tof the test of the tally\t2\t1\t1\t0\n");
    let again = begin();
    assert!(!again.path().exists());
}
