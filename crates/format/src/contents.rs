//! The tensors of an open checkpoint and the bytes they lie in: what the readers of both formats fill.

use std::path::PathBuf;
use std::sync::Arc;

use crate::TensorInfo;
use crate::buffer::Buffer;
use crate::name_index::NameIndex;

/// Files, their bytes, and the tensors found in them.
#[derive(Default)]
pub(crate) struct Contents {
    files: Vec<PathBuf>,
    buffers: Vec<Arc<Buffer>>,
    tensors: Vec<TensorInfo>,
    index: NameIndex,
}

impl Contents {
    /// Takes in a file; tensors added from now on with `file` equal to the number returned lie in it.
    pub(crate) fn add_file(&mut self, path: PathBuf, buffer: Arc<Buffer>) -> usize {
        self.files.push(path);
        self.buffers.push(buffer);
        self.files.len() - 1
    }

    /// Takes in the tensors of the first file, whose names differ, without going through them.
    pub(crate) fn adopt(&mut self, tensors: Vec<TensorInfo>, index: NameIndex) {
        assert!(self.tensors.is_empty());
        (self.tensors, self.index) = (tensors, index);
    }

    /// Adds a tensor whose range was checked against its file; if the name is taken, gives it back with the number
    /// of the file that has it.
    pub(crate) fn add_tensor(&mut self, info: TensorInfo) -> Result<(), (TensorInfo, usize)> {
        let Contents { tensors, index, .. } = self;
        match index.insert(info.name.as_bytes(), tensors.len(), |i| tensors[i].name.as_bytes()) {
            Ok(()) => {
                tensors.push(info);
                Ok(())
            }
            Err(earlier) => Err((info, tensors[earlier].file)),
        }
    }

    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    pub(crate) fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let at = self.index.find(name.as_bytes(), |i| self.tensors[i].name.as_bytes())?;
        self.tensors.get(at)
    }

    pub(crate) fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let range = || {
            let start = usize::try_from(info.offset).ok()?;
            let end = start.checked_add(usize::try_from(info.size).ok()?)?;
            // An empty tensor may be placed after a file that ends with its header.
            if start == end { Some(&[][..]) } else { self.buffers.get(info.file)?.get(start..end) }
        };
        match range() {
            Some(bytes) => bytes,
            None => panic!("tensor {:?} does not belong to this checkpoint", info.name),
        }
    }
}
