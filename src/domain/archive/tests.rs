//! What goes in comes out, also encrypted, and nothing else does: no cut, no flipped bit, no other identity.

use age::secrecy::ExposeSecret as _;
use proptest::prelude::*;

use super::*;

const CODECS: [Codec; 3] = [Codec::Zstd, Codec::Gzip, Codec::None];

/// age opens and seals so many bytes at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// A piece of [`Decoder::feed`] is at most so long.
const STEP_BYTES: usize = 128 << 10;

/// An OpenSSH key pair made for this test and used nowhere else.
const SSH_PUBLIC: &str = include_str!("../../../tests/fixtures/keys/ed25519.pub");
const SSH_SECRET: &str = include_str!("../../../tests/fixtures/keys/ed25519");
const SSH_WITH_PASSPHRASE: &str = include_str!("../../../tests/fixtures/keys/ed25519-passphrase");
const RSA_PUBLIC: &str = include_str!("../../../tests/fixtures/keys/rsa.pub");
const RSA_SECRET: &str = include_str!("../../../tests/fixtures/keys/rsa");

struct Pair {
    public: String,
    secret: String,
}

fn pair() -> Pair {
    let identity = age::x25519::Identity::generate();
    Pair {
        public: identity.to_public().to_string(),
        secret: identity.to_string().expose_secret().to_owned(),
    }
}

fn recipients(texts: &[&str]) -> Recipients {
    let mut recipients = Recipients::default();
    for text in texts {
        recipients.add(text).unwrap();
    }
    recipients
}

fn identities(texts: &[&str]) -> Identities {
    texts.iter().fold(Identities::default(), |all, text| all.and(Identities::parse(text).unwrap()))
}

fn encode(codec: Codec, to: &Recipients, plain: &[u8], chunk: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(codec, codec.default_level(), to).unwrap();
    let mut stored = Vec::new();
    plain.chunks(chunk).for_each(|chunk| encoder.feed(chunk, &mut stored).unwrap());
    encoder.finish(&mut stored).unwrap();
    stored
}

/// Encrypted if there is an identity to open it.
fn decode(codec: Codec, by: &Identities, stored: &[u8], chunk: usize) -> Result<Vec<u8>, Error> {
    let encryption = if by.is_empty() { Encryption::None } else { Encryption::Age };
    let mut decoder = Decoder::new(codec, encryption, by)?;
    let mut plain = Vec::new();
    let mut sink = |piece: &[u8]| {
        assert!(piece.len() <= STEP_BYTES);
        plain.extend_from_slice(piece);
        Ok::<_, Error>(())
    };
    for chunk in stored.chunks(chunk) {
        decoder.feed(chunk, &mut sink)?;
    }
    decoder.finish(&mut sink)?;
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
        let pair = pair();
        let sealed = (recipients(&[&pair.public]), identities(&[&pair.secret]));
        for (to, by) in [(Recipients::default(), Identities::default()), sealed] {
            for codec in CODECS {
                let stored = encode(codec, &to, &plain, chunk_in);
                prop_assert_eq!(&decode(codec, &by, &stored, chunk_out).unwrap(), &plain);
            }
        }
    }

    #[test]
    fn each_cut_and_each_flipped_bit_of_an_encrypted_archive_is_an_error(
        length in 0_usize..3 * CHUNK_BYTES,
        at in any::<proptest::sample::Index>(),
        bit in 0_u8..8,
        chunk in 1_usize..200_000,
    ) {
        let pair = pair();
        let by = identities(&[&pair.secret]);
        let plain = vec![7; length];
        // Without a codec that might notice it too.
        let stored = encode(Codec::None, &recipients(&[&pair.public]), &plain, 1 << 20);
        let cut = at.index(stored.len());
        prop_assert!(decode(Codec::None, &by, &stored[..cut], chunk).is_err(), "cut to {}", cut);
        let mut flipped = stored.clone();
        flipped[cut] ^= 1 << bit;
        prop_assert!(decode(Codec::None, &by, &flipped, chunk).is_err(), "flipped at {}", cut);
    }
}

#[test]
fn each_byte_of_a_header_matters() {
    let pair = pair();
    let by = identities(&[&pair.secret]);
    let to = recipients(&[&pair.public, SSH_PUBLIC]);
    let stored = encode(Codec::None, &to, b"redis", 5);
    for at in 0..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        assert!(decode(Codec::None, &by, &changed, usize::MAX).is_err(), "byte {at}");
        assert!(decode(Codec::None, &by, &stored[..at], usize::MAX).is_err(), "cut to {at}");
    }
}

#[test]
fn a_cut_between_two_chunks_and_bytes_behind_the_end_are_errors() {
    let pair = pair();
    let by = identities(&[&pair.secret]);
    for chunks in [1, 2, 3] {
        let plain = vec![1; chunks * CHUNK_BYTES];
        let stored = encode(Codec::None, &recipients(&[&pair.public]), &plain, 1 << 20);
        assert_eq!(decode(Codec::None, &by, &stored, usize::MAX).unwrap(), plain);
        let cut = stored.len() - (CHUNK_BYTES + 16);
        for chunk in [usize::MAX, 1000] {
            let decoded = decode(Codec::None, &by, &stored[..cut], chunk);
            assert!(matches!(decoded, Err(Error::Decrypt { .. })), "{chunks}: {decoded:?}");
        }
        for more in [1, 16, CHUNK_BYTES + 16] {
            let longer = [&stored[..], &vec![0; more]].concat();
            assert!(decode(Codec::None, &by, &longer, usize::MAX).is_err(), "{chunks} {more}");
        }
    }
}

#[test]
fn each_of_several_recipients_opens_it_and_nobody_else_does() {
    let (first, second, other) = (pair(), pair(), pair());
    let to = recipients(&[&first.public, &second.public, SSH_PUBLIC, RSA_PUBLIC]);
    let stored = encode(Codec::Zstd, &to, b"redis", 5);
    for secret in [&first.secret, &second.secret, SSH_SECRET, RSA_SECRET] {
        let decoded = decode(Codec::Zstd, &identities(&[secret]), &stored, usize::MAX);
        assert_eq!(decoded.unwrap(), b"redis");
    }
    let several = format!("# old\n{}\n\n{SSH_SECRET}\n{}\n", other.secret, first.secret);
    assert_eq!(
        decode(Codec::Zstd, &identities(&[&several]), &stored, 3).unwrap(),
        b"redis",
        "one file with several identities",
    );

    let error = decode(Codec::Zstd, &identities(&[&other.secret]), &stored, 3).unwrap_err();
    assert!(error.is_of_the_identity());
    let kinds = "2 X25519, 1 ssh-ed25519, 1 ssh-rsa";
    assert!(error.to_string().contains(kinds), "{error}");
    let mut decoder = Decoder::new(Codec::Zstd, Encryption::Age, &Identities::default()).unwrap();
    let error = decoder.feed(&stored, |_| Ok::<_, Error>(())).unwrap_err();
    assert!(matches!(error, Error::NoIdentity { .. }) && error.to_string().contains(kinds));
}

#[test]
fn what_age_writes_is_read_and_what_is_written_age_reads() {
    let pair = pair();
    let identity: age::x25519::Identity = pair.secret.parse().unwrap();
    let plain = b"redis".repeat(100_000);
    let theirs = age::encrypt(&identity.to_public(), &plain).unwrap();
    assert_eq!(decode(Codec::None, &identities(&[&pair.secret]), &theirs, 999).unwrap(), plain);
    let ours = encode(Codec::None, &recipients(&[&pair.public]), &plain, 999);
    assert_eq!(age::decrypt(&identity, &ours).unwrap(), plain);
}

#[test]
fn resealed_bytes_open_for_the_new_recipient_only_and_a_cut_is_no_archive() {
    let (old, new) = (pair(), pair());
    let plain = b"redis".repeat(100_000);
    let stored = encode(Codec::Gzip, &recipients(&[&old.public]), &plain, 999);
    let reseal = |stored: &[u8], to: &Recipients| {
        let mut out = Vec::new();
        let mut resealer = Resealer::new(Encryption::Age, &identities(&[&old.secret]), to)?;
        for chunk in stored.chunks(1000) {
            resealer.feed(chunk, &mut out)?;
        }
        resealer.finish(&mut out).map(|()| out)
    };
    let resealed = reseal(&stored, &recipients(&[&new.public])).unwrap();
    assert_eq!(decode(Codec::Gzip, &identities(&[&new.secret]), &resealed, 999).unwrap(), plain);
    assert!(decode(Codec::Gzip, &identities(&[&old.secret]), &resealed, 999).is_err());
    let clear = reseal(&stored, &Recipients::default()).unwrap();
    assert_eq!(decode(Codec::Gzip, &Identities::default(), &clear, 999).unwrap(), plain);
    reseal(&stored[..stored.len() - 1], &recipients(&[&new.public])).unwrap_err();
}

#[test]
fn a_recipient_is_public_and_an_identity_is_not() {
    let pair = pair();
    let refused = |text: &str| Recipients::default().add(text).unwrap_err();
    for secret in [&pair.secret, SSH_SECRET, &pair.secret.to_lowercase()] {
        let error = refused(secret);
        assert_eq!(error, NotARecipient::Secret);
        assert!(!error.to_string().contains(&pair.secret[16..]));
    }
    assert_eq!(refused("age1"), NotARecipient::Unknown);
    assert_eq!(refused("ssh-dss AAAAB3NzaC1kc3MAAACB"), NotARecipient::SshType);
    let mut lines = Recipients::default();
    let text = format!("# ops\n{}\n\n{SSH_PUBLIC}\nage1\n", pair.public);
    assert_eq!(lines.add_lines(&text).unwrap_err(), (6, NotARecipient::Unknown));

    let refused = |text: &str| Identities::parse(text).unwrap_err();
    assert_eq!(refused(&pair.public), NotAnIdentity::Public);
    assert_eq!(refused(SSH_PUBLIC), NotAnIdentity::Public);
    assert_eq!(refused(SSH_WITH_PASSPHRASE), NotAnIdentity::Passphrase);
    assert_eq!(refused("age-encryption.org/v1\n-> scrypt"), NotAnIdentity::Passphrase);
    assert_eq!(refused("# none\n"), NotAnIdentity::Empty);
    let mistyped = format!("#\n{}x", pair.secret);
    assert_eq!(refused(&mistyped), NotAnIdentity::Unknown { line: 2 });
    assert!(!format!("{:?}", identities(&[&pair.secret])).contains(&pair.secret));
}

#[test]
fn a_bomb_comes_out_in_small_pieces() {
    let plain = vec![0; 64 << 20];
    let pair = pair();
    let (to, by) = (recipients(&[&pair.public]), identities(&[&pair.secret]));
    for codec in CODECS {
        let stored = encode(codec, &Recipients::default(), &plain, 1 << 20);
        let decoded = decode(codec, &Identities::default(), &stored, usize::MAX).unwrap();
        assert_eq!(decoded.len(), plain.len(), "{codec}");
    }
    let stored = encode(Codec::Zstd, &to, &plain, 1 << 20);
    assert_eq!(decode(Codec::Zstd, &by, &stored, usize::MAX).unwrap().len(), plain.len());
}

#[test]
fn a_truncated_archive_is_an_error() {
    let plain: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for codec in [Codec::Zstd, Codec::Gzip] {
        let stored = encode(codec, &Recipients::default(), &plain, 1 << 20);
        for length in (0..stored.len()).step_by(997).chain([stored.len() - 1]) {
            let decoded = decode(codec, &Identities::default(), &stored[..length], 4096);
            assert!(decoded.is_err(), "{codec} cut to {length} of {} bytes", stored.len());
        }
    }
}

#[test]
fn bytes_behind_the_end_are_an_error() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let mut stored = encode(codec, &Recipients::default(), b"redis", 10);
        stored.extend_from_slice(b"garbage");
        assert!(decode(codec, &Identities::default(), &stored, 1 << 20).is_err(), "{codec}");
    }
}

#[test]
fn the_fields_own_tools_read_it() {
    use std::io::Read as _;

    let plain = b"redis".repeat(100_000);
    let zstd =
        zstd::stream::decode_all(&encode(Codec::Zstd, &Recipients::default(), &plain, 1000)[..])
            .unwrap();
    assert_eq!(zstd, plain);
    let stored = encode(Codec::Gzip, &Recipients::default(), &plain, 1000);
    let mut gzip = Vec::new();
    flate2::read::GzDecoder::new(&stored[..]).read_to_end(&mut gzip).unwrap();
    assert_eq!(gzip, plain);
}
