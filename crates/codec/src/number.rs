//! Plain numbers: F32, F64, integers and Bool, little-endian.

/// A number type whose value is rounded to the nearest f32, written for each type as `decode_<type>`.
macro_rules! decode {
    ($($name:ident: $type:ty;)*) => {$(
        #[doc = concat!("The nearest f32 of one `", stringify!($type), "`.")]
        #[inline(always)]
        pub(crate) fn $name(bytes: &[u8; size_of::<$type>()], out: &mut [f32; 1]) {
            out[0] = <$type>::from_le_bytes(*bytes) as f32;
        }
    )*};
}

decode! {
    decode_f64: f64;
    decode_i8: i8;
    decode_i16: i16;
    decode_i32: i32;
    decode_i64: i64;
    decode_u8: u8;
    decode_u16: u16;
    decode_u32: u32;
    decode_u64: u64;
}

/// An f32 as it lies there, NaN payloads included.
#[inline(always)]
pub(crate) fn decode_f32(bytes: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_bits(u32::from_le_bytes(*bytes));
}

/// 1 for any byte but zero.
#[inline(always)]
pub(crate) fn decode_bool(bytes: &[u8; 1], out: &mut [f32; 1]) {
    out[0] = f32::from(bytes[0] != 0);
}

/// An f32 as it lies there, NaN payloads included.
#[inline(always)]
pub(crate) fn encode_f32(value: f32) -> Option<[u8; 4]> {
    Some(value.to_bits().to_le_bytes())
}

/// Exact.
#[inline(always)]
pub(crate) fn encode_f64(value: f32) -> Option<[u8; 8]> {
    Some(f64::from(value).to_le_bytes())
}

/// An integer type's bytes for a value that is such an integer.
macro_rules! encode {
    ($($name:ident: $type:ty;)*) => {$(
        #[doc = concat!("The bytes of an `", stringify!($type), "`, if the value is one.")]
        #[inline(always)]
        pub(crate) fn $name(value: f32) -> Option<[u8; size_of::<$type>()]> {
            // Any f32 that is an integer of at most 64 bits is one of 128 bits; NaN becomes 0 and differs from it.
            let integer = value as i128;
            if integer as f32 != value {
                return None;
            }
            <$type>::try_from(integer).ok().map(<$type>::to_le_bytes)
        }
    )*};
}

encode! {
    encode_i8: i8;
    encode_i16: i16;
    encode_i32: i32;
    encode_i64: i64;
    encode_u8: u8;
    encode_u16: u16;
    encode_u32: u32;
    encode_u64: u64;
}

/// 0 or 1.
#[inline(always)]
pub(crate) fn encode_bool(value: f32) -> Option<[u8; 1]> {
    encode_u8(value).filter(|byte| byte[0] <= 1)
}

#[cfg(test)]
mod tests {
    use crate::{EncodeError, Encoding};

    #[test]
    fn integers_round_to_the_nearest_f32() {
        let mut out = [0.0];
        Encoding::I64.decode(&i64::MAX.to_le_bytes(), &mut out).unwrap();
        assert_eq!(out, [9_223_372_036_854_775_808.0]);
        Encoding::I32.decode(&16_777_219_i32.to_le_bytes(), &mut out).unwrap();
        assert_eq!(out, [16_777_220.0]);
        Encoding::F64.decode(&(1.0 + f64::from(f32::EPSILON) * 0.75).to_le_bytes(), &mut out).unwrap();
        assert_eq!(out, [1.0 + f32::EPSILON]);
        Encoding::Bool.decode(&[2], &mut out).unwrap();
        assert_eq!(out, [1.0]);
    }

    #[test]
    fn integers_hold_integers_of_their_range_only() {
        let cases = [
            (Encoding::I8, -128.0, -129.0),
            (Encoding::U8, 255.0, 256.0),
            (Encoding::I16, 32767.0, 32768.0),
            (Encoding::U16, 65535.0, -1.0),
            (Encoding::I32, -2_147_483_648.0, 2_147_483_648.0),
            (Encoding::U32, 4_294_967_040.0, 4_294_967_296.0),
            (Encoding::I64, -9_223_372_036_854_775_808.0, 9_223_372_036_854_775_808.0),
            (Encoding::U64, 18_446_742_974_197_923_840.0, f32::INFINITY),
            (Encoding::Bool, 1.0, 2.0),
        ];
        for (encoding, good, bad) in cases {
            let mut bytes = vec![0; 2 * encoding.block_bytes()];
            encoding.encode(&[good, 0.0], None, &mut bytes).unwrap();
            let mut back = [f32::NAN; 2];
            encoding.decode(&bytes, &mut back).unwrap();
            assert_eq!(back, [good, 0.0], "{encoding}");
            for bad in [bad, 0.5, f32::NAN] {
                let error = encoding.encode(&[good, bad], None, &mut bytes).unwrap_err();
                assert!(matches!(error, EncodeError::NotRepresentable { index: 1, .. }), "{error}");
            }
        }
    }

    #[test]
    fn floats_keep_their_bits() {
        for bits in [0x7f80_0001_u32, 0xffc1_2345, 0x8000_0000, 0x0000_0001, 0x3f80_0000] {
            let mut out = [0.0];
            Encoding::F32.decode(&bits.to_le_bytes(), &mut out).unwrap();
            assert_eq!(out[0].to_bits(), bits);
            let mut bytes = [0; 4];
            Encoding::F32.encode(&out, None, &mut bytes).unwrap();
            assert_eq!(bytes, bits.to_le_bytes());
        }
    }
}
