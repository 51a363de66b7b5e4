//! Q4_0 and Q4_1: four bits times a scale, 32 at a time; the latter plus a minimum.

use crate::bits::nibbles;
use crate::blocks::fields;
use crate::float16::scale;

/// Q4_0: f16 d, nibbles. y = d·(q − 8).
#[inline(always)]
pub(crate) fn decode_q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    fields!(block => d: 2, quants: 16);
    let d = scale(*d);
    for (y, q) in out.iter_mut().zip(nibbles::<16, 32>(quants)) {
        *y = (f32::from(q) - 8.0) * d;
    }
}

/// Q4_1: f16 d, f16 m, nibbles. y = d·q + m.
#[inline(always)]
pub(crate) fn decode_q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    fields!(block => d: 2, m: 2, quants: 16);
    let (d, m) = (scale(*d), scale(*m));
    for (y, q) in out.iter_mut().zip(nibbles::<16, 32>(quants)) {
        *y = f32::from(q) * d + m;
    }
}
