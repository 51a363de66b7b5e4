//! The searches of `crate::search`, a block in each lane. What each step is for is said there; here branches are selections.

use pulp::Simd;

use super::vector::Lanes;
use crate::search::{AffineSearch, ZERO};

/// Where numbers may be rounded the short way: |x| ≤ 2²¹, well below what the long way is needed for.
pub(super) const TAME: f32 = (1 << 21) as f32;

/// The values of a group, or what they weigh: one register an element.
pub(super) struct Column<'a, S: Simd> {
    pub simd: S,
    pub rows: &'a [S::f32s],
}

impl<S: Simd> Clone for Column<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Simd> Copy for Column<'_, S> {}

impl<'a, S: Simd> Column<'a, S> {
    #[inline(always)]
    pub fn at(self, i: usize) -> Lanes<S> {
        Lanes::new(self.simd, self.rows[i])
    }

    /// The rows from `start` on.
    #[inline(always)]
    pub fn part(self, start: usize, len: usize) -> Column<'a, S> {
        Column { simd: self.simd, rows: &self.rows[start..start + len] }
    }

    #[inline(always)]
    pub fn zero(self) -> Lanes<S> {
        Lanes::splat(self.simd, 0.0)
    }

    #[inline(always)]
    pub fn sum(self) -> Lanes<S> {
        let mut sum = self.zero();
        for i in 0..self.rows.len() {
            sum = sum + self.at(i);
        }
        sum
    }

    #[inline(always)]
    pub fn sum_of_squares(self) -> Lanes<S> {
        let mut sum = self.zero();
        for i in 0..self.rows.len() {
            sum = sum + self.at(i) * self.at(i);
        }
        sum
    }

    /// The largest of the values, at least 0.
    #[inline(always)]
    pub fn largest(self) -> Lanes<S> {
        let mut largest = self.zero();
        for i in 0..self.rows.len() {
            let x = self.at(i);
            largest = largest.less(x).select(x, largest);
        }
        largest
    }

    /// The value of largest magnitude, the first one of several.
    #[inline(always)]
    pub fn extreme(self) -> Lanes<S> {
        let (mut extreme, mut magnitude) = (self.zero(), self.zero());
        for i in 0..self.rows.len() {
            let x = self.at(i);
            let further = magnitude.less(x.abs());
            magnitude = further.select(x.abs(), magnitude);
            extreme = further.select(x, extreme);
        }
        extreme
    }
}

/// Scale and the inverse by which the codes are rounded; scale 0 where all values count as zeros.
#[inline(always)]
pub(super) fn symmetric<S: Simd, const LEN: usize>(
    x: Column<'_, S>,
    weights: Column<'_, S>,
    half: i32,
) -> (Lanes<S>, Lanes<S>) {
    let zero = x.zero();
    let extreme = x.extreme();
    let nothing = extreme.abs().less(zero.same(ZERO));
    let mut weighed = [zero.lanes(); LEN];
    for (i, weighed) in weighed.iter_mut().enumerate() {
        *weighed = (weights.at(i) * x.at(i)).lanes();
    }
    let weighed = Column { simd: x.simd, rows: &weighed };

    // The steepest of all inverses: no other one takes any value further, as rounding is monotonic.
    let steepest = zero.same(-(half as f32 + 0.9)) / extreme * extreme;
    let (scale, inverse) = match steepest.within(TAME).all() {
        true => try_inverses(
            x,
            extreme,
            half,
            #[inline(always)]
            |inverse, offset| match offset {
                // The extreme value, below all others, goes to −half − 0.4 at most.
                ..=4 => symmetric_sums::<S, LEN>(
                    x,
                    weights,
                    weighed,
                    inverse,
                    #[inline(always)]
                    |v| v.nearest_tame_up_to(half - 1),
                ),
                _ => symmetric_sums::<S, LEN>(
                    x,
                    weights,
                    weighed,
                    inverse,
                    #[inline(always)]
                    |v| v.nearest_tame(-half, half - 1),
                ),
            },
        ),
        false => try_inverses(
            x,
            extreme,
            half,
            #[inline(always)]
            |inverse, _| {
                symmetric_sums::<S, LEN>(
                    x,
                    weights,
                    weighed,
                    inverse,
                    #[inline(always)]
                    |v| v.nearest(-half, half - 1),
                )
            },
        ),
    };
    (nothing.select(zero, scale), nothing.select(zero, inverse))
}

/// The best of all roundings: `sums` has Σ w·x·q and Σ w·q² of an inverse that puts the extreme value at so many tenths
/// below −half.
#[inline(always)]
fn try_inverses<S: Simd>(
    x: Column<'_, S>,
    extreme: Lanes<S>,
    half: i32,
    sums: impl Fn(Lanes<S>, i32) -> (Lanes<S>, Lanes<S>),
) -> (Lanes<S>, Lanes<S>) {
    let zero = x.zero();
    let mut best_inverse = zero.same(-(half as f32)) / extreme;
    let (xq, qq) = sums(best_inverse, 0);
    let mut scale = qq.equal(zero).select(zero, xq / qq);
    let mut best = scale * xq;
    for offset in -9..=9 {
        if offset == 0 {
            continue;
        }
        let inverse = zero.same(-(half as f32 + 0.1 * offset as f32)) / extreme;
        let (xq, qq) = sums(inverse, offset);
        let better = zero.less(qq).and((best * qq).less(xq * xq));
        scale = better.select(xq / qq, scale);
        best = better.select(scale * xq, best);
        best_inverse = better.select(inverse, best_inverse);
    }
    (scale, best_inverse)
}

/// Σ w·x·q and Σ w·q².
#[inline(always)]
fn symmetric_sums<S: Simd, const LEN: usize>(
    x: Column<'_, S>,
    weights: Column<'_, S>,
    weighed: Column<'_, S>,
    inverse: Lanes<S>,
    nearest: impl Fn(Lanes<S>) -> Lanes<S>,
) -> (Lanes<S>, Lanes<S>) {
    let (mut xq, mut qq) = (x.zero(), x.zero());
    for i in 0..LEN {
        let q = nearest(inverse * x.at(i));
        xq = xq + weighed.at(i) * q;
        qq = qq + weights.at(i) * q * q;
    }
    (xq, qq)
}

/// What [`affine`] found.
#[derive(Clone, Copy)]
pub(super) struct Affine<S: Simd> {
    pub scale: Lanes<S>,
    pub minimum: Lanes<S>,
    /// Code q is the integer nearest to inverse·(x − base), within bounds; inverse 0 where all codes are.
    pub inverse: Lanes<S>,
    pub base: Lanes<S>,
}

/// As `crate::search::affine`.
#[inline(always)]
pub(super) fn affine<S: Simd, const LEN: usize, const ABSOLUTE: bool>(
    x: Column<'_, S>,
    weights: Column<'_, S>,
    search: &AffineSearch,
) -> Affine<S> {
    let zero = x.zero();
    let max_code = search.max_code as f32;
    let (mut low, mut high) = (zero.same(f32::MAX), zero.same(f32::MIN));
    let (mut sum_w, mut sum_x) = (zero, zero);
    for i in 0..LEN {
        let (x, w) = (x.at(i), weights.at(i));
        low = x.less(low).select(x, low);
        high = high.less(x).select(x, high);
        sum_w = sum_w + w;
        sum_x = sum_x + w * x;
    }
    let lowest = low;
    low = zero.less(low).select(zero, low);
    let flat = high.less_or_equal(low);
    let flat_minimum = -low;

    let mut scale = zero.same(1.0) / (zero.same(max_code) / (high - low));
    let mut quants = [zero.lanes(); LEN];
    let steps = Steps { search, lowest, high };
    steps.round::<LEN>(x, weights, max_code, low, &mut quants);
    let mut best = loss::<S, LEN, ABSOLUTE>(x, weights, &quants, scale, low);
    let (mut inverse, mut base) = (zero.same(max_code) / (high - low), low);
    for i in 0..=search.times {
        let tried = search.from + search.by * i as f32 + max_code;
        let Sums { q: sum_q, qq: sum_qq, xq: sum_xq } =
            steps.round::<LEN>(x, weights, tried, low, &mut quants);
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        let mut this_scale = (sum_w * sum_xq - sum_x * sum_q) / determinant;
        let mut this_low = (sum_qq * sum_x - sum_q * sum_xq) / determinant;
        let above = zero.less(this_low);
        this_scale = above.select(sum_xq / sum_qq, this_scale);
        this_low = above.select(zero, this_low);
        let this = loss::<S, LEN, ABSOLUTE>(x, weights, &quants, this_scale, this_low);
        let better = zero.less(determinant).and(this.less(best));
        best = better.select(this, best);
        scale = better.select(this_scale, scale);
        inverse = better.select(zero.same(tried) / (high - low), inverse);
        base = better.select(low, base);
        low = better.select(this_low, low);
    }
    Affine {
        scale: flat.select(zero, scale),
        minimum: flat.select(flat_minimum, -low),
        inverse: flat.select(zero, inverse),
        base: flat.select(zero, base),
    }
}

/// Σ w·q, Σ w·q², Σ w·q·x.
struct Sums<S: Simd> {
    q: Lanes<S>,
    qq: Lanes<S>,
    xq: Lanes<S>,
}

/// What stays the same while roundings are tried.
struct Steps<'a, S: Simd> {
    search: &'a AffineSearch,
    /// The least value.
    lowest: Lanes<S>,
    /// The largest one.
    high: Lanes<S>,
}

impl<S: Simd> Steps<'_, S> {
    /// Rounds the values to so many steps between `low` and the largest.
    #[inline(always)]
    fn round<const LEN: usize>(
        &self,
        x: Column<'_, S>,
        weights: Column<'_, S>,
        steps: f32,
        low: Lanes<S>,
        quants: &mut [S::f32s; LEN],
    ) -> Sums<S> {
        let max_code = self.search.max_code;
        let inverse = low.same(steps) / (self.high - low);
        let (least, most) = (inverse * (self.lowest - low), inverse * (self.high - low));
        // All others lie between: rounding is monotonic.
        if least.within(TAME).and(most.within(TAME)).all() {
            affine_sums(
                x,
                weights,
                inverse,
                low,
                quants,
                #[inline(always)]
                |v| v.nearest_tame(0, max_code),
            )
        } else {
            affine_sums(
                x,
                weights,
                inverse,
                low,
                quants,
                #[inline(always)]
                |v| v.nearest(0, max_code),
            )
        }
    }
}

#[inline(always)]
fn affine_sums<S: Simd, const LEN: usize>(
    x: Column<'_, S>,
    weights: Column<'_, S>,
    inverse: Lanes<S>,
    low: Lanes<S>,
    quants: &mut [S::f32s; LEN],
    nearest: impl Fn(Lanes<S>) -> Lanes<S>,
) -> Sums<S> {
    let mut sums = Sums { q: x.zero(), qq: x.zero(), xq: x.zero() };
    for (i, quant) in quants.iter_mut().enumerate() {
        let q = nearest(inverse * (x.at(i) - low));
        *quant = q.lanes();
        let weighed = weights.at(i) * q;
        sums.q = sums.q + weighed;
        sums.qq = sums.qq + weighed * q;
        sums.xq = sums.xq + weighed * x.at(i);
    }
    sums
}

#[inline(always)]
fn loss<S: Simd, const LEN: usize, const ABSOLUTE: bool>(
    x: Column<'_, S>,
    weights: Column<'_, S>,
    quants: &[S::f32s; LEN],
    scale: Lanes<S>,
    low: Lanes<S>,
) -> Lanes<S> {
    let quants = Column { simd: x.simd, rows: quants };
    let mut sum = x.zero();
    for i in 0..LEN {
        let error = scale * quants.at(i) + low - x.at(i);
        let loss = if ABSOLUTE { error.abs() } else { error * error };
        sum = sum + weights.at(i) * loss;
    }
    sum
}

/// Scale and codes, as numbers from 0 to 255, for values that should be ≥ 0.
#[inline(always)]
pub(super) fn nonnegative<S: Simd, const LEN: usize>(
    x: Column<'_, S>,
    weights: Column<'_, S>,
    max_code: i32,
    codes: &mut [S::f32s; LEN],
) -> Lanes<S> {
    let (zero, one) = (x.zero(), x.zero().same(1.0));
    let largest = x.largest();
    let nothing = largest.less(zero.same(ZERO));
    let mut inverse = zero.same(max_code as f32) / largest;
    let scale = one / inverse;
    let mut best = zero;
    for i in 0..LEN {
        // Not cut off at the top, but to a byte.
        let (_, q) = (inverse * x.at(i)).nearest_and_byte(0x003f_ffff);
        let error = x.at(i) - scale * q;
        best = best + weights.at(i) * error * error;
    }
    for offset in -4..=4 {
        if offset == 0 {
            continue;
        }
        let this_inverse = zero.same(0.1 * offset as f32 + max_code as f32) / largest;
        let scale = one / this_inverse;
        let mut this = zero;
        for i in 0..LEN {
            let (q, _) = (this_inverse * x.at(i)).nearest_and_byte(max_code);
            let error = x.at(i) - scale * q;
            this = this + weights.at(i) * error * error;
        }
        let better = this.less(best);
        best = better.select(this, best);
        inverse = better.select(this_inverse, inverse);
    }

    let (mut xq, mut qq) = (zero, zero);
    for (i, code) in codes.iter_mut().enumerate() {
        let (q, byte) = (inverse * x.at(i)).nearest_and_byte(max_code);
        *code = byte.lanes();
        xq = xq + weights.at(i) * x.at(i) * q;
        qq = qq + weights.at(i) * q * q;
    }
    // A round that changes nothing is followed by more of the same: all five may be run.
    for _ in 0..5 {
        for (i, to) in codes.iter_mut().enumerate() {
            let (x, w, code) = (x.at(i), weights.at(i), Lanes::new(x.simd, *to));
            let mut other_xq = xq - w * x * code;
            let mut other_qq = qq - w * code * code;
            let mut go = zero.less(other_xq).and(zero.less(other_qq));
            let (new, byte) = (x * other_qq / other_xq).nearest_and_byte(max_code);
            go = go.and(new.equal(code).not());
            other_xq = other_xq + w * x * new;
            other_qq = other_qq + w * new * new;
            go = go.and((xq * xq * other_qq).less(other_xq * other_xq * qq));
            *to = go.select(byte, code).lanes();
            xq = go.select(other_xq, xq);
            qq = go.select(other_qq, qq);
        }
    }
    for code in codes.iter_mut() {
        *code = nothing.select(zero, Lanes::new(x.simd, *code)).lanes();
    }
    nothing.select(zero, zero.less(qq).select(xq / qq, zero))
}
