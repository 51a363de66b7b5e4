//! Which part of a model a tensor belongs to, as its name says: a rough order that holds for any architecture.

use model::layout::Role;

/// Which part of a model a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names say it
pub enum Class {
    Embedding,
    DeltaNet,
    Attention,
    FeedForward,
    Experts,
    Router,
    Norm,
    Head,
    Mtp,
    Vision,
    Other,
}

impl Class {
    /// Every class, in the order of the forward pass.
    pub const ALL: [Class; 11] = [
        Class::Embedding,
        Class::DeltaNet,
        Class::Attention,
        Class::FeedForward,
        Class::Experts,
        Class::Router,
        Class::Norm,
        Class::Head,
        Class::Mtp,
        Class::Vision,
        Class::Other,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Class::Embedding => "embedding",
            Class::DeltaNet => "DeltaNet",
            Class::Attention => "attention",
            Class::FeedForward => "feed-forward",
            Class::Experts => "experts",
            Class::Router => "router",
            Class::Norm => "norms",
            Class::Head => "head",
            Class::Mtp => "multi-token prediction",
            Class::Vision => "vision",
            Class::Other => "other",
        }
    }

    /// The class of a tensor whose role is known.
    pub(crate) fn of_role(role: Role) -> Class {
        use Role::*;
        match role {
            EmbedTokens => Class::Embedding,
            LmHead => Class::Head,
            FinalNorm | InputLayernorm | PostAttentionLayernorm | LinearAttnNorm | QNorm | KNorm => {
                Class::Norm
            }
            InProjQkv | InProjZ | InProjB | InProjA | Conv1d | ALog | DtBias | OutProj => Class::DeltaNet,
            QProj | KProj | VProj | OProj => Class::Attention,
            GateProj | UpProj | DownProj | SharedGate | SharedUp | SharedDown => Class::FeedForward,
            Router | SharedExpertGate => Class::Router,
            ExpertsGate | ExpertsUp | ExpertsDown => Class::Experts,
            MtpFc | MtpPreFcNormEmbedding | MtpPreFcNormHidden | MtpNorm => Class::Mtp,
        }
    }

    /// The class of a tensor of which only the name is known.
    pub(crate) fn of_name(name: &str) -> Class {
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        let starts = |parts: &[&str]| parts.iter().any(|part| name.starts_with(part));
        if starts(&["v.", "mm.", "model.visual.", "visual.", "vision_", "model.vision"]) {
            Class::Vision
        } else if starts(&["mtp."]) || has(&[".nextn."]) {
            Class::Mtp
        } else if has(&["token_embd", "embed_tokens", "wte.", "word_embeddings"]) && !has(&["norm"]) {
            Class::Embedding
        } else if starts(&["output.", "lm_head"]) {
            Class::Head
        } else if has(&["ffn_gate_inp", "mlp.gate.", "shared_expert_gate", "router"]) {
            Class::Router
        } else if has(&["_exps", ".experts."]) {
            Class::Experts
        } else if has(&["norm", ".ln_"]) {
            Class::Norm
        } else if has(&["ssm_", "linear_attn", "mamba"]) {
            Class::DeltaNet
        } else if has(&["attn", "attention"]) {
            Class::Attention
        } else if has(&["ffn_", "mlp.", "feed_forward"]) {
            Class::FeedForward
        } else {
            Class::Other
        }
    }
}

/// The layer in a name: the first number that stands alone between dots, as in `blk.3.` or `model.layers.3.`.
pub(crate) fn layer_of_name(name: &str) -> Option<usize> {
    let mut parts = name.split('.');
    let mut before = parts.next()?;
    for part in parts {
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            return matches!(before, "blk" | "layers" | "layer" | "h" | "blocks")
                .then(|| part.parse().ok())
                .flatten();
        }
        before = part;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_many_makers_are_known() {
        for (name, class, layer) in [
            ("blk.12.ssm_conv1d.weight", Class::DeltaNet, Some(12)),
            ("blk.3.ffn_gate_exps.weight", Class::Experts, Some(3)),
            ("blk.3.ffn_gate_inp.weight", Class::Router, Some(3)),
            ("blk.0.attn_norm.weight", Class::Norm, Some(0)),
            ("blk.0.attn_q.weight.lora_a", Class::Attention, Some(0)),
            ("model.language_model.layers.7.mlp.experts.5.up_proj.weight", Class::Experts, Some(7)),
            ("model.embed_tokens.weight", Class::Embedding, None),
            ("token_embd_norm.weight", Class::Norm, None),
            ("output.weight", Class::Head, None),
            ("v.blk.3.attn_q.weight", Class::Vision, Some(3)),
            ("mtp.fc.weight", Class::Mtp, None),
            ("a.b", Class::Other, None),
            ("x.99999999999999999999999.y", Class::Other, None),
        ] {
            assert_eq!((Class::of_name(name), layer_of_name(name)), (class, layer), "{name}");
        }
    }
}
