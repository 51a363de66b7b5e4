//! Q5_K: Q4_K with a fifth bit.

use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::scale;
use crate::q4_k::{encode_groups, pack_low_bits, scales_and_mins};
use crate::search::AffineSearch;

/// The search of a group whose values all weigh by their own size.
pub(crate) const UNWEIGHED: AffineSearch =
    AffineSearch { max_code: 31, from: -0.5, by: 0.1, times: 15, loss: |error| error * error };

/// f16 d, f16 dmin, scales and minima, fifth bits (bit g of byte i for value i of group g), nibbles.
/// y = d·s·q − dmin·m.
#[inline(always)]
pub(crate) fn decode(block: &[u8; 176], out: &mut [f32; 256]) {
    fields!(block => d: 2, dmin: 2, packed_scales: 12, high: 32, low: 128);
    let (d, dmin) = (scale(*d), scale(*dmin));
    let low = low.as_chunks::<32>().0;
    let groups = out.as_chunks_mut::<32>().0.iter_mut().zip(scales_and_mins(packed_scales));
    for (group, (out, (s, m))) in groups.enumerate() {
        let (step, min) = (d * f32::from(s), dmin * f32::from(m));
        for (y, (low, high)) in out.iter_mut().zip(low[group / 2].iter().zip(high)) {
            let q = low >> (4 * (group % 2)) & 15 | (high >> group & 1) << 4;
            *y = step * f32::from(q) - min;
        }
    }
}

/// See [`encode_groups`].
pub(crate) fn encode(values: &[f32; 256], weights: Option<Weights<'_, 256>>, block: &mut [u8; 176]) {
    fields_mut!(block => d: 2, dmin: 2, packed_scales: 12, high: 32, low: 128);
    let codes = encode_groups(values, weights, &UNWEIGHED, [d, dmin], packed_scales);
    *high = fifth_bits(&codes);
    pack_low_bits(&codes, low);
}

/// Bit g of byte i is the fifth one of code i in group g.
#[inline(always)]
pub(crate) fn fifth_bits(codes: &[[u8; 32]; 8]) -> [u8; 32] {
    let mut high = [0; 32];
    for (group, codes) in codes.iter().enumerate() {
        for (high, code) in high.iter_mut().zip(codes) {
            *high |= (code >> 4) << group;
        }
    }
    high
}
