//! Opens a safetensors file, or a directory of shards.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{IndexDefect, header, index};
use crate::buffer::Buffer;
use crate::contents::Contents;
use crate::{Error, Limits, Metadata, TensorInfo, TensorSource};

/// An open safetensors checkpoint of one file or many.
pub struct Reader {
    contents: Contents,
    metadata: BTreeMap<String, String>,
}

impl Reader {
    /// Opens one file, be it a whole checkpoint or one shard of one.
    pub fn open_file(path: &Path, limits: &Limits) -> Result<Reader, Error> {
        Reader::from_buffer(path, Buffer::map(path)?, limits)
    }

    /// Reads a file that is already in memory; `name` stands for it in errors.
    pub fn from_bytes(name: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<Reader, Error> {
        Reader::from_buffer(name, Buffer::Owned(bytes), limits)
    }

    /// Opens a checkpoint through its `….safetensors.index.json`: the shards beside it, no tensor missing from
    /// either side.
    pub fn open_index(path: &Path, limits: &Limits) -> Result<Reader, Error> {
        let fail = |defect| Error::Index { path: path.to_path_buf(), defect };
        let shards = index::read(&Buffer::map(path)?, limits).map_err(fail)?;
        let mut reader = Reader { contents: Contents::default(), metadata: BTreeMap::new() };
        for (shard, tensors) in &shards {
            let shard_path = path.with_file_name(shard);
            let buffer = Buffer::map(&shard_path).map_err(|e| match e {
                Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    let tensor = tensors.first().cloned().unwrap_or_default();
                    fail(IndexDefect::MissingShard { shard: shard.clone(), tensor, tensors: tensors.len() })
                }
                other => other,
            })?;
            reader.add_file(&shard_path, buffer, limits)?;
        }
        reader.agree_with(&shards).map_err(fail)?;
        Ok(reader)
    }

    pub(crate) fn from_buffer(path: &Path, buffer: Buffer, limits: &Limits) -> Result<Reader, Error> {
        let mut reader = Reader { contents: Contents::default(), metadata: BTreeMap::new() };
        reader.add_file(path, buffer, limits)?;
        Ok(reader)
    }

    fn add_file(&mut self, path: &Path, buffer: Buffer, limits: &Limits) -> Result<(), Error> {
        let header = header::read(&buffer, limits)
            .map_err(|defect| Error::Safetensors { path: path.to_path_buf(), defect })?;
        let file = self.contents.add_file(path.to_path_buf(), Arc::new(buffer));
        for header::Entry { name, encoding, shape, offset, size } in header.tensors {
            let info = TensorInfo { name, encoding, shape, file, offset, size };
            if let Err((info, earlier)) = self.contents.add_tensor(info) {
                // No header names a tensor twice, so the other one is in another file.
                let first = file_name(&self.contents.files()[earlier]);
                let defect = IndexDefect::InTwoShards { tensor: info.name, first, second: file_name(path) };
                return Err(Error::Index { path: path.to_path_buf(), defect });
            }
        }
        for (key, value) in header.metadata {
            self.metadata.entry(key).or_insert(value);
        }
        Ok(())
    }

    /// Checks that index and shards name the same tensors in the same places.
    fn agree_with(&self, shards: &index::Shards) -> Result<(), IndexDefect> {
        for (file, (shard, tensors)) in shards.iter().enumerate() {
            for tensor in tensors {
                if self.contents.tensor(tensor).is_none_or(|info| info.file != file) {
                    return Err(IndexDefect::NotInShard { tensor: tensor.clone(), shard: shard.clone() });
                }
            }
        }
        let indexed: HashSet<&str> = shards.values().flatten().map(String::as_str).collect();
        match self.contents.tensors().iter().find(|info| !indexed.contains(info.name.as_str())) {
            None => Ok(()),
            Some(info) => Err(IndexDefect::NotInIndex {
                tensor: info.name.clone(),
                shard: file_name(&self.contents.files()[info.file]),
            }),
        }
    }
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
        Metadata::Safetensors(&self.metadata)
    }
}
