//! A matrix times many tokens, each sum as ggml has it.

use codec::{Encoding, Whole};
use model::Matrix;
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::activations::{Rounded, numbers};
use super::{Partner, dots};
use crate::Kernels;

/// Rows of the matrix that one task takes apart and multiplies.
const TASK_ROWS: usize = 16;

/// Tokens whose sums run side by side: each of them is in order, so that only others keep the processor busy.
const TOGETHER: usize = 8;

/// `y[t, n] = Σ_k x[t, k] · w[n, k]`: `[T, K] · [N, K]ᵀ → [T, N]`.
///
/// Threads split rows of `w`, never a sum. Activations are put in the order in which the file has a row's columns
/// before they are rounded: blocks are of stored columns.
///
/// # Panics
/// If ggml has no inner product for the encoding; whoever makes a model looks at that.
pub(crate) fn linear(x: ArrayView2<'_, f64>, w: &Matrix<'_>, kernels: Kernels) -> Array2<f64> {
    assert_eq!(x.ncols(), w.cols(), "activations and matrix agree on the input width");
    let Some(partner) = Partner::of(w.encoding()) else {
        unreachable!("a model with a matrix in {} was refused", w.encoding())
    };
    let tokens: Vec<Vec<f32>> = x.outer_iter().map(|x| stored(&x.to_vec(), w)).collect();
    let mut y = Array2::zeros((x.nrows(), w.rows()));
    let outputs = y.axis_chunks_iter_mut(Axis(1), TASK_ROWS).into_par_iter().enumerate();
    match partner {
        Partner::Q8_0 | Partner::Q8_1 | Partner::Q8K => {
            let tokens: Vec<Rounded> = tokens.par_iter().map(|x| Rounded::new(partner, x)).collect();
            outputs.for_each_init(Whole::default, |row, (task, mut out)| {
                for (r, mut out) in out.columns_mut().into_iter().enumerate() {
                    row.clear();
                    w.encoding().whole(w.row_bytes(task * TASK_ROWS + r), row);
                    kernels.vectorize(
                        #[inline(always)]
                        || {
                            for (y, x) in out.iter_mut().zip(&tokens) {
                                *y = dots::dot(w.encoding(), row, x).unwrap_or(f32::NAN).into();
                            }
                        },
                    );
                }
            });
        }
        Partner::F32 | Partner::F16 | Partner::BF16 => {
            let tokens: Vec<Vec<f32>> = tokens.iter().map(|x| numbers(partner, x)).collect();
            let tiles: Vec<Vec<[f32; TOGETHER]>> = tokens.chunks(TOGETHER).map(interleaved).collect();
            outputs.for_each_init(Vec::new, |row, (task, mut out)| {
                for (r, mut out) in out.columns_mut().into_iter().enumerate() {
                    decode(w.encoding(), w.row_bytes(task * TASK_ROWS + r), w.cols(), row);
                    for (tile, mut out) in tiles.iter().zip(out.axis_chunks_iter_mut(Axis(0), TOGETHER)) {
                        kernels.vectorize(
                            #[inline(always)]
                            || {
                                let sums = in_order(row, tile);
                                out.iter_mut().zip(sums).for_each(|(y, sum)| *y = f64::from(sum as f32));
                            },
                        );
                    }
                }
            });
        }
    }
    y
}

/// See [`super::dot`].
pub(crate) fn dot(encoding: Encoding, row: &[u8], x: &[f32]) -> Option<f32> {
    let partner = Partner::of(encoding)?;
    if encoding.byte_len(x.len() as u64) != Some(row.len() as u64) {
        return None;
    }
    if !encoding.has_whole() {
        let mut values = Vec::new();
        decode(encoding, row, x.len(), &mut values);
        return Some(super::dot_f32(values.into_iter(), numbers(partner, x).into_iter()));
    }
    let mut whole = Whole::default();
    encoding.whole(row, &mut whole)?;
    dots::dot(encoding, &whole, &Rounded::new(partner, x))
}

/// A token's activations in the order of the matrix's stored columns.
fn stored(x: &[f64], w: &Matrix<'_>) -> Vec<f32> {
    let Some(tiling) = w.col_tiling() else { return x.iter().map(|&x| x as f32).collect() };
    let mut stored = vec![0.0; x.len()];
    for (i, run) in x.chunks_exact(tiling.run()).enumerate() {
        let to = &mut stored[tiling.stored(i * tiling.run())..][..run.len()];
        to.iter_mut().zip(run).for_each(|(to, &x)| *to = x as f32);
    }
    stored
}

fn decode(encoding: Encoding, bytes: &[u8], values: usize, out: &mut Vec<f32>) {
    out.resize(values, 0.0);
    if let Err(error) = encoding.decode(bytes, out) {
        unreachable!("the bytes were measured: {error}");
    }
}

/// Up to [`TOGETHER`] tokens column by column; those that lack are zeros.
fn interleaved(tokens: &[Vec<f32>]) -> Vec<[f32; TOGETHER]> {
    let mut tile = vec![[0.0; TOGETHER]; tokens[0].len()];
    for (t, token) in tokens.iter().enumerate() {
        tile.iter_mut().zip(token).for_each(|(column, &x)| column[t] = x);
    }
    tile
}

/// Products in f32, sums in f64, in order.
#[inline(always)]
fn in_order(w: &[f32], x: &[[f32; TOGETHER]]) -> [f64; TOGETHER] {
    let mut sums = [0.0; TOGETHER];
    for (w, x) in w.iter().zip(x) {
        for t in 0..TOGETHER {
            sums[t] += f64::from(w * x[t]);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Every encoding, instruction set and tail of tokens and rows: the bits of the single inner product.
    #[test]
    fn every_task_has_the_bits_of_dot() {
        let (rows, cols) = (TASK_ROWS + 3, 512);
        let mut state = 5u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let weights: Vec<f32> = (0..rows * cols).map(|_| next()).collect();
        let x: Vec<f64> = (0..11 * cols).map(|_| f64::from(next())).collect();
        let x = Array2::from_shape_vec((11, cols), x).unwrap();
        let mut judged = 0;
        for &encoding in Encoding::ALL.iter().filter(|e| Partner::of(**e).is_some()) {
            let mut bytes = vec![0; encoding.byte_len(weights.len() as u64).unwrap() as usize];
            let importance = encoding.needs_importance().then(|| vec![1.0; cols]);
            encoding.encode(&weights, importance.as_deref(), &mut bytes).unwrap();
            let matrix = Matrix::new(&bytes, encoding, rows, cols).unwrap();
            for kernels in Kernels::all() {
                let y = linear(x.view(), &matrix, kernels);
                for t in 0..11 {
                    let token: Vec<f32> = x.row(t).iter().map(|&x| x as f32).collect();
                    for n in 0..rows {
                        let expected = dot(encoding, matrix.row_bytes(n), &token).unwrap();
                        assert_eq!(
                            y[[t, n]].to_bits(),
                            f64::from(expected).to_bits(),
                            "{encoding} {}",
                            kernels.name()
                        );
                        judged += 1;
                    }
                }
            }
        }
        assert!(judged >= 28 * 11 * rows, "{judged}");
    }
}
