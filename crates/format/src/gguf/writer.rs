//! Writes GGUF files, version 3, little-endian, whole or split.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use codec::Encoding;

use super::defect::{Defect, Kind, SplitDefect};
use super::division::Division;
use super::prefix::Prefix;
use super::reader::Reader;
use super::split::Numbering;
use super::value::{Element, Value};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS, NAME_BYTES, SPLIT_KEYS};
use super::{key_values, tensor_infos};
use crate::name_index::NameIndex;
use crate::output::{Output, Slot};
use crate::outputs::{Outputs, PlannedFile};
use crate::{Error, Existing, GgmlNe, Limits, Shape, TensorSource};

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

    /// A draft with the keys and tensors of an open checkpoint, but for the keys of its parts if it is a split one.
    pub fn like(path: &Path, source: &Reader) -> Result<Draft, Error> {
        let mut draft = Draft::new(path);
        for (key, value) in source.keys().iter().filter(|(key, _)| !SPLIT_KEYS.contains(key)) {
            draft.put(key, value)?;
        }
        source.tensors().iter().try_for_each(|info| draft.tensor(&info.name, info.encoding, &info.shape))?;
        Ok(draft)
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
        encode_key(key, &value, &mut entry).map_err(|defect| self.refused(defect))?;
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
        let Laid { header, slots, len } =
            self.whole().lay_out().map_err(|(at, kind)| self.refuse_at(at, kind))?;
        let file = Output::create(&self.path, existing, &header, slots, len)?;
        Ok(Writer { outputs: Outputs::new(self.path, vec![file]) })
    }

    /// Starts the parts of a split file under temporary names: `NAME-00001-of-00003.gguf` and so on beside what would
    /// be `NAME.gguf`, all keys in the first. A single part is that one file, and no split.
    pub fn create_split(self, division: &Division, existing: Existing) -> Result<Writer, Error> {
        let mut files = Vec::new();
        self.each_part(division, |path, _, laid| {
            let Laid { header, slots, len } = laid;
            let mut file = Output::create(path, existing, &header, slots, len)?;
            file.close()?;
            files.push(file);
            Ok(())
        })?;
        Ok(Writer { outputs: Outputs::new(self.path, files) })
    }

    /// The files that [`create_split`](Draft::create_split) would write.
    pub fn plan(&self, division: &Division) -> Result<Vec<PlannedFile>, Error> {
        let mut files = Vec::new();
        self.each_part(division, |path, tensors, laid| {
            files.push(PlannedFile { path: path.to_path_buf(), tensors, bytes: laid.len });
            Ok(())
        })?;
        Ok(files)
    }

    fn whole(&self) -> Section<'_> {
        let n_keys = self.key_starts.len() as u64;
        Section { keys: &self.keys, n_keys, tensors: &self.tensors, alignment: self.alignment }
    }

    fn each_part(
        &self,
        division: &Division,
        mut take: impl FnMut(&Path, Range<usize>, Laid) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let sizes: Vec<u64> = self.tensors.iter().map(|tensor| tensor.size).collect();
        let split = |defect| Error::Split { path: self.path.clone(), defect };
        let found = sizes.len() as u64;
        let ranges = division
            .ranges(&sizes)
            .map_err(|planned| split(SplitDefect::Division { planned: planned as u64, found }))?;
        if ranges.len() == 1 {
            let laid = self.whole().lay_out().map_err(|(at, kind)| self.refuse_at(at, kind))?;
            return take(&self.path, ranges[0].clone(), laid);
        }
        if let Some(key) = SPLIT_KEYS.into_iter().find(|key| self.key_starts.contains_key(*key)) {
            let first = self.key_starts[key];
            return Err(self.refuse(format!("key {key:?}"), first, Kind::DuplicateKey { first }));
        }
        let too_many = || SplitDefect::TooMany { found: ranges.len() as u64, limit: u16::MAX.into() };
        let count = u16::try_from(ranges.len()).map_err(|_| split(too_many()))?;
        let total = i32::try_from(found)
            .map_err(|_| split(SplitDefect::Division { planned: i32::MAX as u64, found }))?;
        let numbering = Numbering::under(&self.path, count.into());
        for (no, range) in (0..count).zip(ranges) {
            let first = no == 0;
            let mut keys = if first { self.keys.clone() } else { Vec::new() };
            let values = [Value::U16(no), Value::U16(count), Value::I32(total)];
            for (key, value) in SPLIT_KEYS.into_iter().zip(values) {
                encode_key(key, &value, &mut keys).map_err(|defect| self.refused(defect))?;
            }
            // Parts behind the first have no `general.alignment`.
            let (n_keys, alignment) =
                if first { (self.key_starts.len() as u64, self.alignment) } else { (0, DEFAULT_ALIGNMENT) };
            let section =
                Section { keys: &keys, n_keys: n_keys + 3, tensors: &self.tensors[range.clone()], alignment };
            let start = range.start;
            let laid = section.lay_out().map_err(|(at, kind)| self.refuse_at(start + at, kind))?;
            take(&numbering.path(u64::from(no) + 1), range, laid)?;
        }
        Ok(())
    }

    fn refuse_at(&self, tensor: usize, kind: Kind) -> Error {
        self.refuse_tensor(&self.tensors[tensor].name, kind)
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

fn encode_key(key: &str, value: &Value, out: &mut Vec<u8>) -> Result<(), Defect> {
    key.encode(out);
    value.value_type().id().encode(out);
    value.encode(out)
}

/// What one file is made of.
struct Section<'a> {
    keys: &'a [u8],
    n_keys: u64,
    tensors: &'a [Tensor],
    alignment: u32,
}

/// A file laid out: its bytes before the data, the places of its tensors, its whole length.
struct Laid {
    header: Vec<u8>,
    slots: Vec<Slot>,
    len: u64,
}

impl Section<'_> {
    /// The error is which of the tensors ends beyond what can be counted.
    fn lay_out(&self) -> Result<Laid, (usize, Kind)> {
        let mut header = MAGIC.to_vec();
        VERSION.encode(&mut header);
        (self.tensors.len() as u64).encode(&mut header);
        self.n_keys.encode(&mut header);
        header.extend_from_slice(self.keys);
        let mut offsets = Vec::with_capacity(self.tensors.len());
        let mut end = 0u64;
        for (at, Tensor { name, encoding, id, ne, size }) in self.tensors.iter().enumerate() {
            name.as_str().encode(&mut header);
            (ne.as_slice().len() as u32).encode(&mut header);
            ne.as_slice().iter().for_each(|dim| dim.encode(&mut header));
            id.encode(&mut header);
            end.encode(&mut header);
            offsets.push(end);
            end = align(end.saturating_add(*size), self.alignment).ok_or_else(|| {
                let (encoding, ne, alignment) = (*encoding, ne.clone(), self.alignment);
                (at, Kind::SizeOverflow { encoding, ne, alignment })
            })?;
        }
        // A vocabulary alone ends with its last key.
        if !self.tensors.is_empty() {
            header.resize(header.len().next_multiple_of(self.alignment as usize), 0);
        }
        let start = header.len() as u64;
        let slot = |(tensor, offset): (&Tensor, u64)| {
            let Tensor { name, size, .. } = tensor;
            Slot { name: name.clone(), start: start + offset, size: *size }
        };
        let slots = self.tensors.iter().zip(offsets).map(slot).collect();
        Ok(Laid { header, slots, len: start + end })
    }
}

/// The next multiple of the alignment that ggml, whose sizes are signed, can count.
fn align(end: u64, alignment: u32) -> Option<u64> {
    end.checked_next_multiple_of(alignment.into()).filter(|&end| i64::try_from(end).is_ok())
}

/// Files whose headers are written and whose tensors are awaited, each as one piece or in consecutive ones.
///
/// Tensors in the declared order are written straight through; another order is possible. Dropped before
/// [`finish`](Writer::finish), it leaves nothing behind.
pub struct Writer {
    outputs: Outputs,
}

impl Writer {
    /// Appends to what a tensor has so far. More bytes than were declared are an error.
    pub fn write(&mut self, tensor: &str, bytes: &[u8]) -> Result<(), Error> {
        self.outputs.write(tensor, bytes)
    }

    /// Writes every tensor of a checkpoint, and says now and then how many bytes of them are written.
    pub fn copy(&mut self, source: &dyn TensorSource, progress: &mut dyn FnMut(u64)) -> Result<(), Error> {
        self.outputs.copy(source, progress)
    }

    /// Checks that every tensor is complete and gives the files their names.
    pub fn finish(self) -> Result<(), Error> {
        self.outputs.finish()
    }
}
