//! Two arrays of one point, measured as they come.

use crate::align::{Alignment, align};
use crate::choices::ChoiceStats;
use crate::entry::Reader;
use crate::logits::LogitStats;
use crate::point::{self, LimitClass};
use crate::stats::{Stats, Sums};
use crate::tensor::{Values, ValuesRef};
use crate::{Error, Extent, View};

/// How many values of each side are converted and compared at a time.
const BLOCK: usize = 1 << 16;

/// What was measured at a point.
#[derive(Clone, Debug)]
pub(crate) enum Measured {
    /// Real numbers; logits also as distributions.
    Real(Stats, Option<LogitStats>),
    /// Choices of experts.
    Choices(ChoiceStats),
}

/// Takes aligned pairs from front to back.
#[derive(Debug)]
pub(crate) struct Measure {
    alignment: Alignment,
    /// Length of the rows that are judged as a whole.
    row: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Real(Sums, Option<LogitStats>),
    Choices(ChoiceStats),
}

impl Measure {
    /// Fails with the reason when the shapes do not fit.
    pub(crate) fn new(name: &str, reference: &[usize], candidate: &[usize]) -> Result<Measure, String> {
        let alignment = align(name, reference, candidate)?;
        // Where one side joins axes, the other tells where a row ends.
        let row = alignment.parts.iter().map(|part| part.row()).min().unwrap_or(1);
        let kind = match point::parse(name).map(|(_, kind)| kind.class) {
            Some(LimitClass::Index) => Kind::Choices(ChoiceStats::new()),
            Some(LimitClass::Logits) => Kind::Real(Sums::default(), Some(LogitStats::new())),
            _ => Kind::Real(Sums::default(), None),
        };
        Ok(Measure { alignment, row, kind })
    }

    pub(crate) fn alignment(&self) -> &Alignment {
        &self.alignment
    }

    /// How many values of whole rows make a block.
    fn block(&self) -> usize {
        self.row * (BLOCK / self.row).max(1)
    }

    /// Takes the next pairs: whole rows, after what the alignment leaves out was left out.
    pub(crate) fn add(&mut self, reference: &[f64], candidate: &[f64]) {
        let rows = || reference.chunks_exact(self.row).zip(candidate.chunks_exact(self.row));
        match &mut self.kind {
            Kind::Real(sums, logits) => {
                sums.add(reference, candidate);
                if let Some(logits) = logits {
                    rows().for_each(|(b, a)| logits.add(b, a));
                }
            }
            Kind::Choices(choices) => rows().for_each(|(b, a)| choices.add(b, a)),
        }
    }

    pub(crate) fn finish(self) -> Measured {
        match self.kind {
            Kind::Real(sums, logits) => {
                Measured::Real(sums.stats(|at| self.alignment.parts[0].index(at)), logits)
            }
            Kind::Choices(choices) => Measured::Choices(choices),
        }
    }

    /// Compares two stored arrays from front to back.
    pub(crate) fn run(mut self, mut sides: [Reader; 2]) -> Result<Measured, Error> {
        for (reader, part) in sides.iter_mut().zip(&self.alignment.parts) {
            skip(reader, part.skip)?;
        }
        let rows = self.block() / self.row;
        loop {
            let mut block = [Vec::new(), Vec::new()];
            for side in 0..2 {
                let left_out = self.alignment.parts[side].skip_in_row;
                let values = sides[side].next(rows * (self.row + left_out))?;
                block[side] = without(values.as_ref(), self.row + left_out, left_out);
            }
            let [reference, candidate] = &block;
            if reference.is_empty() {
                return Ok(self.finish());
            }
            self.add(reference, candidate);
        }
    }
}

/// Reads past `n` values.
fn skip(reader: &mut Reader, mut n: usize) -> Result<(), Error> {
    while n > 0 {
        let piece = n.min(BLOCK);
        reader.next(piece)?;
        n -= piece;
    }
    Ok(())
}

/// The values without the first `left_out` of each row of length `row`.
fn without(values: ValuesRef<'_>, row: usize, left_out: usize) -> Vec<f64> {
    let values = values.to_f64();
    if left_out == 0 {
        return values;
    }
    values.chunks_exact(row).flat_map(|row| &row[left_out..]).copied().collect()
}

/// A point of which one side is stored and the other is being recorded.
#[derive(Debug)]
pub(crate) struct Live {
    measure: Measure,
    /// Which side is recorded: 0 the reference, 1 the candidate.
    recorded: usize,
    stored: Reader,
    /// Values still to be left out at the front, per side.
    to_skip: [usize; 2],
    /// The latest record of a state.
    state: Option<Values>,
}

impl Live {
    pub(crate) fn new(measure: Measure, recorded: usize, stored: Reader) -> Live {
        let to_skip = [0, 1].map(|side| measure.alignment.parts[side].skip);
        Live { measure, recorded, stored, to_skip, state: None }
    }

    /// Takes a record. The caller has checked that it continues or replaces those before, and is not too long.
    pub(crate) fn add(&mut self, view: View<'_>) -> Result<(), Error> {
        if view.extent == Extent::State {
            self.state = Some(view.values.to_values());
            return Ok(());
        }
        skip(&mut self.stored, std::mem::take(&mut self.to_skip[1 - self.recorded]))?;
        let to_skip = &mut self.to_skip[self.recorded];
        let mut at = view.values.len().min(*to_skip);
        *to_skip -= at;
        while at < view.values.len() {
            let end = (at + self.measure.block()).min(view.values.len());
            let stored = self.stored.next(end - at)?.as_ref().to_f64();
            let recorded = view.values.slice(at..end).to_f64();
            let [reference, candidate] = sorted(self.recorded, recorded, stored);
            self.measure.add(&reference, &candidate);
            at = end;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Measured, Error> {
        match self.state {
            None => Ok(self.measure.finish()),
            Some(values) => {
                let recorded = Reader::Held { values, at: 0 };
                self.measure.run(sorted(self.recorded, recorded, self.stored))
            }
        }
    }
}

/// The reference's and the candidate's, of what is recorded and what is stored.
fn sorted<T>(recorded_side: usize, recorded: T, stored: T) -> [T; 2] {
    if recorded_side == 0 { [recorded, stored] } else { [stored, recorded] }
}
