//! `etalon split`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use eval::Progress;
use format::gguf::{Division, Draft, Reader};
use format::{Existing, Limits, Metadata, PlannedFile, TensorSource, safetensors};
use serde::Serialize;

use crate::commands::Outcome;
use crate::render::{Bar, Column, Style, Table};

/// Split a checkpoint into parts of bounded size, or divide a split one anew.
///
/// The keys of a GGUF file stay in the first part; every reader opens the whole by that one. Safetensors become shards and
/// their index in a directory; other files of a checkpoint are not copied. The bound counts tensors, not keys, and a tensor
/// larger than it has a part of its own.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon split model.gguf parts/model.gguf --max-size 2G
  etalon split model.gguf model --max-tensors 128 --keys-alone
  etalon split model.gguf model --max-size 500MiB --dry-run
  etalon split Qwen3.5-0.8B shards --max-size 500M")]
#[command(group(clap::ArgGroup::new("bound").required(true)))]
pub struct Args {
    /// A GGUF file, any part of a split one, a safetensors file or a directory with such files.
    input: PathBuf,
    /// Parts are named after this: NAME or NAME.gguf becomes NAME-00001-of-00003.gguf. Of safetensors, the directory that
    /// receives model-00001-of-00003.safetensors.
    #[arg(value_name = "NAME")]
    output: PathBuf,
    /// Most bytes of tensors in a part: 300M, 1.5G (thousands), 512MiB.
    #[arg(long, value_name = "SIZE", value_parser = crate::arguments::bytes, group = "bound")]
    max_size: Option<u64>,
    /// Most tensors in a part of a GGUF file.
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
        let source = format::open(&self.input, &Limits::default())?;
        if matches!(source.metadata(), Metadata::Safetensors(_)) {
            return self.shards(source.as_ref());
        }
        let source = Reader::open(&self.input, &Limits::default())?;
        let division = match (self.max_size, self.max_tensors) {
            (Some(bytes), _) => Division::by_bytes(bytes),
            (None, tensors) => Division::by_tensors(tensors.unwrap_or(u64::MAX)),
        };
        let draft = Draft::like(&self.output, &source)?;
        let division = division.with_keys_alone(self.keys_alone);
        Written::of(draft, &division, &source, self.force, self.dry_run).map(Written::outcome)
    }

    fn shards(&self, source: &dyn TensorSource) -> anyhow::Result<Outcome> {
        let Some(bytes) = self.max_size.filter(|_| !self.keys_alone) else {
            anyhow::bail!(
                "--max-tensors and --keys-alone are for GGUF files: expected --max-size for safetensors"
            );
        };
        let draft = safetensors::Draft::like(&self.output, source)?;
        let files = draft.plan_sharded(bytes)?;
        if !self.dry_run {
            let made = !self.output.exists();
            fs::create_dir_all(&self.output)
                .with_context(|| format!("cannot make the directory {}", self.output.display()))?;
            let written = copy(source, |existing| draft.create_sharded(bytes, existing), self.force);
            if written.is_err() && made {
                // Empty again, as writers leave nothing behind; the error that stopped us is the one to report.
                let _ = fs::remove_dir(&self.output);
            }
            written?;
        }
        Ok(Written::new(files, self.dry_run).outcome())
    }
}

/// Copies every tensor into files of safetensors.
pub fn copy(
    source: &dyn TensorSource,
    create: impl FnOnce(Existing) -> Result<safetensors::Writer, format::Error>,
    force: bool,
) -> anyhow::Result<()> {
    let bar = Bar::new();
    bar.begin("copying tensors", source.tensors().iter().map(|info| info.size).sum());
    let mut writer = create(if force { Existing::Replace } else { Existing::Refuse })?;
    writer.copy(source, &mut |done| bar.reached(done))?;
    Ok(writer.finish()?)
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
        Ok(Written::new(planned, dry_run))
    }

    /// What was planned, and done unless it is a dry run.
    pub fn new(planned: Vec<PlannedFile>, dry_run: bool) -> Written {
        let file = |PlannedFile { path, tensors, bytes }| File { path, tensors: tensors.len(), bytes };
        Written { dry_run, files: planned.into_iter().map(file).collect() }
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
