//! The keys of a file and their values.

use std::sync::Arc;

use super::array::ArrayView;
use super::cursor::{ByteOrder, Cursor};
use super::defect::{Defect, Kind};
use super::prefix::Prefix;
use super::value::{Value, ValueType};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT};
use crate::Limits;
use crate::buffer::Buffer;
use crate::name_index::NameIndex;

/// The least that a key takes: a length, one byte, a type and a one-byte value.
pub(super) const LEAST_BYTES: u64 = 8 + 1 + 4 + 1;

/// The keys of a GGUF file, in its order. All were checked when the file was opened; values are parsed when asked
/// for, out of the mapping, so that a large vocabulary costs nothing until somebody reads it.
pub struct KeyValues {
    buffer: Arc<Buffer>,
    order: ByteOrder,
    version: u32,
    alignment: u32,
    entries: Vec<Entry>,
    index: NameIndex,
    /// Where the last value ends.
    end: usize,
}

/// Where a key lies; its value ends where the next one's length begins.
struct Entry {
    key_at: usize,
    key_len: u32,
    kind: ValueType,
}

/// Bytes of the length before a key, and of the type behind it.
const KEY_PREFIX: usize = 8;
const TYPE_BYTES: usize = 4;

impl Entry {
    fn key<'b>(&self, file: &'b [u8]) -> &'b [u8] {
        &file[self.key_at..self.key_at + self.key_len as usize]
    }

    fn value_at(&self) -> usize {
        self.key_at + self.key_len as usize + TYPE_BYTES
    }
}

/// Why a key's value could not be had as what it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such key.
    #[error("key {key:?} is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// It holds something else.
    #[error("key {key:?}: expected {expected}, found {found}")]
    Type {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
}

impl KeyValues {
    /// Reads the keys behind the prefix.
    pub(super) fn read(buffer: Arc<Buffer>, prefix: &Prefix, limits: &Limits) -> Result<KeyValues, Defect> {
        let Prefix { version, order, n_kv, .. } = *prefix;
        let file: &[u8] = &buffer;
        let mut cursor = Cursor::new(file, 0, order);
        cursor.take(Prefix::BYTES).map_err(|f| f.field("n_kv"))?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut index = NameIndex::default();
        for i in 0..n_kv {
            let key_start = cursor.clone();
            let key = cursor.string().map_err(|f| f.field(format!("key {i}")))?;
            let refuse = |kind| Err(key_start.fault(kind).field(format!("key {i}")));
            let (found, limit) = (key.len() as u64, limits.key_bytes);
            let key_len = match u32::try_from(key.len()) {
                Ok(0) => return refuse(Kind::EmptyKey),
                Ok(n) if found <= limit => n,
                _ => return refuse(Kind::KeyTooLong { found, limit }),
            };
            let key_at = key_start.offset() as usize + KEY_PREFIX;
            if let Err(earlier) = index.insert(key.as_bytes(), entries.len(), |i| entries[i].key(file)) {
                let first = (entries[earlier].key_at - KEY_PREFIX) as u64;
                return Err(key_start.fault(Kind::DuplicateKey { first }).field(format!("key {key:?}")));
            }
            let kind = ValueType::read(&mut cursor).map_err(|f| f.field(format!("key {key:?}, type")))?;
            kind.skip(&mut cursor, limits.array_depth, limits.array_depth)
                .map_err(|f| f.field(format!("key {key:?}, value")))?;
            entries.push(Entry { key_at, key_len, kind });
        }
        let end = cursor.offset() as usize;
        let alignment = DEFAULT_ALIGNMENT;
        let mut keys = KeyValues { buffer, order, version, alignment, entries, index, end };
        keys.alignment = keys.read_alignment(limits)?;
        Ok(keys)
    }

    /// Where the last value ends in the file.
    pub(super) fn end(&self) -> u64 {
        self.end as u64
    }

    fn read_alignment(&self, limits: &Limits) -> Result<u32, Defect> {
        let Some(at) = self.position(ALIGNMENT_KEY) else { return Ok(DEFAULT_ALIGNMENT) };
        // A value that does not read was changed after it was checked; then any type that is no u32 will do.
        let value = self.value(at).unwrap_or(Value::Bool(false));
        alignment(&value, limits).map_err(|kind| {
            let offset = self.entries[at].value_at() as u64;
            Defect { field: ALIGNMENT_KEY.to_owned(), offset, kind }
        })
    }

    /// The file's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The file's byte order.
    pub fn byte_order(&self) -> ByteOrder {
        self.order
    }

    /// What the start of every tensor is a multiple of, in bytes: `general.alignment`, or 32.
    pub fn alignment(&self) -> u32 {
        self.alignment
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a key is there.
    pub fn contains(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.value(self.position(key)?)
    }

    /// Keys and values in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        // Both were checked when the file was opened; they could fail only if somebody wrote into it meanwhile.
        self.entries.iter().enumerate().filter_map(|(at, entry)| {
            Some((std::str::from_utf8(entry.key(&self.buffer)).ok()?, self.value(at)?))
        })
    }

    /// An integer of any type that is not negative.
    pub fn get_u64(&self, key: &str) -> Result<u64, KeyError> {
        self.typed(key, "an integer that is not negative", |v| v.as_u64())
    }

    /// An integer of any type.
    pub fn get_i64(&self, key: &str) -> Result<i64, KeyError> {
        self.typed(key, "an integer", |v| v.as_i64())
    }

    /// A floating-point number of either width.
    pub fn get_f64(&self, key: &str) -> Result<f64, KeyError> {
        self.typed(key, "a floating-point number", |v| v.as_f64())
    }

    /// A boolean.
    pub fn get_bool(&self, key: &str) -> Result<bool, KeyError> {
        self.typed(key, "a boolean", |v| v.as_bool())
    }

    /// A string.
    pub fn get_str(&self, key: &str) -> Result<&str, KeyError> {
        self.typed(key, "a string", |v| v.as_str())
    }

    /// An array.
    pub fn get_array(&self, key: &str) -> Result<ArrayView<'_>, KeyError> {
        self.typed(key, "an array", |v| v.as_array())
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<T, KeyError> {
        let value = self.get(key).ok_or_else(|| KeyError::Missing { key: key.to_owned() })?;
        convert(value).ok_or_else(|| KeyError::Type {
            key: key.to_owned(),
            expected,
            found: describe(&value),
        })
    }

    /// The bytes of the whole file.
    pub(super) fn file(&self) -> &[u8] {
        &self.buffer
    }

    /// Type and value of the n-th key, as they lie in the file.
    pub(super) fn raw(&self, at: usize) -> &[u8] {
        let Some(entry) = self.entries.get(at) else { return &[] };
        let end = self.entries.get(at + 1).map_or(self.end, |next| next.key_at - KEY_PREFIX);
        self.buffer.get(entry.value_at() - TYPE_BYTES..end).unwrap_or_default()
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.index.find(key.as_bytes(), |i| self.entries[i].key(&self.buffer))
    }

    /// The value of the n-th key.
    pub(super) fn value(&self, at: usize) -> Option<Value<'_>> {
        let entry = self.entries.get(at)?;
        let end = self.entries.get(at + 1).map_or(self.end, |next| next.key_at - KEY_PREFIX);
        let start = entry.value_at();
        let mut cursor = Cursor::new(self.buffer.get(start..end)?, start as u64, self.order);
        match entry.kind {
            ValueType::Array => ArrayView::read_rest(&mut cursor).ok().map(Value::Array),
            kind => Value::read(kind, &mut cursor).ok(),
        }
    }
}

/// What `general.alignment` may be.
pub(super) fn alignment(value: &Value, limits: &Limits) -> Result<u32, Kind> {
    match *value {
        Value::U32(found) if !found.is_power_of_two() => Err(Kind::AlignmentNotPowerOfTwo { found }),
        Value::U32(found) if u64::from(found) > limits.alignment => {
            Err(Kind::AlignmentTooLarge { found, limit: limits.alignment })
        }
        Value::U32(found) => Ok(found),
        other => Err(Kind::AlignmentType { found: other.value_type().name() }),
    }
}

/// A value in an error: its type, and numbers as they are.
fn describe(value: &Value) -> String {
    match value {
        Value::String(_) => "a string".to_owned(),
        Value::Array(array) => format!("an array of {} {}", array.len(), array.element_type().name()),
        number => format!("{number:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key takes at least [`LEAST_BYTES`] in the file. Here it takes an entry, half of a vector that has just
    /// grown, and in the index, which may be half empty, a position and a byte: less than five times as much.
    #[test]
    fn a_key_takes_little_memory() {
        let entry = 2 * size_of::<Entry>();
        let index = 2 * (size_of::<usize>() + 1);
        assert_eq!(size_of::<Entry>(), 16);
        assert!((entry + index) as u64 <= 5 * LEAST_BYTES);
    }
}
