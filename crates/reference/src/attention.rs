//! Causal softmax attention over the cache.

use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;

use crate::dot::dot;
use crate::kernels::Kernels;
use crate::math::softmax;

/// `softmax(q·kᵀ / sqrt(Dh)) v` for each query, over positions up to its own: `[T, H, Dh]`, unrounded.
///
/// `q` is `[T, H, Dh]`, its first token at position `past`; `k` and `v` are flat `[past + T, Hkv, Dh]`. Query head
/// `h` reads key head `h / (H/Hkv)`.
pub(crate) fn attention(
    q: ArrayView3<'_, f64>,
    k: &[f64],
    v: &[f64],
    kv_heads: usize,
    past: usize,
    kernels: Kernels,
) -> Array3<f64> {
    let (tokens, heads, head_dim) = q.dim();
    let scale = 1.0 / (head_dim as f64).sqrt();
    let stride = kv_heads * head_dim;
    let mut out = Array3::zeros((tokens, heads, head_dim));
    out.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(t, mut out)| {
        let positions = past + t + 1;
        let mut weights = vec![0.0; positions];
        for (h, mut out) in out.outer_iter_mut().enumerate() {
            let start = h / (heads / kv_heads) * head_dim;
            let head = |p: usize| p * stride + start..p * stride + start + head_dim;
            let query = q.index_axis(Axis(0), t);
            let query = query.index_axis_move(Axis(0), h);
            let query = query.as_slice().expect("queries are contiguous");
            let out = out.as_slice_mut().expect("heads of a fresh array are contiguous");
            kernels.vectorize(
                #[inline(always)]
                || {
                    for (p, weight) in weights.iter_mut().enumerate() {
                        *weight = dot(query, &k[head(p)]) * scale;
                    }
                    softmax(&mut weights);
                    for (p, weight) in weights.iter().enumerate() {
                        out.iter_mut().zip(&v[head(p)]).for_each(|(o, v)| *o += weight * v);
                    }
                },
            );
        }
    });
    out
}
