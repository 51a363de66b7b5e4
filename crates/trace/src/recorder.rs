//! Streams what a pass records to files.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::dtype::Dtype;
use crate::manifest::{Manifest, ManifestPoint, ModelId, Producer};
use crate::npy::Header;
use crate::output::{Output, Room};
use crate::pack::{self, Piece};
use crate::tap::{Extent, Tap, TapError, View, ViewError};
use crate::tensor::ValuesRef;
use crate::trace::TOKENS;
use crate::{Error, Globs};

/// How real values are stored. Integers are stored as 64-bit integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// As `f32`. A double-precision value that `f32` cannot hold exactly is refused: rounding is the pass's
    /// decision, not the recorder's.
    #[default]
    F32,
    /// As `f64`.
    F64,
}

/// What to record, and what the trace shall say about itself.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The token ids the pass runs on, all of them.
    pub tokens: Vec<i64>,
    /// Which points to record.
    pub points: Globs,
    /// How to store real values.
    pub stored: Stored,
    /// The model that is run.
    pub model: Option<ModelId>,
    /// The program that runs it.
    pub producer: Producer,
    /// Version of the arithmetic's contract.
    pub contract: Option<String>,
    /// Whether an existing output is replaced.
    pub replace: bool,
}

/// A tap that writes a trace: a directory of `.npy` files with `manifest.json`, or one `.npz` or `.safetensors`
/// file by the path's extension.
///
/// Holds no values between two calls. The output appears under its name when [`Recorder::finish`] succeeds; a
/// recorder that is dropped leaves nothing.
#[derive(Debug)]
pub struct Recorder {
    recording: Recording,
    output: Output,
    form: Form,
    room: Room,
    points: Vec<Recorded>,
    index: HashMap<String, usize>,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Directory,
    Npz,
    Safetensors,
}

/// A point that is being written.
#[derive(Debug)]
struct Recorded {
    name: String,
    path: PathBuf,
    extent: Extent,
    /// The shape so far; on axis 0 of a per-token point the rows so far.
    shape: Vec<usize>,
    dtype: Dtype,
    /// Length of the header, which is written once for all tokens.
    header: usize,
}

impl Recorder {
    /// Prepares to write a trace to `path`. Refuses a path that is taken, unless it is to be replaced.
    pub fn create(path: &Path, recording: Recording) -> Result<Recorder, Error> {
        let form = match path.extension().and_then(|e| e.to_str()) {
            Some(e) if e.eq_ignore_ascii_case("npz") => Form::Npz,
            Some(e) if e.eq_ignore_ascii_case("safetensors") => Form::Safetensors,
            _ => Form::Directory,
        };
        let output = Output::new(path, recording.replace)?;
        let room = output.directory()?;
        let mut recorder =
            Recorder { recording, output, form, room, points: Vec::new(), index: HashMap::new() };
        let tokens = recorder.recording.tokens.clone();
        let view = View { shape: &[tokens.len()], values: ValuesRef::I64(&tokens), extent: Extent::Tokens };
        recorder.write(TOKENS, view)?;
        Ok(recorder)
    }

    /// Completes the trace and puts it in its place.
    pub fn finish(mut self) -> Result<(), Error> {
        for point in &self.points {
            point.close().map_err(|e| Error::io("write", &point.path, e))?;
        }
        let tokens = self.points.remove(0);
        let manifest = Manifest {
            version: Manifest::VERSION,
            tokens: Some(self.recording.tokens),
            model: self.recording.model,
            producer: Some(self.recording.producer),
            contract: self.recording.contract,
            points: self.points.iter().map(|p| p.listed(self.form)).collect(),
        };
        let pieces: Vec<_> = std::iter::once(tokens).chain(self.points).map(Recorded::into_piece).collect();
        match self.form {
            Form::Directory => {
                let path = self.room.path().join(Manifest::FILE);
                std::fs::write(&path, manifest.to_json()).map_err(|e| Error::io("write", &path, e))?;
                self.output.persist_directory(self.room)
            }
            Form::Npz => {
                let file = self.output.file()?;
                pack::npz(file.as_file(), self.output.path(), &manifest, pieces)?;
                self.output.persist_file(file)
            }
            Form::Safetensors => {
                let file = self.output.file()?;
                pack::safetensors(file.as_file(), self.output.path(), &manifest, pieces)?;
                self.output.persist_file(file)
            }
        }
    }

    fn write(&mut self, name: &str, view: View<'_>) -> Result<(), RecordError> {
        view.check()?;
        let dtype = match (view.values, self.recording.stored) {
            (ValuesRef::I64(_), _) => Dtype::I64,
            (_, Stored::F32) => Dtype::F32,
            (_, Stored::F64) => Dtype::F64,
        };
        let bytes = encode(view.values, dtype)?;
        let announced = self.recording.tokens.len();
        let at = match self.index.get(name) {
            Some(&at) => at,
            None => {
                let at = self.points.len();
                self.points.push(Recorded::create(name, self.room.path(), view, dtype, announced)?);
                self.index.insert(name.to_owned(), at);
                at
            }
        };
        let point = &mut self.points[at];
        point.advance(view, dtype, announced)?;
        point.append(&bytes).map_err(|e| Error::io("write", &point.path, e))?;
        Ok(())
    }
}

impl Recorded {
    fn create(
        name: &str,
        room: &Path,
        view: View<'_>,
        dtype: Dtype,
        announced: usize,
    ) -> Result<Recorded, Error> {
        check_name(name)?;
        let path = room.join(format!("{name}.npy"));
        let mut shape = view.shape.to_vec();
        if view.extent == Extent::Tokens {
            shape[0] = announced;
        }
        let header = Header::plain(dtype, &shape).to_bytes(0).expect("a type numpy has");
        std::fs::write(&path, &header).map_err(|e| Error::io("write", &path, e))?;
        if view.extent == Extent::Tokens {
            shape[0] = 0;
        }
        Ok(Recorded { name: name.to_owned(), path, extent: view.extent, shape, dtype, header: header.len() })
    }

    /// Takes note of a record's shape, or refuses it.
    fn advance(&mut self, view: View<'_>, dtype: Dtype, announced: usize) -> Result<(), ViewError> {
        let fixed = usize::from(self.extent == Extent::Tokens);
        let same = self.extent == view.extent && self.dtype == dtype && self.shape.len() == view.shape.len();
        if !same || self.shape[fixed..] != view.shape[fixed..] {
            return Err(ViewError::Changed { before: self.shape.clone(), now: view.shape.to_vec() });
        }
        if self.extent == Extent::Tokens {
            let recorded = self.shape[0].saturating_add(view.shape[0]);
            if recorded > announced {
                return Err(ViewError::TooManyTokens { announced, recorded });
            }
            self.shape[0] = recorded;
        }
        Ok(())
    }

    fn append(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        match self.extent {
            Extent::Tokens => file.seek(SeekFrom::End(0))?,
            Extent::State => file.seek(SeekFrom::Start(self.header as u64))?,
        };
        file.write_all(bytes)
    }

    /// States the true number of rows, should the pass have given fewer than there are tokens.
    fn close(&self) -> std::io::Result<()> {
        let header = Header::plain(self.dtype, &self.shape).to_bytes(self.header).expect("a type numpy has");
        OpenOptions::new().write(true).open(&self.path)?.write_all(&header)
    }

    fn listed(&self, form: Form) -> ManifestPoint {
        let file = match form {
            Form::Safetensors => self.name.clone(),
            Form::Directory | Form::Npz => format!("{}.npy", self.name),
        };
        let dtype = self.dtype.name().to_owned();
        ManifestPoint { name: self.name.clone(), file, shape: self.shape.clone(), dtype }
    }

    fn into_piece(self) -> Piece {
        Piece {
            name: self.name,
            path: self.path,
            header: self.header as u64,
            dtype: self.dtype,
            shape: self.shape,
        }
    }
}

impl Tap for Recorder {
    fn wants(&self, name: &str) -> bool {
        self.recording.points.matches(name)
    }

    fn record(&mut self, name: &str, view: View<'_>) -> Result<(), TapError> {
        if name == TOKENS {
            let reason = "the token ids are stored under this name";
            return Err(TapError::new(name, Error::Name { name: name.to_owned(), reason }));
        }
        self.write(name, view).map_err(|e| TapError::new(name, e))
    }
}

#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Trace(#[from] Error),
    #[error(
        "value {value:e} at place {at} of the record is not exact in f32; record as f64, or round before recording"
    )]
    Inexact { at: usize, value: f64 },
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Error {
        match error {
            RecordError::Trace(error) => error,
            other => unreachable!("the token ids are one axis of integers: {other}"),
        }
    }
}

/// Names become file names, archive members and JSON keys.
fn check_name(name: &str) -> Result<(), Error> {
    /// Most file systems allow 255 bytes, `.npy` included.
    const MAX_LENGTH: usize = 250;
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_LENGTH {
        "it is longer than 250 bytes"
    } else if name.starts_with('.') {
        "it starts with a dot"
    } else if name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control()) {
        "it holds a path separator or a control character"
    } else {
        return Ok(());
    };
    Err(Error::Name { name: name.to_owned(), reason })
}

/// The values as little-endian elements of type `dtype`.
fn encode(values: ValuesRef<'_>, dtype: Dtype) -> Result<Vec<u8>, RecordError> {
    Ok(match (values, dtype) {
        (ValuesRef::F32(v), Dtype::F32) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        (ValuesRef::F32(v), _) => v.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
        (ValuesRef::F64(v), Dtype::F32) => {
            let inexact = |x: f64| f64::from(x as f32) != x && !x.is_nan();
            if let Some(at) = v.iter().position(|&x| inexact(x)) {
                return Err(RecordError::Inexact { at, value: v[at] });
            }
            v.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect()
        }
        (ValuesRef::F64(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        (ValuesRef::I64(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, Trace, Values};
    use proptest::prelude::*;

    fn recording(tokens: usize) -> Recording {
        Recording {
            tokens: (100..).take(tokens).collect(),
            points: Globs::new(&["*"]).unwrap(),
            stored: Stored::F32,
            model: Some(ModelId { path: "m".to_owned(), sha256: None }),
            producer: Producer {
                name: "test".to_owned(),
                precision: Some("f32".to_owned()),
                ..Producer::default()
            },
            contract: Some("7".to_owned()),
            replace: false,
        }
    }

    fn rows<'a>(shape: &'a [usize], values: &'a [f32]) -> View<'a> {
        View { shape, values: ValuesRef::F32(values), extent: Extent::Tokens }
    }

    /// Records three tokens in two pieces, a state twice and an integer point.
    fn record(path: &Path, recording: Recording) -> Result<(), Error> {
        let mut tap = Recorder::create(path, recording)?;
        let state = |values| View { shape: &[2, 1], values: ValuesRef::F64(values), extent: Extent::State };
        tap.record("model.norm", rows(&[2, 2], &[1., 2., 3., 4.])).unwrap();
        tap.record("s", state(&[1.5, 3.])).unwrap();
        tap.record("model.embed_tokens", rows(&[2, 1, 2], &[0.; 4])).unwrap();
        tap.record("model.norm", rows(&[1, 2], &[5., f32::NAN])).unwrap();
        tap.record("s", state(&[-2.5, -5.])).unwrap();
        tap.record("model.embed_tokens", rows(&[1, 1, 2], &[7.; 2])).unwrap();
        let index = View { shape: &[3, 1], values: ValuesRef::I64(&[4, 5, -6]), extent: Extent::Tokens };
        tap.record("i", index).unwrap();
        tap.finish()
    }

    #[test]
    fn all_forms_read_back_what_was_recorded() {
        let room = tempfile::tempdir().unwrap();
        for name in ["t", "t.npz", "t.safetensors"] {
            for stored in [Stored::F32, Stored::F64] {
                let path = room.path().join(name);
                record(&path, Recording { stored, replace: true, ..recording(3) }).unwrap();
                let trace = Trace::open(&path).unwrap();
                let names: Vec<_> = trace.names().collect();
                assert_eq!(names, ["model.norm", "s", "model.embed_tokens", "i"], "{name}");
                assert_eq!(trace.tokens(), Some(&[100, 101, 102][..]));
                let manifest = trace.manifest().unwrap();
                assert_eq!(manifest.contract.as_deref(), Some("7"));
                assert_eq!(manifest.producer.as_ref().unwrap().name, "test");
                let norm = trace.get("model.norm").unwrap();
                assert_eq!(norm.shape, [3, 2]);
                let norm: Vec<f64> = match norm.values {
                    Values::F32(v) if stored == Stored::F32 => v.iter().map(|&x| x.into()).collect(),
                    Values::F64(v) if stored == Stored::F64 => v,
                    other => panic!("{other:?}"),
                };
                assert_eq!(norm[..5], [1., 2., 3., 4., 5.]);
                assert!(norm[5].is_nan());
                let expected = match stored {
                    Stored::F32 => Values::F32(vec![-2.5, -5.]),
                    Stored::F64 => Values::F64(vec![-2.5, -5.]),
                };
                assert_eq!(trace.get("s").unwrap(), Tensor { shape: vec![2, 1], values: expected });
                assert_eq!(trace.get("i").unwrap().values, Values::I64(vec![4, 5, -6]));
            }
        }
        // Nothing but the three outputs.
        assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 3);
    }

    #[test]
    fn other_readers_accept_the_output() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("t.safetensors");
        record(&path, recording(3)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let tensors = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("model.norm").unwrap().shape(), [3, 2]);
        assert_eq!(tensors.tensor(TOKENS).unwrap().dtype(), ::safetensors::Dtype::I64);

        let path = room.path().join("t.npz");
        record(&path, recording(3)).unwrap();
        let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap();
        let norm = npyz::NpyFile::new(archive.by_name("model.norm.npy").unwrap()).unwrap();
        assert_eq!(norm.into_vec::<f32>().unwrap()[..5], [1., 2., 3., 4., 5.]);
    }

    #[test]
    fn a_dropped_recorder_leaves_nothing_and_keeps_what_was_there() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("t.npz");
        let mut tap = Recorder::create(&path, recording(3)).unwrap();
        tap.record("x", rows(&[1, 1], &[1.])).unwrap();
        drop(tap);
        assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0);
        record(&path, recording(3)).unwrap();
        assert!(matches!(Recorder::create(&path, recording(3)), Err(Error::Exists { .. })));
        drop(Recorder::create(&path, Recording { replace: true, ..recording(3) }).unwrap());
        assert_eq!(Trace::open(&path).unwrap().len(), 4);
        assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_pass_may_record_fewer_rows_than_tokens_but_not_more() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("t");
        let mut tap = Recorder::create(&path, recording(1000)).unwrap();
        tap.record("lm_head", rows(&[1, 2], &[1., 2.])).unwrap();
        tap.finish().unwrap();
        assert_eq!(Trace::open(&path).unwrap().get("lm_head").unwrap().shape, [1, 2]);

        let mut tap = Recorder::create(&room.path().join("u"), recording(2)).unwrap();
        tap.record("x", rows(&[2, 1], &[1., 2.])).unwrap();
        let error = tap.record("x", rows(&[1, 1], &[3.])).unwrap_err().to_string();
        assert_eq!(error, "at point `x`: 2 tokens were announced, but 3 were recorded");
    }

    #[test]
    fn refusals_name_the_point() {
        let room = tempfile::tempdir().unwrap();
        let mut tap = Recorder::create(&room.path().join("t"), recording(4)).unwrap();
        tap.record("x", rows(&[1, 2], &[1., 2.])).unwrap();
        let tenth = View { shape: &[2], values: ValuesRef::F64(&[0.5, 0.1]), extent: Extent::State };
        for (name, view, fault) in [
            ("x", rows(&[1, 3], &[1., 2., 3.]), "[1, 2]"),
            ("x", rows(&[2], &[1., 2.]), "[1, 2]"),
            ("x", rows(&[1, 2], &[1.]), "holds 1 values"),
            ("y", tenth, "1e-1 at place 1"),
            ("a/../y", rows(&[1], &[1.]), "path separator"),
            ("", rows(&[1], &[1.]), "empty"),
            (".y", rows(&[1], &[1.]), "dot"),
            (TOKENS, rows(&[1], &[1.]), "token ids"),
        ] {
            let error = tap.record(name, view).unwrap_err().to_string();
            assert!(error.contains(fault) && error.contains(&format!("`{name}`")), "{error}");
        }
        let missing = Recorder::create(Path::new("/no/such/place/t.npz"), recording(1)).unwrap_err();
        assert!(missing.to_string().contains("/no/such/place/t.npz"), "{missing}");
    }

    #[test]
    fn a_vanished_directory_is_an_error_that_names_the_file() {
        let room = tempfile::tempdir().unwrap();
        let mut tap = Recorder::create(&room.path().join("t"), recording(4)).unwrap();
        std::fs::remove_dir_all(tap.room.path()).unwrap();
        let error = tap.record("x", rows(&[1, 1], &[1.])).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("x.npy"), "{error}");
        assert!(tap.finish().is_err());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_file(cuts in proptest::collection::vec(0usize..=12, 0..4)) {
            let values: Vec<f32> = (0..24).map(|x| x as f32).collect();
            let room = tempfile::tempdir().unwrap();
            let path = room.path().join("t");
            let mut tap = Recorder::create(&path, recording(12)).unwrap();
            let mut cuts = [&[0, 12][..], &cuts].concat();
            cuts.sort_unstable();
            for cut in cuts.windows(2) {
                tap.record("x", rows(&[cut[1] - cut[0], 2], &values[2 * cut[0]..2 * cut[1]])).unwrap();
            }
            tap.finish().unwrap();
            let x = Trace::open(&path).unwrap().get("x").unwrap();
            prop_assert_eq!(x, Tensor { shape: vec![12, 2], values: Values::F32(values) });
        }
    }
}
