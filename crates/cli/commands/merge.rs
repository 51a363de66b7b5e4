//! `etalon merge`.

use std::path::PathBuf;

use format::gguf::{Division, Draft, Reader};
use format::{Limits, Metadata, safetensors};

use crate::commands::Outcome;
use crate::commands::split::{Written, copy};

/// Merge the parts of a split GGUF file, or shards of safetensors, into one file.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon merge model-00001-of-00003.gguf model.gguf
  etalon merge model-00001-of-00003.gguf model.gguf --dry-run
  etalon merge Qwen3.5-4B model.safetensors")]
pub struct Args {
    /// Any part of a split GGUF file, the others beside it; a directory with shards, or their index.
    input: PathBuf,
    /// The file to be.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Print what would be written and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Replace OUT if it exists.
    #[arg(long)]
    force: bool,
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let source = format::open(&self.input, &Limits::default())?;
        if matches!(source.metadata(), Metadata::Safetensors(_)) {
            let draft = safetensors::Draft::like(&self.output, source.as_ref())?;
            let file = draft.plan()?;
            if !self.dry_run {
                copy(source.as_ref(), |existing| draft.create(existing), self.force)?;
            }
            return Ok(Written::new(vec![file], self.dry_run).outcome());
        }
        let source = Reader::open(&self.input, &Limits::default())?;
        let draft = Draft::like(&self.output, &source)?;
        let whole = Division::by_tensors(u64::MAX);
        Written::of(draft, &whole, &source, self.force, self.dry_run).map(Written::outcome)
    }
}
