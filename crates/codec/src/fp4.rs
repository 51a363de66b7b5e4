//! MXFP4 and NVFP4: four-bit floats (E2M1) under eight-bit scales.

use crate::bits::nibbles;
use crate::blocks::fields;
use crate::float16::f16_to_f32;

/// The values of E2M1, doubled to be integers. The scales below are halved instead.
const DOUBLED: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// Half of an E8M0 scale: 2^(e − 128). There is no NaN: 255 goes on the series, as in ggml.
#[inline(always)]
fn half_e8m0(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// Half of an unsigned E4M3 scale. The sign bit is ignored; the code for NaN means zero, unless the sign bit is set.
#[inline(always)]
fn half_ue4m3(code: u8) -> f32 {
    // The same bits as a half, whose exponent bias is 15 and not 7, mean 2^8 less.
    if code == 0x7f { 0.0 } else { f16_to_f32(u16::from(code & 0x7f) << 7) * 128.0 }
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
