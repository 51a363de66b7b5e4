//! Gated softmax attention over the cache.

use std::cell::RefCell;

use crate::error::Error;
use crate::forward::{Model, Rows};
use crate::kernels::attention::{Cache, Queries, Room};
use crate::linear::Product;
use crate::points::{Points, slice, slice_mut};
use crate::prepared::PreparedAttention;
use crate::rope::Rotation;
use crate::state::{AttentionState, Cached};

thread_local! {
    /// Working space, kept from tile to tile.
    static ROOM: RefCell<Room> = RefCell::default();
}

/// Query heads of all tokens that go over the cache together: many enough that its blocks are loaded seldom, and few
/// enough that they stay in the second-level cache beside one, 3.3 KiB each where heads are 256 wide.
const ROWS: usize = 96;

/// Tiles for each thread at least, if there are so many tokens: later ones see more positions.
const TILES: usize = 4;

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

    /// Each query over positions up to its own. Query head `h` reads key head `h / (H/Hkv)`; those of some tokens that
    /// share one go together, and it changes no bit how many.
    fn attend(&self, q: &Rows, state: &AttentionState, past: usize, out: &mut Rows) {
        let c = self.config;
        let (head_dim, kv_heads, tokens) = (c.head_dim, c.num_key_value_heads, q.nrows());
        let heads = c.num_attention_heads / kv_heads;
        let (group, stride) = (heads * head_dim, c.num_attention_heads * head_dim);
        let scale = (1.0 / (head_dim as f64).sqrt()) as f32;
        let tiles = (tokens * heads).div_ceil(ROWS).max((TILES * self.team.threads()).div_ceil(kv_heads));
        let tile = tokens.div_ceil(tiles);
        // Rows of a tile's output: `[tokens / tile, Hkv, tile]` of `[group]`.
        let mut parts: Vec<Vec<&mut [f32]>> = Vec::new();
        parts.resize_with(tokens.div_ceil(tile) * kv_heads, || Vec::with_capacity(tile));
        for (i, out) in slice_mut(out).chunks_exact_mut(group).enumerate() {
            let (t, kv_head) = (i / kv_heads, i % kv_heads);
            parts[t / tile * kv_heads + kv_head].push(out);
        }
        let mut parts: Vec<_> = parts.into_iter().enumerate().collect();
        self.team.each(&mut parts, |(i, out)| {
            let (t, kv_head) = (*i / kv_heads * tile, *i % kv_heads);
            let q = &slice(q)[t * stride + kv_head * group..];
            let queries = Queries { q, stride, head_dim, positions: past + t + 1, scale };
            let (stride, first) = (kv_heads * head_dim, kv_head * head_dim);
            ROOM.with_borrow_mut(|room| match (&state.k, &state.v) {
                (Cached::F32(k), Cached::F32(v)) => {
                    (self.table.attend)(&queries, &Cache { k: &k[..], v: &v[..], stride, first }, room, out);
                }
                (Cached::F16(k), Cached::F16(v)) => {
                    (self.table.attend_f16)(
                        &queries,
                        &Cache { k: &k[..], v: &v[..], stride, first },
                        room,
                        out,
                    );
                }
                _ => unreachable!("a state's caches are of one kind"),
            });
        });
    }
}
