//! Scans one append-only file that comes in chunks of any size. Proves its framing and counts; never keeps a command.

use jiff::Timestamp;

use super::{
    FileFacts,
    commands::{Commands, Counts},
    error::{Error, Fault},
};
use crate::domain::rdb::{self, Expectations};

/// What a scan tells of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    pub facts: FileFacts,
    /// Of the RDB that it begins with.
    pub private: rdb::Private,
}

/// Needs the same few kilobytes of memory for any file.
#[derive(Debug)]
pub struct Scanner {
    expectations: Expectations,
    bytes: u64,
    part: Part,
    preamble: Option<rdb::Scanned>,
    failure: Option<Error>,
}

#[derive(Debug)]
enum Part {
    /// Nothing came yet.
    Begin,
    Preamble(Box<rdb::Scanner>),
    Commands(Box<Commands>),
}

impl Scanner {
    /// The expectations are of the RDB that the file may begin with.
    pub fn new(expectations: &Expectations) -> Self {
        Self {
            expectations: expectations.clone(),
            bytes: 0,
            part: Part::Begin,
            preamble: None,
            failure: None,
        }
    }

    /// After an error every further call gives the same one.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.walk(bytes).inspect_err(|failure| self.failure = Some(failure.clone()))
    }

    /// End of the last whole command or annotation outside MULTI … EXEC, or of the RDB before them; 0 while neither came.
    ///
    /// The end of an RDB whose version is unknown is known to [`Scanner::finish`] only.
    pub fn whole_bytes(&self) -> u64 {
        match &self.part {
            Part::Begin | Part::Preamble(_) => 0,
            Part::Commands(commands) => commands.whole().end,
        }
    }

    /// The input has ended. A command or transaction cut short is no error, a cut RDB is.
    pub fn finish(self) -> Result<Scanned, Error> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let (preamble, commands) = match self.part {
            Part::Begin => (None, Commands::begin_at(0)),
            Part::Preamble(scanner) => {
                (Some(scanner.finish().map_err(broken)?), Commands::begin_at(self.bytes))
            }
            Part::Commands(commands) => (self.preamble, *commands),
        };
        let Counts { end, commands: count, annotations, first_timestamp, last_timestamp } =
            commands.whole();
        let (content, private) = preamble.map(|it| (it.content, it.private)).unzip();
        let time = |seconds: i64| Timestamp::from_second(seconds).ok();
        let facts = FileFacts {
            bytes: self.bytes,
            whole_bytes: end,
            commands: count,
            annotations,
            first_timestamp: first_timestamp.and_then(time),
            last_timestamp: last_timestamp.and_then(time),
            preamble: content,
            databases: commands.into_databases(),
        };
        Ok(Scanned { facts, private: private.unwrap_or_default() })
    }

    fn walk(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let Some(first) = bytes.first() else { return Ok(()) };
        if matches!(self.part, Part::Begin) {
            // As the loader does, by the first bytes and not by the name.
            self.part = if matches!(first, b'R' | b'V') {
                Part::Preamble(Box::new(rdb::Scanner::new(&self.expectations)))
            } else {
                Part::Commands(Box::new(Commands::begin_at(0)))
            };
        }
        if let Part::Preamble(scanner) = &mut self.part {
            let taken = scanner.feed_to_end(bytes).map_err(broken)?;
            self.bytes += taken as u64;
            bytes = &bytes[taken..];
            if !scanner.has_ended() {
                return Ok(());
            }
            let commands = Part::Commands(Box::new(Commands::begin_at(self.bytes)));
            if let Part::Preamble(scanner) = std::mem::replace(&mut self.part, commands) {
                self.preamble = Some(scanner.finish().map_err(broken)?);
            }
        }
        if let Part::Commands(commands) = &mut self.part {
            commands.feed(bytes)?;
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }
}

fn broken(error: rdb::Error) -> Error {
    Error { offset: error.offset, fault: Fault::Preamble(error) }
}
