//! Settings and vocabularies of two checkpoints.

use format::Metadata;
use model::{Checkpoint, Config, Place};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::vocabulary::Vocabulary;

/// Something that the two say differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What.
    pub what: String,
    /// What the first says.
    pub a: String,
    /// What the other says.
    pub b: String,
}

/// How much of a text is shown.
const SHOWN: usize = 60;

/// Sections that both formats' converters take for granted.
const SECTIONS: [u64; 3] = [11, 11, 10];

/// What of the configurations differs; numbers that GGUF keeps in f32 are compared as such.
pub(super) fn configs(a: &Checkpoint, b: &Checkpoint, without_mtp: bool, part: bool) -> Vec<Difference> {
    let [mut a, mut b] = [a, b].map(|checkpoint| fields(checkpoint, without_mtp));
    if part {
        // Told by tensors that a part may lack.
        for fields in [&mut a, &mut b] {
            fields.remove("tie_word_embeddings");
            fields.remove("mtp_num_hidden_layers");
        }
    }
    let missing = Value::Null;
    let mut names: Vec<&String> = a.keys().collect();
    names.extend(b.keys().filter(|name| !a.contains_key(*name)));
    let pair = |name: &String| (a.get(name).unwrap_or(&missing), b.get(name).unwrap_or(&missing));
    names
        .into_iter()
        .filter(|name| pair(name).0 != pair(name).1)
        .map(|name| Difference {
            what: name.clone(),
            a: short(&pair(name).0.to_string()),
            b: short(&pair(name).1.to_string()),
        })
        .collect()
}

fn fields(checkpoint: &Checkpoint, without_mtp: bool) -> Map<String, Value> {
    let mut config: Config = checkpoint.config().clone();
    config.notes.clear();
    config.rms_norm_eps = f64::from(config.rms_norm_eps as f32);
    config.rope_theta = f64::from(config.rope_theta as f32);
    // What a checkpoint declares and does not have, it does not have.
    let blocks = checkpoint.layout().slots.iter().filter_map(|slot| match slot.place {
        Place::Mtp(i) => Some(i + 1),
        _ => None,
    });
    config.mtp_num_hidden_layers = blocks.max().filter(|_| !without_mtp).unwrap_or(0);
    let mut fields = match serde_json::to_value(&config) {
        Ok(Value::Object(fields)) => fields,
        other => unreachable!("a configuration is an object: {other:?}"),
    };
    let sections = config.mrope_section.unwrap_or_else(|| SECTIONS.iter().map(|&s| s as usize).collect());
    fields.insert("mrope_section".to_owned(), sections.into_iter().take(SECTIONS.len()).collect());
    fields.remove("notes");
    fields
}

/// What of the vocabularies differs.
pub(super) fn vocabularies(a: &Checkpoint, b: &Checkpoint) -> Vec<Difference> {
    let differ =
        |what: &str, a: String, b: String| Difference { what: what.to_owned(), a: short(&a), b: short(&b) };
    let (a, b) = match rayon::join(|| vocabulary(a), || vocabulary(b)) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => {
            let said = |read: Result<Vocabulary, Error>| {
                read.err().map_or("can be read".to_owned(), |e| e.to_string())
            };
            let (a, b) = (said(a), said(b));
            return vec![Difference { what: "tokenizer".to_owned(), a, b }];
        }
    };
    let mut differences = Vec::new();
    let lengths =
        |what: &str, a: usize, b: usize| (a != b).then(|| differ(what, a.to_string(), b.to_string()));
    differences.extend(lengths("tokens", a.tokens.len(), b.tokens.len()));
    differences.extend(lengths("merges", a.merges.len(), b.merges.len()));
    let token = a.tokens.iter().zip(&b.tokens).position(|(a, b)| a != b);
    differences.extend(token.map(|id| {
        let said = |v: &Vocabulary| format!("{:?}, {:?}", v.tokens[id].text, v.tokens[id].kind);
        differ(&format!("token {id}"), said(&a), said(&b))
    }));
    let merge = a.merges.iter().zip(&b.merges).position(|(a, b)| a != b);
    differences.extend(
        merge.map(|rank| differ(&format!("merge {rank}"), a.merges[rank].clone(), b.merges[rank].clone())),
    );
    let mut compare = |what: &str, a: String, b: String| {
        if a != b {
            differences.push(differ(what, a, b));
        }
    };
    compare("splitting rule", a.pre.clone(), b.pre.clone());
    let sorted = |v: &Vocabulary| {
        let mut offices = v.offices.clone();
        offices.sort();
        format!("{offices:?}")
    };
    compare("special tokens", sorted(&a), sorted(&b));
    // Not said is not done.
    let adds = |v: &Vocabulary| {
        let mut adds: Vec<&str> =
            v.adds.iter().filter(|(_, adds)| *adds).map(|(office, _)| *office).collect();
        adds.sort();
        format!("{adds:?}")
    };
    compare("tokens put around a text", adds(&a), adds(&b));
    let templates = |v: &Vocabulary| {
        let mut templates: Vec<String> = v.chat_templates.iter().map(|t| format!("{t:?}")).collect();
        templates.sort();
        templates.concat()
    };
    if templates(&a) != templates(&b) {
        differences.push(differ("chat template", templates(&a), templates(&b)));
    }
    differences
}

fn vocabulary(checkpoint: &Checkpoint) -> Result<Vocabulary, Error> {
    let rows = checkpoint.config().vocab_size;
    match checkpoint.source().metadata() {
        Metadata::Gguf(keys) => Vocabulary::from_gguf(keys, rows),
        Metadata::Safetensors(_) => Vocabulary::from_hf_dir(checkpoint.directory(), rows),
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
