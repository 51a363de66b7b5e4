//! Q4_K: eight groups of 32 four-bit values; each group's scale and minimum are six-bit multiples of the
//! super-block's two.

use crate::blocks::fields;
use crate::float16::scale;

/// The six-bit scales and minima of eight groups, as Q4_K and Q5_K pack them: those of the first four groups lie in
/// the low bits of eight bytes, whose two upper bits complete the nibbles of the other four groups.
#[inline(always)]
pub(crate) fn scales_and_mins(packed: &[u8; 12]) -> [(u8, u8); 8] {
    std::array::from_fn(|group| {
        if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let nibbles = packed[group + 4];
            (nibbles & 15 | packed[group - 4] >> 6 << 4, nibbles >> 4 | packed[group] >> 6 << 4)
        }
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
