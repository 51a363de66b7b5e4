//! One file: a whole checkpoint, or one part of a split one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cursor::ByteOrder;
use super::defect::{Defect, Kind};
use super::key_values::KeyValues;
use super::prefix::Prefix;
use super::tensor_infos;
use crate::buffer::Buffer;
use crate::name_index::NameIndex;
use crate::{Error, Limits, TensorInfo};

/// One checked file.
pub(super) struct Part {
    pub(super) path: PathBuf,
    /// Tensors here are little-endian.
    pub(super) buffer: Arc<Buffer>,
    pub(super) keys: KeyValues,
    /// In the file's order; which of several parts they lie in is not known here.
    pub(super) tensors: Vec<TensorInfo>,
    /// Where a name is in that list.
    pub(super) index: NameIndex,
}

impl Part {
    pub(super) fn open(path: &Path, limits: &Limits) -> Result<Part, Error> {
        Part::read(path, Buffer::map(path)?, limits)
    }

    pub(super) fn read(path: &Path, buffer: Buffer, limits: &Limits) -> Result<Part, Error> {
        let buffer = Arc::new(buffer);
        let parse = || {
            let (keys, tensors, index) = parse(&buffer, limits)?;
            let buffer = match keys.byte_order() {
                ByteOrder::Little => Arc::clone(&buffer),
                ByteOrder::Big => Arc::new(Buffer::Owned(little_endian(&buffer, &tensors)?)),
            };
            Ok((buffer, keys, tensors, index))
        };
        let (buffer, keys, tensors, index) =
            parse().map_err(|defect| Error::Gguf { path: path.to_path_buf(), defect })?;
        Ok(Part { path: path.to_path_buf(), buffer, keys, tensors, index })
    }
}

fn parse(buffer: &Arc<Buffer>, limits: &Limits) -> Result<(KeyValues, Vec<TensorInfo>, NameIndex), Defect> {
    let prefix = Prefix::read(buffer, limits)?;
    let keys = KeyValues::read(Arc::clone(buffer), &prefix, limits)?;
    let (tensors, index) = tensor_infos::read(buffer, &keys, prefix.n_tensors)?;
    Ok((keys, tensors, index))
}

/// A copy of a big-endian file in which the elements of its tensors are little-endian.
fn little_endian(file: &[u8], tensors: &[TensorInfo]) -> Result<Vec<u8>, Defect> {
    let mut copy = file.to_vec();
    // An empty tensor may stand behind the end.
    for info in tensors.iter().filter(|info| info.size > 0) {
        let encoding = info.encoding;
        if encoding.block_len() != 1 {
            let field = format!("tensor {:?}", info.name);
            return Err(Defect { field, offset: info.offset, kind: Kind::BigEndianBlocks { encoding } });
        }
        let range = info.offset as usize..(info.offset + info.size) as usize;
        for element in copy[range].chunks_exact_mut(encoding.block_bytes()) {
            element.reverse();
        }
    }
    Ok(copy)
}
