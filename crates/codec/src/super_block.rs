//! From the groups of a super-block to the super-block: the second level of scales of the K encodings.

use std::array;

use crate::arithmetic::{nearest, sum};
use crate::search::{Affine, AffineSearch, nonnegative};

/// The search of a group whose values are weighed; `max_code` is the encoding's own.
pub(crate) const WEIGHED: AffineSearch =
    AffineSearch { max_code: 0, from: -0.9, by: 0.05, times: 36, loss: |error| error * error };

/// `GROUPS` groups y = d·scale·code − dmin·min.
pub(crate) struct SuperBlock<const GROUPS: usize, const LEN: usize> {
    pub d: f32,
    pub dmin: f32,
    pub scales: [u8; GROUPS],
    pub mins: [u8; GROUPS],
    /// What the groups were rounded to by their own scales, which stays where a scale becomes zero.
    pub codes: [[u8; LEN]; GROUPS],
}

impl<const GROUPS: usize, const LEN: usize> SuperBlock<GROUPS, LEN> {
    /// Puts the largest scale and the largest minimum at `max`. A scale below zero, which is hardly ever best, wraps.
    pub fn by_largest(fits: &[Affine<LEN>; GROUPS], max: u8) -> Self {
        let (d, scales) = by_largest(array::from_fn(|g| fits[g].scale), max);
        let (dmin, mins) = by_largest(array::from_fn(|g| fits[g].minimum), max);
        SuperBlock { d, dmin, scales, mins, codes: array::from_fn(|g| fits[g].codes) }
    }

    /// Gives the scales and the minima up to `max` the factors that fit them best, each group weighing what its values
    /// weigh together.
    pub fn by_least_squares(fits: &[Affine<LEN>; GROUPS], weights: &[[f32; LEN]; GROUPS], max: u8) -> Self {
        let weights: [f32; GROUPS] = array::from_fn(|g| sum(&weights[g]));
        let (d, scales) = nonnegative(&array::from_fn(|g| fits[g].scale), &weights, max.into());
        let (dmin, mins) = nonnegative(&array::from_fn(|g| fits[g].minimum), &weights, max.into());
        SuperBlock { d, dmin, scales, mins, codes: array::from_fn(|g| fits[g].codes) }
    }

    /// Cuts off what wrapped.
    pub fn clamp(mut self, max: u8) -> Self {
        self.scales = self.scales.map(|s| s.min(max));
        self.mins = self.mins.map(|m| m.min(max));
        self
    }
}

/// The factors as multiples of one that puts the largest at `max`. A factor below zero wraps.
pub(crate) fn by_largest<const GROUPS: usize>(factors: [f32; GROUPS], max: u8) -> (f32, [u8; GROUPS]) {
    let largest = crate::arithmetic::largest(&factors);
    let inverse = if largest > 0.0 { f32::from(max) / largest } else { 0.0 };
    (largest / f32::from(max), factors.map(|x| nearest(inverse * x) as u8))
}

/// Rounds the values to codes 0..=`max` of y = step·code − min; a step of zero leaves the codes as they are.
#[inline(always)]
pub(crate) fn affine_codes(values: &[f32], step: f32, min: f32, max: i32, codes: &mut [u8]) {
    if step == 0.0 {
        return;
    }
    for (code, x) in codes.iter_mut().zip(values) {
        *code = nearest((x + min) / step).min(max).max(0) as u8;
    }
}

/// Rounds the values to codes 0..2·`half` of y = step·(code − half); a step of zero leaves the codes as they are.
#[inline(always)]
pub(crate) fn symmetric_codes(values: &[f32], step: f32, half: i32, codes: &mut [u8]) {
    if step == 0.0 {
        return;
    }
    for (code, x) in codes.iter_mut().zip(values) {
        *code = (nearest(x / step).min(half - 1).max(-half) + half) as u8;
    }
}
