//! Q4_0, Q4_1, Q5_0 and Q5_1 where errors are weighed; otherwise their encoders sum nothing. And Q8_0.

use pulp::{Simd, WithSimd};

use super::search::{Affine, Column, affine, symmetric};
use super::vector::Lanes;
use super::{Batch, Encoder, MOST, by_lane, weigh};
use crate::arithmetic::{nearest, reciprocal};
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

/// Blocks of Q8_0, one after the other: several values of a block at a time.
pub(super) struct Q8_0<'a> {
    pub blocks: &'a [[f32; 32]],
    pub out: &'a mut [[u8; 34]],
}

impl WithSimd for Q8_0<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (values, block) in self.blocks.iter().zip(self.out) {
            let mut largest = Lanes::splat(simd, 0.0);
            for x in S::as_simd_f32s(values).0 {
                let x = Lanes::new(simd, *x).abs();
                largest = largest.less(x).select(x, largest);
            }
            let magnitude = simd.reduce_max_f32s(largest.lanes());
            let step = magnitude / 127.0;
            let inverse = reciprocal(step);
            // Steps too small to have an inverse.
            if magnitude * inverse > 128.0 {
                q8::encode_q8_0(values, None, block);
                continue;
            }
            fields_mut!(block => d: 2, quants: 32);
            store_scale(d, step);
            let mut rounded = [0.0; 32];
            for (x, to) in S::as_simd_f32s(values).0.iter().zip(S::as_mut_simd_f32s(&mut rounded).0) {
                *to = round(Lanes::new(simd, *x) * Lanes::splat(simd, inverse)).lanes();
            }
            for (q, x) in quants.iter_mut().zip(rounded) {
                *q = x as i32 as u8;
            }
        }
    }
}

/// What `arithmetic::round` makes of numbers of up to 128.
#[inline(always)]
fn round<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    let above = x.abs() + x.same(0.5_f32.next_down());
    let near = above.nearest_tame(0, 255);
    let floor = above.less(near).select(near - x.same(1.0), near);
    x.less(x.same(0.0)).select(-floor, floor)
}
