//! IQ2_XXS, IQ2_XS and IQ2_S: eight magnitudes at a time by a point of a grid, and their signs.

use crate::blocks::fields;
use crate::float16::scale;
use crate::grid::{self, dequantize, even_signs, with_levels};

/// The magnitudes that a grid's coordinates stand for, near eight times 1, 3, 5.
const LEVELS: [i8; 3] = [8, 25, 43];

static XXS: [[i8; 8]; 256] = with_levels(&grid::IQ2_XXS, &LEVELS);
static XS: [[i8; 8]; 512] = with_levels(&grid::IQ2_XS, &LEVELS);
static S: [[i8; 8]; 1024] = with_levels(&grid::IQ2_S, &LEVELS);

/// A group's step: an eighth of the odd number 2s + 1, four-bit s, times d.
#[inline(always)]
fn step(d: f32, s: u32) -> f32 {
    d * (0.5 + s as f32) * 0.25
}

/// IQ2_XXS: f16 d; for each of eight groups of 32 values four 8-bit points, then four times seven signs and a 4-bit
/// scale in a u32.
#[inline(always)]
pub(crate) fn decode_iq2_xxs(block: &[u8; 66], out: &mut [f32; 256]) {
    fields!(block => d: 2, groups: 64);
    let d = scale(*d);
    for (out, group) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups.as_chunks::<8>().0) {
        fields!(group => points: 4, signs_and_scale: 4);
        let signs_and_scale = u32::from_le_bytes(*signs_and_scale);
        let step = step(d, signs_and_scale >> 28);
        for (i, (out, point)) in out.as_chunks_mut::<8>().0.iter_mut().zip(points).enumerate() {
            let signs = even_signs(signs_and_scale >> (7 * i));
            dequantize(step, &XXS[usize::from(*point)], signs, out);
        }
    }
}

/// IQ2_XS: f16 d; for each eight values a u16 of a 9-bit point and seven signs; a 4-bit scale for each 16 values.
#[inline(always)]
pub(crate) fn decode_iq2_xs(block: &[u8; 74], out: &mut [f32; 256]) {
    fields!(block => d: 2, points: 64, scales: 8);
    let d = scale(*d);
    let groups = out.as_chunks_mut::<32>().0.iter_mut().zip(points.as_chunks::<8>().0);
    for ((out, points), s) in groups.zip(scales) {
        let steps = [step(d, u32::from(s & 15)), step(d, u32::from(s >> 4))];
        for (i, (out, point)) in out.as_chunks_mut::<8>().0.iter_mut().zip(points.as_chunks().0).enumerate() {
            let point = u16::from_le_bytes(*point);
            dequantize(steps[i / 2], &XS[usize::from(point % 512)], even_signs(u32::from(point >> 9)), out);
        }
    }
}

/// IQ2_S: f16 d; for each eight values the low bits of a 10-bit point; eight signs each; the points' upper bits, four
/// to a byte; a 4-bit scale for each 16 values.
#[inline(always)]
pub(crate) fn decode_iq2_s(block: &[u8; 82], out: &mut [f32; 256]) {
    fields!(block => d: 2, low: 32, signs: 32, high: 8, scales: 8);
    let d = scale(*d);
    let groups = low.as_chunks::<4>().0.iter().zip(signs.as_chunks::<4>().0).zip(high.iter().zip(scales));
    for (out, ((low, signs), (high, s))) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups) {
        let steps = [step(d, u32::from(s & 15)), step(d, u32::from(s >> 4))];
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let point = usize::from(low[i]) | usize::from(high >> (2 * i) & 3) << 8;
            dequantize(steps[i / 2], &S[point], signs[i], out);
        }
    }
}
