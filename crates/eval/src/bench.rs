//! How fast an engine is, and of which limit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::weights::{Mlp, SwiGlu};
use model::{Checkpoint, FeedForward, Matrix, NonFinitePolicy, Weights};
use serde::Serialize;
use trace::{Tap, TapError, View, point};

use crate::growth::growth;
use crate::memory::{bytes_per_second, peak_during};
use crate::{Engine, Error, Growth, Kv, Loaded, Progress, any_tokens, ready};

/// What to measure.
pub struct Bench<'a> {
    /// What computes.
    pub engine: Engine,
    /// Tokens of the prompt; 0 for none.
    pub prefill: usize,
    /// Tokens after it, one at a time; 0 for none.
    pub decode: usize,
    /// Tokens that are in the state before either is measured.
    pub depth: usize,
    /// How often each is measured: the best counts.
    pub repeat: usize,
    /// Threads.
    pub threads: usize,
    /// How caches of keys and values are held; as the engine computes them if not said.
    pub kv: Option<Kv>,
    /// Lengths of a text to measure at, ascending by more than `decode`.
    pub contexts: Vec<usize>,
    /// Hears how far it is.
    pub progress: &'a dyn Progress,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Benched {
    /// The model.
    pub model: String,
    /// What computed.
    pub engine: Engine,
    /// Threads of it.
    pub threads: usize,
    /// Tokens that were in the state before.
    pub depth: usize,
    /// Bytes of weights that a token reads: every matrix once, of an embedding a row, of experts the chosen ones.
    pub weight_bytes: u64,
    /// Bytes a second that these threads read from memory in order, nothing else done.
    pub memory_bytes_per_second: f64,
    /// How keys and values are kept.
    pub kv: &'static str,
    /// How long it takes to begin.
    pub load: Load,
    /// Tokens at once.
    pub prefill: Option<Phase>,
    /// One token at a time.
    pub decode: Option<Phase>,
    /// At each of the lengths that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub growth: Vec<Growth>,
}

/// From nothing to the first token's logits, the file in memory already.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// All of it.
    pub seconds: f64,
    /// Opening and checking the file.
    pub open_seconds: f64,
    /// Weights and tokenizer, at the same time. Without the latter if the checkpoint has none.
    pub ready_seconds: f64,
    /// One token through the model.
    pub first_token_seconds: f64,
}

/// One way of running.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// How many tokens.
    pub tokens: usize,
    /// Of the best of all repetitions.
    pub seconds: f64,
    /// Of the same.
    pub tokens_per_second: f64,
    /// Bytes of weights a second, for one token at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_bytes_per_second: Option<f64>,
    /// That over what memory gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_memory: Option<f64>,
    /// The most anonymous memory of this process in that run, where the system says.
    pub peak_anonymous_bytes: Option<u64>,
    /// Share of time until each point was reached from the one before, the largest first: of a run of its own.
    pub shares: Vec<Share>,
}

/// Part of a pass.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// The point that it ends in, of all layers.
    pub point: String,
    /// Of the whole, from 0 to 1.
    pub share: f64,
    /// Seconds.
    pub seconds: f64,
}

/// Measures.
///
/// # Errors
/// Whatever the engine refuses.
pub fn bench(checkpoint: &Checkpoint, what: &Bench<'_>) -> Result<Benched, Error> {
    let config = checkpoint.config();
    let weights = checkpoint.weights(NonFinitePolicy::Allow)?;
    let weight_bytes = bytes_of_a_token(&weights, &config.feed_forward);
    drop(weights);
    let most = what.depth + what.prefill.max(1) + what.decode;
    let (few, mut last) = (what.decode.max(1), 0);
    for &context in &what.contexts {
        if context <= last {
            return Err(Error::Contexts { contexts: what.contexts.clone(), decode: few });
        }
        last = context + few;
    }
    let tokens = any_tokens(most.max(last), config.vocab_size);
    let (past, rest) = tokens[..most].split_at(what.depth);
    // Once to warm the file up, once to see how long it takes.
    load(checkpoint, what, rest[0])?;
    let load = load(checkpoint, what, rest[0])?;
    let loaded = Loaded::new(checkpoint, what.engine, what.threads)?.with_kv(what.kv)?;
    let mut before = loaded.start();
    if !past.is_empty() {
        loaded.prefill(past, &mut before, what.progress)?;
    }
    let (prompt, after) = rest.split_at(rest.len() - what.decode);
    let rounds = what.repeat * (what.prefill + what.decode);
    what.progress.begin("measuring", rounds as u64);
    let mut done = 0;
    // The best of some runs without a listener, then one that a clock listens to.
    let mut phase = |tokens: &[u32], size: usize| -> Result<Phase, Error> {
        // Without tokens before, nothing is held besides the state that runs.
        let begin = || if past.is_empty() { loaded.start() } else { before.clone() };
        let mut best = f64::INFINITY;
        for _ in 0..what.repeat.max(1) {
            let mut state = begin();
            let start = Instant::now();
            for call in tokens.chunks(size) {
                loaded.forward(call, &mut state)?;
            }
            best = best.min(start.elapsed().as_secs_f64());
            done += tokens.len();
            what.progress.reached(done as u64);
        }
        let (mut state, mut clock) = (begin(), Clock::new());
        let (heard, peak) = peak_during(|| -> Result<(), Error> {
            for call in tokens.chunks(size) {
                clock.last.set(Instant::now());
                loaded.forward_tapped(call, &mut state, &mut clock)?;
            }
            Ok(())
        });
        heard?;
        let rate = tokens.len() as f64 / best;
        let weights = (size == 1).then_some(rate * weight_bytes as f64);
        Ok(Phase {
            tokens: tokens.len(),
            seconds: best,
            tokens_per_second: rate,
            weight_bytes_per_second: weights,
            of_memory: None,
            peak_anonymous_bytes: peak,
            shares: clock.shares(),
        })
    };
    let prefill = if what.prefill > 0 { Some(phase(prompt, prompt.len())?) } else { None };
    let mut decode = if what.decode > 0 { Some(phase(after, 1)?) } else { None };
    drop(before);
    let growth = growth(&loaded, &tokens, &what.contexts, few, what.progress)?;
    // Last, so that what it reads is in nobody's memory.
    what.progress.begin("measuring memory", 0);
    let memory = bytes_per_second(what.threads);
    if let Some(decode) = &mut decode {
        decode.of_memory = decode.weight_bytes_per_second.map(|weights| weights / memory);
    }
    Ok(Benched {
        model: checkpoint.path().display().to_string(),
        engine: what.engine,
        threads: what.threads,
        depth: what.depth,
        weight_bytes,
        memory_bytes_per_second: memory,
        kv: loaded.kv().name(),
        load,
        prefill,
        decode,
        growth,
    })
}

/// Begins anew, as a program that has just been started does.
fn load(checkpoint: &Checkpoint, what: &Bench<'_>, token: u32) -> Result<Load, Error> {
    let start = Instant::now();
    let again = Checkpoint::open(checkpoint.path(), &format::Limits::default())?;
    let open = start.elapsed();
    let loaded = match ready(&again, what.engine, what.threads) {
        Ok((loaded, _)) => loaded,
        // No tokenizer is needed to measure; anything else that is wrong is wrong again.
        Err(_) => Loaded::new(&again, what.engine, what.threads)?,
    };
    let ready = start.elapsed();
    loaded.forward(&[token], &mut loaded.start())?;
    let seconds = start.elapsed();
    Ok(Load {
        seconds: seconds.as_secs_f64(),
        open_seconds: open.as_secs_f64(),
        ready_seconds: (ready - open).as_secs_f64(),
        first_token_seconds: (seconds - ready).as_secs_f64(),
    })
}

/// A tap that wants nothing and looks at the clock when it is asked: a pass asks in order, when a point is there.
struct Clock {
    last: std::cell::Cell<Instant>,
    spent: std::cell::RefCell<BTreeMap<&'static str, Duration>>,
}

impl Clock {
    fn new() -> Clock {
        Clock { last: Instant::now().into(), spent: Default::default() }
    }

    fn shares(self) -> Vec<Share> {
        let spent = self.spent.into_inner();
        let total: Duration = spent.values().sum();
        let share = |(point, time): (&str, Duration)| Share {
            point: point.to_owned(),
            share: time.as_secs_f64() / total.as_secs_f64(),
            seconds: time.as_secs_f64(),
        };
        let mut shares: Vec<Share> = spent.into_iter().map(share).collect();
        shares.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then(a.point.cmp(&b.point)));
        shares
    }
}

impl Tap for Clock {
    fn wants(&self, name: &str) -> bool {
        let now = Instant::now();
        let point = match point::parse(name) {
            Some((Some(_), kind)) if kind.suffix.is_empty() => "layer output",
            Some((_, kind)) => kind.suffix,
            None => "elsewhere",
        };
        *self.spent.borrow_mut().entry(point).or_default() += now - self.last.replace(now);
        false
    }

    fn record(&mut self, _: &str, _: View<'_>) -> Result<(), TapError> {
        Ok(())
    }
}

/// Bytes of matrices that one token multiplies by.
fn bytes_of_a_token(weights: &Weights<Matrix<'_>>, feed_forward: &FeedForward) -> u64 {
    let bytes = |m: &Matrix<'_>| m.encoding().byte_len((m.rows() * m.cols()) as u64).unwrap_or(0);
    let always: u64 = weights.always_read().map(bytes).sum();
    let experts = weights.layers.iter().map(|layer| match (&layer.mlp, feed_forward) {
        (Mlp::Moe(w), FeedForward::Moe { num_experts, num_experts_per_tok, .. }) => {
            let all: u64 = w.experts.iter().flat_map(SwiGlu::matrices).map(bytes).sum();
            all / *num_experts as u64 * *num_experts_per_tok as u64
        }
        _ => 0,
    });
    always + experts.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    #[test]
    fn both_engines_are_measured_whole() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/moe-experts-f32");
        let checkpoint = Checkpoint::open(&path, &format::Limits::default()).unwrap();
        for engine in Engine::ALL {
            let contexts = vec![7, 11];
            let what = Bench {
                engine,
                prefill: 5,
                decode: 3,
                depth: 4,
                repeat: 2,
                threads: 1,
                kv: None,
                contexts,
                progress: &Silent,
            };
            let benched = bench(&checkpoint, &what).unwrap();
            let (prefill, decode) = (benched.prefill.unwrap(), benched.decode.unwrap());
            assert_eq!((prefill.tokens, decode.tokens), (5, 3));
            for phase in [&prefill, &decode] {
                let whole: f64 = phase.shares.iter().map(|s| s.share).sum();
                // Twenty roundings.
                assert!((whole - 1.0).abs() < 1e-12);
                for point in ["mlp.experts", "linear_attn.in_proj_qkv", "self_attn.attn_out", "lm_head"] {
                    assert!(phase.shares.iter().any(|s| s.point == point), "{point}");
                }
            }
            assert!(decode.of_memory.unwrap() > 0.0 && prefill.of_memory.is_none());
            let lengths: Vec<_> = benched.growth.iter().map(|g| (g.context, g.prefill_tokens)).collect();
            assert_eq!(lengths, [(7, 7), (11, 1)]);
            let state = |at: usize| benched.growth[at].state_bytes;
            // One layer of attention, its keys and values of one head of 16 numbers of four bytes, four tokens apart.
            let grown = state(1).zip(state(0)).map(|(late, early)| late - early);
            assert_eq!(grown, (engine == Engine::Fast).then_some(4 * 2 * 16 * 4));
            let refused = Bench { contexts: vec![7, 10], ..what };
            let said = bench(&checkpoint, &refused).unwrap_err().to_string();
            assert!(said.contains("more than the 3 tokens") && said.contains("[7, 10]"), "{said}");
            let none = Bench { prefill: 0, decode: 0, contexts: Vec::new(), ..refused };
            assert!(bench(&checkpoint, &none).unwrap().prefill.is_none());
        }
    }

    #[test]
    fn only_what_a_token_reads_is_counted() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/dense-text-f32");
        let checkpoint = Checkpoint::open(&path, &format::Limits::default()).unwrap();
        let weights = checkpoint.weights(NonFinitePolicy::Allow).unwrap();
        // All matrices of the file but the embedding, of 512 rows of 32 numbers of four bytes; no vectors, and the
        // convolution is none either.
        let matrices = checkpoint.source().tensors().iter().filter(|t| t.shape.dims().len() == 2);
        let bytes: u64 = matrices.map(|t| t.size).sum();
        let found = bytes_of_a_token(&weights, &checkpoint.config().feed_forward);
        assert_eq!(found, bytes - checkpoint.source().tensor("model.embed_tokens.weight").unwrap().size);
    }
}
