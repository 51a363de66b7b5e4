//! The gated delta rule, in its recurrent form, because that is the definition.

use ndarray::{Array3, ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;

use crate::kernels::Kernels;
use crate::math::exp;

/// What the rule reads, one entry a token: all of one call.
pub(crate) struct DeltaInputs<'a> {
    /// `[T, Hk, K]`, l2-normalised and scaled.
    pub q: ArrayView3<'a, f64>,
    /// `[T, Hk, K]`, l2-normalised.
    pub k: ArrayView3<'a, f64>,
    /// `[T, Hv, V]`.
    pub v: ArrayView3<'a, f64>,
    /// Logarithm of the decay, `[T, Hv]`.
    pub g: ArrayView2<'a, f64>,
    /// Writing strength, `[T, Hv]`.
    pub beta: ArrayView2<'a, f64>,
}

/// Columns of `S` that all tokens go through before the next ones do: with K of 128 they are 32 KiB, which the first-level
/// cache holds.
const COLUMNS: usize = 32;

/// Per value head and token, with `S` in `[K, V]`: `S ← S·exp(g)`; `d = beta·(v − Sᵀk)`; `S ← S + k dᵀ`; `o = Sᵀq`.
///
/// `state` is `[Hv, K, V]`, kept in f64 between calls. Sums over K run in order for every V, so that neither
/// threads (which split heads) nor the split of tokens over calls changes a bit. Returns `o`, `[T, Hv, V]`, unrounded.
pub(crate) fn delta_rule(inputs: &DeltaInputs<'_>, state: &mut [f64], kernels: Kernels) -> Array3<f64> {
    let (_, heads, value_dim) = inputs.v.dim();
    let (_, key_heads, key_dim) = inputs.k.dim();
    let mut o = Array3::zeros(inputs.v.dim()); // [T, Hv, V]
    let heads_out = o.axis_iter_mut(Axis(1)).into_par_iter();
    heads_out.zip(state.par_chunks_exact_mut(key_dim * value_dim)).enumerate().for_each(|(h, (mut o, s))| {
        let key_head = h / (heads / key_heads);
        let mut block = vec![[0.0; COLUMNS]; key_dim]; // [K, COLUMNS] of S
        for first in (0..value_dim).step_by(COLUMNS) {
            let columns = first..value_dim.min(first + COLUMNS);
            let width = columns.len();
            for (block, s) in block.iter_mut().zip(s.chunks_exact(value_dim)) {
                block[..width].copy_from_slice(&s[columns.clone()]);
            }
            for (t, mut o) in o.outer_iter_mut().enumerate() {
                let (k, q) = (head(&inputs.k, t, key_head), head(&inputs.q, t, key_head));
                let mut v = [0.0; COLUMNS];
                v[..width].copy_from_slice(&head(&inputs.v, t, h)[columns.clone()]);
                let (decay, beta) = (exp(inputs.g[[t, h]]), inputs.beta[[t, h]]);
                let o = &mut o.as_slice_mut().expect("values of a head are contiguous")[columns.clone()];
                kernels.vectorize(
                    #[inline(always)]
                    || o.copy_from_slice(&step(&mut block, k, q, &v, decay, beta)[..width]),
                );
            }
            for (block, s) in block.iter().zip(s.chunks_exact_mut(value_dim)) {
                s[columns.clone()].copy_from_slice(&block[..width]);
            }
        }
    });
    o
}

/// One token: moves `s` on and returns `Sᵀq`.
#[inline(always)]
fn step(
    s: &mut [[f64; COLUMNS]],
    k: &[f64],
    q: &[f64],
    v: &[f64; COLUMNS],
    decay: f64,
    beta: f64,
) -> [f64; COLUMNS] {
    let mut recalled = [0.0; COLUMNS]; // Sᵀk
    for (s, k) in s.iter_mut().zip(k) {
        for (s, recalled) in s.iter_mut().zip(&mut recalled) {
            *s *= decay;
            *recalled += *s * k;
        }
    }
    let mut d = [0.0; COLUMNS];
    for ((d, v), recalled) in d.iter_mut().zip(v).zip(&recalled) {
        *d = beta * (v - recalled);
    }
    let mut o = [0.0; COLUMNS];
    for (s, (k, q)) in s.iter_mut().zip(k.iter().zip(q)) {
        for ((s, d), o) in s.iter_mut().zip(&d).zip(&mut o) {
            *s += k * d;
            *o += *s * q;
        }
    }
    o
}

/// One head of one token.
fn head<'a>(x: &ArrayView3<'a, f64>, t: usize, h: usize) -> &'a [f64] {
    let head = (*x).index_axis_move(Axis(0), t).index_axis_move(Axis(0), h);
    head.to_slice().expect("heads are contiguous")
}
