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

/// Every tensor and entry of metadata stays what it was; what is there is not replaced unasked.
#[test]
fn safetensors_are_sharded_and_merged() {
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
    let whole = fixture("models/dense-text-f32/model.safetensors");
    let whole = whole.to_str().unwrap();
    let split = ["split", whole, &at("shards"), "--max-size", "60K"];
    let planned = etalon(split.iter().chain(&["--dry-run", "--json"])).expect(0).json();
    assert!(names(room.path()).is_empty());
    let files = planned["files"].as_array().unwrap();
    assert!(files.len() > 3, "{planned}");
    etalon(split).expect(0);
    for file in files {
        assert_eq!(file["bytes"], fs::metadata(file["path"].as_str().unwrap()).unwrap().len());
    }
    assert_eq!(names(&room.path().join("shards")).len(), files.len());
    let hashes = |path: &str| {
        let json = etalon(["inspect", path, "--hash", "sha256", "--sort", "name", "--json"]).expect(0).json();
        let each = json["hashes"].as_array().unwrap().iter();
        each.filter(|line| !line["tensor"].is_null())
            .map(|line| (line["tensor"].to_string(), line["hash"].to_string()))
            .collect::<Vec<_>>()
    };
    assert!(hashes(whole).len() > 40);
    assert_eq!(hashes(&at("shards")), hashes(whole));
    etalon(["merge", &at("shards"), &at("merged.safetensors")]).expect(0);
    assert_eq!(hashes(&at("merged.safetensors")), hashes(whole));
    let keys = |path: &str| etalon(["inspect", path, "--kv", "--json"]).expect(0).json()["keys"].clone();
    assert_eq!(keys(&at("merged.safetensors")), keys(whole));
    assert!(etalon(split).expect(2).stderr.contains("exists already"));
    etalon(split.iter().chain(&["--force"])).expect(0);
    let ran = etalon(["split", whole, &at("other"), "--max-tensors", "5"]).expect(2);
    assert!(ran.stderr.contains("--max-size"), "{}", ran.stderr);
    assert!(!room.path().join("other").exists());
}
