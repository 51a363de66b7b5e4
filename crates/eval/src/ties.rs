//! Choices that rounding may turn, and what follows from them.
//!
//! Where the reference itself prefers one expert over another by less than the noise between two correct passes, the
//! other choice is no fault, and what that token becomes is not comparable any more. Such a token's values are taken to
//! agree from there on; everything else is judged as always.

use std::collections::HashMap;

use serde::Serialize;
use trace::{Extent, Piece, Tap, TapError, Trace, ValuesRef, View, point};

use crate::tolerance::Feed;

/// A margin under so many times the root mean square error counts as a tie: the difference of two errors spreads √2
/// times as wide, so this is 4.2 of its standard deviations.
pub const NOISE: f64 = 6.0;

/// A token that the two passes send to different experts, within noise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tie {
    /// The layer.
    pub layer: usize,
    /// The token's position.
    pub token: usize,
    /// By how much the reference's router prefers its choice, a difference of logits.
    pub margin: f64,
    /// The noise of those logits.
    pub noise: f64,
}

/// A position where the two passes prefer different next tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flip {
    /// The position.
    pub position: usize,
    /// The reference's first choice.
    pub reference: usize,
    /// The other's.
    pub candidate: usize,
    /// By how much the reference prefers its own.
    pub margin: f64,
    /// Whether that is under the noise.
    pub within_noise: bool,
}

/// First choices of all positions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Top1 {
    /// How many positions were compared.
    pub positions: usize,
    /// At how many of them the first choices are the same.
    pub agree: usize,
    /// [`NOISE`] times the root mean square difference of the logits.
    pub noise: f64,
    /// The smallest margin by which the reference prefers its first choice over its second.
    pub least_margin: f64,
    /// Where they differ.
    pub flips: Vec<Flip>,
}

impl Top1 {
    /// Whether every difference is within noise, and anything was compared.
    pub fn passed(&self) -> bool {
        self.positions > 0 && self.flips.iter().all(|flip| flip.within_noise)
    }
}

/// What has been found so far along one pass.
pub(crate) struct Ties {
    feed: Feed,
    pub(crate) found: Vec<Tie>,
    /// Tokens of the calls before.
    first: usize,
    /// The candidate's router logits of the layer that is being run.
    gate: Vec<f64>,
    top1: Top1,
    squares: f64,
    logits: usize,
}

impl Ties {
    pub(crate) fn new(feed: Feed) -> Ties {
        let top1 = Top1 { least_margin: f64::INFINITY, ..Top1::default() };
        Ties { feed, found: Vec::new(), first: 0, gate: Vec::new(), top1, squares: 0.0, logits: 0 }
    }

    /// The next call begins after so many more tokens.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.first += tokens;
    }

    /// Listens to the candidate while it runs over what the reference recorded as `reference`.
    pub(crate) fn watch<'a>(&'a mut self, judge: Piece<'a>, reference: &'a Trace) -> Watch<'a> {
        Watch { ties: self, judge, reference, come: HashMap::new() }
    }

    pub(crate) fn finish(self) -> (Vec<Tie>, Top1) {
        let mut top1 = self.top1;
        top1.noise = NOISE * (self.squares / self.logits as f64).sqrt();
        for flip in &mut top1.flips {
            flip.within_noise = flip.margin <= top1.noise;
        }
        (self.found, top1)
    }

    /// Whether a token's value at a point follows from a tie. The token of a tie differs after its router; in a pass on
    /// its own so does everything above it, and, through the state, every later token there.
    fn follows(&self, layer: Option<usize>, suffix: &str, token: usize) -> bool {
        let routed = matches!(suffix, "mlp.topk_index" | "mlp.topk_weight" | "mlp.experts" | "mlp" | "");
        self.found.iter().any(|tie| match layer {
            Some(layer) if layer == tie.layer => routed && token == tie.token,
            above => {
                let above = above.is_none_or(|layer| layer > tie.layer) && suffix != "model.embed_tokens";
                self.feed == Feed::FreeRunning && above && token >= tie.token
            }
        })
    }

    fn routing(&mut self, layer: usize, reference: &Trace, view: View<'_>) {
        let name = |suffix: &str| format!("model.layers.{layer}.{suffix}");
        let read = |suffix: &str| reference.get(&name(suffix)).ok();
        let (Some(logits), Some(index)) = (read("mlp.gate"), read("mlp.topk_index")) else { return };
        let (b, theirs) = (logits.values.as_ref().to_f64(), view.values.to_f64());
        let ours = index.values.as_ref().to_f64();
        let (tokens, experts, chosen) = (view.shape[0], logits.shape[1], view.shape[1]);
        if self.gate.len() != b.len() || theirs.len() != ours.len() {
            return;
        }
        let clean: Vec<usize> =
            (0..tokens).filter(|t| !self.follows(Some(layer), "mlp.gate", self.first + t)).collect();
        let squares =
            clean.iter().flat_map(|t| t * experts..(t + 1) * experts).map(|i| (b[i] - self.gate[i]).powi(2));
        let noise = NOISE * (squares.sum::<f64>() / (clean.len() * experts) as f64).sqrt();
        for t in clean {
            let row = |x: &[f64]| x[t * chosen..(t + 1) * chosen].to_vec();
            let (ours, theirs) = (row(&ours), row(&theirs));
            let logit = |e: &f64| b.get(t * experts + *e as usize).copied().unwrap_or(f64::NAN);
            let kept = ours.iter().filter(|e| !theirs.contains(e)).map(logit).fold(f64::INFINITY, f64::min);
            let taken =
                theirs.iter().filter(|e| !ours.contains(e)).map(logit).fold(f64::NEG_INFINITY, f64::max);
            let margin = kept - taken;
            if margin.is_finite() && margin <= noise {
                self.found.push(Tie { layer, token: self.first + t, margin, noise });
            }
        }
    }

    fn choices(&mut self, reference: &Trace, view: View<'_>) {
        let Ok(logits) = reference.get("lm_head") else { return };
        let (b, a) = (logits.values.as_ref().to_f64(), view.values.to_f64());
        let vocab = view.shape[1];
        // Rows come in several records: this many of the call are there already.
        let done = self.top1.positions.saturating_sub(self.first);
        for (row, a) in a.chunks_exact(vocab).enumerate() {
            let Some(b) = b.chunks_exact(vocab).nth(done + row) else { return };
            let position = self.first + done + row;
            self.top1.positions += 1;
            if self.follows(None, "lm_head", position) {
                self.top1.agree += 1;
                continue;
            }
            let (reference, candidate) = (crate::largest(b) as usize, crate::largest(a) as usize);
            self.squares += a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
            self.logits += vocab;
            let second = b.iter().enumerate().filter(|(id, _)| *id != reference).map(|(_, x)| *x);
            let second = second.fold(f64::NEG_INFINITY, f64::max);
            self.top1.least_margin = self.top1.least_margin.min(b[reference] - second);
            if reference == candidate {
                self.top1.agree += 1;
            } else {
                let margin = b[reference] - b[candidate];
                self.top1.flips.push(Flip { position, reference, candidate, margin, within_noise: false });
            }
        }
    }
}

/// Looks for ties, and hands on what is to be judged.
pub(crate) struct Watch<'a> {
    ties: &'a mut Ties,
    judge: Piece<'a>,
    reference: &'a Trace,
    /// Tokens of a point that have come.
    come: HashMap<String, usize>,
}

impl Tap for Watch<'_> {
    fn wants(&self, name: &str) -> bool {
        let needed = ["lm_head", ".mlp.gate", ".mlp.topk_index"].iter().any(|suffix| name.ends_with(suffix));
        self.judge.wants(name) || (needed && self.reference.info(name).is_some())
    }

    fn record(&mut self, name: &str, view: View<'_>) -> Result<(), TapError> {
        let parsed = point::parse(name).map(|(layer, kind)| (layer, kind.suffix));
        match parsed {
            Some((Some(_), "mlp.gate")) => self.ties.gate = view.values.to_f64(),
            Some((Some(layer), "mlp.topk_index")) => self.ties.routing(layer, self.reference, view),
            Some((None, "lm_head")) => self.ties.choices(self.reference, view),
            _ => {}
        }
        if !self.judge.wants(name) {
            return Ok(());
        }
        let Some((layer, suffix)) = parsed.filter(|_| !self.ties.found.is_empty()) else {
            return self.judge.record(name, view);
        };
        let reference = self.reference.get(name).map_err(|e| TapError::new(name, e))?;
        let b = reference.values.as_ref().to_f64();
        let mut a = view.values.to_f64();
        let state = view.extent == Extent::State;
        let rows = if state { 1 } else { view.shape[0] };
        let row = a.len() / rows.max(1);
        let come = self.come.entry(name.to_owned()).or_default();
        for (t, a) in a.chunks_exact_mut(row.max(1)).enumerate() {
            // A state is what the last token leaves behind.
            let token = if state { usize::MAX } else { self.ties.first + *come + t };
            let same = b.chunks_exact(row.max(1)).nth(*come + t);
            if let Some(b) = same.filter(|_| self.ties.follows(layer, suffix, token)) {
                a.copy_from_slice(b);
            }
        }
        *come += rows;
        self.judge.record(name, View { values: ValuesRef::F64(&a), ..view })
    }
}
