//! Compression in either direction. Sees chunks; never opens a file.

use std::{fmt, io};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zstd::stream::raw::{InBuffer, Operation as _, OutBuffer};

use super::Error;

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

/// Room that one step of a codec gets for its output.
const STEP_BYTES: usize = 128 << 10;

/// RFC 1952's window, the largest that there is.
const GZIP_WINDOW_BITS: u8 = 15;

/// Plain bytes in, packed bytes out.
pub(super) struct Packer(PackerState);

enum PackerState {
    Zstd(zstd::stream::raw::Encoder<'static>),
    Gzip(Box<Compress>),
    None,
}

impl Packer {
    /// `level` must be one of [`Codec::levels`].
    pub(super) fn new(codec: Codec, level: i32) -> Result<Self, Error> {
        Ok(Self(match codec {
            Codec::Zstd => {
                let failed = |source| Error::Encode { codec, source };
                let mut encoder = zstd::stream::raw::Encoder::new(level).map_err(failed)?;
                encoder
                    .set_parameter(zstd::stream::raw::CParameter::ChecksumFlag(true))
                    .map_err(failed)?;
                PackerState::Zstd(encoder)
            }
            Codec::Gzip => PackerState::Gzip(Box::new(Compress::new_gzip(
                Compression::new(level.unsigned_abs()),
                GZIP_WINDOW_BITS,
            ))),
            Codec::None => PackerState::None,
        }))
    }

    pub(super) fn codec(&self) -> Codec {
        match &self.0 {
            PackerState::Zstd(_) => Codec::Zstd,
            PackerState::Gzip(_) => Codec::Gzip,
            PackerState::None => Codec::None,
        }
    }

    /// Appends to `stored` what `plain` becomes; some of it may come with a later call.
    pub(super) fn feed(&mut self, plain: &[u8], stored: &mut Vec<u8>) -> Result<(), Error> {
        let codec = self.codec();
        let failed = |source| Error::Encode { codec, source };
        match &mut self.0 {
            PackerState::Zstd(encoder) => {
                let mut input = InBuffer::around(plain);
                while input.pos() < plain.len() {
                    append(stored, |output| encoder.run(&mut input, output)).map_err(failed)?;
                }
            }
            PackerState::Gzip(encoder) => {
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
            PackerState::None => stored.extend_from_slice(plain),
        }
        Ok(())
    }

    /// Appends the rest to `stored`.
    pub(super) fn finish(mut self, stored: &mut Vec<u8>) -> Result<(), Error> {
        let codec = self.codec();
        let failed = |source| Error::Encode { codec, source };
        match &mut self.0 {
            PackerState::Zstd(encoder) => {
                while append(stored, |output| encoder.finish(output, true)).map_err(failed)? > 0 {}
            }
            PackerState::Gzip(encoder) => loop {
                stored.reserve(STEP_BYTES);
                let status = encoder
                    .compress_vec(&[], stored, FlushCompress::Finish)
                    .map_err(|error| failed(error.into()))?;
                if status == Status::StreamEnd {
                    break;
                }
            },
            PackerState::None => {}
        }
        Ok(())
    }
}

/// Packed bytes in, plain bytes out, a limited piece at a time however well they were compressed.
pub(super) struct Unpacker {
    state: UnpackerState,
    /// Whether the last byte seen ended a frame.
    ended: bool,
}

enum UnpackerState {
    Zstd(zstd::stream::raw::Decoder<'static>),
    Gzip(Box<Decompress>),
    None,
}

impl Unpacker {
    pub(super) fn new(codec: Codec) -> Result<Self, Error> {
        let state = match codec {
            Codec::Zstd => UnpackerState::Zstd(
                zstd::stream::raw::Decoder::new()
                    .map_err(|source| Error::Decode { codec, source })?,
            ),
            Codec::Gzip => UnpackerState::Gzip(Box::new(Decompress::new_gzip(GZIP_WINDOW_BITS))),
            Codec::None => UnpackerState::None,
        };
        Ok(Self { state, ended: codec == Codec::None })
    }

    pub(super) fn codec(&self) -> Codec {
        match &self.state {
            UnpackerState::Zstd(_) => Codec::Zstd,
            UnpackerState::Gzip(_) => Codec::Gzip,
            UnpackerState::None => Codec::None,
        }
    }

    /// Hands the plain bytes of `stored` to `sink` in pieces of at most 128 KiB.
    pub(super) fn feed<E: From<Error>>(
        &mut self,
        stored: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let codec = self.codec();
        let failed = |source| Error::Decode { codec, source };
        let mut piece = Vec::with_capacity(STEP_BYTES);
        match &mut self.state {
            UnpackerState::Zstd(decoder) => {
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
            UnpackerState::Gzip(decoder) => {
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
            UnpackerState::None => stored.chunks(STEP_BYTES).try_for_each(sink)?,
        }
        Ok(())
    }

    /// Says whether the bytes ended where the archive does.
    pub(super) fn finish(self) -> Result<(), Error> {
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
