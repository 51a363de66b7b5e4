//! What can be wrong with GGUF files.

use codec::{Encoding, UnknownId};

use super::{MAX_DIMS, NAME_BYTES};
use crate::GgmlNe;

/// What is wrong with a GGUF file: in which field, at which byte of the file, and what was expected and found.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{field}, byte {offset}: {kind}")]
pub struct Defect {
    /// The field, such as `n_kv`, `key 3` or `tensor "output.weight", type`.
    pub field: String,
    /// Where it starts, in bytes from the start of the file.
    pub offset: u64,
    /// What is wrong with it.
    pub kind: Kind,
}

/// What is wrong with a field of a GGUF file.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// Another kind of file.
    #[error("expected \"GGUF\", found {found:02x?}")]
    BadMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The first version, whose counts have 32 bits.
    #[error("version 1, whose counts and lengths have 32 bits, is not read; convert the model again")]
    Version1,
    /// A version that is not known.
    #[error("expected version 2 or 3, found {found}")]
    BadVersion {
        /// The version, in the byte order in which it is smaller.
        found: u32,
    },
    /// The file ends inside the field.
    #[error("expected {needed} bytes, the file has {available} more; is it truncated?")]
    Truncated {
        /// Bytes the field takes.
        needed: u64,
        /// Bytes left in the file.
        available: u64,
    },
    /// A count of keys or tensors that the rest of the file is too small for.
    #[error("{declared} entries of at least {least} bytes each do not fit the {available} bytes that follow")]
    CountBeyondFile {
        /// What the file declares.
        declared: u64,
        /// The least that one entry takes.
        least: u64,
        /// Bytes left in the file.
        available: u64,
    },
    /// More keys or tensors than [`crate::Limits`] admits; of a split file, than the parts before leave of it.
    #[error("{declared} entries; expected at most {limit}")]
    TooMany {
        /// What the file declares.
        declared: u64,
        /// What the limit admits.
        limit: u64,
    },
    /// A length of a string or an array that the rest of the file is too small for.
    #[error("length {declared} (at least {least} bytes each) does not fit the {available} bytes that follow")]
    LengthBeyondFile {
        /// What the file declares.
        declared: u64,
        /// The least that one element takes.
        least: u64,
        /// Bytes left in the file.
        available: u64,
    },
    /// A key without a name.
    #[error("the key is empty")]
    EmptyKey,
    /// A key longer than [`crate::Limits::key_bytes`].
    #[error("a key of {found} bytes; expected at most {limit}")]
    KeyTooLong {
        /// Its length.
        found: u64,
        /// What the limit admits.
        limit: u64,
    },
    /// One key, twice.
    #[error("the key is there already, at byte {first}")]
    DuplicateKey {
        /// Where the first one starts.
        first: u64,
    },
    /// A string that is no UTF-8.
    #[error("expected UTF-8, found an invalid sequence at byte {at}")]
    NotUtf8 {
        /// Position in the file.
        at: u64,
    },
    /// A type of value that does not exist.
    #[error("unknown value type {found}; expected 0 to 12")]
    UnknownValueType {
        /// What the file says.
        found: u32,
    },
    /// Arrays in arrays beyond [`crate::Limits::array_depth`].
    #[error("arrays nested more than {limit} deep")]
    TooDeep {
        /// What the limit admits.
        limit: u8,
    },
    /// A boolean that is neither.
    #[error("expected a boolean, 0 or 1, found {found}")]
    NotBool {
        /// The byte.
        found: u8,
    },
    /// `general.alignment` is no u32.
    #[error("expected a u32, found {found}")]
    AlignmentType {
        /// The type it has.
        found: &'static str,
    },
    /// `general.alignment` is no power of two.
    #[error("expected a power of two, found {found}")]
    AlignmentNotPowerOfTwo {
        /// What the file says.
        found: u32,
    },
    /// `general.alignment` is beyond [`crate::Limits::alignment`].
    #[error("expected at most {limit}, found {found}")]
    AlignmentTooLarge {
        /// What the file says.
        found: u32,
        /// What the limit admits.
        limit: u64,
    },
    /// A tensor without a name.
    #[error("the name is empty")]
    EmptyName,
    /// A name of a tensor that ggml cannot keep.
    #[error("a name of {found} bytes; expected at most {NAME_BYTES}")]
    NameTooLong {
        /// Its length.
        found: u64,
    },
    /// One name of a tensor, twice.
    #[error("a tensor of this name is there already")]
    DuplicateTensor,
    /// No dimensions, or too many.
    #[error("expected 1 to {MAX_DIMS} dimensions, found {found}")]
    DimensionCount {
        /// What the file says.
        found: u32,
    },
    /// A type of tensor that does not exist or no longer does.
    #[error("{0}")]
    TensorType(UnknownId),
    /// An encoding that GGUF has no number for; only a writer meets it.
    #[error("GGUF has no type for {encoding}")]
    NoTensorType {
        /// How elements are stored.
        encoding: Encoding,
    },
    /// More elements or bytes than can be counted, be it after padding.
    #[error("the size of {encoding} ne {ne}, padded to {alignment}, overflows")]
    SizeOverflow {
        /// How elements are stored.
        encoding: Encoding,
        /// Its dimensions.
        ne: GgmlNe,
        /// The file's alignment.
        alignment: u32,
    },
    /// A row that does not end with a block.
    #[error("rows of {row} elements are no whole number of {encoding} blocks of {}", .encoding.block_len())]
    PartialBlock {
        /// How elements are stored.
        encoding: Encoding,
        /// Elements of a row.
        row: u64,
    },
    /// An offset off the alignment.
    #[error("expected a multiple of the alignment {alignment}, found {found}")]
    OffsetUnaligned {
        /// What the file says.
        found: u64,
        /// The file's alignment.
        alignment: u32,
    },
    /// Bytes of a tensor behind the end of the file.
    #[error(
        "{size} bytes at offset {start} leave the data, which has {available} bytes; is the file truncated?"
    )]
    BeyondEnd {
        /// Where the tensor starts in the data.
        start: u64,
        /// Its bytes.
        size: u64,
        /// Bytes of data in the file.
        available: u64,
    },
    /// Bytes that two tensors share.
    #[error("starts at {start} of the data, inside tensor {other:?}, which ends at {other_end}")]
    Overlap {
        /// Where the tensor starts in the data.
        start: u64,
        /// The tensor before it.
        other: String,
        /// Where that ends.
        other_end: u64,
    },
    /// Blocks in big-endian order; plain elements are swapped, blocks have fields of their own.
    #[error(
        "the file is big-endian and holds {encoding} blocks, which are not read in that order; convert it to \
         little-endian first"
    )]
    BigEndianBlocks {
        /// How elements are stored.
        encoding: Encoding,
    },
}

/// What is wrong between the parts of a split file.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitDefect {
    /// A part whose file name does not say which one it is.
    #[error("one of {count} parts, so expected a name like NAME-00001-of-{count:05}.gguf")]
    Name {
        /// `split.count`.
        count: u64,
    },
    /// More parts than [`crate::Limits::files`].
    #[error("split.count: expected at most {limit}, found {found}")]
    TooMany {
        /// What the file says.
        found: u64,
        /// What the limit admits.
        limit: u64,
    },
    /// A part that is not there.
    #[error("part {number} of {count} is missing")]
    Missing {
        /// Its number, from 1.
        number: u64,
        /// How many there are.
        count: u64,
    },
    /// A part with another number than its name says.
    #[error("split.no: expected {expected}, as in the file's name less one, found {found}")]
    Number {
        /// The number its name says, less one.
        expected: u64,
        /// `split.no`.
        found: u64,
    },
    /// Parts that disagree how many there are.
    #[error("split.count: expected {expected}, as in the other parts and the file's name, found {found}")]
    Count {
        /// What the part that was named says.
        expected: u64,
        /// What this one says.
        found: u64,
    },
    /// Tensors lost or gained.
    #[error("split.tensors.count: the parts hold {found} tensors together, expected {declared}")]
    Tensors {
        /// What the key says.
        declared: u64,
        /// What there is.
        found: u64,
    },
    /// The same tensor in two parts.
    #[error("tensor {tensor:?} is in two parts, {first:?} and {second:?}")]
    InTwoParts {
        /// The tensor.
        tensor: String,
        /// File name of the earlier part.
        first: String,
        /// File name of the later one.
        second: String,
    },
    /// A division for another number of tensors; only a writer meets it.
    #[error("the parts were to hold {planned} tensors together, there are {found}")]
    Division {
        /// What the parts were to hold.
        planned: u64,
        /// What was declared.
        found: u64,
    },
    /// A key of a split file that is missing or of another type.
    #[error("{0}")]
    Key(super::KeyError),
}
