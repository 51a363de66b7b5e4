//! Q3_K: sixteen groups of sixteen three-bit values; each group's scale is a six-bit multiple of the super-block's.

use std::array;

use crate::arithmetic::{extreme, nearest, sum, sum_of_squares, weigh};
use crate::bits::pack_pairs;
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};
use crate::search::{ZERO, symmetric};
use crate::super_block::symmetric_codes;

/// The six-bit scales: nibbles of groups 0–7 and 8–15 in eight bytes, then the upper two bits of groups g, g + 4,
/// g + 8, g + 12 in four.
#[inline(always)]
pub(crate) fn scales(packed: &[u8; 12]) -> [i8; 16] {
    array::from_fn(|group| {
        let low = packed[group % 8] >> (4 * (group / 8)) & 15;
        let high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
        (high << 4 | low).cast_signed() - 32
    })
}

/// Third bits, 2-bit quants, scales, f16 d. y = d·s·(q − 4).
#[inline(always)]
pub(crate) fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
    fields!(block => high: 32, low: 64, packed_scales: 12, d: 2);
    let d = scale(*d);
    let (high, low) = (high.as_chunks::<16>().0, low.as_chunks::<16>().0);
    for (group, (out, s)) in out.as_chunks_mut::<16>().0.iter_mut().zip(scales(packed_scales)).enumerate() {
        let step = d * f32::from(s);
        let (half, pair, side) = (group / 8, group / 2 % 4, group % 2);
        for (y, (low, high)) in out.iter_mut().zip(low[2 * half + side].iter().zip(high[side])) {
            let q = low >> (2 * pair) & 3 | (high >> (4 * half + pair) & 1) << 2;
            *y = step * (f32::from(q) - 4.0);
        }
    }
}

/// The inverse of [`scales`].
fn pack_scales(scales: [u8; 16]) -> [u8; 12] {
    array::from_fn(|i| match i {
        0..8 => scales[i] & 15 | scales[i + 8] << 4,
        _ => (0..4).fold(0, |byte, j| byte | scales[i - 8 + 4 * j] >> 4 << (2 * j)),
    })
}

/// A group's scale and codes.
type Fit = (f32, [u8; 16]);

/// Rounds each group to multiples of its own best scale, those to multiples of the super-block's, and the values again
/// to what came out.
pub(crate) fn encode(values: &[f32; 256], weights: Option<Weights<'_, 256>>, block: &mut [u8; 110]) {
    fields_mut!(block => high: 32, low: 64, packed_scales: 12, d: 2);
    let groups = values.as_chunks::<16>().0;
    let (fits, d_value, group_scales): ([Fit; 16], f32, [u8; 16]);
    match weights {
        None => {
            fits = array::from_fn(|g| move_single_codes(&groups[g]));
            let extreme = extreme(&fits.map(|(scale, _)| scale));
            if extreme == 0.0 {
                (d_value, group_scales) = (0.0, [0; 16]);
            } else {
                let inverse = -32.0 / extreme;
                d_value = 1.0 / inverse;
                group_scales = fits.map(|(scale, _)| (nearest(inverse * scale).clamp(-32, 31) + 32) as u8);
            }
        }
        Some(weights) => {
            let power = 2.0 * sum_of_squares(values) / 256.0;
            let weights: [[f32; 16]; 16] = array::from_fn(|g| weigh(&groups[g], weights.group(g), power));
            fits = array::from_fn(|g| symmetric(&groups[g], &weights[g], 4));
            (d_value, group_scales) = symmetric(&fits.map(|(scale, _)| scale), &weights.map(|w| sum(&w)), 32);
        }
    }
    let d = store_scale(d, d_value);
    *packed_scales = pack_scales(group_scales);
    let mut codes = fits.map(|(_, codes)| codes);
    for ((codes, group), s) in codes.iter_mut().zip(groups).zip(scales(packed_scales)) {
        symmetric_codes(group, d * f32::from(s), 4, codes);
    }
    let codes = codes.as_flattened();
    *low = pack_pairs(codes);
    *high = array::from_fn(|i| (0..8).fold(0, |byte, j| byte | (codes[i + 32 * j] >> 2) << j));
}

/// x ≈ scale·(code − 4): from the rounding that puts the extreme value at −4, up to five rounds of moving single values
/// to where they fit better. A value weighs its own square.
fn move_single_codes(x: &[f32; 16]) -> Fit {
    let extreme = extreme(x);
    if extreme.abs() < ZERO {
        return (0.0, [0; 16]);
    }
    let inverse = -4.0 / extreme;
    let mut quants = x.map(|x| nearest(inverse * x).clamp(-4, 3));
    let (mut xq, mut qq) = (0.0, 0.0);
    for (x, &q) in x.iter().zip(&quants) {
        let w = x * x;
        xq += w * x * q as f32;
        qq += w * q as f32 * q as f32;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (x, quant) in x.iter().zip(&mut quants) {
            let (w, q) = (x * x, *quant as f32);
            let mut other_xq = xq - w * x * q;
            if other_xq > 0.0 {
                let mut other_qq = qq - w * q * q;
                let new = nearest(x * other_qq / other_xq).clamp(-4, 3);
                if new != *quant {
                    other_xq += w * x * new as f32;
                    other_qq += w * new as f32 * new as f32;
                    if other_qq > 0.0 && other_xq * other_xq * qq > xq * xq * other_qq {
                        *quant = new;
                        (xq, qq) = (other_xq, other_qq);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    (if qq > 0.0 { xq / qq } else { 0.0 }, quants.map(|q| (q + 4) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_survive_packing() {
        for shift in 0..64 {
            let codes: [u8; 16] = array::from_fn(|g| (shift + 11 * g as u8) % 64);
            assert_eq!(scales(&pack_scales(codes)), codes.map(|code| code as i8 - 32));
        }
    }
}
