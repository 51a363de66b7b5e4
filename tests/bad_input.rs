//! What is wrong with an input is said, exit status 2, and nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::etalon::{Ran, etalon, fixture, words};
use crate::mutant::Mutant;

const DENSE: &str = "models/dense-text-f32";
const SHARDED: &str = "models/dense-vision-bf16";
const TRACE: &str = "fixtures/traces/dense-text-f32.f64.npz";

/// The run fails as an error, says all of this, and says it as one error on standard error alone.
#[track_caller]
fn refused(ran: Ran, said: &[&str]) {
    let ran = ran.expect(2);
    assert!(ran.stderr.starts_with("error: ") && ran.stdout.is_empty(), "{}{}", ran.stdout, ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    for part in said {
        assert!(ran.stderr.contains(part), "no {part:?} in\n{}", ran.stderr);
    }
}

/// Both commands that run a model refuse it, and a dump leaves nothing.
#[track_caller]
fn model_refused(model: &Path, said: &[&str]) {
    let model = model.to_str().unwrap();
    refused(etalon(["verify", model, "--against", TRACE]), said);
    let room = tempfile::tempdir().unwrap();
    for form in ["directory", "file.npz", "file.safetensors"] {
        let output = room.path().join(form);
        refused(etalon(["dump", model, "--tokens", "1,2", "-o", output.to_str().unwrap()]), said);
    }
    assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0, "something was left");
}

#[test]
fn truncated_safetensors() {
    let mutant = Mutant::of(DENSE);
    let file = mutant.file("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    for length in [bytes.len() - 1, bytes.len() / 2, 100, 7] {
        fs::write(&file, &bytes[..length]).unwrap();
        model_refused(mutant.path(), &["model.safetensors: "]);
    }
    fs::write(&file, b"").unwrap();
    model_refused(mutant.path(), &["model.safetensors: the file is empty (0 bytes)"]);
}

#[test]
fn headers_that_lie() {
    let name = "model.layers.0.mlp.up_proj.weight";
    let lie = |change: fn(&mut serde_json::Value), said: &[&str]| {
        let mutant = Mutant::of(DENSE);
        mutant.header(|header| change(&mut header["model.layers.0.mlp.up_proj.weight"]));
        model_refused(mutant.path(), said);
    };
    lie(|entry| entry["data_offsets"] = json!([0, 1u64 << 40]), &["model.safetensors", name]);
    lie(|entry| entry["shape"] = json!([32, 33]), &["model.safetensors", name]);
    lie(|entry| entry["shape"] = json!([1u64 << 40, 1u64 << 40]), &["model.safetensors", name]);
    lie(|entry| entry["dtype"] = json!("F33"), &["model.safetensors", name, "F33"]);
    let mutant = Mutant::of(DENSE);
    let file = mutant.file("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    model_refused(mutant.path(), &["model.safetensors", "18446744073709551615"]);
}

#[test]
fn missing_shards() {
    let mutant = Mutant::of(SHARDED);
    fs::remove_file(mutant.file("model-00002-of-00003.safetensors")).unwrap();
    model_refused(mutant.path(), &["model-00002-of-00003.safetensors"]);
    let room = tempfile::tempdir().unwrap();
    for part in [1, 3] {
        let name = format!("moe-experts-f32-f16-split-0000{part}-of-00003.gguf");
        fs::copy(fixture(&format!("gguf-good/{name}")), room.path().join(name)).unwrap();
    }
    let first = room.path().join("moe-experts-f32-f16-split-00001-of-00003.gguf");
    model_refused(&first, &["moe-experts-f32-f16-split-00002-of-00003.gguf"]);
}

/// All that is wrong with the tensors is listed at once, an unknown name with the known one that is nearest.
#[test]
fn missing_misshapen_and_unknown_tensors() {
    let mutant = Mutant::of(DENSE);
    mutant.header(|header| {
        let header = header.as_object_mut().unwrap();
        for (old, new) in [
            ("model.layers.1.self_attn.q_norm.weight", "model.layers.1.self_attn.qq_norm.weight"),
            ("model.norm.weight", "model.final_norm.weight"),
        ] {
            let entry = header.remove(old).unwrap();
            header.insert(new.into(), entry);
        }
        header["model.layers.0.mlp.up_proj.weight"]["shape"] = json!([16, 64]);
    });
    let said = [
        "5 problems with its tensors",
        "missing    model.layers.1.self_attn.q_norm.weight  (expected [Dh] = [16])",
        "missing    model.norm.weight  (expected [D] = [32])",
        "misshapen  model.layers.0.mlp.up_proj.weight  expected [F, D] = [32, 32], found [16, 64]",
        "unknown    model.layers.1.self_attn.qq_norm.weight  (nearest known: model.layers.1.self_attn.q_norm.weight)",
        "unknown    model.final_norm.weight",
    ];
    model_refused(mutant.path(), &said);
    // Looking is not refused: the lint fails with the same list, and the overview ends with it.
    let path = mutant.path().to_str().unwrap();
    let linted = etalon(["inspect", path, "--lint"]).expect(1).stdout;
    assert!(linted.lines().last().unwrap().starts_with("FAIL  5 errors"), "{linted}");
    let shown = etalon(["inspect", path]).expect(0).stdout;
    for part in said[1..].iter().flat_map(|problem| problem.split("  ").skip(1)) {
        let part = part.trim();
        assert!(linted.contains(part) && shown.contains(part), "no {part:?} in\n{linted}");
    }
}

#[test]
fn configurations_without_a_needed_field() {
    for field in ["hidden_size", "rms_norm_eps", "linear_num_key_heads", "layer_types", "tie_word_embeddings"]
    {
        let mutant = Mutant::of(DENSE);
        mutant.config(|config| assert!(config.as_object_mut().unwrap().remove(field).is_some()));
        model_refused(mutant.path(), &["config.json: ", field]);
    }
}

#[test]
fn configurations_that_contradict_the_tensors_or_themselves() {
    let set = |field: &str, value: serde_json::Value, said: &[&str]| {
        let mutant = Mutant::of(DENSE);
        mutant.config(|config| config[field] = value);
        model_refused(mutant.path(), said);
    };
    set(
        "linear_num_value_heads",
        json!(4),
        &["misshapen  model.layers.0.linear_attn.A_log  expected [Hv] = [4], found [8]"],
    );
    set("head_dim", json!(32), &["misshapen  model.layers.1.self_attn.q_norm.weight"]);
    set("vocab_size", json!(500), &["misshapen  model.embed_tokens.weight"]);
    set("num_hidden_layers", json!(3), &["layer_types has 4 entries, num_hidden_layers is 3"]);
    set(
        "num_key_value_heads",
        json!(2),
        &["num_attention_heads 3 is not a multiple of num_key_value_heads 2"],
    );
    set("hidden_act", json!("gelu"), &["hidden_act", "silu"]);
}

#[test]
fn packed_weights() {
    for (dtype, said) in [("F8_E4M3", "FP8"), ("U8", "bitsandbytes")] {
        let mutant = Mutant::of(DENSE);
        mutant.header(|header| {
            // The bytes of [32, 32] F32 as [32, 128] bytes: what such files look like.
            let entry = &mut header["model.layers.0.mlp.up_proj.weight"];
            (entry["dtype"], entry["shape"]) = (json!(dtype), json!([32, 128]));
        });
        model_refused(mutant.path(), &["packed     model.layers.0.mlp.up_proj.weight", said, "dequantize"]);
    }
    let mutant = Mutant::of(DENSE);
    mutant.config(|config| config["quantization_config"] = json!({"quant_method": "fp8"}));
    model_refused(mutant.path(), &["quantization_config", "fp8", "dequantize"]);
}

#[test]
fn weights_that_are_not_finite() {
    let mutant = Mutant::of(DENSE);
    mutant.edit("model.layers.1.mlp.up_proj.weight", |t| t.values[7] = f32::NAN);
    mutant.edit("lm_head.weight", |t| t.values[3] = f32::NEG_INFINITY);
    let said = [
        "model.layers.1.mlp.up_proj.weight: element 7 is NaN",
        "lm_head.weight: element 3 is -inf",
        "--allow-nonfinite",
    ];
    model_refused(mutant.path(), &said);
    let mutant = Mutant::of("gguf-good/dense-vision-bf16-bf16.gguf");
    mutant.edit("blk.0.ffn_up.weight", |t| t.values[40] = f32::INFINITY);
    model_refused(mutant.path(), &["blk.0.ffn_up.weight: element 40 is inf"]);
}

#[test]
fn tokens_that_cannot_be_run() {
    let room = tempfile::tempdir().unwrap();
    let output = room.path().join("out.npz");
    let dump = |text: &[&str]| {
        let model = ["dump", "fixtures/models/dense-text-f32", "-o", output.to_str().unwrap()];
        etalon(model.iter().chain(text))
    };
    refused(dump(&["--tokens", "1,2,512", "--split", "2,1"]), &["token 512 at position 2", "512 entries"]);
    refused(dump(&["--tokens", "1,2,3", "--split", "2,2"]), &["[2, 2]", "3 tokens"]);
    refused(dump(&["--tokens", "1", "--points", "*.mlpp"]), &["`*.mlpp`"]);
    refused(dump(&[]), &["--prompt"]);
    refused(dump(&["--prompt", ""]), &["empty"]);
    let file = room.path().join("ids");
    for (text, said) in [("", "empty"), ("[]", "empty"), ("1, two", "\"two\"")] {
        fs::write(&file, text).unwrap();
        refused(dump(&["--tokens-file", file.to_str().unwrap()]), &[said]);
    }
    refused(dump(&["--tokens-file", "/no/such"]), &["/no/such"]);
    refused(dump(&["--prompt-file", "/no/such"]), &["/no/such"]);
    fs::remove_file(file).unwrap();
    assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0);
}

#[test]
fn traces_of_other_tokens_and_other_models() {
    let room = tempfile::tempdir().unwrap();
    let other = room.path().join("other.npz");
    let other = other.to_str().unwrap();
    words(&format!("dump fixtures/models/dense-text-f32 --tokens 434,345,65 -o {other}")).expect(0);
    refused(words(&format!("compare {TRACE} {other}")), &["position 2", "64", "65"]);
    refused(
        words(&format!("verify fixtures/models/dense-text-f32 --against {TRACE} --tokens 434,345,65")),
        &["position 2"],
    );
    // Token ids of a larger vocabulary.
    words(&format!("dump fixtures/models/moe-packed-bf16 --tokens 519 -o {other} --force")).expect(0);
    refused(
        words(&format!("verify fixtures/models/dense-text-f32 --against {other}")),
        &["token 519 at position 0"],
    );
    // No point in common.
    refused(
        words(&format!("verify fixtures/models/dense-text-f32 --against {TRACE} --points *.mlp.experts")),
        &["`*.mlp.experts`"],
    );
}

#[test]
fn traces_that_are_none() {
    let verify = |trace: &str| words(&format!("verify fixtures/models/dense-text-f32 --against {trace}"));
    refused(verify("/no/such"), &["/no/such"]);
    refused(verify("fixtures/models/dense-text-f32/config.json"), &["config.json"]);
    refused(verify("fixtures/gguf-good/dense-f32-f32.gguf"), &["GGUF model, not a trace"]);
    // Arrays without tokens.
    refused(verify("fixtures/trace/version1.npy"), &["on which tokens"]);
}

#[test]
fn git_lfs_pointers() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 296840\n";
    let mutant = Mutant::of(DENSE);
    fs::write(mutant.file("model.safetensors"), pointer).unwrap();
    model_refused(mutant.path(), &["model.safetensors: a Git LFS pointer", "296840 bytes", "git lfs pull"]);
    let gguf = mutant.file("model.gguf");
    fs::write(&gguf, pointer).unwrap();
    model_refused(&gguf, &["model.gguf: a Git LFS pointer", "git lfs pull"]);
}

#[test]
fn directories_without_a_checkpoint() {
    let mutant = Mutant::of(DENSE);
    fs::remove_file(mutant.file("config.json")).unwrap();
    model_refused(mutant.path(), &["config.json", "beside the weights"]);
    fs::remove_file(mutant.file("model.safetensors")).unwrap();
    model_refused(mutant.path(), &["no model.safetensors and no model.safetensors.index.json"]);
    model_refused(Path::new("/no/such"), &["/no/such"]);
}

#[test]
fn damaged_gguf_files() {
    let mutant = Mutant::of("gguf-good/dense-text-f32-f32.gguf");
    let bytes = fs::read(mutant.path()).unwrap();
    for length in [bytes.len() - 1, bytes.len() / 2, 100, 5] {
        fs::write(mutant.path(), &bytes[..length]).unwrap();
        model_refused(mutant.path(), &["model.gguf: "]);
    }
}

/// Where the system refuses, its words are passed on. As root nothing is refused, and this says nothing.
#[cfg(unix)]
#[test]
fn no_permission() {
    use std::os::unix::fs::PermissionsExt;
    let mutant = Mutant::of(DENSE);
    let file = mutant.file("model.safetensors");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&file).is_err() {
        model_refused(mutant.path(), &["model.safetensors", "ermission denied"]);
    }
    let room = tempfile::tempdir().unwrap();
    let locked = room.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(locked.join("probe"), "").is_err() {
        let line = format!("dump fixtures/{DENSE} --tokens 1 -o {}", locked.join("out.npz").display());
        refused(words(&line), &["out.npz", "ermission denied"]);
        assert_eq!(fs::read_dir(&locked).unwrap().count(), 0);
    }
}

/// An output that is there stays as it is, unless it is to be replaced.
#[test]
fn outputs_that_exist() {
    let room = tempfile::tempdir().unwrap();
    let output: PathBuf = room.path().join("out.npz");
    fs::write(&output, "mine").unwrap();
    let line = format!("dump fixtures/{DENSE} --tokens 1 -o {}", output.display());
    refused(words(&line), &["out.npz exists already"]);
    assert_eq!(fs::read_to_string(&output).unwrap(), "mine");
    refused(words(&format!("{line} --force --split 2")), &["1 tokens"]);
    assert_eq!(fs::read_to_string(&output).unwrap(), "mine");
    words(&format!("{line} --force")).expect(0);
    assert_eq!(fs::read_dir(room.path()).unwrap().count(), 1);
    refused(words(&format!("dump fixtures/{DENSE} --tokens 1 -o /no/such/out.npz")), &["/no/such/out.npz"]);
}

/// A full disk is said, and nothing is left. Output to a device that is full stands for it.
#[cfg(target_os = "linux")]
#[test]
fn no_space_for_what_is_printed() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = crate::etalon::command()
        .args(["inspect", "fixtures/models/dense-text-f32"])
        .stdout(full)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("error: cannot write to standard output"), "{stderr}");
}
