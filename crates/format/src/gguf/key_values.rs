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
    /// Where each key begins with its length; its value ends where the next key begins. There may be very many, so
    /// nothing else is kept of them.
    starts: Vec<u64>,
    index: NameIndex,
    /// Where the last value ends.
    end: usize,
}

/// The name of the key that starts here. It was checked, and is empty if somebody wrote into the file since.
fn name(file: &[u8], start: u64, order: ByteOrder) -> &[u8] {
    let bytes = usize::try_from(start).ok().and_then(|start| file.get(start..)).unwrap_or_default();
    Cursor::new(bytes, start, order).string_bytes().unwrap_or_default()
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
        // The file has bytes for so many. Growing step by step would leave as much again in pieces that were outgrown.
        let mut starts: Vec<u64> = Vec::with_capacity(n_kv as usize);
        let mut index = NameIndex::with_capacity(n_kv as usize);
        for i in 0..n_kv {
            let key_start = cursor.clone();
            let key = cursor.string().map_err(|f| f.field(format!("key {i}")))?;
            let refuse = |kind| Err(key_start.fault(kind).field(format!("key {i}")));
            let (found, limit) = (key.len() as u64, limits.key_bytes);
            if key.is_empty() {
                return refuse(Kind::EmptyKey);
            }
            if found > limit {
                return refuse(Kind::KeyTooLong { found, limit });
            }
            if let Err(earlier) = index.insert(key.as_bytes(), starts.len(), |i| name(file, starts[i], order))
            {
                let first = starts[earlier];
                return Err(key_start.fault(Kind::DuplicateKey { first }).field(format!("key {key:?}")));
            }
            let kind = ValueType::read(&mut cursor).map_err(|f| f.field(format!("key {key:?}, type")))?;
            kind.skip(&mut cursor, limits.array_depth, limits.array_depth)
                .map_err(|f| f.field(format!("key {key:?}, value")))?;
            starts.push(key_start.offset());
        }
        let end = cursor.offset() as usize;
        let alignment = DEFAULT_ALIGNMENT;
        let mut keys = KeyValues { buffer, order, version, alignment, starts, index, end };
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
            let offset = self.value_cursor(at).map_or(0, |(_, cursor)| cursor.offset());
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
        self.starts.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
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
        self.starts.iter().enumerate().filter_map(|(at, &start)| {
            Some((std::str::from_utf8(name(&self.buffer, start, self.order)).ok()?, self.value(at)?))
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
        convert(value).ok_or_else(|| KeyError::Type { key: key.to_owned(), expected, found: value.brief() })
    }

    /// The bytes of the whole file.
    pub(super) fn file(&self) -> &[u8] {
        &self.buffer
    }

    /// Type and value of the n-th key, as they lie in the file.
    pub(super) fn raw(&self, at: usize) -> &[u8] {
        let typed = self.cursor(at).and_then(|mut cursor| {
            cursor.string_bytes().ok()?;
            cursor.take(cursor.remaining()).ok()
        });
        typed.unwrap_or_default()
    }

    /// From the start of the n-th key to the end of its value.
    fn cursor(&self, at: usize) -> Option<Cursor<'_>> {
        let &start = self.starts.get(at)?;
        let end = self.starts.get(at + 1).map_or(Some(self.end), |&next| usize::try_from(next).ok())?;
        Some(Cursor::new(self.buffer.get(usize::try_from(start).ok()?..end)?, start, self.order))
    }

    /// The type of the n-th key and its value.
    fn value_cursor(&self, at: usize) -> Option<(ValueType, Cursor<'_>)> {
        let mut cursor = self.cursor(at)?;
        cursor.string_bytes().ok()?;
        let kind = ValueType::read(&mut cursor).ok()?;
        Some((kind, cursor))
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.index.find(key.as_bytes(), |i| name(&self.buffer, self.starts[i], self.order))
    }

    /// The value of the n-th key.
    pub(super) fn value(&self, at: usize) -> Option<Value<'_>> {
        let (kind, mut cursor) = self.value_cursor(at)?;
        match kind {
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
