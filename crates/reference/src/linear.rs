//! A matrix times many tokens.

use model::Matrix;
use ndarray::{Array2, ArrayView2};
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
    let x = Packed::new(x, kernels.tile_tokens());
    let exact = precision == Precision::F32;
    let mut by_row = vec![0.0; features * tokens]; // [N, T]
    by_row.par_chunks_mut((TASK_ROWS * tokens).max(1)).enumerate().for_each_init(
        Buffers::default,
        |buffers, (task, out)| {
            kernels.run(Product { x: &x, w, first_row: task * TASK_ROWS, out, precision, buffers }, exact);
        },
    );
    Array2::from_shape_fn((tokens, features), |(t, n)| by_row[n * tokens + t])
}

/// Working space of a thread, kept from task to task.
#[derive(Default)]
struct Buffers {
    scratch: Vec<f32>,
    narrow: Vec<f32>,
    wide: Vec<Lane>,
    packed: Vec<Lane>,
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
        let whole = tokens / tile * tile;
        for (t, token) in x.outer_iter().enumerate() {
            let (start, width, place) = if t < whole { (t / tile * tile, tile, t % tile) } else { (t, 1, 0) };
            for (i, value) in token.iter().enumerate() {
                lanes[start * depth + i / LANES * width + place][i % LANES] = *value;
            }
        }
        Packed { lanes, tokens, depth }
    }
}

/// Rows `first_row..` of the product, `out` being `[rows, T]`.
struct Product<'a> {
    x: &'a Packed,
    w: &'a Matrix<'a>,
    first_row: usize,
    out: &'a mut [f64],
    precision: Precision,
    buffers: &'a mut Buffers,
}

impl Tiled for Product<'_> {
    #[inline(always)]
    fn run<S: Simd, const P: usize, const R: usize, const T: usize, const FUSED: bool>(mut self, simd: S) {
        let Packed { ref lanes, tokens, depth } = *self.x;
        let (tiles, rest) = lanes.split_at(tokens / T * T * depth);
        if tiles.is_empty() {
            // Too few tokens to share a row's loads: rows stay as they are.
            self.pack_rows(1);
            for (i, x) in rest.chunks_exact(depth).enumerate() {
                self.tokens::<S, P, 1, 1, FUSED>(simd, x.as_chunks().0, i);
            }
            return;
        }
        self.pack_rows(R);
        for (i, x) in tiles.chunks_exact(T * depth).enumerate() {
            self.tokens::<S, P, R, T, FUSED>(simd, x.as_chunks().0, i * T);
        }
        for (i, x) in rest.chunks_exact(depth).enumerate() {
            self.tokens::<S, P, R, 1, FUSED>(simd, x.as_chunks().0, tokens / T * T + i);
        }
    }
}

impl Product<'_> {
    /// All rows of this task times `T` tokens from `first` on.
    #[inline(always)]
    fn tokens<S: Simd, const P: usize, const R: usize, const T: usize, const FUSED: bool>(
        &mut self,
        simd: S,
        x: &[[Lane; T]],
        first: usize,
    ) {
        let tokens = self.x.tokens;
        let rows = self.out.len() / tokens;
        let depth = self.x.depth;
        let packed = self.buffers.packed.as_chunks::<R>().0;
        let mut lanes = vec![[[[0.0; LANES]; T]; R]; packed.len() / depth];
        for start in (0..depth).step_by(BLOCK) {
            let end = depth.min(start + BLOCK);
            for (w, lanes) in packed.chunks_exact(depth).zip(&mut lanes) {
                tile::<S, P, R, T, FUSED>(simd, &w[start..end], &x[start..end], lanes);
            }
        }
        for (group, lanes) in lanes.iter().enumerate() {
            for (row, lanes) in (group * R..rows).zip(lanes) {
                for (t, lane) in lanes.iter().enumerate() {
                    self.out[row * tokens + first + t] = self.precision.round(reduce(lane));
                }
            }
        }
    }

    /// This task's rows, widened to f64 and interleaved by groups of `group`; what fills up the last group belongs to
    /// no row, and its sums go nowhere.
    #[inline(always)]
    fn pack_rows(&mut self, group: usize) {
        let depth = self.x.depth;
        let rows = self.out.len() / self.x.tokens;
        let Buffers { scratch, narrow, wide, packed } = &mut *self.buffers;
        packed.resize(rows.div_ceil(group) * group * depth, [0.0; LANES]);
        narrow.clear();
        narrow.resize(depth * LANES, 0.0);
        wide.resize(depth, [0.0; LANES]);
        for r in 0..rows {
            self.w.row(self.first_row + r, &mut narrow[..self.w.cols()], scratch);
            wide.as_flattened_mut()
                .iter_mut()
                .zip(narrow.iter())
                .for_each(|(wide, &narrow)| *wide = narrow.into());
            let lanes = packed[r / group * group * depth + r % group..].iter_mut().step_by(group);
            lanes.zip(wide.iter()).for_each(|(lane, wide)| *lane = *wide);
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
