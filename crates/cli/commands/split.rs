//! `etalon split`.

use std::path::PathBuf;

use eval::Progress;
use format::gguf::{Division, Draft, PlannedFile, Reader};
use format::{Existing, Limits, TensorSource};
use serde::Serialize;

use crate::commands::Outcome;
use crate::render::{Bar, Column, Style, Table};

/// Split a GGUF file into parts of bounded size, or divide a split one anew.
///
/// Keys stay in the first part; every reader opens the whole by that one. The bound counts tensors, not keys, and a
/// tensor larger than it has a part of its own.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon split model.gguf parts/model.gguf --max-size 2G
  etalon split model.gguf model --max-tensors 128 --keys-alone
  etalon split model.gguf model --max-size 500MiB --dry-run")]
#[command(group(clap::ArgGroup::new("bound").required(true)))]
pub struct Args {
    /// A GGUF file; any part of a split one.
    input: PathBuf,
    /// Parts are named after this: NAME or NAME.gguf becomes NAME-00001-of-00003.gguf.
    #[arg(value_name = "NAME")]
    output: PathBuf,
    /// Most bytes of tensors in a part: 300M, 1.5G (thousands), 512MiB.
    #[arg(long, value_name = "SIZE", value_parser = crate::arguments::bytes, group = "bound")]
    max_size: Option<u64>,
    /// Most tensors in a part.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), group = "bound")]
    max_tensors: Option<u64>,
    /// Put keys into a first part of their own, so that a change of keys touches a small file only.
    #[arg(long)]
    keys_alone: bool,
    /// Print the parts and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

/// Files that were written, or would be.
#[derive(Serialize)]
pub struct Written {
    dry_run: bool,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    path: PathBuf,
    tensors: usize,
    bytes: u64,
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let source = Reader::open(&self.input, &Limits::default())?;
        let division = match (self.max_size, self.max_tensors) {
            (Some(bytes), _) => Division::by_bytes(bytes),
            (None, tensors) => Division::by_tensors(tensors.unwrap_or(u64::MAX)),
        };
        let draft = Draft::like(&self.output, &source)?;
        let division = division.with_keys_alone(self.keys_alone);
        Written::of(draft, &division, &source, self.force, self.dry_run).map(Written::outcome)
    }
}

impl Written {
    /// Copies every tensor of `source` into the files of a draft.
    pub fn of(
        draft: Draft,
        division: &Division,
        source: &Reader,
        force: bool,
        dry_run: bool,
    ) -> anyhow::Result<Written> {
        let planned = draft.plan(division)?;
        if !dry_run {
            let existing = if force { Existing::Replace } else { Existing::Refuse };
            let bar = Bar::new();
            bar.begin("copying tensors", source.tensors().iter().map(|info| info.size).sum());
            let mut writer = draft.create_split(division, existing)?;
            writer.copy(source, &mut |done| bar.reached(done))?;
            writer.finish()?;
        }
        let file = |PlannedFile { path, tensors, bytes }| File { path, tensors: tensors.len(), bytes };
        Ok(Written { dry_run, files: planned.into_iter().map(file).collect() })
    }

    pub fn outcome(self) -> Outcome {
        Outcome::fine(self, text)
    }
}

fn text(written: &Written, style: &Style) -> String {
    let mut table = Table::new(&[Column::Left("file"), Column::Right("tensors"), Column::Right("bytes")]);
    for File { path, tensors, bytes } in &written.files {
        table.row([path.display().to_string(), tensors.to_string(), bytes.to_string()]);
    }
    let mut lines = table.lines();
    lines[0] = style.bold(&lines[0]);
    if written.dry_run {
        lines.push("nothing was written".to_owned());
    }
    lines.join("\n") + "\n"
}
