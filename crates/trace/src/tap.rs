//! How a forward pass offers its intermediate values to whoever listens.

use crate::tensor::{ValuesRef, elements};

/// What successive records of one point mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Axis 0 is tokens; successive records append.
    Tokens,
    /// A state after the last token so far; the latest record replaces the one before.
    State,
}

/// One record of one point, borrowed for the time of the call.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Lengths of the axes, outermost first.
    pub shape: &'a [usize],
    /// As many values as the shape has elements, row-major.
    pub values: ValuesRef<'a>,
    /// Whether this record appends or replaces.
    pub extent: Extent,
}

/// Listens to a forward pass.
pub trait Tap {
    /// Whether [`Tap::record`] would use this point. A pass asks before it computes or copies anything only a
    /// tap needs.
    fn wants(&self, name: &str) -> bool;

    /// Takes one record of a point. Called only for names this tap wants.
    fn record(&mut self, name: &str, view: View<'_>) -> Result<(), TapError>;
}

/// Wants nothing.
pub struct NoTap;

impl Tap for NoTap {
    fn wants(&self, _: &str) -> bool {
        false
    }

    fn record(&mut self, _: &str, _: View<'_>) -> Result<(), TapError> {
        Ok(())
    }
}

/// A tap could not take a record. The pass stops with it.
#[derive(Debug, thiserror::Error)]
#[error("at point `{point}`: {source}")]
pub struct TapError {
    /// The point whose record was refused.
    pub point: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl TapError {
    /// The failure `source` at `point`.
    pub fn new(point: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TapError {
        TapError { point: point.to_owned(), source: source.into() }
    }
}

/// A record contradicts itself or the records before it: a fault of the pass that made it.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ViewError {
    /// Shape and values disagree.
    #[error("a record of shape {shape:?} holds {values} values")]
    Count {
        /// The record's shape.
        shape: Vec<usize>,
        /// How many values came with it.
        values: usize,
    },
    /// A per-token record has no token axis.
    #[error("a per-token record needs an axis of tokens, but it is a scalar")]
    NoTokenAxis,
    /// The extent, the element type or an axis other than the tokens changed between two records.
    #[error("records before had shape {before:?}, this one has {now:?}, or another element type or extent")]
    Changed {
        /// The shape so far.
        before: Vec<usize>,
        /// The shape of the refused record.
        now: Vec<usize>,
    },
    /// More tokens were recorded than announced.
    #[error("{announced} tokens were announced, but {recorded} were recorded")]
    TooManyTokens {
        /// Tokens announced when the tap was made.
        announced: usize,
        /// Tokens recorded, this record included.
        recorded: usize,
    },
}

impl View<'_> {
    /// Checks that shape, values and extent agree with each other.
    pub fn check(&self) -> Result<(), ViewError> {
        if elements(self.shape) != Some(self.values.len()) {
            return Err(ViewError::Count { shape: self.shape.to_vec(), values: self.values.len() });
        }
        if self.extent == Extent::Tokens && self.shape.is_empty() {
            return Err(ViewError::NoTokenAxis);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_contradicts_itself_is_refused() {
        let values = ValuesRef::F32(&[1.0, 2.0]);
        let view = |shape, extent| View { shape, values, extent };
        assert_eq!(view(&[2, 1], Extent::Tokens).check(), Ok(()));
        assert_eq!(view(&[3], Extent::State).check(), Err(ViewError::Count { shape: vec![3], values: 2 }));
        let scalar = View { shape: &[], values: ValuesRef::F32(&[1.0]), extent: Extent::Tokens };
        assert_eq!(scalar.check(), Err(ViewError::NoTokenAxis));
    }
}
