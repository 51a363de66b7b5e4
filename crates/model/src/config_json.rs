//! [`Config`] from Hugging Face's `config.json`.

use serde_json::{Map, Value};

use crate::checkpoint::Purpose;
use crate::config::{Config, FeedForward, LayerType};
use crate::error::ConfigError;

/// Fields that the forward pass does not read, known so that an unknown one stands out.
const UNUSED: &[&str] = &[
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "image_token_id",
    "initializer_range",
    "language_model_only",
    "mamba_ssm_dtype",
    "model_type",
    "mtp_use_dedicated_embeddings",
    "output_router_logits",
    "pad_token_id",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "video_token_id",
    "vision_config",
    "vision_end_token_id",
    "vision_start_token_id",
];

/// Fields that [`Config::from_json`] reads.
const USED: &[&str] = &[
    "attention_bias",
    "attn_output_gate",
    "full_attention_interval",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "linear_conv_kernel_dim",
    "linear_key_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_value_head_dim",
    "max_position_embeddings",
    "moe_intermediate_size",
    "mtp_num_hidden_layers",
    "num_attention_heads",
    "num_experts",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_key_value_heads",
    "partial_rotary_factor",
    "quantization",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "shared_expert_intermediate_size",
    "text_config",
    "tie_word_embeddings",
    "vocab_size",
];

impl Config {
    /// Reads `config.json`; text settings may be nested under `text_config`.
    ///
    /// # Errors
    /// Not JSON, a needed field absent or of the wrong kind, a setting that this forward pass does not
    /// implement (another activation, biases, scaled RoPE), or fields that contradict each other.
    pub fn from_json(text: &str) -> Result<Config, ConfigError> {
        Config::from_json_for(text, Purpose::Run)
    }

    /// The same for a purpose: what can be converted need not be ready to run.
    ///
    /// # Errors
    /// The same, but for weights in FP8 with one scale a block of 128 × 128, which can be converted.
    pub fn from_json_for(text: &str, purpose: Purpose) -> Result<Config, ConfigError> {
        let root: Value = serde_json::from_str(text).map_err(|e| ConfigError::Json { why: e.to_string() })?;
        let Value::Object(outer) = root else {
            return Err(ConfigError::Json { why: "expected an object at the top".into() });
        };
        let nested = match outer.get("text_config") {
            None => None,
            Some(Value::Object(inner)) => Some(inner),
            Some(other) => return Err(ConfigError::kind("text_config", "an object", other)),
        };
        let fields = Fields { object: nested.unwrap_or(&outer), path: nested.map_or("", |_| "text_config.") };
        let family = outer.get("model_type").or_else(|| fields.object.get("model_type"));
        if let Some(Value::String(family)) = family
            && !family.starts_with("qwen3_5")
        {
            return Err(ConfigError::Unsupported {
                field: "model_type".into(),
                found: family.clone(),
                supported: "qwen3_5 and qwen3_5_moe, with or without vision".into(),
            });
        }
        let quantized =
            [&outer, fields.object].into_iter().find_map(|object| object.get("quantization_config"));
        if let Some(found) = quantized.filter(|found| purpose == Purpose::Run || !is_block_fp8(found)) {
            let supported = match purpose {
                Purpose::Run => "plain F32, F16 or BF16 weights: convert or dequantize the checkpoint first",
                Purpose::Convert | Purpose::Part => {
                    "plain F32, F16 or BF16 weights, or FP8 (e4m3) with a scale for each 128 × 128: dequantize the \
                     checkpoint with the tool that made it, or take the unquantized one"
                }
            };
            return Err(ConfigError::Unsupported {
                field: "quantization_config".into(),
                found: found.get("quant_method").map_or_else(|| found.to_string(), Value::to_string),
                supported: supported.into(),
            });
        }
        fields.only("hidden_act", "silu")?;
        fields.only("attention_bias", false)?;
        fields.only("attn_output_gate", true)?;

        let mut notes = Vec::new();
        let num_hidden_layers = fields.size("num_hidden_layers")?;
        Config::check_layers("num_hidden_layers", num_hidden_layers)?;
        let head_dim = fields.size("head_dim")?;
        let rope = fields.rope()?;
        let factor = rope.number("partial_rotary_factor")?;
        let rotary = head_dim as f64 * factor;
        if !(rotary.fract() == 0.0 && rotary > 0.0) {
            return Err(ConfigError::contradiction(format!(
                "head_dim {head_dim} · partial_rotary_factor {factor} is not a positive whole number"
            )));
        }
        let feed_forward = if fields.object.contains_key("num_experts") {
            FeedForward::Moe {
                num_experts: fields.size("num_experts")?,
                num_experts_per_tok: fields.size("num_experts_per_tok")?,
                moe_intermediate_size: fields.size("moe_intermediate_size")?,
                shared_expert_intermediate_size: fields.size("shared_expert_intermediate_size")?,
            }
        } else {
            FeedForward::Dense { intermediate_size: fields.size("intermediate_size")? }
        };
        for (object, path) in [(&outer, ""), (fields.object, fields.path)] {
            for key in object.keys().filter(|k| !USED.contains(&k.as_str()) && !UNUSED.contains(&k.as_str()))
            {
                let note = format!("config.json: {path}{key} is unknown here and was not used");
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
        Config {
            hidden_size: fields.size("hidden_size")?,
            num_hidden_layers,
            vocab_size: fields.size("vocab_size")?,
            max_position_embeddings: fields.size("max_position_embeddings")?,
            rms_norm_eps: fields.number("rms_norm_eps")?,
            tie_word_embeddings: tied(&outer, &fields)?,
            num_attention_heads: fields.size("num_attention_heads")?,
            num_key_value_heads: fields.size("num_key_value_heads")?,
            head_dim,
            linear_num_key_heads: fields.size("linear_num_key_heads")?,
            linear_num_value_heads: fields.size("linear_num_value_heads")?,
            linear_key_head_dim: fields.size("linear_key_head_dim")?,
            linear_value_head_dim: fields.size("linear_value_head_dim")?,
            linear_conv_kernel_dim: fields.size("linear_conv_kernel_dim")?,
            layer_types: fields.layer_types(num_hidden_layers)?,
            rope_theta: rope.number("rope_theta")?,
            rotary_dim: rotary as usize,
            mrope_section: rope.sections()?,
            feed_forward,
            mtp_num_hidden_layers: match fields.object.get("mtp_num_hidden_layers") {
                None => 0,
                Some(_) => {
                    let layers = fields.size("mtp_num_hidden_layers")?;
                    Config::check_layers("mtp_num_hidden_layers", layers)?;
                    layers
                }
            },
            notes,
        }
        .validate()
    }
}

/// FP8 as the family is released in it.
fn is_block_fp8(quantization: &Value) -> bool {
    let block = quantization.get("weight_block_size");
    quantization["quant_method"] == "fp8" && block.is_none_or(|block| *block == serde_json::json!([128, 128]))
}

/// `tie_word_embeddings` stands outside, inside `text_config`, or in both; in both it must agree.
fn tied(outer: &Map<String, Value>, inner: &Fields<'_>) -> Result<bool, ConfigError> {
    let read = |object: &Map<String, Value>| match object.get("tie_word_embeddings") {
        None => Ok(None),
        Some(Value::Bool(b)) => Ok(Some(*b)),
        Some(other) => Err(ConfigError::kind("tie_word_embeddings", "true or false", other)),
    };
    match (read(outer)?, read(inner.object)?) {
        (Some(a), Some(b)) if a != b => Err(ConfigError::contradiction(format!(
            "tie_word_embeddings is {a} at the top and {b} in text_config"
        ))),
        (Some(t), _) | (None, Some(t)) => Ok(t),
        (None, None) => Err(ConfigError::Missing { field: "tie_word_embeddings".into() }),
    }
}

/// An object of the file, and where in the file it stands.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: &'static str,
}

impl<'a> Fields<'a> {
    fn get(&self, field: &str) -> Result<&'a Value, ConfigError> {
        match self.object.get(field) {
            Some(value) if !value.is_null() => Ok(value),
            _ => Err(ConfigError::Missing { field: format!("{}{field}", self.path) }),
        }
    }

    fn size(&self, field: &str) -> Result<usize, ConfigError> {
        let value = self.get(field)?;
        value
            .as_u64()
            .and_then(|v| usize::try_from(v).ok())
            .ok_or_else(|| ConfigError::kind(field, "a whole number", value))
    }

    fn number(&self, field: &str) -> Result<f64, ConfigError> {
        let value = self.get(field)?;
        value.as_f64().ok_or_else(|| ConfigError::kind(field, "a number", value))
    }

    /// Refuses any value but the one that the forward pass implements; absent means that one.
    fn only(&self, field: &str, supported: impl Into<Value>) -> Result<(), ConfigError> {
        let supported = supported.into();
        match self.object.get(field) {
            Some(found) if *found != supported => Err(ConfigError::Unsupported {
                field: format!("{}{field}", self.path),
                found: found.to_string(),
                supported: supported.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// The object that holds the rotary settings: `rope_parameters`, or this one in older files.
    fn rope(&self) -> Result<Fields<'a>, ConfigError> {
        if let Some(found) = self.object.get("rope_scaling").filter(|v| !v.is_null()) {
            return Err(ConfigError::Unsupported {
                field: "rope_scaling".into(),
                found: found.to_string(),
                supported: "rope_parameters of rope_type \"default\"".into(),
            });
        }
        let rope = match self.object.get("rope_parameters") {
            None => return Ok(Fields { object: self.object, path: self.path }),
            Some(Value::Object(rope)) => Fields { object: rope, path: "rope_parameters." },
            Some(other) => return Err(ConfigError::kind("rope_parameters", "an object", other)),
        };
        rope.only("rope_type", "default")?;
        Ok(rope)
    }

    fn sections(&self) -> Result<Option<Vec<usize>>, ConfigError> {
        let Some(value) = self.object.get("mrope_section").filter(|v| !v.is_null()) else { return Ok(None) };
        let sections = value.as_array().and_then(|a| {
            a.iter().map(|v| v.as_u64().and_then(|v| usize::try_from(v).ok())).collect::<Option<Vec<_>>>()
        });
        match sections {
            Some(sections) => Ok(Some(sections)),
            None => Err(ConfigError::kind("mrope_section", "an array of whole numbers", value)),
        }
    }

    fn layer_types(&self, layers: usize) -> Result<Vec<LayerType>, ConfigError> {
        if let Some(value) = self.object.get("layer_types").filter(|v| !v.is_null()) {
            let wrong = || {
                ConfigError::kind(
                    "layer_types",
                    "an array of \"linear_attention\" and \"full_attention\"",
                    value,
                )
            };
            return value
                .as_array()
                .ok_or_else(wrong)?
                .iter()
                .map(|v| match v.as_str() {
                    Some("linear_attention") => Ok(LayerType::LinearAttention),
                    Some("full_attention") => Ok(LayerType::FullAttention),
                    _ => Err(wrong()),
                })
                .collect();
        }
        let interval = self.size("full_attention_interval").map_err(|_| ConfigError::Missing {
            field: format!("{}layer_types (or full_attention_interval)", self.path),
        })?;
        if interval == 0 {
            return Err(ConfigError::contradiction(format!(
                "full_attention_interval {interval} over {layers} layers"
            )));
        }
        Ok(Config::every_nth(layers, interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Value {
        serde_json::json!({
            "architectures": ["Qwen3_5ForCausalLM"], "hidden_act": "silu", "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 11, "max_position_embeddings": 128,
            "rms_norm_eps": 1e-6, "tie_word_embeddings": false, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 6,
            "linear_key_head_dim": 8, "linear_value_head_dim": 16, "linear_conv_kernel_dim": 3,
            "layer_types": ["linear_attention", "full_attention"],
            "rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.25, "rope_type": "default"}
        })
    }

    fn with(field: &str, value: Value) -> Value {
        let mut config = tiny();
        config[field] = value;
        config
    }

    #[test]
    fn reads_flat_and_nested_alike() {
        let flat = Config::from_json(&tiny().to_string()).unwrap();
        let nested = serde_json::json!({"text_config": tiny(), "tie_word_embeddings": false});
        assert_eq!(flat, Config::from_json(&nested.to_string()).unwrap());
        assert_eq!((flat.rotary_dim, flat.qkv_dim(), flat.value_heads_per_key_head()), (8, 128, 3));
    }

    #[test]
    fn every_needed_field_is_missed_by_name() {
        for field in [
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "vocab_size",
            "max_position_embeddings",
            "rms_norm_eps",
            "tie_word_embeddings",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "linear_num_key_heads",
            "linear_num_value_heads",
            "linear_key_head_dim",
            "linear_value_head_dim",
            "linear_conv_kernel_dim",
            "layer_types",
        ] {
            let mut config = tiny();
            config.as_object_mut().unwrap().remove(field);
            let error = Config::from_json(&config.to_string()).unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn refuses_what_the_forward_pass_does_not_do() {
        for (field, value) in [
            ("hidden_act", "gelu".into()),
            ("attention_bias", true.into()),
            ("attn_output_gate", false.into()),
            ("model_type", "llama".into()),
            ("rope_scaling", serde_json::json!({"type": "yarn"})),
            ("quantization_config", serde_json::json!({"quant_method": "fp8"})),
        ] {
            let error = Config::from_json(&with(field, value).to_string()).unwrap_err();
            assert!(matches!(error, ConfigError::Unsupported { .. }), "{field}: {error}");
        }
    }

    #[test]
    fn refuses_contradictions_and_absurd_sizes() {
        for (field, value) in [
            ("num_hidden_layers", 3.into()),
            ("linear_num_value_heads", 5.into()),
            ("num_attention_heads", 3.into()),
            ("hidden_size", 0.into()),
            ("hidden_size", (1u64 << 40).into()),
            ("hidden_size", "64".into()),
            ("hidden_size", (-64).into()),
            ("rms_norm_eps", 0.into()),
            ("layer_types", serde_json::json!(["linear_attention", "sliding"])),
            ("head_dim", 30.into()),
        ] {
            assert!(Config::from_json(&with(field, value.clone()).to_string()).is_err(), "{field} = {value}");
        }
        assert!(Config::from_json("[]").is_err());
        assert!(Config::from_json("{").is_err());
    }

    #[test]
    fn an_unknown_field_is_noted() {
        let config = Config::from_json(&with("sliding_window", 5.into()).to_string()).unwrap();
        assert_eq!(config.notes, ["config.json: sliding_window is unknown here and was not used"]);
    }
}
