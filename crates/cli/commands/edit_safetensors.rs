//! `etalon edit` of a safetensors file: entries of `__metadata__` and names of tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use eval::Progress;
use format::safetensors::{Draft, Reader};
use format::{Existing, Limits, Metadata, TensorSource};

use super::edit::{Args, Change, Edited, names, text};
use crate::commands::Outcome;
use crate::render::Bar;

/// Bytes copied between two words about progress.
const COPY_BYTES: usize = 8 << 20;

/// Whether a file is of this format: told by its name, or by the brace that its header opens with.
pub(super) fn is_safetensors(path: &Path) -> anyhow::Result<bool> {
    anyhow::ensure!(
        !path.is_dir(),
        "{}: a directory; edit one file of it, or merge its shards first (etalon merge)",
        path.display()
    );
    anyhow::ensure!(
        path.extension().is_none_or(|extension| extension != "json"),
        "{}: edit one of the files it names, or merge them first (etalon merge)",
        path.display()
    );
    let named = path.extension().is_some_and(|extension| extension == "safetensors");
    let mut start = Vec::new();
    if let Ok(file) = File::open(path) {
        file.take(9).read_to_end(&mut start).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(!start.starts_with(b"GGUF") && (named || start.get(8) == Some(&b'{')))
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    anyhow::ensure!(
        args.chat_template.is_none(),
        "--chat-template: a safetensors file has none; it stands beside it as chat_template.jinja"
    );
    let source = Reader::open_file(&args.input, &Limits::default())?;
    let mut entries = match source.metadata() {
        Metadata::Safetensors(entries) => entries.clone(),
        Metadata::Gguf(_) => BTreeMap::new(),
    };
    let mut tensors: Vec<String> = source.tensors().iter().map(|info| info.name.clone()).collect();
    let changes = change(args, &mut entries, &mut tensors)?;

    let mut draft = Draft::new(&args.output);
    entries.iter().for_each(|(key, value)| draft.put(key, value));
    for (info, name) in source.tensors().iter().zip(&tensors) {
        draft.tensor(name, info.encoding, &info.shape)?;
    }
    if !args.dry_run {
        let existing = if args.force { Existing::Replace } else { Existing::Refuse };
        let bar = Bar::new();
        bar.begin("copying tensors", source.tensors().iter().map(|info| info.size).sum());
        let mut writer = draft.create(existing)?;
        let mut done = 0;
        for (info, name) in source.tensors().iter().zip(&tensors) {
            for piece in source.bytes(info).chunks(COPY_BYTES) {
                writer.write(name, piece)?;
                done += piece.len() as u64;
                bar.reached(done);
            }
        }
        writer.finish()?;
    }
    let edited = Edited { output: args.output.clone(), dry_run: args.dry_run, changes };
    Ok(Outcome::fine(edited, text))
}

/// Makes the changes in their order and lists them.
fn change(
    args: &Args,
    entries: &mut BTreeMap<String, String>,
    tensors: &mut [String],
) -> anyhow::Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut note = |what, name: &str, to: &str| {
        changes.push(Change { what, name: name.to_owned(), to: to.to_owned() });
    };
    let missing = |key: &str| format!("there is no entry {key:?} of __metadata__ to change");
    for key in &args.remove {
        entries.remove(key).with_context(|| missing(key))?;
        note("remove", key, "");
    }
    for pair in &args.rename {
        let (old, new) = names(pair)?;
        let value = entries.remove(old).with_context(|| missing(old))?;
        anyhow::ensure!(!entries.contains_key(new), "there is an entry {new:?} of __metadata__ already");
        entries.insert(new.to_owned(), value);
        note("rename", old, new);
    }
    for pair in &args.rename_tensor {
        let (old, new) = names(pair)?;
        anyhow::ensure!(!tensors.iter().any(|name| name == new), "there is a tensor {new:?} already");
        let tensor = tensors.iter_mut().find(|name| *name == old);
        *tensor.with_context(|| format!("there is no tensor {old:?} to rename"))? = new.to_owned();
        note("rename tensor", old, new);
    }
    for setting in &args.set {
        let (key, text) = setting.split_once('=').with_context(|| {
            format!("--set {setting:?}: expected KEY=VALUE, as all values are texts here")
        })?;
        let value = text.strip_prefix("str:").unwrap_or(text);
        entries.insert(key.to_owned(), value.to_owned());
        note("set", key, value);
    }
    Ok(changes)
}
