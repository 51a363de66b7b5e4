//! Why a forward pass could not be run.

use trace::TapError;

/// What was wrong with the request, or with whoever listens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to run.
    #[error("no tokens: a forward pass needs at least one")]
    Empty,
    /// A token that the embedding has no row for.
    #[error("token {token} at position {position} is out of range: the vocabulary has {vocab_size} entries (0 to {})", vocab_size.saturating_sub(1))]
    Token {
        /// Position in this call.
        position: usize,
        /// The id.
        token: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The tap failed.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A state that does not belong here.
    #[error("state: {0}")]
    State(String),
}
