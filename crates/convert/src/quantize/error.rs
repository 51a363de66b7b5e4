//! Why nothing was quantized.

use std::path::PathBuf;

use codec::{EncodeError, Encoding};

/// Why nothing was quantized. Each says what was asked for and what would do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No recipe has this name.
    #[error("{name:?} is no recipe; did you mean {nearest}? (`etalon quantize --list` names them all)")]
    NoRecipe {
        /// What was asked for.
        name: String,
        /// The nearest there is.
        nearest: &'static str,
    },
    /// Options that contradict each other, or say nothing.
    #[error("{what}")]
    Request {
        /// What is wrong.
        what: String,
    },
    /// Tensors that cannot be made well, or at all, without an importance matrix.
    #[error(
        "{} without importance: {}; {advice}",
        if tensors.len() == 1 { "a tensor cannot be made" } else { "tensors cannot be made" },
        list(tensors.iter().map(|(name, encoding)| format!("{name} as {encoding}")))
    )]
    NeedsImportance {
        /// The tensors, and what they were to be.
        tensors: Vec<(String, Encoding)>,
        /// What to do.
        advice: &'static str,
    },
    /// Tensors whose errors would add up.
    #[error(
        "already quantized, so that errors would add up: {}; start from the original, or give --allow-requantize",
        list(tensors.iter().map(|(name, encoding)| format!("{name} ({encoding})")))
    )]
    Requantize {
        /// The tensors, and what they are.
        tensors: Vec<(String, Encoding)>,
    },
    /// A tensor whose rows are no whole blocks, and nothing to fall back to.
    #[error(
        "tensor {tensor:?}: rows of {cols} are no whole blocks of {encoding} ({}), and nothing stands in for that",
        encoding.block_len()
    )]
    NoFallback {
        /// The tensor.
        tensor: String,
        /// Its encoding to be.
        encoding: Encoding,
        /// Length of its rows.
        cols: u64,
    },
    /// A plan for another model.
    #[error("the plan is for another model: {}", mismatch(missing, unknown))]
    OtherPlan {
        /// Tensors of the model that it has nothing about.
        missing: Vec<String>,
        /// Tensors of the plan that the model does not have.
        unknown: Vec<String>,
    },
    /// An importance matrix that cannot be read.
    #[error("{}: {what}", .path.display())]
    Importance {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A weight that no encoding of blocks holds, and no model computes with.
    #[error("tensor {tensor:?}: element {index} is {value}, expected a finite number; nothing was written")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Position among its elements, rows one after the other.
        index: u64,
        /// The element.
        value: f32,
    },
    /// Values that an encoding does not hold.
    #[error("tensor {tensor:?}, from row {row} on: {error}")]
    Encode {
        /// The tensor.
        tensor: String,
        /// The first row that was being encoded.
        row: usize,
        /// What is wrong with them.
        error: EncodeError,
    },
    /// No choice of encodings is small enough.
    #[error("the smallest that can be made is {least} bytes, more than the {budget} asked for")]
    TooSmall {
        /// Bytes asked for.
        budget: u64,
        /// Bytes of the smallest.
        least: u64,
    },
    /// A file of options or results that does not read.
    #[error("{}: {what}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Of the conversion to GGUF.
    #[error(transparent)]
    Convert(Box<crate::Error>),
    /// Of files.
    #[error(transparent)]
    Format(Box<format::Error>),
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Error {
        Error::Convert(Box::new(error))
    }
}

impl From<format::Error> for Error {
    fn from(error: format::Error) -> Error {
        Error::Format(Box::new(error))
    }
}

/// The first few, and how many more.
fn list(names: impl Iterator<Item = String>) -> String {
    const NAMED: usize = 8;
    let names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(NAMED);
    let named = names[..names.len() - more].join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

fn mismatch(missing: &[String], unknown: &[String]) -> String {
    let part = |names: &[String], what: &str| {
        (!names.is_empty()).then(|| format!("{what} {}", list(names.iter().cloned())))
    };
    let parts = [part(missing, "it says nothing about"), part(unknown, "the model has no")];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
