//! The commands, as people type them.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use trace::Trace;

use crate::etalon::{command, etalon, fixture, root, words};
use crate::mutant::Mutant;

const MODEL: &str = "fixtures/models/dense-text-f32";

/// The commands in README's code blocks.
fn readme() -> Vec<String> {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if inside && !line.trim().is_empty() {
            commands.push(line.to_owned());
        }
    }
    commands
}

/// The very command that README gives first runs, and shows the table it promises.
#[test]
fn readmes_first_command_verifies_a_trace() {
    let commands = readme();
    let prefix = "cargo run -- ";
    let line = commands[0].strip_prefix(prefix).unwrap_or_else(|| panic!("{} starts otherwise", commands[0]));
    let ran = words(line).expect(0);
    for part in
        ["NMSE", "centered", "max |Δ|", "relative", "cosine", "model.layers.0.linear_attn.core_attn_out"]
    {
        assert!(ran.stdout.contains(part), "no {part} in\n{}", ran.stdout);
    }
    assert!(ran.stdout.contains("top-1 agrees at 24 of 24 positions"), "{}", ran.stdout);
    assert!(ran.stdout.lines().last().unwrap().starts_with("PASS"), "{}", ran.stdout);
    assert!(commands.iter().any(|command| command == "cargo test --workspace"));
}

/// Every other `etalon` command in README is one that the arguments' parser knows.
#[test]
fn readmes_commands_are_real() {
    let verbs: Vec<String> = readme()
        .iter()
        .filter_map(|line| {
            line.strip_prefix("etalon ").and_then(|rest| rest.split(' ').next()).map(str::to_owned)
        })
        .collect();
    assert!(!verbs.is_empty());
    for verb in verbs {
        etalon([verb.as_str(), "--help"]).expect(0);
    }
}

#[test]
fn every_command_has_help_with_examples() {
    let help = words("--help").expect(0).stdout;
    // One a line: see `etalon --help`.
    #[rustfmt::skip]
    let verbs = [
        "bench",
        "check",
        "compare",
        "convert",
        "dump",
        "edit",
        "edit",
        "inspect",
        "merge",
        "mock",
        "quantize",
        "run",
        "split",
        "verify",
    ];
    for verb in verbs {
        assert!(help.contains(verb), "{help}");
        let help = etalon([verb, "--help"]).expect(0).stdout;
        assert!(help.contains("Examples:") && help.contains(&format!("  etalon {verb} ")), "{help}");
    }
}

/// What one form holds is what the others hold, tokens and all; and each is the truth that verify knows.
#[test]
fn traces_of_all_forms_are_the_same_and_are_verified() {
    let room = tempfile::tempdir().unwrap();
    let tokens = "--tokens-file fixtures/traces/dense-text-f32.f64.npz";
    let mut outputs = Vec::new();
    for form in ["directory", "file.npz", "file.safetensors"] {
        let output = room.path().join(form);
        let output = output.to_str().unwrap().to_owned();
        words(&format!("dump {MODEL} {tokens} -o {output}")).expect(0);
        words(&format!("verify {MODEL} --against {output} --limit *=0")).expect(0);
        words(&format!("compare fixtures/traces/dense-text-f32.f64.npz {output}")).expect(0);
        outputs.push(output);
    }
    let traces: Vec<Trace> = outputs.iter().map(|path| Trace::open(path.as_ref()).unwrap()).collect();
    let names: Vec<&str> = traces[0].names().collect();
    assert_eq!(names.len(), 75);
    for trace in &traces {
        assert_eq!(trace.names().collect::<Vec<_>>(), names);
        assert_eq!(trace.tokens(), traces[0].tokens());
        names.iter().for_each(|name| assert_eq!(trace.get(name).unwrap(), traces[0].get(name).unwrap()));
        let manifest = trace.manifest().unwrap();
        let producer = manifest.producer.as_ref().unwrap();
        assert_eq!((producer.name.as_str(), producer.precision.as_deref()), ("etalon", Some("f32")));
        assert!(manifest.contract.is_some());
        // As the traces made by other tools name the same weights.
        let theirs = Trace::open(&fixture("traces/dense-text-f32.hf_f32.npz")).unwrap();
        let theirs = theirs.manifest().unwrap().model.as_ref().unwrap().sha256.clone();
        assert_eq!(manifest.model.as_ref().unwrap().sha256, theirs);
    }
}

#[test]
fn several_weight_files_have_the_hash_that_other_tools_give_them() {
    let room = tempfile::tempdir().unwrap();
    let output = room.path().join("trace.npz");
    let line = format!("dump fixtures/models/dense-vision-bf16 --tokens 1 -o {}", output.display());
    words(&line).expect(0);
    let hash = |path: &std::path::Path| {
        Trace::open(path).unwrap().manifest().unwrap().model.as_ref().unwrap().sha256.clone().unwrap()
    };
    assert_eq!(hash(&output), hash(&fixture("traces/dense-vision-bf16.hf_f32.npz")));
}

#[test]
fn dump_records_what_is_asked_for() {
    let room = tempfile::tempdir().unwrap();
    let output = room.path().join("trace.npz");
    let dump = |more: &str| {
        let line = format!("dump {MODEL} --tokens 5,6,7 -o {} --force {more}", output.display());
        words(&line).expect(0);
        Trace::open(&output).unwrap()
    };
    let trace = dump("--points *.mlp --points lm_head --logits last --precision f64 --split 1,2");
    let names: Vec<&str> = trace.names().collect();
    assert_eq!(
        names,
        ["model.layers.0.mlp", "model.layers.1.mlp", "model.layers.2.mlp", "model.layers.3.mlp", "lm_head"]
    );
    assert_eq!(trace.info("lm_head").unwrap().shape, [1, 512]);
    assert_eq!(trace.info("model.layers.0.mlp").unwrap().shape, [3, 32]);
    assert_eq!(trace.info("lm_head").unwrap().dtype, trace::Dtype::F64);
    assert_eq!(trace.tokens(), Some(&[5, 6, 7][..]));
    // The last token's logits alone are verified too.
    words(&format!("verify {MODEL} --against {} --limit *=0", output.display())).expect(0);
}

#[test]
fn points_are_listed_with_shapes_and_other_names() {
    let ran = words(&format!("dump --list-points {MODEL}")).expect(0);
    let line =
        |name: &str| ran.stdout.lines().find(|line| line.split(' ').next() == Some(name)).unwrap().to_owned();
    let qkv = line("model.layers.0.linear_attn.in_proj_qkv");
    assert!(qkv.contains("[T, 96]") && qkv.contains("linear_attn_qkv_mixed-0"), "{qkv}");
    assert!(line("model.layers.3.linear_attn.conv_state").contains("[96, 3]"));
    let json = words(&format!("dump --list-points {MODEL} --json")).expect(0).json();
    assert_eq!(json.as_array().unwrap().len(), 75);
    assert_eq!(json[0]["name"], "model.embed_tokens");
}

#[test]
fn a_failed_comparison_is_told_from_an_error() {
    let trace = "fixtures/traces/dense-text-f32.hf_f32.npz";
    let ran = words(&format!("verify {MODEL} --against {trace} --limit *.linear_attn.norm=1e-30")).expect(1);
    assert!(ran.stdout.contains("first      model.layers.0.linear_attn.norm"), "{}", ran.stdout);
    assert!(ran.stdout.contains("12 points before it exonerated, 62 after it downstream"), "{}", ran.stdout);
    assert!(ran.stdout.contains("+1 added to the gated norm's weight"), "{}", ran.stdout);
    let lines = ran.stdout.lines().count();
    let only =
        words(&format!("verify {MODEL} --against {trace} --limit *.linear_attn.norm=1e-30 --only failed"));
    assert!(only.expect(1).stdout.lines().count() < lines - 70);
    // Nothing in common, nothing judged.
    let ran = words(&format!("compare {trace} fixtures/trace/version1.npy")).expect(2);
    assert!(ran.stdout.is_empty() && ran.stderr.starts_with("error: "), "{}", ran.stderr);
}

#[test]
fn limits_come_from_the_command_line_before_a_file() {
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("limits");
    fs::write(&file, "# mine\n* 0\n").unwrap();
    let trace = "fixtures/traces/dense-text-f32.hf_f32.npz";
    let line = format!("verify {MODEL} --against {trace} --limits {}", file.display());
    words(&line).expect(1);
    words(&format!("{line} --limit *=1e-9")).expect(0);
}

#[test]
fn tokens_given_must_be_those_of_the_trace() {
    let trace = "fixtures/traces/dense-text-f32.f64.npz";
    words(&format!("verify {MODEL} --against {trace} --tokens-file {trace}")).expect(0);
    words(&format!("verify {MODEL} --against {trace} --tokens-from-trace")).expect(0);
    let ran = words(&format!("verify {MODEL} --against {trace} --tokens 434,345,65")).expect(2);
    assert!(ran.stderr.contains("65") && ran.stderr.contains("64"), "{}", ran.stderr);
}

#[test]
fn reports_are_json_with_every_number() {
    let ran = words(&format!("verify {MODEL} --against fixtures/traces/dense-text-f32.hf_f32.npz --json"))
        .expect(0);
    let report = ran.json();
    assert_eq!(report["passed"], true);
    assert_eq!(report["points"].as_array().unwrap().len(), 75);
    let point = &report["points"][10];
    for field in ["nmse", "nmse_centered", "max_abs", "cosine"] {
        assert!(point["stats"][field].is_number(), "{field} in {point}");
    }
    for field in ["index", "reference", "candidate", "relative"] {
        assert!(!point["stats"]["worst"][field].is_null(), "{field} in {point}");
    }
    let logits = &report["points"][74]["logits"];
    assert_eq!((&logits["positions"], &logits["top1_agree"]), (&24.into(), &24.into()));
    assert_eq!(report["reference"]["producer"]["name"], "etalon");
    assert_eq!(report["candidate"]["producer"]["torch"], "2.15.0+cu132");
}

#[test]
fn the_text_of_a_report_is_the_same_whatever_runs_it() {
    let line = format!("verify {MODEL} --against fixtures/traces/dense-text-f32.hf_f32.npz");
    let plain = words(&line).expect(0).stdout;
    assert_eq!(words(&format!("{line} --threads 3 --split 7,17")).expect(0).stdout, plain);
    for kernels in reference::Kernels::all() {
        let output = command().args(line.split(' ')).env("ETALON_KERNELS", kernels.name()).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), plain, "{}", kernels.name());
    }
    assert!(!plain.contains('\x1b'), "colour where no terminal is");
}

#[test]
fn inspect_shows_both_shapes_and_the_other_format() {
    let line = |stdout: &str, name: &str| {
        let found = stdout.lines().find(|line| line.trim_start().starts_with(&format!("{name} ")));
        found.unwrap_or_else(|| panic!("no {name} in\n{stdout}")).to_owned()
    };
    let hf = words(&format!("inspect {MODEL} --tensors")).expect(0).stdout;
    let conv = line(&hf, "model.layers.0.linear_attn.conv1d.weight");
    for part in ["[96, 1, 4]", "{4, 1, 96}", "conv1d", "drop axis 1", "blk.0.ssm_conv1d.weight"] {
        assert!(conv.contains(part), "no {part} in {conv}");
    }
    let gguf = words("inspect fixtures/gguf-good/dense-vision-bf16-bf16.gguf --tensors").expect(0).stdout;
    let conv = line(&gguf, "blk.0.ssm_conv1d.weight");
    for part in ["{4, ", "untile axis 0 in runs of V after 2HkK", "model.layers.0.linear_attn.conv1d.weight"]
    {
        assert!(conv.contains(part), "no {part} in {conv}");
    }
    assert!(gguf.contains("(multi-token prediction, not run)"), "{gguf}");
    let vision = words("inspect fixtures/models/moe-packed-bf16 --tensors").expect(0).stdout;
    assert!(vision.contains("vision, not run"), "{vision}");
    let packed = line(&vision, "model.language_model.layers.0.mlp.experts.gate_up_proj");
    assert!(packed.contains("experts_gate | experts_up"), "{packed}");
    assert!(packed.contains("blk.0.ffn_gate_exps.weight | blk.0.ffn_up_exps.weight"), "{packed}");
}

/// Every tensor of the files is in the JSON, once.
#[test]
fn inspect_accounts_for_every_tensor() {
    for model in [
        "models/moe-packed-bf16",
        "models/moe-experts-f32",
        "models/dense-vision-bf16",
        "gguf-good/moe-packed-bf16-q8_0.gguf",
    ] {
        let path = fixture(model);
        let json = etalon(["inspect", path.to_str().unwrap(), "--tensors", "--json"]).expect(0).json();
        let mut listed: Vec<String> = json["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tensor| tensor["name"].as_str().unwrap().to_owned())
            .collect();
        let source = format::open(&path, &format::Limits::default()).unwrap();
        let mut all: Vec<String> = source.tensors().iter().map(|tensor| tensor.name.clone()).collect();
        listed.sort();
        all.sort();
        assert_eq!(listed, all, "{model}");
    }
}

/// A reader that has seen enough is no error.
#[test]
fn a_closed_pipe_is_no_panic() {
    let mut child = command()
        .args(["dump", "--list-points", MODEL, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn kernels_that_this_processor_lacks_are_refused() {
    let output = command().args(["inspect", MODEL]).env("ETALON_KERNELS", "avx1024").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("\"avx1024\"") && stderr.contains("scalar"), "{stderr}");
}

/// A prompt is encoded as the tokenizer of Hugging Face does, from either kind of file.
#[test]
fn prompts_are_encoded_by_the_checkpoints_tokenizer() {
    let room = tempfile::tempdir().unwrap();
    let (output, file) = (room.path().join("trace.npz"), room.path().join("prompt.txt"));
    let text = "The norms of 12 layers are near 1.\n  naïve 東京 <|im_end|>";
    fs::write(&file, text).unwrap();
    for model in [MODEL, "fixtures/gguf-good/dense-text-f32-f32.gguf"] {
        for prompt in [["--prompt", text], ["--prompt-file", file.to_str().unwrap()]] {
            let output = ["--points", "lm_head", "--force", "-o", output.to_str().unwrap()];
            etalon(["dump", model].iter().chain(&prompt).chain(&output)).expect(0);
            let trace = Trace::open(&room.path().join("trace.npz")).unwrap();
            assert_eq!(
                trace.tokens(),
                Some(
                    &[
                        51, 277, 294, 273, 76, 82, 403, 220, 16, 17, 220, 75, 64, 88, 297, 82, 262, 269, 294,
                        68, 268, 220, 16, 373, 220, 294, 64, 127, 107, 361, 220, 162, 251, 109, 160, 118,
                        105, 220, 497
                    ][..]
                ),
                "{model} {prompt:?}"
            );
        }
    }
}

/// Both forms of a mock are one model, and its own trace says so; other seeds are other models.
#[test]
fn mocks_are_models_in_both_forms() {
    let room = tempfile::tempdir().unwrap();
    let path = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
    let (hf, gguf, split, trace) = (path("hf"), path("mock.gguf"), path("split"), path("trace.npz"));
    let preset = "tiny-moe --layers 2 --dtype F32";
    words(&format!("mock {preset} -o {hf}")).expect(0);
    words(&format!("mock {preset} -o {gguf}")).expect(0);
    words(&format!("mock {preset} -o {split} --experts split")).expect(0);
    words(&format!("dump {hf} --tokens 1,2,3,4,5 -o {trace}")).expect(0);
    words(&format!("verify {split} --against {trace} --limit *=0")).expect(0);
    words(&format!("verify {gguf} --against {trace}")).expect(0);
    words(&format!("mock {preset} -o {hf} --seed 1")).expect(2);
    words(&format!("mock {preset} -o {hf} --seed 1 --force")).expect(0);
    let ran = words(&format!("verify {hf} --against {trace} --json")).expect(1);
    assert_eq!(ran.json()["divergence"]["point"], "model.embed_tokens");
    let list = words("mock --list").expect(0).stdout;
    assert!(list.contains("tiny-moe") && list.contains("0.8B"), "{list}");
    assert!(words("mock 17B -o x").expect(2).stderr.contains("tiny-moe"));
    words(&format!("mock {MODEL}/config.json -o {} --dtype F16", path("other"))).expect(0);
}

/// NaN among the weights is refused by name, or run and then found.
#[test]
fn weights_that_are_not_finite_run_when_allowed() {
    let mutant = Mutant::of("models/dense-text-f32");
    mutant.edit("model.layers.1.mlp.up_proj.weight", |t| t.values[7] = f32::NAN);
    let verify = |more: &[&str]| {
        let path = mutant.path().to_str().unwrap();
        let arguments = ["verify", path, "--against", "fixtures/traces/dense-text-f32.f64.npz"];
        etalon(arguments.iter().chain(more))
    };
    let ran = verify(&[]).expect(2);
    assert!(ran.stderr.contains("model.layers.1.mlp.up_proj.weight: element 7 is NaN"), "{}", ran.stderr);
    let ran = verify(&["--allow-nonfinite", "--json"]).expect(1);
    assert_eq!(ran.json()["divergence"]["point"], "model.layers.1.mlp.up_proj");
}

/// Speeds in both forms, and another program's beside them.
#[test]
fn speed_is_measured_and_compared() {
    let line = format!("bench {MODEL} --prefill 8 --decode 4 --repeat 1 --threads 1");
    let json = words(&format!("{line} --json")).expect(0).json();
    assert_eq!((json["prefill"]["tokens"].as_u64(), json["decode"]["tokens"].as_u64()), (Some(8), Some(4)));
    assert!(json["decode"]["of_memory"].as_f64().unwrap() > 0.0);
    let vs = |command: &str| {
        let arguments: Vec<&str> = line.split(' ').chain(["--vs", command]).collect();
        etalon(arguments)
    };
    let tests = r#"echo '[{"n_prompt": 8, "n_gen": 0, "avg_ts": 100}]'"#;
    let text = vs(tests).expect(0).stdout;
    for part in ["tok/s", "GB/s", "% of memory", "lm_head", "prefill 100.0 tok/s, here"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert!(vs("false").expect(2).stderr.contains("\"false\" failed"));
    assert!(vs("echo fast").expect(2).stderr.contains("expected JSON"));
    assert!(vs("echo '{}'").expect(2).stderr.contains("no tokens per second"));
}
