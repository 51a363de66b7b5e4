//! A matrix times many tokens.

use std::ops::Range;

use model::Matrix;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use pulp::Simd;
use rayon::prelude::*;

use crate::dot::{Kernels, LANES, Lane, Tiled, reduce, tile};
use crate::precision::Precision;

/// Rows of the matrix that one task widens and multiplies. At 4096 columns their f64 form is 1 MiB, which a core's
/// own cache holds while the tokens go by.
const TASK_ROWS: usize = 32;

/// Lane groups multiplied before the next group of rows takes its turn: so many of a tile of tokens are 24 KiB, which
/// the first-level cache holds while all the rows of a task go by. The lanes go on where they stopped.
const BLOCK: usize = 64;

/// `y[t, n] = Σ_k x[t, k] · w[n, k]`, rounded: `[T, K] · [N, K]ᵀ → [T, N]`.
///
/// Threads split rows of `w`, never a sum.
pub(crate) fn linear(
    x: ArrayView2<'_, f64>,
    w: &Matrix<'_>,
    kernels: Kernels,
    precision: Precision,
) -> Array2<f64> {
    let (tokens, features) = (x.nrows(), w.rows());
    assert_eq!(x.ncols(), w.cols(), "activations and matrix agree on the input width");
    debug_assert!(
        precision == Precision::F64 || x.iter().all(|&v| precision.round(v).to_bits() == v.to_bits())
    );
    let x = Packed::new(x, kernels.tile_tokens());
    let exact = precision == Precision::F32;
    let mut y = Array2::zeros((tokens, features));
    y.axis_chunks_iter_mut(Axis(1), TASK_ROWS).into_par_iter().enumerate().for_each_init(
        Buffers::default,
        |buffers, (task, out)| {
            kernels.run(Product { x: &x, w, first_row: task * TASK_ROWS, out, precision, buffers }, exact);
        },
    );
    y
}

/// Working space of a thread, kept from task to task.
#[derive(Default)]
struct Buffers {
    scratch: Vec<f32>,
    narrow: Vec<f32>,
    wide: Vec<Lane>,
}

/// Activations, tokens interleaved for [`tile`]: whole tiles of tokens first, then those left over one by one. An
/// input width that is no multiple of [`LANES`] is filled up with zeros, which change no sum.
struct Packed {
    lanes: Vec<Lane>,
    tokens: usize,
    depth: usize,
}

impl Packed {
    fn new(x: ArrayView2<'_, f64>, tile: usize) -> Packed {
        let (tokens, depth) = (x.nrows(), x.ncols().div_ceil(LANES));
        let mut lanes = vec![[0.0; LANES]; tokens * depth];
        lanes.par_chunks_mut((tile * depth).max(1)).zip(x.axis_chunks_iter(Axis(0), tile)).for_each(
            |(lanes, x)| {
                let together = x.nrows() == tile;
                for (t, token) in x.outer_iter().enumerate() {
                    let token = token.to_slice().expect("rows of activations are contiguous");
                    let (start, width) = if together { (t, tile) } else { (t * depth, 1) };
                    for (lane, values) in lanes[start..].iter_mut().step_by(width).zip(token.chunks(LANES)) {
                        lane[..values.len()].copy_from_slice(values);
                    }
                }
            },
        );
        Packed { lanes, tokens, depth }
    }
}

/// Rows `first_row..` of the matrix times all tokens: `out` is `[T, rows]`.
struct Product<'a> {
    x: &'a Packed,
    w: &'a Matrix<'a>,
    first_row: usize,
    out: ArrayViewMut2<'a, f64>,
    precision: Precision,
    buffers: &'a mut Buffers,
}

impl Tiled for Product<'_> {
    #[inline(always)]
    fn run<S: Simd, const P: usize, const R: usize, const T: usize, const FUSED: bool>(mut self, simd: S) {
        let Packed { ref lanes, tokens, depth } = *self.x;
        let (tiles, rest) = lanes.split_at(tokens / T * T * depth);
        // Too few tokens to share what is loaded: then rows are used as soon as they are widened.
        let batch = if tiles.is_empty() { R } else { TASK_ROWS };
        for first in (0..self.out.ncols()).step_by(batch) {
            let rows = first..self.out.ncols().min(first + batch);
            self.widen::<R>(rows.clone());
            for (i, x) in tiles.chunks_exact(T * depth).enumerate() {
                self.tokens::<S, P, R, T, FUSED>(simd, rows.clone(), x.as_chunks().0, i * T);
            }
            for (i, x) in rest.chunks_exact(depth).enumerate() {
                self.tokens::<S, P, R, 1, FUSED>(simd, rows.clone(), x.as_chunks().0, tokens / T * T + i);
            }
        }
    }
}

impl Product<'_> {
    /// The widened `rows` times `T` tokens from `first` on.
    #[inline(always)]
    fn tokens<S: Simd, const P: usize, const R: usize, const T: usize, const FUSED: bool>(
        &mut self,
        simd: S,
        rows: Range<usize>,
        x: &[[Lane; T]],
        first: usize,
    ) {
        let depth = self.x.depth;
        let wide = &self.buffers.wide;
        let group = |group: usize, block: Range<usize>| -> [&[Lane]; R] {
            let mut w: [&[Lane]; R] = [&[]; R];
            for r in 0..R {
                w[r] = &wide[(group * R + r) * depth..][block.clone()];
            }
            w
        };
        let store = |out: &mut ArrayViewMut2<'_, f64>, group: usize, lanes: &[[Lane; T]; R]| {
            for (row, lanes) in (rows.start + group * R..rows.end).zip(lanes) {
                for (t, lane) in lanes.iter().enumerate() {
                    out[[first + t, row]] = self.precision.round(reduce(lane));
                }
            }
        };
        if rows.len() <= R {
            let mut lanes = [[[0.0; LANES]; T]; R];
            tile::<S, P, R, T, FUSED>(simd, &group(0, 0..depth), x, &mut lanes);
            return store(&mut self.out, 0, &lanes);
        }
        let mut lanes = vec![[[[0.0; LANES]; T]; R]; rows.len().div_ceil(R)];
        for start in (0..depth).step_by(BLOCK) {
            let end = depth.min(start + BLOCK);
            for (g, lanes) in lanes.iter_mut().enumerate() {
                tile::<S, P, R, T, FUSED>(simd, &group(g, start..end), &x[start..end], lanes);
            }
        }
        for (group, lanes) in lanes.iter().enumerate() {
            store(&mut self.out, group, lanes);
        }
    }

    /// Widens rows of this task to f64. What fills up the last group of `R` belongs to no row, and its sums go nowhere.
    #[inline(always)]
    fn widen<const R: usize>(&mut self, rows: Range<usize>) {
        let depth = self.x.depth;
        let Buffers { scratch, narrow, wide } = &mut *self.buffers;
        wide.resize(rows.len().div_ceil(R) * R * depth, [0.0; LANES]);
        narrow.resize(depth * LANES, 0.0);
        narrow[self.w.cols()..].fill(0.0);
        for (row, wide) in rows.zip(wide.chunks_exact_mut(depth)) {
            self.w.row(self.first_row + row, &mut narrow[..self.w.cols()], scratch);
            wide.as_flattened_mut()
                .iter_mut()
                .zip(narrow.iter())
                .for_each(|(wide, &narrow)| *wide = narrow.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use codec::Encoding;
    use proptest::prelude::*;

    use super::*;
    use crate::dot::dot;

    fn values(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * if state & 15 == 0 { 1e3 } else { 1.0 }
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Every instruction set, every tail of tokens, rows and columns: the bits of the plain definition.
        #[test]
        fn every_kernel_has_the_bits_of_dot(tokens in 1usize..20, rows in 1usize..70, cols in 1usize..70, seed: u64) {
            let weights = values(seed, rows * cols);
            let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
            let matrix = Matrix::new(&bytes, Encoding::F32, rows, cols).unwrap();
            let x: Vec<f64> = values(!seed, tokens * cols).into_iter().map(f64::from).collect();
            let x = Array2::from_shape_vec((tokens, cols), x).unwrap();
            for precision in [Precision::F32, Precision::F64] {
                for kernels in Kernels::all() {
                    let y = linear(x.view(), &matrix, kernels, precision);
                    for t in 0..tokens {
                        for n in 0..rows {
                            let w: Vec<f64> = weights[n * cols..][..cols].iter().map(|&w| w.into()).collect();
                            let expected = precision.round(dot(x.row(t).as_slice().unwrap(), &w));
                            prop_assert_eq!(y[[t, n]].to_bits(), expected.to_bits(), "{} {:?}", kernels.name(), (t, n));
                        }
                    }
                }
            }
        }
    }
}
