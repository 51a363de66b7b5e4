//! Element types of stored tensors, and turning their bytes into values.

use half::{bf16, f16};

use crate::tensor::Values;

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Dtype {
    F16,
    BF16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
}

/// Order of the bytes within an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endian {
    Little,
    Big,
}

/// Name in manifests and reports, bytes per element, type code in `.npy` headers, name in safetensors.
const ROWS: &[(Dtype, &str, usize, Option<&str>, safetensors::Dtype)] = {
    use safetensors::Dtype as S;
    &[
        (Dtype::F16, "f16", 2, Some("f2"), S::F16),
        (Dtype::BF16, "bf16", 2, None, S::BF16),
        (Dtype::F32, "f32", 4, Some("f4"), S::F32),
        (Dtype::F64, "f64", 8, Some("f8"), S::F64),
        (Dtype::I8, "i8", 1, Some("i1"), S::I8),
        (Dtype::I16, "i16", 2, Some("i2"), S::I16),
        (Dtype::I32, "i32", 4, Some("i4"), S::I32),
        (Dtype::I64, "i64", 8, Some("i8"), S::I64),
        (Dtype::U8, "u8", 1, Some("u1"), S::U8),
        (Dtype::U16, "u16", 2, Some("u2"), S::U16),
        (Dtype::U32, "u32", 4, Some("u4"), S::U32),
        (Dtype::U64, "u64", 8, Some("u8"), S::U64),
        (Dtype::Bool, "bool", 1, Some("b1"), S::BOOL),
    ]
};

impl Dtype {
    fn row(self) -> &'static (Dtype, &'static str, usize, Option<&'static str>, safetensors::Dtype) {
        &ROWS[self as usize]
    }

    /// The name in manifests and reports: `f32`, `bf16`, `i64`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        self.row().2
    }

    pub(crate) fn from_name(name: &str) -> Option<Dtype> {
        ROWS.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The type code in a `.npy` header, without the byte order; numpy has none for BF16.
    pub(crate) fn npy_code(self) -> Option<&'static str> {
        self.row().3
    }

    pub(crate) fn from_npy_code(code: &str) -> Option<Dtype> {
        ROWS.iter().find(|row| row.3 == Some(code)).map(|row| row.0)
    }

    pub(crate) fn safetensors(self) -> safetensors::Dtype {
        self.row().4
    }

    pub(crate) fn from_safetensors(dtype: safetensors::Dtype) -> Option<Dtype> {
        ROWS.iter().find(|row| row.4 == dtype).map(|row| row.0)
    }

    /// An empty list of the type that this one widens to on reading.
    pub(crate) fn widened(self) -> Values {
        match self {
            Dtype::F16 | Dtype::BF16 | Dtype::F32 => Values::F32(Vec::new()),
            Dtype::F64 => Values::F64(Vec::new()),
            _ => Values::I64(Vec::new()),
        }
    }

    /// Appends the elements in `bytes` (a whole number of them) to `out`, which [`Dtype::widened`] made. On an
    /// unsigned integer over `i64::MAX`, which `out` cannot hold, returns it.
    pub(crate) fn decode(self, endian: Endian, bytes: &[u8], out: &mut Values) -> Result<(), u64> {
        // One arm per type: `$from` reads an element from its bytes in memory order, `$to` widens it.
        macro_rules! widen {
            ($out:expr, $ty:ty, $to:expr) => {{
                let (elements, _) = bytes.as_chunks::<{ size_of::<$ty>() }>();
                match endian {
                    Endian::Little => $out.extend(elements.iter().map(|b| $to(<$ty>::from_le_bytes(*b)))),
                    Endian::Big => $out.extend(elements.iter().map(|b| $to(<$ty>::from_be_bytes(*b)))),
                }
            }};
        }
        match (self, out) {
            (Dtype::F16, Values::F32(out)) => widen!(out, f16, f16::to_f32),
            (Dtype::BF16, Values::F32(out)) => widen!(out, bf16, bf16::to_f32),
            (Dtype::F32, Values::F32(out)) => widen!(out, f32, |x| x),
            (Dtype::F64, Values::F64(out)) => widen!(out, f64, |x| x),
            (Dtype::I8, Values::I64(out)) => widen!(out, i8, i64::from),
            (Dtype::I16, Values::I64(out)) => widen!(out, i16, i64::from),
            (Dtype::I32, Values::I64(out)) => widen!(out, i32, i64::from),
            (Dtype::I64, Values::I64(out)) => widen!(out, i64, |x| x),
            (Dtype::U8, Values::I64(out)) => widen!(out, u8, i64::from),
            (Dtype::U16, Values::I64(out)) => widen!(out, u16, i64::from),
            (Dtype::U32, Values::I64(out)) => widen!(out, u32, i64::from),
            (Dtype::U64, Values::I64(out)) => {
                let before = out.len();
                widen!(out, u64, |x: u64| x as i64);
                // Those that wrapped are the negative ones.
                if let Some(&wrapped) = out[before..].iter().find(|&&x| x < 0) {
                    return Err(wrapped as u64);
                }
            }
            (Dtype::Bool, Values::I64(out)) => out.extend(bytes.iter().map(|&b| i64::from(b != 0))),
            (_, out) => unreachable!("{self:?} does not widen to {out:?}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_where_their_type_points() {
        for (at, row) in ROWS.iter().enumerate() {
            assert_eq!(row.0 as usize, at);
            assert_eq!(row.0.safetensors().bitsize(), row.0.size() * 8);
            if let Some(code) = row.0.npy_code() {
                assert_eq!(code[1..].parse::<usize>().unwrap(), row.0.size());
            }
        }
    }

    #[test]
    fn both_byte_orders_decode_alike() {
        for &(dtype, ..) in ROWS {
            let little: Vec<u8> = (0..dtype.size() as u8 * 3).map(|b| b.wrapping_mul(37) & 0x3f).collect();
            let big: Vec<u8> = little.chunks(dtype.size()).flat_map(|b| b.iter().rev().copied()).collect();
            let (mut from_little, mut from_big) = (dtype.widened(), dtype.widened());
            dtype.decode(Endian::Little, &little, &mut from_little).unwrap();
            dtype.decode(Endian::Big, &big, &mut from_big).unwrap();
            assert_eq!(from_little, from_big, "{dtype:?}");
            assert_eq!(from_little.len(), 3, "{dtype:?}");
        }
    }

    #[test]
    fn narrow_types_widen_exactly() {
        let mut halves = Dtype::F16.widened();
        Dtype::F16.decode(Endian::Little, &[0x00, 0x3e], &mut halves).unwrap();
        Dtype::F16.decode(Endian::Big, &[0xfc, 0x00], &mut halves).unwrap();
        assert_eq!(halves, Values::F32(vec![1.5, f32::NEG_INFINITY]));
        let mut brains = Dtype::BF16.widened();
        Dtype::BF16.decode(Endian::Little, &[0x80, 0xbf], &mut brains).unwrap();
        assert_eq!(brains, Values::F32(vec![-1.0]));
        let mut bytes = Dtype::I8.widened();
        Dtype::I8.decode(Endian::Little, &[0xff], &mut bytes).unwrap();
        assert_eq!(bytes, Values::I64(vec![-1]));
    }

    #[test]
    fn an_integer_over_the_range_is_named() {
        let mut out = Dtype::U64.widened();
        assert_eq!(Dtype::U64.decode(Endian::Little, &[0xff; 8], &mut out), Err(u64::MAX));
    }
}
