//! F16 and BF16, and the f16 that most blocks keep their scales in.

/// An IEEE half from its bits. Branch-free and without f32 subnormals on the way, which are slow on many CPUs.
/// NaN becomes quiet.
#[inline(always)]
pub(crate) const fn f16_to_f32(half: u16) -> f32 {
    // Moves an f16 exponent (bias 15) to an f32 exponent (bias 127); twice, from 31 to 255.
    const REBIAS: u32 = (127 - 15) << 23;
    let magnitude = (half & 0x7fff) as u32;
    let shifted = magnitude << 13;
    let subnormal = (magnitude as f32 * (1.0 / (1 << 24) as f32)).to_bits();
    let bits = match magnitude {
        0..0x0400 => subnormal,
        0x0400..0x7c00 => shifted + REBIAS,
        0x7c00 => shifted + 2 * REBIAS,
        _ => (shifted + 2 * REBIAS) | 0x0040_0000,
    };
    f32::from_bits(bits | ((half & 0x8000) as u32) << 16)
}

/// The half at `bytes[0..2]`, as scales are stored.
#[inline(always)]
pub(crate) fn scale(bytes: [u8; 2]) -> f32 {
    f16_to_f32(u16::from_le_bytes(bytes))
}

/// Rounds to the nearest half, ties to even. Every NaN becomes the quiet one of its sign.
#[inline(always)]
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    if value.is_nan() {
        return 0x7e00 | if value.is_sign_negative() { 0x8000 } else { 0 };
    }
    half::f16::from_f32(value).to_bits()
}

/// Stores the half nearest to `value` and returns what a decoder will find there.
#[inline(always)]
pub(crate) fn store_scale(bytes: &mut [u8; 2], value: f32) -> f32 {
    *bytes = f32_to_f16(value).to_le_bytes();
    scale(*bytes)
}

/// F16: one half.
#[inline(always)]
pub(crate) fn decode_f16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = scale(*bytes);
}

/// F16: one half.
#[inline(always)]
pub(crate) fn encode_f16(value: f32) -> Option<[u8; 2]> {
    Some(f32_to_f16(value).to_le_bytes())
}

/// BF16: the upper half of an f32.
#[inline(always)]
pub(crate) fn decode_bf16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
}

/// BF16: rounds to nearest, ties to even. NaN keeps the payload's upper bits and becomes quiet.
#[inline(always)]
pub(crate) fn encode_bf16(value: f32) -> Option<[u8; 2]> {
    let bits = value.to_bits();
    let rounded = if value.is_nan() { bits >> 16 | 0x40 } else { (bits + 0x7fff + (bits >> 16 & 1)) >> 16 };
    Some((rounded as u16).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_decodes_as_ieee_says() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32().to_bits();
            assert_eq!(f16_to_f32(bits).to_bits(), expected, "{bits:#06x}");
        }
    }

    #[test]
    fn halves_survive_encoding() {
        for bits in 0..=u16::MAX {
            let value = f16_to_f32(bits);
            let expected = if value.is_nan() { 0x7e00 | bits & 0x8000 } else { bits };
            assert_eq!(f32_to_f16(value), expected, "{bits:#06x}");
        }
    }

    #[test]
    fn ties_go_to_even() {
        let bf16 = |bits| encode_bf16(f32::from_bits(bits)).map(u16::from_le_bytes);
        assert_eq!(bf16(0x3f80_8000), Some(0x3f80));
        assert_eq!(bf16(0x3f81_8000), Some(0x3f82));
        assert_eq!(bf16(0x3f80_8001), Some(0x3f81));
        assert_eq!(bf16(0x7f7f_ffff), Some(0x7f80));
        assert_eq!(bf16(0xff80_0001), Some(0xffc0));
        assert_eq!(f32_to_f16(1.0 + 1.0 / 2048.0), 0x3c00);
        assert_eq!(f32_to_f16(1.0 + 3.0 / 2048.0), 0x3c02);
        assert_eq!(f32_to_f16(65519.0), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
    }
}
