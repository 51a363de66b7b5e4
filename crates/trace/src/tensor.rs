//! Values with a shape, owned and borrowed.

/// Owned values, widened from whatever a file held: F16 and BF16 to F32, integers and booleans to I64.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// Integers: token ids, expert indices.
    I64(Vec<i64>),
}

impl Values {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Borrows the values.
    pub fn as_ref(&self) -> ValuesRef<'_> {
        match self {
            Values::F32(v) => ValuesRef::F32(v),
            Values::F64(v) => ValuesRef::F64(v),
            Values::I64(v) => ValuesRef::I64(v),
        }
    }

    /// Appends `more`; false, changing nothing, when the element types differ.
    pub(crate) fn extend(&mut self, more: ValuesRef<'_>) -> bool {
        match (self, more) {
            (Values::F32(to), ValuesRef::F32(from)) => to.extend_from_slice(from),
            (Values::F64(to), ValuesRef::F64(from)) => to.extend_from_slice(from),
            (Values::I64(to), ValuesRef::I64(from)) => to.extend_from_slice(from),
            _ => return false,
        }
        true
    }
}

/// Borrowed values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValuesRef<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
    /// Integers.
    I64(&'a [i64]),
}

impl<'a> ValuesRef<'a> {
    /// Number of values.
    pub fn len(self) -> usize {
        match self {
            ValuesRef::F32(v) => v.len(),
            ValuesRef::F64(v) => v.len(),
            ValuesRef::I64(v) => v.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The values at `range`, which must lie within them.
    pub(crate) fn slice(self, range: std::ops::Range<usize>) -> ValuesRef<'a> {
        match self {
            ValuesRef::F32(v) => ValuesRef::F32(&v[range]),
            ValuesRef::F64(v) => ValuesRef::F64(&v[range]),
            ValuesRef::I64(v) => ValuesRef::I64(&v[range]),
        }
    }

    /// The values as double precision; integers beyond 2⁵³ lose their last digits.
    pub fn to_f64(self) -> Vec<f64> {
        match self {
            ValuesRef::F32(v) => v.iter().map(|&x| x.into()).collect(),
            ValuesRef::F64(v) => v.to_vec(),
            ValuesRef::I64(v) => v.iter().map(|&x| x as f64).collect(),
        }
    }

    /// A copy of the values.
    pub fn to_values(self) -> Values {
        match self {
            ValuesRef::F32(v) => Values::F32(v.to_vec()),
            ValuesRef::F64(v) => Values::F64(v.to_vec()),
            ValuesRef::I64(v) => Values::I64(v.to_vec()),
        }
    }
}

/// A dense array, row-major, outermost axis first.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Lengths of the axes, outermost first. Empty for a scalar.
    pub shape: Vec<usize>,
    /// As many values as the shape has elements, row-major.
    pub values: Values,
}

/// Number of elements of `shape`; `None` on overflow.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the product zero, however large the axes beside it.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_checks_for_overflow_but_not_beside_a_zero() {
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[3, 4]), Some(12));
        assert_eq!(elements(&[usize::MAX, 2]), None);
        assert_eq!(elements(&[usize::MAX, 2, 0]), Some(0));
    }

    #[test]
    fn extend_refuses_another_element_type() {
        let mut values = Values::F32(vec![1.0]);
        assert!(values.extend(ValuesRef::F32(&[2.0])));
        assert!(!values.extend(ValuesRef::F64(&[3.0])));
        assert_eq!(values, Values::F32(vec![1.0, 2.0]));
    }
}
