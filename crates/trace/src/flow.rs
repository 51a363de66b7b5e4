//! Which points follow from which, so that two faults are not taken for one.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::point::{self, KINDS, PointKind};

/// Stands for what precedes: the layer before, the embedding, or for `lm_head` the final norm.
pub(crate) const BEFORE: &str = "^";

/// The points among `beyond` that nothing explains: what they are computed from is not among `beyond`. Where an
/// input was not compared, its own inputs stand for it. Points outside the table are taken to follow from
/// everything.
pub(crate) fn unexplained<'a>(
    compared: impl Iterator<Item = &'a str>,
    beyond: &HashSet<&'a str>,
) -> Vec<String> {
    let compared: HashSet<_> = compared.collect();
    let layers: BTreeSet<usize> = compared.iter().filter_map(|name| point::parse(name)?.0).collect();
    let mut unexplained = Vec::new();
    // Goes through the points of one layer, or one outside, and says whether its last one is wrong.
    let mut walk = |kinds: &mut dyn Iterator<Item = &PointKind>, layer: usize, before: bool| {
        let mut wrong = HashMap::from([(BEFORE, before)]);
        let mut last = before;
        for kind in kinds {
            let inherited = kind.inputs.iter().any(|input| wrong.get(input) == Some(&true));
            let name = kind.name(layer);
            last = if compared.contains(name.as_str()) { beyond.contains(name.as_str()) } else { inherited };
            if last && !inherited {
                unexplained.push(name);
            }
            wrong.insert(kind.suffix, last);
        }
        last
    };
    let global = |suffix: &'static str| KINDS.iter().filter(move |k| !k.in_layer && k.suffix == suffix);
    let mut before = walk(&mut global("model.embed_tokens"), 0, false);
    for layer in layers {
        before = walk(&mut KINDS.iter().filter(|k| k.in_layer), layer, before);
    }
    before = walk(&mut global("model.norm"), 0, before);
    walk(&mut global("lm_head"), 0, before);
    unexplained
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPARED: &[&str] = &[
        "model.embed_tokens",
        "model.layers.0.input_layernorm",
        "model.layers.0.linear_attn.in_proj_qkv",
        "model.layers.0.linear_attn.in_proj_z",
        "model.layers.0.linear_attn.in_proj_a",
        "model.layers.0.linear_attn.g",
        "model.layers.0.linear_attn.norm",
        "model.layers.0",
        "model.layers.3.self_attn.q_norm",
        "model.layers.3.self_attn.attn_out",
        "model.layers.3.self_attn.gated",
        "model.norm",
        "lm_head",
        "mine",
    ];

    fn found(beyond: &[&'static str]) -> Vec<String> {
        unexplained(COMPARED.iter().copied(), &beyond.iter().copied().collect())
    }

    #[test]
    fn what_follows_from_a_fault_is_explained_by_it() {
        let all = &COMPARED[3..];
        assert_eq!(
            found(all),
            ["model.layers.0.linear_attn.in_proj_z", "model.layers.0.linear_attn.in_proj_a"]
        );
        // Also where the points between were not compared.
        let beyond = ["model.layers.0", "model.layers.3.self_attn.q_norm", "model.norm", "mine"];
        assert_eq!(found(&beyond), ["model.layers.0"]);
    }

    #[test]
    fn a_point_within_its_limit_ends_the_explanation() {
        let beyond = &["model.embed_tokens", "model.norm", "lm_head"];
        assert_eq!(found(beyond), beyond[..2]);
    }

    #[test]
    fn branches_do_not_explain_each_other() {
        let beyond = &["model.layers.0.linear_attn.in_proj_z", "model.layers.0.linear_attn.g"];
        assert_eq!(found(beyond), *beyond);
        let gate = &["model.layers.3.self_attn.gated", "model.norm", "lm_head"];
        assert_eq!(found(gate), gate[..1]);
    }

    #[test]
    fn inputs_stand_before_what_they_explain() {
        for (at, kind) in KINDS.iter().enumerate() {
            for input in kind.inputs {
                let known = KINDS[..at].iter().any(|k| k.in_layer == kind.in_layer && k.suffix == *input);
                assert!(known || *input == BEFORE, "{kind}: {input}");
            }
            assert_eq!(kind.inputs.is_empty(), kind.suffix == "model.embed_tokens", "{kind}");
        }
    }
}
