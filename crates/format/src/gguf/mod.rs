//! GGUF, versions 2 and 3: typed keys, tensor descriptions, then aligned data; one file, or numbered parts.

mod array;
mod cursor;
mod defect;
mod division;
mod edit;
mod key_values;
mod part;
mod prefix;
mod reader;
mod split;
mod tensor_infos;
mod value;
mod writer;

pub use array::{Array, ArrayView, Elements};
pub use cursor::ByteOrder;
pub use defect::{Defect, Kind, SplitDefect};
pub use division::Division;
pub use edit::{Edit, EditDefect};
pub use key_values::{KeyError, KeyValues};
pub use reader::Reader;
pub use value::{Element, Value, ValueType};
pub use writer::{Draft, Writer};

/// The first four bytes of a file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// The keys of a part of a split file: which one it is, how many there are, how many tensors they have together.
/// A draft leaves them to [`Draft::create_split`].
pub const SPLIT_KEYS: [&str; 3] = ["split.no", "split.count", "split.tensors.count"];
/// The key that moves tensors off the default alignment.
const ALIGNMENT_KEY: &str = "general.alignment";
/// The alignment of tensors, in bytes, where the file does not say.
const DEFAULT_ALIGNMENT: u32 = 32;
/// Longest name of a tensor, in bytes: ggml keeps names in 64 bytes with a closing zero.
const NAME_BYTES: u64 = 63;
/// Most dimensions a tensor may have.
const MAX_DIMS: u32 = 4;
