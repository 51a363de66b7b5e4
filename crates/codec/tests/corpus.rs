//! The fuzzer's corpus, replayed.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use codec::Encoding;

#[path = "corpus/exercise.rs"]
mod exercise;

#[test]
fn codec_decode() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/codec_decode");
    let mut seen = HashSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        if let Some((encoding, 1..)) = exercise::codec_decode(&fs::read(entry.unwrap().path()).unwrap()) {
            seen.insert(encoding);
        }
    }
    for encoding in Encoding::ALL {
        assert!(seen.contains(encoding), "no block of {encoding} in the corpus");
    }
}
