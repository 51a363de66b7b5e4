//! IQ2 and IQ3: the search of `crate::lattice`, a block in each lane. What each step is for is said there.

use std::array;
use std::sync::LazyLock;

use pulp::Simd;

use super::neighbours::{Errors, Finder, Neighbours, Table};
use super::search::{Column, TAME, nonnegative};
use super::vector::Lanes;
use super::{Batch, Encoder, MOST, Rows};
use crate::arithmetic;
use crate::lattice::{Again, Group, Search};
use crate::{iq2, iq3};

#[derive(Clone, Copy)]
pub(super) struct Iq2Xxs<F>(pub F);
#[derive(Clone, Copy)]
pub(super) struct Iq2Xs<F>(pub F);
#[derive(Clone, Copy)]
pub(super) struct Iq2S<F>(pub F);
#[derive(Clone, Copy)]
pub(super) struct Iq3Xxs<F>(pub F);
#[derive(Clone, Copy)]
pub(super) struct Iq3S<F>(pub F);

static IQ2_XXS: LazyLock<Neighbours<8>> = LazyLock::new(|| Neighbours::of(&iq2::XXS_LATTICE));
static IQ2_XS: LazyLock<Neighbours<8>> = LazyLock::new(|| Neighbours::of(&iq2::XS_LATTICE));
static IQ2_S: LazyLock<Neighbours<8>> = LazyLock::new(|| Neighbours::of(&iq2::S_LATTICE));
static IQ3_XXS: LazyLock<Neighbours<4>> = LazyLock::new(|| Neighbours::of(&iq3::XXS_LATTICE));
static IQ3_S: LazyLock<Neighbours<4>> = LazyLock::new(|| Neighbours::of(&iq3::S_LATTICE));

/// How an encoding fits its groups: `power` times the mean square of a block is what values are weighed with, by
/// `unweighed` if there is no importance.
struct Fit<F, U, const DIM: usize> {
    finder: F,
    neighbours: &'static Neighbours<DIM>,
    search: &'static Search,
    power: f32,
    unweighed: U,
}

impl<F: Finder, U: Fn(f32, f32) -> f32, const DIM: usize> Fit<F, U, DIM> {
    /// The groups of each lane's block.
    #[inline(always)]
    fn groups<S: Simd, const LEN: usize, const POINTS: usize, const SIGNS: usize, const GROUPS: usize>(
        &self,
        batch: &Batch<'_, S, 256>,
    ) -> [[Group<POINTS, SIGNS>; GROUPS]; MOST] {
        const { assert!(LEN * GROUPS == 256) };
        let zero = batch.x.zero();
        let mut powers = [0.0; MOST];
        (zero.same(self.power) * batch.x.sum_of_squares() / zero.same(256.0)).store(&mut powers);
        let mut groups = [[Group { scale: 0.0, points: [0; POINTS], signs: [0; SIGNS] }; GROUPS]; MOST];
        let mut block = Blocks::<LEN>::new();
        for g in 0..GROUPS {
            for (lane, values) in batch.blocks.iter().enumerate() {
                let x: &[f32; LEN] = &values.as_chunks().0[g];
                block.x[lane] = *x;
                block.weights[lane] = match batch.weights[lane] {
                    Some(weights) => arithmetic::weigh(x, weights.group(g), powers[lane]),
                    None => x.map(
                        #[inline(always)]
                        |x| (self.unweighed)(x, powers[lane]),
                    ),
                };
            }
            let fitted = self.group::<S, LEN, POINTS, SIGNS>(batch.x.simd, batch.blocks.len(), &mut block);
            for (groups, fitted) in groups.iter_mut().zip(fitted) {
                groups[g] = fitted;
            }
        }
        groups
    }

    /// `Search::group` in the first `lanes` lanes.
    #[inline(always)]
    fn group<S: Simd, const LEN: usize, const POINTS: usize, const SIGNS: usize>(
        &self,
        simd: S,
        lanes: usize,
        blocks: &mut Blocks<LEN>,
    ) -> [Group<POINTS, SIGNS>; MOST] {
        const { assert!(LEN == DIM * POINTS && LEN == 8 * SIGNS) };
        let search = self.search;
        let lattice = self.neighbours.lattice;
        let mut signs = [[0; SIGNS]; MOST];
        for lane in 0..lanes {
            let eights = blocks.x[lane].as_chunks_mut::<8>().0.iter_mut();
            let eights = eights.zip(blocks.weights[lane].as_chunks::<8>().0);
            for (signs, (x, weights)) in signs[lane].iter_mut().zip(eights) {
                *signs = search.take_signs(x, weights);
            }
            blocks.roots[lane] = blocks.weights[lane].map(f32::sqrt);
        }
        let (mut x, mut weights) = (Rows([[0.0; MOST]; LEN]), Rows([[0.0; MOST]; LEN]));
        x.fill::<S>(&blocks.x.each_ref());
        weights.fill::<S>(&blocks.weights.each_ref());
        let (x, weights) = (x.column(simd), weights.column(simd));
        let zero = x.zero();
        let mut weighed = [zero.lanes(); LEN];
        let mut furthest = zero;
        for (i, weighed) in weighed.iter_mut().enumerate() {
            *weighed = (weights.at(i) * x.at(i)).lanes();
            furthest = furthest.less(x.at(i).abs()).select(x.at(i).abs(), furthest);
        }
        let values = Values { x, weights, weighed: Column { simd, rows: &weighed }, furthest, lanes };

        let levels = lattice.levels();
        let top = f32::from(2 * levels - 1);
        let largest = x.largest();
        let mut nothing = largest.less(zero.same(search.zero));
        let (mut scale, mut on_top) = (largest / zero.same(top), largest);
        if search.fits_first {
            scale = nonnegative(x, weights, i32::from(levels) + 1, &mut [zero.lanes(); LEN]);
            on_top = scale * zero.same(f32::from(levels));
            nothing = nothing.or(on_top.less_or_equal(zero));
        }

        let first = simd.splat_u32s(Table::pack(lattice.codes(0)));
        let mut points = [first; POINTS];
        let mut off_grid =
            [zero.same(if search.again == Again::OffGrid { 0.0 } else { 1.0 }).lanes(); POINTS];
        let mut best = zero;
        for trial in -search.trials..=search.trials {
            let inverse = zero.same(top + trial as f32 * search.by) / on_top;
            let tried = self.snap::<S, LEN, POINTS>(&values, blocks, zero.same(1.0) / inverse, inverse);
            let (xq, qq) = values.sums::<LEN, DIM, POINTS>(&tried.points);
            let better = zero.less(qq).and((best * qq).less(xq * xq));
            scale = better.select(xq / qq, scale);
            best = better.select(scale * xq, best);
            for k in 0..POINTS {
                points[k] = better.select_bits(tried.points[k], points[k]);
                let (this, before) = (Lanes::new(simd, tried.off_grid[k]), Lanes::new(simd, off_grid[k]));
                off_grid[k] = better.select(this, before).lanes();
            }
        }

        let half = zero.same(0.5);
        let mut again = zero.less(scale);
        if search.again != Again::All {
            let mut any = zero;
            for off_grid in &off_grid {
                any = any + Lanes::new(simd, *off_grid);
            }
            again = again.and(half.less(any));
        }
        let found = self.snap::<S, LEN, POINTS>(&values, blocks, scale, zero.same(1.0) / scale);
        for k in 0..POINTS {
            let mut here = again;
            if search.again == Again::OffGrid {
                here = here.and(half.less(Lanes::new(simd, off_grid[k])));
            }
            points[k] = here.select_bits(found.points[k], points[k]);
        }
        let (xq, qq) = values.sums::<LEN, DIM, POINTS>(&points);
        scale = again.and(zero.less(qq)).select(xq / qq, scale);
        scale = nothing.select(zero, scale);

        let mut scales = [0.0; MOST];
        scale.store(&mut scales);
        let is_something = nothing.select(zero, zero.same(1.0));
        let mut something = [0.0; MOST];
        is_something.store(&mut something);
        let mut packed = [[0; MOST]; POINTS];
        for (packed, points) in packed.iter_mut().zip(points) {
            S::as_mut_simd_u32s(packed).0[0] = points;
        }
        array::from_fn(
            #[inline(always)]
            |lane| {
                if lane >= lanes || something[lane] == 0.0 {
                    return Group { scale: 0.0, points: [0; POINTS], signs: [0; SIGNS] };
                }
                let points = array::from_fn(|k| self.neighbours.point(packed[k][lane]));
                search.upright(Group { scale: scales[lane], points, signs: signs[lane] })
            },
        )
    }

    /// `Lattice::snap` for each point of each lane.
    #[inline(always)]
    fn snap<S: Simd, const LEN: usize, const POINTS: usize>(
        &self,
        values: &Values<'_, S>,
        blocks: &Blocks<LEN>,
        scale: Lanes<S>,
        inverse: Lanes<S>,
    ) -> Snapped<S, POINTS> {
        let numbers: [[f32; MOST]; POINTS] = if (inverse * values.furthest).within(TAME).all() {
            self.numbers(
                values.x,
                inverse,
                #[inline(always)]
                |v, top| v.nearest_tame(0, top),
            )
        } else {
            self.numbers(
                values.x,
                inverse,
                #[inline(always)]
                |v, top| v.nearest(0, top),
            )
        };
        let mut scales = [0.0; MOST];
        scale.store(&mut scales);
        let (mut points, mut off_grid) = ([[0; MOST]; POINTS], [[0.0; MOST]; POINTS]);
        for lane in 0..values.lanes {
            let x: &[[f32; DIM]; POINTS] = blocks.x[lane].as_chunks().0.try_into().expect("POINTS points");
            let roots: &[[f32; DIM]; POINTS] =
                blocks.roots[lane].as_chunks().0.try_into().expect("POINTS points");
            for k in 0..POINTS {
                let errors =
                    Errors { x: &x[k], weights: &roots[k], scale: scales[lane], levels: &Table::<DIM>::ODD };
                let (point, on_grid) = self.neighbours.snap(numbers[k][lane] as usize, self.finder, &errors);
                points[k][lane] = point;
                off_grid[k][lane] = if on_grid { 0.0 } else { 1.0 };
            }
        }
        Snapped {
            points: array::from_fn(
                #[inline(always)]
                |k| S::as_simd_u32s(&points[k]).0[0],
            ),
            off_grid: array::from_fn(
                #[inline(always)]
                |k| S::as_simd_f32s(&off_grid[k]).0[0],
            ),
        }
    }

    /// The numbers of the rounded values' codes.
    #[inline(always)]
    fn numbers<S: Simd, const POINTS: usize>(
        &self,
        x: Column<'_, S>,
        inverse: Lanes<S>,
        nearest: impl Fn(Lanes<S>, i32) -> Lanes<S>,
    ) -> [[f32; MOST]; POINTS] {
        let levels = self.neighbours.lattice.levels();
        let top = i32::from(levels) - 1;
        let (half, one, levels) = (inverse.same(0.5), inverse.same(1.0), inverse.same(levels.into()));
        let mut numbers = [[0.0; MOST]; POINTS];
        for (k, numbers) in numbers.iter_mut().enumerate() {
            let mut number = inverse.same(0.0);
            for i in (0..DIM).rev() {
                let code = nearest(half * (inverse * x.at(k * DIM + i) - one), top);
                number = number * levels + code;
            }
            number.store(numbers);
        }
        numbers
    }
}

/// A group of each block, block by block.
struct Blocks<const LEN: usize> {
    /// Magnitudes, once the signs are taken.
    x: [[f32; LEN]; MOST],
    weights: [[f32; LEN]; MOST],
    /// Square roots of the weights.
    roots: [[f32; LEN]; MOST],
}

impl<const LEN: usize> Blocks<LEN> {
    fn new() -> Self {
        let zeros = [[0.0; LEN]; MOST];
        Blocks { x: zeros, weights: zeros, roots: zeros }
    }
}

/// A group of each block, a block in each lane.
struct Values<'a, S: Simd> {
    x: Column<'a, S>,
    weights: Column<'a, S>,
    /// Weights times values.
    weighed: Column<'a, S>,
    /// The largest distance from zero.
    furthest: Lanes<S>,
    lanes: usize,
}

impl<S: Simd> Values<'_, S> {
    /// Σ w·x·q and Σ w·q² for these points.
    #[inline(always)]
    fn sums<const LEN: usize, const DIM: usize, const POINTS: usize>(
        &self,
        points: &[S::u32s; POINTS],
    ) -> (Lanes<S>, Lanes<S>) {
        let (mut xq, mut qq) = (self.x.zero(), self.x.zero());
        for i in 0..LEN {
            let code = self.x.zero().digit(points[i / DIM], i % DIM * 4, Table::<DIM>::SLOTS as u32 - 1);
            let q = code + code + code.same(1.0);
            xq = xq + self.weighed.at(i) * q;
            qq = qq + self.weights.at(i) * q * q;
        }
        (xq, qq)
    }
}

struct Snapped<S: Simd, const POINTS: usize> {
    /// As `Table::pack` has them.
    points: [S::u32s; POINTS],
    /// 1 for values that were rounded off the grid, else 0.
    off_grid: [S::f32s; POINTS],
}

/// Where importance is needed and given.
fn never(_: f32, _: f32) -> f32 {
    unreachable!("there is importance")
}

impl<F: Finder> Encoder<256, 66> for Iq2Xxs<F> {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 66]]) {
        let fit = Fit {
            finder: self.0,
            neighbours: &IQ2_XXS,
            search: &iq2::XXS_SEARCH,
            power: 1.0,
            unweighed: never,
        };
        for (block, fits) in out.iter_mut().zip(fit.groups::<S, 32, 4, 4, 8>(batch)) {
            iq2::finish_iq2_xxs(&fits, block);
        }
    }
}

impl<F: Finder> Encoder<256, 74> for Iq2Xs<F> {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 74]]) {
        let fit = Fit {
            finder: self.0,
            neighbours: &IQ2_XS,
            search: &iq2::XS_SEARCH,
            power: 1.0,
            unweighed: never,
        };
        for (block, fits) in out.iter_mut().zip(fit.groups::<S, 16, 2, 2, 16>(batch)) {
            iq2::finish_iq2_xs(&fits, block);
        }
    }
}

impl<F: Finder> Encoder<256, 82> for Iq2S<F> {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 82]]) {
        let fit = Fit {
            finder: self.0,
            neighbours: &IQ2_S,
            search: &iq2::S_SEARCH,
            power: 2.0,
            unweighed: iq2::iq2_s_weight,
        };
        for (block, fits) in out.iter_mut().zip(fit.groups::<S, 16, 2, 2, 16>(batch)) {
            iq2::finish_iq2_s(&fits, block);
        }
    }
}

impl<F: Finder> Encoder<256, 98> for Iq3Xxs<F> {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 98]]) {
        let fit = Fit {
            finder: self.0,
            neighbours: &IQ3_XXS,
            search: &iq3::XXS_SEARCH,
            power: 2.0,
            unweighed: iq3::weight,
        };
        for (block, fits) in out.iter_mut().zip(fit.groups::<S, 32, 8, 4, 8>(batch)) {
            iq3::finish_iq3_xxs(&fits, block);
        }
    }
}

impl<F: Finder> Encoder<256, 110> for Iq3S<F> {
    #[inline(always)]
    fn encode<S: Simd>(self, batch: &Batch<'_, S, 256>, out: &mut [[u8; 110]]) {
        let fit = Fit {
            finder: self.0,
            neighbours: &IQ3_S,
            search: &iq3::S_SEARCH,
            power: 2.0,
            unweighed: iq3::weight,
        };
        let fits = fit.groups::<S, 32, 8, 4, 8>(batch);
        for ((block, values), fits) in out.iter_mut().zip(batch.blocks).zip(fits) {
            iq3::finish_iq3_s(values, &fits, block);
        }
    }
}
