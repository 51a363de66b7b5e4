//! The gated delta rule, in its recurrent form, because that is the definition.

use ndarray::{Array3, ArrayView2, ArrayView3, Axis};
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
                let mut out = [0.0; COLUMNS];
                let step = Step { s: &mut block, k, q, v: &v, decay, beta, o: &mut out };
                kernels.run(step, false);
                o.as_slice_mut().expect("values of a head are contiguous")[columns.clone()]
                    .copy_from_slice(&out[..width]);
            }
            for (block, s) in block.iter().zip(s.chunks_exact_mut(value_dim)) {
                s[columns.clone()].copy_from_slice(&block[..width]);
            }
        }
    });
    o
}

/// One token: moves `s` on, and `o` becomes `Sᵀq`.
struct Step<'a> {
    s: &'a mut [[f64; COLUMNS]],
    k: &'a [f64],
    q: &'a [f64],
    v: &'a [f64; COLUMNS],
    decay: f64,
    beta: f64,
    o: &'a mut [f64; COLUMNS],
}

/// Lane groups of a block's columns.
const GROUPS: usize = COLUMNS / LANES;

impl Tiled for Step<'_> {
    #[inline(always)]
    fn run<S: Simd, const P: usize, const R: usize, const G: usize, const FUSED: bool>(self, simd: S) {
        let Step { s, k, q, v, decay, beta, o } = self;
        let decay = simd.splat_f64s(decay);
        let mut recalled = [[simd.splat_f64s(0.0); P]; GROUPS]; // Sᵀk
        for (s, k) in s.iter_mut().zip(k) {
            let k = simd.splat_f64s(*k);
            for (s, recalled) in s.as_chunks_mut::<LANES>().0.iter_mut().zip(&mut recalled) {
                let s = S::as_mut_simd_f64s(s).0;
                for p in 0..P {
                    s[p] = simd.mul_f64s(s[p], decay);
                    recalled[p] = simd.add_f64s(recalled[p], simd.mul_f64s(s[p], k));
                }
            }
        }
        let mut d = [[simd.splat_f64s(0.0); P]; GROUPS];
        for ((d, v), recalled) in d.iter_mut().zip(v.as_chunks::<LANES>().0).zip(&recalled) {
            let v = S::as_simd_f64s(v).0;
            for p in 0..P {
                d[p] = simd.mul_f64s(simd.splat_f64s(beta), simd.sub_f64s(v[p], recalled[p]));
            }
        }
        let mut sums = [[simd.splat_f64s(0.0); P]; GROUPS]; // Sᵀq
        for (s, (k, q)) in s.iter_mut().zip(k.iter().zip(q)) {
            let (k, q) = (simd.splat_f64s(*k), simd.splat_f64s(*q));
            for (s, (d, sum)) in s.as_chunks_mut::<LANES>().0.iter_mut().zip(d.iter().zip(&mut sums)) {
                let s = S::as_mut_simd_f64s(s).0;
                for p in 0..P {
                    s[p] = simd.add_f64s(s[p], simd.mul_f64s(k, d[p]));
                    sum[p] = simd.add_f64s(sum[p], simd.mul_f64s(s[p], q));
                }
            }
        }
        for (o, sums) in o.as_chunks_mut::<LANES>().0.iter_mut().zip(&sums) {
            S::as_mut_simd_f64s(o).0.copy_from_slice(sums);
        }
    }
}

/// One head of one token.
fn head<'a>(x: &ArrayView3<'a, f64>, t: usize, h: usize) -> &'a [f64] {
    let head = (*x).index_axis_move(Axis(0), t).index_axis_move(Axis(0), h);
    head.to_slice().expect("heads are contiguous")
}
