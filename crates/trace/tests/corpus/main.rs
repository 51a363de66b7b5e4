//! Every input that fuzzing kept, and what the public writers make, once more.

use std::fs;
use std::path::{Path, PathBuf};

use trace::Manifest;

mod read_everything;
use read_everything::read_everything;

/// The inputs of a fuzz target, by path.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// `good-*` is to be accepted, `x-*` refused; what a fuzzer found on its way may be either.
fn replay(target: &str, read: impl Fn(&[u8]) -> Result<(), trace::Error>) {
    let (mut accepted, mut refused) = (0, 0);
    for (path, bytes) in corpus(target) {
        let outcome = read(&bytes);
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("good-") {
            outcome.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            accepted += 1;
        } else if name.starts_with("x-") {
            let error = outcome.expect_err(name).to_string();
            assert!(error.starts_with("input") || error.starts_with("manifest.json"), "{error}");
            refused += 1;
        }
    }
    assert!(accepted > 1 && refused > 1, "{target}: {accepted} good and {refused} bad inputs");
}

#[test]
fn npy() {
    replay("npy", read_everything);
}

#[test]
fn npz() {
    replay("npz", read_everything);
}

#[test]
fn trace_safetensors() {
    replay("trace_safetensors", read_everything);
}

#[test]
fn manifest() {
    replay("manifest", |bytes| Manifest::parse("manifest.json", bytes).map(drop));
}

/// Sound inputs with one byte changed, cut or repeated are read or refused, never worse.
#[test]
fn neighbours_of_sound_inputs() {
    for target in ["npy", "npz", "trace_safetensors"] {
        for (_, bytes) in corpus(target).into_iter().filter(|(_, bytes)| bytes.len() < 4000) {
            for at in (0..bytes.len()).step_by(3) {
                for value in [0, 1, 0x7f, 0xff, bytes[at] ^ 0x80] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    let _ = read_everything(&changed);
                }
                let _ = read_everything(&bytes[..at]);
                let _ = read_everything(&[&bytes[..at], &bytes[at / 2..]].concat());
            }
        }
    }
}
