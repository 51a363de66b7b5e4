//! Looks into checkpoint files: overview, statistics, hashes, contradictions.
//!
//! [`Subject::open`] takes every file that `format` reads, whatever model it holds: other architectures, vocabularies,
//! importance matrices, adapters, projectors, tensors without keys. Where it is a Qwen3.5 model, the layout map says what
//! each tensor is.
#![forbid(unsafe_code)]

mod class;
mod error;
pub mod hash;
pub mod lint;
mod moments;
mod overview;
mod select;
mod slice;
pub mod stats;
mod subject;
mod tensor_row;

pub use class::Class;
pub use error::Error;
pub use lint::{Finding, Severity, lint};
pub use overview::{ClassShare, EncodingShare, Overview, TokenizerSummary};
pub use select::{Key, Selection};
pub use slice::{EDGES, Picked, Slice};
pub use subject::{Kind, Qwen, Subject};
pub use tensor_row::{Status, TensorRow};
