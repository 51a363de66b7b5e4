//! Gated softmax attention over the cache.

use std::cell::RefCell;

use crate::error::Error;
use crate::forward::{Model, Rows};
use crate::kernels::plain::Cache;
use crate::linear::Product;
use crate::points::{Points, slice, slice_mut};
use crate::prepared::PreparedAttention;
use crate::rope::Rotation;
use crate::state::{AttentionState, Cached};

thread_local! {
    /// Scores, kept from head to head.
    static WEIGHTS: RefCell<Vec<f32>> = RefCell::default();
}

impl Model<'_> {
    pub(crate) fn attention(
        &self,
        p: &PreparedAttention,
        h: Rows,
        state: &mut AttentionState,
        at: &mut Points,
    ) -> Result<Rows, Error> {
        let (c, w, tokens) = (self.config, &p.w, h.nrows());
        let (heads, kv_heads, dh) = (c.num_attention_heads, c.num_key_value_heads, c.head_dim);
        let past = state.k.len() / (kv_heads * dh);
        let rows = |width| self.buffers.rows(tokens, width);
        let (mut query_gate, mut k, mut v) = (rows(heads * 2 * dh), rows(kv_heads * dh), rows(kv_heads * dh));
        let x = self.input(&h, &w.q_proj);
        self.products(vec![
            Product { w: &w.q_proj, x: &x, y: &mut query_gate }, // [T, H·2·Dh]: per head, query then gate
            Product { w: &w.k_proj, x: &x, y: &mut k },          // [T, Hkv·Dh]
            Product { w: &w.v_proj, x: &x, y: &mut v },          // [T, Hkv·Dh]
        ]);
        drop(x);
        self.buffers.recycle(h);
        at.rows("self_attn.q_proj", &query_gate)?;
        at.rows("self_attn.k_proj", &k)?;
        at.rows("self_attn.v_proj", &v)?;

        let (mut q, mut key) = (rows(heads * dh), rows(kv_heads * dh)); // [T, H·Dh], [T, Hkv·Dh]
        self.norm_heads(&query_gate, 2 * dh, &p.q_norm, &mut q);
        self.norm_heads(&k, dh, &p.k_norm, &mut key);
        at.shaped("self_attn.q_norm", &q, &[tokens, heads, dh])?;
        at.shaped("self_attn.k_norm", &key, &[tokens, kv_heads, dh])?;
        let rotations: Vec<Rotation> = (past..past + tokens).map(|p| self.rope.at(p)).collect(); // [T]
        for rows in [&mut q, &mut key] {
            self.each_row(rows, |t, row| {
                row.chunks_exact_mut(dh).for_each(|head| rotations[t].apply(head));
            });
        }
        at.shaped("self_attn.q_rope", &q, &[tokens, heads, dh])?;
        at.shaped("self_attn.k_rope", &key, &[tokens, kv_heads, dh])?;
        state.extend(slice(&key), slice(&v), kv_heads * dh); // [past + T, Hkv·Dh]

        let mut out = rows(heads * dh); // [T, H·Dh]
        self.attend(&q, state, past, &mut out);
        at.rows("self_attn.attn_out", &out)?;
        let mut gated = rows(heads * dh); // [T, H·Dh]
        self.each_row(&mut gated, |t, row| {
            for (head, y) in row.chunks_exact_mut(dh).enumerate() {
                let at = t * heads + head;
                let gate = &slice(&query_gate)[(2 * at + 1) * dh..][..dh];
                (self.table.sigmoid_product)(&slice(&out)[at * dh..][..dh], gate, y);
            }
        });
        at.rows("self_attn.gated", &gated)?;
        let y = self.linear(&self.input(&gated, &w.o_proj), &w.o_proj); // [T, D]
        at.rows("self_attn", &y)?;
        [query_gate, k, v, q, key, out, gated].into_iter().for_each(|rows| self.buffers.recycle(rows));
        Ok(y)
    }

    /// RMSNorm of every head; heads of `x` are `stride` apart.
    fn norm_heads(&self, x: &Rows, stride: usize, gain: &[f32], y: &mut Rows) {
        let (width, eps) = (x.ncols(), self.config.rms_norm_eps);
        let dh = gain.len();
        self.each_row(y, |t, row| {
            for (y, x) in row.chunks_exact_mut(dh).zip(slice(x)[t * width..].chunks_exact(stride)) {
                (self.table.rms_norm)(&x[..dh], gain, eps, y);
            }
        });
    }

    /// Each query over positions up to its own. Query head `h` reads key head `h / (H/Hkv)`; those that share one go
    /// together.
    fn attend(&self, q: &Rows, state: &AttentionState, past: usize, out: &mut Rows) {
        let c = self.config;
        let (dh, kv_heads) = (c.head_dim, c.num_key_value_heads);
        let group = c.num_attention_heads / kv_heads * dh;
        let scale = (1.0 / (dh as f64).sqrt()) as f32;
        let mut groups: Vec<_> = slice_mut(out).chunks_exact_mut(group).enumerate().collect();
        self.team.each(&mut groups, |(i, out)| {
            let (t, kv_head) = (*i / kv_heads, *i % kv_heads);
            let (stride, first) = (kv_heads * dh, kv_head * dh);
            let (queries, positions) = (&slice(q)[*i * group..][..group], past + t + 1);
            WEIGHTS.with_borrow_mut(|weights| match (&state.k, &state.v) {
                (Cached::F32(k), Cached::F32(v)) => {
                    let cache = Cache { k: &k[..], v: &v[..], stride, first };
                    (self.table.attend)(queries, dh, dh, &cache, positions, scale, weights, out);
                }
                (Cached::F16(k), Cached::F16(v)) => {
                    let cache = Cache { k: &k[..], v: &v[..], stride, first };
                    (self.table.attend_f16)(queries, dh, dh, &cache, positions, scale, weights, out);
                }
                _ => unreachable!("a state's caches are of one kind"),
            });
        });
    }
}
