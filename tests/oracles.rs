//! The second oracle, and which of the two a trace is of.

use std::path::Path;

use codec::Encoding;
use convert::Mock;
use eval::{Identify, Match, Oracle, Run};
use format::Existing;
use model::weights::Mixer;
use model::{Checkpoint, Matrix, NonFinitePolicy, Weights};
use reference::{Activations, Logits, Model, Precision, State};
use trace::{Collect, Tensor, Trace, Values};

use crate::etalon::{fixture, words};
use crate::mutant::Mutant;

const Q8_0: &str = "fixtures/gguf-good/dense-text-f32-q8_0.gguf";
const MOE: &str = "fixtures/gguf-good/moe-packed-bf16-q8_0.gguf";
const TEXT: &str = "--tokens 5,6,7,8,9,10,11,12,50,51,52,53,54,2,3,4,90,91,7,8,30,31,32,33";

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Room {
        Room(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

/// Each oracle, and the fast engine, is told by its trace, on dense models and with experts.
#[test]
fn a_trace_is_recognised() {
    let room = Room::new();
    let (q8, fast, exact) = (room.path("q8.npz"), room.path("fast.npz"), room.path("exact.npz"));
    for model in [Q8_0, MOE] {
        words(&format!("dump {model} {TEXT} -o {q8} --activations q8 --force")).expect(0);
        words(&format!("dump {model} {TEXT} -o {fast} --engine fast --force")).expect(0);
        words(&format!("dump {model} {TEXT} -o {exact} --force")).expect(0);
        let open = |path: &str| Trace::open(path.as_ref()).unwrap();
        assert!(open(&q8).names().eq(open(&exact).names()));
        assert_eq!(open(&q8).manifest().unwrap().contract.as_deref(), Some("etalon-ggml-q8/1"));
        let page = room.path("page.html");
        let said =
            words(&format!("verify {model} --against {q8} --oracle both --html {page} --force")).expect(0);
        let last = said.stdout.lines().last().unwrap();
        assert!(last.starts_with("PASS") && last.ends_with("matches ggml's 8-bit oracle"), "{last}");
        assert!(said.stdout.contains("etalon-ggml-q8/1") && said.stdout.contains("etalon-reference/2"));
        assert!(std::fs::read_to_string(&page).unwrap().contains("matches ggml&#39;s 8-bit oracle"));
        words(&format!("verify {model} --against {q8} --oracle ggml")).expect(0);
        // To the bit: it is the same program.
        words(&format!("verify {model} --against {q8} --oracle ggml --limit *=0")).expect(0);
        words(&format!("verify {model} --against {q8} --local")).expect(1);
        for trace in [&fast, &exact] {
            let said = words(&format!("verify {model} --against {trace} --oracle both")).expect(0).stdout;
            assert!(said.ends_with("matches the f32 oracle\n"), "{said}");
            let said = words(&format!("verify {model} --against {trace} --oracle ggml")).expect(1).stdout;
            assert!(
                said.contains(
                    "not        ggml's 8-bit oracle\nfirst      model.layers.0.linear_attn.in_proj_qkv"
                ),
                "{said}"
            );
            assert!(said.ends_with("FAIL       matches the f32 oracle\n"), "{said}");
        }
        let json = words(&format!("verify {model} --against {fast} --oracle both --json")).expect(0).json();
        assert_eq!((&json["matches"], &json["nearest"]), (&"f32".into(), &"f32".into()));
        assert_eq!(json["ggml"]["passed"], false);
        let points = json["parted"].as_array().unwrap().len();
        assert_eq!(json["f32"]["points"].as_array().unwrap().len(), points);
    }
}

/// Traces that llama.cpp itself left, its own graph and vector code: what it does to activations is what the second oracle
/// says, and nothing else that it does shows.
#[test]
fn llama_cpps_own_traces_match_the_second_oracle() {
    for name in ["dense-text-f32-q8_0", "moe-packed-bf16-q8_0"] {
        let (model, trace) =
            (format!("fixtures/gguf-good/{name}.gguf"), format!("fixtures/ggml/{name}.llama_cpp.npz"));
        let ran = words(&format!("verify {model} --against {trace} --oracle both --json")).expect(0).json();
        assert_eq!((&ran["matches"], &ran["nearest"]), (&"ggml".into(), &"ggml".into()), "{name}");
        let points = ran["ggml"]["points"].as_array().unwrap();
        assert!(points.len() > 50, "{name}: {}", points.len());
        words(&format!("verify {model} --against {trace}")).expect(1);
    }
}

/// Neither oracle is an 8-bit pass on other weights, and the nearest one says where they are.
#[test]
fn a_mutant_matches_neither() {
    let room = Room::new();
    let trace = room.path("mutant.npz");
    for (tensor, point) in [
        ("blk.1.ffn_gate.weight", "model.layers.1.mlp.gate_proj"),
        ("blk.0.ssm_out.weight", "model.layers.0.linear_attn"),
        ("blk.2.attn_v.weight", "model.layers.2.self_attn.v_proj"),
    ] {
        let mutant = Mutant::of("gguf-good/dense-text-f32-q8_0.gguf");
        mutant.map(tensor, |w| w * 1.03);
        let model = mutant.path().to_str().unwrap();
        for (more, nearest) in [("--activations q8", "ggml"), ("--engine fast", "f32")] {
            words(&format!("dump {model} {TEXT} -o {trace} {more} --force")).expect(0);
            let ran =
                words(&format!("verify {Q8_0} --against {trace} --oracle both --json")).expect(1).json();
            assert_eq!((&ran["matches"], &ran["nearest"]), (&"neither".into(), &nearest.into()), "{tensor}");
            assert_eq!(ran[nearest]["divergence"]["point"], point);
            let said = words(&format!("verify {Q8_0} --against {trace} --oracle both --only failed"))
                .expect(1)
                .stdout;
            assert!(said.contains("FAIL       matches neither: nearest is"), "{said}");
            assert!(said.ends_with(&format!("first divergence {point}\n")), "{said}");
        }
    }
}

/// Where weights are f32, ggml leaves activations alone: nothing tells the oracles apart.
#[test]
fn plain_weights_match_both() {
    let room = Room::new();
    let trace = room.path("t.npz");
    let model = "fixtures/gguf-good/dense-text-f32-f32.gguf";
    words(&format!("dump {model} {TEXT} -o {trace} --activations q8")).expect(0);
    let said = words(&format!("verify {model} --against {trace} --oracle both")).expect(0).stdout;
    assert!(said.ends_with("matches both oracles: here they are not told apart\n"), "{said}");
    let ran = words(&format!("verify {model} --against {trace} --oracle both --json")).expect(0).json();
    let apart =
        ran["parted"].as_array().unwrap().iter().map(|p| p["measure"].as_f64().unwrap()).fold(0.0, f64::max);
    assert!(apart > 0.0 && apart < 1e-11, "{apart:e}");
}

/// What is not judged is said, and judging nothing is no match.
#[test]
fn a_block_without_its_input_is_not_judged() {
    let room = Room::new();
    let trace = room.path("t.npz");
    let dump = format!("dump {Q8_0} {TEXT} -o {trace} --activations q8 --force");
    words(&format!("{dump} --points model.layers.0 --points model.layers.*.mlp --points lm_head")).expect(0);
    let ran = words(&format!("verify {Q8_0} --against {trace} --oracle ggml --json")).expect(0).json();
    let judged: Vec<&str> =
        ran["ggml"]["points"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(judged, ["model.layers.0.mlp", "model.layers.0", "model.layers.1.mlp"]);
    let note = ran["ggml"]["notes"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(note.ends_with("what follows model.layers.1, model.layers.2, model.layers.3"), "{note}");
    words(&format!("{dump} --points lm_head")).expect(0);
    words(&format!("verify {Q8_0} --against {trace} --oracle both")).expect(2);
}

#[test]
fn what_is_not_defined_is_an_error() {
    let room = Room::new();
    let out = room.path("t.npz");
    let dump = format!("dump {Q8_0} --tokens 1,2 -o {out} --activations q8");
    let said = words(&format!("{dump} --engine fast")).expect(2).stderr;
    assert!(said.contains("--engine reference"), "{said}");
    let said = words(&format!("{dump} --precision f64")).expect(2).stderr;
    assert!(said.contains("ggml computes in f32"), "{said}");
    assert!(!Path::new(&out).exists());
    words(&dump).expect(0);
    words(&format!("verify {Q8_0} --against {out} --oracle ggml --precision f64")).expect(2);
    words(&format!("verify {Q8_0} --oracle ggml")).expect(2);
    let dir = Mutant::of("models/dense-text-f32");
    let weights = Checkpoint::open(dir.path(), &format::Limits::default()).unwrap();
    let mut weights = weights.weights(NonFinitePolicy::Refuse).unwrap();
    let bytes = vec![0; 8 * weights.norm.len() * 4];
    let wide = Matrix::new(&bytes, Encoding::F64, 4, weights.norm.len()).unwrap();
    if let Mixer::DeltaNet(mixer) = &mut weights.layers[0].mixer {
        mixer.in_proj_a = wide;
    }
    let config = Checkpoint::open(dir.path(), &format::Limits::default()).unwrap();
    let model = Model::new(config.config(), weights, Precision::F32).with_activations(Activations::Q8);
    let said = model.err().unwrap().to_string();
    assert!(said.starts_with("model.layers.0.linear_attn.in_proj_a is in F64"), "{said}");
}

/// A pass in f32 with 8-bit activations, as a kernel elsewhere would leave it.
fn pass(checkpoint: &Checkpoint, weights: Weights<Matrix<'_>>, tokens: &[u32]) -> Trace {
    let config = checkpoint.config();
    let model = Model::new(config, weights, Precision::F32).with_activations(Activations::Q8).unwrap();
    let mut tap = Collect::all();
    model.forward(tokens, &mut State::new(config), Logits::All, &mut tap).unwrap();
    let held = tap.into_trace();
    let narrow = |name: &str| {
        let Tensor { shape, values } = held.get(name).unwrap();
        let values = match values {
            Values::F64(values) => Values::F32(values.into_iter().map(|x| x as f32).collect()),
            other => other,
        };
        (name.to_owned(), Tensor { shape, values })
    };
    let signed = tokens.iter().map(|&token| token.into()).collect();
    Trace::from_tensors(Some(signed), held.names().map(narrow).collect())
}

/// Rounding elsewhere, here of every norm's gain by a unit in the last place, sends some activations to the next whole
/// number. It stays far below the share of the oracles' distance that is allowed, and a thousandth part more on one
/// matrix's output does not.
#[test]
fn rounding_elsewhere_still_matches() {
    let room = Room::new();
    for encoding in [Encoding::Q4K, Encoding::Q8_0] {
        for preset in ["tiny-dense"] {
            let path = room.0.path().join(format!("{preset}-{encoding}.gguf"));
            let mock = Mock::preset(preset).unwrap().with_dtype(encoding);
            mock.write_gguf(&path, Existing::Refuse, &mut |_, _| {}).unwrap();
            let checkpoint = Checkpoint::open(&path, &format::Limits::default()).unwrap();
            let tokens = eval::any_tokens(48, checkpoint.config().vocab_size);
            let weights = checkpoint.weights(NonFinitePolicy::Refuse).unwrap();
            let mut nudged = weights.clone();
            let mut state = 3u32;
            let mut nudge = |gains: &mut Vec<f64>| {
                for gain in gains {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let narrow = *gain as f32;
                    *gain = f64::from(if state >> 31 == 0 { narrow.next_up() } else { narrow.next_down() });
                }
            };
            for layer in &mut nudged.layers {
                nudge(&mut layer.input_layernorm);
                nudge(&mut layer.post_attention_layernorm);
                if let Mixer::DeltaNet(mixer) = &mut layer.mixer {
                    nudge(&mut mixer.norm);
                }
            }
            nudge(&mut nudged.norm);
            let what = Identify { wanted: vec![Oracle::Ggml], ..Identify::default() };
            let identify =
                |trace: &Trace| eval::identify(&checkpoint, trace, &what, &Run::default()).unwrap();
            let found = identify(&pass(&checkpoint, nudged, &tokens));
            assert!(found.ggml.points.iter().map(|p| &p.name).eq(found.parted.iter().map(|p| &p.name)));
            let pairs =
                found.ggml.points.iter().zip(&found.parted).filter(|(point, _)| point.choices.is_none());
            let shares = pairs
                .filter(|(_, apart)| apart.measure > 1e-9)
                .map(|(p, apart)| (p.measure / apart.measure, &p.name));
            let worst = shares.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
            println!("{preset} in {encoding}: {:.1e} of what parts the oracles, at {}", worst.0, worst.1);
            assert_eq!(found.matches, Match::Ggml, "{preset} in {encoding}: {worst:?}");
            // A decay that is off by a few per cent in one layer is no rounding.
            let mut other = weights.clone();
            let layer = other.layers.iter_mut().find_map(|layer| match &mut layer.mixer {
                Mixer::DeltaNet(mixer) => Some(mixer),
                Mixer::Attention(_) => None,
            });
            layer.unwrap().a.iter_mut().for_each(|a| *a *= 1.03);
            assert_eq!(identify(&pass(&checkpoint, other, &tokens)).matches, Match::Neither);
        }
    }
    assert!(fixture("gguf-good").is_dir());
}
