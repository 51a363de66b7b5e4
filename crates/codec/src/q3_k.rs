//! Q3_K: sixteen groups of sixteen three-bit values; each group's scale is a six-bit multiple of the super-block's.

use crate::blocks::fields;
use crate::float16::scale;

/// The six-bit scales: nibbles of groups 0–7 and 8–15 in eight bytes, then the upper two bits of groups g, g + 4,
/// g + 8, g + 12 in four.
#[inline(always)]
fn scales(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|group| {
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
