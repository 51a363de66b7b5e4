//! Random checkpoints with the structure of released ones, to test and to measure with instead of a download.
//!
//! A seed gives the same bytes on every machine, and the first layers of a mock are the same however many follow.
//! Both file forms hold the same weights: the GGUF is what a conversion of the Hugging Face form would give.

mod preset;
mod random;
mod values;
mod vocabulary;

use std::path::Path;

use codec::Encoding;
use format::{Existing, gguf, safetensors};
use model::{Config, Dialect, FeedForward, LayerType};
use serde_json::{Value, json};

pub use preset::{PRESETS, Preset};

use crate::directory::Directory;
use crate::error::Error;
use crate::general::General;
use crate::gguf::{DEFAULT_INTERVAL, Description};
use crate::pipeline::{self, Encoded, Progress};
use crate::target::{Experts, Target, targets};

/// Largest safetensors file, unless one tensor is larger.
const SHARD_BYTES: u64 = 5_000_000_000;
/// Most layers that a mock may have.
const LAYER_LIMIT: usize = (1 << 20) - 1;

/// A random checkpoint that is to be written.
#[derive(Clone, Debug)]
pub struct Mock {
    name: String,
    /// Complete, for the Hugging Face form, but for `dtype`.
    json: Value,
    config: Config,
    seed: u64,
    dtype: Encoding,
    experts: Experts,
}

impl Mock {
    /// One of the [`PRESETS`], in BF16 with packed experts, of seed 0.
    ///
    /// # Errors
    /// There is no such preset.
    pub fn preset(name: &str) -> Result<Mock, Error> {
        match PRESETS.iter().find(|preset| preset.name.eq_ignore_ascii_case(name)) {
            Some(preset) => Mock::from_config(preset.name, &preset.config_json()),
            None => {
                let presets: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
                Err(Error::UnknownPreset { name: name.to_owned(), presets: presets.join(", ") })
            }
        }
    }

    /// The text model that a `config.json` describes, wrapped or not; `name` is what a GGUF file calls it.
    ///
    /// # Errors
    /// A configuration that the forward pass cannot use, or a vocabulary too small for a tokenizer.
    pub fn from_config(name: &str, json: &Value) -> Result<Mock, Error> {
        let mut json = json.clone();
        forget_checkpoint(&mut json);
        let text = json.get_mut("text_config").map(Value::take);
        let mut text = match text {
            Some(mut text) => {
                forget_checkpoint(&mut text);
                json["text_config"] = text.clone();
                text
            }
            None => json.clone(),
        };
        let mut config = Config::from_json(&json.to_string())?;
        // They concern the file that was read, not the one to be written.
        config.notes.clear();
        let vocabulary = vocabulary::generate(config.vocab_size)?;
        let (architecture, model_type) = match config.feed_forward {
            FeedForward::Dense { .. } => ("Qwen3_5ForCausalLM", "qwen3_5_text"),
            FeedForward::Moe { .. } => ("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text"),
        };
        text["architectures"] = json!([architecture]);
        text["model_type"] = model_type.into();
        text["tie_word_embeddings"] = config.tie_word_embeddings.into();
        text["bos_token_id"] = Value::Null;
        text["eos_token_id"] = vocabulary.office("eos").into();
        text["pad_token_id"] = vocabulary.office("pad").into();
        let name = name.to_owned();
        let mut mock =
            Mock { name, json: text, config, seed: 0, dtype: Encoding::BF16, experts: Experts::Packed };
        mock.describe_layers();
        Ok(mock)
    }

    /// The same with this many layers: the first ones, or the pattern again and again.
    ///
    /// # Errors
    /// None, or absurdly many.
    pub fn with_layers(mut self, layers: usize) -> Result<Mock, Error> {
        if !(1..=LAYER_LIMIT).contains(&layers) {
            return Err(Error::Layers { found: layers, limit: LAYER_LIMIT });
        }
        self.config.layer_types = self.config.layer_types.iter().copied().cycle().take(layers).collect();
        self.config.num_hidden_layers = layers;
        self.describe_layers();
        Ok(self)
    }

    /// The same with other values.
    pub fn with_seed(mut self, seed: u64) -> Mock {
        self.seed = seed;
        self
    }

    /// The same in another type. The Hugging Face form takes F32, F16 and BF16, GGUF every encoding that can be made
    /// without importance weights, as if from BF16; it is checked when the form is known.
    pub fn with_dtype(mut self, dtype: Encoding) -> Mock {
        self.dtype = dtype;
        self
    }

    /// The same with experts held in the other way; GGUF has one way.
    pub fn with_experts(mut self, experts: Experts) -> Mock {
        self.experts = experts;
        self
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many weights it has.
    pub fn parameters(&self) -> u64 {
        let elements = |target: Target| target.shape.dims().iter().product::<u64>();
        self.hf_targets().into_iter().map(elements).sum()
    }

    /// Bytes of the tensors in the Hugging Face form.
    ///
    /// # Errors
    /// A type that safetensors does not have.
    pub fn hf_bytes(&self) -> Result<u64, Error> {
        Ok(pipeline::total_bytes(&self.hf_tensors()?))
    }

    /// Bytes of the tensors in a GGUF file.
    ///
    /// # Errors
    /// A type that cannot be made.
    pub fn gguf_bytes(&self) -> Result<u64, Error> {
        Ok(pipeline::total_bytes(&self.gguf_tensors()?.0))
    }

    /// Writes the directory `dir`: weights, configuration, tokenizer. It is there whole or not at all.
    ///
    /// # Errors
    /// A type that safetensors does not have, a path that is taken, or a system that refuses.
    pub fn write_hf(&self, dir: &Path, existing: Existing, progress: Progress<'_>) -> Result<(), Error> {
        let tensors = self.hf_tensors()?;
        let vocabulary = vocabulary::generate(self.config.vocab_size)?;
        let directory = Directory::create(dir, existing)?;
        let mut draft = safetensors::Draft::new(directory.path());
        draft.put("format", "pt");
        for (target, encoding) in &tensors {
            draft.tensor(&target.name, *encoding, &target.shape)?;
        }
        let mut writer = draft.create_sharded(SHARD_BYTES, Existing::Refuse)?;
        let weights = values::Weights::new(&self.config, self.seed, self.source_encoding());
        pipeline::run(&tensors, &weights, &mut |name, bytes| writer.write(name, bytes), progress)?;
        writer.finish()?;

        let mut config = self.json.clone();
        config["dtype"] = torch_name(self.dtype).into();
        config.sort_all_objects();
        let generation = json!({"eos_token_id": vocabulary.office("eos"), "pad_token_id": vocabulary.office("pad"), "use_cache": true});
        let mut tokenizer = Vec::new();
        let in_memory = |source| Error::Io { path: dir.join("tokenizer.json"), action: "write", source };
        let split = model::tokenizer::splitting_regex(vocabulary::PRE).unwrap_or_default();
        vocabulary.write_tokenizer_json(split, &mut tokenizer).map_err(in_memory)?;
        directory.write("config.json", pretty(&config).as_bytes())?;
        directory.write("generation_config.json", pretty(&generation).as_bytes())?;
        directory.write("tokenizer.json", &tokenizer)?;
        directory.write("tokenizer_config.json", pretty(&vocabulary.tokenizer_config()).as_bytes())?;
        for (_, template) in &vocabulary.chat_templates {
            directory.write("chat_template.jinja", template.as_bytes())?;
        }
        directory.finish()
    }

    /// Writes the file `path`. It is there whole or not at all.
    ///
    /// # Errors
    /// A type that cannot be made, heads that GGUF cannot describe, a path that is taken, or a system that refuses.
    pub fn write_gguf(&self, path: &Path, existing: Existing, progress: Progress<'_>) -> Result<(), Error> {
        let (tensors, file_type) = self.gguf_tensors()?;
        let vocabulary = vocabulary::generate(self.config.vocab_size)?;
        let mut draft = gguf::Draft::new(path);
        let interval = self.json.get("full_attention_interval").and_then(Value::as_u64);
        let size_label = crate::gguf::size_label(tensors.iter().map(|(target, _)| target), &self.config);
        let general = General::named(&self.name, &size_label);
        let description = Description {
            general: &general,
            file_type,
            full_attention_interval: interval.and_then(|i| u32::try_from(i).ok()).unwrap_or(DEFAULT_INTERVAL),
        };
        crate::gguf::put_keys(&mut draft, &self.config, &description, &vocabulary)?;
        for (target, encoding) in &tensors {
            draft.tensor(&target.name, *encoding, &target.shape)?;
        }
        let mut writer = draft.create(existing)?;
        let weights = values::Weights::new(&self.config, self.seed, self.source_encoding());
        pipeline::run(&tensors, &weights, &mut |name, bytes| writer.write(name, bytes), progress)?;
        Ok(writer.finish()?)
    }

    /// Brings `config.json` up to the configuration's layers.
    fn describe_layers(&mut self) {
        let name = |mixer: &LayerType| match mixer {
            LayerType::LinearAttention => "linear_attention",
            LayerType::FullAttention => "full_attention",
        };
        let names: Vec<&str> = self.config.layer_types.iter().map(name).collect();
        self.json["layer_types"] = json!(names);
        self.json["num_hidden_layers"] = self.config.num_hidden_layers.into();
    }

    /// What a Hugging Face form that this mock is, or was converted from, holds most weights in.
    fn source_encoding(&self) -> Encoding {
        match self.dtype {
            Encoding::F32 | Encoding::F16 => self.dtype,
            _ => Encoding::BF16,
        }
    }

    fn hf_targets(&self) -> Vec<Target> {
        targets(&self.config, Dialect::Hf { prefix: "model." }, self.experts)
    }

    fn hf_tensors(&self) -> Result<Vec<Encoded>, Error> {
        if !matches!(self.dtype, Encoding::F32 | Encoding::F16 | Encoding::BF16) {
            let expected = "F32, F16 or BF16".to_owned();
            return Err(Error::Encoding { encoding: self.dtype, format: "Hugging Face", expected });
        }
        let is_island = |target: &Target| target.parts.iter().any(|part| values::is_island(part.role));
        let encode = |target| {
            let encoding = if is_island(&target) { Encoding::F32 } else { self.dtype };
            (target, encoding)
        };
        Ok(self.hf_targets().into_iter().map(encode).collect())
    }

    /// Tensors and file type.
    fn gguf_tensors(&self) -> Result<(Vec<Encoded>, u32), Error> {
        let possible = |e: Encoding| e.is_encodable() && !e.needs_importance();
        let file_type = crate::gguf::file_type(self.dtype).filter(|_| possible(self.dtype));
        let Some(file_type) = file_type else {
            let names: Vec<&str> = (Encoding::ALL.iter())
                .filter(|e| possible(**e) && crate::gguf::file_type(**e).is_some())
                .map(|e| e.name())
                .collect();
            let expected = names.join(", ");
            return Err(Error::Encoding { encoding: self.dtype, format: "GGUF", expected });
        };
        let targets = targets(&self.config, Dialect::Gguf, self.experts);
        let encode = |target| {
            let encoding = crate::gguf::encoding(&target, self.dtype);
            (target, encoding)
        };
        Ok((targets.into_iter().map(encode).collect(), file_type))
    }
}

/// Drops what speaks of the checkpoint that a `config.json` came with. Nothing happens to what is no object; reading
/// it as a configuration says so.
fn forget_checkpoint(json: &mut Value) {
    if let Value::Object(fields) = json {
        for field in ["_name_or_path", "quantization_config", "torch_dtype", "transformers_version"] {
            fields.shift_remove(field);
        }
    }
}

/// What config.json calls a type.
fn torch_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::F32 => "float32",
        Encoding::F16 => "float16",
        _ => "bfloat16",
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
