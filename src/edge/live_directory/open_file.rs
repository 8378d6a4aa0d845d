//! A file of a live server that is open, wherever it lies. Reads what was opened, whatever the name leads to by now.

use std::{fs::File, io};

use super::{Error, read_at};

#[derive(Debug)]
pub enum OpenFile {
    Local(File),
}

/// What reads the file, on a thread that may block.
#[derive(Debug)]
pub enum Reader {
    Local(File),
}

/// What brings the bytes that the reader asks for, until the reader is dropped.
#[derive(Debug)]
#[must_use = "a reader whose bytes nobody brings waits for ever"]
pub enum Serving {
    Local,
}

impl OpenFile {
    pub fn begin(self) -> (Reader, Serving) {
        match self {
            Self::Local(file) => (Reader::Local(file), Serving::Local),
        }
    }
}

impl Reader {
    /// As many bytes as `buffer` holds from `place` on, fewer at the end.
    pub fn read_at(&mut self, buffer: &mut [u8], place: u64) -> io::Result<usize> {
        match self {
            Self::Local(file) => read_at(file, buffer, place),
        }
    }
}

#[expect(clippy::unused_async, reason = "a file elsewhere is waited for")]
impl Serving {
    pub async fn run(self) -> Result<(), Error> {
        match self {
            Self::Local => Ok(()),
        }
    }
}
