//! `config.json` and `generation_config.json` of a Hugging Face checkpoint, out of what a GGUF file says.

use codec::Encoding;
use format::gguf::KeyValues;
use model::{Config, FeedForward, LayerType};
use serde_json::{Value, json};

use crate::general::SAMPLING;
use crate::vocabulary::Vocabulary;

/// `config.json` of the text model.
pub(crate) fn config(config: &Config, dtype: Encoding, vocabulary: &Vocabulary) -> Value {
    let (architecture, model_type) = match config.feed_forward {
        FeedForward::Dense { .. } => ("Qwen3_5ForCausalLM", "qwen3_5_text"),
        FeedForward::Moe { .. } => ("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text"),
    };
    let layer = |mixer: &LayerType| match mixer {
        LayerType::LinearAttention => "linear_attention",
        LayerType::FullAttention => "full_attention",
    };
    let layers: Vec<&str> = config.layer_types.iter().map(layer).collect();
    let mut rope = json!({
        "mrope_interleaved": true,
        "partial_rotary_factor": config.rotary_dim as f64 / config.head_dim as f64,
        "rope_theta": shortest(config.rope_theta),
        "rope_type": "default",
    });
    if let Some(sections) = &config.mrope_section {
        // GGUF has a fourth one, for what this family does not have.
        rope["mrope_section"] = sections.iter().take(3).copied().collect();
    }
    let mut json = json!({
        "architectures": [architecture],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": vocabulary.office("bos"),
        "dtype": torch_name(dtype),
        "eos_token_id": vocabulary.office("eos"),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "layer_types": layers,
        "linear_conv_kernel_dim": config.linear_conv_kernel_dim,
        "linear_key_head_dim": config.linear_key_head_dim,
        "linear_num_key_heads": config.linear_num_key_heads,
        "linear_num_value_heads": config.linear_num_value_heads,
        "linear_value_head_dim": config.linear_value_head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "model_type": model_type,
        "mtp_num_hidden_layers": config.mtp_num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "pad_token_id": vocabulary.office("pad"),
        "rms_norm_eps": shortest(config.rms_norm_eps),
        "rope_parameters": rope,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_cache": true,
        "vocab_size": config.vocab_size,
    });
    match config.feed_forward {
        FeedForward::Dense { intermediate_size } => json["intermediate_size"] = intermediate_size.into(),
        FeedForward::Moe {
            num_experts,
            num_experts_per_tok,
            moe_intermediate_size,
            shared_expert_intermediate_size,
        } => {
            json["num_experts"] = num_experts.into();
            json["num_experts_per_tok"] = num_experts_per_tok.into();
            json["moe_intermediate_size"] = moe_intermediate_size.into();
            json["shared_expert_intermediate_size"] = shared_expert_intermediate_size.into();
        }
    }
    json.sort_all_objects();
    json
}

/// `generation_config.json`: ids, and recommended sampling where keys have any.
pub(crate) fn generation(keys: &KeyValues, vocabulary: &Vocabulary) -> Value {
    let mut json = json!({
        "bos_token_id": vocabulary.office("bos"),
        "eos_token_id": vocabulary.office("eos"),
        "pad_token_id": vocabulary.office("pad"),
        "use_cache": true,
    });
    for (key, field, integer) in SAMPLING {
        let Some(value) = keys.get(key) else { continue };
        json["do_sample"] = true.into();
        json[field] = match integer {
            true => value.as_i64().into(),
            false => value.as_f64().map(shortest).into(),
        };
    }
    json
}

/// The shortest decimal that is the same f32, which is all that GGUF keeps of such a number.
fn shortest(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}

/// What `config.json` calls a type.
pub(crate) fn torch_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::F32 => "float32",
        Encoding::F16 => "float16",
        _ => "bfloat16",
    }
}
