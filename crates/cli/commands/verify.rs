//! `etalon verify`.

use std::path::PathBuf;

use eval::{Run, Split, Verify};
use trace::Trace;

use crate::arguments::{JudgeArgs, ModelArgs, Precision, TextArgs};
use crate::commands::Outcome;
use crate::render::Bar;

/// Judge a trace from elsewhere by the reference: where does it first go wrong?
///
/// Runs the trace's tokens, compares every point that both have, and names the first that is beyond its limit, with
/// what usually causes that. Exit status 1 if there is one; comparing nothing is an error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon verify Qwen3.5-0.8B --against trace.npz
  etalon verify model.gguf --against trace/ --precision f64
  etalon verify model.gguf --against trace.npz --limit '*.mlp=1e-6' --limit lm_head=inf
  etalon verify model.gguf --against trace.npz --json | jq .divergence")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The trace to judge: a directory of .npy files, .npz, .safetensors or a single .npy.
    #[arg(long, value_name = "TRACE")]
    against: PathBuf,
    #[command(flatten)]
    text: TextArgs,
    /// Run the tokens that the trace names: the default.
    #[arg(long)]
    tokens_from_trace: bool,
    /// To what activations are rounded [default: f64 for a trace that was made in f64, else f32].
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Tokens of each call, adding up to the text [default: calls of at most 128]; the result is the same to the bit.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    split: Option<Vec<usize>>,
    /// CPU threads [default: all]; the result is the same to the bit.
    #[arg(long, value_name = "N", value_parser = crate::arguments::threads)]
    threads: Option<usize>,
    #[command(flatten)]
    judge: JudgeArgs,
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let checkpoint = self.model.open()?;
        let trace = Trace::open(&self.against)?;
        let tokens = self.text.read(&checkpoint)?;
        let bar = Bar::new();
        let how = Run {
            precision: self.precision.map_or_else(|| eval::precision_for(&trace), Into::into),
            threads: self.threads,
            split: self.split.map_or(Split::Bounded, Split::Sizes),
            non_finite: self.model.non_finite(),
            progress: &bar,
            ..Run::default()
        };
        let what = Verify { tokens, points: self.judge.points.clone(), limits: self.judge.limits()? };
        let report = eval::verify(&checkpoint, &trace, &what, &how)?;
        Ok(Outcome::judged(report, self.judge.only))
    }
}
