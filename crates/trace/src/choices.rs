//! Agreement of integer choices: which experts serve a token.

use serde::Serialize;

/// Agreement of two lists of choices per token. Entries may stand in another order (equal weights have none), so
/// what is gated is whether the sets agree.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChoiceStats {
    /// How many entries were compared.
    pub entries: usize,
    /// How many of them are equal in their place.
    pub equal_entries: usize,
    /// How many tokens were compared.
    pub tokens: usize,
    /// For how many of them the sets are equal.
    pub equal_sets: usize,
    /// The first token whose sets differ, with both.
    pub first_difference: Option<ChoiceDifference>,
}

/// A token with different choices.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChoiceDifference {
    /// The token's position.
    pub token: usize,
    /// The reference's choices.
    pub reference: Vec<f64>,
    /// The candidate's choices.
    pub candidate: Vec<f64>,
}

impl ChoiceStats {
    pub(crate) fn new() -> ChoiceStats {
        ChoiceStats { entries: 0, equal_entries: 0, tokens: 0, equal_sets: 0, first_difference: None }
    }

    /// Takes the next token's choices; both rows are of one length. Candidates may come as real numbers.
    pub(crate) fn add(&mut self, reference: &[f64], candidate: &[f64]) {
        let token = self.tokens;
        self.tokens += 1;
        self.entries += reference.len();
        self.equal_entries += reference.iter().zip(candidate).filter(|(b, a)| a == b).count();
        let sorted = |row: &[f64]| {
            let mut row = row.to_vec();
            row.sort_by(f64::total_cmp);
            row
        };
        // Compared as numbers: NaN, as a corrupt list may hold, equals nothing.
        if sorted(reference) == sorted(candidate) {
            self.equal_sets += 1;
        } else if self.first_difference.is_none() {
            let (reference, candidate) = (reference.to_vec(), candidate.to_vec());
            self.first_difference = Some(ChoiceDifference { token, reference, candidate });
        }
    }

    /// The share of tokens whose sets differ: what a limit is held against.
    pub fn differing(&self) -> f64 {
        (self.tokens - self.equal_sets) as f64 / self.tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_compared_not_orders() {
        let mut stats = ChoiceStats::new();
        stats.add(&[3., 1.], &[3., 1.]);
        stats.add(&[3., 1.], &[1., 3.]);
        assert_eq!((stats.entries, stats.equal_entries, stats.equal_sets), (4, 2, 2));
        assert_eq!((stats.differing(), &stats.first_difference), (0., &None));
        stats.add(&[3., 1.], &[3., 2.]);
        stats.add(&[3., 1.], &[f64::NAN, 1.]);
        assert_eq!(stats.differing(), 0.5);
        let expected = ChoiceDifference { token: 2, reference: vec![3., 1.], candidate: vec![3., 2.] };
        assert_eq!(stats.first_difference, Some(expected));
    }

    #[test]
    fn repeated_choices_are_told_apart() {
        let mut stats = ChoiceStats::new();
        stats.add(&[1., 1., 2.], &[1., 2., 2.]);
        assert_eq!(stats.equal_sets, 0);
    }

    #[test]
    fn nothing_compared_is_not_agreement() {
        assert!(ChoiceStats::new().differing().is_nan());
    }
}
