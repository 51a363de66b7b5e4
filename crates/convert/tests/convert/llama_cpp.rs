//! Weights and keys made from the fixtures, against the GGUF files that llama.cpp's converter made of them.

use std::collections::HashMap;
use std::path::Path;

use codec::Encoding;
use convert::gguf::{self, Description};
use convert::{Added, Experts, Held, Source, Vocabulary, pipeline, targets};
use format::gguf::{KeyValues, Value};
use format::{Existing, Limits, Metadata, TensorSource};
use model::Dialect;
use serde_json::Value as Json;

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

#[test]
fn tensors_are_those_of_the_converter() {
    for (model, file, dtype) in PAIRS {
        let checkpoint = open(&fixture(model));
        let tensors: Vec<pipeline::Encoded> = targets(checkpoint.config(), Dialect::Gguf, Experts::Packed)
            .into_iter()
            .filter(|target| checkpoint.weight(target.place, target.parts[0].role).is_some())
            .map(|target| {
                let encoding = gguf::encoding(&target, dtype);
                (target, encoding)
            })
            .collect();
        let mut made = made(&checkpoint, &tensors);
        let theirs = format::open(&fixture("gguf-good").join(file), &Limits::default()).unwrap();
        for info in theirs.tensors() {
            let name = &info.name;
            let (target, encoding) = tensors.iter().find(|(t, _)| t.name == *name).unwrap();
            assert_eq!(*encoding, info.encoding, "{file}: {name}");
            assert_eq!(target.shape, info.shape, "{file}: {name}");
            let (ours, theirs) = (made.remove(name).unwrap(), theirs.bytes(info));
            if name.ends_with("ssm_a") {
                for (a, b) in floats(&ours).into_iter().zip(floats(theirs)) {
                    assert!(a.to_bits().abs_diff(b.to_bits()) <= EXP_ULPS, "{file}: {name}: {a:e} and {b:e}");
                }
            } else {
                assert!(ours == theirs, "{file}: {name} has other bytes");
            }
        }
        assert!(made.is_empty(), "{file}: not there: {:?}", made.keys());
    }
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

#[test]
fn keys_are_those_of_the_converter() {
    let room = tempfile::tempdir().unwrap();
    for (model, file, dtype) in PAIRS {
        let dir = fixture(model);
        let checkpoint = open(&dir);
        let config = checkpoint.config();
        let theirs = format::open(&fixture("gguf-good").join(file), &Limits::default()).unwrap();
        let their_keys = keys(theirs.as_ref());
        let made = targets(config, Dialect::Gguf, Experts::Packed);
        let description = Description {
            name: their_keys.get("general.name").unwrap().as_str().unwrap(),
            size_label: gguf::size_label(made.iter(), config),
            file_type: gguf::file_type(dtype).unwrap(),
            full_attention_interval: gguf::DEFAULT_INTERVAL,
        };
        let path = room.path().join(file.replace("-split-00001-of-00003", ""));
        let mut draft = format::gguf::Draft::new(&path);
        gguf::put_keys(&mut draft, config, &description, &vocabulary(&dir, config.vocab_size)).unwrap();
        draft.create(Existing::Refuse).unwrap().finish().unwrap();
        let ours = format::open(&path, &Limits::default()).unwrap();
        let ours: Vec<(&str, Value)> = keys(ours.as_ref()).iter().collect();
        // A part of a split file says so; the other two are guesses at the words of the folder's name.
        let set_aside =
            |key: &str| key.starts_with("split.") || ["general.finetune", "general.basename"].contains(&key);
        let theirs: Vec<(&str, Value)> = their_keys.iter().filter(|(key, _)| !set_aside(key)).collect();
        for ((our_key, our_value), (their_key, their_value)) in ours.iter().zip(&theirs) {
            assert_eq!(our_key, their_key, "{file}");
            assert!(our_value == their_value, "{file}: {our_key}: {our_value:?}, theirs {their_value:?}");
        }
        assert_eq!(ours.len(), theirs.len(), "{file}");
    }
}

fn keys(source: &dyn TensorSource) -> &KeyValues {
    match source.metadata() {
        Metadata::Gguf(keys) => keys,
        Metadata::Safetensors(_) => panic!("not GGUF"),
    }
}

/// The vocabulary of a fixture.
fn vocabulary(dir: &Path, size: usize) -> Vocabulary {
    let read = |name| std::fs::read_to_string(dir.join(name)).unwrap();
    let json = |name| serde_json::from_str::<Json>(&read(name)).unwrap();
    let (tokenizer, config) = (json("tokenizer.json"), json("config.json"));
    let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    for (token, id) in vocab {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    let id = |token: &Json| vocab[token.as_str().unwrap()].as_u64().unwrap() as u32;
    let merges = tokenizer["model"]["merges"].as_array().unwrap();
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let text = config.get("text_config").unwrap_or(&config);
    let special = |field: &str| text[field].as_u64().unwrap() as u32;
    Vocabulary {
        tokens,
        merges: merges.iter().map(|pair| (id(&pair[0]), id(&pair[1]))).collect(),
        added: (added.iter())
            .map(|token| Added {
                content: token["content"].as_str().unwrap().to_owned(),
                special: token["special"].as_bool().unwrap(),
            })
            .collect(),
        size,
        eos: special("eos_token_id"),
        pad: special("pad_token_id"),
        chat_template: read("chat_template.jinja"),
    }
}
