//! Gathers finished arrays into one file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ::safetensors::tensor::TensorInfo;
use serde_json::{Map, Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::Error;
use crate::dtype::Dtype;
use crate::manifest::Manifest;
use crate::safetensors::LENGTH_FIELD;

/// A finished `.npy` file that becomes a part of the output.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Bytes before the data.
    pub(crate) header: u64,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Piece {
    /// Appends the file from byte `from` on to `out` and removes it: no more than one piece is on disk twice.
    fn move_into(&self, from: u64, out: &mut dyn Write) -> std::io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(from))?;
        std::io::copy(&mut BufReader::with_capacity(1 << 20, file), out)?;
        std::fs::remove_file(&self.path)
    }
}

/// Writes a `.npz` to `file`, which is to become `path`, as numpy's `savez` does, with the manifest as one more member.
pub(crate) fn npz(file: &File, path: &Path, manifest: &Manifest, pieces: Vec<Piece>) -> Result<(), Error> {
    let fault = |e: std::io::Error| Error::io("write", path, e);
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut archive = ZipWriter::new(BufWriter::with_capacity(1 << 20, file));
    archive.start_file(Manifest::FILE, stored).map_err(|e| fault(e.into()))?;
    archive.write_all(manifest.to_json().as_bytes()).map_err(fault)?;
    for piece in pieces {
        let length = std::fs::metadata(&piece.path).map_err(|e| Error::io("read", &piece.path, e))?.len();
        let options = stored.large_file(length >= u64::from(u32::MAX));
        archive.start_file(format!("{}.npy", piece.name), options).map_err(|e| fault(e.into()))?;
        piece.move_into(0, &mut archive).map_err(fault)?;
    }
    let mut out = archive.finish().map_err(|e| fault(e.into()))?;
    out.flush().map_err(fault)
}

/// Writes a `.safetensors` to `file`, which is to become `path`, with the manifest in its metadata.
pub(crate) fn safetensors(
    file: &File,
    path: &Path,
    manifest: &Manifest,
    mut pieces: Vec<Piece>,
) -> Result<(), Error> {
    let fault = |e: std::io::Error| Error::io("write", path, e);
    // Wide types first keep every tensor aligned to its elements; the manifest keeps the execution order.
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.dtype.size()));
    let metadata = BTreeMap::from([(Manifest::SAFETENSORS_KEY, manifest.to_json())]);
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut at = 0;
    for piece in &pieces {
        let size = piece.shape.iter().product::<usize>() * piece.dtype.size();
        let info = TensorInfo {
            dtype: piece.dtype.safetensors(),
            shape: piece.shape.clone(),
            data_offsets: (at, at + size),
        };
        at += size;
        header.insert(piece.name.clone(), json!(info));
    }
    let header = Value::Object(header).to_string();
    let padded = header.len().next_multiple_of(LENGTH_FIELD as usize);
    let header = format!("{header:padded$}");
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(fault)?;
    out.write_all(header.as_bytes()).map_err(fault)?;
    for piece in pieces {
        piece.move_into(piece.header, &mut out).map_err(fault)?;
    }
    out.flush().map_err(fault)
}
