//! `etalon inspect` and `etalon edit` as people type them.

use std::fs;
use std::path::Path;

use crate::etalon::{etalon, fixture, root, words};
use crate::mutant::Mutant;

const GGUF: &str = "fixtures/gguf-good/dense-text-f32-q8_0.gguf";

/// The rules that find something, with their severity.
fn rules(path: &Path) -> Vec<(String, String)> {
    let ran = etalon(["inspect", path.to_str().unwrap(), "--lint", "--json"]);
    assert!(ran.status < 2, "{}", ran.stderr);
    let json = ran.json();
    assert_eq!(json["passed"], ran.status == 0);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let findings = json["findings"].as_array().unwrap();
    findings.iter().map(|f| (text(&f["severity"]), text(&f["rule"]))).collect()
}

#[track_caller]
fn finds(path: &Path, severity: &str, rule: &str) {
    let found = rules(path);
    assert!(found.contains(&(severity.to_owned(), rule.to_owned())), "no {severity} {rule} in {found:?}");
}

/// An edited copy of a good file.
fn edited(arguments: &[&str]) -> (tempfile::TempDir, std::path::PathBuf) {
    let room = tempfile::tempdir().unwrap();
    let out = room.path().join("m.gguf");
    let command = ["edit", GGUF, out.to_str().unwrap()];
    etalon(command.iter().chain(arguments)).expect(0);
    (room, out)
}

#[test]
fn good_checkpoints_have_no_errors() {
    for dir in ["gguf-good", "models"] {
        for entry in fs::read_dir(fixture(dir)).unwrap() {
            let found = rules(&entry.unwrap().path());
            assert!(found.iter().all(|(severity, _)| severity != "error"), "{found:?}");
        }
    }
}

#[test]
fn the_lint_finds_what_a_converter_forgot() {
    let gguf = |name: &str, change: &dyn Fn(&mut f32)| {
        let mutant = Mutant::of("gguf-good/dense-text-f32-f32.gguf");
        let layers = [0, 1, 2, 3].map(|l| name.replace("{}", &l.to_string()));
        let source = format::open(mutant.path(), &format::Limits::default()).unwrap();
        let mut names: Vec<String> =
            layers.into_iter().filter(|name| source.tensor(name).is_some()).collect();
        names.dedup();
        drop(source);
        assert!(!names.is_empty());
        names.iter().for_each(|name| mutant.edit(name, |t| t.values.iter_mut().for_each(change)));
        mutant
    };
    finds(gguf("blk.{}.attn_norm.weight", &|w| *w -= 1.0).path(), "error", "norm-offset");
    finds(gguf("blk.{}.attn_norm.weight", &|w| *w += 1.0).path(), "warning", "norm-offset");
    finds(gguf("output_norm.weight", &|w| *w -= 1.0).path(), "error", "norm-offset");
    finds(gguf("blk.{}.ssm_norm.weight", &|w| *w += 1.0).path(), "warning", "gated-norm");
    finds(gguf("blk.{}.ssm_a", &|a| *a = (-*a).ln()).path(), "error", "decay-sign");
    finds(gguf("blk.{}.ssm_dt.bias", &|b| *b = f32::NAN).path(), "error", "not-finite");
    let mlx = Mutant::of("models/dense-text-f32");
    for layer in 0..4 {
        let name = format!("model.layers.{layer}.input_layernorm.weight");
        mlx.edit(&name, |t| t.values.iter_mut().for_each(|w| *w += 1.0));
    }
    finds(mlx.path(), "warning", "norm-offset");
}

#[test]
fn the_lint_finds_keys_and_names_that_other_readers_refuse() {
    let find = |arguments: &[&str], severity: &str, rule: &str| {
        let (_room, path) = edited(arguments);
        finds(&path, severity, rule);
    };
    find(&["--remove", "tokenizer.ggml.pre"], "error", "tokenizer-pre");
    find(&["--set", "tokenizer.ggml.pre=default"], "warning", "tokenizer-pre");
    find(&["--set", "tokenizer.ggml.eos_token_id=u32:512"], "error", "special-token");
    find(&["--set", "qwen35.rope.dimension_sections=[i32]:1,1,1"], "error", "rope-sections");
    find(&["--remove", "qwen35.rope.dimension_sections"], "error", "rope-sections");
    find(&["--remove", "qwen35.ssm.group_count"], "error", "configuration");
    find(&["--remove", "general.quantization_version"], "warning", "quantization-version");
    find(&["--set", "general.file_type=u32:2"], "warning", "file-type");
    find(&["--set", "tokenizer.ggml.token_type=[i32]:1,1"], "error", "vocabulary-length");
    find(&["--remove", "tokenizer.ggml.tokens"], "warning", "no-tokenizer");
    find(&["--rename-tensor", "blk.0.ssm_dt.bias=blk.0.ssm_dt"], "error", "ollama-names");
    find(&["--rename-tensor", "blk.0.ssm_dt.bias=v.blk.0.x"], "error", "bundled-vision");
    find(&["--rename-tensor", "blk.0.ssm_dt.bias=mtp.norm.weight"], "error", "mtp-not-counted");
    find(&["--rename-tensor", "blk.0.ssm_dt.bias=nothing"], "error", "unknown-tensor");
    find(&["--set", "tokenizer.ggml.tokens=[str]:[\"a\"]"], "error", "vocabulary-length");
    let all = "qwen35.attention.recurrent_layers=[bool]:true,true,true,true";
    find(&["--set", all], "error", "layer-pattern");
    let interval = "--set qwen35.full_attention_interval=u32:3".split(' ').collect::<Vec<_>>();
    find(&interval, "warning", "layer-pattern");
}

#[test]
fn the_lint_finds_sensitive_tensors_at_low_bits() {
    let room = tempfile::tempdir().unwrap();
    let out = room.path().join("q.gguf");
    etalon(["quantize", "fixtures/gguf-good/dense-text-f32-f32.gguf", out.to_str().unwrap(), "Q4_0"])
        .expect(0);
    finds(&out, "warning", "sensitive-at-low-bits");
}

#[test]
fn any_file_can_be_looked_at() {
    for (path, kind) in [
        ("fixtures/gguf/imatrix.gguf", "importance_matrix"),
        ("fixtures/gguf/every-type.gguf", "model"),
        ("fixtures/gguf/every-type-big-endian.gguf", "model"),
        ("fixtures/vocab/ggml-vocab-qwen35.gguf", "vocabulary"),
        ("fixtures/safetensors/every-dtype.safetensors", "tensors"),
        ("fixtures/models/dense-vision-bf16", "model"),
    ] {
        assert_eq!(words(&format!("inspect {path} --json")).expect(0).json()["kind"], kind, "{path}");
        for view in ["", "--tensors", "--kv", "--lint", "--hash xxh64", "--csv", "--markdown"] {
            words(&format!("inspect {path} {view}")).expect(0);
        }
    }
    let room = tempfile::tempdir().unwrap();
    let bare = room.path().join("bare.gguf");
    // Tensors and not one key.
    fs::write(&bare, {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend([1u64, 0].map(u64::to_le_bytes).concat());
        bytes.extend(1u64.to_le_bytes());
        bytes.extend(b"t");
        bytes.extend([1u32, 2, 0].map(u32::to_le_bytes)[0]);
        bytes.extend(2u64.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend([1.5f32, -2.0].map(f32::to_le_bytes).concat());
        bytes
    })
    .unwrap();
    let path = bare.to_str().unwrap();
    assert_eq!(etalon(["inspect", path, "--json"]).expect(0).json()["kind"], "tensors");
    let stats = etalon(["inspect", path, "--stats", "--json"]).expect(0).json();
    assert_eq!(stats["tensors"][0]["absmax_at"], serde_json::json!([1]));
    assert!(etalon(["inspect", path, "--tensor", "t"]).expect(0).stdout.ends_with("[ 1.5000, -2.0000]\n"));
}

#[test]
fn tensors_are_selected_and_sorted() {
    let list = |more: &str| -> Vec<String> {
        let csv = words(&format!("inspect {GGUF} --tensors --csv {more}")).expect(0).stdout;
        csv.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect()
    };
    let all = list("");
    assert!(list("--name *.ssm_*").iter().all(|name| name.contains(".ssm_")));
    assert!(list("--layer 1-2").iter().all(|name| name.starts_with("blk.1.") || name.starts_with("blk.2.")));
    assert!(list("--regex norm --encoding Q8_0").is_empty());
    let mut sorted = list("--sort name --reverse");
    assert_ne!(sorted, all);
    sorted.sort();
    let mut names = all.clone();
    names.sort();
    assert_eq!(sorted, names);
    assert!(words(&format!("inspect {GGUF} --tensors --layer x")).expect(2).stderr.contains("0,4-7"));
    assert!(words(&format!("inspect {GGUF} --tensors --encoding Q9")).expect(2).stderr.contains("Q4_K"));
}

#[test]
fn values_are_those_that_are_decoded() {
    let room = tempfile::tempdir().unwrap();
    let name = "blk.0.attn_qkv.weight";
    let source = format::open(&root().join(GGUF), &format::Limits::default()).unwrap();
    let info = source.tensor(name).unwrap();
    let mut expected = vec![0.0; info.shape.elements().unwrap() as usize];
    info.encoding.decode(source.bytes(info), &mut expected).unwrap();
    let row = info.shape.row_len() as usize;
    let json =
        etalon(["inspect", GGUF, "--tensor", name, "--slice", "2,-3:", "--raw", "--json"]).expect(0).json();
    let values: Vec<f32> =
        json["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
    assert_eq!(values, expected[2 * row + row - 3..3 * row]);
    assert_eq!(json["sliced"], serde_json::json!([3]));
    let group = &json["blocks"][0]["groups"][0];
    let (scale, code) =
        (group["scale"].as_f64().unwrap(), group["codes"][row - 1 - (row - 32)].as_f64().unwrap());
    assert_eq!((scale * code) as f32, expected[3 * row - 1]);
    let npy = room.path().join("x.npy");
    etalon(["inspect", GGUF, "--tensor", name, "--slice", "1:3", "--save", npy.to_str().unwrap()]).expect(0);
    let bytes = fs::read(&npy).unwrap();
    let data: Vec<u8> = expected[row..3 * row].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert!(bytes.starts_with(b"\x93NUMPY") && bytes.ends_with(&data));
    etalon(["inspect", GGUF, "--tensor", name, "--save", npy.to_str().unwrap()]).expect(2);
    let ran = etalon(["inspect", GGUF, "--tensor", "attn_qkv"]).expect(2);
    assert!(ran.stderr.contains(".attn_qkv.weight"), "{}", ran.stderr);
    etalon(["inspect", GGUF, "--tensor", name, "--slice", "9999"]).expect(2);
}

#[test]
fn hashes_are_checked_against_a_manifest() {
    let room = tempfile::tempdir().unwrap();
    let manifest = room.path().join("manifest");
    let text = words(&format!("inspect {GGUF} --hash sha256,xxh64")).expect(0).stdout;
    fs::write(&manifest, &text).unwrap();
    let manifest = manifest.to_str().unwrap();
    etalon(["inspect", GGUF, "--check", manifest]).expect(0);
    etalon(["inspect", GGUF, "--check", manifest, "--hash", "xxh64"]).expect(0);
    // Nothing to compare with is no success.
    etalon(["inspect", GGUF, "--check", manifest, "--hash", "sha1"]).expect(1);
    // What llama-gguf-hash says of this file; the order asked for is not that of the bytes.
    let uuid = format!("uuid      79a8e2a5-2aaa-5f4a-bcc9-f7c3e008dc08  {GGUF}\n");
    assert_eq!(words(&format!("inspect {GGUF} --hash uuid --sort name")).expect(0).stdout, uuid);
    let ids = room.path().join("ids");
    fs::write(&ids, &uuid).unwrap();
    etalon(["inspect", GGUF, "--check", ids.to_str().unwrap()]).expect(0);
    fs::write(&ids, uuid.replace("79a8", "79a9")).unwrap();
    etalon(["inspect", GGUF, "--check", ids.to_str().unwrap()]).expect(1);
    words(&format!("inspect {GGUF} --hash uuid --layer 0")).expect(2);
    let other = "fixtures/gguf-good/dense-text-f32-f32.gguf";
    etalon(["inspect", other, "--check", manifest]).expect(1);
    // One bit of the last tensor.
    let copy = room.path().join("dense-text-f32-q8_0.gguf");
    let mut bytes = fs::read(root().join(GGUF)).unwrap();
    let source = format::open(&root().join(GGUF), &format::Limits::default()).unwrap();
    bytes[source.tensors().last().unwrap().offset as usize] ^= 1;
    fs::write(&copy, bytes).unwrap();
    let ran = etalon(["inspect", copy.to_str().unwrap(), "--check", manifest]).expect(1);
    assert_eq!(ran.stdout.matches("Mismatch").count(), 2, "{}", ran.stdout);
    // A tensor that the manifest has and the file has not.
    fs::write(manifest, text.replace("output_norm.weight", "gone.weight")).unwrap();
    let ran = etalon(["inspect", GGUF, "--check", manifest]).expect(1);
    assert!(ran.stdout.contains("gone.weight  -  not in the file"), "{}", ran.stdout);
}

#[test]
fn a_page_stands_alone() {
    let room = tempfile::tempdir().unwrap();
    let page = room.path().join("page.html");
    let page = page.to_str().unwrap();
    etalon(["inspect", GGUF, "--html", page, "--stats"]).expect(0);
    let html = fs::read_to_string(page).unwrap();
    for part in
        ["class=picture", "data-tip=", "blk.0.attn_qkv.weight", "tokenizer.ggml.tokens", "untile axis 0"]
    {
        assert!(html.contains(part), "no {part}");
    }
    for part in ["http://", "https://", "<link", "src="] {
        assert!(!html.contains(part), "{part}");
    }
    etalon(["inspect", GGUF, "--html", page]).expect(2);
    etalon(["inspect", GGUF, "--html", page, "--force"]).expect(0);
}

#[test]
fn keys_are_edited_and_printed() {
    let (_room, path) = edited(&["--set", "general.name=str:A <name>", "--chat-template", "justfile"]);
    let path = path.to_str().unwrap();
    assert_eq!(etalon(["inspect", path, "--kv", "general.name", "--full"]).expect(0).stdout, "A <name>\n");
    let template = etalon(["inspect", path, "--kv", "tokenizer.chat_template", "--full"]).expect(0).stdout;
    assert_eq!(template, fs::read_to_string(root().join("justfile")).unwrap() + "\n");
    assert!(etalon(["inspect", path, "--kv", "no.such"]).expect(2).stderr.contains("no key"));
    let tokens = etalon(["inspect", path, "--kv", "tokenizer.ggml.tokens", "--json"]).expect(0).json();
    assert_eq!(tokens["keys"][0]["length"], 512);
    assert!(tokens["keys"][0]["value"].as_array().unwrap().len() < 10);
    let (_room, copy) = edited(&[]);
    assert!(fs::read(copy).unwrap() == fs::read(root().join(GGUF)).unwrap());
    let ran = words(&format!("edit {GGUF} {path} --set new=7")).expect(2);
    assert!(ran.stderr.contains("needs a type"), "{}", ran.stderr);
    words(&format!("edit {GGUF} {path}")).expect(2);
}

/// Texts of `__metadata__` are set, renamed and removed, tensors renamed; what is not changed is the same bytes.
#[test]
fn safetensors_are_edited() {
    let input = "fixtures/models/dense-text-f32/model.safetensors";
    let room = tempfile::tempdir().unwrap();
    let copy = room.path().join("copy.safetensors");
    etalon(["edit", input, copy.to_str().unwrap()]).expect(0);
    assert!(fs::read(root().join(input)).unwrap() == fs::read(&copy).unwrap());

    let out = room.path().join("out.safetensors");
    let (from, to) = (copy.to_str().unwrap(), out.to_str().unwrap());
    let name = "model.norm.weight";
    let rename = format!("{name}=renamed.weight");
    let ran =
        etalon(["edit", from, to, "--set", "made.by=str:me: etalon", "--set", "b=1", "--rename", "b=c"]);
    assert!(ran.expect(2).stderr.contains("no entry \"b\""));
    etalon(["edit", from, to, "--set", "made.by=str:me: etalon", "--rename-tensor", &rename]).expect(0);
    let keys = etalon(["inspect", to, "--kv", "made.by", "--full"]).expect(0).stdout;
    assert_eq!(keys, "me: etalon\n");
    let values =
        |path: &str, name: &str| etalon(["inspect", path, "--tensor", name, "--json"]).expect(0).json();
    assert_eq!(values(from, name)["values"], values(to, "renamed.weight")["values"]);
    etalon(["inspect", to, "--tensor", name]).expect(2);

    // Undone in place, it is the first file again.
    let back = format!("renamed.weight={name}");
    etalon(["edit", to, to, "--force", "--remove", "made.by", "--rename-tensor", &back]).expect(0);
    assert!(fs::read(&out).unwrap() == fs::read(&copy).unwrap());

    let said = |arguments: &[&str], words: &str| {
        let ran = etalon(["edit"].iter().chain(arguments)).expect(2);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    };
    said(&[from, to], "exists already");
    said(&[from, to, "--force", "--chat-template", "README.md"], "chat_template.jinja");
    said(&[from, to, "--force", "--rename-tensor", "x=y"], "no tensor \"x\"");
    said(&["fixtures/models/dense-text-f32", to], "merge its shards first");
}

/// One key so long that no padding reaches it, and arrays longer still, are printed all the same.
#[test]
fn long_values_are_printed_whole() {
    let path = "fixtures/vocab/ggml-vocab-qwen35.gguf";
    let all = etalon(["inspect", path, "--kv", "--full"]).expect(0).stdout;
    let longest = all.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(longest > 65_535, "{longest}");
    let tokens = etalon(["inspect", path, "--kv", "tokenizer.ggml.tokens", "--full"]).expect(0).stdout;
    assert!(all.contains(tokens.trim_end()));
}

/// Sizes and places that leave the file are refused before a byte is written, also by whoever reads a file to write another.
#[test]
fn what_leaves_the_file_is_refused_while_quantizing_too() {
    let room = tempfile::tempdir().unwrap();
    let out = room.path().join("out.gguf");
    let cases = ["offset-at-end", "offset-2-63", "offset-wraps", "data-one-byte-short", "padded-sizes-wrap"];
    for case in cases {
        let bad = format!("fixtures/gguf/x-{case}.gguf");
        for command in [
            ["quantize", &bad, out.to_str().unwrap(), "Q8_0"],
            ["edit", &bad, out.to_str().unwrap(), "--force"],
        ] {
            let ran = etalon(command).expect(2);
            assert!(ran.stderr.contains("offset, byte"), "{}", ran.stderr);
            assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0);
        }
    }
}
