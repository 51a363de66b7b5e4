//! Hashes of tensors and of all of them together, as llama-gguf-hash writes and checks them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use format::{TensorInfo, TensorSource};
use rayon::prelude::*;
use serde::{Serialize, Serializer};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh64::Xxh64;

use crate::error::Error;

/// A hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the names say it
pub enum Algorithm {
    Uuid,
    Xxh64,
    Sha1,
    Sha256,
}

/// llama.cpp's namespace of UUIDs: that of `en.wikipedia.org/wiki/Llama.cpp` among URLs.
const NAMESPACE: [u8; 16] =
    [0xef, 0x00, 0x12, 0x06, 0xda, 0xdc, 0x5f, 0x6d, 0xa1, 0x5f, 0x33, 0x59, 0xe5, 0x77, 0xd4, 0xe5];

impl Algorithm {
    /// The weakest first: a UUID is a name for all tensors together, of 122 bits of their SHA-1.
    pub const ALL: [Algorithm; 4] = [Algorithm::Uuid, Algorithm::Xxh64, Algorithm::Sha1, Algorithm::Sha256];

    /// Whether single tensors have one.
    pub fn is_of_tensors(self) -> bool {
        self != Algorithm::Uuid
    }

    /// What manifests call it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Uuid => "uuid",
            Algorithm::Xxh64 => "xxh64",
            Algorithm::Sha1 => "sha1",
            Algorithm::Sha256 => "sha256",
        }
    }

    /// The hash of that name.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn start(self) -> State {
        match self {
            Algorithm::Uuid => State::Uuid(Sha1::new_with_prefix(NAMESPACE)),
            Algorithm::Xxh64 => State::Xxh64(Box::new(Xxh64::new(0))),
            Algorithm::Sha1 => State::Sha1(Sha1::new()),
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
        }
    }
}

/// A hash under way.
enum State {
    Uuid(Sha1),
    Xxh64(Box<Xxh64>),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl State {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            State::Xxh64(state) => state.update(bytes),
            State::Uuid(state) | State::Sha1(state) => state.update(bytes),
            State::Sha256(state) => state.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            State::Uuid(state) => Digest::Uuid(uuid(state.finalize().into())),
            State::Xxh64(state) => Digest::Xxh64(state.digest().to_be_bytes()),
            State::Sha1(state) => Digest::Sha1(state.finalize().into()),
            State::Sha256(state) => Digest::Sha256(state.finalize().into()),
        }
    }
}

/// Version 5 of RFC 9562: the first 128 bits but for the six that say so.
fn uuid(digest: [u8; 20]) -> [u8; 16] {
    let mut uuid: [u8; 16] = std::array::from_fn(|i| digest[i]);
    uuid[6] = uuid[6] & 0x0f | 0x50;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// What came of hashing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Digest {
    Uuid([u8; 16]),
    Xxh64([u8; 8]),
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

impl Digest {
    /// Which hash it is.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Uuid(_) => Algorithm::Uuid,
            Digest::Xxh64(_) => Algorithm::Xxh64,
            Digest::Sha1(_) => Algorithm::Sha1,
            Digest::Sha256(_) => Algorithm::Sha256,
        }
    }
}

/// In hexadecimal, a UUID in its five groups.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (bytes, groups): (&[u8], &[usize]) = match self {
            Digest::Uuid(bytes) => (bytes, &[4, 6, 8, 10]),
            Digest::Xxh64(bytes) => (bytes, &[]),
            Digest::Sha1(bytes) => (bytes, &[]),
            Digest::Sha256(bytes) => (bytes, &[]),
        };
        bytes.iter().enumerate().try_for_each(|(i, byte)| {
            f.write_str(if groups.contains(&i) { "-" } else { "" })?;
            write!(f, "{byte:02x}")
        })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One hash of one tensor, or of all their bytes one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed<'s> {
    /// The hash.
    pub hash: Digest,
    /// The tensor; `None` for all of them.
    pub tensor: Option<&'s str>,
}

/// Bytes hashed between two words about progress.
const PIECE: usize = 4 << 20;

/// Hashes tensors on all threads and, if `whole`, the bytes of all there are, in file order, on one of them. `progress` hears of
/// bytes that were hashed, from any thread.
///
/// Each tensor's hashes stand together, in the order of `algorithms`; those of all tensors come last.
pub fn hash<'s>(
    source: &dyn TensorSource,
    tensors: &[&'s TensorInfo],
    algorithms: &[Algorithm],
    whole: bool,
    progress: &(dyn Fn(u64) + Sync),
) -> Vec<Hashed<'s>> {
    let of = |algorithm: Algorithm, infos: &[TensorInfo]| {
        let mut state = algorithm.start();
        for info in infos {
            for piece in source.bytes(info).chunks(PIECE) {
                state.update(piece);
                progress(piece.len() as u64);
            }
        }
        state.finish()
    };
    let of_tensors: Vec<Algorithm> = algorithms.iter().copied().filter(|a| a.is_of_tensors()).collect();
    let one = |job: usize| {
        let (info, algorithm) = (tensors[job / of_tensors.len()], of_tensors[job % of_tensors.len()]);
        Hashed { hash: of(algorithm, std::slice::from_ref(info)), tensor: Some(&info.name) }
    };
    let all = |&algorithm: &Algorithm| Hashed { hash: of(algorithm, source.tensors()), tensor: None };
    let together = || if whole { algorithms.par_iter().map(all).collect() } else { Vec::new() };
    let jobs = (0..tensors.len() * of_tensors.len()).into_par_iter();
    let (whole, mut each): (Vec<Hashed>, Vec<Hashed>) =
        rayon::join(together, || jobs.with_max_len(1).map(one).collect());
    each.extend(whole);
    each
}

/// The bytes that [`hash`] will report.
pub fn work(tensors: &[&TensorInfo], algorithms: &[Algorithm], whole: bool) -> u64 {
    let once: u64 = tensors.iter().map(|info| info.size).sum();
    let times = |algorithm: &Algorithm| u64::from(algorithm.is_of_tensors()) + u64::from(whole);
    once.saturating_mul(algorithms.iter().map(times).sum())
}

/// A line of a manifest.
pub fn line(hashed: &Hashed, model: &str) -> String {
    let colon = if hashed.tensor.is_some() { ":" } else { "" };
    let tensor = hashed.tensor.unwrap_or_default();
    format!("{:<8}  {}  {model}{colon}{tensor}", hashed.hash.algorithm().name(), hashed.hash)
}

/// A list of hashes.
pub struct Manifest {
    entries: Vec<Entry>,
    /// Which entry is the first of its name as it is written.
    exact: HashMap<(Algorithm, String), usize>,
    /// Which is the first of its name without directories.
    elsewhere: HashMap<(Algorithm, String), usize>,
}

struct Entry {
    algorithm: Algorithm,
    hash: String,
    /// File and tensor, or the file alone.
    name: String,
}

/// What a manifest says of one hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The same.
    Ok,
    /// Another one.
    Mismatch,
    /// Nothing.
    NotFound,
}

impl Verdict {
    /// As llama-gguf-hash says it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "Ok",
            Verdict::Mismatch => "Mismatch",
            Verdict::NotFound => "Not Found",
        }
    }
}

impl Manifest {
    /// Reads a manifest. A line with a hash that is not known, or with none, is an error.
    pub fn read(path: &Path) -> Result<Manifest, Error> {
        let fail = |why: String| Error::Manifest { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|e| fail(format!("cannot read it: {e}")))?;
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let parts = line.split_once(' ').and_then(|(algorithm, rest)| {
                let (hash, name) = rest.trim_start().split_once(' ')?;
                Some((algorithm, hash, name.trim_start()))
            });
            let Some((algorithm, hash, name)) = parts.filter(|(.., name)| !name.is_empty()) else {
                return Err(fail(format!(
                    "line {}: expected a hash's name, the hash and a file",
                    number + 1
                )));
            };
            let Some(algorithm) = Algorithm::from_name(algorithm) else {
                return Err(fail(format!(
                    "line {}: {algorithm:?} is no hash known here: expected xxh64, sha1, sha256 or uuid",
                    number + 1
                )));
            };
            entries.push(Entry { algorithm, hash: hash.to_ascii_lowercase(), name: name.to_owned() });
        }
        if entries.is_empty() {
            return Err(fail("no line with xxh64, sha1, sha256 or uuid".to_owned()));
        }
        let first = |name: fn(&Entry) -> &str| {
            let mut first = HashMap::new();
            for (at, entry) in entries.iter().enumerate() {
                first.entry((entry.algorithm, name(entry).to_owned())).or_insert(at);
            }
            first
        };
        let (exact, elsewhere) = (first(|entry| &entry.name), first(|entry| file_name(&entry.name)));
        Ok(Manifest { entries, exact, elsewhere })
    }

    /// The strongest hash that it has.
    pub fn strongest(&self) -> Option<Algorithm> {
        self.entries.iter().map(|entry| entry.algorithm).max()
    }

    /// Whether it says something of the whole file.
    pub fn has_whole(&self, model: &str) -> bool {
        self.entries.iter().any(|entry| file_name(&entry.name) == file_name(model))
    }

    /// Compares by tensor and by the file's name; directories may differ.
    pub fn verdict(&self, hashed: &Hashed, model: &str) -> Verdict {
        let own = match hashed.tensor {
            Some(tensor) => format!("{model}:{tensor}"),
            None => model.to_owned(),
        };
        let algorithm = hashed.hash.algorithm();
        let exact = self.exact.get(&(algorithm, own.clone()));
        let elsewhere = || self.elsewhere.get(&(algorithm, file_name(&own).to_owned()));
        match exact.or_else(elsewhere).and_then(|&at| self.entries.get(at)) {
            None => Verdict::NotFound,
            Some(entry) if entry.hash == hashed.hash.to_string() => Verdict::Ok,
            Some(_) => Verdict::Mismatch,
        }
    }

    /// Tensors of this file that the manifest names and `hashed` has not.
    pub fn missing<'a>(&'a self, hashed: &[Hashed], algorithm: Algorithm, model: &str) -> Vec<&'a str> {
        let known: HashSet<&str> = hashed.iter().filter_map(|h| h.tensor).collect();
        let prefix = format!("{}:", file_name(model));
        let named = self.entries.iter().filter(|entry| entry.algorithm == algorithm);
        named
            .filter_map(|entry| file_name(&entry.name).strip_prefix(prefix.as_str()))
            .filter(|tensor| !known.contains(tensor))
            .collect()
    }
}

/// What stands behind the last slash; names of tensors have none before their colon.
fn file_name(name: &str) -> &str {
    let file = name.split(':').next().map_or(0, str::len);
    let start = name[..file].rfind(['/', '\\']).map_or(0, |at| at + 1);
    &name[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(hash: u64, tensor: Option<&str>) -> Hashed<'_> {
        Hashed { hash: Digest::Xxh64(hash.to_be_bytes()), tensor }
    }

    fn manifest(text: &str) -> Result<Manifest, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        std::fs::write(&path, text).unwrap();
        Manifest::read(&path)
    }

    #[test]
    fn known_answers() {
        for (algorithm, empty, abc) in [
            (Algorithm::Xxh64, "ef46db3751d8e999", "44bc2cf5ad770999"),
            (
                Algorithm::Sha1,
                "da39a3ee5e6b4b0d3255bfef95601890afd80709",
                "a9993e364706816aba3e25717850c26c9cd0d89d",
            ),
            (
                Algorithm::Sha256,
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            assert_eq!(algorithm.start().finish().to_string(), empty);
            let mut state = algorithm.start();
            state.update(b"a");
            state.update(b"bc");
            assert_eq!(state.finish().to_string(), abc);
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
    }

    /// Python: `uuid.uuid5(uuid.UUID("ef001206-dadc-5f6d-a15f-3359e577d4e5"), "abc")`.
    #[test]
    fn a_uuid_is_that_of_its_namespace() {
        let mut state = Algorithm::Uuid.start();
        state.update(b"abc");
        assert_eq!(state.finish().to_string(), "9f2200fc-45e8-5a39-9535-c3ea5c0e0cef");
    }

    #[test]
    fn manifests_are_compared_by_file_and_tensor() {
        let text = "xxh64     44bc2cf5ad770999  dir/m.gguf:a b\nsha1  0000000000000000000000000000000000000000  m.gguf\nuuid  x  m.gguf\nxxh64 11  m.gguf:c\n";
        let manifest = manifest(text).unwrap();
        let verdict = |hash, tensor, model| manifest.verdict(&hashed(hash, tensor), model);
        for model in ["dir/m.gguf", "m.gguf", "other/m.gguf"] {
            assert_eq!(verdict(0x44bc_2cf5_ad77_0999, Some("a b"), model), Verdict::Ok);
        }
        assert_eq!(verdict(0x44, Some("a b"), "m.gguf"), Verdict::Mismatch);
        assert_eq!(verdict(0x44, Some("a b"), "n.gguf"), Verdict::NotFound);
        assert_eq!(verdict(0x44, None, "m.gguf"), Verdict::NotFound);
        let sha1 = Hashed { hash: Digest::Sha1([0; 20]), tensor: None };
        assert_eq!(manifest.verdict(&sha1, "x/m.gguf"), Verdict::Ok);
        assert_eq!(manifest.strongest(), Some(Algorithm::Sha1));
        let have = [hashed(0x44, Some("a b"))];
        assert_eq!(manifest.missing(&have, Algorithm::Xxh64, "m.gguf"), ["c"]);
        assert!(manifest.has_whole("m.gguf") && !manifest.has_whole("n.gguf"));
    }

    /// A manifest of several directories: the name as it is written comes first, wherever it stands.
    #[test]
    fn the_same_name_in_another_directory_gives_way() {
        let manifest =
            manifest("xxh64 0000000000000001  d/m.gguf:a\nxxh64 0000000000000002  m.gguf:a\n").unwrap();
        let verdict = |hash, model| manifest.verdict(&hashed(hash, Some("a")), model);
        assert_eq!((verdict(2, "m.gguf"), verdict(1, "m.gguf")), (Verdict::Ok, Verdict::Mismatch));
        assert_eq!((verdict(1, "d/m.gguf"), verdict(1, "e/m.gguf")), (Verdict::Ok, Verdict::Ok));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for text in ["", "xxh64\n", "xxh64 00\n", "md5  00  m.gguf\n", "xxh64 00 m.gguf\nmd5 00 m.gguf"] {
            assert!(manifest(text).is_err(), "{text:?}");
        }
    }
}
