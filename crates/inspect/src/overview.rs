//! What a checkpoint is, at one glance.

use std::collections::BTreeMap;
use std::path::PathBuf;

use format::Metadata;
use format::gguf::KeyValues;
use model::{Config, LayerType};
use serde_json::Value;

use crate::class::Class;
use crate::lint::{Finding, lint};
use crate::subject::{Kind, Subject};
use crate::tensor_row::{Status, TensorRow};

/// What a checkpoint is, at one glance.
#[derive(Debug, serde::Serialize)]
pub struct Overview {
    /// The path that was named.
    pub path: PathBuf,
    /// The files it is made of.
    pub files: Vec<PathBuf>,
    /// `gguf` or `safetensors`.
    pub format: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it calls its architecture.
    pub architecture: Option<String>,
    /// What it calls itself.
    pub name: Option<String>,
    /// The number of tensors.
    pub tensors: usize,
    /// The number of their elements.
    pub parameters: u64,
    /// Bytes of the files.
    pub file_bytes: u64,
    /// Bytes of the tensors.
    pub tensor_bytes: u64,
    /// Bits of a parameter, on average; absent without parameters.
    pub bits_per_weight: Option<f64>,
    /// The number of keys of a GGUF file, or of entries of `__metadata__`.
    pub keys: usize,
    /// Version, byte order and alignment of a GGUF file.
    pub gguf: Option<GgufFacts>,
    /// The configuration of a Qwen3.5 model.
    pub config: Option<Config>,
    /// One letter a layer: D DeltaNet, A attention; M a multi-token-prediction block.
    pub layers: Option<String>,
    /// Classes of tensors and what they are stored in.
    pub classes: Vec<ClassShare>,
    /// Encodings, by their share of the bytes.
    pub encodings: Vec<EncodingShare>,
    /// What is in the way of a tokenizer.
    pub tokenizer: Option<TokenizerSummary>,
    /// Bytes of the chat template, if there is one.
    pub chat_template: Option<usize>,
    /// Tensors of multi-token prediction.
    pub mtp_tensors: usize,
    /// Tensors of a vision tower.
    pub vision_tensors: usize,
    /// What contradicts itself or is likely wrong.
    pub findings: Vec<Finding>,
}

/// How a GGUF file is written.
#[derive(Debug, serde::Serialize)]
pub struct GgufFacts {
    /// 2 or 3.
    pub version: u32,
    /// Whether it is big-endian.
    pub big_endian: bool,
    /// Bytes.
    pub alignment: u32,
}

/// The tensors of one class.
#[derive(Debug, serde::Serialize)]
pub struct ClassShare {
    /// The class.
    pub class: Class,
    /// How many there are.
    pub tensors: usize,
    /// Their elements.
    pub parameters: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Share of all bytes.
    pub share: f64,
    /// Tensors by encoding, most bytes first.
    pub encodings: Vec<(&'static str, usize)>,
}

/// The tensors of one encoding.
#[derive(Debug, serde::Serialize)]
pub struct EncodingShare {
    /// The encoding.
    pub encoding: &'static str,
    /// How many there are.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Share of all bytes.
    pub share: f64,
}

/// A tokenizer as the file describes it; nothing is built of it.
#[derive(Debug, serde::Serialize)]
pub struct TokenizerSummary {
    /// `tokenizer.ggml.model`, or the name of the file.
    pub model: String,
    /// `tokenizer.ggml.pre`.
    pub pre: Option<String>,
    /// Tokens, if the file says how many.
    pub tokens: Option<u64>,
    /// Merges, if the file says how many.
    pub merges: Option<u64>,
    /// Special ids by name.
    pub special: BTreeMap<String, u64>,
}

impl Overview {
    /// Reads keys, descriptions and small tensors; nothing large.
    pub fn of(subject: &Subject) -> Overview {
        let source = subject.source();
        let mut all = Sums::default();
        let mut classes: BTreeMap<Class, Sums> = BTreeMap::new();
        let (mut mtp_tensors, mut vision_tensors) = (0, 0);
        for row in TensorRow::all(subject) {
            let is = |status, class| usize::from(row.status == Some(status) || row.class == class);
            mtp_tensors += is(Status::Mtp, Class::Mtp);
            vision_tensors += is(Status::Vision, Class::Vision);
            all.add(&row);
            classes.entry(row.class).or_default().add(&row);
        }
        let file_bytes =
            source.files().iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
        let keys = subject.keys();
        let config = subject.qwen().and_then(|qwen| qwen.config.as_ref().ok());
        Overview {
            path: subject.path().to_owned(),
            files: source.files().to_vec(),
            format: if keys.is_some() { "gguf" } else { "safetensors" },
            kind: subject.kind(),
            architecture: subject.architecture(),
            name: keys.and_then(|keys| brief_of(keys, "general.name")),
            tensors: all.tensors,
            parameters: all.parameters,
            file_bytes,
            tensor_bytes: all.bytes,
            bits_per_weight: (all.parameters > 0).then(|| all.bytes as f64 * 8.0 / all.parameters as f64),
            keys: match source.metadata() {
                Metadata::Gguf(keys) => keys.len(),
                Metadata::Safetensors(entries) => entries.len(),
            },
            gguf: keys.map(|keys| GgufFacts {
                version: keys.version(),
                big_endian: keys.byte_order() == format::gguf::ByteOrder::Big,
                alignment: keys.alignment(),
            }),
            config: config.cloned(),
            layers: config.map(letters),
            classes: classes.into_iter().map(|(class, sums)| sums.of_class(class, all.bytes)).collect(),
            encodings: all.encodings(all.bytes),
            tokenizer: tokenizer(subject),
            chat_template: chat_template(subject),
            mtp_tensors,
            vision_tensors,
            findings: lint(subject),
        }
    }
}

fn letters(config: &Config) -> String {
    let layer = |mixer: &LayerType| match mixer {
        LayerType::LinearAttention => 'D',
        LayerType::FullAttention => 'A',
    };
    let mtp = std::iter::repeat_n('M', config.mtp_num_hidden_layers.min(64));
    config.layer_types.iter().map(layer).chain(mtp).collect()
}

fn share(bytes: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { bytes as f64 / all as f64 }
}

/// What some tensors come to.
#[derive(Default)]
struct Sums {
    tensors: usize,
    parameters: u64,
    bytes: u64,
    /// Tensors and bytes by encoding.
    encodings: BTreeMap<&'static str, (usize, u64)>,
}

impl Sums {
    fn add(&mut self, row: &TensorRow) {
        self.tensors += 1;
        self.parameters = self.parameters.saturating_add(row.elements);
        self.bytes = self.bytes.saturating_add(row.bytes);
        let entry = self.encodings.entry(row.encoding).or_default();
        *entry = (entry.0 + 1, entry.1.saturating_add(row.bytes));
    }

    fn of_class(&self, class: Class, all: u64) -> ClassShare {
        ClassShare {
            class,
            tensors: self.tensors,
            parameters: self.parameters,
            bytes: self.bytes,
            share: share(self.bytes, all),
            encodings: self.encodings(all).into_iter().map(|e| (e.encoding, e.tensors)).collect(),
        }
    }

    fn encodings(&self, all: u64) -> Vec<EncodingShare> {
        let share = |(&encoding, &(tensors, bytes)): (&&'static str, &(usize, u64))| EncodingShare {
            encoding,
            tensors,
            bytes,
            share: share(bytes, all),
        };
        let mut shares: Vec<EncodingShare> = self.encodings.iter().map(share).collect();
        shares.sort_by_key(|share| (std::cmp::Reverse(share.bytes), share.encoding));
        shares
    }
}

fn tokenizer(subject: &Subject) -> Option<TokenizerSummary> {
    /// There are a dozen kinds; a file can name any number.
    const SPECIAL_IDS: usize = 64;
    const SPECIAL: [&str; 2] = ["tokenizer.ggml.", "_token_id"];
    let Some(keys) = subject.keys() else {
        let names = ["tokenizer.json", "vocab.json"];
        let file = names.into_iter().find(|name| subject.directory().join(name).is_file())?;
        let special =
            subject.json().and_then(Value::as_object).into_iter().flatten().filter_map(|(key, value)| {
                Some((key.strip_suffix("_token_id")?.to_owned(), value.as_u64()?))
            });
        let (model, special) = (file.to_owned(), special.collect());
        return Some(TokenizerSummary { model, pre: None, tokens: None, merges: None, special });
    };
    let model = brief_of(keys, "tokenizer.ggml.model")?;
    let len = |key: &str| keys.get_array(key).ok().map(|array| array.len());
    let special = keys.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(SPECIAL[0])?.strip_suffix(SPECIAL[1])?;
        Some((name.to_owned(), value.as_u64()?))
    });
    Some(TokenizerSummary {
        model,
        pre: brief_of(keys, "tokenizer.ggml.pre"),
        tokens: len("tokenizer.ggml.tokens"),
        merges: len("tokenizer.ggml.merges"),
        special: special.take(SPECIAL_IDS).collect(),
    })
}

/// A text under a key; a very long one is cut short.
fn brief_of(keys: &KeyValues, key: &str) -> Option<String> {
    keys.get_str(key).ok().map(|text| format::brief(text).into_owned())
}

fn chat_template(subject: &Subject) -> Option<usize> {
    match subject.keys() {
        Some(keys) => keys.get_str("tokenizer.chat_template").ok().map(str::len),
        None => {
            let file = subject.directory().join("chat_template.jinja");
            if let Ok(meta) = file.metadata() {
                return usize::try_from(meta.len()).ok();
            }
            let text = std::fs::read_to_string(subject.directory().join("tokenizer_config.json")).ok()?;
            let json: Value = serde_json::from_str(&text).ok()?;
            json["chat_template"].as_str().map(str::len)
        }
    }
}
