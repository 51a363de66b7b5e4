//! A GGUF file with other keys and names, and everything else as it is, to the byte.

use std::path::Path;

use super::cursor::ByteOrder;
use super::defect::Kind;
use super::part::Part;
use super::value::{Element, Value, ValueType};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, NAME_BYTES, key_values};
use crate::output::{Output, Slot};
use crate::{Error, Existing, Limits, TensorInfo};

/// Changes to one file: a whole checkpoint, or one part of a split one, whose keys stand in the first.
///
/// Keys that are not changed keep their bytes and their order, new ones come last; tensors keep their place in the data,
/// which is copied as it is. Version and byte order stay.
pub struct Edit {
    part: Part,
    entries: Vec<Entry>,
    /// Names of the tensors, in the file's order.
    names: Vec<String>,
    limits: Limits,
}

struct Entry {
    key: String,
    value: Held,
}

/// A value: type, then its bytes.
enum Held {
    /// The n-th of the file.
    Old(usize),
    New(Vec<u8>),
}

/// Why a file could not be changed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditDefect {
    /// There is no such key.
    #[error("there is no key {key:?} to change")]
    NoKey {
        /// The key.
        key: String,
    },
    /// The new name of a key is taken.
    #[error("there is a key {key:?} already")]
    KeyExists {
        /// The key.
        key: String,
    },
    /// There is no such tensor.
    #[error("there is no tensor {name:?} to rename")]
    NoTensor {
        /// Its name.
        name: String,
    },
    /// The new name of a tensor is taken.
    #[error("there is a tensor {name:?} already")]
    TensorExists {
        /// Its name.
        name: String,
    },
    /// A key, a name or a value that the format does not have.
    #[error("{name:?}: {kind}")]
    Refused {
        /// The key or the tensor.
        name: String,
        /// What is wrong with it.
        kind: Kind,
    },
    /// New values are written little-endian.
    #[error("the file is big-endian: values can be removed and renamed there, not set; convert it first")]
    BigEndian,
    /// The data stays where it is, and does not suit another alignment.
    #[error(
        "general.alignment {alignment}: tensor {tensor:?} lies at {offset} of the data; convert the model again"
    )]
    Alignment {
        /// The alignment to be.
        alignment: u32,
        /// A tensor that it does not suit.
        tensor: String,
        /// Where that lies.
        offset: u64,
    },
}

/// Bytes copied between two words about progress.
const COPY_BYTES: usize = 8 << 20;
/// What the one tensor of the output is called: the data of the file, as it is.
const DATA: &str = "data";

impl Edit {
    /// Opens one file; parts beside it are left alone.
    pub fn open(path: &Path, limits: &Limits) -> Result<Edit, Error> {
        let part = Part::open(path, limits)?;
        let entry =
            |(at, (key, _)): (usize, (&str, Value))| Entry { key: key.to_owned(), value: Held::Old(at) };
        let entries = part.keys.iter().enumerate().map(entry).collect();
        let names = part.tensors.iter().map(|info| info.name.clone()).collect();
        Ok(Edit { part, entries, names, limits: limits.clone() })
    }

    /// The value of a key as the file has it.
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        self.part.keys.get(key)
    }

    /// The keys as they will be.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    /// The tensors as the file has them.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.part.tensors
    }

    /// Gives a key a value, in its place if it is there, else behind the others.
    pub fn set<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) -> Result<(), Error> {
        let value = value.into();
        if self.part.keys.byte_order() == ByteOrder::Big {
            return Err(self.refuse(EditDefect::BigEndian));
        }
        self.check_key(key)?;
        let mut bytes = Vec::new();
        value.value_type().id().encode(&mut bytes);
        value.encode(&mut bytes).map_err(|defect| Error::Gguf { path: self.part.path.clone(), defect })?;
        if key == ALIGNMENT_KEY {
            let refused = |kind| EditDefect::Refused { name: key.to_owned(), kind };
            key_values::alignment(&value, &self.limits).map_err(|kind| self.refuse(refused(kind)))?;
        }
        match self.position(key) {
            Some(at) => self.entries[at].value = Held::New(bytes),
            None => self.entries.push(Entry { key: key.to_owned(), value: Held::New(bytes) }),
        }
        Ok(())
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Result<(), Error> {
        let Some(at) = self.position(key) else {
            return Err(self.refuse(EditDefect::NoKey { key: key.to_owned() }));
        };
        self.entries.remove(at);
        Ok(())
    }

    /// Gives a key another name, in its place.
    pub fn rename(&mut self, old: &str, new: &str) -> Result<(), Error> {
        let Some(at) = self.position(old) else {
            return Err(self.refuse(EditDefect::NoKey { key: old.to_owned() }));
        };
        if old != new && self.position(new).is_some() {
            return Err(self.refuse(EditDefect::KeyExists { key: new.to_owned() }));
        }
        self.check_key(new)?;
        // What was set under another name was not checked as an alignment.
        if let (ALIGNMENT_KEY, Held::New(bytes)) = (new, &self.entries[at].value)
            && bytes[..4] != ValueType::U32.id().to_le_bytes()
        {
            let kind = Kind::AlignmentType { found: "another type" };
            return Err(self.refuse(EditDefect::Refused { name: new.to_owned(), kind }));
        }
        self.entries[at].key = new.to_owned();
        Ok(())
    }

    /// Gives a tensor another name, in its place.
    pub fn rename_tensor(&mut self, old: &str, new: &str) -> Result<(), Error> {
        let Some(at) = self.names.iter().position(|name| name == old) else {
            return Err(self.refuse(EditDefect::NoTensor { name: old.to_owned() }));
        };
        let kind = match new.len() as u64 {
            0 => Some(Kind::EmptyName),
            found if found > NAME_BYTES => Some(Kind::NameTooLong { found }),
            _ => None,
        };
        if let Some(kind) = kind {
            return Err(self.refuse(EditDefect::Refused { name: new.to_owned(), kind }));
        }
        if old != new && self.names.iter().any(|name| name == new) {
            return Err(self.refuse(EditDefect::TensorExists { name: new.to_owned() }));
        }
        self.names[at] = new.to_owned();
        Ok(())
    }

    /// Writes the file with its changes; `progress` hears how many bytes of how many are written.
    pub fn write(
        self,
        to: &Path,
        existing: Existing,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Error> {
        let mut header = self.header();
        let file = self.part.keys.file();
        let old_end = self.descriptions_end();
        let old_start = old_end.next_multiple_of(self.part.keys.alignment() as usize);
        let alignment = self.alignment()?;
        // What stood between descriptions and data stays if there is as much of it.
        let as_before = alignment == self.part.keys.alignment()
            && header.len() % alignment as usize == old_end % alignment as usize;
        let data = if as_before || self.names.is_empty() {
            file.get(old_end..)
        } else {
            header.resize(header.len().next_multiple_of(alignment as usize), 0);
            file.get(old_start..)
        };
        let data = data.unwrap_or_default();
        let (start, size) = (header.len() as u64, data.len() as u64);
        let slot = Slot { name: DATA.to_owned(), start, size };
        let mut output = Output::create(to, existing, &header, vec![slot], start + size)?;
        let mut done = 0;
        for piece in data.chunks(COPY_BYTES) {
            output.write(DATA, piece)?;
            done += piece.len() as u64;
            progress(done, size);
        }
        output.complete()?;
        output.put_in_place().map(drop)
    }

    /// Everything up to the padding before the data.
    fn header(&self) -> Vec<u8> {
        let file = self.part.keys.file();
        let mut header = MAGIC.to_vec();
        // The version as it stands, in whichever byte order.
        header.extend_from_slice(&file[MAGIC.len()..MAGIC.len() + 4]);
        self.number(self.names.len() as u64, &mut header);
        self.number(self.entries.len() as u64, &mut header);
        for Entry { key, value } in &self.entries {
            self.text(key, &mut header);
            header.extend_from_slice(match value {
                Held::Old(at) => self.part.keys.raw(*at),
                Held::New(bytes) => bytes,
            });
        }
        let mut at = self.part.keys.end() as usize;
        for (info, name) in self.part.tensors.iter().zip(&self.names) {
            let fields = at + LENGTH + info.name.len();
            let end = at + description_bytes(info);
            self.text(name, &mut header);
            header.extend_from_slice(&file[fields..end]);
            at = end;
        }
        header
    }

    fn descriptions_end(&self) -> usize {
        self.part.keys.end() as usize + self.part.tensors.iter().map(description_bytes).sum::<usize>()
    }

    /// The alignment to be, if the data, which stays as it is, suits it.
    fn alignment(&self) -> Result<u32, Error> {
        let refused = |kind| self.refuse(EditDefect::Refused { name: ALIGNMENT_KEY.to_owned(), kind });
        let alignment = match self.position(ALIGNMENT_KEY).map(|at| &self.entries[at].value) {
            None => DEFAULT_ALIGNMENT,
            // It may have had another name until now.
            Some(Held::Old(at)) => {
                let value = self.part.keys.value(*at).unwrap_or(Value::Bool(false));
                key_values::alignment(&value, &self.limits).map_err(refused)?
            }
            // A u32, as was checked when it was set: four bytes behind those of its type.
            Some(Held::New(bytes)) => {
                bytes.last_chunk().map_or(DEFAULT_ALIGNMENT, |last| u32::from_le_bytes(*last))
            }
        };
        let start = self.descriptions_end().next_multiple_of(self.part.keys.alignment() as usize) as u64;
        let offset = |info: &TensorInfo| info.offset.saturating_sub(start);
        match self.part.tensors.iter().find(|info| !offset(info).is_multiple_of(alignment.into())) {
            None => Ok(alignment),
            Some(info) => {
                let (tensor, offset) = (info.name.clone(), offset(info));
                Err(self.refuse(EditDefect::Alignment { alignment, tensor, offset }))
            }
        }
    }

    fn number(&self, number: u64, out: &mut Vec<u8>) {
        match self.part.keys.byte_order() {
            ByteOrder::Little => out.extend_from_slice(&number.to_le_bytes()),
            ByteOrder::Big => out.extend_from_slice(&number.to_be_bytes()),
        }
    }

    fn text(&self, text: &str, out: &mut Vec<u8>) {
        self.number(text.len() as u64, out);
        out.extend_from_slice(text.as_bytes());
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key == key)
    }

    fn check_key(&self, key: &str) -> Result<(), Error> {
        let (found, limit) = (key.len() as u64, self.limits.key_bytes);
        let kind = match found {
            0 => Kind::EmptyKey,
            _ if found > limit => Kind::KeyTooLong { found, limit },
            _ => return Ok(()),
        };
        Err(self.refuse(EditDefect::Refused { name: key.to_owned(), kind }))
    }

    fn refuse(&self, defect: EditDefect) -> Error {
        Error::Edit { path: self.part.path.clone(), defect }
    }
}

/// Bytes of a string's length.
const LENGTH: usize = 8;

/// Bytes that a tensor's description takes: length and name, n_dims, dimensions, type, offset.
fn description_bytes(info: &TensorInfo) -> usize {
    LENGTH + info.name.len() + 4 + 8 * info.shape.dims().len() + 4 + 8
}
