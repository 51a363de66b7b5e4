//! The weights of a model in canonical form, whatever file they came from.

use format::TensorSource;

use crate::config::{Config, LayerType};
use crate::layout::Role;
use crate::matrix::Matrix;
use crate::plan::{LayerPlan, plan};
use crate::resolve::{Layout, Place, Slot};
use crate::step::{Step, Tiling};

/// A whole model. `M` is how a matrix is held: [`Matrix`] reads exact rows out of the file.
///
/// Vectors are small and come as f64, exactly as the steps of the layout map give them: a gain is `1 + w`
/// unrounded from HF, and the stored f32 from GGUF.
#[derive(Clone, Debug)]
pub struct Weights<M> {
    /// `[vocab, D]`.
    pub embed_tokens: M,
    /// One a layer.
    pub layers: Vec<Layer<M>>,
    /// Gain of the final norm, `[D]`.
    pub norm: Vec<f64>,
    /// `[vocab, D]`; `None` if tied to the embedding.
    pub lm_head: Option<M>,
}

/// One layer.
#[derive(Clone, Debug)]
pub struct Layer<M> {
    /// Gain, `[D]`.
    pub input_layernorm: Vec<f64>,
    /// How it mixes tokens.
    pub mixer: Mixer<M>,
    /// Gain, `[D]`.
    pub post_attention_layernorm: Vec<f64>,
    /// Its feed-forward part.
    pub mlp: Mlp<M>,
}

/// The token mixer of a layer.
#[derive(Clone, Debug)]
pub enum Mixer<M> {
    /// Linear attention.
    DeltaNet(DeltaNet<M>),
    /// Full attention.
    Attention(Attention<M>),
}

/// Gated DeltaNet.
#[derive(Clone, Debug)]
pub struct DeltaNet<M> {
    /// `[2HkK+HvV, D]`: queries, keys, values.
    pub in_proj_qkv: M,
    /// `[HvV, D]`.
    pub in_proj_z: M,
    /// `[Hv, D]`.
    pub in_proj_b: M,
    /// `[Hv, D]`.
    pub in_proj_a: M,
    /// `[2HkK+HvV, taps]`, the tap of the newest token last.
    pub conv1d: Vec<f64>,
    /// `−exp(A_log)`, `[Hv]`.
    pub a: Vec<f64>,
    /// `[Hv]`.
    pub dt_bias: Vec<f64>,
    /// Plain gain of the gated norm, shared by heads, `[V]`.
    pub norm: Vec<f64>,
    /// `[D, HvV]`.
    pub out_proj: M,
}

/// Gated full attention.
#[derive(Clone, Debug)]
pub struct Attention<M> {
    /// `[H·2·Dh, D]`: per head, query then gate.
    pub q_proj: M,
    /// `[Hkv·Dh, D]`.
    pub k_proj: M,
    /// `[Hkv·Dh, D]`.
    pub v_proj: M,
    /// Gain, `[Dh]`.
    pub q_norm: Vec<f64>,
    /// Gain, `[Dh]`.
    pub k_norm: Vec<f64>,
    /// `[D, H·Dh]`.
    pub o_proj: M,
}

/// The feed-forward part of a layer.
#[derive(Clone, Debug)]
pub enum Mlp<M> {
    /// One block.
    Dense(SwiGlu<M>),
    /// Routed experts and a shared one.
    Moe(Moe<M>),
}

/// `down(silu(gate(x)) · up(x))`.
#[derive(Clone, Debug)]
pub struct SwiGlu<M> {
    /// `[F, D]`.
    pub gate_proj: M,
    /// `[F, D]`.
    pub up_proj: M,
    /// `[D, F]`.
    pub down_proj: M,
}

/// Mixture of experts.
#[derive(Clone, Debug)]
pub struct Moe<M> {
    /// Router, `[E, D]`.
    pub gate: M,
    /// E of them.
    pub experts: Vec<SwiGlu<M>>,
    /// Visited by every token.
    pub shared_expert: SwiGlu<M>,
    /// `[D]`: the shared expert's gate is the sigmoid of this times the input.
    pub shared_expert_gate: Vec<f64>,
}

impl<M> SwiGlu<M> {
    /// Its three.
    pub fn matrices(&self) -> [&M; 3] {
        [&self.gate_proj, &self.up_proj, &self.down_proj]
    }
}

impl<M> Weights<M> {
    /// The matrices that every token is multiplied by, in that order: all but the experts that it may choose from.
    pub fn always_read(&self) -> impl Iterator<Item = &M> {
        let layers = self.layers.iter().flat_map(|layer| {
            let mixer = match &layer.mixer {
                Mixer::DeltaNet(w) => {
                    vec![&w.in_proj_qkv, &w.in_proj_z, &w.in_proj_b, &w.in_proj_a, &w.out_proj]
                }
                Mixer::Attention(w) => vec![&w.q_proj, &w.k_proj, &w.v_proj, &w.o_proj],
            };
            let (router, mlp) = match &layer.mlp {
                Mlp::Dense(w) => (None, w),
                Mlp::Moe(w) => (Some(&w.gate), &w.shared_expert),
            };
            mixer.into_iter().chain(router).chain(mlp.matrices())
        });
        layers.chain([self.lm_head.as_ref().unwrap_or(&self.embed_tokens)])
    }
}

/// Reads resolved slots out of a source.
struct Reader<'a> {
    source: &'a dyn TensorSource,
    config: &'a Config,
    layout: &'a Layout,
}

impl<'a> Weights<Matrix<'a>> {
    /// Views of every matrix and copies of every vector. `layout` has been resolved over the same source, so
    /// that every slot is there in its right shape.
    pub(crate) fn read(source: &'a dyn TensorSource, config: &'a Config, layout: &'a Layout) -> Self {
        let reader = Reader { source, config, layout };
        Weights {
            embed_tokens: reader.matrix(Place::Global, Role::EmbedTokens),
            layers: plan(config).into_iter().enumerate().map(|(l, plan)| reader.layer(l, plan)).collect(),
            norm: reader.vector(Place::Global, Role::FinalNorm),
            lm_head: (!config.tie_word_embeddings).then(|| reader.matrix(Place::Global, Role::LmHead)),
        }
    }
}

impl<'a> Reader<'a> {
    fn layer(&self, l: usize, plan: LayerPlan) -> Layer<Matrix<'a>> {
        let matrix = |role| self.matrix(Place::Layer(l), role);
        let vector = |role| self.vector(Place::Layer(l), role);
        Layer {
            input_layernorm: vector(Role::InputLayernorm),
            mixer: match plan.mixer {
                LayerType::LinearAttention => Mixer::DeltaNet(DeltaNet {
                    in_proj_qkv: matrix(Role::InProjQkv),
                    in_proj_z: matrix(Role::InProjZ),
                    in_proj_b: matrix(Role::InProjB),
                    in_proj_a: matrix(Role::InProjA),
                    conv1d: vector(Role::Conv1d),
                    a: vector(Role::ALog),
                    dt_bias: vector(Role::DtBias),
                    norm: vector(Role::LinearAttnNorm),
                    out_proj: matrix(Role::OutProj),
                }),
                LayerType::FullAttention => Mixer::Attention(Attention {
                    q_proj: matrix(Role::QProj),
                    k_proj: matrix(Role::KProj),
                    v_proj: matrix(Role::VProj),
                    q_norm: vector(Role::QNorm),
                    k_norm: vector(Role::KNorm),
                    o_proj: matrix(Role::OProj),
                }),
            },
            post_attention_layernorm: vector(Role::PostAttentionLayernorm),
            mlp: if plan.moe {
                Mlp::Moe(self.moe(Place::Layer(l)))
            } else {
                Mlp::Dense(SwiGlu {
                    gate_proj: matrix(Role::GateProj),
                    up_proj: matrix(Role::UpProj),
                    down_proj: matrix(Role::DownProj),
                })
            },
        }
    }

    fn moe(&self, place: Place) -> Moe<Matrix<'a>> {
        let (gate, up, down) = (
            self.experts(place, Role::ExpertsGate),
            self.experts(place, Role::ExpertsUp),
            self.experts(place, Role::ExpertsDown),
        );
        Moe {
            gate: self.matrix(place, Role::Router),
            experts: gate
                .into_iter()
                .zip(up)
                .zip(down)
                .map(|((gate_proj, up_proj), down_proj)| SwiGlu { gate_proj, up_proj, down_proj })
                .collect(),
            shared_expert: SwiGlu {
                gate_proj: self.matrix(place, Role::SharedGate),
                up_proj: self.matrix(place, Role::SharedUp),
                down_proj: self.matrix(place, Role::SharedDown),
            },
            shared_expert_gate: self.vector(place, Role::SharedExpertGate),
        }
    }

    fn slot(&self, place: Place, role: Role) -> &'a Slot {
        match self.layout.slot(place, role) {
            Some(slot) => slot,
            None => unreachable!("{role:?} at {place:?} was resolved"),
        }
    }

    fn matrix(&self, place: Place, role: Role) -> Matrix<'a> {
        let slot = self.slot(place, role);
        let info = &self.source.tensors()[slot.tensors[0]];
        let (rows, cols) = (slot.spec.axes[0].size(self.config), slot.spec.axes[1].size(self.config));
        let matrix = self.view(self.source.bytes(info), info.encoding, rows, cols);
        slot.stored.steps.iter().fold(matrix, |matrix, step| match *step {
            Step::Untile { axis, head, skip } => matrix.untiled(axis, Tiling::new(head, skip, self.config)),
            _ => unreachable!("{step} does not apply to a matrix"),
        })
    }

    /// `[E, rows, cols]` as E matrices.
    fn experts(&self, place: Place, role: Role) -> Vec<Matrix<'a>> {
        let slot = self.slot(place, role);
        let [experts, rows, cols] = [0, 1, 2].map(|axis| slot.spec.axes[axis].size(self.config));
        if slot.stored.steps == [Step::StackExperts] {
            let tensors = slot.tensors.iter().map(|&i| &self.source.tensors()[i]);
            return tensors.map(|t| self.view(self.source.bytes(t), t.encoding, rows, cols)).collect();
        }
        let info = &self.source.tensors()[slot.tensors[0]];
        let bytes = self.source.bytes(info);
        // An expert's share of the bytes, and which of its equal parts this role is.
        let (parts, part) = match slot.stored.steps {
            [] => (1, 0),
            [Step::Half(half)] => (2, *half),
            steps => unreachable!("{steps:?} do not apply to experts"),
        };
        let size = bytes.len() / (experts * parts);
        (0..experts)
            .map(|e| self.view(&bytes[(e * parts + part) * size..][..size], info.encoding, rows, cols))
            .collect()
    }

    fn view(&self, bytes: &'a [u8], encoding: codec::Encoding, rows: usize, cols: usize) -> Matrix<'a> {
        match Matrix::new(bytes, encoding, rows, cols) {
            Some(matrix) => matrix,
            None => unreachable!("a resolved tensor has whole rows"),
        }
    }

    /// A small tensor, decoded whole, flat in canonical order.
    fn vector(&self, place: Place, role: Role) -> Vec<f64> {
        let slot = self.slot(place, role);
        let info = &self.source.tensors()[slot.tensors[0]];
        let size: usize = slot.spec.axes.iter().map(|d| d.size(self.config)).product();
        let row = size / slot.spec.axes[0].size(self.config);
        let mut narrow = vec![0f32; size];
        if let Err(error) = info.encoding.decode(self.source.bytes(info), &mut narrow) {
            unreachable!("a resolved tensor has its shape's bytes: {error}");
        }
        let mut wide: Vec<f64> = narrow.into_iter().map(f64::from).collect();
        for step in slot.stored.steps {
            match *step {
                Step::AddOne => wide.iter_mut().for_each(|w| *w += 1.0),
                Step::NegExp => wide.iter_mut().for_each(|w| *w = -libm::exp(*w)),
                Step::DropAxis(_) => {}
                Step::Untile { axis: 0, head, skip } => {
                    if let Some(tiling) = Tiling::new(head, skip, self.config) {
                        let rows = 0..size / row;
                        wide = rows.flat_map(|r| wide[tiling.stored(r) * row..][..row].to_vec()).collect();
                    }
                }
                _ => unreachable!("{step} does not apply to a vector"),
            }
        }
        wide
    }
}
