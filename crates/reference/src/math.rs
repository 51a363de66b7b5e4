//! Elementary functions, in f64 by portable code: no platform's own library decides a bit.

/// `e^x`: the algorithm of `libm::exp` without a branch, so that a loop over it takes wider registers; the same bits for
/// every x.
#[inline(always)]
pub(crate) fn exp(x: f64) -> f64 {
    // High words of |x|, as libm compares them, followed by zeros: 2^-28, ½ ln 2, 1.5 ln 2.
    const TINY: f64 = f64::from_bits(0x3e30_0001_0000_0000);
    const HALF_LN2: f64 = f64::from_bits(0x3fd6_2e43_0000_0000);
    const THREE_HALVES_LN2: f64 = f64::from_bits(0x3ff0_a2b2_0000_0000);
    const LARGEST: f64 = f64::from_bits(0x4086_2e42_fefa_39ef); // e^x is finite
    const SMALLEST: f64 = f64::from_bits(0xc087_4910_d52d_3051); // and not 0
    const LN2_HI: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LO: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    const INV_LN2: f64 = f64::from_bits(0x3ff7_1547_652b_82fe);
    const P: [f64; 5] = [
        f64::from_bits(0x3fc5_5555_5555_553e),
        f64::from_bits(0xbf66_c16c_16be_bd93),
        f64::from_bits(0x3f11_566a_af25_de2c),
        f64::from_bits(0xbebb_bd41_c5d2_6bf1),
        f64::from_bits(0x3e66_3769_72be_a4d0),
    ];

    // x = k ln 2 + (hi − lo)
    let size = x.abs();
    let k = match (size >= HALF_LN2, size >= THREE_HALVES_LN2) {
        (_, true) => (INV_LN2 * x + 0.5f64.copysign(x)).trunc(),
        (true, false) => 1f64.copysign(x),
        (false, false) => 0.0,
    };
    let (hi, lo) = (x - k * LN2_HI, k * LN2_LO);
    let r = hi - lo;
    let rr = r * r;
    let c = r - rr * (P[0] + rr * (P[1] + rr * (P[2] + rr * (P[3] + rr * P[4]))));
    let y = 1.0 + (r * c / (2.0 - c) - lo + hi);

    // In two halves, of which the first is exact: 2^k itself may be out of range.
    let half = (k * 0.5).trunc();
    let scaled = y * power_of_two(half) * power_of_two(k - half);
    let finite = if size >= TINY { scaled } else { 1.0 + x };
    let above = if x > LARGEST { f64::INFINITY } else { finite };
    if x < SMALLEST { 0.0 } else { above }
}

/// `2^k` for a whole k from −1022 to 1023.
#[inline(always)]
fn power_of_two(k: f64) -> f64 {
    // So large a number has the units of k + 1023 in its last bits.
    const UNITS: f64 = (3u64 << 51) as f64;
    f64::from_bits((k + 1023.0 + UNITS).to_bits() << 52)
}

/// `1 / (1 + e^−x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu(x: f64) -> f64 {
    x / (1.0 + exp(-x))
}

/// `ln(1 + e^x)`, without overflow and without cancellation.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(exp(-x.abs()))
}

/// In place: `e^(x−max) / Σ e^(x−max)`.
#[inline(always)]
pub(crate) fn softmax(x: &mut [f64]) {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    x.iter_mut().for_each(|v| *v = exp(*v - max));
    let sum = x.iter().fold(0.0, |sum, v| sum + v);
    x.iter_mut().for_each(|v| *v /= sum);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::Kernels;

    /// Scalar and in the registers of every instruction set.
    fn assert_bits_of_libm(x: &[f64]) {
        let bits = |y: f64| if y.is_nan() { f64::NAN.to_bits() } else { y.to_bits() };
        for kernels in Kernels::all() {
            let mut y = x.to_vec();
            kernels.vectorize(
                #[inline(always)]
                || y.iter_mut().for_each(|y| *y = exp(*y)),
            );
            for (&x, y) in x.iter().zip(y) {
                assert_eq!(bits(y), bits(libm::exp(x)), "{} e^{x:e} ({:x})", kernels.name(), x.to_bits());
                assert_eq!(bits(exp(x)), bits(y), "e^{x:e}");
            }
        }
    }

    /// Every sign, exponent and high word's neighbourhood at which something changes, and the numbers next to it.
    #[test]
    fn exp_has_the_bits_of_libm_at_every_edge() {
        let mut x = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let highs =
            [0x3e30_0000, 0x3e30_0001, 0x3fd6_2e42, 0x3fd6_2e43, 0x3ff0_a2b1, 0x3ff0_a2b2, 0x4086_232b];
        let wholes = highs.map(|high: u64| high << 32).into_iter();
        let limits = [709.782712893384f64, 708.3964185322641, 745.1332191019411].map(f64::to_bits);
        let exponents = (0..2048).map(|e: u64| e << 52);
        for at in wholes.chain(limits).chain(exponents) {
            let near = (at.saturating_sub(4)..at + 5).flat_map(|bits| [bits, bits | 1 << 63]);
            x.extend(near.map(f64::from_bits));
        }
        for k in -1080..1030 {
            for step in -8..=8 {
                x.push((f64::from(k) + f64::from(step) / 16.0) * std::f64::consts::LN_2);
            }
        }
        assert_bits_of_libm(&x);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn exp_has_the_bits_of_libm(seed: u64) {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state ^ state >> 29).wrapping_mul(0xbf58476d1ce4e5b9)
            };
            let any: Vec<f64> = (0..512).map(|_| f64::from_bits(next())).collect();
            let scaled = |scale: f64| move |bits: u64| ((bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0) * scale;
            assert_bits_of_libm(&any);
            for scale in [1e-9, 1e-3, 0.4, 2.0, 20.0, 760.0] {
                let x: Vec<f64> = (0..2048).map(|_| scaled(scale)(next())).collect();
                assert_bits_of_libm(&x);
            }
        }
    }

    #[test]
    fn softplus_holds_at_both_ends() {
        assert_eq!(softplus(800.0), 800.0);
        assert_eq!(softplus(-800.0), 0.0);
        assert_eq!(softplus(0.0), std::f64::consts::LN_2);
        assert!((softplus(-40.0) / 4.248354255291589e-18 - 1.0).abs() < 1e-15);
    }

    #[test]
    fn silu_and_sigmoid_hold_at_both_ends() {
        assert_eq!((sigmoid(800.0), sigmoid(-800.0), sigmoid(0.0)), (1.0, 0.0, 0.5));
        assert_eq!((silu(800.0), silu(-800.0), silu(0.0)), (800.0, -0.0, 0.0));
    }

    #[test]
    fn softmax_of_large_inputs_is_finite() {
        let mut x = [1e4, 1e4, -1e4];
        softmax(&mut x);
        assert_eq!(x, [0.5, 0.5, 0.0]);
    }
}
