//! Operations on rows of activations, written once in plain code and compiled for every instruction set. Elements are
//! independent or summed in a fixed order, and multiply-adds are fused where they are written so: the bits are the
//! same for all.

use super::lane::Lanes;
use super::tile::dot;

/// `e^x` to about one unit in the last place; 0 or infinity beyond f32's normal range, NaN for NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5·2²³: adding it leaves the nearest whole number in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with so few bits that its multiples are exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Comparisons that NaN falls through.
    let x = if x > 88.5 { 88.5 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = n.mul_add(-LN2_HIGH, x);
    let r = n.mul_add(-LN2_LOW, r);
    // Taylor's series: |r| ≤ ln 2 / 2, so that what follows is below 6e-9.
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = r.mul_add(p, c);
    }
    let power = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    // The low bits of what is no number would make one of it.
    if x.is_nan() { x } else { power }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Σx², in eight f64 lanes.
#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    let (whole, rest) = x.as_chunks::<8>();
    for x in whole {
        for l in 0..8 {
            lanes[l] += f64::from(x[l]) * f64::from(x[l]);
        }
    }
    for (l, &x) in rest.iter().enumerate() {
        lanes[l] += f64::from(x) * f64::from(x);
    }
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

#[inline(always)]
fn rms_scale(x: &[f32], eps: f64) -> f32 {
    (1.0 / (sum_of_squares(x) / x.len() as f64 + eps).sqrt()) as f32
}

/// `y = x / sqrt(mean(x²) + eps) · gain`.
#[inline(always)]
pub(crate) fn rms_norm(x: &[f32], gain: &[f32], eps: f64, y: &mut [f32]) {
    let scale = rms_scale(x, eps);
    for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
        *y = x * scale * gain;
    }
}

/// `y = rms_norm(x) · silu(z)`.
#[inline(always)]
pub(crate) fn gated_norm(x: &[f32], gain: &[f32], eps: f64, z: &[f32], y: &mut [f32]) {
    let scale = rms_scale(x, eps);
    for (((y, x), gain), &z) in y.iter_mut().zip(x).zip(gain).zip(z) {
        *y = x * scale * gain * silu(z);
    }
}

/// `x / sqrt(Σx² + 1e-6) · scale`, in place: the eps of DeltaNet, inside the root, whatever the norms' is.
#[inline(always)]
pub(crate) fn l2_norm(x: &mut [f32], scale: f64) {
    let scale = (scale / (sum_of_squares(x) + 1e-6).sqrt()) as f32;
    x.iter_mut().for_each(|x| *x *= scale);
}

/// `y = silu(gate) · y`.
#[inline(always)]
pub(crate) fn silu_product(gate: &[f32], y: &mut [f32]) {
    for (y, &gate) in y.iter_mut().zip(gate) {
        *y *= silu(gate);
    }
}

/// `y = x · sigmoid(gate)`.
#[inline(always)]
pub(crate) fn sigmoid_product(x: &[f32], gate: &[f32], y: &mut [f32]) {
    for ((y, x), &gate) in y.iter_mut().zip(x).zip(gate) {
        *y = x * sigmoid(gate);
    }
}

/// `y = a + b`.
#[inline(always)]
pub(crate) fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        *y = a + b;
    }
}

/// `y += scale · x`.
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], scale: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = scale.mul_add(*x, *y);
    }
}

/// `y = silu(Σ_j taps[j] · rows[j])` over some channels of a token: as many rows as taps, oldest first, all of `y`'s
/// length.
#[inline(always)]
pub(crate) fn convolve(rows: &[&[f32]], taps: &[&[f32]], y: &mut [f32]) {
    y.fill(0.0);
    for (row, taps) in rows.iter().zip(taps) {
        for ((y, x), tap) in y.iter_mut().zip(*row).zip(*taps) {
            *y = tap.mul_add(*x, *y);
        }
    }
    y.iter_mut().for_each(|y| *y = silu(*y));
}

/// What the delta rule reads, for one value head: a row a token in each.
pub(crate) struct DeltaHead<'a> {
    /// Rows of queries, keys and values: `[T, ·]`, `stride` apart, and where in a row this head's lie.
    pub mixed: &'a [f32],
    pub stride: usize,
    pub q: usize,
    pub k: usize,
    pub v: usize,
    /// exp(g) and beta of every token.
    pub decay: &'a [f64],
    pub beta: &'a [f64],
    pub key_dim: usize,
    pub value_dim: usize,
}

/// `S ← S·decay; d = beta·(v − Sᵀk); S ← S + k dᵀ; o = Sᵀq` for one head and all tokens, in f64, with one reading of `S`
/// for both inner products: `Sᵀq` of the new `S` is that of the old one, decayed, plus `(k·q)·d`.
///
/// `state` is `[K, V]`, `out` `[T, V]`. Columns are independent; `W` of them go through all tokens while they are near.
#[inline(always)]
pub(crate) fn delta_rule<L: Lanes, const W: usize>(head: &DeltaHead<'_>, state: &mut [f64], out: &mut [f32]) {
    let whole = head.value_dim / W * W;
    for column in (0..whole).step_by(W) {
        delta_columns::<L, W>(head, column, state, out);
    }
    for column in whole..head.value_dim {
        delta_columns::<L, 1>(head, column, state, out);
    }
}

/// A token's change of `S` and the next token's inner products take one pass over it. These columns lie side by side
/// meanwhile: where they come from, a row of `S` apart, they would compete for a few sets of the first-level cache.
#[inline(always)]
fn delta_columns<L: Lanes, const W: usize>(
    head: &DeltaHead<'_>,
    column: usize,
    state: &mut [f64],
    out: &mut [f32],
) {
    let Some(last) = head.decay.len().checked_sub(1) else { return };
    let row = |t: usize| &head.mixed[t * head.stride..][..head.stride];
    // Query and key of a token and of the next, widened once for all rows of `S`; and their product.
    let (mut now, mut next) = (vec![[0f64; 2]; head.key_dim], vec![[0f64; 2]; head.key_dim]);
    let widen = |t: usize, to: &mut [[f64; 2]]| {
        let (q, k) = (&row(t)[head.q..][..head.key_dim], &row(t)[head.k..][..head.key_dim]);
        for (to, (&q, &k)) in to.iter_mut().zip(q.iter().zip(k)) {
            *to = [q.into(), k.into()];
        }
        f64::from(dot::<L>(k, q))
    };
    let mut kq = widen(0, &mut now);
    let mut columns = vec![[0f64; W]; head.key_dim];
    let (mut old_k, mut old_q) = ([0f64; W], [0f64; W]);
    for ((s, state), &[q, k]) in columns.iter_mut().zip(state.chunks_exact(head.value_dim)).zip(&now) {
        *s = *state[column..].first_chunk().expect("columns lie in the state");
        for i in 0..W {
            old_k[i] = k.mul_add(s[i], old_k[i]);
            old_q[i] = q.mul_add(s[i], old_q[i]);
        }
    }
    for t in 0..=last {
        let v: &[f32; W] = row(t)[head.v + column..].first_chunk().expect("a head's columns lie in the row");
        let (decay, beta) = (head.decay[t], head.beta[t]);
        let mut d = [0f64; W];
        let o: &mut [f32; W] =
            out[t * head.value_dim + column..].first_chunk_mut().expect("columns lie in the output");
        for i in 0..W {
            d[i] = beta * decay.mul_add(-old_k[i], v[i].into());
            o[i] = kq.mul_add(d[i], decay * old_q[i]) as f32;
        }
        if t == last {
            for ((s, state), &[_, k]) in columns.iter().zip(state.chunks_exact_mut(head.value_dim)).zip(&now)
            {
                let state: &mut [f64; W] =
                    state[column..].first_chunk_mut().expect("columns lie in the state");
                for i in 0..W {
                    state[i] = k.mul_add(d[i], decay * s[i]);
                }
            }
            return;
        }
        kq = widen(t + 1, &mut next);
        (old_k, old_q) = ([0f64; W], [0f64; W]);
        for (s, (&[_, k], &[next_q, next_k])) in columns.iter_mut().zip(now.iter().zip(&next)) {
            for i in 0..W {
                s[i] = k.mul_add(d[i], decay * s[i]);
                old_k[i] = next_k.mul_add(s[i], old_k[i]);
                old_q[i] = next_q.mul_add(s[i], old_q[i]);
            }
        }
        std::mem::swap(&mut now, &mut next);
    }
}
