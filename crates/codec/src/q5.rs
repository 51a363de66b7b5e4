//! Q5_0 and Q5_1: five bits times a scale, 32 at a time; the latter plus a minimum.

use crate::bits::{nibbles, pack_nibbles};
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};
use crate::q4::{fit_affine, fit_symmetric};

/// Joins the low four bits with the fifth ones, bit i of `high` for value i.
#[inline(always)]
pub(crate) fn codes(high: &[u8; 4], low: &[u8; 16]) -> [u8; 32] {
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

/// The fifth bits of `codes`, the inverse of the join.
#[inline(always)]
fn fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    let bits = codes.iter().enumerate().fold(0, |bits, (i, code)| bits | u32::from(code >> 4 & 1) << i);
    bits.to_le_bytes()
}

/// Q5_0.
#[inline(always)]
pub(crate) fn encode_q5_0(values: &[f32; 32], weights: Option<Weights<'_, 32>>, block: &mut [u8; 22]) {
    let (scale, codes) = fit_symmetric(values, weights, 16);
    pack_q5_0(scale, &codes, block);
}

#[inline(always)]
pub(crate) fn pack_q5_0(scale: f32, codes: &[u8; 32], block: &mut [u8; 22]) {
    fields_mut!(block => d: 2, high: 4, low: 16);
    store_scale(d, scale);
    *high = fifth_bits(codes);
    *low = pack_nibbles(codes);
}

/// Q5_1.
#[inline(always)]
pub(crate) fn encode_q5_1(values: &[f32; 32], weights: Option<Weights<'_, 32>>, block: &mut [u8; 24]) {
    let fit = fit_affine(values, weights, 31);
    pack_q5_1(fit.scale, fit.minimum, &fit.codes, block);
}

#[inline(always)]
pub(crate) fn pack_q5_1(scale: f32, minimum: f32, codes: &[u8; 32], block: &mut [u8; 24]) {
    fields_mut!(block => d: 2, m: 2, high: 4, low: 16);
    store_scale(d, scale);
    store_scale(m, -minimum);
    *high = fifth_bits(codes);
    *low = pack_nibbles(codes);
}
