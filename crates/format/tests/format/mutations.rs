//! Every flipped bit, every truncation, every field overwritten: refused or read, never a panic.

use std::fs;
use std::ops::Range;

use format::gguf::Reader;
use format::{Limits, TensorSource};

use crate::{exercise, fixtures};

const GGUF: [&str; 4] = ["every-type", "every-type-big-endian", "alignment-8", "keys-only"];

fn gguf(name: &str) -> Vec<u8> {
    fs::read(fixtures::path(&format!("gguf/{name}.gguf"))).unwrap()
}

/// Runs `read` on the file with each byte of a range overwritten; how many were accepted and refused.
fn overwrite(file: &[u8], range: Range<usize>, with: &[u8], read: impl Fn(&[u8]) -> bool) -> [usize; 2] {
    let mut counts = [0, 0];
    let mut changed = file.to_vec();
    for at in range {
        let end = (at + with.len()).min(file.len());
        changed[at..end].copy_from_slice(&with[..end - at]);
        counts[usize::from(!read(&changed))] += 1;
        changed[at..end].copy_from_slice(&file[at..end]);
    }
    counts
}

/// Where the data begin: nothing behind that is looked at when a file is opened.
fn header(file: &[u8]) -> Range<usize> {
    let whole = Reader::from_bytes("memory".as_ref(), file.to_vec(), &Limits::default()).unwrap();
    0..whole.tensors().iter().map(|t| t.offset as usize).min().unwrap_or(file.len())
}

#[test]
fn every_flipped_bit_of_a_gguf_header() {
    for name in GGUF {
        let file = gguf(name);
        let mut counts = [0, 0];
        for at in header(&file) {
            for bit in 0..8 {
                let [accepted, refused] =
                    overwrite(&file, at..at + 1, &[file[at] ^ (1 << bit)], exercise::gguf_read);
                counts = [counts[0] + accepted, counts[1] + refused];
            }
        }
        // Numbers and names can change unnoticed; magic, counts and lengths cannot.
        assert!(counts[0] > 100 && counts[1] > 100, "{name}: {counts:?}");
    }
}

#[test]
fn every_field_of_a_gguf_header_overwritten() {
    let lengths = [0, 1, 1 << 32, 1 << 61, 1 << 63, u64::MAX - 31];
    for name in GGUF {
        let file = gguf(name);
        let big_endian = name.ends_with("big-endian");
        for length in lengths {
            let bytes = if big_endian { length.to_be_bytes() } else { length.to_le_bytes() };
            overwrite(&file, header(&file), &bytes, exercise::gguf_read);
        }
        for kind in [8, 9, 13u32] {
            let bytes = if big_endian { kind.to_be_bytes() } else { kind.to_le_bytes() };
            overwrite(&file, header(&file), &bytes, exercise::gguf_read);
        }
    }
}

#[test]
fn every_truncation_of_a_gguf_file_is_refused() {
    for name in GGUF {
        let file = gguf(name);
        let whole = Reader::from_bytes("memory".as_ref(), file.clone(), &Limits::default()).unwrap();
        // Only the padding behind the last tensor can go.
        let data_end =
            whole.tensors().iter().map(|t| (t.offset + t.size) as usize).max().unwrap_or(file.len());
        for len in 0..file.len() {
            assert_eq!(
                exercise::gguf_read(&file[..len]),
                len >= data_end,
                "{name}, {len} of {} bytes",
                file.len()
            );
        }
    }
}

#[test]
fn every_flipped_bit_and_truncation_of_a_safetensors_file() {
    let file = fs::read(fixtures::path("safetensors/every-dtype.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut counts = [0, 0];
    for at in 0..header {
        for bit in 0..8 {
            let with = [file[at] ^ (1 << bit)];
            let [accepted, refused] = overwrite(&file, at..at + 1, &with, exercise::safetensors_header);
            counts = [counts[0] + accepted, counts[1] + refused];
        }
    }
    assert!(counts[0] > 100 && counts[1] > 100, "{counts:?}");
    for len in 0..file.len() {
        assert!(!exercise::safetensors_header(&file[..len]), "{len} bytes");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(!exercise::safetensors_header(&longer));
}
