//! A finished set of named tensors, in memory or in files.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::dtype::Dtype;
use crate::entry::{Contents, Entry, Reader, Stretch};
use crate::error::Place;
use crate::manifest::{Manifest, ManifestPoint};
use crate::source::Source;
use crate::tensor::{Tensor, Values};
use crate::{Error, npy, npz, point, safetensors};

/// What is known of a tensor without reading its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointInfo {
    /// Lengths of the axes, outermost first.
    pub shape: Vec<usize>,
    /// Element type as stored.
    pub dtype: Dtype,
}

/// Named tensors in execution order, with the tokens they belong to.
///
/// Opening reads headers only and checks each against the bytes that are there; values are read when asked for.
#[derive(Debug)]
pub struct Trace {
    names: Vec<String>,
    points: HashMap<String, (PointInfo, Data)>,
    tokens: Option<Vec<i64>>,
    manifest: Option<Manifest>,
}

#[derive(Debug)]
enum Data {
    Memory(Tensor),
    Stored(Entry),
}

/// The array that holds the token ids; it is not a point.
pub(crate) const TOKENS: &str = "tokens";

impl Trace {
    /// A trace held in memory; `points` in execution order, each name once.
    pub fn from_tensors(tokens: Option<Vec<i64>>, points: Vec<(String, Tensor)>) -> Trace {
        let names = points.iter().map(|(name, _)| name.clone()).collect();
        let hold = |tensor: Tensor| {
            let dtype = match tensor.values {
                Values::F32(_) => Dtype::F32,
                Values::F64(_) => Dtype::F64,
                Values::I64(_) => Dtype::I64,
            };
            (PointInfo { shape: tensor.shape.clone(), dtype }, Data::Memory(tensor))
        };
        let points = points.into_iter().map(|(name, tensor)| (name, hold(tensor))).collect();
        Trace { names, points, tokens, manifest: None }
    }

    /// Opens a directory of `.npy` files, a `.npz`, a `.safetensors` or a single `.npy` file, told apart by their
    /// first bytes.
    ///
    /// Points come in the order of the manifest where there is one, then in that of [`point::order_key`], then by
    /// name. A manifest must agree with the arrays it lists.
    pub fn open(path: &Path) -> Result<Trace, Error> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
        if metadata.is_dir() {
            return open_directory(path);
        }
        open_source(Source::held(path)?, path.file_stem().and_then(|s| s.to_str()).unwrap_or("array"))
    }

    /// Opens the bytes of a `.npz`, `.safetensors` or `.npy` file. `label` names them in errors.
    pub fn from_bytes(label: &str, bytes: Vec<u8>) -> Result<Trace, Error> {
        open_source(Source::memory(label, bytes), label)
    }

    /// The points' names in execution order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// How many points there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Shape and element type of a point; `None` if the trace does not hold it.
    pub fn info(&self, name: &str) -> Option<&PointInfo> {
        self.points.get(name).map(|(info, _)| info)
    }

    /// The values of a point, read now if they are stored.
    pub fn get(&self, name: &str) -> Result<Tensor, Error> {
        match self.data(name)? {
            Data::Memory(tensor) => Ok(tensor.clone()),
            Data::Stored(entry) => entry.read(),
        }
    }

    /// The token ids the values belong to, if the trace says.
    pub fn tokens(&self) -> Option<&[i64]> {
        self.tokens.as_deref()
    }

    /// What the trace says about itself, if it has a manifest.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Gives the values of a point from front to back, without holding them all.
    pub(crate) fn reader(&self, name: &str) -> Result<Reader, Error> {
        match self.data(name)? {
            Data::Memory(tensor) => Ok(Reader::Held { values: tensor.values.clone(), at: 0 }),
            Data::Stored(entry) => entry.reader(),
        }
    }

    fn data(&self, name: &str) -> Result<&Data, Error> {
        let missing = || Error::NoSuchPoint { name: name.to_owned(), available: self.names.len() };
        self.points.get(name).map(|(_, data)| data).ok_or_else(missing)
    }
}

fn open_source(source: Source, stem: &str) -> Result<Trace, Error> {
    let place = source.place();
    let stretch = Stretch::whole(source);
    let head = stretch.source.bytes(0, stretch.size.min(9))?;
    let source = |stretch: Stretch| std::sync::Arc::into_inner(stretch.source).expect("not shared yet");
    match &head[..] {
        [b'P', b'K', ..] => {
            let contents = npz::open(source(stretch))?;
            assemble(contents, place.clone(), &place.part(Manifest::FILE), ".npy")
        }
        _ if head.starts_with(npy::MAGIC) => {
            let array = Entry::npy(stretch, place.clone())?;
            let contents = Contents { arrays: vec![(stem.to_owned(), array)], manifest: None };
            assemble(contents, place.clone(), &place, "")
        }
        // The length of the header, then the header.
        [.., b'{'] if head.len() == 9 => {
            let contents = safetensors::open(source(stretch))?;
            assemble(contents, place.clone(), &place.part(Manifest::SAFETENSORS_KEY), "")
        }
        [b'G', b'G', b'U', b'F', ..] => {
            Err(place.unsupported("is a GGUF model, not a trace; record one from it with `etalon dump`"))
        }
        _ if head.starts_with(b"version ") => {
            Err(place.unsupported("is a Git LFS pointer, not the file it stands for; run `git lfs pull`"))
        }
        [] => Err(place.malformed("is empty")),
        _ => Err(place.malformed(format!(
            "is no .npz, .safetensors or .npy file and no directory of .npy files; it starts with {}",
            head.escape_ascii()
        ))),
    }
}

fn open_directory(path: &Path) -> Result<Trace, Error> {
    let place = Place::file(&path.display().to_string());
    let listed = |e| Error::io("list", path, e);
    let mut arrays = Vec::new();
    let mut manifest = None;
    for item in std::fs::read_dir(path).map_err(listed)? {
        let file = item.map_err(listed)?.path();
        let Some(name) = file.file_name().and_then(|n| n.to_str()) else { continue };
        if name == Manifest::FILE {
            let stretch = Stretch::whole(Source::held(&file)?);
            manifest = Some(Manifest::read(&mut stretch.open(), &stretch.source.place())?);
        } else if let Some(name) = name.strip_suffix(".npy") {
            let stretch = Stretch::whole(Source::reopened(&file)?);
            let place = stretch.source.place();
            arrays.push((name.to_owned(), Entry::npy(stretch, place)?));
        }
    }
    if arrays.is_empty() && manifest.is_none() {
        return Err(place.malformed("is a directory without .npy files and without manifest.json: no trace"));
    }
    let manifest_place = Place::file(&path.join(Manifest::FILE).display().to_string());
    assemble(Contents { arrays, manifest }, place, &manifest_place, ".npy")
}

/// Puts arrays into execution order and checks the manifest against them. The manifest calls an array by its name
/// with `suffix`.
fn assemble(
    Contents { arrays, manifest }: Contents,
    place: Place,
    manifest_place: &Place,
    suffix: &str,
) -> Result<Trace, Error> {
    let mut arrays: HashMap<String, Entry> = arrays.into_iter().collect();
    let listed_tokens = manifest.as_ref().and_then(|m| m.tokens.clone());
    let tokens = match arrays.remove(TOKENS) {
        None => listed_tokens,
        Some(entry) => {
            let stored = read_tokens(&entry)?;
            if listed_tokens.is_some_and(|listed| listed != stored) {
                return Err(manifest_place.malformed("its tokens differ from those of the array `tokens`"));
            }
            Some(stored)
        }
    };

    let mut names = Vec::with_capacity(arrays.len());
    let mut points = HashMap::new();
    let mut add = |name: String, entry: Entry| {
        let info = PointInfo { shape: entry.shape.clone(), dtype: entry.dtype };
        names.push(name.clone());
        points.insert(name, (info, Data::Stored(entry)));
    };
    let mut seen = HashSet::new();
    for point in manifest.iter().flat_map(|m| &m.points) {
        let ManifestPoint { name, file, shape, dtype } = point;
        let fault = |fault: String| manifest_place.malformed(format!("point `{name}`: {fault}"));
        if !seen.insert(name.as_str()) {
            return Err(fault("listed twice".to_owned()));
        }
        let array = if suffix.is_empty() { Some(file.as_str()) } else { file.strip_suffix(suffix) };
        let entry = array.and_then(|array| arrays.remove(array));
        let Some(entry) = entry else {
            return Err(fault(format!("its file `{file}` is not there, or serves another point")));
        };
        if entry.shape != *shape || Dtype::from_name(dtype) != Some(entry.dtype) {
            return Err(fault(format!(
                "listed as {dtype} {shape:?}, but `{file}` holds {} {:?}",
                entry.dtype.name(),
                entry.shape
            )));
        }
        add(name.clone(), entry);
    }
    let mut unlisted: Vec<_> = arrays.into_iter().collect();
    unlisted.sort_by(|(a, _), (b, _)| point::order_key(a).cmp(&point::order_key(b)).then_with(|| a.cmp(b)));
    for (name, entry) in unlisted {
        if seen.contains(name.as_str()) {
            return Err(manifest_place.malformed(format!("point `{name}`: two files claim it in {place}")));
        }
        add(name, entry);
    }
    Ok(Trace { names, points, tokens, manifest })
}

fn read_tokens(entry: &Entry) -> Result<Vec<i64>, Error> {
    // Token ids with a batch axis of 1 are as good.
    let long_axes = entry.shape.iter().filter(|&&d| d != 1).count();
    match entry.read()?.values {
        Values::I64(ids) if long_axes <= 1 && !entry.shape.is_empty() => Ok(ids),
        _ => Err(entry.place.malformed(format!(
            "token ids are one row of integers, but these are {} {:?}",
            entry.dtype.name(),
            entry.shape
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/trace").join(name)
    }

    /// The fixtures' rule: element n is n / 4 - 1, or n, or whether n is odd.
    fn check_values(trace: &Trace, name: &str) {
        let n = 24;
        let real = |n: i64| n as f64 / 4. - 1.;
        let expected = match trace.info(name).unwrap().dtype {
            Dtype::F16 | Dtype::BF16 | Dtype::F32 => Values::F32((0..n).map(|n| real(n) as f32).collect()),
            Dtype::F64 => Values::F64((0..n).map(real).collect()),
            Dtype::Bool => Values::I64((0..n).map(|n| n % 2).collect()),
            _ => Values::I64((0..n).collect()),
        };
        assert_eq!(trace.get(name).unwrap(), Tensor { shape: vec![2, 3, 4], values: expected }, "{name}");
    }

    #[test]
    fn numpy_archives_are_read() {
        for name in ["stored.npz", "deflated.npz"] {
            let trace = Trace::open(&fixture(name)).unwrap();
            assert_eq!(trace.tokens(), Some(&[7, 8][..]));
            assert_eq!(trace.len(), 6 + 16 + 5);
            for point in trace.names() {
                match point {
                    "empty" => assert_eq!(trace.get(point).unwrap().shape, [0, 4]),
                    "scalar" => assert_eq!(trace.get(point).unwrap().values, Values::F64(vec![-1.])),
                    _ => check_values(&trace, point),
                }
            }
        }
    }

    #[test]
    fn single_arrays_of_all_versions_are_read() {
        for version in ["version1", "version2", "version3"] {
            let trace = Trace::open(&fixture(&format!("{version}.npy"))).unwrap();
            check_values(&trace, version);
        }
    }

    #[test]
    fn torch_tensors_are_read() {
        let trace = Trace::open(&fixture("torch.safetensors")).unwrap();
        assert_eq!(trace.names().collect::<Vec<_>>(), ["bf16", "bool", "f16", "f32", "f64", "i32"]);
        for point in trace.names() {
            check_values(&trace, point);
        }
        let manifest = trace.manifest().unwrap();
        assert_eq!(manifest.producer.as_ref().unwrap().precision.as_deref(), Some("bf16"));
    }

    fn directory(manifest: Option<&str>, arrays: &[&str]) -> tempfile::TempDir {
        let room = tempfile::tempdir().unwrap();
        for name in arrays {
            fs::copy(fixture("version1.npy"), room.path().join(format!("{name}.npy"))).unwrap();
        }
        if let Some(text) = manifest {
            fs::write(room.path().join(Manifest::FILE), text).unwrap();
        }
        room
    }

    #[test]
    fn without_a_manifest_the_table_gives_the_order() {
        let room = directory(None, &["zz", "lm_head", "aa", "model.layers.10", "model.layers.9.mlp"]);
        let trace = Trace::open(room.path()).unwrap();
        let expected = ["model.layers.9.mlp", "model.layers.10", "lm_head", "aa", "zz"];
        assert_eq!(trace.names().collect::<Vec<_>>(), expected);
        check_values(&trace, "zz");
    }

    #[test]
    fn a_manifest_gives_the_order_and_must_agree_with_the_files() {
        let point = |name: &str, file: &str, shape: &str, dtype: &str| {
            format!(r#"{{"name": "{name}", "file": "{file}", "shape": {shape}, "dtype": "{dtype}"}}"#)
        };
        let open = |points: &[String]| {
            let text = format!(r#"{{"version": 1, "tokens": [1, 2], "points": [{}]}}"#, points.join(","));
            let room = directory(Some(&text), &["a", "b", "c"]);
            Trace::open(room.path()).map_err(|e| e.to_string())
        };
        let a = point("a", "a.npy", "[2, 3, 4]", "f32");
        let trace = open(&[point("x", "b.npy", "[2, 3, 4]", "f32"), a.clone()]).unwrap();
        assert_eq!(trace.names().collect::<Vec<_>>(), ["x", "a", "c"]);
        assert_eq!(trace.tokens(), Some(&[1, 2][..]));
        for (points, fault) in [
            (vec![point("a", "a.npy", "[2, 12]", "f32")], "listed as f32 [2, 12], but `a.npy` holds f32"),
            (vec![point("a", "a.npy", "[2, 3, 4]", "f64")], "listed as f64"),
            (vec![point("a", "d.npy", "[2, 3, 4]", "f32")], "`d.npy` is not there"),
            (vec![point("a", "../a.npy", "[2, 3, 4]", "f32")], "`../a.npy` is not there"),
            (vec![a.clone(), a], "listed twice"),
            (vec![point("a", "b.npy", "[2, 3, 4]", "f32")], "two files claim it"),
        ] {
            let error = open(&points).expect_err(fault);
            assert!(error.contains(fault) && error.contains("point `a`"), "{fault}: {error}");
            assert!(error.contains(Manifest::FILE), "{error}");
        }
    }

    #[test]
    fn tokens_that_contradict_each_other_or_are_none_are_refused() {
        let room = directory(None, &["tokens"]);
        let error = Trace::open(room.path()).unwrap_err().to_string();
        assert!(error.contains("token ids are one row of integers"), "{error}");
        let room = directory(Some(r#"{"version": 1, "tokens": [1]}"#), &[]);
        let ids = npy::Header::plain(Dtype::U8, &[1]).to_bytes(0).unwrap();
        fs::write(room.path().join("tokens.npy"), [ids, vec![2]].concat()).unwrap();
        let error = Trace::open(room.path()).unwrap_err().to_string();
        assert!(error.contains("tokens differ"), "{error}");
    }

    #[test]
    fn other_files_are_named_for_what_they_are() {
        for (bytes, fault) in [
            (&b""[..], "is empty"),
            (b"GGUF\x03\0\0\0\0", "GGUF model"),
            (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
            (b"hello there", "starts with hello th"),
            (b"PK", "no end-of-directory record"),
        ] {
            let error = Trace::from_bytes("f", bytes.to_vec()).unwrap_err().to_string();
            assert!(error.contains(fault) && error.starts_with("f: "), "{error}");
        }
        let empty = directory(None, &[]);
        assert!(Trace::open(empty.path()).unwrap_err().to_string().contains("no trace"));
        let missing = Trace::open(Path::new("/no/such")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot open /no/such"), "{missing}");
    }
}
