//! Weights as the pass wants them: matrices where they lie in the file, the small vectors in f32.

use model::weights::{Attention, DeltaNet, Layer, Mixer, Mlp, Moe, SwiGlu};
use model::{Matrix, Weights};

/// A whole model.
pub(crate) struct Prepared<'w> {
    pub embed_tokens: Matrix<'w>,
    pub layers: Vec<PreparedLayer<'w>>,
    pub norm: Vec<f32>,
    pub lm_head: Option<Matrix<'w>>,
}

pub(crate) struct PreparedLayer<'w> {
    pub input_layernorm: Vec<f32>,
    pub mixer: PreparedMixer<'w>,
    pub post_attention_layernorm: Vec<f32>,
    pub mlp: PreparedMlp<'w>,
}

pub(crate) enum PreparedMixer<'w> {
    DeltaNet(PreparedDeltaNet<'w>),
    Attention(PreparedAttention<'w>),
}

pub(crate) struct PreparedDeltaNet<'w> {
    pub w: DeltaNet<Matrix<'w>>,
    /// `[taps, C]`: a tap's row by row, where canonical form has a channel's.
    pub taps: Vec<f32>,
    pub norm: Vec<f32>,
}

pub(crate) struct PreparedAttention<'w> {
    pub w: Attention<Matrix<'w>>,
    pub q_norm: Vec<f32>,
    pub k_norm: Vec<f32>,
}

pub(crate) enum PreparedMlp<'w> {
    Dense(SwiGlu<Matrix<'w>>),
    Moe { w: Moe<Matrix<'w>>, shared_expert_gate: Vec<f32> },
}

fn narrow(wide: &[f64]) -> Vec<f32> {
    wide.iter().map(|&x| x as f32).collect()
}

impl<'w> Prepared<'w> {
    pub(crate) fn new(weights: Weights<Matrix<'w>>) -> Prepared<'w> {
        Prepared {
            embed_tokens: weights.embed_tokens,
            layers: weights.layers.into_iter().map(layer).collect(),
            norm: narrow(&weights.norm),
            lm_head: weights.lm_head,
        }
    }
}

fn layer(layer: Layer<Matrix<'_>>) -> PreparedLayer<'_> {
    PreparedLayer {
        input_layernorm: narrow(&layer.input_layernorm),
        mixer: match layer.mixer {
            Mixer::DeltaNet(mut w) => {
                let channels = w.in_proj_qkv.rows();
                // Not kept in f64 besides: of a 4B model it is 6 MB.
                let conv1d = std::mem::take(&mut w.conv1d);
                let kernel = conv1d.len() / channels;
                let taps = (0..kernel).flat_map(|j| conv1d.iter().skip(j).step_by(kernel));
                PreparedMixer::DeltaNet(PreparedDeltaNet {
                    taps: taps.map(|&x| x as f32).collect(),
                    norm: narrow(&w.norm),
                    w,
                })
            }
            Mixer::Attention(w) => PreparedMixer::Attention(PreparedAttention {
                q_norm: narrow(&w.q_norm),
                k_norm: narrow(&w.k_norm),
                w,
            }),
        },
        post_attention_layernorm: narrow(&layer.post_attention_layernorm),
        mlp: match layer.mlp {
            Mlp::Dense(w) => PreparedMlp::Dense(w),
            Mlp::Moe(w) => PreparedMlp::Moe { shared_expert_gate: narrow(&w.shared_expert_gate), w },
        },
    }
}
