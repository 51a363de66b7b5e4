//! What is counted and summed over values: made for pieces, then joined in their order.

use std::array;

/// Values beside each other in the sums: a fixed number, so that the result is the same on every processor.
const LANES: usize = 16;
/// Values summed before lanes are joined.
pub(crate) const RUN: usize = 4096;

const MAGNITUDE: u32 = 0x7fff_ffff;
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

    /// Takes in the values behind these, a run of which the first has this index, and returns the sum of their squares.
    pub fn take(&mut self, values: &[f32], first: u64) -> f64 {
        debug_assert!(values.len() <= RUN);
        let sums = sums(values);
        // A NaN or an infinity makes this no number, and nothing else does: no f32's square overflows.
        if !sums[1].is_finite() {
            let found = Moments::one_by_one(values, first);
            self.join(&found);
            return found.sums[1];
        }
        let Range { min, max, small } = Range::of(values);
        if small > 0 {
            let zeros = pulp::Arch::new().dispatch(Zeros(values));
            self.zeros += u64::from(zeros);
            self.subnormals += u64::from(small - zeros);
        }
        self.finite += values.len() as u64;
        self.min = self.min.min(min);
        self.max = self.max.max(max);
        let largest = max.abs().max(min.abs());
        if !values.is_empty() && self.largest.is_none_or(|(known, _)| largest > known) {
            let at = values.iter().position(|value| value.abs() == largest);
            self.largest = Some((largest, first + at.unwrap_or(0) as u64));
        }
        for (sum, more) in self.sums.iter_mut().zip(sums) {
            *sum += more;
        }
        sums[1]
    }

    /// Of values some of which are not finite.
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

/// Sums of x, x², x³ and x⁴. They are added here, where the loop over the values cannot see it: the compiler would cut its
/// registers into the pairs of the last addition.
fn sums(values: &[f32]) -> [f64; 4] {
    let (chunks, rest) = values.as_chunks();
    let mut lanes = pulp::Arch::new().dispatch(Powers(chunks));
    // What is left fills the first lanes.
    for (i, &value) in rest.iter().enumerate() {
        let x = f64::from(value);
        for (lanes, power) in lanes.iter_mut().zip([x, x * x, x * x * x, x * x * (x * x)]) {
            lanes[i] += power;
        }
    }
    lanes.map(|lanes| by_halves(&lanes, |a, b| a + b))
}

/// All lanes in one: each half with the other, down to the last.
#[inline(always)]
fn by_halves<T: Copy>(lanes: &[T; LANES], join: impl Fn(T, T) -> T) -> T {
    let lanes: [T; 8] = array::from_fn(|i| join(lanes[i], lanes[i + 8]));
    let lanes: [T; 4] = array::from_fn(|i| join(lanes[i], lanes[i + 4]));
    join(join(lanes[0], lanes[2]), join(lanes[1], lanes[3]))
}

/// Powers of values, summed in each lane. A type and not a closure, which would be compiled once, for the plainest
/// processor.
struct Powers<'a>(&'a [[f32; LANES]]);

impl pulp::WithSimd for Powers<'_> {
    type Output = [[f64; LANES]; 4];

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> [[f64; LANES]; 4] {
        let (mut s1, mut s2, mut s3, mut s4) = ([0f64; LANES], [0f64; LANES], [0f64; LANES], [0f64; LANES]);
        // One operation a loop: each becomes one instruction on whole registers.
        for chunk in self.0 {
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
        [s1, s2, s3, s4]
    }
}

/// Between what finite values lie.
struct Range {
    min: f32,
    max: f32,
    /// Zeros and subnormals.
    small: u32,
}

impl Range {
    fn of(values: &[f32]) -> Range {
        let (chunks, rest) = values.as_chunks();
        let Lanes { mut min, mut max, mut small } = pulp::Arch::new().dispatch(Ranges(chunks));
        for (i, &value) in rest.iter().enumerate() {
            min[i] = lesser(value, min[i]);
            max[i] = greater(value, max[i]);
            small[i] += below(value, LEAST_NORMAL);
        }
        Range {
            min: by_halves(&array::from_fn(|i| lesser(min[i], min[i + LANES])), lesser),
            max: by_halves(&array::from_fn(|i| greater(max[i], max[i + LANES])), greater),
            small: by_halves(&array::from_fn(|i| small[i] + small[i + LANES]), |a, b| a + b),
        }
    }
}

/// One instruction; `f32::min`, which looks after NaN, is several.
#[inline(always)]
fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// 1 if the bits of the magnitude are below `limit`, 0 if not. The sign of a difference is a number in a register, where a
/// comparison would be a bit of a mask.
#[inline(always)]
fn below(value: f32, limit: u32) -> u32 {
    (value.to_bits() & MAGNITUDE).wrapping_sub(limit) >> 31
}

/// Comparisons wait for those before them: more lanes than a register has keep the processor busy.
const WIDE: usize = 2 * LANES;

/// Ranges in each lane.
struct Lanes {
    min: [f32; WIDE],
    max: [f32; WIDE],
    small: [u32; WIDE],
}

struct Ranges<'a>(&'a [[f32; WIDE]]);

impl pulp::WithSimd for Ranges<'_> {
    type Output = Lanes;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Lanes {
        let (mut min, mut max) = ([f32::INFINITY; WIDE], [f32::NEG_INFINITY; WIDE]);
        let mut small = [0u32; WIDE];
        for chunk in self.0 {
            for i in 0..WIDE {
                min[i] = lesser(chunk[i], min[i]);
            }
            for i in 0..WIDE {
                max[i] = greater(chunk[i], max[i]);
            }
            for i in 0..WIDE {
                small[i] += below(chunk[i], LEAST_NORMAL);
            }
        }
        Lanes { min, max, small }
    }
}

/// How many zeros there are, of both signs.
struct Zeros<'a>(&'a [f32]);

impl pulp::WithSimd for Zeros<'_> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> u32 {
        self.0.iter().map(|&value| below(value, 1)).sum()
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
            let (mut fast, slow) = (Moments::new(), Moments::one_by_one(&values, 100));
            assert_eq!(fast.take(&values, 100), fast.sums[1]);
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
        let mut moments = Moments::new();
        moments.take(&values, 0);
        assert_eq!((moments.nan, moments.infinite, moments.finite), (1, 1, 38));
        assert_eq!((moments.min, moments.max, moments.largest), (-2.0, 1.0, Some((2.0, 39))));
        assert_eq!(moments.take(&[5.0, -5.0], 40), 50.0);
        assert_eq!((moments.largest, moments.sums[0]), (Some((5.0, 40)), 35.0));
        let mut none = Moments::new();
        assert_eq!((none.take(&[], 0), none.largest), (0.0, None));
    }
}
