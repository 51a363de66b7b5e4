//! A matrix times tokens.
//!
//! Every sum is [`dot`](crate::dot::dot)'s, to the bit: tiles share loads, never sums. Up to seven tokens are multiplied
//! row by row, as rows are decoded (`few`); from eight on a register holds one lane of eight tokens (`many`).

mod few;
mod many;

use std::cell::RefCell;

use model::Matrix;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use pulp::Simd;
use rayon::prelude::*;

use crate::dot::LANES;
use crate::kernels::Kernels;
use crate::lanes::Lanes;
use crate::precision::Precision;

/// Rows of the matrix that one task multiplies.
const TASK_ROWS: usize = 48;

/// Activations in the order in which products read them. A width that is no multiple of [`LANES`] is filled up with
/// zeros, which change no sum; so are tokens, whose sums go nowhere.
pub(crate) struct Packed {
    /// Of few tokens `[T, depth]`, eight successive columns each. Of many `[⌈T/8⌉, LANES, depth]`, a column of eight
    /// tokens each: column `8i + l` is the `i`-th of lane `l`.
    lanes: Lanes,
    tokens: usize,
    cols: usize,
    /// Lane groups of a row.
    depth: usize,
}

impl Packed {
    /// Of `[T, K]`.
    pub(crate) fn new(x: ArrayView2<'_, f64>) -> Packed {
        let (tokens, cols) = x.dim();
        let depth = cols.div_ceil(LANES);
        let lanes = if tokens < LANES { by_token(x, depth) } else { by_lane(x, depth) };
        Packed { lanes, tokens, cols, depth }
    }
}

fn by_token(x: ArrayView2<'_, f64>, depth: usize) -> Lanes {
    let mut lanes = Lanes::zeros(x.nrows() * depth);
    for (lanes, x) in lanes.as_flattened_mut().chunks_exact_mut((depth * LANES).max(1)).zip(x.outer_iter()) {
        lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane = *x);
    }
    lanes
}

fn by_lane(x: ArrayView2<'_, f64>, depth: usize) -> Lanes {
    let mut lanes = Lanes::zeros(x.nrows().div_ceil(LANES) * LANES * depth);
    let groups = lanes.par_chunks_exact_mut((LANES * depth).max(1));
    groups.zip(x.axis_chunks_iter(Axis(0), LANES)).for_each(|(group, x)| {
        for (t, x) in x.outer_iter().enumerate() {
            let x = x.to_slice().expect("rows of activations are contiguous");
            for (i, x) in x.chunks(LANES).enumerate() {
                for (l, x) in x.iter().enumerate() {
                    group[l * depth + i][t] = *x;
                }
            }
        }
    });
    lanes
}

/// `y[t, n] = Σ_k x[t, k] · w[n, k]`, rounded: `[T, K] · [N, K]ᵀ → [T, N]`.
pub(crate) fn linear(x: &Packed, w: &Matrix<'_>, kernels: Kernels, precision: Precision) -> Array2<f64> {
    // Activations that are f32 make exact products.
    products(x, w, kernels, precision, precision == Precision::F32)
}

/// Threads split rows of `w`, never a sum.
fn products(x: &Packed, w: &Matrix<'_>, kernels: Kernels, precision: Precision, exact: bool) -> Array2<f64> {
    assert_eq!(x.cols, w.cols(), "activations and matrix agree on the input width");
    let mut y = Array2::zeros((x.tokens, w.rows()));
    y.axis_chunks_iter_mut(Axis(1), TASK_ROWS).into_par_iter().enumerate().for_each(|(task, out)| {
        BUFFERS.with_borrow_mut(|buffers| {
            let task = Task { x, w, first_row: task * TASK_ROWS, out, precision, buffers };
            match x.tokens < LANES {
                true => kernels.run(few::Product(task), exact),
                false => kernels.run(many::Product(task), exact),
            }
        });
    });
    y
}

/// Rows `first_row..` of the matrix times all tokens: `out` is `[T, rows]`.
struct Task<'a> {
    x: &'a Packed,
    w: &'a Matrix<'a>,
    first_row: usize,
    out: ArrayViewMut2<'a, f64>,
    precision: Precision,
    buffers: &'a mut Buffers,
}

/// Working space of a thread.
#[derive(Default)]
struct Buffers {
    scratch: Vec<f32>,
    /// Rows as decoded.
    narrow: Vec<f32>,
    /// Rows in f64, in the order in which they are read.
    wide: Lanes,
    /// Sums that are not complete.
    sums: Lanes,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl Task<'_> {
    /// Decodes a row of the task to `narrow[at..]`, filled up with zeros to whole lane groups.
    #[inline(always)]
    fn decode(&mut self, row: usize, at: usize) {
        let Buffers { scratch, narrow, .. } = &mut *self.buffers;
        let end = at + self.x.depth * LANES;
        if narrow.len() < end {
            narrow.resize(end, 0.0);
        }
        let (narrow, padding) = narrow[at..end].split_at_mut(self.x.cols);
        self.w.row(self.first_row + row, narrow, scratch);
        padding.fill(0.0);
    }
}

/// `a · b + sum`; a fused one if it gives the same bits, which exact products do.
#[inline(always)]
fn multiply_add<S: Simd, const FUSED: bool>(simd: S, a: S::f64s, b: S::f64s, sum: S::f64s) -> S::f64s {
    match FUSED {
        true => simd.mul_add_f64s(a, b, sum),
        false => simd.add_f64s(sum, simd.mul_f64s(a, b)),
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

    /// Every instruction set, fused and not: the bits of the plain definition.
    fn assert_bits_of_dot(tokens: usize, rows: usize, cols: usize, seed: u64) {
        let weights = values(seed, rows * cols);
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let matrix = Matrix::new(&bytes, Encoding::F32, rows, cols).unwrap();
        let x: Vec<f64> = values(!seed, tokens * cols).into_iter().map(f64::from).collect();
        let x = Array2::from_shape_vec((tokens, cols), x).unwrap();
        let weights = Array2::from_shape_vec((rows, cols), weights).unwrap().mapv(f64::from);
        let expected = Array2::from_shape_fn((tokens, rows), |(t, n)| {
            dot(x.row(t).as_slice().unwrap(), weights.row(n).as_slice().unwrap())
        });
        for kernels in Kernels::all() {
            for precision in [Precision::F32, Precision::F64] {
                for exact in [false, true] {
                    let y = products(&Packed::new(x.view()), &matrix, kernels, precision, exact);
                    for (at, y) in y.indexed_iter() {
                        let expected = precision.round(expected[at]);
                        assert_eq!(y.to_bits(), expected.to_bits(), "{} {at:?}", kernels.name());
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Every tail of tokens, rows and columns.
        #[test]
        fn small_products_have_the_bits_of_dot(
            tokens in 1usize..20, rows in 1usize..70, cols in 1usize..70, seed: u64
        ) {
            assert_bits_of_dot(tokens, rows, cols, seed);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        /// Several tiles of tokens, tasks of rows and blocks of columns.
        #[test]
        fn large_products_have_the_bits_of_dot(
            tokens in 20usize..80, rows in 40usize..110, cols in 1000usize..2300, seed: u64
        ) {
            assert_bits_of_dot(tokens, rows, cols, seed);
        }
    }
}
