//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::IndexDefect;
use super::header::message;
use crate::Limits;

/// Shards by name, each with the tensors that are to be in it.
pub(super) type Shards = BTreeMap<String, Vec<String>>;

/// Parses an index.
pub(super) fn read(text: &[u8], limits: &Limits) -> Result<Shards, IndexDefect> {
    let found = text.len() as u64;
    if found > limits.index_bytes {
        return Err(IndexDefect::TooLong { found, limit: limits.index_bytes });
    }
    let index: Index = serde_json::from_slice(text).map_err(|e| IndexDefect::Json {
        message: message(&e),
        line: e.line(),
        column: e.column(),
    })?;
    let mut entries = index.weight_map.0;
    entries.sort();
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(IndexDefect::DuplicateEntry { tensor: pair[0].0.clone() });
    }
    let mut shards = Shards::new();
    for (tensor, shard) in entries {
        if !is_file_name(&shard) {
            return Err(IndexDefect::ForeignPath { tensor, shard });
        }
        shards.entry(shard).or_default().push(tensor);
    }
    match shards.len() as u64 {
        0 => Err(IndexDefect::NoTensors),
        found if found > limits.files => Err(IndexDefect::TooManyShards { found, limit: limits.files }),
        _ => Ok(shards),
    }
}

/// Whether a name from a downloaded index stays in the directory it came in, on any system.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// The pairs of `weight_map` as they stand: a map type would keep the last of two entries and say nothing.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensor names and file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(WeightMap(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
