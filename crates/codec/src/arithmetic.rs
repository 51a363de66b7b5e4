//! The operations whose exact form decides an encoder's bytes: conversions to integers as C does them on x86-64, and sums
//! in a fixed order.

/// The nearest integer, ties to even, for |x| ≤ 2²². The bytes of many encodings depend on what becomes of numbers
/// beyond, which extreme scales produce: the low bits of x + 1.5·2²³ are taken for the answer whatever they are.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> i32 {
    let bits = (x + 12_582_912.0).to_bits();
    (bits & 0x007f_ffff) as i32 - 0x0040_0000
}

/// Truncates like the machine's conversion: NaN and all that i32 cannot hold become its minimum.
#[inline(always)]
pub(crate) fn truncate(x: f32) -> i32 {
    let integer = x as i32;
    // `as` saturates at the upper end, where no f32 is i32::MAX itself, and makes NaN 0.
    if integer == i32::MAX || x.is_nan() { i32::MIN } else { integer }
}

/// Rounds to the nearest integer, halves away from zero, and converts like [`truncate`]. Up to 2²² this is exact: the sum
/// reaches the next integer just when x has come within a half of it.
#[inline(always)]
pub(crate) fn round(x: f32) -> i32 {
    truncate(x + 0.5_f32.next_down().copysign(x))
}

/// 1/x, but 0 for 0.
#[inline(always)]
pub(crate) fn reciprocal(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The largest magnitude; NaN has none. Compared as bits, which are ordered as magnitudes are: no order of comparisons need
/// be kept for integers.
#[inline(always)]
pub(crate) fn magnitude(values: &[f32]) -> f32 {
    let bits = |x: f32| if x.is_nan() { 0 } else { x.abs().to_bits() as i32 };
    f32::from_bits(values.iter().fold(0, |largest, &x| bits(x).max(largest)) as u32)
}

/// The value of largest magnitude, the first one of several; 0 if there is none but zeros.
#[inline(always)]
pub(crate) fn extreme(values: &[f32]) -> f32 {
    let magnitude = magnitude(values);
    if magnitude == 0.0 {
        return 0.0;
    }
    values.iter().copied().find(|x| x.abs() == magnitude).unwrap_or(0.0)
}

/// The largest of the values, at least 0.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, &x| if x > largest { x } else { largest })
}

/// The least and the largest value.
#[inline(always)]
pub(crate) fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| {
        (if x < low { x } else { low }, if x > high { x } else { high })
    })
}

/// Σ x², added in order.
#[inline(always)]
pub(crate) fn sum_of_squares(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |sum, x| sum + x * x)
}

/// Σ x, added in order.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |sum, x| sum + x)
}

/// How much an error in each value matters: its importance, more if it is large against `power`, the mean square of its
/// surroundings.
#[inline(always)]
pub(crate) fn weigh<const LEN: usize>(
    values: &[f32; LEN],
    importance: &[f32; LEN],
    power: f32,
) -> [f32; LEN] {
    std::array::from_fn(|i| importance[i] * (power + values[i] * values[i]).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_goes_to_even() {
        let cases = [(0.5, 0), (1.5, 2), (-0.5, 0), (-1.5, -2), (2.499_999, 2), (4_194_303.0, 4_194_303)];
        for (x, expected) in cases {
            assert_eq!(nearest(x), expected, "{x}");
        }
        assert_eq!(nearest(f32::INFINITY), -0x0040_0000);
        assert_eq!(nearest(f32::NAN), 0);
    }

    #[test]
    fn round_is_right_around_every_half() {
        for integer in 0..1 << 22 {
            let half = integer as f32 + 0.5;
            for x in [integer as f32, half.next_down(), half, half.next_up()] {
                assert_eq!(round(x), x.round() as i32, "{x}");
                assert_eq!(round(-x), (-x).round() as i32, "-{x}");
            }
        }
        assert_eq!([round(f32::NAN), round(f32::INFINITY)], [i32::MIN; 2]);
    }

    #[test]
    fn truncate_overflows_to_the_minimum() {
        assert_eq!([truncate(1.9), truncate(-1.9)], [1, -1]);
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2_147_483_648.0, -2_147_483_648.0, 1e30] {
            assert_eq!(truncate(x), i32::MIN, "{x}");
        }
    }
}
