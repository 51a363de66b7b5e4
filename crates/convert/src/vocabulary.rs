//! A byte-level BPE vocabulary, and its two written forms.

use format::gguf::{Array, Draft};
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::{Value, json};

/// A token beyond those that merging makes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    /// Its text.
    pub content: String,
    /// Whether it is control, which decoding leaves out, and not text.
    pub special: bool,
}

/// A vocabulary: regular tokens, then added ones, then as many unused rows of the embedding as are left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vocabulary {
    /// Regular tokens by id, in the spelling that shows every byte as a letter.
    pub tokens: Vec<String>,
    /// The pairs that merge, by rank, as ids; the product is a token, too.
    pub merges: Vec<(u32, u32)>,
    /// Tokens whose ids follow.
    pub added: Vec<Added>,
    /// Rows of the embedding.
    pub size: usize,
    /// What ends a turn.
    pub eos: u32,
    /// What fills a batch.
    pub pad: u32,
    /// Jinja source that lays a conversation out.
    pub chat_template: String,
}

/// The pre-tokenizer's split of the Qwen3.5 family: a format constant.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a byte is written as where tokens are text: itself if it shows, else a letter from U+0100 on.
pub fn byte_letter(byte: u8) -> char {
    let shows = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if shows(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|b| !shows(*b)).count() as u32;
    char::from_u32(0x100 + hidden_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

impl Vocabulary {
    /// The text of a token.
    fn content(&self, id: u32) -> &str {
        let id = id as usize;
        match self.tokens.get(id) {
            Some(token) => token,
            None => self.added.get(id - self.tokens.len()).map_or("", |added| &added.content),
        }
    }

    fn added_ids(&self) -> impl Iterator<Item = (usize, &Added)> {
        (self.tokens.len()..).zip(&self.added)
    }

    /// Writes `tokenizer.json`, as Hugging Face's tokenizers read it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_tokenizer_json(&self, out: impl std::io::Write) -> std::io::Result<()> {
        Ok(serde_json::to_writer(out, &TokenizerJson(self))?)
    }

    /// `tokenizer_config.json`.
    pub fn tokenizer_config(&self) -> Value {
        let decoder: serde_json::Map<String, Value> =
            self.added_ids().map(|(id, added)| (id.to_string(), flags(added))).collect();
        let special: Vec<&str> =
            self.added.iter().filter(|a| a.special).map(|a| a.content.as_str()).collect();
        json!({
            "add_bos_token": false,
            "add_prefix_space": false,
            "added_tokens_decoder": decoder,
            "additional_special_tokens": special,
            "bos_token": null,
            "chat_template": self.chat_template,
            "clean_up_tokenization_spaces": false,
            "eos_token": self.content(self.eos),
            "errors": "replace",
            "pad_token": self.content(self.pad),
            "split_special_tokens": false,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": null,
        })
    }

    /// Adds the keys of a GGUF file that describe the vocabulary, in llama.cpp's order.
    ///
    /// # Errors
    /// Those of the draft.
    pub fn put(&self, draft: &mut Draft) -> Result<(), format::Error> {
        // llama.cpp's token types.
        const NORMAL: i32 = 1;
        const CONTROL: i32 = 3;
        const USER_DEFINED: i32 = 4;
        const UNUSED: i32 = 5;
        let known = self.tokens.len() + self.added.len();
        let unused: Vec<String> = (known..self.size).map(|id| format!("[PAD{id}]")).collect();
        let tokens: Array = (self.tokens.iter())
            .chain(self.added.iter().map(|added| &added.content))
            .chain(&unused)
            .map(String::as_str)
            .collect();
        let types: Array = (self.tokens.iter().map(|_| NORMAL))
            .chain(self.added.iter().map(|added| if added.special { CONTROL } else { USER_DEFINED }))
            .chain(unused.iter().map(|_| UNUSED))
            .collect();
        let merges: Vec<String> =
            self.merges.iter().map(|&(l, r)| format!("{} {}", self.content(l), self.content(r))).collect();
        let merges: Array = merges.iter().map(String::as_str).collect();
        draft.put("tokenizer.ggml.model", "gpt2")?;
        draft.put("tokenizer.ggml.pre", "qwen35")?;
        draft.put("tokenizer.ggml.tokens", &tokens)?;
        draft.put("tokenizer.ggml.token_type", &types)?;
        draft.put("tokenizer.ggml.merges", &merges)?;
        draft.put("tokenizer.ggml.eos_token_id", self.eos)?;
        draft.put("tokenizer.ggml.padding_token_id", self.pad)?;
        draft.put("tokenizer.ggml.add_bos_token", false)?;
        draft.put("tokenizer.ggml.add_eos_token", false)?;
        draft.put("tokenizer.chat_template", self.chat_template.as_str())
    }
}

fn flags(added: &Added) -> Value {
    json!({
        "content": added.content,
        "lstrip": false,
        "normalized": false,
        "rstrip": false,
        "single_word": false,
        "special": added.special,
    })
}

/// `tokenizer.json`, written without a copy of its half million strings.
struct TokenizerJson<'a>(&'a Vocabulary);

impl Serialize for TokenizerJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let added: Vec<Value> = (self.0.added_ids())
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
            "type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false,
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
        map.serialize_entry("model", &Bpe(self.0))?;
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

struct Ids<'a>(&'a Vocabulary);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.tokens.iter().zip(0u32..))
    }
}

struct Merges<'a>(&'a Vocabulary);

impl Serialize for Merges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.0.merges.len()))?;
        for &(left, right) in &self.0.merges {
            sequence.serialize_element(&[self.0.content(left), self.0.content(right)])?;
        }
        sequence.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_letters_of_their_own() {
        let letters: Vec<char> = (0..=255).map(byte_letter).collect();
        for (i, letter) in letters.iter().enumerate() {
            assert!(!letters[..i].contains(letter) && !letter.is_whitespace() && !letter.is_control());
        }
        assert_eq!((byte_letter(b' '), byte_letter(b'\n'), byte_letter(b'a')), ('Ġ', 'Ċ', 'a'));
        assert_eq!((byte_letter(0xad), byte_letter(0xff), byte_letter(0x7f)), ('Ń', 'ÿ', 'ġ'));
    }
}
