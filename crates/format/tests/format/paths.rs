//! What a path may lead to.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use format::{Error, Limits, Metadata, open};

use crate::fixtures;

fn error(path: &Path) -> Error {
    match open(path, &Limits::default()) {
        Err(error) => error,
        Ok(_) => panic!("{} opened", path.display()),
    }
}

#[test]
fn content_decides_where_the_name_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let blob = dir.path().join("sha256-0123");
    fs::copy(fixtures::path("gguf/alignment-8.gguf"), &blob).unwrap();
    assert!(matches!(open(&blob, &Limits::default()).unwrap().metadata(), Metadata::Gguf(_)));
    fs::copy(fixtures::path("safetensors/every-dtype.safetensors"), &blob).unwrap();
    assert!(matches!(open(&blob, &Limits::default()).unwrap().metadata(), Metadata::Safetensors(_)));
    // A GGUF file under the other name is still one.
    let misnamed = dir.path().join("model.safetensors");
    fs::copy(fixtures::path("gguf/alignment-8.gguf"), &misnamed).unwrap();
    assert!(matches!(open(&misnamed, &Limits::default()).unwrap().metadata(), Metadata::Gguf(_)));
}

#[test]
fn neither_format_says_what_it_saw() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    fs::write(&path, b"PK\x03\x04 and more than sixteen bytes").unwrap();
    match error(&path) {
        Error::UnknownFormat { found, .. } => assert_eq!(found, b"PK\x03\x04 and more th"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_directory_without_a_checkpoint_says_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let said = |extra: &str| {
        let none = "no model.safetensors and no model.safetensors.index.json in this directory";
        format!("{}: {none}{extra}", dir.path().display())
    };
    assert_eq!(error(dir.path()).to_string(), said(""));
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    fs::write(dir.path().join("b.gguf"), "").unwrap();
    fs::write(dir.path().join("a.gguf"), "").unwrap();
    assert_eq!(error(dir.path()).to_string(), said("; to open a GGUF file name it: a.gguf, b.gguf"));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert_eq!(error(dir.path()).to_string(), said("; it holds a.gguf, b.gguf, pytorch_model.bin"));
}

#[test]
fn a_single_file_goes_before_an_index() {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures::path("safetensors/sharded")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    assert_eq!(open(dir.path(), &Limits::default()).unwrap().tensors().len(), 4);
    let single = dir.path().join("model.safetensors");
    fs::copy(fixtures::path("safetensors/every-dtype.safetensors"), &single).unwrap();
    assert_eq!(open(dir.path(), &Limits::default()).unwrap().files(), [single]);
}

#[cfg(unix)]
#[test]
fn a_link_that_lost_its_target_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("model.safetensors");
    std::os::unix::fs::symlink("../../blobs/gone", &link).unwrap();
    match error(dir.path()) {
        Error::Io { path, action: "open", .. } => assert_eq!(path, link),
        other => panic!("{other}"),
    }
}

#[test]
fn pointers_and_empty_files_are_told_from_damaged_ones() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["model.gguf", "model.safetensors", "model.safetensors.index.json"] {
        let path = dir.path().join(name);
        fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 123\n").unwrap();
        let said = error(&path).to_string();
        let pointer = "a Git LFS pointer, not the file itself (123 bytes); fetch it with `git lfs pull`";
        assert_eq!(said, format!("{}: {pointer}", path.display()));
        fs::write(&path, "").unwrap();
        assert!(matches!(error(&path), Error::Empty { .. }), "{name}");
    }
}

#[test]
fn an_absent_file_is_the_systems_to_report() {
    match error(Path::new("/no/such/model.gguf")) {
        Error::Io { action: "open", source, .. } => assert_eq!(source.kind(), ErrorKind::NotFound),
        other => panic!("{other}"),
    }
}

/// As root every file can be read, and there is nothing to refuse.
#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_the_systems_to_report() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::copy(fixtures::path("gguf/alignment-8.gguf"), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    match (fs::File::open(&path), open(&path, &Limits::default())) {
        (Ok(_), Ok(_)) => {}
        (Err(_), Err(Error::Io { action: "open", source, .. })) => {
            assert_eq!(source.kind(), ErrorKind::PermissionDenied);
        }
        (_, result) => panic!("{:?}", result.err()),
    }
}
