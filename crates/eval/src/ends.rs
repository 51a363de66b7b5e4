//! Tokens that end a text.

use std::collections::BTreeSet;
use std::path::Path;

use format::Metadata;
use model::Checkpoint;
use model::tokenizer::Tokenizer;
use serde_json::Value;

use crate::Error;
use crate::chat::{directory, token_text};

/// The GGUF keys that name one: end of text, of turn, of message.
const GGUF_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// What ends a turn in this family's chat template, whatever a base model's files say.
const END_OF_TURN: &str = "<|im_end|>";

/// The tokens after which a text is over: `eos_token_id` of `generation_config.json` and `config.json` and `eos_token`
/// of `tokenizer_config.json`, or the keys of a GGUF file. In a chat the end of a turn is one too.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn end_tokens(
    checkpoint: &Checkpoint,
    tokenizer: Option<&Tokenizer>,
    chat: bool,
) -> Result<BTreeSet<u32>, Error> {
    let mut ends = BTreeSet::new();
    match checkpoint.source().metadata() {
        Metadata::Gguf(keys) => {
            let ids = GGUF_KEYS.iter().filter_map(|key| keys.get_u64(key).ok());
            ends.extend(ids.filter_map(|id| u32::try_from(id).ok()));
        }
        Metadata::Safetensors(_) => {
            let dir = directory(checkpoint.path());
            for (file, at) in [
                ("generation_config.json", "/eos_token_id"),
                ("config.json", "/eos_token_id"),
                ("config.json", "/text_config/eos_token_id"),
            ] {
                let json = json_file(&dir.join(file))?;
                ends.extend(json.iter().filter_map(|json| json.pointer(at)).flat_map(ids));
            }
            let config = json_file(&dir.join("tokenizer_config.json"))?;
            let text = config.as_ref().and_then(|config| token_text(&config["eos_token"]));
            ends.extend(text.and_then(|text| tokenizer?.id(text)));
        }
    }
    if chat {
        ends.extend(tokenizer.and_then(|tokenizer| tokenizer.id(END_OF_TURN)));
    }
    Ok(ends)
}

/// An id, or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(several) => several.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}

/// A small JSON file, if it is there.
pub(crate) fn json_file(path: &Path) -> Result<Option<Value>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::Json { path: path.to_owned(), why: e.to_string() }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}
