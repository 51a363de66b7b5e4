//! What a difference of logits means: another first choice, another distribution.

use serde::Serialize;

use crate::stats::number;

/// Agreement of two rows of logits per position.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogitStats {
    /// How many positions were compared.
    pub positions: usize,
    /// At how many of them both have the same largest logit (the first of equal ones).
    pub top1_agree: usize,
    /// The first positions where they do not, at most [`LogitStats::LISTED`].
    pub disagreements: Vec<Disagreement>,
    /// Mean over positions of KL(reference ‖ candidate), in nats.
    #[serde(serialize_with = "number")]
    pub kl_mean: f64,
    /// The largest of them.
    #[serde(serialize_with = "number")]
    pub kl_max: f64,
    /// The position of the largest.
    pub kl_max_at: Option<usize>,
}

/// A position where the largest logits stand at different tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Disagreement {
    /// The position.
    pub position: usize,
    /// The reference's first choice.
    pub reference: usize,
    /// The candidate's first choice.
    pub candidate: usize,
    /// By how much the reference prefers its choice over the candidate's.
    #[serde(serialize_with = "number")]
    pub reference_margin: f64,
    /// By how much the candidate prefers its choice over the reference's.
    #[serde(serialize_with = "number")]
    pub candidate_margin: f64,
}

impl LogitStats {
    /// How many disagreements are listed.
    pub const LISTED: usize = 8;

    pub(crate) fn new() -> LogitStats {
        LogitStats {
            positions: 0,
            top1_agree: 0,
            disagreements: Vec::new(),
            kl_mean: 0.0,
            kl_max: 0.0,
            kl_max_at: None,
        }
    }

    /// Takes the next position's logits; both rows are of one length, at least 1.
    pub(crate) fn add(&mut self, reference: &[f64], candidate: &[f64]) {
        let position = self.positions;
        self.positions += 1;
        let (chosen, other) = (argmax(reference), argmax(candidate));
        if chosen == other {
            self.top1_agree += 1;
        } else if self.disagreements.len() < LogitStats::LISTED {
            self.disagreements.push(Disagreement {
                position,
                reference: chosen,
                candidate: other,
                reference_margin: reference[chosen] - reference[other],
                candidate_margin: candidate[other] - candidate[chosen],
            });
        }
        let kl = divergence(reference, candidate);
        self.kl_mean += (kl - self.kl_mean) / self.positions as f64;
        // NaN is the worst there is, and stays.
        if self.kl_max_at.is_none() || kl > self.kl_max || (kl.is_nan() && !self.kl_max.is_nan()) {
            self.kl_max = kl;
            self.kl_max_at = Some(position);
        }
    }
}

/// The place of the largest value, the first of equal ones. NaN is never larger.
fn argmax(row: &[f64]) -> usize {
    let mut best = 0;
    for (at, x) in row.iter().enumerate() {
        if *x > row[best] || row[best].is_nan() {
            best = at;
        }
    }
    best
}

/// ln Σ exp(x).
fn log_sum(row: &[f64]) -> f64 {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + row.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
}

/// KL(softmax(reference) ‖ softmax(candidate)) in nats.
///
/// With d = ln q − ln p it is −Σ p·d, and since both distributions sum to 1 also Σ p·(eᵈ − 1 − d): every term is
/// positive, so that nothing cancels and a divergence of 1e-24 is still told from 0.
fn divergence(reference: &[f64], candidate: &[f64]) -> f64 {
    let shift = log_sum(reference);
    let log_ratio = shift - log_sum(candidate);
    let term = |(b, a): (&f64, &f64)| (b - shift).exp() * exp_beyond_linear(a - b + log_ratio);
    reference.iter().zip(candidate).map(term).sum()
}

/// eᵈ − 1 − d.
fn exp_beyond_linear(d: f64) -> f64 {
    /// Below this the first term left out, d⁶/720, is under an ulp of d²/2; above it eᵈ − 1 − d loses no more than
    /// the leading 9 of its 16 digits.
    const SERIES: f64 = 1e-3;
    if d.abs() < SERIES {
        d * d * (1.0 / 2.0 + d * (1.0 / 6.0 + d * (1.0 / 24.0 + d / 120.0)))
    } else {
        d.exp_m1() - d
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stats(rows: &[(&[f64], &[f64])]) -> LogitStats {
        let mut stats = LogitStats::new();
        for (reference, candidate) in rows {
            stats.add(reference, candidate);
        }
        stats
    }

    #[test]
    fn known_divergence() {
        // p = (1/4, 3/4), q = (1/2, 1/2).
        let expected = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        let s = stats(&[(&[0., 3f64.ln()], &[7., 7.]), (&[1., 2.], &[1., 2.])]);
        // Each of two terms is good to a few ulps.
        approx::assert_relative_eq!(s.kl_max, expected, max_relative = 1e-14);
        approx::assert_relative_eq!(s.kl_mean, expected / 2., max_relative = 1e-14);
        assert_eq!(s.kl_max_at, Some(0));
    }

    #[test]
    fn choices_are_listed_with_margins() {
        let s = stats(&[(&[1., 5., 2.], &[1., 4., 4.5]), (&[3., 3., 0.], &[3., 3., 0.])]);
        assert_eq!((s.positions, s.top1_agree), (2, 1));
        let expected = Disagreement {
            position: 0,
            reference: 1,
            candidate: 2,
            reference_margin: 3.,
            candidate_margin: 0.5,
        };
        assert_eq!(s.disagreements, [expected]);
        let many = vec![(&[0., 1.][..], &[1., 0.][..]); 20];
        let s = stats(&many);
        assert_eq!((s.disagreements.len(), s.top1_agree), (LogitStats::LISTED, 0));
    }

    #[test]
    fn tiny_divergences_are_not_lost_in_rounding() {
        let reference = [0.5, -1., 2., 0.];
        let p: Vec<f64> = reference.iter().map(|x| (x - log_sum(&reference)).exp()).collect();
        for epsilon in [1e-3, 1e-6, 1e-9] {
            let delta = [epsilon, -epsilon, 0., 0.5 * epsilon];
            let candidate: Vec<f64> = reference.iter().zip(delta).map(|(x, d)| x + d).collect();
            // To second order it is half the variance of the difference under p; the third order is epsilon
            // smaller, and a difference of logits near 1 is itself known to 2e-16 / epsilon.
            let mean: f64 = p.iter().zip(delta).map(|(p, d)| p * d).sum();
            let variance: f64 = p.iter().zip(delta).map(|(p, d)| p * (d - mean).powi(2)).sum();
            let tolerance = epsilon + 1e-15 / epsilon;
            approx::assert_relative_eq!(
                divergence(&reference, &candidate),
                variance / 2.,
                max_relative = tolerance
            );
        }
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        let s = stats(&[(&[0., 1.], &[f64::NAN, 1.]), (&[0., 9.], &[9., 0.])]);
        assert!(s.kl_mean.is_nan() && s.kl_max.is_nan());
        assert_eq!(s.kl_max_at, Some(0));
    }

    proptest! {
        #[test]
        fn divergence_is_positive_and_blind_to_a_shift(
            rows in proptest::collection::vec((-20f64..20., -20f64..20.), 1..40),
            shift in -100f64..100.,
        ) {
            let (reference, candidate): (Vec<f64>, Vec<f64>) = rows.into_iter().unzip();
            let kl = divergence(&reference, &candidate);
            prop_assert!(kl >= 0.0);
            let shifted: Vec<f64> = candidate.iter().map(|x| x + shift).collect();
            // Adding 100 to a logit of 20 costs 1e-14 of its value; the divergence is of the order of the logits.
            approx::assert_relative_eq!(divergence(&reference, &shifted), kl, max_relative = 1e-10, epsilon = 1e-12);
            let same: Vec<f64> = reference.iter().map(|x| x + shift).collect();
            prop_assert!(divergence(&reference, &same) < 1e-24);
        }

        #[test]
        fn both_branches_meet(d in -2e-3f64..2e-3) {
            // At 1e-3 the direct form keeps 16 − 6 digits or more of d²/2.
            approx::assert_relative_eq!(exp_beyond_linear(d), d.exp_m1() - d, max_relative = 1e-6, epsilon = 1e-18);
        }
    }
}
