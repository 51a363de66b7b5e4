//! Q2_K: sixteen groups of sixteen two-bit values; each group's scale and minimum are four-bit multiples of the
//! super-block's two.

use std::array;

use crate::arithmetic::{sum_of_squares, weigh};
use crate::bits::pack_pairs;
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};
use crate::search::{AffineSearch, affine};
use crate::super_block::{SuperBlock, WEIGHED, affine_codes};

/// The search of a group whose values all weigh their own size.
pub(crate) const UNWEIGHED: AffineSearch =
    AffineSearch { max_code: 3, from: -0.5, by: 0.1, times: 15, loss: f32::abs };

/// Scale and minimum nibbles × 16, 2-bit quants, f16 d, f16 dmin. y = d·s·q − dmin·m.
#[inline(always)]
pub(crate) fn decode(block: &[u8; 84], out: &mut [f32; 256]) {
    fields!(block => scales: 16, quants: 64, d: 2, dmin: 2);
    let (d, dmin) = (scale(*d), scale(*dmin));
    let quants = quants.as_chunks::<16>().0;
    for (group, (out, s)) in out.as_chunks_mut::<16>().0.iter_mut().zip(scales).enumerate() {
        let (step, min) = (d * f32::from(s & 15), dmin * f32::from(s >> 4));
        // Each half of the super-block lies in 32 bytes: group pairs from the low bits up.
        let (half, pair, side) = (group / 8, group / 2 % 4, group % 2);
        for (y, q) in out.iter_mut().zip(quants[2 * half + side]) {
            *y = step * f32::from(q >> (2 * pair) & 3) - min;
        }
    }
}

/// Rounds each group to multiples of its own best scale and minimum, those to multiples of the super-block's, and the
/// values again to what came out.
pub(crate) fn encode(values: &[f32; 256], weights: Option<Weights<'_, 256>>, block: &mut [u8; 84]) {
    let groups = values.as_chunks::<16>().0;
    let super_block: SuperBlock<16, 16> = match weights {
        None => {
            let fits: [_; 16] = array::from_fn(|g| affine(&groups[g], &groups[g].map(f32::abs), &UNWEIGHED));
            SuperBlock::by_largest(&fits, 15)
        }
        Some(weights) => {
            let search = AffineSearch { max_code: 3, ..WEIGHED };
            let power = sum_of_squares(values) / 256.0;
            let weights: [_; 16] = array::from_fn(|g| weigh(&groups[g], weights.group(g), power));
            let fits: [_; 16] = array::from_fn(|g| affine(&groups[g], &weights[g], &search));
            SuperBlock::by_least_squares(&fits, &weights, 15)
        }
    };
    round_again(values, super_block, block);
}

/// Writes scales and minima and rounds the values to what a decoder will make of them.
#[inline(always)]
pub(crate) fn round_again(values: &[f32; 256], super_block: SuperBlock<16, 16>, block: &mut [u8; 84]) {
    fields_mut!(block => scales: 16, quants: 64, d: 2, dmin: 2);
    let (d, dmin) = (store_scale(d, super_block.d), store_scale(dmin, super_block.dmin));
    *scales = array::from_fn(|g| super_block.scales[g] | super_block.mins[g] << 4);
    let mut codes = super_block.codes;
    for ((codes, group), s) in codes.iter_mut().zip(values.as_chunks::<16>().0).zip(scales) {
        affine_codes(group, d * f32::from(*s & 15), dmin * f32::from(*s >> 4), 3, codes);
    }
    *quants = pack_pairs(codes.as_flattened());
}
