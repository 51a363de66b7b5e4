//! A trace in a `.safetensors` file.

use std::collections::HashMap;
use std::sync::Arc;

use ::safetensors::tensor::TensorInfo;
use serde::Deserialize;

use crate::Error;
use crate::dtype::{Dtype, Endian};
use crate::entry::{Contents, Entry, Stretch};
use crate::manifest::Manifest;
use crate::source::Source;

/// Length of the field that holds the header's length.
pub(crate) const LENGTH_FIELD: u64 = 8;

/// The format's own bound on its header.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Option<HashMap<String, String>>,
    #[serde(flatten)]
    tensors: HashMap<String, TensorInfo>,
}

/// The tensors in the order of their bytes, and the manifest.
pub(crate) fn open(source: Source) -> Result<Contents, Error> {
    let place = source.place();
    let source = Arc::new(source);
    if source.len() < LENGTH_FIELD {
        return Err(place.malformed(format!("is {} bytes long; the header's length takes 8", source.len())));
    }
    let field = source.bytes(0, LENGTH_FIELD)?;
    let length = field.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    if length > MAX_HEADER.min(source.len() - LENGTH_FIELD) {
        return Err(place.malformed(format!(
            "declares a header of {length} bytes, but {} follow, and {MAX_HEADER} is the format's limit",
            source.len() - LENGTH_FIELD
        )));
    }
    let header: Header = serde_json::from_slice(&source.bytes(LENGTH_FIELD, length)?)
        .map_err(|e| place.malformed(format!("the header is not that of a safetensors file: {e}")))?;

    let data = LENGTH_FIELD + length;
    let room = source.len() - data;
    let mut tensors: Vec<_> = header.tensors.into_iter().collect();
    tensors.sort_by(|(a, x), (b, y)| (x.data_offsets, a).cmp(&(y.data_offsets, b)));
    let mut filled = 0;
    let mut arrays = Vec::new();
    for (name, info) in tensors {
        let place = place.part(&name);
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        if start != filled || end < start || end > room {
            return Err(place.malformed(format!(
                "data_offsets [{start}, {end}] do not continue from {filled} within {room} bytes of data"
            )));
        }
        filled = end;
        let Some(dtype) = Dtype::from_safetensors(info.dtype) else {
            return Err(place.unsupported(format!(
                "element type {}; a trace holds real numbers and integers of 8 to 64 bits",
                info.dtype
            )));
        };
        let needed = crate::tensor::elements(&info.shape).and_then(|n| n.checked_mul(dtype.size()));
        if needed.map(|n| n as u64) != Some(end - start) {
            return Err(place.malformed(format!(
                "shape {:?} of {} does not fill the {} bytes of its data_offsets",
                info.shape,
                dtype.name(),
                end - start
            )));
        }
        let stretch = Stretch {
            source: Arc::clone(&source),
            start: data + start,
            stored: end - start,
            size: end - start,
            deflated: false,
            crc: None,
        };
        let entry = Entry {
            place,
            stretch,
            skip: 0,
            dtype,
            endian: Endian::Little,
            fortran: false,
            shape: info.shape,
        };
        arrays.push((name, entry));
    }
    if filled != room {
        return Err(place.malformed(format!("{room} bytes of data, but the tensors end at {filled}")));
    }
    let manifest = match header.metadata.as_ref().and_then(|m| m.get(Manifest::SAFETENSORS_KEY)) {
        Some(text) => Some(Manifest::read(&mut text.as_bytes(), &place.part(Manifest::SAFETENSORS_KEY))?),
        None => None,
    };
    Ok(Contents { arrays, manifest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Values;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend((0..data).map(|b| b as u8));
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<Contents, String> {
        open(Source::memory("t.safetensors", bytes)).map_err(|e| e.to_string())
    }

    const HEADER: &str = r#"{"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},"a":{"dtype":"I64","shape":[],"data_offsets":[4,12]}}"#;

    #[test]
    fn tensors_come_in_the_order_of_their_bytes() {
        let Contents { arrays, manifest } = read(file(HEADER, 12)).unwrap();
        assert!(manifest.is_none());
        let names: Vec<_> = arrays.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(arrays[0].1.shape, [1, 2]);
        let expected = [0x0100u16, 0x0302].map(|bits| half::bf16::from_bits(bits).to_f32());
        assert_eq!(arrays[0].1.read().unwrap().values, Values::F32(expected.to_vec()));
        assert_eq!(arrays[1].1.read().unwrap().values, Values::I64(vec![0x0b0a_0908_0706_0504]));
    }

    #[test]
    fn what_the_public_crate_writes_is_read() {
        let data: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F64, vec![2], &data).unwrap();
        let manifest = HashMap::from([(
            Manifest::SAFETENSORS_KEY.to_owned(),
            r#"{"version":1,"tokens":[1,2]}"#.to_owned(),
        )]);
        let bytes = ::safetensors::serialize([("x", view)], Some(manifest)).unwrap();
        let Contents { arrays, manifest } = read(bytes).unwrap();
        assert_eq!(arrays[0].1.read().unwrap().values, Values::F64(vec![1.5, -2.0]));
        assert_eq!(manifest.unwrap().tokens, Some(vec![1, 2]));
    }

    #[test]
    fn faults_are_named() {
        for (from, to, fault) in [
            ("[0,4]", "[0,5]", "`b`: shape [1, 2] of bf16 does not fill the 5 bytes"),
            ("[4,12]", "[5,13]", "`a`: data_offsets [5, 13] do not continue from 4"),
            ("[4,12]", "[4,2]", "`a`: data_offsets"),
            ("[4,12]", "[4,99999999]", "`a`: data_offsets"),
            ("[4,12]", "[4,18446744073709551615]", "`a`: data_offsets"),
            ("\"I64\"", "\"F8_E4M3\"", "`a`: element type F8_E4M3"),
            ("\"I64\"", "\"I65\"", "not that of a safetensors file"),
            ("[1,2]", "[4294967296,4294967296]", "does not fill"),
            (",\"a\"", "\"a\"", "not that of a safetensors file"),
        ] {
            let header = HEADER.replacen(from, to, 1);
            assert_ne!(header, HEADER);
            let error = read(file(&header, 12)).expect_err(fault);
            assert!(error.contains(fault) && error.starts_with("t.safetensors"), "{fault}: {error}");
        }
        assert!(read(file(HEADER, 13)).unwrap_err().contains("13 bytes of data, but the tensors end at 12"));
        assert!(read(u64::MAX.to_le_bytes().to_vec()).unwrap_err().contains("18446744073709551615"));
        let sound = file(HEADER, 12);
        for length in 0..sound.len() {
            assert!(read(sound[..length].to_vec()).is_err(), "{length}");
        }
    }
}
