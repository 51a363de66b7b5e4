//! Commands that rewrite files as they are: parts, and the whole again.

use std::fs;
use std::path::Path;

use crate::etalon::{etalon, fixture};

const WHOLE: &str = "gguf-good/dense-text-f32-q8_0.gguf";

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_that_is_split_and_merged_is_the_same() {
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
    let whole = fixture(WHOLE);
    let planned =
        etalon(["split", whole.to_str().unwrap(), &at("m"), "--max-size", "20K", "--dry-run", "--json"])
            .expect(0)
            .json();
    assert!(names(room.path()).is_empty());
    let files = planned["files"].as_array().unwrap();
    assert!(files.len() > 2, "{planned}");
    etalon(["split", whole.to_str().unwrap(), &at("m"), "--max-size", "20K"]).expect(0);
    let expected: Vec<String> =
        (1..=files.len()).map(|n| format!("m-{n:05}-of-{:05}.gguf", files.len())).collect();
    assert_eq!(names(room.path()), expected);
    for file in files {
        let len = fs::metadata(file["path"].as_str().unwrap()).unwrap().len();
        assert_eq!(file["bytes"], len);
    }
    etalon(["inspect", &at(&expected[1])]).expect(0);
    etalon(["merge", &at(&expected[1]), &at("merged.gguf")]).expect(0);
    assert!(fs::read(at("merged.gguf")).unwrap() == fs::read(&whole).unwrap());
    // Parts are divided anew, and what is there is not replaced unasked.
    let again = ["split", &at(&expected[0]), &at("m"), "--max-tensors", "30", "--keys-alone"];
    etalon(again).expect(0);
    let ran = etalon(again).expect(2);
    assert!(ran.stderr.contains("exists already"), "{}", ran.stderr);
    etalon(again.iter().chain(&["--force"])).expect(0);
    let ran = etalon(["split", whole.to_str().unwrap(), &at("x")]).expect(2);
    assert!(ran.stderr.contains("--max-size"), "{}", ran.stderr);
}
