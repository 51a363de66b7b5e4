//! Contradictions and traps that a file alone shows: each with its evidence and what to do.

mod keys;
mod layout;
mod storage;
mod values;
mod vocabulary;

use crate::subject::Subject;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The model is broken, or no reader of its kind will take it.
    Error,
    /// It is likely not what its maker meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One thing that is wrong, or looks so.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The rule that found it: a name to search for.
    pub rule: &'static str,
    /// The tensor, key or file.
    pub subject: String,
    /// What was found.
    pub evidence: String,
    /// What to do about it.
    pub advice: String,
}

/// Gathers findings.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        rule: &'static str,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        advice: &str,
    ) {
        let (subject, evidence, advice) = (subject.into(), evidence.into(), advice.to_owned());
        self.0.push(Finding { severity, rule, subject, evidence, advice });
    }

    fn error(
        &mut self,
        rule: &'static str,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        advice: &str,
    ) {
        self.add(Severity::Error, rule, subject, evidence, advice);
    }

    fn warn(
        &mut self,
        rule: &'static str,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        advice: &str,
    ) {
        self.add(Severity::Warning, rule, subject, evidence, advice);
    }

    fn note(
        &mut self,
        rule: &'static str,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        advice: &str,
    ) {
        self.add(Severity::Note, rule, subject, evidence, advice);
    }
}

/// All findings, errors first. Reads keys, descriptions and small tensors.
///
/// Vocabulary and storage are looked at in any GGUF file, the rest in Qwen3.5 models.
pub fn lint(subject: &Subject) -> Vec<Finding> {
    let mut findings = Findings::default();
    if let Some(qwen) = subject.qwen() {
        layout::check(subject, qwen, &mut findings);
        values::check(subject, qwen, &mut findings);
        storage::check_sensitive(subject, qwen, &mut findings);
    }
    if let Some(keys) = subject.keys() {
        vocabulary::check(subject, keys, &mut findings);
        storage::check_file_type(subject, keys, &mut findings);
        if subject.qwen().is_some() {
            keys::check(subject, keys, &mut findings);
        }
    }
    findings.0.sort_by_key(|finding| finding.severity);
    findings.0
}

/// A sentence's list: the first few of many.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let rest = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}
