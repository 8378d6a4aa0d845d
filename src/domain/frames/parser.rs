//! The frames of one command's output, parsed from bytes in any pieces. Never takes an early end for the end.

use super::{
    CHUNK_BYTES, Chunk, Error, FileState, Frame, Opened, Wanted,
    tool::{Sum, Summing, Tool},
};

/// A path may stand in a line.
const LINE_BYTES_MAX: usize = 8 << 10;

#[derive(Debug)]
pub struct Parser {
    wanted: Vec<Wanted>,
    wants_list: bool,
    line: Vec<u8>,
    tool: Tool,
    list: Option<(u64, Sum)>,
    files: Vec<FileState>,
    /// Of the next byte: number of its file, and its place there.
    place: (usize, u64),
    chunks: u64,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Greeting,
    List,
    Files,
    Chunks,
    Bytes(Box<Unproven>),
    Last(usize),
    Count,
    Ended,
}

/// A chunk of which some bytes are missing.
#[derive(Debug)]
struct Unproven {
    length: u64,
    sum: Sum,
    summing: Summing,
    bytes: Vec<u8>,
}

impl Parser {
    /// The files that were asked for, and the byte of the first one from which on.
    pub fn new(wanted: Vec<Wanted>, offset: u64, wants_list: bool) -> Self {
        Self {
            wanted,
            wants_list,
            line: Vec::new(),
            tool: Tool::Sha256sum,
            list: None,
            files: Vec::new(),
            place: (0, offset),
            chunks: 0,
            step: Step::Greeting,
        }
    }

    /// Takes bytes off the front of `input` until a frame is whole or nothing is left.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Error> {
        while !input.is_empty() {
            if let Step::Bytes(unproven) = &mut self.step {
                let (file, offset) = self.place;
                if let Some(bytes) = unproven.take(input, offset)? {
                    self.place = (file, offset + bytes.len() as u64);
                    self.chunks += 1;
                    self.step = self.next_chunk();
                    return Ok(Some(Frame::Chunk(Chunk { file, offset, bytes })));
                }
                continue;
            }
            let Some(line) = self.take_line(input)? else { continue };
            if let Some(frame) = self.read(&line)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Whether the last frame was seen.
    pub const fn is_ended(&self) -> bool {
        matches!(self.step, Step::Ended)
    }

    fn take_line(&mut self, input: &mut &[u8]) -> Result<Option<String>, Error> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let (piece, rest) = input.split_at(end.unwrap_or(input.len()));
        if self.line.len() + piece.len() > LINE_BYTES_MAX {
            return Err(self.unexpected("<a line without an end>"));
        }
        self.line.extend_from_slice(piece);
        *input = rest.get(usize::from(end.is_some())..).unwrap_or_default();
        let whole = end.map(|_| String::from_utf8_lossy(&self.line).into_owned());
        if whole.is_some() {
            self.line.clear();
        }
        Ok(whole)
    }

    fn read(&mut self, line: &str) -> Result<Option<Frame>, Error> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "refused" => return Err(Error::Refused(rest.to_owned())),
            "gone" => return Err(Error::Gone(rest.to_owned())),
            _ => {}
        }
        let read = match (&self.step, word) {
            (Step::Greeting, "frames") => self.read_greeting(rest),
            (Step::List, "list") => self.read_list(rest),
            (Step::Files, "file") => return self.read_file(line, rest),
            (Step::Chunks, "chunk") => self.read_chunk(rest),
            (Step::Last(number), "last") => {
                let number = *number;
                return self.read_last(line, rest, number);
            }
            (Step::Count, "end") => {
                if rest.parse() == Ok(self.chunks) {
                    self.step = Step::Ended;
                    return Ok(Some(Frame::End));
                }
                None
            }
            _ => None,
        };
        match read {
            Some(step) => {
                self.step = step;
                Ok(None)
            }
            None => Err(self.unexpected(line)),
        }
    }

    fn read_greeting(&mut self, rest: &str) -> Option<Step> {
        self.tool = rest.strip_prefix("1 ")?.parse().ok()?;
        Some(if self.wants_list { Step::List } else { Step::Files })
    }

    fn read_list(&mut self, rest: &str) -> Option<Step> {
        let (bytes, sum) = rest.split_once(' ')?;
        self.list = Some((bytes.parse().ok()?, Sum::new(sum)));
        Some(Step::Files)
    }

    fn read_file(&mut self, line: &str, rest: &str) -> Result<Option<Frame>, Error> {
        let file = Self::state(self.files.len(), rest).ok_or_else(|| self.unexpected(line))?;
        self.files.push(file);
        if self.files.len() < self.wanted.len() {
            return Ok(None);
        }
        // What is wanted and no longer there was cut off.
        if self.files.iter().zip(&self.wanted).any(|(file, it)| it.end > Some(file.bytes)) {
            return Err(Error::Changed);
        }
        self.step = self.next_chunk();
        Ok(Some(Frame::Opened(Opened { list: self.list.take(), files: self.files.clone() })))
    }

    fn read_chunk(&mut self, rest: &str) -> Option<Step> {
        let (number, rest) = rest.split_once(' ')?;
        let (offset, rest) = rest.split_once(' ')?;
        let (length, sum) = rest.split_once(' ')?;
        let (file, place) = self.place;
        let length: u64 = length.parse().ok()?;
        let follows = number.parse() == Ok(file) && offset.parse() == Ok(place);
        let fits = (1..=CHUNK_BYTES).contains(&length) && length <= self.end_of(file)? - place;
        (follows && fits).then(|| {
            Step::Bytes(Box::new(Unproven {
                length,
                sum: Sum::new(sum),
                summing: Summing::new(self.tool),
                bytes: Vec::with_capacity(usize::try_from(length).unwrap_or(0)),
            }))
        })
    }

    fn read_last(&mut self, line: &str, rest: &str, number: usize) -> Result<Option<Frame>, Error> {
        let now = Self::state(number, rest).ok_or_else(|| self.unexpected(line))?;
        let known = self.files.get(number).zip(self.wanted.get(number));
        if !known.is_some_and(|(before, wanted)| now.continues(before, wanted.grows)) {
            return Err(Error::Changed);
        }
        let next = number + 1;
        self.step = if next < self.wanted.len() { Step::Last(next) } else { Step::Count };
        Ok(None)
    }

    fn state(number: usize, rest: &str) -> Option<FileState> {
        let (found, state) = rest.split_once(' ')?;
        (found.parse() == Ok(number)).then(|| FileState::parse(state)).flatten()
    }

    /// Moves on past files of which nothing is missing.
    fn next_chunk(&mut self) -> Step {
        while let Some(end) = self.end_of(self.place.0) {
            if self.place.1 < end {
                return Step::Chunks;
            }
            self.place = (self.place.0 + 1, 0);
        }
        Step::Last(0)
    }

    fn end_of(&self, number: usize) -> Option<u64> {
        let (file, wanted) = self.files.get(number).zip(self.wanted.get(number))?;
        Some(wanted.end.unwrap_or(file.bytes))
    }

    fn unexpected(&self, line: &str) -> Error {
        let expected = match self.step {
            Step::Greeting => "a greeting",
            Step::List => "the digest of the list",
            Step::Files => "the state of a file",
            Step::Chunks | Step::Bytes(_) => "the next chunk",
            Step::Last(_) => "the state of a file at its end",
            Step::Count => "the count of all chunks",
            Step::Ended => "nothing",
        };
        Error::Unexpected { line: line.chars().take(80).collect(), expected }
    }
}

impl Unproven {
    /// The bytes, once they are proven.
    fn take(&mut self, input: &mut &[u8], offset: u64) -> Result<Option<Vec<u8>>, Error> {
        let missing = self.length - self.bytes.len() as u64;
        let count = input.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
        let (piece, rest) = input.split_at(count);
        *input = rest;
        self.summing.update(piece);
        self.bytes.extend_from_slice(piece);
        if count as u64 != missing {
            return Ok(None);
        }
        let summing = std::mem::replace(&mut self.summing, Summing::new(Tool::Sha256sum));
        if summing.finish() == self.sum {
            Ok(Some(std::mem::take(&mut self.bytes)))
        } else {
            Err(Error::Digest { offset, length: self.length })
        }
    }
}
