//! `etalon compare`.

use std::path::PathBuf;

use trace::{Globs, Settings, Trace};

use crate::arguments::JudgeArgs;
use crate::commands::Outcome;

/// Judge one trace by another, wherever they come from.
///
/// Compares every point that both have and names the first that is beyond its limit. Exit status 1 if there is one;
/// traces of other tokens, or without a point in common, are an error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon compare truth.npz mine.npz
  etalon compare truth/ mine.safetensors --points '*.mlp' --only failed
  etalon compare truth.npz mine.npz --limits limits.txt")]
pub struct Args {
    /// What is held to be right.
    reference: PathBuf,
    /// What is judged.
    candidate: PathBuf,
    #[command(flatten)]
    judge: JudgeArgs,
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let reference = Trace::open(&self.reference)?;
        let candidate = Trace::open(&self.candidate)?;
        let points = &self.judge.points;
        let settings = Settings {
            limits: self.judge.limits()?,
            points: if points.is_empty() { None } else { Some(Globs::new(points)?) },
            ..Settings::default()
        };
        let report = trace::compare(&reference, &candidate, &settings)?;
        Ok(Outcome::judged(report, self.judge.only))
    }
}
