//! Operations on whole activations. What they return is rounded, unless they say otherwise.

use std::ops::Range;

use model::Matrix;
use ndarray::{Array, Array1, Array2, Array3, ArrayViewMut2, Axis, Dimension};
use rayon::prelude::*;

use crate::dot::dot;
use crate::ggml::{self, Activations};
use crate::kernels::Kernels;
use crate::linear::{Packed, linear, linear_into};
use crate::norm::rms_norm;
use crate::precision::{Kept, Precision};

/// How to compute: which tiles, to what to round, and by whose inner products.
#[derive(Clone, Copy)]
pub(crate) struct Ops {
    pub kernels: Kernels,
    pub precision: Precision,
    pub activations: Activations,
}

/// What enters one or more matrices.
pub(crate) enum Input<'a> {
    /// In the order in which exact products read it.
    Packed(Packed<'a>),
    /// `[T, K]`, for ggml's products to make blocks of.
    Rows(Array2<f64>),
}

/// Elements that one task computes: 16 KiB.
const CHUNK: usize = 2048;

impl Ops {
    fn vectorize(&self, work: impl FnOnce()) {
        self.kernels.vectorize(work);
    }

    /// `[T, K]` as products read it.
    pub(crate) fn pack<'a>(&self, x: &'a Array2<f64>) -> Input<'a> {
        let rounded = |&x: &f64| self.precision.round(x).to_bits() == x.to_bits();
        debug_assert!(x.iter().all(rounded));
        match self.activations {
            Activations::F32 => Input::Packed(Packed::new(x)),
            Activations::Q8 => Input::Rows(x.clone()),
        }
    }

    /// `[T, K] · [N, K]ᵀ → [T, N]`.
    pub(crate) fn linear(&self, x: &Input<'_>, w: &Matrix<'_>) -> Array2<f64> {
        match x {
            Input::Packed(x) => linear(x, w, self.kernels, self.precision),
            Input::Rows(x) => ggml::linear(x.view(), w, self.kernels),
        }
    }

    /// The same into `y`, of f32 if everything is rounded.
    pub(crate) fn linear_into<T: Kept>(&self, x: &Input<'_>, w: &Matrix<'_>, mut y: ArrayViewMut2<'_, T>) {
        match x {
            Input::Packed(x) => linear_into(x, w, self.kernels, self.precision, y),
            Input::Rows(x) => y.zip_mut_with(&ggml::linear(x.view(), w, self.kernels), |y, x| *y = T::of(*x)),
        }
    }

    /// Rounds every element.
    pub(crate) fn round<D: Dimension>(&self, mut x: Array<f64, D>) -> Array<f64, D> {
        let flat = x.as_slice_mut().expect("in standard layout");
        flat.par_chunks_mut(CHUNK).for_each(|x| {
            self.vectorize(
                #[inline(always)]
                || x.iter_mut().for_each(|x| *x = self.precision.round(*x)),
            )
        });
        x
    }

    /// RMSNorm of every row.
    pub(crate) fn rms_norm(&self, x: &Array2<f64>, gain: &[f64], eps: f64) -> Array2<f64> {
        let mut y = Array2::zeros(x.raw_dim());
        y.axis_iter_mut(Axis(0)).into_par_iter().zip(x.axis_iter(Axis(0))).for_each(|(mut y, x)| {
            y.assign(&x);
            let y = y.as_slice_mut().expect("rows of an owned array are contiguous");
            self.vectorize(
                #[inline(always)]
                || {
                    rms_norm(y, gain, eps);
                    y.iter_mut().for_each(|y| *y = self.precision.round(*y));
                },
            );
        });
        y
    }

    /// The residual stream takes a branch in.
    pub(crate) fn add(&self, x: Array2<f64>, y: &Array2<f64>) -> Array2<f64> {
        self.zip(x, y, |x, y| x + y)
    }

    /// `f(column, value)` of every element.
    pub(crate) fn map(&self, x: &Array2<f64>, f: impl Fn(usize, f64) -> f64) -> Array2<f64> {
        Array2::from_shape_fn(x.raw_dim(), |(t, c)| self.precision.round(f(c, x[[t, c]])))
    }

    /// `f(a, b)` element by element, where `a` was.
    pub(crate) fn zip(
        &self,
        mut a: Array2<f64>,
        b: &Array2<f64>,
        f: impl Fn(f64, f64) -> f64 + Sync,
    ) -> Array2<f64> {
        assert_eq!(a.dim(), b.dim());
        let of_a = a.as_slice_mut().expect("in standard layout").par_chunks_mut(CHUNK);
        of_a.zip(b.as_slice().expect("in standard layout").par_chunks(CHUNK)).for_each(|(a, b)| {
            self.vectorize(
                #[inline(always)]
                || a.iter_mut().zip(b).for_each(|(a, b)| *a = self.precision.round(f(*a, *b))),
            )
        });
        a
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
        let by_tap: Vec<f64> = (0..taps.len()).map(|i| taps[i % channels * kernel + i / channels]).collect();
        let x = x.as_slice().expect("in standard layout");
        let row = |p: usize| match p.checked_sub(kernel - 1) {
            Some(t) => &x[t * channels..][..channels],
            None => &history[p * channels..][..channels],
        };
        let mut y = Array2::zeros((tokens, channels));
        y.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(t, mut y)| {
            let y = y.as_slice_mut().expect("rows of a fresh array are contiguous");
            for (i, y) in y.chunks_mut(CHUNK).enumerate() {
                let columns = i * CHUNK..i * CHUNK + y.len();
                self.vectorize(
                    #[inline(always)]
                    || {
                        for (j, taps) in by_tap.chunks_exact(channels).enumerate() {
                            let (taps, x) = (&taps[columns.clone()], &row(t + j)[columns.clone()]);
                            y.iter_mut().zip(taps.iter().zip(x)).for_each(|(y, (tap, x))| *y += tap * x);
                        }
                        y.iter_mut().for_each(|y| *y = self.precision.round(activation(*y)));
                    },
                );
            }
        });
        let new = tokens.min(kernel - 1);
        history.drain(..new * channels);
        history.extend_from_slice(&x[(tokens - new) * channels..]);
        y
    }

    /// Columns `range` of `[T, ·]` as `heads` heads: `[T, H, n]`.
    pub(crate) fn heads(&self, x: &Array2<f64>, range: Range<usize>, heads: usize) -> Array3<f64> {
        let mut y = Array3::zeros((x.nrows(), heads, range.len() / heads));
        y.axis_iter_mut(Axis(0)).into_par_iter().zip(x.axis_iter(Axis(0))).for_each(|(mut y, x)| {
            let y = y.as_slice_mut().expect("tokens of a fresh array are contiguous");
            y.copy_from_slice(&x.to_slice().expect("rows are contiguous")[range.clone()]);
        });
        y
    }

    /// `[T, H, n]` as `[T, H·n]`.
    pub(crate) fn flat(&self, x: Array3<f64>) -> Array2<f64> {
        let (tokens, heads, width) = x.dim();
        x.into_shape_with_order((tokens, heads * width)).expect("same elements")
    }

    /// `f(token, head)` on every head in place, unrounded.
    pub(crate) fn each_head(&self, x: &mut Array3<f64>, f: impl Fn(usize, &mut [f64]) + Sync) {
        x.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(t, mut heads)| {
            for mut head in heads.outer_iter_mut() {
                let head = head.as_slice_mut().expect("heads of an owned array are contiguous");
                self.vectorize(
                    #[inline(always)]
                    || f(t, head),
                );
            }
        });
    }
}
