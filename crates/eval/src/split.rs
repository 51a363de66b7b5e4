//! How a text is cut into calls.

use std::ops::Range;

use crate::Error;

/// Over how many calls a text is run. The result has the same bits for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// Calls of at most [`Split::CHUNK`] tokens.
    #[default]
    Bounded,
    /// Calls of these many tokens, in this order.
    Sizes(Vec<usize>),
}

impl Split {
    /// Enough tokens to make reading the weights worth while; few enough that what one layer holds of them stays
    /// small beside the weights: 64 MB in the widest published model.
    pub const CHUNK: usize = 128;

    /// The tokens of each call.
    ///
    /// # Errors
    /// [`Error::Split`] if sizes do not add up to `tokens`, or one is 0.
    pub fn calls(&self, tokens: usize) -> Result<Vec<Range<usize>>, Error> {
        let sizes = match self {
            Split::Bounded => {
                let starts = (0..tokens).step_by(Split::CHUNK);
                return Ok(starts.map(|start| start..tokens.min(start + Split::CHUNK)).collect());
            }
            Split::Sizes(sizes) => sizes,
        };
        let sum = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
        if sum != Some(tokens) || sizes.contains(&0) {
            return Err(Error::Split { sizes: sizes.clone(), tokens });
        }
        let ends = sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end - size..*end)
        });
        Ok(ends.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_cover_the_text_once() {
        for (split, tokens, expected) in [
            (Split::Bounded, 1, vec![0..1]),
            (Split::Bounded, 128, vec![0..128]),
            (Split::Bounded, 130, vec![0..128, 128..130]),
            (Split::Sizes(vec![1, 3, 2]), 6, vec![0..1, 1..4, 4..6]),
        ] {
            assert_eq!(split.calls(tokens).unwrap(), expected);
        }
    }

    #[test]
    fn sizes_that_do_not_add_up_are_refused() {
        for sizes in [vec![], vec![3], vec![5], vec![4, 0], vec![usize::MAX, 5]] {
            let error = Split::Sizes(sizes).calls(4).unwrap_err().to_string();
            assert!(error.contains("4 tokens"), "{error}");
        }
    }
}
