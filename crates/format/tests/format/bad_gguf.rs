//! Bad GGUF files, each wrong in one field, and what is said about each. They lie in `fixtures/gguf/x-*.gguf` for
//! other readers to try.

use codec::{Encoding, UnknownId};
use format::gguf::{Defect, Kind};
use format::{Error, GgmlNe, Limits, open};

use crate::fixtures;
use crate::raw::{ARRAY, BOOL, F32, I8, Q8_0, Raw, STRING, U8, U32, U64};

struct Case {
    name: &'static str,
    raw: Raw,
    field: &'static str,
    kind: Kind,
}

/// Cases in the order of a file's fields: `(name, file, field, kind)`; the file marks the offset.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, raw, field, kind| cases.push(Case { name, raw, field, kind });
    header(&mut add);
    keys(&mut add);
    arrays(&mut add);
    alignment(&mut add);
    descriptions(&mut add);
    sizes(&mut add);
    placement(&mut add);
    cases
}

type Add<'a> = &'a mut dyn FnMut(&'static str, Raw, &'static str, Kind);

const HUGE: u64 = 1 << 63;

fn truncated(needed: u64, available: u64) -> Kind {
    Kind::Truncated { needed, available }
}

fn length(declared: u64, least: u64, available: u64) -> Kind {
    Kind::LengthBeyondFile { declared, least, available }
}

fn header(add: Add) {
    let magic = |found: &[u8; 4]| Kind::BadMagic { found: *found };
    let start = |bytes: &[u8]| Raw::default().raw(bytes);
    add("magic-one-byte", start(b"G"), "magic", truncated(4, 1));
    add("magic-ggml", start(b"GGML").zeros(20), "magic", magic(b"GGML"));
    add("magic-reversed", start(b"FUGG").zeros(20), "magic", magic(b"FUGG"));
    add("magic-zip", start(b"PK\x03\x04").zeros(20), "magic", magic(b"PK\x03\x04"));

    let version = |v: u32| Raw::default().raw(b"GGUF").bad().u32(v).zeros(16);
    let wrong = |found| Kind::BadVersion { found };
    add("version-missing", start(b"GGUF").bad(), "version", truncated(4, 0));
    add("version-cut", start(b"GGUF").bad().raw(&[3, 0]), "version", truncated(4, 2));
    add("version-0", version(0), "version", wrong(0));
    add("version-1", version(1), "version", Kind::Version1);
    add("version-1-big-endian", version(1u32.swap_bytes()), "version", Kind::Version1);
    add("version-4", version(4), "version", wrong(4));
    add("version-4-big-endian", version(4u32.swap_bytes()), "version", wrong(4));
    add("version-max", version(u32::MAX), "version", wrong(u32::MAX));

    let counts = || Raw::default().raw(b"GGUF").u32(3);
    let beyond = |declared, least, available| Kind::CountBeyondFile { declared, least, available };
    add("n-tensors-missing", counts().bad().raw(&[0; 7]), "n_tensors", truncated(8, 7));
    add("n-tensors-2-63", counts().bad().u64(HUGE).u64(0), "n_tensors", beyond(HUGE, 33, 8));
    add("n-tensors-max", counts().bad().u64(u64::MAX).u64(0), "n_tensors", beyond(u64::MAX, 33, 8));
    add("n-tensors-wraps", counts().bad().u64(1 << 59).u64(0), "n_tensors", beyond(1 << 59, 33, 8));
    add("n-tensors-one-too-many", counts().bad().u64(3).u64(0).zeros(90), "n_tensors", beyond(3, 33, 98));
    add("n-kv-missing", counts().u64(0).bad(), "n_kv", truncated(8, 0));
    add("n-kv-2-63", counts().u64(0).bad().u64(HUGE), "n_kv", beyond(HUGE, 14, 0));
    add("n-kv-max", counts().u64(0).bad().u64(u64::MAX).zeros(64), "n_kv", beyond(u64::MAX, 14, 64));
    add("n-kv-one-too-many", counts().u64(0).bad().u64(3).zeros(41), "n_kv", beyond(3, 14, 41));
}

fn keys(add: Add) {
    let one = || Raw::head(0, 1);
    add("key-length-2-63", one().bad().u64(HUGE).zeros(9), "key 0", length(HUGE, 1, 9));
    add("key-length-max", one().bad().u64(u64::MAX).zeros(9), "key 0", length(u64::MAX, 1, 9));
    add("key-length-one-too-many", one().bad().u64(10).zeros(9), "key 0", length(10, 1, 9));
    add(
        "key-length-cut",
        Raw::head(0, 2).key("abcdefghijklmnop", U8).u8(1).bad().zeros(5),
        "key 1",
        truncated(8, 5),
    );
    add("key-empty", one().bad().key("", U8).zeros(9), "key 0", Kind::EmptyKey);
    add("key-not-utf8", one().bad().string(b"ab\xc3\x28").u32(U8).u8(1), "key 0", Kind::NotUtf8 { at: 34 });
    let first = Kind::DuplicateKey { first: 24 };
    let twice = || Raw::head(0, 2).key("twice", U8).u8(1).bad();
    add("key-twice", twice().key("twice", U8).u8(1), "key \"twice\"", first.clone());
    add("key-twice-other-type", twice().key("twice", U32).u32(1), "key \"twice\"", first);

    let unknown = |found| Kind::UnknownValueType { found };
    add("value-type-13", one().string("k").bad().u32(13).zeros(8), "key \"k\", type", unknown(13));
    add(
        "value-type-max",
        one().string("k").bad().u32(u32::MAX).zeros(8),
        "key \"k\", type",
        unknown(u32::MAX),
    );
    add("value-type-missing", one().string("abcdef").bad(), "key \"abcdef\", type", truncated(4, 0));
    add("value-cut", one().key("k", U64).bad().zeros(3), "key \"k\", value", truncated(8, 3));
    add("value-missing", one().key("key", U8).bad(), "key \"key\", value", truncated(1, 0));
    add("bool-2", one().key("k", BOOL).bad().u8(2), "key \"k\", value", Kind::NotBool { found: 2 });

    let string = || one().key("k", STRING).bad();
    let value = "key \"k\", value";
    add("string-2-63", string().u64(HUGE).zeros(5), value, length(HUGE, 1, 5));
    add("string-one-too-many", string().u64(6).zeros(5), value, length(6, 1, 5));
    add("string-length-cut", string().zeros(7), value, truncated(8, 7));
    add("string-not-utf8", string().string(b"caf\xe9"), value, Kind::NotUtf8 { at: 48 });
    add("string-surrogate", string().string(b"\xed\xa0\x80"), value, Kind::NotUtf8 { at: 45 });
}

fn arrays(add: Add) {
    let value = "key \"k\", value";
    let one = || Raw::head(0, 1);
    let of = |element| one().key("k", ARRAY).u32(element).bad();
    // The shortest file with a complete array; one that trusts the length asks for 2^63 bytes.
    add("array-2-63", of(U8).u64(HUGE), value, length(HUGE, 1, 0));
    add("array-2-63-cut", of(U8).raw(&[0, 0]), value, truncated(8, 2));
    add("array-max", of(U8).u64(u64::MAX).zeros(8), value, length(u64::MAX, 1, 8));
    add("array-length-wraps-to-0", of(U64).u64(1 << 61).zeros(8), value, length(1 << 61, 8, 8));
    add("array-length-wraps-to-8", of(U64).u64((1 << 61) + 1).zeros(8), value, length((1 << 61) + 1, 8, 8));
    add("array-one-too-many", of(U32).u64(3).zeros(11), value, length(3, 4, 11));
    add(
        "array-element-type-13",
        one().key("k", ARRAY).bad().u32(13).u64(0),
        value,
        Kind::UnknownValueType { found: 13 },
    );
    let type_cut = one().key("key", ARRAY).bad().zeros(2);
    add("array-element-type-cut", type_cut, "key \"key\", value", truncated(4, 2));
    add(
        "array-bool-255",
        one().array("k", BOOL, 3).raw(&[0, 1]).bad().u8(255),
        value,
        Kind::NotBool { found: 255 },
    );
    add("array-string-count-2-63", of(STRING).u64(HUGE).zeros(8), value, length(HUGE, 8, 8));
    add("array-string-count-one-too-many", of(STRING).u64(2).string("1234567"), value, length(2, 8, 15));
    let strings = || one().array("k", STRING, 2).string("a").bad();
    add("array-string-2-63", strings().u64(HUGE).zeros(8), value, length(HUGE, 1, 8));
    add("array-string-beyond", strings().u64(9).zeros(8), value, length(9, 1, 8));

    let deep = |n: usize| (1..n).fold(one().array("k", ARRAY, 1), |raw, _| raw.inner(ARRAY, 1));
    // The fifth array is one too deep; what is inside does not matter.
    let mut five = deep(5);
    five.bad = 37 + 4 * 12;
    add("array-depth-5", five.clone().inner(U8, 0), value, Kind::TooDeep { limit: 4 });
    let mut thousand = deep(1000).inner(U8, 0);
    thousand.bad = five.bad;
    add("array-depth-1000", thousand, value, Kind::TooDeep { limit: 4 });
    add("array-of-2-60-arrays", of(ARRAY).u64(1 << 60).inner(U8, 0), value, length(1 << 60, 12, 12));
    let inner = one().array("k", ARRAY, 1).u32(U8).bad();
    add("array-inner-2-63", inner.u64(HUGE).zeros(4), value, length(HUGE, 1, 4));
}

fn alignment(add: Add) {
    let field = "general.alignment";
    let key = |kind| Raw::head(0, 1).key(field, kind).bad();
    let wrong_type = |found| Kind::AlignmentType { found };
    add("alignment-string", key(STRING).string("32"), field, wrong_type("string"));
    add("alignment-u64", key(U64).u64(32), field, wrong_type("u64"));
    add("alignment-i32", key(5).u32(32), field, wrong_type("i32"));
    add("alignment-array", key(ARRAY).inner(U32, 1).u32(32), field, wrong_type("array"));
    let odd = |found| Kind::AlignmentNotPowerOfTwo { found };
    add("alignment-0", key(U32).u32(0), field, odd(0));
    add("alignment-3", key(U32).u32(3), field, odd(3));
    add("alignment-max", key(U32).u32(u32::MAX), field, odd(u32::MAX));
    let large = |found| Kind::AlignmentTooLarge { found, limit: 1 << 20 };
    add("alignment-2-21", key(U32).u32(1 << 21), field, large(1 << 21));
    add("alignment-2-30", key(U32).u32(1 << 30), field, large(1 << 30));
    add("alignment-2-31", key(U32).u32(1 << 31), field, large(1 << 31));
}

fn descriptions(add: Add) {
    let one = || Raw::head(1, 0);
    let name = "tensor 0, name";
    add("tensor-name-2-63", one().bad().u64(HUGE).zeros(40), name, length(HUGE, 1, 40));
    add("tensor-name-beyond", one().bad().u64(41).zeros(40), name, length(41, 1, 40));
    add("tensor-name-empty", one().bad().string("").zeros(40), name, Kind::EmptyName);
    let too_long = one().bad().string("n".repeat(64)).zeros(40);
    add("tensor-name-64", too_long, name, Kind::NameTooLong { found: 64 });
    add("tensor-name-not-utf8", one().bad().string(b"\xff").zeros(40), name, Kind::NotUtf8 { at: 32 });
    let again = Raw::head(2, 0).tensor("t", &[1], F32).u64(0).bad().tensor("t", &[1], F32).u64(32);
    add("tensor-twice", again.pad(32).zeros(64), "tensor \"t\", name", Kind::DuplicateTensor);

    let dims = |n: u32| one().string("t").bad().u32(n).zeros(40);
    let wrong = |found| Kind::DimensionCount { found };
    add("n-dims-0", dims(0), "tensor \"t\", n_dims", wrong(0));
    add("n-dims-5", dims(5), "tensor \"t\", n_dims", wrong(5));
    add("n-dims-max", dims(u32::MAX), "tensor \"t\", n_dims", wrong(u32::MAX));
    let long = "long enough to be counted";
    let long = |field: &str| format!("tensor {long:?}, {field}").leak();
    let cut = || one().string("long enough to be counted");
    add("n-dims-cut", cut().bad().zeros(3), long("n_dims"), truncated(4, 3));
    add("ne-cut", cut().u32(4).u64(1).u64(2).bad().zeros(5), long("ne"), truncated(8, 5));
    add("type-cut", cut().u32(1).u64(1).bad().zeros(3), long("type"), truncated(4, 3));
    add("offset-missing", cut().u32(1).u64(1).u32(F32).bad(), long("offset"), truncated(8, 0));

    let kind = |id| one().string("t").u32(1).u64(256).bad().u32(id).u64(0);
    for (file, id) in [
        ("type-4-retired", 4),
        ("type-5-retired", 5),
        ("type-31-retired", 31),
        ("type-33-retired", 33),
        ("type-36-retired", 36),
    ] {
        add(file, kind(id), "tensor \"t\", type", Kind::TensorType(UnknownId::Retired(id)));
    }
    for (file, id) in [("type-43-unknown", 43), ("type-max-unknown", u32::MAX)] {
        add(file, kind(id), "tensor \"t\", type", Kind::TensorType(UnknownId::Unknown(id)));
    }
}

fn sizes(add: Add) {
    let of = |ne: &[u64], id| {
        let dims = Raw::head(1, 0).string("t").u32(ne.len() as u32).bad();
        ne.iter().fold(dims, |raw, &dim| raw.u64(dim)).u32(id).u64(0).pad(32).zeros(64)
    };
    let mut overflow = |name, ne: &[u64], id| {
        let (encoding, ne_) = (Encoding::from_ggml_id(id).unwrap(), GgmlNe::new(ne.to_vec()));
        let kind = Kind::SizeOverflow { encoding, ne: ne_, alignment: 32 };
        add(name, of(ne, id), "tensor \"t\", ne", kind);
    };
    overflow("ne-product-overflows", &[1 << 32, 1 << 40], F32);
    overflow("ne-product-wraps-to-0", &[1 << 16, 1 << 16, 1 << 16, 1 << 16], F32);
    overflow("ne-product-wraps-to-1", &[u64::MAX / 3, 3, u64::MAX], I8);
    overflow("ne-2-63", &[HUGE], I8);
    overflow("ne-minus-1", &[u64::MAX], F32);
    overflow("ne-minus-1-beside-0", &[u64::MAX, 0], F32);
    overflow("bytes-wrap-to-0", &[1 << 62], F32);
    overflow("bytes-2-63", &[1 << 61], F32);
    overflow("bytes-padded-2-63", &[HUGE - 1], I8);

    let mut partial = |name, ne: &[u64], encoding: Encoding| {
        let kind = Kind::PartialBlock { encoding, row: ne[0] };
        add(name, of(ne, encoding.ggml_id().unwrap()), "tensor \"t\", ne", kind);
    };
    partial("row-33-q8-0", &[33], Encoding::Q8_0);
    partial("row-32-q4-k", &[32], Encoding::Q4K);
    // As many elements as one block has, in rows that have half of one.
    partial("row-128-twice-q4-k", &[128, 2], Encoding::Q4K);
}

fn placement(add: Add) {
    let offset = "tensor \"t\", offset";
    let t = |ne: &[u64], kind, at: u64| Raw::head(1, 0).tensor("t", ne, kind).bad().u64(at).pad(32);
    let unaligned = |found, alignment| Kind::OffsetUnaligned { found, alignment };
    add("offset-1", t(&[1], F32, 1).zeros(64), offset, unaligned(1, 32));
    add("offset-31", t(&[1], F32, 31).zeros(64), offset, unaligned(31, 32));
    let aligned = Raw::head(1, 1).key("general.alignment", U32).u32(64).tensor("t", &[1], F32);
    add("offset-32-of-64", aligned.bad().u64(32).pad(64).zeros(128), offset, unaligned(32, 64));

    let beyond = |start, size, available| Kind::BeyondEnd { start, size, available };
    add("offset-at-end", t(&[1], F32, 32).zeros(32), offset, beyond(32, 4, 32));
    add("offset-2-63", t(&[1], F32, HUGE).zeros(32), offset, beyond(HUGE, 4, 32));
    // The end of this one is 32 if it wraps.
    add("offset-wraps", t(&[64], I8, u64::MAX - 31).zeros(64), offset, beyond(u64::MAX - 31, 64, 64));
    add("data-missing", t(&[1], F32, 0), offset, beyond(0, 4, 0));
    add("data-one-byte-short", t(&[8], F32, 0).zeros(31), offset, beyond(0, 32, 31));
    let unpadded = Raw::head(1, 0).tensor("t", &[1], F32).bad().u64(0);
    add("data-and-padding-missing", unpadded, offset, beyond(0, 4, 0));
    add("empty-tensor-beyond", t(&[0], F32, 64).zeros(32), offset, beyond(64, 0, 32));

    // Each fits 63 bits; the running sum of the three is 64 if it wraps.
    let half = HUGE - 32;
    let sums = Raw::head(3, 0).tensor("t", &[half], I8).bad().u64(0).tensor("u", &[half], I8).u64(half);
    let sums = sums.tensor("v", &[128], I8).u64(half.wrapping_mul(2)).pad(32).zeros(64);
    add("padded-sizes-wrap", sums, offset, beyond(0, half, 64));

    let overlap = |start, other: &str, other_end| Kind::Overlap { start, other: other.to_owned(), other_end };
    let two = |a: (u64, u64), b: (u64, u64)| {
        let first = Raw::head(2, 0).tensor("t", &[a.0], F32).bad().u64(a.1);
        let mut both = first.tensor("u", &[b.0], F32);
        if b.1 >= a.1 {
            both = both.bad();
        }
        both.u64(b.1).pad(32).zeros(256)
    };
    add("overlap-same-place", two((1, 0), (1, 0)), "tensor \"u\", offset", overlap(0, "t", 4));
    add("overlap-inside", two((16, 0), (8, 32)), "tensor \"u\", offset", overlap(32, "t", 64));
    add("overlap-backwards", two((8, 32), (16, 0)), offset, overlap(32, "u", 64));

    let big = || Raw::big_endian_head(1, 0).tensor("t", &[32], Q8_0).u64(0).pad(32).bad().zeros(64);
    add("big-endian-blocks", big(), "tensor \"t\"", Kind::BigEndianBlocks { encoding: Encoding::Q8_0 });
    let array = Raw::big_endian_head(0, 1).key("k", ARRAY).u32(U8).bad().u64(HUGE);
    add("big-endian-array-2-63", array, "key \"k\", value", length(HUGE, 1, 0));
}

#[test]
fn each_is_refused_for_its_reason() {
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    for Case { name, raw, field, kind } in cases {
        let expected = Defect { field: field.to_owned(), offset: raw.bad, kind };
        let path = fixtures::path(&format!("gguf/x-{name}.gguf"));
        match open(&path, &Limits::default()).err() {
            Some(Error::Gguf { path: found, defect }) => {
                assert_eq!(defect, expected, "{name}");
                assert_eq!(found, path);
            }
            other => panic!("{name}: expected {expected}, found {other:?}"),
        }
    }
}

#[test]
fn files_are_what_is_generated_here() {
    let cases = cases();
    let generated: Vec<(&str, &[u8])> = cases.iter().map(|c| (c.name, c.raw.bytes.as_slice())).collect();
    fixtures::check_generated("gguf", "gguf", &generated);
}

#[test]
fn limits_are_the_callers() {
    let refuse = |raw: Raw, limits: &Limits| match format::gguf::Reader::from_bytes(
        "memory".as_ref(),
        raw.bytes,
        limits,
    )
    .err()
    {
        Some(Error::Gguf { defect, .. }) => defect.kind,
        other => panic!("{other:?}"),
    };
    let limits = Limits { key_bytes: 4, ..Limits::default() };
    let key = Raw::head(0, 1).key("five!", U8).u8(0);
    assert_eq!(refuse(key, &limits), Kind::KeyTooLong { found: 5, limit: 4 });
    let key = Raw::head(0, 1).key(&"k".repeat(65_536), U8).u8(0);
    assert_eq!(refuse(key, &Limits::default()), Kind::KeyTooLong { found: 65_536, limit: 65_535 });
    let limits = Limits { keys: 1, tensors: 1, ..Limits::default() };
    let two = |n_tensors, n_kv| Raw::head(n_tensors, n_kv).zeros(70);
    assert_eq!(refuse(two(2, 0), &limits), Kind::TooMany { declared: 2, limit: 1 });
    assert_eq!(refuse(two(0, 2), &limits), Kind::TooMany { declared: 2, limit: 1 });
    assert_eq!(refuse(two(1, 1), &limits), Kind::EmptyKey);
    let limits = Limits { array_depth: 1, ..Limits::default() };
    let nested = Raw::head(0, 1).array("k", ARRAY, 1).inner(U8, 0);
    assert_eq!(refuse(nested, &limits), Kind::TooDeep { limit: 1 });
    let limits = Limits { alignment: 32, ..Limits::default() };
    let aligned = Raw::head(0, 1).key("general.alignment", U32).u32(64);
    assert_eq!(refuse(aligned, &limits), Kind::AlignmentTooLarge { found: 64, limit: 32 });
}

/// The bytes are there for one key or tensor more than anybody needs; none of them is read.
#[test]
fn absurdly_many_are_refused_by_their_count() {
    let Limits { keys, tensors, .. } = Limits::default();
    for (field, raw, declared, limit) in [
        ("n_kv", Raw::head(0, keys + 1), keys + 1, keys),
        ("n_tensors", Raw::head(tensors + 1, 0), tensors + 1, tensors),
    ] {
        let bytes = raw.zeros(33 * declared as usize).bytes;
        match format::gguf::Reader::from_bytes("memory".as_ref(), bytes, &Limits::default()).err() {
            Some(Error::Gguf { defect, .. }) => {
                assert_eq!((defect.field.as_str(), defect.kind), (field, Kind::TooMany { declared, limit }));
            }
            other => panic!("{field}: {other:?}"),
        }
    }
}
