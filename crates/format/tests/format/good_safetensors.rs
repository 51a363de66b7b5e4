//! Files written by the public `safetensors` package are read as its own crate reads them, and written back the same.

use std::fs;
use std::path::Path;

use codec::Encoding;
use format::safetensors::{Draft, Reader};
use format::{Existing, Limits, Metadata, TensorSource, open};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::fixtures;

/// The crate's names of what we can decode.
fn encoding(dtype: Dtype) -> Encoding {
    match dtype {
        Dtype::BOOL => Encoding::Bool,
        Dtype::U8 => Encoding::U8,
        Dtype::I8 => Encoding::I8,
        Dtype::F8_E5M2 => Encoding::F8E5M2,
        Dtype::F8_E4M3 => Encoding::F8E4M3,
        Dtype::I16 => Encoding::I16,
        Dtype::U16 => Encoding::U16,
        Dtype::F16 => Encoding::F16,
        Dtype::BF16 => Encoding::BF16,
        Dtype::I32 => Encoding::I32,
        Dtype::U32 => Encoding::U32,
        Dtype::F32 => Encoding::F32,
        Dtype::F64 => Encoding::F64,
        Dtype::I64 => Encoding::I64,
        Dtype::U64 => Encoding::U64,
        other => panic!("{other:?}"),
    }
}

/// Checks that both see the same tensors and metadata.
pub fn agree(ours: &Reader, theirs: &SafeTensors, metadata: &safetensors::tensor::Metadata) {
    assert_eq!(ours.tensors().len(), theirs.len());
    for (name, view) in theirs.iter() {
        let info = ours.tensor(name).unwrap();
        assert_eq!(info.encoding, encoding(view.dtype()), "{name}");
        let shape: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
        assert_eq!(info.shape.dims(), shape, "{name}");
        assert_eq!(ours.bytes(info), view.data(), "{name}");
    }
    let Metadata::Safetensors(ours) = ours.metadata() else { panic!() };
    let theirs = metadata.metadata().clone().unwrap_or_default();
    assert_eq!(ours.clone().into_iter().collect::<std::collections::HashMap<_, _>>(), theirs);
}

fn copy(source: &dyn TensorSource, mut draft: Draft, max_bytes: Option<u64>) {
    let Metadata::Safetensors(metadata) = source.metadata() else { panic!() };
    metadata.iter().for_each(|(key, value)| draft.put(key, value));
    for info in source.tensors() {
        draft.tensor(&info.name, info.encoding, &info.shape).unwrap();
    }
    let mut writer = match max_bytes {
        None => draft.create(Existing::Refuse).unwrap(),
        Some(max) => draft.create_sharded(max, Existing::Refuse).unwrap(),
    };
    for info in source.tensors() {
        writer.write(&info.name, source.bytes(info)).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn every_dtype_is_read_as_the_crate_reads_it() {
    let path = fixtures::path("safetensors/every-dtype.safetensors");
    let bytes = fs::read(&path).unwrap();
    let ours = Reader::open_file(&path, &Limits::default()).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    agree(&ours, &SafeTensors::deserialize(&bytes).unwrap(), &metadata);

    let supported = Encoding::ALL.iter().filter(|e| e.safetensors_name().is_some()).count();
    assert_eq!(ours.tensors().len(), supported + 2);
    assert!(ours.tensor("scalar").unwrap().shape.dims().is_empty());
    assert_eq!(ours.tensor("empty").unwrap().shape.dims(), [0, 4]);
    let Metadata::Safetensors(metadata) = ours.metadata() else { panic!() };
    assert_eq!(metadata["note"], "žluť");
    let offsets: Vec<u64> = ours.tensors().iter().map(|t| t.offset).collect();
    assert!(offsets.is_sorted());
}

#[test]
fn a_file_is_written_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "every-dtype.safetensors",
        "sharded/model-00001-of-00002.safetensors",
        "sharded/model-00002-of-00002.safetensors",
    ] {
        let path = fixtures::path("safetensors").join(name);
        let to = dir.path().join(Path::new(name).file_name().unwrap());
        copy(&Reader::open_file(&path, &Limits::default()).unwrap(), Draft::new(&to), None);
        assert!(fs::read(to).unwrap() == fs::read(path).unwrap(), "{name}");
    }
}

#[test]
fn shards_are_one_checkpoint_and_written_back_the_same() {
    let path = fixtures::path("safetensors/sharded");
    let ours = open(&path, &Limits::default()).unwrap();
    let found: Vec<_> = ours.tensors().iter().map(|t| (t.name.as_str(), t.file, t.encoding)).collect();
    let expected = [
        ("layers.0.b", 0, Encoding::F32),
        ("layers.1.a", 0, Encoding::F16),
        ("layers.0.a", 1, Encoding::I32),
        ("layers.1.b", 1, Encoding::BF16),
    ];
    assert_eq!(found, expected);
    for info in ours.tensors() {
        let file = fs::read(&ours.files()[info.file]).unwrap();
        let view = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(ours.bytes(info), view.tensor(&info.name).unwrap().data());
    }
    // The index itself can be named, and gives the same.
    let index = open(&path.join("model.safetensors.index.json"), &Limits::default()).unwrap();
    assert_eq!(index.tensors(), ours.tensors());

    let dir = tempfile::tempdir().unwrap();
    copy(&*ours, Draft::new(dir.path()), Some(36));
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let written = fs::read(dir.path().join(entry.file_name())).unwrap();
        assert!(written == fs::read(entry.path()).unwrap(), "{:?}", entry.file_name());
    }
}
