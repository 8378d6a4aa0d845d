//! Walks the commands of an append-only file. Skips what they hold by its length; never keeps or copies it.

use std::collections::BTreeSet;

use super::{
    error::{Error, Fault},
    frame::{self, Command, TOKEN_BYTES_MAX},
};

/// What a server takes in one command (networking.c:processMultibulkBuffer).
const ARGUMENTS_MAX: u64 = i32::MAX as u64;

/// A terabyte: far above what a server holds in one string, far below what overflows.
const ARGUMENT_BYTES_MAX: u64 = 1 << 40;

/// The loader reads lines into 1024 bytes, the last of which is zero (`AOF_ANNOTATION_LINE_MAX_LEN`).
const ANNOTATION_BYTES_MAX: usize = 1023;

/// A server allocates its databases at its start, so there are never nearly as many.
const DATABASES_MAX: usize = 16384;

/// Digits of the largest number of a database.
const DATABASE_DIGITS_MAX: u64 = 10;

#[derive(Debug)]
pub(super) struct Commands {
    /// Of the next byte that is not yet taken.
    offset: u64,
    phase: Phase,
    command: Command,
    arguments_left: u64,
    in_transaction: bool,
    /// Up to the last whole command, and with what came since.
    whole: Counts,
    counts: Counts,
    databases: BTreeSet<u32>,
    databases_since: BTreeSet<u32>,
    /// The beginning of an annotation.
    line: [u8; TOKEN_BYTES_MAX],
    /// A token that the chunks cut apart.
    carry: [u8; TOKEN_BYTES_MAX],
    carry_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Of all bytes counted.
    pub(super) end: u64,
    pub(super) commands: u64,
    pub(super) annotations: u64,
    /// Seconds since the Unix epoch.
    pub(super) first_timestamp: Option<i64>,
    pub(super) last_timestamp: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Between commands.
    Between,
    Annotation {
        begin: u64,
        bytes: usize,
    },
    /// At the head of a command's first argument.
    Name,
    /// At the head of what SELECT selects.
    Database,
    /// At the head of another argument.
    Argument,
    /// In an argument that need not be looked at.
    Body {
        left: u64,
    },
    BodyEnd,
}

/// Bytes taken; none when a token is not whole yet.
type Step = Result<Option<usize>, Fault>;

impl Commands {
    pub(super) fn begin_at(offset: u64) -> Self {
        let counts = Counts { end: offset, ..Counts::default() };
        Self {
            offset,
            phase: Phase::Between,
            command: Command::Other,
            arguments_left: 0,
            in_transaction: false,
            whole: counts,
            counts,
            databases: BTreeSet::new(),
            databases_since: BTreeSet::new(),
            line: [0; TOKEN_BYTES_MAX],
            carry: [0; TOKEN_BYTES_MAX],
            carry_bytes: 0,
        }
    }

    pub(super) fn whole(&self) -> Counts {
        self.whole
    }

    pub(super) fn into_databases(self) -> BTreeSet<u32> {
        self.databases
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while self.carry_bytes > 0 && !bytes.is_empty() {
            let carried = self.carry_bytes;
            let added = bytes.len().min(TOKEN_BYTES_MAX - carried);
            self.carry[carried..carried + added].copy_from_slice(&bytes[..added]);
            let carry = self.carry;
            let taken = self.walk(&carry[..carried + added])?;
            if taken < carried {
                // Not even the token that was cut apart is whole, so this was all of the chunk.
                self.carry_bytes += added;
                return Ok(());
            }
            self.carry_bytes = 0;
            bytes = &bytes[taken - carried..];
        }
        let taken = self.walk(bytes)?;
        let rest = &bytes[taken..];
        self.carry[self.carry_bytes..][..rest.len()].copy_from_slice(rest);
        self.carry_bytes += rest.len();
        Ok(())
    }

    /// Takes whole tokens as far as they go and says how many bytes that were.
    fn walk(&mut self, input: &[u8]) -> Result<usize, Error> {
        let mut taken = 0;
        loop {
            match self.step(&input[taken..]) {
                Ok(Some(bytes)) => {
                    taken += bytes;
                    self.offset += bytes as u64;
                }
                Ok(None) => return Ok(taken),
                Err(fault) => return Err(Error { offset: self.offset, fault }),
            }
        }
    }

    #[inline]
    fn step(&mut self, input: &[u8]) -> Step {
        let Some(first) = input.first() else { return Ok(None) };
        match self.phase {
            Phase::Argument => self.argument(input),
            Phase::Body { left } => Ok(Some(self.body(input, left))),
            Phase::BodyEnd => self.body_end(input),
            Phase::Between => match first {
                b'*' => self.head(input),
                b'#' => {
                    self.phase = Phase::Annotation { begin: self.offset, bytes: 0 };
                    Ok(Some(0))
                }
                other => Err(Fault::NoCommand(*other)),
            },
            Phase::Name => self.name(input),
            Phase::Database => self.database(input),
            Phase::Annotation { begin, bytes } => self.annotation(input, begin, bytes),
        }
    }

    #[inline]
    fn head(&mut self, input: &[u8]) -> Step {
        let Some((arguments, used)) = frame::number(input)? else { return Ok(None) };
        if arguments == 0 {
            return Err(Fault::Empty);
        }
        limited(arguments, ARGUMENTS_MAX)?;
        self.arguments_left = arguments;
        self.phase = Phase::Name;
        Ok(Some(used))
    }

    #[inline]
    fn name(&mut self, input: &[u8]) -> Step {
        let Some((bytes, used)) = argument_head(input)? else { return Ok(None) };
        if bytes > Command::NAME_BYTES_MAX {
            self.command = Command::Other;
            return Ok(Some(self.pass(input, used, bytes)));
        }
        let Some((name, taken)) = self.short(input, used, bytes)? else { return Ok(None) };
        self.command = Command::named(name);
        self.argument_ended(taken);
        if self.command == Command::Select && self.arguments_left == 1 {
            self.phase = Phase::Database;
        }
        Ok(Some(taken))
    }

    fn database(&mut self, input: &[u8]) -> Step {
        let Some((bytes, used)) = argument_head(input)? else { return Ok(None) };
        if bytes > DATABASE_DIGITS_MAX {
            return Err(Fault::Database);
        }
        let Some((text, taken)) = self.short(input, used, bytes)? else { return Ok(None) };
        let database = frame::database(text).ok_or(Fault::Database)?;
        self.databases_since.insert(database);
        if self.databases.len() + self.databases_since.len() > DATABASES_MAX {
            return Err(Fault::TooManyDatabases { limit: DATABASES_MAX });
        }
        self.argument_ended(taken);
        Ok(Some(taken))
    }

    #[inline]
    fn argument(&mut self, input: &[u8]) -> Step {
        let Some((bytes, used)) = argument_head(input)? else { return Ok(None) };
        Ok(Some(self.pass(input, used, bytes)))
    }

    /// Skips an argument behind its head: at once if it is there, else over the chunks to come.
    #[inline]
    fn pass(&mut self, input: &[u8], used: usize, bytes: u64) -> usize {
        let end = usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_add(used));
        if let Some(end) = end
            && input.get(end..end + 2) == Some(b"\r\n")
        {
            self.argument_ended(end + 2);
            return end + 2;
        }
        self.phase = if bytes == 0 { Phase::BodyEnd } else { Phase::Body { left: bytes } };
        used
    }

    fn body(&mut self, input: &[u8], left: u64) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let left = left - taken as u64;
        self.phase = if left == 0 { Phase::BodyEnd } else { Phase::Body { left } };
        taken
    }

    fn body_end(&mut self, input: &[u8]) -> Step {
        let Some(end) = input.get(..2) else { return Ok(None) };
        if end != b"\r\n" {
            return Err(Fault::ArgumentEnd);
        }
        self.argument_ended(2);
        Ok(Some(2))
    }

    /// A short argument with its end, and how many bytes it took with its head.
    fn short<'a>(
        &mut self,
        input: &'a [u8],
        used: usize,
        bytes: u64,
    ) -> Result<Option<(&'a [u8], usize)>, Fault> {
        let Some(rest) = input.get(used..) else { return Ok(None) };
        let Some((text, rest)) =
            usize::try_from(bytes).ok().and_then(|bytes| rest.split_at_checked(bytes))
        else {
            return Ok(None);
        };
        let Some(end) = rest.get(..2) else { return Ok(None) };
        if end != b"\r\n" {
            // At fault is the place where it should end.
            self.offset += (used + text.len()) as u64;
            return Err(Fault::ArgumentEnd);
        }
        Ok(Some((text, used + text.len() + 2)))
    }

    /// The argument ends `taken` bytes from here.
    #[inline]
    fn argument_ended(&mut self, taken: usize) {
        self.arguments_left -= 1;
        if self.arguments_left > 0 {
            self.phase = Phase::Argument;
            return;
        }
        self.phase = Phase::Between;
        self.counts.commands += 1;
        match self.command {
            Command::Multi => self.in_transaction = true,
            Command::Exec => self.in_transaction = false,
            Command::Select | Command::Other => {}
        }
        self.unit_ended(self.offset + taken as u64);
    }

    #[inline]
    fn unit_ended(&mut self, end: u64) {
        self.counts.end = end;
        if self.in_transaction {
            return;
        }
        self.whole = self.counts;
        if !self.databases_since.is_empty() {
            self.databases.append(&mut self.databases_since);
        }
    }

    fn annotation(&mut self, input: &[u8], begin: u64, before: usize) -> Step {
        let end = input.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(input.len(), |end| end + 1);
        if before + taken > ANNOTATION_BYTES_MAX {
            self.offset = begin;
            return Err(Fault::Annotation { limit: ANNOTATION_BYTES_MAX });
        }
        if let Some(room) = self.line.get_mut(before..) {
            let kept = room.len().min(taken);
            room[..kept].copy_from_slice(&input[..kept]);
        }
        let bytes = before + taken;
        if end.is_none() {
            self.phase = Phase::Annotation { begin, bytes };
            return Ok(Some(taken));
        }
        self.phase = Phase::Between;
        self.counts.annotations += 1;
        if let Some(seconds) = self.line.get(..bytes).and_then(timestamp) {
            self.counts.first_timestamp = self.counts.first_timestamp.or(Some(seconds));
            self.counts.last_timestamp = Some(seconds);
        }
        self.unit_ended(self.offset + taken as u64);
        Ok(Some(taken))
    }
}

#[inline]
fn argument_head(input: &[u8]) -> frame::Token<u64> {
    match input.first() {
        None => Ok(None),
        Some(b'$') => {
            let head = frame::number(input)?;
            head.map(|(bytes, used)| Ok((limited(bytes, ARGUMENT_BYTES_MAX)?, used))).transpose()
        }
        Some(other) => Err(Fault::NoArgument(*other)),
    }
}

fn limited(found: u64, limit: u64) -> Result<u64, Fault> {
    if found > limit { Err(Fault::TooLong { found, limit }) } else { Ok(found) }
}

/// As aof.c:genAofTimestampAnnotationIfNeeded writes it.
fn timestamp(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line.strip_prefix(b"#TS:")?).ok()?.trim_end().parse().ok()
}
