//! `etalon run`, as people use it.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::etalon::{command, etalon, words};
use crate::mutant::Mutant;

const MODEL: &str = "fixtures/models/dense-text-f32";
const GGUF: &str = "fixtures/gguf-good/dense-text-f32-f32.gguf";
const MOE: &str = "fixtures/models/moe-experts-f32";

fn ids(tokens: &Value) -> Vec<u64> {
    tokens
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["id"].as_u64().unwrap_or_else(|| t.as_u64().unwrap()))
        .collect()
}

/// The tokens of `run … --json`.
fn made(line: &str) -> Vec<u64> {
    ids(&words(&format!("run {line} --json")).expect(0).json()["tokens"])
}

/// Each token is the likeliest by the logits that `dump` has for the text before it.
#[test]
fn greedy_text_is_what_the_logits_of_a_dump_say() {
    let room = tempfile::tempdir().unwrap();
    for model in [MODEL, GGUF, MOE] {
        let prompt = [51u64, 277, 294];
        let made = made(&format!("{model} --tokens 51,277,294 -n 12 --ignore-end"));
        assert_eq!(made.len(), 12);
        let text: Vec<u64> = prompt.iter().chain(&made).copied().collect();
        let list = text.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let output = room.path().join("t.npz");
        let output = output.to_str().unwrap();
        words(&format!("dump {model} --tokens {list} --points lm_head --force -o {output}")).expect(0);
        let logits = trace::Trace::open(output.as_ref()).unwrap().get("lm_head").unwrap();
        let (vocab, values) = (logits.shape[1], logits.values.as_ref().to_f64());
        for (row, &next) in values.chunks_exact(vocab).skip(prompt.len() - 1).zip(&made) {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert_eq!(row.iter().position(|&x| x == largest), Some(next as usize), "{model}");
        }
    }
}

#[test]
fn either_engine_writes_the_same_text() {
    for model in [MODEL, GGUF, MOE, "fixtures/models/dense-vision-bf16", "fixtures/models/moe-packed-bf16"] {
        let line = format!("{model} --tokens 51,277,294 -n 12 --ignore-end --engine");
        assert_eq!(made(&format!("{line} reference")), made(&format!("{line} fast")), "{model}");
    }
}

/// A prompt in a file is taken as it is, its last line break included, and special tokens in it are parsed.
#[test]
fn a_prompt_may_be_in_a_file() {
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("prompt.txt");
    let text = "<|im_start|>def f(x):\n    return x\n";
    fs::write(&file, text).unwrap();
    let more = ["-n", "5", "--ignore-end", "--json"];
    let run = |source: [&str; 2]| {
        let arguments = ["run", MODEL].into_iter().chain(source).chain(more);
        etalon(arguments).expect(0).json()
    };
    let (of_file, of_text) = (run(["--prompt-file", file.to_str().unwrap()]), run(["--prompt", text]));
    assert_eq!((&of_file["prompt"], &of_file["text"]), (&of_text["prompt"], &of_text["text"]));
    assert_ne!(of_file["prompt"], run(["--prompt", text.trim_end()])["prompt"]);
    let start = words(&format!("run {MODEL} --prompt <|im_start|> -n 0 --json")).expect(0).json();
    assert_eq!(ids(&start["prompt"]), ids(&of_file["prompt"])[..1]);
    fs::write(&file, "").unwrap();
    let said = etalon(["run", MODEL, "--prompt-file", file.to_str().unwrap()]).expect(2).stderr;
    assert!(said.contains("the prompt is empty"), "{said}");
}

/// An expert that no token chooses may be anything: even zero times NaN would show.
#[test]
fn only_chosen_experts_are_read() {
    let room = tempfile::tempdir().unwrap();
    let prompt = [51u64, 277, 294];
    let line = "--tokens 51,277,294 -n 2 --ignore-end";
    let expected = made(&format!("{MOE} {line}"));
    let text = prompt.iter().chain(&expected[..1]).map(u64::to_string).collect::<Vec<_>>().join(",");
    let output = room.path().join("t.npz");
    let output = output.to_str().unwrap();
    words(&format!("dump {MOE} --tokens {text} --points *topk_index -o {output}")).expect(0);
    let trace = trace::Trace::open(output.as_ref()).unwrap();
    let mutant = Mutant::of("models/moe-experts-f32");
    let (mut spoilt, mut chosen) = (0, None);
    for name in trace.names() {
        let index = trace.get(name).unwrap().values.as_ref().to_f64();
        let layer = name.strip_suffix("mlp.topk_index").unwrap();
        for expert in 0..5 {
            let weight = format!("{layer}mlp.experts.{expert}.up_proj.weight");
            match index.contains(&f64::from(expert)) {
                true => chosen = Some(weight),
                false => {
                    mutant.map(&weight, |_| f32::NAN);
                    spoilt += 1;
                }
            }
        }
    }
    assert!(spoilt > 0, "every expert is chosen by some token: choose other tokens");
    let model = mutant.path().to_str().unwrap();
    assert_eq!(made(&format!("{model} {line}")), expected);
    mutant.map(&chosen.unwrap(), |_| f32::NAN);
    let said = words(&format!("run {model} {line}")).expect(2).stderr;
    assert!(said.contains("NaN"), "{said}");
}

/// A text that was saved goes on as if it had not been, to the bit, greedy or drawn.
#[test]
fn saved_texts_go_on_as_if_they_had_not_been_saved() {
    let room = tempfile::tempdir().unwrap();
    let path = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
    let (state, whole) = (path("state"), path("whole"));
    for more in ["", "--temp 1.5 --seed 5 --top-k 50 --repeat-penalty 1.2"] {
        let run = |line: &str| made(&format!("{MODEL} --ignore-end {more} {line}"));
        let all = run(&format!("--tokens 51,277,294 -n 11 --save-state {whole}"));
        let mut parts = run(&format!("--tokens 51,277,294 -n 0 --save-state {state}"));
        assert!(parts.is_empty());
        for n in [1, 4, 6] {
            parts.extend(run(&format!("--load-state {state} -n {n} --save-state {state}")));
        }
        assert_eq!(parts, all);
        assert_eq!(fs::read(&state).unwrap(), fs::read(&whole).unwrap());
    }
}

/// Caches in f16 go through a file as those in f32 do; a text keeps the kind that it began with.
#[test]
fn a_text_keeps_its_kind_of_cache() {
    let room = tempfile::tempdir().unwrap();
    let path = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
    let (half, full) = (path("half"), path("full"));
    let begin = format!("{MODEL} --tokens 51,277,294 --ignore-end");
    let all = made(&format!("{begin} -n 9 --kv f16"));
    let mut parts = made(&format!("{begin} -n 4 --kv f16 --save-state {half}"));
    parts.extend(made(&format!("{MODEL} --ignore-end --load-state {half} -n 5")));
    assert_eq!(parts, all);
    made(&format!("{begin} -n 4 --save-state {full}"));
    // Two layers' keys and values of 6 positions, a head of 16 each, two bytes less a number.
    let sizes = [&full, &half].map(|path| fs::metadata(path).unwrap().len());
    assert_eq!(sizes[0] - sizes[1], 2 * 6 * 2 * 16 * 2);
    made(&format!("{MODEL} --load-state {half} -n 1 --kv f16"));
    for (state, kv) in [(&half, "f32"), (&full, "f16")] {
        let said = words(&format!("run {MODEL} --load-state {state} -n 1 --kv {kv}")).expect(2).stderr;
        assert!(said.contains(&format!("--kv asks for {kv}")), "{said}");
    }
    let said = words(&format!("run {begin} -n 1 --kv f16 --engine reference")).expect(2).stderr;
    assert!(said.contains("reference engine"), "{said}");
}

#[test]
fn saved_texts_are_checked_before_they_are_used() {
    let room = tempfile::tempdir().unwrap();
    let path = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
    let state = path("state");
    words(&format!("run {MODEL} --tokens 51,277,294 -n 0 --save-state {state}")).expect(0);
    let refusal = |line: &str| words(&format!("run {line} -n 1")).expect(2).stderr;
    // A prompt that goes on from the text is run from there; any other is refused where it parts.
    words(&format!("run {MODEL} --tokens 51,277,294,5 --load-state {state} -n 1")).expect(0);
    let said = refusal(&format!("{MODEL} --tokens 51,277,5 --load-state {state}"));
    assert!(
        said.contains("position 2") && said.contains("has 294") && said.contains("the prompt 5"),
        "{said}"
    );
    let said = refusal(&format!("{MODEL} --tokens 51,277 --load-state {state}"));
    assert!(said.contains("position 2") && said.contains("the prompt none"), "{said}");
    assert!(refusal(&format!("{MOE} --load-state {state}")).contains("another model"));
    assert!(refusal(&format!("{MODEL} --load-state Cargo.toml")).contains("etalon text 1"));
    let bytes = fs::read(&state).unwrap();
    let damaged = path("damaged");
    for at in [0, 20, bytes.len() / 2, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        fs::write(&damaged, bytes).unwrap();
        refusal(&format!("{MODEL} --load-state {damaged}"));
    }
    fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    assert!(refusal(&format!("{MODEL} --load-state {damaged}")).contains("checksum"));
    // What is no saved text is not overwritten by one.
    let other = path("notes.txt");
    fs::write(&other, "mine").unwrap();
    assert!(refusal(&format!("{MODEL} --tokens 1 --save-state {other}")).contains("it would be replaced"));
    assert_eq!(fs::read_to_string(other).unwrap(), "mine");
}

#[test]
fn a_text_ends_where_it_is_told_to() {
    let free = words(&format!("run {MODEL} --tokens 51,277,294 -n 30 --ignore-end --json")).expect(0).json();
    assert_eq!((ids(&free["tokens"]).len(), free["finish"].as_str()), (30, Some("length")));
    let text = free["text"].as_str().unwrap();
    // A stop string that begins inside a token and ends in another.
    let at = text.char_indices().nth(8).unwrap().0;
    let stop: String = text[at..].chars().take(4).collect();
    let prompt = ["run", MODEL, "--tokens", "51,277,294", "-n", "30", "--ignore-end", "--json", "--stop"];
    let ran = etalon(prompt.iter().copied().chain([stop.as_str()])).expect(0).json();
    assert_eq!(ran["finish"], "stop");
    assert_eq!(ran["text"].as_str().unwrap(), &text[..text.find(&stop).unwrap()]);
    // The context bounds prompt and answer together.
    let ran = words(&format!("run {MODEL} --tokens 51,277,294 --ignore-end --context 10 --json")).expect(0);
    assert_eq!((ids(&ran.json()["tokens"]).len(), ran.json()["finish"].as_str()), (7, Some("context")));
    let said = words(&format!("run {MODEL} --tokens 51,277,294 --context 3")).expect(2).stderr;
    assert!(said.contains("3 tokens") && said.contains("--context"), "{said}");
    // Its own token for that: the likeliest one is made to be it.
    let first = ids(&free["tokens"])[0];
    let mutant = Mutant::of("models/dense-text-f32");
    let config = format!(r#"{{"eos_token_id": [7, {first}]}}"#);
    fs::write(mutant.file("generation_config.json"), config).unwrap();
    let model = mutant.path().to_str().unwrap();
    let ran = words(&format!("run {model} --tokens 51,277,294 -n 5 --json")).expect(0).json();
    assert_eq!((ids(&ran["tokens"]), ran["text"].as_str()), (vec![first], Some("")));
    assert_eq!(ran["finish"], "end");
}

/// Natural logarithms of probabilities: they add up to 1, and the first of the list is the one that was taken.
#[test]
fn logprobs_are_of_the_model_itself() {
    let ran = words(&format!("run {MODEL} --tokens 51,277,294 -n 3 --logprobs 512 --json")).expect(0).json();
    for token in ran["tokens"].as_array().unwrap() {
        let top = token["top"].as_array().unwrap();
        let sum: f64 = top.iter().map(|t| t["logprob"].as_f64().unwrap().exp()).sum();
        // 512 roundings.
        assert!((sum - 1.0).abs() < 1e-12 && top.len() == 512, "{sum}");
        assert_eq!((&top[0]["id"], &top[0]["logprob"]), (&token["id"], &token["logprob"]));
    }
    let text = words(&format!("run {MODEL} --tokens 51,277,294 -n 3 --logprobs 2")).expect(0).stdout;
    assert_eq!(text.lines().count(), 3, "{text}");
}

/// Text goes to standard output, speed to standard error, and a draw depends on its seed only.
#[test]
fn output_is_text_and_repeatable() {
    let line = format!("run {MODEL} --prompt the -n 24 --temp 2 --ignore-end --seed");
    let first = words(&format!("{line} 1")).expect(0);
    assert!(first.stderr.contains("tok/s") && first.stderr.contains("stopped by -n"), "{}", first.stderr);
    assert_eq!(first.stdout, words(&format!("{line} 1 --threads 1")).expect(0).stdout);
    assert_ne!(first.stdout, words(&format!("{line} 2")).expect(0).stdout);
    let json = words(&format!("{line} 1 --json")).expect(0).json();
    assert_eq!(json["text"].as_str().unwrap().to_owned() + "\n", first.stdout);
    for wrong in
        ["--top-p 0.5", "--temp -1", "--temp 1 --top-p 2", "--chat --prompt x", "", "--system x --prompt y"]
    {
        words(&format!("run {MODEL} {wrong}")).expect(2);
    }
}

fn chat(arguments: &[&str], lines: &str) -> (i32, String, String) {
    let mut child = command()
        .args(["run", MODEL, "--chat"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A second turn is what the whole conversation gives at once, also where the template leaves an answer's thinking
/// out, and the state must go back.
#[test]
fn a_chat_is_its_conversation() {
    let room = tempfile::tempdir().unwrap();
    let forgetful = room.path().join("t.jinja");
    fs::write(
        &forgetful,
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ 'x' if m.role == 'assistant' else m.content }}<|im_end|>\n\
         {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>{{ word }}\n{% endif %}",
    )
    .unwrap();
    let forgetful = forgetful.to_str().unwrap();
    for template in [&[][..], &["--template", forgetful, "--template-var", "word=hm"]] {
        let arguments = [&["-n", "6", "--json", "--system", "norms"], template].concat();
        let (status, stdout, stderr) = chat(&arguments, "the first\n\nthe second\n");
        assert_eq!(status, 0, "{stderr}");
        let report: Value = serde_json::from_str(&stdout).unwrap();
        let turns = report["turns"].as_array().unwrap();
        let roles: Vec<&str> =
            report["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
        assert_eq!(turns.len(), 2);
        for turn in turns {
            let prompt: Vec<String> = ids(&turn["prompt"]).iter().map(u64::to_string).collect();
            let alone = made(&format!("{MODEL} --tokens {} -n 6", prompt.join(",")));
            assert_eq!(ids(&turn["tokens"]), alone);
        }
        // The second turn did not begin from nothing.
        let (run, long) =
            (turns[1]["prompt_tokens"].as_u64().unwrap(), ids(&turns[1]["prompt"]).len() as u64);
        assert!(run < long, "{run} of {long}");
    }
    let (status, stdout, _) = chat(&["-n", "3"], "hi\n");
    assert!(status == 0 && !stdout.trim().is_empty());
    assert_eq!(chat(&["-n", "3"], "").0, 2);
}

/// Nothing is chosen from NaN.
#[test]
fn weights_that_are_not_finite_are_noticed() {
    let mutant = Mutant::of("models/dense-text-f32");
    mutant.edit("model.layers.1.mlp.up_proj.weight", |t| t.values[7] = f32::NAN);
    let model = mutant.path().to_str().unwrap();
    let said = words(&format!("run {model} --tokens 1,2 -n 3")).expect(2).stderr;
    assert!(said.contains("position 1") && said.contains("NaN"), "{said}");
    words(&format!("run {model} --tokens 1,2 -n 3 --allow-nonfinite")).expect(0);
}
