//! Prints how fast an RDB is scanned, with all checks and the slots of every key: `cargo bench --bench scanner -- FILE`.

#![expect(clippy::print_stdout, reason = "the figure is all there is to say")]
#![expect(clippy::disallowed_methods, reason = "a benchmark takes the time")]

use std::{
    env,
    error::Error,
    fs::File,
    io::Read,
    time::{Duration, Instant},
};

use redis_backup::domain::rdb::{Content, Expectations, Scanner, SlotRange};

const CHUNK_BYTES: usize = 256 << 10;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds a flag of its own.
    let Some(file) = env::args().skip(1).find(|argument| !argument.starts_with("--")) else {
        println!("name an RDB file to scan");
        return Ok(());
    };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(scan(&file)?);
    }
    rounds.sort_by_key(|(elapsed, _)| *elapsed);
    let (elapsed, content) = &rounds[ROUNDS / 2];
    let bytes = u128::from(content.bytes());
    let keys = match content {
        Content::Read(facts) => facts.keys(),
        Content::Unread(_) => 0,
    };
    let rate = bytes * 1000 / elapsed.as_nanos();
    println!("{} MB, {keys} keys: {rate} MB/s", bytes / 1_000_000);
    Ok(())
}

fn scan(file: &str) -> Result<(Duration, Content), Box<dyn Error>> {
    let begun = Instant::now();
    let mut file = File::open(file)?;
    let slots = vec![SlotRange { first: 0, last: 8191 }];
    let mut scanner = Scanner::new(&Expectations { slots, biggest_keys_max: 20 });
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let bytes = file.read(&mut chunk)?;
        if bytes == 0 {
            break;
        }
        scanner.feed(&chunk[..bytes])?;
    }
    Ok((begun.elapsed(), scanner.finish()?.content))
}
