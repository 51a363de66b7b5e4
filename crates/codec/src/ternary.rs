//! TQ1_0 and TQ2_0: −1, 0 or 1 times a scale.

use std::array;

use crate::arithmetic::{magnitude, reciprocal, round};
use crate::bits::pack_pairs;
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};

/// Multiplied by a power of three, a byte that holds a fraction of 256 in base three moves its next digit up front.
pub const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The digit, 0 to 2, that multiplying by `power` brings up front.
#[inline(always)]
pub fn digit(byte: u8, power: u8) -> u8 {
    ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8
}

/// Digit `n` of each byte, for n = 0, 1, …, as long as there is room.
#[inline(always)]
fn digits<const BYTES: usize>(bytes: &[u8; BYTES], d: f32, out: &mut [f32]) {
    for (out, power) in out.as_chunks_mut::<BYTES>().0.iter_mut().zip(POWERS) {
        for (y, byte) in out.iter_mut().zip(bytes) {
            *y = (f32::from(digit(*byte, power)) - 1.0) * d;
        }
    }
}

/// TQ1_0: five digits to a byte, in rows of 32 and of 16 bytes; four digits to each of the last four bytes; f16 d.
#[inline(always)]
pub(crate) fn decode_tq1_0(block: &[u8; 54], out: &mut [f32; 256]) {
    fields!(block => long: 32, middle: 16, short: 4, d: 2);
    let d = scale(*d);
    let (first, rest) = out.split_at_mut(160);
    let (second, third) = rest.split_at_mut(80);
    digits(long, d, first);
    digits(middle, d, second);
    digits(short, d, third);
}

/// TQ2_0: 2-bit quants, rows of 32 values from the low bits of 32 bytes up; f16 d. y = d·(q − 1), so 3 means 2.
#[inline(always)]
pub(crate) fn decode_tq2_0(block: &[u8; 66], out: &mut [f32; 256]) {
    fields!(block => quants: 64, d: 2);
    let d = scale(*d);
    let quants = quants.as_chunks::<32>().0;
    for (row, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (y, q) in out.iter_mut().zip(quants[row / 4]) {
            *y = (f32::from(q >> (2 * (row % 4)) & 3) - 1.0) * d;
        }
    }
}

/// The digits 0, 1, 2 of −1, 0, 1 times the largest magnitude, and that.
fn fit(values: &[f32; 256]) -> (f32, [u8; 256]) {
    let step = magnitude(values);
    let inverse = reciprocal(step);
    (step, values.map(|x| (round(x * inverse) + 1) as u8))
}

/// Bytes of digits, the first one up front: the number in base three, as a fraction of 3^5, rounded up to one of 256.
fn pack_digits<const BYTES: usize>(digits: &[u8]) -> [u8; BYTES] {
    array::from_fn(|i| {
        let number = (0..5).fold(0, |number: u8, n| {
            number.wrapping_mul(3).wrapping_add(digits.get(i + n * BYTES).copied().unwrap_or(0))
        });
        (u16::from(number) * 256).div_ceil(243) as u8
    })
}

/// TQ1_0. Errors are not weighed.
pub(crate) fn encode_tq1_0(values: &[f32; 256], _: Option<Weights<'_, 256>>, block: &mut [u8; 54]) {
    fields_mut!(block => long: 32, middle: 16, short: 4, d: 2);
    let (step, digits) = fit(values);
    store_scale(d, step);
    *long = pack_digits(&digits[..160]);
    *middle = pack_digits(&digits[160..240]);
    *short = pack_digits(&digits[240..]);
}

/// TQ2_0. Errors are not weighed.
pub(crate) fn encode_tq2_0(values: &[f32; 256], _: Option<Weights<'_, 256>>, block: &mut [u8; 66]) {
    fields_mut!(block => quants: 64, d: 2);
    let (step, digits) = fit(values);
    store_scale(d, step);
    *quants = pack_pairs(&digits);
}
