//! Rows of blocks as whole numbers under few factors: what integer dot products multiply. For judging such kernels;
//! whoever wants values decodes.

use crate::Encoding;
use crate::bits::nibbles;
use crate::blocks::fields;
use crate::float16::{f16_to_f32, scale};
use crate::grid::even_signs;
use crate::{fp4, iq1, iq2, iq3, iq4, q3_k, q4_k, q5, ternary};

/// Blocks taken apart, one after the other. Each block adds as many levels as it has values, and as many of the rest as
/// its encoding has; each of these then serves an equal share of the block's values, in order.
///
/// | encodings | value |
/// |---|---|
/// | Q4_0, Q5_0, Q8_0, IQ4_NL, MXFP4, NVFP4, TQ1_0, TQ2_0, Q1_0, Q2_0 | factor · level |
/// | Q4_1, Q5_1 | d · level + m; the factors are d and m |
/// | Q3_K, Q6_K, IQ3_S, IQ4_XS | factor · scale · level |
/// | IQ2_XXS, IQ2_XS, IQ2_S | factor · scale · level / 8 |
/// | IQ3_XXS | factor · scale · level / 4 |
/// | Q2_K, Q4_K, Q5_K | d · scale · level − dmin · offset; the factors are d and dmin |
/// | IQ1_S, IQ1_M | factor · scale · (level + offset / 8) |
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// One for each value.
    pub levels: Vec<i8>,
    /// What levels are multiplied by.
    pub scales: Vec<i16>,
    /// Minima, or shifts of levels.
    pub offsets: Vec<i16>,
    /// What is stored as floating-point numbers, widened.
    pub factors: Vec<f32>,
}

impl Whole {
    /// Makes it empty, keeping its room.
    pub fn clear(&mut self) {
        let Whole { levels, scales, offsets, factors } = self;
        levels.clear();
        scales.clear();
        offsets.clear();
        factors.clear();
    }
}

impl Encoding {
    /// Whether [`Encoding::whole`] takes its blocks apart: those of weights, not plain numbers nor the blocks that
    /// activations are rounded to.
    pub fn has_whole(self) -> bool {
        self.block_len() > 1 && !matches!(self, Encoding::Q8_1 | Encoding::Q8K)
    }

    /// Appends whole blocks to `row`; `None` if the encoding has no such form, or the bytes are no whole blocks.
    pub fn whole(self, bytes: &[u8], row: &mut Whole) -> Option<()> {
        use Encoding::*;
        match self {
            Q4_0 => each(bytes, row, q4_0),
            Q4_1 => each(bytes, row, q4_1),
            Q5_0 => each(bytes, row, q5_0),
            Q5_1 => each(bytes, row, q5_1),
            Q8_0 => each(bytes, row, q8_0),
            Q2K => each(bytes, row, q2_k),
            Q3K => each(bytes, row, q3_k),
            Q4K => each(bytes, row, q4_k),
            Q5K => each(bytes, row, q5_k),
            Q6K => each(bytes, row, q6_k),
            Iq1S => each(bytes, row, iq1_s),
            Iq1M => each(bytes, row, iq1_m),
            Iq2Xxs => each(bytes, row, iq2_xxs),
            Iq2Xs => each(bytes, row, iq2_xs),
            Iq2S => each(bytes, row, iq2_s),
            Iq3Xxs => each(bytes, row, iq3_xxs),
            Iq3S => each(bytes, row, iq3_s),
            Iq4Nl => each(bytes, row, iq4_nl),
            Iq4Xs => each(bytes, row, iq4_xs),
            Tq1_0 => each(bytes, row, tq1_0),
            Tq2_0 => each(bytes, row, tq2_0),
            Mxfp4 => each(bytes, row, mxfp4),
            Nvfp4 => each(bytes, row, nvfp4),
            Q1_0 => each(bytes, row, q1_0),
            Q2_0 => each(bytes, row, q2_0),
            F32 | F16 | BF16 | F64 | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 | Bool | F8E4M3 | F8E5M2
            | Q8_1 | Q8K => None,
        }
    }
}

fn each<const BYTES: usize>(
    bytes: &[u8],
    row: &mut Whole,
    take_apart: impl Fn(&[u8; BYTES], &mut Whole),
) -> Option<()> {
    let (blocks, []) = bytes.as_chunks() else { return None };
    blocks.iter().for_each(|block| take_apart(block, row));
    Some(())
}

/// Codes less `offset`, as levels.
fn push(row: &mut Whole, codes: impl IntoIterator<Item = u8>, offset: i8) {
    row.levels.extend(codes.into_iter().map(|code| code.cast_signed() - offset));
}

fn q4_0(block: &[u8; 18], row: &mut Whole) {
    fields!(block => d: 2, quants: 16);
    row.factors.push(scale(*d));
    push(row, nibbles::<16, 32>(quants), 8);
}

fn q4_1(block: &[u8; 20], row: &mut Whole) {
    fields!(block => d: 2, m: 2, quants: 16);
    row.factors.extend([scale(*d), scale(*m)]);
    push(row, nibbles::<16, 32>(quants), 0);
}

fn q5_0(block: &[u8; 22], row: &mut Whole) {
    fields!(block => d: 2, high: 4, low: 16);
    row.factors.push(scale(*d));
    push(row, q5::codes(high, low), 16);
}

fn q5_1(block: &[u8; 24], row: &mut Whole) {
    fields!(block => d: 2, m: 2, high: 4, low: 16);
    row.factors.extend([scale(*d), scale(*m)]);
    push(row, q5::codes(high, low), 0);
}

fn q8_0(block: &[u8; 34], row: &mut Whole) {
    fields!(block => d: 2, quants: 32);
    row.factors.push(scale(*d));
    push(row, *quants, 0);
}

fn q2_k(block: &[u8; 84], row: &mut Whole) {
    fields!(block => scales: 16, quants: 64, d: 2, dmin: 2);
    row.factors.extend([scale(*d), scale(*dmin)]);
    row.scales.extend(scales.iter().map(|s| i16::from(s & 15)));
    row.offsets.extend(scales.iter().map(|s| i16::from(s >> 4)));
    push(row, pairs(quants), 0);
}

/// Two bits of each of 256 codes: each half of the super-block in 32 bytes, rows of 32 values from the low bits up.
fn pairs(quants: &[u8; 64]) -> impl Iterator<Item = u8> {
    quants
        .as_chunks::<32>()
        .0
        .iter()
        .flat_map(|half| (0..4).flat_map(move |pair| half.iter().map(move |byte| byte >> (2 * pair) & 3)))
}

fn q3_k(block: &[u8; 110], row: &mut Whole) {
    fields!(block => high: 32, low: 64, packed_scales: 12, d: 2);
    row.factors.push(scale(*d));
    row.scales.extend(q3_k::scales(packed_scales).map(i16::from));
    let codes = pairs(low).enumerate().map(|(i, low)| low | (high[i % 32] >> (i / 32) & 1) << 2);
    push(row, codes, 4);
}

/// The header that Q4_K and Q5_K share.
fn affine_header(d: &[u8; 2], dmin: &[u8; 2], packed_scales: &[u8; 12], row: &mut Whole) {
    row.factors.extend([scale(*d), scale(*dmin)]);
    for (s, m) in q4_k::scales_and_mins(packed_scales) {
        row.scales.push(s.into());
        row.offsets.push(m.into());
    }
}

fn q4_k(block: &[u8; 144], row: &mut Whole) {
    fields!(block => d: 2, dmin: 2, packed_scales: 12, quants: 128);
    affine_header(d, dmin, packed_scales, row);
    for quants in quants.as_chunks::<32>().0 {
        push(row, nibbles::<32, 64>(quants), 0);
    }
}

fn q5_k(block: &[u8; 176], row: &mut Whole) {
    fields!(block => d: 2, dmin: 2, packed_scales: 12, high: 32, low: 128);
    affine_header(d, dmin, packed_scales, row);
    for (pair, low) in low.as_chunks::<32>().0.iter().enumerate() {
        let codes = nibbles::<32, 64>(low).into_iter().enumerate();
        push(row, codes.map(|(i, low)| low | (high[i % 32] >> (2 * pair + i / 32) & 1) << 4), 0);
    }
}

fn q6_k(block: &[u8; 210], row: &mut Whole) {
    fields!(block => low: 128, high: 64, scales: 16, d: 2);
    row.factors.push(scale(*d));
    row.scales.extend(scales.iter().map(|s| i16::from(s.cast_signed())));
    for (low, high) in low.as_chunks::<64>().0.iter().zip(high.as_chunks::<32>().0) {
        let codes = nibbles::<64, 128>(low).into_iter().enumerate();
        push(row, codes.map(|(i, low)| low | (high[i % 32] >> (2 * (i / 32)) & 3) << 4), 32);
    }
}

/// Four-bit scales that stand for odd numbers.
fn odd(s: impl Into<u32>) -> i16 {
    2 * (s.into() & 15) as i16 + 1
}

/// A point's levels, minus where the bit is set.
fn signed<const DIM: usize>(row: &mut Whole, point: &[i8; DIM], signs: u8) {
    row.levels.extend(point.iter().enumerate().map(|(i, &x)| if signs >> i & 1 == 1 { -x } else { x }));
}

fn iq2_xxs(block: &[u8; 66], row: &mut Whole) {
    fields!(block => d: 2, groups: 64);
    row.factors.push(scale(*d));
    for group in groups.as_chunks::<8>().0 {
        fields!(group => points: 4, signs_and_scale: 4);
        let signs_and_scale = u32::from_le_bytes(*signs_and_scale);
        row.scales.push(odd(signs_and_scale >> 28));
        for (i, point) in points.iter().enumerate() {
            signed(row, &iq2::XXS[usize::from(*point)], even_signs(signs_and_scale >> (7 * i)));
        }
    }
}

fn iq2_xs(block: &[u8; 74], row: &mut Whole) {
    fields!(block => d: 2, points: 64, scales: 8);
    row.factors.push(scale(*d));
    row.scales.extend(scales.iter().flat_map(|s| [odd(s & 15), odd(s >> 4)]));
    for point in points.as_chunks().0 {
        let point = u16::from_le_bytes(*point);
        signed(row, &iq2::XS[usize::from(point % 512)], even_signs(u32::from(point >> 9)));
    }
}

fn iq2_s(block: &[u8; 82], row: &mut Whole) {
    fields!(block => d: 2, low: 32, signs: 32, high: 8, scales: 8);
    row.factors.push(scale(*d));
    row.scales.extend(scales.iter().flat_map(|s| [odd(s & 15), odd(s >> 4)]));
    for (i, (low, signs)) in low.iter().zip(signs).enumerate() {
        let point = usize::from(*low) | usize::from(high[i / 4] >> (2 * (i % 4)) & 3) << 8;
        signed(row, &iq2::S[point], *signs);
    }
}

fn iq3_xxs(block: &[u8; 98], row: &mut Whole) {
    fields!(block => d: 2, points: 64, signs_and_scales: 32);
    row.factors.push(scale(*d));
    for (points, signs_and_scale) in points.as_chunks::<8>().0.iter().zip(signs_and_scales.as_chunks().0) {
        let signs_and_scale = u32::from_le_bytes(*signs_and_scale);
        row.scales.push(odd(signs_and_scale >> 28));
        for (i, point) in points.iter().enumerate() {
            let signs = even_signs(signs_and_scale >> (7 * (i / 2)));
            signed(row, &iq3::XXS[usize::from(*point)], signs >> (4 * (i % 2)));
        }
    }
}

fn iq3_s(block: &[u8; 110], row: &mut Whole) {
    fields!(block => d: 2, low: 64, high: 8, signs: 32, scales: 4);
    row.factors.push(scale(*d));
    row.scales.extend(scales.iter().flat_map(|s| [odd(s & 15), odd(s >> 4)]));
    for (i, low) in low.iter().enumerate() {
        let point = usize::from(*low) | usize::from(high[i / 8] >> (i % 8) & 1) << 8;
        signed(row, &iq3::S[point], signs[i / 2] >> (4 * (i % 2)));
    }
}

fn iq1_s(block: &[u8; 50], row: &mut Whole) {
    fields!(block => d: 2, low: 32, high: 16);
    row.factors.push(scale(*d));
    for (low, high) in low.as_chunks::<4>().0.iter().zip(high.as_chunks().0) {
        let high = u16::from_le_bytes(*high);
        row.scales.push(odd(high >> 12 & 7));
        row.offsets.push(if high >> 15 == 1 { -1 } else { 1 });
        for (i, low) in low.iter().enumerate() {
            let point = usize::from(*low) | usize::from(high >> (3 * i) & 7) << 8;
            row.levels.extend(iq1::POINTS[point]);
        }
    }
}

fn iq1_m(block: &[u8; 56], row: &mut Whole) {
    fields!(block => low: 32, high: 16, scales: 8);
    let words = scales.as_chunks().0.iter().map(|word| u16::from_le_bytes(*word));
    row.factors.push(f16_to_f32(words.clone().enumerate().fold(0, |d, (i, word)| d | word >> 12 << (4 * i))));
    row.scales.extend(words.flat_map(|word| (0..4).map(move |i| odd(word >> (3 * i) & 7))));
    for (i, low) in low.iter().enumerate() {
        let high = high[i / 2] >> (4 * (i % 2));
        row.offsets.push(if high & 8 != 0 { -1 } else { 1 });
        row.levels.extend(iq1::POINTS[usize::from(*low) | usize::from(high & 7) << 8]);
    }
}

fn iq4_nl(block: &[u8; 18], row: &mut Whole) {
    fields!(block => d: 2, quants: 16);
    row.factors.push(scale(*d));
    row.levels.extend(nibbles::<16, 32>(quants).map(|q| iq4::LEVELS[usize::from(q)]));
}

fn iq4_xs(block: &[u8; 136], row: &mut Whole) {
    fields!(block => d: 2, scales_high: 2, scales_low: 4, quants: 128);
    row.factors.push(scale(*d));
    let high = u16::from_le_bytes(*scales_high);
    for (group, quants) in quants.as_chunks::<16>().0.iter().enumerate() {
        let low = scales_low[group / 2] >> (4 * (group % 2)) & 15;
        row.scales.push((i16::from(low) | (high >> (2 * group) & 3).cast_signed() << 4) - 32);
        row.levels.extend(nibbles::<16, 32>(quants).map(|q| iq4::LEVELS[usize::from(q)]));
    }
}

fn tq1_0(block: &[u8; 54], row: &mut Whole) {
    fields!(block => long: 32, middle: 16, short: 4, d: 2);
    row.factors.push(scale(*d));
    let digits = |bytes: &[u8], row: &mut Whole, count: usize| {
        for power in &ternary::POWERS[..count] {
            push(row, bytes.iter().map(|byte| ternary::digit(*byte, *power)), 1);
        }
    };
    digits(long, row, 5);
    digits(middle, row, 5);
    digits(short, row, 4);
}

fn tq2_0(block: &[u8; 66], row: &mut Whole) {
    fields!(block => quants: 64, d: 2);
    row.factors.push(scale(*d));
    push(row, pairs(quants), 1);
}

fn mxfp4(block: &[u8; 17], row: &mut Whole) {
    fields!(block => e: 1, quants: 16);
    row.factors.push(fp4::half_e8m0(e[0]));
    row.levels.extend(nibbles::<16, 32>(quants).map(|q| fp4::DOUBLED[usize::from(q)] as i8));
}

fn nvfp4(block: &[u8; 36], row: &mut Whole) {
    fields!(block => scales: 4, quants: 32);
    row.factors.extend(scales.map(fp4::half_ue4m3));
    for quants in quants.as_chunks::<8>().0 {
        row.levels.extend(nibbles::<8, 16>(quants).map(|q| fp4::DOUBLED[usize::from(q)] as i8));
    }
}

fn q1_0(block: &[u8; 18], row: &mut Whole) {
    fields!(block => d: 2, bits: 16);
    row.factors.push(scale(*d));
    row.levels
        .extend(bits.iter().flat_map(|byte| (0..8).map(move |i| if byte >> i & 1 == 1 { 1 } else { -1 })));
}

fn q2_0(block: &[u8; 18], row: &mut Whole) {
    fields!(block => d: 2, quants: 16);
    row.factors.push(scale(*d));
    push(row, quants.iter().flat_map(|byte| (0..4).map(move |i| byte >> (2 * i) & 3)), 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table above, in f64.
    fn value(encoding: Encoding, row: &Whole, i: usize) -> f64 {
        use Encoding::*;
        let share = |count: usize| i * count / row.levels.len();
        let factor = |at: usize| f64::from(row.factors[at]);
        let scale = || f64::from(row.scales[share(row.scales.len())]);
        let offset = || f64::from(row.offsets[share(row.offsets.len())]);
        let level = f64::from(row.levels[i]);
        match encoding {
            Q4_1 | Q5_1 => factor(0) * level + factor(1),
            Q2K | Q4K | Q5K => factor(0) * scale() * level - factor(1) * offset(),
            Iq1S | Iq1M => factor(0) * scale() * (level + offset() / 8.0),
            Iq2Xxs | Iq2Xs | Iq2S => factor(0) * scale() * level / 8.0,
            Iq3Xxs => factor(0) * scale() * level / 4.0,
            Q3K | Q6K | Iq3S | Iq4Xs => factor(0) * scale() * level,
            _ => factor(share(row.factors.len())) * level,
        }
    }

    /// Any block is its whole numbers as the table says, within the rounding of a decoder's products.
    #[test]
    fn whole_numbers_make_the_values() {
        let mut encodings = 0;
        for &encoding in Encoding::ALL.iter().filter(|encoding| encoding.has_whole()) {
            let mut state = 7u32;
            let mut checked = 0;
            for _ in 0..64 {
                let next = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                };
                let mut block: Vec<u8> = std::iter::repeat_with(next).take(encoding.block_bytes()).collect();
                if encoding == Encoding::Mxfp4 {
                    block[0] = block[0] % 64 + 96;
                }
                let mut decoded = vec![0.0; encoding.block_len()];
                encoding.decode(&block, &mut decoded).unwrap();
                let mut row = Whole::default();
                encoding.whole(&block, &mut row).unwrap();
                assert_eq!(row.levels.len(), encoding.block_len());
                if row.factors.iter().any(|f| !f.is_finite()) {
                    continue;
                }
                let size: f64 = row.factors.iter().map(|f| f64::from(f.abs())).fold(0.0, f64::max) * 1e4;
                for (i, &decoded) in decoded.iter().enumerate() {
                    let found = value(encoding, &row, i);
                    assert!(
                        (found - f64::from(decoded)).abs() <= 3e-7 * size.max(1e-30),
                        "{encoding} {i}: {found:e} {decoded:e}"
                    );
                    let close = (found - f64::from(decoded)).abs() <= 1e-5 * found.abs();
                    checked += usize::from(close);
                }
            }
            assert!(checked > 30 * encoding.block_len(), "{encoding}: {checked}");
            encodings += 1;
        }
        assert_eq!(encodings, 25);
    }

    #[test]
    fn what_has_no_such_form_is_refused() {
        let mut row = Whole::default();
        for &encoding in Encoding::ALL {
            let block = vec![0; encoding.block_bytes()];
            assert_eq!(encoding.whole(&block, &mut row).is_some(), encoding.has_whole(), "{encoding}");
        }
        assert_eq!(Encoding::Q8_0.whole(&[0; 35], &mut row), None);
        row.clear();
        assert_eq!(row, Whole::default());
    }
}
