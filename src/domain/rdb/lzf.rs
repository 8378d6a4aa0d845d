//! Unpacks LZF, the compression of long strings, byte by byte in constant memory. Never compresses.
//!
//! Format: `lzf_decompress` in Redis's `lzf_d.c`. A back reference reaches at most 8192 bytes.

use super::error::Fault;

const WINDOW_BYTES: usize = 8192;

#[derive(Debug)]
pub(super) struct Decoder {
    window: Box<[u8; WINDOW_BYTES]>,
    /// Bytes that came out so far.
    produced: u64,
    /// Bytes that shall come out.
    plain_bytes: u64,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Control,
    Literal { left: u8 },
    LongLength { distance_high: u64 },
    Distance { bytes: u64, distance_high: u64 },
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            window: Box::new([0; WINDOW_BYTES]),
            produced: 0,
            plain_bytes: 0,
            state: State::Control,
        }
    }

    /// Begins another string; the window's old content can no longer be reached.
    pub(super) fn restart(&mut self, plain_bytes: u64) {
        self.produced = 0;
        self.plain_bytes = plain_bytes;
        self.state = State::Control;
    }

    pub(super) fn feed(&mut self, input: &[u8], mut sink: impl FnMut(u8)) -> Result<(), Fault> {
        for &byte in input {
            self.state = match self.state {
                State::Control => control(byte),
                State::Literal { left } => {
                    self.put(byte, &mut sink)?;
                    if left == 1 { State::Control } else { State::Literal { left: left - 1 } }
                }
                State::LongLength { distance_high } => {
                    State::Distance { bytes: 9 + u64::from(byte), distance_high }
                }
                State::Distance { bytes, distance_high } => {
                    self.copy(bytes, distance_high + u64::from(byte) + 1, &mut sink)?;
                    State::Control
                }
            };
        }
        Ok(())
    }

    /// Whether the string came out whole.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        if matches!(self.state, State::Control) && self.produced == self.plain_bytes {
            Ok(())
        } else {
            Err(Fault::Lzf("ends before its string does"))
        }
    }

    fn copy(&mut self, bytes: u64, distance: u64, sink: &mut impl FnMut(u8)) -> Result<(), Fault> {
        if distance > self.produced {
            return Err(Fault::Lzf("refers to bytes before its beginning"));
        }
        for _ in 0..bytes {
            let byte = self.window[window_index(self.produced - distance)];
            self.put(byte, sink)?;
        }
        Ok(())
    }

    fn put(&mut self, byte: u8, sink: &mut impl FnMut(u8)) -> Result<(), Fault> {
        if self.produced == self.plain_bytes {
            return Err(Fault::Lzf("holds more than its string"));
        }
        self.window[window_index(self.produced)] = byte;
        self.produced += 1;
        sink(byte);
        Ok(())
    }
}

fn control(byte: u8) -> State {
    let distance_high = u64::from(byte & 0x1f) << 8;
    match byte >> 5 {
        0 => State::Literal { left: byte + 1 },
        7 => State::LongLength { distance_high },
        length => State::Distance { bytes: u64::from(length) + 2, distance_high },
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the remainder is below the window's size")]
const fn window_index(position: u64) -> usize {
    (position % WINDOW_BYTES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(input: &[u8], plain_bytes: u64, chunk_bytes: usize) -> Result<Vec<u8>, Fault> {
        let mut decoder = Decoder::new();
        let mut plain = Vec::new();
        decoder.restart(plain_bytes);
        for chunk in input.chunks(chunk_bytes) {
            decoder.feed(chunk, |byte| plain.push(byte))?;
        }
        decoder.finish().map(|()| plain)
    }

    #[test]
    fn literals_and_references_unpack_in_any_chunks() {
        // "ab", then 4 bytes from 2 back, then 9 + 3 bytes from 1 back.
        let input = [0x01, b'a', b'b', 0x40, 0x01, 0xe0, 0x03, 0x00];
        for chunk_bytes in 1..=input.len() {
            assert_eq!(unpack(&input, 18, chunk_bytes).unwrap(), b"abababbbbbbbbbbbbb");
        }
    }

    #[test]
    fn a_reference_before_the_beginning_is_refused() {
        assert!(unpack(&[0x00, b'a', 0x20, 0x01], 4, 9).is_err());
    }

    #[test]
    fn more_or_less_than_announced_is_refused() {
        assert!(unpack(&[0x01, b'a', b'b'], 1, 9).is_err());
        assert!(unpack(&[0x01, b'a', b'b'], 3, 9).is_err());
        assert!(unpack(&[0x01, b'a'], 1, 9).is_err());
    }
}
