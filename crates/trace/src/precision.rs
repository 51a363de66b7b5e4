//! The arithmetic a run was made in, which decides how close it can be.

use std::fmt;

use serde::Serialize;

use crate::Dtype;

/// A floating-point format, from the finest to the coarsest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Double precision, unit roundoff 2⁻⁵³.
    F64,
    /// Single precision, unit roundoff 2⁻²⁴.
    F32,
    /// Half precision, unit roundoff 2⁻¹¹.
    F16,
    /// bfloat16, unit roundoff 2⁻⁸.
    BF16,
}

impl Precision {
    /// All, in the order of the columns of [`crate::limits::TABLE`].
    pub const ALL: [Precision; 4] = [Precision::F64, Precision::F32, Precision::F16, Precision::BF16];

    /// The largest relative error of rounding to this format.
    pub const fn unit_roundoff(self) -> f64 {
        // Exact powers of two.
        match self {
            Precision::F64 => f64::EPSILON / 2.0,
            Precision::F32 => f32::EPSILON as f64 / 2.0,
            Precision::F16 => 1.0 / 2048.0,
            Precision::BF16 => 1.0 / 256.0,
        }
    }

    /// The name: `f64`, `f32`, `f16`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F64 => "f64",
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::BF16 => "bf16",
        }
    }

    /// Reads our names, numpy's and PyTorch's: `f32`, `float32`, `torch.float32`.
    pub fn from_name(name: &str) -> Option<Precision> {
        match name.strip_prefix("torch.").unwrap_or(name) {
            "f64" | "float64" | "double" => Some(Precision::F64),
            "f32" | "float32" | "float" => Some(Precision::F32),
            "f16" | "float16" | "half" => Some(Precision::F16),
            "bf16" | "bfloat16" => Some(Precision::BF16),
            _ => None,
        }
    }

    /// The precision of values stored as `dtype`; integers are exact.
    pub fn of(dtype: Dtype) -> Precision {
        match dtype {
            Dtype::F32 => Precision::F32,
            Dtype::F16 => Precision::F16,
            Dtype::BF16 => Precision::BF16,
            _ => Precision::F64,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn the_coarser_is_the_larger() {
        assert!(Precision::ALL.is_sorted());
        assert!(Precision::ALL.iter().map(|p| p.unit_roundoff()).is_sorted());
    }

    #[test]
    fn unit_roundoffs_are_half_the_step_after_one() {
        assert_eq!(Precision::F16.unit_roundoff(), f64::from(f16::EPSILON) / 2.0);
        assert_eq!(Precision::BF16.unit_roundoff(), f64::from(bf16::EPSILON) / 2.0);
        assert_eq!(Precision::F32.unit_roundoff(), 2f64.powi(-24));
        assert_eq!(Precision::F64.unit_roundoff(), 2f64.powi(-53));
    }

    #[test]
    fn names_of_all_tools_are_understood() {
        for precision in Precision::ALL {
            assert_eq!(Precision::from_name(precision.name()), Some(precision));
            assert_eq!(serde_json::to_value(precision).unwrap(), precision.name());
        }
        assert_eq!(Precision::from_name("torch.bfloat16"), Some(Precision::BF16));
        assert_eq!(Precision::from_name("int8"), None);
    }
}
