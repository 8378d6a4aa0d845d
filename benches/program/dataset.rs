//! Fills a server with keys of every type, the same ones on every run. Measures nothing.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::TcpStream,
    thread,
};

/// Keys for which the RDB has about 600 MB.
pub(crate) const KEYS: u64 = 2_500_000;

/// Commands gathered before they are sent.
const BATCH_BYTES: usize = 1 << 20;

/// Expiries lie years ahead, so that no key goes while it is measured.
const EXPIRY_SECONDS: u64 = 4_000_000_000;

const WORDS: [&str; 16] = [
    "order", "customer", "pending", "shipped", "basket", "region", "currency", "discount",
    "invoice", "address", "quantity", "session", "language", "referrer", "updated", "priority",
];

/// Writes `keys` keys to the server at `port` and waits for the last answer.
pub(crate) fn fill(port: u16, keys: u64) -> io::Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    let answers = BufReader::with_capacity(BATCH_BYTES, stream.try_clone()?);
    let counted = thread::spawn(move || count_answers(answers));
    let mut commands = Commands { stream, batch: Vec::new(), sent: 0 };
    let mut chance = Chance(1);
    for number in 0..keys {
        write_key(number, &mut chance, &mut commands)?;
    }
    commands.send()?;
    commands.stream.shutdown(std::net::Shutdown::Write)?;
    let answered = counted.join().map_err(|_| io::Error::other("the reader of answers died"))??;
    if answered == commands.sent {
        Ok(())
    } else {
        Err(io::Error::other(format!("{answered} answers to {} commands", commands.sent)))
    }
}

/// One key: of 1000, 700 are strings, 110 hashes, 70 lists, 50 sets, 60 sorted sets, 10 streams.
fn write_key(number: u64, chance: &mut Chance, commands: &mut Commands) -> io::Result<()> {
    let kind = chance.below(1000);
    let name = format!("bench:{}:{number}", WORDS[usize_of(number % 16)]);
    let name = name.as_bytes();
    match kind {
        0 => commands.add(&[b"SET", name, &chance.bytes(30_000)])?,
        1..=2 => commands.add(&[b"SET", name, chance.text(1_000).as_bytes()])?,
        3..=399 => commands.add(&[b"SET", name, &chance.hex(120)])?,
        400..=599 => commands.add(&[b"SET", name, chance.text(20).as_bytes()])?,
        600..=699 => commands.add(&[b"SET", name, chance.next().to_string().as_bytes()])?,
        700..=809 => {
            let fields = if kind == 700 { 300 } else { 8 };
            commands.collection(b"HSET", name, fields, chance, |chance, index| {
                [format!("field{index}"), chance.text(2)]
            })?;
        }
        810..=879 => commands.collection(b"RPUSH", name, 8, chance, |chance, _| {
            [chance.text(2), chance.next().to_string()]
        })?,
        880..=929 => {
            let members = if kind < 900 { 40 } else { 12 };
            commands.collection(b"SADD", name, members, chance, |chance, index| {
                let number = chance.below(100_000).to_string();
                [number, if kind < 900 { index.to_string() } else { chance.text(3) }]
            })?;
        }
        930..=989 => {
            let members = if kind == 930 { 200 } else { 15 };
            commands.collection(b"ZADD", name, members, chance, |chance, index| {
                [format!("{}.5", chance.below(1_000_000)), format!("member:{index}")]
            })?;
        }
        _ => {
            for entry in 1..=10 {
                let (id, text) = (format!("{entry}-1"), chance.text(5));
                commands.add(&[b"XADD", name, id.as_bytes(), b"event", text.as_bytes()])?;
            }
        }
    }
    if number.is_multiple_of(4) {
        let expiry = (EXPIRY_SECONDS + number).to_string();
        commands.add(&[b"EXPIREAT", name, expiry.as_bytes()])?;
    }
    Ok(())
}

/// Commands on their way to the server, many at a time.
struct Commands {
    stream: TcpStream,
    batch: Vec<u8>,
    sent: u64,
}

impl Commands {
    fn add(&mut self, words: &[&[u8]]) -> io::Result<()> {
        write!(self.batch, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.batch, "${}\r\n", word.len())?;
            self.batch.extend_from_slice(word);
            self.batch.extend_from_slice(b"\r\n");
        }
        self.sent += 1;
        if self.batch.len() >= BATCH_BYTES { self.send() } else { Ok(()) }
    }

    fn collection(
        &mut self,
        command: &[u8],
        name: &[u8],
        members: u64,
        chance: &mut Chance,
        member: impl Fn(&mut Chance, u64) -> [String; 2],
    ) -> io::Result<()> {
        let members: Vec<[String; 2]> = (0..members).map(|index| member(chance, index)).collect();
        let members = members.iter().flatten().map(String::as_bytes);
        self.add(&[command, name].into_iter().chain(members).collect::<Vec<_>>())
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.batch)?;
        self.batch.clear();
        Ok(())
    }
}

/// Every answer is one line, or the head and the line of a stream's entry id.
fn count_answers(mut answers: impl BufRead) -> io::Result<u64> {
    let (mut count, mut line) = (0, Vec::new());
    loop {
        line.clear();
        if answers.read_until(b'\n', &mut line)? == 0 {
            return Ok(count);
        }
        match line.first() {
            Some(b'-') => {
                return Err(io::Error::other(String::from_utf8_lossy(&line).into_owned()));
            }
            Some(b'$') => {}
            Some(_) | None => count += 1,
        }
    }
}

/// Numbers that look random and are the same on every run: `SplitMix64`.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Cannot be compressed.
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let bytes = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        bytes.take(length).collect()
    }

    /// Can be compressed to a half.
    fn hex(&mut self, length: usize) -> Vec<u8> {
        let digits = (0..length.div_ceil(16)).flat_map(|_| {
            let digits = format!("{:016x}", self.next());
            digits.into_bytes()
        });
        digits.take(length).collect()
    }

    /// Words and numbers, as a document has them.
    fn text(&mut self, words: usize) -> String {
        let words = (0..words).map(|_| {
            let number = self.next();
            format!("{}={}", WORDS[usize_of(number % 16)], number >> 48)
        });
        words.collect::<Vec<_>>().join("&")
    }
}

/// Of a number that is small.
fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
