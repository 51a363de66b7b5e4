//! The forward pass, top to bottom. Letters of shapes are those of `docs/notation.md`.

use model::weights::{Attention, DeltaNet, Mixer, Mlp, Moe, SwiGlu};
use model::{Matrix, Weights};
use ndarray::{Array1, Array2, Axis};
use trace::{NoTap, Tap};

use crate::attention::attention;
use crate::delta::{DeltaInputs, delta_rule};
use crate::ends::LogitsSpace;
use crate::error::Error;
use crate::math::{sigmoid, silu, softplus};
use crate::moe::Routing;
use crate::norm::{l2_norm, rms_norm};
use crate::ops::Ops;
use crate::points::Points;
use crate::rope::Rotation;
use crate::state::{AttentionState, DeltaState, LayerState, State};

/// Activations, one row a token.
type Rows = Array2<f64>;

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
    pub(crate) logits: LogitsSpace,
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
        let mut x = self.enter(tokens, tap)?; // [T, D]
        for l in 0..self.weights.layers.len() {
            x = self.block(l, x, state, tap)?; // [T, D]
        }
        state.position += tokens.len();
        self.leave(&x, logits, tap) // [vocab]
    }

    /// What comes before the layers: the embedding, `[T] → [T, D]`.
    ///
    /// # Errors
    /// No tokens, a token that is out of range, or a tap that fails.
    pub fn enter(&self, tokens: &[u32], tap: &mut dyn Tap) -> Result<Rows, Error> {
        Ok(Points::new(tap, "model.").rows("embed_tokens", self.embed(tokens)?)?) // [T, D]
    }

    /// What comes after them: the final norm and the head, `[T, D] → [vocab]` of the last token.
    ///
    /// # Errors
    /// A tap that fails.
    pub fn leave(&self, x: &Rows, logits: Logits, tap: &mut dyn Tap) -> Result<Array1<f64>, Error> {
        let h = self.ops.rms_norm(x, &self.weights.norm, self.config.rms_norm_eps); // [T, D]
        let h = Points::new(tap, "model.").rows("norm", h)?; // [T, D]
        self.head(&h, logits, &mut Points::new(tap, "")) // [vocab]
    }

    /// Layer `l` alone: `[T, D] → [T, D]`. It moves on its own part of `state`, not the position.
    ///
    /// # Errors
    /// A tap that fails.
    pub fn block(&self, l: usize, x: Rows, state: &mut State, tap: &mut dyn Tap) -> Result<Rows, Error> {
        let (ops, w, eps) = (&self.ops, &self.weights.layers[l], self.config.rms_norm_eps);
        let mut at = Points::new(tap, &format!("model.layers.{l}."));
        let h = at.rows("input_layernorm", ops.rms_norm(&x, &w.input_layernorm, eps))?; // [T, D]
        let mixed = match (&w.mixer, &mut state.layers[l]) {
            (Mixer::DeltaNet(w), LayerState::DeltaNet(s)) => self.delta_net(w, &h, s, &mut at)?, // [T, D]
            (Mixer::Attention(w), LayerState::Attention(s)) => self.attention(w, &h, s, &mut at)?, // [T, D]
            _ => return Err(Error::State(format!("layer {l} is of another kind than the model's"))),
        };
        let x = at.rows("attn_residual", ops.add(x, &mixed))?; // [T, D]
        let h = ops.rms_norm(&x, &w.post_attention_layernorm, eps); // [T, D]
        let h = at.rows("post_attention_layernorm", h)?; // [T, D]
        let y = match &w.mlp {
            Mlp::Dense(w) => self.mlp(w, &h, &mut at)?, // [T, D]
            Mlp::Moe(w) => self.moe(w, &h, &mut at)?,   // [T, D]
        };
        let y = at.rows("mlp", y)?; // [T, D]
        Ok(Points::new(tap, "model.layers.").rows(&l.to_string(), ops.add(x, &y))?) // [T, D]
    }

    fn delta_net(
        &self,
        w: &DeltaNet<Matrix>,
        h: &Rows,
        state: &mut DeltaState,
        at: &mut Points,
    ) -> Result<Rows, Error> {
        let (ops, c) = (&self.ops, self.config);
        let (hk, hv) = (c.linear_num_key_heads, c.linear_num_value_heads);
        let (kd, vd) = (c.linear_key_head_dim, c.linear_value_head_dim);
        let h = &ops.pack(h); // [T, D]
        let qkv = at.rows("linear_attn.in_proj_qkv", ops.linear(h, &w.in_proj_qkv))?; // [T, 2HkK+HvV]
        let z = at.rows("linear_attn.in_proj_z", ops.linear(h, &w.in_proj_z))?; // [T, HvV]
        let b = at.rows("linear_attn.in_proj_b", ops.linear(h, &w.in_proj_b))?; // [T, Hv]
        let a = at.rows("linear_attn.in_proj_a", ops.linear(h, &w.in_proj_a))?; // [T, Hv]

        let mixed = ops.causal_conv(&qkv, &w.conv1d, &mut state.conv, silu); // [T, 2HkK+HvV]
        let mixed = at.rows("linear_attn.conv1d", mixed)?; // [T, 2HkK+HvV]
        let taps = c.linear_conv_kernel_dim;
        at.state("linear_attn.conv_state", &[c.qkv_dim(), taps - 1], || state.conv_by_channel())?;
        let beta = at.rows("linear_attn.beta", ops.map(&b, |_, b| sigmoid(b)))?; // [T, Hv]
        let g = ops.map(&a, |head, a| w.a[head] * softplus(a + w.dt_bias[head])); // [T, Hv]
        let g = at.rows("linear_attn.g", g)?; // [T, Hv]

        let mut q = ops.heads(&mixed, 0..hk * kd, hk); // [T, Hk, K]
        let mut k = ops.heads(&mixed, hk * kd..2 * hk * kd, hk); // [T, Hk, K]
        let v = ops.heads(&mixed, 2 * hk * kd..c.qkv_dim(), hv); // [T, Hv, V]
        ops.each_head(&mut q, |_, q| l2_norm(q, 1.0 / (kd as f64).sqrt())); // [T, Hk, K]
        ops.each_head(&mut k, |_, k| l2_norm(k, 1.0)); // [T, Hk, K]
        let inputs = DeltaInputs { q: q.view(), k: k.view(), v: v.view(), g: g.view(), beta: beta.view() };
        let o = ops.round(delta_rule(&inputs, &mut state.recurrent, ops.kernels)); // [T, Hv, V]
        let mut o = at.rows("linear_attn.core_attn_out", o)?; // [T, Hv, V]
        at.state("linear_attn.recurrent_state", &[hv, kd, vd], || {
            state.recurrent.iter().map(|&s| ops.precision.round(s)).collect()
        })?;

        ops.each_head(&mut o, |_, o| rms_norm(o, &w.norm, c.rms_norm_eps)); // [T, Hv, V]
        let gated = ops.zip(ops.flat(o), &z, |o, z| o * silu(z)); // [T, HvV]
        let gated = at.rows("linear_attn.norm", gated)?; // [T, HvV]
        Ok(at.rows("linear_attn", ops.linear(&ops.pack(&gated), &w.out_proj))?) // [T, D]
    }

    fn attention(
        &self,
        w: &Attention<Matrix>,
        h: &Rows,
        state: &mut AttentionState,
        at: &mut Points,
    ) -> Result<Rows, Error> {
        let (ops, c) = (&self.ops, self.config);
        let (heads, kv_heads, dh) = (c.num_attention_heads, c.num_key_value_heads, c.head_dim);
        let past = state.k.len() / (kv_heads * dh);
        let (tokens, h) = (h.nrows(), &ops.pack(h)); // [T, D]
        let query_gate = at.rows("self_attn.q_proj", ops.linear(h, &w.q_proj))?; // [T, H·2·Dh]
        let k = at.rows("self_attn.k_proj", ops.linear(h, &w.k_proj))?; // [T, Hkv·Dh]
        let v = at.rows("self_attn.v_proj", ops.linear(h, &w.v_proj))?; // [T, Hkv·Dh]

        let query_gate = ops.heads(&query_gate, 0..heads * 2 * dh, heads); // [T, H, query Dh | gate Dh]
        let (q, gate) = query_gate.view().split_at(Axis(2), dh); // [T, H, Dh] each
        let mut q = q.as_standard_layout().into_owned(); // [T, H, Dh]
        let gate = ops.flat(gate.as_standard_layout().into_owned()); // [T, H·Dh]
        let mut k = ops.heads(&k, 0..kv_heads * dh, kv_heads); // [T, Hkv, Dh]
        ops.each_head(&mut q, |_, q| rms_norm(q, &w.q_norm, c.rms_norm_eps)); // [T, H, Dh]
        ops.each_head(&mut k, |_, k| rms_norm(k, &w.k_norm, c.rms_norm_eps)); // [T, Hkv, Dh]
        let mut q = at.rows("self_attn.q_norm", ops.round(q))?; // [T, H, Dh]
        let mut k = at.rows("self_attn.k_norm", ops.round(k))?; // [T, Hkv, Dh]
        let rotation = |p| Rotation::new(p, c.rotary_dim, c.rope_theta);
        let rotations: Vec<Rotation> = (past..past + tokens).map(rotation).collect(); // [T]
        ops.each_head(&mut q, |t, q| rotations[t].apply(q)); // [T, H, Dh]
        ops.each_head(&mut k, |t, k| rotations[t].apply(k)); // [T, Hkv, Dh]
        let q = at.rows("self_attn.q_rope", ops.round(q))?; // [T, H, Dh]
        let k = at.rows("self_attn.k_rope", ops.round(k))?; // [T, Hkv, Dh]

        state.k.extend(k.iter()); // [past + T, Hkv, Dh]
        state.v.extend(v.iter()); // [past + T, Hkv, Dh]
        let out = ops.round(attention(q.view(), &state.k, &state.v, kv_heads, past, ops.kernels)); // [T, H, Dh]
        let out = at.rows("self_attn.attn_out", ops.flat(out))?; // [T, H·Dh]
        let gated = ops.zip(out, &gate, |out, gate| out * sigmoid(gate)); // [T, H·Dh]
        let gated = at.rows("self_attn.gated", gated)?; // [T, H·Dh]
        Ok(at.rows("self_attn", ops.linear(&ops.pack(&gated), &w.o_proj))?) // [T, D]
    }

    /// `down(silu(gate(h)) · up(h))`: `[T, D] → [T, D]`.
    fn mlp(&self, w: &SwiGlu<Matrix>, h: &Rows, at: &mut Points) -> Result<Rows, Error> {
        let h = &self.ops.pack(h); // [T, D]
        let gate = at.rows("mlp.gate_proj", self.ops.linear(h, &w.gate_proj))?; // [T, F]
        let up = at.rows("mlp.up_proj", self.ops.linear(h, &w.up_proj))?; // [T, F]
        let inner = self.ops.zip(gate, &up, |gate, up| silu(gate) * up); // [T, F]
        Ok(self.ops.linear(&self.ops.pack(&inner), &w.down_proj)) // [T, D]
    }

    fn moe(&self, w: &Moe<Matrix>, h: &Rows, at: &mut Points) -> Result<Rows, Error> {
        let expert = |w, h: &Rows| self.mlp(w, h, &mut Points::new(&mut NoTap, "")); // [·, D] → [·, D]
        let logits = at.rows("mlp.gate", self.ops.linear(&self.ops.pack(h), &w.gate))?; // [T, E]
        let routing = Routing::new(&logits, self.config, self.ops.precision); // k experts a token
        at.indices("mlp.topk_index", &routing.index)?; // [T, k]
        at.record_rows("mlp.topk_weight", &routing.weight)?; // [T, k]
        let mut routed = Rows::zeros(h.raw_dim()); // [T, D]
        for (e, visits) in routing.visits() {
            let tokens: Vec<usize> = visits.iter().map(|visit| visit.token).collect();
            let y = expert(&w.experts[e], &h.select(Axis(0), &tokens))?; // [visits, D]
            for (visit, y) in visits.iter().zip(y.outer_iter()) {
                routed.row_mut(visit.token).scaled_add(visit.weight, &y); // [D]
            }
        }
        let routed = at.rows("mlp.experts", self.ops.round(routed))?; // [T, D]
        let shared = at.rows("mlp.shared_expert", expert(&w.shared_expert, h)?)?; // [T, D]
        let gate = self.ops.dot_rows(h, &w.shared_expert_gate); // [T]
        Ok(self.ops.zip_rows(&routed, &shared, |t, routed, shared| routed + sigmoid(gate[t]) * shared)) // [T, D]
    }
}
