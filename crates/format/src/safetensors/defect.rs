//! What can be wrong with safetensors files.

use codec::Encoding;

use crate::Shape;

/// What is wrong with a safetensors file. Offsets in tensors are, as in the header, from the start of the data.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// Not even a header length.
    #[error("header length at byte 0: expected 8 bytes, the file has {len}")]
    TooShort {
        /// Length of the file.
        len: u64,
    },
    /// A header longer than [`crate::Limits::header_bytes`].
    #[error("header length at byte 0: expected at most {limit} bytes, found {declared}")]
    HeaderTooLong {
        /// What the file declares.
        declared: u64,
        /// What the limit admits.
        limit: u64,
    },
    /// A header that would end behind the end of the file.
    #[error("header length at byte 0: expected at most the {available} bytes that follow, found {declared}")]
    HeaderBeyondFile {
        /// What the file declares.
        declared: u64,
        /// What is there.
        available: u64,
    },
    /// The header is no UTF-8.
    #[error("header: expected UTF-8, found an invalid sequence at byte {offset}")]
    NotUtf8 {
        /// Position in the file.
        offset: u64,
    },
    /// The header is not the JSON it should be.
    #[error("header{}: {message} (line {line}, column {column} of the JSON that starts at byte 8)", named(.entry))]
    Json {
        /// The tensor or `__metadata__` whose description it is in, if it got that far.
        entry: Option<String>,
        /// What was expected and found.
        message: String,
        /// Line of the JSON text, from 1.
        line: usize,
        /// Column of the JSON text, from 1.
        column: usize,
    },
    /// A dtype that cannot be decoded.
    #[error("tensor {tensor:?}: dtype {dtype:?} is not supported; expected one of {supported}")]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// What the header says.
        dtype: String,
        /// The names that are known.
        supported: String,
    },
    /// An encoding that safetensors has no dtype for; only a writer meets it.
    #[error("tensor {tensor:?}: safetensors has no dtype for {encoding}")]
    NoDtype {
        /// The tensor.
        tensor: String,
        /// How its elements are stored.
        encoding: Encoding,
    },
    /// `__metadata__`, which no tensor may be called; only a writer meets it.
    #[error("a tensor cannot be called __metadata__")]
    ReservedName,
    /// Tensors that are too long together; only a writer meets it.
    #[error("the tensors take more bytes together than 64 bits can count")]
    FileTooLong,
    /// One name, described twice.
    #[error("tensor {tensor:?} is described twice")]
    Duplicate {
        /// The tensor.
        tensor: String,
    },
    /// More elements or bytes than 64 bits can count.
    #[error("tensor {tensor:?}: the size of {dtype} {shape} overflows 64 bits")]
    SizeOverflow {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Shape,
    },
    /// The end before the beginning.
    #[error("tensor {tensor:?}: data_offsets end at {end}, before they begin at {begin}")]
    ReversedOffsets {
        /// The tensor.
        tensor: String,
        /// First byte.
        begin: u64,
        /// One past the last byte.
        end: u64,
    },
    /// A range of another length than dtype and shape need.
    #[error("tensor {tensor:?}: {dtype} {shape} takes {expected} bytes, data_offsets [{begin}, {end}] hold {}", end - begin)]
    SizeMismatch {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Shape,
        /// Bytes that dtype and shape need.
        expected: u64,
        /// First byte.
        begin: u64,
        /// One past the last byte.
        end: u64,
    },
    /// A range that ends behind the end of the file.
    #[error(
        "tensor {tensor:?}: data_offsets [{begin}, {end}] leave the data, which has {available} bytes; is the file truncated?"
    )]
    BeyondEnd {
        /// The tensor.
        tensor: String,
        /// First byte.
        begin: u64,
        /// One past the last byte.
        end: u64,
        /// Bytes of data in the file.
        available: u64,
    },
    /// A tensor that begins before the one before it ends.
    #[error("tensor {tensor:?}: begins at {begin}, inside tensor {other:?}, which ends at {other_end}")]
    Overlap {
        /// The tensor.
        tensor: String,
        /// Its first byte.
        begin: u64,
        /// The tensor it overlaps.
        other: String,
        /// One past the last byte of that.
        other_end: u64,
    },
    /// Bytes that belong to no tensor; the format forbids them.
    #[error(
        "tensor {tensor:?}: expected to begin at {expected}, where the tensor before it ends, found {begin}"
    )]
    Gap {
        /// The tensor behind the gap.
        tensor: String,
        /// Where it should begin.
        expected: u64,
        /// Where it begins.
        begin: u64,
    },
    /// Bytes behind the last tensor; the format forbids them.
    #[error("expected {expected} bytes of data, the end of the last tensor, found {found}")]
    TrailingBytes {
        /// Where the last tensor ends.
        expected: u64,
        /// Bytes of data in the file.
        found: u64,
    },
}

fn named(entry: &Option<String>) -> String {
    entry.as_ref().map(|name| format!(", entry {name:?}")).unwrap_or_default()
}

/// What is wrong with an index of shards, or between it and them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexDefect {
    /// Longer than [`crate::Limits::index_bytes`].
    #[error("expected at most {limit} bytes, found {found}")]
    TooLong {
        /// Length of the index.
        found: u64,
        /// What the limit admits.
        limit: u64,
    },
    /// Not the JSON it should be.
    #[error("expected {{\"weight_map\": {{tensor: file}}}}: {message} (line {line}, column {column})")]
    Json {
        /// What was expected and found.
        message: String,
        /// Line of the text, from 1.
        line: usize,
        /// Column of the text, from 1.
        column: usize,
    },
    /// No tensors at all.
    #[error("weight_map is empty")]
    NoTensors,
    /// One name, mapped twice.
    #[error("weight_map names tensor {tensor:?} twice")]
    DuplicateEntry {
        /// The tensor.
        tensor: String,
    },
    /// A shard outside the directory.
    #[error("weight_map puts tensor {tensor:?} into {shard:?}: expected the name of a file beside the index")]
    ForeignPath {
        /// A tensor mapped there.
        tensor: String,
        /// What the index says.
        shard: String,
    },
    /// More shards than [`crate::Limits::files`].
    #[error("weight_map names {found} shards; expected at most {limit}")]
    TooManyShards {
        /// How many there are.
        found: u64,
        /// What the limit admits.
        limit: u64,
    },
    /// A shard that is not there.
    #[error("shard {shard:?} is missing; the index puts {tensors} tensors there, among them {tensor:?}")]
    MissingShard {
        /// The file name.
        shard: String,
        /// The first of the tensors mapped to it, by name.
        tensor: String,
        /// How many are.
        tensors: usize,
    },
    /// A tensor that is not in the shard that the index names.
    #[error("tensor {tensor:?} is not in shard {shard:?}, where the index puts it")]
    NotInShard {
        /// The tensor.
        tensor: String,
        /// The shard.
        shard: String,
    },
    /// A tensor in a shard that the index does not know.
    #[error("shard {shard:?} holds tensor {tensor:?}, which the index does not name")]
    NotInIndex {
        /// The tensor.
        tensor: String,
        /// The shard.
        shard: String,
    },
    /// The same tensor in two shards.
    #[error("tensor {tensor:?} is in two shards, {first:?} and {second:?}")]
    InTwoShards {
        /// The tensor.
        tensor: String,
        /// The earlier shard, by name.
        first: String,
        /// The later one.
        second: String,
    },
}
