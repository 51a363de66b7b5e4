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
