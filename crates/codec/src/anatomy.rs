//! What is inside one block: its scales, and the codes under them. For people to look at, not for arithmetic.

use crate::float16::scale as half;
use crate::{Encoding, fp4, q3_k, q4_k};

/// A block taken apart.
#[derive(Clone, PartialEq, Debug)]
pub struct Anatomy {
    /// The factors that the whole block shares, by the format's names.
    pub factors: Vec<(&'static str, f32)>,
    /// Runs of values under one scale. Empty for encodings whose codes stand for points of a lattice.
    pub groups: Vec<Group>,
    /// The lowest and the highest code.
    pub range: (i16, i16),
}

/// Values under one scale: value = scale · code − minimum.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    /// What a code counts.
    pub scale: f32,
    /// What is taken off, 0 where the encoding has none.
    pub minimum: f32,
    /// The codes; `None` under a scale of zero, which hides them.
    pub codes: Vec<Option<i16>>,
}

/// Scales and minima of the groups.
type Scales = Vec<(f32, f32)>;

impl Encoding {
    /// Takes one block apart; `None` for plain numbers and for bytes that are no whole block.
    pub fn anatomy(self, block: &[u8]) -> Option<Anatomy> {
        if self.block_len() == 1 || block.len() != self.block_bytes() {
            return None;
        }
        let (factors, scales, range) = self.scales(block)?;
        let mut values = vec![0.0; self.block_len()];
        self.decode(block, &mut values).ok()?;
        let len = values.len() / scales.len().max(1);
        let code = |value: f32, scale: f32, minimum: f32| {
            let code = ((f64::from(value) + f64::from(minimum)) / f64::from(scale)).round();
            (f64::from(range.0)..=f64::from(range.1)).contains(&code).then_some(code as i16)
        };
        let groups = scales.iter().zip(values.chunks(len)).map(|(&(scale, minimum), values)| Group {
            scale,
            minimum,
            codes: values.iter().map(|&value| code(value, scale, minimum)).collect(),
        });
        Some(Anatomy { factors, groups: groups.collect(), range })
    }

    #[allow(clippy::type_complexity)] // what an anatomy is made of
    fn scales(self, block: &[u8]) -> Option<(Vec<(&'static str, f32)>, Scales, (i16, i16))> {
        use Encoding::*;
        let f16 = |at: usize| block.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(half);
        let f32 =
            |at: usize| block.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(f32::from_le_bytes);
        let single = |d: f32, range| Some((vec![("d", d)], vec![(d, 0.0)], range));
        let affine = |range| {
            let (d, m) = (f16(0)?, f16(2)?);
            Some((vec![("d", d), ("m", m)], vec![(d, -m)], range))
        };
        let lattice = |d: f32| Some((vec![("d", d)], Vec::new(), (0, 0)));
        match self {
            Q4_0 => single(f16(0)?, (-8, 7)),
            Q5_0 => single(f16(0)?, (-16, 15)),
            Q4_1 => affine((0, 15)),
            Q5_1 => affine((0, 31)),
            Q8_0 => single(f16(0)?, (-128, 127)),
            Q8_1 | Q8K => single(f32(0)?, (-128, 127)),
            Q2K => {
                let (d, dmin) = (f16(80)?, f16(82)?);
                let group = |s: &u8| (d * f32::from(s & 15), dmin * f32::from(s >> 4));
                Some((vec![("d", d), ("dmin", dmin)], block[..16].iter().map(group).collect(), (0, 3)))
            }
            Q3K => {
                let d = f16(108)?;
                let scales = q3_k::scales(block[96..108].try_into().ok()?);
                Some((vec![("d", d)], scales.iter().map(|&s| (d * f32::from(s), 0.0)).collect(), (-4, 3)))
            }
            Q4K | Q5K => {
                let (d, dmin) = (f16(0)?, f16(2)?);
                let packed = q4_k::scales_and_mins(block[4..16].try_into().ok()?);
                let group = |(s, m): (u8, u8)| (d * f32::from(s), dmin * f32::from(m));
                let highest = if self == Q4K { 15 } else { 31 };
                Some((vec![("d", d), ("dmin", dmin)], packed.into_iter().map(group).collect(), (0, highest)))
            }
            Q6K => {
                let d = f16(208)?;
                let group = |s: &u8| (d * f32::from(s.cast_signed()), 0.0);
                Some((vec![("d", d)], block[192..208].iter().map(group).collect(), (-32, 31)))
            }
            Iq4Nl => single(f16(0)?, (-127, 113)),
            Iq4Xs => {
                let d = f16(0)?;
                let high = u16::from_le_bytes(block[2..4].try_into().ok()?);
                let group = |g: usize| {
                    let low = block[4 + g / 2] >> (4 * (g % 2)) & 15;
                    (d * (f32::from((high >> (2 * g) & 3) as u8 * 16 + low) - 32.0), 0.0)
                };
                Some((vec![("d", d)], (0..8).map(group).collect(), (-127, 113)))
            }
            Tq1_0 => single(f16(52)?, (-1, 1)),
            Tq2_0 => single(f16(64)?, (-1, 2)),
            Q1_0 => single(f16(0)?, (-1, 1)),
            Q2_0 => single(f16(0)?, (-1, 2)),
            // Four-bit floats, doubled to be whole under half of the scale.
            Mxfp4 => single(fp4::half_e8m0(block[0]), (-12, 12)),
            Nvfp4 => {
                let scales = block[..4].iter().map(|&s| (fp4::half_ue4m3(s), 0.0));
                Some((Vec::new(), scales.collect(), (-12, 12)))
            }
            // The super-block's factor in IQ1_M is spread over the scales.
            Iq1M => {
                let word = |i: usize| u16::from_le_bytes([block[48 + 2 * i], block[49 + 2 * i]]);
                let bits = (0..4).fold(0, |bits, i| bits | (word(i) >> 12) << (4 * i));
                lattice(half(bits.to_le_bytes()))
            }
            Iq1S | Iq2Xxs | Iq2Xs | Iq2S | Iq3Xxs | Iq3S => lattice(f16(0)?),
            F32 | F16 | BF16 | F64 | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 | Bool | F8E4M3 | F8E5M2 => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any finite block is its scales times its codes, within the rounding of one product and one difference.
    #[test]
    fn scales_and_codes_make_the_values() {
        let mut checked = 0;
        for &encoding in Encoding::ALL {
            let (len, bytes) = (encoding.block_len(), encoding.block_bytes());
            let mut state = 1u32;
            for _ in 0..50 {
                let mut block: Vec<u8> = (0..bytes)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 24) as u8
                    })
                    .collect();
                // Signs of block-wide factors stay random, exponents moderate.
                for at in [1, 3, 53, 65, 81, 83, 109, 209] {
                    if let Some(byte) = block.get_mut(at) {
                        *byte = *byte & 0x83 | 0x28;
                    }
                }
                let Some(anatomy) = encoding.anatomy(&block) else {
                    assert_eq!(len, 1, "{encoding}");
                    break;
                };
                let mut values = vec![0.0; len];
                encoding.decode(&block, &mut values).unwrap();
                if anatomy.groups.is_empty() || values.iter().any(|v| !v.is_finite() || v.abs() > 1e30) {
                    continue;
                }
                let run = len / anatomy.groups.len();
                for (group, values) in anatomy.groups.iter().zip(values.chunks(run)) {
                    for (code, &value) in group.codes.iter().zip(values) {
                        let Some(code) = code else {
                            assert_eq!(group.scale, 0.0, "{encoding}: {group:?}");
                            continue;
                        };
                        let found = group.scale * f32::from(*code) - group.minimum;
                        let size = (group.scale * f32::from(*code)).abs() + group.minimum.abs();
                        assert!((found - value).abs() <= size * 1e-6, "{encoding}: {found} for {value}");
                        checked += 1;
                    }
                }
            }
        }
        assert!(checked > 100_000, "{checked}");
    }

    #[test]
    fn what_is_no_block_has_no_anatomy() {
        assert!(Encoding::F32.anatomy(&[0; 4]).is_none());
        assert!(Encoding::Q8_0.anatomy(&[0; 33]).is_none());
        let zeros = Encoding::Q8_0.anatomy(&[0; 34]).unwrap();
        assert!(zeros.groups[0].codes.iter().all(Option::is_none));
    }
}
