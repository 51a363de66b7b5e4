//! Where rows come from: a GGUF file, or a Hugging Face checkpoint as it would be converted.

use codec::Encoding;
use format::{TensorInfo, TensorSource};

use super::error::Error;
use crate::pipeline::{Encoded, TargetRows};
use crate::source::Source;

/// Tensors to be quantized.
pub enum Input<'a> {
    /// Of a GGUF file.
    Gguf(&'a dyn TensorSource),
    /// Of a checkpoint that is converted on the way: its tensors to be.
    Converted(&'a [Encoded], &'a dyn Source),
}

/// The rows of a tensor.
pub(super) enum InputRows<'a> {
    Stored { bytes: &'a [u8], encoding: Encoding, cols: usize },
    Converted { rows: TargetRows<'a>, cols: usize, unit: usize },
}

impl<'a> Input<'a> {
    /// The rows of the tensor of this name.
    pub(super) fn rows(&self, name: &str) -> Result<InputRows<'a>, Error> {
        let missing = || Error::Request { what: format!("the source has no tensor {name:?}") };
        match *self {
            Input::Gguf(source) => {
                let info: &TensorInfo = source.tensor(name).ok_or_else(missing)?;
                let cols = info.shape.row_len() as usize;
                Ok(InputRows::Stored { bytes: source.bytes(info), encoding: info.encoding, cols })
            }
            Input::Converted(tensors, source) => {
                let (target, _) = tensors.iter().find(|(t, _)| t.name == name).ok_or_else(missing)?;
                let cols = target.shape.row_len() as usize;
                Ok(InputRows::Converted { rows: TargetRows::new(target, source)?, cols, unit: target.cols() })
            }
        }
    }
}

impl InputRows<'_> {
    /// Reads whole rows from `first` on. `scratch` is working space.
    pub fn read(&self, first: usize, out: &mut [f32], scratch: &mut Vec<f32>) {
        match self {
            InputRows::Stored { bytes, encoding, cols } => {
                let row_bytes = row_bytes(*encoding, *cols);
                let rows = out.len() / cols;
                if let Err(error) = encoding.decode(&bytes[first * row_bytes..][..rows * row_bytes], out) {
                    unreachable!("the reader has held lengths against shapes: {error}");
                }
            }
            // Vectors are read in rows of one value.
            InputRows::Converted { rows, cols, unit } => {
                let first = first * cols / unit;
                for (i, out) in out.chunks_exact_mut(*unit).enumerate() {
                    rows.read(first + i, out, scratch);
                }
            }
        }
    }

    /// All bytes, if they lie in the source as they are.
    pub fn stored(&self) -> Option<&[u8]> {
        match self {
            InputRows::Stored { bytes, .. } => Some(bytes),
            InputRows::Converted { .. } => None,
        }
    }
}

/// Bytes of a row of whole blocks.
pub(super) fn row_bytes(encoding: Encoding, cols: usize) -> usize {
    match encoding.byte_len(cols as u64) {
        Some(bytes) => bytes as usize,
        None => unreachable!("rows of {cols} were found to be whole blocks of {encoding}"),
    }
}
