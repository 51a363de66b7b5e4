//! Small integers packed several to a byte.

/// The low halves of all bytes, then the high halves.
#[inline(always)]
pub(crate) fn nibbles<const BYTES: usize, const LEN: usize>(bytes: &[u8; BYTES]) -> [u8; LEN] {
    const { assert!(LEN == 2 * BYTES) };
    let mut codes = [0; LEN];
    let (low, high) = codes.split_at_mut(BYTES);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = byte & 15;
        *high = byte >> 4;
    }
    codes
}

/// The inverse of [`nibbles`]; of each code the low four bits.
#[inline(always)]
pub(crate) fn pack_nibbles<const BYTES: usize, const LEN: usize>(codes: &[u8; LEN]) -> [u8; BYTES] {
    const { assert!(LEN == 2 * BYTES) };
    std::array::from_fn(|i| codes[i] & 15 | codes[i + BYTES] << 4)
}

/// Two bits of each of 256 codes, 128 codes to 32 bytes, from the low bits up: the codes of the K encodings and TQ2_0.
pub(crate) fn pack_pairs(codes: &[u8]) -> [u8; 64] {
    std::array::from_fn(|i| {
        let first = i / 32 * 128 + i % 32;
        (0..4).fold(0, |byte, pair| byte | (codes[first + 32 * pair] & 3) << (2 * pair))
    })
}
