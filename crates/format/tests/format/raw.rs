//! GGUF files built field by field, right or wrong, without the crate's own writer.

/// Ids of value types.
pub const U8: u32 = 0;
pub const U32: u32 = 4;
pub const BOOL: u32 = 7;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;
pub const U64: u32 = 10;

/// Ids of tensor types.
pub const F32: u32 = 0;
pub const Q8_0: u32 = 8;
pub const I8: u32 = 24;

/// Bytes of a file, and where in it something is wrong.
#[derive(Clone, Default)]
pub struct Raw {
    pub bytes: Vec<u8>,
    pub bad: u64,
    big_endian: bool,
}

impl Raw {
    /// Magic, version 3 and counts.
    pub fn head(n_tensors: u64, n_kv: u64) -> Raw {
        Raw::default().raw(b"GGUF").u32(3).u64(n_tensors).u64(n_kv)
    }

    /// The same, most significant byte first, as are all numbers after it.
    pub fn big_endian_head(n_tensors: u64, n_kv: u64) -> Raw {
        let raw = Raw { big_endian: true, ..Raw::default() };
        raw.raw(b"GGUF").u32(3).u64(n_tensors).u64(n_kv)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Raw {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn zeros(self, n: usize) -> Raw {
        self.raw(&vec![0; n])
    }

    pub fn u8(self, v: u8) -> Raw {
        self.raw(&[v])
    }

    pub fn u32(self, v: u32) -> Raw {
        let bytes = if self.big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        self.raw(&bytes)
    }

    pub fn u64(self, v: u64) -> Raw {
        let bytes = if self.big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        self.raw(&bytes)
    }

    pub fn string(self, text: impl AsRef<[u8]>) -> Raw {
        self.u64(text.as_ref().len() as u64).raw(text.as_ref())
    }

    /// A key and the type of its value.
    pub fn key(self, name: &str, kind: u32) -> Raw {
        self.string(name).u32(kind)
    }

    /// A key of type array with element type and length.
    pub fn array(self, name: &str, element: u32, len: u64) -> Raw {
        self.key(name, ARRAY).u32(element).u64(len)
    }

    /// What an array in an array starts with.
    pub fn inner(self, element: u32, len: u64) -> Raw {
        self.u32(element).u64(len)
    }

    /// A tensor but for its offset.
    pub fn tensor(self, name: &str, ne: &[u64], kind: u32) -> Raw {
        let raw = self.string(name).u32(ne.len() as u32);
        ne.iter().fold(raw, |raw, &dim| raw.u64(dim)).u32(kind)
    }

    /// Zeros up to a multiple of `alignment`.
    pub fn pad(self, alignment: usize) -> Raw {
        let padding = self.bytes.len().next_multiple_of(alignment) - self.bytes.len();
        self.zeros(padding)
    }

    /// What follows is the field at fault.
    pub fn bad(mut self) -> Raw {
        self.bad = self.bytes.len() as u64;
        self
    }
}
