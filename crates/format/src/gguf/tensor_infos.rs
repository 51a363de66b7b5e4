//! The descriptions of a file's tensors: read, sized, and held against the data behind them.

use codec::Encoding;

use super::cursor::{Cursor, Fault};
use super::defect::{Defect, Kind};
use super::key_values::KeyValues;
use super::{MAX_DIMS, NAME_BYTES};
use crate::name_index::NameIndex;
use crate::{GgmlNe, TensorInfo};

/// The least that a description takes: a length and one byte of name, a count and one dimension, a type, an offset.
pub(super) const LEAST_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// Reads the `count` descriptions behind the keys, and where each name is among them. The offsets in what it returns
/// are from the start of the file; which of several files that is, is not known here.
pub(super) fn read(
    file: &[u8],
    keys: &KeyValues,
    count: u64,
) -> Result<(Vec<TensorInfo>, NameIndex), Defect> {
    let mut cursor = Cursor::new(file, 0, keys.byte_order());
    cursor.take(keys.end()).map_err(|f| f.field("tensor infos"))?;
    let alignment = keys.alignment();
    // The file has bytes for so many.
    let room = count as usize;
    let mut tensors: Vec<TensorInfo> = Vec::with_capacity(room);
    // Where each description's offset stands, for what is found out about it later.
    let mut offset_fields: Vec<u64> = Vec::with_capacity(room);
    let mut index = NameIndex::with_capacity(room);
    for i in 0..count {
        let start = cursor.clone();
        let info = read_one(&mut cursor, i, alignment)?;
        index
            .insert(info.name.as_bytes(), tensors.len(), |i| tensors[i].name.as_bytes())
            .map_err(|_| start.fault(Kind::DuplicateTensor).field(format!("tensor {:?}, name", info.name)))?;
        tensors.push(info);
        offset_fields.push(cursor.offset() - 8);
    }
    let padding = cursor.offset().next_multiple_of(alignment.into()) - cursor.offset();
    let data = Data {
        start: cursor.offset() + padding,
        len: cursor.remaining().saturating_sub(padding),
        alignment: alignment.into(),
    };
    data.check(&tensors, &offset_fields)?;
    for info in &mut tensors {
        info.offset += data.start;
    }
    Ok((tensors, index))
}

/// Reads one description; its offset is from the start of the data, and unchecked but for the alignment.
fn read_one(cursor: &mut Cursor, number: u64, alignment: u32) -> Result<TensorInfo, Defect> {
    let name = read_name(cursor).map_err(|f| f.field(format!("tensor {number}, name")))?;
    let within = |field: &str| format!("tensor {name:?}, {field}");

    let start = cursor.clone();
    let n_dims = cursor.u32().map_err(|f| f.field(within("n_dims")))?;
    if !(1..=MAX_DIMS).contains(&n_dims) {
        return Err(start.fault(Kind::DimensionCount { found: n_dims }).field(within("n_dims")));
    }
    let dims = cursor.clone();
    let ne = (0..n_dims).map(|_| cursor.u64()).collect::<Result<Vec<u64>, Fault>>();
    let ne = GgmlNe::new(ne.map_err(|f| f.field(within("ne")))?);

    let start = cursor.clone();
    let id = cursor.u32().map_err(|f| f.field(within("type")))?;
    let encoding = Encoding::from_ggml_id(id)
        .map_err(|unknown| start.fault(Kind::TensorType(unknown)).field(within("type")))?;
    let size = size(encoding, &ne, alignment).map_err(|kind| dims.fault(kind).field(within("ne")))?;

    let start = cursor.clone();
    let offset = cursor.u64().map_err(|f| f.field(within("offset")))?;
    if !offset.is_multiple_of(alignment.into()) {
        let kind = Kind::OffsetUnaligned { found: offset, alignment };
        return Err(start.fault(kind).field(within("offset")));
    }
    Ok(TensorInfo { name: name.to_owned(), encoding, shape: ne.to_shape(), file: 0, offset, size })
}

fn read_name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, Fault> {
    let start = cursor.clone();
    let name = cursor.string()?;
    match name.len() as u64 {
        0 => Err(start.fault(Kind::EmptyName)),
        found if found > NAME_BYTES => Err(start.fault(Kind::NameTooLong { found })),
        _ => Ok(name),
    }
}

/// The bytes of a tensor: whole blocks in every row, countable in 63 bits (ggml's dimensions are signed) even when
/// padded.
pub(super) fn size(encoding: Encoding, ne: &GgmlNe, alignment: u32) -> Result<u64, Kind> {
    let overflow = || Kind::SizeOverflow { encoding, ne: ne.clone(), alignment };
    let signed = |n: &u64| i64::try_from(*n).is_ok();
    if !ne.as_slice().iter().all(signed) {
        return Err(overflow());
    }
    let shape = ne.to_shape();
    let row = shape.row_len();
    if !row.is_multiple_of(encoding.block_len() as u64) {
        return Err(Kind::PartialBlock { encoding, row });
    }
    let elements = shape.elements().filter(signed).ok_or_else(overflow)?;
    let size = encoding.byte_len(elements).ok_or_else(overflow)?;
    match size.checked_next_multiple_of(alignment.into()) {
        Some(padded) if signed(&padded) => Ok(size),
        _ => Err(overflow()),
    }
}

/// The data section: where it starts in the file, how much of it there is.
struct Data {
    start: u64,
    len: u64,
    alignment: u64,
}

impl Data {
    /// Checks that every tensor lies inside, and that no two share a byte.
    fn check(&self, tensors: &[TensorInfo], offset_fields: &[u64]) -> Result<(), Defect> {
        let refuse = |at: usize, kind| {
            let field = format!("tensor {:?}, offset", tensors[at].name);
            Err(Defect { field, offset: offset_fields[at], kind })
        };
        for (at, info) in tensors.iter().enumerate() {
            let end = info.offset.checked_add(info.size);
            // The padding behind the last tensor may be missing, and an empty tensor may stand there.
            let last = if info.size == 0 { self.len.next_multiple_of(self.alignment) } else { self.len };
            if end.is_none_or(|end| end > last) {
                let kind = Kind::BeyondEnd { start: info.offset, size: info.size, available: self.len };
                return refuse(at, kind);
            }
        }
        let mut order: Vec<usize> = (0..tensors.len()).filter(|&i| tensors[i].size > 0).collect();
        order.sort_by_key(|&i| tensors[i].offset);
        for pair in order.windows(2) {
            let (before, after) = (&tensors[pair[0]], &tensors[pair[1]]);
            let other_end = before.offset + before.size;
            if after.offset < other_end {
                let kind = Kind::Overlap { start: after.offset, other: before.name.clone(), other_end };
                return refuse(pair[1], kind);
            }
        }
        Ok(())
    }
}
