//! A matrix times tokens.
//!
//! With activations that are f32s every product of a row and a token is the f32 [`nearest`] to the real one, however it is
//! computed: in f64 with a bound of the error, or in digits of a byte, without any. With those that are not, every sum is
//! [`dot`](crate::dot::dot)'s, to the bit: tiles share loads, never sums.
//!
//! Up to seven tokens are multiplied row by row, as rows are decoded (`few`). From eight on a register holds one lane of eight
//! tokens (`many`), or digits are multiplied in tiles of sixteen rows by sixteen tokens (`digits`).

mod digits;
mod few;
mod many;

use std::cell::RefCell;
use std::sync::OnceLock;

use model::Matrix;
use ndarray::{Array2, ArrayViewMut2, Axis};
use pulp::Simd;
use rayon::prelude::*;

use crate::dot::{LANES, Lane, reduce};
use crate::exact::{certain, nearest};
use crate::kernels::Kernels;
use crate::lanes::Lanes;
use crate::precision::{Kept, Precision};

/// Rows of the matrix that one task multiplies.
const TASK_ROWS: usize = 48;

/// What enters one matrix or more, `[T, K]`, in the orders in which products read it: each is made when first asked for.
pub(crate) struct Packed<'a> {
    x: &'a [f64],
    tokens: usize,
    cols: usize,
    lanes: OnceLock<Lanes>,
    digits: OnceLock<digits::Tokens>,
    /// `Σ|x|` of every token.
    sizes: OnceLock<Vec<f64>>,
}

impl<'a> Packed<'a> {
    /// Of `[T, K]`, in standard layout.
    pub(crate) fn new(x: &'a Array2<f64>) -> Packed<'a> {
        let (tokens, cols) = x.dim();
        let x = x.as_slice().expect("in standard layout");
        Packed { x, tokens, cols, lanes: OnceLock::new(), digits: OnceLock::new(), sizes: OnceLock::new() }
    }

    /// A token's activations.
    fn token(&self, t: usize) -> &[f64] {
        &self.x[t * self.cols..][..self.cols]
    }

    /// `Σ|x|` of every token.
    fn sizes(&self) -> &[f64] {
        self.sizes
            .get_or_init(|| (0..self.tokens).map(|t| self.token(t).iter().map(|x| x.abs()).sum()).collect())
    }

    /// Lane groups of a row.
    fn depth(&self) -> usize {
        self.cols.div_ceil(LANES)
    }

    /// Of few tokens `[T, depth]`, eight successive columns each. Of many `[⌈T/8⌉, LANES, depth]`, a column of eight
    /// tokens each: column `8i + l` is the `i`-th of lane `l`. A width that is no multiple of [`LANES`] is filled up with
    /// zeros, which change no sum; so are tokens, whose sums go nowhere.
    fn lanes(&self) -> &Lanes {
        self.lanes.get_or_init(|| match self.tokens < LANES {
            true => self.by_token(),
            false => self.by_lane(),
        })
    }

    fn by_token(&self) -> Lanes {
        let mut lanes = Lanes::zeros(self.tokens * self.depth());
        for (t, lanes) in lanes.as_flattened_mut().chunks_exact_mut((self.depth() * LANES).max(1)).enumerate()
        {
            lanes[..self.cols].copy_from_slice(self.token(t));
        }
        lanes
    }

    fn by_lane(&self) -> Lanes {
        let depth = self.depth();
        let mut lanes = Lanes::zeros(self.tokens.div_ceil(LANES) * LANES * depth);
        lanes.par_chunks_exact_mut((LANES * depth).max(1)).enumerate().for_each(|(group, lanes)| {
            for (t, token) in (group * LANES..self.tokens.min((group + 1) * LANES)).enumerate() {
                for (i, x) in self.token(token).chunks(LANES).enumerate() {
                    for (l, x) in x.iter().enumerate() {
                        lanes[l * depth + i][t] = *x;
                    }
                }
            }
        });
        lanes
    }
}

/// `y[t, n] = Σ_k x[t, k] · w[n, k]`, rounded: `[T, K] · [N, K]ᵀ → [T, N]`.
pub(crate) fn linear(x: &Packed, w: &Matrix<'_>, kernels: Kernels, precision: Precision) -> Array2<f64> {
    let mut y =
        Array2::from_shape_vec((x.tokens, w.rows()), zeros(x.tokens * w.rows())).expect("as many as that");
    linear_into(x, w, kernels, precision, y.view_mut());
    y
}

/// The same into `y`. Threads split rows of `w`, never a sum.
pub(crate) fn linear_into<T: Kept>(
    x: &Packed,
    w: &Matrix<'_>,
    kernels: Kernels,
    precision: Precision,
    mut y: ArrayViewMut2<'_, T>,
) {
    assert_eq!(x.cols, w.cols(), "activations and matrix agree on the input width");
    assert_eq!(
        y.dim(),
        (x.tokens, w.rows()),
        "as many rows as tokens, as many columns as rows of the matrix"
    );
    let rounding = Rounding { x, w, kernels, precision };
    match kernels.tiles() {
        Some(amx) if precision == Precision::F32 && digits::suit(x, w) => {
            digits::products(&rounding, amx, kernels, y);
        }
        _ => {
            // Made here, where no thread waits for what another one makes.
            x.lanes();
            x.sizes();
            y.axis_chunks_iter_mut(Axis(1), TASK_ROWS).into_par_iter().enumerate().for_each(|(task, out)| {
                BUFFERS.with_borrow_mut(|buffers| {
                    let task = Task { rounding, first_row: task * TASK_ROWS, out, buffers };
                    // Activations that are f32 make exact products.
                    let exact = precision == Precision::F32;
                    match x.tokens < LANES {
                        true => kernels.run(few::Product(task), exact),
                        false => kernels.run(many::Product(task), exact),
                    }
                });
            });
        }
    }
}

/// How a sum that may be a little off becomes what the contract says.
#[derive(Clone, Copy)]
struct Rounding<'a> {
    x: &'a Packed<'a>,
    w: &'a Matrix<'a>,
    kernels: Kernels,
    precision: Precision,
}

impl Rounding<'_> {
    /// By how much a sum in lanes may be off, as a part of its products' magnitudes. A lane adds as often as it has columns, the
    /// tree three times, each time with an error of 2⁻⁵³ at most of what is added: no more than all that was added.
    #[inline(always)]
    fn unit_error(&self) -> f64 {
        (self.x.depth() + LANES) as f64 * (f64::EPSILON / 2.0)
    }

    /// Of [`dot`](crate::dot::dot)'s sum of row `row` and token `t`; the row's largest weight is `largest`.
    #[inline(always)]
    fn of_lanes(&self, sum: f64, row: usize, largest: f32, t: usize) -> f64 {
        match self.precision {
            Precision::F64 => sum,
            Precision::F32 => {
                let error = self.unit_error() * f64::from(largest) * self.x.sizes()[t];
                certain(sum, error).unwrap_or_else(|| self.again(row, t)).into()
            }
        }
    }

    /// In f64, with the bound that these very products have, and from all bits if need be.
    #[cold]
    #[inline(never)]
    fn again(&self, row: usize, t: usize) -> f32 {
        let mut w = vec![0.0; self.w.cols()];
        self.w.row(row, &mut w, &mut Vec::new());
        let mut sums = ([0.0; LANES], [0.0; LANES]);
        self.kernels.vectorize(
            #[inline(always)]
            || sums = with_magnitudes(&w, self.x.token(t)),
        );
        let error = self.unit_error() * reduce(&sums.1);
        certain(reduce(&sums.0), error).unwrap_or_else(|| self.nearest(row, t))
    }

    /// From all bits of the row and the token.
    #[cold]
    #[inline(never)]
    fn nearest(&self, row: usize, t: usize) -> f32 {
        let mut w = vec![0.0; self.w.cols()];
        self.w.row(row, &mut w, &mut Vec::new());
        // Activations are f32s here.
        nearest(w.iter().copied().zip(self.x.token(t).iter().map(|&x| x as f32)))
    }
}

/// Rows `first_row..` of the matrix times all tokens: `out` is `[T, rows]`.
struct Task<'a, 'b, T> {
    rounding: Rounding<'a>,
    first_row: usize,
    out: ArrayViewMut2<'b, T>,
    buffers: &'b mut Buffers,
}

/// Working space of a thread.
#[derive(Default)]
struct Buffers {
    scratch: Vec<f32>,
    /// Rows as decoded.
    narrow: Vec<f32>,
    /// The largest magnitude in each row.
    largest: Vec<f32>,
    /// Rows in f64, in the order in which they are read.
    wide: Lanes,
    /// Sums that are not complete.
    sums: Lanes,
    /// Rows in digits: those that are multiplied and the next ones.
    groups: [digits::Group; 2],
    space: digits::Space,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl<T> Task<'_, '_, T> {
    /// Decodes a row of the task to `narrow[at..]`, filled up with zeros to whole lane groups.
    #[inline(always)]
    fn decode(&mut self, row: usize, at: usize) {
        let Rounding { x, w, .. } = self.rounding;
        let Buffers { scratch, narrow, largest, .. } = &mut *self.buffers;
        let end = at + x.depth() * LANES;
        if narrow.len() < end {
            narrow.resize(end, 0.0);
        }
        let (narrow, padding) = narrow[at..end].split_at_mut(w.cols());
        w.row(self.first_row + row, narrow, scratch);
        padding.fill(0.0);
        if largest.len() <= row {
            largest.resize(row + 1, 0.0);
        }
        largest[row] = magnitude(narrow);
    }
}

/// The largest magnitude; infinity is more than numbers, and what is none more than that.
#[inline(always)]
fn magnitude(values: &[f32]) -> f32 {
    f32::from_bits(values.iter().fold(0, |largest, value| largest.max(value.to_bits() & !(1 << 31))))
}

/// The lanes of `Σ w·x` and of `Σ |w·x|`.
#[inline(always)]
fn with_magnitudes(w: &[f32], x: &[f64]) -> (Lane, Lane) {
    let (mut sums, mut magnitudes) = ([0.0; LANES], [0.0; LANES]);
    let mut add = |w: &[f32], x: &[f64]| {
        for (l, (w, x)) in w.iter().zip(x).enumerate() {
            let product = f64::from(*w) * x;
            sums[l] += product;
            magnitudes[l] += product.abs();
        }
    };
    let ((w, w_rest), (x, x_rest)) = (w.as_chunks::<LANES>(), x.as_chunks::<LANES>());
    w.iter().zip(x).for_each(|(w, x)| add(w, x));
    add(w_rest, x_rest);
    (sums, magnitudes)
}

/// Zeros, written by all threads: the first to write a page waits for the system to find one.
pub(crate) fn zeros<T: Kept>(count: usize) -> Vec<T> {
    (0..count).into_par_iter().with_min_len(1 << 16).map(|_| T::default()).collect()
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

    fn random(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 24
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        /// Of one size but for outliers.
        Tame,
        /// The same, and half of the activations are the other half's opposites: what one lane adds another takes away.
        Cancelling,
        /// Any bits at all, now and then of what is no number.
        Wild,
    }

    fn values(seed: u64, count: usize, kind: Kind) -> Vec<f32> {
        let mut next = random(seed);
        let value = || match (next(), kind) {
            (bits, Kind::Wild) => match f32::from_bits((bits >> 8) as u32) {
                value if value.is_finite() || bits & 0xff == 0 => value,
                _ => 1.0,
            },
            (bits, _) => {
                ((bits >> 16) as f32 / (1 << 23) as f32 - 1.0) * if bits & 15 == 0 { 1e3 } else { 1.0 }
            }
        };
        std::iter::repeat_with(value).take(count).collect()
    }

    /// Every instruction set: in f64 the bits of the plain definition, in f32 the nearest to the real sum.
    fn assert_bits(encoding: Encoding, kind: Kind, tokens: usize, rows: usize, cols: usize, seed: u64) {
        let cols = cols.next_multiple_of(encoding.block_len());
        let mut weights = values(seed, rows * cols, kind);
        let mut x = values(!seed, tokens * cols, kind);
        if kind == Kind::Cancelling {
            let half = cols / 2;
            weights.chunks_mut(cols).for_each(|w| w.copy_within(..half, half));
            x.chunks_mut(cols)
                .for_each(|x| (0..half).for_each(|k| x[half + k] = -x[k] * (1.0 + f32::EPSILON)));
        }
        let mut bytes = vec![0; encoding.byte_len((rows * cols) as u64).unwrap() as usize];
        match (encoding, kind) {
            (Encoding::Q8_0, Kind::Wild) => {
                let mut next = random(seed);
                bytes.fill_with(|| next() as u8);
            }
            _ => encoding.encode(&weights, None, &mut bytes).unwrap(),
        }
        let matrix = Matrix::new(&bytes, encoding, rows, cols).unwrap();
        let mut weights = Array2::zeros((rows, cols));
        for (row, mut weights) in weights.outer_iter_mut().enumerate() {
            matrix.row(row, weights.as_slice_mut().unwrap(), &mut Vec::new());
        }
        let narrow = Array2::from_shape_vec((tokens, cols), x).unwrap();
        let (x, wide) = (narrow.mapv(f64::from), weights.mapv(f64::from));
        for precision in [Precision::F32, Precision::F64] {
            let expected = Array2::from_shape_fn((tokens, rows), |(t, n)| match precision {
                Precision::F32 => {
                    nearest(weights.row(n).iter().copied().zip(narrow.row(t).iter().copied())).into()
                }
                Precision::F64 => dot(x.row(t).as_slice().unwrap(), wide.row(n).as_slice().unwrap()),
            });
            for kernels in Kernels::all() {
                let y = linear(&Packed::new(&x), &matrix, kernels, precision);
                for (at, y) in y.indexed_iter() {
                    let expected: f64 = expected[at];
                    let same = y.to_bits() == expected.to_bits() || y.is_nan() && expected.is_nan();
                    assert!(same, "{} {precision:?} {at:?}: {y} is not {expected}", kernels.name());
                }
            }
        }
    }

    fn encodings() -> impl Strategy<Value = Encoding> {
        use Encoding::*;
        prop_oneof![Just(F32), Just(BF16), Just(F16), Just(Q8_0)]
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Tame), Just(Kind::Cancelling), Just(Kind::Wild)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Every tail of tokens, rows and columns.
        #[test]
        fn small_products_have_the_bits_of_the_definition(
            encoding in encodings(), kind in kinds(), tokens in 1usize..40, rows in 1usize..70, cols in 1usize..200,
            seed: u64
        ) {
            assert_bits(encoding, kind, tokens, rows, cols, seed);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        /// Several tiles of tokens, tasks of rows and blocks of columns.
        #[test]
        fn large_products_have_the_bits_of_the_definition(
            encoding in encodings(), kind in kinds(), tokens in 20usize..80, rows in 40usize..300, cols in 1000usize..2300,
            seed: u64
        ) {
            assert_bits(encoding, kind, tokens, rows, cols, seed);
        }
    }
}
