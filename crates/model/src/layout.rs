//! The layout map: one row a tensor, read by loader, inspector, converter and the documentation alike.

use crate::config::LayerType;
use crate::dim::Dim::{self, *};
use crate::step::Step::{self, *};

/// What a tensor is for, whatever a file calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[allow(missing_docs)] // the names are those of HF's modules
#[serde(rename_all = "snake_case")]
pub enum Role {
    EmbedTokens,
    FinalNorm,
    LmHead,
    InputLayernorm,
    PostAttentionLayernorm,
    InProjQkv,
    InProjZ,
    InProjB,
    InProjA,
    Conv1d,
    ALog,
    DtBias,
    LinearAttnNorm,
    OutProj,
    QProj,
    KProj,
    VProj,
    OProj,
    QNorm,
    KNorm,
    GateProj,
    UpProj,
    DownProj,
    Router,
    ExpertsGate,
    ExpertsUp,
    ExpertsDown,
    SharedGate,
    SharedUp,
    SharedDown,
    SharedExpertGate,
    MtpFc,
    MtpPreFcNormEmbedding,
    MtpPreFcNormHidden,
    MtpNorm,
}

/// Where in the model a row applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Once, outside the layers.
    Global,
    /// Every layer.
    Layer,
    /// Layers with this mixer. A multi-token-prediction block is a full-attention layer.
    Mixer(LayerType),
    /// Layers with a dense feed-forward part.
    Dense,
    /// Layers with a routed one.
    Moe,
    /// Once in a multi-token-prediction block.
    Mtp,
}

/// How one kind of file holds a tensor.
#[derive(Debug, PartialEq)]
pub struct Stored {
    /// Name behind the prefix of its scope; `{}` is an expert's number.
    pub name: &'static str,
    /// Axes in the file, outermost first.
    pub axes: &'static [Dim],
    /// What takes it to canonical form.
    pub steps: &'static [Step],
}

/// A row of the layout map.
#[derive(Debug)]
pub struct TensorSpec {
    /// What it is for.
    pub role: Role,
    /// Where it applies.
    pub scope: Scope,
    /// Axes of the canonical form.
    pub axes: &'static [Dim],
    /// How Hugging Face checkpoints hold it, most usual first.
    pub hf: &'static [Stored],
    /// How GGUF files hold it.
    pub gguf: Stored,
}

const fn stored(name: &'static str, axes: &'static [Dim], steps: &'static [Step]) -> Stored {
    Stored { name, axes, steps }
}

/// A tensor that both kinds of file hold in canonical form.
macro_rules! plain {
    ($role:ident, $scope:expr, $axes:expr, $hf:literal, $gguf:literal) => {
        TensorSpec {
            role: Role::$role,
            scope: $scope,
            axes: $axes,
            hf: &[stored($hf, $axes, &[])],
            gguf: stored($gguf, $axes, &[]),
        }
    };
}

/// A norm whose gain HF stores less 1.
macro_rules! norm {
    ($role:ident, $scope:expr, $axes:expr, $hf:literal, $gguf:literal) => {
        TensorSpec {
            role: Role::$role,
            scope: $scope,
            axes: $axes,
            hf: &[stored($hf, $axes, &[AddOne])],
            gguf: stored($gguf, $axes, &[]),
        }
    };
}

/// A tensor over value heads, which GGUF holds in tiled order.
macro_rules! tiled {
    ($role:ident, $axes:expr, $hf:literal, $gguf:literal, $axis:literal, $head:expr, $skip:expr) => {
        TensorSpec {
            role: Role::$role,
            scope: DELTA,
            axes: $axes,
            hf: &[stored($hf, $axes, &[])],
            gguf: stored($gguf, $axes, &[Untile { axis: $axis, head: $head, skip: $skip }]),
        }
    };
}

const DELTA: Scope = Scope::Mixer(LayerType::LinearAttention);
const ATTENTION: Scope = Scope::Mixer(LayerType::FullAttention);

/// Every tensor that a Qwen3.5 text model can hold, in the order of the forward pass.
pub const ROWS: &[TensorSpec] = &[
    plain!(EmbedTokens, Scope::Global, &[Vocab, Hidden], "embed_tokens.weight", "token_embd.weight"),
    norm!(InputLayernorm, Scope::Layer, &[Hidden], "input_layernorm.weight", "attn_norm.weight"),
    tiled!(
        InProjQkv,
        &[Qkv, Hidden],
        "linear_attn.in_proj_qkv.weight",
        "attn_qkv.weight",
        0,
        ValueHead,
        Some(TwoKeys)
    ),
    tiled!(
        InProjZ,
        &[Values, Hidden],
        "linear_attn.in_proj_z.weight",
        "attn_gate.weight",
        0,
        ValueHead,
        None
    ),
    tiled!(InProjB, &[ValueHeads, Hidden], "linear_attn.in_proj_b.weight", "ssm_beta.weight", 0, One, None),
    tiled!(InProjA, &[ValueHeads, Hidden], "linear_attn.in_proj_a.weight", "ssm_alpha.weight", 0, One, None),
    TensorSpec {
        role: Role::Conv1d,
        scope: DELTA,
        axes: &[Qkv, Taps],
        hf: &[stored("linear_attn.conv1d.weight", &[Qkv, One, Taps], &[DropAxis(1)])],
        gguf: stored(
            "ssm_conv1d.weight",
            &[Qkv, Taps],
            &[Untile { axis: 0, head: ValueHead, skip: Some(TwoKeys) }],
        ),
    },
    TensorSpec {
        role: Role::ALog,
        scope: DELTA,
        axes: &[ValueHeads],
        hf: &[stored("linear_attn.A_log", &[ValueHeads], &[NegExp])],
        gguf: stored("ssm_a", &[ValueHeads], &[Untile { axis: 0, head: One, skip: None }]),
    },
    tiled!(DtBias, &[ValueHeads], "linear_attn.dt_bias", "ssm_dt.bias", 0, One, None),
    plain!(LinearAttnNorm, DELTA, &[ValueHead], "linear_attn.norm.weight", "ssm_norm.weight"),
    tiled!(OutProj, &[Hidden, Values], "linear_attn.out_proj.weight", "ssm_out.weight", 1, ValueHead, None),
    plain!(QProj, ATTENTION, &[QueryGate, Hidden], "self_attn.q_proj.weight", "attn_q.weight"),
    plain!(KProj, ATTENTION, &[KeyValue, Hidden], "self_attn.k_proj.weight", "attn_k.weight"),
    plain!(VProj, ATTENTION, &[KeyValue, Hidden], "self_attn.v_proj.weight", "attn_v.weight"),
    norm!(QNorm, ATTENTION, &[Head], "self_attn.q_norm.weight", "attn_q_norm.weight"),
    norm!(KNorm, ATTENTION, &[Head], "self_attn.k_norm.weight", "attn_k_norm.weight"),
    plain!(OProj, ATTENTION, &[Hidden, Query], "self_attn.o_proj.weight", "attn_output.weight"),
    norm!(
        PostAttentionLayernorm,
        Scope::Layer,
        &[Hidden],
        "post_attention_layernorm.weight",
        "post_attention_norm.weight"
    ),
    plain!(GateProj, Scope::Dense, &[Inner, Hidden], "mlp.gate_proj.weight", "ffn_gate.weight"),
    plain!(UpProj, Scope::Dense, &[Inner, Hidden], "mlp.up_proj.weight", "ffn_up.weight"),
    plain!(DownProj, Scope::Dense, &[Hidden, Inner], "mlp.down_proj.weight", "ffn_down.weight"),
    plain!(Router, Scope::Moe, &[Experts, Hidden], "mlp.gate.weight", "ffn_gate_inp.weight"),
    TensorSpec {
        role: Role::ExpertsGate,
        scope: Scope::Moe,
        axes: &[Experts, ExpertInner, Hidden],
        hf: &[
            stored("mlp.experts.gate_up_proj", &[Experts, TwoExpertInner, Hidden], &[Half(0)]),
            stored("mlp.experts.{}.gate_proj.weight", &[ExpertInner, Hidden], &[StackExperts]),
            stored("mlp.switch_mlp.gate_proj.weight", &[Experts, ExpertInner, Hidden], &[]),
        ],
        gguf: stored("ffn_gate_exps.weight", &[Experts, ExpertInner, Hidden], &[]),
    },
    TensorSpec {
        role: Role::ExpertsUp,
        scope: Scope::Moe,
        axes: &[Experts, ExpertInner, Hidden],
        hf: &[
            stored("mlp.experts.gate_up_proj", &[Experts, TwoExpertInner, Hidden], &[Half(1)]),
            stored("mlp.experts.{}.up_proj.weight", &[ExpertInner, Hidden], &[StackExperts]),
            stored("mlp.switch_mlp.up_proj.weight", &[Experts, ExpertInner, Hidden], &[]),
        ],
        gguf: stored("ffn_up_exps.weight", &[Experts, ExpertInner, Hidden], &[]),
    },
    TensorSpec {
        role: Role::ExpertsDown,
        scope: Scope::Moe,
        axes: &[Experts, Hidden, ExpertInner],
        hf: &[
            stored("mlp.experts.down_proj", &[Experts, Hidden, ExpertInner], &[]),
            stored("mlp.experts.{}.down_proj.weight", &[Hidden, ExpertInner], &[StackExperts]),
            stored("mlp.switch_mlp.down_proj.weight", &[Experts, Hidden, ExpertInner], &[]),
        ],
        gguf: stored("ffn_down_exps.weight", &[Experts, Hidden, ExpertInner], &[]),
    },
    plain!(
        SharedGate,
        Scope::Moe,
        &[SharedInner, Hidden],
        "mlp.shared_expert.gate_proj.weight",
        "ffn_gate_shexp.weight"
    ),
    plain!(
        SharedUp,
        Scope::Moe,
        &[SharedInner, Hidden],
        "mlp.shared_expert.up_proj.weight",
        "ffn_up_shexp.weight"
    ),
    plain!(
        SharedDown,
        Scope::Moe,
        &[Hidden, SharedInner],
        "mlp.shared_expert.down_proj.weight",
        "ffn_down_shexp.weight"
    ),
    TensorSpec {
        role: Role::SharedExpertGate,
        scope: Scope::Moe,
        axes: &[Hidden],
        hf: &[stored("mlp.shared_expert_gate.weight", &[One, Hidden], &[DropAxis(0)])],
        gguf: stored("ffn_gate_inp_shexp.weight", &[One, Hidden], &[DropAxis(0)]),
    },
    norm!(FinalNorm, Scope::Global, &[Hidden], "norm.weight", "output_norm.weight"),
    plain!(LmHead, Scope::Global, &[Vocab, Hidden], "lm_head.weight", "output.weight"),
    plain!(MtpFc, Scope::Mtp, &[Hidden, TwoHidden], "fc.weight", "nextn.eh_proj.weight"),
    norm!(MtpPreFcNormEmbedding, Scope::Mtp, &[Hidden], "pre_fc_norm_embedding.weight", "nextn.enorm.weight"),
    norm!(MtpPreFcNormHidden, Scope::Mtp, &[Hidden], "pre_fc_norm_hidden.weight", "nextn.hnorm.weight"),
    norm!(MtpNorm, Scope::Mtp, &[Hidden], "norm.weight", "nextn.shared_head_norm.weight"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_one_row() {
        for (i, row) in ROWS.iter().enumerate() {
            assert!(ROWS[i + 1..].iter().all(|r| r.role != row.role), "{:?}", row.role);
        }
    }

    /// The eight tensors that tiling touches, and no other.
    #[test]
    fn eight_rows_are_tiled() {
        let tiled = |r: &&TensorSpec| r.gguf.steps.iter().any(|s| matches!(s, Untile { .. }));
        assert_eq!(ROWS.iter().filter(tiled).count(), 8);
    }

    /// DeltaNet's gated norm is the one norm without an offset.
    #[test]
    fn every_other_norm_gains_one() {
        let offset: Vec<Role> =
            ROWS.iter().filter(|r| r.hf[0].steps.contains(&AddOne)).map(|r| r.role).collect();
        assert!(!offset.contains(&Role::LinearAttnNorm));
        assert_eq!(offset.len(), 8); // five of the text model, three of the MTP block
    }
}
