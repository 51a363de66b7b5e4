//! Numbers as whole multiples of a power of two, and these as digits of a byte.

use instructions::RIGHT;

use crate::exact::power_of_two;

/// The bit of an f32's sign.
pub(super) const SIGN: u32 = 1 << 31;

/// `D` digits of 128. Added to a number it makes of its digits ones from 0 to 255, 128 too much; without the bit of 128 these are
/// the signed ones again.
pub(super) const fn bias<const D: usize>() -> u64 {
    0x8080_8080_8080_8080 >> (64 - 8 * D)
}

/// The exponent of the least power of two in which `largest`, a number, has `D` digits of −128 … 127.
#[inline(always)]
pub(super) fn unit<const D: usize>(largest: f32) -> i32 {
    let exponent = (largest.to_bits() >> 23).clamp(1, 254) as i32; // `largest` is below 2^(exponent − 126)
    let most = bias::<D>() / 128 * 127;
    let n = exponent - 125 - 8 * D as i32;
    if f64::from(largest) * power_of_two(-n) > most as f64 { n + 1 } else { n }
}

/// An f32 in whole units, towards zero; and the bits that are left of its own 24.
#[inline(always)]
pub(super) fn truncate(bits: u32, unit: i32) -> (u32, u32) {
    let exponent = bits >> 23 & 0xff;
    let magnitude = bits & 0x7f_ffff | u32::from(exponent != 0) << 23; // in units of 2^(exponent − 150)
    let shift = (unit + 150 - exponent.max(1) as i32) as u32; // 1 or more
    let shift = shift.min(24);
    let whole = magnitude >> shift;
    let sign = (bits as i32 >> 31) as u32;
    ((whole ^ sign).wrapping_sub(sign), magnitude ^ whole << shift)
}

/// What a weight's lowest bits are worth.
pub(super) fn part(bits: u32, left: u32) -> f64 {
    let part = f64::from(left) * power_of_two((bits >> 23 & 0xff).max(1) as i32 - 150);
    if bits & SIGN == 0 { part } else { -part }
}

/// An f32 in whole units, the nearest, and what is left in units: the one as digits, a byte each.
#[inline(always)]
pub(super) fn nearest(value: f64, inverse: f64) -> (u64, f64) {
    /// Its own unit is 1: what is added to it becomes a whole number, in the low bits.
    const ROUNDER: f64 = 1.5 * power_of_two(52);
    let value = value * inverse;
    let rounded = value + ROUNDER;
    let whole = rounded.to_bits().wrapping_sub(ROUNDER.to_bits());
    (whole.wrapping_add(bias::<RIGHT>()) ^ bias::<RIGHT>(), value - (rounded - ROUNDER))
}

#[cfg(test)]
mod tests {
    use instructions::LEFT;
    use proptest::prelude::*;

    use super::*;

    /// The number that the lowest `D` bytes of a word are the digits of.
    fn number<const D: usize>(word: u64) -> i64 {
        (0..D).rev().fold(0, |sum, i| sum * 256 + i64::from((word >> (8 * i)) as i8))
    }

    proptest! {
        /// Nothing is lost: digits and what is left make the number, for any other as the largest.
        #[test]
        fn digits_and_the_rest_are_the_number(a: u32, b: u32) {
            let (a, b) = (f32::from_bits(a), f32::from_bits(b));
            prop_assume!(a.is_finite() && b.is_finite());
            let (small, large) = if a.abs() < b.abs() { (a, b) } else { (b, a) };
            for value in [small, large] {
                let n = unit::<LEFT>(large.abs());
                let (whole, left) = truncate(value.to_bits(), n);
                let word = whole.wrapping_add(bias::<LEFT>() as u32) ^ bias::<LEFT>() as u32;
                let digits = number::<LEFT>(word.into());
                prop_assert_eq!(digits, i64::from(whole as i32));
                let left = part(value.to_bits(), left);
                prop_assert!(left.abs() < power_of_two(n));
                prop_assert_eq!(digits as f64 * power_of_two(n) + left, f64::from(value));

                let n = unit::<RIGHT>(large.abs());
                let (word, rest) = nearest(value.into(), power_of_two(-n));
                prop_assert!(rest.abs() <= 0.5);
                prop_assert_eq!((number::<RIGHT>(word) as f64 + rest) * power_of_two(n), f64::from(value));
            }
        }
    }
}
