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
    /// Enough tokens to make widening a weight worth while; few enough that activations stay small beside the
    /// weights: 128 rows of the widest MLP, 12,288 values of 8 bytes, are 13 MB.
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
        let ends = |split: Split, tokens| {
            let calls = split.calls(tokens).unwrap();
            assert_eq!(calls[0].start, 0);
            assert!(calls.windows(2).all(|pair| pair[0].end == pair[1].start));
            calls.iter().map(|call| call.end).collect::<Vec<_>>()
        };
        assert_eq!(ends(Split::Bounded, 1), [1]);
        assert_eq!(ends(Split::Bounded, 128), [128]);
        assert_eq!(ends(Split::Bounded, 130), [128, 130]);
        assert_eq!(ends(Split::Sizes(vec![1, 3, 2]), 6), [1, 4, 6]);
    }

    #[test]
    fn sizes_that_do_not_add_up_are_refused() {
        for sizes in [vec![], vec![3], vec![5], vec![4, 0], vec![usize::MAX, 5]] {
            let error = Split::Sizes(sizes).calls(4).unwrap_err().to_string();
            assert!(error.contains("4 tokens"), "{error}");
        }
    }
}
