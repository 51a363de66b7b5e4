//! IQ3_XXS and IQ3_S: four magnitudes at a time by a point of a grid, and their signs.

use crate::blocks::fields;
use crate::float16::scale;
use crate::grid::{self, dequantize, even_signs, with_levels};

static XXS: [[i8; 4]; 256] = with_levels(&grid::IQ3_XXS, &[4, 12, 20, 28, 36, 44, 52, 62]);
static S: [[i8; 4]; 512] = with_levels(&grid::IQ3_S, &[1, 3, 5, 7, 9, 11, 13, 15]);

/// IQ3_XXS: f16 d; 8-bit points of four values; for each of eight groups of 32 values four times seven signs and a
/// 4-bit scale in a u32.
#[inline(always)]
pub(crate) fn decode_iq3_xxs(block: &[u8; 98], out: &mut [f32; 256]) {
    fields!(block => d: 2, points: 64, signs_and_scales: 32);
    let d = scale(*d);
    let groups = points.as_chunks::<8>().0.iter().zip(signs_and_scales.as_chunks().0);
    for (out, (points, signs_and_scale)) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups) {
        let signs_and_scale = u32::from_le_bytes(*signs_and_scale);
        let step = d * (0.5 + (signs_and_scale >> 28) as f32) * 0.5;
        for (i, (out, point)) in out.as_chunks_mut::<4>().0.iter_mut().zip(points).enumerate() {
            let signs = even_signs(signs_and_scale >> (7 * (i / 2))) >> (4 * (i % 2));
            dequantize(step, &XXS[usize::from(*point)], signs, out);
        }
    }
}

/// IQ3_S: f16 d; the low bits of 9-bit points of four values; their upper bits, eight to a byte; signs; a 4-bit scale
/// for each 32 values.
#[inline(always)]
pub(crate) fn decode_iq3_s(block: &[u8; 110], out: &mut [f32; 256]) {
    fields!(block => d: 2, low: 64, high: 8, signs: 32, scales: 4);
    let d = scale(*d);
    let groups = low.as_chunks::<8>().0.iter().zip(signs.as_chunks::<4>().0).zip(high).enumerate();
    for (out, (group, ((low, signs), high))) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups) {
        let s = scales[group / 2] >> (4 * (group % 2)) & 15;
        let step = d * f32::from(1 + 2 * s);
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let point = usize::from(low[i]) | usize::from(high >> i & 1) << 8;
            dequantize(step, &S[point], signs[i / 2] >> (4 * (i % 2)), out);
        }
    }
}
