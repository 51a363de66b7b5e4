//! What random values each weight has, so that activations stay near unit scale at any width and depth.
//!
//! Nothing here depends on the number of layers or on the order of writing: the first layers of a model are the same
//! whether it is cut after them or not.

use codec::Encoding;
use model::layout::{Role, Stored};
use model::{Config, Dialect, Dim, FeedForward, Place, Step};

use super::random::{DEVIATION, Stream};
use crate::form::{Form, Held};
use crate::source::{Rows, Source};

/// What each of a layer's two parts adds to the residual stream, which begins at 1 (less with tied embeddings):
/// after 40 layers it is near √(1 + 80/16) = 2.4.
const BRANCH: f64 = 0.25;
/// Root mean square of silu(x), and of silu(x)·y, for normal x and y of unit scale.
const SILU: f64 = 0.596;
/// Root mean square of sigmoid(x) for normal x of unit scale.
const SIGMOID: f64 = 0.54;
/// Deviation of logits: far from uniform, and far from certain.
const LOGITS: f64 = 3.0;
/// Deviation of norms' gains, around 1.
const GAINS: f64 = 0.2;
/// Range of decay rates, uniform; `A_log` is the logarithm.
const DECAY: (f64, f64) = (1.0, 16.0);
/// Range of time steps, uniform in the logarithm; `dt_bias` is what softplus makes them of.
const STEP: (f64, f64) = (1e-3, 1e-1);

/// How values are distributed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Draw {
    /// Nearly normal.
    Normal { mean: f64, deviation: f64 },
    /// The logarithm of a decay rate.
    DecayLog,
    /// The inverse softplus of a time step.
    StepBias,
}

impl Draw {
    /// Of the values as Hugging Face holds them.
    fn of(role: Role, config: &Config) -> Draw {
        let size = |dim: Dim| dim.size(config) as f64;
        let normal = |deviation| Draw::Normal { mean: 0.0, deviation };
        // A sum over so many inputs of unit scale has unit scale again.
        let sum = |inputs: Dim| normal(1.0 / size(inputs).sqrt());
        let branch = |inputs: Dim, scale: f64| normal(BRANCH / (scale * size(inputs).sqrt()));
        match role {
            Role::EmbedTokens if !config.tie_word_embeddings => normal(1.0),
            Role::EmbedTokens | Role::LmHead => normal(LOGITS / size(Dim::Hidden).sqrt()),
            Role::InputLayernorm
            | Role::PostAttentionLayernorm
            | Role::FinalNorm
            | Role::QNorm
            | Role::KNorm
            | Role::MtpPreFcNormEmbedding
            | Role::MtpPreFcNormHidden
            | Role::MtpNorm => normal(GAINS),
            Role::LinearAttnNorm => Draw::Normal { mean: 1.0, deviation: GAINS },
            Role::InProjQkv
            | Role::InProjZ
            | Role::InProjB
            | Role::InProjA
            | Role::QProj
            | Role::KProj
            | Role::VProj
            | Role::GateProj
            | Role::UpProj
            | Role::Router
            | Role::ExpertsGate
            | Role::ExpertsUp
            | Role::SharedGate
            | Role::SharedUp
            | Role::SharedExpertGate => sum(Dim::Hidden),
            Role::MtpFc => sum(Dim::TwoHidden),
            Role::Conv1d => sum(Dim::Taps),
            Role::ALog => Draw::DecayLog,
            Role::DtBias => Draw::StepBias,
            Role::OutProj => branch(Dim::Values, SILU),
            Role::OProj => branch(Dim::Query, SIGMOID),
            Role::DownProj => branch(Dim::Inner, SILU),
            // Weights that sum to 1 leave of k independent outputs about 1/√k; and the part is a sum of two.
            Role::ExpertsDown => branch(Dim::ExpertInner, SILU * (2.0 / experts_per_token(config)).sqrt()),
            Role::SharedDown => branch(Dim::SharedInner, SILU * SIGMOID * 2f64.sqrt()),
        }
    }

    fn fill(self, stream: Stream, start: u64, out: &mut [f32]) {
        let positions = start..;
        let draw = out.iter_mut().zip(positions);
        match self {
            Draw::Normal { mean, deviation } => {
                let (mean, scale) = (mean as f32, (deviation / DEVIATION) as f32);
                draw.for_each(|(out, at)| *out = mean + scale * stream.bell(at));
            }
            Draw::DecayLog => {
                let (least, most) = DECAY;
                draw.for_each(|(out, at)| {
                    *out = libm::log(least + (most - least) * stream.uniform(at)) as f32
                });
            }
            Draw::StepBias => {
                let (least, most) = (libm::log(STEP.0), libm::log(STEP.1));
                draw.for_each(|(out, at)| {
                    let step = libm::exp(least + (most - least) * stream.uniform(at));
                    // softplus⁻¹(s) = ln(eˢ − 1), without loss for small s.
                    *out = (step + libm::log(-libm::expm1(-step))) as f32;
                });
            }
        }
    }
}

fn experts_per_token(config: &Config) -> f64 {
    match config.feed_forward {
        FeedForward::Moe { num_experts_per_tok, .. } => num_experts_per_tok as f64,
        FeedForward::Dense { .. } => 1.0,
    }
}

/// Whether released checkpoints keep this weight in F32 whatever the rest is in.
pub(super) fn is_island(role: Role) -> bool {
    matches!(role, Role::ALog | Role::LinearAttnNorm)
}

/// The weights of a mock.
pub(super) struct Weights<'a> {
    config: &'a Config,
    seed: u64,
    /// What the Hugging Face form keeps them in: values are rounded to it.
    encoding: Encoding,
}

impl<'a> Weights<'a> {
    pub(super) fn new(config: &'a Config, seed: u64, encoding: Encoding) -> Weights<'a> {
        Weights { config, seed, encoding }
    }
}

impl Source for Weights<'_> {
    fn weight(&self, place: Place, role: Role) -> Option<Box<dyn Rows + '_>> {
        let (_, spec) = model::slots(self.config).find(|(p, spec)| *p == place && spec.role == role)?;
        // Its stream is named after the form that has it in tensors of its own, one for all experts.
        let alone = |stored: &&Stored| stored.steps.contains(&Step::StackExperts);
        let stored = spec.hf.iter().find(alone).or(spec.hf.first())?;
        let hf = Dialect::Hf { prefix: "" };
        let name = hf.name(spec, stored, place, self.config.num_hidden_layers, None);
        let form = Form::new(spec, stored, self.config);
        Some(Box::new(Drawn {
            stream: Stream::new(self.seed, &name),
            draw: Draw::of(role, self.config),
            held: form.held(),
            cols: form.cols(),
            encoding: if is_island(role) { Encoding::F32 } else { self.encoding },
        }))
    }
}

/// One of them.
struct Drawn {
    stream: Stream,
    draw: Draw,
    held: Held,
    cols: usize,
    encoding: Encoding,
}

impl Rows for Drawn {
    fn held(&self) -> Held {
        self.held
    }

    fn read(&self, row: usize, out: &mut [f32], _: &mut Vec<f32>) {
        self.draw.fill(self.stream, row as u64 * self.cols as u64, out);
        match self.encoding {
            Encoding::BF16 => out.iter_mut().for_each(|v| *v = half::bf16::from_f32(*v).to_f32()),
            Encoding::F16 => out.iter_mut().for_each(|v| *v = half::f16::from_f32(*v).to_f32()),
            _ => {}
        }
    }
}
