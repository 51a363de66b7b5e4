//! Runs an engine over a text.

use std::ops::Range;

use model::{Checkpoint, Config, NonFinitePolicy};
use reference::{Activations, Kernels, Logits, Model, Precision, State};
use trace::{Tap, TapError, View};

use crate::{Engine, Error, Progress, Silent, Split, engine};

/// How a pass is run. Only the precision and the activations change the result; the rest changes no bit of it.
#[derive(Clone)]
pub struct Run<'a> {
    /// What computes.
    pub engine: Engine,
    /// To what activations are rounded.
    pub precision: Precision,
    /// What inner products make of activations: which of the two oracles it is.
    pub activations: Activations,
    /// Instruction set of the inner products.
    pub kernels: Kernels,
    /// Threads; as many as the processor has if not said.
    pub threads: Option<usize>,
    /// Over how many calls.
    pub split: Split,
    /// Of which tokens a tap that wants `lm_head` gets logits.
    pub logits: Logits,
    /// What to do about NaN and infinities among the weights.
    pub non_finite: NonFinitePolicy,
    /// Hears how far it is.
    pub progress: &'a dyn Progress,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Run {
            engine: Engine::Reference,
            precision: Precision::F32,
            activations: Activations::F32,
            kernels: Kernels::detect(),
            threads: None,
            split: Split::Bounded,
            logits: Logits::All,
            non_finite: NonFinitePolicy::Refuse,
            progress: &Silent,
        }
    }
}

impl Run<'_> {
    /// The threads it will use.
    pub fn threads(&self) -> usize {
        engine::threads(self.threads)
    }
}

/// Runs `tokens` from an empty state and returns the last token's logits, `[vocab]`.
///
/// # Errors
/// No tokens, a token outside the vocabulary, a split that does not cover the text, weights that are not finite, or a
/// tap that fails.
pub fn run(
    checkpoint: &Checkpoint,
    tokens: &[u32],
    how: &Run<'_>,
    tap: &mut (dyn Tap + Send),
) -> Result<Vec<f64>, Error> {
    let config = checkpoint.config();
    check(tokens, config)?;
    let calls = how.split.calls(tokens.len())?;
    if how.engine == Engine::Fast {
        if how.activations != Activations::F32 {
            return Err(Error::FastActivations);
        }
        return run_fast(checkpoint, tokens, how, calls, tap);
    }
    engine::pool(how.threads())?.install(|| {
        how.progress.begin("reading weights", 0);
        let weights = checkpoint.weights(how.non_finite)?;
        let model = Model::new(config, weights, how.precision);
        let model = model.with_kernels(how.kernels).with_activations(how.activations)?;
        let mut state = State::new(config);
        let layers = config.num_hidden_layers as u64;
        how.progress.begin("running", layers * calls.len() as u64);
        let mut logits = Vec::new();
        for (n, call) in calls.iter().enumerate() {
            let mut tap = Watched { tap: &mut *tap, before: n as u64 * layers, progress: how.progress };
            logits = model.forward(&tokens[call.clone()], &mut state, how.logits, &mut tap)?.to_vec();
        }
        Ok(logits)
    })
}

/// The same with the fast engine, which has threads of its own.
fn run_fast(
    checkpoint: &Checkpoint,
    tokens: &[u32],
    how: &Run<'_>,
    calls: Vec<Range<usize>>,
    tap: &mut (dyn Tap + Send),
) -> Result<Vec<f64>, Error> {
    let config = checkpoint.config();
    how.progress.begin("reading weights", 0);
    let weights = checkpoint.weights(how.non_finite)?;
    let options = fast::Options { threads: Some(how.threads()), ..fast::Options::default() };
    let model = fast::Model::new(config, weights, options);
    let mut state = fast::State::new(config);
    let layers = config.num_hidden_layers as u64;
    how.progress.begin("running", layers * calls.len() as u64);
    let wanted = match how.logits {
        Logits::All => fast::Logits::All,
        Logits::Last => fast::Logits::Last,
    };
    let mut logits = Vec::new();
    for (n, call) in calls.into_iter().enumerate() {
        let mut tap = Watched { tap: &mut *tap, before: n as u64 * layers, progress: how.progress };
        logits = model.forward(&tokens[call], &mut state, wanted, &mut tap)?;
    }
    Ok(logits.into_iter().map(f64::from).collect())
}

/// All of the tokens before any work: a call of its own would count positions from its start.
pub(crate) fn check(tokens: &[u32], config: &Config) -> Result<(), Error> {
    if tokens.is_empty() {
        return Err(reference::Error::Empty.into());
    }
    if let Some(position) = tokens.iter().position(|&token| token as usize >= config.vocab_size) {
        let (token, vocab_size) = (tokens[position], config.vocab_size);
        return Err(reference::Error::Token { position, token, vocab_size }.into());
    }
    Ok(())
}

/// The tap of one call, which tells how far the call is.
pub(crate) struct Watched<'a> {
    pub(crate) tap: &'a mut (dyn Tap + Send),
    /// Layers run by the calls before.
    pub(crate) before: u64,
    pub(crate) progress: &'a dyn Progress,
}

impl Tap for Watched<'_> {
    fn wants(&self, name: &str) -> bool {
        // A pass asks for every point in order, so a layer's output being asked for says that the layer is done.
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.parse::<u64>().ok());
        if let Some(layer) = layer {
            self.progress.reached(self.before + layer + 1);
        }
        self.tap.wants(name)
    }

    fn record(&mut self, name: &str, view: View<'_>) -> Result<(), TapError> {
        self.tap.record(name, view)
    }
}
