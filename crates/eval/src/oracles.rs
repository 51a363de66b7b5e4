//! Which of the two oracles a trace from elsewhere agrees with: the reference, or ggml's 8-bit scheme.

use model::{Checkpoint, NonFinitePolicy};
use reference::{Activations, Model, Precision};
use serde::Serialize;
use trace::{
    Beside, Collect, CompareTap, Limits, ModelId, PointReport, Report, Role, Settings, Side, Tap, TapError,
    Trace, View,
};

use crate::dump::{chosen, producer};
use crate::layered::{Exact, Layered};
use crate::teacher::stored;
use crate::tolerance::{ggml_rows, trace_rows};
use crate::verify::tokens_of;
use crate::{Error, Run, engine};

/// What a trace can be judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Oracle {
    /// The reference: activations in f32.
    F32,
    /// ggml's own scheme: activations of 8 bits.
    Ggml,
}

impl Oracle {
    fn activations(self) -> Activations {
        match self {
            Oracle::F32 => Activations::F32,
            Oracle::Ggml => Activations::Q8,
        }
    }
}

/// What to judge, and by what.
#[derive(Clone, Debug, Default)]
pub struct Identify {
    /// The tokens that the trace is expected to be of; those it says if absent.
    pub tokens: Option<Vec<u32>>,
    /// Globs of the points to compare; all that the trace has if there are none.
    pub points: Vec<String>,
    /// Limits that win over the tables', for either oracle.
    pub limits: Limits,
    /// The oracles of which one is to match.
    pub wanted: Vec<Oracle>,
}

/// Which oracles a trace agrees with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// The reference only.
    F32,
    /// ggml's 8-bit scheme only.
    Ggml,
    /// Either: on this file, or in this trace's precision, they are not told apart.
    Both,
    /// None of the two.
    Neither,
}

/// How far the oracles themselves are apart at a point, fed the same.
#[derive(Clone, Debug, Serialize)]
pub struct Parted {
    /// The point.
    pub name: String,
    /// Σ(a−b)²/Σb² of ggml's scheme against the reference; a share of tokens for choices of experts.
    pub measure: f64,
}

/// How a trace compares with both oracles. Serialises to the JSON that `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Identified {
    /// Version of this form.
    pub version: u32,
    /// Whether one of the oracles that were asked for matches.
    pub passed: bool,
    /// Which match.
    pub matches: Match,
    /// The oracle that is nearer at most points.
    pub nearest: Oracle,
    /// Those that were asked for.
    pub wanted: Vec<Oracle>,
    /// How far the oracles are apart.
    pub parted: Vec<Parted>,
    /// By the reference.
    pub f32: Report,
    /// By ggml's 8-bit scheme.
    pub ggml: Report,
}

impl Identified {
    /// The judgement by one of the oracles.
    pub fn by(&self, oracle: Oracle) -> &Report {
        match oracle {
            Oracle::F32 => &self.f32,
            Oracle::Ggml => &self.ggml,
        }
    }
}

/// Runs both oracles side by side over the trace's tokens, each block on the trace's own input to it, and judges the
/// trace by both.
///
/// A pass on its own would tell nothing: where activations are rounded to 8 bits, the last bit of an f32 decides which
/// way some of them go, and after a few layers two faithful passes are as far apart as the oracles are. A layer whose
/// input the trace lacks is therefore left out, and said so.
///
/// # Errors
/// A matrix that ggml has no inner product for, a trace of other tokens or of unknown ones, one that has no point in
/// common with this model, or a pattern that matches no point.
pub fn identify(
    checkpoint: &Checkpoint,
    trace: &Trace,
    what: &Identify,
    how: &Run<'_>,
) -> Result<Identified, Error> {
    let tokens = tokens_of(&what.tokens, trace)?;
    crate::run::check(&tokens, checkpoint.config())?;
    engine::pool(how.threads())?.install(|| judge(checkpoint, trace, &tokens, what, how))
}

fn judge(
    checkpoint: &Checkpoint,
    trace: &Trace,
    tokens: &[u32],
    what: &Identify,
    how: &Run<'_>,
) -> Result<Identified, Error> {
    let config = checkpoint.config();
    let calls = how.split.calls(tokens.len())?;
    let (layers, width) = (config.num_hidden_layers, config.hidden_size);
    // The output of each layer is the next one's input; the last one's is the head's.
    let name = |l: usize| match l {
        0 => "model.embed_tokens".to_owned(),
        l => format!("model.layers.{}", l - 1),
    };
    let given: Vec<Option<&str>> =
        (0..=layers).map(|l| stored(trace, &name(l), tokens.len() * width)).collect();
    how.progress.begin("reading weights", 0);
    checkpoint.weights(how.non_finite)?;
    let pass = |oracle: Oracle| -> Result<Exact<'_>, Error> {
        let weights = checkpoint.weights(NonFinitePolicy::Allow)?;
        let model = Model::new(config, weights, Precision::F32).with_kernels(how.kernels);
        Ok(Exact::new(model.with_activations(oracle.activations())?, config))
    };
    let (mut exact, mut ggml) = (pass(Oracle::F32)?, pass(Oracle::Ggml)?);
    let signed: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
    let settings = |oracle: Oracle| -> Result<Settings, Error> {
        Ok(Settings {
            limits: what.limits.clone().with_rows(trace_rows(trace))?,
            points: if what.points.is_empty() { None } else { Some(chosen(&what.points, checkpoint)?) },
            precision: None,
            contract: Some(oracle.activations().contract().to_owned()),
        })
    };
    let side = |oracle: Oracle| Side {
        producer: Some(producer(&Run {
            activations: oracle.activations(),
            precision: Precision::F32,
            ..how.clone()
        })),
        model: Some(ModelId { path: checkpoint.path().display().to_string(), sha256: None }),
        precision: Some(trace::Precision::F32),
    };
    let tap = |oracle| -> Result<CompareTap<'_>, Error> {
        Ok(CompareTap::new(trace, Role::Reference, side(oracle), &signed, settings(oracle)?)?)
    };
    let (mut by_exact, mut by_ggml) = (tap(Oracle::F32)?, tap(Oracle::Ggml)?);
    let sides = [side(Oracle::F32), side(Oracle::Ggml)];
    let mut apart = Beside::new(sides, tokens.len(), settings(Oracle::F32)?);
    how.progress.begin("running both oracles", (layers * calls.len()) as u64);
    for (n, call) in calls.into_iter().enumerate() {
        let tokens = &tokens[call.clone()];
        let input = |l: usize| -> Result<Option<Vec<f64>>, Error> {
            let Some(own) = given[l] else { return Ok(None) };
            let rows = trace.get(own)?.values.as_ref().to_f64();
            let rows = &rows[call.start * width..call.end * width];
            Ok(Some(rows.iter().map(|&x| Precision::F32.round(x)).collect()))
        };
        // Runs a step of both, the reference first.
        type Step<'s> = &'s dyn Fn(&mut Exact<'_>, &mut (dyn Tap + Send)) -> Result<Vec<f64>, Error>;
        let mut both = |step: Step<'_>| -> Result<Vec<f64>, Error> {
            let mut held = Collect::all();
            step(&mut exact, &mut Fan(&mut by_exact, &mut held))?;
            let held = held.into_trace();
            step(&mut ggml, &mut Fan(&mut by_ggml, &mut apart.piece(&held)))
        };
        let embedded = both(&|pass, tap| pass.enter(tokens, tap))?;
        for l in 0..layers {
            // A row of the embedding is the same for both.
            let x = input(l)?.or_else(|| (l == 0).then(|| embedded.clone()));
            if let Some(x) = x {
                both(&|pass, tap| pass.block(l, &x, tap))?;
            }
            how.progress.reached((n * layers + l + 1) as u64);
        }
        if let Some(x) = input(layers)? {
            both(&|pass, tap| pass.leave(&x, tap).map(|()| Vec::new()))?;
        }
        exact.advance(call.len());
        ggml.advance(call.len());
    }
    let parted = apart.finish(Vec::new())?;
    by_ggml.set_limits(what.limits.clone().with_rows(ggml_rows(trace, &parted)?)?);
    let lacking: Vec<String> = (1..=layers).filter(|&l| given[l].is_none()).map(name).collect();
    let finish = |tap: CompareTap<'_>| -> Result<Report, Error> {
        let mut report = tap.finish()?;
        report.notes.push("each block is computed from the trace's own input to it".to_owned());
        if !lacking.is_empty() {
            let names = lacking.join(", ");
            report.notes.push(format!("not judged, as the trace lacks its input: what follows {names}"));
        }
        Ok(report)
    };
    let (f32, ggml) = (finish(by_exact)?, finish(by_ggml)?);
    let matches = match (f32.passed, ggml.passed) {
        (true, true) => Match::Both,
        (true, false) => Match::F32,
        (false, true) => Match::Ggml,
        (false, false) => Match::Neither,
    };
    let passed = what.wanted.iter().any(|oracle| match oracle {
        Oracle::F32 => f32.passed,
        Oracle::Ggml => ggml.passed,
    });
    let measures = |point: &PointReport| Parted { name: point.name.clone(), measure: point.measure };
    Ok(Identified {
        version: 1,
        passed,
        matches,
        nearest: nearest(&f32, &ggml),
        wanted: what.wanted.clone(),
        parted: parted.points.iter().map(measures).collect(),
        f32,
        ggml,
    })
}

/// The oracle that is nearer at more points; the reference if neither is.
fn nearest(f32: &Report, ggml: &Report) -> Oracle {
    let pairs = || f32.points.iter().zip(&ggml.points);
    let nearer_f32 = pairs().filter(|(f32, ggml)| f32.measure < ggml.measure).count();
    let nearer_ggml = pairs().filter(|(f32, ggml)| ggml.measure < f32.measure).count();
    if nearer_ggml > nearer_f32 { Oracle::Ggml } else { Oracle::F32 }
}

/// Hands to the second listener what the first one wants.
struct Fan<'a>(&'a mut (dyn Tap + Send), &'a mut (dyn Tap + Send));

impl Tap for Fan<'_> {
    fn wants(&self, name: &str) -> bool {
        self.0.wants(name)
    }

    fn record(&mut self, name: &str, view: View<'_>) -> Result<(), TapError> {
        self.0.record(name, view)?;
        if self.1.wants(name) { self.1.record(name, view) } else { Ok(()) }
    }
}
