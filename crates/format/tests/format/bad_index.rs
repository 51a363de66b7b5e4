//! Directories of shards that do not agree with their index.

use std::fs;
use std::path::Path;

use codec::Encoding;
use format::safetensors::{Draft, IndexDefect};
use format::{Error, Existing, Limits, Shape, open};

/// Writes a shard whose tensors are one F32 each.
fn shard(dir: &Path, name: &str, tensors: &[&str]) {
    let mut draft = Draft::new(&dir.join(name));
    for tensor in tensors {
        draft.tensor(tensor, Encoding::F32, &Shape::new(vec![1])).unwrap();
    }
    let mut writer = draft.create(Existing::Refuse).unwrap();
    for tensor in tensors {
        writer.write(tensor, &[0; 4]).unwrap();
    }
    writer.finish().unwrap();
}

/// What is said about shards `a` (tensors 1, 2) and `b` (tensors 3, 4) with this index.
fn defect(index: &str) -> IndexDefect {
    defect_with(index, |dir| {
        shard(dir, "a.safetensors", &["t1", "t2"]);
        shard(dir, "b.safetensors", &["t3", "t4"]);
    })
}

fn defect_with(index: &str, shards: impl Fn(&Path)) -> IndexDefect {
    let dir = tempfile::tempdir().unwrap();
    shards(dir.path());
    fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    match open(dir.path(), &Limits::default()).err() {
        Some(Error::Index { defect, .. }) => defect,
        other => panic!("{other:?}"),
    }
}

fn map(entries: &[(&str, &str)]) -> String {
    let entries: Vec<String> = entries.iter().map(|(t, f)| format!("{t:?}:{f:?}")).collect();
    format!("{{\"metadata\":{{\"total_size\":16}},\"weight_map\":{{{}}}}}", entries.join(","))
}

const A: &str = "a.safetensors";
const B: &str = "b.safetensors";

#[test]
fn shards_and_index_must_name_the_same_tensors() {
    let (tensor, shard) = ("t5".to_owned(), B.to_owned());
    assert_eq!(
        defect(&map(&[("t1", A), ("t2", A), ("t3", B), ("t4", B), ("t5", B)])),
        IndexDefect::NotInShard { tensor, shard }
    );
    let (tensor, shard) = ("t2".to_owned(), B.to_owned());
    assert_eq!(
        defect(&map(&[("t1", A), ("t2", B), ("t3", B), ("t4", B)])),
        IndexDefect::NotInShard { tensor, shard }
    );
    let (tensor, shard) = ("t2".to_owned(), A.to_owned());
    assert_eq!(defect(&map(&[("t1", A), ("t3", B), ("t4", B)])), IndexDefect::NotInIndex { tensor, shard });
}

#[test]
fn a_missing_shard_is_named_with_what_it_should_hold() {
    assert_eq!(
        defect(&map(&[("t1", A), ("t2", A), ("t9", "c.safetensors"), ("t8", "c.safetensors")])),
        IndexDefect::MissingShard { shard: "c.safetensors".into(), tensor: "t8".into(), tensors: 2 }
    );
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let found = defect_with(&map(&[("t1", A), ("t2", B)]), |dir| {
        shard(dir, A, &["t1", "t2"]);
        shard(dir, B, &["t2"]);
    });
    assert_eq!(found, IndexDefect::InTwoShards { tensor: "t2".into(), first: A.into(), second: B.into() });
}

#[test]
fn shards_stay_in_their_directory() {
    for shard in
        ["../a.safetensors", "/etc/passwd", "x\\a.safetensors", "C:a.safetensors", "..", ".", "", "a/../b"]
    {
        let (tensor, shard) = ("t1".to_owned(), shard.to_owned());
        let index = serde_json::json!({ "weight_map": { "t1": shard } }).to_string();
        assert_eq!(defect(&index), IndexDefect::ForeignPath { tensor, shard });
    }
}

#[test]
fn an_index_that_does_not_parse_says_where() {
    assert_eq!(defect(&map(&[])), IndexDefect::NoTensors);
    assert_eq!(
        defect(&map(&[("t1", A), ("t1", B)])),
        IndexDefect::DuplicateEntry { tensor: "t1".to_owned() }
    );
    for (index, said, at) in [
        (" ", "EOF while parsing a value", (1, 1)),
        (
            "{\n \"weight_map\": [] }",
            "invalid type: sequence, expected an object of tensor names and file names",
            (2, 15),
        ),
        ("{}", "missing field `weight_map`", (1, 2)),
        ("{\"weight_map\": {\"t\": 1}}", "invalid type: integer `1`, expected a string", (1, 22)),
    ] {
        let IndexDefect::Json { message, line, column } = defect(index) else { panic!("{index}") };
        assert_eq!((message.as_str(), (line, column)), (said, at), "{index}");
    }
}

#[test]
fn limits_are_the_callers() {
    let dir = tempfile::tempdir().unwrap();
    shard(dir.path(), A, &["t1"]);
    shard(dir.path(), B, &["t2"]);
    let index = map(&[("t1", A), ("t2", B)]);
    fs::write(dir.path().join("model.safetensors.index.json"), &index).unwrap();
    let open = |limits: Limits| match open(dir.path(), &limits).err() {
        Some(Error::Index { defect, .. }) => defect,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        open(Limits { files: 1, ..Limits::default() }),
        IndexDefect::TooManyShards { found: 2, limit: 1 }
    );
    assert_eq!(
        open(Limits { index_bytes: 10, ..Limits::default() }),
        IndexDefect::TooLong { found: index.len() as u64, limit: 10 }
    );
}

#[test]
fn a_shard_that_is_a_pointer_or_damaged_is_named() {
    let dir = tempfile::tempdir().unwrap();
    shard(dir.path(), A, &["t1"]);
    fs::write(dir.path().join(B), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 42\n")
        .unwrap();
    fs::write(dir.path().join("model.safetensors.index.json"), map(&[("t1", A), ("t2", B)])).unwrap();
    match open(dir.path(), &Limits::default()).err() {
        Some(Error::LfsPointer { path, size: Some(42) }) => assert_eq!(path, dir.path().join(B)),
        other => panic!("{other:?}"),
    }
    fs::write(dir.path().join(B), [0; 7]).unwrap();
    match open(dir.path(), &Limits::default()).err() {
        Some(Error::Safetensors { path, .. }) => assert_eq!(path, dir.path().join(B)),
        other => panic!("{other:?}"),
    }
}
