//! The fuzzers' corpora, replayed.

use std::fs;

use crate::{exercise, fixtures};

fn replay(target: &str, run: impl Fn(&[u8])) {
    let dir = fixtures::path("../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "nothing in {}", dir.display());
}

#[test]
fn gguf_read() {
    replay("gguf_read", |bytes| {
        exercise::gguf_read(bytes);
    });
}

#[test]
fn gguf_roundtrip() {
    replay("gguf_roundtrip", exercise::gguf_roundtrip);
}

#[test]
fn split_set() {
    replay("split_set", exercise::split_set);
}

#[test]
fn safetensors_header() {
    replay("safetensors_header", |bytes| {
        exercise::safetensors_header(bytes);
    });
}
