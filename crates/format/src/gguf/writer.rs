//! Writes a GGUF file, version 3, little-endian.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use codec::Encoding;

use super::defect::{Defect, Kind};
use super::prefix::Prefix;
use super::value::{Element, Value};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS, NAME_BYTES};
use super::{key_values, tensor_infos};
use crate::name_index::NameIndex;
use crate::output::{Output, Slot};
use crate::{Error, Existing, GgmlNe, Limits, Shape};

const VERSION: u32 = 3;

/// A file that is about to be: keys and tensors declared in the order they are to have. Nothing is on disk yet.
pub struct Draft {
    path: PathBuf,
    /// The keys as they will stand in the file.
    keys: Vec<u8>,
    /// Each key, and where it will start.
    key_starts: HashMap<String, u64>,
    tensors: Vec<Tensor>,
    index: NameIndex,
    /// Bytes that the descriptions of the tensors will take.
    description_bytes: u64,
    alignment: u32,
}

struct Tensor {
    name: String,
    encoding: Encoding,
    id: u32,
    ne: GgmlNe,
    size: u64,
}

impl Draft {
    /// An empty draft of the file that will be `path`.
    pub fn new(path: &Path) -> Draft {
        Draft {
            path: path.to_path_buf(),
            keys: Vec::new(),
            key_starts: HashMap::new(),
            tensors: Vec::new(),
            index: NameIndex::default(),
            description_bytes: 0,
            alignment: DEFAULT_ALIGNMENT,
        }
    }

    /// Adds a key. `general.alignment` moves the tensors, too.
    pub fn put<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) -> Result<(), Error> {
        let value = value.into();
        let start = Prefix::BYTES + self.keys.len() as u64;
        let limits = Limits::default();
        let check = || {
            let found = key.len() as u64;
            if found == 0 {
                return Err(Kind::EmptyKey);
            }
            if found > limits.key_bytes {
                return Err(Kind::KeyTooLong { found, limit: limits.key_bytes });
            }
            if let Some(&first) = self.key_starts.get(key) {
                return Err(Kind::DuplicateKey { first });
            }
            if key == ALIGNMENT_KEY { key_values::alignment(&value, &limits) } else { Ok(self.alignment) }
        };
        let alignment = check().map_err(|kind| self.refuse(format!("key {key:?}"), start, kind))?;
        let mut entry = Vec::new();
        key.encode(&mut entry);
        value.value_type().id().encode(&mut entry);
        value.encode(&mut entry).map_err(|defect| self.refused(defect))?;
        self.keys.extend_from_slice(&entry);
        self.key_starts.insert(key.to_owned(), start);
        self.alignment = alignment;
        Ok(())
    }

    /// Adds a tensor; its data will follow those of the tensors before it.
    pub fn tensor(&mut self, name: &str, encoding: Encoding, shape: &Shape) -> Result<(), Error> {
        let ne = shape.to_ne();
        let n_dims = ne.as_slice().len();
        let check = || {
            match name.len() as u64 {
                0 => return Err(Kind::EmptyName),
                found if found > NAME_BYTES => return Err(Kind::NameTooLong { found }),
                _ => {}
            }
            if self.index.find(name.as_bytes(), |i| self.tensors[i].name.as_bytes()).is_some() {
                return Err(Kind::DuplicateTensor);
            }
            if !(1..=MAX_DIMS as usize).contains(&n_dims) {
                return Err(Kind::DimensionCount { found: n_dims as u32 });
            }
            let Some(id) = encoding.ggml_id() else {
                return Err(Kind::NoTensorType { encoding });
            };
            Ok((id, tensor_infos::size(encoding, &ne, self.alignment)?))
        };
        let (id, size) = check().map_err(|kind| self.refuse_tensor(name, kind))?;
        let tensor = Tensor { name: name.to_owned(), encoding, id, ne, size };
        let Draft { tensors, index, .. } = self;
        let fresh = index.insert(name.as_bytes(), tensors.len(), |i| tensors[i].name.as_bytes());
        debug_assert!(fresh.is_ok());
        tensors.push(tensor);
        self.description_bytes += (8 + name.len() + 4 + 8 * n_dims + 4 + 8) as u64;
        Ok(())
    }

    /// Starts the file under a temporary name.
    pub fn create(self, existing: Existing) -> Result<Writer, Error> {
        let (header, slots, len) = self.lay_out()?;
        Ok(Writer { output: Output::create(&self.path, existing, &header, slots, len)? })
    }

    /// Header, places of the tensors, and length of the whole file.
    fn lay_out(&self) -> Result<(Vec<u8>, Vec<Slot>, u64), Error> {
        let mut header = MAGIC.to_vec();
        VERSION.encode(&mut header);
        (self.tensors.len() as u64).encode(&mut header);
        (self.key_starts.len() as u64).encode(&mut header);
        header.extend_from_slice(&self.keys);
        let mut offsets = Vec::with_capacity(self.tensors.len());
        let mut end = 0u64;
        for Tensor { name, encoding, id, ne, size } in &self.tensors {
            name.as_str().encode(&mut header);
            (ne.as_slice().len() as u32).encode(&mut header);
            ne.as_slice().iter().for_each(|dim| dim.encode(&mut header));
            id.encode(&mut header);
            end.encode(&mut header);
            offsets.push(end);
            end = align(end.saturating_add(*size), self.alignment).ok_or_else(|| {
                let (encoding, ne, alignment) = (*encoding, ne.clone(), self.alignment);
                self.refuse_tensor(name, Kind::SizeOverflow { encoding, ne, alignment })
            })?;
        }
        // A vocabulary alone ends with its last key.
        if !self.tensors.is_empty() {
            header.resize(header.len().next_multiple_of(self.alignment as usize), 0);
        }
        let start = header.len() as u64;
        let slots = self.tensors.iter().zip(offsets).map(|(tensor, offset)| Slot {
            name: tensor.name.clone(),
            start: start + offset,
            size: tensor.size,
        });
        Ok((header, slots.collect(), start + end))
    }

    fn refuse_tensor(&self, name: &str, kind: Kind) -> Error {
        let start = Prefix::BYTES + self.keys.len() as u64 + self.description_bytes;
        self.refuse(format!("tensor {name:?}"), start, kind)
    }

    fn refuse(&self, field: String, offset: u64, kind: Kind) -> Error {
        self.refused(Defect { field, offset, kind })
    }

    fn refused(&self, defect: Defect) -> Error {
        Error::Gguf { path: self.path.clone(), defect }
    }
}

/// The next multiple of the alignment that ggml, whose sizes are signed, can count.
fn align(end: u64, alignment: u32) -> Option<u64> {
    end.checked_next_multiple_of(alignment.into()).filter(|&end| i64::try_from(end).is_ok())
}

/// A file whose header is written and whose tensors are awaited, each as one piece or in consecutive ones.
///
/// Tensors in the declared order are written straight through; another order is possible. Dropped before
/// [`finish`](Writer::finish), it leaves nothing behind.
pub struct Writer {
    output: Output,
}

impl Writer {
    /// Appends to what a tensor has so far. More bytes than were declared are an error.
    pub fn write(&mut self, tensor: &str, bytes: &[u8]) -> Result<(), Error> {
        self.output.write(tensor, bytes)
    }

    /// Checks that every tensor is complete and gives the file its name.
    pub fn finish(mut self) -> Result<(), Error> {
        self.output.complete()?;
        self.output.put_in_place().map(drop)
    }
}
