//! The steps that take a stored tensor to canonical form.

use crate::config::Config;
use crate::dim::Dim;

/// One step from what a file holds towards canonical form: what the arithmetic consumes, in HF axis order and
/// HF head order. Steps on values are computed in f64 and not rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `w + 1`: a norm's gain from HF's offset form.
    AddOne,
    /// `−exp(w)`: the decay rate from `A_log`.
    NegExp,
    /// An axis of length 1 goes.
    DropAxis(usize),
    /// Value heads from ggml's tiled order back to HF's grouped one.
    Untile {
        /// The axis that runs over value heads.
        axis: usize,
        /// Length of a head's run on it.
        head: Dim,
        /// Entries before the first value head, which stay: the queries and keys of a qkv axis.
        skip: Option<Dim>,
    },
    /// One half of axis 1 of `[E, 2·Fe, D]`: 0 is gate, 1 is up.
    Half(usize),
    /// One tensor an expert, stacked on a new axis 0.
    StackExperts,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::AddOne => f.write_str("+1"),
            Step::NegExp => f.write_str("−exp"),
            Step::DropAxis(axis) => write!(f, "drop axis {axis}"),
            Step::Untile { axis, head, skip } => {
                write!(f, "untile axis {axis} in runs of {}", head.symbol())?;
                skip.map_or(Ok(()), |s| write!(f, " after {}", s.symbol()))
            }
            Step::Half(0) => f.write_str("first half of axis 1"),
            Step::Half(_) => f.write_str("second half of axis 1"),
            Step::StackExperts => f.write_str("stack experts"),
        }
    }
}

/// Where each entry of an axis over value heads stands in ggml's tiled order.
///
/// HF head `g·r + j` (key head `g`, `r = Hv/Hk`) is GGUF head `j·Hk + g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    key_heads: usize,
    heads_per_key: usize,
    head_len: usize,
    skip: usize,
}

impl Tiling {
    /// The tiling that an [`Step::Untile`] undoes, in a model of this configuration. `None` if Hk = Hv, where
    /// both orders are the same.
    pub fn new(head: Dim, skip: Option<Dim>, config: &Config) -> Option<Tiling> {
        let heads_per_key = config.value_heads_per_key_head();
        (heads_per_key > 1 && config.linear_num_key_heads > 1).then(|| Tiling {
            key_heads: config.linear_num_key_heads,
            heads_per_key,
            head_len: head.size(config),
            skip: skip.map_or(0, |s| s.size(config)),
        })
    }

    /// Tiled (stored) position of canonical position `i`.
    pub fn stored(&self, i: usize) -> usize {
        let Some(value) = i.checked_sub(self.skip) else { return i };
        let (head, within) = (value / self.head_len, value % self.head_len);
        let (group, j) = (head / self.heads_per_key, head % self.heads_per_key);
        self.skip + (j * self.key_heads + group) * self.head_len + within
    }

    /// Canonical position of tiled (stored) position `i`: the inverse of [`Tiling::stored`].
    pub fn canonical(&self, i: usize) -> usize {
        let Some(value) = i.checked_sub(self.skip) else { return i };
        let (head, within) = (value / self.head_len, value % self.head_len);
        let (j, group) = (head / self.key_heads, head % self.key_heads);
        self.skip + (group * self.heads_per_key + j) * self.head_len + within
    }

    /// How many entries from stored position `i` on lie in the same order in both.
    pub fn run_from(&self, i: usize) -> usize {
        match i.checked_sub(self.skip) {
            Some(value) => self.head_len - value % self.head_len,
            None => self.skip - i,
        }
    }

    /// Entries that move together: the length of a head's run.
    pub fn run(&self) -> usize {
        self.head_len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the definition written as loops over (key head, j, position), head by head.
        #[test]
        fn tiling_is_the_naive_permutation(hk in 2usize..6, r in 2usize..6, len in 1usize..5, skip in 0usize..9) {
            let tiling = Tiling { key_heads: hk, heads_per_key: r, head_len: len, skip };
            let total = skip + hk * r * len;
            let mut tiled: Vec<usize> = (0..skip).collect();
            for j in 0..r {
                for g in 0..hk {
                    tiled.extend((0..len).map(|p| skip + (g * r + j) * len + p));
                }
            }
            for (stored, &canonical) in tiled.iter().enumerate() {
                for i in 0..tiling.run_from(stored) {
                    prop_assert_eq!(tiled[stored + i], canonical + i);
                }
                prop_assert_eq!(tiling.stored(canonical), stored);
                prop_assert_eq!(tiling.canonical(stored), canonical);
            }
            prop_assert_eq!(tiled.len(), total);
        }
    }
}
