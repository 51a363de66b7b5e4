//! IQ1_S and IQ1_M: all splits of sorted values into codes 0, 1 and 2, as `crate::iq1` tries them, a block in each lane.

use std::sync::LazyLock;

use pulp::Simd;

use super::neighbours::{ENTRIES, Errors, Finder, Neighbours, Table};
use super::search::Column;
use super::vector::Lanes;
use super::{Batch, Encoder, MOST, Rows};
use crate::arithmetic::{self, magnitude};
use crate::iq1::{self, DOWN, Eight, Fit, Split, UP};

#[derive(Clone, Copy)]
pub(super) struct Iq1S<F>(pub F);
#[derive(Clone, Copy)]
pub(super) struct Iq1M<F>(pub F);

static NEIGHBOURS: LazyLock<Neighbours<8>> = LazyLock::new(|| Neighbours::of(&iq1::LATTICE));

/// What codes stand for, laid out as a table of errors is.
const fn table(levels: &[f32; 3]) -> [f32; ENTRIES] {
    let mut table = [0.0; ENTRIES];
    let mut i = 0;
    while i < ENTRIES {
        if i % Table::<8>::SLOTS < 3 {
            table[i] = levels[i % Table::<8>::SLOTS];
        }
        i += 1;
    }
    table
}

static UP_TABLE: [f32; ENTRIES] = table(&UP);
static DOWN_TABLE: [f32; ENTRIES] = table(&DOWN);

/// The point for eight values; see `iq1::snap`.
#[inline(always)]
fn place(finder: impl Finder, codes: &[u8; 8], eight: &Eight<'_>) -> (u16, bool) {
    let neighbours = &*NEIGHBOURS;
    let Eight { x, weights, scale, down } = *eight;
    let levels = if down { &DOWN_TABLE } else { &UP_TABLE };
    let errors = Errors { x, weights, scale, levels };
    let (point, on_grid) = neighbours.snap(neighbours.lattice.number(codes), finder, &errors);
    (neighbours.point(point), on_grid)
}

/// The best split so far.
struct Best<S: Simd> {
    score: Lanes<S>,
    scale: Lanes<S>,
    /// Its number, in the order of trials; below zero if there is none.
    number: Lanes<S>,
}

impl<S: Simd> Best<S> {
    #[inline(always)]
    fn none(zero: Lanes<S>) -> Self {
        Best { score: zero.same(f32::MIN), scale: zero, number: zero.same(-1.0) }
    }

    /// Takes over what is better.
    #[inline(always)]
    fn offer(&mut self, xq: Lanes<S>, qq: Lanes<S>, number: usize) {
        let better = xq.same(0.0).less(qq).and((self.score * qq).less(xq * xq));
        let scale = xq / qq;
        self.scale = better.select(scale, self.scale);
        self.score = better.select(scale * xq, self.score);
        self.number = better.select(xq.same(number as f32), self.number);
    }

    /// Scale and number of each lane.
    #[inline(always)]
    fn by_lane(&self) -> ([f32; MOST], [f32; MOST]) {
        let (mut scales, mut numbers) = ([0.0; MOST], [0.0; MOST]);
        self.scale.store(&mut scales);
        self.number.store(&mut numbers);
        (scales, numbers)
    }
}

/// Sums over the first so many of the rows.
#[inline(always)]
fn prefix_sums<S: Simd, const ROWS: usize, const SUMS: usize>(x: Column<'_, S>) -> [Lanes<S>; SUMS] {
    const { assert!(SUMS == ROWS + 1) };
    let mut sums = [x.zero(); SUMS];
    for i in 0..ROWS {
        sums[i + 1] = sums[i] + x.at(i);
    }
    sums
}

/// A group of each block: values, weights, and where they stand in order.
struct Groups<const LEN: usize> {
    x: [[f32; LEN]; MOST],
    weights: [[f32; LEN]; MOST],
    order: [[usize; LEN]; MOST],
}

impl<const LEN: usize> Groups<LEN> {
    fn new() -> Self {
        Groups { x: [[0.0; LEN]; MOST], weights: [[0.0; LEN]; MOST], order: [[0; LEN]; MOST] }
    }

    /// Group `g` of each block.
    #[inline(always)]
    fn take<S: Simd>(&mut self, batch: &Batch<'_, S, 256>, powers: &[f32; MOST], g: usize) {
        for (lane, values) in batch.blocks.iter().enumerate() {
            let x: &[f32; LEN] = &values.as_chunks().0[g];
            self.x[lane] = *x;
            self.weights[lane] = match batch.weights[lane] {
                Some(weights) => arithmetic::weigh(x, weights.group(g), powers[lane]),
                None => std::array::from_fn(
                    #[inline(always)]
                    |i| x[i] * x[i],
                ),
            };
            self.order[lane] = iq1::sorted(x);
        }
    }

    /// What `of` makes of each value's place, weight and size, in order of size.
    #[inline(always)]
    fn in_order<S: Simd>(&self, lanes: usize, of: impl Fn(usize, f32, f32) -> f32) -> Rows<LEN> {
        let mut sorted = [[0.0; LEN]; MOST];
        for (lane, sorted) in sorted.iter_mut().enumerate().take(lanes) {
            for (to, &i) in sorted.iter_mut().zip(&self.order[lane]) {
                *to = of(i, self.weights[lane][i], self.x[lane][i]);
            }
        }
        let mut rows = Rows([[0.0; MOST]; LEN]);
        rows.fill::<S>(&sorted.each_ref());
        rows
    }

    /// The points for the best splits; `split` says what a number stands for.
    #[inline(always)]
    fn snap<S: Simd, const POINTS: usize>(
        &self,
        finder: impl Finder,
        best: &Best<S>,
        (lanes, zero): (usize, f32),
        split: impl Fn(usize) -> ([usize; 2], [bool; POINTS]),
    ) -> [Fit<POINTS>; MOST] {
        let (scales, numbers) = best.by_lane();
        let mut fits = [Fit::ZERO; MOST];
        for lane in 0..lanes {
            let (x, weights) = (&self.x[lane], &self.weights[lane]);
            if magnitude(x) < zero || numbers[lane] < 0.0 {
                continue;
            }
            let (at, down) = split(numbers[lane] as usize);
            fits[lane] = iq1::snap(
                x.as_chunks().0,
                weights.as_chunks().0,
                &self.order[lane],
                Split { scale: scales[lane], at, down },
                #[inline(always)]
                |codes, eight| place(finder, codes, eight),
            );
        }
        fits
    }
}

/// What values are weighed with.
#[inline(always)]
fn powers<S: Simd>(batch: &Batch<'_, S, 256>) -> [f32; MOST] {
    let mut powers = [0.0; MOST];
    let zero = batch.x.zero();
    (zero.same(2.0) * batch.x.sum_of_squares() / zero.same(256.0)).store(&mut powers);
    powers
}

/// The best of all splits of 32 values in order under a common shift, as `iq1::split_together` tries them.
#[inline(always)]
fn split_together<S: Simd>(weighed: Column<'_, S>, weights: Column<'_, S>) -> Best<S> {
    let (wx, w) = (prefix_sums::<S, 32, 33>(weighed), prefix_sums::<S, 32, 33>(weights));
    let zero = weights.zero();
    let mut best = Best::none(zero);
    for first in 0..=32 {
        let (wx0, w0) = (wx[first] - wx[0], w[first] - w[0]);
        for second in first..=32 {
            let (wx1, w1) = (wx[second] - wx[first], w[second] - w[first]);
            let (wx2, w2) = (wx[32] - wx[second], w[32] - w[second]);
            for (down, levels) in [UP, DOWN].iter().enumerate() {
                let (l0, l1, l2) = (zero.same(levels[0]), zero.same(levels[1]), zero.same(levels[2]));
                let xq = wx0 * l0 + wx1 * l1 + wx2 * l2;
                let qq = w0 * l0 * l0 + w1 * l1 * l1 + w2 * l2 * l2;
                best.offer(xq, qq, (first * 33 + second) * 2 + down);
            }
        }
    }
    best
}

impl<F: Finder> Encoder<256, 50> for Iq1S<F> {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 50]]) {
        let (simd, lanes) = (batch.x.simd, batch.blocks.len());
        let powers = powers(batch);
        let mut fits = [[Fit::ZERO; 8]; MOST];
        let mut groups = Groups::<32>::new();
        for g in 0..8 {
            groups.take(batch, &powers, g);
            let weighed = groups.in_order::<S>(lanes, |_, w, x| w * x);
            let weights = groups.in_order::<S>(lanes, |_, w, _| w);
            let best = split_together(weighed.column(simd), weights.column(simd));
            let split = |number: usize| ([number / 66, number / 2 % 33], [number % 2 == 1; 4]);
            for (fits, fit) in fits.iter_mut().zip(groups.snap(self.0, &best, (lanes, iq1::S_ZERO), split)) {
                fits[g] = fit;
            }
        }
        for (block, fits) in out.iter_mut().zip(&fits) {
            iq1::finish_iq1_s(fits, block);
        }
    }
}

/// The shifts of both halves, in the order in which they are tried.
const SHIFTS: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

/// Σ w·q·x and Σ w·q² of a half under a split. Neighbouring levels differ by 1, so that both come from the upper level's over
/// all values.
#[inline(always)]
fn half_sums<S: Simd>(
    (wx, w): (&[Lanes<S>; 17], &[Lanes<S>; 17]),
    first: usize,
    second: usize,
    levels: &[f32; 3],
) -> (Lanes<S>, Lanes<S>) {
    let [low, middle, high] = [levels[0] * levels[0], levels[1] * levels[1], levels[2] * levels[2]];
    let (top, down, up) = (w[0].same(levels[2]), w[0].same(low - middle), w[0].same(middle - high));
    let xq = wx[16] * top - (wx[first] + wx[second]);
    let qq = w[16] * top * top + w[first] * down + w[second] * up;
    (xq, qq)
}

/// The best of all splits of 16 values in order whose halves are shifted each in its own way, as `iq1::split_apart` tries
/// them. Of both halves the weighed values and the weights, zero where a value lies in the other one.
#[inline(always)]
fn split_apart<S: Simd>(weighed: [Column<'_, S>; 2], weights: [Column<'_, S>; 2]) -> Best<S> {
    let wx = [prefix_sums::<S, 16, 17>(weighed[0]), prefix_sums::<S, 16, 17>(weighed[1])];
    let w = [prefix_sums::<S, 16, 17>(weights[0]), prefix_sums::<S, 16, 17>(weights[1])];
    let zero = weights[0].zero();
    let mut best = Best::none(zero);
    for first in 0..=16 {
        for second in first..=16 {
            let half = [(&wx[0], &w[0]), (&wx[1], &w[1])];
            let sums = [
                [half_sums(half[0], first, second, &UP), half_sums(half[0], first, second, &DOWN)],
                [half_sums(half[1], first, second, &UP), half_sums(half[1], first, second, &DOWN)],
            ];
            for (shift, down) in SHIFTS.iter().enumerate() {
                let ((xq0, qq0), (xq1, qq1)) = (sums[0][usize::from(down[0])], sums[1][usize::from(down[1])]);
                best.offer(xq0 + xq1, qq0 + qq1, (first * 17 + second) * 4 + shift);
            }
        }
    }
    best
}

impl<F: Finder> Encoder<256, 56> for Iq1M<F> {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 56]]) {
        let (simd, lanes) = (batch.x.simd, batch.blocks.len());
        let powers = powers(batch);
        let mut fits = [[Fit::ZERO; 16]; MOST];
        let mut all_weights = [[[0.0; 16]; 16]; MOST];
        let mut groups = Groups::<16>::new();
        for g in 0..16 {
            groups.take(batch, &powers, g);
            let halves = [0, 1].map(
                #[inline(always)]
                |half| {
                    let weighed =
                        groups.in_order::<S>(lanes, |i, w, x| if i / 8 == half { w * x } else { 0.0 });
                    (weighed, groups.in_order::<S>(lanes, |i, w, _| if i / 8 == half { w } else { 0.0 }))
                },
            );
            let [(weighed0, weights0), (weighed1, weights1)] = &halves;
            let best = split_apart(
                [weighed0.column(simd), weighed1.column(simd)],
                [weights0.column(simd), weights1.column(simd)],
            );
            let split = |number: usize| ([number / 68, number / 4 % 17], SHIFTS[number % 4]);
            let found = groups.snap(self.0, &best, (lanes, iq1::M_ZERO), split);
            for lane in 0..lanes {
                fits[lane][g] = found[lane];
                all_weights[lane][g] = groups.weights[lane];
            }
        }
        for (lane, (block, values)) in out.iter_mut().zip(batch.blocks).enumerate() {
            iq1::finish_iq1_m(values, &all_weights[lane], &fits[lane], block);
        }
    }
}
