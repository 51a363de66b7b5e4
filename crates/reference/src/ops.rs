//! Operations on whole activations. What they return is rounded, unless they say otherwise.

use std::ops::Range;

use model::Matrix;
use ndarray::{Array, Array1, Array2, Array3, ArrayView3, Axis, Dimension, Slice, Zip};
use rayon::prelude::*;

use crate::dot::{Kernels, dot};
use crate::ggml::{self, Activations};
use crate::linear::linear;
use crate::norm::rms_norm;
use crate::precision::Precision;

/// How to compute: which tiles, to what to round, and by whose inner products.
#[derive(Clone, Copy)]
pub(crate) struct Ops {
    pub kernels: Kernels,
    pub precision: Precision,
    pub activations: Activations,
}

impl Ops {
    /// `[T, K] · [N, K]ᵀ → [T, N]`.
    pub(crate) fn linear(&self, x: &Array2<f64>, w: &Matrix<'_>) -> Array2<f64> {
        match self.activations {
            Activations::F32 => linear(x.view(), w, self.kernels, self.precision),
            Activations::Q8 => ggml::linear(x.view(), w, self.kernels),
        }
    }

    /// Rounds every element.
    pub(crate) fn round<D: Dimension>(&self, mut x: Array<f64, D>) -> Array<f64, D> {
        x.par_mapv_inplace(|x| self.precision.round(x));
        x
    }

    /// RMSNorm of every row.
    pub(crate) fn rms_norm(&self, x: &Array2<f64>, gain: &[f64], eps: f64) -> Array2<f64> {
        let mut y = x.clone();
        y.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
            let row = row.as_slice_mut().expect("rows of an owned array are contiguous");
            rms_norm(row, gain, eps);
            row.iter_mut().for_each(|x| *x = self.precision.round(*x));
        });
        y
    }

    /// The residual stream takes a branch in.
    pub(crate) fn add(&self, x: Array2<f64>, y: &Array2<f64>) -> Array2<f64> {
        self.round(x + y)
    }

    /// `f(column, value)` of every element.
    pub(crate) fn map(&self, x: &Array2<f64>, f: impl Fn(usize, f64) -> f64) -> Array2<f64> {
        Array2::from_shape_fn(x.raw_dim(), |(t, c)| self.precision.round(f(c, x[[t, c]])))
    }

    /// `f(a, b)` element by element.
    pub(crate) fn zip(
        &self,
        a: &Array2<f64>,
        b: &Array2<f64>,
        f: impl Fn(f64, f64) -> f64 + Sync,
    ) -> Array2<f64> {
        Zip::from(a).and(b).par_map_collect(|&a, &b| self.precision.round(f(a, b)))
    }

    /// `f(row, a, b)` element by element.
    pub(crate) fn zip_rows(
        &self,
        a: &Array2<f64>,
        b: &Array2<f64>,
        f: impl Fn(usize, f64, f64) -> f64,
    ) -> Array2<f64> {
        Array2::from_shape_fn(a.raw_dim(), |(t, c)| self.precision.round(f(t, a[[t, c]], b[[t, c]])))
    }

    /// The inner product of every row with one vector: `[T]`.
    pub(crate) fn dot_rows(&self, x: &Array2<f64>, w: &[f64]) -> Array1<f64> {
        let narrow = |x: &f64| *x as f32;
        let product = |row: &[f64]| match self.activations {
            Activations::F32 => self.precision.round(dot(row, w)),
            // ggml keeps vectors in f32.
            Activations::Q8 => ggml::dot_f32(w.iter().map(narrow), row.iter().map(narrow)).into(),
        };
        x.outer_iter().map(|row| product(&row.to_vec())).collect()
    }

    /// A depthwise causal convolution over time with an activation behind it: `[T, C] → [T, C]`.
    ///
    /// `taps` is `[C, taps]`, newest last; `history` holds the last `taps − 1` rows before these, `[taps−1, C]`, and
    /// then those of these.
    pub(crate) fn causal_conv(
        &self,
        x: &Array2<f64>,
        taps: &[f64],
        history: &mut Vec<f64>,
        activation: impl Fn(f64) -> f64 + Sync,
    ) -> Array2<f64> {
        let (tokens, channels) = x.dim();
        let kernel = taps.len() / channels;
        history.extend(x.iter());
        let rows = &history[..]; // [taps−1+T, C]
        let mut y = Array2::zeros((tokens, channels));
        y.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(t, mut y)| {
            for (c, y) in y.iter_mut().enumerate() {
                let mut sum = 0.0;
                for j in 0..kernel {
                    sum += taps[c * kernel + j] * rows[(t + j) * channels + c];
                }
                *y = self.precision.round(activation(sum));
            }
        });
        history.drain(..tokens * channels);
        y
    }

    /// Columns `range` of `[T, ·]` as `heads` heads: `[T, H, n]`.
    pub(crate) fn heads(&self, x: &Array2<f64>, range: Range<usize>, heads: usize) -> Array3<f64> {
        let (tokens, width) = (x.nrows(), range.len());
        let x = x.slice_axis(Axis(1), Slice::from(range));
        let owned = x.as_standard_layout().into_owned();
        owned.into_shape_with_order((tokens, heads, width / heads)).expect("heads divide the width")
    }

    /// `[T, H, n]` as `[T, H·n]`.
    pub(crate) fn flat(&self, x: ArrayView3<'_, f64>) -> Array2<f64> {
        let (tokens, heads, width) = x.dim();
        let owned = x.as_standard_layout().into_owned();
        owned.into_shape_with_order((tokens, heads * width)).expect("same elements")
    }

    /// `f(token, head)` on every head in place, unrounded.
    pub(crate) fn each_head(&self, x: &mut Array3<f64>, f: impl Fn(usize, &mut [f64]) + Sync) {
        x.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(t, mut heads)| {
            for mut head in heads.outer_iter_mut() {
                f(t, head.as_slice_mut().expect("heads of an owned array are contiguous"));
            }
        });
    }
}
