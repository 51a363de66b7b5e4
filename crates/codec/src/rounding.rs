//! From f32 to integers, in the ways that ggml's C does it on x86-64.

/// The nearest integer, ties to even, for |x| ≤ 2²². The bytes of many encodings depend on what becomes of numbers
/// beyond, which extreme scales produce: the low bits of x + 1.5·2²³ are taken for the answer whatever they are.
#[cfg_attr(not(test), expect(dead_code, reason = "the encoders that search come next"))]
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
    fn truncate_overflows_to_the_minimum() {
        assert_eq!([truncate(1.9), truncate(-1.9)], [1, -1]);
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2_147_483_648.0, -2_147_483_648.0, 1e30] {
            assert_eq!(truncate(x), i32::MIN, "{x}");
        }
    }
}
