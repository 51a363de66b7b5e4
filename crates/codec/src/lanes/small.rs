//! Q4_0, Q4_1, Q5_0 and Q5_1, and Q8_0. Where errors are weighed a lane takes a block; otherwise nothing is summed, and
//! a register takes several values of one.

use pulp::Simd;

use super::search::{Affine, Column, affine, symmetric};
use super::vector::{Lanes, to_bytes};
use super::{Alone, Batch, Encoder, MOST, by_lane, weigh};
use crate::arithmetic::{extreme, nearest, reciprocal};
use crate::blocks::fields_mut;
use crate::float16::store_scale;
use crate::search::AffineSearch;
use crate::{q4, q5, q8};

#[derive(Clone, Copy)]
pub(super) struct Q4_0;
#[derive(Clone, Copy)]
pub(super) struct Q4_1;
#[derive(Clone, Copy)]
pub(super) struct Q5_0;
#[derive(Clone, Copy)]
pub(super) struct Q5_1;

/// Scale, and the inverse that rounds.
#[inline(always)]
fn fit_symmetric<S: Simd>(
    batch: &Batch<'_, S, 32>,
    importance: Column<'_, S>,
    half: i32,
) -> [[f32; 2]; MOST] {
    let simd = batch.x.simd;
    let weights: [_; 32] = weigh(batch.x, importance, batch.row_mean_square);
    let (scale, inverse) = symmetric::<S, 32>(batch.x, Column { simd, rows: &weights }, half);
    by_lane(&[scale.lanes(), inverse.lanes()], simd)
}

/// Scale, minimum, and the inverse and base that round.
#[inline(always)]
fn fit_affine<S: Simd>(
    batch: &Batch<'_, S, 32>,
    importance: Column<'_, S>,
    search: &AffineSearch,
) -> [[f32; 4]; MOST] {
    let simd = batch.x.simd;
    let weights: [_; 32] = weigh(batch.x, importance, batch.row_mean_square);
    let Affine { scale, minimum, inverse, base } =
        affine::<S, 32, false>(batch.x, Column { simd, rows: &weights }, search);
    by_lane(&[scale.lanes(), minimum.lanes(), inverse.lanes(), base.lanes()], simd)
}

/// Codes as the search of a scale has rounded them; zeros where it found nothing but.
#[inline(always)]
fn symmetric_codes(values: &[f32; 32], inverse: f32, half: i32) -> [u8; 32] {
    let mut codes = [0; 32];
    if inverse != 0.0 {
        for (code, x) in codes.iter_mut().zip(values) {
            *code = (nearest(inverse * x).min(half - 1).max(-half) + half) as u8;
        }
    }
    codes
}

#[inline(always)]
fn affine_codes(values: &[f32; 32], inverse: f32, base: f32, max_code: i32) -> [u8; 32] {
    let mut codes = [0; 32];
    if inverse != 0.0 {
        for (code, x) in codes.iter_mut().zip(values) {
            *code = nearest(inverse * (x - base)).min(max_code).max(0) as u8;
        }
    }
    codes
}

macro_rules! symmetric_encoder {
    ($encoder:ident, $bytes:literal, $half:literal, $pack:path) => {
        impl Encoder<32, $bytes> for $encoder {
            #[inline(always)]
            fn encode<S: Simd>(self, batch: &Batch<'_, S, 32>, out: &mut [[u8; $bytes]]) {
                let Some(importance) = batch.importance else { return };
                let blocks = out.iter_mut().zip(batch.blocks);
                let fits = fit_symmetric(batch, importance, $half);
                for ((block, values), [scale, inverse]) in blocks.zip(fits) {
                    $pack(scale, &symmetric_codes(values, inverse, $half), block);
                }
            }
        }
    };
}

macro_rules! affine_encoder {
    ($encoder:ident, $bytes:literal, $max_code:literal, $pack:path) => {
        impl Encoder<32, $bytes> for $encoder {
            #[inline(always)]
            fn encode<S: Simd>(self, batch: &Batch<'_, S, 32>, out: &mut [[u8; $bytes]]) {
                let Some(importance) = batch.importance else { return };
                let blocks = out.iter_mut().zip(batch.blocks);
                let search = AffineSearch { max_code: $max_code, ..crate::super_block::WEIGHED };
                let fits = fit_affine(batch, importance, &search);
                for ((block, values), [scale, minimum, inverse, base]) in blocks.zip(fits) {
                    $pack(scale, minimum, &affine_codes(values, inverse, base, $max_code), block);
                }
            }
        }
    };
}

symmetric_encoder!(Q4_0, 18, 8, q4::pack_q4_0);
symmetric_encoder!(Q5_0, 22, 16, q5::pack_q5_0);
affine_encoder!(Q4_1, 20, 15, q4::pack_q4_1);
affine_encoder!(Q5_1, 24, 31, q5::pack_q5_1);

/// The least and the largest of finite values; of zeros any.
#[inline(always)]
fn range<S: Simd>(simd: S, values: &[f32; 32]) -> (f32, f32) {
    let registers = S::as_simd_f32s(values).0;
    let (mut low, mut high) = (registers[0], registers[0]);
    for x in &registers[1..] {
        low = simd.min_f32s(low, *x);
        high = simd.max_f32s(high, *x);
    }
    (simd.reduce_min_f32s(low), simd.reduce_max_f32s(high))
}

/// Codes of finite values: their integers below (x − base)·inverse + shift, at most `max_code`. That must be positive and
/// below 2²².
#[inline(always)]
fn round_down<S: Simd>(
    simd: S,
    values: &[f32; 32],
    [base, inverse, shift]: [f32; 3],
    max_code: i32,
) -> [u8; 32] {
    let mut codes = [0.0; 32];
    let [base, inverse, shift, most] =
        [base, inverse, shift, max_code as f32].map(|number| Lanes::splat(simd, number));
    for (x, code) in S::as_simd_f32s(values).0.iter().zip(S::as_mut_simd_f32s(&mut codes).0) {
        let floor = ((Lanes::new(simd, *x) - base) * inverse + shift).floor_tame();
        *code = most.less(floor).select(most, floor).lanes();
    }
    to_bytes(&codes)
}

/// How far beyond the last code rounding errors may take a value for the codes to be rounded in registers.
const SLACK: f32 = 0.25;

/// As `q4::fit_symmetric` without weights; nothing for steps too small to have an inverse.
#[inline(always)]
fn fit_symmetric_alone<S: Simd>(simd: S, values: &[f32; 32], half: i32) -> Option<(f32, [u8; 32])> {
    let (low, high) = range(simd, values);
    let extreme = match (high > -low, high < -low) {
        (true, _) => high,
        (_, true) => low,
        // The first one of several decides.
        _ => extreme(values),
    };
    let half = half as f32;
    let step = extreme / -half;
    let inverse = reciprocal(step);
    // No product is larger.
    let tame = (extreme * inverse).abs() <= half + SLACK;
    let codes = || round_down(simd, values, [0.0, inverse, half + 0.5], 2 * half as i32 - 1);
    tame.then(|| (step, codes()))
}

/// As `q4::fit_affine` without weights; nothing for steps too small to have an inverse, and where a zero is the least
/// value: it may be one below zero.
#[inline(always)]
fn fit_affine_alone<S: Simd>(simd: S, values: &[f32; 32], max_code: i32) -> Option<(f32, f32, [u8; 32])> {
    let (low, high) = range(simd, values);
    let scale = (high - low) / max_code as f32;
    let inverse = reciprocal(scale);
    let tame = low != 0.0 && (high - low) * inverse <= max_code as f32 + SLACK;
    tame.then(|| (scale, -low, round_down(simd, values, [low, inverse, 0.5], max_code)))
}

macro_rules! symmetric_encoder_alone {
    ($encoder:ident, $bytes:literal, $half:literal, $pack:path, $scalar:path) => {
        impl Alone<32, $bytes> for $encoder {
            #[inline(always)]
            fn encode<S: Simd>(self, simd: S, values: &[f32; 32], block: &mut [u8; $bytes]) {
                match fit_symmetric_alone(simd, values, $half) {
                    Some((scale, codes)) => $pack(scale, &codes, block),
                    None => $scalar(values, None, block),
                }
            }
        }
    };
}

macro_rules! affine_encoder_alone {
    ($encoder:ident, $bytes:literal, $max_code:literal, $pack:path, $scalar:path) => {
        impl Alone<32, $bytes> for $encoder {
            #[inline(always)]
            fn encode<S: Simd>(self, simd: S, values: &[f32; 32], block: &mut [u8; $bytes]) {
                match fit_affine_alone(simd, values, $max_code) {
                    Some((scale, minimum, codes)) => $pack(scale, minimum, &codes, block),
                    None => $scalar(values, None, block),
                }
            }
        }
    };
}

symmetric_encoder_alone!(Q4_0, 18, 8, q4::pack_q4_0, q4::encode_q4_0);
symmetric_encoder_alone!(Q5_0, 22, 16, q5::pack_q5_0, q5::encode_q5_0);
affine_encoder_alone!(Q4_1, 20, 15, q4::pack_q4_1, q4::encode_q4_1);
affine_encoder_alone!(Q5_1, 24, 31, q5::pack_q5_1, q5::encode_q5_1);

#[derive(Clone, Copy)]
pub(super) struct Q8_0;

impl Alone<32, 34> for Q8_0 {
    #[inline(always)]
    fn encode<S: Simd>(self, simd: S, values: &[f32; 32], block: &mut [u8; 34]) {
        let (low, high) = range(simd, values);
        // Of zeros the positive one.
        let magnitude = if high < -low { -low } else { high.abs() };
        let step = magnitude / 127.0;
        let inverse = reciprocal(step);
        // Steps too small to have an inverse.
        if magnitude * inverse > 128.0 {
            q8::encode_q8_0(values, None, block);
            return;
        }
        fields_mut!(block => d: 2, quants: 32);
        store_scale(d, step);
        let mut rounded = [0.0; 32];
        for (x, to) in S::as_simd_f32s(values).0.iter().zip(S::as_mut_simd_f32s(&mut rounded).0) {
            *to = round(Lanes::new(simd, *x) * Lanes::splat(simd, inverse)).lanes();
        }
        *quants = to_bytes(&rounded);
    }
}

/// What `arithmetic::round` makes of numbers of up to 128.
#[inline(always)]
fn round<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    let floor = (x.abs() + x.same(0.5_f32.next_down())).floor_tame();
    x.less(x.same(0.0)).select(-floor, floor)
}
