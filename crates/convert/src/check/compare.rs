//! One weight of two checkpoints, row by row.

use codec::Encoding;
use model::layout::Role;
use model::{Checkpoint, Place};
use rayon::prelude::*;

use crate::as_llama_cpp::in_half;
use crate::check::bound;
use crate::form::{Form, Held};
use crate::source::{Rows, Source};

/// Values that a thread compares at a time.
const PIECE_VALUES: usize = 1 << 16;
/// Encodings that are quick to make: their bytes are made again to see whether they are the other's.
const QUICK: [Encoding; 1] = [Encoding::Q8_0];

/// A weight that both have.
pub(super) struct Pair<'a> {
    pub(super) a: Box<dyn Rows + 'a>,
    pub(super) b: Box<dyn Rows + 'a>,
    pub(super) form_a: Form,
    pub(super) form_b: Form,
    encodings: [Vec<Encoding>; 2],
    place: Place,
}

/// What a comparison has seen so far.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Values.
    pub(super) count: u64,
    /// Whether all rows have the same bytes.
    pub(super) same_bytes: bool,
    /// Values that no rounding of the one makes the other.
    pub(super) differing: u64,
    /// The first row that has any, canonical.
    pub(super) first: Option<usize>,
    /// Sum of squared differences.
    pub(super) squares: f64,
    /// Whether some values differ by the rounding of a plain encoding.
    pub(super) rounded: bool,
    /// Of rates, the most units in the last place that an `exp` in f32 was off.
    pub(super) ulps: u32,
    /// Whether some were computed in halves, as llama.cpp's converter computes those of F16 checkpoints.
    pub(super) in_halves: bool,
    /// Sum over rows of what their squared errors may be; `None` if an encoding bounds nothing.
    bound: Option<f64>,
    /// The largest ratio of a row's squared error to its bound.
    worst: f64,
}

impl Seen {
    fn nothing() -> Seen {
        Seen {
            count: 0,
            same_bytes: true,
            differing: 0,
            first: None,
            squares: 0.0,
            rounded: false,
            ulps: 0,
            in_halves: false,
            bound: Some(0.0),
            worst: 0.0,
        }
    }

    fn and(self, other: Seen) -> Seen {
        Seen {
            count: self.count + other.count,
            same_bytes: self.same_bytes && other.same_bytes,
            differing: self.differing + other.differing,
            first: [self.first, other.first].into_iter().flatten().min(),
            squares: self.squares + other.squares,
            rounded: self.rounded || other.rounded,
            ulps: self.ulps.max(other.ulps),
            in_halves: self.in_halves || other.in_halves,
            bound: self.bound.zip(other.bound).map(|(a, b)| a + b),
            worst: self.worst.max(other.worst),
        }
    }

    pub(super) fn bound(&self) -> Option<f64> {
        self.bound.filter(|bound| *bound > 0.0)
    }

    /// No row is further away than its encoding makes it. NaN is.
    pub(super) fn within_bound(&self) -> bool {
        self.bound().is_some() && self.worst <= 1.0
    }

    /// Of the root of the mean square.
    pub(super) fn worst_ratio(&self) -> f64 {
        self.worst.sqrt()
    }
}

/// An `exp` of f32 that is good to one unit in the last place makes rates so far from the exact one's.
const EXP_ULPS: u32 = 1;

/// Working space of a thread.
#[derive(Default)]
struct Space {
    a: Vec<f32>,
    b: Vec<f32>,
    scratch: Vec<f32>,
    decoded: Vec<f32>,
    bytes: Vec<u8>,
}

impl<'a> Pair<'a> {
    pub(super) fn new(
        a: &'a Checkpoint,
        b: &'a Checkpoint,
        (place, role): (Place, Role),
        form_a: Form,
        form_b: Form,
        encodings: [Vec<Encoding>; 2],
    ) -> Option<Pair<'a>> {
        Some(Pair { a: a.weight(place, role)?, b: b.weight(place, role)?, form_a, form_b, encodings, place })
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// From the first one's form to the other's, in words.
    pub(super) fn steps(&self) -> Vec<&'static str> {
        self.form_a.steps_to(&self.form_b)
    }

    /// What takes the one to the other.
    pub(super) fn explanation(&self, seen: &Seen) -> String {
        let mut steps: Vec<String> = self.steps().into_iter().map(str::to_owned).collect();
        let [a, b] = &self.encodings;
        let names = |of: &[Encoding]| of.iter().map(|e| e.name()).collect::<Vec<_>>().join(",");
        if a != b {
            let rounded = if seen.rounded { ", rounded" } else { "" };
            steps.push(format!("{} → {}{rounded}", names(a), names(b)));
        }
        if seen.in_halves {
            steps.push("computed in F16, not rounded once to F32".to_owned());
        }
        if seen.ulps > 0 {
            steps.push(format!("exp differs by {} ulp", seen.ulps));
        }
        steps.join(", ")
    }

    pub(super) fn compare(&self) -> Seen {
        let (rows, cols) = (self.form_a.rows(), self.form_a.cols());
        let piece = (PIECE_VALUES / cols.max(1)).max(1);
        let starts = (0..rows).step_by(piece).collect::<Vec<_>>();
        let seen = starts.into_par_iter().map_init(Space::default, |space, start| {
            (start..rows.min(start + piece)).fold(Seen::nothing(), |seen, row| seen.and(self.row(row, space)))
        });
        // In order, so that sums come out the same for any number of threads.
        seen.collect::<Vec<_>>().into_iter().fold(Seen::nothing(), Seen::and)
    }

    /// Compares one canonical row.
    fn row(&self, row: usize, space: &mut Space) -> Seen {
        let cols = self.form_a.cols();
        let mut seen = Seen { count: cols as u64, ..Seen::nothing() };
        if self.same_bytes(row) {
            return seen;
        }
        seen.same_bytes = false;
        for values in [&mut space.a, &mut space.b, &mut space.decoded] {
            values.resize(cols, 0.0);
        }
        // What the one's values make of the other's form and encodings is the other's; or the other way round, where
        // the first is the one that was rounded.
        let [of_a, of_b] = &self.encodings;
        let there = Side { from: &*self.a, made_of: of_a, to: &*self.b, form: &self.form_b, encodings: of_b };
        let back = Side { from: &*self.b, made_of: of_b, to: &*self.a, form: &self.form_a, encodings: of_a };
        if let Some(Made { rounded, ulps, in_halves }) =
            back.makes(row, space).or_else(|| there.makes(row, space))
        {
            // Vectors are not compared by bytes above.
            let exact = !rounded && ulps == 0 && !in_halves;
            seen.same_bytes = cols == 1 && exact && self.encodings[0] == self.encodings[1];
            (seen.rounded, seen.ulps, seen.in_halves) = (rounded, ulps, in_halves);
            return seen;
        }
        let Space { a, b, scratch, .. } = space;
        self.read(row, a, b, scratch);
        seen.first = Some(row);
        seen.differing = a.iter().zip(&*b).filter(|(a, b)| a.to_bits() != b.to_bits()).count() as u64;
        seen.squares = a.iter().zip(&*b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        let of = |encodings: &[Encoding], values: &[f32]| {
            let bounds = encodings.iter().filter_map(|encoding| bound::squares(*encoding, values));
            bounds.fold(None, |largest: Option<f64>, bound| Some(largest.map_or(bound, |l| l.max(bound))))
        };
        // Each of the two may be off from what both were made of; errors add, their squares within twice the sum. The
        // values of a side that is encoded stand for those it was made of where there are no better ones.
        seen.bound = match (of(&self.encodings[0], b), of(&self.encodings[1], a)) {
            (None, None) => None,
            (Some(bound), None) | (None, Some(bound)) => Some(bound),
            (Some(x), Some(y)) => Some(2.0 * (x + y)),
        };
        let ratio = seen.squares / seen.bound.unwrap_or(0.0);
        seen.worst = if ratio.is_nan() { f64::INFINITY } else { ratio };
        seen
    }

    /// Reads a row of both, as the second one holds it.
    pub(super) fn read(&self, row: usize, a: &mut [f32], b: &mut [f32], scratch: &mut Vec<f32>) {
        self.a.read(row, a, scratch);
        self.a.held().convert(self.b.held(), a);
        self.b.read(row, b, scratch);
        self.form_b.columns_to_stored(a, scratch);
        self.form_b.columns_to_stored(b, scratch);
    }

    fn same_bytes(&self, row: usize) -> bool {
        let (Some(a), Some(b)) = (self.a.stored(row), self.b.stored(row)) else { return false };
        self.a.held() == self.b.held()
            && a.encoding == b.encoding
            && a.columns == b.columns
            && a.tensor[a.start..][..a.len] == b.tensor[b.start..][..b.len]
    }
}

/// One direction: from the values of one file to those of the other.
struct Side<'a> {
    from: &'a dyn Rows,
    made_of: &'a [Encoding],
    to: &'a dyn Rows,
    form: &'a Form,
    encodings: &'a [Encoding],
}

/// How the one's values became the other's.
struct Made {
    rounded: bool,
    ulps: u32,
    in_halves: bool,
}

impl Made {
    const EXACTLY: Made = Made { rounded: false, ulps: 0, in_halves: false };
}

impl Side<'_> {
    fn makes(&self, row: usize, space: &mut Space) -> Option<Made> {
        let Space { a, b, scratch, decoded, bytes } = space;
        self.from.read(row, a, scratch);
        self.from.held().convert(self.to.held(), a);
        self.to.read(row, b, scratch);
        self.form.columns_to_stored(a, scratch);
        self.form.columns_to_stored(b, scratch);
        if same(a, b) {
            return Some(Made::EXACTLY);
        }
        for &encoding in self.encodings {
            bytes.resize(a.len() / encoding.block_len() * encoding.block_bytes(), 0);
            let quick = encoding.block_len() == 1 || QUICK.contains(&encoding);
            let made = quick && encoding.encode(a, None, bytes).is_ok();
            if made && encoding.decode(bytes, decoded).is_ok() && same(decoded, b) {
                return Some(Made { rounded: true, ..Made::EXACTLY });
            }
        }
        let through_exp = (self.from.held(), self.to.held()) == (Held::LogOfNegative, Held::Plain);
        let near = |(a, b): (&f32, &f32)| a.to_bits().abs_diff(b.to_bits()) <= EXP_ULPS;
        if through_exp && a.iter().zip(&*b).all(near) {
            return Some(Made { ulps: EXP_ULPS, ..Made::EXACTLY });
        }
        let computed = self.made_of == [Encoding::F16] && self.from.held() != self.to.held();
        let in_halves = |(a, b): (&f32, &f32)| in_half(*a).to_bits() == b.to_bits();
        (computed && a.iter().zip(&*b).all(in_halves)).then_some(Made { in_halves: true, ..Made::EXACTLY })
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
