//! Files sent out of a container, all held open there from the first byte to the last. A cut is mended at the last proven byte, or told.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{sleep, timeout},
};

use super::{ContainerError, Ended, Error, Running, Shell, compact, last_words};
use crate::domain::frames::{self, Chunk, FileState, Frame, Opened, Parser, Tool, Wanted};

const SCRIPT: &str = include_str!("stream.sh");

/// Nothing is sent for so long only when the way or the disk has died.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Without a byte between them.
const CUTS_MAX: u32 = 8;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

const BUFFER_BYTES: usize = 256 << 10;

pub(super) struct Stream {
    shell: Arc<dyn Shell>,
    tool: Tool,
    files: Vec<Sent>,
    /// Number of the file whose byte comes next, and its place there.
    place: (usize, u64),
    connection: Option<Connection>,
    cuts: u32,
    is_ended: bool,
}

/// A file as it was when it was first opened.
struct Sent {
    path: String,
    state: FileState,
    grows: bool,
}

struct Connection {
    output: Box<dyn AsyncRead + Send + Sync + Unpin>,
    ended: futures_util::future::BoxFuture<'static, Ended>,
    parser: Parser,
    /// The file that this connection calls the first.
    first: usize,
    buffer: Vec<u8>,
    /// What of the buffer was not parsed yet.
    unread: std::ops::Range<usize>,
}

/// Why a connection gave no frame.
enum Cut {
    /// Another one may do better.
    Ended(String),
    Final(frames::Error),
}

impl Stream {
    /// Opens all files at once, and then looks at the list. None when one of them is gone.
    pub(super) async fn open(
        shell: Arc<dyn Shell>,
        tool: Tool,
        files: &[(String, bool)],
        list: Option<&str>,
    ) -> Result<Option<(Self, Opened)>, Error> {
        let wanted: Vec<Wanted> =
            files.iter().map(|(_, grows)| Wanted { end: None, grows: *grows }).collect();
        let mut cuts = 0;
        loop {
            let arguments = files.iter().map(|(path, _)| (path.as_str(), None));
            let arguments = arguments_of(tool, 0, list, arguments);
            let parser = Parser::new(wanted.clone(), 0, list.is_some());
            let begun = begin(&*shell, &arguments, parser, 0).await;
            let path = || files.first().map(|(path, _)| path.clone()).unwrap_or_default();
            match begun {
                Ok((connection, opened)) => {
                    let of = |((path, grows), state): (&(String, bool), &FileState)| Sent {
                        path: path.clone(),
                        state: state.clone(),
                        grows: *grows,
                    };
                    let files = files.iter().zip(&opened.files).map(of).collect();
                    let connection = Some(connection);
                    let (place, cuts, is_ended) = ((0, 0), 0, false);
                    let stream = Self { shell, tool, files, place, connection, cuts, is_ended };
                    return Ok(Some((stream, opened)));
                }
                Err(Cut::Final(frames::Error::Gone(_))) => return Ok(None),
                Err(Cut::Final(source)) => {
                    let place = shell.to_string();
                    return Err(ContainerError::Frames { place, path: path(), source }.into());
                }
                Err(Cut::Ended(finding)) => {
                    cuts += 1;
                    if cuts >= CUTS_MAX {
                        let place = shell.to_string();
                        return Err(
                            ContainerError::Cut { place, path: path(), cuts, finding }.into()
                        );
                    }
                    pause(cuts).await;
                }
            }
        }
    }

    /// The next proven bytes of a file. None at its end, which for the last file is proven too.
    pub(super) async fn next(&mut self, file: usize) -> Result<Option<(u64, Vec<u8>)>, Error> {
        loop {
            let is_last = file + 1 == self.files.len();
            let is_sent = self.place.0 > file || self.place == (file, self.bytes(file));
            if is_sent && (!is_last || self.is_ended) {
                return Ok(None);
            }
            if self.place.0 < file && self.connection.is_none() {
                self.place = (file, 0);
            }
            let frame = match &mut self.connection {
                Some(connection) => connection.next().await,
                None => match self.connect().await? {
                    Ok(()) => continue,
                    Err(cut) => Err(cut),
                },
            };
            match frame {
                Ok(Frame::Chunk(Chunk { file: number, offset, bytes })) => {
                    let first = self.connection.as_ref().map_or(0, |connection| connection.first);
                    self.cuts = 0;
                    self.place = (first + number, offset + bytes.len() as u64);
                    if self.place.0 == file {
                        return Ok(Some((offset, bytes)));
                    }
                }
                Ok(Frame::Opened(_)) => {}
                Ok(Frame::End) => {
                    self.is_ended = true;
                    self.connection = None;
                }
                Err(cut) => self.mend(cut).await?,
            }
        }
    }

    /// Goes on from an earlier place of a file, by a command of its own.
    pub(super) fn seek(&mut self, file: usize, place: u64) {
        // Whole blocks of the sender's.
        self.place = (file, place - place % frames::CHUNK_BYTES);
        self.connection = None;
        self.is_ended = false;
    }

    pub(super) fn bytes(&self, file: usize) -> u64 {
        self.files.get(file).map_or(0, |sent| sent.state.bytes)
    }

    /// Whether every byte of the file was handed out.
    pub(super) fn is_read(&self, file: usize) -> bool {
        self.place.0 > file || self.place == (file, self.bytes(file))
    }

    /// A new command, which goes on where the last one was cut, with the very same files.
    async fn connect(&mut self) -> Result<Result<(), Cut>, Error> {
        let (first, offset) = self.place;
        let rest = self.files.get(first..).unwrap_or_default();
        // What grows is wanted as far as it went when it was opened, and no further.
        let wanted =
            |sent: &Sent| Wanted { end: sent.grows.then_some(sent.state.bytes), grows: sent.grows };
        let arguments = rest.iter().map(|sent| (sent.path.as_str(), wanted(sent).end));
        let arguments = arguments_of(self.tool, offset, None, arguments);
        let parser = Parser::new(rest.iter().map(wanted).collect(), offset, false);
        let (connection, opened) = match begin(&*self.shell, &arguments, parser, first).await {
            Ok(begun) => begun,
            Err(cut) => return Ok(Err(cut)),
        };
        let replaced = rest.iter().zip(&opened.files);
        let replaced =
            replaced.filter(|(sent, now)| !now.continues(&sent.state, sent.grows)).count();
        if replaced > 0 {
            return Err(self.replaced());
        }
        tracing::debug!(place = %self.shell, offset, "reading on at the last proven byte");
        self.connection = Some(connection);
        Ok(Ok(()))
    }

    async fn mend(&mut self, cut: Cut) -> Result<(), Error> {
        self.connection = None;
        let (number, sent) = self.place;
        let place = self.shell.to_string();
        let path = self.files.get(number).map(|sent| sent.path.clone()).unwrap_or_default();
        match cut {
            Cut::Final(frames::Error::Gone(_) | frames::Error::Changed) => Err(self.replaced()),
            Cut::Final(source) => Err(ContainerError::Frames { place, path, source }.into()),
            Cut::Ended(finding) => {
                self.cuts += 1;
                if self.cuts >= CUTS_MAX {
                    let cuts = self.cuts;
                    return Err(ContainerError::Cut { place, path, cuts, finding }.into());
                }
                tracing::warn!("reading {path} in {place} was cut after {sent} bytes: {finding}");
                pause(self.cuts).await;
                Ok(())
            }
        }
    }

    fn replaced(&self) -> Error {
        let (number, sent) = self.place;
        let path = self.files.get(number).map(|sent| sent.path.clone()).unwrap_or_default();
        ContainerError::Replaced { place: self.shell.to_string(), path, sent }.into()
    }
}

impl Connection {
    /// Can be dropped while it waits, and asked again.
    async fn next(&mut self) -> Result<Frame, Cut> {
        loop {
            let mut unread = self.buffer.get(self.unread.clone()).unwrap_or_default();
            let parsed = self.parser.feed(&mut unread);
            self.unread.start = self.unread.end - unread.len();
            match parsed {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(error @ (frames::Error::Unexpected { .. } | frames::Error::Digest { .. })) => {
                    return Err(Cut::Ended(error.to_string()));
                }
                Err(
                    error @ (frames::Error::Changed
                    | frames::Error::Refused(_)
                    | frames::Error::Gone(_)),
                ) => return Err(Cut::Final(error)),
            }
            self.unread = match timeout(SILENCE_MAX, self.output.read(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(self.why_ended().await),
                Ok(Ok(count)) => 0..count,
                Ok(Err(error)) => return Err(Cut::Ended(error.to_string())),
                Err(_) => {
                    let limit = SILENCE_MAX.as_secs();
                    return Err(Cut::Ended(format!("nothing came for {limit} s")));
                }
            };
        }
    }

    async fn why_ended(&mut self) -> Cut {
        let ended =
            std::mem::replace(&mut self.ended, Box::pin(std::future::ready(Ended::default())));
        Cut::Ended(last_words(ended).await.to_string())
    }
}

/// Starts a command and waits until it has opened all files.
async fn begin(
    shell: &dyn Shell,
    arguments: &[String],
    parser: Parser,
    first: usize,
) -> Result<(Connection, Opened), Cut> {
    let chain = |error: &dyn std::error::Error| {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
    };
    let script = compact(SCRIPT);
    let running = timeout(SILENCE_MAX, shell.run(&script, arguments)).await;
    let running = running
        .map_err(|_| Cut::Ended(format!("it did not begin within {} s", SILENCE_MAX.as_secs())))?;
    let Running { output, ended } = running.map_err(|error| Cut::Ended(chain(&*error)))?;
    let buffer = vec![0; BUFFER_BYTES];
    let mut connection = Connection { output, ended, parser, first, buffer, unread: 0..0 };
    match connection.next().await? {
        Frame::Opened(opened) => Ok((connection, opened)),
        // The parser lets nothing else come first.
        Frame::Chunk(_) | Frame::End => Err(Cut::Ended("its files were not opened".to_owned())),
    }
}

fn arguments_of<'a>(
    tool: Tool,
    offset: u64,
    list: Option<&str>,
    files: impl Iterator<Item = (&'a str, Option<u64>)>,
) -> Vec<String> {
    let list = list.unwrap_or_default().to_owned();
    let head = [tool.name().to_owned(), frames::CHUNK_BYTES.to_string(), offset.to_string(), list];
    let end = |end: Option<u64>| end.map_or_else(|| "all".to_owned(), |end| end.to_string());
    let files = files.flat_map(|(path, wanted)| [path.to_owned(), end(wanted)]);
    head.into_iter().chain(files).collect()
}

async fn pause(cuts: u32) {
    sleep((PAUSE_MIN * 2_u32.pow(cuts.min(10))).min(PAUSE_MAX)).await;
}
