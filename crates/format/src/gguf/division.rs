//! Which tensors go into which part of a split file.

use std::ops::Range;

use super::DEFAULT_ALIGNMENT;
use crate::TensorSource;

/// How tensors, in their order, are divided among the parts of a split file.
///
/// A bound counts tensors padded to 32 bytes and no keys, as llama-gguf-split does, and so divides as that does. A tensor
/// that is larger than the bound has a part of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Division {
    rule: Rule,
    keys_alone: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Rule {
    Bytes(u64),
    Tensors(u64),
    Counts(Vec<usize>),
}

impl Division {
    /// Parts of at most so many bytes.
    pub fn by_bytes(max: u64) -> Division {
        Division { rule: Rule::Bytes(max), keys_alone: false }
    }

    /// Parts of at most so many tensors.
    pub fn by_tensors(max: u64) -> Division {
        Division { rule: Rule::Tensors(max), keys_alone: false }
    }

    /// Parts of as many tensors each as the files of another checkpoint have.
    pub fn like(source: &dyn TensorSource) -> Division {
        let mut counts = vec![0; source.files().len()];
        for info in source.tensors() {
            if let Some(count) = counts.get_mut(info.file) {
                *count += 1;
            }
        }
        Division { rule: Rule::Counts(counts), keys_alone: false }
    }

    /// With a first part that holds keys and no tensors.
    pub fn with_keys_alone(self, keys_alone: bool) -> Division {
        Division { keys_alone, ..self }
    }

    /// Which of the tensors, which take so many bytes each, each part holds; the error is how many tensors the parts
    /// would hold together.
    pub(super) fn ranges(&self, sizes: &[u64]) -> Result<Vec<Range<usize>>, usize> {
        let mut parts = Vec::new();
        if self.keys_alone {
            parts.push(0..0);
        }
        let mut start = 0;
        match &self.rule {
            Rule::Counts(counts) => {
                let planned = counts.iter().sum();
                if planned != sizes.len() {
                    return Err(planned);
                }
                for count in counts {
                    parts.push(start..start + count);
                    start += count;
                }
            }
            Rule::Bytes(max) => {
                let mut held = 0u64;
                for (i, size) in sizes.iter().enumerate() {
                    let padded = size.saturating_add(DEFAULT_ALIGNMENT.into()) - 1;
                    let padded = padded - padded % u64::from(DEFAULT_ALIGNMENT);
                    if i > start && held.saturating_add(padded) > *max {
                        parts.push(start..i);
                        (start, held) = (i, 0);
                    }
                    held = held.saturating_add(padded);
                }
                parts.push(start..sizes.len());
            }
            Rule::Tensors(max) => {
                let max = usize::try_from(*max).unwrap_or(usize::MAX).max(1);
                while sizes.len() - start > max {
                    parts.push(start..start + max);
                    start += max;
                }
                parts.push(start..sizes.len());
            }
        }
        Ok(parts)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // the one part is the range
mod tests {
    use super::*;

    #[test]
    fn a_bound_on_bytes_counts_padding_and_lets_a_large_tensor_through() {
        let ranges = |max| Division::by_bytes(max).ranges(&[1, 32, 33, 200, 8]).unwrap();
        assert_eq!(ranges(64), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(ranges(63), [0..1, 1..2, 2..3, 3..4, 4..5]);
        assert_eq!(ranges(128), [0..3, 3..4, 4..5]);
        assert_eq!(ranges(1 << 20), [0..5]);
        assert_eq!(Division::by_bytes(1).ranges(&[]).unwrap(), [0..0]);
        assert_eq!(Division::by_bytes(u64::MAX).ranges(&[u64::MAX, u64::MAX]).unwrap(), [0..2]);
    }

    #[test]
    fn a_bound_on_tensors_counts_them() {
        let ranges = |max| Division::by_tensors(max).ranges(&[1; 5]).unwrap();
        assert_eq!(ranges(2), [0..2, 2..4, 4..5]);
        assert_eq!(ranges(5), [0..5]);
        assert_eq!(
            Division::by_tensors(3).with_keys_alone(true).ranges(&[1; 5]).unwrap(),
            [0..0, 0..3, 3..5]
        );
    }

    #[test]
    fn counts_must_be_those_of_the_tensors() {
        let like = Division { rule: Rule::Counts(vec![0, 2, 1]), keys_alone: false };
        assert_eq!(like.ranges(&[1; 3]).unwrap(), [0..0, 0..2, 2..3]);
        assert_eq!(like.ranges(&[1; 4]), Err(3));
    }
}
