//! What can be wrong with what was asked for.

use std::path::PathBuf;

/// What can be wrong with what was asked for, or with the files it was asked of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The files themselves.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// A pattern that is none.
    #[error("{pattern:?} is no {kind}: {why}")]
    Pattern {
        /// What was given.
        pattern: String,
        /// A glob or a regular expression.
        kind: &'static str,
        /// The parser's words.
        why: String,
    },
    /// A list of layers that is none.
    #[error("{found:?} names no layers: expected numbers and ranges, such as 0,4-7")]
    Layers {
        /// What was given.
        found: String,
    },
    /// No tensor has this name.
    #[error("{}: no tensor {name:?}{}", .path.display(), .nearest.as_ref().map(|n| format!("; the nearest is {n:?}")).unwrap_or_default())]
    NoTensor {
        /// The checkpoint.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// The name that is most like it.
        nearest: Option<String>,
    },
    /// A slice that is none, or that leaves the tensor.
    #[error("slice {slice:?} of {shape}: {why}")]
    Slice {
        /// What was given.
        slice: String,
        /// The tensor's shape, outermost first.
        shape: String,
        /// What is wrong with it.
        why: String,
    },
    /// A list of hashes that cannot be checked against.
    #[error("{}: {why}", .path.display())]
    Manifest {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}
