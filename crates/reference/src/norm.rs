//! Norms over the last axis.

use crate::dot::dot;

/// ε of DeltaNet's l2 norm: inside the root, and 1e-6 whatever the configuration's `rms_norm_eps` is.
const L2_EPS: f64 = 1e-6;

/// `x / sqrt(mean(x²) + eps) · gain`, unrounded, in place.
#[inline(always)]
pub(crate) fn rms_norm(x: &mut [f64], gain: &[f64], eps: f64) {
    let scale = 1.0 / (dot(x, x) / x.len() as f64 + eps).sqrt();
    x.iter_mut().zip(gain).for_each(|(x, gain)| *x = *x * scale * gain);
}

/// `x / sqrt(Σx² + 1e-6) · scale`, unrounded, in place.
#[inline(always)]
pub(crate) fn l2_norm(x: &mut [f64], scale: f64) {
    let scale = scale / (dot(x, x) + L2_EPS).sqrt();
    x.iter_mut().for_each(|x| *x *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the formulas, on a vector small enough that where ε stands shows.
    #[test]
    fn eps_is_inside_the_root() {
        let mut x = [3e-3, 4e-3];
        rms_norm(&mut x, &[1.0, 2.0], 1e-6);
        let root = (12.5e-6f64 + 1e-6).sqrt();
        assert!((x[0] - 3e-3 / root).abs() < 1e-15 && (x[1] - 8e-3 / root).abs() < 1e-15);
        let mut x = [3e-3, 4e-3];
        l2_norm(&mut x, 0.5);
        let root = (25e-6f64 + 1e-6).sqrt();
        assert!((x[0] - 1.5e-3 / root).abs() < 1e-15 && (x[1] - 2e-3 / root).abs() < 1e-15);
    }
}
