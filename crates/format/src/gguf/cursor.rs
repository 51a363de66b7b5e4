//! Reading fields one after another, in the file's byte order, never past its end.

use super::defect::{Defect, Kind};

/// In which order a file keeps the bytes of a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteOrder {
    /// Least significant first: nearly every file.
    Little,
    /// Most significant first.
    Big,
}

/// What is wrong, where; the caller knows in which field.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: u64,
    pub(super) kind: Kind,
}

impl Fault {
    pub(super) fn field(self, field: impl Into<String>) -> Defect {
        Defect { field: field.into(), offset: self.offset, kind: self.kind }
    }
}

/// A position in a file or in a part of it.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where `bytes` starts in the file.
    base: u64,
    pub(super) order: ByteOrder,
}

macro_rules! numbers {
    ($($name:ident)*) => {$(
        pub(super) fn $name(&mut self) -> Result<$name, Fault> {
            let bytes = self.array()?;
            Ok(match self.order {
                ByteOrder::Little => $name::from_le_bytes(bytes),
                ByteOrder::Big => $name::from_be_bytes(bytes),
            })
        }
    )*};
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], base: u64, order: ByteOrder) -> Cursor<'a> {
        Cursor { bytes, at: 0, base, order }
    }

    /// Bytes from the start of the file.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    pub(super) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// A fault in the field that starts here.
    pub(super) fn fault(&self, kind: Kind) -> Fault {
        Fault { offset: self.offset(), kind }
    }

    pub(super) fn take(&mut self, n: u64) -> Result<&'a [u8], Fault> {
        let taken = usize::try_from(n).ok().and_then(|n| self.bytes[self.at..].get(..n));
        let Some(taken) = taken else {
            return Err(self.fault(Kind::Truncated { needed: n, available: self.remaining() }));
        };
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let Some(taken) = self.bytes[self.at..].first_chunk::<N>() else {
            return Err(self.fault(Kind::Truncated { needed: N as u64, available: self.remaining() }));
        };
        self.at += N;
        Ok(*taken)
    }

    numbers!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

    pub(super) fn bool(&mut self) -> Result<bool, Fault> {
        let start = self.clone();
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(start.fault(Kind::NotBool { found })),
        }
    }

    /// A length of elements that take at least `least` bytes each, so many of which are left.
    pub(super) fn length(&mut self, least: u64) -> Result<u64, Fault> {
        let start = self.clone();
        let declared = self.u64()?;
        let available = self.remaining();
        match declared.checked_mul(least) {
            Some(bytes) if bytes <= available => Ok(declared),
            _ => Err(start.fault(Kind::LengthBeyondFile { declared, least, available })),
        }
    }

    /// The bytes of a string, whatever they are.
    pub(super) fn string_bytes(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.length(1)?;
        self.take(len)
    }

    /// A string that is UTF-8.
    pub(super) fn string(&mut self) -> Result<&'a str, Fault> {
        let start = self.clone();
        let bytes = self.string_bytes()?;
        std::str::from_utf8(bytes).map_err(|e| {
            let at = self.offset() - bytes.len() as u64 + e.valid_up_to() as u64;
            start.fault(Kind::NotUtf8 { at })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_byte_order() {
        let bytes = [0x12, 0x34, 0x56, 0x78];
        assert_eq!(Cursor::new(&bytes, 0, ByteOrder::Little).u32().unwrap(), 0x7856_3412);
        assert_eq!(Cursor::new(&bytes, 0, ByteOrder::Big).u32().unwrap(), 0x1234_5678);
    }

    #[test]
    fn faults_name_the_start_of_the_field_in_the_file() {
        let mut cursor = Cursor::new(&[0; 6], 100, ByteOrder::Little);
        cursor.u16().unwrap();
        let fault = cursor.u64().unwrap_err();
        assert_eq!((fault.offset, fault.kind), (102, Kind::Truncated { needed: 8, available: 4 }));

        let mut text = 3u64.to_le_bytes().to_vec();
        text.extend(b"a\xffb");
        let fault = Cursor::new(&text, 50, ByteOrder::Little).string().unwrap_err();
        assert_eq!((fault.offset, fault.kind), (50, Kind::NotUtf8 { at: 59 }));
    }

    #[test]
    fn lengths_are_held_to_the_bytes_that_follow() {
        for declared in [5, u64::MAX, 1 << 63, 1 << 62] {
            let mut bytes = declared.to_le_bytes().to_vec();
            bytes.extend([0; 32]);
            let fault = Cursor::new(&bytes, 0, ByteOrder::Little).length(8).unwrap_err();
            assert_eq!(fault.kind, Kind::LengthBeyondFile { declared, least: 8, available: 32 });
        }
    }
}
