//! safetensors: a JSON header, then tensors back to back; one file, or shards named by an index.
//!
//! The header is parsed here and not by the `safetensors` crate because that one keeps neither the name of an
//! unknown dtype nor that of a tensor described twice (it takes the last); tests hold the two to the same verdict.

mod defect;
mod header;
mod index;
mod layout;
mod reader;
mod writer;

pub use defect::{Defect, IndexDefect};
pub use reader::Reader;
pub use writer::{Draft, Writer};

/// The bytes before the header: its length, u64 little-endian.
const PREFIX: usize = 8;
/// The name of the file in a directory that holds a whole checkpoint.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The name of the file in a directory that says which shard holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
