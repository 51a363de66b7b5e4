//! The engines behind one door: the same text in, the same kind of logits out.

use std::io::{Read, Write};

use model::{Checkpoint, NonFinitePolicy};
use reference::{Logits, Precision};
use trace::{NoTap, Tap};

use crate::{Error, Progress, Split};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The exact pass that the others are judged by.
    Reference,
}

impl Engine {
    /// Both.
    pub const ALL: [Engine; 1] = [Engine::Reference];

    /// As `--engine` and state files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Reference => "reference",
        }
    }

    /// The engine of that name.
    pub fn from_name(name: &str) -> Option<Engine> {
        Engine::ALL.into_iter().find(|engine| engine.name() == name)
    }
}

/// A model ready to run in one of the engines.
pub struct Loaded<'w> {
    model: Model<'w>,
    pool: rayon::ThreadPool,
    vocab_size: usize,
}

enum Model<'w> {
    Reference(reference::Model<'w>),
}

/// What a text has left behind in an engine. Cloning it forks the text.
#[derive(Clone)]
pub(crate) enum State {
    Reference(reference::State),
}

impl<'w> Loaded<'w> {
    /// Prepares `checkpoint` to run. Weights stay where they lie in the file and are not read for NaN: whoever
    /// generates looks at the logits.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn new(checkpoint: &'w Checkpoint, engine: Engine, threads: usize) -> Result<Loaded<'w>, Error> {
        let pool = pool(threads)?;
        let config = checkpoint.config();
        let weights = checkpoint.weights(NonFinitePolicy::Allow)?;
        let model = match engine {
            Engine::Reference => Model::Reference(reference::Model::new(config, weights, Precision::F32)),
        };
        Ok(Loaded { model, pool, vocab_size: config.vocab_size })
    }

    /// Which engine it is.
    pub fn engine(&self) -> Engine {
        match self.model {
            Model::Reference(_) => Engine::Reference,
        }
    }

    /// Rows of the embedding.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(crate) fn start(&self) -> State {
        match &self.model {
            Model::Reference(model) => State::Reference(reference::State::new(model.config())),
        }
    }

    /// Runs `tokens` after all that `state` has seen; the last token's logits, `[vocab]`.
    pub(crate) fn forward(&self, tokens: &[u32], state: &mut State) -> Result<Vec<f64>, Error> {
        let tap: &mut (dyn Tap + Send) = &mut NoTap;
        match (&self.model, state) {
            (Model::Reference(model), State::Reference(state)) => {
                Ok(self.pool.install(|| model.forward(tokens, state, Logits::Last, tap))?.to_vec())
            }
        }
    }

    /// The same in bounded calls, saying how far it is.
    pub(crate) fn prefill(
        &self,
        tokens: &[u32],
        state: &mut State,
        progress: &dyn Progress,
    ) -> Result<Vec<f64>, Error> {
        progress.begin("reading the prompt", tokens.len() as u64);
        let mut logits = Vec::new();
        for call in Split::Bounded.calls(tokens.len())? {
            let end = call.end;
            logits = self.forward(&tokens[call], state)?;
            progress.reached(end as u64);
        }
        Ok(logits)
    }

    pub(crate) fn restore(&self, from: &mut impl Read) -> Result<State, Error> {
        Ok(match &self.model {
            Model::Reference(model) => State::Reference(reference::State::restore(from, model.config())?),
        })
    }
}

impl State {
    pub(crate) fn position(&self) -> usize {
        match self {
            State::Reference(state) => state.position(),
        }
    }

    pub(crate) fn save(&self, to: &mut impl Write) -> std::io::Result<()> {
        match self {
            State::Reference(state) => state.save(to),
        }
    }
}

/// As many threads as asked for.
pub(crate) fn pool(threads: usize) -> Result<rayon::ThreadPool, Error> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::Threads { threads, why: e.to_string() })
}

/// As many as the processor has, if not said.
pub fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}
