//! The hybrid pattern, decided once, as data.

use crate::config::{Config, FeedForward, LayerType};

/// What a layer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LayerPlan {
    /// How it mixes tokens.
    pub mixer: LayerType,
    /// Whether its feed-forward part is routed.
    pub moe: bool,
}

/// One entry a layer of the main model, in order.
pub fn plan(config: &Config) -> Vec<LayerPlan> {
    let moe = matches!(config.feed_forward, FeedForward::Moe { .. });
    config.layer_types.iter().map(|&mixer| LayerPlan { mixer, moe }).collect()
}
