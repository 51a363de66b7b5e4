//! Turns checkpoint files into named, described tensors, and back.
//!
//! [`open`] takes whatever a path leads to; what it returns was checked as a whole, and its tensors are views of the
//! mapped files. Files are not trusted: every count, length and offset is held against the bytes that are there
//! before it is used, and what is refused says where it stands, what was expected and what was found.
#![deny(unsafe_code)]

mod brief;
mod buffer;
mod contents;
mod error;
pub mod gguf;
mod limits;
mod name_index;
mod open;
mod output;
mod outputs;
pub mod safetensors;
mod shape;
mod source;
mod temporary;

pub use brief::brief;
pub use error::Error;
pub use limits::Limits;
pub use open::open;
pub use output::{Existing, WriteDefect};
pub use outputs::PlannedFile;
pub use shape::{GgmlNe, Shape};
pub use source::{Metadata, TensorInfo, TensorSource};
pub use temporary::{Claim, directory_beside, file_beside, sweep};
