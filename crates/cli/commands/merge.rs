//! `etalon merge`.

use std::path::PathBuf;

use format::Limits;
use format::gguf::{Division, Draft, Reader};

use crate::commands::Outcome;
use crate::commands::split::Written;

/// Merge the parts of a split GGUF file into one file.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon merge model-00001-of-00003.gguf model.gguf
  etalon merge model-00001-of-00003.gguf model.gguf --dry-run")]
pub struct Args {
    /// Any part of a split GGUF file; the others lie beside it.
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
        let source = Reader::open(&self.input, &Limits::default())?;
        let draft = Draft::like(&self.output, &source)?;
        let whole = Division::by_tensors(u64::MAX);
        Written::of(draft, &whole, &source, self.force, self.dry_run).map(Written::outcome)
    }
}
