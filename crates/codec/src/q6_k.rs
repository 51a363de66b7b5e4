//! Q6_K: sixteen groups of sixteen six-bit values; each group's scale is an eight-bit multiple of the super-block's.

use std::array;

use crate::arithmetic::{extreme, nearest};
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};
use crate::search::{ZERO, symmetric};
use crate::super_block::symmetric_codes;

/// Low nibbles, upper two bits, i8 scales × 16, f16 d. y = d·s·(q − 32).
#[inline(always)]
pub(crate) fn decode(block: &[u8; 210], out: &mut [f32; 256]) {
    fields!(block => low: 128, high: 64, scales: 16, d: 2);
    let d = scale(*d);
    let mut codes = [0i8; 256];
    // Each half of the super-block: four quarters of 32 values, the nibbles of quarters 0 and 2 in the first 32 bytes,
    // those of 1 and 3 in the next; the upper bits of all four in 32 bytes.
    let halves = low.as_chunks::<64>().0.iter().zip(high.as_chunks::<32>().0);
    for (codes, (low, high)) in codes.as_chunks_mut::<128>().0.iter_mut().zip(halves) {
        for i in 0..32 {
            let q = [
                low[i] & 15 | (high[i] & 3) << 4,
                low[i + 32] & 15 | (high[i] & 12) << 2,
                low[i] >> 4 | high[i] & 48,
                low[i + 32] >> 4 | (high[i] & 192) >> 2,
            ];
            for (quarter, q) in q.into_iter().enumerate() {
                codes[32 * quarter + i] = q.cast_signed() - 32;
            }
        }
    }
    let groups = out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0);
    for ((out, codes), s) in groups.zip(scales) {
        let step = d * f32::from(s.cast_signed());
        for (y, &q) in out.iter_mut().zip(codes) {
            *y = step * f32::from(q);
        }
    }
}

/// Rounds each group to multiples of its own best scale, those to multiples of the super-block's, and the values again
/// to what came out. An unweighed value weighs its own square.
pub(crate) fn encode(values: &[f32; 256], weights: Option<Weights<'_, 256>>, block: &mut [u8; 210]) {
    let groups = values.as_chunks::<16>().0;
    let fits: [_; 16] = array::from_fn(|g| match weights {
        None => symmetric(&groups[g], &groups[g].map(|x| x * x), 32),
        Some(weights) => symmetric(&groups[g], weights.group(g), 32),
    });
    let mut codes = fits.map(|(_, codes)| codes);
    round_again(values, &fits.map(|(scale, _)| scale), &mut codes, block);
}

/// Writes a block of these groups: their scales as multiples of one, and the values rounded to what a decoder will make
/// of them. The codes are those of the groups' own scales, which stay where a scale becomes zero.
#[inline(always)]
pub(crate) fn round_again(
    values: &[f32; 256],
    fits: &[f32; 16],
    codes: &mut [[u8; 16]; 16],
    block: &mut [u8; 210],
) {
    let extreme = extreme(fits);
    if extreme.abs() < ZERO {
        *block = [0; 210];
        return;
    }
    fields_mut!(block => low: 128, high: 64, scales: 16, d: 2);
    let inverse = -128.0 / extreme;
    let d = store_scale(d, 1.0 / inverse);
    let groups = values.as_chunks::<16>().0;
    for (g, codes) in codes.iter_mut().enumerate() {
        let s = nearest(inverse * fits[g]).min(127) as i8;
        scales[g] = s.cast_unsigned();
        symmetric_codes(&groups[g], d * f32::from(s), 32, codes);
    }
    // The inverse of what the decoder says about halves and quarters. In loops over parts of equal length: with a
    // computed index for each byte the compiler gathers them one by one.
    let codes = codes.as_flattened().as_chunks::<32>().0.as_chunks::<4>().0;
    let halves = low.as_chunks_mut::<64>().0.iter_mut().zip(high.as_chunks_mut::<32>().0);
    for ([a, b, c, d], (low, high)) in codes.iter().zip(halves) {
        let (ac, bd) = low.split_at_mut(32);
        for i in 0..32 {
            ac[i] = a[i] & 15 | c[i] << 4;
            bd[i] = b[i] & 15 | d[i] << 4;
            high[i] = a[i] >> 4 | b[i] >> 4 << 2 | c[i] >> 4 << 4 | d[i] >> 4 << 6;
        }
    }
}
