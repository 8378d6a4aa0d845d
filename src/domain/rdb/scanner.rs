//! Scans an RDB that comes in chunks of any size. Proves and counts; never reads or stores a value.

use super::{
    Checksum, Content, Private, SlotRange, Unread,
    error::{Error, Fault, Reading},
    layout,
    tail::Tail,
    tally::Tally,
    token::TOKEN_BYTES_MAX,
    walker::{Phase, Walker},
};

/// What the caller knows before the first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// Where the shard's keys may lie. Empty: slots are not looked at.
    pub slots: Vec<SlotRange>,
    /// How many of the largest values are named. At most 1000.
    pub biggest_keys_max: usize,
}

/// What a scan that reached the end tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    pub content: Content,
    pub private: Private,
}

/// Needs the same few kilobytes of memory for any RDB.
#[derive(Debug)]
pub struct Scanner {
    walker: Walker,
    tail: Tail,
    bytes: u64,
    /// A token that the chunks cut apart.
    carry: [u8; TOKEN_BYTES_MAX],
    carry_bytes: usize,
    failure: Option<Error>,
}

impl Scanner {
    pub fn new(expectations: &Expectations) -> Self {
        Self {
            walker: Walker::new(&expectations.slots, Tally::new(expectations.biggest_keys_max)),
            tail: Tail::new(),
            bytes: 0,
            carry: [0; TOKEN_BYTES_MAX],
            carry_bytes: 0,
            failure: None,
        }
    }

    /// After an error every further call gives the same one.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.feed_to_end(bytes)? == bytes.len() {
            return Ok(());
        }
        let reading = self.walker.reading();
        let failure = Error { offset: self.bytes, reading, fault: Fault::Trailing };
        self.failure = Some(failure.clone());
        Err(failure)
    }

    /// As [`Scanner::feed`], for an RDB that other bytes may follow: takes none of those and says how many it took.
    ///
    /// Where an RDB of an unknown version ends cannot be seen, so all that comes is taken as part of it.
    pub fn feed_to_end(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let taken = self.walk(bytes).inspect_err(|failure| self.failure = Some(failure.clone()))?;
        self.bytes += taken as u64;
        self.tail.feed(&bytes[..taken]);
        Ok(taken)
    }

    /// Whether the RDB is complete: what comes next is no part of it.
    pub fn has_ended(&self) -> bool {
        self.walker.phase() == Phase::End
    }

    /// The input has ended.
    pub fn finish(self) -> Result<Scanned, Error> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match self.walker.phase() {
            Phase::End => self.finish_read(),
            Phase::Unread => self.finish_unread(),
            Phase::Header
            | Phase::Item
            | Phase::Field
            | Phase::Skip { .. }
            | Phase::Text
            | Phase::Checksum => Err(Error {
                offset: self.bytes,
                reading: self.walker.reading(),
                fault: Fault::Ended,
            }),
        }
    }

    /// Bytes taken: all of them, unless the RDB ends before they do.
    fn walk(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut rest = bytes;
        while self.carry_bytes > 0 && !rest.is_empty() {
            let carried = self.carry_bytes;
            let added = rest.len().min(TOKEN_BYTES_MAX - carried);
            self.carry[carried..carried + added].copy_from_slice(&rest[..added]);
            let taken = self.walker.walk(&self.carry[..carried + added])?;
            if taken < carried {
                // Not even the token that was cut apart is whole, so this was all of the chunk.
                self.carry_bytes += added;
                return Ok(bytes.len());
            }
            self.carry_bytes = 0;
            rest = &rest[taken - carried..];
        }
        let taken = self.walker.walk(rest)?;
        let rest = &rest[taken..];
        if self.has_ended() {
            return Ok(bytes.len() - rest.len());
        }
        self.carry[self.carry_bytes..][..rest.len()].copy_from_slice(rest);
        self.carry_bytes += rest.len();
        Ok(bytes.len())
    }

    fn finish_read(self) -> Result<Scanned, Error> {
        let (magic, version) = (self.walker.magic(), self.walker.version());
        let checksum = if self.walker.has_checksum() { self.verify()? } else { Checksum::Absent };
        let (facts, private) =
            self.walker.into_tally().finish(magic, version, self.bytes, checksum);
        Ok(Scanned { content: Content::Read(facts), private })
    }

    fn finish_unread(self) -> Result<Scanned, Error> {
        let checksum = self.verify()?;
        if self.tail.last() != Some(layout::OPCODE_END) {
            let reading = Reading { part: "the end marker", of: "the RDB" };
            let offset = self.bytes.saturating_sub(9);
            return Err(Error { offset, reading, fault: Fault::NoEndMarker });
        }
        let (magic, version) = (self.walker.magic(), self.walker.version());
        let unread = Unread { magic, version, bytes: self.bytes, checksum };
        Ok(Scanned { content: Content::Unread(unread), private: Private::default() })
    }

    fn verify(&self) -> Result<Checksum, Error> {
        self.tail.verify().map_err(|fault| Error {
            offset: self.bytes.saturating_sub(8),
            reading: Reading { part: "the checksum", of: "the RDB" },
            fault,
        })
    }
}
