//! How captured bytes become stored bytes and back: a codec, then encryption. Sees chunks; never opens a file.

mod codec;
mod encryption;
mod keys;

use std::{fmt, io};

pub use self::{
    codec::Codec,
    encryption::{Encryption, RecipientKinds},
    keys::{Identities, NotARecipient, NotAnIdentity, Recipients},
};
use self::{
    codec::{Packer, Unpacker},
    encryption::{Opener, Sealer},
};

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
    #[error("encrypt by age")]
    Encrypt {
        #[source]
        source: io::Error,
    },
    #[error("decrypt by age")]
    Decrypt {
        #[source]
        source: io::Error,
    },
    #[error("decrypt by age: its header is damaged: {finding}")]
    Header { finding: &'static str },
    #[error("it is encrypted to {recipients}, and no identity was given to open it")]
    NoIdentity { recipients: RecipientKinds },
    #[error("it is encrypted to {recipients}, and none of the given identities opens it")]
    OtherIdentity { recipients: RecipientKinds },
}

impl Error {
    /// Whether another identity is needed, which says nothing about the archive.
    pub const fn is_of_the_identity(&self) -> bool {
        match self {
            Self::NoIdentity { .. } | Self::OtherIdentity { .. } => true,
            Self::Encode { .. }
            | Self::Decode { .. }
            | Self::Truncated { .. }
            | Self::Trailing { .. }
            | Self::Encrypt { .. }
            | Self::Decrypt { .. }
            | Self::Header { .. } => false,
        }
    }
}

/// Plain bytes in, stored bytes out.
pub struct Encoder {
    packer: Packer,
    sealer: Option<Sealer>,
    /// Packed bytes on their way to be sealed.
    packed: Vec<u8>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoder({}, {})", self.packer.codec(), encryption_of(self.sealer.as_ref()))
    }
}

impl Encoder {
    /// `level` must be one of [`Codec::levels`]. Without a recipient nothing is encrypted.
    pub fn new(codec: Codec, level: i32, recipients: &Recipients) -> Result<Self, Error> {
        let sealer = (!recipients.is_empty()).then(|| Sealer::new(recipients)).transpose()?;
        Ok(Self { packer: Packer::new(codec, level)?, sealer, packed: Vec::new() })
    }

    /// Appends to `stored` what `plain` becomes; some of it may come with a later call.
    pub fn feed(&mut self, plain: &[u8], stored: &mut Vec<u8>) -> Result<(), Error> {
        let Self { packer, sealer, packed } = self;
        match sealer {
            None => packer.feed(plain, stored),
            Some(sealer) => {
                packed.clear();
                packer.feed(plain, packed)?;
                sealer.feed(packed, stored)
            }
        }
    }

    /// Appends the rest to `stored`.
    pub fn finish(self, stored: &mut Vec<u8>) -> Result<(), Error> {
        let Self { packer, sealer, mut packed } = self;
        match sealer {
            None => packer.finish(stored),
            Some(mut sealer) => {
                packed.clear();
                packer.finish(&mut packed)?;
                sealer.feed(&packed, stored)?;
                sealer.finish(stored)
            }
        }
    }
}

fn encryption_of<T>(layer: Option<&T>) -> Encryption {
    layer.map_or(Encryption::None, |_| Encryption::Age)
}

/// Stored bytes in, plain bytes out, a limited piece at a time however well they were compressed.
pub struct Decoder {
    opener: Option<Opener>,
    unpacker: Unpacker,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({}, {})", self.unpacker.codec(), encryption_of(self.opener.as_ref()))
    }
}

impl Decoder {
    /// The identities are asked only for what is encrypted.
    pub fn new(
        codec: Codec,
        encryption: Encryption,
        identities: &Identities,
    ) -> Result<Self, Error> {
        let opener = match encryption {
            Encryption::None => None,
            Encryption::Age => Some(Opener::new(identities)),
        };
        Ok(Self { opener, unpacker: Unpacker::new(codec)? })
    }

    /// Hands the plain bytes of `stored` to `sink` in pieces of at most 128 KiB; some of them may come later.
    pub fn feed<E: From<Error>>(
        &mut self,
        stored: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { opener, unpacker } = self;
        match opener {
            None => unpacker.feed(stored, sink),
            Some(opener) => opener.feed(stored, |packed| unpacker.feed(packed, &mut sink)),
        }
    }

    /// Hands over what is left, and says whether the bytes ended where the archive does.
    pub fn finish<E: From<Error>>(
        self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { opener, mut unpacker } = self;
        if let Some(opener) = opener {
            opener.finish(|packed| unpacker.feed(packed, &mut sink))?;
        }
        Ok(unpacker.finish()?)
    }
}

/// Stored bytes to other recipients: what is inside is neither unpacked nor changed.
pub struct Resealer {
    opener: Option<Opener>,
    sealer: Option<Sealer>,
}

impl fmt::Debug for Resealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (encryption_of(self.opener.as_ref()), encryption_of(self.sealer.as_ref()));
        write!(f, "Resealer({from}, {to})")
    }
}

impl Resealer {
    /// `encryption` is that of the archive as it is stored. Without a recipient it will be in clear.
    pub fn new(
        encryption: Encryption,
        identities: &Identities,
        recipients: &Recipients,
    ) -> Result<Self, Error> {
        let opener = match encryption {
            Encryption::None => None,
            Encryption::Age => Some(Opener::new(identities)),
        };
        let sealer = (!recipients.is_empty()).then(|| Sealer::new(recipients)).transpose()?;
        Ok(Self { opener, sealer })
    }

    /// Appends to `resealed` what `stored` becomes; some of it may come with a later call.
    pub fn feed(&mut self, stored: &[u8], resealed: &mut Vec<u8>) -> Result<(), Error> {
        let Self { opener, sealer } = self;
        match opener {
            None => seal(sealer.as_mut(), stored, resealed),
            Some(opener) => opener.feed(stored, |clear| seal(sealer.as_mut(), clear, resealed)),
        }
    }

    /// Appends the rest, once the archive has proven to be whole.
    pub fn finish(self, resealed: &mut Vec<u8>) -> Result<(), Error> {
        let Self { opener, mut sealer } = self;
        if let Some(opener) = opener {
            opener.finish(|clear| seal(sealer.as_mut(), clear, resealed))?;
        }
        sealer.map_or(Ok(()), |sealer| sealer.finish(resealed))
    }
}

fn seal(sealer: Option<&mut Sealer>, clear: &[u8], resealed: &mut Vec<u8>) -> Result<(), Error> {
    if let Some(sealer) = sealer {
        return sealer.feed(clear, resealed);
    }
    resealed.extend_from_slice(clear);
    Ok(())
}

#[cfg(test)]
mod tests;
