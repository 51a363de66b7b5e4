//! The first 24 bytes of a file: magic, version, and how much follows.

use super::cursor::{ByteOrder, Cursor};
use super::defect::{Defect, Kind};
use super::{MAGIC, key_values, tensor_infos};
use crate::Limits;

/// What a file says before its keys. The counts could be true, the file is large enough for them, and the
/// limits admit them.
pub(super) struct Prefix {
    pub(super) version: u32,
    pub(super) order: ByteOrder,
    pub(super) n_tensors: u64,
    pub(super) n_kv: u64,
}

impl Prefix {
    /// Bytes of magic, version and two counts.
    pub(super) const BYTES: u64 = 4 + 4 + 8 + 8;

    pub(super) fn read(file: &[u8], limits: &Limits) -> Result<Prefix, Defect> {
        let mut cursor = Cursor::new(file, 0, ByteOrder::Little);
        let start = cursor.clone();
        let found = cursor.array().map_err(|f| f.field("magic"))?;
        if found != MAGIC {
            return Err(start.fault(Kind::BadMagic { found }).field("magic"));
        }
        let (version, order) = version(&mut cursor)?;
        cursor.order = order;
        let n_tensors = count(&mut cursor, "n_tensors", tensor_infos::LEAST_BYTES, limits.tensors)?;
        let n_kv = count(&mut cursor, "n_kv", key_values::LEAST_BYTES, limits.keys)?;
        Ok(Prefix { version, order, n_tensors, n_kv })
    }
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

fn count(cursor: &mut Cursor, field: &str, least: u64, limit: u64) -> Result<u64, Defect> {
    let start = cursor.clone();
    let declared = cursor.u64().map_err(|f| f.field(field))?;
    let available = cursor.remaining();
    if declared > available / least {
        return Err(start.fault(Kind::CountBeyondFile { declared, least, available }).field(field));
    }
    if declared > limit {
        return Err(start.fault(Kind::TooMany { declared, limit }).field(field));
    }
    Ok(declared)
}
