//! Who may import whom: the floors of docs/architecture.md. A new edge is a decision, not an accident: it is made here.

use std::fs;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::etalon::root;

/// A crate of ours.
struct Floor {
    package: &'static str,
    floor: u8,
    /// All of ours that it may import.
    may: &'static [&'static str],
}

const fn on(floor: u8, package: &'static str, may: &'static [&'static str]) -> Floor {
    Floor { package, floor, may }
}

/// The judge (reference) and the tools that rewrite checkpoints share the model's description and no arithmetic. What `instructions`
/// multiplies for the judge nobody else asks it for: to `fast` it hands a configured processor.
const FLOORS: &[Floor] = &[
    on(0, "etalon-codec", &[]),
    on(0, "etalon-instructions", &[]),
    on(0, "etalon-trace", &[]),
    on(1, "etalon-format", &["etalon-codec"]),
    on(2, "etalon-model", &["etalon-codec", "etalon-format"]),
    on(3, "etalon-reference", &["etalon-codec", "etalon-instructions", "etalon-model", "etalon-trace"]),
    on(3, "etalon-fast", &["etalon-codec", "etalon-instructions", "etalon-model", "etalon-trace"]),
    on(3, "etalon-convert", &["etalon-codec", "etalon-format", "etalon-model"]),
    on(3, "etalon-inspect", &["etalon-codec", "etalon-format", "etalon-model"]),
    on(
        4,
        "etalon-eval",
        &["etalon-codec", "etalon-fast", "etalon-format", "etalon-model", "etalon-reference", "etalon-trace"],
    ),
    on(
        5,
        "etalon",
        &[
            "etalon-codec",
            "etalon-trace",
            "etalon-format",
            "etalon-model",
            "etalon-reference",
            "etalon-fast",
            "etalon-convert",
            "etalon-eval",
            "etalon-inspect",
        ],
    ),
];

/// Packages from outside that the tool is built on, whichever crate uses them.
const OUTSIDE: &[&str] = &[
    "anyhow",
    "blake3",
    "clap",
    "crc32fast",
    "flate2",
    "globset",
    "half",
    "hashbrown",
    "indicatif",
    "jiff",
    "libc",
    "libm",
    "memmap2",
    "mimalloc",
    "minijinja",
    "minijinja-contrib",
    "ndarray",
    "pulp",
    "rayon",
    "regex",
    "rustix",
    "safetensors",
    "saphyr-parser",
    "serde",
    "serde_json",
    "sha1",
    "sha2",
    "strsim",
    "tempfile",
    "thiserror",
    "tokenizers",
    "xxhash-rust",
    "zip",
];

/// Those that tests and benchmarks use besides.
const TESTING: &[&str] = &["approx", "cargo_metadata", "criterion", "npyz", "proptest"];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap()
}

fn floor(package: &str) -> Option<&'static Floor> {
    FLOORS.iter().find(|floor| floor.package == package)
}

#[test]
fn every_crate_imports_what_the_table_allows() {
    let packages = metadata().packages;
    let mut names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut expected: Vec<&str> = FLOORS.iter().map(|floor| floor.package).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected, "a crate is missing from the table, or gone");
    for package in &packages {
        let own = floor(&package.name).unwrap();
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let allowed = match (floor(name), dependency.kind) {
                (Some(_), DependencyKind::Normal) => own.may.contains(&name),
                // Tests may use whatever stands below.
                (Some(other), _) => other.floor < own.floor,
                (None, DependencyKind::Normal) => OUTSIDE.contains(&name),
                (None, _) => OUTSIDE.contains(&name) || TESTING.contains(&name),
            };
            assert!(allowed, "{} must not import {name} ({})", package.name, dependency.kind);
        }
    }
}

#[test]
fn imports_go_downwards() {
    for Floor { package, floor: own, may } in FLOORS {
        for import in *may {
            assert!(
                floor(import).is_some_and(|f| f.floor < *own),
                "{package} on floor {own} may import {import}"
            );
        }
    }
}

/// `unsafe` has three homes: the mapping of files, instructions that safe code lacks, and the kernels of the fast path.
#[test]
fn unsafe_code_is_forbidden_but_in_its_homes() {
    for package in metadata().packages {
        for target in package.targets.iter().filter(|t| t.is_lib() || t.is_bin()) {
            let text = fs::read_to_string(&target.src_path).unwrap();
            let attribute = match package.name.as_str() {
                "etalon-format" | "etalon-instructions" | "etalon-fast" => "#![deny(unsafe_code)]",
                _ => "#![forbid(unsafe_code)]",
            };
            assert!(text.contains(attribute), "{} lacks {attribute}", target.src_path);
        }
    }
}
