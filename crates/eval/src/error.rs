//! Why a model could not be run or judged.

use std::path::PathBuf;

/// What was wrong with the request, the model or the trace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The pass.
    #[error(transparent)]
    Reference(#[from] reference::Error),
    /// The trace, read or written.
    #[error(transparent)]
    Trace(#[from] trace::Error),
    /// A pattern that cannot be read.
    #[error(transparent)]
    Glob(#[from] trace::GlobError),
    /// A pattern that no point of this model has.
    #[error("no point of this model matches `{pattern}`; `etalon dump --list-points MODEL` lists them all")]
    NoPoint {
        /// The pattern.
        pattern: String,
    },
    /// A trace that does not say on which tokens it was made.
    #[error("the trace does not say on which tokens it was made; give them with --tokens or --tokens-file")]
    NoTokens,
    /// A number that is no token id.
    #[error("{token} at position {position} of the trace's tokens is not a token id")]
    TokenId {
        /// Position in the text.
        position: usize,
        /// As the trace has it.
        token: i64,
    },
    /// Sizes of calls that are not a way to cut this text.
    #[error(
        "a split into {sizes:?} does not cover {tokens} tokens: sizes are at least 1 and add up to the tokens"
    )]
    Split {
        /// As given.
        sizes: Vec<usize>,
        /// Length of the text.
        tokens: usize,
    },
    /// Threads could not be started.
    #[error("cannot start {threads} threads: {why}")]
    Threads {
        /// How many.
        threads: usize,
        /// The system's words.
        why: String,
    },
    /// A weight file could not be read for its hash.
    #[error("cannot hash {}: {source}", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}
