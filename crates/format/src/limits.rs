//! What a file may ask for before it is refused.

/// Bounds on what an untrusted file may declare.
///
/// Time and memory stay linear in a file's own size whatever these say: counts and lengths are checked against the
/// bytes that remain before anything is kept. The limits refuse what is well-formed but absurd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a safetensors JSON header; the format's own bound is 100 MB.
    pub header_bytes: u64,
    /// Bytes of a `model.safetensors.index.json`.
    pub index_bytes: u64,
    /// Files of one sharded or split checkpoint.
    pub files: u64,
    /// Keys of a GGUF checkpoint, those of all its parts together. Each takes some 20 bytes of memory to look up.
    pub keys: u64,
    /// Tensors of a GGUF checkpoint, those of all its parts together.
    pub tensors: u64,
    /// Bytes of a GGUF key; the format's own bound is 65,535.
    pub key_bytes: u64,
    /// How deep GGUF arrays may nest; 1 admits arrays of scalars and strings only.
    pub array_depth: u8,
    /// `general.alignment` of a GGUF file, in bytes.
    pub alignment: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            header_bytes: 100_000_000,
            index_bytes: 100_000_000,
            files: 10_000,
            keys: 2_000_000,
            tensors: 100_000,
            key_bytes: 65_535,
            array_depth: 4,
            alignment: 1 << 20,
        }
    }
}
