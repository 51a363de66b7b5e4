//! A vocabulary out of the tokenizer files of a Hugging Face directory.

use std::fs;
use std::path::Path;

use model::tokenizer::Parts;
use serde_json::{Map, Value};

use super::{Kind, OFFICES, Token, Vocabulary};
use crate::error::Error;

impl Vocabulary {
    /// Reads the directory's tokenizer files, with a token for each of `rows` rows of the embedding: rows that no
    /// token has become `[PAD{id}]`.
    ///
    /// # Errors
    /// Files that are missing or malformed, a splitting rule that is not known, tokens beyond the rows.
    pub fn from_hf_dir(dir: &Path, rows: usize) -> Result<Vocabulary, Error> {
        let parts = Parts::from_hf_dir(dir)?;
        let wrong = |what: String| Error::Vocabulary { place: dir.display().to_string(), what };
        let padding = |id| Token { text: format!("[PAD{id}]"), kind: Kind::Unused };
        let mut tokens: Vec<Token> = (0..rows).map(padding).collect();
        for (text, id) in parts.tokens {
            match tokens.get_mut(id as usize) {
                Some(token) => *token = Token { text, kind: Kind::Normal },
                None => return Err(wrong(format!("token {text:?} has id {id}, the embedding {rows} rows"))),
            }
        }
        for (id, special) in parts.added {
            let token = &mut tokens[id as usize];
            let control = special || looks_special(&token.text);
            token.kind = if control { Kind::Control } else { Kind::UserDefined };
        }
        let merge = |(left, right): (String, String)| left + " " + &right;
        let merges = parts.merges.into_iter().map(merge).collect();
        let (settings, config) = (json(&dir.join("tokenizer_config.json"))?, json(&dir.join("config.json"))?);
        let mut vocabulary = Vocabulary {
            tokens,
            merges,
            pre: parts.pre.to_owned(),
            offices: Vec::new(),
            adds: Vec::new(),
            chat_templates: chat_templates(dir, &settings)?,
        };
        match parts.post_processor.as_deref() {
            None => {}
            Some("ByteLevel") => vocabulary.adds = vec![("bos", false), ("eos", false)],
            Some(other) => {
                return Err(wrong(format!(
                    "post_processor is {other}, expected ByteLevel, which adds no token"
                )));
            }
        }
        vocabulary.find_offices(&settings, &config);
        Ok(vocabulary)
    }

    /// As llama.cpp's converter does: those of `tokenizer_config.json` first, where tokens stand as text, then those
    /// of `config.json`, where they stand as ids.
    fn find_offices(&mut self, settings: &Map<String, Value>, config: &Map<String, Value>) {
        for (office, _) in OFFICES {
            if let Some(add) = settings.get(&format!("add_{office}_token")).and_then(Value::as_bool)
                && ["bos", "eos", "sep"].contains(&office)
                && !self.adds.iter().any(|(known, _)| *known == office)
            {
                self.adds.push((office, add));
            }
            let text = match settings.get(&format!("{office}_token")) {
                Some(Value::Object(token)) => token.get("content"),
                token => token,
            };
            let id = text.and_then(Value::as_str).and_then(|text| self.added_id(text));
            self.offices.extend(id.map(|id| (office, id)));
        }
        let text = config.get("text_config").and_then(Value::as_object);
        for (office, _) in OFFICES {
            let field = format!("{office}_token_id");
            let id = |object: &Map<String, Value>| object.get(&field).and_then(Value::as_u64);
            let id = id(config).or_else(|| text.and_then(id)).and_then(|id| u32::try_from(id).ok());
            let id = id.filter(|id| (*id as usize) < self.tokens.len() && self.office(office).is_none());
            self.offices.extend(id.map(|id| (office, id)));
        }
    }

    fn added_id(&self, text: &str) -> Option<u32> {
        self.added().find(|(_, token)| token.text == text).map(|(id, _)| id)
    }
}

/// Tokens that some checkpoints forget to mark as special, by llama.cpp's list.
fn looks_special(text: &str) -> bool {
    let between = |start, end| text.starts_with(start) && text.ends_with(end);
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&text)
        || between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
}

/// From `tokenizer_config.json`, else from files of their own.
fn chat_templates(dir: &Path, settings: &Map<String, Value>) -> Result<Vec<(Option<String>, String)>, Error> {
    let named = |entry: &Value| {
        let name = entry["name"].as_str()?.to_owned();
        Some((Some(name).filter(|name| name != "default"), entry["template"].as_str()?.to_owned()))
    };
    match settings.get("chat_template") {
        Some(Value::String(template)) => return Ok(vec![(None, template.clone())]),
        Some(Value::Array(list)) => return Ok(list.iter().filter_map(named).collect()),
        _ => {}
    }
    let alone = dir.join("chat_template.jinja");
    if !alone.is_file() {
        let json = json(&dir.join("chat_template.json"))?;
        let template = json.get("chat_template").and_then(Value::as_str);
        return Ok(template.map(|template| (None, template.to_owned())).into_iter().collect());
    }
    let mut templates = vec![(None, text(&alone)?)];
    if let Ok(entries) = fs::read_dir(dir.join("additional_chat_templates")) {
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e == "jinja"));
        paths.sort();
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            templates.push((Some(name), text(&path)?));
        }
    }
    Ok(templates)
}

fn text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), action: "read", source })
}

/// An object in a file, empty if there is no file.
pub(crate) fn json(path: &Path) -> Result<Map<String, Value>, Error> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    let wrong = |what: String| Error::Json { path: path.to_owned(), what };
    match serde_json::from_str(&text(path)?) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(wrong("expected an object".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}
