//! What every checkpoint looks like once it is open.

use std::collections::BTreeMap;
use std::path::PathBuf;

use codec::Encoding;

use crate::{Shape, gguf};

/// One tensor of a checkpoint: what it is called, what it holds, where its bytes lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// The name in the file, unchanged.
    pub name: String,
    /// How its elements are stored.
    pub encoding: Encoding,
    /// Outermost dimension first, whatever the file's own order.
    pub shape: Shape,
    /// Which of [`TensorSource::files`] holds it.
    pub file: usize,
    /// Bytes from the start of that file.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
}

/// An open checkpoint: described tensors over mapped bytes. Everything was checked when it was opened.
pub trait TensorSource: Send + Sync {
    /// All tensors: by file, then as a GGUF file lists them or as they lie in a safetensors file.
    fn tensors(&self) -> &[TensorInfo];

    /// The tensor of that name.
    fn tensor(&self, name: &str) -> Option<&TensorInfo>;

    /// The encoded bytes of a tensor, little-endian, borrowed from the mapping; `info.size` of them.
    ///
    /// # Panics
    /// If `info` describes a range that is not inside this source's files: it belongs to another source.
    fn bytes<'a>(&'a self, info: &TensorInfo) -> &'a [u8];

    /// The files the checkpoint is made of, in order.
    fn files(&self) -> &[PathBuf];

    /// What the files say beside tensors.
    fn metadata(&self) -> Metadata<'_>;
}

/// What a checkpoint says beside tensors, as its own format has it.
#[derive(Clone, Copy)]
pub enum Metadata<'a> {
    /// `__metadata__` of a safetensors header; of a sharded checkpoint, of all its shards, the first to say a key.
    Safetensors(&'a BTreeMap<String, String>),
    /// The keys of a GGUF file; of a split one, of its first part.
    Gguf(&'a gguf::KeyValues),
}
