//! The engines behind one door: the same text in, the same kind of logits out.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use fast::Kv;
use model::tokenizer::Tokenizer;
use model::{Checkpoint, Matrix, NonFinitePolicy, Weights};
use reference::{Logits, Precision};
use trace::{NoTap, Tap};

use crate::{Error, Progress};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The exact pass that the other is judged by.
    Reference,
    /// The pass on encoded weights.
    Fast,
}

impl Engine {
    /// The one that is meant where none is named.
    pub const DEFAULT: Engine = Engine::Fast;

    /// Both.
    pub const ALL: [Engine; 2] = [Engine::Reference, Engine::Fast];

    /// As `--engine` and state files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Reference => "reference",
            Engine::Fast => "fast",
        }
    }

    /// The engine of that name.
    pub fn from_name(name: &str) -> Option<Engine> {
        Engine::ALL.into_iter().find(|engine| engine.name() == name)
    }
}

/// What `ETALON_KERNELS` may name on this processor. An engine that lacks what is named takes its fastest.
pub fn kernels() -> Vec<&'static str> {
    let mut names: Vec<_> = reference::Kernels::all().into_iter().map(reference::Kernels::name).collect();
    names.extend(fast::Kernels::all().into_iter().map(fast::Kernels::name));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    names
}

/// A model ready to run in one of the engines.
pub struct Loaded<'w> {
    model: Model<'w>,
    vocab_size: usize,
    /// What was asked for, if anything was.
    kv: Option<Kv>,
}

enum Model<'w> {
    Reference(reference::Model<'w>, rayon::ThreadPool),
    Fast(fast::Model<'w>),
}

/// Tokens of a prompt that go through the layers together, at most: a multiple of what either engine takes at a time.
const PREFILL: usize = 512;

/// What a text has left behind in an engine. Cloning it forks the text.
#[derive(Clone)]
pub(crate) enum State {
    Reference(reference::State),
    Fast(fast::State),
}

impl<'w> Loaded<'w> {
    /// Prepares `checkpoint` to run. Weights stay where they lie in the file and are not read for NaN: whoever
    /// generates looks at the logits.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn new(checkpoint: &'w Checkpoint, engine: Engine, threads: usize) -> Result<Loaded<'w>, Error> {
        Loaded::of(checkpoint, checkpoint.weights(NonFinitePolicy::Allow)?, engine, threads)
    }

    fn of(
        checkpoint: &'w Checkpoint,
        weights: Weights<Matrix<'w>>,
        engine: Engine,
        threads: usize,
    ) -> Result<Loaded<'w>, Error> {
        let config = checkpoint.config();
        let model = match engine {
            Engine::Reference => {
                Model::Reference(reference::Model::new(config, weights, Precision::F32), pool(threads)?)
            }
            Engine::Fast => {
                let options = fast::Options { threads: Some(threads), ..fast::Options::default() };
                Model::Fast(fast::Model::new(config, weights, options))
            }
        };
        Ok(Loaded { model, vocab_size: config.vocab_size, kv: None })
    }

    /// The same with caches of this kind, in texts that begin now and in texts that are loaded.
    ///
    /// # Errors
    /// The reference, which keeps what it computed.
    pub fn with_kv(self, kv: Option<Kv>) -> Result<Loaded<'w>, Error> {
        match (&self.model, kv) {
            (Model::Reference(..), Some(Kv::F16)) => Err(Error::Kv { engine: self.engine() }),
            _ => Ok(Loaded { kv, ..self }),
        }
    }

    /// Which engine it is.
    pub fn engine(&self) -> Engine {
        match self.model {
            Model::Reference(..) => Engine::Reference,
            Model::Fast(_) => Engine::Fast,
        }
    }

    /// Rows of the embedding.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// How a text that begins now keeps keys and values.
    pub fn kv(&self) -> Kv {
        self.kv.unwrap_or_default()
    }

    pub(crate) fn start(&self) -> State {
        match &self.model {
            Model::Reference(model, _) => State::Reference(reference::State::new(model.config())),
            Model::Fast(model) => State::Fast(fast::State::with_kv(model.config(), self.kv())),
        }
    }

    /// Runs `tokens` after all that `state` has seen; the last token's logits, `[vocab]`.
    pub(crate) fn forward(&self, tokens: &[u32], state: &mut State) -> Result<Vec<f64>, Error> {
        self.forward_tapped(tokens, state, &mut NoTap)
    }

    /// The same with a listener.
    pub(crate) fn forward_tapped(
        &self,
        tokens: &[u32],
        state: &mut State,
        tap: &mut (dyn Tap + Send),
    ) -> Result<Vec<f64>, Error> {
        match (&self.model, state) {
            (Model::Reference(model, pool), State::Reference(state)) => {
                Ok(pool.install(|| model.forward(tokens, state, Logits::Last, tap))?.to_vec())
            }
            (Model::Fast(model), State::Fast(state)) => {
                let logits = model.forward(tokens, state, fast::Logits::Last, tap)?;
                Ok(logits.into_iter().map(f64::from).collect())
            }
            _ => unreachable!("a text's state is made by the engine that it runs in"),
        }
    }

    /// Makes room for tokens that are known to come.
    pub(crate) fn reserve(&self, state: &mut State, tokens: usize) {
        if let (Model::Fast(model), State::Fast(state)) = (&self.model, state) {
            state.reserve(model.config(), tokens);
        }
    }

    /// The same in bounded calls, saying how far it is.
    pub(crate) fn prefill(
        &self,
        tokens: &[u32],
        state: &mut State,
        progress: &dyn Progress,
    ) -> Result<Vec<f64>, Error> {
        progress.begin("reading the prompt", (state.position() + tokens.len()) as u64);
        self.reserve(state, tokens.len());
        let mut logits = Vec::new();
        for call in tokens.chunks(PREFILL) {
            logits = self.forward(call, state)?;
            progress.reached(state.position() as u64);
        }
        Ok(logits)
    }

    pub(crate) fn restore(&self, from: &mut impl Read) -> Result<State, Error> {
        Ok(match &self.model {
            Model::Reference(model, _) => State::Reference(reference::State::restore(from, model.config())?),
            Model::Fast(model) => {
                let state = fast::State::restore(from, model.config())?;
                if let Some(asked) = self.kv.filter(|&kv| kv != state.kv()) {
                    return Err(Error::OtherKv { saved: state.kv().name(), asked: asked.name() });
                }
                State::Fast(state)
            }
        })
    }
}

impl State {
    pub(crate) fn position(&self) -> usize {
        match self {
            State::Reference(state) => state.position(),
            State::Fast(state) => state.position(),
        }
    }

    /// Bytes of its numbers, where the engine says.
    pub(crate) fn bytes(&self) -> Option<usize> {
        match self {
            State::Reference(_) => None,
            State::Fast(state) => Some(state.bytes()),
        }
    }

    pub(crate) fn save(&self, to: &mut impl Write) -> std::io::Result<()> {
        match self {
            State::Reference(state) => state.save(to),
            State::Fast(state) => state.save(to),
        }
    }
}

/// A model ready to run and its tokenizer, made at the same time.
///
/// # Errors
/// Those of [`Loaded::new`], and whatever is wrong with the tokenizer.
pub fn ready(
    checkpoint: &Checkpoint,
    engine: Engine,
    threads: usize,
) -> Result<(Loaded<'_>, Tokenizer), Error> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let enough = || done.load(Ordering::Relaxed);
        // Not the tokenizer on the thread that ends: what its making leaves behind would never be given back.
        let loaded = scope.spawn(move || {
            let weights = checkpoint.weights(NonFinitePolicy::Allow)?;
            let always: Vec<_> = weights.always_read().cloned().collect();
            let loaded = Loaded::of(checkpoint, weights, engine, threads)?;
            touch(&always, enough);
            Ok::<_, Error>(loaded)
        });
        let tokenizer = checkpoint.tokenizer();
        done.store(true, Ordering::Relaxed);
        let tokenizer = tokenizer?;
        let loaded = loaded.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((loaded, tokenizer))
    })
}

/// Touches weights before they are needed, until `enough` says so: threads that meet the pages of a mapped file for the first
/// time wait for each other, half of a first token's time.
fn touch(weights: &[Matrix<'_>], enough: impl Fn() -> bool) {
    /// Bytes that the system maps at a time.
    const AROUND: usize = 64 << 10;
    for w in weights {
        for r in (0..w.rows()).step_by((AROUND / w.row_bytes(0).len()).max(1)) {
            if enough() {
                return;
            }
            w.row_bytes(r).iter().step_by(AROUND).for_each(|byte| {
                std::hint::black_box(*byte);
            });
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
