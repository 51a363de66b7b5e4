//! `etalon quantize` as a user runs it.

use std::path::{Path, PathBuf};

use format::gguf::Reader;
use format::{Limits, TensorSource};
use sha2::{Digest, Sha256};

use crate::etalon::{etalon, fixture, words};

/// A model with rows of whole blocks, of 6 MB.
fn mock(room: &Path) -> String {
    let path = room.join("m.gguf").to_str().unwrap().to_owned();
    words(&format!("mock tiny-dense -o {path}")).expect(0);
    path
}

fn open(path: impl AsRef<Path>) -> Reader {
    Reader::open(path.as_ref(), &Limits::default()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(room: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(room)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// As many parts as there were, each with the tensors that it had; together the file that comes without.
#[test]
fn kept_splits_hold_what_one_file_does() {
    let room = tempfile::tempdir().unwrap();
    let part =
        |number: usize| fixture(&format!("gguf-good/moe-experts-f32-f16-split-0000{number}-of-00003.gguf"));
    let (source, out) = (part(1), room.path().join("out.gguf"));
    let run = |output: &Path, more: &[&str]| {
        let mut arguments =
            vec!["quantize", source.to_str().unwrap(), output.to_str().unwrap(), "Q8_0", "--no-receipt"];
        arguments.extend(more);
        etalon(arguments).expect(0)
    };
    run(&out, &["--keep-split"]);
    assert_eq!(names(room.path()), [1, 2, 3].map(|n| format!("out-0000{n}-of-00003.gguf")));
    let places = |path: PathBuf| -> Vec<(usize, String)> {
        open(path).tensors().iter().map(|info| (info.file, info.name.clone())).collect()
    };
    assert_eq!(places(part(1)), places(room.path().join("out-00001-of-00003.gguf")));
    let whole = room.path().join("whole.gguf");
    run(&whole, &[]);
    let (parts, whole) = (open(room.path().join("out-00001-of-00003.gguf")), open(whole));
    assert_eq!(parts.tensors().len(), whole.tensors().len());
    for info in whole.tensors() {
        let other = parts.tensor(&info.name).unwrap();
        assert_eq!((other.encoding, parts.bytes(other)), (info.encoding, whole.bytes(info)), "{}", info.name);
    }
    assert!(whole.tensors().iter().any(|info| info.encoding == codec::Encoding::Q8_0));
    let clash = etalon([
        "quantize",
        source.to_str().unwrap(),
        out.to_str().unwrap(),
        "Q8_0",
        "--keep-split",
        "--prune-layers",
        "0",
    ]);
    assert!(clash.expect(2).stderr.contains("--prune-layers"));
}

/// What the receipts say, in the file and beside it, is so.
#[test]
fn receipts_are_true() {
    let room = tempfile::tempdir().unwrap();
    let model = mock(room.path());
    let out = room.path().join("q.gguf");
    words(&format!("quantize {model} {} Q4_K_M --receipt-key --receipt-hash sha256", out.display()))
        .expect(0);
    let made = open(&out);
    let text = made.keys().get_str("etalon.quantize.receipt").unwrap();
    let key: serde_json::Value = serde_json::from_str(text).unwrap();
    let beside = std::fs::read_to_string(room.path().join("q.gguf.receipt.json")).unwrap();
    let beside: serde_json::Value = serde_json::from_str(&beside).unwrap();
    let hash = sha256(&std::fs::read(&model).unwrap());
    for receipt in [&key, &beside] {
        assert_eq!(receipt["source"][0]["sha256"], hash);
        assert_eq!(receipt["recipe"], "Q4_K_M");
    }
    let tensors = beside["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), made.tensors().len());
    for (tensor, info) in tensors.iter().zip(made.tensors()) {
        assert_eq!(tensor["name"], info.name);
        assert_eq!(tensor["sha256"], sha256(made.bytes(info)));
        assert_eq!(tensor["to"] != tensor["from"], tensor["rmse"].as_f64().is_some_and(|rmse| rmse > 0.0));
    }
    // But for the key the file is the one that comes without.
    let plain = room.path().join("plain.gguf");
    words(&format!("quantize {model} {} Q4_K_M --no-receipt", plain.display())).expect(0);
    let plain = open(&plain);
    assert!(plain.keys().get_str("etalon.quantize.receipt").is_err());
    assert!(plain.tensors().iter().zip(made.tensors()).all(|(a, b)| plain.bytes(a) == made.bytes(b)));
    assert_eq!(names(room.path()), ["m.gguf", "plain.gguf", "q.gguf", "q.gguf.receipt.json"]);
    // Unasked it is the faster hash, under its own name.
    words(&format!("quantize {model} {} Q4_K_M --force", out.display())).expect(0);
    let unasked = std::fs::read_to_string(room.path().join("q.gguf.receipt.json")).unwrap();
    assert!(unasked.contains("\"blake3\"") && !unasked.contains("sha256"), "{unasked}");
}

/// A plan is printed, or goes to the file behind `--plan`; nothing else is written. A file made from it is the recipe's,
/// one made from that file's encodings again.
#[test]
fn plans_are_made_and_followed() {
    let room = tempfile::tempdir().unwrap();
    let model = mock(room.path());
    let path = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
    let (out, plan) = (path("q.gguf"), path("plan.json"));
    let command = format!("quantize {model} {out} Q4_K_M");
    let printed = words(&format!("{command} --plan")).expect(0).stdout;
    assert!(printed.contains("blk.0.ffn_down.weight") && printed.contains("bits a weight"), "{printed}");
    assert!(words(&format!("{command} --plan --json")).expect(0).json()["tensors"].is_array());
    assert_eq!(names(room.path()), ["m.gguf"]);
    words(&format!("{command} --plan {plan}")).expect(0);
    let spaced = std::fs::read(&plan).unwrap();
    assert!(words(&format!("{command} --plan={plan}")).expect(2).stderr.contains("exists already"));
    words(&format!("{command} --force --plan={plan} --json")).expect(0);
    assert_eq!(std::fs::read(&plan).unwrap(), spaced);
    // Before the model, what stands there would be the plan's file: one argument is missing then, and nothing happens.
    let (before, bytes) =
        (format!("quantize --force --plan {model} {out} Q4_K_M"), std::fs::read(&model).unwrap());
    assert!(words(&before).expect(2).stderr.contains("RECIPE"));
    assert!(words(&format!("{command} --force --plan {model}")).expect(2).stderr.contains("m.gguf"));
    assert!(words(&format!("{command} --force --report {model}")).expect(2).stderr.contains("m.gguf"));
    assert_eq!(std::fs::read(&model).unwrap(), bytes);
    assert_eq!(names(room.path()), ["m.gguf", "plan.json"]);

    words(&format!("{command} --no-receipt")).expect(0);
    let (planned, cloned) = (path("planned.gguf"), path("cloned.gguf"));
    words(&format!("quantize {model} {planned} --from-plan {plan} --no-receipt")).expect(0);
    words(&format!("quantize {model} {cloned} --from-plan {out} --no-receipt")).expect(0);
    let made = std::fs::read(&out).unwrap();
    assert_eq!(std::fs::read(&planned).unwrap(), made);
    assert_eq!(std::fs::read(&cloned).unwrap(), made);
}

/// A size is kept to, also where layers are left out; what is chosen is shown first, and what was measured is not
/// measured again.
#[test]
fn sizes_are_kept_to() {
    let room = tempfile::tempdir().unwrap();
    let model = mock(room.path());
    let (out, state) = (room.path().join("q.gguf"), room.path().join("q.gguf.errors.json"));
    let budget = format!("quantize {model} {} --target-bpw 5 --no-receipt", out.display());
    let planned = words(&format!("{budget} --plan --json")).expect(0);
    assert!(planned.json()["bits_per_weight"].as_f64().unwrap() <= 5.0);
    assert!(!out.exists());
    let measured = std::fs::read_to_string(&state).unwrap();
    // A measurement that is found is taken as it is.
    let first = measured.find("\"Q8_0\":").unwrap() + 7;
    let mut marked = measured.clone();
    marked.replace_range(first..first + measured[first..].find('}').unwrap(), "1e-30");
    std::fs::write(&state, &marked).unwrap();
    let made = words(&budget).expect(0);
    assert_eq!(std::fs::read_to_string(&state).unwrap(), marked);
    assert!(
        made.stderr.contains("blk.3.ffn_down.weight") && made.stderr.contains("bits a weight"),
        "{}",
        made.stderr
    );
    let whole = open(&out);

    let pruned = words(&format!("{budget} --prune-layers 1,2 --force --json")).expect(0).json();
    assert!(pruned["bits_per_weight"].as_f64().unwrap() <= 5.0);
    let pruned = open(&out);
    assert_eq!(pruned.keys().get_u64("qwen35.block_count"), Ok(2));
    assert!(pruned.tensors().len() < whole.tensors().len());
    for (budget, said) in [
        ("--target-size 1KB", "the smallest that can be made"),
        ("--target-size 5MB --prune-layers 9", "no layer 9"),
    ] {
        let error = words(&format!("quantize {model} {} {budget} --force", out.display())).expect(2).stderr;
        assert!(error.contains(said), "{error}");
    }
}

/// A page that shows every tensor, and figures that JSON has too.
#[test]
fn reports_show_every_tensor() {
    let room = tempfile::tempdir().unwrap();
    let model = mock(room.path());
    let (out, page) = (room.path().join("q.gguf"), room.path().join("q.html"));
    let ran = words(&format!("quantize {model} {} IQ4_XS --report {} --json", out.display(), page.display()));
    let receipt = ran.expect(0).json();
    let html = std::fs::read_to_string(page).unwrap();
    for tensor in receipt["tensors"].as_array().unwrap() {
        assert!(html.contains(tensor["name"].as_str().unwrap()));
        if let Some(nmse) = tensor["nmse_db"].as_f64() {
            assert!(html.contains(&format!("{nmse:.2}")));
        }
    }
    assert!(!html.contains("http://") && !html.contains("https://"), "the page needs nothing else");
}

/// What is wrong is named, and nothing is left behind.
#[test]
fn refusals_name_what_is_wrong() {
    let room = tempfile::tempdir().unwrap();
    let model = mock(room.path());
    let narrow = fixture("gguf-good/dense-f32-f32.gguf").to_str().unwrap().to_owned();
    let out = room.path().join("q.gguf").to_str().unwrap().to_owned();
    let no_fallback = words(&format!("quantize {narrow} {out} Q4_K_M --no-fallback"));
    let no_fallback = no_fallback.expect(1).stdout;
    assert!(
        no_fallback.contains("--no-fallback: rows are no whole blocks in")
            && no_fallback.contains("blk.0.attn_qkv.weight")
    );
    for (line, said) in [
        (format!("quantize {model} {out} Q4_KM"), "Q4_K_M"),
        (format!("quantize {model} {out} IQ2_XS"), "blk.0.attn_gate.weight as IQ2_XS"),
        (format!("quantize {model} {out} Q1_0 --tensor-type ffn_up=q9_9"), "q9_9"),
        (format!("quantize {model} {model} Q8_0 --force"), "m.gguf"),
    ] {
        let error = words(&line).expect(2).stderr;
        assert!(error.contains(said), "{line}: {error}");
    }
    assert_eq!(names(room.path()), ["m.gguf"]);
}
