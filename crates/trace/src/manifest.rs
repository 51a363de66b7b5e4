//! What a trace says about itself: `manifest.json`.

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::Place;

/// The manifest of a trace. Unknown fields are ignored on reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form: [`Manifest::VERSION`].
    pub version: u32,
    /// The token ids the pass ran on.
    #[serde(default)]
    pub tokens: Option<Vec<i64>>,
    /// The model the pass ran.
    #[serde(default)]
    pub model: Option<ModelId>,
    /// The program that made the trace.
    #[serde(default)]
    pub producer: Option<Producer>,
    /// Version of the arithmetic's contract, where the producer states one.
    #[serde(default)]
    pub contract: Option<String>,
    /// The points in execution order.
    #[serde(default)]
    pub points: Vec<ManifestPoint>,
}

/// The model a trace was made with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelId {
    /// Path as the producer was given it.
    pub path: String,
    /// SHA-256 of the weights, in hexadecimal, if it was computed.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// The program that made a trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Producer {
    /// Name of the program or library.
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// The precision it computed in: `f64`, `f32`, `bf16` or `f16` (PyTorch's names are understood as well).
    #[serde(default)]
    pub precision: Option<String>,
    /// Whatever else it says.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// A point as the manifest lists it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ManifestPoint {
    /// The point's name.
    pub name: String,
    /// The file or member that holds it.
    pub file: String,
    /// Lengths of its axes, outermost first.
    pub shape: Vec<usize>,
    /// Element type: `f32`, `f64`, `i64`, …
    pub dtype: String,
}

impl Manifest {
    /// The version this crate writes and the only one it reads.
    pub const VERSION: u32 = 1;

    /// The file or archive member that holds the manifest.
    pub const FILE: &str = "manifest.json";

    /// The key of the safetensors header's metadata that holds the manifest.
    pub const SAFETENSORS_KEY: &str = "etalon.manifest";

    /// A manifest lists a few thousand points and perhaps a million tokens; far more is not one.
    pub const MAX_BYTES: u64 = 64 << 20;

    /// Reads the JSON in `bytes`. `label` names them in errors.
    pub fn parse(label: &str, bytes: &[u8]) -> Result<Manifest, Error> {
        Manifest::read(&mut &bytes[..], &Place::file(label))
    }

    pub(crate) fn read(input: &mut dyn Read, place: &Place) -> Result<Manifest, Error> {
        let mut bytes = Vec::new();
        let read = input.take(Manifest::MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|e| place.malformed(format!("cannot be read: {e}")))?;
        if bytes.len() as u64 > Manifest::MAX_BYTES {
            return Err(place.malformed(format!("is over {} bytes long", Manifest::MAX_BYTES)));
        }
        // The version is judged first: another version may lack what this one needs.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let fault = |e: serde_json::Error| place.malformed(format!("is not a trace manifest: {e}"));
        let Version { version } = serde_json::from_slice(&bytes).map_err(fault)?;
        if version != Manifest::VERSION {
            return Err(place.unsupported(format!(
                "manifest version {version}; this program reads version {}",
                Manifest::VERSION
            )));
        }
        serde_json::from_slice(&bytes).map_err(fault)
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings, numbers and lists serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_keeps_what_its_producer_adds() {
        let text = r#"{"version": 1, "tokens": [3, -1], "later": 0,
            "model": {"path": "m"}, "producer": {"name": "hooks", "precision": "bf16", "torch": "2.15"},
            "points": [{"name": "lm_head", "file": "lm_head.npy", "shape": [2, 5], "dtype": "f32"}]}"#;
        let manifest = Manifest::parse("manifest.json", text.as_bytes()).unwrap();
        assert_eq!(manifest.tokens, Some(vec![3, -1]));
        assert_eq!(manifest.producer.as_ref().unwrap().more["torch"], "2.15");
        assert_eq!(manifest.points[0].shape, [2, 5]);
        let again = Manifest::parse("manifest.json", manifest.to_json().as_bytes()).unwrap();
        assert_eq!(again, manifest);
    }

    #[test]
    fn faults_are_named() {
        let read = |text: &str| Manifest::parse("m.json", text.as_bytes()).unwrap_err().to_string();
        assert!(read(r#"{"version": 2, "points": 7}"#).contains("manifest version 2"));
        assert!(read(r#"{"tokens": []}"#).contains("`version`"));
        assert!(read(r#"{"version": 1, "points": [{"name": "x"}]}"#).contains("`file`"));
        assert!(read("").starts_with("m.json: is not a trace manifest"));
        let deep = ["[".repeat(100_000), "]".repeat(100_000)].concat();
        let deep = format!(r#"{{"version": 1, "producer": {{"name": "x", "y": {deep}}}}}"#);
        assert!(read(&deep).contains("recursion"));
    }
}
