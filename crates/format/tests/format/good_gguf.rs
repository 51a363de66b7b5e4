//! Files written by the public `gguf` package and by llama.cpp are read as they were meant, and written back the same.

use std::fs;
use std::path::Path;

use codec::Encoding;
use format::gguf::{ByteOrder, Draft, KeyError, KeyValues, Reader, Value, ValueType};
use format::{Existing, Limits, TensorSource};

use crate::fixtures;

const GOOD: [&str; 8] = [
    "every-type",
    "alignment-8",
    "alignment-256",
    "keys-only",
    "imatrix",
    "split-00001-of-00003",
    "split-00002-of-00003",
    "split-00003-of-00003",
];

fn read(name: &str) -> Reader {
    let path = fixtures::path(&format!("gguf/{name}.gguf"));
    Reader::from_bytes(&path, fs::read(&path).unwrap(), &Limits::default()).unwrap()
}

/// Writes what was read, in the same order.
pub fn copy(source: &Reader, to: &Path) {
    let mut draft = Draft::new(to);
    for (key, value) in source.keys().iter() {
        draft.put(key, value).unwrap();
    }
    for info in source.tensors() {
        draft.tensor(&info.name, info.encoding, &info.shape).unwrap();
    }
    let mut writer = draft.create(Existing::Refuse).unwrap();
    for info in source.tensors() {
        writer.write(&info.name, source.bytes(info)).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn reading_and_writing_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for name in GOOD {
        let to = dir.path().join(name);
        copy(&read(name), &to);
        let original = fs::read(fixtures::path(&format!("gguf/{name}.gguf"))).unwrap();
        assert!(fs::read(to).unwrap() == original, "{name}");
    }
}

#[test]
fn every_type_of_value_is_read() {
    let file = read("every-type");
    let keys = file.keys();
    assert_eq!((keys.version(), keys.byte_order(), keys.alignment()), (3, ByteOrder::Little, 32));
    let scalars = [
        ("scalar.uint8.0", Value::U8(255)),
        ("scalar.int8.1", Value::I8(-128)),
        ("scalar.uint16.2", Value::U16(65_535)),
        ("scalar.int16.3", Value::I16(-32_768)),
        ("scalar.uint32.4", Value::U32(u32::MAX)),
        ("scalar.int32.5", Value::I32(i32::MIN)),
        ("scalar.float32.6", Value::F32(1.5)),
        ("scalar.bool.7", Value::Bool(true)),
        ("scalar.bool.8", Value::Bool(false)),
        ("scalar.string.9", Value::String("žluťoučký kůň 🐎")),
        ("scalar.uint64.10", Value::U64(u64::MAX)),
        ("scalar.int64.11", Value::I64(i64::MIN)),
        ("scalar.float64.12", Value::F64(1e300)),
        ("empty.key.with.dots", Value::String("")),
    ];
    for (key, value) in scalars {
        assert_eq!(keys.get(key), Some(value), "{key}");
    }
    let long = "x".repeat(300);
    let arrays: [(&str, Vec<Value>); 12] = [
        ("array.uint8.0", [1, 2, 3].map(Value::U8).to_vec()),
        ("array.int8.1", [-1, 1].map(Value::I8).to_vec()),
        ("array.uint16.2", [1, 65_535].map(Value::U16).to_vec()),
        ("array.int16.3", [-2, 2].map(Value::I16).to_vec()),
        ("array.uint32.4", [7, u32::MAX].map(Value::U32).to_vec()),
        ("array.int32.5", [-7, 7].map(Value::I32).to_vec()),
        ("array.float32.6", [0.5, -0.25].map(Value::F32).to_vec()),
        ("array.bool.7", [true, false, true].map(Value::Bool).to_vec()),
        ("array.string.8", ["a", "bc", "ď", &long].map(Value::String).to_vec()),
        ("array.uint64.9", vec![Value::U64(u64::MAX)]),
        ("array.int64.10", [i64::MIN, 0].map(Value::I64).to_vec()),
        ("array.float64.11", vec![Value::F64(1e-300)]),
    ];
    for (key, values) in arrays {
        let array = keys.get_array(key).unwrap();
        assert_eq!(
            (array.len(), array.element_type()),
            (values.len() as u64, values[0].value_type()),
            "{key}"
        );
        assert_eq!(array.elements().collect::<Result<Vec<_>, _>>().unwrap(), values, "{key}");
    }
    assert_eq!(keys.get_str("general.architecture"), Ok("test"));
    assert_eq!(keys.len(), 1 + 13 + 12 + 1);
    assert_eq!(keys.iter().count(), keys.len());
}

#[test]
fn getters_say_what_they_found() {
    let file = read("every-type");
    let keys: &KeyValues = file.keys();
    assert_eq!(keys.get_u64("scalar.uint8.0"), Ok(255));
    assert_eq!(keys.get_i64("scalar.int64.11"), Ok(i64::MIN));
    assert_eq!(keys.get_f64("scalar.float32.6"), Ok(1.5));
    assert_eq!(keys.get_bool("scalar.bool.7"), Ok(true));
    assert!(keys.contains("scalar.bool.7") && !keys.contains("scalar.bool"));
    assert_eq!(keys.get_u64("absent"), Err(KeyError::Missing { key: "absent".into() }));
    let said = |result: Result<u64, KeyError>| result.unwrap_err().to_string();
    let expected = "expected an integer that is not negative, found";
    assert_eq!(said(keys.get_u64("scalar.int8.1")), format!("key \"scalar.int8.1\": {expected} I8(-128)"));
    assert_eq!(
        said(keys.get_u64("scalar.string.9")),
        format!("key \"scalar.string.9\": {expected} a string")
    );
    let array = said(keys.get_u64("array.int32.5"));
    assert_eq!(array, format!("key \"array.int32.5\": {expected} an array of 2 i32"));
}

#[test]
fn tensors_lie_where_they_say_outermost_dimension_first() {
    let file = read("every-type");
    let expected: [(&str, Encoding, &[u64]); 10] = [
        ("f32", Encoding::F32, &[2, 3, 4]),
        ("f16", Encoding::F16, &[7]),
        ("i8", Encoding::I8, &[6, 1]),
        ("i16", Encoding::I16, &[5]),
        ("i32", Encoding::I32, &[3]),
        ("i64", Encoding::I64, &[1, 2]),
        ("f64", Encoding::F64, &[2]),
        ("four.dims", Encoding::F32, &[2, 1, 3, 5]),
        ("q8_0", Encoding::Q8_0, &[2, 32]),
        ("q4_k", Encoding::Q4K, &[1, 256]),
    ];
    let found: Vec<_> =
        file.tensors().iter().map(|t| (t.name.as_str(), t.encoding, t.shape.dims())).collect();
    assert_eq!(found, expected);
    let bytes = |name| file.bytes(file.tensor(name).unwrap());
    let floats: Vec<u8> = (0..24).flat_map(|i| (i as f32).to_le_bytes()).collect();
    assert_eq!(bytes("f32"), floats);
    assert_eq!(bytes("i16"), (0..5i16).flat_map(|i| (-300 * i).to_le_bytes()).collect::<Vec<u8>>());
    assert_eq!(bytes("q4_k"), (0..144).collect::<Vec<u8>>());
    assert!(file.tensor("absent").is_none());
    for info in file.tensors() {
        assert_eq!((info.file, info.offset % 32), (0, 0));
    }
}

#[test]
fn a_big_endian_file_gives_the_same_keys_and_numbers() {
    let (little, big) = (read("every-type"), read("every-type-big-endian"));
    assert_eq!(big.keys().byte_order(), ByteOrder::Big);
    assert_eq!(big.keys().len(), little.keys().len());
    for ((key, value), (big_key, big_value)) in little.keys().iter().zip(big.keys().iter()) {
        assert_eq!(key, big_key);
        match (value, big_value) {
            (Value::Array(a), Value::Array(b)) => {
                assert_eq!(a.element_type(), b.element_type(), "{key}");
                assert!(a.elements().eq(b.elements()), "{key}");
            }
            (value, big_value) => assert_eq!(value, big_value, "{key}"),
        }
    }
    assert_eq!(big.tensors().len(), 8);
    for info in big.tensors() {
        let same = little.tensor(&info.name).unwrap();
        assert_eq!((info.encoding, &info.shape), (same.encoding, &same.shape));
        assert_eq!(big.bytes(info), little.bytes(same), "{}", info.name);
    }
    // Written back it is little-endian, and the same but for the two tensors that only the other file has.
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("swapped.gguf");
    copy(&big, &to);
    let swapped = Reader::open(&to, &Limits::default()).unwrap();
    assert!(swapped.keys().iter().eq(little.keys().iter()));
}

#[test]
fn alignment_moves_the_data() {
    for (name, alignment) in [("alignment-8", 8), ("alignment-256", 256)] {
        let file = read(name);
        assert_eq!(file.keys().alignment(), alignment);
        assert_eq!(file.tensors().len(), 3);
        for info in file.tensors() {
            assert_eq!(info.offset % u64::from(alignment), 0, "{name}");
        }
        let i8s: Vec<u8> = (-3..3i8).map(|i| i as u8).collect();
        assert_eq!(file.bytes(file.tensor("i8").unwrap()), i8s);
    }
}

#[test]
fn version_2_is_read_as_3_is() {
    let mut bytes = fs::read(fixtures::path("gguf/every-type.gguf")).unwrap();
    bytes[4] = 2;
    let file = Reader::from_bytes("memory".as_ref(), bytes, &Limits::default()).unwrap();
    assert_eq!(file.keys().version(), 2);
    assert_eq!(file.tensors(), read("every-type").tensors());
}

#[test]
fn llama_imatrix_output_has_its_keys_and_sums() {
    let file = read("imatrix");
    assert_eq!(file.keys().get_str("general.type"), Ok("imatrix"));
    assert_eq!(file.keys().get_u64("imatrix.chunk_count"), Ok(12));
    assert_eq!(file.keys().get_array("imatrix.datasets").unwrap().element_type(), ValueType::String);
    assert_eq!(file.tensors().len(), 92);
    let sums = file.tensor("blk.0.ffn_down.weight.in_sum2").unwrap();
    let mut values = vec![0.0; sums.shape.elements().unwrap() as usize];
    sums.encoding.decode(file.bytes(sums), &mut values).unwrap();
    assert!(values.iter().all(|v| v.is_finite() && *v >= 0.0) && values.iter().any(|v| *v > 0.0));
}

#[test]
fn an_empty_tensor_is_legal_wherever_it_stands() {
    use crate::raw::{F32, Raw};
    let limits = Limits::default();
    let head = |at: u64| {
        Raw::head(2, 0).tensor("a", &[1], F32).u64(0).tensor("empty", &[4, 0], F32).u64(at).pad(32).zeros(4)
    };
    // Beside data, and behind the padding that the last tensor may lack.
    for at in [0, 32] {
        let file = Reader::from_bytes("memory".as_ref(), head(at).bytes, &limits).unwrap();
        let info = file.tensor("empty").unwrap();
        assert_eq!((info.shape.dims(), info.size), (&[0, 4][..], 0));
        assert!(file.bytes(info).is_empty());
    }
    let big_endian = Raw::big_endian_head(1, 0).tensor("empty", &[0], F32).u64(0);
    let file = Reader::from_bytes("memory".as_ref(), big_endian.bytes, &limits).unwrap();
    assert!(file.bytes(&file.tensors()[0]).is_empty());
    let alone = Raw::head(1, 0).tensor("empty", &[0], F32).u64(0);
    let file = Reader::from_bytes("memory".as_ref(), alone.bytes, &limits).unwrap();
    assert!(file.bytes(&file.tensors()[0]).is_empty());
}

#[test]
fn nothing_is_copied_from_the_mapping() {
    let path = fixtures::path("gguf/every-type.gguf");
    let file = Reader::open(&path, &Limits::default()).unwrap();
    let infos = file.tensors();
    let base = file.bytes(&infos[0]).as_ptr() as u64 - infos[0].offset;
    for info in infos {
        assert_eq!(file.bytes(info).as_ptr() as u64, base + info.offset, "{}", info.name);
    }
    let Some(Value::String(text)) = file.keys().get("scalar.string.9") else { panic!() };
    let inside = base..base + fs::metadata(&path).unwrap().len();
    assert!(inside.contains(&(text.as_ptr() as u64)));
}

#[test]
#[should_panic(expected = "does not belong to this checkpoint")]
fn a_tensor_of_another_file_is_a_mistake_of_the_caller() {
    let (long, short) = (read("imatrix"), read("alignment-8"));
    let last = long.tensors().last().unwrap();
    short.bytes(last);
}
