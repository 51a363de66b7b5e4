//! The searches for a scale (and a minimum) under which rounding loses least, shared by most encoders.
//!
//! All of them sum f32 in order and never fuse a multiplication with an addition: another order would give other bytes.

use std::array;

use crate::arithmetic::{extreme, largest, nearest, range, sum};

/// Groups with nothing above this count as zeros.
pub(crate) const ZERO: f32 = 1e-15;

/// x ≈ scale·q, the code being q + `half` with q in −half..half.
///
/// The scale is the best one for its integers, which are the best of 19 roundings: those that put the extreme value at
/// −half, and up to 0.9 beside it. All zeros give scale 0 and codes 0.
pub(crate) fn symmetric<const LEN: usize>(
    x: &[f32; LEN],
    weights: &[f32; LEN],
    half: i32,
) -> (f32, [u8; LEN]) {
    let extreme = extreme(x);
    if extreme.abs() < ZERO {
        return (0.0, [0; LEN]);
    }
    let try_inverse = |inverse: f32| {
        let (mut xq, mut qq) = (0.0, 0.0);
        let mut codes = [0; LEN];
        for ((x, w), code) in x.iter().zip(weights).zip(&mut codes) {
            let q = nearest(inverse * x).min(half - 1).max(-half);
            *code = (q + half) as u8;
            xq += w * x * q as f32;
            qq += w * q as f32 * q as f32;
        }
        (xq, qq, codes)
    };
    let (xq, qq, mut codes) = try_inverse(-(half as f32) / extreme);
    let mut scale = if qq == 0.0 { 0.0 } else { xq / qq };
    let mut best = scale * xq;
    for offset in (-9..=9).filter(|&offset| offset != 0) {
        let (xq, qq, tried) = try_inverse(-(half as f32 + 0.1 * offset as f32) / extreme);
        if qq > 0.0 && xq * xq > best * qq {
            scale = xq / qq;
            best = scale * xq;
            codes = tried;
        }
    }
    (scale, codes)
}

/// How [`affine`] searches.
pub(crate) struct AffineSearch {
    /// Codes are 0..=max_code.
    pub max_code: i32,
    /// The first rounding tried spreads the values over max_code + `from` steps,
    pub from: f32,
    /// each next one over `by` more,
    pub by: f32,
    /// this many times.
    pub times: i32,
    /// What an error counts before it is weighed.
    pub loss: fn(f32) -> f32,
}

/// x ≈ scale·code − minimum, both factors ≥ 0, as found by [`affine`].
pub(crate) struct Affine<const LEN: usize> {
    pub scale: f32,
    pub minimum: f32,
    pub codes: [u8; LEN],
}

/// The best scale and minimum (by least squares) for each of several roundings; the one with the least loss wins.
pub(crate) fn affine<const LEN: usize>(
    x: &[f32; LEN],
    weights: &[f32; LEN],
    search: &AffineSearch,
) -> Affine<LEN> {
    let max_code = search.max_code as f32;
    let (mut low, high) = range(x);
    let sum_w = sum(weights);
    let sum_x = x.iter().zip(weights).fold(0.0, |sum, (x, w)| sum + w * x);
    if low > 0.0 {
        low = 0.0;
    }
    if high <= low {
        return Affine { scale: 0.0, minimum: -low, codes: [0; LEN] };
    }
    let round = |steps: f32, low: f32| -> [u8; LEN] {
        let inverse = steps / (high - low);
        array::from_fn(|i| nearest(inverse * (x[i] - low)).min(search.max_code).max(0) as u8)
    };
    let loss = |scale: f32, low: f32, codes: &[u8; LEN]| {
        let errors = x.iter().zip(codes).map(|(x, &q)| scale * f32::from(q) + low - x);
        errors.zip(weights).fold(0.0, |sum, (error, w)| sum + w * (search.loss)(error))
    };
    let mut scale = 1.0 / (max_code / (high - low));
    let mut codes = round(max_code, low);
    let mut best = loss(scale, low, &codes);
    for i in 0..=search.times {
        // From the lowest value that the best rounding so far came to.
        let tried = round(search.from + search.by * i as f32 + max_code, low);
        let (mut sum_q, mut sum_qq, mut sum_xq) = (0.0, 0.0, 0.0);
        for ((x, w), &q) in x.iter().zip(weights).zip(&tried) {
            let q = f32::from(q);
            sum_q += w * q;
            sum_qq += w * q * q;
            sum_xq += w * q * x;
        }
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xq - sum_x * sum_q) / determinant;
            let mut this_low = (sum_qq * sum_x - sum_q * sum_xq) / determinant;
            if this_low > 0.0 {
                this_low = 0.0;
                this_scale = sum_xq / sum_qq;
            }
            let this = loss(this_scale, this_low, &tried);
            if this < best {
                best = this;
                (scale, low, codes) = (this_scale, this_low, tried);
            }
        }
    }
    Affine { scale, minimum: -low, codes }
}

/// x ≈ scale·code for values that should be ≥ 0 (a negative one gets the code that its integer wraps to).
///
/// First the best of nine roundings, then up to five rounds of moving single codes while that helps.
pub(crate) fn nonnegative<const LEN: usize>(
    x: &[f32; LEN],
    weights: &[f32; LEN],
    max_code: i32,
) -> (f32, [u8; LEN]) {
    let largest = largest(x);
    if largest < ZERO {
        return (0.0, [0; LEN]);
    }
    let loss = |inverse: f32, code: &dyn Fn(i32) -> i32| {
        let scale = 1.0 / inverse;
        x.iter().zip(weights).fold(0.0, |sum, (x, w)| {
            let error = x - scale * code(nearest(inverse * x)) as f32;
            sum + w * error * error
        })
    };
    let mut inverse = max_code as f32 / largest;
    let mut best = loss(inverse, &|q| i32::from(q as u8));
    for offset in (-4..=4).filter(|&offset| offset != 0) {
        let this_inverse = (0.1 * offset as f32 + max_code as f32) / largest;
        let this = loss(this_inverse, &|q| q.min(max_code));
        if this < best {
            best = this;
            inverse = this_inverse;
        }
    }

    let mut codes = [0; LEN];
    let (mut xq, mut qq) = (0.0, 0.0);
    for ((x, w), code) in x.iter().zip(weights).zip(&mut codes) {
        let q = nearest(inverse * x).min(max_code);
        *code = q as u8;
        xq += w * x * q as f32;
        qq += w * q as f32 * q as f32;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((x, w), code) in x.iter().zip(weights).zip(&mut codes) {
            let q = f32::from(*code);
            let mut other_xq = xq - w * x * q;
            let mut other_qq = qq - w * q * q;
            if !(other_xq > 0.0 && other_qq > 0.0) {
                continue;
            }
            let new = nearest(x * other_qq / other_xq).min(max_code);
            if new == i32::from(*code) {
                continue;
            }
            other_xq += w * x * new as f32;
            other_qq += w * new as f32 * new as f32;
            if other_xq * other_xq * qq > xq * xq * other_qq {
                *code = new as u8;
                (xq, qq) = (other_xq, other_qq);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    (if qq > 0.0 { xq / qq } else { 0.0 }, codes)
}
