//! GGUF files that hold no Qwen3.5: every view and every rewriting command takes them, and says what they are.

use std::fs;
use std::path::Path;

use codec::Encoding;
use format::gguf::{Array, Draft, Value};
use format::{Existing, Shape};

use crate::etalon::etalon;

type Keys<'a> = Vec<(&'a str, Value<'a>)>;

/// A file with these keys, its tensors filled with different values that no encoding finds odd.
fn file(path: &Path, keys: Keys, tensors: &[(&str, Encoding, &[u64])]) {
    let mut draft = Draft::new(path);
    for (key, value) in keys {
        draft.put(key, value).unwrap();
    }
    for (name, encoding, dims) in tensors {
        draft.tensor(name, *encoding, &Shape::new(dims.to_vec())).unwrap();
    }
    let mut writer = draft.create(Existing::Refuse).unwrap();
    for (name, encoding, dims) in tensors {
        let values: Vec<f32> =
            (0..dims.iter().product::<u64>()).map(|i| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.5).collect();
        let mut bytes = vec![0; encoding.byte_len(values.len() as u64).unwrap() as usize];
        let importance = vec![1.0; *dims.last().unwrap() as usize];
        encoding.encode(&values, Some(&importance), &mut bytes).unwrap();
        writer.write(name, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// Every view of a file, what its overview says it is, and the same bytes from `edit`, and from `split` and `merge`.
fn every_command(path: &Path, kind: &str) {
    let room = path.parent().unwrap();
    let at = |name: &str| room.join(name).to_str().unwrap().to_owned();
    let file = path.to_str().unwrap();
    let overview = etalon(["inspect", file, "--json"]).expect(0).json();
    assert_eq!(overview["kind"], kind, "{file}");
    assert_eq!(overview["config"], serde_json::Value::Null);
    let has_tensors = overview["tensors"].as_u64().unwrap() > 0;
    let views = ["--tensors", "--kv", "--lint", "--markdown", "--csv", "--hash=xxh64,sha1,sha256,uuid"];
    for view in views.into_iter().chain(has_tensors.then_some("--stats")) {
        etalon(["inspect", file, view]).expect(0);
    }
    let page = at("page.html");
    etalon(["inspect", file, "--html", &page, "--stats", "--force"]).expect(0);
    assert!(fs::read_to_string(page).unwrap().contains("</html>"));
    let manifest = at("manifest");
    let text = etalon(["inspect", file, "--hash", "sha256,uuid"]).expect(0).stdout;
    fs::write(&manifest, text).unwrap();
    etalon(["inspect", file, "--check", &manifest]).expect(0);
    let copy = at("copy.gguf");
    etalon(["edit", file, &copy]).expect(0);
    assert!(fs::read(&copy).unwrap() == fs::read(path).unwrap(), "{kind}: edited without edits");
    if has_tensors {
        etalon(["split", file, &at("part"), "--max-tensors", "1", "--force"]).expect(0);
        let first = format!("part-00001-of-{:05}.gguf", overview["tensors"].as_u64().unwrap());
        let parts = if overview["tensors"] == 1 { at("part.gguf") } else { at(&first) };
        if overview["tensors"] != 1 {
            etalon(["merge", &parts, &at("merged.gguf")]).expect(0);
            assert!(
                fs::read(at("merged.gguf")).unwrap() == fs::read(path).unwrap(),
                "{kind}: split and merged"
            );
        }
    }
}

#[test]
fn adapters_are_looked_at() {
    let room = tempfile::tempdir().unwrap();
    let lora = room.path().join("lora.gguf");
    let keys = vec![
        ("general.architecture", Value::from("qwen35")),
        ("general.type", Value::from("adapter")),
        ("adapter.type", Value::from("lora")),
        ("adapter.lora.alpha", Value::F32(16.0)),
    ];
    file(
        &lora,
        keys,
        &[
            ("blk.0.attn_qkv.weight.lora_a", Encoding::F32, &[4, 64]),
            ("blk.0.attn_qkv.weight.lora_b", Encoding::F16, &[96, 4]),
        ],
    );
    every_command(&lora, "adapter");
    let vector = room.path().join("vector.gguf");
    let keys = vec![
        ("general.architecture", Value::from("controlvector")),
        ("controlvector.model_hint", Value::from("llama")),
        ("controlvector.layer_count", Value::U32(2)),
    ];
    file(&vector, keys, &[("direction.1", Encoding::F32, &[8]), ("direction.2", Encoding::F32, &[8])]);
    fs::remove_file(room.path().join("copy.gguf")).unwrap();
    fs::remove_file(room.path().join("merged.gguf")).unwrap();
    every_command(&vector, "adapter");
}

#[test]
fn projectors_are_looked_at() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("mmproj.gguf");
    let keys = vec![
        ("general.architecture", Value::from("clip")),
        ("general.type", Value::from("mmproj")),
        ("clip.has_vision_encoder", Value::Bool(true)),
        ("clip.projector_type", Value::from("qwen3vl_merger")),
    ];
    file(
        &path,
        keys,
        &[
            ("v.blk.0.attn_qkv.weight", Encoding::F16, &[12, 4]),
            ("v.patch_embd.weight", Encoding::F32, &[4, 3, 2, 2]),
            ("mm.0.weight", Encoding::Q8_0, &[4, 32]),
        ],
    );
    every_command(&path, "projector");
    let overview = etalon(["inspect", path.to_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(overview["vision_tensors"], 3);
}

#[test]
fn other_architectures_are_looked_at() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("llama.gguf");
    let tokens = ["<s>", "</s>", "a", "b"].into_iter().collect::<Array>();
    let keys = vec![
        ("general.architecture", Value::from("llama")),
        ("general.name", Value::from("small")),
        ("llama.block_count", Value::U32(1)),
        ("tokenizer.ggml.model", Value::from("llama")),
        ("tokenizer.ggml.tokens", Value::from(&tokens)),
        ("tokenizer.ggml.eos_token_id", Value::U32(1)),
    ];
    file(
        &path,
        keys,
        &[
            ("token_embd.weight", Encoding::Q6K, &[4, 256]),
            ("blk.0.attn_q.weight", Encoding::Iq2Xs, &[2, 256]),
            ("blk.0.ffn_up.weight", Encoding::Iq1M, &[2, 256]),
            ("output_norm.weight", Encoding::F32, &[256]),
        ],
    );
    every_command(&path, "model");
    let file = path.to_str().unwrap();
    let overview = etalon(["inspect", file, "--json"]).expect(0).json();
    assert_eq!((&overview["architecture"], &overview["tokenizer"]["tokens"]), (&"llama".into(), &4.into()));
    let raw =
        |name: &str| etalon(["inspect", file, "--tensor", name, "--slice", "1,:8", "--raw"]).expect(0).stdout;
    let text = raw("blk.0.attn_q.weight");
    assert_eq!(text.matches("scale").count(), 16, "{text}");
    let point = text.lines().find(|line| line.contains("points")).unwrap();
    assert!(point.contains('+') || point.contains('-'), "{point}");
    assert_eq!(raw("blk.0.ffn_up.weight").matches("points").count(), 32);
    let stats = etalon(["inspect", file, "--stats", "--json"]).expect(0).json();
    let blocks = |i: usize| &stats["tensors"][i]["blocks"];
    assert!(blocks(1)["scale"]["max"].as_f64().unwrap() > 0.0 && blocks(1)["saturated"].is_f64());
    // Nearly all of three levels are at an end.
    assert!(blocks(2)["scale"]["max"].as_f64().unwrap() > 0.0 && blocks(2)["saturated"].is_null());
}

#[test]
fn vocabularies_and_tensors_without_keys_are_looked_at() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("vocabulary.gguf");
    let tokens = ["a", "b"].into_iter().collect::<Array>();
    let keys = vec![
        ("general.architecture", Value::from("gpt2")),
        ("tokenizer.ggml.model", Value::from("gpt2")),
        ("tokenizer.ggml.pre", Value::from("gpt-2")),
        ("tokenizer.ggml.tokens", Value::from(&tokens)),
    ];
    file(&path, keys, &[]);
    every_command(&path, "vocabulary");
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("bare.gguf");
    file(&path, Vec::new(), &[("a", Encoding::F32, &[3]), ("b", Encoding::Q4K, &[2, 256])]);
    every_command(&path, "tensors");
}

#[test]
fn importance_matrices_are_looked_at() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("imatrix.gguf");
    let datasets = ["text"].into_iter().collect::<Array>();
    let keys = vec![
        ("general.type", Value::from("imatrix")),
        ("imatrix.datasets", Value::from(&datasets)),
        ("imatrix.chunk_count", Value::U32(1)),
        ("imatrix.chunk_size", Value::U32(512)),
    ];
    file(
        &path,
        keys,
        &[
            ("blk.0.attn_q.weight.counts", Encoding::F32, &[1, 1]),
            ("blk.0.attn_q.weight.in_sum2", Encoding::F32, &[1, 64]),
        ],
    );
    every_command(&path, "importance_matrix");
}
