//! The `general.*` keys that name a model: guessed from its folder as llama.cpp's converter does, or given.

use std::path::Path;

use format::gguf::Draft;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::naming::NameParts;
use crate::vocabulary::json;

/// Keys of texts, in the order in which they are written. All may be given; those of a model card are not guessed.
const TEXTS: [&str; 21] = [
    "general.name",
    "general.author",
    "general.version",
    "general.organization",
    "general.finetune",
    "general.basename",
    "general.description",
    "general.quantized_by",
    "general.size_label",
    "general.license",
    "general.license.name",
    "general.license.link",
    "general.url",
    "general.doi",
    "general.uuid",
    "general.repo_url",
    "general.source.url",
    "general.source.doi",
    "general.source.uuid",
    "general.source.repo_url",
    "general.source.huggingface.repository",
];

/// Recommended sampling, written before the texts: key, field of `generation_config.json`, whether it is an integer.
const SAMPLING: [(&str, &str, bool); 11] = [
    ("general.sampling.top_k", "top_k", true),
    ("general.sampling.top_p", "top_p", false),
    ("general.sampling.min_p", "min_p", false),
    ("general.sampling.xtc_probability", "xtc_probability", false),
    ("general.sampling.xtc_threshold", "xtc_threshold", false),
    ("general.sampling.temp", "temperature", false),
    ("general.sampling.penalty_last_n", "penalty_last_n", true),
    ("general.sampling.penalty_repeat", "repetition_penalty", false),
    ("general.sampling.mirostat", "mirostat", true),
    ("general.sampling.mirostat_tau", "mirostat_tau", false),
    ("general.sampling.mirostat_eta", "mirostat_eta", false),
];

/// Keys of lists of texts, written last.
const LISTS: [&str; 2] = ["general.tags", "general.languages"];

/// Who and what a model is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct General {
    /// By key.
    values: Map<String, Value>,
}

impl General {
    /// A model of which no more is known than its name and size.
    pub fn named(name: &str, size_label: &str) -> General {
        let mut general = General::default();
        general.set("general.name", name);
        general.set("general.size_label", size_label);
        general
    }

    /// What the converter finds in a directory: recommended sampling in `generation_config.json`, words of the
    /// model's name in `_name_or_path` of `config.json` and in the folder's name. `size_label` is for a name that
    /// holds none.
    ///
    /// # Errors
    /// Files that are no JSON.
    pub fn of_directory(dir: &Path, parameters: u64, size_label: Option<&str>) -> Result<General, Error> {
        let mut general = General::default();
        let generation = json(&dir.join("generation_config.json"))?;
        for (key, field, _) in SAMPLING {
            let value = match field {
                "repetition_penalty" => generation.get("penalty_repeat").or(generation.get(field)),
                field => generation.get(field),
            };
            if let Some(value) = value.filter(|value| value.is_number()) {
                general.values.insert(key.to_owned(), value.clone());
            }
        }
        let config = json(&dir.join("config.json"))?;
        let path = config.get("_name_or_path").and_then(Value::as_str);
        // A path on somebody's disk is no name.
        let path = path.filter(|path| !path.is_empty() && path.matches('/').count() <= 1);
        let folder = dir.canonicalize().ok();
        let folder =
            folder.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        for name in path.map(str::to_owned).into_iter().chain(folder) {
            general.guess(&NameParts::of(&name, parameters));
        }
        general.guess(&NameParts { size_label: size_label.map(str::to_owned), ..NameParts::default() });
        Ok(general)
    }

    /// Fills in what is not known yet.
    fn guess(&mut self, parts: &NameParts) {
        let NameParts { title, organization, basename, finetune, version, size_label } = parts;
        for (key, value) in [
            ("general.name", Some(title).filter(|title| !title.is_empty())),
            ("general.organization", organization.as_ref()),
            ("general.basename", basename.as_ref()),
            ("general.finetune", finetune.as_ref()),
            ("general.version", version.as_ref()),
            ("general.size_label", size_label.as_ref()),
        ] {
            if let Some(value) = value
                && !self.values.contains_key(key)
            {
                self.set(key, value);
            }
        }
    }

    /// Another name.
    pub fn set_name(&mut self, name: &str) {
        self.set("general.name", name);
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.values.get("general.name").and_then(Value::as_str).unwrap_or_default()
    }

    fn set(&mut self, key: &str, value: &str) {
        self.values.insert(key.to_owned(), value.into());
    }

    /// Takes what a JSON object says, `{"general.author": "…", "general.tags": ["…"]}`, over what was known.
    ///
    /// # Errors
    /// No such file, or keys and values that are none of a model's description.
    pub fn override_by(&mut self, path: &Path) -> Result<(), Error> {
        let io = |source| Error::Io { path: path.to_owned(), action: "read", source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        let wrong = |what: String| Error::Json { path: path.to_owned(), what };
        let given: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        for (key, value) in given {
            let texts =
                |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
            let (fits, expected) = if TEXTS.contains(&key.as_str()) {
                (value.is_string(), "a string")
            } else if LISTS.contains(&key.as_str()) {
                (texts(&value), "a list of strings")
            } else if let Some((_, _, integer)) = SAMPLING.iter().find(|(known, ..)| *known == key) {
                (if *integer { value.is_i64() } else { value.is_number() }, "a number")
            } else {
                let known: Vec<&str> = TEXTS.iter().chain(&LISTS).copied().collect();
                let known = known.join(", ");
                return Err(wrong(format!("{key:?} is no key that describes a model (there are {known})")));
            };
            if !fits {
                return Err(wrong(format!("{key} must be {expected}, found {value}")));
            }
            self.values.insert(key, value);
        }
        Ok(())
    }

    /// The keys before the model's own.
    pub(crate) fn put(&self, draft: &mut Draft) -> Result<(), format::Error> {
        for (key, _, integer) in SAMPLING {
            match self.values.get(key) {
                Some(value) if integer => draft.put(key, value.as_i64().unwrap_or_default() as i32)?,
                Some(value) => draft.put(key, value.as_f64().unwrap_or_default() as f32)?,
                None => {}
            }
        }
        for key in TEXTS {
            if let Some(text) = self.values.get(key).and_then(Value::as_str) {
                draft.put(key, text)?;
            }
        }
        for key in LISTS {
            if let Some(list) = self.values.get(key).and_then(Value::as_array) {
                let texts: format::gguf::Array = list.iter().filter_map(Value::as_str).collect();
                draft.put(key, &texts)?;
            }
        }
        Ok(())
    }
}
