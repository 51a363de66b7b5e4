//! The header of one file: parsed, and checked against the bytes behind it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use codec::Encoding;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::{Defect, PREFIX};
use crate::{Limits, Shape};

/// What one file holds: tensors by position, and `__metadata__`.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: Vec<Entry>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// One tensor; `offset` is from the start of the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) encoding: Encoding,
    pub(super) shape: Shape,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Parses the header of a whole file and checks every range: inside the data, of the right length, back to back.
pub(super) fn read(file: &[u8], limits: &Limits) -> Result<Header, Defect> {
    let len = file.len() as u64;
    let Some((prefix, rest)) = file.split_first_chunk::<PREFIX>() else {
        return Err(Defect::TooShort { len });
    };
    let declared = u64::from_le_bytes(*prefix);
    let available = rest.len() as u64;
    if declared > available {
        return Err(Defect::HeaderBeyondFile { declared, available });
    }
    if declared > limits.header_bytes {
        return Err(Defect::HeaderTooLong { declared, limit: limits.header_bytes });
    }
    let (json, data) = rest.split_at(declared as usize);
    let (described, metadata) = parse(json)?;
    let tensors = place(described, PREFIX as u64 + declared, data.len() as u64)?;
    Ok(Header { tensors, metadata })
}

/// Turns descriptions into checked ranges of a file whose data start at `start` and are `available` bytes long.
fn place(mut described: Vec<(String, Described)>, start: u64, available: u64) -> Result<Vec<Entry>, Defect> {
    let mut names = HashSet::with_capacity(described.len());
    if let Some((tensor, _)) = described.iter().find(|(name, _)| !names.insert(name.as_str())) {
        return Err(Defect::Duplicate { tensor: tensor.clone() });
    }
    // The order in the header is free; the order of the bytes is what a reader wants. Stable, so that empty tensors
    // that share an offset stay in the header's order.
    described.sort_by_key(|(_, d)| d.data_offsets);
    let mut entries: Vec<Entry> = Vec::with_capacity(described.len());
    let mut expected = 0;
    for (tensor, Described { dtype, shape, data_offsets: (begin, end) }) in described {
        let shape = Shape::new(shape);
        let Some(encoding) = Encoding::from_safetensors(&dtype) else {
            return Err(Defect::UnknownDtype { tensor, dtype: dtype.into_owned(), supported: supported() });
        };
        let Some(size) = shape.elements().and_then(|n| encoding.byte_len(n)) else {
            return Err(Defect::SizeOverflow { tensor, dtype: dtype.into_owned(), shape });
        };
        if end < begin {
            return Err(Defect::ReversedOffsets { tensor, begin, end });
        }
        if end - begin != size {
            let dtype = dtype.into_owned();
            return Err(Defect::SizeMismatch { tensor, dtype, shape, expected: size, begin, end });
        }
        if end > available {
            return Err(Defect::BeyondEnd { tensor, begin, end, available });
        }
        if begin > expected {
            return Err(Defect::Gap { tensor, expected, begin });
        }
        if begin < expected {
            let other = entries.last().map(|e| e.name.clone()).unwrap_or_default();
            return Err(Defect::Overlap { tensor, begin, other, other_end: expected });
        }
        expected = end;
        entries.push(Entry { name: tensor, encoding, shape, offset: start + begin, size });
    }
    if expected != available {
        return Err(Defect::TrailingBytes { expected, found: available });
    }
    Ok(entries)
}

fn supported() -> String {
    let names: Vec<&str> = Encoding::ALL.iter().filter_map(|e| e.safetensors_name()).collect();
    names.join(", ")
}

/// A tensor as the header describes it, unchecked.
#[derive(Deserialize)]
struct Described<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

type Parsed<'a> = (Vec<(String, Described<'a>)>, BTreeMap<String, String>);

fn parse(json: &[u8]) -> Result<Parsed<'_>, Defect> {
    let text = std::str::from_utf8(json)
        .map_err(|e| Defect::NotUtf8 { offset: (PREFIX + e.valid_up_to()) as u64 })?;
    let mut entry = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Entries { current: &mut entry }
        .deserialize(&mut deserializer)
        .and_then(|parsed| {
            entry = None;
            deserializer.end().map(|()| parsed)
        })
        .map_err(|e| Defect::Json { entry, line: e.line(), column: e.column(), message: message(&e) })
}

/// What serde_json says, without the position that it appends and that is reported apart.
pub(super) fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Reads the entries in the header's order, and leaves the name of the one it was in when it failed.
struct Entries<'c> {
    current: &'c mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = Parsed<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Parsed<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tensors = Vec::new();
        let mut metadata = None;
        while let Some(name) = map.next_key::<String>()? {
            let name = self.current.insert(name);
            if name == "__metadata__" {
                if metadata.is_some() {
                    return Err(serde::de::Error::custom("__metadata__ is there twice"));
                }
                metadata = Some(map.next_value::<Option<_>>()?.unwrap_or_default());
            } else {
                let described = map.next_value()?;
                tensors.push((std::mem::take(name), described));
            }
            *self.current = None;
        }
        Ok((tensors, metadata.unwrap_or_default()))
    }
}
