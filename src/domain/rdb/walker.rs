//! Walks an RDB item by item as its layout says. Takes only whole tokens; never holds more than one string's beginning.

use super::{
    Magic, SlotRange,
    error::{Error, Fault, Reading},
    layout::{self, Captured, Field},
    place::Place,
    slot::{Hasher, SlotSet},
    tally::Tally,
    text,
    token::{self, array},
};

/// The last RDB versions whose every byte is known here.
const REDIS_VERSION_MAX: u32 = 13;
const VALKEY_VERSION: u32 = 80;

/// The first version that ends with a checksum.
const CHECKSUM_VERSION_MIN: u32 = 5;

const HEADER_BYTES: usize = 9;

/// Every element takes at least one byte, so this is as good as any file's length.
const COUNT_MAX: u64 = 1 << 40;
const NO_EXPIRY_MS: i64 = -1;

#[derive(Debug)]
pub(super) struct Walker {
    /// Of the next byte that is not yet taken.
    offset: u64,
    phase: Phase,
    magic: Magic,
    version: u32,
    place: Place,
    text: text::Reader,
    aux_name: Vec<u8>,
    /// None when no slots are to be checked.
    slots: Option<SlotSet>,
    text_begin: u64,
    value_begin: u64,
    expiry_ms: Option<i64>,
    tally: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Header,
    /// At the byte that says what comes.
    Item,
    /// At a field of an item.
    Field,
    /// In bytes that need not be looked at.
    Skip {
        left: u64,
        then: Then,
    },
    /// In a string that matters.
    Text,
    Checksum,
    End,
    /// In the content of a version that is not known.
    Unread,
}

/// What follows on skipped bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    NextField,
    SameField,
}

/// Bytes taken; none when a token is not whole yet.
type Step = Result<Option<usize>, Fault>;

impl Walker {
    pub(super) fn new(slots: &[SlotRange], tally: Tally) -> Self {
        Self {
            offset: 0,
            phase: Phase::Header,
            magic: Magic::Redis,
            version: 0,
            place: Place::new(&layout::STRING),
            text: text::Reader::new(),
            aux_name: Vec::new(),
            slots: (!slots.is_empty()).then(|| SlotSet::new(slots)),
            text_begin: 0,
            value_begin: 0,
            expiry_ms: None,
            tally,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn magic(&self) -> Magic {
        self.magic
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn has_checksum(&self) -> bool {
        self.version >= CHECKSUM_VERSION_MIN
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }

    /// What comes next, for an error.
    pub(super) fn reading(&self) -> Reading {
        let part = match self.phase {
            Phase::Header => "the header",
            Phase::Item => "the next type",
            Phase::Checksum => "the checksum",
            Phase::End => "the end",
            Phase::Unread => "the content",
            Phase::Field | Phase::Skip { .. } | Phase::Text => {
                return Reading {
                    part: self.place.field().name(),
                    of: self.place.layout().subject,
                };
            }
        };
        Reading { part, of: "the RDB" }
    }

    /// Takes whole tokens as far as they go, to the end of the RDB at most, and says how many bytes that were.
    pub(super) fn walk(&mut self, input: &[u8]) -> Result<usize, Error> {
        let mut taken = 0;
        loop {
            match self.step(&input[taken..]) {
                Ok(Some(bytes)) => {
                    taken += bytes;
                    self.offset += bytes as u64;
                }
                Ok(None) => return Ok(taken),
                Err(fault) => {
                    return Err(Error {
                        offset: self.fault_offset(),
                        reading: self.reading(),
                        fault,
                    });
                }
            }
        }
    }

    /// A text is at fault as a whole, wherever the chunks cut it.
    fn fault_offset(&self) -> u64 {
        if self.phase == Phase::Text { self.text_begin } else { self.offset }
    }

    #[inline]
    fn step(&mut self, input: &[u8]) -> Step {
        if input.is_empty() {
            return Ok(None);
        }
        match self.phase {
            Phase::Item => self.item(input),
            Phase::Field => self.field_step(input),
            Phase::Skip { left, then } => Ok(Some(self.skip(input, left, then))),
            Phase::Text => self.go_on_with_text(input, 0),
            Phase::Header => self.header(input),
            Phase::Checksum => {
                let checksum = array::<8>(input, 0);
                Ok(checksum.map(|bytes| {
                    self.phase = Phase::End;
                    bytes.len()
                }))
            }
            Phase::End => Ok(None),
            Phase::Unread => Ok(Some(input.len())),
        }
    }

    fn header(&mut self, input: &[u8]) -> Step {
        let Some(header) = array::<HEADER_BYTES>(input, 0) else { return Ok(None) };
        let (magic, digits) = match (header.strip_prefix(b"REDIS"), header.strip_prefix(b"VALKEY"))
        {
            (Some(digits), _) => (Magic::Redis, digits),
            (None, Some(digits)) => (Magic::Valkey, digits),
            (None, None) => return Err(Fault::Magic),
        };
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(Fault::Magic);
        }
        let version =
            digits.iter().fold(0, |version, digit| version * 10 + u32::from(digit - b'0'));
        self.phase = match (magic, version) {
            (Magic::Redis, 1..=REDIS_VERSION_MAX) | (Magic::Valkey, VALKEY_VERSION) => Phase::Item,
            (Magic::Redis, 0) | (Magic::Valkey, 0..VALKEY_VERSION) => {
                return Err(Fault::Version { magic, version });
            }
            (Magic::Redis | Magic::Valkey, _) => Phase::Unread,
        };
        (self.magic, self.version) = (magic, version);
        Ok(Some(HEADER_BYTES))
    }

    #[inline]
    fn item(&mut self, input: &[u8]) -> Step {
        let code = input[0];
        if code == layout::OPCODE_END {
            self.phase = if self.has_checksum() { Phase::Checksum } else { Phase::End };
            return Ok(Some(1));
        }
        self.place.restart(layout::of(self.magic, code)?);
        self.phase = Phase::Field;
        Ok(Some(1))
    }

    fn skip(&mut self, input: &[u8], left: u64, then: Then) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let left = left - taken as u64;
        if left > 0 {
            self.phase = Phase::Skip { left, then };
        } else {
            self.phase = Phase::Field;
            self.follow(then, self.offset + taken as u64);
        }
        taken
    }

    #[inline]
    fn field_step(&mut self, input: &[u8]) -> Step {
        match self.place.field() {
            Field::Text(_) => {
                let Some((head, used)) = token::head(input)? else { return Ok(None) };
                Ok(Some(self.pass(input, used, head.body_bytes(), Then::NextField)))
            }
            Field::Bytes(_, bytes) => {
                Ok(Some(self.pass(input, 0, u64::from(*bytes), Then::NextField)))
            }
            Field::AsciiDouble(_) => self.ascii_double(input),
            Field::Many(_, fields) => self.many(input, fields),
            Field::Captured(captured) => self.begin_text(input, *captured),
            Field::ExpirySeconds => self.bytes(input, |walker, bytes| {
                walker.expire(i64::from(i32::from_le_bytes(bytes)) * 1000);
                Ok(())
            }),
            Field::ExpiryMilliseconds => self.bytes(input, |walker, bytes| {
                walker.expire(i64::from_le_bytes(bytes));
                Ok(())
            }),
            Field::MetadataClass => self.bytes(input, |walker, bytes| {
                walker.tally.metadata_class(u32::from_le_bytes(bytes))
            }),
            Field::Number(_) => self.number(input, |_, _| Ok(())),
            Field::Database => self.number(input, |walker, number| {
                let limit = u64::from(u32::MAX);
                let database =
                    u32::try_from(number).map_err(|_| Fault::TooLong { found: number, limit })?;
                walker.tally.select(database)
            }),
            Field::ModuleId => self.number(input, |walker, id| walker.tally.module(id)),
            Field::ModuleWhenOpcode => {
                self.number(input, |_, opcode| expect(opcode, 2..=2, "the opcode 2 of a number"))
            }
            Field::QuicklistContainer => {
                self.number(input, |_, container| expect(container, 1..=2, "1 or 2"))
            }
            Field::ModuleValue => self.module_value(input),
        }
    }

    /// A whole number with a meaning.
    #[inline]
    fn number(
        &mut self,
        input: &[u8],
        meaning: impl FnOnce(&mut Self, u64) -> Result<(), Fault>,
    ) -> Step {
        let Some((number, used)) = token::length(input)? else { return Ok(None) };
        meaning(self, number)?;
        self.next_field(self.offset + used as u64);
        Ok(Some(used))
    }

    /// Some bytes with a meaning.
    #[inline]
    fn bytes<const N: usize>(
        &mut self,
        input: &[u8],
        meaning: impl FnOnce(&mut Self, [u8; N]) -> Result<(), Fault>,
    ) -> Step {
        let Some(bytes) = array::<N>(input, 0) else { return Ok(None) };
        meaning(self, bytes)?;
        self.next_field(self.offset + N as u64);
        Ok(Some(N))
    }

    fn ascii_double(&mut self, input: &[u8]) -> Step {
        let body = match input[0] {
            0 => return Err(Fault::Unexpected { found: 0, wanted: "1 to 255" }),
            bytes @ 1..=252 => u64::from(bytes),
            // Not a number, plus and minus infinity.
            253..=255 => 0,
        };
        Ok(Some(self.pass(input, 1, body, Then::NextField)))
    }

    fn many(&mut self, input: &[u8], fields: &'static [Field]) -> Step {
        let Some((count, used)) = token::length(input)? else { return Ok(None) };
        let count = token::within(count, COUNT_MAX)?;
        if count == 0 {
            self.next_field(self.offset + used as u64);
        } else {
            self.place.enter(fields, count);
        }
        Ok(Some(used))
    }

    /// One part of what a module wrote (`rdbLoadCheckModuleValue`).
    fn module_value(&mut self, input: &[u8]) -> Step {
        let Some((opcode, used)) = token::length(input)? else { return Ok(None) };
        let rest = &input[used..];
        let (used_too, body) = match opcode {
            0 => {
                self.next_field(self.offset + used as u64);
                return Ok(Some(used));
            }
            1 | 2 => {
                let Some((_, used)) = token::length(rest)? else { return Ok(None) };
                (used, 0)
            }
            3 => (0, 4),
            4 => (0, 8),
            5 => {
                let Some((head, used)) = token::head(rest)? else { return Ok(None) };
                (used, head.body_bytes())
            }
            6.. => return Err(Fault::Unexpected { found: opcode, wanted: "the opcodes 0 to 5" }),
        };
        Ok(Some(self.pass(input, used + used_too, body, Then::SameField)))
    }

    fn begin_text(&mut self, input: &[u8], captured: Captured) -> Step {
        let Some((head, used)) = token::head(input)? else { return Ok(None) };
        let is_hashed = captured == Captured::Key
            && self.slots.is_some()
            // Only Valkey has more than one database in a Cluster.
            && (self.tally.database() == 0 || self.magic == Magic::Valkey);
        self.text_begin = self.offset;
        self.text.begin(head, captured.kept_bytes_max(), is_hashed.then(Hasher::default));
        self.go_on_with_text(input, used)
    }

    #[inline]
    fn go_on_with_text(&mut self, input: &[u8], used: usize) -> Step {
        let used = used + self.text.feed(&input[used..])?;
        if self.text.is_complete() {
            let end = self.offset + used as u64;
            self.end_text(end)?;
            self.phase = Phase::Field;
            self.next_field(end);
        } else {
            self.phase = Phase::Text;
        }
        Ok(Some(used))
    }

    #[inline]
    fn end_text(&mut self, end: u64) -> Result<(), Fault> {
        let Field::Captured(captured) = self.place.field() else { return Ok(()) };
        match captured {
            Captured::Key => {
                self.value_begin = end;
                if let (Some(slots), Some(slot)) = (&self.slots, self.text.slot())
                    && !slots.contains(slot)
                {
                    self.tally.key_outside_slots();
                }
                Ok(())
            }
            Captured::AuxName => {
                self.aux_name.clear();
                self.aux_name.extend_from_slice(self.text.kept());
                Ok(())
            }
            Captured::AuxText => {
                self.tally.aux(&self.aux_name, self.text.kept());
                Ok(())
            }
            Captured::FunctionCode => self.tally.function(self.text.kept()),
        }
    }

    fn expire(&mut self, expiry_ms: i64) {
        // The server takes -1 for no expiry.
        self.expiry_ms = (expiry_ms != NO_EXPIRY_MS).then_some(expiry_ms);
    }

    /// Takes a token of which `used` bytes were looked at and `body` bytes need not be.
    #[inline]
    fn pass(&mut self, input: &[u8], used: usize, body: u64, then: Then) -> usize {
        let there = input.len() - used;
        match usize::try_from(body) {
            Ok(body) if body <= there => {
                self.follow(then, self.offset + (used + body) as u64);
                used + body
            }
            Ok(_) | Err(_) => {
                self.phase = Phase::Skip { left: body - there as u64, then };
                input.len()
            }
        }
    }

    #[inline]
    fn follow(&mut self, then: Then, end: u64) {
        match then {
            Then::NextField => self.next_field(end),
            Then::SameField => {}
        }
    }

    #[inline]
    fn next_field(&mut self, end: u64) {
        if !self.place.advance() {
            self.end_item(end);
        }
    }

    #[inline]
    fn end_item(&mut self, end: u64) {
        self.phase = Phase::Item;
        let layout = self.place.layout();
        let Some(value_type) = layout.value_type else { return };
        let bytes = end - self.value_begin;
        self.tally.key(self.text.kept(), value_type, self.expiry_ms.take(), bytes);
        if layout.has_field_expiry {
            self.tally.hash_with_field_expiry();
        }
    }
}

fn expect(
    found: u64,
    range: std::ops::RangeInclusive<u64>,
    wanted: &'static str,
) -> Result<(), Fault> {
    if range.contains(&found) { Ok(()) } else { Err(Fault::Unexpected { found, wanted }) }
}
