//! Gated DeltaNet.

use trace::Extent;

use crate::error::Error;
use crate::forward::{Model, Rows};
use crate::kernels::plain::DeltaHead;
use crate::linear::Product;
use crate::points::{Points, slice, slice_mut};
use crate::prepared::PreparedDeltaNet;
use crate::state::DeltaState;

/// Channels of the convolution that one thread does at a time.
const CHANNELS: usize = 2048;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// `ln(1 + e^x)`, without overflow and without cancellation.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

impl Model<'_> {
    pub(crate) fn delta_net(
        &self,
        p: &PreparedDeltaNet,
        h: Rows,
        state: &mut DeltaState,
        at: &mut Points,
    ) -> Result<Rows, Error> {
        let (c, w, tokens) = (self.config, &p.w, h.nrows());
        let (hk, hv) = (c.linear_num_key_heads, c.linear_num_value_heads);
        let (kd, vd) = (c.linear_key_head_dim, c.linear_value_head_dim);
        let rows = |width| self.buffers.rows(tokens, width);
        let (mut qkv, mut z) = (rows(c.qkv_dim()), rows(hv * vd));
        let (mut b, mut a) = (rows(hv), rows(hv));
        let x = self.input(&h, &w.in_proj_qkv);
        self.products(vec![
            Product { w: &w.in_proj_qkv, x: &x, y: &mut qkv }, // [T, 2HkK+HvV]
            Product { w: &w.in_proj_z, x: &x, y: &mut z },     // [T, HvV]
            Product { w: &w.in_proj_b, x: &x, y: &mut b },     // [T, Hv]
            Product { w: &w.in_proj_a, x: &x, y: &mut a },     // [T, Hv]
        ]);
        drop(x);
        self.buffers.recycle(h);
        at.rows("linear_attn.in_proj_qkv", &qkv)?;
        at.rows("linear_attn.in_proj_z", &z)?;
        at.rows("linear_attn.in_proj_b", &b)?;
        at.rows("linear_attn.in_proj_a", &a)?;

        let mut mixed = rows(c.qkv_dim()); // [T, 2HkK+HvV]
        self.convolve(&qkv, &p.taps, &mut state.conv, &mut mixed);
        self.buffers.recycle(qkv);
        at.rows("linear_attn.conv1d", &mixed)?;
        let kept = state.conv.len() / c.qkv_dim();
        at.offer("linear_attn.conv_state", &[c.qkv_dim(), kept], Extent::State, || {
            let channel = |ch| state.conv.iter().skip(ch).step_by(c.qkv_dim()).copied();
            (0..c.qkv_dim()).flat_map(channel).collect::<Vec<_>>().into()
        })?;
        // A few numbers a token, and everything behind depends on them: f64, rounded once.
        b.mapv_inplace(|b| sigmoid(b.into()) as f32); // [T, Hv]
        at.rows("linear_attn.beta", &b)?;
        for (i, a) in slice_mut(&mut a).iter_mut().enumerate() {
            *a = (w.a[i % hv] * softplus(f64::from(*a) + w.dt_bias[i % hv])) as f32; // [T, Hv]
        }
        at.rows("linear_attn.g", &a)?;

        self.each_row(&mut mixed, |_, row| {
            for (i, head) in row[..2 * hk * kd].chunks_exact_mut(kd).enumerate() {
                (self.table.l2_norm)(head, if i < hk { 1.0 / (kd as f64).sqrt() } else { 1.0 });
            }
        });
        let mut by_head = self.buffers.rows(hv, tokens * vd); // [Hv, T·V]
        self.delta_heads(&mixed, &a, &b, &mut state.recurrent, &mut by_head);
        self.buffers.recycle(mixed);
        let head = |t: usize, v: usize| &slice(&by_head)[(v * tokens + t) * vd..][..vd];
        at.offer("linear_attn.core_attn_out", &[tokens, hv, vd], Extent::Tokens, || {
            let of_token = |t| (0..hv).flat_map(move |v| head(t, v)).copied();
            (0..tokens).flat_map(of_token).collect::<Vec<_>>().into()
        })?;
        at.offer("linear_attn.recurrent_state", &[hv, kd, vd], Extent::State, || {
            state.recurrent.iter().map(|&s| s as f32).collect::<Vec<_>>().into()
        })?;

        let mut gated = rows(hv * vd); // [T, HvV]
        self.each_row(&mut gated, |t, row| {
            for (v, y) in row.chunks_exact_mut(vd).enumerate() {
                let z = &slice(&z)[(t * hv + v) * vd..][..vd];
                (self.table.gated_norm)(head(t, v), &p.norm, c.rms_norm_eps, z, y);
            }
        });
        self.buffers.recycle(by_head);
        self.buffers.recycle(z);
        at.rows("linear_attn.norm", &gated)?;
        let y = self.linear(&self.input(&gated, &w.out_proj), &w.out_proj); // [T, D]
        at.rows("linear_attn", &y)?;
        [b, a, gated].into_iter().for_each(|rows| self.buffers.recycle(rows));
        Ok(y)
    }

    /// A depthwise causal convolution over time and silu: `[T, C] → [T, C]`. `history` holds the `taps − 1` rows before
    /// these, and then those of these.
    fn convolve(&self, x: &Rows, taps: &[f32], history: &mut Vec<f32>, y: &mut Rows) {
        let channels = x.ncols();
        let (kernel, x) = (taps.len() / channels, slice(x));
        let taps: Vec<&[f32]> = taps.chunks_exact(channels).collect();
        let before = history.len() / channels;
        let row = |i: usize| match i.checked_sub(before) {
            Some(t) => &x[t * channels..][..channels],
            None => &history[i * channels..][..channels],
        };
        let parts = slice_mut(y).chunks_exact_mut(channels).enumerate();
        let mut parts: Vec<_> = parts
            .flat_map(|(t, y)| {
                y.chunks_mut(CHANNELS).enumerate().map(move |(part, y)| (t, part * CHANNELS, y))
            })
            .collect();
        self.team.each(&mut parts, |(t, first, y)| {
            let columns = *first..*first + y.len();
            let rows: Vec<&[f32]> = (0..kernel).map(|j| &row(*t + j)[columns.clone()]).collect();
            let taps: Vec<&[f32]> = taps.iter().map(|taps| &taps[columns.clone()]).collect();
            (self.table.convolve)(&rows, &taps, y);
        });
        let tokens = x.len() / channels;
        let mut kept = Vec::with_capacity(history.len());
        (tokens..tokens + before).for_each(|i| kept.extend_from_slice(row(i)));
        *history = kept;
    }

    /// The delta rule of every value head; `mixed` holds normalised queries and keys, and values.
    fn delta_heads(&self, mixed: &Rows, g: &Rows, beta: &Rows, state: &mut [f64], out: &mut Rows) {
        let c = self.config;
        let (hk, hv) = (c.linear_num_key_heads, c.linear_num_value_heads);
        let (kd, vd) = (c.linear_key_head_dim, c.linear_value_head_dim);
        let width = out.ncols();
        let heads = state.chunks_exact_mut(kd * vd).zip(slice_mut(out).chunks_exact_mut(width));
        let mut heads: Vec<_> = heads.enumerate().collect();
        self.team.each(&mut heads, |(v, (state, out))| {
            let key_head = *v / (hv / hk);
            let decay: Vec<f64> = g.column(*v).iter().map(|&g| libm::exp(g.into())).collect();
            let beta: Vec<f64> = beta.column(*v).iter().map(|&beta| beta.into()).collect();
            let head = DeltaHead {
                mixed: slice(mixed),
                stride: mixed.ncols(),
                q: key_head * kd,
                k: (hk + key_head) * kd,
                v: 2 * hk * kd + *v * vd,
                decay: &decay,
                beta: &beta,
                key_dim: kd,
                value_dim: vd,
            };
            (self.table.delta_rule)(&head, state, out);
        });
    }
}
