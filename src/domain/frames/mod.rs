//! Files sent through the output of a command, in frames whose length and digest are proven. Hands out no byte that is not.
//!
//! Such an output may end at any place, and its sender may call that a success. Only the last frame tells that all is
//! there. What is sent, line by line:
//!
//! ```text
//! frames 1 sha256sum                              version, and the tool that digests
//! list BYTES DIGEST                               only if one was asked for
//! file NUMBER DEVICE INODE BYTES MODIFIED         for each file, all of them open by now
//! chunk NUMBER OFFSET LENGTH DIGEST               and then exactly so many bytes
//! last NUMBER DEVICE INODE BYTES MODIFIED         for each file, when all of it was sent
//! end CHUNKS
//! ```
//!
//! Or, in the place of any line: `gone PATH` or `refused REASON`.

mod parser;
#[cfg(test)]
mod tests;
mod tool;

pub use self::{
    parser::Parser,
    tool::{Sum, Tool},
};

/// Whole blocks of the sender's (64 KiB). Small enough to be held until proven, large enough for the
/// handful of processes that each one costs the sender.
pub const CHUNK_BYTES: u64 = 4 << 20;

/// A file, and how it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    pub device: u64,
    pub inode: u64,
    pub bytes: u64,
    /// Since 1970.
    pub modified_seconds: i64,
}

impl FileState {
    /// Whether both are one file with one content, or with `grows`, one file that was added to at most.
    pub fn continues(&self, earlier: &Self, grows: bool) -> bool {
        let is_same = (self.device, self.inode) == (earlier.device, earlier.inode);
        is_same && (self == earlier || grows && self.bytes >= earlier.bytes)
    }

    /// As `stat -c '%d %i %s %Y'` prints it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let state = Self {
            device: words.next()?.parse().ok()?,
            inode: words.next()?.parse().ok()?,
            bytes: words.next()?.parse().ok()?,
            modified_seconds: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(state)
    }
}

/// What is wanted of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The end of what is wanted; none for all that it holds when it is opened.
    pub end: Option<u64>,
    /// It may be added to meanwhile.
    pub grows: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// All files are open. Comes first and once.
    Opened(Opened),
    Chunk(Chunk),
    /// All of every file was sent.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Length and digest of the list, read after all files were open.
    pub list: Option<(u64, Sum)>,
    pub files: Vec<FileState>,
}

/// Proven bytes, which follow those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub file: usize,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{line:?} is not what follows: {expected}")]
    Unexpected { line: String, expected: &'static str },
    #[error("the {length} bytes from {offset} on are not what their digest says")]
    Digest { offset: u64, length: u64 },
    #[error("the file was changed while it was sent")]
    Changed,
    #[error("{0}")]
    Refused(String),
    #[error("{0} is gone")]
    Gone(String),
}
