//! Why a checkpoint could not be made.

use std::io;
use std::path::PathBuf;

use codec::{EncodeError, Encoding};
use model::ConfigError;
use model::tokenizer::TokenizerError;

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
    SmallVocabulary {
        /// The configuration's vocab_size.
        found: usize,
        /// The smallest that would do.
        least: usize,
    },
    /// Tokenizer files or keys that contradict the model or each other.
    #[error("{place}: {what}")]
    Vocabulary {
        /// The directory, or the keys.
        place: String,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// Tokenizer files that cannot be read.
    #[error(transparent)]
    Tokenizer(Box<TokenizerError>),
    /// A small file beside the weights that is no JSON of the kind that it should be.
    #[error("{}: {what}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        what: String,
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
    /// Multi-token-prediction blocks that were asked for.
    #[error("{}: has no multi-token-prediction block; leave out --mtp only", .path.display())]
    NoMtp {
        /// The source.
        path: PathBuf,
    },
    /// Half a multi-token-prediction block.
    #[error(
        "{}: its multi-token-prediction block lacks {missing}; convert a complete checkpoint, or leave the block out \
         with --mtp drop", .path.display()
    )]
    PartialMtp {
        /// The source.
        path: PathBuf,
        /// Names.
        missing: String,
    },
    /// Something that cannot be done, and what can.
    #[error("{what}")]
    Request {
        /// Both.
        what: String,
    },
    /// Values that an encoding does not hold.
    #[error("tensor {tensor:?}: {error}")]
    Encode {
        /// The tensor.
        tensor: String,
        /// What is wrong with them.
        error: EncodeError,
    },
    /// An output that would destroy what it is made of.
    #[error("{}: is, or holds, the input {}: write elsewhere", .path.display(), .input.display())]
    OwnInput {
        /// The output.
        path: PathBuf,
        /// The file of the input.
        input: PathBuf,
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

impl From<TokenizerError> for Error {
    fn from(error: TokenizerError) -> Error {
        Error::Tokenizer(Box::new(error))
    }
}
