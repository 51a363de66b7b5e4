//! IQ4_NL and IQ4_XS: codes that choose among uneven levels.

use pulp::Simd;

use super::search::Column;
use super::vector::{Lanes, to_bytes};
use super::{Batch, Encoder, MOST, by_lane, weigh};
use crate::arithmetic::reciprocal;
use crate::bits::pack_nibbles;
use crate::blocks::fields_mut;
use crate::float16::store_scale;
use crate::iq4::{self, LEVELS_F32};
use crate::search::ZERO;

#[derive(Clone, Copy)]
pub(super) struct Iq4Nl;
#[derive(Clone, Copy)]
pub(super) struct Iq4Xs;

/// Half way between a level and the next: what is not below has the upper one. The differences that
/// `iq4::nearest_level` compares are exact there.
pub(super) const HALF_WAY: [f32; 15] = {
    let mut half_way = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        half_way[i] = (LEVELS_F32[i] + LEVELS_F32[i + 1]) / 2.0;
        i += 1;
    }
    half_way
};

/// What the nearest level stands for: its value, or its number.
#[inline(always)]
fn nearest<S: Simd>(x: Lanes<S>, of_level: &[f32; 16]) -> Lanes<S> {
    let mut q = x.same(of_level[0]);
    for (half_way, level) in HALF_WAY.iter().zip(&of_level[1..]) {
        q = x.less(x.same(*half_way)).select(q, x.same(*level));
    }
    q
}

/// The numbers of the levels.
const CODES: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

/// The step for a group, as `iq4::fit` has it.
#[inline(always)]
fn fit<S: Simd>(x: Column<'_, S>, weights: Column<'_, S>) -> Lanes<S> {
    let zero = x.zero();
    let extreme = x.extreme();
    let (xq, qq) = try_inverse(x, weights, zero.same(1.0) / (-extreme / zero.same(LEVELS_F32[0])));
    let mut step = zero.less(qq).select(xq / qq, zero);
    let mut best = step * xq;
    for offset in -7..=7 {
        let (xq, qq) = try_inverse(x, weights, zero.same(offset as f32 + LEVELS_F32[0]) / extreme);
        let better = zero.less(qq).and((best * qq).less(xq * xq));
        step = better.select(xq / qq, step);
        best = better.select(step * xq, best);
    }
    extreme.abs().less(zero.same(ZERO)).select(zero, step)
}

/// Σ w·q·x and Σ w·q².
#[inline(always)]
fn try_inverse<S: Simd>(x: Column<'_, S>, weights: Column<'_, S>, inverse: Lanes<S>) -> (Lanes<S>, Lanes<S>) {
    let (mut xq, mut qq) = (x.zero(), x.zero());
    for i in 0..32 {
        let q = nearest(inverse * x.at(i), &LEVELS_F32);
        let weighed = weights.at(i) * q;
        xq = xq + weighed * x.at(i);
        qq = qq + weighed * q;
    }
    (xq, qq)
}

/// The steps of each group of 32.
#[inline(always)]
fn steps<S: Simd, const LEN: usize, const GROUPS: usize>(batch: &Batch<'_, S, LEN>) -> [[f32; GROUPS]; MOST] {
    let (simd, zero) = (batch.x.simd, batch.x.zero());
    let power = batch.x.sum_of_squares() * zero.same(2.0 / LEN as f32);
    let mut steps = [zero.lanes(); GROUPS];
    for (g, step) in steps.iter_mut().enumerate() {
        let x = batch.x.part(32 * g, 32);
        let mut weights = [zero.lanes(); 32];
        match batch.importance {
            Some(importance) => weights = weigh(x, importance.part(32 * g, 32), power),
            None => {
                for (i, weight) in weights.iter_mut().enumerate() {
                    *weight = (x.at(i) * x.at(i)).lanes();
                }
            }
        }
        *step = fit(x, Column { simd, rows: &weights }).lanes();
    }
    by_lane(&steps, simd)
}

/// The nibbles of a group, several values at a time.
#[inline(always)]
fn quantize<S: Simd>(simd: S, x: &[f32; 32], step: f32) -> [u8; 16] {
    let inverse = Lanes::splat(simd, reciprocal(step));
    let mut codes = [0.0; 32];
    for (x, code) in S::as_simd_f32s(x).0.iter().zip(S::as_mut_simd_f32s(&mut codes).0) {
        *code = nearest(inverse * Lanes::new(simd, *x), &CODES).lanes();
    }
    pack_nibbles(&to_bytes(&codes))
}

impl Encoder<32, 18> for Iq4Nl {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 32>, out: &mut [[u8; 18]]) {
        let steps: [[f32; 1]; MOST] = steps(batch);
        for ((block, values), [step]) in out.iter_mut().zip(batch.blocks).zip(steps) {
            fields_mut!(block => d: 2, quants: 16);
            store_scale(d, step);
            *quants = quantize(batch.x.simd, values, step);
        }
    }
}

impl Encoder<256, 136> for Iq4Xs {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 136]]) {
        let steps: [[f32; 8]; MOST] = steps(batch);
        for ((block, values), steps) in out.iter_mut().zip(batch.blocks).zip(steps) {
            iq4::finish(
                values,
                &steps,
                block,
                #[inline(always)]
                |x, step| quantize(batch.x.simd, x, step),
            );
        }
    }
}
