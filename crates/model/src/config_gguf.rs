//! [`Config`] from the keys of a GGUF file.

use format::TensorSource;
use format::gguf::{KeyValues, Value};

use crate::config::{Config, FeedForward, LayerType};
use crate::error::ConfigError;

/// `general.architecture` of the dense and the routed models.
pub(crate) const ARCHITECTURES: [&str; 2] = ["qwen35", "qwen35moe"];

impl Config {
    /// Reads a GGUF file's keys. Sizes that GGUF does not state (the vocabulary, tied embeddings) come from its
    /// tensors; of a file without any, the vocabulary's from its tokens.
    ///
    /// # Errors
    /// Another architecture, a needed key absent or of the wrong kind, or keys that contradict each other.
    pub fn from_gguf(keys: &KeyValues, source: &dyn TensorSource) -> Result<Config, ConfigError> {
        let found = keys
            .get("general.architecture")
            .and_then(|value| value.as_str())
            .ok_or_else(|| missing("general.architecture (a string)"))?;
        let Some(architecture) = ARCHITECTURES.into_iter().find(|a| *a == found) else {
            return Err(ConfigError::Unsupported {
                field: "general.architecture".into(),
                found: found.into(),
                supported: ARCHITECTURES.join(" and "),
            });
        };
        let keys = Keys { keys, architecture };
        let mut notes = Vec::new();

        let blocks = keys.size("block_count")?;
        let mtp = keys.optional_size("nextn_predict_layers")?.unwrap_or(0);
        let num_hidden_layers = blocks.checked_sub(mtp).ok_or_else(|| {
            ConfigError::contradiction(format!("{mtp} nextn_predict_layers among {blocks} blocks"))
        })?;
        Config::check_layers("block_count", num_hidden_layers)?;
        Config::check_layers("nextn_predict_layers", mtp)?;
        let head_dim = keys.size("attention.key_length")?;
        let value_length = keys.size("attention.value_length")?;
        if head_dim != value_length {
            return Err(ConfigError::contradiction(format!(
                "attention.key_length {head_dim} and attention.value_length {value_length}: this family has one \
                 head_dim"
            )));
        }
        let linear_num_value_heads = keys.size("ssm.time_step_rank")?;
        let linear_key_head_dim = keys.size("ssm.state_size")?;
        let inner = keys.size("ssm.inner_size")?;
        if linear_num_value_heads == 0
            || Some(inner) != linear_num_value_heads.checked_mul(linear_key_head_dim)
        {
            return Err(ConfigError::contradiction(format!(
                "ssm.inner_size {inner} is not ssm.time_step_rank {linear_num_value_heads} · ssm.state_size \
                 {linear_key_head_dim}: GGUF has one head width for keys and values, a model with K ≠ V runs from \
                 its Hugging Face checkpoint only"
            )));
        }
        let embedding = source.tensor("token_embd.weight");
        let vocab_size = match embedding {
            Some(embedding) => embedding.shape.dims().first().copied(),
            None if source.tensors().is_empty() => {
                keys.keys.get_array("tokenizer.ggml.tokens").ok().map(|tokens| tokens.len())
            }
            None => None,
        };
        let vocab_size = vocab_size
            .and_then(|rows| usize::try_from(rows).ok())
            .ok_or_else(|| missing("token_embd.weight (its rows are the vocabulary size)"))?;
        let feed_forward = if architecture == ARCHITECTURES[0] {
            FeedForward::Dense { intermediate_size: keys.size("feed_forward_length")? }
        } else {
            FeedForward::Moe {
                num_experts: keys.size("expert_count")?,
                num_experts_per_tok: keys.size("expert_used_count")?,
                moe_intermediate_size: keys.size("expert_feed_forward_length")?,
                shared_expert_intermediate_size: keys.size("expert_shared_feed_forward_length")?,
            }
        };
        Config {
            hidden_size: keys.size("embedding_length")?,
            num_hidden_layers,
            vocab_size,
            max_position_embeddings: keys.size("context_length")?,
            rms_norm_eps: keys.number("attention.layer_norm_rms_epsilon")?,
            tie_word_embeddings: source.tensor("output.weight").is_none(),
            num_attention_heads: keys.size("attention.head_count")?,
            num_key_value_heads: keys.size("attention.head_count_kv")?,
            head_dim,
            linear_num_key_heads: keys.size("ssm.group_count")?,
            linear_num_value_heads,
            linear_key_head_dim,
            linear_value_head_dim: linear_key_head_dim,
            linear_conv_kernel_dim: keys.size("ssm.conv_kernel")?,
            layer_types: keys.layer_types(num_hidden_layers, &mut notes)?,
            rope_theta: keys.number("rope.freq_base")?,
            rotary_dim: keys.size("rope.dimension_count")?,
            mrope_section: keys.sections()?,
            feed_forward,
            mtp_num_hidden_layers: mtp,
            notes,
        }
        .validate()
    }
}

/// Released files have three or four.
const MOST_SECTIONS: u64 = 16;

fn missing(field: &str) -> ConfigError {
    ConfigError::Missing { field: field.into() }
}

fn wrong(field: &str, expected: &str, found: Value<'_>) -> ConfigError {
    ConfigError::Value { field: field.into(), expected: expected.into(), found: found.brief() }
}

/// The keys under the architecture's name.
struct Keys<'a> {
    keys: &'a KeyValues,
    architecture: &'static str,
}

impl Keys<'_> {
    fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let path = self.path(key);
        let Some(value) = self.keys.get(&path) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(size) => Ok(Some(size)),
            None => Err(wrong(&path, "a whole number", value)),
        }
    }

    fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.optional_size(key)?.ok_or_else(|| missing(&self.path(key)))
    }

    fn number(&self, key: &str) -> Result<f64, ConfigError> {
        let path = self.path(key);
        let value = self.keys.get(&path).ok_or_else(|| missing(&path))?;
        value.as_f64().ok_or_else(|| wrong(&path, "a number", value))
    }

    fn sections(&self) -> Result<Option<Vec<usize>>, ConfigError> {
        let path = self.path("rope.dimension_sections");
        let Some(value) = self.keys.get(&path) else { return Ok(None) };
        let sections = value.as_array().filter(|a| a.len() <= MOST_SECTIONS).and_then(|a| {
            a.elements().map(|v| v.ok()?.as_u64().and_then(|v| usize::try_from(v).ok())).collect()
        });
        match sections {
            Some(sections) => Ok(Some(sections)),
            None => Err(wrong(&path, "an array of few whole numbers", value)),
        }
    }

    /// `attention.recurrent_layers` says it layer by layer; `full_attention_interval` is the older key, and
    /// converters write 4 there whatever the pattern. Where both stand, the array holds.
    fn layer_types(&self, layers: usize, notes: &mut Vec<String>) -> Result<Vec<LayerType>, ConfigError> {
        let interval = self.optional_size("full_attention_interval")?;
        let path = self.path("attention.recurrent_layers");
        let Some(value) = self.keys.get(&path) else {
            let interval = interval
                .ok_or_else(|| missing(&format!("{path} (or {})", self.path("full_attention_interval"))))?;
            if interval == 0 {
                return Err(ConfigError::contradiction(format!(
                    "full_attention_interval {interval} over {layers} layers"
                )));
            }
            return Ok(Config::every_nth(layers, interval));
        };
        let wrong = || wrong(&path, &format!("an array of at least {layers} booleans"), value);
        let array = value.as_array().filter(|a| a.len() >= layers as u64).ok_or_else(wrong)?;
        let recurrent = array.elements().take(layers).map(|v| v.ok()?.as_bool());
        let types: Vec<LayerType> = recurrent
            .map(|r| Some(if r? { LayerType::LinearAttention } else { LayerType::FullAttention }))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        if let Some(interval) = interval.filter(|&i| i > 0 && Config::every_nth(layers, i) != types) {
            notes.push(format!(
                "full_attention_interval = {interval} disagrees with attention.recurrent_layers, which holds"
            ));
        }
        Ok(types)
    }
}
