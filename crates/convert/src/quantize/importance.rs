//! Importance matrices: for each column of a matrix, the mean square of what a model puts into it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use codec::Encoding;
use format::{Limits, Metadata, TensorInfo, TensorSource};
use serde::Serialize;

use super::choose::{Described, layer};
use super::error::Error;

/// What to do about experts that no token ever reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ZeroCounts {
    /// Refuse.
    Error,
    /// All columns of such an expert matter the same, as in llama-quantize.
    #[default]
    Uniform,
    /// The mean of the experts of the same layer that were reached.
    Neighbours,
}

/// An open importance matrix.
pub struct Importance {
    path: PathBuf,
    datasets: Vec<String>,
    chunks: u64,
    entries: BTreeMap<String, Vec<f32>>,
    unreached: Vec<Unreached>,
}

/// Experts of a tensor that no token reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unreached {
    /// The tensor.
    pub tensor: String,
    /// Which, of how many there are.
    pub experts: Vec<usize>,
    /// How many there are.
    pub of: usize,
}

impl Importance {
    /// Reads a file of either kind: GGUF, or the older `.dat`.
    ///
    /// # Errors
    /// A file that is neither, values that are no mean squares, and what the policy refuses.
    pub fn open(path: &Path, policy: ZeroCounts) -> Result<Importance, Error> {
        let wrong = |what: String| Error::Importance { path: path.to_owned(), what };
        let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let mut importance = Importance {
            path: path.to_owned(),
            datasets: Vec::new(),
            chunks: 0,
            entries: BTreeMap::new(),
            unreached: Vec::new(),
        };
        if bytes.starts_with(b"GGUF") {
            drop(bytes);
            importance.read_gguf(policy)?;
        } else {
            importance
                .read_dat(&bytes)
                .map_err(|what| wrong(format!("neither GGUF nor a .dat importance matrix: {what}")))?;
        }
        if importance.entries.is_empty() {
            return Err(wrong("it says nothing about any tensor".to_owned()));
        }
        for (name, values) in &importance.entries {
            if let Some(i) = values.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
                let what = format!("{name:?}: column {i} is {}, expected a mean square", values[i]);
                return Err(wrong(what));
            }
        }
        if policy == ZeroCounts::Error && !importance.unreached.is_empty() {
            let some: Vec<String> = importance.unreached.iter().map(Unreached::to_string).collect();
            let what =
                format!("no token reached {}; run more text, or choose --zero-counts", some.join("; "));
            return Err(wrong(what));
        }
        Ok(importance)
    }

    /// Keeps only entries whose names hold one of `include` (if there are any), and none of `exclude`.
    pub fn filter(&mut self, include: &[String], exclude: &[String]) {
        let holds = |name: &str, parts: &[String]| parts.iter().any(|part| name.contains(part.as_str()));
        self.entries.retain(|name, _| (include.is_empty() || holds(name, include)) && !holds(name, exclude));
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What texts it was made of.
    pub fn datasets(&self) -> &[String] {
        &self.datasets
    }

    /// How many pieces of text.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// How many tensors it is about.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is about none, after all that was filtered out.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Experts that no token reached.
    pub fn unreached(&self) -> &[Unreached] {
        &self.unreached
    }

    /// Every tensor it is about, and its weights.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.entries.iter().map(|(name, weights)| (name.as_str(), weights.as_slice()))
    }

    /// The weights of a tensor's columns, one matrix after the other.
    pub fn get(&self, tensor: &str) -> Option<&[f32]> {
        self.entries.get(tensor).map(Vec::as_slice)
    }

    /// Holds it against a model: an entry must be as long as its tensor's columns, for all its matrices, and about a tensor
    /// that is there if the model has other tensors of that block. Returns what it is about and the model does not have.
    ///
    /// # Errors
    /// A matrix of another model.
    pub fn check(&mut self, tensors: &[Described]) -> Result<Vec<String>, Error> {
        let wrong = |path: &Path, what: String| Error::Importance { path: path.to_owned(), what };
        let by_name: HashMap<&str, &Described> = tensors.iter().map(|t| (t.original.as_str(), t)).collect();
        let unknown: Vec<String> =
            self.entries.keys().filter(|name| !by_name.contains_key(name.as_str())).cloned().collect();
        let mut ignored = None;
        for (name, values) in &self.entries {
            let Some(tensor) = by_name.get(name.as_str()) else { continue };
            let matrices: u64 = match tensor.shape.dims() {
                [outer @ .., _, _] => outer.iter().product(),
                _ => 1,
            };
            let (expected, found) = (tensor.shape.row_len() * matrices, values.len() as u64);
            if expected == found {
                continue;
            }
            // Whatever is recorded for embeddings is not about their columns.
            if name == "token_embd.weight" {
                ignored = Some(name.clone());
                continue;
            }
            let what = format!(
                "of another model: {name:?} has {found} weights, expected {expected} (rows of {} in {matrices} matrices)",
                tensor.shape.row_len()
            );
            return Err(wrong(&self.path, what));
        }
        // Blocks may have been pruned, or left out as that for several tokens is.
        let blocks: HashSet<u64> = tensors.iter().filter_map(|t| layer(&t.original)).collect();
        let in_blocks =
            unknown.iter().filter(|name| layer(name).is_some_and(|block| blocks.contains(&block)));
        let in_blocks: Vec<&str> = in_blocks.map(String::as_str).collect();
        let nowhere = unknown.iter().filter(|name| layer(name).is_none()).count();
        let none_known = unknown.len() == self.entries.len();
        if !in_blocks.is_empty() || 2 * nowhere > self.entries.len() || none_known {
            let all: Vec<&str> = unknown.iter().map(String::as_str).collect();
            let names = if in_blocks.is_empty() { all } else { in_blocks };
            let what = format!(
                "of another model: it is about {}, which this one does not have; give this model's, or leave them out \
                 with --exclude-weights",
                match names.as_slice() {
                    [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
                    names => names.concat(),
                }
            );
            return Err(wrong(&self.path, what));
        }
        if let Some(name) = ignored {
            self.entries.remove(&name);
        }
        Ok(unknown)
    }

    fn read_gguf(&mut self, policy: ZeroCounts) -> Result<(), Error> {
        let path = self.path.clone();
        let wrong = |what: String| Error::Importance { path: path.clone(), what };
        let source = format::open(&path, &Limits::default())?;
        let Metadata::Gguf(keys) = source.metadata() else {
            return Err(wrong("no GGUF file".to_owned()));
        };
        let missing = |error: format::gguf::KeyError| wrong(format!("no importance matrix: {error}"));
        let datasets = keys.get_array("imatrix.datasets").map_err(missing)?;
        for name in datasets.elements() {
            let name = name.ok().and_then(|name| name.as_str().map(str::to_owned));
            self.datasets
                .push(name.ok_or_else(|| wrong("imatrix.datasets holds something else than text".into()))?);
        }
        self.chunks = keys.get_u64("imatrix.chunk_count").map_err(missing)?;
        keys.get_u64("imatrix.chunk_size").map_err(missing)?;
        for info in source.tensors() {
            let Some(name) = info.name.strip_suffix(".in_sum2") else {
                let counts_of = info.name.strip_suffix(".counts");
                if counts_of.is_none_or(|name| source.tensor(&format!("{name}.in_sum2")).is_none()) {
                    return Err(wrong(format!("{:?} is neither sums nor the counts of any", info.name)));
                }
                continue;
            };
            let counts = source.tensor(&format!("{name}.counts"));
            let counts = counts.ok_or_else(|| wrong(format!("{name:?} has sums and no counts")))?;
            let sums =
                floats(source.as_ref(), info).ok_or_else(|| wrong(format!("{:?} is not F32", info.name)))?;
            let counts = floats(source.as_ref(), counts)
                .ok_or_else(|| wrong(format!("{:?} is not F32", counts.name)))?;
            if counts.is_empty() || sums.is_empty() || !sums.len().is_multiple_of(counts.len()) {
                let what = format!("{name:?} has {} sums for {} counts", sums.len(), counts.len());
                return Err(wrong(what));
            }
            let values = self.means(name, sums, &counts, policy);
            self.entries.insert(name.to_owned(), values);
        }
        Ok(())
    }

    /// Sums over counts; where nothing was counted, what the policy says.
    fn means(&mut self, name: &str, mut sums: Vec<f32>, counts: &[f32], policy: ZeroCounts) -> Vec<f32> {
        let cols = sums.len() / counts.len();
        // Counts are whole numbers, kept as floats.
        let counts: Vec<f32> = counts.iter().map(|count| count.round()).collect();
        let reached: Vec<usize> = (0..counts.len()).filter(|&i| counts[i] > 0.0).collect();
        for &i in &reached {
            sums[i * cols..][..cols].iter_mut().for_each(|sum| *sum /= counts[i]);
        }
        if reached.len() == counts.len() {
            return sums;
        }
        let experts: Vec<usize> = (0..counts.len()).filter(|i| !reached.contains(i)).collect();
        let mut stand_in = vec![1.0; cols];
        if policy == ZeroCounts::Neighbours && !reached.is_empty() {
            for (column, mean) in stand_in.iter_mut().enumerate() {
                let sum: f64 = reached.iter().map(|i| f64::from(sums[i * cols + column])).sum();
                *mean = (sum / reached.len() as f64) as f32;
            }
        }
        experts.iter().for_each(|i| sums[i * cols..][..cols].copy_from_slice(&stand_in));
        self.unreached.push(Unreached { tensor: name.to_owned(), experts, of: counts.len() });
        sums
    }

    fn read_dat(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = Dat { bytes, at: 0 };
        let entries = rest.length("the number of entries")?;
        for _ in 0..entries {
            let length = rest.length("the length of a name")?;
            let name = std::str::from_utf8(rest.take(length, "a name")?);
            let name = name.map_err(|_| format!("a name before byte {} is no UTF-8", rest.at))?.to_owned();
            let calls = rest.number("a count")?;
            let count = rest.length("a number of values")?;
            let bytes = rest.take(count.saturating_mul(4), "values")?;
            let values = bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x));
            let values = match calls {
                1.. => values.map(|x| x / calls as f32).collect(),
                _ => values.collect(),
            };
            if self.entries.insert(name.clone(), values).is_some() {
                return Err(format!("{name:?} stands there twice"));
            }
        }
        if !rest.is_empty() {
            self.chunks = rest.length("the number of chunks")? as u64;
            if !rest.is_empty() {
                let length = rest.length("the length of the dataset's name")?;
                let name = rest.take(length, "the dataset's name")?;
                self.datasets = vec![String::from_utf8_lossy(name).into_owned()];
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Unreached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let experts: Vec<String> = self.experts.iter().map(usize::to_string).collect();
        write!(f, "{} ({} of {}: {})", self.tensor, experts.len(), self.of, experts.join(", "))
    }
}

fn floats(source: &dyn TensorSource, info: &TensorInfo) -> Option<Vec<f32>> {
    (info.encoding == Encoding::F32)
        .then(|| source.bytes(info).as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect())
}

/// A `.dat` file that is being read.
struct Dat<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Dat<'a> {
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or_else(|| {
            format!("{what} at byte {} would take {count} bytes, {} are left", self.at, rest.len())
        })?;
        self.at += count;
        Ok(taken)
    }

    fn number(&mut self, what: &str) -> Result<i32, String> {
        let bytes = self.take(4, what)?;
        Ok(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn length(&mut self, what: &str) -> Result<usize, String> {
        let at = self.at;
        let number = self.number(what)?;
        usize::try_from(number).map_err(|_| format!("{what} at byte {at} is {number}"))
    }

    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }
}
