//! The text model's configuration, under Hugging Face's field names.

use crate::error::ConfigError;

/// What a layer mixes tokens with: `layer_types` of `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// Gated DeltaNet.
    LinearAttention,
    /// Gated softmax attention over the whole past.
    FullAttention,
}

/// The feed-forward part of every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForward {
    /// One SwiGLU block.
    Dense {
        /// F, its inner width.
        intermediate_size: usize,
    },
    /// Routed experts and one shared expert.
    Moe {
        /// E, routed experts.
        num_experts: usize,
        /// k, experts that a token visits.
        num_experts_per_tok: usize,
        /// Fe, inner width of a routed expert.
        moe_intermediate_size: usize,
        /// Fs, inner width of the shared expert.
        shared_expert_intermediate_size: usize,
    },
}

/// Everything about the text model that its tensors do not say by themselves.
///
/// Read raw from `config.json` or from GGUF keys, never through defaults: a field that the arithmetic needs
/// and the file lacks is an error.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Config {
    /// D.
    pub hidden_size: usize,
    /// Layers of the main model, multi-token-prediction blocks not counted.
    pub num_hidden_layers: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Positions the model was made for; a longer run is legal but outside its training.
    pub max_position_embeddings: usize,
    /// ε of every RMSNorm (not of DeltaNet's l2 norm, which is 1e-6 whatever this says).
    pub rms_norm_eps: f64,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// H, query heads.
    pub num_attention_heads: usize,
    /// Hkv, key and value heads of full attention.
    pub num_key_value_heads: usize,
    /// Dh, width of an attention head.
    pub head_dim: usize,
    /// Hk.
    pub linear_num_key_heads: usize,
    /// Hv, a multiple of Hk.
    pub linear_num_value_heads: usize,
    /// K.
    pub linear_key_head_dim: usize,
    /// V.
    pub linear_value_head_dim: usize,
    /// Taps of the causal convolution.
    pub linear_conv_kernel_dim: usize,
    /// One entry a layer.
    pub layer_types: Vec<LayerType>,
    /// θ of the rotary embedding.
    pub rope_theta: f64,
    /// Leading dimensions of a head that are rotated: head_dim · partial_rotary_factor.
    pub rotary_dim: usize,
    /// M-RoPE sections; for text all three positions are equal, so they change nothing here.
    pub mrope_section: Option<Vec<usize>>,
    /// Dense or routed.
    pub feed_forward: FeedForward,
    /// Multi-token-prediction blocks that the checkpoint declares: accounted for, not run.
    pub mtp_num_hidden_layers: usize,
    /// What reading it turned up that does not stop a run, one sentence each.
    pub notes: Vec<String>,
}

/// No size in a configuration may reach this: it keeps every product of three sizes inside 64 bits.
const SIZE_LIMIT: usize = 1 << 20;

/// Eight times the layers of the deepest models there are.
const MOST_LAYERS: usize = 1024;

impl Config {
    /// Channels of the convolution: `2·Hk·K + Hv·V`.
    pub fn qkv_dim(&self) -> usize {
        2 * self.key_dim() + self.value_dim()
    }

    /// `Hk·K`.
    pub fn key_dim(&self) -> usize {
        self.linear_num_key_heads * self.linear_key_head_dim
    }

    /// `Hv·V`.
    pub fn value_dim(&self) -> usize {
        self.linear_num_value_heads * self.linear_value_head_dim
    }

    /// Value heads that share a key head: `Hv/Hk`.
    pub fn value_heads_per_key_head(&self) -> usize {
        self.linear_num_value_heads / self.linear_num_key_heads
    }

    /// Layer types when every `interval`-th layer is full attention.
    pub(crate) fn every_nth(layers: usize, interval: usize) -> Vec<LayerType> {
        (1..=layers)
            .map(|l| if l % interval == 0 { LayerType::FullAttention } else { LayerType::LinearAttention })
            .collect()
    }

    /// Refuses more layers than any model has, before something is made for each. Both readers begin here.
    pub(crate) fn check_layers(field: &str, layers: usize) -> Result<(), ConfigError> {
        if layers > MOST_LAYERS {
            return Err(ConfigError::Value {
                field: field.into(),
                expected: format!("at most {MOST_LAYERS}"),
                found: layers.to_string(),
            });
        }
        Ok(())
    }

    /// Refuses a configuration that contradicts itself. Both readers end here.
    pub(crate) fn validate(self) -> Result<Config, ConfigError> {
        let mut sizes = vec![
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("vocab_size", self.vocab_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("linear_num_key_heads", self.linear_num_key_heads),
            ("linear_num_value_heads", self.linear_num_value_heads),
            ("linear_key_head_dim", self.linear_key_head_dim),
            ("linear_value_head_dim", self.linear_value_head_dim),
            ("linear_conv_kernel_dim", self.linear_conv_kernel_dim),
        ];
        match self.feed_forward {
            FeedForward::Dense { intermediate_size } => sizes.push(("intermediate_size", intermediate_size)),
            FeedForward::Moe {
                num_experts,
                num_experts_per_tok,
                moe_intermediate_size,
                shared_expert_intermediate_size,
            } => {
                sizes.extend([
                    ("num_experts", num_experts),
                    ("num_experts_per_tok", num_experts_per_tok),
                    ("moe_intermediate_size", moe_intermediate_size),
                    ("shared_expert_intermediate_size", shared_expert_intermediate_size),
                ]);
                if num_experts_per_tok > num_experts {
                    return Err(ConfigError::contradiction(format!(
                        "num_experts_per_tok {num_experts_per_tok} exceeds num_experts {num_experts}"
                    )));
                }
            }
        }
        for (field, value) in sizes {
            if value == 0 || value >= SIZE_LIMIT {
                return Err(ConfigError::Value {
                    field: field.into(),
                    expected: format!("a whole number from 1 to {}", SIZE_LIMIT - 1),
                    found: value.to_string(),
                });
            }
        }
        for (many, m, few, f) in [
            (
                "linear_num_value_heads",
                self.linear_num_value_heads,
                "linear_num_key_heads",
                self.linear_num_key_heads,
            ),
            (
                "num_attention_heads",
                self.num_attention_heads,
                "num_key_value_heads",
                self.num_key_value_heads,
            ),
        ] {
            if m % f != 0 {
                return Err(ConfigError::contradiction(format!("{many} {m} is not a multiple of {few} {f}")));
            }
        }
        if self.layer_types.len() != self.num_hidden_layers {
            return Err(ConfigError::contradiction(format!(
                "layer_types has {} entries, num_hidden_layers is {}",
                self.layer_types.len(),
                self.num_hidden_layers
            )));
        }
        if !self.rotary_dim.is_multiple_of(2) || self.rotary_dim > self.head_dim {
            return Err(ConfigError::contradiction(format!(
                "{} rotated dimensions: expected an even number of at most head_dim {}",
                self.rotary_dim, self.head_dim
            )));
        }
        for (field, value) in [("rms_norm_eps", self.rms_norm_eps), ("rope_theta", self.rope_theta)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::Value {
                    field: field.into(),
                    expected: "a positive number".into(),
                    found: value.to_string(),
                });
            }
        }
        Ok(self)
    }
}
