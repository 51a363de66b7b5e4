//! One engine against the other on the same file: the gate that people put in CI.

use model::{Checkpoint, NonFinitePolicy};
use reference::{CONTRACT, Precision};
use serde::Serialize;
use trace::{Beside, Collect, Limits, ModelId, Producer, Report, Settings, Side};

use crate::dump::chosen;
use crate::layered::{Exact, Layered, Quick};
use crate::ties::{Tie, Ties, Top1};
use crate::tolerance::{Feed, rows};
use crate::{Engine, Error, Progress, Silent, Split, engine};

/// What to judge.
pub struct Regression<'a> {
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
        let options = fast::Options { threads: Some(what.threads), ..fast::Options::default() };
        Ok(Box::new(Quick::new(fast::Model::new(config, weights()?, options), config)))
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
            contract: Some(format!("{CONTRACT}, {}", fast::CONTRACT)),
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
        let sides = [side(Engine::Reference), side(Engine::Fast)];
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use codec::Encoding;
    use model::weights::{Mixer, Mlp};
    use model::{Matrix, Weights};
    use trace::{Tap, TapError, ValuesRef, View};

    use super::*;
    use crate::layered::Listener;

    fn open(fixture: &str) -> Checkpoint {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(fixture);
        Checkpoint::open(&path, &format::Limits::default()).unwrap()
    }

    fn what(checkpoint: &Checkpoint) -> Regression<'static> {
        let tokens = any_tokens(140, checkpoint.config().vocab_size);
        Regression { tokens, threads: 1, ..Regression::default() }
    }

    fn quick<'w>(checkpoint: &'w Checkpoint, edit: &dyn Fn(&mut Weights<Matrix<'w>>)) -> Quick<'w> {
        let mut weights = checkpoint.weights(NonFinitePolicy::Allow).unwrap();
        edit(&mut weights);
        let options = fast::Options { threads: Some(1), ..fast::Options::default() };
        Quick::new(fast::Model::new(checkpoint.config(), weights, options), checkpoint.config())
    }

    /// Judges fast engines whose weights are edited, by a reference whose weights are edited otherwise.
    fn judged<'w>(
        checkpoint: &'w Checkpoint,
        reference: &dyn Fn(&mut Weights<Matrix<'w>>),
        candidate: &dyn Fn(&mut Weights<Matrix<'w>>),
    ) -> Regressed {
        let mut weights = checkpoint.weights(NonFinitePolicy::Allow).unwrap();
        reference(&mut weights);
        let config = checkpoint.config();
        let passes = Passes {
            reference: Box::new(Exact::new(reference::Model::new(config, weights, Precision::F32), config)),
            local: Box::new(quick(checkpoint, candidate)),
            free: Box::new(quick(checkpoint, candidate)),
        };
        judge(checkpoint, &what(checkpoint), passes).unwrap()
    }

    fn first(judged: &Judged) -> &str {
        judged.report.divergence.as_ref().map_or("none", |d| d.point.as_str())
    }

    const MODELS: [&str; 6] = [
        "models/dense-text-f32",
        "models/dense-vision-bf16",
        "models/dense-unequal-f32",
        "models/moe-packed-bf16",
        "gguf-good/dense-vision-bf16-q8_0.gguf",
        "gguf-good/moe-experts-f32-f16-split-00001-of-00003.gguf",
    ];

    #[test]
    fn the_fast_engine_passes_on_every_kind_of_model() {
        for model in MODELS {
            let checkpoint = open(model);
            let report = regression(&checkpoint, &what(&checkpoint)).unwrap();
            for judged in [&report.local, &report.free_running] {
                assert!(judged.passed(), "{model}: {}", first(judged));
                assert_eq!(judged.report.points.len(), reference::points(checkpoint.config()).len());
                assert_eq!((judged.top1.positions, judged.top1.agree), (140, 140));
                // Two engines, not one twice.
                assert!(judged.top1.noise > 0.0);
                assert!(judged.report.only_reference.is_empty() && judged.report.only_candidate.is_empty());
            }
        }
    }

    /// Another matrix on one side shows at its own point, in its own layer, in both ways of feeding.
    #[test]
    fn other_weights_turn_red_at_their_point() {
        let checkpoint = open("models/dense-text-f32");
        let same = |_: &mut Weights<Matrix<'_>>| {};
        type Edit<'w> = Box<dyn Fn(&mut Weights<Matrix<'w>>)>;
        let cases: [(&str, Edit<'_>); 5] = [
            (
                "model.layers.0.linear_attn.in_proj_z",
                Box::new(|w| {
                    let other = match &w.layers[3].mixer {
                        Mixer::DeltaNet(m) => m.in_proj_z.clone(),
                        _ => panic!(),
                    };
                    if let Mixer::DeltaNet(m) = &mut w.layers[0].mixer {
                        m.in_proj_z = other;
                    }
                }),
            ),
            (
                "model.layers.1.self_attn",
                Box::new(|w| {
                    let other = match &w.layers[2].mixer {
                        Mixer::Attention(m) => m.o_proj.clone(),
                        _ => panic!(),
                    };
                    if let Mixer::Attention(m) = &mut w.layers[1].mixer {
                        m.o_proj = other;
                    }
                }),
            ),
            (
                "model.layers.2.mlp.gate_proj",
                Box::new(|w| {
                    if let Mlp::Dense(m) = &mut w.layers[2].mlp {
                        std::mem::swap(&mut m.gate_proj, &mut m.up_proj);
                    }
                }),
            ),
            (
                "model.layers.3.linear_attn.g",
                Box::new(|w| {
                    // A thousandth of one head's decay.
                    if let Mixer::DeltaNet(m) = &mut w.layers[3].mixer {
                        m.a[1] *= 1.001;
                    }
                }),
            ),
            ("model.norm", Box::new(|w| w.norm[0] *= 1.01)),
        ];
        for (point, edit) in &cases {
            let report = judged(&checkpoint, &same, edit);
            assert!(!report.passed);
            assert_eq!((first(&report.local), first(&report.free_running)), (*point, *point));
            // Fed the reference's input, no later layer is to blame.
            let layer = |name: &str| trace::point::parse(name).unwrap().0;
            let blamed = report.local.report.points.iter().filter(|p| !p.within_limit);
            assert!(blamed.clone().all(|p| layer(&p.name) == layer(point)), "{point}");
        }
    }

    /// A kernel that is off by one part in 10³, in one layer, from some position on.
    struct Broken<'w> {
        pass: Quick<'w>,
        layer: usize,
        from: usize,
        position: usize,
    }

    impl Broken<'_> {
        fn spoil(&self, x: &mut [f64], width: usize) {
            let first = self.from.saturating_sub(self.position) * width;
            x.iter_mut().skip(first).for_each(|x| *x *= 1.001);
        }
    }

    /// Shows the broken kernel's output to the tap.
    struct Shown<'a, 'w>(&'a Broken<'w>, Listener<'a>);

    impl Tap for Shown<'_, '_> {
        fn wants(&self, name: &str) -> bool {
            self.1.wants(name)
        }

        fn record(&mut self, name: &str, view: View<'_>) -> Result<(), TapError> {
            let mut values = view.values.to_f64();
            if name == format!("model.layers.{}", self.0.layer) {
                self.0.spoil(&mut values, view.shape[1]);
            }
            self.1.record(name, View { values: ValuesRef::F64(&values), ..view })
        }
    }

    impl Layered for Broken<'_> {
        fn enter(&mut self, tokens: &[u32], tap: Listener<'_>) -> Result<Vec<f64>, Error> {
            self.pass.enter(tokens, tap)
        }

        fn block(&mut self, l: usize, x: &[f64], tap: Listener<'_>) -> Result<Vec<f64>, Error> {
            if l != self.layer {
                return self.pass.block(l, x, tap);
            }
            let mut held = Collect::all();
            let mut y = self.pass.block(l, x, &mut held)?;
            let held = held.into_trace();
            for name in held.names() {
                let tensor = held.get(name).unwrap();
                let state = trace::point::parse(name).unwrap().1.extent;
                let view = View { shape: &tensor.shape, values: tensor.values.as_ref(), extent: state };
                Shown(self, tap).record(name, view).unwrap();
            }
            let width = y.len() / (x.len() / self.pass.model.config().hidden_size);
            self.spoil(&mut y, width);
            Ok(y)
        }

        fn leave(&mut self, x: &[f64], tap: Listener<'_>) -> Result<(), Error> {
            self.pass.leave(x, tap)
        }

        fn advance(&mut self, tokens: usize) {
            self.position += tokens;
            self.pass.advance(tokens);
        }
    }

    #[test]
    fn a_broken_kernel_turns_red_where_it_is() {
        let checkpoint = open("models/dense-text-f32");
        let config = checkpoint.config();
        let broken =
            || Box::new(Broken { pass: quick(&checkpoint, &|_| {}), layer: 2, from: 137, position: 0 });
        let exact = reference::Model::new(
            config,
            checkpoint.weights(NonFinitePolicy::Allow).unwrap(),
            Precision::F32,
        );
        let passes =
            Passes { reference: Box::new(Exact::new(exact, config)), local: broken(), free: broken() };
        let report = judge(&checkpoint, &what(&checkpoint), passes).unwrap();
        for judged in [&report.local, &report.free_running] {
            // 10⁻⁶ of three tokens of 140.
            assert_eq!(first(judged), "model.layers.2");
            let point = judged.report.points.iter().find(|p| p.name == "model.layers.2").unwrap();
            assert!((1e-9..1e-6).contains(&point.measure), "{}", point.measure);
            assert!(point.stats.as_ref().unwrap().worst.as_ref().unwrap().index[0] >= 137);
        }
        assert!(report.local.report.points.iter().filter(|p| !p.within_limit).count() == 1);
    }

    /// Two experts that the router cannot tell apart but by rounding are no fault; what is otherwise wrong still is.
    #[test]
    fn ties_of_a_router_are_told_from_faults() {
        let checkpoint = open("models/moe-experts-f32");
        let weights = checkpoint.weights(NonFinitePolicy::Allow).unwrap();
        let Mlp::Moe(moe) = &weights.layers[1].mlp else { panic!("an MoE") };
        let (rows, cols) = (moe.gate.rows(), moe.gate.cols());
        let mut values = vec![0f32; rows * cols];
        for (row, values) in values.chunks_exact_mut(cols).enumerate() {
            // Every expert is the first one, told apart in the last bits only.
            moe.gate.row(0, values, &mut Vec::new());
            values.iter_mut().for_each(|x| *x *= 1.0 + row as f32 * f32::EPSILON);
        }
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let tied = |w: &mut Weights<Matrix<'_>>| {
            let Mlp::Moe(moe) = &mut w.layers[1].mlp else { panic!("an MoE") };
            // Lives as long as the test's process.
            let bytes: &'static [u8] = bytes.clone().leak();
            moe.gate = Matrix::new(bytes, Encoding::F32, rows, cols).unwrap();
        };
        let report = judged(&checkpoint, &tied, &tied);
        assert!(report.passed, "{} {}", first(&report.local), first(&report.free_running));
        for judged in [&report.local, &report.free_running] {
            assert!(!judged.ties.is_empty());
            assert!(judged.ties.iter().all(|tie| tie.layer == 1 && tie.margin <= tie.noise));
            assert_eq!(judged.report.notes.len(), judged.ties.len());
        }
        // A layer above the ties, wrong for all tokens, and one whose router is simply another.
        let above = |w: &mut Weights<Matrix<'_>>| {
            tied(w);
            w.layers[2].post_attention_layernorm[0] *= 1.001;
        };
        let report = judged(&checkpoint, &tied, &above);
        assert_eq!(first(&report.local), "model.layers.2.post_attention_layernorm");
        let other = |w: &mut Weights<Matrix<'_>>| {
            let gate = match &w.layers[0].mlp {
                Mlp::Moe(moe) => moe.gate.clone(),
                _ => panic!(),
            };
            if let Mlp::Moe(moe) = &mut w.layers[2].mlp {
                moe.gate = gate;
            }
        };
        let report = judged(&checkpoint, &|_| {}, &other);
        assert_eq!(first(&report.local), "model.layers.2.mlp.gate");
    }

    #[test]
    fn tokens_come_from_all_over() {
        let tokens = any_tokens(160, 509);
        assert!(tokens.iter().all(|&t| t < 509));
        let quarters: Vec<usize> =
            (0..4).map(|q| tokens.iter().filter(|&&t| (t as usize * 4) / 509 == q).count()).collect();
        assert!(quarters.iter().all(|n| n.abs_diff(40) <= 4), "{quarters:?}");
    }
}
