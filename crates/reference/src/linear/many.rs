//! Eight tokens and more: a register holds one lane of eight tokens' sums, and a weight is loaded into all of a register.
//!
//! The lanes of a sum are computed one after the other, in an order in which the tree that adds them needs no more than
//! three of them kept.

use ndarray::{Axis, Slice};
use pulp::Simd;

use super::{Buffers, Task, multiply_add};
use crate::dot::{LANES, Lane};
use crate::kernels::Tiled;
use crate::precision::Kept;

/// Columns of a lane that are multiplied before the next ones are. So many of a tile's tokens are 32 KiB, which the
/// first-level cache holds while all rows of a task go by.
const BLOCK: usize = 128;

/// The order of lanes. After the `n`-th, counted from 1, the tree adds as often as 2 divides `n`: each time what it kept
/// last to what it has.
const ORDER: [usize; LANES] = [0, 4, 2, 6, 1, 5, 3, 7];

/// Levels of the tree, the lanes themselves included.
const LEVELS: usize = LANES.ilog2() as usize + 1;

/// Where sums are kept that go on with the next block.
const OPEN: usize = LEVELS;

pub(super) struct Product<'a, 'b, T>(pub Task<'a, 'b, T>);

impl<T: Kept> Tiled for Product<'_, '_, T> {
    #[inline(always)]
    fn run<S: Simd, const P: usize, const R: usize, const G: usize, const FUSED: bool>(self, simd: S) {
        let Product(mut task) = self;
        let rows = task.out.ncols().next_multiple_of(R);
        let groups = task.rounding.x.tokens.div_ceil(LANES);
        let whole = groups / G * G;
        widen(&mut task, rows);
        for first in (0..whole).step_by(G) {
            tokens::<T, S, P, R, G, FUSED>(simd, &mut task, first, rows);
        }
        for first in whole..groups {
            tokens::<T, S, P, R, 1, FUSED>(simd, &mut task, first, rows);
        }
    }
}

/// Decodes the task's rows, and sorts their columns by lane and block: `[LANES, blocks, rows, BLOCK]`. What fills up
/// the last block or the last tile is not used.
#[inline(always)]
fn widen<T>(task: &mut Task<T>, rows: usize) {
    let blocks = task.rounding.x.depth().div_ceil(BLOCK);
    task.buffers.wide.resize(blocks * rows * BLOCK);
    for row in 0..task.out.ncols() {
        task.decode(row, 0);
        let Buffers { narrow, wide, .. } = &mut *task.buffers;
        let narrow = narrow.as_chunks::<LANES>().0[..task.rounding.x.depth()].chunks(BLOCK);
        for (block, narrow) in narrow.enumerate() {
            let mut lanes = wide.as_flattened_mut().chunks_exact_mut(blocks * rows * BLOCK);
            let at = (block * rows + row) * BLOCK;
            let lanes: [&mut [f64]; LANES] =
                std::array::from_fn(|_| &mut lanes.next().expect("as many as lanes")[at..][..narrow.len()]);
            for (i, narrow) in narrow.iter().enumerate() {
                for l in 0..LANES {
                    lanes[l][i] = narrow[l].into();
                }
            }
        }
    }
}

/// All rows times `G` groups of eight tokens, `first` on.
#[inline(always)]
fn tokens<T: Kept, S: Simd, const P: usize, const R: usize, const G: usize, const FUSED: bool>(
    simd: S,
    task: &mut Task<T>,
    first: usize,
    rows: usize,
) {
    let rounding = task.rounding;
    let depth = rounding.x.depth();
    let Buffers { wide, sums, largest, .. } = &mut *task.buffers;
    sums.resize((OPEN + 1) * rows * G);
    let sums = sums.as_chunks_mut::<R>().0.as_chunks_mut::<G>().0; // [LEVELS + 1, rows/R, G, R]
    let wide = wide.as_flattened().as_chunks::<BLOCK>().0.as_chunks::<R>().0; // [LANES, blocks, rows/R, R, BLOCK]
    let tiles = rows / R;
    for (n, lane) in ORDER.into_iter().enumerate() {
        let level = (n + 1).trailing_zeros() as usize;
        for (block, start) in (0..depth).step_by(BLOCK).enumerate() {
            let end = depth.min(start + BLOCK);
            let mut x = [&rounding.x.lanes()[..]; G];
            for (g, x) in x.iter_mut().enumerate() {
                let row = ((first + g) * LANES + lane) * depth;
                *x = &x[row + start..row + end];
            }
            let wide = &wide[(lane * depth.div_ceil(BLOCK) + block) * tiles..][..tiles];
            let to = if end == depth { level } else { OPEN };
            for (i, w) in wide.iter().enumerate() {
                tile::<S, P, R, G, FUSED>(simd, w, &x, &mut sums[i..], tiles, start > 0, to);
            }
        }
    }
    let sums = &sums[(LEVELS - 1) * tiles..][..tiles];
    for g in 0..G {
        let tokens = (first + g) * LANES..rounding.x.tokens.min((first + g + 1) * LANES);
        let mut out = task.out.slice_axis_mut(Axis(0), Slice::from(tokens.clone()));
        for (t, mut out) in out.outer_iter_mut().enumerate() {
            let out = out.as_slice_mut().expect("columns of a row are contiguous");
            for (i, (out, sums)) in out.chunks_mut(R).zip(sums).enumerate() {
                for (r, (out, sum)) in out.iter_mut().zip(&sums[g]).enumerate() {
                    let row = i * R + r;
                    *out = T::of(rounding.of_lanes(
                        sum[t],
                        task.first_row + row,
                        largest[row],
                        tokens.start + t,
                    ));
                }
            }
        }
    }
}

/// A block of one lane of `R × G` groups of sums. They begin with those that are kept open if they are to `go_on`; what
/// is kept on levels below `to` is added to them. Levels are `stride` apart.
#[inline(always)]
fn tile<S: Simd, const P: usize, const R: usize, const G: usize, const FUSED: bool>(
    simd: S,
    w: &[[f64; BLOCK]; R],
    x: &[&[Lane]; G],
    kept: &mut [[[Lane; R]; G]],
    stride: usize,
    go_on: bool,
    to: usize,
) {
    // Plain loops: `array::map` and its kin are not inlined into code compiled for another instruction set.
    let mut sums = [[[simd.splat_f64s(0.0); P]; R]; G];
    if go_on {
        add::<S, P, R, G>(simd, &kept[OPEN * stride], &mut sums);
    }
    let len = x[0].len().min(BLOCK);
    let mut columns = *x;
    for columns in &mut columns {
        *columns = &columns[..len];
    }
    for i in 0..len {
        for r in 0..R {
            let w = simd.splat_f64s(w[r][i]);
            for g in 0..G {
                let x = S::as_simd_f64s(&columns[g][i]).0;
                for p in 0..P {
                    sums[g][r][p] = multiply_add::<S, FUSED>(simd, w, x[p], sums[g][r][p]);
                }
            }
        }
    }
    if to != OPEN {
        for level in 0..to {
            add::<S, P, R, G>(simd, &kept[level * stride], &mut sums);
        }
    }
    for (kept, sums) in kept[to * stride].iter_mut().zip(&sums) {
        for (kept, sum) in kept.iter_mut().zip(sums) {
            S::as_mut_simd_f64s(kept).0.copy_from_slice(sum);
        }
    }
}

/// Adds what is kept to `sums`.
#[inline(always)]
fn add<S: Simd, const P: usize, const R: usize, const G: usize>(
    simd: S,
    kept: &[[Lane; R]; G],
    sums: &mut [[[S::f64s; P]; R]; G],
) {
    for (kept, sums) in kept.iter().zip(sums) {
        for (kept, sum) in kept.iter().zip(sums) {
            let kept = S::as_simd_f64s(kept).0;
            for p in 0..P {
                sum[p] = simd.add_f64s(kept[p], sum[p]);
            }
        }
    }
}
