//! Contradictions and traps that a file alone shows: each with its evidence and what to do.

mod keys;
mod layout;
mod storage;
mod values;
mod vocabulary;

use std::collections::BTreeMap;

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

/// Findings of one rule that are told one by one; a file can have the same fault in every tensor, or in a million keys.
const TOLD: usize = 1000;

/// Gathers findings.
#[derive(Default)]
struct Findings {
    told: Vec<Finding>,
    /// How many there are of each rule, and how bad the worst.
    counts: BTreeMap<&'static str, (usize, Severity)>,
}

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        rule: &'static str,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        advice: &str,
    ) {
        let (count, worst) = self.counts.entry(rule).or_insert((0, severity));
        (*count, *worst) = (*count + 1, severity.min(*worst));
        if *count <= TOLD {
            let (subject, evidence, advice) = (subject.into(), evidence.into(), advice.to_owned());
            self.told.push(Finding { severity, rule, subject, evidence, advice });
        }
    }

    /// All that was told, and of what was not, how many; errors first.
    fn finish(mut self, subject: &Subject) -> Vec<Finding> {
        for (rule, (count, severity)) in self.counts {
            if count > TOLD {
                self.told.push(Finding {
                    severity,
                    rule,
                    subject: subject.path().display().to_string(),
                    evidence: format!("{} more findings of this rule", count - TOLD),
                    advice: "mend those that are named and look again".to_owned(),
                });
            }
        }
        self.told.sort_by_key(|finding| finding.severity);
        self.told
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
    findings.finish(subject)
}

/// A sentence's list: the first few of many.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let rest = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}
