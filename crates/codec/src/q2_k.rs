//! Q2_K: sixteen groups of sixteen two-bit values; each group's scale and minimum are four-bit multiples of the
//! super-block's two.

use crate::blocks::fields;
use crate::float16::scale;

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
