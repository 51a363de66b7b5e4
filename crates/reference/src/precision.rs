//! The one rounding function.

use trace::ValuesRef;

use crate::ends::LogitsSpace;

/// To what the outputs of operations are rounded. Inside an operation everything is f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Every activation that passes from one operation to the next is an f32.
    F32,
    /// Nothing is rounded.
    F64,
}

impl Precision {
    /// Rounds an operation's output: to the nearest f32, ties to even, or not at all.
    #[inline]
    pub fn round(self, x: f64) -> f64 {
        match self {
            Precision::F32 => f64::from(x as f32),
            Precision::F64 => x,
        }
    }

    /// As manifests and `--precision` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        }
    }
}

/// What a rounded output is kept in: f64, which holds whatever was rounded, or f32, for half the memory.
pub(crate) trait Kept: Copy + Default + Send + Sync {
    /// Of a value that was rounded to f32 if this is f32.
    fn of(value: f64) -> Self;

    /// Wider, if it is not that wide already.
    fn wide(self) -> f64;

    /// As taps take them.
    fn values(kept: &[Self]) -> ValuesRef<'_>;

    /// Space that was kept, if any.
    fn take(_: &LogitsSpace) -> Vec<Self> {
        Vec::new()
    }

    /// Keeps space, if there is a place for it.
    fn keep(_: &LogitsSpace, _: Vec<Self>) {}
}

impl Kept for f64 {
    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }

    fn wide(self) -> f64 {
        self
    }

    fn values(kept: &[f64]) -> ValuesRef<'_> {
        ValuesRef::F64(kept)
    }
}

impl Kept for f32 {
    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }

    fn wide(self) -> f64 {
        self.into()
    }

    fn values(kept: &[f32]) -> ValuesRef<'_> {
        ValuesRef::F32(kept)
    }

    fn take(place: &LogitsSpace) -> Vec<f32> {
        place.take()
    }

    fn keep(place: &LogitsSpace, space: Vec<f32>) {
        place.keep(space);
    }
}
