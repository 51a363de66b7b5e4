//! Texts and the ids they must give, from vocabularies and libraries that are not ours; and files that lie.

use format::Limits;
use format::gguf::Reader;
use model::tokenizer::Tokenizer;
use proptest::prelude::*;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::{NormalizedString, Normalizer};

const CHECKPOINTS: [&str; 2] = ["dense-f32", "trained-dense"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/vocab").join(name)
}

fn text_of(name: &str) -> String {
    fs::read_to_string(fixture(name)).unwrap()
}

fn json_of(name: &str) -> Value {
    serde_json::from_str(&text_of(name)).unwrap()
}

fn nfc(text: &str) -> String {
    let mut text = NormalizedString::from(text);
    NFC.normalize(&mut text).unwrap();
    text.get().to_owned()
}

static PUBLISHED_FILE: LazyLock<Reader> =
    LazyLock::new(|| Reader::open(&fixture("ggml-vocab-qwen35.gguf"), &Limits::default()).unwrap());
static PUBLISHED: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_gguf(PUBLISHED_FILE.keys()).unwrap());
static SMALL: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_hf_dir(&fixture("dense-f32")).unwrap());
static SMALL_GGUF: LazyLock<Tokenizer> = LazyLock::new(|| GgufKeys::of("dense-f32").tokenizer().unwrap());

/// A text and its ids out of JSON.
fn expectation<'a>(entry: &'a Value, ids: &str) -> (&'a str, Vec<u32>) {
    let ids = entry[ids].as_array().unwrap().iter().map(|id| id.as_u64().unwrap().try_into().unwrap());
    (entry["text"].as_str().unwrap(), ids.collect())
}

/// All texts of a checkpoint give the ids of Hugging Face, which puts them into NFC first; GGUF leaves that to others.
fn assert_checkpoint_ids(tokenizer: &Tokenizer, checkpoint: &str, normalises: bool) {
    let expected = json_of(&format!("{checkpoint}/tokens.json"));
    let expected = expected.as_array().unwrap();
    assert_eq!(expected.len(), 40);
    for entry in expected {
        let (text, ids) = expectation(entry, "ids");
        let given = if normalises { text.to_owned() } else { nfc(text) };
        assert_eq!(tokenizer.encode(&given).unwrap(), ids, "{checkpoint}: {text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), nfc(text), "{checkpoint}");
    }
}

#[test]
fn tokenizer_json_gives_the_ids_of_hugging_face() {
    for checkpoint in CHECKPOINTS {
        assert_checkpoint_ids(&Tokenizer::from_hf_dir(&fixture(checkpoint)).unwrap(), checkpoint, true);
    }
}

#[test]
fn vocab_and_merges_give_the_same_ids() {
    for checkpoint in CHECKPOINTS {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
            fs::copy(fixture(checkpoint).join(name), dir.path().join(name)).unwrap();
        }
        assert_checkpoint_ids(&Tokenizer::from_hf_dir(dir.path()).unwrap(), checkpoint, true);
    }
}

#[test]
fn gguf_keys_give_the_same_ids() {
    for checkpoint in CHECKPOINTS {
        let keys = GgufKeys::of(checkpoint);
        let tokenizer = keys.tokenizer().unwrap();
        assert_checkpoint_ids(&tokenizer, checkpoint, false);
        let from_json = Tokenizer::from_hf_dir(&fixture(checkpoint)).unwrap();
        assert_eq!(tokenizer.vocab_size(), from_json.vocab_size());
        // The file has padding, which is no text: its name is spelled out instead.
        let padding = keys.tokens.last().unwrap();
        assert_eq!(tokenizer.encode(padding).unwrap(), from_json.encode(padding).unwrap());
        assert!(tokenizer.encode(padding).unwrap().len() > 1);
    }
}

/// Checkpoints of the workspace have the tokenizer of `dense-f32`, and vocabularies padded in different ways.
#[test]
fn files_by_the_public_converter_give_the_same_ids() {
    let mut files = 0;
    for file in fs::read_dir(fixture("../gguf-good")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            let file = Reader::open(&path, &Limits::default()).unwrap();
            assert_checkpoint_ids(&Tokenizer::from_gguf(file.keys()).unwrap(), "dense-f32", false);
            files += 1;
        }
    }
    assert!(files > 0);
}

#[test]
fn the_published_vocabulary_gives_its_published_ids() {
    let inp = text_of("ggml-vocab-qwen35.gguf.inp");
    let texts: Vec<&str> = inp.split("\n__ggml_vocab_test__\n").collect();
    let out = text_of("ggml-vocab-qwen35.gguf.out");
    let rows: Vec<&str> = out.split('\n').collect();
    assert_eq!((texts.len(), rows.len()), (51, 51));
    for (index, (text, row)) in texts.iter().zip(rows).enumerate() {
        let theirs: Vec<u32> = row.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(PUBLISHED.encode(text).unwrap(), theirs, "text {index}: {text:?}");
    }
    // Three of them hold decomposed accents, which stay as they are.
    assert_eq!(texts.iter().filter(|text| nfc(text) != **text).count(), 3);
}

#[test]
fn both_splitting_rules_give_the_ids_of_hugging_face() {
    let keys = PUBLISHED_FILE.keys();
    let strings = |key| -> Vec<&str> {
        keys.get_array(key).unwrap().elements().map(|value| value.unwrap().as_str().unwrap()).collect()
    };
    let types: Vec<i64> = keys
        .get_array("tokenizer.ggml.token_type")
        .unwrap()
        .elements()
        .map(|value| value.unwrap().as_i64().unwrap())
        .collect();
    let (tokens, merges) = (strings("tokenizer.ggml.tokens"), strings("tokenizer.ggml.merges"));
    let expected = json_of("splits.json");
    for pre in ["qwen2", "qwen35"] {
        let tokenizer = Tokenizer::from_parts(&tokens, &types, &merges, pre).unwrap();
        for entry in expected.as_array().unwrap() {
            let (text, ids) = expectation(entry, pre);
            // The library normalises what stands between special tokens, not across them.
            let normal: Vec<String> = text.split("<|endoftext|>").map(nfc).collect();
            let normal = normal.join("<|endoftext|>");
            assert_eq!(tokenizer.encode(&normal).unwrap(), ids, "{pre}: {text:?}");
        }
    }
    let differing = expected.as_array().unwrap().iter().filter(|e| e["qwen2"] != e["qwen35"]).count();
    assert_eq!(differing, 5, "texts that tell the rules apart");
}

/// Text with what tokenizers stumble over, besides any characters at all.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<char>().prop_map(String::from),
        2 => "[ -~]{1,6}",
        1 => prop::sample::select(vec![
            " ", "  ", "\n", "\r\n", "\t", "\u{a0}", "\u{3000}", "\u{85}", "'S", "'ſ", "e\u{301}", "\u{301}",
            "\u{323}\u{307}", "\u{1100}\u{1161}", "한", "क\u{93c}", "ที่", "\u{200d}", "🇩🇪", "½", "٣",
        ])
        .prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn text_survives_but_for_normalisation(text in text()) {
        for (tokenizer, survives) in [(&*PUBLISHED, text.clone()), (&*SMALL, nfc(&text)), (&*SMALL_GGUF, text.clone())] {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), survives);
            prop_assert!(Tokenizer::check(&ids, tokenizer.vocab_size()).is_ok());
        }
    }

    /// A stream of bytes, cut anywhere, is what decoding at once gives: characters cut in two, padding, added tokens.
    #[test]
    fn bytes_of_ids_are_their_text(ids in prop::collection::vec(0u32..152_000, 0..40)) {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| PUBLISHED.bytes(id)).collect();
        prop_assert_eq!(String::from_utf8_lossy(&bytes).into_owned(), PUBLISHED.decode(&ids).unwrap());
    }

    #[test]
    fn gguf_and_json_agree_on_normal_text(text in text(), special in prop::sample::select(vec![
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>", "<tool_call>", "<|im_start", "[PAD507]",
    ])) {
        let text = format!("{text}{special}{text}");
        prop_assert_eq!(SMALL_GGUF.encode(&nfc(&text)).unwrap(), SMALL.encode(&text).unwrap());
    }

    /// Whatever the arrays say, there is a tokenizer or an error.
    #[test]
    fn absurd_arrays_do_not_panic(
        tokens in prop::collection::vec("[ab<Ġ]{0,3}|\\PC{0,2}", 0..12),
        token_types in prop::collection::vec(0i64..7, 0..12),
        merges in prop::collection::vec("[ab<Ġ]{0,2}[ ]{0,2}[ab<Ġ]{0,2}", 0..4),
        text in "[ab< ]{0,12}|\\PC{0,4}",
    ) {
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
        let plausible: Vec<i64> = tokens.iter().enumerate().map(|(id, _)| [1, 3, 4, 5][id % 4]).collect();
        for token_types in [token_types, plausible] {
            if let Ok(tokenizer) = Tokenizer::from_parts(&tokens, &token_types, &merges, "qwen35") {
                prop_assert!(tokenizer.vocab_size() <= tokens.len());
                if let Ok(ids) = tokenizer.encode(&text) {
                    prop_assert!(Tokenizer::check(&ids, tokenizer.vocab_size()).is_ok());
                    prop_assert_eq!(tokenizer.decode(&ids).unwrap().is_empty(), ids.is_empty());
                }
            }
        }
    }

    #[test]
    fn damaged_gguf_does_not_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = DAMAGED_GGUF.clone();
        *at.get_mut(&mut bytes) = byte;
        if let Ok(file) = Reader::from_bytes(Path::new("damaged.gguf"), bytes, &Limits::default())
            && let Ok(tokenizer) = Tokenizer::from_gguf(file.keys())
        {
            tokenizer.encode("def f(x): return <|im_end|>").ok();
        }
    }

    #[test]
    fn damaged_json_does_not_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = DAMAGED_JSON.clone();
        *at.get_mut(&mut bytes) = byte;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_hf_dir(dir.path()) {
            tokenizer.encode("def f(x): return <|im_end|>").ok();
        }
    }
}

static DAMAGED_GGUF: LazyLock<Vec<u8>> = LazyLock::new(|| GgufKeys::of("dense-f32").bytes());
static DAMAGED_JSON: LazyLock<Vec<u8>> =
    LazyLock::new(|| fs::read(fixture("dense-f32/tokenizer.json")).unwrap());

#[test]
fn keys_that_are_missing_or_absurd_are_named() {
    let refusal = |change: &dyn Fn(&mut GgufKeys)| {
        let mut keys = GgufKeys::of("dense-f32");
        change(&mut keys);
        keys.tokenizer().unwrap_err().to_string()
    };
    for (said, parts) in [
        (refusal(&|keys| keys.model = "llama"), ["tokenizer.ggml.model", "\"llama\"", "gpt2"]),
        (refusal(&|keys| keys.pre = "default"), ["tokenizer.ggml.pre", "\"default\"", "qwen2, qwen35"]),
        (refusal(&|keys| keys.eos = 512), ["tokenizer.ggml.eos_token_id", "is 512", "less than 512"]),
        (
            refusal(&|keys| keys.left_out = "tokens"),
            ["tokenizer.ggml.tokens", "missing", "convert the model again"],
        ),
        (
            refusal(&|keys| keys.left_out = "pre"),
            ["tokenizer.ggml.pre", "missing", "convert the model again"],
        ),
        (refusal(&|keys| keys.left_out = "merges"), ["tokenizer.ggml.merges", "missing", "convert"]),
        (refusal(&|keys| keys.left_out = "token_type"), ["tokenizer.ggml.token_type", "missing", "convert"]),
        (refusal(&|keys| keys.swapped = true), ["tokenizer.ggml.tokens", "expected strings", "i32"]),
        (refusal(&|keys| keys.tokens.truncate(500)), ["token_type has 512", "expected 500", "convert"]),
    ] {
        for part in parts {
            assert!(said.contains(part), "{said:?} lacks {part:?}");
        }
    }
}

#[test]
fn a_token_that_is_no_text_is_named() {
    let mut bytes = GgufKeys::of("dense-f32").bytes();
    let at = bytes.windows(10).position(|window| window == b"<|im_end|>").unwrap();
    bytes[at] = 0xff;
    let file = Reader::from_bytes(Path::new("keys.gguf"), bytes, &Limits::default()).unwrap();
    let said = Tokenizer::from_gguf(file.keys()).unwrap_err().to_string();
    for part in ["tokenizer.ggml.tokens", "element 497", "UTF-8"] {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
}

/// The tokenizer keys of a GGUF file without tensors, as a converter writes them for a checkpoint with 512 or 1024
/// rows: added tokens typed, the rest padded.
struct GgufKeys {
    model: &'static str,
    pre: &'static str,
    tokens: Vec<String>,
    token_types: Vec<i32>,
    merges: Vec<String>,
    eos: u32,
    /// The key, after `tokenizer.ggml.`, that is not written.
    left_out: &'static str,
    /// Whether tokens and their types are written under each other's key.
    swapped: bool,
}

impl GgufKeys {
    fn of(checkpoint: &str) -> GgufKeys {
        let vocab = json_of(&format!("{checkpoint}/vocab.json"));
        let mut rows: Vec<(u64, String, i32)> = vocab
            .as_object()
            .unwrap()
            .iter()
            .map(|(token, id)| (id.as_u64().unwrap(), token.clone(), 1))
            .collect();
        let config = json_of(&format!("{checkpoint}/tokenizer_config.json"));
        for (id, token) in config["added_tokens_decoder"].as_object().unwrap() {
            let kind = if token["special"].as_bool().unwrap() { 3 } else { 4 };
            rows.push((id.parse().unwrap(), token["content"].as_str().unwrap().to_owned(), kind));
        }
        rows.sort();
        for id in rows.len()..rows.len().next_power_of_two() {
            rows.push((id as u64, format!("[PAD{id}]"), 5));
        }
        assert!(rows.iter().zip(0..).all(|(row, id)| row.0 == id));
        GgufKeys {
            model: "gpt2",
            pre: "qwen35",
            token_types: rows.iter().map(|row| row.2).collect(),
            tokens: rows.into_iter().map(|row| row.1).collect(),
            merges: text_of(&format!("{checkpoint}/merges.txt")).lines().map(String::from).collect(),
            eos: 0,
            left_out: "",
            swapped: false,
        }
    }

    fn tokenizer(&self) -> Result<Tokenizer, model::tokenizer::TokenizerError> {
        let file = Reader::from_bytes(Path::new("keys.gguf"), self.bytes(), &Limits::default()).unwrap();
        Tokenizer::from_gguf(file.keys())
    }

    fn bytes(&self) -> Vec<u8> {
        const U32: u32 = 4;
        const I32: u32 = 5;
        const STRING: u32 = 8;
        const ARRAY: u32 = 9;
        let string = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let array = |kind: u32, len: usize, elements: Vec<u8>| {
            [&kind.to_le_bytes()[..], &(len as u64).to_le_bytes(), &elements].concat()
        };
        let strings = |list: &[String]| {
            let elements = list.iter().flat_map(|text| string(text)).collect();
            (ARRAY, array(STRING, list.len(), elements))
        };
        let types = self.token_types.iter().flat_map(|kind| kind.to_le_bytes()).collect();
        let mut tokens = strings(&self.tokens);
        let mut token_types = (ARRAY, array(I32, self.token_types.len(), types));
        if self.swapped {
            std::mem::swap(&mut tokens, &mut token_types);
        }
        let keys = [
            ("model", (STRING, string(self.model))),
            ("pre", (STRING, string(self.pre))),
            ("tokens", tokens),
            ("token_type", token_types),
            ("merges", strings(&self.merges)),
            ("eos_token_id", (U32, self.eos.to_le_bytes().to_vec())),
        ];
        let written: Vec<_> = keys.iter().filter(|(key, _)| *key != self.left_out).collect();
        let mut file = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes()].concat();
        file.extend((written.len() as u64).to_le_bytes());
        for (key, (kind, value)) in written {
            file.extend(string(&format!("tokenizer.ggml.{key}")));
            file.extend(kind.to_le_bytes());
            file.extend(value);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file
    }
}
