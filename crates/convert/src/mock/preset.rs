//! Shapes to choose by name.

use serde_json::{Value, json};

/// A named shape.
pub struct Preset {
    /// What it is asked for by.
    pub name: &'static str,
    /// What it is, for a list of them.
    pub summary: &'static str,
    shape: Shape,
}

/// What presets differ in.
struct Shape {
    hidden: usize,
    layers: usize,
    /// H, Hkv, Dh.
    attention: [usize; 3],
    /// Hk, Hv, K = V.
    delta: [usize; 3],
    ffn: Ffn,
    vocab: usize,
    context: usize,
    tied: bool,
    mrope_section: [usize; 3],
}

enum Ffn {
    /// F.
    Dense(usize),
    /// E, k, Fe, Fs.
    Moe([usize; 4]),
}

/// Vocabulary of the released models.
const VOCAB: usize = 248_320;
/// Positions of the released models.
const CONTEXT: usize = 262_144;
/// Of the 64 dimensions of a released model's head that are rotated.
const SECTIONS: [usize; 3] = [11, 11, 10];

/// Every preset. The released shapes are as published, that of `2b` to the best of public knowledge. All are text
/// models without a multi-token-prediction block.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "tiny-dense",
        summary: "3 M parameters, 4 layers, 512 tokens; rows of 256, which every encoding can hold",
        shape: Shape {
            hidden: 256,
            layers: 4,
            attention: [4, 2, 64],
            delta: [4, 8, 32],
            ffn: Ffn::Dense(512),
            vocab: 512,
            context: 4096,
            tied: false,
            mrope_section: [3, 3, 2],
        },
    },
    Preset {
        name: "tiny-moe",
        summary: "8 M parameters, 4 layers, 8 experts of which 2 are used, 512 tokens; rows of 256",
        shape: Shape {
            hidden: 256,
            layers: 4,
            attention: [4, 2, 64],
            delta: [4, 8, 32],
            ffn: Ffn::Moe([8, 2, 256, 256]),
            vocab: 512,
            context: 4096,
            tied: false,
            mrope_section: [3, 3, 2],
        },
    },
    Preset {
        name: "0.8b",
        summary: "shape of Qwen3.5-0.8B: 752 M parameters, tied",
        shape: Shape {
            hidden: 1024,
            layers: 24,
            attention: [8, 2, 256],
            delta: [16, 16, 128],
            ffn: Ffn::Dense(3584),
            vocab: VOCAB,
            context: CONTEXT,
            tied: true,
            mrope_section: SECTIONS,
        },
    },
    Preset {
        name: "2b",
        summary: "shape of Qwen3.5-2B to the best of public knowledge: 1.9 G parameters, tied",
        shape: Shape {
            hidden: 2048,
            layers: 24,
            attention: [8, 2, 256],
            delta: [16, 16, 128],
            ffn: Ffn::Dense(6144),
            vocab: VOCAB,
            context: CONTEXT,
            tied: true,
            mrope_section: SECTIONS,
        },
    },
    Preset {
        name: "4b",
        summary: "shape of Qwen3.5-4B: 4.2 G parameters, tied",
        shape: Shape {
            hidden: 2560,
            layers: 32,
            attention: [16, 4, 256],
            delta: [16, 32, 128],
            ffn: Ffn::Dense(9216),
            vocab: VOCAB,
            context: CONTEXT,
            tied: true,
            mrope_section: SECTIONS,
        },
    },
    Preset {
        name: "9b",
        summary: "shape of Qwen3.5-9B: 9.0 G parameters",
        shape: Shape {
            hidden: 4096,
            layers: 32,
            attention: [16, 4, 256],
            delta: [16, 32, 128],
            ffn: Ffn::Dense(12_288),
            vocab: VOCAB,
            context: CONTEXT,
            tied: false,
            mrope_section: SECTIONS,
        },
    },
    Preset {
        name: "35b-a3b",
        summary: "shape of Qwen3.5-35B-A3B: 34.7 G parameters, 256 experts of which 8 are used",
        shape: Shape {
            hidden: 2048,
            layers: 40,
            attention: [16, 2, 256],
            delta: [16, 32, 128],
            ffn: Ffn::Moe([256, 8, 512, 512]),
            vocab: VOCAB,
            context: CONTEXT,
            tied: false,
            mrope_section: SECTIONS,
        },
    },
];

/// Every so many layers, one is full attention.
const INTERVAL: usize = 4;

impl Preset {
    /// Its `config.json`.
    pub fn config_json(&self) -> Value {
        let Shape { hidden, layers, attention, delta, ffn, vocab, context, tied, mrope_section } =
            &self.shape;
        let layer_types: Vec<&str> = (1..=*layers)
            .map(|l| if l % INTERVAL == 0 { "full_attention" } else { "linear_attention" })
            .collect();
        let mut config = json!({
            "attention_bias": false,
            "attention_dropout": 0.0,
            "attn_output_gate": true,
            "head_dim": attention[2],
            "hidden_act": "silu",
            "hidden_size": hidden,
            "initializer_range": 0.02,
            "full_attention_interval": INTERVAL,
            "layer_types": layer_types,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": delta[2],
            "linear_num_key_heads": delta[0],
            "linear_num_value_heads": delta[1],
            "linear_value_head_dim": delta[2],
            "mamba_ssm_dtype": "float32",
            "max_position_embeddings": context,
            "num_attention_heads": attention[0],
            "num_hidden_layers": layers,
            "num_key_value_heads": attention[1],
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "mrope_interleaved": true,
                "mrope_section": mrope_section,
                "partial_rotary_factor": 0.25,
                "rope_theta": 1e7,
                "rope_type": "default",
            },
            "tie_word_embeddings": tied,
            "use_cache": true,
            "vocab_size": vocab,
        });
        match ffn {
            Ffn::Dense(inner) => config["intermediate_size"] = (*inner).into(),
            Ffn::Moe([experts, used, inner, shared]) => {
                config["num_experts"] = (*experts).into();
                config["num_experts_per_tok"] = (*used).into();
                config["moe_intermediate_size"] = (*inner).into();
                config["shared_expert_intermediate_size"] = (*shared).into();
                config["output_router_logits"] = false.into();
                config["router_aux_loss_coef"] = 0.001.into();
            }
        }
        config
    }
}
