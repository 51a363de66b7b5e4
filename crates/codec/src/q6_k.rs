//! Q6_K: sixteen groups of sixteen six-bit values; each group's scale is an eight-bit multiple of the super-block's.

use crate::blocks::fields;
use crate::float16::scale;

/// Low nibbles, upper two bits, i8 scales × 16, f16 d. y = d·s·(q − 32).
#[inline(always)]
pub(crate) fn decode(block: &[u8; 210], out: &mut [f32; 256]) {
    fields!(block => low: 128, high: 64, scales: 16, d: 2);
    let d = scale(*d);
    let (low, high) = (low.as_chunks::<16>().0, high.as_chunks::<16>().0);
    for (group, (out, s)) in out.as_chunks_mut::<16>().0.iter_mut().zip(scales).enumerate() {
        let step = d * f32::from(s.cast_signed());
        // Each half of the super-block: four quarters of 32 values, the nibbles of quarters 0 and 2 in the first 32
        // bytes, those of 1 and 3 in the next; the upper bits of all four in 32 bytes.
        let (half, quarter, side) = (group / 8, group / 2 % 4, group % 2);
        let low = &low[4 * half + 2 * (quarter % 2) + side];
        for (y, (low, high)) in out.iter_mut().zip(low.iter().zip(high[2 * half + side])) {
            let q = low >> (4 * (quarter / 2)) & 15 | (high >> (2 * quarter) & 3) << 4;
            *y = step * (f32::from(q) - 32.0);
        }
    }
}
