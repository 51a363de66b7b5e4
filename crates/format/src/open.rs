//! Opens whatever a path leads to.

use std::path::Path;

use crate::buffer::Buffer;
use crate::{Error, Limits, TensorSource, gguf, safetensors};

/// Opens a checkpoint: a `.safetensors` file, its `….safetensors.index.json`, a directory with
/// `model.safetensors` or `model.safetensors.index.json`, a `.gguf` file, or any part of a split one.
///
/// A file is told by its first bytes, and by its name only where these are damaged. A directory that has both a
/// single file and an index is opened by the single file, as Transformers does.
pub fn open(path: &Path, limits: &Limits) -> Result<Box<dyn TensorSource>, Error> {
    if path.is_dir() {
        return open_directory(path, limits);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".safetensors.index.json") {
        return Ok(Box::new(safetensors::Reader::open_index(path, limits)?));
    }
    let buffer = Buffer::map(path)?;
    match kind(&buffer, &name) {
        Some(Kind::Gguf) => Ok(Box::new(gguf::Reader::from_buffer(path, buffer, limits)?)),
        Some(Kind::Safetensors) => Ok(Box::new(safetensors::Reader::from_buffer(path, buffer, limits)?)),
        None => {
            let found = buffer.iter().copied().take(16).collect();
            Err(Error::UnknownFormat { path: path.to_path_buf(), found })
        }
    }
}

enum Kind {
    Gguf,
    Safetensors,
}

fn kind(bytes: &[u8], name: &str) -> Option<Kind> {
    if bytes.starts_with(&gguf::MAGIC) {
        return Some(Kind::Gguf);
    }
    if bytes.get(8) == Some(&b'{') || name.ends_with(".safetensors") {
        return Some(Kind::Safetensors);
    }
    name.ends_with(".gguf").then_some(Kind::Gguf)
}

fn open_directory(dir: &Path, limits: &Limits) -> Result<Box<dyn TensorSource>, Error> {
    let single = dir.join(safetensors::SINGLE);
    if there(&single) {
        return Ok(Box::new(safetensors::Reader::open_file(&single, limits)?));
    }
    let index = dir.join(safetensors::INDEX);
    if there(&index) {
        return Ok(Box::new(safetensors::Reader::open_index(&index, limits)?));
    }
    let io = |source| Error::Io { path: dir.to_path_buf(), action: "list", source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if [".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end)) {
            found.push(name);
        }
    }
    found.sort();
    Err(Error::NoCheckpoint { path: dir.to_path_buf(), found })
}

/// Whether a directory has this entry, be it a link into a cache that has lost its target: that is to be reported.
fn there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
