//! IQ1_S and IQ1_M: eight values of −1, 0, 1 at a time by a point of a grid, all shifted a little up or down.

use crate::blocks::fields;
use crate::float16::f16_to_f32;
use crate::grid::{self, with_levels};

static POINTS: [[i8; 8]; 2048] = with_levels(&grid::IQ1, &[-1, 0, 1]);

/// How far the values are shifted, in steps.
const SHIFT: f32 = 0.125;

/// y = step·(q ± shift), minus if `down`.
#[inline(always)]
fn dequantize(step: f32, point: usize, down: bool, out: &mut [f32; 8]) {
    let shift = if down { -SHIFT } else { SHIFT };
    for (y, q) in out.iter_mut().zip(POINTS[point]) {
        *y = step * (f32::from(q) + shift);
    }
}

/// A step is the odd number 2s + 1, three-bit s, times d.
#[inline(always)]
fn step(d: f32, s: u16) -> f32 {
    d * f32::from(2 * (s & 7) + 1)
}

/// IQ1_S: f16 d; the low bits of 11-bit points of eight values; for each of eight groups of 32 values a u16: four times
/// the points' upper three bits, a scale, and the shift's sign.
#[inline(always)]
pub(crate) fn decode_iq1_s(block: &[u8; 50], out: &mut [f32; 256]) {
    fields!(block => d: 2, low: 32, high: 16);
    let d = crate::float16::scale(*d);
    let groups = low.as_chunks::<4>().0.iter().zip(high.as_chunks().0);
    for (out, (low, high)) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups) {
        let high = u16::from_le_bytes(*high);
        let step = step(d, high >> 12);
        for (i, (out, low)) in out.as_chunks_mut::<8>().0.iter_mut().zip(low).enumerate() {
            let point = usize::from(*low) | usize::from(high >> (3 * i) & 7) << 8;
            dequantize(step, point, high >> 15 == 1, out);
        }
    }
}

/// IQ1_M: the low bits of 11-bit points of eight values; nibbles of the points' upper three bits and the shift's sign;
/// four u16, each with four scales of 16 values and, on top, a nibble of the f16 d.
#[inline(always)]
pub(crate) fn decode_iq1_m(block: &[u8; 56], out: &mut [f32; 256]) {
    fields!(block => low: 32, high: 16, scales: 8);
    let scales: [u16; 4] = std::array::from_fn(|i| u16::from_le_bytes([scales[2 * i], scales[2 * i + 1]]));
    let d = f16_to_f32(scales[0] >> 12 | scales[1] >> 12 << 4 | scales[2] >> 12 << 8 | scales[3] >> 12 << 12);
    for (i, (out, low)) in out.as_chunks_mut::<8>().0.iter_mut().zip(low).enumerate() {
        let high = high[i / 2] >> (4 * (i % 2));
        let step = step(d, scales[i / 8] >> (3 * (i / 2 % 4)));
        dequantize(step, usize::from(*low) | usize::from(high & 7) << 8, high & 8 != 0, out);
    }
}
