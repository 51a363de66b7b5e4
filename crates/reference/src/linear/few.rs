//! Fewer tokens than a register has lanes: rows are multiplied as soon as they are decoded.

use instructions::prefetch;
use pulp::Simd;

use super::{Buffers, Task, multiply_add};
use crate::dot::{LANES, Lane, reduce};
use crate::kernels::Tiled;
use crate::precision::Kept;

/// Rows that are multiplied together: of 1024 columns they are 16 KiB in f64, which the first-level cache holds.
const ROWS: usize = 2;

pub(super) struct Product<'a, 'b, T>(pub Task<'a, 'b, T>);

impl<T: Kept> Tiled for Product<'_, '_, T> {
    #[inline(always)]
    fn run<S: Simd, const P: usize, const R: usize, const G: usize, const FUSED: bool>(self, simd: S) {
        let Product(mut task) = self;
        let rounding = task.rounding;
        let (rows, depth) = (task.out.ncols(), rounding.x.depth());
        for first in (0..rows).step_by(ROWS) {
            let count = ROWS.min(rows - first);
            for r in 0..count {
                task.decode(first + r, r * depth * LANES);
                let ahead = task.first_row + first + r + ROWS;
                if ahead < rounding.w.rows() {
                    prefetch(rounding.w.row_bytes(ahead));
                }
            }
            let Buffers { narrow, wide, largest, .. } = &mut *task.buffers;
            let mut put = |t: usize, sums: [Lane; ROWS]| {
                for (r, sums) in sums.iter().take(count).enumerate() {
                    let (row, sum) = (task.first_row + first + r, reduce(sums));
                    task.out[[t, first + r]] = T::of(rounding.of_lanes(sum, row, largest[first + r], t));
                }
            };
            let lanes = rounding.x.lanes();
            if rounding.x.tokens == 1 {
                narrow.resize(narrow.len().max(ROWS * depth * LANES), 0.0);
                put(0, rows_times_one(narrow.as_chunks().0, lanes));
                continue;
            }
            wide.resize(ROWS * depth); // [ROWS, depth]; what is no row goes nowhere
            wide.as_flattened_mut()
                .iter_mut()
                .zip(narrow)
                .for_each(|(wide, narrow)| *wide = (*narrow).into());
            for (t, x) in lanes.chunks_exact(depth).enumerate() {
                put(t, rows_times_token::<S, P, ROWS, FUSED>(simd, wide, x));
            }
        }
    }
}

/// The lanes of `Σ w·x` of rows as decoded, one after the other and each as long as `x`.
#[inline(always)]
fn rows_times_one(w: &[[f32; LANES]], x: &[Lane]) -> [Lane; ROWS] {
    let mut sums = [[0.0; LANES]; ROWS];
    let mut rows = [w; ROWS];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &w[r * x.len()..][..x.len()];
    }
    for (i, x) in x.iter().enumerate() {
        for r in 0..ROWS {
            for l in 0..LANES {
                sums[r][l] += f64::from(rows[r][i][l]) * x[l];
            }
        }
    }
    sums
}

/// The lanes of `Σ w·x` of `R` rows, one after the other and each as long as `x`.
#[inline(always)]
fn rows_times_token<S: Simd, const P: usize, const R: usize, const FUSED: bool>(
    simd: S,
    w: &[Lane],
    x: &[Lane],
) -> [Lane; R] {
    // Plain loops: `array::map` and its kin are not inlined into code compiled for another instruction set.
    let mut sums = [[simd.splat_f64s(0.0); P]; R];
    let mut rows = [w; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &w[r * x.len()..][..x.len()];
    }
    for (i, x) in x.iter().enumerate() {
        let x = S::as_simd_f64s(x).0;
        for r in 0..R {
            let w = S::as_simd_f64s(&rows[r][i]).0;
            for p in 0..P {
                sums[r][p] = multiply_add::<S, FUSED>(simd, w[p], x[p], sums[r][p]);
            }
        }
    }
    let mut lanes = [[0.0; LANES]; R];
    for (lane, sums) in lanes.iter_mut().zip(&sums) {
        S::as_mut_simd_f64s(lane).0.copy_from_slice(sums);
    }
    lanes
}
