//! Q2_K, Q4_K and Q5_K: groups with scale and minimum.

use pulp::Simd;

use super::search::{Affine, Column, affine, nonnegative};
use super::{Batch, Encoder, MOST, by_lane, weigh};
use crate::blocks::fields_mut;
use crate::search::AffineSearch;
use crate::super_block::{SuperBlock, WEIGHED, by_largest};
use crate::{q2_k, q4_k, q5_k};

#[derive(Clone, Copy)]
pub(super) struct Q2K;
#[derive(Clone, Copy)]
pub(super) struct Q4K;
#[derive(Clone, Copy)]
pub(super) struct Q5K;

/// Scales and minima of a super-block, two levels of them.
struct Fitted<const GROUPS: usize> {
    d: f32,
    dmin: f32,
    scales: [u8; GROUPS],
    mins: [u8; GROUPS],
}

/// One for each lane. `weigh_unweighed` fills in what values weigh by themselves; `factor` scales the mean square that
/// importance is weighed with.
#[inline(always)]
fn fit<S: Simd, const GROUPS: usize, const LEN: usize, const ABSOLUTE: bool>(
    batch: &Batch<'_, S, 256>,
    unweighed: &AffineSearch,
    weigh_unweighed: impl Fn(Column<'_, S>, &mut [S::f32s; LEN]),
    factor: f32,
    max: u8,
) -> [Fitted<GROUPS>; MOST] {
    let simd = batch.x.simd;
    let zero = batch.x.zero();
    let mut scales = [zero.lanes(); GROUPS];
    let mut minima = [zero.lanes(); GROUPS];
    let Some(importance) = batch.importance else {
        let mut weights = [zero.lanes(); LEN];
        for g in 0..GROUPS {
            let x = batch.x.part(g * LEN, LEN);
            weigh_unweighed(x, &mut weights);
            let weights = Column { simd, rows: &weights };
            let Affine { scale, minimum, .. } = affine::<S, LEN, ABSOLUTE>(x, weights, unweighed);
            (scales[g], minima[g]) = (scale.lanes(), minimum.lanes());
        }
        let (scales, minima) = (by_lane(&scales, simd), by_lane(&minima, simd));
        return std::array::from_fn(|lane| {
            let (d, scales) = by_largest(scales[lane], max);
            let (dmin, mins) = by_largest(minima[lane], max);
            Fitted { d, dmin, scales, mins }
        });
    };
    let power = zero.same(factor) * batch.x.sum_of_squares() / zero.same(256.0);
    let search = AffineSearch { max_code: unweighed.max_code, ..WEIGHED };
    let mut sums = [zero.lanes(); GROUPS];
    for g in 0..GROUPS {
        let x = batch.x.part(g * LEN, LEN);
        let weights: [_; LEN] = weigh(x, importance.part(g * LEN, LEN), power);
        let weights = Column { simd, rows: &weights };
        let Affine { scale, minimum, .. } = affine::<S, LEN, false>(x, weights, &search);
        (scales[g], minima[g], sums[g]) = (scale.lanes(), minimum.lanes(), weights.sum().lanes());
    }
    let sums = Column { simd, rows: &sums };
    let ((d, scales), (dmin, mins)) = (second_level(&scales, sums, max), second_level(&minima, sums, max));
    std::array::from_fn(|lane| Fitted {
        d: d[lane][0],
        dmin: dmin[lane][0],
        scales: scales[lane].map(|code| code as u8),
        mins: mins[lane].map(|code| code as u8),
    })
}

/// Of each lane the factor of its groups' factors, and their codes.
#[inline(always)]
fn second_level<S: Simd, const GROUPS: usize>(
    factors: &[S::f32s; GROUPS],
    weights: Column<'_, S>,
    max: u8,
) -> ([[f32; 1]; MOST], [[f32; GROUPS]; MOST]) {
    let simd = weights.simd;
    let mut codes = [weights.zero().lanes(); GROUPS];
    let d = nonnegative::<S, GROUPS>(Column { simd, rows: factors }, weights, max.into(), &mut codes);
    (by_lane(&[d.lanes()], simd), by_lane(&codes, simd))
}

/// Whether no group of values, those of nothing but zeros apart, has a step of zero: its codes would be those that the
/// search came to, which lanes do not keep.
#[inline(always)]
fn is_common<const LEN: usize>(groups: &[[f32; LEN]], mut step: impl FnMut(usize) -> f32) -> bool {
    let mut common = true;
    for (g, group) in groups.iter().enumerate() {
        common &= step(g) != 0.0 || group.iter().all(|x| *x == 0.0);
    }
    common
}

/// What values of Q4_K and Q5_K weigh by themselves.
#[inline(always)]
fn weigh_by_mean<S: Simd>(x: Column<'_, S>, weights: &mut [S::f32s; 32]) {
    let mean = (x.sum_of_squares() / x.zero().same(32.0)).sqrt();
    for (i, weight) in weights.iter_mut().enumerate() {
        *weight = (mean + x.at(i).abs()).lanes();
    }
}

/// What values of Q2_K weigh by themselves.
#[inline(always)]
fn weigh_by_size<S: Simd>(x: Column<'_, S>, weights: &mut [S::f32s; 16]) {
    for (i, weight) in weights.iter_mut().enumerate() {
        *weight = x.at(i).abs().lanes();
    }
}

/// Weighed Q4_K and Q5_K differ in what becomes of scales below zero.
#[inline(always)]
fn fit_eights<S: Simd>(batch: &Batch<'_, S, 256>, unweighed: &AffineSearch) -> [SuperBlock<8, 32>; MOST] {
    let fitted = fit::<S, 8, 32, false>(
        batch,
        unweighed,
        #[inline(always)]
        |x, weights| weigh_by_mean(x, weights),
        2.0,
        63,
    );
    let wraps = unweighed.max_code == 15 && batch.importance.is_some();
    fitted.map(|Fitted { d, dmin, scales, mins }| {
        let super_block = SuperBlock { d, dmin, scales, mins, codes: [[0; 32]; 8] };
        if wraps { super_block } else { super_block.clamp(63) }
    })
}

impl Encoder<256, 144> for Q4K {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 144]]) {
        let fitted = fit_eights(batch, &q4_k::UNWEIGHED);
        for (lane, ((block, values), fitted)) in out.iter_mut().zip(batch.blocks).zip(fitted).enumerate() {
            fields_mut!(block => d: 2, dmin: 2, packed_scales: 12, quants: 128);
            let codes = q4_k::round_again(values, fitted, 15, [&mut *d, dmin], packed_scales);
            q4_k::pack_low_bits(&codes, quants);
            let d = crate::float16::scale(*d);
            let scales = q4_k::scales_and_mins(packed_scales);
            if !is_common::<32>(values.as_chunks().0, |g| d * f32::from(scales[g].0)) {
                q4_k::encode(values, batch.weights[lane], block);
            }
        }
    }
}

impl Encoder<256, 176> for Q5K {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 176]]) {
        let fitted = fit_eights(batch, &q5_k::UNWEIGHED);
        for (lane, ((block, values), fitted)) in out.iter_mut().zip(batch.blocks).zip(fitted).enumerate() {
            fields_mut!(block => d: 2, dmin: 2, packed_scales: 12, high: 32, low: 128);
            let codes = q4_k::round_again(values, fitted, 31, [&mut *d, dmin], packed_scales);
            *high = q5_k::fifth_bits(&codes);
            q4_k::pack_low_bits(&codes, low);
            let d = crate::float16::scale(*d);
            let scales = q4_k::scales_and_mins(packed_scales);
            if !is_common::<32>(values.as_chunks().0, |g| d * f32::from(scales[g].0)) {
                q5_k::encode(values, batch.weights[lane], block);
            }
        }
    }
}

impl Encoder<256, 84> for Q2K {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 84]]) {
        let fitted = fit::<S, 16, 16, true>(
            batch,
            &q2_k::UNWEIGHED,
            #[inline(always)]
            |x, weights| weigh_by_size(x, weights),
            1.0,
            15,
        );
        for (lane, ((block, values), fitted)) in out.iter_mut().zip(batch.blocks).zip(fitted).enumerate() {
            let Fitted { d, dmin, scales, mins } = fitted;
            q2_k::round_again(values, SuperBlock { d, dmin, scales, mins, codes: [[0; 16]; 16] }, block);
            fields_mut!(block => scales: 16, _quants: 64, d: 2, _dmin: 2);
            let d = crate::float16::scale(*d);
            if !is_common::<16>(values.as_chunks().0, |g| d * f32::from(scales[g] & 15)) {
                q2_k::encode(values, batch.weights[lane], block);
            }
        }
    }
}
