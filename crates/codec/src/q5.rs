//! Q5_0 and Q5_1: five bits times a scale, 32 at a time; the latter plus a minimum.

use crate::bits::nibbles;
use crate::blocks::fields;
use crate::float16::scale;

/// Joins the low four bits with the fifth ones, bit i of `high` for value i.
#[inline(always)]
fn codes(high: &[u8; 4], low: &[u8; 16]) -> [u8; 32] {
    let mut codes = nibbles(low);
    for (codes, high) in codes.as_chunks_mut::<8>().0.iter_mut().zip(high) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= (high >> i & 1) << 4;
        }
    }
    codes
}

/// Q5_0: f16 d, fifth bits, nibbles. y = d·(q − 16).
#[inline(always)]
pub(crate) fn decode_q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    fields!(block => d: 2, high: 4, low: 16);
    let d = scale(*d);
    for (y, q) in out.iter_mut().zip(codes(high, low)) {
        *y = (f32::from(q) - 16.0) * d;
    }
}

/// Q5_1: f16 d, f16 m, fifth bits, nibbles. y = d·q + m.
#[inline(always)]
pub(crate) fn decode_q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    fields!(block => d: 2, m: 2, high: 4, low: 16);
    let (d, m) = (scale(*d), scale(*m));
    for (y, q) in out.iter_mut().zip(codes(high, low)) {
        *y = f32::from(q) * d + m;
    }
}
