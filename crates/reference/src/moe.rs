//! Which experts a token visits.

use std::collections::BTreeMap;

use model::{Config, FeedForward};
use ndarray::Array2;

use crate::math::softmax;
use crate::precision::Precision;

/// The chosen experts of every token.
pub(crate) struct Routing {
    /// `[T, k]`, most probable first.
    pub index: Array2<i64>,
    /// `[T, k]`, renormalised to sum 1, rounded.
    pub weight: Array2<f64>,
}

/// A token at an expert.
pub(crate) struct Visit {
    pub token: usize,
    pub weight: f64,
}

impl Routing {
    /// Softmax over all router logits `[T, E]`, the k largest, renormalised. Of equal probabilities the expert of the
    /// lower number comes first.
    pub(crate) fn new(logits: &Array2<f64>, config: &Config, precision: Precision) -> Routing {
        let chosen = match config.feed_forward {
            FeedForward::Moe { num_experts_per_tok, .. } => num_experts_per_tok,
            FeedForward::Dense { .. } => 0,
        };
        let mut index = Array2::zeros((logits.nrows(), chosen));
        let mut weight = Array2::zeros((logits.nrows(), chosen));
        for (t, logits) in logits.outer_iter().enumerate() {
            let mut probabilities = logits.to_vec();
            softmax(&mut probabilities);
            let mut order: Vec<usize> = (0..probabilities.len()).collect();
            order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
            order.truncate(chosen);
            let sum: f64 = order.iter().map(|&e| probabilities[e]).sum();
            for (j, &e) in order.iter().enumerate() {
                index[[t, j]] = e as i64;
                weight[[t, j]] = precision.round(probabilities[e] / sum);
            }
        }
        Routing { index, weight }
    }

    /// The tokens that visit each expert, experts in ascending order: so a token's sum over its experts has one order.
    pub(crate) fn visits(&self) -> BTreeMap<usize, Vec<Visit>> {
        let mut visits: BTreeMap<usize, Vec<Visit>> = BTreeMap::new();
        for (((token, _), &expert), &weight) in self.index.indexed_iter().zip(&self.weight) {
            visits.entry(expert as usize).or_default().push(Visit { token, weight });
        }
        visits
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn weights_sum_to_one_and_ties_go_to_the_lower_number() {
        let config = Config::from_json(
            r#"{"hidden_size": 4, "num_hidden_layers": 1, "vocab_size": 3, "max_position_embeddings": 8,
                "rms_norm_eps": 1e-6, "tie_word_embeddings": true, "num_attention_heads": 1, "num_key_value_heads": 1,
                "head_dim": 4, "linear_num_key_heads": 1, "linear_num_value_heads": 1, "linear_key_head_dim": 2,
                "linear_value_head_dim": 2, "linear_conv_kernel_dim": 2, "full_attention_interval": 1,
                "rope_parameters": {"rope_theta": 10, "partial_rotary_factor": 0.5}, "num_experts": 4,
                "num_experts_per_tok": 2, "moe_intermediate_size": 2, "shared_expert_intermediate_size": 2}"#,
        )
        .unwrap();
        let logits = array![[0.0, 2.0, 2.0, 2.0], [3.0, 0.0, 0.0, 1.0]];
        let routing = Routing::new(&logits, &config, Precision::F64);
        assert_eq!(routing.index, array![[1, 2], [0, 3]]);
        assert_eq!(routing.weight.row(0).to_vec(), [0.5, 0.5]);
        let e = (-2f64).exp();
        assert!((routing.weight[[1, 1]] - e / (1.0 + e)).abs() < 1e-15);
        let visited: Vec<(usize, usize)> = routing.visits().iter().map(|(&e, v)| (e, v.len())).collect();
        assert_eq!(visited, [(0, 1), (1, 1), (2, 1), (3, 1)]);
    }
}
