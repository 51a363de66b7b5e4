//! Fewer tokens than a register has lanes: rows are multiplied as soon as they are decoded.

use pulp::Simd;

use super::{Buffers, Task, multiply_add};
use crate::dot::{LANES, Lane, reduce};
use crate::kernels::Tiled;

/// Rows that are multiplied together: of 1024 columns they are 16 KiB in f64, which the first-level cache holds.
const ROWS: usize = 2;

pub(super) struct Product<'a>(pub Task<'a>);

impl Tiled for Product<'_> {
    #[inline(always)]
    fn run<S: Simd, const P: usize, const R: usize, const G: usize, const FUSED: bool>(self, simd: S) {
        let Product(mut task) = self;
        let (rows, depth) = (task.out.ncols(), task.x.depth);
        for first in (0..rows).step_by(ROWS) {
            let count = ROWS.min(rows - first);
            for r in 0..count {
                task.decode(first + r, r * depth * LANES);
            }
            let Buffers { narrow, wide, .. } = &mut *task.buffers;
            wide.resize(ROWS * depth); // [ROWS, depth]; what is no row goes nowhere
            wide.as_flattened_mut()
                .iter_mut()
                .zip(narrow)
                .for_each(|(wide, narrow)| *wide = (*narrow).into());
            for (t, x) in task.x.lanes.chunks_exact(depth).enumerate() {
                let sums = rows_times_token::<S, P, ROWS, FUSED>(simd, wide, x);
                for (r, sum) in sums.iter().take(count).enumerate() {
                    task.out[[t, first + r]] = task.precision.round(reduce(sum));
                }
            }
        }
    }
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
