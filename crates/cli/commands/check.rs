//! `etalon check`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use convert::check::{Check, CheckOptions, Checked, Status};
use model::{Checkpoint, Purpose};

use crate::commands::Outcome;
use crate::page::{Cell, Page};
use crate::render::{Bar, Column, Style, Table};

/// Say whether two checkpoints are the same model, weight by weight.
///
/// Any two of Hugging Face and GGUF, in any encoding. Every weight is identical, explained by a named transform, within
/// the error of its encoding, or not: then what gives the difference away is said. Configuration and tokenizer are
/// compared, too. Exit status: 0 the same, 1 not, 2 an error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon check Qwen3.5-0.8B model.gguf
  etalon check model-f32.gguf model-q4_k_m.gguf --only failed
  etalon check Qwen3.5-0.8B model.gguf --html report.html --json | jq .passed")]
pub struct Args {
    /// The one that is trusted: a directory with config.json and safetensors, or a GGUF file.
    a: PathBuf,
    /// The one that is in question.
    b: PathBuf,
    /// Multi-token-prediction blocks that only one of the two has are no difference.
    #[arg(long)]
    without_mtp: bool,
    /// The other is a GGUF file of a part of the model, such as a vocabulary: compare what it holds.
    #[arg(long)]
    part: bool,
    /// Which weights to list.
    #[arg(long, value_enum, default_value = "changed")]
    only: Listed,
    /// Write the report as a page, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Replace the page if it exists.
    #[arg(long)]
    force: bool,
}

/// Which weights are listed.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub enum Listed {
    All,
    /// Those that are not identical.
    Changed,
    /// Those that are not the same.
    Failed,
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let open = |path, purpose| Checkpoint::open_for(path, &format::Limits::default(), purpose);
        let purpose = if self.part { Purpose::Part } else { Purpose::Convert };
        let (a, b) = (open(&self.a, Purpose::Convert)?, open(&self.b, purpose)?);
        let options = CheckOptions { without_mtp: self.without_mtp, part: self.part };
        let check = run(&a, &b, options);
        if let Some(path) = &self.html {
            crate::file::write(path, page(&check).as_bytes(), self.force)?;
        }
        let (failed, only) = (!check.passed, self.only);
        Ok(Outcome::new(check, failed, move |check, style| text(check, only, style)))
    }
}

/// Compares two checkpoints and shows how far it is.
pub fn run(a: &Checkpoint, b: &Checkpoint, options: CheckOptions) -> Check {
    let bar = Bar::new();
    bar.begin_bytes("checking", b.source().tensors().iter().map(|info| info.size).sum());
    convert::check::check(a, b, options, &mut |done, _| eval::Progress::reached(&bar, done))
}

const COLUMNS: &[Column] = &[
    Column::Left("status"),
    Column::Left("tensor"),
    Column::Left("in the other"),
    Column::Left("encoding"),
    Column::Right("rmse"),
    Column::Right("bound"),
    Column::Left("evidence"),
];

fn row(weight: &Checked) -> [String; 7] {
    let names = |names: &[String]| names.join(" … ");
    let number = |number: Option<f64>| number.map_or(String::new(), |number| format!("{number:.2e}"));
    let [a, b] = weight.encodings.each_ref().map(|encodings| encodings.join(","));
    let encoding = if a == b || b.is_empty() { a } else { format!("{a} → {b}") };
    [
        weight.status.name().to_owned(),
        names(&weight.a),
        names(&weight.b),
        encoding,
        number(weight.rmse),
        number(weight.bound),
        weight.evidence.clone(),
    ]
}

/// How many weights have each status that any has.
fn counts(check: &Check) -> Vec<(Status, usize)> {
    let mut counts = BTreeMap::new();
    for weight in &check.weights {
        *counts.entry(weight.status).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

/// The judgement in one line.
pub fn verdict(check: &Check) -> String {
    let counts: Vec<String> =
        counts(check).iter().map(|(status, count)| format!("{count} {}", status.name())).collect();
    let settings = |what: &str, count: usize| match count {
        0 => format!("{what} the same"),
        count => format!("{what} DIFFERS in {count}"),
    };
    format!(
        "{}: {}; {}, {}",
        if check.passed { "SAME" } else { "DIFFERENT" },
        if counts.is_empty() { "no weights".to_owned() } else { counts.join(", ") },
        settings("configuration", check.config.len()),
        settings("tokenizer", check.tokenizer.len())
    )
}

/// The report as text.
pub fn text(check: &Check, only: Listed, style: &Style) -> String {
    let listed = |weight: &&Checked| match only {
        Listed::All => true,
        Listed::Changed => weight.status != Status::Identical,
        Listed::Failed => !weight.status.passes(),
    };
    let mut table = Table::new(COLUMNS);
    let rows: Vec<&Checked> = check.weights.iter().filter(listed).collect();
    rows.iter().for_each(|weight| table.row(row(weight)));
    let mut lines =
        vec![format!("a  {}", check.a.display()), format!("b  {}", check.b.display()), String::new()];
    if !rows.is_empty() {
        lines.extend(table.lines());
        lines.push(String::new());
    }
    for (what, differences) in [("configuration", &check.config), ("tokenizer", &check.tokenizer)] {
        for difference in differences {
            lines
                .push(format!("{what}: {} is {} in a, {} in b", difference.what, difference.a, difference.b));
        }
    }
    lines.extend(check.notes.iter().cloned());
    let verdict = verdict(check);
    lines.push(if check.passed { style.green(&verdict) } else { style.red(&verdict) });
    lines.join("\n") + "\n"
}

fn page(check: &Check) -> String {
    let mut page = Page::new("Are these the same model?");
    page.paragraph(if check.passed { "good" } else { "bad" }, &verdict(check));
    page.facts([("a", check.a.display().to_string()), ("b", check.b.display().to_string())]);
    for (what, differences) in [("Configuration", &check.config), ("Tokenizer", &check.tokenizer)] {
        if !differences.is_empty() {
            page.heading(what);
            let columns = [Column::Left("what"), Column::Left("a"), Column::Left("b")];
            let rows = differences.iter().map(|d| [&d.what, &d.a, &d.b].map(|text| Cell::text(text)).into());
            page.table(&columns, rows);
        }
    }
    page.heading("Weights");
    page.table(COLUMNS, check.weights.iter().map(|weight| row(weight).map(|text| Cell::text(&text)).into()));
    for note in &check.notes {
        page.paragraph("faint", note);
    }
    page.finish()
}
