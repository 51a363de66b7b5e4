//! A vocabulary as the files of a Hugging Face directory.

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::{Value, json};

use super::{Kind, Token, Vocabulary};

impl Vocabulary {
    /// Writes `tokenizer.json`, as Hugging Face's tokenizers read it. `split` is the regex of the splitting rule.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_tokenizer_json(&self, split: &str, out: impl std::io::Write) -> std::io::Result<()> {
        Ok(serde_json::to_writer(out, &TokenizerJson { vocabulary: self, split })?)
    }

    /// `tokenizer_config.json`.
    pub fn tokenizer_config(&self) -> Value {
        let decoder: serde_json::Map<String, Value> =
            self.added().map(|(id, added)| (id.to_string(), flags(added))).collect();
        let special: Vec<&str> = (self.added())
            .filter(|(_, token)| token.kind == Kind::Control)
            .map(|(_, token)| token.text.as_str())
            .collect();
        let office = |name| self.office(name).map(|id| self.text(id));
        let adds_bos = self.adds.contains(&("bos", true));
        let mut config = json!({
            "add_bos_token": adds_bos,
            "add_prefix_space": false,
            "added_tokens_decoder": decoder,
            "additional_special_tokens": special,
            "bos_token": office("bos"),
            "chat_template": null,
            "clean_up_tokenization_spaces": false,
            "eos_token": office("eos"),
            "errors": "replace",
            "pad_token": office("pad"),
            "split_special_tokens": false,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": office("unk"),
        });
        config["chat_template"] = match self.chat_templates.as_slice() {
            [] => Value::Null,
            [(None, template)] => template.as_str().into(),
            several => several
                .iter()
                .map(|(name, template)| json!({"name": name.as_deref().unwrap_or("default"), "template": template}))
                .collect(),
        };
        config
    }
}

fn flags(added: &Token) -> Value {
    json!({
        "content": added.text,
        "lstrip": false,
        "normalized": false,
        "rstrip": false,
        "single_word": false,
        "special": added.kind == Kind::Control,
    })
}

/// `tokenizer.json`, written without a copy of its half million strings.
struct TokenizerJson<'a> {
    vocabulary: &'a Vocabulary,
    split: &'a str,
}

impl Serialize for TokenizerJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let added: Vec<Value> = (self.vocabulary.added())
            .map(|(id, added)| {
                let mut token = flags(added);
                token["id"] = id.into();
                token
            })
            .collect();
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
        });
        let split = json!({
            "type": "Split", "pattern": {"Regex": self.split}, "behavior": "Isolated", "invert": false,
        });
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", "1.0")?;
        map.serialize_entry("truncation", &Value::Null)?;
        map.serialize_entry("padding", &Value::Null)?;
        map.serialize_entry("added_tokens", &added)?;
        map.serialize_entry("normalizer", &json!({"type": "NFC"}))?;
        let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": [split, byte_level]});
        map.serialize_entry("pre_tokenizer", &pre_tokenizer)?;
        map.serialize_entry("post_processor", &byte_level)?;
        map.serialize_entry("decoder", &byte_level)?;
        map.serialize_entry("model", &Bpe(self.vocabulary))?;
        map.end()
    }
}

struct Bpe<'a>(&'a Vocabulary);

impl Serialize for Bpe<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", "BPE")?;
        for field in ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"] {
            map.serialize_entry(field, &Value::Null)?;
        }
        for field in ["fuse_unk", "byte_fallback", "ignore_merges"] {
            map.serialize_entry(field, &false)?;
        }
        map.serialize_entry("vocab", &Ids(self.0))?;
        map.serialize_entry("merges", &Merges(self.0))?;
        map.end()
    }
}

/// The library numbers added tokens from the end of this map on. Where they do not stand one behind the other there,
/// they are in the map as well, which fixes their ids.
struct Ids<'a>(&'a Vocabulary);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let normal = self.0.tokens.iter().filter(|token| token.kind == Kind::Normal).count();
        let behind = (normal as u32..).zip(self.0.added()).all(|(expected, (id, _))| expected == id);
        let listed = |(_, token): &(u32, &Token)| match token.kind {
            Kind::Normal => true,
            Kind::Control | Kind::UserDefined => !behind,
            Kind::Unused => false,
        };
        let tokens = (0..).zip(&self.0.tokens).filter(listed);
        serializer.collect_map(tokens.map(|(id, token): (u32, _)| (&token.text, id)))
    }
}

struct Merges<'a>(&'a Vocabulary);

impl Serialize for Merges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.0.merges.len()))?;
        for merge in &self.0.merges {
            let (left, right) = merge.split_once(' ').unwrap_or((merge, ""));
            sequence.serialize_element(&[left, right])?;
        }
        sequence.end()
    }
}
