//! `etalon quantize`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use codec::Encoding;
use convert::quantize::{
    Budget, Error, Figures, Importance, Job, Made, Model, Plan, RECIPES, Receipt, Request, Scheme, Set,
    Source, Wishes, ZeroCounts, find_recipe, parse_tensor_type, read_plan,
};
use eval::Progress;
use format::Existing;
use serde::Serialize;

use crate::arguments::ReceiptHash;
use crate::commands::Outcome;
use crate::render::{Bar, Column, Style, Table};

/// Encode a checkpoint's weights in fewer bits.
///
/// Encodings, bytes and keys are those of llama-quantize; each tensor comes with what it lost. SRC is a GGUF file or a
/// Hugging Face directory, which is converted on the way. DST appears when it is complete, with a receipt beside it.
///
/// NMSE is Σ(x−y)²/Σ(x−mean)², SQNR is Σx²/Σ(x−y)², both in dB.
///
/// Exit status: 0 all is well, 1 a tensor would fall back to another encoding and --no-fallback is given, 2 an error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon quantize model-bf16.gguf model-Q4_K_M.gguf Q4_K_M
  etalon quantize Qwen3.5-0.8B model.gguf IQ4_XS --imatrix imatrix.gguf --report report.html
  etalon quantize model.gguf out.gguf Q5_K_M --tensor-type 'ffn_down=q8_0' --output-tensor-type q8_0
  etalon quantize model.gguf out.gguf Q4_K_M --plan plan.json
  etalon quantize model.gguf out.gguf --from-plan plan.json
  etalon quantize model.gguf out.gguf --target-size 2.6GB --imatrix imatrix.gguf
  etalon quantize --list")]
pub struct Args {
    /// A GGUF file (any part of a split one), or a directory with config.json and safetensors.
    #[arg(required_unless_present = "list", value_name = "SRC")]
    source: Option<PathBuf>,
    /// The GGUF file to be.
    #[arg(required_unless_present = "list", value_name = "DST")]
    output: Option<PathBuf>,
    /// A recipe (see --list), its number, or COPY to change no encoding.
    #[arg(value_name = "RECIPE", required_unless_present_any = ["list", "from_plan", "target_size", "target_bpw"])]
    recipe: Option<String>,
    /// Print the recipes and write nothing.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    importance: ImportanceArgs,
    #[command(flatten)]
    choice: ChoiceArgs,
    #[command(flatten)]
    budget: BudgetArgs,
    /// Set a key: KEY=int:N, float:X, bool:B or str:TEXT; may be repeated.
    #[arg(long, value_name = "KEY=TYPE:VALUE", value_parser = parse_set)]
    override_kv: Vec<(String, Set)>,
    /// Leave these layers out and close the gaps.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    prune_layers: Vec<u64>,
    /// As many files as SRC has, DST-00001-of-0000N.gguf and so on.
    #[arg(long, conflicts_with = "prune_layers")]
    keep_split: bool,
    /// Print what would be made of every tensor and write nothing but that, as JSON, to FILE if one is named; it is what
    /// stands right behind --plan.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    plan: Option<Option<PathBuf>>,
    /// Fail, with all their names, if tensors would fall back because their rows are no whole blocks.
    #[arg(long)]
    no_fallback: bool,
    /// Draw what every tensor lost.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Where the receipt goes [default: DST.receipt.json].
    #[arg(long, value_name = "FILE", conflicts_with = "no_receipt")]
    receipt: Option<PathBuf>,
    /// Which hash the receipt gives of every file read and every tensor written.
    #[arg(long, value_enum, default_value = "blake3")]
    receipt_hash: ReceiptHash,
    /// Write no receipt, and hash nothing.
    #[arg(long)]
    no_receipt: bool,
    /// Also write into DST what was read and by which recipe, as the key etalon.quantize.receipt.
    #[arg(long)]
    receipt_key: bool,
    /// CPU threads [default: all]; the result is the same to the bit.
    #[arg(long, value_name = "N", value_parser = crate::arguments::threads)]
    threads: Option<usize>,
    /// Replace DST if it exists.
    #[arg(long)]
    force: bool,
}

/// What errors weigh.
#[derive(clap::Args)]
struct ImportanceArgs {
    /// An importance matrix: GGUF, or the older .dat.
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Weigh only tensors whose names hold this; may be repeated.
    #[arg(long, value_name = "PART", requires = "imatrix", conflicts_with = "exclude_weights")]
    include_weights: Vec<String>,
    /// Do not weigh tensors whose names hold this; may be repeated.
    #[arg(long, value_name = "PART", requires = "imatrix")]
    exclude_weights: Vec<String>,
    /// What to do about experts that no token reached; they are listed in any case.
    #[arg(long, value_enum, default_value = "uniform")]
    zero_counts: Unreached,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Unreached {
    /// Refuse.
    Error,
    /// Weigh all their columns the same, as llama-quantize does.
    Uniform,
    /// Weigh them as the layer's other experts on average.
    Neighbours,
}

/// Exceptions to the recipe.
#[derive(clap::Args)]
struct ChoiceArgs {
    /// Tensors whose names match get this encoding; may be repeated, the first that matches decides.
    #[arg(long, value_name = "REGEX=TYPE")]
    tensor_type: Vec<String>,
    /// The same from a file, one a line or with spaces between.
    #[arg(long, value_name = "FILE")]
    tensor_type_file: Option<PathBuf>,
    /// The encoding of the output matrix.
    #[arg(long, value_name = "TYPE", value_parser = encoding)]
    output_tensor_type: Option<Encoding>,
    /// The encoding of the embedding.
    #[arg(long, value_name = "TYPE", value_parser = encoding)]
    token_embedding_type: Option<Encoding>,
    /// One encoding for all: no exceptions but those asked for.
    #[arg(long)]
    pure: bool,
    /// Leave the output matrix as it is.
    #[arg(long)]
    leave_output_tensor: bool,
    /// Encode tensors anew that are quantized already.
    #[arg(long)]
    allow_requantize: bool,
    /// Encodings as a plan has them (JSON of --plan), or as in this GGUF file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipe", "pure", "tensor_type", "tensor_type_file", "output_tensor_type", "token_embedding_type", "leave_output_tensor"])]
    from_plan: Option<PathBuf>,
}

/// How small.
#[derive(clap::Args)]
struct BudgetArgs {
    /// Choose encodings by what they lose on these weights, so that all tensors take at most this: 2.6GB, 900MiB.
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with_all = ["recipe", "from_plan", "target_bpw", "pure", "output_tensor_type", "token_embedding_type"])]
    target_size: Option<u64>,
    /// The same for so many bits a weight on average.
    #[arg(long, value_name = "BITS", conflicts_with_all = ["recipe", "from_plan", "pure", "output_tensor_type", "token_embedding_type"])]
    target_bpw: Option<f64>,
    /// Where measured errors are kept, so that a second run goes on [default: DST.errors.json].
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

fn encoding(name: &str) -> Result<Encoding, String> {
    Encoding::from_name(name).ok_or_else(|| "expected an encoding's name, such as q8_0 or Q4_K".to_owned())
}

fn parse_set(text: &str) -> Result<(String, Set), String> {
    Set::parse(text).map_err(|error| error.to_string())
}

/// Bytes, with a decimal (MB, GB) or binary (MiB, GiB) unit.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as 2.6GB, 900MiB or 123456".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A recipe, of --list.
#[derive(Serialize)]
struct Listed {
    name: &'static str,
    aliases: &'static [&'static str],
    base: &'static str,
    summary: &'static str,
}

/// What would be done.
#[derive(Serialize)]
struct PlanReport {
    output: PathBuf,
    bytes: u64,
    bits_per_weight: f64,
    #[serde(flatten)]
    plan: Plan,
    notes: Vec<String>,
    /// Tensors that --no-fallback refuses.
    refused: Vec<String>,
}

/// What was done.
#[derive(Serialize)]
struct Quantized {
    #[serde(flatten)]
    receipt: Receipt,
    receipt_file: Option<PathBuf>,
    report: Option<PathBuf>,
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        if self.list {
            let listed = RECIPES.iter().map(|recipe| Listed {
                name: recipe.name,
                aliases: recipe.aliases,
                base: recipe.base.name(),
                summary: recipe.summary,
            });
            return Ok(Outcome::fine(listed.collect::<Vec<_>>(), |recipes, _| list(recipes)));
        }
        let threads = rayon::ThreadPoolBuilder::new().num_threads(self.threads.unwrap_or(0));
        threads.build_global().context("cannot start threads")?;
        self.quantize()
    }

    fn quantize(&self) -> anyhow::Result<Outcome> {
        let source = self.source.as_deref().context("no source")?;
        let output = self.output.as_deref().context("no output")?;
        let source = Source::open(source)?;
        let small =
            [self.plan.as_ref().and_then(Option::as_deref), self.report.as_deref(), self.receipt.as_deref()];
        small.into_iter().flatten().try_for_each(|file| source.refuse_output(file))?;
        let model = Model::new(&source)?;
        let mut importance = self.importance()?;
        let mut notes = Vec::new();
        if let Some(importance) = &mut importance {
            notes.extend(about_importance(importance, &model)?);
        }
        let receipt_file =
            (!self.no_receipt).then(|| beside(self.receipt.as_deref(), output, "receipt.json"));
        if self.plan.is_none() {
            // Before errors are measured for minutes. A split output is looked for when its parts are known.
            let whole = (!self.keep_split).then_some(output);
            let files = receipt_file.as_deref().into_iter().chain(self.report.as_deref());
            self.refuse_existing(files.chain(whole))?;
        }
        let request = self.request(&model, importance.as_ref())?;
        let job = Job::new(&model, &request, importance.as_ref())?;
        let refused: Vec<String> = match self.no_fallback {
            true => job.plan().fallbacks().map(|tensor| tensor.name.clone()).collect(),
            false => Vec::new(),
        };
        if self.plan.is_some() || !refused.is_empty() {
            return self.planned(output, &job, notes, refused);
        }
        if self.budget.is_asked_for() {
            // What was chosen is to be seen before it is made; standard output is the report's.
            eprint!("{}", plan_text(&PlanReport::new(output, &job, Vec::new(), refused), &Style::plain()));
        }
        let existing = if self.force { Existing::Replace } else { Existing::Refuse };
        let bar = Bar::new();
        bar.begin(&format!("quantizing to {}", job.plan().recipe), job.plan().bytes());
        let mut receipt = job.write(
            output,
            existing,
            receipt_file.is_some().then(|| self.receipt_hash.into()),
            self.receipt_key.then(|| self.receipt_hash.into()),
            &mut |done, _| bar.reached(done),
        )?;
        drop(bar);
        receipt.notes.splice(0..0, notes);
        if let Some(file) = &receipt_file {
            crate::file::write(file, serde_json::to_string_pretty(&receipt)?.as_bytes(), self.force)?;
        }
        if let Some(file) = &self.report {
            crate::file::write(file, crate::quantize_page::html(&receipt).as_bytes(), self.force)?;
        }
        let quantized = Quantized { receipt, receipt_file, report: self.report.clone() };
        Ok(Outcome::fine(quantized, text))
    }

    fn refuse_existing<'a>(&self, files: impl Iterator<Item = &'a Path>) -> anyhow::Result<()> {
        for file in files {
            anyhow::ensure!(
                self.force || file.symlink_metadata().is_err(),
                "{}: exists already; remove it, write elsewhere, or give --force",
                file.display()
            );
        }
        Ok(())
    }

    fn importance(&self) -> anyhow::Result<Option<Importance>> {
        let Some(path) = &self.importance.imatrix else { return Ok(None) };
        let policy = match self.importance.zero_counts {
            Unreached::Error => ZeroCounts::Error,
            Unreached::Uniform => ZeroCounts::Uniform,
            Unreached::Neighbours => ZeroCounts::Neighbours,
        };
        let mut importance = Importance::open(path, policy)?;
        importance.filter(&self.importance.include_weights, &self.importance.exclude_weights);
        Ok(Some(importance))
    }

    fn request(&self, model: &Model<'_>, importance: Option<&Importance>) -> anyhow::Result<Request> {
        let mut wishes = Wishes {
            output: self.choice.output_tensor_type,
            embedding: self.choice.token_embedding_type,
            pure: self.choice.pure,
            leave_output: self.choice.leave_output_tensor,
            allow_requantize: self.choice.allow_requantize,
            ..Wishes::default()
        };
        for wish in &self.choice.tensor_type {
            wishes.tensor_types.push(parse_tensor_type(wish)?);
        }
        if let Some(file) = &self.choice.tensor_type_file {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| format!("cannot read {}", file.display()))?;
            for wish in text.split_whitespace() {
                let wish = parse_tensor_type(wish).with_context(|| file.display().to_string())?;
                wishes.tensor_types.push(wish);
            }
        }
        let mut request = Request {
            wishes,
            overrides: self.override_kv.clone(),
            prune: self.prune_layers.clone(),
            keep_split: self.keep_split,
            ..Request::of(Scheme::Copy)
        };
        if let Some(file) = &self.choice.from_plan {
            let (given, file_type) = read_plan(file)?;
            request.wishes.given = Some(given);
            request.file_type = file_type;
            request.called = Some(format!("plan {}", file.display()));
        } else if let Some(name) = &self.recipe {
            request.scheme = scheme(name)?;
        } else {
            let budget = match (self.budget.target_size, self.budget.target_bpw) {
                (Some(bytes), _) => Budget::Bytes(bytes),
                (None, Some(bits)) => Budget::BitsPerWeight(bits),
                (None, None) => anyhow::bail!("no recipe: name one (--list), a plan, or a size"),
            };
            let output = self.output.as_deref().context("no output")?;
            let state = beside(self.budget.state.as_deref(), output, "errors.json");
            let bar = Bar::new();
            bar.begin("measuring losses", 1);
            let mut begun = false;
            let fitted = model.fit(budget, &request, importance, &state, &mut |done, total| {
                if !std::mem::replace(&mut begun, true) {
                    bar.begin("measuring losses", total);
                }
                bar.reached(done);
            })?;
            request.wishes.given = Some(fitted.given);
            request.file_type = fitted.file_type;
            request.called = Some(match budget {
                Budget::Bytes(bytes) => format!("at most {bytes} bytes"),
                Budget::BitsPerWeight(bits) => format!("at most {bits} bits a weight"),
            });
        }
        Ok(request)
    }

    fn planned(
        &self,
        output: &Path,
        job: &Job<'_>,
        notes: Vec<String>,
        refused: Vec<String>,
    ) -> anyhow::Result<Outcome> {
        if let Some(Some(file)) = &self.plan {
            crate::file::write(file, serde_json::to_string_pretty(job.plan())?.as_bytes(), self.force)?;
        }
        let failed = !refused.is_empty();
        Ok(Outcome::new(PlanReport::new(output, job, notes, refused), failed, plan_text))
    }
}

impl BudgetArgs {
    fn is_asked_for(&self) -> bool {
        self.target_size.is_some() || self.target_bpw.is_some()
    }
}

impl PlanReport {
    fn new(output: &Path, job: &Job<'_>, notes: Vec<String>, refused: Vec<String>) -> PlanReport {
        let plan = job.plan().clone();
        PlanReport {
            output: output.to_owned(),
            bytes: plan.bytes(),
            bits_per_weight: plan.bits_per_weight(),
            plan,
            notes,
            refused,
        }
    }
}

fn scheme(name: &str) -> Result<Scheme, Error> {
    if name.eq_ignore_ascii_case("COPY") {
        return Ok(Scheme::Copy);
    }
    find_recipe(name)
        .map(Scheme::Recipe)
        .map_err(|nearest| Error::NoRecipe { name: name.to_owned(), nearest })
}

fn beside(named: Option<&Path>, output: &Path, extension: &str) -> PathBuf {
    named.map_or_else(
        || {
            let mut name = output.as_os_str().to_owned();
            name.push(".");
            name.push(extension);
            name.into()
        },
        Path::to_owned,
    )
}

/// Holds it against the model, and says what should be known about it.
fn about_importance(importance: &mut Importance, model: &Model<'_>) -> Result<Vec<String>, Error> {
    let unknown = model.check_importance(importance)?;
    Ok(match unknown.as_slice() {
        [] => Vec::new(),
        [first, rest @ ..] => {
            vec![format!(
                "the importance matrix is also about {first} and {} more tensors, which are not there",
                rest.len()
            )]
        }
    })
}

fn list(recipes: &[Listed]) -> String {
    let mut table = Table::new(&[Column::Left("recipe"), Column::Left("base"), Column::Left("")]);
    for recipe in recipes {
        let names: Vec<&str> = std::iter::once(recipe.name).chain(recipe.aliases.iter().copied()).collect();
        table.row([names.join(", "), recipe.base.to_owned(), recipe.summary.to_owned()]);
    }
    table.row(["COPY".to_owned(), "-".to_owned(), "no encoding is changed".to_owned()]);
    table.lines().join("\n") + "\n"
}

fn plan_text(report: &PlanReport, style: &Style) -> String {
    let mut table = Table::new(&[
        Column::Left("tensor"),
        Column::Left("shape"),
        Column::Left("from"),
        Column::Left("to"),
        Column::Right("bytes"),
        Column::Left("why"),
    ]);
    for tensor in &report.plan.tensors {
        table.row([
            tensor.name.clone(),
            format::Shape::new(tensor.shape.clone()).to_string(),
            tensor.from.to_string(),
            tensor.to.to_string() + if tensor.weighed { " (weighed)" } else { "" },
            tensor.bytes.to_string(),
            tensor.why.clone(),
        ]);
    }
    let mut lines = table.lines();
    lines[0] = style.bold(&lines[0]);
    lines.push(String::new());
    lines.push(total(&report.plan.recipe, report.plan.tensors.len(), report.bytes, report.bits_per_weight));
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    if !report.refused.is_empty() {
        let refused = format!("--no-fallback: rows are no whole blocks in {}", report.refused.join(", "));
        lines.push(style.red(&refused));
    }
    lines.join("\n") + "\n"
}

fn total(recipe: &str, tensors: usize, bytes: u64, bits: f64) -> String {
    format!("{recipe}: {tensors} tensors, {:.1} MiB, {bits:.3} bits a weight", bytes as f64 / 1_048_576.0)
}

/// How many of the worst are named.
const WORST: usize = 8;

fn text(quantized: &Quantized, style: &Style) -> String {
    let Quantized { receipt, receipt_file, report } = quantized;
    let mut table = Table::new(&[
        Column::Left("tensor"),
        Column::Left("from"),
        Column::Left("to"),
        Column::Right("bpw"),
        Column::Right("rmse"),
        Column::Right("max error"),
        Column::Right("NMSE dB"),
        Column::Right("SQNR dB"),
    ]);
    receipt.tensors.iter().for_each(|made| table.row(row(made)));
    let mut lines = table.lines();
    lines[0] = style.bold(&lines[0]);
    let worst = worst(&receipt.tensors);
    if !worst.is_empty() {
        lines.push(String::new());
        lines.push(style.bold("worst by NMSE"));
        for (made, figures) in worst.iter().take(WORST) {
            let nmse = decibels(figures.nmse_db);
            lines.push(format!("  {nmse:>7} dB  {} ({})", made.planned.name, made.planned.to));
        }
    }
    lines.push(String::new());
    lines.push(total(&receipt.recipe, receipt.tensors.len(), receipt.bytes, receipt.bits_per_weight));
    lines.extend(receipt.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(receipt.output.iter().map(|output| format!("wrote {}", output.display())));
    lines.extend(receipt_file.iter().chain(report).map(|file| format!("wrote {}", file.display())));
    lines.join("\n") + "\n"
}

/// Tensors that lost something, those that lost most first.
pub fn worst(tensors: &[Made]) -> Vec<(&Made, Figures)> {
    let mut lost: Vec<(&Made, Figures)> =
        tensors.iter().filter_map(|made| Some((made, made.figures?))).collect();
    lost.retain(|(_, figures)| figures.nmse_db.is_some());
    lost.sort_by(|(_, a), (_, b)| b.nmse_db.partial_cmp(&a.nmse_db).unwrap_or(std::cmp::Ordering::Equal));
    lost
}

fn row(made: &Made) -> [String; 8] {
    let name = made.planned.name.clone();
    let (from, to) = (made.planned.from.to_string(), made.planned.to.to_string());
    let bits = format!("{:.3}", made.bits_per_weight);
    match made.figures {
        None => {
            [name, from, "copied".into(), bits, String::new(), String::new(), String::new(), String::new()]
        }
        Some(figures) => [
            name,
            from,
            to + if made.planned.weighed { "*" } else { "" },
            bits,
            format!("{:.3e}", figures.rmse),
            format!("{:.3e}", figures.max_error),
            decibels(figures.nmse_db),
            decibels(figures.sqnr_db),
        ],
    }
}

/// Decibels, or a dash for no loss.
pub fn decibels(decibels: Option<f64>) -> String {
    decibels.map_or("-".to_owned(), |db| format!("{db:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("2.6GB"), Ok(2_600_000_000));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(size("123"), Ok(123));
        for wrong in ["", "GB", "1.2.3MB", "5 parsecs", "-1MB", "0"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
