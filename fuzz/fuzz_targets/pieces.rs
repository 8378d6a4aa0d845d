//! Cuts bytes into pieces, the same bytes always in the same way. Holds nothing back.

/// Mostly a few bytes, at times hundreds; by the bytes themselves, so that a mutated input is cut anew.
pub fn of(bytes: &[u8]) -> Vec<&[u8]> {
    let seed = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut chance = seed;
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        chance =
            chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let most = if (chance >> 60) == 0 { 1024 } else { 9 };
        let count = usize::try_from((chance >> 33) % most).unwrap_or(0) + 1;
        let (piece, behind) = rest.split_at(count.min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}
