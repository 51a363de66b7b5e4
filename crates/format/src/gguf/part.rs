//! One file: a whole checkpoint, or one part of a split one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cursor::{ByteOrder, Cursor};
use super::defect::{Defect, Kind};
use super::key_values::KeyValues;
use super::{MAGIC, key_values, tensor_infos};
use crate::buffer::Buffer;
use crate::{Error, Limits, TensorInfo};

/// One checked file.
pub(super) struct Part {
    pub(super) path: PathBuf,
    /// Tensors here are little-endian.
    pub(super) buffer: Arc<Buffer>,
    pub(super) keys: KeyValues,
    /// In the file's order; which of several parts they lie in is not known here.
    pub(super) tensors: Vec<TensorInfo>,
}

impl Part {
    pub(super) fn open(path: &Path, limits: &Limits) -> Result<Part, Error> {
        Part::read(path, Buffer::map(path)?, limits)
    }

    pub(super) fn read(path: &Path, buffer: Buffer, limits: &Limits) -> Result<Part, Error> {
        let buffer = Arc::new(buffer);
        let parse = || {
            let (keys, tensors) = parse(&buffer, limits)?;
            let buffer = match keys.byte_order() {
                ByteOrder::Little => Arc::clone(&buffer),
                ByteOrder::Big => Arc::new(Buffer::Owned(little_endian(&buffer, &tensors)?)),
            };
            Ok((buffer, keys, tensors))
        };
        let (buffer, keys, tensors) =
            parse().map_err(|defect| Error::Gguf { path: path.to_path_buf(), defect })?;
        Ok(Part { path: path.to_path_buf(), buffer, keys, tensors })
    }
}

fn parse(buffer: &Arc<Buffer>, limits: &Limits) -> Result<(KeyValues, Vec<TensorInfo>), Defect> {
    let file: &[u8] = buffer;
    let mut cursor = Cursor::new(file, 0, ByteOrder::Little);
    let start = cursor.clone();
    let found = cursor.array().map_err(|f| f.field("magic"))?;
    if found != MAGIC {
        return Err(start.fault(Kind::BadMagic { found }).field("magic"));
    }
    let (version, order) = version(&mut cursor)?;
    cursor.order = order;
    let n_tensors = count(&mut cursor, "n_tensors", tensor_infos::LEAST_BYTES)?;
    let n_kv = count(&mut cursor, "n_kv", key_values::LEAST_BYTES)?;
    let keys = KeyValues::read(Arc::clone(buffer), (version, order), (n_kv, cursor.offset()), limits)?;
    let tensors = tensor_infos::read(file, &keys, n_tensors)?;
    Ok((keys, tensors))
}

/// Reads the version, and from which way round it makes sense, the byte order.
fn version(cursor: &mut Cursor) -> Result<(u32, ByteOrder), Defect> {
    let start = cursor.clone();
    let found = cursor.u32().map_err(|f| f.field("version"))?;
    let kind = match (found, found.swap_bytes()) {
        (2 | 3, _) => return Ok((found, ByteOrder::Little)),
        (_, swapped @ (2 | 3)) => return Ok((swapped, ByteOrder::Big)),
        (1, _) | (_, 1) => Kind::Version1,
        (found, swapped) => Kind::BadVersion { found: found.min(swapped) },
    };
    Err(start.fault(kind).field("version"))
}

fn count(cursor: &mut Cursor, field: &str, least: u64) -> Result<u64, Defect> {
    let start = cursor.clone();
    let declared = cursor.u64().map_err(|f| f.field(field))?;
    let available = cursor.remaining();
    if declared > available / least {
        return Err(start.fault(Kind::CountBeyondFile { declared, least, available }).field(field));
    }
    Ok(declared)
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
