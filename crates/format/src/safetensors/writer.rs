//! Writes a safetensors file, or shards with their index.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use codec::Encoding;

use super::layout::{self, Tensor};
use super::{Defect, INDEX, SINGLE};
use crate::output::Output;
use crate::outputs::{Outputs, PlannedFile};
use crate::{Error, Existing, Limits, Metadata, Shape, TensorSource};

/// A checkpoint that is about to be: its tensors declared, nothing on disk yet.
pub struct Draft {
    path: PathBuf,
    metadata: BTreeMap<String, String>,
    tensors: Vec<Tensor>,
    names: HashSet<String>,
}

impl Draft {
    /// An empty draft of what will be `path`: a file for [`create`](Draft::create), a directory that is there for
    /// [`create_sharded`](Draft::create_sharded).
    pub fn new(path: &Path) -> Draft {
        let path = path.to_path_buf();
        Draft { path, metadata: BTreeMap::new(), tensors: Vec::new(), names: HashSet::new() }
    }

    /// A draft with the metadata and tensors of an open checkpoint.
    pub fn like(path: &Path, source: &dyn TensorSource) -> Result<Draft, Error> {
        let mut draft = Draft::new(path);
        if let Metadata::Safetensors(entries) = source.metadata() {
            entries.iter().for_each(|(key, value)| draft.put(key, value));
        }
        source.tensors().iter().try_for_each(|info| draft.tensor(&info.name, info.encoding, &info.shape))?;
        Ok(draft)
    }

    /// Sets an entry of `__metadata__`, which every shard will carry. Transformers asks for `format` = `pt`.
    pub fn put(&mut self, key: &str, value: &str) {
        self.metadata.insert(key.to_owned(), value.to_owned());
    }

    /// Adds a tensor.
    pub fn tensor(&mut self, name: &str, encoding: Encoding, shape: &Shape) -> Result<(), Error> {
        let tensor = name.to_owned();
        let Some(dtype) = encoding.safetensors_name() else {
            return Err(self.refuse(Defect::NoDtype { tensor, encoding }));
        };
        if name == "__metadata__" {
            return Err(self.refuse(Defect::ReservedName));
        }
        if self.names.contains(name) {
            return Err(self.refuse(Defect::Duplicate { tensor }));
        }
        let shape = shape.clone();
        let Some(size) = shape.elements().and_then(|n| encoding.byte_len(n)) else {
            return Err(self.refuse(Defect::SizeOverflow { tensor, dtype: dtype.to_owned(), shape }));
        };
        self.names.insert(tensor.clone());
        self.tensors.push(Tensor { name: tensor, encoding, dtype, shape, size });
        Ok(())
    }

    /// Starts one file under a temporary name.
    pub fn create(self, existing: Existing) -> Result<Writer, Error> {
        let Draft { path, metadata, tensors, .. } = self;
        let files = vec![start(&path, tensors, &metadata, existing)?];
        Ok(Writer { outputs: Outputs::new(path, files) })
    }

    /// Starts files in a directory, each of at most `max_bytes` of data unless one tensor has more, under temporary
    /// names: `model-00001-of-00003.safetensors` and so on with an index, or `model.safetensors` if one is enough.
    pub fn create_sharded(self, max_bytes: u64, existing: Existing) -> Result<Writer, Error> {
        let Draft { path: dir, metadata, tensors, .. } = self;
        let total: u64 = tensors.iter().map(|t| t.size).fold(0, u64::saturating_add);
        let mut shards = layout::shards(tensors, max_bytes);
        let count = shards.len();
        // A checkpoint of the other form is not replaced by this one: readers would find both.
        let (path, other) = if count == 1 { (SINGLE, INDEX) } else { (INDEX, SINGLE) };
        let (path, other) = (dir.join(path), dir.join(other));
        if other.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: other });
        }
        if count == 1 {
            let files = vec![start(&path, shards.remove(0), &metadata, existing)?];
            return Ok(Writer { outputs: Outputs::new(path, files) });
        }
        let text = index(&shards, total);
        let mut files = Vec::with_capacity(count + 1);
        for (i, tensors) in shards.into_iter().enumerate() {
            let mut file = start(&dir.join(shard_name(i, count)), tensors, &metadata, existing)?;
            file.close()?;
            files.push(file);
        }
        let len = text.len() as u64;
        files.push(Output::create(&path, existing, text.as_bytes(), Vec::new(), len)?);
        Ok(Writer { outputs: Outputs::new(path, files) })
    }

    /// The file that [`create`](Draft::create) would write.
    pub fn plan(&self) -> Result<PlannedFile, Error> {
        self.planned(&self.path, self.tensors.clone(), 0)
    }

    /// The files that [`create_sharded`](Draft::create_sharded) would write, the index last.
    pub fn plan_sharded(&self, max_bytes: u64) -> Result<Vec<PlannedFile>, Error> {
        let total: u64 = self.tensors.iter().map(|t| t.size).fold(0, u64::saturating_add);
        let mut shards = layout::shards(self.tensors.clone(), max_bytes);
        let count = shards.len();
        if count == 1 {
            return Ok(vec![self.planned(&self.path.join(SINGLE), shards.remove(0), 0)?]);
        }
        let bytes = index(&shards, total).len() as u64;
        let mut files: Vec<PlannedFile> = Vec::with_capacity(count + 1);
        for (i, tensors) in shards.into_iter().enumerate() {
            let first = files.last().map_or(0, |file| file.tensors.end);
            files.push(self.planned(&self.path.join(shard_name(i, count)), tensors, first)?);
        }
        let end = self.tensors.len();
        files.push(PlannedFile { path: self.path.join(INDEX), tensors: end..end, bytes });
        Ok(files)
    }

    fn planned(&self, path: &Path, tensors: Vec<Tensor>, first: usize) -> Result<PlannedFile, Error> {
        let held = first..first + tensors.len();
        let Some(file) = layout::lay_out(tensors, &self.metadata) else {
            return Err(Error::Safetensors { path: path.to_path_buf(), defect: Defect::FileTooLong });
        };
        Ok(PlannedFile { path: path.to_path_buf(), tensors: held, bytes: file.len })
    }

    fn refuse(&self, defect: Defect) -> Error {
        Error::Safetensors { path: self.path.clone(), defect }
    }
}

/// Of shard `i`, the first of which is 0.
fn shard_name(i: usize, count: usize) -> String {
    format!("model-{:05}-of-{count:05}.safetensors", i + 1)
}

/// The text of an index.
fn index(shards: &[Vec<Tensor>], total: u64) -> String {
    let mut weight_map = BTreeMap::new();
    for (i, tensors) in shards.iter().enumerate() {
        let name = shard_name(i, shards.len());
        weight_map.extend(tensors.iter().map(|tensor| (tensor.name.as_str(), name.clone())));
    }
    let json = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    format!("{json:#}\n")
}

fn start(
    path: &Path,
    tensors: Vec<Tensor>,
    metadata: &BTreeMap<String, String>,
    existing: Existing,
) -> Result<Output, Error> {
    let refuse = |defect| Error::Safetensors { path: path.to_path_buf(), defect };
    let Some(file) = layout::lay_out(tensors, metadata) else {
        return Err(refuse(Defect::FileTooLong));
    };
    let (declared, limit) = (file.header.len() as u64, Limits::default().header_bytes);
    if declared > limit {
        return Err(refuse(Defect::HeaderTooLong { declared, limit }));
    }
    Output::create(path, existing, &file.header, file.slots, file.len)
}

/// Files whose headers are written and whose tensors are awaited, each as one piece or in consecutive ones, in any
/// order. Dropped before [`finish`](Writer::finish), it leaves nothing behind.
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

    /// Checks that every tensor is complete and gives the files their names, the index last.
    pub fn finish(self) -> Result<(), Error> {
        self.outputs.finish()
    }
}
