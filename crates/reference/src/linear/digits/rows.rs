//! Rows of weights in digits.

use std::ops::Range;

use instructions::{LEFT, LINE, LINES, Tile, prefetch};
use model::Matrix;

use super::PIECE;
use super::number::{bias, part, truncate, unit};
use crate::exact::power_of_two;
use crate::linear::magnitude;

/// A row of weights in digits.
pub(super) struct Row {
    /// What a sum of products, from order [`LOWEST`](instructions::LOWEST) on, is multiplied by to give the row's times the token's
    /// unit.
    pub scale: f64,
    /// The largest weight.
    pub largest: f64,
    /// How much of a sum it may be off by rounding.
    pub relative: f64,
    /// And how much more, in units of the token.
    pub error: f64,
    /// Weights of which something is left.
    pub left: Range<usize>,
}

impl Row {
    /// `lowest` is the sum of the magnitudes of its lowest digits.
    fn new(largest: f32, unit: i32, lowest: u32, left: Range<usize>) -> Row {
        let some = left.len() as f64;
        let unit = if largest.is_finite() { power_of_two(unit) } else { f64::NAN };
        Row {
            scale: unit * f64::from(1 << (8 * instructions::LOWEST)),
            largest: largest.into(),
            // Joining the orders rounds once, each weight that is left twice; a hair more for the errors' own rounding.
            relative: (some + 4.0) * f64::EPSILON,
            // The lowest digits times those of the token, at most 128; and what is left, each time less than a unit times 2³⁹ of
            // the token's.
            error: unit * (f64::from(lowest) * 128.0 + some * (some + 4.0) * f64::EPSILON * power_of_two(39)),
            left,
        }
    }
}

/// A column and what is left of its weight.
type Left = (usize, f64);

/// Rows in digits, as many as share a pass over the tokens.
#[derive(Default)]
pub(in crate::linear) struct Group {
    /// `[⌈rows/16⌉, ⌈K/64⌉]`
    pub(super) tiles: Vec<[Tile; LEFT]>,
    pub(super) rows: Vec<Row>,
    /// What is left of all of them.
    pub(super) left: Vec<Left>,
}

/// What rows being taken apart need.
#[derive(Default)]
pub(in crate::linear) struct Space {
    /// The row at hand.
    narrow: Vec<f32>,
    scratch: Vec<f32>,
    /// All digits of every weight of a piece.
    words: Vec<u32>,
    /// Bits that digits do not hold.
    lost: Vec<u32>,
    /// One digit of every weight.
    plane: Vec<i8>,
}

/// Rows being taken apart, a little at a time.
pub(super) struct Preparing<'a> {
    w: &'a Matrix<'a>,
    /// Those that are to come, the one at hand included.
    rows: Range<usize>,
    stage: Stage,
}

/// How far a row is.
enum Stage {
    Encoded,
    Decoded,
    /// Columns up to `at` are in digits.
    Apart {
        at: usize,
        largest: f32,
        unit: i32,
        /// The sum of the lowest digits' magnitudes.
        lowest: u32,
        /// Where in a group what is left of it begins.
        left: usize,
    },
}

impl<'a> Preparing<'a> {
    /// Of rows that `group` is to hold.
    pub(super) fn new(
        w: &'a Matrix<'a>,
        rows: Range<usize>,
        group: &mut Group,
        space: &mut Space,
    ) -> Preparing<'a> {
        let steps = w.cols().div_ceil(LINE);
        group.tiles.resize(rows.len().div_ceil(LINES) * steps, [Tile::ZERO; LEFT]);
        group.rows.clear();
        group.left.clear();
        space.narrow.clear();
        space.narrow.resize(steps * LINE, 0.0);
        space.words.resize(PIECE, 0);
        space.lost.resize(PIECE, 0);
        space.plane.resize(PIECE, 0);
        Preparing { w, rows, stage: Stage::Encoded }
    }

    /// Decodes a row, or looks for its largest weight, or takes a piece of it apart. False if there is nothing left to do.
    #[inline(always)]
    pub(super) fn advance(&mut self, group: &mut Group, space: &mut Space) -> bool {
        if self.rows.is_empty() {
            return false;
        }
        match &mut self.stage {
            Stage::Encoded => {
                let row = self.rows.start;
                self.w.row(row, &mut space.narrow[..self.w.cols()], &mut space.scratch);
                if row + 1 < self.w.rows() {
                    prefetch(self.w.row_bytes(row + 1));
                }
                self.stage = Stage::Decoded;
            }
            Stage::Decoded => {
                let largest = magnitude(&space.narrow);
                let (unit, left) = (unit::<LEFT>(largest), group.left.len());
                self.stage = Stage::Apart { at: 0, largest, unit, lowest: 0, left };
            }
            Stage::Apart { at, largest, unit, lowest, left } => {
                let end = space.narrow.len().min(*at + PIECE);
                *lowest += take_apart(*at..end, *unit, group, space);
                *at = end;
                if end == space.narrow.len() {
                    let left = *left..group.left.len();
                    group.rows.push(Row::new(*largest, *unit, *lowest, left));
                    self.rows.start += 1;
                    self.stage = Stage::Encoded;
                }
            }
        }
        true
    }
}

/// Puts columns of the decoded row into the group's next line, and returns the sum of the lowest digits' magnitudes.
#[inline(always)]
fn take_apart(columns: Range<usize>, unit: i32, group: &mut Group, space: &mut Space) -> u32 {
    let Space { narrow, words, lost, plane, .. } = space;
    let weights = &narrow[columns.clone()];
    let (words, lost, plane) =
        (&mut words[..weights.len()], &mut lost[..weights.len()], &mut plane[..weights.len()]);
    let (mut lowest, mut any) = (0, 0);
    for ((word, lost), weight) in words.iter_mut().zip(&mut *lost).zip(weights) {
        let (whole, left) = truncate(weight.to_bits(), unit);
        *word = whole.wrapping_add(bias::<LEFT>() as u32) ^ bias::<LEFT>() as u32;
        *lost = left;
        lowest += u32::from((*word as i8).unsigned_abs());
        any |= left;
    }
    let (r, steps) = (group.rows.len(), narrow.len() / LINE);
    let tiles = &mut group.tiles[r / LINES * steps..][columns.start / LINE..columns.end / LINE];
    for i in 0..LEFT {
        plane.iter_mut().zip(&*words).for_each(|(byte, word)| *byte = (word >> (8 * i)) as i8);
        for (tile, plane) in tiles.iter_mut().zip(plane.as_chunks::<LINE>().0) {
            tile[i].0[r % LINES] = *plane;
        }
    }
    if any != 0 {
        for (k, (lost, weight)) in lost.iter().zip(weights).enumerate().filter(|(_, (lost, _))| **lost != 0) {
            group.left.push((columns.start + k, part(weight.to_bits(), *lost)));
        }
    }
    lowest
}
