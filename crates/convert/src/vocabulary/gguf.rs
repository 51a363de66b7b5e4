//! A vocabulary as the keys of a GGUF file.

use format::gguf::{Array, Draft, KeyError, KeyValues, Value};

use super::{Kind, OFFICES, Token, Vocabulary};
use crate::error::Error;

/// What a template's key may hold besides letters and digits is written as this.
const FILLER: char = '_';

impl Vocabulary {
    /// Adds the keys of a GGUF file that describe the vocabulary, in llama.cpp's order.
    ///
    /// # Errors
    /// Those of the draft.
    pub fn put(&self, draft: &mut Draft) -> Result<(), format::Error> {
        let texts: Array = self.tokens.iter().map(|token| token.text.as_str()).collect();
        let kinds: Array = self.tokens.iter().map(|token| token.kind as i32).collect();
        let merges: Array = self.merges.iter().map(String::as_str).collect();
        draft.put("tokenizer.ggml.model", "gpt2")?;
        draft.put("tokenizer.ggml.pre", self.pre.as_str())?;
        draft.put("tokenizer.ggml.tokens", &texts)?;
        draft.put("tokenizer.ggml.token_type", &kinds)?;
        draft.put("tokenizer.ggml.merges", &merges)?;
        for (office, id) in &self.offices {
            if let Some((_, name)) = OFFICES.iter().find(|(hf, _)| hf == office) {
                draft.put(&format!("tokenizer.ggml.{name}_token_id"), *id)?;
            }
        }
        for (office, adds) in &self.adds {
            draft.put(&format!("tokenizer.ggml.add_{office}_token"), *adds)?;
        }
        self.put_templates(draft)
    }

    fn put_templates(&self, draft: &mut Draft) -> Result<(), format::Error> {
        let mut names = Vec::new();
        for (name, template) in &self.chat_templates {
            let Some(name) = name else { continue };
            let name: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { FILLER }).collect();
            draft.put(&format!("tokenizer.chat_template.{name}"), template.as_str())?;
            names.push(name);
        }
        if !names.is_empty() {
            let names: Array = names.iter().map(String::as_str).collect();
            draft.put("tokenizer.chat_templates", &names)?;
        }
        match self.chat_templates.iter().find(|(name, _)| name.is_none()) {
            Some((_, template)) => draft.put("tokenizer.chat_template", template.as_str()),
            None => Ok(()),
        }
    }

    /// The vocabulary that a GGUF file's keys describe, with a token for each of `rows` rows of the embedding.
    ///
    /// # Errors
    /// Keys that are missing or of another type, a kind of tokenizer other than byte-level BPE, lengths that disagree.
    pub fn from_gguf(keys: &KeyValues, rows: usize) -> Result<Vocabulary, Error> {
        let wrong = |what: String| Error::Vocabulary { place: "tokenizer.ggml".to_owned(), what };
        let key = |error: KeyError| wrong(error.to_string());
        let model = keys.get_str("tokenizer.ggml.model").map_err(key)?;
        if model != "gpt2" {
            return Err(wrong(format!("model is {model:?}, expected \"gpt2\": byte-level BPE")));
        }
        let pre = keys.get_str("tokenizer.ggml.pre").map_err(key)?.to_owned();
        let texts = strings(keys, "tokenizer.ggml.tokens")?;
        let kinds = keys.get_array("tokenizer.ggml.token_type").map_err(key)?;
        if kinds.len() != texts.len() as u64 || texts.len() != rows {
            return Err(wrong(format!(
                "{} tokens and {} token types for {rows} rows of the embedding",
                texts.len(),
                kinds.len()
            )));
        }
        let token = |(id, (text, kind)): (usize, (String, _))| {
            let kind: Option<i64> = Result::<Value<'_>, _>::ok(kind).and_then(|kind| kind.as_i64());
            let kind = match kind {
                Some(1) => Kind::Normal,
                Some(3) => Kind::Control,
                Some(4) => Kind::UserDefined,
                Some(5) => Kind::Unused,
                found => return Err(wrong(format!("token_type[{id}] is {found:?}, expected 1, 3, 4 or 5"))),
            };
            Ok(Token { text, kind })
        };
        let tokens = texts.into_iter().zip(kinds.elements()).enumerate().map(token);
        let tokens: Vec<Token> = tokens.collect::<Result<_, _>>()?;
        let merges = match keys.contains("tokenizer.ggml.merges") {
            true => strings(keys, "tokenizer.ggml.merges")?,
            false => Vec::new(),
        };
        let (mut offices, mut adds) = (Vec::new(), Vec::new());
        for (hf, name) in OFFICES {
            let id = format!("tokenizer.ggml.{name}_token_id");
            if keys.contains(&id) {
                let found = keys.get_u64(&id).map_err(key)?;
                let id = u32::try_from(found).ok().filter(|id| (*id as usize) < rows);
                let id = id.ok_or_else(|| wrong(format!("{name}_token_id is {found}, of {rows} tokens")))?;
                offices.push((hf, id));
            }
            let add = format!("tokenizer.ggml.add_{hf}_token");
            if keys.contains(&add) {
                adds.push((hf, keys.get_bool(&add).map_err(key)?));
            }
        }
        let mut chat_templates = Vec::new();
        for (key, value) in keys.iter() {
            let Some(name) = key.strip_prefix("tokenizer.chat_template") else { continue };
            let name = match name.strip_prefix('.') {
                Some(name) => Some(name.to_owned()),
                None if name.is_empty() => None,
                None => continue,
            };
            let text = value.as_str().ok_or_else(|| wrong(format!("{key} is no string")))?;
            chat_templates.push((name, text.to_owned()));
        }
        Ok(Vocabulary { tokens, merges, pre, offices, adds, chat_templates })
    }
}

fn strings(keys: &KeyValues, key: &str) -> Result<Vec<String>, Error> {
    let wrong = |what: String| Error::Vocabulary { place: key.to_owned(), what };
    let array = keys.get_array(key).map_err(|error| wrong(error.to_string()))?;
    let text = |value: Result<Value<'_>, _>| {
        let value = value.map_err(|defect: format::gguf::Defect| wrong(defect.to_string()))?;
        value.as_str().map(str::to_owned).ok_or_else(|| wrong("expected strings".to_owned()))
    };
    array.elements().map(text).collect()
}
