//! Why a checkpoint could not be made.

use std::io;
use std::path::PathBuf;

use codec::{EncodeError, Encoding};
use model::ConfigError;

/// Why a checkpoint could not be made. Each says what was asked for and what would do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No mock has this name.
    #[error("{name:?} is no preset (there are {presets}); a path to a config.json ends in .json")]
    UnknownPreset {
        /// What was asked for.
        name: String,
        /// What there is.
        presets: String,
    },
    /// A configuration that describes no model of this family.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No layers.
    #[error("a model of {found} layers: expected 1 to {limit}")]
    Layers {
        /// What was asked for.
        found: usize,
        /// The most that a configuration may have.
        limit: usize,
    },
    /// A vocabulary that does not hold what every tokenizer needs.
    #[error("vocab_size {found} is too small: a tokenizer needs {least} (256 bytes and the special tokens)")]
    Vocabulary {
        /// The configuration's vocab_size.
        found: usize,
        /// The smallest that would do.
        least: usize,
    },
    /// An encoding that this kind of file does not hold, or that cannot be made here.
    #[error("{} cannot be the type of a {format} checkpoint: expected {expected}", encoding.name())]
    Encoding {
        /// What was asked for.
        encoding: Encoding,
        /// The kind of file.
        format: &'static str,
        /// What would do.
        expected: String,
    },
    /// A model that GGUF's keys cannot describe.
    #[error(
        "linear_key_head_dim {key} differs from linear_value_head_dim {value}: GGUF has one width for both; write \
         the Hugging Face form"
    )]
    UnequalHeads {
        /// K.
        key: usize,
        /// V.
        value: usize,
    },
    /// A weight that the tensors to be written need.
    #[error("tensor {tensor:?} cannot be made: the source has no {role}")]
    NoWeight {
        /// The tensor to be.
        tensor: String,
        /// The weight.
        role: String,
    },
    /// Values that an encoding does not hold.
    #[error("tensor {tensor:?}: {error}")]
    Encode {
        /// The tensor.
        tensor: String,
        /// What is wrong with them.
        error: EncodeError,
    },
    /// A path that is there and was not to be replaced.
    #[error("{}: exists already; remove it, write elsewhere, or ask for it to be replaced", .path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A directory that was to be replaced and holds something else.
    #[error("{}: not a checkpoint (it has no config.json), so it is not replaced; write elsewhere", .path.display())]
    NotACheckpoint {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A checkpoint file that could not be written.
    #[error(transparent)]
    Format(#[from] format::Error),
}
