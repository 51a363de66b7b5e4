//! Opening a GGUF file with the vocabulary of a released Qwen3.5: 248,320 tokens, their types, 247,587 merges.

use std::hint::black_box;
use std::path::Path;

use codec::Encoding;
use criterion::{Criterion, criterion_group, criterion_main};
use format::gguf::{Array, Draft, Reader};
use format::{Existing, Limits, Shape, TensorSource};

const TOKENS: u32 = 248_320;
const MERGES: u32 = 247_587;
const TENSORS: u32 = 320;

/// A word for each number, as long as tokens are: 1 to 12 bytes.
fn token(i: u32) -> String {
    let mixed = u64::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let len = 1 + (mixed >> 60) as usize * 3 / 4;
    format!("{mixed:016x}")[..len].to_owned()
}

fn write(path: &Path) {
    let tokens: Vec<String> = (0..TOKENS).map(token).collect();
    let merges: Vec<String> = (0..MERGES).map(|i| format!("{} {}", token(i), token(i + 1))).collect();
    let tokens: Array = tokens.iter().map(String::as_str).collect();
    let types: Array = (0..TOKENS).map(|_| 1i32).collect();
    let merges: Array = merges.iter().map(String::as_str).collect();
    let mut draft = Draft::new(path);
    draft.put("general.architecture", "qwen35").unwrap();
    draft.put("tokenizer.ggml.tokens", &tokens).unwrap();
    draft.put("tokenizer.ggml.token_type", &types).unwrap();
    draft.put("tokenizer.ggml.merges", &merges).unwrap();
    for i in 0..TENSORS {
        draft.tensor(&format!("blk.{i}.ffn_down.weight"), Encoding::Q8_0, &Shape::new(vec![1, 32])).unwrap();
    }
    let mut writer = draft.create(Existing::Replace).unwrap();
    for i in 0..TENSORS {
        writer.write(&format!("blk.{i}.ffn_down.weight"), &[0; 34]).unwrap();
    }
    writer.finish().unwrap();
}

fn vocabulary(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vocabulary.gguf");
    write(&path);
    println!("{} bytes", std::fs::metadata(&path).unwrap().len());
    let limits = Limits::default();
    let mut group = c.benchmark_group("gguf, 248k vocabulary");
    group.bench_function("open", |b| {
        b.iter(|| Reader::open(black_box(&path), &limits).unwrap().tensors().len());
    });
    group.bench_function("open and read every token and merge", |b| {
        b.iter(|| {
            let file = Reader::open(black_box(&path), &limits).unwrap();
            let bytes = |key| {
                let array = file.keys().get_array(key).unwrap();
                array.elements().map(|e| e.unwrap().as_str().unwrap().len()).sum::<usize>()
            };
            bytes("tokenizer.ggml.tokens") + bytes("tokenizer.ggml.merges")
        });
    });
    group.finish();
}

criterion_group!(benches, vocabulary);
criterion_main!(benches);
