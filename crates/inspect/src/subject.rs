//! A checkpoint that is looked at, and what could be made out about it.

use std::path::{Path, PathBuf};

use format::gguf::KeyValues;
use format::{Limits, Metadata, TensorSource};
use model::{Config, ConfigError, Dialect, Layout, Problem, Purpose};
use serde_json::Value;

use crate::error::Error;

/// What a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Weights of a model.
    Model,
    /// A GGUF vocabulary without weights.
    Vocabulary,
    /// An importance matrix.
    ImportanceMatrix,
    /// LoRA, a control vector or another adapter.
    Adapter,
    /// A vision or audio projector.
    Projector,
    /// Tensors that nothing describes.
    Tensors,
}

impl Kind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Model => "model",
            Kind::Vocabulary => "vocabulary without weights",
            Kind::ImportanceMatrix => "importance matrix",
            Kind::Adapter => "adapter",
            Kind::Projector => "projector",
            Kind::Tensors => "tensors without a description",
        }
    }
}

/// What a Qwen3.5 checkpoint says of itself, so far as it does.
pub struct Qwen {
    /// Names and forms it uses.
    pub dialect: Dialect,
    /// Its configuration, or why that cannot be used.
    pub config: Result<Config, ConfigError>,
    /// What each of its tensors is, or all that is wrong with them. Absent without a configuration.
    pub layout: Option<Result<Layout, Vec<Problem>>>,
}

/// An open checkpoint of any kind.
pub struct Subject {
    path: PathBuf,
    source: Box<dyn TensorSource>,
    /// `config.json` beside safetensors, if it is there and is JSON.
    json: Option<Value>,
    qwen: Option<Qwen>,
}

/// `general.architecture` of this family in GGUF files.
const GGUF_ARCHITECTURES: [&str; 2] = ["qwen35", "qwen35moe"];

impl Subject {
    /// Opens whatever `format` reads. That the model in it cannot be made out is no error.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn open(path: &Path, limits: &Limits) -> Result<Subject, Error> {
        let source = format::open(path, limits)?;
        let text = match source.metadata() {
            Metadata::Gguf(_) => None,
            Metadata::Safetensors(_) => std::fs::read_to_string(directory(path).join("config.json")).ok(),
        };
        let json: Option<Value> = text.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let mut subject = Subject { path: path.to_owned(), source, json, qwen: None };
        subject.qwen = subject.recognise(text.as_deref());
        Ok(subject)
    }

    fn recognise(&self, json: Option<&str>) -> Option<Qwen> {
        let source = self.source.as_ref();
        let (dialect, config) = match source.metadata() {
            // An adapter or an importance matrix of this architecture is no model.
            Metadata::Gguf(_) if self.kind() != Kind::Model => return None,
            Metadata::Gguf(keys) => {
                let architecture = keys.get_str("general.architecture").ok()?;
                GGUF_ARCHITECTURES.contains(&architecture).then_some(())?;
                (Dialect::Gguf, Config::from_gguf(keys, source))
            }
            Metadata::Safetensors(_) => {
                let family = self.architecture()?.to_lowercase().replace('_', "");
                family.contains("qwen35").then_some(())?;
                (Dialect::of_hf(source), Config::from_json_for(json?, Purpose::Convert))
            }
        };
        let layout =
            config.as_ref().ok().map(|config| Layout::resolve(source, config, dialect, Purpose::Convert));
        Some(Qwen { dialect, config, layout })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors.
    pub fn source(&self) -> &dyn TensorSource {
        self.source.as_ref()
    }

    /// What this family's layout map makes of it; `None` for any other model.
    pub fn qwen(&self) -> Option<&Qwen> {
        self.qwen.as_ref()
    }

    /// Configuration and layout, where all is well with both.
    pub fn layout(&self) -> Option<(&Config, &Layout)> {
        let qwen = self.qwen.as_ref()?;
        Some((qwen.config.as_ref().ok()?, qwen.layout.as_ref()?.as_ref().ok()?))
    }

    /// The keys of a GGUF file.
    pub fn keys(&self) -> Option<&KeyValues> {
        match self.source.metadata() {
            Metadata::Gguf(keys) => Some(keys),
            Metadata::Safetensors(_) => None,
        }
    }

    /// `config.json`, where there is one.
    pub fn json(&self) -> Option<&Value> {
        self.json.as_ref()
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        let Some(keys) = self.keys() else {
            return if self.json.is_some() { Kind::Model } else { Kind::Tensors };
        };
        let architecture = keys.get_str("general.architecture").ok();
        match keys.get_str("general.type").ok() {
            Some("imatrix") => Kind::ImportanceMatrix,
            Some("adapter") => Kind::Adapter,
            Some("mmproj") => Kind::Projector,
            _ if architecture == Some("clip") => Kind::Projector,
            _ if architecture == Some("controlvector") => Kind::Adapter,
            _ if self.source.tensors().is_empty() && keys.contains("tokenizer.ggml.tokens") => {
                Kind::Vocabulary
            }
            _ if architecture.is_none() => Kind::Tensors,
            _ => Kind::Model,
        }
    }

    /// What it calls its architecture; a very long name is cut short.
    pub fn architecture(&self) -> Option<String> {
        match self.keys() {
            Some(keys) => {
                keys.get_str("general.architecture").ok().map(|name| format::brief(name).into_owned())
            }
            None => {
                let json = self.json.as_ref()?;
                let named = json["architectures"][0].as_str().or_else(|| json["model_type"].as_str());
                named.map(str::to_owned)
            }
        }
    }

    /// The directory that a checkpoint's small files stand in.
    pub fn directory(&self) -> &Path {
        directory(&self.path)
    }
}

fn directory(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) }
}
