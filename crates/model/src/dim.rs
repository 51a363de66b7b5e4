//! Axis lengths as symbols of the configuration.

use crate::config::{Config, FeedForward};

/// The length of a tensor's axis, by what it counts. Letters are those of `docs/notation.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// 1.
    One,
    /// D.
    Hidden,
    /// 2·D.
    TwoHidden,
    /// Vocabulary rows.
    Vocab,
    /// 2·Hk·K + Hv·V.
    Qkv,
    /// 2·Hk·K.
    TwoKeys,
    /// Hv·V.
    Values,
    /// Hv.
    ValueHeads,
    /// V.
    ValueHead,
    /// Taps of the convolution.
    Taps,
    /// H·2·Dh: query and gate of every head.
    QueryGate,
    /// H·Dh.
    Query,
    /// Hkv·Dh.
    KeyValue,
    /// Dh.
    Head,
    /// F.
    Inner,
    /// E.
    Experts,
    /// Fe.
    ExpertInner,
    /// 2·Fe.
    TwoExpertInner,
    /// Fs.
    SharedInner,
}

impl Dim {
    /// As error messages and `docs/layout.md` write it.
    pub fn symbol(self) -> &'static str {
        match self {
            Dim::One => "1",
            Dim::Hidden => "D",
            Dim::TwoHidden => "2D",
            Dim::Vocab => "vocab",
            Dim::Qkv => "2HkK+HvV",
            Dim::TwoKeys => "2HkK",
            Dim::Values => "HvV",
            Dim::ValueHeads => "Hv",
            Dim::ValueHead => "V",
            Dim::Taps => "conv",
            Dim::QueryGate => "2HDh",
            Dim::Query => "HDh",
            Dim::KeyValue => "HkvDh",
            Dim::Head => "Dh",
            Dim::Inner => "F",
            Dim::Experts => "E",
            Dim::ExpertInner => "Fe",
            Dim::TwoExpertInner => "2Fe",
            Dim::SharedInner => "Fs",
        }
    }

    /// Its length in a model of this configuration; 0 where the configuration has no such axis.
    pub fn size(self, c: &Config) -> usize {
        let (inner, experts, expert_inner, shared_inner) = match c.feed_forward {
            FeedForward::Dense { intermediate_size } => (intermediate_size, 0, 0, 0),
            FeedForward::Moe {
                num_experts, moe_intermediate_size, shared_expert_intermediate_size, ..
            } => (0, num_experts, moe_intermediate_size, shared_expert_intermediate_size),
        };
        match self {
            Dim::One => 1,
            Dim::Hidden => c.hidden_size,
            Dim::TwoHidden => 2 * c.hidden_size,
            Dim::Vocab => c.vocab_size,
            Dim::Qkv => c.qkv_dim(),
            Dim::TwoKeys => 2 * c.key_dim(),
            Dim::Values => c.value_dim(),
            Dim::ValueHeads => c.linear_num_value_heads,
            Dim::ValueHead => c.linear_value_head_dim,
            Dim::Taps => c.linear_conv_kernel_dim,
            Dim::QueryGate => 2 * c.num_attention_heads * c.head_dim,
            Dim::Query => c.num_attention_heads * c.head_dim,
            Dim::KeyValue => c.num_key_value_heads * c.head_dim,
            Dim::Head => c.head_dim,
            Dim::Inner => inner,
            Dim::Experts => experts,
            Dim::ExpertInner => expert_inner,
            Dim::TwoExpertInner => 2 * expert_inner,
            Dim::SharedInner => shared_inner,
        }
    }
}

/// `[D, F] = [64, 96]`: symbols, and what they come to here.
pub(crate) fn describe(axes: &[Dim], config: &Config) -> String {
    let symbols: Vec<&str> = axes.iter().map(|d| d.symbol()).collect();
    let sizes: Vec<String> = axes.iter().map(|d| d.size(config).to_string()).collect();
    format!("[{}] = [{}]", symbols.join(", "), sizes.join(", "))
}
