//! Hashes of files and of tensors, as receipts give them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// Bytes read and hashed at a time: they stay in a core's cache between the two.
const PIECE: usize = 1 << 18;

/// Which hash a receipt gives. Both are cryptographic: nobody makes other bytes of the same hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Digest {
    /// What `b3sum` prints; about four times as fast.
    #[default]
    Blake3,
    /// What `sha256sum` prints, hubs list for their files, and llama-gguf-hash for tensors.
    Sha256,
}

impl Digest {
    /// What receipts and commands call it.
    pub fn name(self) -> &'static str {
        match self {
            Digest::Blake3 => "blake3",
            Digest::Sha256 => "sha256",
        }
    }

    pub(crate) fn start(self) -> State {
        match self {
            Digest::Blake3 => State::Blake3(Box::default()),
            Digest::Sha256 => State::Sha256(Sha256::new()),
        }
    }
}

/// A hash under way.
pub(crate) enum State {
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
}

impl State {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            State::Blake3(state) => drop(state.update(bytes)),
            State::Sha256(state) => state.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Hash {
        match self {
            State::Blake3(state) => {
                Hash { digest: Digest::Blake3, hex: state.finalize().to_hex().as_str().to_owned() }
            }
            State::Sha256(state) => Hash {
                digest: Digest::Sha256,
                hex: state.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            },
        }
    }
}

/// A hash, which says what it is: in JSON `"blake3": "…"`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hash {
    /// Which one.
    pub digest: Digest,
    /// In hexadecimal.
    pub hex: String,
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.digest.name(), &self.hex)?;
        map.end()
    }
}

/// A file and its hash.
#[derive(Clone, Debug, Serialize)]
pub struct Hashed {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Of all its bytes.
    #[serde(flatten)]
    pub hash: Hash,
}

impl Hashed {
    /// Reads a file once, unless `stop` says that nobody wants to know any more.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn of(path: &Path, digest: Digest, stop: &AtomicBool) -> Result<Hashed, Error> {
        let io = |source: io::Error| Error::Io { path: path.to_owned(), action: "read", source };
        let mut file = File::open(path).map_err(io)?;
        let mut state = digest.start();
        let (mut piece, mut bytes) = (vec![0; PIECE], 0);
        while !stop.load(Ordering::Relaxed) {
            match file.read(&mut piece).map_err(io)? {
                0 => break,
                read => {
                    state.update(&piece[..read]);
                    bytes += read as u64;
                }
            }
        }
        Ok(Hashed { path: path.to_owned(), bytes, hash: state.finish() })
    }
}

/// Files that are being hashed in a thread of their own. Dropped, it stops.
pub struct Hashing {
    digest: Digest,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Hashed>, Error>>>,
}

impl Hashing {
    /// Starts with the first file.
    pub fn start(files: Vec<PathBuf>, digest: Digest) -> Hashing {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let hash = move || files.iter().map(|path| Hashed::of(path, digest, &stopped)).collect();
        Hashing { digest, stop, thread: Some(thread::spawn(hash)) }
    }

    /// Which hash it is.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The hashes of all files, in order.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn finish(mut self) -> Result<Vec<Hashed>, Error> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(Vec::new()),
            Some(Ok(hashed)) => hashed,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The hashes of tensors whose bytes come by one tensor after the other.
pub(crate) struct Hashes {
    digest: Digest,
    done: Vec<(String, Hash)>,
    current: Option<(String, State)>,
}

impl Hashes {
    pub(crate) fn new(digest: Digest) -> Hashes {
        Hashes { digest, done: Vec::new(), current: None }
    }

    pub(crate) fn update(&mut self, tensor: &str, bytes: &[u8]) {
        match &mut self.current {
            Some((name, state)) if name == tensor => state.update(bytes),
            _ => {
                self.close();
                let mut state = self.digest.start();
                state.update(bytes);
                self.current = Some((tensor.to_owned(), state));
            }
        }
    }

    fn close(&mut self) {
        if let Some((name, state)) = self.current.take() {
            self.done.push((name, state.finish()));
        }
    }

    /// One a tensor, in the order in which they came by.
    pub(crate) fn finish(mut self) -> Vec<(String, Hash)> {
        self.close();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published hashes of three letters, through a file and in two pieces.
    #[test]
    fn hashes_are_those_of_other_tools() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        for (digest, expected) in [
            (Digest::Blake3, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
            (Digest::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ] {
            let hashed = Hashing::start(vec![path.clone()], digest).finish().unwrap();
            assert_eq!((hashed.len(), hashed[0].bytes, hashed[0].hash.hex.as_str()), (1, 3, expected));
            let json = serde_json::to_value(&hashed[0]).unwrap();
            assert_eq!(json[digest.name()], expected);
            let mut hashes = Hashes::new(digest);
            hashes.update("t", b"a");
            hashes.update("t", b"bc");
            hashes.update("u", b"");
            let all = hashes.finish();
            assert_eq!((all.len(), all[0].1.hex.as_str()), (2, expected));
            assert_ne!(all[1].1, all[0].1);
        }
        let absent = Hashing::start(vec![path.clone(), dir.path().join("absent")], Digest::Blake3).finish();
        assert!(absent.unwrap_err().to_string().contains("absent"));
    }
}
