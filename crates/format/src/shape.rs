//! Dimensions, and the only two places in the workspace where their order is reversed.

use std::fmt;

/// The dimensions of a tensor, outermost first (PyTorch's order), always.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Shape(Vec<u64>);

impl Shape {
    /// A shape from dimensions given outermost first. No dimensions is a scalar.
    pub fn new(dims: Vec<u64>) -> Shape {
        Shape(dims)
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[u64] {
        &self.0
    }

    /// The number of elements, 1 for a scalar; `None` if it does not fit 64 bits.
    ///
    /// A zero anywhere makes it 0, even beside dimensions whose product would overflow.
    pub fn elements(&self) -> Option<u64> {
        product(&self.0)
    }

    /// The length of a row: the innermost dimension, 1 for a scalar.
    pub fn row_len(&self) -> u64 {
        self.0.last().copied().unwrap_or(1)
    }

    /// The same dimensions in ggml's order, innermost first.
    pub fn to_ne(&self) -> GgmlNe {
        GgmlNe(self.0.iter().rev().copied().collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(&self.0, f)
    }
}

/// The dimensions of a tensor as ggml's `ne`: innermost first.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct GgmlNe(Vec<u64>);

impl GgmlNe {
    /// Dimensions given innermost first.
    pub fn new(ne: Vec<u64>) -> GgmlNe {
        GgmlNe(ne)
    }

    /// The dimensions, innermost first.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }

    /// The same dimensions outermost first.
    pub fn to_shape(&self) -> Shape {
        Shape(self.0.iter().rev().copied().collect())
    }
}

impl fmt::Display for GgmlNe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(&self.0, f)
    }
}

fn product(dims: &[u64]) -> Option<u64> {
    if dims.contains(&0) {
        return Some(0);
    }
    dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d))
}

fn list(dims: &[u64], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("[")?;
    for (i, d) in dims.iter().enumerate() {
        write!(f, "{}{d}", if i == 0 { "" } else { ", " })?;
    }
    f.write_str("]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_reverse_and_return() {
        let shape = Shape::new(vec![512, 1, 4]);
        assert_eq!(shape.to_ne().as_slice(), [4, 1, 512]);
        assert_eq!(shape.to_ne().to_shape(), shape);
        assert_eq!(shape.row_len(), 4);
        assert_eq!(shape.to_string(), "[512, 1, 4]");
        assert_eq!(shape.to_ne().to_string(), "[4, 1, 512]");
    }

    #[test]
    fn elements_are_counted_with_care() {
        assert_eq!(Shape::new(vec![]).elements(), Some(1));
        assert_eq!(Shape::new(vec![3, 5]).elements(), Some(15));
        assert_eq!(Shape::new(vec![1 << 32, 1 << 32]).elements(), None);
        assert_eq!(Shape::new(vec![1 << 32, 1 << 32, 0]).elements(), Some(0));
        assert_eq!(Shape::new(vec![]).to_string(), "[]");
    }
}
