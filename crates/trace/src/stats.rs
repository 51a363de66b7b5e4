//! How far two lists of real numbers are from each other.

use serde::{Serialize, Serializer};

use crate::tensor::ValuesRef;

/// The distance of a candidate `a` from a reference `b`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    /// How many pairs were compared.
    pub count: usize,
    /// Σ(a−b)² / Σb², the measure that is gated. 0 if all pairs are equal, infinite if only the reference is all
    /// zero, NaN if any value is not finite.
    #[serde(serialize_with = "number")]
    pub nmse: f64,
    /// Σ(a−b)² / Σ(b−mean b)², as others print it; the same conventions.
    #[serde(serialize_with = "number")]
    pub nmse_centered: f64,
    /// The largest |a−b|.
    #[serde(serialize_with = "number")]
    pub max_abs: f64,
    /// Where that is; the first value that is not finite if there is one. `None` if nothing was compared.
    pub worst: Option<Worst>,
    /// Σab / √(Σa²·Σb²). 1 for two lists of zeros, 0 if one of them is. Blind to scale: printed, never gated.
    #[serde(serialize_with = "number")]
    pub cosine: f64,
    /// How many of the reference's values are NaN or infinite.
    pub nonfinite_reference: usize,
    /// How many of the candidate's values are NaN or infinite.
    pub nonfinite_candidate: usize,
}

/// The pair that is furthest apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Worst {
    /// Its index, outermost axis first, in the reference's own shape.
    pub index: Vec<usize>,
    /// The reference's value.
    #[serde(serialize_with = "number")]
    pub reference: f64,
    /// The candidate's value.
    #[serde(serialize_with = "number")]
    pub candidate: f64,
    /// |a−b| / |b|; 0 for equal values, infinite for another value than 0.
    #[serde(serialize_with = "number")]
    pub relative: f64,
}

/// JSON has no NaN and no infinities: they become the strings that Python's `float` reads.
pub(crate) fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        value if value.is_finite() => serializer.serialize_f64(*value),
        value if value.is_nan() => serializer.serialize_str("NaN"),
        value if *value > 0.0 => serializer.serialize_str("Infinity"),
        _ => serializer.serialize_str("-Infinity"),
    }
}

impl Stats {
    /// The distance of `candidate` from `reference`, both taken as one axis. `None` if their lengths differ.
    pub fn of(reference: ValuesRef<'_>, candidate: ValuesRef<'_>) -> Option<Stats> {
        let mut sums = Sums::default();
        (reference.len() == candidate.len()).then(|| {
            sums.add(&reference.to_f64(), &candidate.to_f64());
            sums.stats(|at| vec![at])
        })
    }
}

/// What [`Stats`] are made of, gathered piece by piece.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    count: usize,
    error: f64,
    reference: f64,
    candidate: f64,
    product: f64,
    mean: f64,
    /// Σ(b−mean)² so far.
    spread: f64,
    max_abs: f64,
    worst: Option<(usize, f64, f64)>,
    nonfinite: [usize; 2],
}

impl Sums {
    /// Takes the next pairs; both slices are of one length.
    pub(crate) fn add(&mut self, reference: &[f64], candidate: &[f64]) {
        debug_assert_eq!(reference.len(), candidate.len());
        if reference.is_empty() {
            return;
        }
        for (at, (&b, &a)) in (self.count..).zip(reference.iter().zip(candidate)) {
            let clean_so_far = self.nonfinite == [0, 0];
            self.nonfinite[0] += usize::from(!b.is_finite());
            self.nonfinite[1] += usize::from(!a.is_finite());
            if !(a.is_finite() && b.is_finite()) {
                if clean_so_far {
                    self.worst = Some((at, b, a));
                    self.max_abs = (a - b).abs();
                }
                continue;
            }
            let delta = a - b;
            self.error += delta * delta;
            self.reference += b * b;
            self.candidate += a * a;
            self.product += a * b;
            if clean_so_far && (delta.abs() > self.max_abs || self.worst.is_none()) {
                self.max_abs = delta.abs();
                self.worst = Some((at, b, a));
            }
        }
        // Two passes over the piece, then Chan's rule to join it with those before: no cancellation however
        // large the mean is beside the spread.
        let n = reference.len() as f64;
        let mean = reference.iter().sum::<f64>() / n;
        let spread: f64 = reference.iter().map(|b| (b - mean) * (b - mean)).sum();
        let before = self.count as f64;
        let shift = mean - self.mean;
        self.spread += spread + shift * shift * (before * n / (before + n));
        self.mean += shift * (n / (before + n));
        self.count += reference.len();
    }

    /// The statistics so far; `index` turns the number of a pair into its index.
    pub(crate) fn stats(&self, index: impl Fn(usize) -> Vec<usize>) -> Stats {
        let clean = self.nonfinite == [0, 0];
        let ratio = |over: f64| if clean { quotient(self.error, over) } else { f64::NAN };
        let cosine = match (self.candidate == 0.0, self.reference == 0.0) {
            _ if !clean => f64::NAN,
            (true, true) => 1.0,
            // Rounding may carry it an ulp beyond 1.
            (false, false) => {
                (self.product / (self.candidate.sqrt() * self.reference.sqrt())).clamp(-1.0, 1.0)
            }
            _ => 0.0,
        };
        let worst = self.worst.map(|(at, reference, candidate)| Worst {
            index: index(at),
            reference,
            candidate,
            relative: quotient((candidate - reference).abs(), reference.abs()),
        });
        Stats {
            count: self.count,
            nmse: ratio(self.reference),
            nmse_centered: ratio(self.spread),
            max_abs: self.max_abs,
            worst,
            cosine,
            nonfinite_reference: self.nonfinite[0],
            nonfinite_candidate: self.nonfinite[1],
        }
    }
}

/// `error / size`, with 0 / 0 = 0: no error is no error, whatever it is measured by.
fn quotient(error: f64, size: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error / size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sums of n non-negative terms in any order differ by less than n ulps; n is under a thousand here.
    const REORDERING: f64 = 1000.0 * f64::EPSILON;

    fn stats(reference: &[f64], candidate: &[f64]) -> Stats {
        Stats::of(ValuesRef::F64(reference), ValuesRef::F64(candidate)).unwrap()
    }

    #[test]
    fn known_values() {
        let s = stats(&[1., 2., -2., 4.], &[1., 2., -1., 4.5]);
        assert_eq!((s.count, s.nmse, s.max_abs), (4, 1.25 / 25., 1.));
        // The mean is 1.25; the spread is 25 − 4·1.25².
        assert_eq!(s.nmse_centered, 1.25 / 18.75);
        let worst = Worst { index: vec![2], reference: -2., candidate: -1., relative: 0.5 };
        assert_eq!(s.worst, Some(worst));
        approx::assert_relative_eq!(s.cosine, 25. / (25f64 * 26.25).sqrt(), max_relative = REORDERING);
    }

    #[test]
    fn zeros_and_equals() {
        let same = stats(&[0., 0.], &[0., 0.]);
        assert_eq!((same.nmse, same.nmse_centered, same.cosine, same.max_abs), (0., 0., 1., 0.));
        assert_eq!(same.worst.unwrap().relative, 0.);
        let lost = stats(&[0., 0.], &[0., 1e-30]);
        assert_eq!((lost.nmse, lost.cosine), (f64::INFINITY, 0.));
        assert_eq!(lost.worst.unwrap().relative, f64::INFINITY);
        let constant = stats(&[3., 3.], &[3., 3.]);
        assert_eq!(constant.nmse_centered, 0.);
        assert_eq!(stats(&[], &[]).worst, None);
    }

    #[test]
    fn what_is_not_finite_fails_on_either_side_and_on_both() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for (b, a) in [(bad, 1.), (1., bad), (bad, bad)] {
                let s = stats(&[9., b, 1.], &[0., a, 1.]);
                assert!(s.nmse.is_nan() && s.nmse_centered.is_nan() && s.cosine.is_nan());
                assert_eq!(s.worst.unwrap().index, [1]);
                assert_eq!(s.nonfinite_reference, usize::from(!b.is_finite()));
                assert_eq!(s.nonfinite_candidate, usize::from(!a.is_finite()));
            }
        }
    }

    #[test]
    fn the_spread_survives_a_large_mean() {
        let reference: Vec<f64> = (0..1000).map(|n| 1e9 + f64::from(n % 2)).collect();
        let candidate: Vec<f64> = reference.iter().map(|b| b + 0.5).collect();
        let mut sums = Sums::default();
        for at in (0..1000).step_by(7) {
            let end = (at + 7).min(1000);
            sums.add(&reference[at..end], &candidate[at..end]);
        }
        // Spread and error are 1000·¼. Means of pieces differ by up to 1/7 and are known to an ulp of 1e9, 1.2e-7.
        approx::assert_relative_eq!(sums.stats(|at| vec![at]).nmse_centered, 1.0, max_relative = 1e-6);
    }

    #[test]
    fn json_spells_what_it_lacks() {
        let json = serde_json::to_value(stats(&[0.], &[f64::NEG_INFINITY])).unwrap();
        assert_eq!(json["nmse"], "NaN");
        assert_eq!(json["worst"]["candidate"], "-Infinity");
        assert_eq!(json["worst"]["relative"], "Infinity");
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(
            pairs in proptest::collection::vec((-1e3f64..1e3, -1e3f64..1e3), 1..300),
            piece in 1usize..50,
        ) {
            let (reference, candidate): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let whole = stats(&reference, &candidate);
            let mut sums = Sums::default();
            for (b, a) in reference.chunks(piece).zip(candidate.chunks(piece)) {
                sums.add(b, a);
            }
            let pieced = sums.stats(|at| vec![at]);
            prop_assert_eq!(&pieced.worst, &whole.worst);
            prop_assert_eq!(pieced.nmse, whole.nmse);
            approx::assert_relative_eq!(pieced.nmse_centered, whole.nmse_centered, max_relative = REORDERING);
            // Not less than the largest error alone, not more than all errors being the largest.
            let size: f64 = reference.iter().map(|b| b * b).sum();
            let least = whole.max_abs.powi(2) / size;
            prop_assert!(whole.nmse >= least * (1.0 - REORDERING));
            prop_assert!(whole.nmse <= least * reference.len() as f64 * (1.0 + REORDERING));
        }

        #[test]
        fn scaling_both_sides_changes_nothing_relative(
            pairs in proptest::collection::vec((-1e3f64..1e3, -1e3f64..1e3), 1..50),
            exponent in -20i32..20,
        ) {
            let (reference, candidate): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let scale = |v: &[f64]| v.iter().map(|x| x * 2f64.powi(exponent)).collect::<Vec<_>>();
            let (plain, scaled) = (stats(&reference, &candidate), stats(&scale(&reference), &scale(&candidate)));
            prop_assert_eq!(plain.nmse, scaled.nmse);
            prop_assert_eq!(plain.cosine, scaled.cosine);
        }
    }
}
