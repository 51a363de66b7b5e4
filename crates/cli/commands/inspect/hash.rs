//! Hashes of tensors, as llama-gguf-hash prints and checks them.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use eval::Progress;
use format::TensorInfo;
use inspect::hash::{Algorithm, Digest, Hashed, Manifest, Verdict};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Args, Each, Selected, Sequence};
use crate::commands::Outcome;
use crate::render::{Bar, Style};

pub(super) fn algorithm(name: &str) -> Result<Algorithm, String> {
    Algorithm::from_name(name).ok_or_else(|| "expected xxh64, sha1, sha256 or uuid".to_owned())
}

struct Checked {
    selected: Selected,
    /// Absent unless there was a manifest.
    passed: Option<bool>,
    hashes: Vec<Line>,
    /// Tensors that the manifest has and the file has not.
    missing: Vec<String>,
}

struct Line {
    hash: Digest,
    /// Which of the selected tensors; `None` for all there are.
    tensor: Option<usize>,
    verdict: Option<Verdict>,
}

/// A line in the report.
#[derive(Serialize)]
struct Described<'a> {
    algorithm: Algorithm,
    hash: Digest,
    tensor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
}

impl Checked {
    fn hashed(&self, line: &Line) -> Hashed<'_> {
        Hashed { hash: line.hash, tensor: line.tensor.map(|at| self.selected.info(at).name.as_str()) }
    }

    fn described(&self) -> impl Iterator<Item = Described<'_>> {
        self.hashes.iter().map(|line| {
            let Hashed { hash, tensor } = self.hashed(line);
            Described { algorithm: hash.algorithm(), hash, tensor, verdict: line.verdict }
        })
    }
}

impl Serialize for Checked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut checked = serializer.serialize_struct("Checked", 4)?;
        checked.serialize_field("path", self.selected.subject.path())?;
        match self.passed {
            Some(passed) => checked.serialize_field("passed", &passed)?,
            None => checked.skip_field("passed")?,
        }
        checked.serialize_field("hashes", &Sequence(|| self.described()))?;
        match self.missing.as_slice() {
            [] => checked.skip_field("missing")?,
            missing => checked.serialize_field("missing", missing)?,
        }
        checked.end()
    }
}

pub(super) fn run(args: &Args, selected: Vec<Selected>) -> anyhow::Result<Outcome> {
    let manifest = args.check.as_deref().map(Manifest::read).transpose()?;
    let mut algorithms = args.hash.clone();
    algorithms.sort();
    algorithms.dedup();
    if algorithms.is_empty() {
        algorithms.extend(manifest.as_ref().and_then(Manifest::strongest));
    }
    let whole = args.selection()?.is_all();
    let checked: Vec<Checked> = selected
        .into_iter()
        .map(|selected| check(selected, whole, &algorithms, manifest.as_ref()))
        .collect::<anyhow::Result<_>>()?;
    let failed = checked.iter().any(|checked| checked.passed == Some(false));
    Ok(Outcome::streamed(Each(checked), failed, |each: &Each<Checked>, style, out| {
        each.0.iter().try_for_each(|checked| write(checked, style, out))
    }))
}

fn check(
    selected: Selected,
    whole: bool,
    algorithms: &[Algorithm],
    manifest: Option<&Manifest>,
) -> anyhow::Result<Checked> {
    let model = selected.subject.path().display().to_string();
    let source = selected.subject.source();
    let tensors: Vec<&TensorInfo> = selected.infos().collect();
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
    let of_each = algorithms.iter().filter(|algorithm| algorithm.is_of_tensors()).count();
    let line = |(i, hashed): (usize, Hashed)| Line {
        hash: hashed.hash,
        tensor: hashed.tensor.map(|_| i / of_each),
        verdict: manifest.map(|manifest| manifest.verdict(&hashed, &model)),
    };
    let hashes: Vec<Line> = hashes.into_iter().enumerate().map(line).collect();
    let passed = manifest.map(|_| missing.is_empty() && judge(&hashes));
    Ok(Checked { selected, passed, hashes, missing })
}

/// Something was compared, all of it is the same, and no tensor escaped: each is in the manifest or in its hash of all.
fn judge(lines: &[Line]) -> bool {
    let any = |verdict| lines.iter().any(|line| line.verdict == Some(verdict));
    let whole = lines.iter().any(|line| line.tensor.is_none() && line.verdict == Some(Verdict::Ok));
    let each = lines.iter().all(|line| line.tensor.is_none() || line.verdict != Some(Verdict::NotFound));
    any(Verdict::Ok) && !any(Verdict::Mismatch) && (whole || each)
}

fn write(checked: &Checked, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let path = checked.selected.subject.path();
    let model = path.display().to_string();
    for line in &checked.hashes {
        let text = inspect::hash::line(&checked.hashed(line), &model);
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
            file_name(path),
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
