//! Runs that do not come to their end: killed, out of room, out of luck with their input.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::etalon::{Ran, command, etalon, fixture};

const MODEL: &str = "golden/dense-f32";

fn convert(source: &Path, output: &Path, options: &[&str]) -> Ran {
    let [source, output] = [source, output].map(|path| path.to_str().unwrap());
    etalon([&["convert", source, output], options].concat())
}

/// Temporaries in a directory, by what all of them begin with.
fn left(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".etalon-")).collect()
}

/// At ten points from the first moment to the last: the output is not there, or it is whole; and what the killed runs
/// left behind is gone after one that ends.
#[test]
fn killed_at_any_moment_nothing_half_is_there() {
    let room = tempfile::tempdir().unwrap();
    let gguf = room.path().join("model.gguf");
    let hf = room.path().join("back");
    let whole = room.path().join("whole.gguf");
    convert(&fixture(MODEL), &whole, &[]).expect(0);
    let mut interrupted = 0;
    for i in 0..10 {
        // Every other one writes a directory. A prime step reaches all parts of a run of some 60 ms.
        let (source, output) = if i % 2 == 0 { (fixture(MODEL), &gguf) } else { (whole.clone(), &hf) };
        let mut run = command();
        run.arg("convert").arg(&source).arg(output).arg("--force");
        let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(i * 7));
        child.kill().unwrap();
        interrupted += usize::from(child.wait().unwrap().code().is_none());
        if output.exists() {
            etalon(["check", source.to_str().unwrap(), output.to_str().unwrap()]).expect(0);
        }
    }
    assert!(interrupted > 0, "all runs were over before they were killed");
    for (source, output) in [(fixture(MODEL), &gguf), (whole, &hf)] {
        convert(&source, output, &["--force"]).expect(0);
    }
    assert!(left(room.path()).is_empty(), "{:?}", left(room.path()));
}

/// A limit on the length of files stands for a full disk: the same refusal by the system, in the midst of a run.
#[cfg(unix)]
#[test]
fn out_of_room_is_said_and_leaves_nothing() {
    let room = tempfile::tempdir().unwrap();
    for (source, output) in
        [(fixture(MODEL), "model.gguf"), (fixture("gguf-good/dense-f32-f32.gguf"), "directory")]
    {
        let output = room.path().join(output);
        let script = "trap '' XFSZ; ulimit -f 300; exec \"$0\" convert \"$1\" \"$2\"";
        let ran = std::process::Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_etalon")])
            .args([&source, &output])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(2), "{said}");
        assert!(said.contains("File too large"), "{said}");
        assert!(fs::read_dir(room.path()).unwrap().next().is_none(), "{:?}", left(room.path()));
    }
}

#[test]
fn a_shard_that_cannot_be_read_is_named() {
    let room = tempfile::tempdir().unwrap();
    let (model, output) = (room.path().join("model"), room.path().join("out.gguf"));
    let from = fixture("models/dense-vision-bf16");
    let shard = "model-00002-of-00003.safetensors";
    let damages: [fn(&Path); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 100]).unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
    ];
    for damage in damages {
        fs::create_dir(&model).unwrap();
        for entry in fs::read_dir(&from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
        }
        damage(&model.join(shard));
        let ran = convert(&model, &output, &[]).expect(2);
        assert!(ran.stderr.contains(shard), "{}", ran.stderr);
        fs::remove_dir_all(&model).unwrap();
        assert!(fs::read_dir(room.path()).unwrap().next().is_none());
    }
}

#[test]
fn outputs_that_are_there_and_inputs_are_left_alone() {
    let room = tempfile::tempdir().unwrap();
    let gguf = room.path().join("model.gguf");
    convert(&fixture(MODEL), &gguf, &[]).expect(0);
    let before = fs::read(&gguf).unwrap();
    let said = convert(&fixture(MODEL), &gguf, &[]).expect(2).stderr;
    assert!(said.contains("exists already") && said.contains("--force"), "{said}");
    convert(&fixture(MODEL), &gguf, &["--force"]).expect(0);
    assert!(fs::read(&gguf).unwrap() == before, "the same again");
    // The directory that the input lies in, and the input under another name.
    let said = convert(&gguf, room.path(), &["--force"]).expect(2).stderr;
    assert!(said.contains("write elsewhere"), "{said}");
    #[cfg(unix)]
    {
        let hf = room.path().join("hf");
        convert(&gguf, &hf, &[]).expect(0);
        fs::write(hf.join("mine.txt"), "x").unwrap();
        convert(&gguf, &hf, &["--force"]).expect(0);
        assert!(!hf.join("mine.txt").exists(), "the old directory is gone as a whole");
        let mut names: Vec<String> = fs::read_dir(room.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["hf", "hf.receipt.json", "model.gguf", "model.gguf.receipt.json"]);
        let link = room.path().join("link.gguf");
        std::os::unix::fs::symlink(hf.join("model.safetensors"), &link).unwrap();
        let said = convert(&hf, &link, &["--force"]).expect(2).stderr;
        assert!(said.contains("is, or holds, the input"), "{said}");
    }
    assert!(fs::read(&gguf).unwrap() == before);
}

/// What is no whole model is checked as far as it goes.
#[test]
fn parts_are_checked_too() {
    let room = tempfile::tempdir().unwrap();
    let output = room.path().join("part.gguf");
    let model = fixture("models/dense-vision-bf16");
    for options in [["--vocab-only", "--json"].as_slice(), &["--mtp", "only", "--json"]] {
        let json = convert(&model, &output, &[options, &["--force"]].concat()).expect(0).json();
        assert_eq!(json["check"]["passed"], true, "{json}");
        let [a, b] = [&model, &output].map(|path| path.to_str().unwrap());
        etalon(["check", a, b, "--part"]).expect(0);
        etalon(["check", a, b]).expect(2);
        etalon(["check", fixture(MODEL).to_str().unwrap(), b, "--part"]).expect(1);
    }
}

/// What is printed of a plan and of a check, and how it ends.
#[test]
fn plans_write_nothing_and_checks_have_a_status() {
    let room = tempfile::tempdir().unwrap();
    let output = room.path().join("model.gguf");
    let model = fixture("models/dense-vision-bf16");
    let plan = convert(&model, &output, &["--dry-run"]).expect(0).stdout;
    for part in ["tile rows", "+1", "−exp", "not converted (vision)", "blk.0.ssm_out.weight", "BF16 → F32"]
    {
        assert!(plan.contains(part), "no {part} in\n{plan}");
    }
    assert!(fs::read_dir(room.path()).unwrap().next().is_none());
    let json = convert(&model, &output, &["--json"]).expect(0).json();
    assert_eq!(json["check"]["passed"], true);
    let receipt = fs::read_to_string(room.path().join("model.gguf.receipt.json")).unwrap();
    let receipt: serde_json::Value = serde_json::from_str(&receipt).unwrap();
    // Three shards, and the small files that are read.
    let read: Vec<&str> = (receipt["source"].as_array().unwrap().iter())
        .map(|file| file["path"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    for file in ["model-00003-of-00003.safetensors", "config.json", "tokenizer.json"] {
        assert!(read.contains(&file), "{read:?}");
    }
    let blake3 = |entry: &serde_json::Value| entry["blake3"].as_str().is_some_and(|hash| hash.len() == 64);
    assert!(receipt["tensors"].as_array().unwrap().iter().all(blake3));
    assert!(receipt["source"].as_array().unwrap().iter().all(blake3));
    convert(&model, &output, &["--receipt-hash", "sha256", "--force"]).expect(0);
    let text = fs::read_to_string(room.path().join("model.gguf.receipt.json")).unwrap();
    assert!(text.contains("\"sha256\"") && !text.contains("blake3"), "{text}");
    let page = room.path().join("page.html");
    let other = fixture(MODEL);
    let [model, other, page_name] = [&model, &other, &page].map(|path| path.to_str().unwrap());
    let said = etalon(["check", model, other, "--html", page_name]).expect(1).stdout;
    assert!(said.contains("DIFFERENT") && said.contains("hidden_size"), "{said}");
    assert!(fs::read_to_string(page).unwrap().contains("DIFFERENT"));
}
