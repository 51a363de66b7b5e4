//! What is counted and summed over values: made for pieces, then joined in their order.

/// Values beside each other in the sums: a fixed number, so that the result is the same on every processor.
const LANES: usize = 16;
/// Values summed before lanes are joined.
pub(crate) const RUN: usize = 4096;

const MAGNITUDE: u32 = 0x7fff_ffff;
const INFINITE: u32 = 0x7f80_0000;
const LEAST_NORMAL: u32 = 0x0080_0000;

/// Counts and sums of a run of values. Sums and extremes are those of the finite ones.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub nan: u64,
    pub infinite: u64,
    pub zeros: u64,
    pub subnormals: u64,
    pub finite: u64,
    pub min: f32,
    pub max: f32,
    /// The largest magnitude, and the index of the first value that has it.
    pub largest: Option<(f32, u64)>,
    /// Sums of x, x², x³ and x⁴.
    pub sums: [f64; 4],
}

impl Moments {
    /// Of no values.
    pub fn new() -> Moments {
        Moments {
            nan: 0,
            infinite: 0,
            zeros: 0,
            subnormals: 0,
            finite: 0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            largest: None,
            sums: [0.0; 4],
        }
    }

    /// Of a run of values, the first of which has this index. Where the largest magnitude is, is found out only if it
    /// exceeds `known`.
    pub fn of(values: &[f32], first: u64, known: Option<(f32, u64)>) -> Moments {
        let mut moments = pulp::Arch::new().dispatch(Wide(values));
        let largest = moments.largest.map_or(0, |(value, _)| value.to_bits());
        if largest >= INFINITE {
            return Moments::one_by_one(values, first);
        }
        let value = f32::from_bits(largest);
        let news = !values.is_empty() && known.is_none_or(|(known, _)| value > known);
        moments.largest = news.then(|| {
            let at = values.iter().position(|value| value.to_bits() & MAGNITUDE == largest);
            (value, first + at.unwrap_or(0) as u64)
        });
        moments
    }

    /// The same where some are not finite.
    fn one_by_one(values: &[f32], first: u64) -> Moments {
        let mut moments = Moments::new();
        for (index, &value) in (first..).zip(values) {
            if value.is_nan() {
                moments.nan += 1;
                continue;
            }
            if value.is_infinite() {
                moments.infinite += 1;
                continue;
            }
            moments.finite += 1;
            moments.zeros += u64::from(value == 0.0);
            moments.subnormals += u64::from(value.is_subnormal());
            moments.min = moments.min.min(value);
            moments.max = moments.max.max(value);
            if moments.largest.is_none_or(|(largest, _)| value.abs() > largest) {
                moments.largest = Some((value.abs(), index));
            }
            let x = f64::from(value);
            for (sum, power) in moments.sums.iter_mut().zip([x, x * x, x * x * x, x * x * (x * x)]) {
                *sum += power;
            }
        }
        moments
    }

    /// Takes in those of the values behind these.
    pub fn join(&mut self, other: &Moments) {
        self.nan += other.nan;
        self.infinite += other.infinite;
        self.zeros += other.zeros;
        self.subnormals += other.subnormals;
        self.finite += other.finite;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.largest = match (self.largest, other.largest) {
            (Some(mine), Some(theirs)) if theirs.0 > mine.0 => Some(theirs),
            (None, theirs) => theirs,
            (mine, _) => mine,
        };
        for (sum, other) in self.sums.iter_mut().zip(other.sums) {
            *sum += other;
        }
    }
}

/// A type and not a closure, which would be compiled once, for the plainest processor.
struct Wide<'a>(&'a [f32]);

impl pulp::WithSimd for Wide<'_> {
    type Output = Moments;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Moments {
        wide(self.0)
    }
}

/// Everything but the index of the largest magnitude, whose bits are a NaN's or an infinity's if there is one.
#[inline(always)]
fn wide(values: &[f32]) -> Moments {
    let (mut s1, mut s2, mut s3, mut s4) = ([0f64; LANES], [0f64; LANES], [0f64; LANES], [0f64; LANES]);
    let (mut min, mut max) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let (mut largest, mut zeros, mut small) = ([0u32; LANES], [0u32; LANES], [0u32; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    // One operation a loop: each becomes one instruction on whole registers.
    for chunk in chunks {
        let (mut x, mut xx) = ([0f64; LANES], [0f64; LANES]);
        for i in 0..LANES {
            x[i] = f64::from(chunk[i]);
        }
        for i in 0..LANES {
            xx[i] = x[i] * x[i];
        }
        for i in 0..LANES {
            s1[i] += x[i];
        }
        for i in 0..LANES {
            s2[i] += xx[i];
        }
        for i in 0..LANES {
            s3[i] += xx[i] * x[i];
        }
        for i in 0..LANES {
            s4[i] += xx[i] * xx[i];
        }
    }
    for chunk in chunks {
        for i in 0..LANES {
            min[i] = if chunk[i] < min[i] { chunk[i] } else { min[i] };
        }
        for i in 0..LANES {
            max[i] = if chunk[i] > max[i] { chunk[i] } else { max[i] };
        }
    }
    for chunk in chunks {
        let mut magnitude = [0u32; LANES];
        for i in 0..LANES {
            magnitude[i] = chunk[i].to_bits() & MAGNITUDE;
        }
        for i in 0..LANES {
            largest[i] = if magnitude[i] > largest[i] { magnitude[i] } else { largest[i] };
        }
        for i in 0..LANES {
            zeros[i] += u32::from(magnitude[i] == 0);
        }
        for i in 0..LANES {
            small[i] += u32::from(magnitude[i] < LEAST_NORMAL);
        }
    }
    // What is left fills the first lanes.
    for (i, &value) in rest.iter().enumerate() {
        let x = f64::from(value);
        s1[i] += x;
        s2[i] += x * x;
        s3[i] += x * x * x;
        s4[i] += x * x * (x * x);
        min[i] = if value < min[i] { value } else { min[i] };
        max[i] = if value > max[i] { value } else { max[i] };
        let magnitude = value.to_bits() & MAGNITUDE;
        largest[i] = largest[i].max(magnitude);
        zeros[i] += u32::from(magnitude == 0);
        small[i] += u32::from(magnitude < LEAST_NORMAL);
    }
    let zero: u32 = zeros.iter().sum();
    Moments {
        nan: 0,
        infinite: 0,
        zeros: zero.into(),
        subnormals: (small.iter().sum::<u32>() - zero).into(),
        finite: values.len() as u64,
        min: min.iter().copied().fold(f32::INFINITY, f32::min),
        max: max.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        largest: Some((f32::from_bits(largest.iter().copied().max().unwrap_or(0)), 0)),
        sums: [s1.iter().sum(), s2.iter().sum(), s3.iter().sum(), s4.iter().sum()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of every length around the lanes, against one value at a time.
    #[test]
    fn lanes_and_tails_count_what_one_by_one_counts() {
        let value = |i: usize| match i % 11 {
            0 => 0.0,
            3 => -0.0,
            5 => f32::from_bits(7 + i as u32),
            7 => -3.5 * i as f32,
            _ => (i as f32 - 40.0) * 0.37,
        };
        for len in (0..70).chain([1000, RUN]) {
            let values: Vec<f32> = (0..len).map(value).collect();
            let (fast, slow) = (Moments::of(&values, 100, None), Moments::one_by_one(&values, 100));
            let counts =
                |m: &Moments| (m.nan, m.infinite, m.zeros, m.subnormals, m.finite, m.min, m.max, m.largest);
            assert_eq!(counts(&fast), counts(&slow), "{len}");
            for (fast, slow) in fast.sums.iter().zip(slow.sums) {
                assert!((fast - slow).abs() <= 1e-12 * slow.abs().max(1e-9), "{len}: {fast} {slow}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_counted_and_left_out() {
        let mut values = vec![1.0f32; 40];
        (values[3], values[20], values[39]) = (f32::NAN, f32::NEG_INFINITY, -2.0);
        let mut moments = Moments::of(&values, 0, None);
        assert_eq!((moments.nan, moments.infinite, moments.finite), (1, 1, 38));
        assert_eq!((moments.min, moments.max, moments.largest), (-2.0, 1.0, Some((2.0, 39))));
        moments.join(&Moments::of(&[5.0, -5.0], 40, moments.largest));
        assert_eq!((moments.largest, moments.sums[0]), (Some((5.0, 40)), 35.0));
        assert_eq!(Moments::of(&[], 0, None).largest, None);
    }
}
