//! Q3_K and Q6_K: groups with a scale.

use pulp::Simd;

use super::search::{Column, symmetric};
use super::vector::Lanes;
use super::{Batch, Encoder, by_lane, weigh};
use crate::arithmetic::{extreme, magnitude, nearest};
use crate::search::ZERO;
use crate::{q3_k, q6_k};

#[derive(Clone, Copy)]
pub(super) struct Q3K;
#[derive(Clone, Copy)]
pub(super) struct Q6K;

impl Encoder<256, 210> for Q6K {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 210]]) {
        let simd = batch.x.simd;
        let mut scales = [batch.x.zero().lanes(); 16];
        for (g, scale) in scales.iter_mut().enumerate() {
            let x = batch.x.part(16 * g, 16);
            let fit = match batch.importance {
                Some(importance) => symmetric::<S, 16>(x, importance.part(16 * g, 16), 32),
                None => symmetric::<S, 16>(x, Column { simd, rows: &squares::<S>(x) }, 32),
            };
            *scale = fit.0.lanes();
        }
        let fits = by_lane(&scales, simd);
        for (lane, ((block, values), fits)) in out.iter_mut().zip(batch.blocks).zip(fits).enumerate() {
            q6_k::round_again(values, &fits, &mut [[0; 16]; 16], block);
            let d = crate::float16::scale([block[208], block[209]]);
            if !is_common(values, |g| d * f32::from(block[192 + g].cast_signed())) {
                q6_k::encode(values, batch.weights[lane], block);
            }
        }
    }
}

/// What a value weighs by itself.
#[inline(always)]
fn squares<S: Simd>(x: Column<'_, S>) -> [S::f32s; 16] {
    let mut squares = [x.zero().lanes(); 16];
    for (i, square) in squares.iter_mut().enumerate() {
        *square = (x.at(i) * x.at(i)).lanes();
    }
    squares
}

impl Encoder<256, 110> for Q3K {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 110]]) {
        let Some(importance) = batch.importance else {
            return encode_unweighed(batch, out);
        };
        let (simd, zero) = (batch.x.simd, batch.x.zero());
        let power = zero.same(2.0) * batch.x.sum_of_squares() / zero.same(256.0);
        let mut scales = [zero.lanes(); 16];
        let mut sums = scales;
        for g in 0..16 {
            let x = batch.x.part(16 * g, 16);
            let weights: [_; 16] = weigh(x, importance.part(16 * g, 16), power);
            let weights = Column { simd, rows: &weights };
            scales[g] = symmetric::<S, 16>(x, weights, 4).0.lanes();
            sums[g] = weights.sum().lanes();
        }
        let second = symmetric::<S, 16>(Column { simd, rows: &scales }, Column { simd, rows: &sums }, 32);
        let second = by_lane(&[second.0.lanes(), second.1.lanes()], simd);
        let fits = by_lane(&scales, simd);
        for (lane, block) in out.iter_mut().enumerate() {
            let [d, inverse] = second[lane];
            let code = |scale: f32| (nearest(inverse * scale).clamp(-32, 31) + 32) as u8;
            // Where all scales count as zeros, the search comes to codes of zero.
            let codes = if extreme(&fits[lane]).abs() < ZERO { [0; 16] } else { fits[lane].map(code) };
            finish(batch, lane, (d, codes), block);
        }
    }
}

#[inline(always)]
fn encode_unweighed<S: Simd>(batch: &Batch<'_, S, 256>, out: &mut [[u8; 110]]) {
    let mut scales = [batch.x.zero().lanes(); 16];
    for (g, scale) in scales.iter_mut().enumerate() {
        *scale = move_single_codes(batch.x.part(16 * g, 16)).lanes();
    }
    let fits = by_lane(&scales, batch.x.simd);
    for (lane, block) in out.iter_mut().enumerate() {
        finish(batch, lane, q3_k::by_extreme(&fits[lane]), block);
    }
}

#[inline(always)]
fn finish<S: Simd>(batch: &Batch<'_, S, 256>, lane: usize, scales: (f32, [u8; 16]), block: &mut [u8; 110]) {
    let Some(values) = batch.blocks.get(lane) else { return };
    let steps = q3_k::round_again(values, scales, &mut [[0; 16]; 16], block);
    if !is_common(values, |g| steps[g]) {
        q3_k::encode(values, batch.weights[lane], block);
    }
}

/// Whether no group of values, those that count as zeros apart, has a step of zero: its codes would be those that the
/// search came to, which lanes do not keep.
#[inline(always)]
fn is_common(values: &[f32; 256], step: impl Fn(usize) -> f32) -> bool {
    let mut common = true;
    for (g, group) in values.as_chunks::<16>().0.iter().enumerate() {
        common &= step(g) != 0.0 || magnitude(group) < ZERO;
    }
    common
}

/// The scale that `q3_k::move_single_codes` finds.
#[inline(always)]
fn move_single_codes<S: Simd>(x: Column<'_, S>) -> Lanes<S> {
    let zero = x.zero();
    let extreme = x.extreme();
    let inverse = zero.same(-4.0) / extreme;
    let mut quants = [zero.lanes(); 16];
    let (mut xq, mut qq) = (zero, zero);
    for (i, quant) in quants.iter_mut().enumerate() {
        let x = x.at(i);
        let q = (inverse * x).nearest(-4, 3);
        let w = x * x;
        *quant = q.lanes();
        xq = xq + w * x * q;
        qq = qq + w * q * q;
    }
    // A round that changes nothing is followed by more of the same: all five may be run.
    for _ in 0..5 {
        for (i, quant) in quants.iter_mut().enumerate() {
            let (x, q) = (x.at(i), Lanes::new(x.simd, *quant));
            let w = x * x;
            let mut other_xq = xq - w * x * q;
            let mut go = zero.less(other_xq);
            let mut other_qq = qq - w * q * q;
            let new = (x * other_qq / other_xq).nearest(-4, 3);
            go = go.and(new.equal(q).not());
            other_xq = other_xq + w * x * new;
            other_qq = other_qq + w * new * new;
            go = go.and(zero.less(other_qq)).and((xq * xq * other_qq).less(other_xq * other_xq * qq));
            *quant = go.select(new, q).lanes();
            xq = go.select(other_xq, xq);
            qq = go.select(other_qq, qq);
        }
    }
    let scale = zero.less(qq).select(xq / qq, zero);
    extreme.abs().less(zero.same(ZERO)).select(zero, scale)
}
