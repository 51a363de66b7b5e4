//! Q4_0 and Q4_1: four bits times a scale, 32 at a time; the latter plus a minimum.

use crate::arithmetic::{extreme, range, reciprocal, truncate, weigh};
use crate::bits::{nibbles, pack_nibbles};
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};
use crate::search::{Affine, AffineSearch, affine, symmetric};

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

/// x ≈ scale·(code − half), 32 codes below 2·half. Unweighed, the extreme value goes to −half; weighed, wherever the
/// loss is least.
#[inline(always)]
pub(crate) fn fit_symmetric(
    values: &[f32; 32],
    weights: Option<Weights<'_, 32>>,
    half: i8,
) -> (f32, [u8; 32]) {
    if let Some(weights) = weights {
        let weights = weigh(values, weights.importance, weights.row_mean_square);
        return symmetric(values, &weights, half.into());
    }
    let step = extreme(values) / -f32::from(half);
    let inverse = reciprocal(step);
    let code = |x: f32| (truncate(x * inverse + (f32::from(half) + 0.5)) as i8).min(2 * half - 1) as u8;
    let mut codes = [0; 32];
    for (to, x) in codes.iter_mut().zip(values) {
        *to = code(*x);
    }
    (step, codes)
}

/// x ≈ scale·code − minimum, 32 codes up to `max_code`. Unweighed, the values' range is divided evenly; weighed, the
/// loss is least.
#[inline(always)]
pub(crate) fn fit_affine(values: &[f32; 32], weights: Option<Weights<'_, 32>>, max_code: i8) -> Affine<32> {
    if let Some(weights) = weights {
        let weights = weigh(values, weights.importance, weights.row_mean_square);
        let max_code = max_code.into();
        let search = AffineSearch { max_code, from: -0.9, by: 0.05, times: 36, loss: |error| error * error };
        return affine(values, &weights, &search);
    }
    let (low, high) = range(values);
    let scale = (high - low) / f32::from(max_code);
    let inverse = reciprocal(scale);
    let code = |x: f32| (truncate((x - low) * inverse + 0.5) as i8).min(max_code) as u8;
    let mut codes = [0; 32];
    for (to, x) in codes.iter_mut().zip(values) {
        *to = code(*x);
    }
    Affine { scale, minimum: -low, codes }
}

/// Q4_0.
#[inline(always)]
pub(crate) fn encode_q4_0(values: &[f32; 32], weights: Option<Weights<'_, 32>>, block: &mut [u8; 18]) {
    let (scale, codes) = fit_symmetric(values, weights, 8);
    pack_q4_0(scale, &codes, block);
}

#[inline(always)]
pub(crate) fn pack_q4_0(scale: f32, codes: &[u8; 32], block: &mut [u8; 18]) {
    fields_mut!(block => d: 2, quants: 16);
    store_scale(d, scale);
    *quants = pack_nibbles(codes);
}

/// Q4_1.
#[inline(always)]
pub(crate) fn encode_q4_1(values: &[f32; 32], weights: Option<Weights<'_, 32>>, block: &mut [u8; 20]) {
    let fit = fit_affine(values, weights, 15);
    pack_q4_1(fit.scale, fit.minimum, &fit.codes, block);
}

#[inline(always)]
pub(crate) fn pack_q4_1(scale: f32, minimum: f32, codes: &[u8; 32], block: &mut [u8; 20]) {
    fields_mut!(block => d: 2, m: 2, quants: 16);
    store_scale(d, scale);
    store_scale(m, -minimum);
    *quants = pack_nibbles(codes);
}
