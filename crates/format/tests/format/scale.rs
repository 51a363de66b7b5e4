//! Files with very many small things: read in linear time. What each entry costs in memory is held by unit tests.

use format::gguf::{Reader, Value};
use format::{Limits, TensorSource};

use crate::raw::{ARRAY, F32, Raw, STRING, U8};

fn open(raw: Raw) -> Reader {
    Reader::from_bytes("memory".as_ref(), raw.bytes, &Limits::default()).unwrap()
}

#[test]
fn a_million_keys() {
    let n = 1_000_000u32;
    let raw = (0..n).fold(Raw::head(0, n.into()), |raw, i| raw.key(&format!("k{i}"), U8).u8(i as u8));
    let file = open(raw);
    assert_eq!(file.keys().len(), n as usize);
    for i in (0..n).step_by(997) {
        assert_eq!(file.keys().get(&format!("k{i}")), Some(Value::U8(i as u8)));
    }
    assert_eq!(file.keys().get("k1000000"), None);
}

#[test]
fn a_hundred_thousand_tensors() {
    let n = 100_000u64;
    let raw = (0..n).fold(Raw::head(n, 0), |raw, i| raw.tensor(&format!("t{i}"), &[1], F32).u64(32 * i));
    let file = open(raw.pad(32).zeros(32 * n as usize));
    assert_eq!(file.tensors().len(), n as usize);
    let info = file.tensor("t99999").unwrap();
    assert_eq!(info.offset - file.tensors()[0].offset, 32 * (n - 1));
}

#[test]
fn a_hundred_thousand_empty_arrays_in_one() {
    let n = 100_000;
    let raw = (0..n).fold(Raw::head(0, 1).array("k", ARRAY, n), |raw, _| raw.inner(STRING, 0));
    let file = open(raw);
    let array = file.keys().get_array("k").unwrap();
    let empty = array.elements().filter(|e| e.as_ref().unwrap().as_array().unwrap().is_empty()).count();
    assert_eq!(empty as u64, n);
}
