//! The name of an encoding, and everything one can ask of it.

use std::fmt;

use crate::arithmetic::magnitude;
use crate::lanes::{self, Kernels};
use crate::table::{ENCODINGS, Encode, ROWS, Row};
use crate::{DecodeError, EncodeError, UnknownId};

/// How a tensor's elements lie in bytes: a number type, or blocks of quantized values.
#[allow(missing_docs, reason = "the table's rows describe them")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Encoding {
    F32,
    F16,
    BF16,
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
    F8E4M3,
    F8E5M2,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    Iq1S,
    Iq1M,
    Iq2Xxs,
    Iq2Xs,
    Iq2S,
    Iq3Xxs,
    Iq3S,
    Iq4Nl,
    Iq4Xs,
    Tq1_0,
    Tq2_0,
    Mxfp4,
    Nvfp4,
    Q1_0,
    Q2_0,
}

/// Ids that ggml once assigned and withdrew: Q4_2, Q4_3, the interleaved Q4_0 and IQ4_NL variants.
const RETIRED: [u32; 8] = [4, 5, 31, 32, 33, 36, 37, 38];

impl Encoding {
    /// Every encoding, in the table's order.
    pub const ALL: &[Encoding] = &ENCODINGS;

    /// What the table knows about this encoding.
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// ggml's spelling (`Q4_K`, `BF16`), safetensors' where ggml has none (`F8_E4M3`, `BOOL`).
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Values in a block; 1 for plain numbers.
    pub fn block_len(self) -> usize {
        self.row().block_len
    }

    /// Bytes in a block.
    pub fn block_bytes(self) -> usize {
        self.row().block_bytes
    }

    /// The type id in GGUF files; `None` if GGUF has no such type.
    pub fn ggml_id(self) -> Option<u32> {
        self.row().ggml_id
    }

    /// The encoding with this type id in GGUF files.
    pub fn from_ggml_id(id: u32) -> Result<Encoding, UnknownId> {
        match ROWS.iter().find(|row| row.ggml_id == Some(id)) {
            Some(row) => Ok(row.encoding),
            None if RETIRED.contains(&id) => Err(UnknownId::Retired(id)),
            None => Err(UnknownId::Unknown(id)),
        }
    }

    /// The encoding that safetensors calls `dtype`.
    pub fn from_safetensors(dtype: &str) -> Option<Encoding> {
        ROWS.iter().find(|row| row.safetensors == Some(dtype)).map(|row| row.encoding)
    }

    /// The dtype in safetensors files; `None` if safetensors has no such type.
    pub fn safetensors_name(self) -> Option<&'static str> {
        self.row().safetensors
    }

    /// The encoding with this [`name`](Encoding::name), in any case.
    pub fn from_name(name: &str) -> Option<Encoding> {
        ROWS.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.encoding)
    }

    /// Bytes that `elements` values take; `None` if they fill no whole number of blocks, or the count overflows.
    pub fn byte_len(self, elements: u64) -> Option<u64> {
        let row = self.row();
        let block_len = row.block_len as u64;
        if !elements.is_multiple_of(block_len) {
            return None;
        }
        (elements / block_len).checked_mul(row.block_bytes as u64)
    }

    fn lengths_agree(self, values: usize, bytes: usize) -> bool {
        self.byte_len(values as u64) == Some(bytes as u64)
    }

    /// Decodes whole blocks. `bytes` must be exactly the encoding of `out.len()` values.
    ///
    /// Integers and F64 round to the nearest f32. F8 comes without the scales that a checkpoint may keep beside it.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
        if !self.lengths_agree(out.len(), bytes.len()) {
            return Err(DecodeError::Length { encoding: self, bytes: bytes.len(), values: out.len() });
        }
        (self.row().decode)(bytes, out);
        Ok(())
    }

    /// Whether [`encode`](Encoding::encode) can make this encoding.
    pub fn is_encodable(self) -> bool {
        !matches!(self.row().encode, Encode::Never)
    }

    /// Whether [`encode`](Encoding::encode) refuses to make this encoding without importance weights.
    pub fn needs_importance(self) -> bool {
        matches!(self.row().encode, Encode::BlocksByImportance(_))
    }

    /// Encodes whole blocks, with the bytes of ggml 0.25.3. `out` must be exactly the encoding of `values.len()` values.
    ///
    /// `importance` holds a weight (≥ 0) for each column; the values are then whole rows of that length. Encodings that
    /// do not weigh their errors take no notice of it.
    pub fn encode(
        self,
        values: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), EncodeError> {
        let encoding = self;
        if !self.lengths_agree(values.len(), out.len()) {
            return Err(EncodeError::Length { encoding, values: values.len(), bytes: out.len() });
        }
        match self.row().encode {
            Encode::Never => Err(EncodeError::NotEncodable { encoding }),
            Encode::Numbers(encode) => encode(values, out).map_err(|index| EncodeError::NotRepresentable {
                encoding,
                index,
                value: values[index],
            }),
            Encode::Blocks(encode) => {
                self.check_finite(values)?;
                if let Some(importance) = importance {
                    self.check_importance(values.len(), importance)?;
                }
                encode(values, importance, out);
                self.check_scales(values, out)
            }
            Encode::BlocksByImportance(encode) => {
                self.check_finite(values)?;
                let importance = importance.ok_or(EncodeError::ImportanceRequired { encoding })?;
                self.check_importance(values.len(), importance)?;
                encode(values, importance, out);
                self.check_scales(values, out)
            }
        }
    }

    /// The bytes of [`encode`](Encoding::encode), sooner the more blocks there are. `decoded`, as long as `values`,
    /// receives what a decoder will find in them.
    pub fn encode_fast(
        self,
        values: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
        decoded: &mut [f32],
    ) -> Result<(), EncodeError> {
        let encoding = self;
        if !self.lengths_agree(values.len(), out.len()) || decoded.len() != values.len() {
            return Err(EncodeError::Length { encoding, values: values.len(), bytes: out.len() });
        }
        let encode = self.row().encode;
        if !matches!(encode, Encode::Blocks(_) | Encode::BlocksByImportance(_)) {
            self.encode(values, importance, out)?;
            (self.row().decode)(out, decoded);
            return Ok(());
        }
        let largest = largest_magnitude(values);
        if !largest.is_finite() {
            self.check_finite(values)?;
        }
        match importance {
            Some(importance) => self.check_importance(values.len(), importance)?,
            None if self.needs_importance() => return Err(EncodeError::ImportanceRequired { encoding }),
            None => {}
        }
        if !lanes::encode(Kernels::detect(), self, values, importance, out) {
            match (encode, importance) {
                (Encode::Blocks(encode), _) => encode(values, importance, out),
                (Encode::BlocksByImportance(encode), Some(importance)) => encode(values, importance, out),
                _ => unreachable!("numbers and missing importance are dealt with"),
            }
        }
        (self.row().decode)(out, decoded);
        if largest >= SQUARES_OVERFLOW || !largest_magnitude(decoded).is_finite() {
            self.check_scales(values, out)?;
        }
        Ok(())
    }

    fn check_finite(self, values: &[f32]) -> Result<(), EncodeError> {
        match values.iter().position(|x| !x.is_finite()) {
            Some(index) => Err(EncodeError::NotFinite { encoding: self, index, value: values[index] }),
            None => Ok(()),
        }
    }

    fn check_importance(self, values: usize, importance: &[f32]) -> Result<(), EncodeError> {
        let encoding = self;
        let len = importance.len();
        if values > 0 && (len == 0 || !len.is_multiple_of(self.block_len()) || !values.is_multiple_of(len)) {
            return Err(EncodeError::ImportanceLength { encoding, values, importance: len });
        }
        match importance.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            Some(index) => Err(EncodeError::Importance { encoding, index, weight: importance[index] }),
            None => Ok(()),
        }
    }

    /// A scale that overflowed makes infinities or NaN of finite values, which ggml finds out only after writing. Where
    /// even squares overflow, the encoder's sums were NaN and the block may be zeros instead.
    fn check_scales(self, values: &[f32], bytes: &[u8]) -> Result<(), EncodeError> {
        let row = self.row();
        let mut decoded = [0.0; MAX_BLOCK_LEN];
        let decoded = &mut decoded[..row.block_len];
        let huge = magnitude(values) >= SQUARES_OVERFLOW;
        let blocks = values.chunks_exact(row.block_len).zip(bytes.chunks_exact(row.block_bytes));
        for (block, (values, bytes)) in blocks.enumerate() {
            (row.decode)(bytes, decoded);
            let finite = decoded.iter().all(|x| x.is_finite());
            let lost =
                huge && magnitude(values) >= SQUARES_OVERFLOW && magnitude(decoded) < SQUARES_OVERFLOW / 2.0;
            if !finite || lost {
                return Err(EncodeError::ScaleOverflow { encoding: self, index: block * row.block_len });
            }
        }
        Ok(())
    }
}

/// Where sums of squares begin to leave f32's range.
const SQUARES_OVERFLOW: f32 = (1_u64 << 62) as f32;

/// The largest magnitude, infinity for NaN.
fn largest_magnitude(values: &[f32]) -> f32 {
    struct Largest<'a>(&'a [f32]);
    impl pulp::WithSimd for Largest<'_> {
        type Output = u32;

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> u32 {
            // Bits without the sign are ordered as magnitudes are, NaN above infinity.
            self.0.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff))
        }
    }
    f32::from_bits(Kernels::detect().dispatch(Largest(values)).min(f32::INFINITY.to_bits()))
}

/// The longest block of any encoding, in values.
const MAX_BLOCK_LEN: usize = {
    let mut longest = 0;
    let mut i = 0;
    while i < ROWS.len() {
        if ROWS[i].block_len > longest {
            longest = ROWS[i].block_len;
        }
        i += 1;
    }
    longest
};

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_id_leads_back_to_its_encoding() {
        assert_eq!(Encoding::ALL.len(), 42);
        for &encoding in Encoding::ALL {
            assert_eq!(encoding.row().encoding, encoding);
            assert_eq!(Encoding::from_name(encoding.name()), Some(encoding));
            assert_eq!(Encoding::from_name(&encoding.name().to_lowercase()), Some(encoding));
            if let Some(id) = encoding.ggml_id() {
                assert_eq!(Encoding::from_ggml_id(id), Ok(encoding));
            }
            if let Some(dtype) = encoding.safetensors_name() {
                assert_eq!(Encoding::from_safetensors(dtype), Some(encoding));
            }
            assert!(encoding.ggml_id().is_some() || encoding.safetensors_name().is_some(), "{encoding}");
        }
        assert_eq!(Encoding::from_name("Q4_2"), None);
        assert_eq!(Encoding::from_safetensors("f32"), None);
    }

    #[test]
    fn ids_without_an_encoding_are_told_apart() {
        for id in 0..200 {
            match Encoding::from_ggml_id(id) {
                Ok(encoding) => assert_eq!(encoding.ggml_id(), Some(id)),
                Err(UnknownId::Retired(_)) => assert!([4, 5, 31, 32, 33, 36, 37, 38].contains(&id), "{id}"),
                Err(UnknownId::Unknown(_)) => assert!(id > 42, "{id}"),
            }
        }
        assert_eq!(Encoding::from_ggml_id(u32::MAX), Err(UnknownId::Unknown(u32::MAX)));
    }

    #[test]
    fn byte_len_counts_whole_blocks_only() {
        assert_eq!(Encoding::Q4K.byte_len(512), Some(288));
        assert_eq!(Encoding::Q4K.byte_len(0), Some(0));
        assert_eq!(Encoding::Q4K.byte_len(255), None);
        assert_eq!(Encoding::F64.byte_len(u64::MAX), None);
        assert_eq!(Encoding::U8.byte_len(u64::MAX), Some(u64::MAX));
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        let error = Encoding::Q8_0.decode(&[0; 33], &mut [0.0; 32]).unwrap_err();
        assert_eq!(error.to_string(), "Q8_0: 33 bytes are not 32 values (blocks of 32 values in 34 bytes)");
        assert!(Encoding::Q8_0.decode(&[0; 34], &mut [0.0; 31]).is_err());
        let error = Encoding::F16.encode(&[0.0; 3], None, &mut [0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "F16: 3 values do not fill 5 bytes (blocks of 1 values in 2 bytes)");
    }

    #[test]
    fn values_that_a_block_cannot_hold_are_named() {
        let mut values = [0.5; 64];
        values[40] = f32::NAN;
        let mut out = [0; 68];
        let error = Encoding::Q8_0.encode(&values, None, &mut out).unwrap_err();
        assert_eq!(error.to_string(), "Q8_0: element 40 is NaN, expected a finite number");
        values[40] = f32::INFINITY;
        let error = Encoding::Q8_0.encode(&values, None, &mut out).unwrap_err();
        assert_eq!(
            error,
            EncodeError::NotFinite { encoding: Encoding::Q8_0, index: 40, value: f32::INFINITY }
        );
        values[40] = 1e9;
        let error = Encoding::Q8_0.encode(&values, None, &mut out).unwrap_err();
        assert_eq!(error, EncodeError::ScaleOverflow { encoding: Encoding::Q8_0, index: 32 });
    }

    #[test]
    fn importance_must_fit_the_rows() {
        let values = [0.5; 64];
        let mut out = [0; 68];
        for len in [0, 16, 33, 96] {
            let error = Encoding::Q8_0.encode(&values, Some(&vec![1.0; len]), &mut out).unwrap_err();
            let expected =
                EncodeError::ImportanceLength { encoding: Encoding::Q8_0, values: 64, importance: len };
            assert_eq!(error, expected);
        }
        for weight in [-1.0, f32::NAN, f32::INFINITY] {
            let mut importance = [1.0; 32];
            importance[7] = weight;
            let error = Encoding::Q8_0.encode(&values, Some(&importance), &mut out).unwrap_err();
            assert!(matches!(error, EncodeError::Importance { index: 7, .. }), "{error}");
        }
    }
}
