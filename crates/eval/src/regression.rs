//! One engine against the other on the same file: the gate that people put in CI.

use model::{Checkpoint, NonFinitePolicy};
use reference::{CONTRACT, Precision};
use serde::Serialize;
use trace::{Beside, Collect, Limits, ModelId, Producer, Report, Settings, Side};

use crate::dump::chosen;
use crate::layered::{Exact, Layered};
use crate::ties::{Tie, Ties, Top1};
use crate::tolerance::{Feed, rows};
use crate::{Engine, Error, Progress, Silent, Split, engine};

/// What to judge.
pub struct Regression<'a> {
    /// The engine that is judged.
    pub candidate: Engine,
    /// Text to run.
    pub tokens: Vec<u32>,
    /// Globs of the points to compare; all if there are none.
    pub points: Vec<String>,
    /// Limits that win over the table's.
    pub limits: Limits,
    /// Threads of either engine.
    pub threads: usize,
    /// Over how many calls.
    pub split: Split,
    /// What to do about NaN and infinities among the weights.
    pub non_finite: NonFinitePolicy,
    /// Hears how far it is.
    pub progress: &'a dyn Progress,
}

impl Default for Regression<'_> {
    fn default() -> Self {
        Regression {
            candidate: Engine::DEFAULT,
            tokens: Vec::new(),
            points: Vec::new(),
            limits: Limits::default(),
            threads: engine::threads(None),
            split: Split::Bounded,
            non_finite: NonFinitePolicy::Refuse,
            progress: &Silent,
        }
    }
}

/// How the engines compare. Serialises to the JSON that `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Regressed {
    /// Version of this form.
    pub version: u32,
    /// Whether both passes are within their limits, and first choices differ within noise only.
    pub passed: bool,
    /// The model.
    pub model: String,
    /// How many tokens both ran on.
    pub tokens: usize,
    /// Each block fed the reference's input: the first point beyond its limit is the culprit.
    pub local: Judged,
    /// The candidate on its own: what users see.
    pub free_running: Judged,
}

/// One way of feeding, judged.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Point by point.
    pub report: Report,
    /// First choices by position.
    pub top1: Top1,
    /// Tokens that went to other experts within noise.
    pub ties: Vec<Tie>,
}

impl Judged {
    /// Whether nothing is beyond its limit.
    pub fn passed(&self) -> bool {
        self.report.passed && (self.top1.passed() || self.top1.positions == 0)
    }
}

/// Runs both engines side by side and judges the candidate by the reference, a piece of the text and a layer at a time.
///
/// # Errors
/// No tokens, a token outside the vocabulary, weights that are not finite, a pattern that matches no point.
pub fn regression(checkpoint: &Checkpoint, what: &Regression<'_>) -> Result<Regressed, Error> {
    let config = checkpoint.config();
    let weights = || checkpoint.weights(NonFinitePolicy::Allow);
    what.progress.begin("reading weights", 0);
    checkpoint.weights(what.non_finite)?;
    let exact = || {
        let model = reference::Model::new(config, weights()?, Precision::F32);
        Ok::<_, Error>(Exact::new(model, config))
    };
    let candidate = || -> Result<Box<dyn Layered + '_>, Error> {
        Ok(match what.candidate {
            Engine::Reference => Box::new(exact()?),
        })
    };
    let passes = Passes { reference: Box::new(exact()?), local: candidate()?, free: candidate()? };
    engine::pool(what.threads)?.install(|| judge(checkpoint, what, passes))
}

/// The passes that run side by side.
pub(crate) struct Passes<'w> {
    pub(crate) reference: Box<dyn Layered + 'w>,
    pub(crate) local: Box<dyn Layered + 'w>,
    pub(crate) free: Box<dyn Layered + 'w>,
}

/// One way of feeding the candidate, under way.
struct Judge<'w> {
    pass: Box<dyn Layered + 'w>,
    beside: Beside,
    ties: Ties,
}

impl<'w> Judge<'w> {
    fn new(
        checkpoint: &Checkpoint,
        what: &Regression<'_>,
        pass: Box<dyn Layered + 'w>,
        feed: Feed,
    ) -> Result<Judge<'w>, Error> {
        let settings = Settings {
            limits: what.limits.clone().with_rows(rows(checkpoint, feed))?,
            points: if what.points.is_empty() { None } else { Some(chosen(&what.points, checkpoint)?) },
            precision: None,
            contract: Some(CONTRACT.to_owned()),
        };
        let side = |engine: Engine| Side {
            producer: Some(Producer {
                name: format!("etalon {}", engine.name()),
                version: env!("CARGO_PKG_VERSION").into(),
                precision: Some("f32".into()),
                more: Default::default(),
            }),
            model: Some(ModelId { path: checkpoint.path().display().to_string(), sha256: None }),
            precision: Some(trace::Precision::F32),
        };
        let sides = [side(Engine::Reference), side(what.candidate)];
        let beside = Beside::new(sides, what.tokens.len(), settings);
        Ok(Judge { pass, beside, ties: Ties::new(feed) })
    }

    fn finish(self) -> Result<Judged, Error> {
        let (ties, top1) = self.ties.finish();
        let notes = ties.iter().map(|tie| {
            format!(
                "layer {}, position {}: other experts, but the reference's own margin {:.2e} is under the noise {:.2e}: \
                 what follows from that is not judged",
                tie.layer, tie.token, tie.margin, tie.noise
            )
        });
        let report = self.beside.finish(notes.collect())?;
        Ok(Judged { report, top1, ties })
    }
}

pub(crate) fn judge(
    checkpoint: &Checkpoint,
    what: &Regression<'_>,
    passes: Passes<'_>,
) -> Result<Regressed, Error> {
    let (config, tokens) = (checkpoint.config(), &what.tokens);
    crate::run::check(tokens, config)?;
    let calls = what.split.calls(tokens.len())?;
    let mut reference = passes.reference;
    let mut local = Judge::new(checkpoint, what, passes.local, Feed::Local)?;
    let mut free = Judge::new(checkpoint, what, passes.free, Feed::FreeRunning)?;
    // The router's choices are looked at whatever is compared.
    let record = || match what.points.is_empty() {
        true => Collect::all(),
        false => {
            let needed = ["*.mlp.gate", "*.mlp.topk_index", "lm_head"].map(str::to_owned);
            Collect::new(&[&what.points[..], &needed].concat()).expect("patterns that were read before")
        }
    };
    let layers = config.num_hidden_layers;
    what.progress.begin("running both engines", (layers * calls.len()) as u64);
    for (n, call) in calls.into_iter().enumerate() {
        let tokens = &tokens[call];
        // Runs a step of all three over the same tokens; gives the reference's output and the free pass's own.
        let mut held = record();
        let mut x = reference.enter(tokens, &mut held)?;
        let piece = held.into_trace();
        let mut own = free.pass.enter(tokens, &mut free.ties.watch(free.beside.piece(&piece), &piece))?;
        local.pass.enter(tokens, &mut local.ties.watch(local.beside.piece(&piece), &piece))?;
        for l in 0..layers {
            let mut held = record();
            let after = reference.block(l, &x, &mut held)?;
            let piece = held.into_trace();
            local.pass.block(l, &x, &mut local.ties.watch(local.beside.piece(&piece), &piece))?;
            own = free.pass.block(l, &own, &mut free.ties.watch(free.beside.piece(&piece), &piece))?;
            x = after;
            what.progress.reached((n * layers + l + 1) as u64);
        }
        let mut held = record();
        reference.leave(&x, &mut held)?;
        let piece = held.into_trace();
        local.pass.leave(&x, &mut local.ties.watch(local.beside.piece(&piece), &piece))?;
        free.pass.leave(&own, &mut free.ties.watch(free.beside.piece(&piece), &piece))?;
        reference.advance(tokens.len());
        for judge in [&mut local, &mut free] {
            judge.pass.advance(tokens.len());
            judge.ties.advance(tokens.len());
        }
    }
    let (local, free_running) = (local.finish()?, free.finish()?);
    Ok(Regressed {
        version: 1,
        passed: local.passed() && free_running.passed(),
        model: checkpoint.path().display().to_string(),
        tokens: tokens.len(),
        local,
        free_running,
    })
}

/// Tokens to run where nobody gives any: as many as asked for, from all over the vocabulary, always the same.
pub fn any_tokens(count: usize, vocab_size: usize) -> Vec<u32> {
    // A Weyl sequence by the golden ratio visits all parts of an interval evenly.
    let at = |n: u64| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..count as u64).map(|n| ((u128::from(at(n)) * vocab_size as u128) >> 64) as u32).collect()
}
