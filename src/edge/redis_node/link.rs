//! One connection, spoken to a command and a line at a time: AUTH, and the handshake of a replica.
//!
//! Each command is sent only after the reply before it was read: a pipelined replica handshake hangs.

use std::{
    fmt::Write as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::timeout,
};

use super::{Error, dial::Stream};
use crate::domain::source::NodeAddress;

/// All replies to the questions of one look together: a hundred times what a Cluster of a thousand
/// nodes says. Who sends more is no Redis, and would fill our memory.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// A stream that ends with an error once more was read than any Redis answers.
pub(super) struct Bounded {
    stream: Stream,
    left: usize,
}

impl Bounded {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, left: REPLY_BYTES_MAX }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, left } = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(stream).poll_read(context, buffer);
        match left.checked_sub(buffer.filled().len() - before) {
            Some(rest) => {
                *left = rest;
                polled
            }
            None => Poll::Ready(Err(io::Error::other(format!(
                "it sent more than {REPLY_BYTES_MAX} bytes of replies"
            )))),
        }
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// No reply of a handshake is longer.
const LINE_BYTES_MAX: usize = 16 << 10;

pub(super) struct Link {
    pub(super) address: NodeAddress,
    pub(super) attempt: &'static str,
    pub(super) stream: Stream,
    /// Read from the stream and not yet used.
    pub(super) ahead: BytesMut,
    /// How long the peer may be silent.
    pub(super) silence_max: Duration,
}

impl Link {
    pub(super) fn new(
        attempt: &'static str,
        address: &NodeAddress,
        stream: Stream,
        silence_max: Duration,
    ) -> Self {
        Self { address: address.clone(), attempt, stream, ahead: BytesMut::new(), silence_max }
    }

    /// Send a command and read its reply, which must be one line: `Ok` behind a `+`, `Err` behind a `-`.
    pub(super) async fn ask(&mut self, words: &[&str]) -> Result<Result<String, String>, Error> {
        self.send(words).await?;
        let line = self.line().await?;
        match line.as_bytes().first() {
            Some(b'+') => Ok(Ok(line[1..].to_owned())),
            Some(b'-') => Ok(Err(line[1..].to_owned())),
            _ => Err(self.unexpected(&line)),
        }
    }

    pub(super) async fn send(&mut self, words: &[&str]) -> Result<(), Error> {
        let mut packed = format!("*{}\r\n", words.len());
        for word in words {
            let _ = write!(packed, "${}\r\n{word}\r\n", word.len());
        }
        let sent = async {
            self.stream.write_all(packed.as_bytes()).await?;
            self.stream.flush().await
        };
        match timeout(self.silence_max, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(self.cut(source)),
            Err(_) => Err(self.silent()),
        }
    }

    /// The next line without its end. Bare newlines are keep-alives and no line.
    pub(super) async fn line(&mut self) -> Result<String, Error> {
        loop {
            while self.ahead.first() == Some(&b'\n') {
                self.ahead.advance(1);
            }
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line = self.ahead.split_to(end + 1);
                let line = line.strip_suffix(b"\r\n").unwrap_or(&line[..end]);
                return Ok(String::from_utf8_lossy(line).into_owned());
            }
            if self.ahead.len() > LINE_BYTES_MAX {
                let start = String::from_utf8_lossy(&self.ahead[..80]).into_owned();
                return Err(self.unexpected(&start));
            }
            self.read_ahead().await?;
        }
    }

    async fn read_ahead(&mut self) -> Result<(), Error> {
        self.ahead.reserve(4096);
        match timeout(self.silence_max, self.stream.read_buf(&mut self.ahead)).await {
            Ok(Ok(0)) => Err(Error::Cut {
                attempt: self.attempt,
                address: self.address.clone(),
                position: "before its reply".to_owned(),
                source: None,
            }),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(self.cut(source)),
            Err(_) => Err(self.silent()),
        }
    }

    pub(super) fn refused(&self, command: &str, reply: &str) -> Error {
        Error::of_reply(self.attempt, &self.address, command, reply)
    }

    pub(super) fn unexpected(&self, line: &str) -> Error {
        let line: String = line.chars().take(80).collect();
        self.protocol(format!("{line:?} is no answer of a Redis"))
    }

    pub(super) fn protocol(&self, finding: String) -> Error {
        Error::Protocol { attempt: self.attempt, address: self.address.clone(), finding }
    }

    pub(super) fn silent(&self) -> Error {
        let Self { address, attempt, stream: _, ahead: _, silence_max } = self;
        Error::Timeout { attempt, address: address.clone(), limit: *silence_max }
    }

    fn cut(&self, source: io::Error) -> Error {
        Error::of_cut(self.attempt, &self.address, "before its reply".to_owned(), source)
    }
}
