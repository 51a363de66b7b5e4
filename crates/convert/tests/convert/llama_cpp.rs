//! Weights and keys made from the fixtures, against the GGUF files that llama.cpp's converter made of them.

use std::collections::HashMap;

use codec::Encoding;
use convert::{Digest, Experts, GgufOptions, Hashing, Held, Source, ToGguf, pipeline, targets};
use format::gguf::{KeyValues, Value};
use format::{Existing, Limits, Metadata, TensorSource};
use sha2::{Digest as _, Sha256};

use crate::files::{fixture, open};

/// Checkpoint, the GGUF file made of it, and its type.
const PAIRS: [(&str, &str, Encoding); 10] = [
    ("golden/dense-f32", "dense-f32-f32.gguf", Encoding::F32),
    ("golden/moe-f32", "moe-f32-f32.gguf", Encoding::F32),
    ("models/dense-text-f32", "dense-text-f32-f32.gguf", Encoding::F32),
    ("models/dense-text-f32", "dense-text-f32-q8_0.gguf", Encoding::Q8_0),
    ("models/dense-vision-bf16", "dense-vision-bf16-bf16.gguf", Encoding::BF16),
    ("models/dense-vision-bf16", "dense-vision-bf16-q8_0.gguf", Encoding::Q8_0),
    ("models/moe-experts-f32", "moe-experts-f32-f16-split-00001-of-00003.gguf", Encoding::F16),
    ("models/moe-experts-f32", "moe-experts-f32-q8_0.gguf", Encoding::Q8_0),
    ("models/moe-packed-bf16", "moe-packed-bf16-bf16.gguf", Encoding::BF16),
    ("models/moe-packed-bf16", "moe-packed-bf16-q8_0.gguf", Encoding::Q8_0),
];

/// f32s that an `exp` in f32, good to one unit in the last place, can be away from the correctly rounded one.
const EXP_ULPS: u32 = 1;

/// The bytes of every tensor, by name.
fn made(source: &dyn Source, tensors: &[pipeline::Encoded]) -> HashMap<String, Vec<u8>> {
    let mut made: HashMap<String, Vec<u8>> = HashMap::new();
    let mut sink = |name: &str, bytes: &[u8]| {
        made.entry(name.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    };
    pipeline::run(tensors, source, &mut sink, &mut |_, _| {}).unwrap();
    made
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Tensors in their order, with names, shapes, encodings and bytes; keys in their order, with types and values.
#[test]
fn files_are_those_of_the_converter() {
    let room = tempfile::tempdir().unwrap();
    for (model, file, dtype) in PAIRS {
        let theirs = format::open(&fixture("gguf-good").join(file), &Limits::default()).unwrap();
        let their_keys = keys(theirs.as_ref());
        let checkpoint = open(&fixture(model));
        // These were converted out of folders of other names.
        let name = their_keys.get("general.name").unwrap().as_str().unwrap().to_owned();
        let options = GgufOptions { dtype: Some(dtype), name: Some(name), ..GgufOptions::default() };
        let path = room.path().join(file.replace("-split-00001-of-00003", ""));
        let conversion = ToGguf::new(&checkpoint, &options).unwrap();
        conversion.write(&path, Existing::Refuse, None, &mut |_, _| {}).unwrap();
        let ours = format::open(&path, &Limits::default()).unwrap();
        let names = |source: &dyn TensorSource| -> Vec<String> {
            source.tensors().iter().map(|info| info.name.clone()).collect()
        };
        assert_eq!(names(ours.as_ref()), names(theirs.as_ref()), "{file}");
        for (our_info, their_info) in ours.tensors().iter().zip(theirs.tensors()) {
            let name = &our_info.name;
            assert_eq!(our_info.encoding, their_info.encoding, "{file}: {name}");
            assert_eq!(our_info.shape, their_info.shape, "{file}: {name}");
            let (ours, theirs) = (ours.bytes(our_info), theirs.bytes(their_info));
            if name.ends_with("ssm_a") {
                for (a, b) in floats(ours).into_iter().zip(floats(theirs)) {
                    assert!(a.to_bits().abs_diff(b.to_bits()) <= EXP_ULPS, "{file}: {name}: {a:e} and {b:e}");
                }
            } else {
                assert!(ours == theirs, "{file}: {name} has other bytes");
            }
        }
        // A part of a split file says so; the others are guesses at the words of the folder's name.
        let guessed = ["general.finetune", "general.basename", "general.version"];
        let set_aside = |key: &str| key.starts_with("split.") || guessed.contains(&key);
        let listed = |keys: &KeyValues| -> Vec<(String, String)> {
            let kept = keys.iter().filter(|(key, _)| !set_aside(key));
            kept.map(|(key, value)| (key.to_owned(), said(&value))).collect()
        };
        let (ours, theirs) = (listed(keys(ours.as_ref())), listed(their_keys));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{file}");
        }
        assert_eq!(ours.len(), theirs.len(), "{file}");
    }
}

/// Type and value; arrays with all their elements.
fn said(value: &Value<'_>) -> String {
    match value.as_array() {
        Some(array) => {
            let elements: Vec<String> = array.elements().map(|e| format!("{:?}", e.unwrap())).collect();
            format!("{:?} {elements:?}", array.element_type())
        }
        None => format!("{value:?}"),
    }
}

/// The golden checkpoints in every type, against the hashes of the converter's tensors; name and all.
#[test]
fn golden_tensors_have_the_hashes_of_the_converter() {
    let room = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture("golden/converted.txt")).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let mut compared = 0;
    for (model, name) in [("dense-f32", "Dense F32"), ("moe-f32", "Moe F32")] {
        let checkpoint = open(&fixture("golden").join(model));
        for dtype in ["f32", "bf16", "f16", "q8_0"] {
            let encoding = Encoding::from_name(dtype);
            let conversion =
                ToGguf::new(&checkpoint, &GgufOptions { dtype: encoding, ..GgufOptions::default() }).unwrap();
            let path = room.path().join(format!("{model}-{dtype}.gguf"));
            let hashing = Hashing::start(convert::files(&checkpoint), Digest::Sha256);
            let done = conversion.write(&path, Existing::Refuse, Some(hashing), &mut |_, _| {}).unwrap();
            let receipt = done.receipt.unwrap();
            let ours = format::open(&path, &Limits::default()).unwrap();
            assert_eq!(keys(ours.as_ref()).get_str("general.name").unwrap(), name);
            let expected = lines.iter().filter(|line| line[0] == model && line[1] == dtype);
            for ((info, written), line) in ours.tensors().iter().zip(&receipt.tensors).zip(expected) {
                let [_, _, name, encoding, ne, sha256] = line[..] else { panic!("{line:?}") };
                assert_eq!(info.name, name);
                assert_eq!(info.encoding.name(), encoding);
                let found: Vec<String> = info.shape.to_ne().as_slice().iter().map(u64::to_string).collect();
                assert_eq!(found.join("x"), ne, "{name}");
                let hash: String =
                    Sha256::digest(ours.bytes(info)).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(hash, sha256, "{model} {dtype}: {name}");
                assert_eq!((written.planned.name.as_str(), written.hash.hex.as_str()), (name, sha256));
                compared += 1;
            }
        }
    }
    assert_eq!(compared, lines.len());
}

/// The other way: what a GGUF file in plain numbers says goes back to what the Hugging Face form holds.
#[test]
fn tensors_go_back() {
    for (model, file, dtype) in PAIRS.into_iter().filter(|(_, _, dtype)| *dtype != Encoding::Q8_0) {
        let theirs = open(&fixture(model));
        let checkpoint = open(&fixture("gguf-good").join(file));
        let split = theirs.source().tensors().iter().any(|t| t.name.contains(".experts.0."));
        let experts = if split { Experts::Split } else { Experts::Packed };
        let mut compared = 0;
        for target in targets(checkpoint.config(), theirs.layout().dialect, experts) {
            if checkpoint.weight(target.place, target.parts[0].role).is_none() {
                continue;
            }
            let info = theirs.source().tensor(&target.name).unwrap();
            assert_eq!(info.shape, target.shape);
            let (name, held) = (target.name.clone(), target.parts[0].form.held());
            let ours = made(&checkpoint, &[(target, Encoding::F32)]).remove(&name).unwrap();
            let mut expected = vec![0f32; ours.len() / 4];
            info.encoding.decode(theirs.source().bytes(info), &mut expected).unwrap();
            for (a, b) in floats(&ours).into_iter().zip(expected) {
                let (a, b) = match dtype {
                    // The file itself has lost what F16 does not hold.
                    Encoding::F16 if held == Held::Plain => (half(a), half(b)),
                    _ => (a, b),
                };
                // 1 + w was rounded to f32, to half a unit of a gain below 2; the logarithm of an f32 that is one
                // unit off is off by twice the relative precision, and then rounded below 4.
                let tolerance = match held {
                    Held::Plain => 0.0,
                    Held::LessOne => f32::EPSILON,
                    Held::LogOfNegative => 4.0 * f32::EPSILON,
                };
                assert!((a - b).abs() <= tolerance, "{model}: {name}: {a:e} and {b:e}");
            }
            compared += 1;
        }
        assert!(compared > 30, "{model}: {compared}");
    }
}

fn half(value: f32) -> f32 {
    let (mut bytes, mut out) = ([0; 2], [0.0]);
    Encoding::F16.encode(&[value], None, &mut bytes).unwrap();
    Encoding::F16.decode(&bytes, &mut out).unwrap();
    out[0]
}

fn keys(source: &dyn TensorSource) -> &KeyValues {
    match source.metadata() {
        Metadata::Gguf(keys) => keys,
        Metadata::Safetensors(_) => panic!("not GGUF"),
    }
}
