//! `etalon verify`.

use std::path::PathBuf;

use eval::{Identify, Regression, Run, Split, Verify};
use trace::Trace;

use crate::arguments::{JudgeArgs, ModelArgs, Precision, TextArgs};
use crate::commands::Outcome;
use crate::render::Bar;
use crate::{file, oracles, regression, report};

/// Judge a trace from elsewhere, or this program's own fast engine, by the reference: where does it first go wrong?
///
/// With --against, runs the trace's tokens, compares every point that both have, and names the first that is beyond its
/// limit, with what usually causes that. Without, runs both engines on the file: each block on the reference's input,
/// and the whole on its own. Exit status 1 if anything is beyond its limit; comparing nothing is an error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon verify model.gguf
  etalon verify model.gguf --prompt-file text.txt --html kernels.html
  etalon verify Qwen3.5-0.8B --against trace.npz
  etalon verify Qwen3.5-0.8B --against trace.npz --local
  etalon verify model.gguf --against trace/ --precision f64
  etalon verify model.gguf --against llama.npz --oracle both
  etalon verify model.gguf --against trace.npz --limit '*.mlp=1e-6' --limit lm_head=inf
  etalon verify model.gguf --against trace.npz --json | jq .divergence")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The trace to judge: a directory of .npy files, .npz, .safetensors or a single .npy [default: judge an engine].
    #[arg(long, value_name = "TRACE")]
    against: Option<PathBuf>,
    /// Compute each block from the trace's own input to it: what one layer adds to the error stands out.
    #[arg(long, requires = "against")]
    local: bool,
    /// By what to judge: the reference, ggml's scheme of 8-bit activations, or whichever matches. All but f32 compute each
    /// block from the trace's own input, by both, and say which it is.
    #[arg(long, value_enum, default_value = "f32", requires = "against")]
    oracle: Oracle,
    #[command(flatten)]
    text: TextArgs,
    /// Run the tokens that the trace names: the default.
    #[arg(long, requires = "against")]
    tokens_from_trace: bool,
    /// Where no text is given, run so many tokens from all over the vocabulary.
    #[arg(long, value_name = "N", default_value_t = LENGTH, conflicts_with_all = ["against", "TextArgs"])]
    length: usize,
    /// To what activations are rounded [default: f64 for a trace that was made in f64, else f32].
    #[arg(long, value_enum, requires = "against")]
    precision: Option<Precision>,
    /// Tokens of each call, adding up to the text [default: calls of at most 128]; the result is the same to the bit.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    split: Option<Vec<usize>>,
    /// CPU threads [default: all]; the result is the same to the bit.
    #[arg(long, value_name = "N", value_parser = crate::arguments::threads)]
    threads: Option<usize>,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Write the report as a page too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Replace the page if it exists.
    #[arg(long, requires = "html")]
    force: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Oracle {
    /// The reference.
    F32,
    /// ggml's scalar code.
    Ggml,
    /// Either.
    Both,
}

impl Oracle {
    fn wanted(self) -> Vec<eval::Oracle> {
        match self {
            Oracle::F32 => vec![eval::Oracle::F32],
            Oracle::Ggml => vec![eval::Oracle::Ggml],
            Oracle::Both => vec![eval::Oracle::F32, eval::Oracle::Ggml],
        }
    }
}

/// More than one call of 128, and what the figures in docs/performance.md are of.
const LENGTH: usize = 160;

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let only = self.judge.only;
        let (html, force) = (self.html.clone(), self.force);
        let write = |page: &dyn Fn() -> String| match &html {
            Some(path) => file::write(path, page().as_bytes(), force),
            None => Ok(()),
        };
        match &self.against {
            Some(trace) if self.oracle != Oracle::F32 => {
                let identified = self.identify(&Trace::open(trace)?)?;
                write(&|| oracles::page(&identified))?;
                let failed = !identified.passed;
                Ok(Outcome::new(identified, failed, move |r, style| oracles::text(r, only, style)))
            }
            Some(trace) => {
                let report = self.trace(&Trace::open(trace)?)?;
                write(&|| report::page(&report))?;
                Ok(Outcome::judged(report, only))
            }
            None => {
                let regressed = self.engines()?;
                write(&|| regression::page(&regressed))?;
                let failed = !regressed.passed;
                Ok(Outcome::new(regressed, failed, move |r, style| regression::text(r, only, style)))
            }
        }
    }

    fn trace(&self, trace: &Trace) -> anyhow::Result<trace::Report> {
        let checkpoint = self.model.open()?;
        let tokens = self.text.read(&checkpoint)?;
        let bar = Bar::new();
        let how = Run {
            precision: self.precision.map_or_else(|| eval::precision_for(trace), Into::into),
            threads: self.threads,
            split: self.split(),
            non_finite: self.model.non_finite(),
            progress: &bar,
            ..Run::default()
        };
        let limits = self.judge.limits()?;
        let what = Verify { tokens, points: self.judge.points.clone(), limits, local: self.local };
        Ok(eval::verify(&checkpoint, trace, &what, &how)?)
    }

    fn identify(&self, trace: &Trace) -> anyhow::Result<eval::Identified> {
        anyhow::ensure!(
            !matches!(self.precision, Some(Precision::F64)),
            "ggml computes in f32: --precision f64 needs --oracle f32"
        );
        let checkpoint = self.model.open()?;
        let bar = Bar::new();
        let how = Run {
            threads: self.threads,
            split: self.split(),
            non_finite: self.model.non_finite(),
            progress: &bar,
            ..Run::default()
        };
        let what = Identify {
            tokens: self.text.read(&checkpoint)?,
            points: self.judge.points.clone(),
            limits: self.judge.limits()?,
            wanted: self.oracle.wanted(),
        };
        Ok(eval::identify(&checkpoint, trace, &what, &how)?)
    }

    fn engines(&self) -> anyhow::Result<eval::Regressed> {
        let checkpoint = self.model.open()?;
        let any = || eval::any_tokens(self.length, checkpoint.config().vocab_size);
        let bar = Bar::new();
        let what = Regression {
            tokens: self.text.read(&checkpoint)?.unwrap_or_else(any),
            points: self.judge.points.clone(),
            limits: self.judge.limits()?,
            threads: eval::threads(self.threads),
            split: self.split(),
            non_finite: self.model.non_finite(),
            progress: &bar,
        };
        Ok(eval::regression(&checkpoint, &what)?)
    }

    fn split(&self) -> Split {
        self.split.clone().map_or(Split::Bounded, Split::Sizes)
    }
}
