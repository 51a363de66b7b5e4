//! What a model card says, and what is given beside it, against the keys that llama.cpp's converter wrote.

use std::fs;
use std::path::{Path, PathBuf};

use convert::{GgufOptions, ToGguf};
use format::gguf::Value;
use format::{Existing, Limits, Metadata};
use serde_json::json;

use crate::files::{fixture, open};

/// A checkpoint of this name with this card.
fn carded(room: &Path, card: &str) -> PathBuf {
    let dir = room.join("Qwen3.5-7B-Instruct-v2");
    fs::create_dir_all(&dir).unwrap();
    for entry in fs::read_dir(fixture("golden/dense-f32")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    fs::write(dir.join("README.md"), card).unwrap();
    dir
}

/// `[name, type, value]` of every `general.*` key, in order.
fn general_keys(path: &Path) -> Vec<serde_json::Value> {
    let source = format::open(path, &Limits::default()).unwrap();
    let Metadata::Gguf(keys) = source.metadata() else { panic!("not GGUF") };
    let row = |(key, value): (&str, Value<'_>)| match value {
        Value::String(text) => json!([key, "STRING", text]),
        Value::U32(number) => json!([key, "UINT32", number]),
        Value::I32(number) => json!([key, "INT32", number]),
        Value::F32(number) => json!([key, "FLOAT32", f64::from(number)]),
        Value::Array(array) => {
            let texts = array.elements().map(|e| e.unwrap().as_str().unwrap().to_owned());
            json!([key, "ARRAY", texts.collect::<Vec<_>>()])
        }
        other => panic!("{key}: {other:?}"),
    };
    keys.iter().filter(|(key, _)| key.starts_with("general.")).map(row).collect()
}

#[test]
fn cards_and_descriptions_become_the_converters_keys() {
    let room = tempfile::tempdir().unwrap();
    let dir = carded(room.path(), &fs::read_to_string(fixture("card/README.md")).unwrap());
    let source = open(&dir);
    for (expected, metadata, name) in [
        ("card/card.jsonl", None, None),
        ("card/metadata.jsonl", Some("card/metadata.json"), Some("By Option")),
    ] {
        let options = GgufOptions {
            vocab_only: true,
            as_llama_cpp: true,
            metadata: metadata.map(fixture),
            name: name.map(str::to_owned),
            ..GgufOptions::default()
        };
        let path = room.path().join("out.gguf");
        let conversion = ToGguf::new(&source, &options).unwrap();
        assert!(conversion.notes().iter().all(|note| !note.contains("README")), "{:?}", conversion.notes());
        conversion.write(&path, Existing::Replace, None, &mut |_, _| {}).unwrap();
        let text = fs::read_to_string(fixture(expected)).unwrap();
        let expected: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(general_keys(&path), expected);
    }
}

/// A card that cannot be read, or says what GGUF has no key for, keeps nobody from converting, and is named.
#[test]
fn strange_cards_are_mentioned() {
    let room = tempfile::tempdir().unwrap();
    for (card, said) in [
        ("---\na: [\n---\n", "no YAML"),
        ("---\nlicense: mit\nauthor: [x, y]\n---\n", "author"),
        ("---\ntags: {a: b}\n---\n", "tags"),
        ("---\nbase_model: [[x]]\n---\n", "base_model"),
    ] {
        let source = open(&carded(room.path(), card));
        let conversion = ToGguf::new(&source, &GgufOptions::default()).unwrap();
        let notes: Vec<&String> =
            conversion.notes().iter().filter(|note| note.contains("README.md")).collect();
        assert!(notes.len() == 1 && notes[0].contains(said), "{card}: {:?}", conversion.notes());
    }
}

/// What describes no model is refused with what would.
#[test]
fn wrong_descriptions_are_refused() {
    let room = tempfile::tempdir().unwrap();
    let source = open(&carded(room.path(), ""));
    let path = room.path().join("metadata.json");
    for (text, said) in [
        (r#"{"general.nam": "x"}"#, "general.base_models"),
        (r#"{"general.base_models": ["Qwen/Qwen3.5-4B"]}"#, "a list of objects"),
        (r#"{"general.datasets": [{"nam": "x"}]}"#, "a list of objects"),
        (r#"{"general.tags": "x"}"#, "a list of strings"),
        (r#"{"general.sampling.sequence": 1}"#, "a string"),
    ] {
        fs::write(&path, text).unwrap();
        let options = GgufOptions { metadata: Some(path.clone()), ..GgufOptions::default() };
        let refused = ToGguf::new(&source, &options).err().unwrap().to_string();
        assert!(refused.contains(said) && refused.contains("metadata.json"), "{refused}");
    }
}
