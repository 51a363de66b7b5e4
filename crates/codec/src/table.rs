//! The table of encodings: the only place that knows a block's geometry.
//!
//! A row's two numbers are the array lengths of its codec's `&[u8; bytes]` and `&[f32; values]`: the compiler holds
//! the table and the codecs together.

use crate::blocks::{decode_blocks, encode_blocks, encode_numbers};
use crate::{
    Encoding, float16, fp4, fp8, iq1, iq2, iq3, iq4, number, q1, q2_k, q3_k, q4, q4_k, q5, q5_k, q6_k, q8,
    ternary,
};

/// One encoding: what it is called where, how large a block is, and its codec.
pub struct Row {
    /// The encoding that this row describes.
    pub encoding: Encoding,
    /// ggml's spelling, safetensors' where ggml has none.
    pub name: &'static str,
    /// The type id in GGUF files.
    pub ggml_id: Option<u32>,
    /// The dtype in safetensors files.
    pub safetensors: Option<&'static str>,
    /// Values in a block; 1 for plain numbers.
    pub block_len: usize,
    /// Bytes in a block.
    pub block_bytes: usize,
    pub(crate) decode: Decode,
    pub(crate) encode: Encode,
}

/// Decodes whole blocks; the lengths agree.
pub(crate) type Decode = fn(&[u8], &mut [f32]);

/// How an encoding is made.
#[derive(Clone, Copy)]
pub(crate) enum Encode {
    /// Not at all.
    Never,
    /// Each value by itself; the error is the index of the first one that the type does not hold.
    Numbers(fn(&[f32], &mut [u8]) -> Result<(), usize>),
    /// Blocks of finite values.
    Blocks { needs_importance: bool, encode: fn(&[f32], Option<&[f32]>, &mut [u8]) },
}

/// A row of the table:
/// `row!(Variant "name", ggml id | -, safetensors dtype | -, values in bytes, decoder, Numbers(encoder) | …)`.
macro_rules! row {
    ($encoding:ident $name:literal, $id:tt, $dtype:tt, $len:literal in $bytes:literal, $decode:path, $($encode:tt)+) => {
        Row {
            encoding: Encoding::$encoding,
            name: $name,
            ggml_id: row!(@option $id),
            safetensors: row!(@option $dtype),
            block_len: $len,
            block_bytes: $bytes,
            decode: |bytes, out| decode_blocks::<$bytes, $len>(bytes, out, $decode),
            encode: row!(@encode $len $bytes $($encode)+),
        }
    };
    (@option -) => { None };
    (@option $value:literal) => { Some($value) };
    (@encode $len:literal $bytes:literal Never) => { Encode::Never };
    (@encode $len:literal $bytes:literal Numbers($encode:path)) => {
        Encode::Numbers(|values, out| encode_numbers::<$bytes>(values, out, $encode))
    };
    (@encode $len:literal $bytes:literal Blocks($encode:path)) => {
        row!(@blocks $len $bytes $encode, false)
    };
    (@encode $len:literal $bytes:literal BlocksByImportance($encode:path)) => {
        row!(@blocks $len $bytes $encode, true)
    };
    (@blocks $len:literal $bytes:literal $encode:path, $needs_importance:literal) => {
        Encode::Blocks {
            needs_importance: $needs_importance,
            encode: |values, importance, out| {
                encode_blocks::<$bytes, $len>(values, importance, out, $encode);
            },
        }
    };
}

/// One row for each encoding, in the order of [`Encoding`].
#[rustfmt::skip]
pub(crate) static ROWS: [Row; 42] = [
    row!(F32    "F32",     0,  "F32",       1 in 4,   number::decode_f32,     Numbers(number::encode_f32)),
    row!(F16    "F16",     1,  "F16",       1 in 2,   float16::decode_f16,    Numbers(float16::encode_f16)),
    row!(BF16   "BF16",    30, "BF16",      1 in 2,   float16::decode_bf16,   Numbers(float16::encode_bf16)),
    row!(F64    "F64",     28, "F64",       1 in 8,   number::decode_f64,     Numbers(number::encode_f64)),
    row!(I8     "I8",      24, "I8",        1 in 1,   number::decode_i8,      Numbers(number::encode_i8)),
    row!(I16    "I16",     25, "I16",       1 in 2,   number::decode_i16,     Numbers(number::encode_i16)),
    row!(I32    "I32",     26, "I32",       1 in 4,   number::decode_i32,     Numbers(number::encode_i32)),
    row!(I64    "I64",     27, "I64",       1 in 8,   number::decode_i64,     Numbers(number::encode_i64)),
    row!(U8     "U8",      -,  "U8",        1 in 1,   number::decode_u8,      Numbers(number::encode_u8)),
    row!(U16    "U16",     -,  "U16",       1 in 2,   number::decode_u16,     Numbers(number::encode_u16)),
    row!(U32    "U32",     -,  "U32",       1 in 4,   number::decode_u32,     Numbers(number::encode_u32)),
    row!(U64    "U64",     -,  "U64",       1 in 8,   number::decode_u64,     Numbers(number::encode_u64)),
    row!(Bool   "BOOL",    -,  "BOOL",      1 in 1,   number::decode_bool,    Numbers(number::encode_bool)),
    row!(F8E4M3 "F8_E4M3", -,  "F8_E4M3",   1 in 1,   fp8::decode_e4m3,       Numbers(fp8::encode_e4m3)),
    row!(F8E5M2 "F8_E5M2", -,  "F8_E5M2",   1 in 1,   fp8::decode_e5m2,       Numbers(fp8::encode_e5m2)),
    row!(Q4_0   "Q4_0",    2,  -,          32 in 18,  q4::decode_q4_0,        Blocks(q4::encode_q4_0)),
    row!(Q4_1   "Q4_1",    3,  -,          32 in 20,  q4::decode_q4_1,        Blocks(q4::encode_q4_1)),
    row!(Q5_0   "Q5_0",    6,  -,          32 in 22,  q5::decode_q5_0,        Blocks(q5::encode_q5_0)),
    row!(Q5_1   "Q5_1",    7,  -,          32 in 24,  q5::decode_q5_1,        Blocks(q5::encode_q5_1)),
    row!(Q8_0   "Q8_0",    8,  -,          32 in 34,  q8::decode_q8_0,        Blocks(q8::encode_q8_0)),
    row!(Q8_1   "Q8_1",    9,  -,          32 in 40,  q8::decode_q8_1,        Never),
    row!(Q2K    "Q2_K",    10, -,         256 in 84,  q2_k::decode,           Blocks(q2_k::encode)),
    row!(Q3K    "Q3_K",    11, -,         256 in 110, q3_k::decode,           Blocks(q3_k::encode)),
    row!(Q4K    "Q4_K",    12, -,         256 in 144, q4_k::decode,           Blocks(q4_k::encode)),
    row!(Q5K    "Q5_K",    13, -,         256 in 176, q5_k::decode,           Blocks(q5_k::encode)),
    row!(Q6K    "Q6_K",    14, -,         256 in 210, q6_k::decode,           Blocks(q6_k::encode)),
    row!(Q8K    "Q8_K",    15, -,         256 in 292, q8::decode_q8_k,        Never),
    row!(Iq1S   "IQ1_S",   19, -,         256 in 50,  iq1::decode_iq1_s,      Never),
    row!(Iq1M   "IQ1_M",   29, -,         256 in 56,  iq1::decode_iq1_m,      Never),
    row!(Iq2Xxs "IQ2_XXS", 16, -,         256 in 66,  iq2::decode_iq2_xxs,    Never),
    row!(Iq2Xs  "IQ2_XS",  17, -,         256 in 74,  iq2::decode_iq2_xs,     Never),
    row!(Iq2S   "IQ2_S",   22, -,         256 in 82,  iq2::decode_iq2_s,      Never),
    row!(Iq3Xxs "IQ3_XXS", 18, -,         256 in 98,  iq3::decode_iq3_xxs,    Never),
    row!(Iq3S   "IQ3_S",   21, -,         256 in 110, iq3::decode_iq3_s,      Never),
    row!(Iq4Nl  "IQ4_NL",  20, -,          32 in 18,  iq4::decode_iq4_nl,     Blocks(iq4::encode_iq4_nl)),
    row!(Iq4Xs  "IQ4_XS",  23, -,         256 in 136, iq4::decode_iq4_xs,     Blocks(iq4::encode_iq4_xs)),
    row!(Tq1_0  "TQ1_0",   34, -,         256 in 54,  ternary::decode_tq1_0,  Blocks(ternary::encode_tq1_0)),
    row!(Tq2_0  "TQ2_0",   35, -,         256 in 66,  ternary::decode_tq2_0,  Blocks(ternary::encode_tq2_0)),
    row!(Mxfp4  "MXFP4",   39, -,          32 in 17,  fp4::decode_mxfp4,      Blocks(fp4::encode_mxfp4)),
    row!(Nvfp4  "NVFP4",   40, -,          64 in 36,  fp4::decode_nvfp4,      Blocks(fp4::encode_nvfp4)),
    row!(Q1_0   "Q1_0",    41, -,         128 in 18,  q1::decode_q1_0,        Blocks(q1::encode_q1_0)),
    row!(Q2_0   "Q2_0",    42, -,          64 in 18,  q1::decode_q2_0,        Blocks(q1::encode_q2_0)),
];

/// The encodings in the order of the rows, which is checked to be that of the enum.
pub(crate) const ENCODINGS: [Encoding; ROWS.len()] = {
    let mut encodings = [Encoding::F32; ROWS.len()];
    let mut i = 0;
    while i < ROWS.len() {
        assert!(ROWS[i].encoding as usize == i, "a row is out of order");
        encodings[i] = ROWS[i].encoding;
        i += 1;
    }
    encodings
};
