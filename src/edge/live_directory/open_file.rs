//! A file of a live server that is open, wherever it lies. Reads what was opened, whatever the name leads to by now.

use std::{fs::File, io};

use super::{
    Error,
    container::{Pieces, Streamed, StreamedServing},
    read_at,
};

#[derive(Debug)]
pub enum OpenFile {
    Local(File),
    /// In a container, held open by a command there.
    Streamed(Streamed),
}

/// What reads the file, on a thread that may block.
#[derive(Debug)]
pub enum Reader {
    Local(File),
    Streamed(Pieces),
}

/// What brings the bytes that the reader asks for, until the reader is dropped.
#[derive(Debug)]
#[must_use = "a reader whose bytes nobody brings waits for ever"]
pub enum Serving {
    Local,
    Streamed(StreamedServing),
}

impl OpenFile {
    pub fn begin(self) -> (Reader, Serving) {
        match self {
            Self::Local(file) => (Reader::Local(file), Serving::Local),
            Self::Streamed(file) => {
                let (pieces, serving) = file.begin();
                (Reader::Streamed(pieces), Serving::Streamed(serving))
            }
        }
    }
}

impl Reader {
    /// As many bytes as `buffer` holds from `place` on, fewer at the end.
    pub fn read_at(&mut self, buffer: &mut [u8], place: u64) -> io::Result<usize> {
        match self {
            Self::Local(file) => read_at(file, buffer, place),
            Self::Streamed(pieces) => pieces.read_at(buffer, place),
        }
    }
}

impl Serving {
    pub async fn run(self) -> Result<(), Error> {
        match self {
            Self::Local => Ok(()),
            Self::Streamed(serving) => serving.run().await,
        }
    }
}
