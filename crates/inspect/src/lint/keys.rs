//! Keys of a Qwen3.5 GGUF file that other readers need, and the signs of converters that write other ones.

use format::gguf::{KeyValues, Value};

use super::{Findings, few};
use crate::subject::Subject;

/// Entries that llama.cpp reads of `rope.dimension_sections`.
const SECTIONS: usize = 4;
/// Of an array that is longer, the first entries are looked at.
const SHOWN: usize = 16;

pub(super) fn check(subject: &Subject, keys: &KeyValues, findings: &mut Findings) {
    let Ok(architecture) = keys.get_str("general.architecture") else { return };
    sections(keys, architecture, findings);
    other_makers(subject, keys, architecture, findings);
    let key = format!("{architecture}.attention.recurrent_layers");
    if !keys.contains(&key) {
        findings.note(
            "layer-pattern",
            key,
            "only full_attention_interval says which layers are attention",
            "newer converters write the array, which holds for any pattern",
        );
    }
}

fn sections(keys: &KeyValues, architecture: &str, findings: &mut Findings) {
    let key = format!("{architecture}.rope.dimension_sections");
    let rotated = keys.get_u64(&format!("{architecture}.rope.dimension_count")).ok();
    let Some(value) = keys.get(&key) else {
        let advice =
            "llama.cpp refuses the file: set it, to [11,11,10,0] for released models (etalon edit --set)";
        return findings.error("rope-sections", key, "the key is missing", advice);
    };
    let array = value.as_array();
    let count = array.map_or(0, |a| a.len());
    let entries: Option<Vec<u64>> =
        array.and_then(|a| a.elements().take(SHOWN).map(|v| v.ok().and_then(|v| v.as_u64())).collect());
    let Some(entries) = entries else {
        return findings.error(
            "rope-sections",
            key,
            "not an array of whole numbers",
            "write an array of four integers",
        );
    };
    if count != SECTIONS as u64 {
        findings.error(
            "rope-sections",
            &key,
            format!("{count} entries, llama.cpp expects {SECTIONS}"),
            "append zeros (etalon edit --set); Ollama's exports have three entries",
        );
    }
    let sum = entries.iter().fold(0u64, |sum, &n| sum.saturating_add(n));
    if rotated.is_some_and(|n| sum != n / 2) {
        let rotated = rotated.unwrap_or_default();
        findings.error(
            "rope-sections",
            key,
            format!(
                "{entries:?} sum to {sum}, expected half of rope.dimension_count {rotated}, {}",
                rotated / 2
            ),
            "text is not affected, images are: copy mrope_section of config.json",
        );
    }
}

/// What Ollama's own converter writes and llama.cpp's loader does not read.
fn other_makers(subject: &Subject, keys: &KeyValues, architecture: &str, findings: &mut Findings) {
    let named = |wrong: &dyn Fn(&str) -> bool| -> Vec<String> {
        let tensors = subject.source().tensors().iter().filter(|info| wrong(&info.name));
        tensors.map(|info| info.name.clone()).collect()
    };
    let bare: Vec<String> = named(&|name| name.starts_with("blk.") && name.ends_with(".ssm_dt"));
    if !bare.is_empty() {
        findings.error(
            "ollama-names",
            &bare[0],
            format!("{} without the suffix .bias", few(&bare)),
            "rename each to blk.N.ssm_dt.bias (etalon edit --rename-tensor), or convert with llama.cpp's converter",
        );
    }
    let fused = named(&|name| name.ends_with(".ssm_in.weight") || name.ends_with(".ssm_ba.weight"));
    if !fused.is_empty() {
        findings.error(
            "ollama-names",
            &fused[0],
            format!("{}: projections fused as in Qwen3-Next", few(&fused)),
            "llama.cpp's qwen35 reads attn_qkv, attn_gate, ssm_beta and ssm_alpha: convert again",
        );
    }
    let vision = named(&|name| name.starts_with("v.") || name.starts_with("mm."));
    if !vision.is_empty() {
        findings.error(
            "bundled-vision",
            &vision[0],
            format!("{}: the vision tower is in the file of the text model", few(&vision)),
            "llama.cpp keeps it in a file of its own (mmproj) and refuses tensors that it does not know",
        );
    }
    let mtp = named(&|name| name.starts_with("mtp."));
    if !mtp.is_empty() {
        findings.error(
            "ollama-names",
            &mtp[0],
            format!("{}: multi-token prediction under Hugging Face's names", few(&mtp)),
            "GGUF has it as blk.N.nextn.*: convert again",
        );
    }
    let heads = format!("{architecture}.attention.head_count_kv");
    if matches!(keys.get(&heads), Some(Value::Array(_))) {
        findings.warn(
            "per-layer-heads",
            heads,
            "an array, one entry a layer",
            "readers of this architecture expect one number: set it to the number of the attention layers",
        );
    }
}
