//! Elementary functions, in f64 by portable code: no platform's own library decides a bit.

/// `e^x`.
pub(crate) fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// `1 / (1 + e^−x)`.
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// `x · sigmoid(x)`.
pub(crate) fn silu(x: f64) -> f64 {
    x / (1.0 + exp(-x))
}

/// `ln(1 + e^x)`, without overflow and without cancellation.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(exp(-x.abs()))
}

/// In place: `e^(x−max) / Σ e^(x−max)`.
pub(crate) fn softmax(x: &mut [f64]) {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for v in x.iter_mut() {
        *v = exp(*v - max);
        sum += *v;
    }
    x.iter_mut().for_each(|v| *v /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

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
