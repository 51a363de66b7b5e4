//! What is inside one block: its scales, and the codes under them. For people to look at, not for arithmetic.

use crate::float16::scale as half;
use crate::{Encoding, fp4, iq1, iq2, iq3, q3_k, q4_k};

/// A block taken apart.
#[derive(Clone, PartialEq, Debug)]
pub struct Anatomy {
    /// The factors that the whole block shares, by the format's names.
    pub factors: Vec<(&'static str, f32)>,
    /// Runs of values under one scale, all of one length: value = scale · code − minimum.
    pub groups: Vec<Group>,
    /// The code of every value; `None` under a scale of zero, which hides them. Where points of a lattice are stored, the
    /// coordinate with its sign.
    pub codes: Vec<Option<i16>>,
    /// The points of a lattice that the codes are, all of one number of values; empty for other encodings.
    pub points: Vec<Point>,
    /// The lowest and the highest code, to which values beyond are cut; `None` where nearly every code is one of them: two
    /// or three levels.
    pub ends: Option<(i16, i16)>,
}

/// Values under one scale.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Group {
    /// What a code counts.
    pub scale: f32,
    /// What is taken off, 0 where the encoding has none.
    pub minimum: f32,
}

/// A point of a lattice, as it is stored.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// Its index in the encoding's grid.
    pub index: u16,
    /// The minuses, bit i that of the point's value i. None in the encodings whose grid has negative coordinates.
    pub minuses: Option<u8>,
}

/// What an encoding says of a block.
pub(crate) struct Plan {
    pub factors: Vec<(&'static str, f32)>,
    pub groups: Vec<Group>,
    pub points: Vec<Point>,
    /// The lowest and the highest code.
    pub range: (i16, i16),
}

impl Encoding {
    /// Takes one block apart; `None` for plain numbers and for bytes that are no whole block.
    pub fn anatomy(self, block: &[u8]) -> Option<Anatomy> {
        if self.block_len() == 1 || block.len() != self.block_bytes() {
            return None;
        }
        let Plan { factors, groups, points, range } = self.plan(block)?;
        let mut values = vec![0.0; self.block_len()];
        self.decode(block, &mut values).ok()?;
        let mut codes = Vec::with_capacity(values.len());
        for (group, values) in groups.iter().zip(values.chunks(self.block_len() / groups.len())) {
            codes.extend(values.iter().map(|&value| group.code(value, range)));
        }
        let few = matches!(
            self,
            Encoding::Q1_0 | Encoding::Tq1_0 | Encoding::Tq2_0 | Encoding::Iq1S | Encoding::Iq1M
        );
        Some(Anatomy { factors, groups, codes, points, ends: (!few).then_some(range) })
    }

    fn plan(self, block: &[u8]) -> Option<Plan> {
        use Encoding::*;
        let f16 = |at: usize| block.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(half);
        let f32 =
            |at: usize| block.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(f32::from_le_bytes);
        let plan = |factors: &[(&'static str, f32)], groups: Vec<(f32, f32)>, range| {
            let group = |(scale, minimum)| Group { scale, minimum };
            let groups = groups.into_iter().map(group).collect();
            Some(Plan { factors: factors.to_vec(), groups, points: Vec::new(), range })
        };
        let single = |d: f32, range| plan(&[("d", d)], vec![(d, 0.0)], range);
        let affine = |range| {
            let (d, m) = (f16(0)?, f16(2)?);
            plan(&[("d", d), ("m", m)], vec![(d, -m)], range)
        };
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
                plan(&[("d", d), ("dmin", dmin)], block[..16].iter().map(group).collect(), (0, 3))
            }
            Q3K => {
                let d = f16(108)?;
                let scales = q3_k::scales(block[96..108].try_into().ok()?);
                plan(&[("d", d)], scales.iter().map(|&s| (d * f32::from(s), 0.0)).collect(), (-4, 3))
            }
            Q4K | Q5K => {
                let (d, dmin) = (f16(0)?, f16(2)?);
                let packed = q4_k::scales_and_mins(block[4..16].try_into().ok()?);
                let group = |(s, m): (u8, u8)| (d * f32::from(s), dmin * f32::from(m));
                let highest = if self == Q4K { 15 } else { 31 };
                plan(&[("d", d), ("dmin", dmin)], packed.into_iter().map(group).collect(), (0, highest))
            }
            Q6K => {
                let d = f16(208)?;
                let group = |s: &u8| (d * f32::from(s.cast_signed()), 0.0);
                plan(&[("d", d)], block[192..208].iter().map(group).collect(), (-32, 31))
            }
            Iq4Nl => single(f16(0)?, (-127, 113)),
            Iq4Xs => {
                let d = f16(0)?;
                let high = u16::from_le_bytes(block[2..4].try_into().ok()?);
                let group = |g: usize| {
                    let low = block[4 + g / 2] >> (4 * (g % 2)) & 15;
                    (d * (f32::from((high >> (2 * g) & 3) as u8 * 16 + low) - 32.0), 0.0)
                };
                plan(&[("d", d)], (0..8).map(group).collect(), (-127, 113))
            }
            Tq1_0 => single(f16(52)?, (-1, 1)),
            Tq2_0 => single(f16(64)?, (-1, 2)),
            Q1_0 => single(f16(0)?, (-1, 1)),
            Q2_0 => single(f16(0)?, (-1, 2)),
            // Four-bit floats, doubled to be whole under half of the scale.
            Mxfp4 => single(fp4::half_e8m0(block[0]), (-12, 12)),
            Nvfp4 => {
                let scales = block[..4].iter().map(|&s| (fp4::half_ue4m3(s), 0.0));
                plan(&[], scales.collect(), (-12, 12))
            }
            Iq1S => iq1::plan_iq1_s(block.try_into().ok()?),
            Iq1M => iq1::plan_iq1_m(block.try_into().ok()?),
            Iq2Xxs => iq2::plan_iq2_xxs(block.try_into().ok()?),
            Iq2Xs => iq2::plan_iq2_xs(block.try_into().ok()?),
            Iq2S => iq2::plan_iq2_s(block.try_into().ok()?),
            Iq3Xxs => iq3::plan_iq3_xxs(block.try_into().ok()?),
            Iq3S => iq3::plan_iq3_s(block.try_into().ok()?),
            F32 | F16 | BF16 | F64 | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 | Bool | F8E4M3 | F8E5M2 => {
                None
            }
        }
    }
}

impl Group {
    fn code(&self, value: f32, (lowest, highest): (i16, i16)) -> Option<i16> {
        let code = (f64::from(value) + f64::from(self.minimum)) / f64::from(self.scale);
        // To the nearest; NaN, which a scale of zero makes, is in no range.
        let code = code + f64::copysign(0.5, code);
        let bounds = f64::from(lowest) - 1.0..f64::from(highest) + 1.0;
        (code > bounds.start && code < bounds.end).then_some(code as i16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid;

    /// Any finite block is its scales times its codes, within the rounding of one product and one difference.
    #[test]
    fn scales_and_codes_make_the_values() {
        let (mut checked, mut points) = (0, 0);
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
                if values.iter().any(|v| !v.is_finite() || v.abs() > 1e30) {
                    continue;
                }
                let run = len / anatomy.groups.len();
                let codes = anatomy.codes.chunks(run).zip(values.chunks(run));
                for (group, (codes, values)) in anatomy.groups.iter().zip(codes) {
                    for (code, &value) in codes.iter().zip(values) {
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
                let codes: Vec<i16> = anatomy.codes.iter().flatten().copied().collect();
                if !anatomy.points.is_empty() && codes.len() == len {
                    for (point, codes) in anatomy.points.iter().zip(codes.chunks(len / anatomy.points.len()))
                    {
                        assert_eq!(coordinates(encoding, *point), codes, "{encoding} {point:?}");
                        points += 1;
                    }
                }
            }
        }
        assert!(checked > 200_000 && points > 10_000, "{checked} {points}");
    }

    /// A point of the grid with its signs.
    fn coordinates(encoding: Encoding, point: Point) -> Vec<i16> {
        let index = usize::from(point.index);
        let magnitudes: Vec<i8> = match encoding {
            Encoding::Iq1S | Encoding::Iq1M => grid::IQ1[index].map(|c| c as i8 - 1).to_vec(),
            Encoding::Iq2Xxs => grid::IQ2_XXS[index].map(|c| [8, 25, 43][usize::from(c)]).to_vec(),
            Encoding::Iq2Xs => grid::IQ2_XS[index].map(|c| [8, 25, 43][usize::from(c)]).to_vec(),
            Encoding::Iq2S => grid::IQ2_S[index].map(|c| [8, 25, 43][usize::from(c)]).to_vec(),
            Encoding::Iq3Xxs => {
                grid::IQ3_XXS[index].map(|c| if c == 7 { 62 } else { 4 + 8 * c as i8 }).to_vec()
            }
            _ => grid::IQ3_S[index].map(|c| 1 + 2 * c as i8).to_vec(),
        };
        let minus = |i: usize| point.minuses.is_some_and(|minuses| minuses >> i & 1 == 1);
        let signed = |(i, c): (usize, i8)| if minus(i) { -i16::from(c) } else { i16::from(c) };
        magnitudes.into_iter().enumerate().map(signed).collect()
    }

    #[test]
    fn what_is_no_block_has_no_anatomy() {
        assert!(Encoding::F32.anatomy(&[0; 4]).is_none());
        assert!(Encoding::Q8_0.anatomy(&[0; 33]).is_none());
        let zeros = Encoding::Q8_0.anatomy(&[0; 34]).unwrap();
        assert!(zeros.codes.iter().all(Option::is_none));
    }
}
