//! Activations as whole numbers, sixteen tokens and 256 columns at a time.
//!
//! Each 256 activations of a token become a scale and whole numbers of up to 23 bits and a sign. How these lie in memory
//! is for the instruction set to say.

use super::lane::{LANES, Lane};

/// Tokens of a [`TokenTile`], one in each lane.
pub(crate) const TOKENS: usize = LANES;
/// Columns that share a scale: a superblock of the encodings.
pub(crate) const COLUMNS: usize = 256;
/// Largest whole number that an activation becomes: three signed digits of eight bits hold it.
const LARGEST: f32 = (127 << 16) as f32;

/// One token's activations of a superblock.
pub(crate) type Whole = [i32; COLUMNS];

/// What sixteen tokens bring to a superblock of weights.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct TokenTile {
    /// Each token's scale.
    pub scales: Lane,
    /// Sums of 16 columns, as activations.
    pub sixteens: [Lane; 16],
    /// Sums of 32 columns, as activations.
    pub thirty_twos: [Lane; 8],
    /// The whole numbers, taken apart as the instruction set wants them.
    pub lines: [[u8; 64]; 256],
}

impl TokenTile {
    pub(crate) const ZERO: TokenTile = TokenTile {
        scales: Lane::ZERO,
        sixteens: [Lane::ZERO; 16],
        thirty_twos: [Lane::ZERO; 8],
        lines: [[0; 64]; 256],
    };

    /// Whether the upper half of the tokens is all 0 and needs no work: of an expert's last tile as often as not.
    #[inline(always)]
    pub(crate) fn is_half(&self) -> bool {
        // Where a scale is 0, all numbers are.
        self.scales.0[TOKENS / 2..] == [0.0; TOKENS / 2]
    }
}

/// The scale of activations with this largest magnitude, and its inverse.
#[inline(always)]
pub(crate) fn scale_of(largest: f32) -> (f32, f32) {
    let inverse = LARGEST / largest;
    // Below 2⁻¹⁰⁵ the inverse is infinite: nothing that small is told from 0.
    if inverse == f32::INFINITY { (0.0, 0.0) } else { (largest / LARGEST, inverse) }
}

/// Writes what sixteen tokens bring; `lay` takes the whole numbers of one apart.
#[inline(always)]
pub(crate) fn fix(
    x: &[[f32; COLUMNS]; TOKENS],
    to: &mut TokenTile,
    lay: impl Fn(&Whole, usize, &mut [[u8; 64]; 256]),
) {
    for (t, x) in x.iter().enumerate() {
        // The largest magnitude by its bits, so that NaN is the largest of all and stays.
        let mut largest = 0u32;
        for x in x {
            largest = largest.max(x.to_bits() & 0x7fff_ffff);
        }
        let (scale, inverse) = scale_of(f32::from_bits(largest));
        let mut whole: Whole = [0; COLUMNS];
        for (whole, x) in whole.iter_mut().zip(x) {
            // NaN becomes 0 here; its scale is NaN, or infinite.
            *whole = (x * inverse).round_ties_even() as i32;
        }
        to.scales.0[t] = scale;
        let mut sums = [0i32; 16];
        for (sum, run) in sums.iter_mut().zip(whole.as_chunks::<16>().0) {
            *sum = run.iter().sum();
        }
        for (lane, sum) in to.sixteens.iter_mut().zip(sums) {
            lane.0[t] = scale * sum as f32;
        }
        for (lane, pair) in to.thirty_twos.iter_mut().zip(sums.as_chunks::<2>().0) {
            lane.0[t] = scale * (pair[0] + pair[1]) as f32;
        }
        lay(&whole, t, &mut to.lines);
    }
}

/// Pairs of 16-bit numbers, `whole = 4096·high + low`: lines `[2, 128]` of sixteen tokens' pairs.
#[inline(always)]
pub(crate) fn pairs(whole: &Whole, t: usize, lines: &mut [[u8; 64]; 256]) {
    let (high_lines, low_lines) = lines.split_at_mut(COLUMNS / 2);
    for ((pair, high_line), low_line) in whole.as_chunks::<2>().0.iter().zip(high_lines).zip(low_lines) {
        let high = pair.map(|x| (x + 2048) >> 12);
        let join = |[a, b]: [i32; 2]| (a as u16 as u32 | (b as u16 as u32) << 16).to_le_bytes();
        high_line[4 * t..4 * t + 4].copy_from_slice(&join(high));
        low_line[4 * t..4 * t + 4]
            .copy_from_slice(&join([pair[0] - (high[0] << 12), pair[1] - (high[1] << 12)]));
    }
}

/// [`fix`], as [`pairs`].
#[inline(always)]
pub(crate) fn fix_pairs(x: &[[f32; COLUMNS]; TOKENS], to: &mut TokenTile) {
    fix(x, to, pairs);
}

/// Signed digits of eight bits, the highest first: lines `[3, 64]` of sixteen tokens' fours. What tiles of AMX want; written
/// to be read.
#[cfg(test)]
#[inline(always)]
pub(crate) fn fours(whole: &Whole, t: usize, lines: &mut [[u8; 64]; 256]) {
    let mut digits = [[0u8; COLUMNS]; 3];
    for (i, &x) in whole.iter().enumerate() {
        let low = x as i8;
        let x = (x - i32::from(low)) >> 8;
        let middle = x as i8;
        digits[0][i] = ((x - i32::from(middle)) >> 8) as u8;
        digits[1][i] = middle as u8;
        digits[2][i] = low as u8;
    }
    for (digits, lines) in digits.iter().zip(lines.chunks_exact_mut(COLUMNS / 4)) {
        for (four, line) in digits.as_chunks::<4>().0.iter().zip(lines) {
            line[4 * t..4 * t + 4].copy_from_slice(four);
        }
    }
}
