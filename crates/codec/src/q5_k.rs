//! Q5_K: Q4_K with a fifth bit.

use crate::blocks::fields;
use crate::float16::scale;
use crate::q4_k::scales_and_mins;

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
