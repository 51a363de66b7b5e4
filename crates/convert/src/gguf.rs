//! What a GGUF file of a model says beside its weights, as llama.cpp's converter writes it.

use codec::Encoding;
use format::gguf::{Array, Draft};
use model::layout::Role;
use model::{Config, FeedForward, LayerType};

use crate::error::Error;
use crate::general::General;
use crate::target::Target;
use crate::vocabulary::Vocabulary;

/// The encoding of a tensor in a file of type `dtype`: vectors, convolutions and routers stay F32, and rows that are no
/// whole number of blocks are F16.
pub fn encoding(target: &Target, dtype: Encoding) -> Encoding {
    let small = target.cols() == 1
        || target.parts.iter().any(|part| matches!(part.role, Role::Conv1d | Role::Router));
    match dtype.byte_len(target.cols() as u64) {
        _ if small => Encoding::F32,
        Some(_) => dtype,
        None => Encoding::F16,
    }
}

/// `general.file_type`: llama.cpp's number for a file whose weights are mostly in this encoding; where it has several,
/// the one without larger exceptions.
pub fn file_type(encoding: Encoding) -> Option<u32> {
    Some(match encoding {
        Encoding::F32 => 0,
        Encoding::F16 => 1,
        Encoding::Q4_0 => 2,
        Encoding::Q4_1 => 3,
        Encoding::Q8_0 => 7,
        Encoding::Q5_0 => 8,
        Encoding::Q5_1 => 9,
        Encoding::Q2K => 10,
        Encoding::Q3K => 11,
        Encoding::Q4K => 14,
        Encoding::Q5K => 16,
        Encoding::Q6K => 18,
        Encoding::Iq2Xxs => 19,
        Encoding::Iq2Xs => 20,
        Encoding::Iq3Xxs => 23,
        Encoding::Iq1S => 24,
        Encoding::Iq4Nl => 25,
        Encoding::Iq3S => 26,
        Encoding::Iq2S => 28,
        Encoding::Iq4Xs => 30,
        Encoding::Iq1M => 31,
        Encoding::BF16 => 32,
        Encoding::Tq1_0 => 36,
        Encoding::Tq2_0 => 37,
        Encoding::Mxfp4 => 38,
        _ => return None,
    })
}

/// What keys say that neither configuration nor vocabulary does.
pub struct Description<'a> {
    /// Name, size and the like.
    pub general: &'a General,
    /// `general.file_type`.
    pub file_type: u32,
    /// `full_attention_interval` of `config.json`. Readers go by it only if they do not know
    /// `attention.recurrent_layers`.
    pub full_attention_interval: u32,
}

/// llama.cpp's converter writes 4 if `config.json` names no interval.
pub const DEFAULT_INTERVAL: u32 = 4;
/// It writes these sections, of the released models, if `config.json` has none.
const DEFAULT_SECTIONS: [usize; 3] = [11, 11, 10];
/// Version of the block layouts.
const QUANTIZATION_VERSION: u32 = 2;

/// Adds every key in the converter's order.
///
/// # Errors
/// Key and value widths that differ, which GGUF cannot say, or those of the draft.
pub fn put_keys(
    draft: &mut Draft,
    config: &Config,
    description: &Description<'_>,
    vocabulary: &Vocabulary,
) -> Result<(), Error> {
    let (key, value) = (config.linear_key_head_dim, config.linear_value_head_dim);
    if key != value {
        return Err(Error::UnequalHeads { key, value });
    }
    let architecture = match config.feed_forward {
        FeedForward::Dense { .. } => "qwen35",
        FeedForward::Moe { .. } => "qwen35moe",
    };
    draft.put("general.architecture", architecture)?;
    draft.put("general.type", "model")?;
    description.general.put(draft)?;
    let mut keys = Keys { draft, architecture };
    keys.size("block_count", config.num_hidden_layers + config.mtp_num_hidden_layers)?;
    keys.size("context_length", config.max_position_embeddings)?;
    keys.size("embedding_length", config.hidden_size)?;
    if let FeedForward::Dense { intermediate_size } = config.feed_forward {
        keys.size("feed_forward_length", intermediate_size)?;
    }
    keys.size("attention.head_count", config.num_attention_heads)?;
    keys.size("attention.head_count_kv", config.num_key_value_heads)?;
    let sections = config.mrope_section.as_deref().unwrap_or(&DEFAULT_SECTIONS);
    let sections: Array = sections.iter().chain(&[0; 4]).take(4).map(|&s| s as i32).collect();
    keys.draft.put(&keys.path("rope.dimension_sections"), &sections)?;
    keys.draft.put(&keys.path("rope.freq_base"), config.rope_theta as f32)?;
    keys.draft.put(&keys.path("attention.layer_norm_rms_epsilon"), config.rms_norm_eps as f32)?;
    if let FeedForward::Moe { num_experts, num_experts_per_tok, .. } = config.feed_forward {
        keys.size("expert_count", num_experts)?;
        keys.size("expert_used_count", num_experts_per_tok)?;
    }
    keys.size("attention.key_length", config.head_dim)?;
    keys.size("attention.value_length", config.head_dim)?;
    keys.draft.put("general.file_type", description.file_type)?;
    if let FeedForward::Moe { moe_intermediate_size, shared_expert_intermediate_size, .. } =
        config.feed_forward
    {
        keys.size("expert_feed_forward_length", moe_intermediate_size)?;
        keys.size("expert_shared_feed_forward_length", shared_expert_intermediate_size)?;
    }
    if config.mtp_num_hidden_layers > 0 {
        keys.size("nextn_predict_layers", config.mtp_num_hidden_layers)?;
    }
    keys.size("ssm.conv_kernel", config.linear_conv_kernel_dim)?;
    keys.size("ssm.state_size", key)?;
    keys.size("ssm.group_count", config.linear_num_key_heads)?;
    keys.size("ssm.time_step_rank", config.linear_num_value_heads)?;
    keys.size("ssm.inner_size", config.value_dim())?;
    let recurrent: Array = (config.layer_types.iter())
        .map(|&mixer| mixer == LayerType::LinearAttention)
        .chain(std::iter::repeat_n(false, config.mtp_num_hidden_layers))
        .collect();
    keys.draft.put(&keys.path("attention.recurrent_layers"), &recurrent)?;
    keys.draft.put(&keys.path("full_attention_interval"), description.full_attention_interval)?;
    keys.size("rope.dimension_count", config.rotary_dim)?;
    draft.put("general.quantization_version", QUANTIZATION_VERSION)?;
    Ok(vocabulary.put(draft)?)
}

/// Keys under the architecture's name.
struct Keys<'a> {
    draft: &'a mut Draft,
    architecture: &'static str,
}

impl Keys<'_> {
    fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// Sizes of a [`Config`] are below 2^20, except positions, which a larger number would not serve.
    fn size(&mut self, key: &str, size: usize) -> Result<(), format::Error> {
        self.draft.put(&self.path(key), u32::try_from(size).unwrap_or(u32::MAX))
    }
}

/// Parameters in two digits, as in `4.5M`; with experts, how many and what one path through the model has: `8x199K`.
pub fn size_label<'a>(targets: impl Iterator<Item = &'a Target>, config: &Config) -> String {
    let is_expert = |role| matches!(role, Role::ExpertsGate | Role::ExpertsUp | Role::ExpertsDown);
    let (mut common, mut experts) = (0, 0);
    for target in targets {
        let routed = target.parts.iter().any(|part| is_expert(part.role));
        *(if routed { &mut experts } else { &mut common }) += target.shape.dims().iter().product::<u64>();
    }
    match config.feed_forward {
        FeedForward::Dense { .. } => rounded(common),
        FeedForward::Moe { num_experts, .. } => {
            format!("{num_experts}x{}", rounded(common + experts / num_experts as u64))
        }
    }
}

fn rounded(count: u64) -> String {
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")];
    let count = count as f64;
    let (unit, letter) = units.into_iter().find(|(unit, _)| count > *unit).unwrap_or((1e3, "K"));
    let scaled = count / unit;
    let decimals = usize::from(scaled.round() < 10.0);
    format!("{scaled:.decimals$}{letter}")
}
