//! The gated delta rule, in its recurrent form, because that is the definition.

use ndarray::{Array3, ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;

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

/// Per value head and token, with `S` in `[K, V]`: `S ← S·exp(g)`; `d = beta·(v − Sᵀk)`; `S ← S + k dᵀ`; `o = Sᵀq`.
///
/// `state` is `[Hv, K, V]`, kept in f64 between calls. Sums over K run in order for every V, so that neither
/// threads (which split heads) nor the split of tokens over calls changes a bit. Returns `o`, `[T, Hv, V]`, unrounded.
pub(crate) fn delta_rule(inputs: &DeltaInputs<'_>, state: &mut [f64]) -> Array3<f64> {
    let (tokens, heads, value_dim) = inputs.v.dim();
    let (_, key_heads, key_dim) = inputs.k.dim();
    let mut by_head = Array3::zeros((heads, tokens, value_dim)); // [Hv, T, V]
    let outputs = by_head.axis_iter_mut(Axis(0)).into_par_iter();
    outputs.zip(state.par_chunks_exact_mut(key_dim * value_dim)).enumerate().for_each(|(h, (mut out, s))| {
        let key_head = h / (heads / key_heads);
        let mut d = vec![0.0; value_dim];
        for t in 0..tokens {
            let (k, q, v) =
                (head(&inputs.k, t, key_head), head(&inputs.q, t, key_head), head(&inputs.v, t, h));
            let decay = exp(inputs.g[[t, h]]);
            let beta = inputs.beta[[t, h]];
            d.fill(0.0);
            for (s, k) in s.chunks_exact_mut(value_dim).zip(k) {
                for (s, d) in s.iter_mut().zip(&mut d) {
                    *s *= decay;
                    *d += *s * k;
                }
            }
            for (d, v) in d.iter_mut().zip(v) {
                *d = beta * (v - *d);
            }
            let mut o = out.row_mut(t);
            let o = o.as_slice_mut().expect("rows of a fresh array are contiguous");
            for (s, (k, q)) in s.chunks_exact_mut(value_dim).zip(k.iter().zip(q)) {
                for ((s, d), o) in s.iter_mut().zip(&d).zip(o.iter_mut()) {
                    *s += k * d;
                    *o += *s * q;
                }
            }
        }
    });
    by_head.permuted_axes([1, 0, 2]).as_standard_layout().into_owned()
}

/// One head of one token.
fn head<'a>(x: &ArrayView3<'a, f64>, t: usize, h: usize) -> &'a [f64] {
    let head = (*x).index_axis_move(Axis(0), t).index_axis_move(Axis(0), h);
    head.to_slice().expect("heads are contiguous")
}
