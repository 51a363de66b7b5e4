//! What a conversion did, to be kept beside what it made.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::plan::{Left, Planned};

/// Bytes hashed at a time.
const PIECE: usize = 1 << 20;

/// A conversion that was done.
#[derive(Clone, Debug, Serialize)]
pub struct Receipt {
    /// What did it.
    pub tool: Tool,
    /// What was converted.
    pub source: Vec<Hashed>,
    /// What came out.
    pub output: Vec<PathBuf>,
    /// What it holds.
    pub tensors: Vec<Written>,
    /// What of the source it does not hold.
    pub left: Vec<Left>,
    /// What should be known about it, one sentence each.
    pub notes: Vec<String>,
}

/// The program.
#[derive(Clone, Debug, Serialize)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

impl Tool {
    /// This one.
    pub const ETALON: Tool = Tool { name: "etalon", version: env!("CARGO_PKG_VERSION") };
}

/// A file and its hash.
#[derive(Clone, Debug, Serialize)]
pub struct Hashed {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A tensor that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// What was planned.
    #[serde(flatten)]
    pub planned: Planned,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

impl Written {
    /// Planned tensors and their hashes, which come in the same order; one without bytes has no hash yet.
    pub(crate) fn all(planned: Vec<Planned>, hashes: Vec<(String, String)>) -> Vec<Written> {
        let mut hashes = hashes.into_iter().peekable();
        let written = planned.into_iter().map(|planned| {
            let sha256 = match hashes.next_if(|(name, _)| *name == planned.name) {
                Some((_, hash)) => hash,
                None => hexadecimal(&Sha256::digest([])),
            };
            Written { planned, sha256 }
        });
        written.collect()
    }
}

impl Hashed {
    /// Reads a file once.
    ///
    /// # Errors
    /// Those of the system.
    pub fn of(path: &Path) -> io::Result<Hashed> {
        let mut file = File::open(path)?;
        let mut digest = Sha256::new();
        let (mut piece, mut bytes) = (vec![0; PIECE], 0);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => {
                    digest.update(&piece[..read]);
                    bytes += read as u64;
                }
            }
        }
        Ok(Hashed { path: path.to_owned(), bytes, sha256: hexadecimal(&digest.finalize()) })
    }
}

/// The hashes of tensors whose bytes come by one tensor after the other.
#[derive(Default)]
pub(crate) struct Hashes {
    done: Vec<(String, String)>,
    current: Option<(String, Sha256)>,
}

impl Hashes {
    pub(crate) fn update(&mut self, tensor: &str, bytes: &[u8]) {
        match &mut self.current {
            Some((name, digest)) if name == tensor => digest.update(bytes),
            _ => {
                self.close();
                self.current = Some((tensor.to_owned(), Sha256::new_with_prefix(bytes)));
            }
        }
    }

    fn close(&mut self) {
        if let Some((name, digest)) = self.current.take() {
            self.done.push((name, hexadecimal(&digest.finalize())));
        }
    }

    /// One a tensor, in the order in which they came by.
    pub(crate) fn finish(mut self) -> Vec<(String, String)> {
        self.close();
        self.done
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
