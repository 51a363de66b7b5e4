//! The forward pass, top to bottom. Letters of shapes are those of `docs/notation.md`.

use model::weights::{Attention, DeltaNet, Mixer, Mlp, Moe, SwiGlu};
use model::{Matrix, Weights};
use ndarray::{Array1, Array2, Axis};
use trace::Tap;

use crate::attention::attention;
use crate::delta::{DeltaInputs, delta_rule};
use crate::error::Error;
use crate::math::{sigmoid, silu, softplus};
use crate::moe::Routing;
use crate::norm::{l2_norm, rms_norm};
use crate::ops::Ops;
use crate::points::Points;
use crate::rope::Rotation;
use crate::state::{AttentionState, DeltaState, LayerState, State};

/// Which logits a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// Of every token, if the tap wants them.
    All,
    /// Of the last token only.
    Last,
}

/// A model ready to run: its configuration, its weights in canonical form, and how to compute.
pub struct Model<'w> {
    pub(crate) config: &'w model::Config,
    pub(crate) weights: Weights<Matrix<'w>>,
    pub(crate) ops: Ops,
}

impl Model<'_> {
    /// Runs `tokens` after all that `state` has seen, and returns the last token's logits, `[vocab]`.
    ///
    /// The result and every recorded point have the same bits however a text is split over calls.
    ///
    /// # Errors
    /// No tokens, a token that is out of range, or a tap that fails; `state` is then not to be used again.
    pub fn forward(
        &self,
        tokens: &[u32],
        state: &mut State,
        logits: Logits,
        tap: &mut dyn Tap,
    ) -> Result<Array1<f64>, Error> {
        let mut points = Points::new(tap, "model.");
        let mut x = self.embed(tokens)?; // [T, D]
        points.tokens("embed_tokens", &x)?;
        for l in 0..self.weights.layers.len() {
            x = self.block(l, x, state, points.tap)?; // [T, D]
        }
        state.position += tokens.len();
        let h = self.ops.rms_norm(&x, &self.weights.norm, self.config.rms_norm_eps); // [T, D]
        points.tokens("norm", &h)?;
        self.head(&h, logits, &mut Points::new(points.tap, "")) // [vocab]
    }

    /// Layer `l` alone: `[T, D] → [T, D]`, at the position of `state`, which it moves on for this layer only.
    ///
    /// # Errors
    /// A tap that fails.
    pub fn block(
        &self,
        l: usize,
        x: Array2<f64>,
        state: &mut State,
        tap: &mut dyn Tap,
    ) -> Result<Array2<f64>, Error> {
        let (ops, layer, eps) = (&self.ops, &self.weights.layers[l], self.config.rms_norm_eps);
        let mut points = Points::new(tap, &format!("model.layers.{l}."));
        let h = ops.rms_norm(&x, &layer.input_layernorm, eps); // [T, D]
        points.tokens("input_layernorm", &h)?;
        let mixed = match (&layer.mixer, &mut state.layers[l]) {
            (Mixer::DeltaNet(w), LayerState::DeltaNet(s)) => self.delta_net(w, h, s, &mut points)?, // [T, D]
            (Mixer::Attention(w), LayerState::Attention(s)) => {
                self.attention(w, h, s, state.position, &mut points)?
            }
            _ => return Err(Error::State(format!("layer {l} is of another kind than the model's"))),
        };
        let x = ops.add(x, &mixed); // [T, D]
        points.tokens("attn_residual", &x)?;
        let h = ops.rms_norm(&x, &layer.post_attention_layernorm, eps); // [T, D]
        points.tokens("post_attention_layernorm", &h)?;
        let y = match &layer.mlp {
            Mlp::Dense(w) => self.mlp(w, &h, Some(&mut points))?, // [T, D]
            Mlp::Moe(w) => self.moe(w, &h, &mut points)?,
        };
        points.tokens("mlp", &y)?;
        let x = ops.add(x, &y); // [T, D]
        Points::new(points.tap, "").tokens(&format!("model.layers.{l}"), &x)?;
        Ok(x)
    }

    fn delta_net(
        &self,
        w: &DeltaNet<Matrix>,
        h: Array2<f64>,
        state: &mut DeltaState,
        points: &mut Points,
    ) -> Result<Array2<f64>, Error> {
        let (ops, c) = (&self.ops, self.config);
        let (hk, hv, kd, vd) = (
            c.linear_num_key_heads,
            c.linear_num_value_heads,
            c.linear_key_head_dim,
            c.linear_value_head_dim,
        );
        let qkv = ops.linear(h.view(), &w.in_proj_qkv); // [T, 2HkK+HvV]
        let z = ops.linear(h.view(), &w.in_proj_z); // [T, HvV]
        let b = ops.linear(h.view(), &w.in_proj_b); // [T, Hv]
        let a = ops.linear(h.view(), &w.in_proj_a); // [T, Hv]
        points.tokens("linear_attn.in_proj_qkv", &qkv)?;
        points.tokens("linear_attn.in_proj_z", &z)?;
        points.tokens("linear_attn.in_proj_b", &b)?;
        points.tokens("linear_attn.in_proj_a", &a)?;

        let mixed = ops.causal_conv(&qkv, &w.conv1d, &mut state.conv, silu); // [T, 2HkK+HvV]
        points.tokens("linear_attn.conv1d", &mixed)?;
        points.state("linear_attn.conv_state", &[c.qkv_dim(), c.linear_conv_kernel_dim - 1], || {
            state.conv_by_channel()
        })?;
        let beta = ops.map(&b, |_, b| sigmoid(b)); // [T, Hv]
        let g = ops.map(&a, |head, a| w.a[head] * softplus(a + w.dt_bias[head])); // [T, Hv]
        points.tokens("linear_attn.beta", &beta)?;
        points.tokens("linear_attn.g", &g)?;

        let mut q = ops.heads(&mixed, 0..hk * kd, hk); // [T, Hk, K]
        let mut k = ops.heads(&mixed, hk * kd..2 * hk * kd, hk); // [T, Hk, K]
        let v = ops.heads(&mixed, 2 * hk * kd..c.qkv_dim(), hv); // [T, Hv, V]
        ops.each_head(&mut q, |_, q| l2_norm(q, 1.0 / (kd as f64).sqrt()));
        ops.each_head(&mut k, |_, k| l2_norm(k, 1.0));
        let inputs = DeltaInputs { q: q.view(), k: k.view(), v: v.view(), g: g.view(), beta: beta.view() };
        let mut o = ops.round(delta_rule(&inputs, &mut state.recurrent)); // [T, Hv, V]
        points.tokens("linear_attn.core_attn_out", &o)?;
        points.state("linear_attn.recurrent_state", &[hv, kd, vd], || state.recurrent.clone())?;

        ops.each_head(&mut o, |_, o| rms_norm(o, &w.norm, c.rms_norm_eps));
        let gated = ops.zip(&ops.flat(o.view()), &z, |o, z| o * silu(z)); // [T, HvV]
        points.tokens("linear_attn.norm", &gated)?;
        let out = ops.linear(gated.view(), &w.out_proj); // [T, D]
        points.tokens("linear_attn", &out)?;
        Ok(out)
    }

    fn attention(
        &self,
        w: &Attention<Matrix>,
        h: Array2<f64>,
        state: &mut AttentionState,
        past: usize,
        points: &mut Points,
    ) -> Result<Array2<f64>, Error> {
        let (ops, c) = (&self.ops, self.config);
        let (heads, kv_heads, dh) = (c.num_attention_heads, c.num_key_value_heads, c.head_dim);
        let query_gate = ops.linear(h.view(), &w.q_proj); // [T, H·2·Dh]
        let k = ops.linear(h.view(), &w.k_proj); // [T, Hkv·Dh]
        let v = ops.linear(h.view(), &w.v_proj); // [T, Hkv·Dh]
        points.tokens("self_attn.q_proj", &query_gate)?;
        points.tokens("self_attn.k_proj", &k)?;
        points.tokens("self_attn.v_proj", &v)?;

        let query_gate = ops.heads(&query_gate, 0..heads * 2 * dh, heads); // [T, H, query Dh | gate Dh]
        let (q, gate) = query_gate.view().split_at(Axis(2), dh); // [T, H, Dh] each
        let (mut q, gate) = (q.as_standard_layout().into_owned(), ops.flat(gate)); // [T, H, Dh], [T, H·Dh]
        let mut k = ops.heads(&k, 0..kv_heads * dh, kv_heads); // [T, Hkv, Dh]
        ops.each_head(&mut q, |_, q| rms_norm(q, &w.q_norm, c.rms_norm_eps));
        ops.each_head(&mut k, |_, k| rms_norm(k, &w.k_norm, c.rms_norm_eps));
        let (mut q, mut k) = (ops.round(q), ops.round(k));
        points.tokens("self_attn.q_norm", &q)?;
        points.tokens("self_attn.k_norm", &k)?;
        let rotations: Vec<Rotation> =
            (past..past + h.nrows()).map(|p| Rotation::new(p, c.rotary_dim, c.rope_theta)).collect();
        ops.each_head(&mut q, |t, q| rotations[t].apply(q));
        ops.each_head(&mut k, |t, k| rotations[t].apply(k));
        let (q, k) = (ops.round(q), ops.round(k));
        points.tokens("self_attn.q_rope", &q)?;
        points.tokens("self_attn.k_rope", &k)?;

        state.k.extend(k.iter());
        state.v.extend(v.iter());
        let out = attention(q.view(), &state.k, &state.v, kv_heads, past); // [T, H, Dh]
        let out = ops.flat(ops.round(out).view()); // [T, H·Dh]
        points.tokens("self_attn.attn_out", &out)?;
        let gated = ops.zip(&out, &gate, |out, gate| out * sigmoid(gate)); // [T, H·Dh]
        points.tokens("self_attn.gated", &gated)?;
        let out = ops.linear(gated.view(), &w.o_proj); // [T, D]
        points.tokens("self_attn", &out)?;
        Ok(out)
    }

    /// `down(silu(gate(h)) · up(h))`: `[T, D] → [T, D]`.
    fn mlp(
        &self,
        w: &SwiGlu<Matrix>,
        h: &Array2<f64>,
        points: Option<&mut Points>,
    ) -> Result<Array2<f64>, Error> {
        let gate = self.ops.linear(h.view(), &w.gate_proj); // [T, F]
        let up = self.ops.linear(h.view(), &w.up_proj); // [T, F]
        if let Some(points) = points {
            points.tokens("mlp.gate_proj", &gate)?;
            points.tokens("mlp.up_proj", &up)?;
        }
        let inner = self.ops.zip(&gate, &up, |gate, up| silu(gate) * up); // [T, F]
        Ok(self.ops.linear(inner.view(), &w.down_proj)) // [T, D]
    }

    fn moe(&self, w: &Moe<Matrix>, h: &Array2<f64>, points: &mut Points) -> Result<Array2<f64>, Error> {
        let logits = self.ops.linear(h.view(), &w.gate); // [T, E]
        points.tokens("mlp.gate", &logits)?;
        let routing = Routing::new(&logits, self.config, self.ops.precision()); // k experts a token
        points.indices("mlp.topk_index", &routing.index)?; // [T, k]
        points.tokens("mlp.topk_weight", &routing.weight)?; // [T, k]
        let mut routed = Array2::zeros(h.raw_dim()); // [T, D]
        for (expert, visits) in routing.visits() {
            let rows: Vec<usize> = visits.iter().map(|visit| visit.token).collect();
            let y = self.mlp(&w.experts[expert], &h.select(Axis(0), &rows), None)?; // [visits, D]
            for (visit, y) in visits.iter().zip(y.outer_iter()) {
                routed.row_mut(visit.token).scaled_add(visit.weight, &y);
            }
        }
        let routed = self.ops.round(routed); // [T, D]
        points.tokens("mlp.experts", &routed)?;
        let shared = self.mlp(&w.shared_expert, h, None)?; // [T, D]
        points.tokens("mlp.shared_expert", &shared)?;
        let gate = self.ops.dot_rows(h, &w.shared_expert_gate); // [T]
        Ok(self.ops.zip_rows(&routed, &shared, |t, routed, shared| routed + sigmoid(gate[t]) * shared)) // [T, D]
    }
}
