//! The table of trace points: what they are called, in which order they happen, what shape they have.
//!
//! Names are module paths of Transformers' classes, so that forward hooks there yield the same names:
//! `model.layers.{L}.{suffix}` within layer `L`, `model.layers.{L}` for its output, and three points outside any
//! layer. Letters in the axes: T tokens, D hidden, F inner width of the MLP, E experts, k experts per token;
//! Hk/Hv key and value heads of a DeltaNet layer with K and V channels each, C = 2·Hk·K + Hv·V convolution
//! channels; H/Hkv query and key-value heads of an attention layer with Dh channels each.

use std::borrow::Cow;
use std::fmt;

use crate::Extent;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct PointKind {
    /// The name after `model.layers.{L}.`; empty for the layer's output; the whole name of a point outside layers.
    pub suffix: &'static str,
    /// Whether the point occurs once per layer.
    pub in_layer: bool,
    /// The axes, outermost first.
    pub axes: &'static [&'static str],
    /// Whether records append along the tokens or replace each other.
    pub extent: Extent,
    /// Whether a module of Transformers has this name and outputs this value, so that a hook yields it.
    pub hooked: bool,
    /// The name of the same value in llama.cpp's evaluation callback, without the `-L` that follows inside layers.
    /// `Kcur` fires twice there: first for `k_proj`, then for `k_rope`.
    pub llama_cpp: Option<&'static str>,
    /// Which limit judges the point.
    pub class: LimitClass,
    /// Suffixes of the points in the same layer that it is computed from; `^` is what precedes the layer (or, for a
    /// point outside layers, that point).
    pub inputs: &'static [&'static str],
    /// What is usually wrong when this point is the first to differ.
    pub causes: &'static [&'static str],
}

/// Points whose rounding behaves alike and which therefore share a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitClass {
    /// A row copied out of the embedding table: no arithmetic at all.
    Lookup,
    /// An RMS norm, or a rotation of one's output.
    Norm,
    /// A matrix product, or an elementwise function of one.
    Projection,
    /// The decay and write strength of the delta rule.
    Gate,
    /// What the delta rule accumulates over tokens, and its state.
    Recurrence,
    /// A softmax-weighted sum over tokens.
    Attention,
    /// Weights of the chosen experts.
    Routing,
    /// Integers: equal or not.
    Index,
    /// The sum of all blocks so far.
    Residual,
    /// The output distribution, before softmax.
    Logits,
}

const fn tokens(suffix: &'static str, axes: &'static [&'static str], class: LimitClass) -> PointKind {
    PointKind {
        suffix,
        in_layer: true,
        axes,
        extent: Extent::Tokens,
        hooked: true,
        llama_cpp: None,
        class,
        inputs: &[],
        causes: &[],
    }
}

impl PointKind {
    const fn state(self) -> PointKind {
        PointKind { extent: Extent::State, hooked: false, ..self }
    }

    const fn functional(self) -> PointKind {
        PointKind { hooked: false, ..self }
    }

    const fn global(self) -> PointKind {
        PointKind { in_layer: false, ..self }
    }

    const fn ggml(self, callback: &'static str) -> PointKind {
        PointKind { llama_cpp: Some(callback), ..self }
    }

    const fn from(self, inputs: &'static [&'static str]) -> PointKind {
        PointKind { inputs, ..self }
    }

    const fn suspect(self, causes: &'static [&'static str]) -> PointKind {
        PointKind { causes, ..self }
    }
}

const NORM_OFFSET: &str =
    "the norm's weight is stored as w but used as 1 + w (or the reverse): +1 missing or applied twice";
const TILED_HEADS: &str = "value heads in grouped order where tiled is meant, or tiled twice (in_proj_qkv's V rows, in_proj_z, in_proj_b, \
     in_proj_a, conv1d's V channels, A_log, dt_bias and out_proj's columns must agree)";
const EPS: &str = "another epsilon, or the epsilon outside the root";

/// Every point, in execution order. The points of a layer stand between those that precede all layers and those
/// that follow all layers; a layer has either the `linear_attn` or the `self_attn` points, and either the dense
/// or the expert points of `mlp`.
pub const KINDS: &[PointKind] = {
    use LimitClass::*;
    &[
        tokens("model.embed_tokens", &["T", "D"], Lookup).global().ggml("model.input_embed").suspect(&[
            "token ids differ, or the embedding rows are permuted or padded differently",
            "the embedding was rounded to another precision or quantized",
        ]),
        tokens("input_layernorm", &["T", "D"], Norm).from(&["^"]).ggml("attn_norm").suspect(&[NORM_OFFSET, EPS]),
        tokens("linear_attn.in_proj_qkv", &["T", "C"], Projection).from(&["input_layernorm"]).ggml("linear_attn_qkv_mixed").suspect(&[
            TILED_HEADS,
            "q, k and v blocks in another order inside the projection",
        ]),
        tokens("linear_attn.in_proj_z", &["T", "Hv·V"], Projection).from(&["input_layernorm"])
            .ggml("z")
            .suspect(&[TILED_HEADS, "z and the q/k/v projection swapped"]),
        tokens("linear_attn.in_proj_b", &["T", "Hv"], Projection).from(&["input_layernorm"])
            .ggml("beta")
            .suspect(&[TILED_HEADS, "in_proj_a and in_proj_b swapped"]),
        tokens("linear_attn.in_proj_a", &["T", "Hv"], Projection).from(&["input_layernorm"])
            .ggml("alpha")
            .suspect(&[TILED_HEADS, "in_proj_a and in_proj_b swapped"]),
        tokens("linear_attn.conv1d", &["T", "C"], Projection).from(&["linear_attn.in_proj_qkv"]).functional().ggml("conv_output_silu").suspect(&[
            "conv1d's weight transposed, or its axis of 1 not dropped ([C, 1, 4], [C, 4] and [C, K, 1] are all in use)",
            "taps in reversed order of time",
            "V channels of conv1d not in the value-head order of in_proj_qkv",
            "silu after the convolution missing (a hook on the module sees the value before silu)",
            "the three rows before this call were not carried over: convolution state restarted",
        ]),
        tokens("linear_attn.conv_state", &["C", "taps−1"], Projection).from(&["linear_attn.in_proj_qkv"]).state().suspect(&[
            "the state holds values after the convolution instead of in_proj_qkv's output",
            "the state holds four columns, or its rows in another order of time",
        ]),
        tokens("linear_attn.beta", &["T", "Hv"], Gate).from(&["linear_attn.in_proj_b"])
            .functional()
            .ggml("beta_sigmoid")
            .suspect(&["sigmoid missing", TILED_HEADS]),
        tokens("linear_attn.g", &["T", "Hv"], Gate).from(&["linear_attn.in_proj_a"]).functional().ggml("gate").suspect(&[
            "A_log stored raw: the decay is -exp(A_log), GGUF's ssm_a already holds that",
            "dt_bias missing, or added after softplus",
            TILED_HEADS,
            "A_log or dt_bias kept in bf16",
        ]),
        tokens("linear_attn.core_attn_out", &["T", "Hv", "V"], Recurrence).from(&["linear_attn.conv1d", "linear_attn.beta", "linear_attn.g"]).functional().suspect(&[
            "1/sqrt(K) on q missing",
            "q and k not l2-normalised, or its epsilon (1e-6, inside the root) clamped, outside, or taken from rms_norm_eps",
            "value head v paired with the wrong key head (v div r in grouped order, v mod Hk in tiled order)",
            "the state restarted in a call with several tokens, or kept in bf16",
            "decay applied after the write, or exp missing",
        ]),
        tokens("linear_attn.recurrent_state", &["Hv", "K", "V"], Recurrence).from(&["linear_attn.conv1d", "linear_attn.beta", "linear_attn.g"])
            .state()
            .suspect(&["the state transposed ([V, K] instead of [K, V])", "the state kept in bf16", TILED_HEADS]),
        tokens("linear_attn.norm", &["T", "Hv·V"], Norm).from(&["linear_attn.core_attn_out", "linear_attn.in_proj_z"]).ggml("final_output").suspect(&[
            "+1 added to the gated norm's weight: it is used as stored",
            "silu(z) missing, or z's heads in another order",
            EPS,
        ]),
        tokens("linear_attn", &["T", "D"], Projection).from(&["linear_attn.norm"]).ggml("linear_attn_out").suspect(&[
            "out_proj's columns not in the value-head order of its input (tiled columns move in runs of V)"]),
        tokens("self_attn.q_proj", &["T", "H·2·Dh"], Projection).from(&["input_layernorm"]).ggml("Qcur_full").suspect(&[
            "rows of q_proj reordered: it holds [q | gate] per head, interleaved by head",
            "rows permuted for another rotary convention",
        ]),
        tokens("self_attn.k_proj", &["T", "Hkv·Dh"], Projection).from(&["input_layernorm"])
            .ggml("Kcur")
            .suspect(&["rows permuted for another rotary convention", "k_proj and v_proj swapped"]),
        tokens("self_attn.v_proj", &["T", "Hkv·Dh"], Projection).from(&["input_layernorm"])
            .ggml("Vcur")
            .suspect(&["k_proj and v_proj swapped"]),
        tokens("self_attn.q_norm", &["T", "H", "Dh"], Norm).from(&["self_attn.q_proj"]).ggml("Qcur_normed").suspect(&[
            NORM_OFFSET,
            "q and gate split as two halves of the whole row instead of per head (only head 0 is right then)",
            "normalised over the whole row instead of per head",
            EPS,
        ]),
        tokens("self_attn.k_norm", &["T", "Hkv", "Dh"], Norm).from(&["self_attn.k_proj"])
            .ggml("Kcur_normed")
            .suspect(&[NORM_OFFSET, "normalised over the whole row instead of per head", EPS]),
        tokens("self_attn.q_rope", &["T", "H", "Dh"], Norm).from(&["self_attn.q_norm"]).functional().ggml("Qcur").suspect(ROPE_CAUSES),
        tokens("self_attn.k_rope", &["T", "Hkv", "Dh"], Norm).from(&["self_attn.k_norm"]).functional().ggml("Kcur").suspect(ROPE_CAUSES),
        tokens("self_attn.attn_out", &["T", "H·Dh"], Attention).from(&["self_attn.q_rope", "self_attn.k_rope", "self_attn.v_proj"]).functional().ggml("attn_pregate").suspect(&[
            "1/sqrt(Dh) missing or applied twice",
            "query heads grouped over the wrong key-value head",
            "causal mask missing or shifted",
            "KV cache kept in f16 or restarted",
        ]),
        tokens("self_attn.gated", &["T", "H·Dh"], Attention).from(&["self_attn.attn_out", "self_attn.q_proj"]).functional().ggml("attn_gated").suspect(&[
            "q and gate split as two halves of the whole row instead of per head",
            "sigmoid missing on the gate, or silu in its place",
        ]),
        tokens("self_attn", &["T", "D"], Projection).from(&["self_attn.gated"])
            .ggml("attn_output")
            .suspect(&["o_proj's columns not in head order"]),
        tokens("attn_residual", &["T", "D"], Residual).from(&["^", "linear_attn", "self_attn"])
            .functional()
            .ggml("attn_residual")
            .suspect(&["the residual was taken after the norm instead of before it"]),
        tokens("post_attention_layernorm", &["T", "D"], Norm).from(&["attn_residual"])
            .ggml("attn_post_norm")
            .suspect(&[NORM_OFFSET, EPS, "norms of two places swapped"]),
        tokens("mlp.gate_proj", &["T", "F"], Projection).from(&["post_attention_layernorm"])
            .ggml("ffn_gate")
            .suspect(&["gate_proj and up_proj swapped"]),
        tokens("mlp.up_proj", &["T", "F"], Projection).from(&["post_attention_layernorm"])
            .ggml("ffn_up")
            .suspect(&["gate_proj and up_proj swapped"]),
        tokens("mlp.gate", &["T", "E"], Projection).from(&["post_attention_layernorm"])
            .ggml("ffn_moe_logits")
            .suspect(&["experts permuted in the router", "the router quantized or kept in bf16"]),
        tokens("mlp.topk_index", &["T", "k"], Index).from(&["mlp.gate"])
            .functional()
            .ggml("ffn_moe_topk")
            .suspect(&["near-ties between experts, decided by rounding (compare mlp.gate)", "another number of experts per token"]),
        tokens("mlp.topk_weight", &["T", "k"], Routing).from(&["mlp.gate", "mlp.topk_index"]).functional().ggml("ffn_moe_weights_norm").suspect(&[
            "weights of the chosen experts not renormalised to sum 1",
            "softmax over the chosen experts only, or taken below f32",
        ]),
        tokens("mlp.experts", &["T", "D"], Projection).from(&["post_attention_layernorm", "mlp.topk_index", "mlp.topk_weight"]).ggml("ffn_moe_out").suspect(&[
            "packed gate_up_proj split on the wrong axis, its halves swapped (gate first), or experts transposed",
            "the shared expert already added",
        ]),
        tokens("mlp.shared_expert", &["T", "D"], Projection).from(&["post_attention_layernorm"]).ggml("ffn_shexp").suspect(&[
            "the value after its sigmoid gate instead of before",
            "gate_proj and up_proj of the shared expert swapped",
        ]),
        tokens("mlp", &["T", "D"], Projection).from(&["post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.experts", "mlp.shared_expert"]).ggml("ffn_out").suspect(&[
            "silu missing or on the wrong one of gate and up",
            "the shared expert gated after the sum, or not gated"]),
        tokens("", &["T", "D"], Residual).from(&["attn_residual", "mlp"])
            .ggml("l_out")
            .suspect(&["the MLP's residual missing or taken after the norm"]),
        tokens("model.norm", &["T", "D"], Norm).from(&["^"])
            .global()
            .ggml("result_norm")
            .suspect(&[NORM_OFFSET, "the multi-token-prediction block counted as a layer", EPS]),
        tokens("lm_head", &["T", "vocab"], Logits).from(&["^"]).global().ggml("result_output").suspect(&[
            "tied embeddings read as an output matrix of their own, or the reverse",
            "the output matrix quantized",
            "vocabulary padded or permuted",
        ]),
    ]
};

const ROPE_CAUSES: &[&str] = &[
    "all dimensions rotated where only the first head_dim · partial_rotary_factor are",
    "pairs (2i, 2i+1) rotated instead of halves (i, i + rot/2)",
    "inverse frequencies kept in bf16, or another theta",
    "positions restarted or shifted by one",
];

/// The row that `name` belongs to, with its layer if it has one. `None` for names outside the table, also for
/// layer numbers not written plainly (`model.layers.007`).
pub fn parse(name: &str) -> Option<(Option<usize>, &'static PointKind)> {
    let (layer, row) = locate(name)?;
    Some((layer, &KINDS[row]))
}

/// The table's spelling of a name as other tools give it: without the `language_model` of checkpoints with vision,
/// with the `model.` that hooks on the bare text model lack, and `lm_head` for `logits`. Other names stay.
pub fn canonical(name: &str) -> Cow<'_, str> {
    let inner = ["model.language_model.", "language_model.model.", "model.model."]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix));
    let plain = match (inner, name) {
        (Some(inner), _) => Cow::Owned(format!("model.{inner}")),
        (None, "logits" | "language_model.lm_head") => Cow::Borrowed("lm_head"),
        (None, bare) => Cow::Owned(format!("model.{bare}")),
    };
    if locate(&plain).is_some() { plain } else { Cow::Borrowed(name) }
}

fn locate(name: &str) -> Option<(Option<usize>, usize)> {
    let find = |suffix, in_layer| KINDS.iter().position(|k| k.suffix == suffix && k.in_layer == in_layer);
    match name.strip_prefix("model.layers.") {
        None => Some((None, find(name, false)?)),
        Some(rest) => {
            let (layer, suffix) = rest.split_once('.').unwrap_or((rest, ""));
            // A trailing dot is not a layer's output.
            if suffix.is_empty() && rest.contains('.') {
                return None;
            }
            Some((Some(plain_number(layer)?), find(suffix, true)?))
        }
    }
}

/// A number as `Display` would write it, so that names and numbers are in one-to-one correspondence.
fn plain_number(text: &str) -> Option<usize> {
    let number = text.parse::<usize>().ok()?;
    (number.to_string() == text).then_some(number)
}

impl PointKind {
    /// The full name of this point; `layer` is ignored for points outside layers.
    pub fn name(&self, layer: usize) -> String {
        match (self.in_layer, self.suffix) {
            (false, name) => name.to_owned(),
            (true, "") => format!("model.layers.{layer}"),
            (true, suffix) => format!("model.layers.{layer}.{suffix}"),
        }
    }
}

impl fmt::Display for PointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.in_layer, self.suffix) {
            (false, name) => f.write_str(name),
            (true, "") => f.write_str("model.layers.{L}"),
            (true, suffix) => write!(f, "model.layers.{{L}}.{suffix}"),
        }
    }
}

/// Where a point stands in the execution order; points outside the table come last, all equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrderKey {
    /// Before the first layer: row of the table.
    Before(usize),
    /// In a layer: its number, then the row of the table.
    Layer(usize, usize),
    /// After the last layer: row of the table.
    After(usize),
    /// Not in the table.
    Unknown,
}

/// The sort key that puts names into execution order.
pub fn order_key(name: &str) -> OrderKey {
    match locate(name) {
        Some((Some(layer), row)) => OrderKey::Layer(layer, row),
        Some((None, row)) if KINDS[..row].iter().any(|k| k.in_layer) => OrderKey::After(row),
        Some((None, row)) => OrderKey::Before(row),
        None => OrderKey::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_name_parses_to_its_row() {
        for kind in KINDS {
            let name = kind.name(12);
            let (layer, found) = parse(&name).unwrap();
            assert_eq!(layer, kind.in_layer.then_some(12), "{name}");
            assert_eq!((found.suffix, found.in_layer), (kind.suffix, kind.in_layer));
        }
    }

    #[test]
    fn other_names_do_not_parse() {
        for name in [
            "",
            "tokens",
            "model",
            "model.layers",
            "model.layers.",
            "model.layers.x",
            "model.layers.1.",
            "model.layers.007",
            "model.layers.+1.mlp",
            "model.layers.1.mlp.",
            "model.layers.1.lm_head",
            "model.layers.99999999999999999999999.mlp",
            "linear_attn",
        ] {
            assert!(parse(name).is_none(), "{name}");
            assert_eq!(order_key(name), OrderKey::Unknown, "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = KINDS.iter().map(|kind| kind.name(3)).collect();
        assert_eq!(names.len(), KINDS.len());
    }

    #[test]
    fn names_of_other_wrappings_are_recognised() {
        for (name, plain) in [
            ("model.language_model.layers.3.mlp", "model.layers.3.mlp"),
            ("model.language_model.embed_tokens", "model.embed_tokens"),
            ("language_model.model.norm", "model.norm"),
            ("layers.3", "model.layers.3"),
            ("norm", "model.norm"),
            ("logits", "lm_head"),
            ("model.layers.3", "model.layers.3"),
            ("model.language_model.unknown", "model.language_model.unknown"),
            ("mine", "mine"),
        ] {
            assert_eq!(canonical(name), plain);
        }
    }

    #[test]
    fn order_is_execution_order() {
        let expected = [
            "model.embed_tokens",
            "model.layers.2.linear_attn.in_proj_qkv",
            "model.layers.2.linear_attn",
            "model.layers.2.mlp.gate_proj",
            "model.layers.2.mlp",
            "model.layers.2",
            "model.layers.10.input_layernorm",
            "model.norm",
            "lm_head",
            "zz.unknown",
        ];
        let mut sorted = expected;
        sorted.sort_unstable();
        assert_ne!(sorted, expected);
        sorted.sort_by_key(|name| order_key(name));
        assert_eq!(sorted, expected);
    }

    #[test]
    fn every_row_has_axes_and_causes() {
        for kind in KINDS {
            assert!(!kind.axes.is_empty() && !kind.causes.is_empty(), "{kind}");
            assert_eq!(kind.axes[0] == "T", kind.extent == Extent::Tokens, "{kind}");
            if kind.extent == Extent::State {
                assert!(!kind.hooked, "{kind}");
            }
        }
    }
}
