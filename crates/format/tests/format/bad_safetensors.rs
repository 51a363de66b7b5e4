//! Bad safetensors files, each wrong in one place, and what is said about each. They lie in
//! `fixtures/safetensors/x-*.safetensors` for other readers to try.

use format::{Error, Limits, open};

use crate::fixtures;

/// A file with this header, given its true length, and this many bytes of data.
fn with(json: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let json = json.as_ref();
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json);
    file.resize(file.len() + data, 0);
    file
}

/// One tensor `t`.
fn one(dtype: &str, shape: &str, offsets: &str, data: usize) -> Vec<u8> {
    with(format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), data)
}

/// Two F32 vectors `a` and `b`.
fn two(a: (u64, u64), b: (u64, u64), data: usize) -> Vec<u8> {
    let tensor = |(begin, end): (u64, u64)| {
        format!(r#"{{"dtype":"F32","shape":[{}],"data_offsets":[{begin},{end}]}}"#, (end - begin) / 4)
    };
    with(format!(r#"{{"a":{},"b":{}}}"#, tensor(a), tensor(b)), data)
}

/// A declared header length and nothing like it behind.
fn declared(len: u64) -> Vec<u8> {
    let mut file = len.to_le_bytes().to_vec();
    file.extend(b"{}");
    file
}

const POSITION: &str = "of the JSON that starts at byte 8)";

/// `(name, file, what is said)`.
fn cases() -> Vec<(&'static str, Vec<u8>, String)> {
    let mut cases: Vec<(&'static str, Vec<u8>, String)> = Vec::new();
    let mut add = |name, file, said: &str| cases.push((name, file, said.to_owned()));

    add("seven-bytes", vec![0; 7], "header length at byte 0: expected 8 bytes, the file has 7");
    let beyond =
        |n: u64| format!("header length at byte 0: expected at most the 2 bytes that follow, found {n}");
    add("header-one-too-long", declared(3), &beyond(3));
    add("header-2-63", declared(1 << 63), &beyond(1 << 63));
    add("header-max", declared(u64::MAX), &beyond(u64::MAX));
    let not_utf8 = with(b"{\"\xff\":{}}", 0);
    add("header-not-utf8", not_utf8, "header: expected UTF-8, found an invalid sequence at byte 10");
    let json = |entry: &str, said: &str, column: u32| {
        format!("header{entry}: {said} (line 1, column {column} {POSITION}")
    };
    add("header-empty", with("", 0), &json("", "EOF while parsing a value", 0));
    let list = "invalid type: sequence, expected an object of tensors";
    add("header-list", with("[]", 0), &json("", list, 0));
    add("header-cut", with("{\"t\":{", 0), &json(", entry \"t\"", "EOF while parsing an object", 6));
    add("header-trailing", with("{} {}", 0), &json("", "trailing characters", 4));
    let t = ", entry \"t\"";
    add(
        "dtype-missing",
        with(r#"{"t":{"shape":[0],"data_offsets":[0,0]}}"#, 0),
        &json(t, "missing field `dtype`", 39),
    );
    let negative = "invalid value: integer `-1`, expected u64";
    add("shape-negative", one("F32", "[-1]", "[0,4]", 4), &json(t, negative, 31));
    let half = "invalid type: floating point `1.5`, expected u64";
    add("shape-half", one("F32", "[1.5]", "[0,4]", 4), &json(t, half, 32));
    let too_large = "invalid type: floating point `1.8446744073709552e+19`, expected u64";
    add("shape-2-64", one("F32", "[18446744073709551616]", "[0,4]", 4), &json(t, too_large, 49));
    let short = "invalid length 1, expected a tuple of size 2";
    add("offsets-one", one("F32", "[1]", "[0]", 4), &json(t, short, 50));
    let metadata = with(r#"{"__metadata__":{"n":1}}"#, 0);
    let number = "invalid type: integer `1`, expected a string";
    add("metadata-number", metadata, &json(", entry \"__metadata__\"", number, 22));
    let twice = with(r#"{"__metadata__":{},"__metadata__":{}}"#, 0);
    add("metadata-twice", twice, &json(", entry \"__metadata__\"", "__metadata__ is there twice", 33));

    let known = "F32, F16, BF16, F64, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, F8_E4M3, F8_E5M2";
    for (name, dtype, elements, bytes) in [
        ("dtype-f4", "F4", 2, 1),
        ("dtype-f6", "F6_E2M3", 4, 3),
        ("dtype-f8-scale", "F8_E8M0", 1, 1),
        ("dtype-c64", "C64", 1, 8),
        ("dtype-lower", "f32", 1, 4),
        ("dtype-empty", "", 1, 1),
    ] {
        let said = format!("tensor \"t\": dtype {dtype:?} is not supported; expected one of {known}");
        add(name, one(dtype, &format!("[{elements}]"), &format!("[0,{bytes}]"), bytes), &said);
    }
    let overflow = |shape: &str| format!("tensor \"t\": the size of F32 {shape} overflows 64 bits");
    let shape = "[4294967296, 4294967296]";
    add("shape-wraps-to-0", one("F32", shape, "[0,0]", 0), &overflow(shape));
    add(
        "bytes-wrap-to-0",
        one("F32", "[4611686018427387904]", "[0,0]", 0),
        &overflow("[4611686018427387904]"),
    );
    let mismatch = "tensor \"t\": F32 [2, 3] takes 24 bytes, data_offsets [0, 20] hold 20";
    add("size-mismatch", one("F32", "[2,3]", "[0,20]", 20), mismatch);
    add(
        "reversed",
        one("F32", "[1]", "[4,0]", 4),
        "tensor \"t\": data_offsets end at 0, before they begin at 4",
    );
    let outside = |end: u64, data: u64| {
        format!(
            "tensor \"t\": data_offsets [{}, {end}] leave the data, which has {data} bytes; is the file truncated?",
            end - 4
        )
    };
    add("data-one-byte-short", one("F32", "[1]", "[0,4]", 3), &outside(4, 3));
    add(
        "offsets-2-63",
        one("F32", "[1]", "[9223372036854775804,9223372036854775808]", 4),
        &outside(1 << 63, 4),
    );
    add(
        "offsets-max",
        one("F32", "[1]", "[18446744073709551611,18446744073709551615]", 4),
        &outside(u64::MAX, 4),
    );
    add(
        "overlap",
        two((0, 8), (4, 12), 12),
        "tensor \"b\": begins at 4, inside tensor \"a\", which ends at 8",
    );
    add(
        "overlap-whole",
        two((0, 8), (0, 8), 8),
        "tensor \"b\": begins at 0, inside tensor \"a\", which ends at 8",
    );
    let gap = |tensor: &str, expected: u64, begin: u64| {
        format!(
            "tensor {tensor:?}: expected to begin at {expected}, where the tensor before it ends, found {begin}"
        )
    };
    add("gap", two((0, 4), (8, 12), 12), &gap("b", 4, 8));
    add("gap-at-start", one("F32", "[1]", "[4,8]", 8), &gap("t", 0, 4));
    add(
        "trailing-byte",
        one("F32", "[1]", "[0,4]", 5),
        "expected 4 bytes of data, the end of the last tensor, found 5",
    );
    let t = r#""t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    add("tensor-twice", with(format!("{{{t},{t}}}"), 4), "tensor \"t\" is described twice");
    cases
}

#[test]
fn each_is_refused_for_its_reason() {
    let cases = cases();
    assert!(cases.len() >= 20, "{}", cases.len());
    for (name, _, said) in cases {
        let path = fixtures::path(&format!("safetensors/x-{name}.safetensors"));
        let error = match open(&path, &Limits::default()).err() {
            Some(error @ Error::Safetensors { .. }) => error,
            other => panic!("{name}: expected {said}, found {other:?}"),
        };
        assert_eq!(error.to_string(), format!("{}: {said}", path.display()), "{name}");
    }
}

#[test]
fn files_are_what_is_generated_here() {
    let cases = cases();
    let generated: Vec<(&str, &[u8])> =
        cases.iter().map(|(name, file, _)| (*name, file.as_slice())).collect();
    fixtures::check_generated("safetensors", "safetensors", &generated);
}

/// What only we refuse: dtypes that exist but have no decoder here, and a second description of a tensor, which the
/// `safetensors` crate lets replace the first.
const ONLY_OURS: [&str; 5] = ["dtype-f4", "dtype-f6", "dtype-f8-scale", "dtype-c64", "tensor-twice"];

#[test]
fn the_safetensors_crate_refuses_them_too() {
    let accepted: Vec<&str> = cases()
        .iter()
        .filter(|(_, file, _)| safetensors::SafeTensors::deserialize(file).is_ok())
        .map(|(name, ..)| *name)
        .collect();
    assert_eq!(accepted, ONLY_OURS);
}

#[test]
fn limits_are_the_callers() {
    let limits = Limits { header_bytes: 1, ..Limits::default() };
    let error = format::safetensors::Reader::from_bytes("memory".as_ref(), with("{}", 0), &limits).err();
    let said = error.map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(said, "memory: header length at byte 0: expected at most 1 bytes, found 2");
}
