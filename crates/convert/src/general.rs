//! The `general.*` keys that name a model: guessed from its folder as llama.cpp's converter does, or given.

use std::path::Path;

use format::gguf::Draft;
use serde_json::{Map, Value};

use crate::card;
use crate::error::Error;
use crate::naming::NameParts;
use crate::vocabulary::json;

/// Keys of texts, in the order in which they are written. All may be given.
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
pub(crate) const SAMPLING: [(&str, &str, bool); 11] = [
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

/// The order in which samplers are recommended to be applied; it stands before the others.
const SEQUENCE: (&str, &str) = ("general.sampling.sequence", "sequence");

/// Keys of lists of texts, written last, and the fields of a model card that are put together for them.
const LISTS: [(&str, [&str; 2]); 2] =
    [("general.tags", ["tags", "pipeline_tag"]), ("general.languages", ["languages", "language"])];

/// What a model was made of: the name that descriptions have for the list, how its keys begin, and the fields of a
/// model card, of which the first that is there counts.
const PARENTS: [(&str, &str, [&str; 3]); 2] = [
    ("general.base_models", "general.base_model", ["base_model", "base_models", "base_model_sources"]),
    ("general.datasets", "general.dataset", ["datasets", "dataset", "dataset_sources"]),
];

/// What is said about each of them, in the order in which it is written.
const PARENT_FIELDS: [&str; 9] =
    ["name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"];

/// Fields of a model card that become texts; the first that is there counts.
const CARD_TEXTS: [(&str, &[&str]); 15] = [
    ("general.name", &["name", "model_name"]),
    ("general.author", &["author", "model_author", "model_creator"]),
    ("general.version", &["version", "model_version"]),
    ("general.organization", &["organization", "model_organization"]),
    ("general.description", &["description", "model_description"]),
    ("general.finetune", &["finetune", "model_finetune"]),
    ("general.basename", &["basename", "model_basename", "model_type"]),
    ("general.size_label", &["size_label", "model_size_label"]),
    ("general.source.url", &["url", "model_url"]),
    ("general.source.doi", &["doi", "model_doi"]),
    ("general.source.uuid", &["uuid", "model_uuid"]),
    ("general.source.repo_url", &["repo_url", "model_repo_url"]),
    ("general.license", &["license"]),
    ("general.license.name", &["license_name"]),
    ("general.license.link", &["license_link"]),
];

/// Who and what a model is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct General {
    /// By key.
    values: Map<String, Value>,
    /// What was found and not taken, one sentence each.
    notes: Vec<String>,
}

impl General {
    /// A model of which no more is known than its name and size.
    pub fn named(name: &str, size_label: &str) -> General {
        let mut general = General::default();
        general.set("general.name", name);
        general.set("general.size_label", size_label);
        general
    }

    /// What the converter finds in a directory: the front matter of its model card, recommended sampling in
    /// `generation_config.json`, words of the model's name in `_name_or_path` of `config.json` and in the folder's
    /// name. `size_label` is for a name that holds none.
    ///
    /// # Errors
    /// Files that are no JSON.
    pub fn of_directory(dir: &Path, parameters: u64, size_label: Option<&str>) -> Result<General, Error> {
        let mut general = General::default();
        match card::front_matter(dir) {
            Ok(card) => general.take_card(&card, parameters),
            Err(note) => general.notes.push(note),
        }
        let generation = json(&dir.join("generation_config.json"))?;
        if let Some(sequence) = generation.get(SEQUENCE.1).and_then(Value::as_str) {
            general.set(SEQUENCE.0, sequence);
        }
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

    /// Takes what a model card says.
    fn take_card(&mut self, card: &Map<String, Value>, parameters: u64) {
        let said = |field: &&'static str| {
            let field: &'static str = field;
            Some((field, card.get(field).filter(|value| !value.is_null())?))
        };
        let mut strange = Vec::new();
        for (key, fields) in CARD_TEXTS {
            let Some((field, value)) = fields.iter().find_map(said) else { continue };
            match (texts(value), value) {
                (Some(texts), _) if key == "general.license" => self.set(key, &texts.join(",")),
                (_, Value::String(text)) => self.set(key, text),
                _ => strange.push(field),
            }
        }
        for (key, fields) in LISTS {
            let mut list = Vec::new();
            for (field, value) in fields.iter().filter_map(said) {
                match texts(value) {
                    Some(texts) => list.extend(texts.into_iter().map(Value::from)),
                    None => strange.push(field),
                }
            }
            if fields.iter().any(|field| said(field).is_some()) {
                self.values.insert(key.to_owned(), list.into());
            }
        }
        for (key, _, fields) in PARENTS {
            let Some((field, value)) = fields.iter().find_map(|field| Some((*field, card.get(*field)?)))
            else {
                continue;
            };
            let entries = match value {
                Value::Array(list) => list.clone(),
                Value::Null => Vec::new(),
                one => vec![one.clone()],
            };
            let parents: Option<Vec<Value>> = (entries.iter())
                .map(|entry| match entry {
                    Value::String(id) => Some(parent(id, parameters)),
                    Value::Object(said) if said.values().all(Value::is_string) => Some(entry.clone()),
                    _ => None,
                })
                .collect();
            match parents {
                Some(parents) => drop(self.values.insert(key.to_owned(), parents.into())),
                None => strange.push(field),
            }
        }
        let note =
            |field: &str| format!("README.md: {field} is not of the kind that GGUF has a key for: not taken");
        self.notes.extend(strange.into_iter().map(note));
    }

    /// What was found and not taken.
    pub fn notes(&self) -> &[String] {
        &self.notes
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
            let lists = |value: &Value| value.is_array() && texts(value).is_some();
            let described = |entry: &Value| {
                let known = |(field, value): (&String, &Value)| {
                    PARENT_FIELDS.contains(&field.as_str()) && value.is_string()
                };
                entry.as_object().is_some_and(|entry| entry.iter().all(known))
            };
            let (fits, expected) = if TEXTS.contains(&key.as_str()) || key == SEQUENCE.0 {
                (value.is_string(), "a string")
            } else if LISTS.iter().any(|(known, _)| *known == key) {
                (lists(&value), "a list of strings")
            } else if PARENTS.iter().any(|(known, ..)| *known == key) {
                let all = value.as_array().is_some_and(|list| list.iter().all(described));
                (
                    all,
                    "a list of objects of strings: name, author, version, organization, description, url, doi, \
                       uuid, repo_url",
                )
            } else if let Some((_, _, integer)) = SAMPLING.iter().find(|(known, ..)| *known == key) {
                (if *integer { value.is_i64() } else { value.is_number() }, "a number")
            } else {
                let lists = LISTS.map(|(known, _)| known).into_iter().chain(PARENTS.map(|(known, ..)| known));
                let known: Vec<&str> = TEXTS.into_iter().chain(lists).collect();
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
        if let Some(sequence) = self.values.get(SEQUENCE.0).and_then(Value::as_str) {
            draft.put(SEQUENCE.0, sequence)?;
        }
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
        for (list, key, _) in PARENTS {
            let Some(parents) = self.values.get(list).and_then(Value::as_array) else { continue };
            draft.put(&format!("{key}.count"), parents.len() as u32)?;
            for (at, parent) in parents.iter().enumerate() {
                for field in PARENT_FIELDS {
                    if let Some(text) = parent.get(field).and_then(Value::as_str) {
                        draft.put(&format!("{key}.{at}.{field}"), text)?;
                    }
                }
            }
        }
        for (key, _) in LISTS {
            if let Some(list) = self.values.get(key).and_then(Value::as_array) {
                let texts: format::gguf::Array = list.iter().filter_map(Value::as_str).collect();
                draft.put(key, &texts)?;
            }
        }
        Ok(())
    }
}

/// A text or a list of them; none for anything else.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// What a model card calls a model or a data set, taken apart: an address, or a name on Hugging Face's hub.
fn parent(id: &str, parameters: u64) -> Value {
    const HUB: &str = "huggingface.co/";
    let address = ["http://", "https://", "ssh://"].iter().find_map(|scheme| id.strip_prefix(scheme));
    let on_hub = match address {
        None => Some(id),
        Some(_) if id.starts_with("ssh://") => None,
        Some(address) => address.strip_prefix(HUB).filter(|name| {
            name.split_once('/')
                .is_some_and(|(of, name)| !of.is_empty() && !name.is_empty() && !name.contains('/'))
        }),
    };
    let mut said = Map::new();
    let mut say = |field: &str, text: String| drop(said.insert(field.to_owned(), text.into()));
    if let Some(name) = on_hub {
        let parts = NameParts::of(name, parameters);
        say("name", parts.title);
        if address.is_none() && parts.organization.is_some() {
            say("repo_url", format!("https://{HUB}{name}"));
        }
        parts.organization.into_iter().for_each(|organization| say("organization", organization));
        parts.version.into_iter().for_each(|version| say("version", version));
    }
    if address.is_some() {
        say("repo_url", id.to_owned());
    }
    said.into()
}
