//! FP8 (OCP "OFP8"): E4M3 in the finite-only flavour that safetensors and PyTorch mean (no infinities), and E5M2.

use crate::float16::f16_to_f32;

/// E4M3: sign, 4 exponent bits (bias 7), 3 mantissa bits. Only S.1111.111 is NaN; 448 is the largest value.
#[inline(always)]
pub(crate) fn decode_e4m3(bytes: &[u8; 1], out: &mut [f32; 1]) {
    let magnitude = u16::from(bytes[0] & 0x7f);
    let sign = u16::from(bytes[0] & 0x80) << 8;
    // As a half, whose exponent bias is 15, the same bits mean 2^8 less.
    let value = if magnitude == 0x7f { f32::NAN } else { f16_to_f32(magnitude << 7) * 256.0 };
    out[0] = f32::from_bits(value.to_bits() | u32::from(sign) << 16);
}

/// E5M2: the upper byte of a half.
#[inline(always)]
pub(crate) fn decode_e5m2(bytes: &[u8; 1], out: &mut [f32; 1]) {
    out[0] = f16_to_f32(u16::from(bytes[0]) << 8);
}

/// Rounds to nearest, ties to even; what is beyond 448, infinity included, becomes 448, as PyTorch has it.
pub(crate) fn encode_e4m3(value: f32) -> Option<[u8; 1]> {
    Some([sign(value) | if value.is_nan() { 0x7f } else { magnitude(value, 3, -6).min(0x7e) }])
}

/// Rounds to nearest, ties to even; from 61440 on there is only infinity.
pub(crate) fn encode_e5m2(value: f32) -> Option<[u8; 1]> {
    Some([sign(value) | if value.is_nan() { 0x7f } else { magnitude(value, 2, -14).min(0x7c) }])
}

fn sign(value: f32) -> u8 {
    if value.is_sign_negative() { 0x80 } else { 0 }
}

/// The code, without sign, that is nearest to a number in a format of `mantissa` bits whose smallest normal number is
/// 2^`min_exponent`, if exponents went on without end. Codes count up through subnormals and binades without a gap,
/// so a mantissa that rounds up to 2.0 carries into the exponent by itself.
fn magnitude(value: f32, mantissa: i32, min_exponent: i32) -> u8 {
    let exponent = ((value.to_bits() >> 23 & 0xff) as i32 - 127).max(min_exponent);
    let steps_per_unit = f64::from_bits(((1023 + mantissa - exponent) as u64) << 52);
    let steps = (f64::from(value.abs()) * steps_per_unit).round_ties_even();
    let code = f64::from((exponent - min_exponent) << mantissa) + steps;
    code as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(decode: fn(&[u8; 1], &mut [f32; 1]), code: u8) -> f32 {
        let mut out = [0.0];
        decode(&[code], &mut out);
        out[0]
    }

    #[test]
    fn known_codes() {
        let e4m3 = |code| value(decode_e4m3, code);
        assert_eq!([e4m3(0x00), e4m3(0x01), e4m3(0x08), e4m3(0x38)], [0.0, 0.001_953_125, 0.015_625, 1.0]);
        assert_eq!([e4m3(0x7e), e4m3(0xfe), e4m3(0xb9)], [448.0, -448.0, -1.125]);
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan() && e4m3(0xff).is_sign_negative());
        assert_eq!(e4m3(0x80).to_bits(), 0x8000_0000);
        let e5m2 = |code| value(decode_e5m2, code);
        assert_eq!([e5m2(0x01), e5m2(0x3c), e5m2(0x7b)], [0.000_015_258_789, 1.0, 57344.0]);
        assert_eq!(e5m2(0xfc), f32::NEG_INFINITY);
        assert!(e5m2(0x7d).is_nan());
    }

    /// Between two neighbouring codes lies a tie, and it goes to the even code.
    fn check_rounding(decode: fn(&[u8; 1], &mut [f32; 1]), encode: fn(f32) -> Option<[u8; 1]>, largest: u8) {
        for code in 0..largest {
            let (low, high) = (value(decode, code), value(decode, code + 1));
            let tie = (low + high) / 2.0;
            let even = code + (code & 1);
            for (x, expected) in [
                (low, code),
                (tie.next_down(), code),
                (tie, even),
                (tie.next_up(), code + 1),
                (high, code + 1),
            ] {
                assert_eq!(encode(x), Some([expected]), "{x:e}");
                assert_eq!(encode(-x), Some([expected | 0x80]), "-{x:e}");
            }
        }
    }

    #[test]
    fn rounds_to_the_nearest_code() {
        check_rounding(decode_e4m3, encode_e4m3, 0x7e);
        check_rounding(decode_e5m2, encode_e5m2, 0x7b);
    }

    #[test]
    fn overflow() {
        assert_eq!(encode_e4m3(464.0_f32.next_up()), Some([0x7e]));
        assert_eq!(encode_e4m3(f32::NEG_INFINITY), Some([0xfe]));
        assert_eq!(encode_e4m3(-f32::NAN), Some([0xff]));
        assert_eq!(encode_e5m2(61440.0_f32.next_down()), Some([0x7b]));
        assert_eq!(encode_e5m2(61440.0), Some([0x7c]));
        assert_eq!(encode_e5m2(f32::MAX), Some([0x7c]));
        assert_eq!(encode_e5m2(f32::NAN), Some([0x7f]));
    }
}
