//! Chunks of a streamed file on their way to a thread that reads it as if it lay here. Holds a handful of them, never the file.

use std::{fmt, io, sync::Arc};

use tokio::sync::{Mutex, mpsc};

use super::{Error, Stream};

/// One of several files of one stream, which are read in their order.
#[derive(Clone)]
pub struct Streamed {
    stream: Arc<Mutex<Stream>>,
    number: usize,
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Bytes and their place in the file; none of them at its end.
#[derive(Debug)]
struct Piece {
    offset: u64,
    bytes: Vec<u8>,
}

impl Piece {
    fn from(&self, place: u64) -> Option<&[u8]> {
        let first = usize::try_from(place.checked_sub(self.offset)?).ok()?;
        self.bytes.get(first..).filter(|bytes| !bytes.is_empty())
    }
}

/// The side that reads, and may look back.
#[derive(Debug)]
pub struct Pieces {
    brought: mpsc::Receiver<Piece>,
    /// Places from which to go on.
    seeks: mpsc::Sender<u64>,
    /// The last two, for what is read again.
    held: [Option<Piece>; 2],
}

/// The side that brings.
pub struct StreamedServing {
    file: Streamed,
    pieces: mpsc::Sender<Piece>,
    seeks: mpsc::Receiver<u64>,
}

impl fmt::Debug for StreamedServing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamedServing").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Streamed {
    pub(super) fn all(stream: Stream, count: usize) -> Vec<Self> {
        let stream = Arc::new(Mutex::new(stream));
        (0..count).map(|number| Self { stream: Arc::clone(&stream), number }).collect()
    }

    pub(in crate::edge::live_directory) fn begin(self) -> (Pieces, StreamedServing) {
        let (pieces, brought) = mpsc::channel(1);
        let (seeks, asked) = mpsc::channel(1);
        let reader = Pieces { brought, seeks, held: [None, None] };
        (reader, StreamedServing { file: self, pieces, seeks: asked })
    }
}

impl Pieces {
    /// Waits for bytes on a thread that may block. Fewer than `buffer` holds may come, none at the end.
    pub fn read_at(&mut self, buffer: &mut [u8], place: u64) -> io::Result<usize> {
        let before = |piece: &Piece| place < piece.offset;
        if self.held.iter().flatten().all(before) && self.held[1].is_some() {
            self.held = [None, None];
            self.seeks.blocking_send(place).map_err(|_| hung_up())?;
        }
        loop {
            if let Some(bytes) = self.held.iter().flatten().find_map(|piece| piece.from(place)) {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                return Ok(count);
            }
            let piece = self.brought.blocking_recv().ok_or_else(hung_up)?;
            if piece.bytes.is_empty() && piece.offset <= place {
                return Ok(0);
            }
            // What was on its way when an earlier place was asked for is not wanted any more.
            if piece.offset <= place {
                self.held = [self.held[1].take(), Some(piece)];
            }
        }
    }
}

/// Whoever brings has failed, and says why himself.
fn hung_up() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl StreamedServing {
    /// Brings what is read until the reader is dropped. Fails also when all bytes came and their end
    /// is not proven.
    pub(in crate::edge::live_directory) async fn run(self) -> Result<(), Error> {
        let Self { file: Streamed { stream, number }, pieces, mut seeks } = self;
        let mut stream = stream.lock().await;
        let (mut next, mut is_at_end) = (None, false);
        loop {
            tokio::select! {
                asked = seeks.recv() => match asked {
                    Some(place) => {
                        stream.seek(number, place);
                        (next, is_at_end) = (None, false);
                    }
                    None if stream.is_read(number) && !is_at_end => {
                        while stream.next(number).await?.is_some() {}
                        return Ok(());
                    }
                    None => return Ok(()),
                },
                permit = pieces.reserve(), if next.is_some() => {
                    if let (Ok(permit), Some(piece)) = (permit, next.take()) {
                        permit.send(piece);
                    }
                }
                found = stream.next(number), if next.is_none() && !is_at_end => {
                    let found = found?;
                    is_at_end = found.is_none();
                    let (offset, bytes) = found.unwrap_or((stream.bytes(number), Vec::new()));
                    next = Some(Piece { offset, bytes });
                }
            }
        }
    }
}
