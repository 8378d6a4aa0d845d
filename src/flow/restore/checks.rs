//! Checks of what is on the disk, part by part: each as long as it should be, sound, and digested. Never reads a file.

use std::vec;

use crate::{
    domain::{digest::Digester, identity::BackupId, rdb::Expectations},
    failure::Failure,
    flow::{
        pieces::Piece,
        transfer::{Plain, Scanner},
    },
};

/// The parts of one staged file.
pub(super) struct Checks {
    backup: BackupId,
    expectations: Expectations,
    waiting: vec::IntoIter<Piece>,
    current: Option<Current>,
    done: Vec<Plain>,
}

struct Current {
    name: String,
    before: &'static [u8],
    left: u64,
    digester: Digester,
    scanner: Scanner,
}

impl Checks {
    pub(super) fn new(backup: BackupId, expectations: Expectations, pieces: Vec<Piece>) -> Self {
        let waiting = pieces.into_iter();
        Self { backup, expectations, waiting, current: None, done: Vec::new() }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let Some(mut current) = self.next() else {
                return Err(self.corrupt("what was staged is longer than what was captured".into()));
            };
            let (before, rest) = bytes.split_at(bytes.len().min(current.before.len()));
            let (expected, before_left) = current.before.split_at(before.len());
            if before != expected {
                return Err(self.corrupt(format!("{} is not where it should be", current.name)));
            }
            current.before = before_left;
            let room = usize::try_from(current.left).unwrap_or(usize::MAX);
            let (own, after) = rest.split_at(rest.len().min(room));
            current.digester.update(own);
            let fed = current.scanner.feed(own);
            fed.map_err(|error| error.into_failure(format!("{} on the disk", current.name)))?;
            current.left -= own.len() as u64;
            bytes = after;
            self.put_back(current)?;
        }
        Ok(())
    }

    /// What was found in each part, in order.
    pub(super) fn finish(mut self) -> Result<Vec<Plain>, Failure> {
        while let Some(current) = self.next() {
            let name = current.name.clone();
            let before = self.done.len();
            self.put_back(current)?;
            if self.done.len() == before {
                return Err(self.corrupt(format!("{name} is shorter on the disk than captured")));
            }
        }
        Ok(self.done)
    }

    fn next(&mut self) -> Option<Current> {
        self.current.take().or_else(|| {
            let Piece { archive, before, plain_bytes } = self.waiting.next()?;
            let scanner = Scanner::of(&archive.name, &self.expectations);
            let digester = Digester::default();
            Some(Current { name: archive.name, before, left: plain_bytes, digester, scanner })
        })
    }

    fn put_back(&mut self, current: Current) -> Result<(), Failure> {
        if current.left > 0 || !current.before.is_empty() {
            self.current = Some(current);
            return Ok(());
        }
        let Current { name, before: _, left: _, digester, scanner } = current;
        let scanned =
            scanner.finish().map_err(|error| error.into_failure(format!("{name} on the disk")))?;
        self.done.push(Plain { digests: digester.finish(), scanned: Some(scanned) });
        Ok(())
    }

    fn corrupt(&self, finding: String) -> Failure {
        Failure::Corrupt { backup: self.backup.clone(), finding }
    }
}
