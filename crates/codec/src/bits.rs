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
#[inline(always)]
pub(crate) fn pack_pairs(codes: &[u8]) -> [u8; 64] {
    let mut bytes = [0; 64];
    let quarters = codes.as_chunks::<32>().0.as_chunks::<4>().0;
    for (bytes, [a, b, c, d]) in bytes.as_chunks_mut::<32>().0.iter_mut().zip(quarters) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = a[i] & 3 | (b[i] & 3) << 2 | (c[i] & 3) << 4 | (d[i] & 3) << 6;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_come_low_halves_first() {
        assert_eq!(nibbles::<2, 4>(&[0x21, 0x43]), [1, 3, 2, 4]);
        assert_eq!(pack_nibbles::<2, 4>(&[1, 3, 2, 4]), [0x21, 0x43]);
    }

    #[test]
    fn pairs_stride_by_32() {
        let mut codes = [0; 256];
        (codes[1], codes[33], codes[65], codes[97], codes[128]) = (1, 2, 3, 1, 2);
        let packed = pack_pairs(&codes);
        assert_eq!((packed[1], packed[32]), (0b01_11_10_01, 2));
        assert_eq!(packed.iter().filter(|&&byte| byte != 0).count(), 2);
    }
}
