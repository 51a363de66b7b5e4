//! `etalon verify` without a trace, `verify --local` and `dump --engine`, as people use them.

use std::fs;

use crate::etalon::words;
use crate::mutant::Mutant;

const MODEL: &str = "fixtures/models/dense-text-f32";
const Q8_0: &str = "fixtures/gguf-good/dense-text-f32-q8_0.gguf";

#[test]
fn the_engines_are_compared_on_one_file() {
    let room = tempfile::tempdir().unwrap();
    let page = room.path().join("page.html");
    let page = page.to_str().unwrap();
    let ran = words(&format!("verify {Q8_0} --length 40 --html {page}")).expect(0);
    for part in
        ["local      top-1 agrees at 40 of 40", "the noise", "PASS       all 75 points", "model.layers.0.mlp"]
    {
        assert!(ran.stdout.contains(part), "no {part} in\n{}", ran.stdout);
    }
    let html = fs::read_to_string(page).unwrap();
    assert!(html.contains("PASS") && html.contains("model.layers.3.linear_attn.norm"));
    words(&format!("verify {Q8_0} --length 40 --html {page}")).expect(2);
    words(&format!("verify {Q8_0} --tokens 1,2,3 --html {page} --force")).expect(0);
    // Other splits and threads are other work for the engines, and the same figures.
    let json = |more: &str| words(&format!("verify {Q8_0} --length 40 --json {more}")).expect(0).json();
    let whole = json("");
    assert_eq!(whole["passed"], true);
    assert_eq!(whole["local"]["report"]["points"].as_array().unwrap().len(), 75);
    let limit = &whole["free_running"]["report"]["points"][1]["limit_from"];
    assert_eq!(limit, "free F32 Q8_0");
    let parts = json("--split 1,39 --threads 1");
    let measures = |json: &serde_json::Value, pass: &str| -> Vec<f64> {
        let points = json[pass]["report"]["points"].as_array().unwrap();
        points.iter().map(|p| p["measure"].as_f64().unwrap()).collect()
    };
    for pass in ["local", "free_running"] {
        for (a, b) in measures(&whole, pass).iter().zip(measures(&parts, pass)) {
            // Sums over pieces round otherwise.
            assert!((a - b).abs() <= 1e-9 * a, "{a:e} {b:e}");
        }
    }
}

/// What is beyond a limit is an exit status of 1 and named; what cannot be compared is an error.
#[test]
fn limits_fail_and_nothing_is_no_comparison() {
    let ran = words(&format!("verify {Q8_0} --length 20 --limit *.mlp=0 --json")).expect(1).json();
    assert_eq!(ran["passed"], false);
    for pass in ["local", "free_running"] {
        assert_eq!(ran[pass]["report"]["divergence"]["point"], "model.layers.0.mlp");
        assert_eq!(ran[pass]["report"]["points"][12]["limit_from"].as_str().unwrap().split(' ').count(), 3);
    }
    let text = words(&format!("verify {Q8_0} --length 20 --limit *.mlp=0 --only failed")).expect(1).stdout;
    assert!(text.contains("local, free") && text.contains("FAIL       8 of 150"), "{text}");
    let said = words(&format!("verify {Q8_0} --points *.nothing")).expect(2).stderr;
    assert!(said.contains("*.nothing"), "{said}");
    assert!(words(&format!("verify {Q8_0} --tokens 1,9999")).expect(2).stderr.contains("9999"));
    words(&format!("verify {Q8_0} --length 0")).expect(2);
    words(&format!("verify {Q8_0} --local")).expect(2);
    let only = words(&format!("verify {Q8_0} --length 20 --points *.mlp --json")).expect(0).json();
    assert_eq!(only["local"]["report"]["points"].as_array().unwrap().len(), 4);
    assert_eq!(only["local"]["top1"]["positions"], 20);
}

/// A fault in one layer does not reach the next where each is fed the trace's own input, and f32 is judged more sharply.
#[test]
fn a_trace_judged_block_by_block_blames_one_layer() {
    let trace = "fixtures/traces/dense-text-f32.hf_f32.npz";
    let ran = words(&format!("verify {MODEL} --against {trace} --local --json")).expect(0).json();
    assert!(ran["notes"][0].as_str().unwrap().contains("own input"));
    let points = ran["points"].as_array().unwrap();
    assert!(points.iter().any(|p| p["limit_from"] == "local f32" && p["limit"] == 1e-10));
    assert!(points.iter().all(|p| p["measure"].as_f64().unwrap() < 5e-12));
    // In double precision it is the truth itself.
    let truth = "fixtures/traces/dense-text-f32.f64.npz";
    words(&format!("verify {MODEL} --against {truth} --local --limit *=1e-24")).expect(0);
    let room = tempfile::tempdir().unwrap();
    let page = room.path().join("page.html");
    words(&format!("verify {MODEL} --against {trace} --html {}", page.display())).expect(0);
    assert!(fs::read_to_string(page).unwrap().contains("all 75 points within their limits"));
    let mutant = Mutant::of("models/dense-text-f32");
    mutant.edit("model.layers.1.mlp.down_proj.weight", |t| t.values.iter_mut().for_each(|x| *x *= 1.00005));
    let model = mutant.path().to_str().unwrap();
    // Within the limits of a whole pass, beyond those of a block.
    words(&format!("verify {model} --against {trace}")).expect(0);
    let ran = words(&format!("verify {model} --against {trace} --local --json")).expect(1).json();
    assert_eq!(ran["divergence"]["point"], "model.layers.1.mlp");
    let failed = ran["points"].as_array().unwrap().iter().filter(|p| p["within_limit"] == false);
    assert!(failed.clone().all(|p| p["name"].as_str().unwrap().starts_with("model.layers.1")));
}

/// Where the trace lacks a layer's input the reference's own is taken, and said so.
#[test]
fn a_block_without_its_input_is_named() {
    let room = tempfile::tempdir().unwrap();
    let trace = room.path().join("t.npz");
    let trace = trace.to_str().unwrap();
    words(&format!("dump {MODEL} --tokens 1,2,3 -o {trace} --points *.mlp --points model.layers.1"))
        .expect(0);
    let ran = words(&format!("verify {MODEL} --against {trace} --local --limit *=0 --json")).expect(0).json();
    let note = ran["notes"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(note.ends_with("model.embed_tokens, model.layers.0, model.layers.2, model.layers.3"), "{note}");
}

/// Both engines write the same points in the same order, and the fast one's trace is what verify judges.
#[test]
fn either_engine_is_dumped() {
    let room = tempfile::tempdir().unwrap();
    let path = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
    let (exact, fast) = (path("exact.npz"), path("fast.npz"));
    for model in [MODEL, Q8_0, "fixtures/gguf-good/moe-experts-f32-q8_0.gguf"] {
        words(&format!("dump {model} --tokens 5,6,7,8 -o {exact} --force")).expect(0);
        words(&format!("dump {model} --tokens 5,6,7,8 -o {fast} --engine fast --force")).expect(0);
        let open = |path: &str| trace::Trace::open(path.as_ref()).unwrap();
        let (exact, fast) = (open(&exact), open(&fast));
        assert!(exact.names().eq(fast.names()));
        let contract = |trace: &trace::Trace| trace.manifest().unwrap().contract.clone().unwrap();
        assert_ne!(contract(&exact), contract(&fast));
        words(&format!("verify {model} --against {}", path("fast.npz"))).expect(0);
        words(&format!("verify {model} --against {} --limit *=0", path("fast.npz"))).expect(1);
    }
    words(&format!("dump {MODEL} --tokens 1 -o {exact} --force --engine fast --precision f64")).expect(2);
}
