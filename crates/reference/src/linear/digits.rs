//! Eight tokens and more on tiles: weights in three digits of a byte, activations in five.
//!
//! A row is whole numbers of at most 23 bits times a power of two, but for the few weights too small for that: what is left of
//! those is multiplied in f64. A token is whole numbers of at most 39 bits times another; what is left of it bounds the error.
//! Products of digits are summed exactly, all orders but the lowest.

mod number;
mod rows;
mod tokens;

use std::ops::Range;

use codec::Encoding;
use instructions::{Amx, LEFT, LINE, LINES, MOST_STEPS, ORDERS, Sums};
use model::Matrix;
use ndarray::{ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::{BUFFERS, Buffers, Packed, Rounding};
use crate::dot::LANES;
use crate::exact::certain;
use crate::kernels::Kernels;
use crate::precision::Kept;
use rows::Preparing;
pub(super) use rows::{Group, Space};
pub(super) use tokens::Tokens;

/// Rows of the matrix that one task multiplies, if there are so many for every thread: nothing is multiplied while its first group
/// is taken apart.
const TASK_ROWS: usize = 128 * LINES;

/// Digits that share a pass over the tokens: the second-level cache holds these, the next ones, and a tile's tokens.
const GROUP_BYTES: usize = 704 << 10;

/// Columns that are taken apart at a time: while tiles multiply, a processor looks ahead about as far.
const PIECE: usize = 4 * LINE;

/// Bounds of errors are sums that round, too.
const SLACK: f64 = 1.0 + 1.0 / 1024.0;

/// Whether digits pay: there are tokens to share a row's, and its weights have no more bits than three digits.
pub(super) fn suit(x: &Packed, w: &Matrix) -> bool {
    x.tokens >= LANES
        && matches!(w.encoding(), Encoding::BF16 | Encoding::F16 | Encoding::Q8_0)
        && (1..=MOST_STEPS).contains(&w.cols().div_ceil(LINE))
}

/// All rows of the matrix times all tokens.
pub(super) fn products<T: Kept>(
    rounding: &Rounding,
    amx: Amx,
    kernels: Kernels,
    mut out: ArrayViewMut2<'_, T>,
) {
    let x = rounding.x.digits.get_or_init(|| Tokens::new(rounding.x, kernels));
    let threads = rayon::current_num_threads();
    let rows = out.ncols().div_ceil(threads * out.ncols().div_ceil(threads * TASK_ROWS).max(1));
    let rows = rows.next_multiple_of(LINES).max(LINES);
    out.axis_chunks_iter_mut(Axis(1), rows).into_par_iter().enumerate().for_each(|(task, out)| {
        BUFFERS.with_borrow_mut(|buffers| {
            let mut task = Task { rounding: *rounding, x, first_row: task * rows, out };
            kernels.vectorize(
                #[inline(always)]
                || task.run(amx, buffers),
            );
        });
    });
}

struct Task<'a, 'b, T> {
    rounding: Rounding<'a>,
    x: &'a Tokens,
    first_row: usize,
    /// `[T, rows]`
    out: ArrayViewMut2<'b, T>,
}

/// A tile of sums that is being finished, a row at a time.
struct Finishing {
    /// Its first row of those of the group, and of all; its first token.
    in_group: usize,
    first_row: usize,
    first_token: usize,
    /// Rows that are to come.
    rows: Range<usize>,
}

/// A tile of results, `[tokens, rows]`.
type Values<T> = [[T; LINES]; LINES];

impl<T: Kept> Task<'_, '_, T> {
    /// While tiles multiply a group, the next one is taken apart, and the sums before are finished.
    #[inline(always)]
    fn run(&mut self, amx: Amx, buffers: &mut Buffers) {
        let w = self.rounding.w;
        let steps = w.cols().div_ceil(LINE);
        let group_rows = (GROUP_BYTES / (steps * LINE * LINES * LEFT).max(1)).clamp(1, 4) * LINES;
        let (first, end) = (self.first_row, self.first_row + self.out.ncols());
        let rows_from = |row: usize| row.min(end)..end.min(row + group_rows);
        let Buffers { groups: [now, next], space, .. } = buffers;
        let mut tiles = amx.configure();
        let mut preparing = Preparing::new(w, rows_from(first), next, space);
        while preparing.advance(next, space) {}
        let (mut new, mut old) = (&mut [Sums::ZERO; ORDERS], &mut [Sums::ZERO; ORDERS]);
        let mut values = [[T::default(); LINES]; LINES]; // [tokens, rows]
        for row in (first..end).step_by(group_rows) {
            std::mem::swap(now, next);
            let mut preparing = Preparing::new(w, rows_from(row + group_rows), next, space);
            let mut finishing: Option<Finishing> = None;
            for (token_tile, x) in self.x.tiles.chunks_exact(steps).enumerate() {
                for (row_tile, w) in now.tiles.chunks_exact(steps).enumerate() {
                    tiles.multiply(
                        w,
                        x,
                        new,
                        #[inline(always)]
                        || {
                            if let Some(finishing) = &mut finishing {
                                self.finish_row(finishing, old, now, &mut values);
                            }
                            preparing.advance(next, space);
                        },
                    );
                    if let Some(finishing) = finishing.take() {
                        self.finish(finishing, old, now, &mut values);
                    }
                    let in_group = row_tile * LINES;
                    finishing = Some(Finishing {
                        in_group,
                        first_row: row + in_group,
                        first_token: token_tile * LINES,
                        rows: 0..LINES.min(now.rows.len() - in_group),
                    });
                    (new, old) = (old, new);
                }
            }
            if let Some(finishing) = finishing {
                self.finish(finishing, old, now, &mut values);
            }
            while preparing.advance(next, space) {}
        }
    }

    /// What is left to finish of a tile of sums, which then goes out.
    #[inline(always)]
    fn finish(
        &mut self,
        mut finishing: Finishing,
        sums: &[Sums; ORDERS],
        group: &Group,
        values: &mut Values<T>,
    ) {
        while !finishing.rows.is_empty() {
            self.finish_row(&mut finishing, sums, group, values);
        }
        let first = finishing.first_row - self.first_row;
        let tokens = self.out.axis_iter_mut(Axis(0)).skip(finishing.first_token);
        for (mut out, values) in tokens.zip(&*values) {
            let out = out.as_slice_mut().expect("columns of a row are contiguous");
            out[first..][..finishing.rows.end].copy_from_slice(&values[..finishing.rows.end]);
        }
    }

    /// Joins the orders of the next row's sums, adds what is left of weights, rounds.
    #[inline(always)]
    fn finish_row(
        &mut self,
        finishing: &mut Finishing,
        sums: &[Sums; ORDERS],
        group: &Group,
        values: &mut Values<T>,
    ) {
        let Some(r) = finishing.rows.next() else { return };
        let row = &group.rows[finishing.in_group + r];
        let first_token = finishing.first_token;
        let tokens = LINES.min(self.out.nrows() - first_token);
        let units: &[f64; LINES] = self.x.units[first_token..].first_chunk().expect("whole tiles");
        let lost: &[f64; LINES] = self.x.left[first_token..].first_chunk().expect("whole tiles");
        let mut y = [0.0; LINES];
        for t in 0..LINES {
            // Three orders are exact in f64, and so is shifting them.
            let [c0, c1, c2, c3, c4, c5] = std::array::from_fn(|order| f64::from(sums[order].0[r][t]));
            let (high, low) = ((c5 * 256.0 + c4) * 256.0 + c3, (c2 * 256.0 + c1) * 256.0 + c0);
            y[t] = (high * 16777216.0 + low) * (row.scale * units[t]);
        }
        for &(k, left) in &group.left[row.left.clone()] {
            for (t, y) in y.iter_mut().enumerate().take(tokens) {
                *y += left * self.rounding.x.token(first_token + t)[k];
            }
        }
        let mut sure = [true; LINES];
        for t in 0..LINES {
            let error = y[t].abs() * row.relative + units[t] * row.error + lost[t] * row.largest;
            let value = certain(y[t], error * SLACK);
            sure[t] = value.is_some();
            values[t][r] = T::of(value.unwrap_or_default().into());
        }
        for t in (0..tokens).filter(|&t| !sure[t]) {
            let again = self.rounding.again(finishing.first_row + r, first_token + t);
            values[t][r] = T::of(again.into());
        }
    }
}
