//! Where fixtures are, and what directories hold.

use std::path::{Path, PathBuf};

use model::{Checkpoint, NonFinitePolicy};

/// A file or folder under `fixtures/`.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(path)
}

/// A checkpoint that opens, whose weights are all numbers.
pub fn open(path: &Path) -> Checkpoint {
    let checkpoint = Checkpoint::open(path, &format::Limits::default()).unwrap_or_else(|e| panic!("{e}"));
    checkpoint.weights(NonFinitePolicy::Refuse).unwrap_or_else(|e| panic!("{e}"));
    checkpoint
}

/// Names in a directory, sorted.
pub fn entries(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
