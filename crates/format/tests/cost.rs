//! What files with very many small things cost to open, in time and memory: on Linux, which says so, and in a process of
//! their own, one after the other.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use format::{Limits, TensorSource};

/// Seconds that this thread has run.
fn seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Bytes of memory by the name that /proc has for them: `VmRSS` now, `VmHWM` at most so far.
fn memory(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn string(out: &mut impl Write, text: &str) {
    out.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    out.write_all(text.as_bytes()).unwrap();
}

fn head(path: &Path, tensors: u64, keys: u64) -> BufWriter<File> {
    let mut out = BufWriter::new(File::create(path).unwrap());
    out.write_all(b"GGUF\x03\0\0\0").unwrap();
    out.write_all(&[tensors, keys].map(u64::to_le_bytes).concat()).unwrap();
    out
}

/// Opens a file in under a second, in five times its size at most, its own mapped bytes included.
fn open(path: &Path) -> Box<dyn TensorSource> {
    // Forgets what was the most so far.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (start, before) = (seconds(), memory("VmRSS"));
    let source = format::open(path, &Limits::default()).unwrap();
    let (took, peak) = (seconds() - start, memory("VmHWM").saturating_sub(before));
    let size = path.metadata().unwrap().len();
    assert!(took < 1.0, "{}: {took:.2} s", path.display());
    assert!(peak < 5 * size, "{}: {peak} bytes of memory for {size}", path.display());
    source
}

#[test]
fn very_many_small_things_cost_little() {
    let room = tempfile::tempdir().unwrap();
    let keys = room.path().join("keys.gguf");
    let n = 1_000_000;
    let mut out = head(&keys, 0, n);
    for i in 0..n {
        string(&mut out, &format!("k{i}"));
        out.write_all(&[0, 0, 0, 0, i as u8]).unwrap();
    }
    out.flush().unwrap();
    drop(out);
    open(&keys);

    let tensors = room.path().join("tensors.gguf");
    let n = 100_000;
    let mut out = head(&tensors, n, 0);
    for i in 0..n {
        string(&mut out, &format!("t{i}"));
        out.write_all(&1u32.to_le_bytes()).unwrap();
        out.write_all(&1u64.to_le_bytes()).unwrap();
        out.write_all(&0u32.to_le_bytes()).unwrap();
        out.write_all(&(32 * i).to_le_bytes()).unwrap();
    }
    out.write_all(&vec![0; 32 + 32 * n as usize]).unwrap();
    out.flush().unwrap();
    drop(out);
    assert_eq!(open(&tensors).tensors().len(), n as usize);
}
