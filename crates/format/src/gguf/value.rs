//! Values of keys: thirteen types.

use super::array::ArrayView;
use super::cursor::{Cursor, Fault};
use super::defect::{Defect, Kind};

macro_rules! types {
    ($($variant:ident = $id:literal, $name:literal, $least:literal;)*) => {
        /// The type of a value.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ValueType {
            $(#[doc = concat!("`", $name, "`, id ", $id)] $variant = $id,)*
        }

        impl ValueType {
            /// Every type, by id.
            pub const ALL: &[ValueType] = &[$(ValueType::$variant),*];

            /// What it is called: `u8`, `f32`, `string`, `array`.
            pub fn name(self) -> &'static str {
                match self { $(ValueType::$variant => $name,)* }
            }

            /// The least bytes that a value takes: all of a number's, the length of an empty string or array.
            pub(super) fn least_bytes(self) -> u64 {
                match self { $(ValueType::$variant => $least,)* }
            }
        }
    };
}

types! {
    U8 = 0, "u8", 1;
    I8 = 1, "i8", 1;
    U16 = 2, "u16", 2;
    I16 = 3, "i16", 2;
    U32 = 4, "u32", 4;
    I32 = 5, "i32", 4;
    F32 = 6, "f32", 4;
    Bool = 7, "bool", 1;
    String = 8, "string", 8;
    Array = 9, "array", 12;
    U64 = 10, "u64", 8;
    I64 = 11, "i64", 8;
    F64 = 12, "f64", 8;
}

impl ValueType {
    /// The number that stands for it in a file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The type that a number stands for.
    pub fn from_id(id: u32) -> Option<ValueType> {
        ValueType::ALL.get(usize::try_from(id).ok()?).copied()
    }

    pub(super) fn read(cursor: &mut Cursor) -> Result<ValueType, Fault> {
        let start = cursor.clone();
        let found = cursor.u32()?;
        ValueType::from_id(found).ok_or_else(|| start.fault(Kind::UnknownValueType { found }))
    }

    /// Passes over a value and checks all of it but the UTF-8 of strings in arrays, which whoever asks for them
    /// gets checked: a vocabulary has half a million of them.
    pub(super) fn skip(self, cursor: &mut Cursor, depth_left: u8, limit: u8) -> Result<(), Fault> {
        match self {
            ValueType::Bool => cursor.bool().map(drop),
            ValueType::String => cursor.string().map(drop),
            ValueType::Array => {
                let start = cursor.clone();
                let Some(depth_left) = depth_left.checked_sub(1) else {
                    return Err(start.fault(Kind::TooDeep { limit }));
                };
                let element = ValueType::read(cursor)?;
                let len = cursor.length(element.least_bytes())?;
                match element {
                    ValueType::String => (0..len).try_for_each(|_| cursor.string_bytes().map(drop)),
                    ValueType::Bool | ValueType::Array => {
                        (0..len).try_for_each(|_| element.skip(cursor, depth_left, limit))
                    }
                    // No overflow: `length` has just seen that so many bytes are there.
                    number => cursor.take(len * number.least_bytes()).map(drop),
                }
            }
            number => cursor.take(number.least_bytes()).map(drop),
        }
    }
}

/// A value, borrowed from the file.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// Unsigned, 8 bits.
    U8(u8),
    /// Signed, 8 bits.
    I8(i8),
    /// Unsigned, 16 bits.
    U16(u16),
    /// Signed, 16 bits.
    I16(i16),
    /// Unsigned, 32 bits.
    U32(u32),
    /// Signed, 32 bits.
    I32(i32),
    /// Single precision.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// UTF-8.
    String(&'a str),
    /// Any number of values of one type.
    Array(ArrayView<'a>),
    /// Unsigned, 64 bits.
    U64(u64),
    /// Signed, 64 bits.
    I64(i64),
    /// Double precision.
    F64(f64),
}

impl<'a> Value<'a> {
    pub(super) fn read(kind: ValueType, cursor: &mut Cursor<'a>) -> Result<Value<'a>, Fault> {
        Ok(match kind {
            ValueType::U8 => Value::U8(cursor.u8()?),
            ValueType::I8 => Value::I8(cursor.i8()?),
            ValueType::U16 => Value::U16(cursor.u16()?),
            ValueType::I16 => Value::I16(cursor.i16()?),
            ValueType::U32 => Value::U32(cursor.u32()?),
            ValueType::I32 => Value::I32(cursor.i32()?),
            ValueType::F32 => Value::F32(cursor.f32()?),
            ValueType::Bool => Value::Bool(cursor.bool()?),
            ValueType::String => Value::String(cursor.string()?),
            ValueType::Array => Value::Array(ArrayView::read(cursor)?),
            ValueType::U64 => Value::U64(cursor.u64()?),
            ValueType::I64 => Value::I64(cursor.i64()?),
            ValueType::F64 => Value::F64(cursor.f64()?),
        })
    }

    /// Appends the value as a little-endian file has it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Defect> {
        match *self {
            Value::U8(v) => v.encode(out),
            Value::I8(v) => v.encode(out),
            Value::U16(v) => v.encode(out),
            Value::I16(v) => v.encode(out),
            Value::U32(v) => v.encode(out),
            Value::I32(v) => v.encode(out),
            Value::F32(v) => v.encode(out),
            Value::Bool(v) => v.encode(out),
            Value::String(v) => v.encode(out),
            Value::Array(v) => v.encode(out)?,
            Value::U64(v) => v.encode(out),
            Value::I64(v) => v.encode(out),
            Value::F64(v) => v.encode(out),
        }
        Ok(())
    }

    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// As messages show it: its type, numbers as they are.
    pub fn brief(&self) -> String {
        match self {
            Value::String(_) => "a string".to_owned(),
            Value::Array(array) => format!("an array of {} {}", array.len(), array.element_type().name()),
            number => format!("{number:?}"),
        }
    }

    /// An integer of any type that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U64(v) => Some(v),
            ref other => u64::try_from(other.as_i64()?).ok(),
        }
    }

    /// An integer of any type that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::U64(v) => i64::try_from(v).ok(),
            Value::I64(v) => Some(v),
            _ => None,
        }
    }

    /// A floating-point number of either width.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }

    /// A boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// A string.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Value::String(v) => Some(v),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<ArrayView<'a>> {
        match *self {
            Value::Array(v) => Some(v),
            _ => None,
        }
    }
}

/// What an array can be collected from.
pub trait Element {
    /// The type that elements have in a file.
    const TYPE: ValueType;

    /// Appends the element as a little-endian file has it.
    fn encode(self, out: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($number:ident $variant:ident)*) => {$(
        impl Element for $number {
            const TYPE: ValueType = ValueType::$variant;

            fn encode(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }

        impl From<$number> for Value<'_> {
            fn from(number: $number) -> Self {
                Value::$variant(number)
            }
        }
    )*};
}

numbers!(u8 U8 i8 I8 u16 U16 i16 I16 u32 U32 i32 I32 f32 F32 u64 U64 i64 I64 f64 F64);

impl Element for bool {
    const TYPE: ValueType = ValueType::Bool;

    fn encode(self, out: &mut Vec<u8>) {
        out.push(self.into());
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl Element for &str {
    const TYPE: ValueType = ValueType::String;

    fn encode(self, out: &mut Vec<u8>) {
        (self.len() as u64).encode(out);
        out.extend_from_slice(self.as_bytes());
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(string: &'a str) -> Self {
        Value::String(string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_positions() {
        for (i, kind) in ValueType::ALL.iter().enumerate() {
            assert_eq!(kind.id() as usize, i);
            assert_eq!(ValueType::from_id(kind.id()), Some(*kind));
        }
        assert_eq!(ValueType::from_id(13), None);
        assert_eq!(ValueType::from_id(u32::MAX), None);
    }

    #[test]
    fn integers_convert_where_they_fit() {
        assert_eq!(Value::I32(-1).as_u64(), None);
        assert_eq!(Value::I32(7).as_u64(), Some(7));
        assert_eq!(Value::U64(u64::MAX).as_i64(), None);
        assert_eq!(Value::U64(u64::MAX).as_u64(), Some(u64::MAX));
        assert_eq!(Value::F32(1.0).as_u64(), None);
        assert_eq!(Value::Bool(true).as_u64(), None);
        assert_eq!(Value::F32(0.5).as_f64(), Some(0.5));
        assert_eq!(Value::U8(1).as_f64(), None);
    }
}
