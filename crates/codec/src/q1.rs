//! Q1_0 and Q2_0: a sign or a small integer times a scale.

use crate::blocks::fields;
use crate::float16::scale;

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
