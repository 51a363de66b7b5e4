//! Activations in digits.

use std::ops::Range;

use instructions::{LINE, LINES, RIGHT, Tile};
use rayon::prelude::*;

use super::PIECE;
use super::number::{SIGN, nearest, unit};
use crate::dot::LANES;
use crate::exact::power_of_two;
use crate::kernels::Kernels;
use crate::linear::Packed;

/// Activations in digits.
pub(in crate::linear) struct Tokens {
    /// `[⌈T/16⌉, ⌈K/64⌉]`, zero where there is neither token nor column.
    pub(super) tiles: Vec<[Tile; RIGHT]>,
    /// Of every token, and zeros for those that fill up the last tile.
    pub(super) units: Vec<f64>,
    /// `Σ|x|` of what digits leave over.
    pub(super) left: Vec<f64>,
}

impl Tokens {
    pub(super) fn new(x: &Packed, kernels: Kernels) -> Tokens {
        let steps = x.cols.div_ceil(LINE);
        let count = x.tokens.div_ceil(LINES);
        let zeros = (0..count * steps).into_par_iter().with_min_len(64).map(|_| [Tile::ZERO; RIGHT]);
        let mut tiles: Vec<_> = zeros.collect();
        let (mut units, mut left) = (vec![0.0; count * LINES], vec![0.0; count * LINES]);
        let parts = tiles.par_chunks_exact_mut(steps.max(1)).zip(units.par_chunks_exact_mut(LINES));
        parts.zip(left.par_chunks_exact_mut(LINES)).enumerate().for_each(|(tile, ((tiles, units), left))| {
            let tokens = tile * LINES..x.tokens.min((tile + 1) * LINES);
            kernels.vectorize(
                #[inline(always)]
                || put(x, tokens, tiles, units, left),
            );
        });
        Tokens { tiles, units, left }
    }
}

/// Puts up to sixteen tokens into their tiles, a few columns of all of them at a time.
#[inline(always)]
fn put(x: &Packed, tokens: Range<usize>, tiles: &mut [[Tile; RIGHT]], units: &mut [f64], left: &mut [f64]) {
    let mut inverses = [0.0; LINES];
    for ((x, unit_of), inverse) in tokens.clone().map(|t| x.token(t)).zip(&mut *units).zip(&mut inverses) {
        let largest = f32::from_bits(x.iter().fold(0, |most, &x| most.max((x as f32).to_bits() & !SIGN)));
        let n = unit::<RIGHT>(largest);
        (*unit_of, *inverse) = match largest.is_finite() {
            true => (power_of_two(n), power_of_two(-n)),
            false => (f64::NAN, f64::NAN),
        };
    }
    let (mut words, mut rests, mut plane) = ([0; PIECE], [0.0; PIECE], [0; PIECE]);
    for (piece, tiles) in tiles.chunks_mut(PIECE / LINE).enumerate() {
        for (t, token) in tokens.clone().enumerate() {
            let x = &x.token(token)[piece * PIECE..x.cols.min((piece + 1) * PIECE)];
            let (words, rests) = (&mut words[..x.len()], &mut rests[..x.len()]);
            for ((word, rest), &x) in words.iter_mut().zip(&mut *rests).zip(x) {
                (*word, *rest) = nearest(x, inverses[t]);
            }
            left[t] += magnitudes(rests) * units[t];
            plane[x.len()..].fill(0);
            for j in 0..RIGHT {
                plane.iter_mut().zip(&*words).for_each(|(byte, word)| *byte = (word >> (8 * j)) as i8);
                for (tile, plane) in tiles.iter_mut().zip(plane.as_chunks::<LINE>().0) {
                    for (line, plane) in tile[j].0.iter_mut().zip(plane.as_chunks::<4>().0) {
                        line[4 * t..4 * t + 4].copy_from_slice(plane);
                    }
                }
            }
        }
    }
}

/// `Σ|x|`, in lanes.
#[inline(always)]
fn magnitudes(x: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for l in 0..LANES {
            lanes[l] += x[l].abs();
        }
    }
    rest.iter().zip(&mut lanes).for_each(|(x, lane)| *lane += x.abs());
    lanes.iter().sum()
}
