//! The feed-forward part of a layer: one SwiGLU block, or routed ones.

use std::collections::BTreeMap;

use model::weights::{Moe, SwiGlu};
use model::{FeedForward, Matrix};
use ndarray::Array2;

use crate::error::Error;
use crate::forward::{Model, Rows};
use crate::linear::Product;
use crate::points::{Points, slice, slice_mut};
use crate::prepared::PreparedMlp;

/// A block and the rows that enter it, of a call of so many tokens.
struct Visit<'a> {
    w: &'a SwiGlu<Matrix<'a>>,
    x: &'a Rows,
    call: usize,
}

/// The chosen experts of every token.
struct Routing {
    /// `[T, k]`, most probable first.
    index: Array2<i64>,
    /// `[T, k]`, renormalised to sum 1.
    weight: Rows,
}

impl Model<'_> {
    pub(crate) fn ffn(&self, w: &PreparedMlp, h: Rows, at: &mut Points) -> Result<Rows, Error> {
        let y = match w {
            PreparedMlp::Dense(w) => self.mlp(w, &h, at)?,
            PreparedMlp::Moe { w, shared_expert_gate } => self.moe(w, shared_expert_gate, &h, at)?,
        };
        self.buffers.recycle(h);
        Ok(y)
    }

    /// `down(silu(gate(h)) · up(h))`: `[T, D] → [T, D]`.
    fn mlp(&self, w: &SwiGlu<Matrix>, h: &Rows, at: &mut Points) -> Result<Rows, Error> {
        let visits = [Visit { w, x: h, call: h.nrows() }];
        let inner = self.gate_and_up(&visits);
        at.rows("mlp.gate_proj", &inner[0].0)?; // [T, F]
        at.rows("mlp.up_proj", &inner[0].1)?; // [T, F]
        Ok(self.down(&visits, inner).remove(0)) // [T, D]
    }

    /// All at once, so that threads have enough to share: `[T, F]` twice of each.
    fn gate_and_up(&self, visits: &[Visit]) -> Vec<(Rows, Rows)> {
        let rows = |v: &Visit, w: &Matrix| self.buffers.rows(v.x.nrows(), w.rows());
        let mut out: Vec<_> =
            visits.iter().map(|v| (rows(v, &v.w.gate_proj), rows(v, &v.w.up_proj))).collect();
        let inputs: Vec<_> = visits.iter().map(|v| self.input_of_call(v.x, &v.w.gate_proj, v.call)).collect();
        let both = visits.iter().zip(&inputs).zip(&mut out).flat_map(|((v, x), (gate, up))| {
            [Product { w: &v.w.gate_proj, x, y: gate }, Product { w: &v.w.up_proj, x, y: up }]
        });
        self.products(both.collect());
        drop(inputs);
        out
    }

    /// What comes out of [`Model::gate_and_up`] goes down: `[T, D]` of each.
    fn down(&self, visits: &[Visit], inner: Vec<(Rows, Rows)>) -> Vec<Rows> {
        let product = |(gate, mut inner): (Rows, Rows)| {
            let width = inner.ncols();
            self.each_row(&mut inner, |t, y| {
                (self.table.silu_product)(&slice(&gate)[t * width..(t + 1) * width], y); // [T, F]
            });
            self.buffers.recycle(gate);
            inner
        };
        let inner: Vec<Rows> = inner.into_iter().map(product).collect();
        let rows = |v: &Visit| self.buffers.rows(v.x.nrows(), v.w.down_proj.rows());
        let mut out: Vec<Rows> = visits.iter().map(rows).collect();
        let inputs: Vec<_> =
            visits.iter().zip(&inner).map(|(v, x)| self.input_of_call(x, &v.w.down_proj, v.call)).collect();
        let products = visits.iter().zip(&inputs).zip(&mut out);
        self.products(products.map(|((v, x), y)| Product { w: &v.w.down_proj, x, y }).collect());
        drop(inputs);
        inner.into_iter().for_each(|rows| self.buffers.recycle(rows));
        out
    }

    fn moe(&self, w: &Moe<Matrix>, shared_gate: &[f32], h: &Rows, at: &mut Points) -> Result<Rows, Error> {
        let logits = self.linear(&self.input(h, &w.gate), &w.gate); // [T, E]
        at.rows("mlp.gate", &logits)?;
        let routing = self.route(&logits);
        at.indices("mlp.topk_index", routing.index.view())?; // [T, k]
        at.rows("mlp.topk_weight", &routing.weight)?; // [T, k]

        // Experts in ascending order, so that a token's sum over its experts has one order.
        let mut tokens: BTreeMap<usize, Vec<(usize, f32)>> = BTreeMap::new();
        for (((token, _), &expert), &weight) in routing.index.indexed_iter().zip(&routing.weight) {
            tokens.entry(expert as usize).or_default().push((token, weight));
        }
        let gather = |tokens: &Vec<(usize, f32)>| {
            let mut x = self.buffers.rows(tokens.len(), h.ncols());
            for (x, (token, _)) in slice_mut(&mut x).chunks_exact_mut(h.ncols()).zip(tokens) {
                x.copy_from_slice(&slice(h)[token * h.ncols()..][..h.ncols()]);
            }
            x
        };
        let gathered: Vec<Rows> = tokens.values().map(gather).collect();
        let mut visits: Vec<Visit> = tokens
            .keys()
            .zip(&gathered)
            .map(|(&e, x)| Visit { w: &w.experts[e], x, call: h.nrows() })
            .collect();
        visits.push(Visit { w: &w.shared_expert, x: h, call: h.nrows() });
        let inner = self.gate_and_up(&visits);
        let mut outputs = self.down(&visits, inner);
        gathered.into_iter().for_each(|rows| self.buffers.recycle(rows));
        let shared = outputs.pop().expect("the shared expert came last"); // [T, D]

        let mut y = self.buffers.rows(h.nrows(), h.ncols()); // [T, D]
        y.fill(0.0);
        let width = y.ncols();
        for (tokens, output) in tokens.values().zip(outputs) {
            for (row, (token, weight)) in slice(&output).chunks_exact(width).zip(tokens) {
                (self.table.add_scaled)(&mut slice_mut(&mut y)[token * width..][..width], *weight, row);
            }
            self.buffers.recycle(output);
        }
        at.rows("mlp.experts", &y)?;
        at.rows("mlp.shared_expert", &shared)?;
        self.each_row(&mut y, |t, y| {
            let row = t * width..(t + 1) * width;
            let gate = f64::from((self.table.dot)(&slice(h)[row.clone()], shared_gate));
            let gate = 1.0 / (1.0 + libm::exp(-gate));
            (self.table.add_scaled)(y, gate as f32, &slice(&shared)[row]);
        });
        self.buffers.recycle(shared);
        Ok(y)
    }

    /// Softmax over all router logits `[T, E]`, the k largest, renormalised. Of equal probabilities the expert of the
    /// lower number comes first.
    fn route(&self, logits: &Rows) -> Routing {
        let chosen = match self.config.feed_forward {
            FeedForward::Moe { num_experts_per_tok, .. } => num_experts_per_tok,
            FeedForward::Dense { .. } => 0,
        };
        let mut index = Array2::zeros((logits.nrows(), chosen));
        let mut weight = Array2::zeros((logits.nrows(), chosen));
        for (t, logits) in logits.outer_iter().enumerate() {
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            // Softmax, of which the sum over all experts cancels out.
            let odds = |e: usize| libm::exp(f64::from(logits[e]) - f64::from(logits[order[0]]));
            let sum: f64 = order[..chosen].iter().map(|&e| odds(e)).sum();
            for (j, &e) in order[..chosen].iter().enumerate() {
                index[[t, j]] = e as i64;
                weight[[t, j]] = (odds(e) / sum) as f32;
            }
        }
        Routing { index, weight }
    }
}
