//! What is done with bytes of any kind, by tests and, through a `#[path]`, by the fuzz targets: nothing panics, what
//! opens can be read to the end, and what can be read can be written and read again.

use std::fs;
use std::path::Path;

use format::gguf::{self, Draft, Value};
use format::safetensors::{Defect, Reader};
use format::{Error, Existing, Limits, Metadata, TensorSource, open};
use safetensors::{SafeTensorError, SafeTensors};

/// Reads all of a GGUF file. Whether it opened.
pub fn gguf_read(bytes: &[u8]) -> bool {
    match gguf::Reader::from_bytes(Path::new("memory"), bytes.to_vec(), &Limits::default()) {
        Ok(file) => {
            read_all(&file);
            true
        }
        Err(error) => {
            assert!(error.to_string().starts_with("memory: "));
            false
        }
    }
}

/// Reads a GGUF file, writes it, reads that, and writes it again.
pub fn gguf_roundtrip(bytes: &[u8]) {
    let limits = Limits::default();
    let Ok(file) = gguf::Reader::from_bytes(Path::new("memory"), bytes.to_vec(), &limits) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (once, twice) = (dir.path().join("once.gguf"), dir.path().join("twice.gguf"));
    if let Err(error) = copy(&file, &once) {
        // Swapping a big-endian array reads its strings, which may turn out not to be text.
        let swapped = file.keys().byte_order() == gguf::ByteOrder::Big;
        let text =
            matches!(&error, Error::Gguf { defect, .. } if matches!(defect.kind, gguf::Kind::NotUtf8 { .. }));
        assert!(swapped && text, "{error}");
        return;
    }
    // Not opened by its path: the input may say that it is a part of several.
    let copied = gguf::Reader::from_bytes(&once, fs::read(&once).unwrap(), &limits).unwrap();
    assert_eq!(copied.keys().alignment(), file.keys().alignment());
    assert_eq!(copied.keys().len(), file.keys().len());
    for ((key, value), (copied_key, copied_value)) in file.keys().iter().zip(copied.keys().iter()) {
        assert_eq!(key, copied_key);
        assert!(same(&value, &copied_value), "{key}: {value:?} became {copied_value:?}");
    }
    assert_eq!(copied.tensors().len(), file.tensors().len());
    for (info, copied_info) in file.tensors().iter().zip(copied.tensors()) {
        assert_eq!((&info.name, info.encoding, &info.shape), {
            (&copied_info.name, copied_info.encoding, &copied_info.shape)
        });
        assert_eq!(file.bytes(info), copied.bytes(copied_info));
    }
    copy(&copied, &twice).unwrap();
    assert!(fs::read(once).unwrap() == fs::read(twice).unwrap());
}

fn copy(file: &gguf::Reader, to: &Path) -> Result<(), Error> {
    let mut draft = Draft::new(to);
    for (key, value) in file.keys().iter() {
        draft.put(key, value)?;
    }
    for info in file.tensors() {
        draft.tensor(&info.name, info.encoding, &info.shape)?;
    }
    let mut writer = draft.create(Existing::Refuse)?;
    for info in file.tensors() {
        writer.write(&info.name, file.bytes(info))?;
    }
    writer.finish()
}

/// Cuts the input into up to four parts of a split file and opens each. The first byte is the number of parts less
/// one, modulo four; then two bytes, little-endian, are the length of each part but the last.
pub fn split_set(bytes: &[u8]) {
    let Some((&count, rest)) = bytes.split_first() else { return };
    let count = usize::from(count % 4) + 1;
    let Some((lengths, mut rest)) = rest.split_at_checked(2 * (count - 1)) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |number: usize| dir.path().join(format!("m-{number:05}-of-{count:05}.gguf"));
    for (i, length) in lengths.chunks_exact(2).enumerate() {
        let length = usize::from(u16::from_le_bytes([length[0], length[1]])).min(rest.len());
        let (part, behind) = rest.split_at(length);
        fs::write(path(i + 1), part).unwrap();
        rest = behind;
    }
    fs::write(path(count), rest).unwrap();
    let opened: Vec<_> = (1..=count).map(|number| open(&path(number), &Limits::default())).collect();
    for (source, number) in opened.iter().zip(1..) {
        let Ok(source) = source else { continue };
        read_all(&**source);
        // What opens by one of its parts opens by all of them, as the same.
        if source.files().len() > 1 {
            assert_eq!(source.files().len(), count, "part {number}");
            for other in &opened {
                assert_eq!(other.as_ref().unwrap().tensors(), source.tensors());
            }
        }
    }
}

/// Reads a safetensors file and holds the verdict to that of the `safetensors` crate. Whether it opened.
pub fn safetensors_header(bytes: &[u8]) -> bool {
    let theirs = SafeTensors::deserialize(bytes);
    let ours = match Reader::from_bytes(Path::new("memory"), bytes.to_vec(), &Limits::default()) {
        Ok(ours) => ours,
        Err(Error::Safetensors { defect, .. }) => {
            // dtypes without a decoder, names that come twice, and enums spelled as objects are refused by us alone.
            let stricter = matches!(
                defect,
                Defect::UnknownDtype { .. } | Defect::Duplicate { .. } | Defect::Json { .. }
            );
            assert!(theirs.is_err() || stricter, "refused by us alone: {defect}");
            return false;
        }
        Err(error) => panic!("{error}"),
    };
    read_all(&ours);
    let theirs = match theirs {
        Ok(theirs) => theirs,
        Err(SafeTensorError::ValidationOverflow) => {
            // A dimension of zero behind some that overflow: no elements, which they count from the left.
            assert!(ours.tensors().iter().any(|info| info.shape.dims().contains(&0)));
            return true;
        }
        Err(error) => panic!("refused by them alone: {error}"),
    };
    assert_eq!(ours.tensors().len(), theirs.len());
    for info in ours.tensors() {
        let view = theirs.tensor(&info.name).unwrap();
        let shape: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
        assert_eq!((info.shape.dims(), ours.bytes(info)), (&shape[..], view.data()), "{}", info.name);
        assert_eq!(info.encoding.safetensors_name(), Some(format!("{:?}", view.dtype()).as_str()));
    }
    true
}

/// Everything an open checkpoint offers.
fn read_all(source: &dyn TensorSource) {
    for info in source.tensors() {
        assert_eq!(source.bytes(info).len() as u64, info.size);
        assert_eq!(source.tensor(&info.name), Some(info));
        assert_eq!(info.shape.to_ne().to_shape(), info.shape);
        let elements = info.shape.elements().unwrap();
        assert_eq!(info.encoding.byte_len(elements), Some(info.size));
    }
    if let Metadata::Gguf(keys) = source.metadata() {
        assert_eq!(keys.iter().count(), keys.len());
        for (key, value) in keys.iter() {
            assert!(same(&value, &keys.get(key).unwrap()));
        }
    }
}

/// Whether two values are the same bit by bit, arrays element by element; reads all of both.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (Value::Array(a), Value::Array(b)) => {
            let pairs = a.elements().zip(b.elements());
            let head = |array: &gguf::ArrayView| (array.element_type(), array.len());
            head(a) == head(b)
                && pairs.into_iter().all(|pair| match pair {
                    (Ok(a), Ok(b)) => same(&a, &b),
                    (Err(a), Err(b)) => a.kind == b.kind || a.field == b.field,
                    _ => false,
                })
        }
        (a, b) => a == b,
    }
}
