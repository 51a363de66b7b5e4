//! Q4_K: eight groups of 32 four-bit values; each group's scale and minimum are six-bit multiples of the
//! super-block's two.

use std::array;

use crate::arithmetic::{sum_of_squares, weigh};
use crate::bits::pack_nibbles;
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};
use crate::search::{AffineSearch, affine};
use crate::super_block::{SuperBlock, WEIGHED, affine_codes};

/// The search of a group whose values all weigh by their own size.
pub(crate) const UNWEIGHED: AffineSearch =
    AffineSearch { max_code: 15, from: -1.0, by: 0.1, times: 20, loss: |error| error * error };

/// The six-bit scales and minima of eight groups, as Q4_K and Q5_K pack them: those of the first four groups lie in
/// the low bits of eight bytes, whose two upper bits complete the nibbles of the other four groups.
#[inline(always)]
pub(crate) fn scales_and_mins(packed: &[u8; 12]) -> [(u8, u8); 8] {
    array::from_fn(|group| {
        if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let nibbles = packed[group + 4];
            (nibbles & 15 | packed[group - 4] >> 6 << 4, nibbles >> 4 | packed[group] >> 6 << 4)
        }
    })
}

/// The inverse of [`scales_and_mins`].
fn pack_scales_and_mins(scales: [u8; 8], mins: [u8; 8]) -> [u8; 12] {
    array::from_fn(|i| match i {
        0..4 => scales[i] | scales[i + 4] >> 4 << 6,
        4..8 => mins[i - 4] | mins[i] >> 4 << 6,
        _ => scales[i - 4] & 15 | mins[i - 4] << 4,
    })
}

/// f16 d, f16 dmin, scales and minima, nibbles. y = d·s·q − dmin·m.
#[inline(always)]
pub(crate) fn decode(block: &[u8; 144], out: &mut [f32; 256]) {
    fields!(block => d: 2, dmin: 2, packed_scales: 12, quants: 128);
    let (d, dmin) = (scale(*d), scale(*dmin));
    let quants = quants.as_chunks::<32>().0;
    let groups = out.as_chunks_mut::<32>().0.iter_mut().zip(scales_and_mins(packed_scales));
    for (group, (out, (s, m))) in groups.enumerate() {
        let (step, min) = (d * f32::from(s), dmin * f32::from(m));
        for (y, q) in out.iter_mut().zip(quants[group / 2]) {
            *y = step * f32::from(q >> (4 * (group % 2)) & 15) - min;
        }
    }
}

/// The header that Q4_K and Q5_K share, and the codes below it: each group rounded to multiples of its own best scale
/// and minimum, those to multiples of the super-block's, and the values again to what came out.
pub(crate) fn encode_groups(
    values: &[f32; 256],
    weights: Option<Weights<'_, 256>>,
    unweighed: &AffineSearch,
    [d, dmin]: [&mut [u8; 2]; 2],
    packed_scales: &mut [u8; 12],
) -> [[u8; 32]; 8] {
    let max_code = unweighed.max_code;
    let groups = values.as_chunks::<32>().0;
    let super_block: SuperBlock<8, 32> = match weights {
        None => {
            let fits: [_; 8] = array::from_fn(|g| {
                let mean = (sum_of_squares(&groups[g]) / 32.0).sqrt();
                affine(&groups[g], &groups[g].map(|x| mean + x.abs()), unweighed)
            });
            SuperBlock::by_largest(&fits, 63).clamp(63)
        }
        Some(weights) => {
            let power = 2.0 * sum_of_squares(values) / 256.0;
            let weights: [_; 8] = array::from_fn(|g| weigh(&groups[g], weights.group(g), power));
            let search = AffineSearch { max_code, ..WEIGHED };
            let fits: [_; 8] = array::from_fn(|g| affine(&groups[g], &weights[g], &search));
            let super_block = SuperBlock::by_least_squares(&fits, &weights, 63);
            // Weighed Q4_K alone lets a scale below zero, which many weights of zero can lead to, wrap into its
            // neighbours' bits.
            if max_code == 15 { super_block } else { super_block.clamp(63) }
        }
    };
    round_again(values, super_block, max_code, [d, dmin], packed_scales)
}

/// Writes the header and rounds the values to what a decoder will make of it.
#[inline(always)]
pub(crate) fn round_again(
    values: &[f32; 256],
    super_block: SuperBlock<8, 32>,
    max_code: i32,
    [d, dmin]: [&mut [u8; 2]; 2],
    packed_scales: &mut [u8; 12],
) -> [[u8; 32]; 8] {
    let (d, dmin) = (store_scale(d, super_block.d), store_scale(dmin, super_block.dmin));
    *packed_scales = pack_scales_and_mins(super_block.scales, super_block.mins);
    let mut codes = super_block.codes;
    let groups = values.as_chunks::<32>().0;
    for ((codes, group), (s, m)) in codes.iter_mut().zip(groups).zip(scales_and_mins(packed_scales)) {
        affine_codes(group, d * f32::from(s), dmin * f32::from(m), max_code, codes);
    }
    codes
}

/// The low four bits of the groups' codes, two groups to 32 bytes.
#[inline(always)]
pub(crate) fn pack_low_bits(codes: &[[u8; 32]; 8], quants: &mut [u8; 128]) {
    for (quants, codes) in quants.as_chunks_mut().0.iter_mut().zip(codes.as_flattened().as_chunks().0) {
        *quants = pack_nibbles::<32, 64>(codes);
    }
}

/// See [`encode_groups`].
pub(crate) fn encode(values: &[f32; 256], weights: Option<Weights<'_, 256>>, block: &mut [u8; 144]) {
    fields_mut!(block => d: 2, dmin: 2, packed_scales: 12, quants: 128);
    let codes = encode_groups(values, weights, &UNWEIGHED, [d, dmin], packed_scales);
    pack_low_bits(&codes, quants);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_and_mins_survive_packing() {
        for shift in 0..64 {
            let scales = array::from_fn(|g| ((shift + 9 * g) % 64) as u8);
            let mins = array::from_fn(|g| ((5 * shift + 23 * g) % 64) as u8);
            let unpacked = scales_and_mins(&pack_scales_and_mins(scales, mins));
            assert_eq!(unpacked, array::from_fn(|g| (scales[g], mins[g])));
        }
    }
}
