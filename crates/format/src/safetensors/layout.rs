//! Where tensors go in a file that is to be written: the header in front of them, the shards they fall into.

use std::collections::BTreeMap;

use codec::Encoding;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::PREFIX;
use crate::Shape;
use crate::output::Slot;

/// A tensor that was declared.
#[derive(Clone)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) encoding: Encoding,
    pub(super) dtype: &'static str,
    pub(super) shape: Shape,
    pub(super) size: u64,
}

/// One file: its bytes before the data, the places of its tensors, its length.
pub(super) struct File {
    pub(super) header: Vec<u8>,
    pub(super) slots: Vec<Slot>,
    pub(super) len: u64,
}

/// Divides tensors, in order, so that none of the shards is longer than `max` bytes unless one tensor alone is.
pub(super) fn shards(tensors: Vec<Tensor>, max: u64) -> Vec<Vec<Tensor>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0u64;
    for tensor in tensors {
        if size > 0 && tensor.size > 0 && size.saturating_add(tensor.size) > max {
            shards.push(Vec::new());
            size = 0;
        }
        size = size.saturating_add(tensor.size);
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

/// Lays out one file; `None` if it is longer than 64 bits can count.
///
/// Elements must start at multiples of their size, or torch will not view them, and the format has no padding. So wide
/// elements come first; otherwise the order stays.
pub(super) fn lay_out(mut tensors: Vec<Tensor>, metadata: &BTreeMap<String, String>) -> Option<File> {
    tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.encoding.block_bytes()));
    let mut end = 0u64;
    let mut offsets = Vec::with_capacity(tensors.len());
    for tensor in &tensors {
        let begin = end;
        end = begin.checked_add(tensor.size)?;
        offsets.push((begin, end));
    }
    let mut json = serde_json::to_vec(&Header { metadata, tensors: &tensors, offsets: &offsets }).ok()?;
    json.resize(json.len().next_multiple_of(PREFIX), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    let start = header.len() as u64;
    let len = start.checked_add(end)?;
    let slot = |(tensor, (begin, _)): (Tensor, (u64, u64))| Slot {
        name: tensor.name,
        start: start + begin,
        size: tensor.size,
    };
    Some(File { header, slots: tensors.into_iter().zip(offsets).map(slot).collect(), len })
}

struct Header<'a> {
    metadata: &'a BTreeMap<String, String>,
    tensors: &'a [Tensor],
    offsets: &'a [(u64, u64)],
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Described<'a> {
            dtype: &'a str,
            shape: &'a [u64],
            data_offsets: (u64, u64),
        }
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry("__metadata__", self.metadata)?;
        }
        for (Tensor { name, dtype, shape, .. }, &data_offsets) in self.tensors.iter().zip(self.offsets) {
            map.serialize_entry(name, &Described { dtype, shape: shape.dims(), data_offsets })?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(sizes: &[u64]) -> Vec<Tensor> {
        let tensor = |(i, &size): (usize, &u64)| Tensor {
            name: format!("t{i}"),
            encoding: Encoding::U8,
            dtype: "U8",
            shape: Shape::new(vec![size]),
            size,
        };
        sizes.iter().enumerate().map(tensor).collect()
    }

    fn sizes(sizes: &[u64], max: u64) -> Vec<Vec<u64>> {
        shards(tensors(sizes), max).iter().map(|shard| shard.iter().map(|t| t.size).collect()).collect()
    }

    #[test]
    fn shards_keep_the_order_and_the_bound() {
        assert_eq!(sizes(&[4, 4, 4, 4], 8), [[4, 4], [4, 4]]);
        assert_eq!(sizes(&[4, 4, 1], 9), [vec![4, 4, 1]]);
        assert_eq!(sizes(&[20, 1, 20], 8), [[20], [1], [20]]);
        assert_eq!(sizes(&[0, 20, 0], 8), [[0, 20, 0]]);
        assert_eq!(sizes(&[], 8), [[0u64; 0]]);
    }

    #[test]
    fn a_file_too_long_to_count_is_none() {
        assert!(lay_out(tensors(&[u64::MAX, 1]), &BTreeMap::new()).is_none());
        assert!(lay_out(tensors(&[u64::MAX]), &BTreeMap::new()).is_none());
        assert!(lay_out(tensors(&[u64::MAX / 2]), &BTreeMap::new()).is_some());
    }
}
