//! The search for points of a grid that fit a group of values best, shared by the encoders of IQ2 and IQ3.
//!
//! A coordinate's code c stands for the odd number 2c + 1 here, whatever level the decoder gives it.

use std::array;

use crate::arithmetic::{largest, nearest};
use crate::search::nonnegative;

/// A grid of points, and for each combination of codes that is not one of them the points around it.
pub(crate) struct Lattice<const DIM: usize> {
    points: &'static [[u8; DIM]],
    /// Codes of a coordinate are below this.
    levels: u8,
    /// By the number that a combination of codes is when read as digits, the first one the lowest.
    places: Vec<Place>,
}

/// Where a combination of codes lies.
pub(crate) enum Place {
    /// On this point.
    On(u16),
    /// Off the grid; the nearest points, nearest first, in the grid's order those equally near.
    Off(Vec<u16>),
}

impl<const DIM: usize> Lattice<DIM> {
    /// Off the grid, those points count as neighbours that have one of the `shells` smallest distances.
    pub fn new(points: &'static [[u8; DIM]], levels: u8, shells: usize) -> Self {
        let mut lattice = Lattice { points, levels, places: Vec::new() };
        lattice.places = (0..usize::from(levels).pow(DIM as u32))
            .map(|number| lattice.around(array::from_fn(|i| lattice.digit(number, i)), shells))
            .collect();
        for (index, point) in (0..).zip(points) {
            let number = lattice.number(point);
            lattice.places[number] = Place::On(index);
        }
        lattice
    }

    /// Where each combination of codes lies, by its number: the codes are its digits, the first one the lowest.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Codes of a coordinate are below this.
    pub fn levels(&self) -> u8 {
        self.levels
    }

    fn digit(&self, number: usize, i: usize) -> u8 {
        let levels = usize::from(self.levels);
        (number / levels.pow(i as u32) % levels) as u8
    }

    /// Their number.
    pub fn number(&self, codes: &[u8; DIM]) -> usize {
        codes.iter().rev().fold(0, |number, &code| number * usize::from(self.levels) + usize::from(code))
    }

    fn around(&self, codes: [u8; DIM], shells: usize) -> Place {
        // Points by their squared distance: few distances occur.
        let mut by_distance = vec![Vec::new(); DIM * usize::from(self.levels - 1).pow(2) + 1];
        for (index, point) in (0..).zip(self.points) {
            let distance: u16 = point.iter().zip(codes).map(|(a, b)| u16::from(a.abs_diff(b)).pow(2)).sum();
            by_distance[usize::from(distance)].push(index);
        }
        Place::Off(by_distance.into_iter().filter(|shell| !shell.is_empty()).take(shells).flatten().collect())
    }

    /// Where the combination of codes lies.
    pub fn place(&self, codes: &[u8; DIM]) -> &Place {
        &self.places[self.number(codes)]
    }

    /// The codes of a point.
    pub fn codes(&self, point: u16) -> &'static [u8; DIM] {
        &self.points[usize::from(point)]
    }

    /// The point for values that are about to be divided by a scale: that of the rounded values if it is on the grid
    /// (and whether it is), else the neighbour with the least error.
    fn snap(&self, x: &[f32; DIM], roots: &[f32; DIM], scale: f32, inverse: f32) -> (u16, bool) {
        let top = i32::from(self.levels) - 1;
        let codes = x.map(|x| nearest(0.5 * (inverse * x - 1.0)).clamp(0, top) as u8);
        match self.place(&codes) {
            Place::On(point) => (*point, true),
            Place::Off(neighbours) => {
                let error = |point: u16| {
                    let errors =
                        x.iter().zip(self.codes(point)).map(|(x, &c)| scale * f32::from(2 * c + 1) - x);
                    errors.zip(roots).fold(0.0, |sum, (error, w)| sum + w * error * error)
                };
                (least(neighbours, error), false)
            }
        }
    }
}

/// The first point with the least error.
pub(crate) fn least(points: &[u16], error: impl Fn(u16) -> f32) -> u16 {
    let mut best = (f32::MAX, points[0]);
    for &point in points {
        let error = error(point);
        if error < best.0 {
            best = (error, point);
        }
    }
    best.1
}

/// How an encoding looks for the points of a group.
pub(crate) struct Search {
    /// Whether the number of minuses among eight signs must be even, so that seven need be stored.
    pub even_signs: bool,
    /// A group whose magnitudes all lie below this counts as zeros.
    pub zero: f32,
    /// Whether the first guess at a scale is a least-squares fit, not what puts the largest magnitude on top.
    pub fits_first: bool,
    /// The trials put what the guess has on top at up to so many
    pub trials: i32,
    /// of these to either side of it.
    pub by: f32,
    /// Which points are looked for once more under the best trial's scale.
    pub again: Again,
}

/// See [`Search::again`].
#[derive(PartialEq)]
pub(crate) enum Again {
    /// Those of values that were rounded off the grid.
    OffGrid,
    /// All of them, if any was.
    AllIfAnyOffGrid,
    /// All of them.
    All,
}

/// A group of values as `scale` times points with signs (a set bit is a minus).
#[derive(Clone, Copy)]
pub(crate) struct Group<const POINTS: usize, const SIGNS: usize> {
    pub scale: f32,
    pub points: [u16; POINTS],
    pub signs: [u8; SIGNS],
}

impl Search {
    /// Fits `POINTS` points of `DIM` coordinates, and a byte of signs for each eight values.
    pub fn group<const LEN: usize, const DIM: usize, const POINTS: usize, const SIGNS: usize>(
        &self,
        lattice: &Lattice<DIM>,
        x: &[f32; LEN],
        weights: &[f32; LEN],
    ) -> Group<POINTS, SIGNS> {
        const { assert!(LEN == DIM * POINTS && LEN == 8 * SIGNS) };
        let mut group = Group { scale: 0.0, points: [0; POINTS], signs: [0; SIGNS] };
        let mut magnitudes = *x;
        let mut signs = [0; SIGNS];
        let eights = magnitudes.as_chunks_mut::<8>().0.iter_mut().zip(weights.as_chunks::<8>().0);
        for (signs, (x, weights)) in signs.iter_mut().zip(eights) {
            *signs = self.take_signs(x, weights);
        }
        let largest = largest(&magnitudes);
        if largest < self.zero {
            return group;
        }

        let top = f32::from(2 * lattice.levels - 1);
        let (mut scale, mut on_top) = (largest / top, largest);
        if self.fits_first {
            scale = nonnegative(&magnitudes, weights, i32::from(lattice.levels) + 1).0;
            on_top = scale * f32::from(lattice.levels);
            if on_top <= 0.0 {
                return group;
            }
        }
        group.signs = signs;

        let roots = weights.map(f32::sqrt);
        let (x, roots) = (magnitudes.as_chunks::<DIM>().0, roots.as_chunks::<DIM>().0);
        // Σ w·x·q and Σ w·q² for these points.
        let sums = |points: &[u16; POINTS]| {
            let quants = points.iter().flat_map(|&point| lattice.codes(point)).map(|&c| f32::from(2 * c + 1));
            let values = magnitudes.iter().zip(weights).zip(quants);
            values.fold((0.0, 0.0), |(xq, qq), ((x, w), q)| (xq + w * x * q, qq + w * q * q))
        };
        let mut on_grid = [self.again == Again::OffGrid; POINTS];
        let mut best = 0.0;
        for trial in -self.trials..=self.trials {
            let inverse = (top + trial as f32 * self.by) / on_top;
            let snapped: [_; POINTS] =
                array::from_fn(|k| lattice.snap(&x[k], &roots[k], 1.0 / inverse, inverse));
            let points = snapped.map(|(point, _)| point);
            let (xq, qq) = sums(&points);
            if qq > 0.0 && xq * xq > best * qq {
                scale = xq / qq;
                best = scale * xq;
                group.points = points;
                on_grid = snapped.map(|(_, on_grid)| on_grid);
            }
        }
        let any_off_grid = on_grid.contains(&false);
        if scale > 0.0 && (any_off_grid || self.again == Again::All) {
            for k in 0..POINTS {
                if self.again != Again::OffGrid || !on_grid[k] {
                    group.points[k] = lattice.snap(&x[k], &roots[k], scale, 1.0 / scale).0;
                }
            }
            let (xq, qq) = sums(&group.points);
            if qq > 0.0 {
                scale = xq / qq;
            }
        }
        group.scale = scale;
        self.upright(group)
    }

    /// Turns a scale below zero, and the signs with it.
    pub fn upright<const POINTS: usize, const SIGNS: usize>(
        &self,
        mut group: Group<POINTS, SIGNS>,
    ) -> Group<POINTS, SIGNS> {
        if group.scale < 0.0 {
            group.scale = -group.scale;
            group.signs = group.signs.map(|signs| if self.even_signs { !signs & 127 } else { !signs });
        }
        group
    }

    /// Leaves magnitudes, but for one value that stays below zero if the signs must be even and are not: the one whose
    /// wrong sign costs least. Returns the signs to store.
    pub fn take_signs(&self, x: &mut [f32; 8], weights: &[f32; 8]) -> u8 {
        let values = *x;
        let mut signs = 0;
        for (i, x) in x.iter_mut().enumerate() {
            if *x < 0.0 {
                *x = -*x;
                signs |= 1 << i;
            }
        }
        if !self.even_signs {
            return signs;
        }
        if signs.count_ones() % 2 == 1 {
            let cost = |i: usize| weights[i] * values[i] * values[i];
            let cheapest = (1..8).fold(0, |best, i| if cost(i) < cost(best) { i } else { best });
            x[cheapest] = -x[cheapest];
            signs ^= 1 << cheapest;
        }
        signs & 127
    }
}

/// The scales as odd multiples 2l + 1 of d, which puts the largest one at `top` (an odd number). `None` if all are zero.
pub(crate) fn odd_multiples<const GROUPS: usize>(
    scales: &[f32; GROUPS],
    top: u8,
) -> Option<(f32, [u8; GROUPS])> {
    let largest = largest(scales);
    if largest == 0.0 {
        return None;
    }
    let d = largest / f32::from(top);
    let inverse = 1.0 / d;
    let code = |scale: f32| nearest(0.5 * (inverse * scale - 1.0)).clamp(0, i32::from(top / 2)) as u8;
    Some((d, scales.map(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_points_or_the_shells_around() {
        static POINTS: [[u8; 2]; 4] = [[0, 0], [2, 0], [2, 2], [1, 2]];
        let lattice = Lattice::new(&POINTS, 3, 2);
        for (index, point) in (0..).zip(&POINTS) {
            assert!(matches!(lattice.place(point), Place::On(on) if *on == index));
        }
        // From (1, 0): two points at distance 1, in the grid's order, then one at distance 2.
        let Place::Off(neighbours) = lattice.place(&[1, 0]) else { panic!("(1, 0) is off the grid") };
        assert_eq!(neighbours[..], [0, 1, 3]);
        // From (1, 1): one point straight above, then the three at the corners.
        let Place::Off(neighbours) = lattice.place(&[1, 1]) else { panic!("(1, 1) is off the grid") };
        assert_eq!(neighbours[..], [3, 0, 1, 2]);
    }

    #[test]
    fn signs_are_made_even_where_it_costs_least() {
        let search = Search {
            even_signs: true,
            zero: 0.0,
            fits_first: false,
            trials: 0,
            by: 0.0,
            again: Again::OffGrid,
        };
        let mut x = [1.0, -2.0, 3.0, 4.0, 0.5, 6.0, 7.0, 8.0];
        let mut weights = [1.0; 8];
        assert_eq!(search.take_signs(&mut x, &weights), 0b1_0010);
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0, -0.5, 6.0, 7.0, 8.0]);
        let mut x = [1.0, -2.0, 3.0, 4.0, 0.5, 6.0, 7.0, 8.0];
        weights[7] = 1e-6;
        assert_eq!(search.take_signs(&mut x, &weights), 0b0010, "the eighth sign is not stored");
        assert_eq!(x[7], -8.0);
    }

    #[test]
    fn odd_multiples_reach_the_top() {
        assert_eq!(odd_multiples(&[0.0; 2], 31), None);
        assert_eq!(odd_multiples(&[31.0, 3.0, 0.0], 31), Some((1.0, [15, 1, 0])));
    }
}
