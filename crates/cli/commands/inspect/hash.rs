//! Hashes of tensors, as llama-gguf-hash prints and checks them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use eval::Progress;
use inspect::Subject;
use inspect::hash::{Algorithm, Hashed, Manifest, Verdict};
use serde::Serialize;

use super::{Args, Each, infos, rows};
use crate::commands::Outcome;
use crate::render::{Bar, Style};

pub(super) fn algorithm(name: &str) -> Result<Algorithm, String> {
    Algorithm::from_name(name).ok_or_else(|| "expected xxh64, sha1, sha256 or uuid".to_owned())
}

#[derive(Serialize)]
struct Checked {
    path: PathBuf,
    /// Absent unless there was a manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    passed: Option<bool>,
    hashes: Vec<Line>,
    /// Tensors that the manifest has and the file has not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    hashed: Hashed,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
}

pub(super) fn run(subjects: &[Subject], args: &Args) -> anyhow::Result<Outcome> {
    let manifest = args.check.as_deref().map(Manifest::read).transpose()?;
    let mut algorithms = args.hash.clone();
    algorithms.sort();
    algorithms.dedup();
    if algorithms.is_empty() {
        algorithms.extend(manifest.as_ref().and_then(Manifest::strongest));
    }
    let checked: Vec<Checked> = subjects
        .iter()
        .map(|subject| check(subject, args, &algorithms, manifest.as_ref()))
        .collect::<anyhow::Result<_>>()?;
    let failed = checked.iter().any(|checked| checked.passed == Some(false));
    Ok(Outcome::streamed(Each(checked), failed, |each: &Each<Checked>, style, out| {
        each.0.iter().try_for_each(|checked| write(checked, style, out))
    }))
}

fn check(
    subject: &Subject,
    args: &Args,
    algorithms: &[Algorithm],
    manifest: Option<&Manifest>,
) -> anyhow::Result<Checked> {
    let selection = args.selection()?;
    let model = subject.path().display().to_string();
    let source = subject.source();
    let tensors = infos(subject, &rows(subject, &selection));
    let whole = selection.is_all();
    anyhow::ensure!(
        whole || algorithms.iter().all(|algorithm| algorithm.is_of_tensors()),
        "a uuid names all tensors together: ask for it without --name, --regex, --layer and --encoding"
    );
    let bar = Bar::new();
    bar.begin("hashing", inspect::hash::work(&tensors, algorithms, whole));
    let done = AtomicU64::new(0);
    let progress = |bytes| bar.reached(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    let hashes = inspect::hash::hash(source, &tensors, algorithms, whole, &progress);
    let missing: Vec<String> = match manifest {
        Some(manifest) if whole => algorithms
            .iter()
            .flat_map(|&algorithm| manifest.missing(&hashes, algorithm, &model))
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    let lines: Vec<Line> = hashes
        .into_iter()
        .map(|hashed| Line { verdict: manifest.map(|manifest| manifest.verdict(&hashed, &model)), hashed })
        .collect();
    let passed = manifest.map(|_| missing.is_empty() && judge(&lines));
    Ok(Checked { path: subject.path().to_owned(), passed, hashes: lines, missing })
}

/// Something was compared, all of it is the same, and no tensor escaped: each is in the manifest or in its hash of all.
fn judge(lines: &[Line]) -> bool {
    let any = |verdict| lines.iter().any(|line| line.verdict == Some(verdict));
    let whole = lines.iter().any(|line| line.hashed.tensor.is_none() && line.verdict == Some(Verdict::Ok));
    let each =
        lines.iter().all(|line| line.hashed.tensor.is_none() || line.verdict != Some(Verdict::NotFound));
    any(Verdict::Ok) && !any(Verdict::Mismatch) && (whole || each)
}

fn write(checked: &Checked, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let model = checked.path.display().to_string();
    for line in &checked.hashes {
        let text = inspect::hash::line(&line.hashed, &model);
        match line.verdict {
            None => writeln!(out, "{text}")?,
            Some(Verdict::Ok) => writeln!(out, "{text}  -  {}", Verdict::Ok.name())?,
            Some(verdict) => writeln!(out, "{text}  -  {}", style.red(verdict.name()))?,
        }
    }
    for name in &checked.missing {
        writeln!(out, "{model}:{name}  -  {}", style.red("not in the file"))?;
    }
    let counted = |verdict| checked.hashes.iter().filter(|line| line.verdict == Some(verdict)).count();
    if let Some(passed) = checked.passed {
        let label = if passed { style.green("PASS") } else { style.red("FAIL") };
        writeln!(
            out,
            "{label}  {}: {} of {} hashes agree, {} differ, {} not in the manifest",
            file_name(&checked.path),
            counted(Verdict::Ok),
            checked.hashes.len(),
            counted(Verdict::Mismatch),
            counted(Verdict::NotFound)
        )?;
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
