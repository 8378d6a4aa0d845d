//! Digests as values: SHA-256 for what must not change, CRC-64/NVME for what a store confirms.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize, Serializer, de};
use sha2::Digest as _;

/// SHA-256 (FIPS 180-4), written as 64 hexadecimal digits as `sha256sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

/// CRC-64/NVME, written in base64 of its 8 big-endian bytes as S3 returns `x-amz-checksum-crc64nvme`.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Crc64Nvme(u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {form}")]
pub struct Error {
    text: String,
    form: &'static str,
}

impl Sha256 {
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Sha256 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| Error {
            text: text.to_owned(),
            form: "SHA-256 of 64 hexadecimal digits",
        })?;
        Ok(Self(bytes))
    }
}

impl Crc64Nvme {
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes))
    }

    /// The CRC of these bytes followed by `next_bytes` others whose CRC is `next`.
    #[must_use]
    pub fn followed_by(self, next: Self, next_bytes: u64) -> Self {
        let algorithm = crc_fast::CrcAlgorithm::Crc64Nvme;
        Self(crc_fast::checksum_combine(algorithm, self.0, next.0, next_bytes))
    }
}

impl fmt::Display for Crc64Nvme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0.to_be_bytes()))
    }
}

impl FromStr for Crc64Nvme {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(|bytes| Self(u64::from_be_bytes(bytes)))
            .ok_or_else(|| Error { text: text.to_owned(), form: "CRC-64 of 8 bytes in base64" })
    }
}

macro_rules! serde_as_text {
    ($type:ident) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

serde_as_text!(Sha256);
serde_as_text!(Crc64Nvme);

/// Both digests and the length of bytes that pass by.
#[derive(Clone, Debug)]
pub struct Digester {
    sha256: sha2::Sha256,
    crc64nvme: crc_fast::Digest,
    bytes: u64,
}

/// What a [`Digester`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    pub bytes: u64,
    pub sha256: Sha256,
    pub crc64nvme: Crc64Nvme,
}

impl Digester {
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.crc64nvme.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn finish(self) -> Digests {
        let Self { sha256, crc64nvme, bytes } = self;
        Digests {
            bytes,
            sha256: Sha256(sha256.finalize().into()),
            crc64nvme: Crc64Nvme(crc64nvme.finalize()),
        }
    }
}

impl Default for Digester {
    fn default() -> Self {
        Self {
            sha256: sha2::Sha256::default(),
            crc64nvme: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme),
            bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_agree_with_published_check_values() {
        let mut digester = Digester::default();
        digester.update(b"1234");
        digester.update(b"56789");
        let digests = digester.finish();
        assert_eq!(digests.bytes, 9);
        // The catalogue of CRC algorithms gives ae8b14860a799888 as CRC-64/NVME's check value.
        assert_eq!(digests.crc64nvme, Crc64Nvme(0xae8b_1486_0a79_9888));
        assert_eq!(digests.crc64nvme.to_string(), "rosUhgp5mIg=");
        assert_eq!(
            digests.sha256.to_string(),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
        );
        assert_eq!(digests.sha256, Sha256::of(b"123456789"));
    }

    #[test]
    fn the_crc_of_a_whole_follows_from_those_of_its_parts() {
        let whole = b"123456789";
        for at in 0..=whole.len() {
            let (first, next) = whole.split_at(at);
            let joined = Crc64Nvme::of(first).followed_by(Crc64Nvme::of(next), next.len() as u64);
            assert_eq!(joined, Crc64Nvme::of(whole), "split at {at}");
        }
    }

    #[test]
    fn text_forms_read_back() {
        for bytes in [&b""[..], b"a", b"redis"] {
            let (sha256, crc) = (Sha256::of(bytes), Crc64Nvme::of(bytes));
            assert_eq!(sha256.to_string().parse(), Ok(sha256));
            assert_eq!(crc.to_string().parse(), Ok(crc));
        }
        assert!("rosUhgp5mIg".parse::<Crc64Nvme>().is_err());
        assert!("rosUhgp5mIj=".parse::<Crc64Nvme>().is_err(), "stray bits below the last byte");
        assert!("zz".repeat(32).parse::<Sha256>().is_err());
    }
}
