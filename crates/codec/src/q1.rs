//! Q1_0 and Q2_0: a sign or a small integer times a scale.

use crate::arithmetic::{magnitude, reciprocal, round, sum};
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};

/// Q1_0: f16 d, bits. y = ±d, plus for a set bit.
#[inline(always)]
pub(crate) fn decode_q1_0(block: &[u8; 18], out: &mut [f32; 128]) {
    fields!(block => d: 2, bits: 16);
    let d = scale(*d);
    for (out, byte) in out.as_chunks_mut::<8>().0.iter_mut().zip(bits) {
        for (i, y) in out.iter_mut().enumerate() {
            *y = if byte >> i & 1 == 1 { d } else { -d };
        }
    }
}

/// Q2_0: f16 d, 2-bit quants, four consecutive values to a byte. y = d·(q − 1).
#[inline(always)]
pub(crate) fn decode_q2_0(block: &[u8; 18], out: &mut [f32; 64]) {
    fields!(block => d: 2, quants: 16);
    let d = scale(*d);
    for (out, byte) in out.as_chunks_mut::<4>().0.iter_mut().zip(quants) {
        for (i, y) in out.iter_mut().enumerate() {
            *y = (f32::from(byte >> (2 * i) & 3) - 1.0) * d;
        }
    }
}

/// Q1_0: the mean magnitude, and signs. Errors are not weighed.
pub(crate) fn encode_q1_0(values: &[f32; 128], _: Option<Weights<'_, 128>>, block: &mut [u8; 18]) {
    fields_mut!(block => d: 2, bits: 16);
    store_scale(d, sum(&values.map(f32::abs)) / 128.0);
    for (byte, values) in bits.iter_mut().zip(values.as_chunks::<8>().0) {
        *byte = (0..8).fold(0, |byte, i| byte | u8::from(values[i] >= 0.0) << i);
    }
}

/// Q2_0: the largest magnitude is d, so that 2·d is never used. Errors are not weighed.
pub(crate) fn encode_q2_0(values: &[f32; 64], _: Option<Weights<'_, 64>>, block: &mut [u8; 18]) {
    fields_mut!(block => d: 2, quants: 16);
    let step = magnitude(values);
    let inverse = reciprocal(step);
    store_scale(d, step);
    let code = |x: f32| (round(x * inverse) + 1).clamp(0, 3) as u8;
    for (byte, values) in quants.iter_mut().zip(values.as_chunks::<4>().0) {
        *byte = (0..4).fold(0, |byte, i| byte | code(values[i]) << (2 * i));
    }
}
