//! Which points follow from which, so that two faults are not taken for one.

use std::collections::{BTreeSet, HashMap};

use crate::point::{self, KINDS, PointKind};

/// Stands for what precedes: the layer before, the embedding, or for `lm_head` the final norm.
pub(crate) const BEFORE: &str = "^";

/// One operation multiplies the relative error it is given by ten or so; a point this much worse than all its
/// inputs has a fault of its own, and one that is not may merely have crossed its limit where they have not.
const OWN_FAULT: f64 = 1000.0;

/// How a compared point stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Infinite where nothing could be measured: what follows from that is explained.
    measure: f64,
    within_limit: bool,
}

impl Standing {
    pub(crate) fn new(measure: f64, within_limit: bool) -> Standing {
        Standing { measure: if measure.is_nan() { f64::INFINITY } else { measure }, within_limit }
    }
}

/// The points beyond their limits that nothing explains: all that they are computed from is far better than they
/// are. Where an input was not compared, its own inputs stand for it. Points outside the table are taken to follow
/// from everything.
pub(crate) fn unexplained(compared: &HashMap<&str, Standing>) -> Vec<String> {
    let layers: BTreeSet<usize> = compared.keys().filter_map(|name| point::parse(name)?.0).collect();
    let mut unexplained = Vec::new();
    // Goes through the points of one layer, or one outside, and gives the measure of its last one.
    let mut walk = |kinds: &mut dyn Iterator<Item = &PointKind>, layer: usize, before: f64| {
        let mut measures = HashMap::from([(BEFORE, before)]);
        let mut last = before;
        for kind in kinds {
            let given =
                kind.inputs.iter().filter_map(|input| measures.get(input)).copied().fold(0.0, f64::max);
            let name = kind.name(layer);
            last = match compared.get(name.as_str()) {
                None => given,
                Some(standing) => {
                    if !standing.within_limit && given * OWN_FAULT < standing.measure {
                        unexplained.push(name);
                    }
                    standing.measure
                }
            };
            measures.insert(kind.suffix, last);
        }
        last
    };
    let global = |suffix: &'static str| KINDS.iter().filter(move |k| !k.in_layer && k.suffix == suffix);
    let mut before = walk(&mut global("model.embed_tokens"), 0, 0.0);
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

    fn standings(beyond: &[&str]) -> HashMap<&'static str, Standing> {
        let standing = |name| match beyond.contains(&name) {
            true => Standing::new(0.5, false),
            false => Standing::new(1e-12, true),
        };
        COMPARED.iter().map(|name| (*name, standing(*name))).collect()
    }

    fn found(beyond: &[&str]) -> Vec<String> {
        unexplained(&standings(beyond))
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
    fn a_point_that_merely_crosses_its_limit_follows_from_its_input() {
        let mut points = standings(&[]);
        points.insert("model.norm", Standing::new(4e-9, true));
        points.insert("lm_head", Standing::new(6e-9, false));
        assert!(unexplained(&points).is_empty());
        points.insert("lm_head", Standing::new(6e-5, false));
        assert_eq!(unexplained(&points), ["lm_head"]);
        points.insert("lm_head", Standing::new(f64::NAN, false));
        assert_eq!(unexplained(&points), ["lm_head"]);
        points.insert("model.norm", Standing::new(f64::NAN, false));
        assert_eq!(unexplained(&points), ["model.norm"]);
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
