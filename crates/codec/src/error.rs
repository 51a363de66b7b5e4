//! What can be wrong with a request to decode or encode. The caller adds the file and the tensor.

use thiserror::Error;

use crate::Encoding;

/// A ggml type id that names no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnknownId {
    /// Once assigned, then withdrawn: files with it need a tool of their own time.
    #[error("ggml type {0} is retired; convert the file again with a current tool")]
    Retired(u32),
    /// Never assigned up to ggml 0.25.3.
    #[error("ggml type {0} is unknown (up to ggml 0.25.3)")]
    Unknown(u32),
}

/// Why bytes were not decoded. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes are not exactly the blocks that the values need.
    #[error(
        "{encoding}: {bytes} bytes are not {values} values (blocks of {} values in {} bytes)",
        encoding.block_len(), encoding.block_bytes()
    )]
    Length {
        /// The encoding asked for.
        encoding: Encoding,
        /// Bytes given.
        bytes: usize,
        /// Values asked for.
        values: usize,
    },
}

/// Why values were not encoded. The output's contents are then unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum EncodeError {
    /// The values are not exactly the blocks that the output holds.
    #[error(
        "{encoding}: {values} values do not fill {bytes} bytes (blocks of {} values in {} bytes)",
        encoding.block_len(), encoding.block_bytes()
    )]
    Length {
        /// The encoding asked for.
        encoding: Encoding,
        /// Values given.
        values: usize,
        /// Bytes offered.
        bytes: usize,
    },
    /// Values of this encoding can be read but not made.
    #[error("{encoding}: there is no encoder for it")]
    NotEncodable {
        /// The encoding asked for.
        encoding: Encoding,
    },
    /// Too few bits to choose well blindly: ggml refuses too.
    #[error("{encoding}: needs an importance matrix")]
    ImportanceRequired {
        /// The encoding asked for.
        encoding: Encoding,
    },
    /// There must be one importance weight for each column, the values being whole rows.
    #[error(
        "{encoding}: {importance} importance weights do not divide {values} values into rows of whole blocks"
    )]
    ImportanceLength {
        /// The encoding asked for.
        encoding: Encoding,
        /// Values given.
        values: usize,
        /// Weights given.
        importance: usize,
    },
    /// Importance weights are mean squares.
    #[error("{encoding}: importance weight {index} is {weight}, expected a finite number not below zero")]
    Importance {
        /// The encoding asked for.
        encoding: Encoding,
        /// The first such weight's position.
        index: usize,
        /// The weight.
        weight: f32,
    },
    /// NaN or an infinity where the encoding knows none.
    #[error("{encoding}: element {index} is {value}, expected a finite number")]
    NotFinite {
        /// The encoding asked for.
        encoding: Encoding,
        /// The first such element's position.
        index: usize,
        /// The element.
        value: f32,
    },
    /// An integer encoding was asked for a value that it does not hold.
    #[error("{encoding}: element {index} is {value}, which it cannot hold")]
    NotRepresentable {
        /// The encoding asked for.
        encoding: Encoding,
        /// The first such element's position.
        index: usize,
        /// The element.
        value: f32,
    },
    /// The values are finite, but a block's scale leaves the range of its own encoding (mostly f16).
    #[error("{encoding}: the block from element {index} on is too large for its scale")]
    ScaleOverflow {
        /// The encoding asked for.
        encoding: Encoding,
        /// The first element of the first such block.
        index: usize,
    },
}
