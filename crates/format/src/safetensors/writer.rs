//! Writes a safetensors file, or shards with their index.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use codec::Encoding;

use super::layout::{self, Tensor};
use super::{Defect, INDEX, SINGLE};
use crate::output::Output;
use crate::outputs::Outputs;
use crate::{Error, Existing, Limits, Shape};

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
        let mut weight_map = BTreeMap::new();
        let mut files = Vec::with_capacity(count + 1);
        for (i, tensors) in shards.into_iter().enumerate() {
            let name = format!("model-{:05}-of-{count:05}.safetensors", i + 1);
            for tensor in &tensors {
                weight_map.insert(tensor.name.clone(), name.clone());
            }
            let mut file = start(&dir.join(name), tensors, &metadata, existing)?;
            file.close()?;
            files.push(file);
        }
        let json = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        let text = format!("{json:#}\n");
        let len = text.len() as u64;
        files.push(Output::create(&path, existing, text.as_bytes(), Vec::new(), len)?);
        Ok(Writer { outputs: Outputs::new(path, files) })
    }

    fn refuse(&self, defect: Defect) -> Error {
        Error::Safetensors { path: self.path.clone(), defect }
    }
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

    /// Checks that every tensor is complete and gives the files their names, the index last.
    pub fn finish(self) -> Result<(), Error> {
        self.outputs.finish()
    }
}
