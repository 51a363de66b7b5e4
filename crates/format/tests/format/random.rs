//! Random well-formed checkpoints come back as they were written.

use codec::Encoding;
use format::gguf::{Array, Draft, Reader, Value};
use format::{Existing, Limits, Shape, TensorSource, open, safetensors};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::exercise;

/// A value that owns what it says.
#[derive(Clone, Debug)]
enum Owned {
    Number(Value<'static>),
    Text(String),
    Array(Array),
}

impl Owned {
    fn value(&self) -> Value<'_> {
        match self {
            Owned::Number(number) => *number,
            Owned::Text(text) => text.as_str().into(),
            Owned::Array(array) => array.into(),
        }
    }
}

fn number() -> impl Strategy<Value = Value<'static>> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
    ]
}

fn array() -> impl Strategy<Value = Array> {
    let flat = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(|v| v.into_iter().collect()),
        vec(any::<i16>(), 0..9).prop_map(|v| v.into_iter().collect()),
        vec(any::<u32>(), 0..9).prop_map(|v| v.into_iter().collect()),
        vec(any::<bool>(), 0..9).prop_map(|v| v.into_iter().collect()),
        vec(any::<f32>(), 0..9).prop_map(|v| v.into_iter().collect()),
        vec(any::<i64>(), 0..9).prop_map(|v| v.into_iter().collect()),
        vec(".{0,9}", 0..9).prop_map(|v| v.iter().map(String::as_str).collect()),
    ];
    // Three times around the flat ones: four deep, which is the default limit.
    flat.prop_recursive(3, 24, 4, |inner| vec(inner, 0..4).prop_map(|arrays| Array::nest(&arrays)))
}

fn value() -> impl Strategy<Value = Owned> {
    prop_oneof![
        number().prop_map(Owned::Number),
        ".{0,40}".prop_map(Owned::Text),
        array().prop_map(Owned::Array),
    ]
}

/// Encoding, shape, and a seed for the bytes.
type Tensor = (Encoding, Vec<u64>, u8);

fn tensor(encodings: Vec<Encoding>, least_dims: usize) -> impl Strategy<Value = Tensor> {
    let dims = vec(0u64..4, least_dims..5);
    (prop::sample::select(encodings), dims, any::<u8>()).prop_map(|(encoding, mut dims, seed)| {
        if let Some(row) = dims.last_mut() {
            *row *= encoding.block_len() as u64;
        }
        (encoding, dims, seed)
    })
}

fn bytes(&(encoding, ref dims, seed): &Tensor) -> Vec<u8> {
    let size = encoding.byte_len(Shape::new(dims.clone()).elements().unwrap()).unwrap();
    (0..size).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn encodings(of: impl Fn(&Encoding) -> bool) -> Vec<Encoding> {
    Encoding::ALL.iter().copied().filter(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn gguf_comes_back(
        keys in btree_map("[a-z]{1,6}(\\.[a-z_0-9]{1,6}){0,2}", value(), 0..12),
        tensors in btree_map("[a-z.0-9ž]{1,12}", tensor(encodings(|e| e.ggml_id().is_some()), 1), 0..8),
        alignment in prop::option::of(0u32..10),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let mut draft = Draft::new(&path);
        for (key, value) in &keys {
            draft.put(key, value.value()).unwrap();
        }
        if let Some(log2) = alignment {
            draft.put("general.alignment", 1u32 << log2).unwrap();
        }
        for (name, (encoding, dims, _)) in &tensors {
            draft.tensor(name, *encoding, &Shape::new(dims.clone())).unwrap();
        }
        let mut writer = draft.create(Existing::Refuse).unwrap();
        for (name, tensor) in &tensors {
            writer.write(name, &bytes(tensor)).unwrap();
        }
        writer.finish().unwrap();

        let file = Reader::open(&path, &Limits::default()).unwrap();
        prop_assert_eq!(file.keys().alignment(), alignment.map_or(32, |log2| 1 << log2));
        prop_assert_eq!(file.keys().len(), keys.len() + usize::from(alignment.is_some()));
        for (key, value) in &keys {
            prop_assert_eq!(file.keys().get(key), Some(value.value()));
        }
        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (info, (name, tensor)) in file.tensors().iter().zip(&tensors) {
            prop_assert_eq!((&info.name, info.encoding, info.shape.dims()), (name, tensor.0, &tensor.1[..]));
            prop_assert_eq!(file.bytes(info), bytes(tensor));
        }

        let mut changed = std::fs::read(&path).unwrap();
        exercise::gguf_roundtrip(&changed);
        for (at, byte) in flips {
            let at = at.index(changed.len());
            changed[at] = byte;
            exercise::gguf_read(&changed);
        }
    }

    #[test]
    fn safetensors_come_back_however_they_are_sharded(
        tensors in btree_map(".{1,12}", tensor(encodings(|e| e.safetensors_name().is_some()), 0), 0..8),
        metadata in btree_map(".{0,5}", ".{0,20}", 0..4),
        max_bytes in 1u64..200,
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut draft = safetensors::Draft::new(dir.path());
        metadata.iter().for_each(|(key, value)| draft.put(key, value));
        for (name, (encoding, dims, _)) in &tensors {
            draft.tensor(name, *encoding, &Shape::new(dims.clone())).unwrap();
        }
        let mut writer = draft.create_sharded(max_bytes, Existing::Refuse).unwrap();
        for (name, tensor) in &tensors {
            writer.write(name, &bytes(tensor)).unwrap();
        }
        writer.finish().unwrap();

        let source = open(dir.path(), &Limits::default()).unwrap();
        prop_assert_eq!(source.tensors().len(), tensors.len());
        for (name, tensor) in &tensors {
            let info = source.tensor(name).unwrap();
            prop_assert_eq!((info.encoding, info.shape.dims()), (tensor.0, &tensor.1[..]));
            prop_assert_eq!(source.bytes(info), bytes(tensor));
        }
        let format::Metadata::Safetensors(found) = source.metadata() else { panic!() };
        prop_assert_eq!(found, &metadata);
        for (at, file) in source.files().iter().enumerate() {
            let mut file_bytes = std::fs::read(file).unwrap();
            prop_assert!(exercise::safetensors_header(&file_bytes));
            let sizes: Vec<u64> = source.tensors().iter().filter(|t| t.file == at).map(|t| t.size).collect();
            let nonempty = sizes.iter().filter(|&&size| size > 0).count();
            prop_assert!(sizes.iter().sum::<u64>() <= max_bytes || nonempty == 1);
            for (at, byte) in &flips {
                let at = at.index(file_bytes.len());
                file_bytes[at] = *byte;
                exercise::safetensors_header(&file_bytes);
            }
        }
    }
}
