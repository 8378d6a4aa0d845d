//! One RDB by the replication protocol, as a replica gets it. Proves its end; never looks into it.
//!
//! Not announced (no listening port, no ACK), so that nobody takes us for a replica to promote.
//! What the server sends is told in Redis's `replication.c`, `syncCommand` and `readSyncBulkPayload`.

#[cfg(test)]
mod tests;

use std::{fmt, io, time::Duration};

use bytes::{BufMut as _, BytesMut};
use jiff::Timestamp;
use tokio::{io::AsyncReadExt as _, time::timeout};

use super::{Access, Error, connection, link::Link};
use crate::domain::{
    manifest::{Flavour, Server},
    source::NodeAddress,
};

const ATTEMPT: &str = "capture by replication";

/// The mark that a diskless transfer is framed by (`CONFIG_RUN_ID_SIZE`).
const MARK_BYTES: usize = 40;

/// What a buffer must offer, lest reads become tiny.
const SPARE_BYTES_MIN: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long the server may send nothing at all, keep-alives included.
    pub silence_max: Duration,
    /// Until the first byte is announced, keep-alives or not.
    pub begin_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { silence_max: Duration::from_mins(1), begin_max: Duration::from_hours(4) }
    }
}

/// A transfer that has begun. Dropping it ends it.
pub struct Snapshot {
    link: Link,
    asked_at: Timestamp,
    replication_id: String,
    offset: u64,
    framing: Framing,
    /// Bytes of the RDB given out.
    received: u64,
}

enum Framing {
    /// `$<length>`: from the server's disk.
    Length {
        total: u64,
        left: u64,
    },
    /// `$EOF:<mark>`: diskless; `held` may be the beginning of the mark.
    Mark {
        mark: [u8; MARK_BYTES],
        held: BytesMut,
    },
    Ended,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("address", &self.link.address)
            .field("replication_id", &self.replication_id)
            .field("offset", &self.offset)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Ask for a snapshot and wait until its first byte is announced: for a delay that the server
    /// may have (`repl-diskless-sync-delay`), its fork, and, where it is not diskless, its save.
    pub async fn begin(
        address: &NodeAddress,
        access: &Access,
        server: &Server,
        limits: Limits,
    ) -> Result<Self, Error> {
        let mut link = connection::open(ATTEMPT, address, access).await?;
        let asked_at = server_time(&mut link).await?;
        link.silence_max = limits.silence_max;
        configure(&mut link, server).await?;
        let limit = limits.begin_max;
        let late = |_| Error::Late { attempt: ATTEMPT, address: address.clone(), limit };
        timeout(limit, Self::synchronise(link, asked_at)).await.map_err(late)?
    }

    async fn synchronise(mut link: Link, asked_at: Timestamp) -> Result<Self, Error> {
        let (replication_id, offset) = match link.ask(&["PSYNC", "?", "-1"]).await? {
            Ok(reply) => full_resync(&reply).ok_or_else(|| link.unexpected(&reply))?,
            Err(reply) => return Err(link.refused("PSYNC", &reply)),
        };
        let preamble = link.line().await?;
        if let Some(reply) = preamble.strip_prefix('-') {
            return Err(link.refused("PSYNC", reply));
        }
        let framing = framing(&preamble).ok_or_else(|| link.unexpected(&preamble))?;
        Ok(Self { link, asked_at, replication_id, offset, framing, received: 0 })
    }

    /// The server's clock just before it was asked: the snapshot is not older.
    pub const fn asked_at(&self) -> Timestamp {
        self.asked_at
    }

    pub fn replication_id(&self) -> &str {
        &self.replication_id
    }

    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Length of the RDB, if the server knows it.
    pub fn length_hint(&self) -> Option<u64> {
        match self.framing {
            Framing::Length { total, .. } => Some(total),
            Framing::Mark { .. } | Framing::Ended => None,
        }
    }

    /// Appends the next bytes of the RDB until the capacity of `buffer` is used up, and tells how
    /// many; 0 is the end, which the framing has proven. Reserves capacity where there is hardly any.
    /// Not to be called again after an error or a cancelled call.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> Result<usize, Error> {
        if buffer.capacity() - buffer.len() < SPARE_BYTES_MIN {
            buffer.reserve(SPARE_BYTES_MIN);
        }
        let begin = buffer.len();
        match &self.framing {
            Framing::Length { .. } => self.read_sized(buffer).await?,
            Framing::Mark { .. } => self.read_marked(buffer).await?,
            Framing::Ended => {}
        }
        let count = buffer.len() - begin;
        self.received += count as u64;
        Ok(count)
    }

    async fn read_sized(&mut self, buffer: &mut BytesMut) -> Result<(), Error> {
        let Framing::Length { total, mut left } = self.framing else { return Ok(()) };
        let take = |left: u64, most: usize| usize::try_from(left).unwrap_or(usize::MAX).min(most);
        let ahead = self.link.ahead.split_to(take(left, self.link.ahead.len()));
        buffer.extend_from_slice(&ahead);
        left -= ahead.len() as u64;
        while left > 0 && buffer.len() < buffer.capacity() {
            let most = take(left, buffer.capacity() - buffer.len());
            let position = || format!("after {} of {total} bytes", total - left);
            let count = receive(&mut self.link, buffer, most, position).await?;
            left -= count as u64;
        }
        self.framing = if left == 0 { Framing::Ended } else { Framing::Length { total, left } };
        Ok(())
    }

    /// The last bytes read may be the mark: they are held back until more follows.
    async fn read_marked(&mut self, buffer: &mut BytesMut) -> Result<(), Error> {
        let Framing::Mark { mark, held } = &mut self.framing else { return Ok(()) };
        let (mark, mut held) = (*mark, std::mem::take(held));
        let begin = buffer.len();
        buffer.extend_from_slice(&held);
        buffer.extend_from_slice(&self.link.ahead.split());
        loop {
            // Random and told to us alone, the mark cannot be a part of the data.
            if buffer[begin..].ends_with(&mark) {
                buffer.truncate(buffer.len() - MARK_BYTES);
                self.framing = Framing::Ended;
                return Ok(());
            }
            let spare = buffer.capacity() - buffer.len();
            if spare == 0 {
                break;
            }
            let received = self.received + (buffer.len() - begin) as u64;
            let position = || format!("after {received} bytes, without the mark of its end");
            receive(&mut self.link, buffer, spare, position).await?;
        }
        held.clear();
        let sure = buffer.len() - (buffer.len() - begin).min(MARK_BYTES);
        held.extend_from_slice(&buffer[sure..]);
        buffer.truncate(sure);
        self.framing = Framing::Mark { mark, held };
        Ok(())
    }
}

/// At least one byte and at most `most`, or why there is none; `position` tells how far it came.
async fn receive(
    link: &mut Link,
    buffer: &mut BytesMut,
    most: usize,
    position: impl FnOnce() -> String,
) -> Result<usize, Error> {
    let mut window = buffer.limit(most);
    let read = timeout(link.silence_max, link.stream.read_buf(&mut window)).await;
    let read = match read {
        Ok(Err(source)) if source.kind() == io::ErrorKind::InvalidData => {
            // Seen once on a busy machine, the cause not proven: a record that could not be decrypted,
            // perhaps because a saving child and its parent both wrote to the connection. What came
            // whole before it is still to be read; the framing tells whether it was all.
            match timeout(link.silence_max, link.stream.read_buf(&mut window)).await {
                Ok(Ok(count)) if count > 0 => Ok(Ok(count)),
                Ok(_) | Err(_) => Ok(Err(source)),
            }
        }
        read => read,
    };
    match read {
        Ok(Ok(0)) => Err(Error::Cut {
            attempt: ATTEMPT,
            address: link.address.clone(),
            position: position(),
            source: None,
        }),
        Ok(Ok(count)) => Ok(count),
        Ok(Err(source)) => Err(Error::of_cut(ATTEMPT, &link.address, position(), source)),
        Err(_) => Err(link.silent()),
    }
}

/// `TIME` answers two bulk strings: seconds and microseconds.
async fn server_time(link: &mut Link) -> Result<Timestamp, Error> {
    link.send(&["TIME"]).await?;
    let first = link.line().await?;
    if let Some(reply) = first.strip_prefix('-') {
        return Err(link.refused("TIME", reply));
    }
    let mut numbers = [0_i64; 2];
    for number in &mut numbers {
        link.line().await?;
        let digits = link.line().await?;
        *number = digits.parse().map_err(|_| link.unexpected(&digits))?;
    }
    let [seconds, microseconds] = numbers;
    Timestamp::from_second(seconds)
        .and_then(|time| time.checked_add(jiff::SignedDuration::from_micros(microseconds)))
        .map_err(|_| link.protocol(format!("{seconds} s is no time")))
}

/// What we can read, and that we want the RDB and not the stream behind it.
async fn configure(link: &mut Link, server: &Server) -> Result<(), Error> {
    let mut options = vec![["capa", "eof"], ["capa", "psync2"]];
    if speaks_valkey(server) {
        // Untold, Valkey 9 writes an older RDB version that cannot hold every type.
        options.push(["version", &server.version]);
    }
    for [option, value] in options {
        if let Err(reply) = link.ask(&["REPLCONF", option, value]).await? {
            return Err(link.refused("REPLCONF", &reply));
        }
    }
    match link.ask(&["REPLCONF", "rdb-only", "1"]).await? {
        // The framing proves the end whether or not the server then closes.
        Err(reply) if reply.contains("Unrecognized REPLCONF option") => Ok(()),
        Err(reply) => Err(link.refused("REPLCONF", &reply)),
        Ok(_) => Ok(()),
    }
}

fn speaks_valkey(server: &Server) -> bool {
    let major = server.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    server.flavour == Flavour::Valkey && major.is_some_and(|major| major >= 9)
}

/// `FULLRESYNC <40 hexadecimal digits> <offset>`
fn full_resync(reply: &str) -> Option<(String, u64)> {
    let mut words = reply.strip_prefix("FULLRESYNC ")?.split(' ');
    let (id, offset) = (words.next()?, words.next()?.parse().ok()?);
    let is_id = id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && words.next().is_none()).then(|| (id.to_owned(), offset))
}

/// `$<length>` or `$EOF:<mark>`
fn framing(line: &str) -> Option<Framing> {
    let rest = line.strip_prefix('$')?;
    if let Some(mark) = rest.strip_prefix("EOF:") {
        let mark = mark.as_bytes().try_into().ok()?;
        return Some(Framing::Mark { mark, held: BytesMut::with_capacity(MARK_BYTES) });
    }
    let is_number = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    let total = rest.parse().ok().filter(|total| is_number && *total > 0)?;
    Some(Framing::Length { total, left: total })
}
