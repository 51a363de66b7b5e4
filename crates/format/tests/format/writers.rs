//! Writers: what they refuse, and that nothing is there until all of it is.

use std::fs;
use std::path::{Path, PathBuf};

use codec::Encoding;
use format::gguf::{self, Array, Kind, Value};
use format::safetensors::{self, Defect};
use format::{Error, Existing, Limits, Shape, TensorSource, WriteDefect, open};

fn shape(dims: &[u64]) -> Shape {
    Shape::new(dims.to_vec())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A draft of two tensors, of eight and of four bytes.
fn gguf_draft(path: &Path) -> gguf::Draft {
    let mut draft = gguf::Draft::new(path);
    draft.put("general.architecture", "test").unwrap();
    draft.tensor("a", Encoding::F32, &shape(&[2])).unwrap();
    draft.tensor("b", Encoding::I8, &shape(&[2, 2])).unwrap();
    draft
}

fn safetensors_draft(path: &Path) -> safetensors::Draft {
    let mut draft = safetensors::Draft::new(path);
    draft.tensor("a", Encoding::F32, &shape(&[2])).unwrap();
    draft.tensor("b", Encoding::I8, &shape(&[2, 2])).unwrap();
    draft
}

const GGUF: usize = 0;
const SINGLE: usize = 1;
const SHARDED: usize = 2;
const FORMS: [usize; 3] = [GGUF, SINGLE, SHARDED];

/// The same steps for either writer.
enum Either {
    Gguf(gguf::Writer),
    Safetensors(safetensors::Writer),
}

impl Either {
    /// One of each format, or shards of one tensor each.
    fn start(form: usize, dir: &Path, existing: Existing) -> Result<Either, Error> {
        match form {
            GGUF => gguf_draft(&dir.join("m.gguf")).create(existing).map(Either::Gguf),
            SINGLE => safetensors_draft(&dir.join("m.safetensors")).create(existing).map(Either::Safetensors),
            _ => safetensors_draft(dir).create_sharded(8, existing).map(Either::Safetensors),
        }
    }

    fn all(dir: &Path, existing: Existing) -> impl Iterator<Item = Result<Either, Error>> {
        FORMS.into_iter().map(move |form| Either::start(form, dir, existing))
    }

    fn write(&mut self, tensor: &str, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Either::Gguf(writer) => writer.write(tensor, bytes),
            Either::Safetensors(writer) => writer.write(tensor, bytes),
        }
    }

    fn finish(self) -> Result<(), Error> {
        match self {
            Either::Gguf(writer) => writer.finish(),
            Either::Safetensors(writer) => writer.finish(),
        }
    }
}

fn defect(result: Result<(), Error>) -> WriteDefect {
    match result {
        Err(Error::Write { defect, .. }) => defect,
        other => panic!("{other:?}"),
    }
}

const WRITTEN: [&str; 5] = [
    "m.gguf",
    "m.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
];

fn write_all(dir: &Path, existing: Existing, fill: u8) {
    for writer in Either::all(dir, existing) {
        let mut writer = writer.unwrap();
        // In pieces, and not in the declared order.
        writer.write("b", &[fill]).unwrap();
        writer.write("a", &[fill; 5]).unwrap();
        writer.write("b", &[fill, 2, 3]).unwrap();
        writer.write("a", &[]).unwrap();
        writer.write("a", &[6, 7, 8]).unwrap();
        writer.finish().unwrap();
    }
}

fn check_all(dir: &Path, fill: u8) {
    assert_eq!(names(dir), WRITTEN);
    for path in [dir.join("m.gguf"), dir.join("m.safetensors"), dir.to_path_buf()] {
        let source = open(&path, &Limits::default()).unwrap();
        let bytes = |name| source.bytes(source.tensor(name).unwrap());
        assert_eq!(bytes("a"), [fill, fill, fill, fill, fill, 6, 7, 8]);
        assert_eq!(bytes("b"), [fill, fill, 2, 3]);
    }
}

#[test]
fn pieces_in_any_order_make_the_file() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path(), Existing::Refuse, 9);
    check_all(dir.path(), 9);
}

#[test]
fn nothing_has_its_name_before_it_is_finished_and_nothing_is_left_of_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut writers: Vec<Either> = Either::all(dir.path(), Existing::Refuse).map(Result::unwrap).collect();
    for writer in &mut writers {
        writer.write("a", &[0; 8]).unwrap();
    }
    let under_way = names(dir.path());
    assert_eq!(under_way.len(), WRITTEN.len());
    assert!(under_way.iter().all(|n| n.starts_with(".etalon-") && n.ends_with(".part")), "{under_way:?}");
    drop(writers);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn exactly_the_declared_bytes_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    for writer in Either::all(dir.path(), Existing::Refuse) {
        let mut writer = writer.unwrap();
        writer.write("a", &[0; 6]).unwrap();
        assert_eq!(
            defect(writer.write("a", &[0; 3])),
            WriteDefect::TooLong { tensor: "a".into(), declared: 8, written: 6, more: 3 }
        );
        assert_eq!(defect(writer.write("c", &[])), WriteDefect::Undeclared { tensor: "c".into() });
        writer.write("b", &[0; 4]).unwrap();
        assert_eq!(
            defect(writer.finish()),
            WriteDefect::Incomplete { tensor: "a".into(), declared: 8, written: 6 }
        );
        assert!(names(dir.path()).is_empty());
    }
}

#[test]
fn a_file_that_is_there_is_replaced_only_on_request_and_only_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path(), Existing::Refuse, 1);
    for form in FORMS {
        match Either::start(form, dir.path(), Existing::Refuse).err() {
            Some(Error::Exists { path }) => assert_eq!(path, dir.path().join(WRITTEN[form])),
            other => panic!("{other:?}"),
        }
    }
    Either::all(dir.path(), Existing::Replace).for_each(|writer| drop(writer.unwrap()));
    check_all(dir.path(), 1);
    write_all(dir.path(), Existing::Replace, 2);
    check_all(dir.path(), 2);
}

#[test]
fn a_file_that_appears_meanwhile_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for (form, meanwhile) in
        FORMS.into_iter().zip(["m.gguf", "m.safetensors", "model.safetensors.index.json"])
    {
        let mut writer = Either::start(form, dir.path(), Existing::Refuse).unwrap();
        writer.write("a", &[0; 8]).unwrap();
        writer.write("b", &[0; 4]).unwrap();
        let path = dir.path().join(meanwhile);
        fs::write(&path, "mine").unwrap();
        match writer.finish() {
            Err(Error::Exists { path: found }) => assert_eq!(found, path),
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        // Of the shards that had their names before the index could not get its own, none stays.
        assert_eq!(names(dir.path()), [meanwhile]);
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_checkpoint_of_the_other_form_is_in_the_way() {
    let exists = |draft: safetensors::Draft, max| match draft.create_sharded(max, Existing::Replace).err() {
        Some(Error::Exists { path }) => path,
        other => panic!("{other:?}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let (single, index) =
        (dir.path().join("model.safetensors"), dir.path().join("model.safetensors.index.json"));
    fs::write(&single, "").unwrap();
    assert_eq!(exists(safetensors_draft(dir.path()), 8), single);
    fs::remove_file(single).unwrap();
    fs::write(&index, "").unwrap();
    assert_eq!(exists(safetensors_draft(dir.path()), 100), index);
}

#[test]
fn one_shard_is_a_single_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = safetensors_draft(dir.path()).create_sharded(12, Existing::Refuse).unwrap();
    writer.write("a", &[0; 8]).unwrap();
    writer.write("b", &[0; 4]).unwrap();
    writer.finish().unwrap();
    assert_eq!(names(dir.path()), ["model.safetensors"]);
}

#[test]
fn wide_elements_come_first_so_that_all_are_aligned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let mut draft = safetensors::Draft::new(&path);
    let declared = [
        ("byte", Encoding::I8),
        ("half", Encoding::BF16),
        ("double", Encoding::F64),
        ("single", Encoding::F32),
    ];
    for (name, encoding) in declared {
        draft.tensor(name, encoding, &shape(&[3])).unwrap();
    }
    let mut writer = draft.create(Existing::Refuse).unwrap();
    for (name, encoding) in declared {
        writer.write(name, &vec![encoding.block_bytes() as u8; 3 * encoding.block_bytes()]).unwrap();
    }
    writer.finish().unwrap();
    let source = open(&path, &Limits::default()).unwrap();
    let order: Vec<&str> = source.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(order, ["double", "single", "half", "byte"]);
    for info in source.tensors() {
        let width = info.encoding.block_bytes();
        assert_eq!(info.offset % width as u64, 0, "{}", info.name);
        assert_eq!(source.bytes(info), vec![width as u8; 3 * width]);
    }
}

fn kind(result: Result<(), Error>) -> Kind {
    match result {
        Err(Error::Gguf { defect, .. }) => defect.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn gguf_drafts_refuse_what_the_reader_would() {
    let mut draft = gguf::Draft::new(Path::new("m.gguf"));
    draft.put("k", 1u32).unwrap();
    assert_eq!(kind(draft.put("", 1u32)), Kind::EmptyKey);
    assert_eq!(kind(draft.put("k", 2u32)), Kind::DuplicateKey { first: 24 });
    assert_eq!(kind(draft.put(&"k".repeat(65_536), 1u32)), Kind::KeyTooLong { found: 65_536, limit: 65_535 });
    assert_eq!(kind(draft.put("general.alignment", "32")), Kind::AlignmentType { found: "string" });
    assert_eq!(kind(draft.put("general.alignment", 12u32)), Kind::AlignmentNotPowerOfTwo { found: 12 });
    draft.put("general.alignment", 64u32).unwrap();

    let mut tensor = |name: &str, encoding, dims: &[u64]| kind(draft.tensor(name, encoding, &shape(dims)));
    assert_eq!(tensor("", Encoding::F32, &[1]), Kind::EmptyName);
    assert_eq!(tensor(&"t".repeat(64), Encoding::F32, &[1]), Kind::NameTooLong { found: 64 });
    assert_eq!(tensor("t", Encoding::F32, &[]), Kind::DimensionCount { found: 0 });
    assert_eq!(tensor("t", Encoding::F32, &[1; 5]), Kind::DimensionCount { found: 5 });
    let encoding = Encoding::F8E4M3;
    assert_eq!(tensor("t", encoding, &[1]), Kind::NoTensorType { encoding });
    let encoding = Encoding::Q8_0;
    assert_eq!(tensor("t", encoding, &[2, 48]), Kind::PartialBlock { encoding, row: 48 });
    let (encoding, ne) = (Encoding::F32, shape(&[1 << 62]).to_ne());
    assert_eq!(tensor("t", encoding, &[1 << 62]), Kind::SizeOverflow { encoding, ne, alignment: 64 });
    draft.tensor("t", Encoding::F32, &shape(&[1])).unwrap();
    assert_eq!(kind(draft.tensor("t", Encoding::F16, &shape(&[1]))), Kind::DuplicateTensor);

    // Each fits, all together do not.
    let mut draft = gguf::Draft::new(Path::new("m.gguf"));
    for name in ["a", "b", "c"] {
        draft.tensor(name, Encoding::I8, &shape(&[1 << 62])).unwrap();
    }
    let overflow = draft.create(Existing::Refuse).map(drop);
    assert!(matches!(kind(overflow), Kind::SizeOverflow { .. }));
}

#[test]
fn safetensors_drafts_refuse_what_the_format_cannot_say() {
    let mut draft = safetensors::Draft::new(Path::new("m.safetensors"));
    draft.tensor("t", Encoding::F32, &shape(&[])).unwrap();
    let mut tensor = |name: &str, encoding, dims: &[u64]| match draft.tensor(name, encoding, &shape(dims)) {
        Err(Error::Safetensors { defect, .. }) => defect,
        other => panic!("{other:?}"),
    };
    let name = "t".to_owned();
    assert_eq!(tensor("t", Encoding::F32, &[]), Defect::Duplicate { tensor: name.clone() });
    assert_eq!(tensor("__metadata__", Encoding::F32, &[]), Defect::ReservedName);
    let encoding = Encoding::Q4K;
    assert_eq!(tensor("u", encoding, &[256]), Defect::NoDtype { tensor: "u".into(), encoding });
    let (tensor_, dtype, dims) = ("u".to_owned(), "F32".to_owned(), shape(&[1 << 62]));
    assert_eq!(
        tensor("u", Encoding::F32, &[1 << 62]),
        Defect::SizeOverflow { tensor: tensor_, dtype, shape: dims }
    );
    let mut draft = safetensors::Draft::new(Path::new("m.safetensors"));
    draft.tensor("a", Encoding::I8, &shape(&[u64::MAX])).unwrap();
    draft.tensor("b", Encoding::I8, &shape(&[1])).unwrap();
    match draft.create(Existing::Refuse).err() {
        Some(Error::Safetensors { defect, .. }) => assert_eq!(defect, Defect::FileTooLong),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_directory_that_is_not_there_is_the_systems_to_report() {
    let path = PathBuf::from("/no/such/directory/m.gguf");
    match gguf_draft(&path).create(Existing::Refuse).err() {
        Some(Error::Io { path: found, action, source }) => {
            assert_eq!((found, source.kind()), (path, std::io::ErrorKind::NotFound));
            assert_eq!(action, "create a temporary file beside it");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_of_every_type_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let strings: Array = ["x", "", "žluť"].into_iter().collect();
    let nested = Array::nest(&[strings.clone(), [true, false].into_iter().collect(), Array::nest(&[])]);
    let mut draft = gguf::Draft::new(&path);
    draft.put("u8", 1u8).unwrap();
    draft.put("i64", -1i64).unwrap();
    draft.put("f64", f64::NAN).unwrap();
    draft.put("bool", true).unwrap();
    draft.put("strings", &strings).unwrap();
    draft.put("nested", &nested).unwrap();
    draft.create(Existing::Refuse).unwrap().finish().unwrap();
    let file = gguf::Reader::open(&path, &Limits::default()).unwrap();
    let keys = file.keys();
    assert!(file.tensors().is_empty());
    assert_eq!(keys.get("u8"), Some(Value::U8(1)));
    assert_eq!(keys.get("i64"), Some(Value::I64(-1)));
    assert_eq!(keys.get_f64("f64").unwrap().to_bits(), f64::NAN.to_bits());
    assert_eq!(keys.get("bool"), Some(Value::Bool(true)));
    assert_eq!(keys.get("strings"), Some(Value::Array(strings.view())));
    assert_eq!(keys.get("nested"), Some(Value::Array(nested.view())));
}
