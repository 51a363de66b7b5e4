//! Inner products of f32s over the real numbers, rounded once.
//!
//! Whoever adds products in f64 knows by how much its sum may be off. If everything that near rounds to the same f32, that is the
//! answer; else, about once in a hundred thousand sums, all bits of all products are added.

/// Bits of a limb.
const LIMB: usize = 32;

/// The unit of the lowest limb is 2⁻²⁹⁸, that of the product of two subnormals.
const UNIT: i32 = -298;

/// Room for products up to 2²⁵⁶, and for 2³¹ of them.
const LIMBS: usize = 20;

/// The bit of the smallest subnormal f32.
const LAST: usize = (-149 - UNIT) as usize;

/// What any number within `error` of `sum` rounds to, if that is one and the same f32.
#[inline(always)]
pub(crate) fn certain(sum: f64, error: f64) -> Option<f32> {
    let (low, high) = ((sum - error) as f32, (sum + error) as f32);
    (low.to_bits() == high.to_bits() && !low.is_nan()).then_some(low)
}

/// The f32 nearest to `Σ a·b` of the real numbers, ties to even: the definition. What is infinite or not a number makes of it
/// what IEEE arithmetic does.
pub(crate) fn nearest(products: impl Iterator<Item = (f32, f32)> + Clone) -> f32 {
    if products.clone().any(|(a, b)| !a.is_finite() || !b.is_finite()) {
        let sum: f64 = products.map(|(a, b)| f64::from(a) * f64::from(b)).sum();
        return if sum.is_nan() { f32::NAN } else { sum as f32 };
    }
    let mut limbs = [0i64; LIMBS]; // Σ limbs[i] · 2^(32i − 298)
    for (a, b) in products {
        let ((a, a_at), (b, b_at)) = (parts(a), parts(b));
        let at = a_at + b_at;
        let product = i128::from(a * b) << (at % LIMB); // 48 bits and 31 at most
        let limbs = &mut limbs[at / LIMB..];
        limbs[0] += i64::from(product as u32);
        limbs[1] += i64::from((product >> LIMB) as u32);
        limbs[2] += (product >> (2 * LIMB)) as i64;
    }
    let negative = carry(&mut limbs) < 0;
    if negative {
        limbs.iter_mut().for_each(|limb| *limb = -*limb);
        carry(&mut limbs);
    }
    let magnitude = round(&limbs);
    if negative { -magnitude } else { magnitude }
}

/// `x` as a whole number of 24 bits and a sign, and the bit that is its unit, counted from 2⁻¹⁴⁹.
fn parts(x: f32) -> (i64, usize) {
    let bits = x.to_bits();
    let (exponent, fraction) = ((bits >> 23 & 0xff) as usize, i64::from(bits & 0x7f_ffff));
    let (magnitude, at) = match exponent {
        0 => (fraction, 0),
        _ => (fraction | 1 << 23, exponent - 1),
    };
    (if x.is_sign_negative() { -magnitude } else { magnitude }, at)
}

/// Brings all limbs but the highest to `0..2³²`, and returns the highest, which has the number's sign.
fn carry(limbs: &mut [i64; LIMBS]) -> i64 {
    let mut carried = 0;
    for limb in &mut limbs[..LIMBS - 1] {
        *limb += carried;
        carried = *limb >> LIMB;
        *limb &= i64::from(u32::MAX);
    }
    limbs[LIMBS - 1] += carried;
    limbs[LIMBS - 1]
}

/// The f32 nearest to a number that is not negative.
fn round(limbs: &[i64; LIMBS]) -> f32 {
    let bit = |at: usize| limbs[at / LIMB] >> (at % LIMB) & 1;
    let Some(highest) = (0..LIMBS * LIMB).rev().find(|&at| bit(at) == 1) else { return 0.0 };
    let last = highest.saturating_sub(f32::MANTISSA_DIGITS as usize - 1).max(LAST);
    let mut whole = (last..=highest).rev().fold(0, |whole, at| whole << 1 | bit(at));
    let half = bit(last - 1) == 1;
    if half && (whole & 1 == 1 || (0..last - 1).any(|at| bit(at) == 1)) {
        whole += 1;
    }
    // Both factors and their product are exact in f64; what f32 has no room for becomes infinite.
    (whole as f64 * power_of_two(last as i32 + UNIT)) as f32
}

/// 2ⁿ, of a normal f64.
pub(crate) const fn power_of_two(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(products: &[(f32, f32)]) -> f32 {
        nearest(products.iter().copied())
    }

    #[test]
    fn cancelled_products_leave_what_is_smaller() {
        let (big, small) = (3e38f32, f32::from_bits(1));
        assert_eq!(of(&[(big, big), (small, small), (-big, big)]), 0.0, "2^-298 is below any f32");
        assert_eq!(of(&[(big, big), (small, 1.0), (-big, big)]), small);
        assert_eq!(of(&[(big, big), (small, -1.0), (-big, big)]), -small);
        assert_eq!(
            of(&[(big, big), (1e-20, 1e-10), (big, -big)]),
            (1e-20f32 as f64 * 1e-10f32 as f64) as f32
        );
        assert_eq!(of(&[(big, big)]), f32::INFINITY);
        assert_eq!(of(&[(big, -big)]), f32::NEG_INFINITY);
        assert_eq!(of(&[]).to_bits(), 0);
        assert_eq!(of(&[(1.5, 2.0), (-3.0, 1.0)]).to_bits(), 0);
    }

    /// 1 + 2⁻²⁴ is a tie: what decides may stand anywhere below.
    #[test]
    fn ties_go_to_even_and_anything_breaks_them() {
        let tie = [(1.0, 1.0), (2f32.powi(-12), 2f32.powi(-12))];
        let odd = [(1.0 + f32::EPSILON, 1.0), (2f32.powi(-12), 2f32.powi(-12))];
        let tiny = f32::from_bits(1);
        assert_eq!(of(&tie), 1.0);
        assert_eq!(of(&odd), 1.0 + 2.0 * f32::EPSILON);
        assert_eq!(of(&[tie[0], tie[1], (tiny, tiny)]), 1.0 + f32::EPSILON);
        assert_eq!(of(&[odd[0], odd[1], (-tiny, tiny)]), 1.0 + f32::EPSILON);
        // Between the largest f32 and the next number, which is none.
        let (max, half) = (f32::MAX, 2f32.powi(103));
        assert_eq!(of(&[(max, 1.0), (half, 1.0)]), f32::INFINITY);
        assert_eq!(of(&[(max, 1.0), (half, 1.0), (-tiny, tiny)]), f32::MAX);
        // Between two subnormals.
        assert_eq!(of(&[(tiny, 0.5)]).to_bits(), 0);
        assert_eq!(of(&[(tiny, 0.5), (tiny, tiny)]), tiny);
        assert_eq!(of(&[(tiny, 1.5)]), 2.0 * tiny);
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        assert!(of(&[(f32::NAN, 1.0), (1.0, 1.0)]).is_nan());
        assert!(of(&[(f32::INFINITY, 1.0), (f32::NEG_INFINITY, 1.0)]).is_nan());
        assert_eq!(of(&[(f32::NEG_INFINITY, 1.0), (1e30, 1.0)]), f32::NEG_INFINITY);
    }

    proptest! {
        /// One product, which f64 holds exactly, and sums that i128 holds.
        #[test]
        fn agrees_with_arithmetic_that_is_exact(
            a: u32, b: u32, whole in prop::collection::vec((-0x7f_ffffi64..0x7f_ffff, -0x7f_ffffi64..0x7f_ffff), 0..50)
        ) {
            let (a, b) = (f32::from_bits(a), f32::from_bits(b));
            if a.is_finite() && b.is_finite() {
                prop_assert_eq!(of(&[(a, b)]), (f64::from(a) * f64::from(b)) as f32);
            }
            let products: Vec<(f32, f32)> = whole.iter().map(|&(a, b)| (a as f32, b as f32)).collect();
            let sum: i128 = whole.iter().map(|&(a, b)| i128::from(a * b)).sum();
            prop_assert_eq!(of(&products), sum as f32);
        }

        /// A certain answer is the right one, whatever the sum is off by within its error.
        #[test]
        fn certainty_is_earned(values in prop::collection::vec((-1f32..1.0, -1f32..1.0), 1..40), off in -1f64..1.0) {
            let sum: f64 = values.iter().map(|&(a, b)| f64::from(a) * f64::from(b)).sum();
            let error = 1e-9;
            if let Some(certain) = certain(sum + off * error * 0.999, error) {
                prop_assert_eq!(certain.to_bits(), of(&values).to_bits());
            }
        }
    }
}
