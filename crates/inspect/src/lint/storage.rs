//! What tensors are stored in: small ones that lose much by few bits, and what the file says of itself.

use codec::Encoding;
use format::TensorInfo;
use format::gguf::KeyValues;
use model::layout::Role;

use super::Findings;
use super::values::role_of;
use crate::subject::{Qwen, Subject};

/// Bits of an element, blocks' scales counted.
fn bits(encoding: Encoding) -> f64 {
    encoding.block_bytes() as f64 * 8.0 / encoding.block_len() as f64
}

/// Below this a tensor of few values that steers many is stored too coarsely.
const SENSITIVE_BITS: f64 = 8.0;
/// Below this the embedding or the head costs more quality than it saves room.
const VOCABULARY_BITS: f64 = 4.0;

pub(super) fn check_sensitive(subject: &Subject, qwen: &Qwen, findings: &mut Findings) {
    use Role::*;
    let named = |wrong: &dyn Fn(Role, &TensorInfo) -> bool| -> Vec<String> {
        let tensors = subject.source().tensors().iter();
        let wrong =
            tensors.filter(|info| role_of(&info.name, qwen.dialect).is_some_and(|role| wrong(role, info)));
        wrong.map(|info| format!("{} ({})", info.name, info.encoding)).collect()
    };
    let gates = named(&|role, info| {
        matches!(role, InProjA | InProjB | Router | SharedExpertGate) && bits(info.encoding) < SENSITIVE_BITS
    });
    if !gates.is_empty() {
        findings.warn(
            "sensitive-at-low-bits",
            &gates[0],
            format!("{} such tensors below {SENSITIVE_BITS} bits", gates.len()),
            "decay, write strength and routing come of few values each: keep these at 8 bits or more",
        );
    }
    let vectors = named(&|role, info| {
        let small = matches!(role, ALog | DtBias | Conv1d)
            || matches!(crate::Class::of_role(role), crate::Class::Norm);
        small && info.encoding.block_len() > 1
    });
    if !vectors.is_empty() {
        findings.error(
            "quantized-vector",
            &vectors[0],
            format!("{} vectors in blocks", vectors.len()),
            "readers expect F32 there: convert again",
        );
    }
    let large =
        named(&|role, info| matches!(role, EmbedTokens | LmHead) && bits(info.encoding) < VOCABULARY_BITS);
    if !large.is_empty() {
        let evidence = format!("below {VOCABULARY_BITS} bits");
        findings.note("sensitive-at-low-bits", &large[0], evidence, "4 bits or more are usual here");
    }
}

/// `general.file_type` of encodings that most weights of such a file have.
const FILE_TYPES: &[(u64, &str)] = &[
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (18, "Q6_K"),
    (30, "IQ4_XS"),
    (32, "BF16"),
];

/// Mixed recipes are left out: their name says little about shares.
pub(super) fn check_file_type(subject: &Subject, keys: &KeyValues, findings: &mut Findings) {
    const KEY: &str = "general.file_type";
    let tensors = subject.source().tensors();
    if let Some(&(id, name)) =
        keys.get_u64(KEY).ok().and_then(|id| FILE_TYPES.iter().find(|(known, _)| *known == id))
    {
        let large: Vec<&TensorInfo> = tensors.iter().filter(|info| info.shape.dims().len() > 1).collect();
        let holds = large.iter().any(|info| info.encoding.name() == name);
        // A part of a split file, or a row that no block fits, excuses nothing: not one tensor has the type.
        if !large.is_empty() && !holds {
            let found = large.iter().max_by_key(|info| info.size).map_or("", |info| info.encoding.name());
            findings.warn(
                "file-type",
                KEY,
                format!("{id} says {name}, and no matrix is in {name}; the largest is in {found}"),
                "set the number of what the file holds: tools show it as the file's type",
            );
        }
    }
    let blocks = tensors.iter().any(|info| info.encoding.block_len() > 1);
    const VERSION: &str = "general.quantization_version";
    if blocks && !keys.contains(VERSION) && keys.contains("general.architecture") {
        let advice = "set it to 2 (etalon edit --set general.quantization_version=u32:2)";
        findings.warn("quantization-version", VERSION, "missing, though the file holds blocks", advice);
    }
}
