//! `etalon inspect`.

mod findings;
mod hash;
mod kv;
mod overview;
mod page;
mod picture;
mod stats;
mod tensors;
mod values;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use format::{Limits, TensorInfo};
use inspect::{Key, Selection, Subject, TensorRow};
use serde::{Serialize, Serializer};

use crate::commands::Outcome;
use crate::listing::Form;
use crate::render::Style;

/// Look into checkpoints: GGUF of any architecture, safetensors, Hugging Face directories.
///
/// Without further options an overview: what it is, its layers, what its parts are stored in, its tokenizer, and what
/// contradicts itself. Exit status 1 if --lint finds errors or --check a mismatch.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon inspect model.gguf
  etalon inspect model.gguf --tensors --name '*ssm_*' --sort bytes --reverse
  etalon inspect model.gguf --kv tokenizer.ggml.tokens --full
  etalon inspect model.gguf --tensor blk.0.attn_qkv.weight --slice 0:4,:8 --raw
  etalon inspect Qwen3.5-0.8B --stats --layer 0-3 --csv
  etalon inspect model.gguf --hash sha256 > model.manifest
  etalon inspect model.gguf --check model.manifest
  etalon inspect model.gguf --lint
  etalon inspect model.gguf --html model.html --stats")]
#[command(group(clap::ArgGroup::new("view").multiple(false)))]
pub struct Args {
    /// GGUF or safetensors files, or directories with safetensors.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// List tensors: encoding, both shapes, bytes, place, and what the layout map says.
    #[arg(long, group = "view")]
    tensors: bool,
    /// Print keys and values; with a name or a glob only those. Arrays are cut short unless --full.
    #[arg(long, value_name = "KEY", group = "view", num_args = 0..=1, default_missing_value = "*")]
    kv: Option<String>,
    /// Print values of one tensor in PyTorch's order.
    #[arg(long, value_name = "NAME", group = "view")]
    tensor: Option<String>,
    /// Statistics of every selected tensor (reads all their bytes).
    #[arg(long, group = "view")]
    stats: bool,
    /// Hash tensors, and all of them together: xxh64, sha1, sha256 (or uuid, of all only), as
    /// llama-gguf-hash does.
    #[arg(long, value_name = "ALGORITHM", value_delimiter = ',', group = "view", value_parser = hash::algorithm)]
    hash: Vec<inspect::hash::Algorithm>,
    /// List contradictions and traps with their evidence and what to do.
    #[arg(long, group = "view")]
    lint: bool,
    /// Compare with the hashes in this file; one by llama-gguf-hash will do.
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["tensors", "kv", "tensor", "stats", "lint"])]
    check: Option<PathBuf>,
    /// Which entries of --tensor, as in Python.
    #[arg(long, value_name = "0:4,:8", requires = "tensor", allow_hyphen_values = true)]
    slice: Option<String>,
    /// With --tensor: the scales and codes of the blocks that the slice begins in.
    #[arg(long, requires = "tensor")]
    raw: bool,
    /// With --tensor: write the values to this .npy file instead.
    #[arg(long, value_name = "FILE", requires = "tensor", conflicts_with = "raw")]
    save: Option<PathBuf>,
    /// Write a page with all of this: one HTML file that needs nothing else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tensors", "kv", "tensor", "hash", "lint", "check"])]
    html: Option<PathBuf>,
    /// Only tensors of this name; * also crosses dots; may be repeated.
    #[arg(long, value_name = "GLOB")]
    name: Vec<String>,
    /// Only tensors in whose name this is found; may be repeated.
    #[arg(long, value_name = "REGEX")]
    regex: Vec<String>,
    /// Only tensors of these layers: 0,4-7.
    #[arg(long, value_name = "LIST")]
    layer: Option<String>,
    /// Only tensors of this encoding; may be repeated.
    #[arg(long, value_name = "NAME")]
    encoding: Vec<String>,
    /// Order tensors by this instead of by their place in the file.
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// Turn the order round.
    #[arg(long)]
    reverse: bool,
    /// With --kv: whole arrays and texts.
    #[arg(long, requires = "kv")]
    full: bool,
    /// Print a table of Markdown.
    #[arg(long, conflicts_with_all = ["csv", "json"])]
    markdown: bool,
    /// Print comma-separated values.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Replace FILE of --save or --html if it exists.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Sort {
    Name,
    Encoding,
    Layer,
    Elements,
    Bytes,
    Offset,
}

/// What was found in each of the paths; alone it is not in a list.
struct Each<T>(Vec<T>);

impl<T: Serialize> Serialize for Each<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<T> Each<T> {
    /// Writes the texts of all, the path above each if there are several.
    fn write(
        &self,
        path: fn(&T) -> &Path,
        style: &Style,
        out: &mut dyn Write,
        mut text: impl FnMut(&T, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        for (i, found) in self.0.iter().enumerate() {
            if self.0.len() > 1 {
                out.write_all(if i > 0 { b"\n" } else { b"" })?;
                writeln!(out, "{}", style.bold(&path(found).display().to_string()))?;
            }
            text(found, out)?;
        }
        Ok(())
    }
}

/// A list that is made while it is written.
struct Sequence<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Sequence<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0())
    }
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let limits = Limits::default();
        let subjects: Vec<Subject> =
            self.paths.iter().map(|path| Subject::open(path, &limits)).collect::<Result<_, _>>()?;
        if self.html.is_some() {
            return self.page(subjects);
        }
        if self.tensors {
            return Ok(tensors::run(self.selected(subjects)?, self.form()));
        }
        if let Some(pattern) = &self.kv {
            return kv::run(subjects, pattern, self.full, self.form());
        }
        if let Some(name) = &self.tensor {
            return values::run(&one(subjects)?, name, &self);
        }
        if self.stats {
            return stats::run(self.selected(subjects)?, self.form());
        }
        if !self.hash.is_empty() || self.check.is_some() {
            return hash::run(&self, self.selected(subjects)?);
        }
        if self.lint {
            return Ok(findings::run(&subjects, self.form()));
        }
        Ok(overview::run(&subjects, self.form()))
    }

    fn selected(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Selected>> {
        let selection = self.selection()?;
        Ok(subjects.into_iter().map(|subject| Selected::new(subject, &selection)).collect())
    }

    fn page(&self, subjects: Vec<Subject>) -> anyhow::Result<Outcome> {
        let path = self.html.as_ref().context("no page was asked for")?;
        page::run(&Selected::new(one(subjects)?, &self.selection()?), self.stats, path, self.force)
    }

    fn form(&self) -> Form {
        match (self.markdown, self.csv) {
            (true, _) => Form::Markdown,
            (_, true) => Form::Csv,
            _ => Form::Text,
        }
    }

    fn selection(&self) -> anyhow::Result<Selection> {
        let mut selection = Selection::default().reversed(self.reverse);
        for pattern in &self.name {
            selection = selection.with_glob(pattern)?;
        }
        for pattern in &self.regex {
            selection = selection.with_regex(pattern)?;
        }
        if let Some(layers) = &self.layer {
            selection = selection.with_layers(layers)?;
        }
        for name in &self.encoding {
            let known = codec::Encoding::from_name(name);
            anyhow::ensure!(known.is_some(), "{name:?} is no encoding: expected a name such as Q4_K or BF16");
            selection = selection.with_encoding(name);
        }
        Ok(match self.sort {
            None => selection,
            Some(sort) => selection.sorted(match sort {
                Sort::Name => Key::Name,
                Sort::Encoding => Key::Encoding,
                Sort::Layer => Key::Layer,
                Sort::Elements => Key::Elements,
                Sort::Bytes => Key::Bytes,
                Sort::Offset => Key::Offset,
            }),
        })
    }
}

fn one(subjects: Vec<Subject>) -> anyhow::Result<Subject> {
    let [subject] = <[Subject; 1]>::try_from(subjects).map_err(|subjects| {
        anyhow::anyhow!("expected one PATH with this option, found {}", subjects.len())
    })?;
    Ok(subject)
}

/// The selected tensors of a checkpoint. They may be very many: what is made out about each is so when it is shown.
struct Selected {
    subject: Subject,
    /// Where each stands among the source's tensors.
    places: Vec<usize>,
}

impl Selected {
    fn new(subject: Subject, selection: &Selection) -> Selected {
        let places = selection.places(TensorRow::all(&subject));
        Selected { subject, places }
    }

    fn rows(&self) -> impl Iterator<Item = TensorRow> {
        self.places.iter().map(|&place| TensorRow::of(&self.subject, place))
    }

    /// The `at`-th of them as the source describes it.
    fn info(&self, at: usize) -> &TensorInfo {
        &self.subject.source().tensors()[self.places[at]]
    }

    fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        (0..self.places.len()).map(|at| self.info(at))
    }
}

fn write_lines(lines: &[String], out: &mut dyn Write) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// A shape as people write it.
fn shape(dims: &[u64]) -> String {
    let dims: Vec<String> = dims.iter().map(u64::to_string).collect();
    format!("[{}]", dims.join(", "))
}
