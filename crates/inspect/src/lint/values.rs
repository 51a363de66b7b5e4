//! Small tensors whose values show how they were converted.

use format::TensorInfo;
use model::layout::{ROWS, Role};
use model::{Dialect, Step};

use super::{Findings, few};
use crate::subject::{Qwen, Subject};

/// Vectors longer than this are left alone: a lint reads little.
const MOST_VALUES: u64 = 1 << 20;
/// A gain is near 1 in a trained model. A mean in these ranges is a step of conversion forgotten or done twice;
/// between them no one can tell.
const NEAR_ZERO: f64 = 0.35;
const NEAR_TWO: std::ops::Range<f64> = 1.65..2.6;
/// The norm of Hugging Face is stored less 1: means this near 1 say it is not.
const NEAR_ONE: std::ops::Range<f64> = 0.8..1.2;

pub(super) fn check(subject: &Subject, qwen: &Qwen, findings: &mut Findings) {
    let small: Vec<(Role, &TensorInfo, Vec<f32>)> = subject
        .source()
        .tensors()
        .iter()
        .filter_map(|info| {
            let role = role_of(&info.name, qwen.dialect)?;
            let vector =
                info.shape.dims().iter().filter(|&&dim| dim > 1).count() <= 1 || role == Role::Conv1d;
            let count = info.shape.elements().filter(|&n| vector && n > 0 && n <= MOST_VALUES)?;
            let mut values = vec![0.0; usize::try_from(count).ok()?];
            info.encoding.decode(subject.source().bytes(info), &mut values).ok()?;
            Some((role, info, values))
        })
        .collect();
    for (_, info, values) in &small {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let advice = "the weights are damaged or were trained to it: no pass over them means anything";
            findings.error("not-finite", &info.name, format!("element {at} is {}", values[at]), advice);
        }
    }
    norms(&small, qwen.dialect, findings);
    decay(&small, qwen.dialect, findings);
}

type Small<'a> = (Role, &'a TensorInfo, Vec<f32>);

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len().max(1) as f64
}

/// Gains by role: the middle one of their means tells how all of them were converted.
fn norms(small: &[Small], dialect: Dialect, findings: &mut Findings) {
    for row in ROWS {
        let offset = row.hf[0].steps.contains(&Step::AddOne);
        if !offset && row.role != Role::LinearAttnNorm {
            continue;
        }
        let mine: Vec<&Small> = small.iter().filter(|(role, ..)| *role == row.role).collect();
        let mut means: Vec<f64> =
            mine.iter().map(|(_, _, values)| mean(values)).filter(|m| m.is_finite()).collect();
        if means.is_empty() {
            continue;
        }
        means.sort_by(f64::total_cmp);
        let middle = means[means.len() / 2];
        let names: Vec<String> = mine.iter().map(|(_, info, _)| info.name.clone()).collect();
        let evidence = format!("mean {middle:.3} of {}", few(&names));
        let zero = middle.abs() < NEAR_ZERO;
        match (dialect, offset) {
            (Dialect::Gguf, true) if zero => findings.error(
                "norm-offset",
                &names[0],
                evidence,
                "GGUF holds 1 + w of these norms: the converter did not add 1",
            ),
            (Dialect::Gguf, true) if NEAR_TWO.contains(&middle) => findings.warn(
                "norm-offset",
                &names[0],
                evidence,
                "1 may have been added twice: sources in MLX layout already hold 1 + w",
            ),
            (Dialect::Hf { .. }, true) if NEAR_ONE.contains(&middle) => findings.warn(
                "norm-offset",
                &names[0],
                evidence,
                "Hugging Face holds these norms less 1: MLX checkpoints, which hold 1 + w, must be converted first",
            ),
            (_, false) if zero => findings.warn(
                "gated-norm",
                &names[0],
                evidence,
                "the gated norm of DeltaNet is applied as it is stored and lies near 1 in trained models",
            ),
            (_, false) if NEAR_TWO.contains(&middle) => findings.warn(
                "gated-norm",
                &names[0],
                evidence,
                "1 was likely added to the gated norm of DeltaNet, which alone of all norms is stored as it is applied",
            ),
            _ => {}
        }
    }
}

/// GGUF holds −exp(A_log), which is below zero.
fn decay(small: &[Small], dialect: Dialect, findings: &mut Findings) {
    let mine = || small.iter().filter(|(role, ..)| *role == Role::ALog);
    let wrong = |bad: fn(f32) -> bool| -> Vec<String> {
        mine()
            .filter(|(_, _, values)| values.iter().any(|&v| bad(v)))
            .map(|(_, info, _)| info.name.clone())
            .collect()
    };
    match dialect {
        Dialect::Gguf => {
            let names = wrong(|v| v >= 0.0);
            if let Some(first) = names.first() {
                findings.error(
                    "decay-sign",
                    first,
                    format!("values at or above zero in {}", few(&names)),
                    "GGUF holds −exp(A_log): the converter left A_log as it was",
                );
            }
        }
        // A decay rate of e⁻²⁰ or e²⁰ is none; −exp(A_log) of usual rates, all below zero, is told by its size.
        Dialect::Hf { .. } => {
            let names = wrong(|v| v.abs() > 20.0);
            if let Some(first) = names.first() {
                findings.warn(
                    "decay-sign",
                    first,
                    format!("values beyond ±20 in {}", few(&names)),
                    "A_log is a logarithm: −exp(A_log) may have been stored in its place",
                );
            }
        }
    }
}

/// The role that a name has in this kind of file, whatever else the file holds.
pub(super) fn role_of(name: &str, dialect: Dialect) -> Option<Role> {
    let behind_number = |rest: &'_ str| rest.split_once('.').map(|(_, own)| own.to_owned());
    let find = |own: &str, global: bool| {
        ROWS.iter()
            .find(|row| {
                let in_place = (row.scope == model::layout::Scope::Global) == global;
                in_place
                    && match dialect {
                        Dialect::Gguf => row.gguf.name == own,
                        Dialect::Hf { .. } => row.hf.iter().any(|stored| stored.name == own),
                    }
            })
            .map(|row| row.role)
    };
    match dialect {
        Dialect::Gguf => match name.strip_prefix("blk.") {
            Some(rest) => find(&behind_number(rest)?, false),
            None => find(name, true),
        },
        Dialect::Hf { prefix } => {
            if let Some(rest) = name.strip_prefix("mtp.") {
                return match rest.strip_prefix("layers.") {
                    Some(rest) => find(&behind_number(rest)?, false),
                    None => find(rest, false),
                };
            }
            let own = name.strip_prefix(prefix).unwrap_or(name);
            match own.strip_prefix("layers.") {
                Some(rest) => find(&behind_number(rest)?, false),
                None => find(own, true),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_roles_without_a_whole_model() {
        let hf = Dialect::Hf { prefix: "model." };
        for (name, dialect, role) in [
            ("blk.3.ssm_a", Dialect::Gguf, Some(Role::ALog)),
            ("output_norm.weight", Dialect::Gguf, Some(Role::FinalNorm)),
            ("blk.3.output_norm.weight", Dialect::Gguf, None),
            ("model.norm.weight", hf, Some(Role::FinalNorm)),
            ("model.layers.0.linear_attn.norm.weight", hf, Some(Role::LinearAttnNorm)),
            ("lm_head.weight", hf, Some(Role::LmHead)),
            ("mtp.norm.weight", hf, Some(Role::MtpNorm)),
            ("mtp.layers.0.self_attn.q_norm.weight", hf, Some(Role::QNorm)),
            ("nothing", hf, None),
        ] {
            assert_eq!(role_of(name, dialect), role, "{name}");
        }
    }
}
