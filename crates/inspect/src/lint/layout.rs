//! Configuration and layout map: what is missing, misshapen, unknown, and how other tools say the same.

use model::{ConfigError, Problem};

use super::{Findings, few};
use crate::subject::{Qwen, Subject};

pub(super) fn check(subject: &Subject, qwen: &Qwen, findings: &mut Findings) {
    let path = subject.path().display().to_string();
    match &qwen.config {
        Err(error) => {
            let advice = match error {
                ConfigError::Missing { .. } => "convert again with a converter that writes this key",
                ConfigError::Contradiction { .. } => {
                    "find out which of the two is right and correct the other"
                }
                _ => "correct the setting, or use a checkpoint that this tool supports",
            };
            findings.error("configuration", path, error.to_string(), advice);
        }
        Ok(config) => {
            let advice =
                "readers that know only one of the two settings build other layers: correct the other";
            config.notes.iter().for_each(|note| findings.warn("layer-pattern", &path, note, advice));
        }
    }
    for problem in qwen.layout.iter().filter_map(|layout| layout.as_ref().err()).flatten() {
        let text = problem.to_string();
        let evidence = text.split_once("  ").map_or(text.as_str(), |(_, rest)| rest.trim_start());
        let (rule, advice) = match problem {
            Problem::Missing { .. } => (
                "missing-tensor",
                "no reader can run the model without it: convert again from the whole checkpoint",
            ),
            Problem::Misshapen { .. } => (
                "misshapen-tensor",
                "tensor and configuration belong to different models, or an axis was moved",
            ),
            Problem::Unknown { .. } => (
                "unknown-tensor",
                "no row of the layout map has this name (docs/layout.md): rename or drop it",
            ),
            Problem::Packed { .. } => {
                ("packed-tensor", "dequantize the checkpoint with the tool that packed it")
            }
            Problem::Encoding { .. } => ("not-a-weight", "convert the tensor to a floating-point type"),
            Problem::LayerType { .. } => (
                "layer-pattern",
                "correct layer_types or attention.recurrent_layers: never assume every 4th layer",
            ),
            Problem::Ambiguous { .. } => ("ambiguous-tensor", "drop one of the two forms"),
        };
        findings.error(rule, name(problem), evidence, advice);
    }
    prediction_block(subject, qwen, findings);
}

fn name(problem: &Problem) -> String {
    match problem {
        Problem::Missing { name, .. }
        | Problem::Misshapen { name, .. }
        | Problem::Unknown { name, .. }
        | Problem::Packed { name, .. }
        | Problem::Encoding { name, .. }
        | Problem::Ambiguous { name, .. } => name.clone(),
        Problem::LayerType { layer, .. } => format!("layer {layer}"),
    }
}

/// Multi-token prediction counted wrong: llama.cpp says "missing tensor blk.N.ssm_conv1d.weight" of such files.
fn prediction_block(subject: &Subject, qwen: &Qwen, findings: &mut Findings) {
    let Ok(config) = &qwen.config else { return };
    let tensors = subject.source().tensors();
    let blocks: Vec<String> = tensors
        .iter()
        .filter(|info| info.name.contains(".nextn.") || info.name.starts_with("mtp."))
        .map(|info| info.name.clone())
        .collect();
    match (blocks.is_empty(), config.mtp_num_hidden_layers) {
        (false, 0) => findings.error(
            "mtp-not-counted",
            &blocks[0],
            format!("{} without a count of such blocks in the configuration", few(&blocks)),
            "set nextn_predict_layers (GGUF: and count the block in block_count) or mtp_num_hidden_layers; otherwise \
             readers take the block for a layer",
        ),
        (true, declared @ 1..) => findings.note(
            "mtp-dropped",
            subject.path().display().to_string(),
            format!("{declared} blocks of multi-token prediction are declared and no tensor of one is there"),
            "the main model is whole; set the count to 0, or convert with the block",
        ),
        _ => {}
    }
}
