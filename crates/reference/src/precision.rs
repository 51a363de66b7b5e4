//! The one rounding function.

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
