//! Where fixtures lie, and keeping generated ones equal to their generator.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// A file or directory under `fixtures/`.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

/// Checks that the files `x-*` of a directory are exactly the generated ones; with `ETALON_BLESS=1`, makes them so.
pub fn check_generated(dir: &str, extension: &str, generated: &[(&str, &[u8])]) {
    let dir = path(dir);
    let file_name = |name: &str| format!("x-{name}.{extension}");
    let expected: BTreeSet<String> = generated.iter().map(|(name, _)| file_name(name)).collect();
    assert_eq!(expected.len(), generated.len(), "two cases of one name");
    if std::env::var_os("ETALON_BLESS").is_some() {
        for (name, bytes) in generated {
            fs::write(dir.join(file_name(name)), bytes).unwrap();
        }
    }
    let found: BTreeSet<String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("x-"))
        .collect();
    assert_eq!(found, expected, "run again with ETALON_BLESS=1, and delete what is no longer generated");
    for (name, bytes) in generated {
        assert!(fs::read(dir.join(file_name(name))).unwrap() == *bytes, "{name}: run with ETALON_BLESS=1");
    }
}
