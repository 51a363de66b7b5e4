//! What looking into a file takes, however much is in it: the memory of the process, its mapped files not counted. On
//! Linux, which says so.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::etalon::{command, etalon, fixture};

/// What the issue allows.
const MOST: u64 = 100_000_000;

/// Runs `etalon inspect` and returns the most anonymous memory it was seen to hold. One that ended before anybody looked,
/// on a machine that was busy, is run again.
fn peak(path: &Path, view: &[&str]) -> u64 {
    const RUNS: usize = 100;
    (0..RUNS).find_map(|_| seen(path, view)).unwrap_or_else(|| panic!("{view:?}: never seen in {RUNS} runs"))
}

/// What one run was seen to hold, if it was seen.
fn seen(path: &Path, view: &[&str]) -> Option<u64> {
    let mut inspect = command();
    inspect.arg("inspect").arg(path).args(view).stdout(Stdio::null());
    let mut child = inspect.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    loop {
        // Gone once the process has ended.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let held = text.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        peak = peak.max(held.map(|kb| kb.trim().parse::<u64>().unwrap() * 1024));
        if let Some(ended) = child.try_wait().unwrap() {
            // What --lint finds is no failure here.
            assert!(matches!(ended.code(), Some(0 | 1)), "{view:?}");
            return peak.filter(|&held| held > 0);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn string(out: &mut impl Write, text: &str) {
    out.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    out.write_all(text.as_bytes()).unwrap();
}

/// So many keys, one of them an array of as many strings, and so many tensors.
fn file(path: &Path, keys: u64, tensors: u64) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    out.write_all(b"GGUF\x03\0\0\0").unwrap();
    out.write_all(&[tensors, keys + 1].map(u64::to_le_bytes).concat()).unwrap();
    for i in 0..keys {
        string(&mut out, &format!("key.{i}"));
        out.write_all(&4u32.to_le_bytes()).unwrap();
        out.write_all(&(i as u32).to_le_bytes()).unwrap();
    }
    string(&mut out, "array");
    out.write_all(&[9u32, 8].map(u32::to_le_bytes).concat()).unwrap();
    out.write_all(&keys.to_le_bytes()).unwrap();
    (0..keys).for_each(|i| string(&mut out, &format!("token {i}")));
    for i in 0..tensors {
        string(&mut out, &format!("blk.{}.tensor.{i}.weight", i % 100));
        out.write_all(&[1u32.to_le_bytes().as_slice(), &1u64.to_le_bytes(), &0u32.to_le_bytes()].concat())
            .unwrap();
        out.write_all(&(32 * i).to_le_bytes()).unwrap();
    }
    out.write_all(&vec![0; 32 + 32 * tensors as usize]).unwrap();
    out.flush().unwrap();
}

/// As many as the reader admits.
#[test]
fn little_is_held_of_a_file_with_very_many_keys_or_tensors() {
    let format::Limits { keys, tensors, .. } = format::Limits::default();
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("many.gguf");
    let page = room.path().join("page.html");
    let html: &[&str] = &["--html", page.to_str().unwrap(), "--force"];
    let check = |views: &[&[&str]]| {
        for view in views {
            let held = peak(&path, view);
            assert!(held < MOST, "{view:?}: {held} bytes");
        }
    };
    file(&path, keys - 1, 0);
    check(&[&[], &["--kv"], &["--kv", "--json"], &["--kv", "--full", "--csv"], &["--lint"], html]);
    file(&path, 0, tensors);
    check(&[&[], &["--tensors"], &["--tensors", "--json"], &["--tensors", "--sort", "name"]]);
    check(&[&["--stats"], &["--hash", "xxh64,sha1,sha256"], &["--lint"], html]);
}

/// A model with one key more, which holds 200 MB in a hole of the file: zeros are a text, and numbers of a byte. A key of
/// that name that is there already gets another one. `kind` is what stands before the length.
fn with_long_value(path: &Path, key: &str, kind: &[u32]) {
    const BYTES: u64 = 200_000_000;
    const KEY_COUNT: usize = 16;
    const KEYS: usize = 24;
    let mut model = fs::read(fixture("gguf-good/dense-text-f32-q8_0.gguf")).unwrap();
    let mut long = Vec::new();
    string(&mut long, key);
    if let Some(at) = model.windows(long.len()).position(|window| window == long) {
        model[at + 8] = b'x';
    }
    model[KEY_COUNT] += 1;
    kind.iter().for_each(|id| long.extend(id.to_le_bytes()));
    // What follows stays aligned.
    let bytes = BYTES + 32 - (long.len() as u64 + 8 + BYTES) % 32;
    long.extend(bytes.to_le_bytes());
    let mut out = File::create(path).unwrap();
    out.write_all(&model[..KEYS]).unwrap();
    out.write_all(&long).unwrap();
    out.seek(SeekFrom::Current(bytes as i64)).unwrap();
    out.write_all(&model[KEYS..]).unwrap();
}

/// What is said of a text or an array is not as long as it is.
#[test]
fn values_of_any_length_are_not_copied() {
    const TEXT: &[u32] = &[8];
    const BYTES: &[u32] = &[9, 0];
    const BOOLS: &[u32] = &[9, 7];
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("long.gguf");
    let page = room.path().join("page.html");
    let html: &[&str] = &["--html", page.to_str().unwrap(), "--force"];
    for (key, kind) in [
        ("general.architecture", TEXT),
        ("general.name", TEXT),
        ("tokenizer.ggml.model", TEXT),
        ("tokenizer.ggml.pre", TEXT),
        ("tokenizer.ggml.eos_token_id", TEXT),
        ("tokenizer.chat_template", TEXT),
        ("qwen35.block_count", TEXT),
        ("qwen35.rope.dimension_sections", BYTES),
        ("qwen35.attention.recurrent_layers", BOOLS),
        ("general.tags", BYTES),
    ] {
        with_long_value(&path, key, kind);
        for view in [&[] as &[&str], &["--json"], &["--kv"], &["--kv", "--json"], &["--lint"], html] {
            let held = peak(&path, view);
            assert!(held < MOST, "{key} {view:?}: {held} bytes");
        }
    }
}

/// The same fault in every key is told so often, and counted.
#[test]
fn findings_are_as_many_as_can_be_read() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("many.gguf");
    let mut out = BufWriter::new(File::create(&path).unwrap());
    let keys = format::Limits::default().keys;
    out.write_all(b"GGUF\x03\0\0\0").unwrap();
    out.write_all(&[0, keys].map(u64::to_le_bytes).concat()).unwrap();
    string(&mut out, "tokenizer.ggml.tokens");
    out.write_all(&[9u32, 8, 0, 0].map(u32::to_le_bytes).concat()).unwrap();
    for i in 1..keys {
        string(&mut out, &format!("tokenizer.ggml.{i}_token_id"));
        out.write_all(&[4u32, 7].map(u32::to_le_bytes).concat()).unwrap();
    }
    out.flush().unwrap();
    for view in [&[] as &[&str], &["--lint"]] {
        let held = peak(&path, view);
        assert!(held < MOST, "{view:?}: {held} bytes");
    }
    let ran = etalon(["inspect", path.to_str().unwrap(), "--lint", "--json"]).expect(1).json();
    let findings = ran["findings"].as_array().unwrap();
    let last =
        findings.iter().find(|f| f["evidence"].as_str().unwrap().ends_with("more findings of this rule"));
    assert_eq!(last.unwrap()["evidence"], format!("{} more findings of this rule", keys - 1 - 1000));
}

/// 2²⁴ rows of two numbers, of which only one differs, where no sample would have it.
#[test]
fn very_many_rows_are_not_held_and_none_is_overlooked() {
    const ROWS: u64 = 1 << 24;
    const I8: u32 = 24;
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("rows.gguf");
    let mut out = BufWriter::new(File::create(&path).unwrap());
    out.write_all(b"GGUF\x03\0\0\0").unwrap();
    out.write_all(&[1, 0].map(u64::to_le_bytes).concat()).unwrap();
    string(&mut out, "t");
    out.write_all(&2u32.to_le_bytes()).unwrap();
    out.write_all(&[2, ROWS].map(u64::to_le_bytes).concat()).unwrap();
    out.write_all(&[I8.to_le_bytes().as_slice(), &0u64.to_le_bytes()].concat()).unwrap();
    out.write_all(&[0; 31]).unwrap();
    let mut values = vec![[3i8, 4]; ROWS as usize];
    values[12_345_677] = [-60, 80];
    out.write_all(&values.as_flattened().iter().map(|x| x.cast_unsigned()).collect::<Vec<_>>()).unwrap();
    out.flush().unwrap();
    let held = peak(&path, &["--stats"]);
    assert!(held < MOST, "{held} bytes");
    let ran = etalon(["inspect", path.to_str().unwrap(), "--stats", "--json"]);
    let norms = &ran.json()["tensors"][0]["row_norms"];
    assert_eq!(*norms, serde_json::json!({ "min": 5.0, "median": 5.0, "max": 100.0 }));
}
