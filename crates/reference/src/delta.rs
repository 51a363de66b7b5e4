//! The gated delta rule, in its recurrent form, because that is the definition.

use std::ops::Range;

use ndarray::{Array3, ArrayView2, ArrayView3, ArrayViewMut2, Axis};
use pulp::Simd;
use rayon::prelude::*;

use crate::dot::LANES;
use crate::kernels::{Kernels, Tiled};
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
    let (_, _, value_dim) = inputs.v.dim();
    let (_, _, key_dim) = inputs.k.dim();
    let mut o = Array3::zeros(inputs.v.dim()); // [T, Hv, V]
    let heads_out = o.axis_iter_mut(Axis(1)).into_par_iter();
    heads_out.zip(state.par_chunks_exact_mut(key_dim * value_dim)).enumerate().for_each(|(h, (mut o, s))| {
        let mut block = vec![[0.0; COLUMNS]; key_dim]; // [K, COLUMNS] of S
        for first in (0..value_dim).step_by(COLUMNS) {
            let columns = first..value_dim.min(first + COLUMNS);
            let width = columns.len();
            for (block, s) in block.iter_mut().zip(s.chunks_exact(value_dim)) {
                block[..width].copy_from_slice(&s[columns.clone()]);
            }
            kernels.run(Block { inputs, h, columns: columns.clone(), s: &mut block, o: o.view_mut() }, false);
            for (block, s) in block.iter().zip(s.chunks_exact_mut(value_dim)) {
                s[columns.clone()].copy_from_slice(&block[..width]);
            }
        }
    });
    o
}

/// Columns of one head's `S`, `[K, COLUMNS]`, and all tokens' outputs, `[T, V]`.
struct Block<'a, 'b> {
    inputs: &'b DeltaInputs<'a>,
    h: usize,
    columns: Range<usize>,
    s: &'b mut [[f64; COLUMNS]],
    o: ArrayViewMut2<'b, f64>,
}

/// Lane groups of a block's columns.
const GROUPS: usize = COLUMNS / LANES;

impl Tiled for Block<'_, '_> {
    /// A token's last pass over `S` is the next one's first.
    #[inline(always)]
    fn run<S: Simd, const P: usize, const R: usize, const G: usize, const FUSED: bool>(self, simd: S) {
        let Block { inputs, h, columns, s, mut o } = self;
        let (tokens, heads, _) = inputs.v.dim();
        let key_head = h / (heads / inputs.k.dim().1);
        let decay = |t| simd.splat_f64s(exp(inputs.g[[t, h]]));
        let mut recalled = [[simd.splat_f64s(0.0); P]; GROUPS]; // Sᵀk
        if tokens > 0 {
            let decay = decay(0);
            for (s, k) in s.iter_mut().zip(head(&inputs.k, 0, key_head)) {
                let k = simd.splat_f64s(*k);
                for (s, recalled) in s.as_chunks_mut::<LANES>().0.iter_mut().zip(&mut recalled) {
                    recall::<S, P>(simd, S::as_mut_simd_f64s(s).0, decay, k, recalled);
                }
            }
        }
        for (t, mut o) in o.outer_iter_mut().enumerate() {
            let mut v = [0.0; COLUMNS];
            v[..columns.len()].copy_from_slice(&head(&inputs.v, t, h)[columns.clone()]);
            let beta = simd.splat_f64s(inputs.beta[[t, h]]);
            let mut d = [[simd.splat_f64s(0.0); P]; GROUPS];
            for ((d, v), recalled) in d.iter_mut().zip(v.as_chunks::<LANES>().0).zip(&recalled) {
                let v = S::as_simd_f64s(v).0;
                for p in 0..P {
                    d[p] = simd.mul_f64s(beta, simd.sub_f64s(v[p], recalled[p]));
                }
            }
            let (k, q) = (head(&inputs.k, t, key_head), head(&inputs.q, t, key_head));
            let mut sums = [[simd.splat_f64s(0.0); P]; GROUPS]; // Sᵀq
            recalled = [[simd.splat_f64s(0.0); P]; GROUPS];
            if t + 1 < tokens {
                let (decay, next) = (decay(t + 1), head(&inputs.k, t + 1, key_head));
                for ((s, (k, q)), next) in s.iter_mut().zip(k.iter().zip(q)).zip(next) {
                    let (k, q, next) = (simd.splat_f64s(*k), simd.splat_f64s(*q), simd.splat_f64s(*next));
                    for (i, s) in s.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                        let s = S::as_mut_simd_f64s(s).0;
                        write::<S, P>(simd, s, k, &d[i], q, &mut sums[i]);
                        recall::<S, P>(simd, s, decay, next, &mut recalled[i]);
                    }
                }
            } else {
                for (s, (k, q)) in s.iter_mut().zip(k.iter().zip(q)) {
                    let (k, q) = (simd.splat_f64s(*k), simd.splat_f64s(*q));
                    for (i, s) in s.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                        write::<S, P>(simd, S::as_mut_simd_f64s(s).0, k, &d[i], q, &mut sums[i]);
                    }
                }
            }
            let mut out = [0.0; COLUMNS];
            for (out, sums) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(&sums) {
                S::as_mut_simd_f64s(out).0.copy_from_slice(sums);
            }
            let o = o.as_slice_mut().expect("values of a head are contiguous");
            o[columns.clone()].copy_from_slice(&out[..columns.len()]);
        }
    }
}

/// `S ← S·exp(g)` of one key, and what it adds to `Sᵀk`.
#[inline(always)]
fn recall<S: Simd, const P: usize>(
    simd: S,
    s: &mut [S::f64s],
    decay: S::f64s,
    k: S::f64s,
    recalled: &mut [S::f64s; P],
) {
    for p in 0..P {
        s[p] = simd.mul_f64s(s[p], decay);
        recalled[p] = simd.add_f64s(recalled[p], simd.mul_f64s(s[p], k));
    }
}

/// `S ← S + k dᵀ` of one key, and what it adds to `Sᵀq`.
#[inline(always)]
fn write<S: Simd, const P: usize>(
    simd: S,
    s: &mut [S::f64s],
    k: S::f64s,
    d: &[S::f64s; P],
    q: S::f64s,
    sums: &mut [S::f64s; P],
) {
    for p in 0..P {
        s[p] = simd.add_f64s(s[p], simd.mul_f64s(k, d[p]));
        sums[p] = simd.add_f64s(sums[p], simd.mul_f64s(s[p], q));
    }
}

/// One head of one token.
fn head<'a>(x: &ArrayView3<'a, f64>, t: usize, h: usize) -> &'a [f64] {
    let head = (*x).index_axis_move(Axis(0), t).index_axis_move(Axis(0), h);
    head.to_slice().expect("heads are contiguous")
}
