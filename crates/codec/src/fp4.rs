//! MXFP4 and NVFP4: four-bit floats (E2M1) under eight-bit scales.

use crate::arithmetic::{magnitude, truncate};
use crate::bits::{nibbles, pack_nibbles};
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::f16_to_f32;

/// The values of E2M1, doubled to be integers. The scales below are halved instead.
pub const DOUBLED: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// Half of an E8M0 scale: 2^(e − 128). There is no NaN: 255 goes on the series, as in ggml.
#[inline(always)]
pub const fn half_e8m0(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e as u32 - 1) << 23 })
}

/// Half of an unsigned E4M3 scale. The sign bit is ignored; the code for NaN means zero, unless the sign bit is set.
#[inline(always)]
pub const fn half_ue4m3(code: u8) -> f32 {
    // The same bits as a half, whose exponent bias is 15 and not 7, mean 2^8 less.
    if code == 0x7f { 0.0 } else { f16_to_f32(((code & 0x7f) as u16) << 7) * 128.0 }
}

/// MXFP4: E8M0 scale, nibbles × 32.
#[inline(always)]
pub(crate) fn decode_mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    fields!(block => e: 1, quants: 16);
    let d = half_e8m0(e[0]);
    for (y, q) in out.iter_mut().zip(nibbles::<16, 32>(quants)) {
        *y = DOUBLED[usize::from(q)] * d;
    }
}

/// NVFP4: four groups of sixteen: unsigned E4M3 scales × 4, then each group's nibbles.
#[inline(always)]
pub(crate) fn decode_nvfp4(block: &[u8; 36], out: &mut [f32; 64]) {
    fields!(block => scales: 4, quants: 32);
    let groups = out.as_chunks_mut::<16>().0.iter_mut().zip(quants.as_chunks::<8>().0);
    for ((out, quants), s) in groups.zip(scales) {
        let d = half_ue4m3(*s);
        for (y, q) in out.iter_mut().zip(nibbles::<8, 16>(quants)) {
            *y = DOUBLED[usize::from(q)] * d;
        }
    }
}

/// The code of the value nearest to x, the lowest one of several.
#[inline(always)]
fn nearest_code(x: f32, d: f32) -> u8 {
    let mut best = (f32::INFINITY, 0);
    for (code, value) in (0..).zip(DOUBLED) {
        let error = (value * d - x).abs();
        if error < best.0 {
            best = (error, code);
        }
    }
    best.1
}

/// MXFP4: the scale's exponent is that of the largest magnitude, less that of 4, the binade of E2M1's largest value 6.
/// Errors are not weighed.
#[inline(always)]
pub(crate) fn encode_mxfp4(values: &[f32; 32], _: Option<Weights<'_, 32>>, block: &mut [u8; 17]) {
    fields_mut!(block => e: 1, quants: 16);
    let largest = magnitude(values);
    // The f32 nearest to the logarithm: just below a power of two it is an integer already.
    let log = f64::from(largest).log2() as f32;
    e[0] = if largest > 0.0 { truncate(log.floor() - 2.0 + 127.0) as u8 } else { 0 };
    let d = half_e8m0(e[0]);
    *quants = pack_nibbles(&values.map(|x| nearest_code(x, d)));
}

/// The unsigned E4M3 nearest to x ≥ 0, of ties the larger. As in ggml the last binade has but one code, 448, and all that
/// rounds to 256 or more gets it.
fn ue4m3(x: f32) -> u8 {
    if x < 2.0_f32.powi(-6) {
        // Subnormal: multiples of 2^-9.
        return truncate(x * 512.0 + 0.5).min(7) as u8;
    }
    // Round to three mantissa bits by adding half of the last one; a carry goes on into the exponent.
    let code = ((x.min(448.0).to_bits() + (1 << 19)) >> 20) - ((127 - 7) << 3);
    if code < 0x78 { code as u8 } else { 0x7e }
}

/// NVFP4: each scale maps the largest magnitude of its group to 6, E2M1's largest value. Errors are not weighed.
#[inline(always)]
pub(crate) fn encode_nvfp4(values: &[f32; 64], _: Option<Weights<'_, 64>>, block: &mut [u8; 36]) {
    fields_mut!(block => scales: 4, quants: 32);
    let groups = values.as_chunks::<16>().0.iter().zip(quants.as_chunks_mut::<8>().0);
    for ((group, quants), s) in groups.zip(scales) {
        *s = ue4m3(magnitude(group) / 6.0);
        let d = half_ue4m3(*s);
        *quants = pack_nibbles(&group.map(|x| nearest_code(x, d)));
    }
}
