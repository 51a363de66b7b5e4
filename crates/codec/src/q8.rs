//! Q8_0, Q8_1 and Q8_K: bytes times a scale.

use crate::arithmetic::{magnitude, reciprocal, round};
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};

/// y = d·q.
#[inline(always)]
fn dequantize<const LEN: usize>(d: f32, quants: &[u8; LEN], out: &mut [f32; LEN]) {
    for (y, q) in out.iter_mut().zip(quants) {
        *y = f32::from(q.cast_signed()) * d;
    }
}

/// Q8_0: f16 d, i8 × 32.
#[inline(always)]
pub(crate) fn decode_q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    fields!(block => d: 2, quants: 32);
    dequantize(scale(*d), quants, out);
}

/// Q8_1 as files have it: f32 d, f32 d·Σq, i8 × 32. (ggml computes with 36 bytes, both floats being f16.)
#[inline(always)]
pub(crate) fn decode_q8_1(block: &[u8; 40], out: &mut [f32; 32]) {
    fields!(block => d: 4, _sum: 4, quants: 32);
    dequantize(f32::from_le_bytes(*d), quants, out);
}

/// Q8_K: f32 d, i8 × 256, i16 × 16 sums of sixteen.
#[inline(always)]
pub(crate) fn decode_q8_k(block: &[u8; 292], out: &mut [f32; 256]) {
    fields!(block => d: 4, quants: 256, _sums: 32);
    dequantize(f32::from_le_bytes(*d), quants, out);
}

/// Q8_0: the largest magnitude becomes ±127; halves round away from zero. Errors are not weighed.
#[inline(always)]
pub(crate) fn encode_q8_0(values: &[f32; 32], _: Option<Weights<'_, 32>>, block: &mut [u8; 34]) {
    fields_mut!(block => d: 2, quants: 32);
    let step = magnitude(values) / 127.0;
    let inverse = reciprocal(step);
    store_scale(d, step);
    for (q, x) in quants.iter_mut().zip(values) {
        *q = round(x * inverse) as u8;
    }
}

#[cfg(test)]
mod tests {
    use crate::Encoding;

    #[test]
    fn q8_blocks_hold_signed_bytes() {
        let mut bytes = 0.5_f32.to_le_bytes().to_vec();
        bytes.extend([9; 4]);
        bytes.extend((0..32).map(|q: u8| q.wrapping_sub(16)));
        let mut out = [0.0; 32];
        Encoding::Q8_1.decode(&bytes, &mut out).unwrap();
        assert_eq!([out[0], out[15], out[16], out[31]], [-8.0, -0.5, 0.0, 7.5]);

        let mut bytes = 2.0_f32.to_le_bytes().to_vec();
        bytes.extend(0..=255);
        bytes.extend([7; 32]);
        let mut out = [0.0; 256];
        Encoding::Q8K.decode(&bytes, &mut out).unwrap();
        assert_eq!([out[1], out[127], out[128], out[255]], [2.0, 254.0, -256.0, -2.0]);
    }

    #[test]
    fn q8_0_rounds_halves_away_from_zero() {
        let mut values = [0.0; 32];
        values[..5].copy_from_slice(&[127.0, 0.5, -0.5, 1.499, -126.5]);
        let mut bytes = [0; 34];
        Encoding::Q8_0.encode(&values, None, &mut bytes).unwrap();
        assert_eq!(bytes[..7], [0x00, 0x3c, 127, 1, 0xff, 1, 0x81]);
    }
}
