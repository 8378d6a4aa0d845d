//! How captured bytes become stored bytes and back. Sees chunks; never opens a file.

use std::{fmt, io};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zstd::stream::raw::{InBuffer, Operation as _, OutBuffer};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// RFC 8878; unpack with `zstd -d`.
    #[default]
    Zstd,
    /// RFC 1952; unpack with `gzip -d`.
    Gzip,
    None,
}

impl Codec {
    /// What is appended to the archive's name, the dot included.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
            Self::None => "",
        }
    }

    /// Chosen for speed: a backup must not hold a fork longer than it needs to.
    pub const fn default_level(self) -> i32 {
        match self {
            Self::Zstd | Self::Gzip => 1,
            Self::None => 0,
        }
    }

    /// The levels that the codec's own tool knows.
    pub const fn levels(self) -> std::ops::RangeInclusive<i32> {
        match self {
            Self::Zstd => 1..=19,
            Self::Gzip => 1..=9,
            Self::None => 0..=0,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::None => "none",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("compress by {codec}")]
    Encode {
        codec: Codec,
        #[source]
        source: io::Error,
    },
    #[error("decompress by {codec}")]
    Decode {
        codec: Codec,
        #[source]
        source: io::Error,
    },
    #[error("decompress by {codec}: the archive ends before its last frame does")]
    Truncated { codec: Codec },
    #[error("decompress by {codec}: {bytes} bytes follow the end of the archive")]
    Trailing { codec: Codec, bytes: usize },
}

/// Room that one step of a codec gets for its output.
const STEP_BYTES: usize = 128 << 10;

/// RFC 1952's window, the largest that there is.
const GZIP_WINDOW_BITS: u8 = 15;

/// Plain bytes in, stored bytes out.
pub struct Encoder(EncoderState);

enum EncoderState {
    Zstd(zstd::stream::raw::Encoder<'static>),
    Gzip(Box<Compress>),
    None,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoder({})", self.codec())
    }
}

impl Encoder {
    /// `level` must be one of [`Codec::levels`].
    pub fn new(codec: Codec, level: i32) -> Result<Self, Error> {
        Ok(Self(match codec {
            Codec::Zstd => {
                let failed = |source| Error::Encode { codec, source };
                let mut encoder = zstd::stream::raw::Encoder::new(level).map_err(failed)?;
                encoder
                    .set_parameter(zstd::stream::raw::CParameter::ChecksumFlag(true))
                    .map_err(failed)?;
                EncoderState::Zstd(encoder)
            }
            Codec::Gzip => EncoderState::Gzip(Box::new(Compress::new_gzip(
                Compression::new(level.unsigned_abs()),
                GZIP_WINDOW_BITS,
            ))),
            Codec::None => EncoderState::None,
        }))
    }

    fn codec(&self) -> Codec {
        match &self.0 {
            EncoderState::Zstd(_) => Codec::Zstd,
            EncoderState::Gzip(_) => Codec::Gzip,
            EncoderState::None => Codec::None,
        }
    }

    /// Appends to `stored` what `plain` becomes; some of it may come with a later call.
    pub fn feed(&mut self, plain: &[u8], stored: &mut Vec<u8>) -> Result<(), Error> {
        let codec = self.codec();
        let failed = |source| Error::Encode { codec, source };
        match &mut self.0 {
            EncoderState::Zstd(encoder) => {
                let mut input = InBuffer::around(plain);
                while input.pos() < plain.len() {
                    append(stored, |output| encoder.run(&mut input, output)).map_err(failed)?;
                }
            }
            EncoderState::Gzip(encoder) => {
                let mut rest = plain;
                while !rest.is_empty() {
                    let before = encoder.total_in();
                    stored.reserve(STEP_BYTES);
                    encoder
                        .compress_vec(rest, stored, FlushCompress::None)
                        .map_err(|error| failed(error.into()))?;
                    rest = &rest[consumed(before, encoder.total_in())..];
                }
            }
            EncoderState::None => stored.extend_from_slice(plain),
        }
        Ok(())
    }

    /// Appends the rest to `stored`.
    pub fn finish(mut self, stored: &mut Vec<u8>) -> Result<(), Error> {
        let codec = self.codec();
        let failed = |source| Error::Encode { codec, source };
        match &mut self.0 {
            EncoderState::Zstd(encoder) => {
                while append(stored, |output| encoder.finish(output, true)).map_err(failed)? > 0 {}
            }
            EncoderState::Gzip(encoder) => loop {
                stored.reserve(STEP_BYTES);
                let status = encoder
                    .compress_vec(&[], stored, FlushCompress::Finish)
                    .map_err(|error| failed(error.into()))?;
                if status == Status::StreamEnd {
                    break;
                }
            },
            EncoderState::None => {}
        }
        Ok(())
    }
}

/// Stored bytes in, plain bytes out, a limited piece at a time however well they were compressed.
pub struct Decoder {
    state: DecoderState,
    /// Whether the last byte seen ended a frame.
    ended: bool,
}

enum DecoderState {
    Zstd(zstd::stream::raw::Decoder<'static>),
    Gzip(Box<Decompress>),
    None,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({})", self.codec())
    }
}

impl Decoder {
    pub fn new(codec: Codec) -> Result<Self, Error> {
        let state = match codec {
            Codec::Zstd => DecoderState::Zstd(
                zstd::stream::raw::Decoder::new()
                    .map_err(|source| Error::Decode { codec, source })?,
            ),
            Codec::Gzip => DecoderState::Gzip(Box::new(Decompress::new_gzip(GZIP_WINDOW_BITS))),
            Codec::None => DecoderState::None,
        };
        Ok(Self { state, ended: codec == Codec::None })
    }

    fn codec(&self) -> Codec {
        match &self.state {
            DecoderState::Zstd(_) => Codec::Zstd,
            DecoderState::Gzip(_) => Codec::Gzip,
            DecoderState::None => Codec::None,
        }
    }

    /// Hands the plain bytes of `stored` to `sink` in pieces of at most 128 KiB.
    pub fn feed<E: From<Error>>(
        &mut self,
        stored: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let codec = self.codec();
        let failed = |source| Error::Decode { codec, source };
        let mut piece = Vec::with_capacity(STEP_BYTES);
        match &mut self.state {
            DecoderState::Zstd(decoder) => {
                let mut input = InBuffer::around(stored);
                // A full piece may leave more inside the decoder, unless its frame ended.
                while input.pos() < stored.len() || (piece.len() == STEP_BYTES && !self.ended) {
                    piece.clear();
                    let hint = append(&mut piece, |output| decoder.run(&mut input, output))
                        .map_err(failed)?;
                    self.ended = hint == 0;
                    sink(&piece)?;
                }
            }
            DecoderState::Gzip(decoder) => {
                let mut rest = stored;
                while !rest.is_empty() || (piece.len() == STEP_BYTES && !self.ended) {
                    if self.ended {
                        Err(Error::Trailing { codec, bytes: rest.len() })?;
                    }
                    piece.clear();
                    let before = decoder.total_in();
                    let status = decoder
                        .decompress_vec(rest, &mut piece, FlushDecompress::None)
                        .map_err(|error| failed(error.into()))?;
                    rest = &rest[consumed(before, decoder.total_in())..];
                    self.ended = status == Status::StreamEnd;
                    sink(&piece)?;
                }
            }
            DecoderState::None => stored.chunks(STEP_BYTES).try_for_each(sink)?,
        }
        Ok(())
    }

    /// Says whether the bytes ended where the archive does.
    pub fn finish(self) -> Result<(), Error> {
        if self.ended { Ok(()) } else { Err(Error::Truncated { codec: self.codec() }) }
    }
}

/// Runs one step of zstd into fresh room at the end of `stored`.
fn append(
    stored: &mut Vec<u8>,
    step: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
) -> io::Result<usize> {
    let before = stored.len();
    stored.reserve(STEP_BYTES);
    // zstd writes up to the capacity, and a piece is "full" at exactly STEP_BYTES.
    let mut output = OutBuffer::around_pos(stored, before);
    step(&mut output)
}

/// Both totals come from one run of a codec over a slice, so their difference fits it.
fn consumed(before: u64, after: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODECS: [Codec; 3] = [Codec::Zstd, Codec::Gzip, Codec::None];

    fn encode(codec: Codec, plain: &[u8], chunk: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(codec, codec.default_level()).unwrap();
        let mut stored = Vec::new();
        plain.chunks(chunk).for_each(|chunk| encoder.feed(chunk, &mut stored).unwrap());
        encoder.finish(&mut stored).unwrap();
        stored
    }

    fn decode(codec: Codec, stored: &[u8], chunk: usize) -> Result<Vec<u8>, Error> {
        let mut decoder = Decoder::new(codec)?;
        let mut plain = Vec::new();
        for chunk in stored.chunks(chunk) {
            decoder.feed(chunk, |piece| {
                assert!(piece.len() <= STEP_BYTES);
                plain.extend_from_slice(piece);
                Ok::<_, Error>(())
            })?;
        }
        decoder.finish()?;
        Ok(plain)
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            seed in proptest::collection::vec(any::<u8>(), 0..300),
            repeat in 1_usize..3000,
            chunk_in in 1_usize..200_000,
            chunk_out in 1_usize..200_000,
        ) {
            let plain = seed.repeat(repeat);
            for codec in CODECS {
                let stored = encode(codec, &plain, chunk_in);
                prop_assert_eq!(&decode(codec, &stored, chunk_out).unwrap(), &plain);
            }
        }
    }

    #[test]
    fn a_bomb_comes_out_in_small_pieces() {
        let plain = vec![0; 64 << 20];
        for codec in CODECS {
            let stored = encode(codec, &plain, 1 << 20);
            assert_eq!(decode(codec, &stored, usize::MAX).unwrap().len(), plain.len(), "{codec}");
        }
    }

    #[test]
    fn a_truncated_archive_is_an_error() {
        let plain: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for codec in [Codec::Zstd, Codec::Gzip] {
            let stored = encode(codec, &plain, 1 << 20);
            for length in (0..stored.len()).step_by(997).chain([stored.len() - 1]) {
                let decoded = decode(codec, &stored[..length], 4096);
                assert!(decoded.is_err(), "{codec} cut to {length} of {} bytes", stored.len());
            }
        }
    }

    #[test]
    fn bytes_behind_the_end_are_an_error() {
        for codec in [Codec::Zstd, Codec::Gzip] {
            let mut stored = encode(codec, b"redis", 10);
            stored.extend_from_slice(b"garbage");
            assert!(decode(codec, &stored, 1 << 20).is_err(), "{codec}");
        }
    }

    #[test]
    fn the_fields_own_tools_read_it() {
        use std::io::Read as _;

        let plain = b"redis".repeat(100_000);
        let zstd = zstd::stream::decode_all(&encode(Codec::Zstd, &plain, 1000)[..]).unwrap();
        assert_eq!(zstd, plain);
        let stored = encode(Codec::Gzip, &plain, 1000);
        let mut gzip = Vec::new();
        flate2::read::GzDecoder::new(&stored[..]).read_to_end(&mut gzip).unwrap();
        assert_eq!(gzip, plain);
    }
}
