//! What a tensor is to a recipe, told by its name as llama-quantize tells it.

use format::Shape;

macro_rules! kinds {
    ($($kind:ident $part:literal $doc:literal,)*) => {
        /// What a tensor is to a recipe.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Kind {
            /// The output matrix.
            Output,
            /// The embedding.
            TokenEmbedding,
            $(#[doc = $doc] $kind,)*
            /// Anything else.
            Other,
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[Kind::Output, Kind::TokenEmbedding, $(Kind::$kind,)* Kind::Other];
            /// Parts of names, the first that is found decides.
            const PARTS: &[(&str, Kind)] = &[$(($part, Kind::$kind),)*];
        }
    };
}

kinds! {
    AttnQkv "attn_qkv.weight" "Queries, keys and values in one.",
    AttnKvB "attn_kv_b.weight" "Keys and values out of a latent.",
    AttnV "attn_v.weight" "Values.",
    AttnK "attn_k.weight" "Keys.",
    AttnQ "attn_q.weight" "Queries.",
    AttnOutput "attn_output.weight" "Attention's output.",
    FfnUp "ffn_up" "Up projections, of experts too.",
    FfnGate "ffn_gate" "Gate projections, of experts too.",
    FfnDown "ffn_down" "Down projections, of experts too.",
    SsmOut "ssm_out.weight" "The output of linear attention.",
    SsmBeta "ssm_beta.weight" "How much linear attention writes.",
}

impl Kind {
    /// The kind of the tensor of this name.
    pub fn of(name: &str) -> Kind {
        match name {
            "output.weight" => Kind::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Kind::TokenEmbedding,
            _ => Kind::PARTS
                .iter()
                .find(|(part, _)| name.contains(part))
                .map_or(Kind::Other, |(_, kind)| *kind),
        }
    }

    /// Whether it holds values, which count together.
    pub fn is_values(self) -> bool {
        matches!(self, Kind::AttnV | Kind::AttnQkv | Kind::AttnKvB)
    }
}

/// Parts of the names of matrices that stay as they are: small, and routers and convolutions suffer.
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
];

/// Why a tensor stays as it is whatever the recipe says; `None` if it does not.
pub fn kept(name: &str, shape: &Shape) -> Option<&'static str> {
    // Outermost dimensions of one do not count.
    if shape.dims().iter().skip_while(|&&dim| dim == 1).count() < 2 {
        return Some("a vector");
    }
    if !name.ends_with("weight") {
        return Some("no weight");
    }
    if ["position_embd.weight", "token_types.weight"].contains(&name) {
        return Some("position or type embeddings");
    }
    KEPT.iter().find(|part| name.contains(*part)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_kinds() {
        for (name, kind) in [
            ("output.weight", Kind::Output),
            ("output_norm.weight", Kind::Other),
            ("blk.3.attn_v.weight", Kind::AttnV),
            ("blk.0.attn_qkv.weight", Kind::AttnQkv),
            ("blk.0.ffn_down_exps.weight", Kind::FfnDown),
            ("blk.0.ffn_gate_up_exps.weight", Kind::FfnGate),
            ("blk.0.ssm_out.weight", Kind::SsmOut),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn small_ones_are_kept() {
        let kept = |name, dims: &[u64]| kept(name, &Shape::new(dims.to_vec())).is_some();
        assert!(kept("blk.0.ssm_conv1d.weight", &[64, 4]));
        assert!(kept("blk.0.attn_v.weight", &[64]));
        assert!(kept("blk.0.attn_v.weight", &[1, 64]));
        assert!(kept("blk.0.ffn_gate_inp.weight", &[8, 64]));
        assert!(!kept("blk.0.ffn_gate_inp_shexp.weight", &[8, 64]));
        assert!(!kept("blk.0.ssm_alpha.weight", &[8, 64]));
        assert!(!kept("token_embd.weight", &[8, 64]));
    }
}
