//! The tools of a container that digest, and what they would print of bytes. Runs none of them.

use std::str::FromStr;

use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha2::{Digest as _, Sha256};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Sha256sum,
    /// POSIX has it, so it is there where nothing else is.
    Cksum,
}

impl Tool {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256sum => "sha256sum",
            Self::Cksum => "cksum",
        }
    }

    pub fn sum(self, bytes: &[u8]) -> Sum {
        let mut summing = Summing::new(self);
        summing.update(bytes);
        summing.finish()
    }
}

impl FromStr for Tool {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Sha256sum, Self::Cksum].into_iter().find(|tool| tool.name() == text).ok_or(())
    }
}

/// The first word that a tool prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum(pub(super) String);

impl Sum {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[derive(Debug)]
pub(super) enum Summing {
    Sha256(Sha256),
    Cksum { crc: Crc, bytes: u64 },
}

impl Summing {
    pub(super) fn new(tool: Tool) -> Self {
        match tool {
            Tool::Sha256sum => Self::Sha256(Sha256::new()),
            Tool::Cksum => Self::Cksum { crc: Crc::new(CrcAlgorithm::Crc32Cksum), bytes: 0 },
        }
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        match self {
            Self::Sha256(digest) => digest.update(piece),
            Self::Cksum { crc, bytes } => {
                crc.update(piece);
                *bytes += piece.len() as u64;
            }
        }
    }

    pub(super) fn finish(self) -> Sum {
        match self {
            Self::Sha256(digest) => Sum(hex::encode(digest.finalize())),
            Self::Cksum { mut crc, bytes } => {
                // The length follows, least byte first, as few bytes as hold it.
                // <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/cksum.html>
                let digits = 8 - bytes.leading_zeros() / 8;
                crc.update(&bytes.to_le_bytes()[..digits as usize]);
                Sum(crc.finalize().to_string())
            }
        }
    }
}
