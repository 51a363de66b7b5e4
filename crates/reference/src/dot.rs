//! The inner product, whose bits depend on nothing but its inputs.
//!
//! Products go to eight lanes by index modulo 8; each lane adds its own in order, in f64; a fixed tree adds the lanes.
//! A product of two f32 is exact in f64, so that a fused multiply-add rounds as the two operations do. `linear` computes
//! the same sums, many at a time.

/// Lanes of every sum.
pub(crate) const LANES: usize = 8;

/// One value of each lane, or eight values of one lane.
pub(crate) type Lane = [f64; LANES];

/// The tree that adds the lanes.
#[inline(always)]
pub(crate) fn reduce(l: &Lane) -> f64 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// `Σ a·b`, written to be read: the definition that everything faster is tested against.
#[inline(always)]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for l in 0..LANES {
            lanes[l] += a[l] * b[l];
        }
    }
    for (l, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[l] += a * b;
    }
    reduce(&lanes)
}
