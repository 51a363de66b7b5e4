//! `etalon convert`.

use std::path::{Path, PathBuf};

use codec::Encoding;
use convert::check::{Check, CheckOptions};
use convert::{Done, GgufOptions, Hashing, HfOptions, Mtp, Plan, ToGguf, ToHf, Why};
use format::Existing;
use format::gguf::Division;
use model::{Checkpoint, Dialect, Purpose};
use serde::Serialize;

use crate::arguments::{HeldExperts, ReceiptHash};
use crate::commands::{Outcome, check};
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
  etalon convert Qwen3.5-0.8B model.gguf --as-llama-cpp --receipt-hash sha256
  etalon convert Qwen3.5-0.8B vocab.gguf --vocab-only
  etalon convert Qwen3.5-35B-A3B parts/model.gguf --split-max-size 20G
  etalon convert model.gguf Qwen3.5-0.8B-back/ --shard-size 2G")]
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
    /// Write parts of at most so many bytes: 300M, 1.5G (thousands), 512MiB.
    #[arg(long, value_name = "SIZE", value_parser = crate::arguments::bytes)]
    split_max_size: Option<u64>,
    /// Choose and compute as llama.cpp's converter does where this one does otherwise (docs/convert.md has the list).
    #[arg(long)]
    as_llama_cpp: bool,
    /// How a Hugging Face checkpoint holds experts.
    #[arg(long, value_enum, default_value = "packed")]
    experts: HeldExperts,
    /// Most bytes in a file of a Hugging Face checkpoint, unless one tensor has more.
    #[arg(long, value_name = "SIZE", value_parser = crate::arguments::bytes, default_value = "5G")]
    shard_size: u64,
    /// Print what would be done with every tensor, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Where the receipt goes [default: OUTPUT.receipt.json].
    #[arg(long, value_name = "FILE", conflicts_with = "no_receipt")]
    receipt: Option<PathBuf>,
    /// Which hash the receipt gives of every file read and every tensor written.
    #[arg(long, value_enum, default_value = "blake3", conflicts_with = "no_receipt")]
    receipt_hash: ReceiptHash,
    /// Write no receipt, and hash nothing.
    #[arg(long)]
    no_receipt: bool,
    /// Do not compare the output with the source afterwards.
    #[arg(long)]
    no_check: bool,
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
    check: Option<Check>,
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let source = Checkpoint::open_for(&self.source, &format::Limits::default(), Purpose::Convert)?;
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
            (Dialect::Gguf, false) => self.to_hf(&source),
        }
    }

    fn to_gguf(&self, source: &Checkpoint) -> anyhow::Result<Outcome> {
        let options = GgufOptions {
            dtype: self.dtype.encoding(),
            mtp: self.mtp.into(),
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            vocab_only: self.vocab_only,
            division: self.split_max_size.map(Division::by_bytes),
            as_llama_cpp: self.as_llama_cpp,
        };
        let hashing = self.hashing(source)?;
        let conversion = ToGguf::new(source, &options)?;
        let (plan, notes) = (conversion.plan().clone(), conversion.notes().to_vec());
        self.convert(source, plan, notes, |existing, progress| {
            Ok(conversion.write(&self.output, existing, hashing, progress)?)
        })
    }

    fn to_hf(&self, source: &Checkpoint) -> anyhow::Result<Outcome> {
        let unfit = [
            ("--name", self.name.is_some()),
            ("--metadata", self.metadata.is_some()),
            ("--vocab-only", self.vocab_only),
            ("--split-max-size", self.split_max_size.is_some()),
            ("--as-llama-cpp", self.as_llama_cpp),
        ];
        if let Some((option, _)) = unfit.iter().find(|(_, given)| *given) {
            anyhow::bail!("{option} is for GGUF files; {} is to be a directory", self.output.display());
        }
        let options = HfOptions {
            dtype: self.dtype.encoding(),
            experts: self.experts.into(),
            mtp: self.mtp.into(),
            shard_bytes: self.shard_size,
        };
        let hashing = self.hashing(source)?;
        let conversion = ToHf::new(source, &options)?;
        let (plan, notes) = (conversion.plan().clone(), conversion.notes().to_vec());
        self.convert(source, plan, notes, |existing, progress| {
            Ok(conversion.write(&self.output, existing, hashing, progress)?)
        })
    }

    fn convert(
        &self,
        source: &Checkpoint,
        plan: Plan,
        notes: Vec<String>,
        write: impl FnOnce(Existing, &mut dyn FnMut(u64, u64)) -> anyhow::Result<Done>,
    ) -> anyhow::Result<Outcome> {
        if self.dry_run {
            return Ok(self.planned(&plan, &notes));
        }
        let receipt = self.receipt_path();
        let bar = Bar::new();
        bar.begin_bytes("converting", plan.bytes());
        let existing = if self.force { Existing::Replace } else { Existing::Refuse };
        let done = write(existing, &mut |done, _| eval::Progress::reached(&bar, done))?;
        drop(bar);
        if let (Some(written), Some(path)) = (&done.receipt, &receipt) {
            let text = serde_json::to_string_pretty(written)? + "\n";
            crate::file::write(path, text.as_bytes(), self.force)?;
        }
        let check = if self.no_check { None } else { Some(self.check(source, &done.output[0])?) };
        let failed = check.as_ref().is_some_and(|check| !check.passed);
        let converted = Converted {
            output: self.output.clone(),
            tensors: plan.tensors.len(),
            bytes: plan.bytes(),
            left: left(&plan),
            receipt,
            notes,
            check,
        };
        Ok(Outcome::new(converted, failed, converted_text))
    }

    /// Starts to hash what is read, if anything is to be written and its receipt to be kept: the sooner, the less is
    /// waited for. What may not be written is refused here, before any work.
    fn hashing(&self, source: &Checkpoint) -> anyhow::Result<Option<Hashing>> {
        if self.dry_run {
            return Ok(None);
        }
        convert::refuse_own_input(source.source(), &self.output)?;
        let receipt = self.receipt_path();
        self.refuse_taken(receipt.as_deref())?;
        let files = convert::files(source).into_iter().chain(self.metadata.clone());
        Ok(receipt.is_some().then(|| Hashing::start(files.collect(), self.receipt_hash.into())))
    }

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

    /// Opens what was written and compares it with what it was made of.
    fn check(&self, source: &Checkpoint, output: &Path) -> anyhow::Result<Check> {
        let mtp = Mtp::from(self.mtp);
        let part = self.vocab_only || mtp == Mtp::Only;
        let purpose = if part { Purpose::Part } else { Purpose::Run };
        let written = Checkpoint::open_for(output, &format::Limits::default(), purpose)?;
        let options = CheckOptions { without_mtp: mtp == Mtp::Drop, part };
        Ok(check::run(source, &written, options))
    }
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

fn converted_text(converted: &Converted, style: &Style) -> String {
    let Converted { output, tensors, bytes, left, receipt, notes, check } = converted;
    let mut lines = vec![format!("{}: {tensors} tensors, {bytes} bytes", output.display())];
    lines.extend(left.iter().map(|left| format!("  not converted: {left}")));
    lines.extend(notes.iter().map(|note| format!("  note: {note}")));
    lines.extend(receipt.iter().map(|path| format!("  receipt: {}", path.display())));
    match check {
        Some(check) if check.passed => lines.push(format!("  checked: {}", check::verdict(check))),
        Some(check) => lines.push(check::text(check, check::Listed::Failed, style).trim_end().to_owned()),
        None => lines.push("  not checked".to_owned()),
    }
    lines.join("\n") + "\n"
}
