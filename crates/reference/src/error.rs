//! Why a forward pass could not be run.

use trace::TapError;

/// What was wrong with the request, or with whoever listens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to run.
    #[error("no tokens: a forward pass needs at least one")]
    Empty,
    /// A token that the embedding has no row for.
    #[error("token {token} at position {position} is out of range: the vocabulary has {vocab_size} entries (0 to {})", vocab_size - 1)]
    Token {
        /// Position in this call.
        position: usize,
        /// The id.
        token: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// A matrix that the second oracle does not define.
    #[error(
        "{matrix} is in {encoding}, and ggml has no inner product for that: quantized to 8 bits, activations need weights in an encoding of GGUF's"
    )]
    NoDot {
        /// Its name in canonical form.
        matrix: String,
        /// How the file holds it.
        encoding: codec::Encoding,
    },
    /// A precision that the second oracle does not define.
    #[error("ggml computes in f32: activations of 8 bits have no form in f64")]
    Precision,
    /// The tap failed.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A saved state that does not belong here.
    #[error("saved state: {0}")]
    State(String),
}
