//! A matrix times many tokens.

use std::ops::{Deref, DerefMut, Range};

use model::Matrix;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use pulp::Simd;
use rayon::prelude::*;

use crate::dot::{Kernels, LANES, Lane, Tiled, reduce, tile};
use crate::precision::Precision;

/// Rows of the matrix that one task widens and multiplies. At 4096 columns their f64 form is 1 MiB, which a core's
/// own cache holds while the tokens go by.
const TASK_ROWS: usize = 32;

/// Lane groups widened and multiplied before the next ones are: so many of a tile of tokens are 24 KiB, which the
/// first-level cache holds while all the rows of a task go by. Each sum goes on where it stopped.
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
    /// Rows as decoded, each filled up with zeros to whole lane groups.
    narrow: Vec<f32>,
    /// A block of each of these rows: `[rows, BLOCK]`.
    wide: Lanes,
    /// Sums of all tokens, tile by tile: `[row, T]` each.
    sums: Lanes,
}

/// Lane groups that begin where cache lines do, so that no load takes two.
#[derive(Default)]
struct Lanes {
    values: Vec<f64>,
    start: usize,
    len: usize,
}

impl Lanes {
    /// Bytes in a cache line, which is a lane group.
    const LINE: usize = LANES * size_of::<f64>();

    fn zeros(len: usize) -> Lanes {
        let values = vec![0.0; (len + 1) * LANES];
        let start = values.as_ptr().align_offset(Self::LINE);
        Lanes { values, start, len }
    }

    /// Makes room for `len` groups, of any content.
    fn resize(&mut self, len: usize) {
        if self.values.len() < (len + 1) * LANES {
            *self = Lanes::zeros(len);
        }
        self.len = len;
    }
}

impl Deref for Lanes {
    type Target = [Lane];

    fn deref(&self) -> &[Lane] {
        self.values[self.start..][..self.len * LANES].as_chunks().0
    }
}

impl DerefMut for Lanes {
    fn deref_mut(&mut self) -> &mut [Lane] {
        self.values[self.start..][..self.len * LANES].as_chunks_mut().0
    }
}

/// Activations, tokens interleaved for [`tile`]: whole tiles of tokens first, then those left over one by one. An
/// input width that is no multiple of [`LANES`] is filled up with zeros, which change no sum.
struct Packed {
    lanes: Lanes,
    tokens: usize,
    depth: usize,
}

impl Packed {
    fn new(x: ArrayView2<'_, f64>, tile: usize) -> Packed {
        let (tokens, depth) = (x.nrows(), x.ncols().div_ceil(LANES));
        let mut lanes = Lanes::zeros(tokens * depth);
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
        let whole = tokens / T * T;
        let (tiles, rest) = lanes.split_at(whole * depth);
        // Too few tokens to share what is loaded: then rows are used as soon as they are decoded.
        let batch = if whole == 0 { R } else { TASK_ROWS };
        for first in (0..self.out.ncols()).step_by(batch) {
            let rows = first..self.out.ncols().min(first + batch);
            let padded = rows.len().next_multiple_of(R);
            self.decode(rows.clone(), padded);
            self.buffers.sums.resize(padded * tokens);
            for start in (0..depth).step_by(BLOCK) {
                let block = start..depth.min(start + BLOCK);
                self.widen(block.clone());
                for (i, x) in tiles.chunks_exact(T * depth).enumerate() {
                    self.tokens::<S, P, R, T, FUSED>(
                        simd,
                        i * T,
                        x.as_chunks().0,
                        block.clone(),
                        rows.clone(),
                    );
                }
                for (i, x) in rest.chunks_exact(depth).enumerate() {
                    self.tokens::<S, P, R, 1, FUSED>(
                        simd,
                        whole + i,
                        x.as_chunks().0,
                        block.clone(),
                        rows.clone(),
                    );
                }
            }
        }
    }
}

impl Product<'_> {
    /// A block of `T` tokens, `first` on, times the same of the rows that are widened; with the last block their sums
    /// are complete.
    #[inline(always)]
    fn tokens<S: Simd, const P: usize, const R: usize, const T: usize, const FUSED: bool>(
        &mut self,
        simd: S,
        first: usize,
        x: &[[Lane; T]],
        block: Range<usize>,
        rows: Range<usize>,
    ) {
        let Buffers { wide, sums, .. } = &mut *self.buffers;
        let padded = rows.len().next_multiple_of(R);
        let sums = &mut sums[first * padded..][..T * padded];
        let tiles = sums.as_chunks_mut::<T>().0.as_chunks_mut::<R>().0;
        for (w, sums) in wide.chunks_exact(R * block.len()).zip(tiles) {
            tile::<S, P, R, T, FUSED>(simd, w, &x[block.clone()], block.start > 0, sums);
        }
        if block.end == x.len() {
            for (row, sums) in rows.zip(sums.as_chunks::<T>().0) {
                for (t, sum) in sums.iter().enumerate() {
                    self.out[[first + t, row]] = self.precision.round(reduce(sum));
                }
            }
        }
    }

    /// Decodes rows of this task. What fills up the last group of them belongs to no row, and its sums go nowhere.
    #[inline(always)]
    fn decode(&mut self, rows: Range<usize>, padded: usize) {
        let width = self.x.depth * LANES;
        let Buffers { scratch, narrow, .. } = &mut *self.buffers;
        narrow.resize(padded * width, 0.0);
        for (row, narrow) in rows.zip(narrow.chunks_exact_mut(width)) {
            let (narrow, padding) = narrow.split_at_mut(self.w.cols());
            self.w.row(self.first_row + row, narrow, scratch);
            padding.fill(0.0);
        }
    }

    /// Widens a block of the decoded rows to f64.
    #[inline(always)]
    fn widen(&mut self, block: Range<usize>) {
        let width = self.x.depth * LANES;
        let Buffers { narrow, wide, .. } = &mut *self.buffers;
        wide.resize(narrow.len() / width * block.len());
        let rows = wide.as_flattened_mut().chunks_exact_mut(block.len() * LANES);
        for (wide, narrow) in rows.zip(narrow.chunks_exact(width)) {
            let narrow = &narrow[block.start * LANES..block.end * LANES];
            wide.iter_mut().zip(narrow).for_each(|(wide, &narrow)| *wide = narrow.into());
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
