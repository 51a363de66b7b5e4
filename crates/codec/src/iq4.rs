//! IQ4_NL and IQ4_XS: four bits that choose among sixteen unevenly spaced levels.

use crate::bits::nibbles;
use crate::blocks::fields;
use crate::float16::scale;

/// The levels, dense around zero.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The levels as what they are multiplied as.
const LEVELS_F32: [f32; 16] = {
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
