//! Rotary position embedding.

/// The rotation of one position: cosine and sine of `position · θ^(−2i/rot)` for every pair `i`.
pub(crate) struct Rotation(Vec<(f64, f64)>);

impl Rotation {
    /// For `rotary_dim` leading dimensions of a head. Angles are f64: text has one position for all three M-RoPE
    /// sections, so the sections change nothing.
    pub(crate) fn new(position: usize, rotary_dim: usize, theta: f64) -> Rotation {
        let pairs = (0..rotary_dim / 2).map(|i| {
            let frequency = libm::pow(theta, -2.0 * i as f64 / rotary_dim as f64);
            let angle = position as f64 * frequency;
            (libm::cos(angle), libm::sin(angle))
        });
        Rotation(pairs.collect())
    }

    /// Rotates the pairs `(i, i + rot/2)` of one head in place; dimensions from `rot` on stay.
    pub(crate) fn apply(&self, head: &mut [f64]) {
        let half = self.0.len();
        for (i, (cos, sin)) in self.0.iter().enumerate() {
            let (a, b) = (head[i], head[i + half]);
            head[i] = a * cos - b * sin;
            head[i + half] = b * cos + a * sin;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_halves_of_the_rotated_part() {
        let mut head = [1.0, 0.0, 0.0, 0.0, 7.0, 8.0];
        Rotation::new(1, 4, 100.0).apply(&mut head);
        assert!((head[0] - 1f64.cos()).abs() < 1e-15 && (head[2] - 1f64.sin()).abs() < 1e-15);
        assert_eq!((head[1], head[3]), (0.0, 0.0));
        assert_eq!(head[4..], [7.0, 8.0]);
        let mut head = [0.0, 1.0, 0.0, 0.0];
        Rotation::new(3, 4, 100.0).apply(&mut head);
        assert!((head[1] - 0.3f64.cos()).abs() < 1e-15 && (head[3] - 0.3f64.sin()).abs() < 1e-15);
    }

    #[test]
    fn position_zero_turns_nothing() {
        let mut head = [1.0, 2.0, 3.0, 4.0];
        Rotation::new(0, 4, 1e7).apply(&mut head);
        assert_eq!(head, [1.0, 2.0, 3.0, 4.0]);
    }
}
