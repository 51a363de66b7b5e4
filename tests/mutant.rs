//! Copies of fixture checkpoints with something wrong in them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::etalon::fixture;

/// A checkpoint in a room of its own, to be changed in place.
pub struct Mutant {
    room: TempDir,
    path: PathBuf,
}

/// The values of a tensor, outermost axis first.
pub struct Values {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Mutant {
    /// A copy of a checkpoint under `fixtures/`: a directory or a file.
    pub fn of(checkpoint: &str) -> Mutant {
        let (from, room) = (fixture(checkpoint), tempfile::tempdir().unwrap());
        let path = if from.is_dir() { room.path().to_owned() } else { room.path().join("model.gguf") };
        if from.is_dir() {
            for file in fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().path()) {
                fs::copy(&file, room.path().join(file.file_name().unwrap())).unwrap();
            }
        } else {
            fs::copy(from, &path).unwrap();
        }
        Mutant { room, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the checkpoint's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    /// Reads a tensor.
    pub fn read(&self, name: &str) -> Values {
        let source = format::open(&self.path, &format::Limits::default()).unwrap();
        let info = source.tensor(name).unwrap_or_else(|| panic!("the fixture has no {name}"));
        let shape: Vec<usize> = info.shape.dims().iter().map(|&d| d as usize).collect();
        let mut values = vec![0.0; shape.iter().product()];
        info.encoding.decode(source.bytes(info), &mut values).unwrap();
        Values { shape, values }
    }

    /// Writes a tensor's values where they lie in its file; they must change it.
    pub fn write(&self, name: &str, values: &[f32]) {
        let source = format::open(&self.path, &format::Limits::default()).unwrap();
        let info = source.tensor(name).unwrap().clone();
        let file = source.files()[info.file].clone();
        drop(source); // it maps the file that is about to change
        let mut encoded = vec![0; info.size as usize];
        info.encoding.encode(values, None, &mut encoded).unwrap();
        let mut bytes = fs::read(&file).unwrap();
        let stored = &mut bytes[info.offset as usize..][..encoded.len()];
        assert_ne!(stored, encoded, "the mutation of {name} changes nothing");
        stored.copy_from_slice(&encoded);
        fs::write(file, bytes).unwrap();
    }

    /// Changes a tensor's values in place.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Values)) {
        let mut values = self.read(name);
        change(&mut values);
        self.write(name, &values.values);
    }

    /// Changes every value of a tensor.
    pub fn map(&self, name: &str, change: impl Fn(f32) -> f32) {
        self.edit(name, |t| t.values.iter_mut().for_each(|v| *v = change(*v)));
    }

    /// Puts row `order(n)` of the outermost axis in the place of row `n`.
    pub fn permute(&self, name: &str, order: impl Fn(usize) -> usize) {
        self.edit(name, |t| {
            let width = t.values.len() / t.shape[0];
            let rows: Vec<Vec<f32>> = t.values.chunks(width).map(<[f32]>::to_vec).collect();
            t.values = (0..t.shape[0]).flat_map(|n| rows[order(n)].clone()).collect();
        });
    }

    /// Puts column `order(n)` of the innermost axis in the place of column `n`.
    pub fn permute_columns(&self, name: &str, order: impl Fn(usize) -> usize) {
        self.edit(name, |t| {
            for row in t.values.chunks_mut(*t.shape.last().unwrap()) {
                let old = row.to_vec();
                row.iter_mut().enumerate().for_each(|(n, v)| *v = old[order(n)]);
            }
        });
    }

    /// Exchanges two tensors of one shape.
    pub fn swap(&self, a: &str, b: &str) {
        let (of_a, of_b) = (self.read(a), self.read(b));
        assert_eq!(of_a.shape, of_b.shape);
        self.write(a, &of_b.values);
        self.write(b, &of_a.values);
    }

    /// Changes config.json: the object that holds the text model's settings.
    pub fn config(&self, change: impl FnOnce(&mut Value)) {
        let file = self.file("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let before = config.clone();
        change(if config.get("text_config").is_some() { &mut config["text_config"] } else { &mut config });
        assert_ne!(config, before, "the mutation of config.json changes nothing");
        fs::write(file, config.to_string()).unwrap();
    }

    /// Overwrites the value of a GGUF key, which is of `width` bytes of this type.
    pub fn key(&self, key: &str, value: &[u8]) {
        let mut bytes = fs::read(&self.path).unwrap();
        // A key is its length in 64 bits, its text, the value's type in 32 bits, the value.
        let needle = [&(key.len() as u64).to_le_bytes()[..], key.as_bytes()].concat();
        let at = bytes.windows(needle.len()).position(|window| window == needle);
        let at = at.unwrap_or_else(|| panic!("the fixture has no {key}")) + needle.len() + 4;
        assert_ne!(&bytes[at..][..value.len()], value, "the mutation of {key} changes nothing");
        bytes[at..][..value.len()].copy_from_slice(value);
        fs::write(&self.path, bytes).unwrap();
    }

    /// Rewrites the header of `model.safetensors`; its data stays.
    pub fn header(&self, change: impl FnOnce(&mut Value)) {
        let file = self.file("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let mut header: Value = serde_json::from_slice(header).unwrap();
        change(&mut header);
        let header = header.to_string();
        fs::write(file, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat())
            .unwrap();
    }
}
