//! Opens a GGUF checkpoint.

use std::path::{Path, PathBuf};

use super::defect::SplitDefect;
use super::key_values::KeyValues;
use super::part::Part;
use super::split;
use crate::buffer::Buffer;
use crate::contents::Contents;
use crate::{Error, Limits, Metadata, TensorInfo, TensorSource};

/// An open GGUF checkpoint of one file or of all the parts of a split one.
///
/// A big-endian file is read too if its tensors are plain numbers: they are swapped into a copy in memory, the one
/// case in which tensors are not borrowed from the mapping. Blocks in big-endian order are refused.
pub struct Reader {
    contents: Contents,
    keys: KeyValues,
}

impl Reader {
    /// Opens a file and, if it is one part of several, all the others.
    pub fn open(path: &Path, limits: &Limits) -> Result<Reader, Error> {
        Reader::from_buffer(path, Buffer::map(path)?, limits)
    }

    /// Reads a file that is already in memory; `name` stands for it in errors. Parts of split files need their
    /// siblings and can only be opened.
    pub fn from_bytes(name: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<Reader, Error> {
        Reader::join((Part::read(name, Buffer::Owned(bytes), limits)?, Vec::new()))
    }

    pub(crate) fn from_buffer(path: &Path, buffer: Buffer, limits: &Limits) -> Result<Reader, Error> {
        Reader::join(split::siblings(Part::read(path, buffer, limits)?, limits)?)
    }

    fn join((first, rest): (Part, Vec<Part>)) -> Result<Reader, Error> {
        let mut contents = Contents::default();
        let keys = add(&mut contents, first)?;
        for part in rest {
            add(&mut contents, part)?;
        }
        Ok(Reader { contents, keys })
    }

    /// The keys of the file, or of the first part.
    pub fn keys(&self) -> &KeyValues {
        &self.keys
    }
}

fn add(contents: &mut Contents, part: Part) -> Result<KeyValues, Error> {
    let file = contents.add_file(part.path.clone(), part.buffer);
    if file == 0 {
        contents.adopt(part.tensors, part.index);
        return Ok(part.keys);
    }
    for info in part.tensors {
        if let Err((info, earlier)) = contents.add_tensor(TensorInfo { file, ..info }) {
            // A part never has a name twice, so the other one is in another part.
            let first = file_name(&contents.files()[earlier]);
            let second = file_name(&part.path);
            let defect = SplitDefect::InTwoParts { tensor: info.name, first, second };
            return Err(Error::Split { path: part.path, defect });
        }
    }
    Ok(part.keys)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl TensorSource for Reader {
    fn tensors(&self) -> &[TensorInfo] {
        self.contents.tensors()
    }

    fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.contents.tensor(name)
    }

    fn bytes<'a>(&'a self, info: &TensorInfo) -> &'a [u8] {
        self.contents.bytes(info)
    }

    fn files(&self) -> &[PathBuf] {
        self.contents.files()
    }

    fn metadata(&self) -> Metadata<'_> {
        Metadata::Gguf(&self.keys)
    }
}
