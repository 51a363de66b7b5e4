//! Activations as ggml rounds them for its inner products.
//!
//! ggml's code for x86 and Arm rounds to 8 bits a little otherwise than its scalar code: ties go to even, and the factor is
//! 127/max and not 1/(max/127). Here the scalar code decides.

use half::{bf16, f16};

use super::Partner;

/// Values in a block of Q8_0 and Q8_1.
pub(crate) const BLOCK: usize = 32;
/// Values in a block of Q8_K.
pub(crate) const SUPER_BLOCK: usize = 256;
/// Values in each of a Q8_K block's sums.
pub(crate) const SUMMED: usize = 16;

/// One token's activations as 8-bit numbers under a scale for each block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounded {
    /// One for each activation.
    pub levels: Vec<i8>,
    /// One for each block; of an f16's value in Q8_0 and Q8_1.
    pub d: Vec<f32>,
    /// Q8_1: d·Σ levels of each block, of an f16's value.
    pub s: Vec<f32>,
    /// Q8_K: Σ levels of each sixteen.
    pub sums: Vec<i32>,
}

impl Rounded {
    /// Whole blocks of `x` in a form of 8-bit numbers. A block that is not finite gets a scale of NaN: ggml's own code
    /// loses such values, or stops.
    pub(crate) fn new(partner: Partner, x: &[f32]) -> Rounded {
        let mut rounded = Rounded::default();
        match partner {
            Partner::Q8_0 | Partner::Q8_1 => {
                x.as_chunks::<BLOCK>().0.iter().for_each(|x| rounded.push_block(x));
            }
            Partner::Q8K => x.as_chunks::<SUPER_BLOCK>().0.iter().for_each(|x| rounded.push_super_block(x)),
            Partner::F32 | Partner::F16 | Partner::BF16 => {}
        }
        rounded
    }

    /// The largest magnitude becomes ±127; halves round away from zero.
    fn push_block(&mut self, x: &[f32; BLOCK]) {
        let largest = x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
        let d = largest / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let levels = x.map(|x| (x * inverse).round() as i32 as i8);
        let sum: i32 = levels.iter().map(|&q| i32::from(q)).sum();
        self.levels.extend(levels);
        self.d.push(finite_or_nan(x, f16::from_f32(d).to_f32()));
        self.s.push(finite_or_nan(x, f16::from_f32(sum as f32 * d).to_f32()));
    }

    /// The value of largest magnitude, the first of several, becomes −127; ties go to even.
    fn push_super_block(&mut self, x: &[f32; SUPER_BLOCK]) {
        let largest =
            x.iter().fold(0.0, |largest: f32, &x| if x.abs() > largest.abs() { x } else { largest });
        let (d, levels) = if largest == 0.0 {
            (0.0, [0; SUPER_BLOCK])
        } else {
            let inverse = -127.0 / largest;
            (1.0 / inverse, x.map(|x| nearest(inverse * x).min(127) as i8))
        };
        let sum = |levels: &[i8; SUMMED]| levels.iter().map(|&q| i32::from(q)).sum::<i32>();
        self.levels.extend(levels);
        self.sums.extend(levels.as_chunks().0.iter().map(sum));
        self.d.push(finite_or_nan(x, d));
    }
}

fn finite_or_nan(x: &[f32], d: f32) -> f32 {
    if x.iter().all(|x| x.is_finite()) { d } else { f32::NAN }
}

/// The nearest whole number, ties to even, of what is at most 2²² in magnitude. A factor that overflowed makes infinities:
/// the low bits of what they add up to are the answer then.
fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// Activations of a form that is a plain number, widened again.
pub(crate) fn numbers(partner: Partner, x: &[f32]) -> Vec<f32> {
    match partner {
        Partner::F16 => x.iter().map(|&x| f16::from_f32(x).to_f32()).collect(),
        Partner::BF16 => x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
        _ => x.to_vec(),
    }
}

/// The same byte for byte as ggml holds it.
pub(crate) fn bytes(partner: Partner, x: &[f32]) -> Vec<u8> {
    let half = |x: f32| f16::from_f32(x).to_le_bytes();
    let rounded = Rounded::new(partner, x);
    let raw = |levels: &[i8]| levels.iter().map(|q| q.cast_unsigned()).collect::<Vec<u8>>();
    let blocks = rounded.levels.as_chunks::<BLOCK>().0.iter().enumerate();
    let super_blocks = rounded.levels.as_chunks::<SUPER_BLOCK>().0.iter().zip(&rounded.d);
    match partner {
        Partner::F32 => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Partner::F16 => x.iter().flat_map(|&x| half(x)).collect(),
        Partner::BF16 => x.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Partner::Q8_0 => blocks.flat_map(|(i, q)| [&half(rounded.d[i])[..], &raw(q)].concat()).collect(),
        Partner::Q8_1 => blocks
            .flat_map(|(i, q)| [&half(rounded.d[i])[..], &half(rounded.s[i]), &raw(q)].concat())
            .collect(),
        Partner::Q8K => super_blocks
            .zip(rounded.sums.as_chunks::<{ SUPER_BLOCK / SUMMED }>().0)
            .flat_map(|((q, d), sums)| {
                let sums = sums.iter().flat_map(|&sum| (sum as i16).to_le_bytes()).collect::<Vec<u8>>();
                [&d.to_le_bytes()[..], &raw(q), &sums].concat()
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero_in_blocks_and_to_even_in_super_blocks() {
        let mut x = [0.0; SUPER_BLOCK];
        x[..5].copy_from_slice(&[-127.0, 0.5, 1.5, 2.5, -0.5]);
        assert_eq!(Rounded::new(Partner::Q8_0, &x).levels[..5], [-127, 1, 2, 3, -1]);
        let rounded = Rounded::new(Partner::Q8K, &x);
        assert_eq!(rounded.levels[..5], [-127, 0, 2, 2, 0]);
        assert_eq!((rounded.d[0], rounded.sums[0], rounded.sums[1]), (1.0, -123, 0));
    }

    #[test]
    fn zeros_have_no_scale_and_nan_is_kept() {
        for partner in [Partner::Q8_0, Partner::Q8_1, Partner::Q8K] {
            let mut x = [0.0; SUPER_BLOCK];
            let zeros = Rounded::new(partner, &x);
            assert!(zeros.levels.iter().all(|&q| q == 0) && zeros.d.iter().all(|&d| d == 0.0));
            for bad in [f32::NAN, f32::INFINITY] {
                x[3] = bad;
                assert!(Rounded::new(partner, &x).d[0].is_nan());
            }
        }
    }
}
