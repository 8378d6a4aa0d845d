//! CRC-64/REDIS over all but the last eight bytes, which hold it. Never knows where the end is before it is told.

use crc_fast::{CrcAlgorithm, Digest};

use super::{Checksum, error::Fault};

const CHECKSUM_BYTES: usize = 8;

#[derive(Debug)]
pub(super) struct Tail {
    digest: Digest,
    /// The last bytes so far, not yet in the digest.
    held: [u8; CHECKSUM_BYTES],
    held_bytes: usize,
    /// The byte before those held.
    last: Option<u8>,
}

impl Tail {
    pub(super) fn new() -> Self {
        Self {
            digest: Digest::new(CrcAlgorithm::Crc64Redis),
            held: [0; CHECKSUM_BYTES],
            held_bytes: 0,
            last: None,
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if let Some((before, held)) = bytes.split_last_chunk() {
            let former = self.held;
            self.digest_more(&former[..self.held_bytes]);
            self.digest_more(before);
            self.held = *held;
            self.held_bytes = CHECKSUM_BYTES;
        } else {
            for byte in bytes {
                self.feed_byte(*byte);
            }
        }
    }

    /// The byte before the checksum.
    pub(super) fn last(&self) -> Option<u8> {
        self.last
    }

    pub(super) fn verify(&self) -> Result<Checksum, Fault> {
        if self.held_bytes < CHECKSUM_BYTES {
            return Err(Fault::Ended);
        }
        let (stored, computed) = (u64::from_le_bytes(self.held), self.digest.finalize());
        if stored == 0 {
            Ok(Checksum::NotChecksummed)
        } else if stored == computed {
            Ok(Checksum::Verified)
        } else {
            Err(Fault::Checksum { stored, computed })
        }
    }

    fn feed_byte(&mut self, byte: u8) {
        if self.held_bytes == CHECKSUM_BYTES {
            let oldest = self.held[0];
            self.digest_more(&[oldest]);
            self.held.rotate_left(1);
            self.held_bytes -= 1;
        }
        self.held[self.held_bytes] = byte;
        self.held_bytes += 1;
    }

    fn digest_more(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.digest.update(bytes);
            self.last = Some(*last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(bytes: &[u8], chunk_bytes: usize) -> Tail {
        let mut tail = Tail::new();
        bytes.chunks(chunk_bytes).for_each(|chunk| tail.feed(chunk));
        tail
    }

    #[test]
    fn the_checksum_is_that_of_redis_in_any_chunks() {
        let mut bytes = b"123456789".to_vec();
        // The check value of crc64.c.
        bytes.extend(0xe9c6_d914_c4b8_d9ca_u64.to_le_bytes());
        for chunk_bytes in 1..=bytes.len() {
            let tail = tail(&bytes, chunk_bytes);
            assert_eq!(tail.verify(), Ok(Checksum::Verified), "chunks of {chunk_bytes}");
            assert_eq!(tail.last(), Some(b'9'));
        }
    }

    #[test]
    fn a_wrong_checksum_is_named_with_the_right_one() {
        let bytes = *b"123456789\x01\0\0\0\0\0\0\0";
        let fault = Fault::Checksum { stored: 1, computed: 0xe9c6_d914_c4b8_d9ca };
        assert_eq!(tail(&bytes, 5).verify(), Err(fault));
    }

    #[test]
    fn eight_zeros_mean_that_the_server_computed_none() {
        assert_eq!(tail(b"123456789\0\0\0\0\0\0\0\0", 4).verify(), Ok(Checksum::NotChecksummed));
        assert_eq!(tail(b"1234567", 4).verify(), Err(Fault::Ended));
    }
}
