//! Changed keys and names; everything else stays to the byte.

use std::fs;
use std::path::{Path, PathBuf};

use format::gguf::{Array, Edit, EditDefect, Reader, Value};
use format::{Error, Existing, Limits, TensorSource};

use crate::fixtures;

fn open(name: &str) -> Edit {
    Edit::open(&fixtures::path(name), &Limits::default()).unwrap()
}

fn write(edit: Edit, to: &Path) -> Vec<u8> {
    edit.write(to, Existing::Replace, &mut |_, _| {}).unwrap();
    fs::read(to).unwrap()
}

fn defect(result: Result<(), Error>) -> EditDefect {
    match result {
        Err(Error::Edit { defect, .. }) => defect,
        other => panic!("{other:?}"),
    }
}

/// Every file that can be read: of all makers, byte orders, alignments; vocabularies, matrices, parts.
fn readable() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for dir in ["gguf", "gguf-good", "vocab"] {
        for entry in fs::read_dir(fixtures::path(dir)).unwrap() {
            let path = entry.unwrap().path();
            let bad = path.file_name().unwrap().to_str().unwrap().starts_with("x-");
            if path.extension().is_some_and(|e| e == "gguf") && !bad {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn a_file_that_is_not_changed_is_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let files = readable();
    assert!(files.len() >= 20, "{}", files.len());
    for path in files {
        let edit = Edit::open(&path, &Limits::default()).unwrap();
        assert!(write(edit, &dir.path().join("out")) == fs::read(&path).unwrap(), "{}", path.display());
    }
}

/// What is changed and changed back leaves no trace, whatever it does to the length of the header meanwhile.
#[test]
fn changes_undone_leave_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["gguf/every-type.gguf", "gguf/alignment-256.gguf", "gguf/every-type-big-endian.gguf"] {
        let (there, back) = (dir.path().join("there"), dir.path().join("back"));
        let mut edit = open(name);
        // Without its alignment a file could not be what it was.
        let key = edit.keys().find(|key| *key != "general.alignment").unwrap().to_owned();
        let tensor = edit.tensors()[0].name.clone();
        edit.rename(&key, "another.key.of.another.length").unwrap();
        edit.rename_tensor(&tensor, "another.tensor").unwrap();
        let changed = write(edit, &there);
        assert!(changed != fs::read(fixtures::path(name)).unwrap());
        let reader = Reader::open(&there, &Limits::default()).unwrap();
        assert!(reader.keys().contains("another.key.of.another.length") && !reader.keys().contains(&key));
        let original = Reader::open(&fixtures::path(name), &Limits::default()).unwrap();
        for (a, b) in reader.tensors().iter().zip(original.tensors()) {
            assert_eq!(reader.bytes(a), original.bytes(b));
            assert_eq!(a.name == b.name, b.name != tensor);
        }
        let mut edit = Edit::open(&there, &Limits::default()).unwrap();
        edit.rename("another.key.of.another.length", &key).unwrap();
        edit.rename_tensor("another.tensor", &tensor).unwrap();
        assert!(write(edit, &back) == fs::read(fixtures::path(name)).unwrap(), "{name}");
    }
}

#[test]
fn values_are_set_in_their_place_and_new_ones_come_last() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("m.gguf");
    let mut edit = open("gguf/every-type.gguf");
    let before: Vec<String> = edit.keys().map(str::to_owned).collect();
    let array: Array = ["a", "long enough to move everything", ""].into_iter().collect();
    edit.set("scalar.uint8.0", "text now").unwrap();
    edit.set("new.array", &array).unwrap();
    edit.remove("scalar.bool.7").unwrap();
    write(edit, &to);
    let reader = Reader::open(&to, &Limits::default()).unwrap();
    let mut expected: Vec<&str> =
        before.iter().map(String::as_str).filter(|key| *key != "scalar.bool.7").collect();
    expected.push("new.array");
    assert_eq!(reader.keys().iter().map(|(key, _)| key).collect::<Vec<_>>(), expected);
    assert_eq!(reader.keys().get("scalar.uint8.0"), Some(Value::String("text now")));
    assert_eq!(reader.keys().get("new.array"), Some(Value::Array(array.view())));
    let original = Reader::open(&fixtures::path("gguf/every-type.gguf"), &Limits::default()).unwrap();
    for (a, b) in reader.tensors().iter().zip(original.tensors()) {
        assert_eq!((a.name.as_str(), reader.bytes(a)), (b.name.as_str(), original.bytes(b)));
    }
}

#[test]
fn what_cannot_be_changed_is_said() {
    let mut edit = open("gguf/every-type.gguf");
    assert_eq!(defect(edit.remove("absent")), EditDefect::NoKey { key: "absent".into() });
    assert_eq!(defect(edit.rename("absent", "x")), EditDefect::NoKey { key: "absent".into() });
    let taken = EditDefect::KeyExists { key: "scalar.bool.7".into() };
    assert_eq!(defect(edit.rename("scalar.bool.8", "scalar.bool.7")), taken);
    assert_eq!(defect(edit.rename_tensor("absent", "x")), EditDefect::NoTensor { name: "absent".into() });
    assert_eq!(defect(edit.rename_tensor("f32", "f16")), EditDefect::TensorExists { name: "f16".into() });
    for (result, name) in [
        (edit.set("", 1u8), ""),
        (edit.rename_tensor("f32", ""), ""),
        (edit.set("general.alignment", 3u32), "general.alignment"),
        (edit.set("general.alignment", 8u64), "general.alignment"),
    ] {
        assert!(matches!(defect(result), EditDefect::Refused { name: found, .. } if found == name), "{name}");
    }
    assert!(matches!(defect(edit.rename_tensor("f32", &"x".repeat(64))), EditDefect::Refused { .. }));
    assert_eq!(defect(open("gguf/every-type-big-endian.gguf").set("x", 1u8)), EditDefect::BigEndian);
    // The data stays where it is: only an alignment that it suits can be set.
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("m.gguf");
    edit.set("general.alignment", 4096u32).unwrap();
    let result = edit.write(&to, Existing::Refuse, &mut |_, _| {});
    assert!(matches!(defect(result), EditDefect::Alignment { alignment: 4096, .. }));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let mut edit = open("gguf/alignment-256.gguf");
    edit.set("not.yet", "text").unwrap();
    edit.remove("general.alignment").unwrap();
    assert!(matches!(defect(edit.rename("not.yet", "general.alignment")), EditDefect::Refused { .. }));
    edit.remove("not.yet").unwrap();
    edit.set("general.alignment", 128u32).unwrap();
    write(edit, &to);
    assert_eq!(Reader::open(&to, &Limits::default()).unwrap().keys().alignment(), 128);
}
