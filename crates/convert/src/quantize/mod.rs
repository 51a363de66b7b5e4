//! Encodes the tensors of a checkpoint anew: the encodings that llama-quantize would choose, its bytes, its keys, and what
//! each tensor lost.
//!
//! A [`Model`] is opened, [`Job::new`] plans, [`Job::write`] streams rows through all threads into the file.

mod budget;
mod choose;
mod error;
mod importance;
mod input;
mod keys;
mod kind;
mod loss;
mod plan;
mod recipe;
mod run;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use codec::Encoding;
use format::gguf::{Division, Draft, Reader};
use format::{Existing, Limits, TensorSource};
use model::Checkpoint;
use serde::Serialize;

pub use choose::{Described, Facts, Scheme, Wishes, parse_tensor_type};
pub use error::Error;
pub use importance::{Importance, Unreached, ZeroCounts};
pub use keys::Set;
pub use kind::Kind;
pub use loss::{Figures, Loss};
pub use plan::{Plan, Planned, read as read_plan};
pub use recipe::{RECIPES, Recipe, Rule, When, find as find_recipe};
pub use run::Made;

use crate::digest::{Digest, Hashed, Hashing};
use crate::own_input::refuse_own_input;
use crate::pipeline::Progress;
use crate::receipt::Tool;
use crate::to_gguf::{GgufOptions, ToGguf};
use choose::{by_layer, choose, layer};
use input::Input;
use keys::Keys;

/// `general.quantization_version`: of the block layouts.
const QUANTIZATION_VERSION: u32 = 2;
/// Longest text that llama-quantize puts into a key, in bytes.
const KEY_TEXT: usize = 127;

/// What can be quantized.
pub enum Source {
    /// A GGUF file, of any architecture.
    Gguf(Box<Reader>),
    /// A Hugging Face checkpoint.
    Hf(Box<Checkpoint>),
}

impl Source {
    /// Opens what a path leads to.
    ///
    /// # Errors
    /// No checkpoint, or one that is damaged.
    pub fn open(path: &Path) -> Result<Source, Error> {
        let limits = Limits::default();
        let mut magic = [0; 4];
        let is_gguf = std::fs::File::open(path)
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic))
            .is_ok_and(|()| &magic == b"GGUF");
        if is_gguf || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
            return Ok(Source::Gguf(Box::new(Reader::open(path, &limits)?)));
        }
        let checkpoint =
            Checkpoint::open(path, &limits).map_err(|error| Error::Request { what: error.to_string() })?;
        Ok(Source::Hf(Box::new(checkpoint)))
    }

    /// Refuses to write over what is read, by whatever name.
    ///
    /// # Errors
    /// An output that is a file of this source, or a directory that holds one.
    pub fn refuse_output(&self, output: &Path) -> Result<(), Error> {
        Ok(refuse_own_input(self.tensors(), output)?)
    }

    fn tensors(&self) -> &dyn TensorSource {
        match self {
            Source::Gguf(reader) => reader.as_ref(),
            Source::Hf(checkpoint) => checkpoint.source(),
        }
    }
}

/// A source as a GGUF file has it: tensors and keys.
pub struct Model<'a> {
    source: &'a Source,
    converted: Option<ToGguf<'a>>,
    /// The keys of a file that does not exist.
    header: Option<Reader>,
}

impl<'a> Model<'a> {
    /// Reads the keys of a GGUF file, or makes those of a checkpoint.
    ///
    /// # Errors
    /// A checkpoint that cannot be converted.
    pub fn new(source: &'a Source) -> Result<Model<'a>, Error> {
        let Source::Hf(checkpoint) = source else {
            return Ok(Model { source, converted: None, header: None });
        };
        let converted = ToGguf::new(checkpoint, &GgufOptions::default())?;
        let failed = |error: std::io::Error| Error::Request {
            what: format!("cannot make a temporary directory: {error}"),
        };
        let dir = tempfile::tempdir().map_err(failed)?;
        let path = dir.path().join("keys.gguf");
        let mut draft = Draft::new(&path);
        converted.put_keys(&mut draft)?;
        draft.create(Existing::Refuse)?.finish()?;
        let header = Reader::open(&path, &Limits::default())?;
        Ok(Model { source, converted: Some(converted), header: Some(header) })
    }

    /// What should be known about the conversion on the way.
    pub fn notes(&self) -> &[String] {
        self.converted.as_ref().map_or(&[], |converted| converted.notes())
    }

    /// Holds an importance matrix against the model; returns what it is about that is not there.
    ///
    /// # Errors
    /// A matrix of another model.
    pub fn check_importance(&self, importance: &mut Importance) -> Result<Vec<String>, Error> {
        importance.check(&self.described())
    }

    /// Chooses encodings that lose least together and take at most `budget` bytes, by what they lose on these weights, for what
    /// the request leaves of the model. What is measured is kept in `state`, where another run goes on.
    ///
    /// # Errors
    /// Weights that are no numbers, a budget that is too small, a state that cannot be read or kept.
    pub fn fit(
        &self,
        budget: Budget,
        request: &Request,
        importance: Option<&Importance>,
        state: &Path,
        progress: Progress<'_>,
    ) -> Result<Fitted, Error> {
        let importance = importance.filter(|importance| !importance.is_empty());
        let wishes = &request.wishes;
        let mut tensors = self.described();
        leave_out(&mut tensors, &layers_to_prune(request, Facts::of(&self.keys()))?);
        let mut losses = budget::Losses::new(self.source.tensors(), importance);
        losses.resume(state)?;
        let input = self.input();
        let measured = |tensor: &&Described| {
            kind::kept(&tensor.name, &tensor.shape).is_none()
                && (tensor.encoding.block_len() == 1 || wishes.allow_requantize)
        };
        let elements = |tensor: &Described| tensor.shape.elements().unwrap_or(0);
        let total = tensors.iter().filter(measured).count() as u64;
        for (done, tensor) in (1..).zip(tensors.iter().filter(measured)) {
            losses.measure(tensor, &input, importance)?;
            losses.keep(state)?;
            progress(done, total);
        }
        let bytes = match budget {
            Budget::Bytes(bytes) => bytes,
            Budget::BitsPerWeight(bits) => {
                (tensors.iter().map(elements).sum::<u64>() as f64 * bits / 8.0) as u64
            }
        };
        let given = budget::allocate(&tensors, &losses, wishes, bytes)?;
        let mut used: std::collections::BTreeMap<Encoding, u64> = Default::default();
        for tensor in tensors.iter().filter(measured) {
            *used.entry(given[&tensor.name]).or_default() += elements(tensor);
        }
        let most = used.into_iter().max_by_key(|(_, elements)| *elements).map(|(encoding, _)| encoding);
        Ok(Fitted { given, file_type: most.and_then(crate::gguf::file_type) })
    }

    fn keys(&self) -> Keys<'_> {
        match (&self.header, self.source) {
            (Some(header), _) => Keys::of(header.keys()),
            (None, Source::Gguf(reader)) => Keys::of(reader.keys()),
            (None, Source::Hf(_)) => unreachable!("a converted model has a header"),
        }
    }

    fn input(&self) -> Input<'_> {
        match (&self.converted, self.source) {
            (Some(converted), Source::Hf(checkpoint)) => {
                Input::Converted(converted.tensors(), checkpoint.as_ref())
            }
            (_, source) => Input::Gguf(source.tensors()),
        }
    }

    /// Tensors in the source's order.
    fn described(&self) -> Vec<Described> {
        let describe = |name: &str, shape: &format::Shape, encoding: Encoding| Described {
            name: name.to_owned(),
            original: name.to_owned(),
            shape: as_ggml_counts(shape),
            encoding,
        };
        match &self.converted {
            Some(converted) => converted
                .tensors()
                .iter()
                .map(|(t, encoding)| describe(&t.name, &t.shape, *encoding))
                .collect(),
            None => {
                let tensors = self.source.tensors().tensors().iter();
                tensors.map(|info| describe(&info.name, &info.shape, info.encoding)).collect()
            }
        }
    }
}

/// How small.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Budget {
    /// All tensors together.
    Bytes(u64),
    /// On average, over all tensors.
    BitsPerWeight(f64),
}

/// What fits a budget.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The encoding of every tensor.
    pub given: std::collections::BTreeMap<String, Encoding>,
    /// That of the encoding that most values are in.
    pub file_type: Option<u32>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// What decides about encodings.
    pub scheme: Scheme,
    /// What is asked for beside it.
    pub wishes: Wishes,
    /// Keys that are set, in this order.
    pub overrides: Vec<(String, Set)>,
    /// Layers that are left out.
    pub prune: Vec<u64>,
    /// As many files as the source has, with the same tensors.
    pub keep_split: bool,
    /// `general.file_type`, if not that of the recipe.
    pub file_type: Option<u32>,
    /// What a plan is called that no recipe made.
    pub called: Option<String>,
}

impl Request {
    /// A recipe and nothing else.
    pub fn of(scheme: Scheme) -> Request {
        Request {
            scheme,
            wishes: Wishes::default(),
            overrides: Vec::new(),
            prune: Vec::new(),
            keep_split: false,
            file_type: None,
            called: None,
        }
    }
}

/// A quantization that is known in every detail, and of which nothing is written yet.
pub struct Job<'a> {
    model: &'a Model<'a>,
    importance: Option<&'a Importance>,
    keys: Keys<'a>,
    plan: Plan,
    /// The tensors' names in the source.
    originals: Vec<String>,
    facts: Facts,
    division: Option<Division>,
}

impl<'a> Job<'a> {
    /// Plans.
    ///
    /// # Errors
    /// Whatever would keep it from succeeding but the system and the weights themselves.
    pub fn new(
        model: &'a Model<'a>,
        request: &Request,
        importance: Option<&'a Importance>,
    ) -> Result<Job<'a>, Error> {
        let importance = importance.filter(|importance| !importance.is_empty());
        let mut keys = model.keys();
        let stored_type = keys.number("general.file_type").and_then(|n| u32::try_from(n).ok());
        let file_type = match (request.file_type, request.scheme) {
            (Some(file_type), _) => Some(file_type),
            (None, Scheme::Recipe(recipe)) => Some(recipe.file_type),
            (None, Scheme::Copy) => stored_type,
        };
        keys.set("general.quantization_version", Set::U32(QUANTIZATION_VERSION));
        if let Some(file_type) = file_type {
            keys.set("general.file_type", Set::U32(file_type));
        }
        for (key, value) in &request.overrides {
            keys.set(key, value.clone());
        }
        if let Some(importance) = importance {
            let text = |text: &str| Set::String(cut(text).to_owned());
            keys.set("quantize.imatrix.file", text(&importance.path().to_string_lossy()));
            if let Some(dataset) = importance.datasets().first() {
                keys.set("quantize.imatrix.dataset", text(dataset));
            }
            keys.set("quantize.imatrix.entries_count", Set::U32(importance.len() as u32));
            if importance.chunks() > 0 {
                keys.set("quantize.imatrix.chunks_count", Set::U32(importance.chunks() as u32));
            }
        }
        let facts = Facts::of(&keys);
        let mut tensors = model.described();
        if !request.keep_split {
            tensors.sort_by(|a, b| by_layer(&a.name, &b.name));
        }
        let pruned = layers_to_prune(request, facts)?;
        if !pruned.is_empty() {
            leave_out(&mut tensors, &pruned);
            keys.prune(&pruned, facts.layers - pruned.len() as u64);
        }
        let division = request.keep_split.then(|| Division::like(model.source.tensors()));
        let mut plan = choose(&tensors, facts, request.scheme, &request.wishes, importance)?;
        plan.file_type = file_type;
        if let Some(called) = &request.called {
            plan.recipe.clone_from(called);
        }
        let originals = tensors.into_iter().map(|tensor| tensor.original).collect();
        Ok(Job { model, importance, keys, plan, originals, facts, division })
    }

    /// What will be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the recipe asked about the model.
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// Writes the file, or files: there whole or not at all. Everything read and written is hashed as `digest` says; with
    /// a `key_digest`, what is known beforehand is also written into the file, with such hashes.
    ///
    /// # Errors
    /// A path that is taken, weights that are no numbers, or a system that refuses.
    pub fn write(
        mut self,
        path: &Path,
        existing: Existing,
        digest: Option<Digest>,
        key_digest: Option<Digest>,
        progress: Progress<'_>,
    ) -> Result<Receipt, Error> {
        let source = self.model.source.tensors();
        refuse_own_input(source, path)?;
        let hashed_importance = match (self.importance, digest.or(key_digest)) {
            (Some(importance), Some(digest)) => Some(hashed(importance.path(), digest)?),
            _ => None,
        };
        let mut hashed_before = None;
        if let Some(digest) = key_digest {
            let files =
                source.files().iter().map(|file| hashed(file, digest)).collect::<Result<Vec<_>, _>>()?;
            let known = Known {
                tool: Tool::ETALON,
                recipe: &self.plan.recipe,
                source: &files,
                importance: &hashed_importance,
            };
            let text = serde_json::to_string(&known)
                .map_err(|error| Error::Request { what: format!("the receipt: {error}") })?;
            self.keys.set("etalon.quantize.receipt", Set::String(text));
            hashed_before = Some(files);
        }
        let mut draft = Draft::new(path);
        self.keys.put(&mut draft)?;
        for tensor in &self.plan.tensors {
            draft.tensor(&tensor.name, tensor.to, &format::Shape::new(tensor.shape.clone()))?;
        }
        let (mut writer, output) = match &self.division {
            Some(division) => {
                let files = draft.plan(division)?.into_iter().map(|file| file.path).collect();
                (draft.create_split(division, existing)?, files)
            }
            None => (draft.create(existing)?, vec![path.to_owned()]),
        };
        let mut sink = |name: &str, bytes: &[u8]| writer.write(name, bytes);
        let input = self.model.input();
        let files = if hashed_before.is_none() { source.files() } else { &[] };
        let hashing = digest.map(|digest| Hashing::start(files.to_vec(), digest));
        let tensors =
            run::run(&self.plan, &self.originals, &input, self.importance, digest, &mut sink, progress)?;
        let hashed = hashing.map(Hashing::finish).transpose()?.unwrap_or_default();
        writer.finish()?;
        let mut notes = self.model.notes().to_vec();
        notes.extend(self.importance.iter().flat_map(|importance| {
            importance.unreached().iter().map(|experts| format!("no token reached experts of {experts}"))
        }));
        Ok(Receipt {
            tool: Tool::ETALON,
            recipe: self.plan.recipe.clone(),
            source: hashed_before.unwrap_or(hashed),
            importance: hashed_importance,
            output,
            bytes: self.plan.bytes(),
            bits_per_weight: self.plan.bits_per_weight(),
            tensors,
            notes,
        })
    }
}

/// What was done, to be kept beside what it made.
#[derive(Clone, Debug, Serialize)]
pub struct Receipt {
    /// What did it.
    pub tool: Tool,
    /// The recipe's name.
    pub recipe: String,
    /// What was read, if it was hashed.
    pub source: Vec<Hashed>,
    /// The importance matrix, if there was one and it was hashed.
    pub importance: Option<Hashed>,
    /// What came out.
    pub output: Vec<PathBuf>,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Bits of a weight, on average.
    pub bits_per_weight: f64,
    /// The tensors, what they are and what that cost.
    pub tensors: Vec<Made>,
    /// What should be known about it, one sentence each.
    pub notes: Vec<String>,
}

/// What a receipt can say before anything is made.
#[derive(Serialize)]
struct Known<'a> {
    tool: Tool,
    recipe: &'a str,
    source: &'a [Hashed],
    importance: &'a Option<Hashed>,
}

fn hashed(path: &Path, digest: Digest) -> Result<Hashed, Error> {
    Ok(Hashed::of(path, digest, &AtomicBool::new(false))?)
}

/// Without outermost dimensions of one, which ggml does not write.
fn as_ggml_counts(shape: &format::Shape) -> format::Shape {
    let dims = shape.dims();
    let ones = dims.iter().take_while(|&&dim| dim == 1).count().min(dims.len().saturating_sub(1));
    format::Shape::new(dims[ones..].to_vec())
}

/// What llama-quantize keeps of a text.
fn cut(text: &str) -> &str {
    match text.char_indices().find(|(at, c)| at + c.len_utf8() > KEY_TEXT) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

/// The layers to be left out, each once, in order.
fn layers_to_prune(request: &Request, facts: Facts) -> Result<Vec<u64>, Error> {
    let wrong = |what: String| Err(Error::Request { what });
    let mut pruned = request.prune.clone();
    pruned.sort_unstable();
    pruned.dedup();
    if request.keep_split && !pruned.is_empty() {
        return wrong(
            "layers cannot be pruned and parts kept: give one of --prune-layers and --keep-split".into(),
        );
    }
    if let Some(layer) = pruned.iter().find(|layer| **layer >= facts.layers) {
        return wrong(format!(
            "there is no layer {layer} to prune: the model has {}, from 0 on",
            facts.layers
        ));
    }
    if !pruned.is_empty() && pruned.len() as u64 == facts.layers {
        return wrong("all layers are to be pruned: nothing would be left".into());
    }
    Ok(pruned)
}

/// Leaves layers out and closes the gaps.
fn leave_out(tensors: &mut Vec<Described>, pruned: &[u64]) {
    tensors.retain(|tensor| layer(&tensor.name).is_none_or(|layer| !pruned.contains(&layer)));
    for tensor in tensors.iter_mut() {
        if let Some(old) = layer(&tensor.name) {
            let new = old - pruned.iter().filter(|pruned| **pruned < old).count() as u64;
            tensor.name = tensor.name.replacen(&format!("blk.{old}"), &format!("blk.{new}"), 1);
        }
    }
}
