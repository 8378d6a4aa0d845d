//! What an upload has been given so far, for comparison with what its caller counted. Keeps no bytes.

use super::{Error, PART_BYTES, Part};
use crate::domain::digest::{Crc64Nvme, Digests};

/// Length and CRC of the parts of one object.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) bytes: u64,
    pub(super) crc64nvme: Crc64Nvme,
    /// A part shorter than the others is the last.
    ended: bool,
}

impl Received {
    pub(super) fn new() -> Self {
        Self { bytes: 0, crc64nvme: Crc64Nvme::of(b""), ended: false }
    }

    /// Count the next part. Returns its own CRC.
    pub(super) fn take(
        &mut self,
        part: &Part,
        attempt: impl FnOnce() -> String,
    ) -> Result<Crc64Nvme, Error> {
        let length = part.body.len();
        if self.ended || length == 0 || length > PART_BYTES {
            let finding = format!(
                "a part of {length} bytes after {} bytes; every part but the last has {PART_BYTES}",
                self.bytes,
            );
            return Err(Error::Corrupt { attempt: attempt(), finding });
        }
        self.ended = length < PART_BYTES;
        self.bytes += length as u64;
        let crc64nvme = Crc64Nvme::of(&part.body);
        self.crc64nvme = self.crc64nvme.followed_by(crc64nvme, length as u64);
        Ok(crc64nvme)
    }

    /// Whether exactly what the caller counted has come here.
    pub(super) fn check(
        &self,
        digests: &Digests,
        attempt: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        if (self.bytes, self.crc64nvme) == (digests.bytes, digests.crc64nvme) {
            return Ok(());
        }
        let finding = format!(
            "the store was given {} bytes with CRC-64/NVME {}, but {} bytes with {} were expected",
            self.bytes, self.crc64nvme, digests.bytes, digests.crc64nvme,
        );
        Err(Error::Corrupt { attempt: attempt(), finding })
    }
}
