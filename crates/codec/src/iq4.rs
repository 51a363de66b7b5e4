//! IQ4_NL and IQ4_XS: four bits that choose among sixteen unevenly spaced levels.

use std::array;

use crate::arithmetic::{extreme, nearest, reciprocal, sum_of_squares, weigh};
use crate::bits::{nibbles, pack_nibbles};
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};
use crate::search::ZERO;

/// The levels, dense around zero.
pub(crate) const LEVELS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The levels as what they are multiplied as.
pub(crate) const LEVELS_F32: [f32; 16] = {
    let mut levels = [0.0; 16];
    let mut i = 0;
    while i < 16 {
        levels[i] = LEVELS[i] as f32;
        i += 1;
    }
    levels
};

/// y = step·level(q).
#[inline(always)]
fn dequantize(step: f32, quants: &[u8; 16], out: &mut [f32; 32]) {
    for (y, q) in out.iter_mut().zip(nibbles::<16, 32>(quants)) {
        *y = step * LEVELS_F32[usize::from(q)];
    }
}

/// IQ4_NL: f16 d, nibbles.
#[inline(always)]
pub(crate) fn decode_iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    fields!(block => d: 2, quants: 16);
    dequantize(scale(*d), quants, out);
}

/// IQ4_XS: f16 d, upper two bits of the scales of eight groups, their low nibbles, nibbles. step = d·(s − 32).
#[inline(always)]
pub(crate) fn decode_iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    fields!(block => d: 2, scales_high: 2, scales_low: 4, quants: 128);
    let d = scale(*d);
    let scales_high = u16::from_le_bytes(*scales_high);
    let groups = out.as_chunks_mut::<32>().0.iter_mut().zip(quants.as_chunks::<16>().0);
    for (group, (out, quants)) in groups.enumerate() {
        let low = scales_low[group / 2] >> (4 * (group % 2)) & 15;
        let high = (scales_high >> (2 * group) & 3) as u8;
        dequantize(d * (f32::from(high << 4 | low) - 32.0), quants, out);
    }
}

/// The nearest level's code; the upper one of two equally near.
#[inline(always)]
fn nearest_level(x: f32) -> usize {
    // The number of levels that x is not below, within 1..=15. NaN, which only vanishing steps make, is below none.
    let upper = 15 - LEVELS_F32[1..15].iter().filter(|level| x < **level).count();
    if x - LEVELS_F32[upper - 1] < LEVELS_F32[upper] - x { upper - 1 } else { upper }
}

/// The step for a group: the best one for its codes, which are the best of those that put the extreme value at the
/// levels −127, 127 or, in 15 trials, within 7 of −127.
fn fit(x: &[f32; 32], weights: &[f32; 32]) -> f32 {
    let extreme = extreme(x);
    if extreme.abs() < ZERO {
        return 0.0;
    }
    let try_inverse = |inverse: f32| {
        x.iter().zip(weights).fold((0.0, 0.0), |(xq, qq), (x, w)| {
            let q = LEVELS_F32[nearest_level(inverse * x)];
            (xq + w * q * x, qq + w * q * q)
        })
    };
    let (xq, qq) = try_inverse(1.0 / (-extreme / LEVELS_F32[0]));
    let mut step = if qq > 0.0 { xq / qq } else { 0.0 };
    let mut best = step * xq;
    for offset in -7..=7 {
        let (xq, qq) = try_inverse((offset as f32 + LEVELS_F32[0]) / extreme);
        if qq > 0.0 && xq * xq > best * qq {
            step = xq / qq;
            best = step * xq;
        }
    }
    step
}

/// What each value weighs; an unweighed one its own square.
fn weights_of(x: &[f32; 32], importance: Option<&[f32; 32]>, power: f32) -> [f32; 32] {
    match importance {
        None => x.map(|x| x * x),
        Some(importance) => weigh(x, importance, power),
    }
}

fn quantize(x: &[f32; 32], step: f32) -> [u8; 16] {
    let inverse = reciprocal(step);
    pack_nibbles(&x.map(|x| nearest_level(inverse * x) as u8))
}

/// IQ4_NL: the codes are rounded by the step before it is rounded itself.
pub(crate) fn encode_iq4_nl(values: &[f32; 32], weights: Option<Weights<'_, 32>>, block: &mut [u8; 18]) {
    fields_mut!(block => d: 2, quants: 16);
    let power = sum_of_squares(values) * (2.0 / 32.0);
    let step = fit(values, &weights_of(values, weights.map(|w| w.importance), power));
    store_scale(d, step);
    *quants = quantize(values, step);
}

/// IQ4_XS: the same, but for d being the unrounded one.
pub(crate) fn encode_iq4_xs(values: &[f32; 256], weights: Option<Weights<'_, 256>>, block: &mut [u8; 136]) {
    let groups = values.as_chunks::<32>().0;
    let power = sum_of_squares(values) * (2.0 / 256.0);
    let steps: [f32; 8] = array::from_fn(|g| {
        fit(&groups[g], &weights_of(&groups[g], weights.as_ref().map(|w| w.group(g)), power))
    });
    finish(values, &steps, block, quantize);
}

/// Writes a block of groups with these steps; `quantize` rounds a group.
#[inline(always)]
pub(crate) fn finish(
    values: &[f32; 256],
    steps: &[f32; 8],
    block: &mut [u8; 136],
    quantize: impl Fn(&[f32; 32], f32) -> [u8; 16],
) {
    fields_mut!(block => d: 2, scales_high: 2, scales_low: 4, quants: 128);
    let groups = values.as_chunks::<32>().0;
    let unrounded = -extreme(steps) / 32.0;
    store_scale(d, unrounded);
    let inverse = reciprocal(unrounded);
    let scales = steps.map(|step| nearest(inverse * step).clamp(-32, 31));
    for (quants, (group, s)) in quants.as_chunks_mut().0.iter_mut().zip(groups.iter().zip(scales)) {
        *quants = quantize(group, unrounded * s as f32);
    }
    let codes = scales.map(|s| (s + 32) as u8);
    *scales_low = array::from_fn(|i| codes[2 * i] & 15 | codes[2 * i + 1] << 4);
    let high = codes.iter().rev().fold(0, |high: u16, code| high << 2 | u16::from(code >> 4));
    *scales_high = high.to_le_bytes();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lanes round by.
    #[test]
    fn levels_change_half_way() {
        for (code, levels) in LEVELS_F32.windows(2).enumerate() {
            let half_way = (levels[0] + levels[1]) / 2.0;
            let (mut below, mut above) = (half_way.next_down(), half_way);
            for _ in 0..1000 {
                assert_eq!((nearest_level(below), nearest_level(above)), (code, code + 1), "{below} {above}");
                (below, above) = (below.next_down(), above.next_up());
            }
        }
        assert_eq!(
            [nearest_level(f32::NEG_INFINITY), nearest_level(f32::NAN), nearest_level(1e30)],
            [0, 15, 15]
        );
    }
}
