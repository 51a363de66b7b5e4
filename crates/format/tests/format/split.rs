//! Split GGUF files: whole from any part, and refused when parts do not belong together.

use std::fs;
use std::path::{Path, PathBuf};

use codec::Encoding;
use format::gguf::{Division, Draft, Kind, Reader, SplitDefect, Value};
use format::{Error, Existing, Limits, Metadata, Shape, TensorSource, open};

use crate::fixtures;

/// One part to be: `split.no`, `split.count`, `split.tensors.count`, and its tensors, of one F32 each.
#[derive(Clone)]
struct Part {
    no: Value<'static>,
    count: Value<'static>,
    total: Value<'static>,
    tensors: Vec<&'static str>,
}

/// Three parts that belong together.
fn parts() -> [Part; 3] {
    let part = |no, tensors: &[&'static str]| Part {
        no: Value::U16(no),
        count: Value::U16(3),
        total: Value::I32(4),
        tensors: tensors.to_vec(),
    };
    [part(0, &["a", "b"]), part(1, &[]), part(2, &["c", "d"])]
}

fn name(number: usize) -> String {
    format!("m-{number:05}-of-00003.gguf")
}

fn write(dir: &Path, parts: &[Part]) {
    for (i, part) in parts.iter().enumerate() {
        write_as(&dir.join(name(i + 1)), part);
    }
}

fn write_as(path: &Path, part: &Part) {
    let mut draft = Draft::new(path);
    draft.put("split.no", part.no).unwrap();
    draft.put("split.count", part.count).unwrap();
    draft.put("split.tensors.count", part.total).unwrap();
    for tensor in &part.tensors {
        draft.tensor(tensor, Encoding::F32, &Shape::new(vec![1])).unwrap();
    }
    let mut writer = draft.create(Existing::Replace).unwrap();
    for tensor in &part.tensors {
        writer.write(tensor, &(tensor.len() as f32).to_le_bytes()).unwrap();
    }
    writer.finish().unwrap();
}

/// What is said, and about which part, when `named` is opened.
fn refused(dir: &Path, named: usize) -> (String, SplitDefect) {
    match open(&dir.join(name(named)), &Limits::default()).err() {
        Some(Error::Split { path, defect }) => {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), defect)
        }
        other => panic!("{other:?}"),
    }
}

fn refused_parts(change: impl Fn(&mut [Part; 3])) -> (String, SplitDefect) {
    let dir = tempfile::tempdir().unwrap();
    let mut parts = parts();
    change(&mut parts);
    write(dir.path(), &parts);
    refused(dir.path(), 1)
}

#[test]
fn any_part_opens_the_whole() {
    let part = |n| fixtures::path(&format!("gguf/split-{n:05}-of-00003.gguf"));
    let files: Vec<PathBuf> = (1..=3).map(part).collect();
    for named in &files {
        let source = open(named, &Limits::default()).unwrap();
        assert_eq!(source.files(), files);
        let found: Vec<_> = source.tensors().iter().map(|t| (t.name.as_str(), t.file)).collect();
        assert_eq!(found, [("f32", 0), ("f16", 0), ("i8", 1), ("i16", 1), ("i32", 2)]);
        let i32s: Vec<u8> = [0, -70_000, -140_000i32].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(source.bytes(source.tensor("i32").unwrap()), i32s);
        let Metadata::Gguf(keys) = source.metadata() else { panic!() };
        assert_eq!(keys.get_str("general.architecture"), Ok("test"));
    }
}

#[test]
fn a_missing_part_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &parts());
    assert_eq!(open(&dir.path().join(name(3)), &Limits::default()).unwrap().tensors().len(), 4);
    fs::remove_file(dir.path().join(name(2))).unwrap();
    for named in [1, 3] {
        assert_eq!(refused(dir.path(), named), (name(2), SplitDefect::Missing { number: 2, count: 3 }));
    }
}

#[test]
fn numbers_and_counts_must_agree() {
    assert_eq!(
        refused_parts(|p| p[2].no = Value::U16(1)),
        (name(3), SplitDefect::Number { expected: 2, found: 1 })
    );
    assert_eq!(
        refused_parts(|p| p[1].count = Value::U16(4)),
        (name(2), SplitDefect::Count { expected: 3, found: 4 })
    );
    assert_eq!(
        refused_parts(|p| p[0].total = Value::I32(5)),
        (name(1), SplitDefect::Tensors { declared: 5, found: 4 })
    );
    assert_eq!(
        refused_parts(|p| p[2].tensors = vec!["c"]),
        (name(1), SplitDefect::Tensors { declared: 4, found: 3 })
    );
    let (tensor, first, second) = ("a".to_owned(), name(1), name(3));
    assert_eq!(
        refused_parts(|p| p[2].tensors = vec!["c", "a"]),
        (name(3), SplitDefect::InTwoParts { tensor, first, second })
    );
}

/// Parts are all held at once: what is admitted is admitted of them together, whichever is named.
#[test]
fn limits_are_of_all_parts_together() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &parts());
    let opened = |named, limits: Limits| match open(&dir.path().join(name(named)), &limits).map(|_| ()) {
        Ok(()) => None,
        Err(Error::Gguf { path, defect }) => {
            Some((path.file_name().unwrap().to_str().unwrap().to_owned(), defect.field, defect.kind))
        }
        Err(other) => panic!("{other:?}"),
    };
    let enough = || Limits { tensors: 4, keys: 9, ..Limits::default() };
    let refused = |part, field: &str, declared, limit| {
        Some((name(part), field.to_owned(), Kind::TooMany { declared, limit }))
    };
    for named in 1..=3 {
        assert_eq!(opened(named, enough()), None);
    }
    assert_eq!(opened(1, Limits { tensors: 3, ..enough() }), refused(3, "n_tensors", 2, 1));
    assert_eq!(opened(3, Limits { tensors: 3, ..enough() }), refused(1, "n_tensors", 2, 1));
    assert_eq!(opened(1, Limits { keys: 8, ..enough() }), refused(3, "n_kv", 3, 2));
    assert_eq!(opened(2, Limits { keys: 2, ..enough() }), refused(2, "n_kv", 3, 2));
}

#[test]
fn keys_of_another_type_are_named() {
    let said = |change: fn(&mut [Part; 3])| {
        let (part, defect) = refused_parts(change);
        (part, defect.to_string())
    };
    let integer = "expected an integer that is not negative, found";
    assert_eq!(
        said(|p| p[1].no = Value::String("1")),
        (name(2), format!("key \"split.no\": {integer} a string"))
    );
    assert_eq!(
        said(|p| p[0].count = Value::I32(-3)),
        (name(1), format!("key \"split.count\": {integer} I32(-3)"))
    );
    assert_eq!(
        said(|p| p[0].total = Value::I32(-1)),
        (name(1), format!("key \"split.tensors.count\": {integer} I32(-1)"))
    );
}

#[test]
fn a_part_under_another_name_cannot_find_the_others() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &parts());
    let renamed = dir.path().join("renamed.gguf");
    fs::rename(dir.path().join(name(1)), &renamed).unwrap();
    match open(&renamed, &Limits::default()).err() {
        Some(Error::Split { path, defect: SplitDefect::Name { count: 3 } }) => assert_eq!(path, renamed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_absurd_number_of_parts_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut part = parts()[0].clone();
    part.count = Value::U64(1 << 40);
    write_as(&dir.path().join(name(1)), &part);
    assert_eq!(
        refused(dir.path(), 1),
        (name(1), SplitDefect::TooMany { found: 1 << 40, limit: Limits::default().files })
    );
}

#[test]
fn a_damaged_part_is_the_one_blamed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &parts());
    fs::write(dir.path().join(name(2)), b"GGML").unwrap();
    match open(&dir.path().join(name(1)), &Limits::default()).err() {
        Some(Error::Gguf { path, .. }) => assert_eq!(path, dir.path().join(name(2))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_part_of_one_is_a_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut part = parts()[0].clone();
    part.count = Value::U16(1);
    let path = dir.path().join("whatever.gguf");
    write_as(&path, &part);
    assert_eq!(open(&path, &Limits::default()).unwrap().tensors().len(), 2);
}

/// A draft of seven tensors of 32 bytes each, and one key.
fn draft(path: &Path) -> Draft {
    let mut draft = Draft::new(path);
    draft.put("general.name", "split").unwrap();
    for i in 0..7 {
        draft.tensor(&format!("t{i}"), Encoding::F32, &Shape::new(vec![8])).unwrap();
    }
    draft
}

fn write_split(path: &Path, division: &Division) -> Vec<PathBuf> {
    let planned = draft(path).plan(division).unwrap();
    let mut writer = draft(path).create_split(division, Existing::Refuse).unwrap();
    for i in (0..7u8).rev() {
        writer.write(&format!("t{i}"), &[i; 32]).unwrap();
    }
    writer.finish().unwrap();
    for file in &planned {
        assert_eq!(fs::metadata(&file.path).unwrap().len(), file.bytes, "{}", file.path.display());
    }
    planned.into_iter().map(|file| file.path).collect()
}

#[test]
fn what_is_split_opens_whole_from_any_part() {
    let dir = tempfile::tempdir().unwrap();
    for (stem, division, parts) in [
        ("bytes", Division::by_bytes(64), vec![2, 2, 2, 1]),
        ("tensors", Division::by_tensors(3), vec![3, 3, 1]),
        ("keys", Division::by_tensors(7).with_keys_alone(true), vec![0, 7]),
    ] {
        let files = write_split(&dir.path().join(format!("{stem}.gguf")), &division);
        for (number, file) in files.iter().enumerate() {
            let count = parts.len();
            let name = format!("{stem}-{:05}-of-{count:05}.gguf", number + 1);
            assert_eq!(file, &dir.path().join(name));
            let source = Reader::open(file, &Limits::default()).unwrap();
            assert_eq!(source.files(), files);
            assert_eq!(source.keys().get_str("general.name"), Ok("split"));
            let mut held = vec![0; count];
            for (i, info) in source.tensors().iter().enumerate() {
                assert_eq!((info.name.as_str(), source.bytes(info)), (&*format!("t{i}"), &[i as u8; 32][..]));
                held[info.file] += 1;
            }
            assert_eq!(held, parts);
            let like = draft(file).plan(&Division::like(&source)).unwrap();
            assert_eq!(like.iter().map(|part| part.tensors.len()).collect::<Vec<_>>(), parts);
            assert!(like.iter().map(|part| &part.path).eq(&files), "{stem}");
        }
    }
}

/// The files that llama.cpp's own tool made of what is in them.
#[test]
fn parts_are_written_as_llama_cpp_writes_them() {
    let part = |n| fixtures::path(&format!("gguf-good/moe-experts-f32-f16-split-{n:05}-of-00003.gguf"));
    let source = Reader::open(&part(1), &Limits::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let draft = Draft::like(&dir.path().join("m.gguf"), &source).unwrap();
    let mut writer = draft.create_split(&Division::like(&source), Existing::Refuse).unwrap();
    let mut copied = 0;
    writer.copy(&source, &mut |bytes| copied = bytes).unwrap();
    assert_eq!(copied, source.tensors().iter().map(|info| info.size).sum::<u64>());
    writer.finish().unwrap();
    for n in 1..=3 {
        let ours = fs::read(dir.path().join(format!("m-{n:05}-of-00003.gguf"))).unwrap();
        assert!(ours == fs::read(part(n)).unwrap(), "part {n}");
    }
}

#[test]
fn one_part_is_no_split_and_parts_are_there_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    assert_eq!(write_split(&path, &Division::by_bytes(1 << 20)), std::slice::from_ref(&path));
    let source = Reader::open(&path, &Limits::default()).unwrap();
    assert!(!source.keys().contains("split.count"));
    fs::remove_file(&path).unwrap();

    let mut writer = draft(&path).create_split(&Division::by_tensors(2), Existing::Refuse).unwrap();
    (0..6).for_each(|i| writer.write(&format!("t{i}"), &[0; 32]).unwrap());
    assert!(matches!(writer.finish(), Err(Error::Write { .. })), "t6 is missing");
    let mut writer = draft(&path).create_split(&Division::by_tensors(2), Existing::Refuse).unwrap();
    (0..7).for_each(|i| writer.write(&format!("t{i}"), &[0; 32]).unwrap());
    fs::write(dir.path().join("m-00003-of-00004.gguf"), "mine").unwrap();
    assert!(matches!(writer.finish(), Err(Error::Exists { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_division_that_does_not_fit_is_refused() {
    let path = Path::new("m.gguf");
    let counts = Division::like(
        &Reader::open(&fixtures::path("gguf/split-00001-of-00003.gguf"), &Limits::default()).unwrap(),
    );
    match draft(path).plan(&counts) {
        Err(Error::Split { defect: SplitDefect::Division { planned: 5, found: 7 }, .. }) => {}
        other => panic!("{other:?}"),
    }
    let mut numbered = draft(path);
    numbered.put("split.no", 0u16).unwrap();
    match numbered.plan(&Division::by_tensors(1)) {
        Err(Error::Gguf { defect, .. }) => {
            assert!(matches!(defect.kind, Kind::DuplicateKey { .. }), "{defect}")
        }
        other => panic!("{other:?}"),
    }
    let mut many = Draft::new(path);
    (0..65_536).for_each(|i| many.tensor(&format!("t{i}"), Encoding::I8, &Shape::new(vec![1])).unwrap());
    match many.plan(&Division::by_tensors(1)) {
        Err(Error::Split { defect: SplitDefect::TooMany { found: 65_536, limit: 65_535 }, .. }) => {}
        other => panic!("{other:?}"),
    }
}
