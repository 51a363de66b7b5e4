//! `etalon dump`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use eval::{Dump, Dumped, Hash, Run, Split};
use reference::PointShape;
use serde::Serialize;

use crate::arguments::{Activations, Engine, ModelArgs, Precision, TextArgs};
use crate::commands::Outcome;
use crate::render::{Bar, Column, Style, Table};

/// Run the reference, or the fast engine, and write its activations as a trace.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon dump Qwen3.5-0.8B --prompt 'The capital of France is' -o france/
  etalon dump model.gguf --tokens 1,2,3 -o trace.npz --points '*.mlp' --points lm_head
  etalon dump model.gguf --tokens-file ids.json -o truth.safetensors --precision f64 --logits last
  etalon dump model.gguf --tokens 1,2,3 -o fast.npz --engine fast
  etalon dump model.gguf --tokens 1,2,3 -o q8.npz --activations q8
  etalon dump --list-points Qwen3.5-0.8B")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Where to: .npz or .safetensors by extension, anything else is a directory of .npy files.
    #[arg(short, long, required_unless_present = "list_points", value_name = "OUT")]
    output: Option<PathBuf>,
    /// Only points of this name; * also crosses dots; may be repeated.
    #[arg(long, value_name = "GLOB")]
    points: Vec<String>,
    /// What computes.
    #[arg(long, value_enum, default_value = "reference")]
    engine: Engine,
    /// To what activations are rounded, and how they are stored; f64 with the reference only.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// What inner products make of activations; q8 with the reference in f32 only.
    #[arg(long, value_enum, default_value = "f32")]
    activations: Activations,
    /// Tokens of each call, adding up to the text [default: calls of at most 128]; the result is the same to the bit.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    split: Option<Vec<usize>>,
    /// CPU threads [default: all]; the result is the same to the bit.
    #[arg(long, value_name = "N", value_parser = crate::arguments::threads)]
    threads: Option<usize>,
    /// Of which tokens to record lm_head.
    #[arg(long, value_enum, default_value = "all")]
    logits: Logits,
    /// Name large weights by their hash too; up to 1 GiB they always are.
    #[arg(long)]
    hash: bool,
    /// Replace OUT if it exists.
    #[arg(long)]
    force: bool,
    /// Print every point with its shape and llama.cpp's name for it, and run nothing.
    #[arg(long, conflicts_with_all = ["output", "TextArgs"])]
    list_points: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Logits {
    All,
    Last,
}

#[derive(Serialize)]
struct Written {
    output: PathBuf,
    #[serde(flatten)]
    dumped: Dumped,
    /// The last token's likeliest successors.
    next: Vec<Next>,
}

#[derive(Serialize)]
struct Next {
    token: usize,
    logit: f64,
}

/// How many of the last token's likeliest successors are named.
const NEXT: usize = 5;

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let checkpoint = self.model.open()?;
        if self.list_points {
            let points = reference::points(checkpoint.config());
            return Ok(Outcome::fine(points, |points, style| list(points, style)));
        }
        let output = self.output.context("no output: give -o OUT")?;
        let tokens = self.text.read(&checkpoint)?;
        let tokens =
            tokens.context("nothing to run: give --prompt, --prompt-file, --tokens or --tokens-file")?;
        let engine = eval::Engine::from(self.engine);
        anyhow::ensure!(
            engine == eval::Engine::Reference || matches!(self.precision, Precision::F32),
            "the fast engine computes in f32: --precision f64 needs --engine reference"
        );
        let bar = Bar::new();
        let what = Dump {
            points: self.points,
            hash: if self.hash { Hash::Always } else { Hash::IfQuick },
            replace: self.force,
        };
        let how = Run {
            engine,
            precision: self.precision.into(),
            activations: self.activations.into(),
            threads: self.threads,
            split: self.split.map_or(Split::Bounded, Split::Sizes),
            logits: match self.logits {
                Logits::All => reference::Logits::All,
                Logits::Last => reference::Logits::Last,
            },
            non_finite: self.model.non_finite(),
            progress: &bar,
            ..Run::default()
        };
        format::sweep(output.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")));
        let dumped = eval::dump(&checkpoint, &tokens, &output, &what, &how)?;
        let next = likeliest(&dumped.logits);
        Ok(Outcome::fine(Written { output, dumped, next }, written))
    }
}

fn likeliest(logits: &[f64]) -> Vec<Next> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.into_iter().take(NEXT).map(|token| Next { token, logit: logits[token] }).collect()
}

fn written(written: &Written, _: &Style) -> String {
    let next: Vec<String> = written.next.iter().map(|n| format!("{} ({:.4})", n.token, n.logit)).collect();
    format!(
        "{}: {} points of {} tokens\nlikeliest next tokens (logit): {}\n",
        written.output.display(),
        written.dumped.points,
        written.dumped.tokens,
        next.join(", ")
    )
}

fn list(points: &[PointShape], style: &Style) -> String {
    let mut table = Table::new(&[
        Column::Left("point"),
        Column::Left("shape"),
        Column::Left(""),
        Column::Left("llama.cpp"),
    ]);
    for point in points {
        let sizes = point.shape.iter().map(|n| n.map_or("T".into(), |n| n.to_string()));
        table.row([
            point.name.clone(),
            format!("[{}]", sizes.collect::<Vec<_>>().join(", ")),
            format!("[{}]", point.axes.join(", ")),
            point.llama_cpp.clone().unwrap_or_default(),
        ]);
    }
    let mut lines = table.lines();
    lines[0] = style.bold(&lines[0]);
    lines.join("\n") + "\n"
}
