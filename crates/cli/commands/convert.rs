//! `etalon convert`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use codec::Encoding;
use convert::{GgufOptions, Mtp, Plan, Receipt, ToGguf, Why};
use format::Existing;
use model::{Checkpoint, Dialect};
use serde::Serialize;

use crate::commands::Outcome;
use crate::render::{Bar, Column, Style, Table};

/// Convert a Hugging Face checkpoint to GGUF, and back.
///
/// Tensors, keys and their order are those of llama.cpp's converter. Every tensor of the source is accounted for.
/// The output appears when it is complete, and a receipt beside it says what was read, done and written.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon convert Qwen3.5-0.8B model.gguf
  etalon convert Qwen3.5-0.8B model.gguf --type q8_0 --mtp drop --name 'Qwen3.5 0.8B'
  etalon convert Qwen3.5-0.8B model.gguf --dry-run
  etalon convert Qwen3.5-0.8B vocab.gguf --vocab-only")]
pub struct Args {
    /// A directory with config.json and safetensors, or a GGUF file (any part of a split one).
    source: PathBuf,
    /// Where to: a file that ends in .gguf, or a directory for a Hugging Face checkpoint.
    output: PathBuf,
    /// What matrices are stored in; auto is what most of the source's are in.
    #[arg(long = "type", visible_alias = "dtype", value_enum, default_value = "auto")]
    dtype: Dtype,
    /// What becomes of multi-token-prediction blocks.
    #[arg(long, value_enum, default_value = "keep")]
    mtp: Blocks,
    /// The model's name, instead of what the folder is called.
    #[arg(long)]
    name: Option<String>,
    /// A JSON file of general.* keys, which win over what is found in the source.
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    /// Write keys and vocabulary only, without tensors.
    #[arg(long)]
    vocab_only: bool,
    /// Print what would be done with every tensor, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Where the receipt goes [default: OUTPUT.receipt.json].
    #[arg(long, value_name = "FILE", conflicts_with = "no_receipt")]
    receipt: Option<PathBuf>,
    /// Write no receipt, and hash nothing.
    #[arg(long)]
    no_receipt: bool,
    /// Replace the output if it exists.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Dtype {
    Auto,
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl Dtype {
    fn encoding(self) -> Option<Encoding> {
        match self {
            Dtype::Auto => None,
            Dtype::F32 => Some(Encoding::F32),
            Dtype::F16 => Some(Encoding::F16),
            Dtype::Bf16 => Some(Encoding::BF16),
            Dtype::Q8_0 => Some(Encoding::Q8_0),
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Blocks {
    /// Convert them with the rest.
    Keep,
    /// Leave them out.
    Drop,
    /// Convert only them, with embedding, final norm and head.
    Only,
}

impl From<Blocks> for Mtp {
    fn from(blocks: Blocks) -> Mtp {
        match blocks {
            Blocks::Keep => Mtp::Keep,
            Blocks::Drop => Mtp::Drop,
            Blocks::Only => Mtp::Only,
        }
    }
}

/// What will be done, of a dry run.
#[derive(Serialize)]
struct Planned {
    source: PathBuf,
    output: PathBuf,
    bytes: u64,
    #[serde(flatten)]
    plan: Plan,
    notes: Vec<String>,
}

/// What was done.
#[derive(Serialize)]
struct Converted {
    output: PathBuf,
    tensors: usize,
    bytes: u64,
    left: Vec<String>,
    receipt: Option<PathBuf>,
    notes: Vec<String>,
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let source = Checkpoint::open(&self.source, &format::Limits::default())?;
        let to_gguf = self.output.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        match (source.layout().dialect, to_gguf) {
            (Dialect::Hf { .. }, true) => self.to_gguf(&source),
            (Dialect::Hf { .. }, false) => anyhow::bail!(
                "{}: a GGUF file is to end in .gguf (the source is a Hugging Face checkpoint already)",
                self.output.display()
            ),
            (Dialect::Gguf, true) => anyhow::bail!(
                "both {} and {} are GGUF; `etalon quantize` changes the types of a GGUF file",
                self.source.display(),
                self.output.display()
            ),
            (Dialect::Gguf, false) => {
                anyhow::bail!("{}: only Hugging Face checkpoints are converted", self.source.display())
            }
        }
    }

    fn to_gguf(&self, source: &Checkpoint) -> anyhow::Result<Outcome> {
        let options = GgufOptions {
            dtype: self.dtype.encoding(),
            mtp: self.mtp.into(),
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            vocab_only: self.vocab_only,
        };
        let conversion = ToGguf::new(source, &options)?;
        if self.dry_run {
            return Ok(self.planned(conversion.plan(), conversion.notes()));
        }
        convert::refuse_own_input(source.source(), &self.output)?;
        let receipt = self.receipt_path();
        let plan = conversion.plan().clone();
        let notes = conversion.notes().to_vec();
        self.refuse_taken(receipt.as_deref())?;
        let bar = Bar::new();
        bar.begin_bytes("converting", plan.bytes());
        let progress = &mut |done, _| eval::Progress::reached(&bar, done);
        let written = conversion.write(&self.output, self.existing(), receipt.is_some(), progress)?;
        drop(bar);
        self.converted(&plan, notes, written.as_ref(), receipt)
    }

    fn existing(&self) -> Existing {
        if self.force { Existing::Replace } else { Existing::Refuse }
    }

    /// Before any work: it would be a pity to find out after it.
    fn refuse_taken(&self, receipt: Option<&Path>) -> anyhow::Result<()> {
        for path in [Some(self.output.as_path()), receipt].into_iter().flatten() {
            anyhow::ensure!(
                self.force || path.symlink_metadata().is_err(),
                "{}: exists already; remove it, write elsewhere, or replace it with --force",
                path.display()
            );
        }
        Ok(())
    }

    fn receipt_path(&self) -> Option<PathBuf> {
        if self.no_receipt {
            return None;
        }
        let beside = || {
            let mut name = self.output.file_name().unwrap_or_default().to_owned();
            name.push(".receipt.json");
            self.output.with_file_name(name)
        };
        Some(self.receipt.clone().unwrap_or_else(beside))
    }

    fn planned(&self, plan: &Plan, notes: &[String]) -> Outcome {
        let planned = Planned {
            source: self.source.clone(),
            output: self.output.clone(),
            bytes: plan.bytes(),
            plan: plan.clone(),
            notes: notes.to_vec(),
        };
        Outcome::fine(planned, planned_text)
    }

    fn converted(
        &self,
        plan: &Plan,
        notes: Vec<String>,
        written: Option<&Receipt>,
        receipt: Option<PathBuf>,
    ) -> anyhow::Result<Outcome> {
        if let (Some(receipt), Some(path)) = (written, &receipt) {
            write_receipt(receipt, path)?;
        }
        let converted = Converted {
            output: self.output.clone(),
            tensors: plan.tensors.len(),
            bytes: plan.bytes(),
            left: left(plan),
            receipt,
            notes,
        };
        Ok(Outcome::fine(converted, converted_text))
    }
}

fn write_receipt(receipt: &Receipt, path: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(receipt)? + "\n";
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.persist(path).map_err(|error| error.error)
    };
    write().map(drop).with_context(|| format!("cannot write the receipt {}", path.display()))
}

/// What is not converted, a line a reason.
fn left(plan: &Plan) -> Vec<String> {
    let reasons = [
        (Why::Vision, "of the vision tower, which GGUF keeps in a file of its own"),
        (Why::TiedHead, "beside tied embeddings: the embedding is the head"),
        (Why::Dropped, "left out by request"),
    ];
    let line = |(why, text): (Why, &str)| {
        let count = plan.left.iter().filter(|left| left.why == why).count();
        (count > 0).then(|| format!("{count} {}: {text}", if count == 1 { "tensor" } else { "tensors" }))
    };
    reasons.into_iter().filter_map(line).collect()
}

fn planned_text(planned: &Planned, style: &Style) -> String {
    let mut table = Table::new(&[
        Column::Left("tensor"),
        Column::Left("shape"),
        Column::Left("encoding"),
        Column::Right("bytes"),
        Column::Left("from"),
        Column::Left("transform"),
    ]);
    for tensor in &planned.plan.tensors {
        let from = match tensor.from.as_slice() {
            [first, .., last] => format!("{first} … {last}"),
            few => few.concat(),
        };
        table.row([
            tensor.name.clone(),
            format::Shape::new(tensor.shape.clone()).to_string(),
            format!("{} → {}", tensor.source_encodings.join(","), tensor.encoding),
            tensor.bytes.to_string(),
            from,
            tensor.transform.clone(),
        ]);
    }
    let mut lines = vec![style.bold(&format!("{} → {}", planned.source.display(), planned.output.display()))];
    lines.extend(table.lines());
    for left in &planned.plan.left {
        let why = match left.why {
            Why::Vision => "vision",
            Why::TiedHead => "tied head",
            Why::Dropped => "dropped",
        };
        lines.push(style.dim(&format!("not converted ({why}): {} ({} bytes)", left.name, left.bytes)));
    }
    lines.extend(planned.notes.iter().map(|note| format!("note: {note}")));
    lines.push(format!("{} tensors, {} bytes", planned.plan.tensors.len(), planned.bytes));
    lines.join("\n") + "\n"
}

fn converted_text(converted: &Converted, _: &Style) -> String {
    let Converted { output, tensors, bytes, left, receipt, notes } = converted;
    let mut lines = vec![format!("{}: {tensors} tensors, {bytes} bytes", output.display())];
    lines.extend(left.iter().map(|left| format!("  not converted: {left}")));
    lines.extend(notes.iter().map(|note| format!("  note: {note}")));
    lines.extend(receipt.iter().map(|path| format!("  receipt: {}", path.display())));
    lines.join("\n") + "\n"
}
