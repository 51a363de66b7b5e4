//! Rotary position embedding.

/// The frequencies of a model's rotation.
pub(crate) struct Rope(Vec<f64>);

/// The rotation of one position: cosine and sine for every pair.
pub(crate) struct Rotation(Vec<(f32, f32)>);

impl Rope {
    /// `θ^(−2i/rot)` for every pair `i` of the `rotary_dim` leading dimensions.
    pub(crate) fn new(rotary_dim: usize, theta: f64) -> Rope {
        Rope((0..rotary_dim / 2).map(|i| libm::pow(theta, -2.0 * i as f64 / rotary_dim as f64)).collect())
    }

    /// Angles are f64: at position 10⁵ an f32 is off by a hundredth of a turn.
    pub(crate) fn at(&self, position: usize) -> Rotation {
        let turn = |frequency: &f64| {
            let angle = position as f64 * frequency;
            (libm::cos(angle) as f32, libm::sin(angle) as f32)
        };
        Rotation(self.0.iter().map(turn).collect())
    }
}

impl Rotation {
    /// Rotates the pairs `(i, i + rot/2)` of one head in place; dimensions from `rot` on stay.
    pub(crate) fn apply(&self, head: &mut [f32]) {
        let half = self.0.len();
        let (first, rest) = head.split_at_mut(half);
        for ((a, b), &(cos, sin)) in first.iter_mut().zip(rest).zip(&self.0) {
            let (x, y) = (*a, *b);
            *a = x * cos - y * sin;
            *b = y * cos + x * sin;
        }
    }
}
