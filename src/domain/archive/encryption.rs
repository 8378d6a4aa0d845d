//! Encryption by age, <https://age-encryption.org/v1>: who can open an archive, and its bytes in either direction.
//! Never tells a key. Here and in `keys` chance enters the domain, and nowhere else: age itself draws each archive's file
//! key, and a fresh identity.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read, Write},
    sync::{Arc, Mutex, PoisonError},
};

use age::{
    DecryptError, Decryptor, Encryptor,
    stream::{StreamReader, StreamWriter},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Error,
    keys::{Identities, Recipients},
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    #[default]
    None,
    /// Open it with `age -d -i FILE`.
    Age,
}

impl Encryption {
    /// What is appended to the archive's name behind the codec's part, the dot included.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Age => ".age",
        }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Age => "age",
        })
    }
}

/// The kinds of recipients that an age file names, such as `2 X25519, 1 ssh-ed25519`. Never a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientKinds(BTreeMap<String, usize>);

impl RecipientKinds {
    /// From the lines `-> KIND …` of a header.
    fn of_header(header: &[u8]) -> Self {
        let mut kinds = BTreeMap::new();
        for line in String::from_utf8_lossy(header).lines() {
            let kind = line.strip_prefix("-> ").and_then(|rest| rest.split(' ').next());
            // Made up by programs that keep others from taking the known kinds for all.
            let kind = kind.filter(|kind| !kind.ends_with("-grease"));
            if let Some(kind) = kind {
                *kinds.entry(kind.to_owned()).or_default() += 1;
            }
        }
        Self(kinds)
    }
}

impl fmt::Display for RecipientKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nobody");
        }
        let kinds: Vec<String> =
            self.0.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        f.write_str(&kinds.join(", "))
    }
}

/// Clear bytes in, an age file out.
pub(super) struct Sealer {
    writer: StreamWriter<Pipe>,
    sealed: Pipe,
}

impl Sealer {
    pub(super) fn new(recipients: &Recipients) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Encrypt { source };
        let encryptor = Encryptor::with_recipients(recipients.iter())
            .map_err(|error| failed(io::Error::other(error)))?;
        let sealed = Pipe::default();
        let writer = encryptor.wrap_output(sealed.clone()).map_err(failed)?;
        Ok(Self { writer, sealed })
    }

    /// Appends to `stored` what is ready; some may come with a later call.
    pub(super) fn feed(&mut self, clear: &[u8], stored: &mut Vec<u8>) -> Result<(), Error> {
        self.writer.write_all(clear).map_err(|source| Error::Encrypt { source })?;
        self.sealed.append_to(stored);
        Ok(())
    }

    pub(super) fn finish(self, stored: &mut Vec<u8>) -> Result<(), Error> {
        self.writer.finish().map_err(|source| Error::Encrypt { source })?.append_to(stored);
        Ok(())
    }
}

/// An age file in, clear bytes out. What comes out is authenticated; that it is all only `finish` tells.
pub(super) struct Opener {
    identities: Identities,
    state: OpenerState,
}

enum OpenerState {
    /// The header as far as it has come.
    Header(Vec<u8>),
    Payload {
        reader: Box<StreamReader<Pipe>>,
        sealed: Pipe,
    },
}

/// More than any number of recipients needs.
const HEADER_BYTES_MAX: usize = 1 << 20;

/// The line that ends a header begins so, and behind it stands a nonce.
const HEADER_END: &[u8] = b"\n--- ";
const NONCE_BYTES: usize = 16;

/// age opens 64 KiB at a time.
const PIECE_BYTES: usize = 64 << 10;

impl Opener {
    pub(super) fn new(identities: &Identities) -> Self {
        Self { identities: identities.clone(), state: OpenerState::Header(Vec::new()) }
    }

    /// Hands on the clear bytes that are complete.
    pub(super) fn feed<E: From<Error>>(
        &mut self,
        stored: &[u8],
        sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match &mut self.state {
            OpenerState::Header(header) => {
                // Only the end of what was there before can be the beginning of the mark.
                let from = header.len().saturating_sub(128);
                header.extend_from_slice(stored);
                let Some(length) = header_length(header, from) else {
                    return Ok(check_beginning(header)?);
                };
                let payload = header.split_off(length);
                let (reader, sealed) = open(header, &self.identities)?;
                self.state = OpenerState::Payload { reader, sealed };
                self.feed(&payload, sink)
            }
            OpenerState::Payload { reader, sealed } => {
                sealed.push(stored);
                read_on(reader, sink)
            }
        }
    }

    /// Hands on the last bytes, once the end has proven to be the end.
    pub(super) fn finish<E: From<Error>>(
        self,
        sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.state {
            OpenerState::Header(_) => Err(Error::Header { finding: "it ends too early" })?,
            OpenerState::Payload { mut reader, sealed } => {
                sealed.end();
                read_on(&mut reader, sink)
            }
        }
    }
}

/// The length of header and nonce, once both are there. `from` is where the mark may begin.
fn header_length(bytes: &[u8], from: usize) -> Option<usize> {
    let searched = bytes.get(from..)?;
    let mark = searched.windows(HEADER_END.len()).position(|window| window == HEADER_END)?;
    let line = from + mark + HEADER_END.len();
    let end = line + bytes.get(line..)?.iter().position(|byte| *byte == b'\n')? + 1;
    (bytes.len() >= end + NONCE_BYTES).then_some(end + NONCE_BYTES)
}

fn check_beginning(header: &[u8]) -> Result<(), Error> {
    const BEGINNING: &[u8] = b"age-encryption.org/";
    let length = header.len().min(BEGINNING.len());
    if header[..length] != BEGINNING[..length] {
        return Err(Error::Header { finding: "it does not begin as an age file does" });
    }
    if header.len() > HEADER_BYTES_MAX {
        return Err(Error::Header { finding: "it is longer than any" });
    }
    Ok(())
}

fn open(header: &[u8], identities: &Identities) -> Result<(Box<StreamReader<Pipe>>, Pipe), Error> {
    let sealed = Pipe::default();
    sealed.push(header);
    let decryptor = Decryptor::new(sealed.clone())
        .map_err(|_| Error::Header { finding: "it cannot be read" })?;
    let recipients = RecipientKinds::of_header(header);
    if identities.is_empty() {
        return Err(Error::NoIdentity { recipients });
    }
    match decryptor.decrypt(identities.iter()) {
        Ok(reader) => Ok((Box::new(reader), sealed)),
        Err(DecryptError::NoMatchingKeys) => Err(Error::OtherIdentity { recipients }),
        Err(_) => Err(Error::Header { finding: "it was changed since it was written" }),
    }
}

fn read_on<E: From<Error>>(
    reader: &mut StreamReader<Pipe>,
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => sink(&piece[..count])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(source) => Err(Error::Decrypt { source })?,
        }
    }
}

/// Bytes between us, who push them, and the age crate, which wants to read and write for itself.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// How many of them were read.
    read: usize,
    ended: bool,
}

impl Pipe {
    fn with<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, bytes: &[u8]) {
        self.with(|queue| {
            let read = std::mem::take(&mut queue.read);
            queue.bytes.drain(..read);
            queue.bytes.extend_from_slice(bytes);
        });
    }

    fn append_to(&self, stored: &mut Vec<u8>) {
        self.with(|queue| stored.append(&mut queue.bytes));
    }

    fn end(&self) {
        self.with(|queue| queue.ended = true);
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|queue| {
            let waiting = &queue.bytes[queue.read..];
            if waiting.is_empty() && !queue.ended {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = waiting.len().min(buffer.len());
            buffer[..count].copy_from_slice(&waiting[..count]);
            queue.read += count;
            Ok(count)
        })
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|queue| queue.bytes.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
