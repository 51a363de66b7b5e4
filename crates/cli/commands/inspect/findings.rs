//! What the lint found.

use std::path::PathBuf;

use inspect::{Finding, Severity, Subject};
use serde::Serialize;

use super::{Each, write_lines};
use crate::commands::Outcome;
use crate::listing::Form;
use crate::render::{Column, Style, Table};

#[derive(Serialize)]
struct Linted {
    path: PathBuf,
    passed: bool,
    findings: Vec<Finding>,
}

pub(super) fn run(subjects: &[Subject], form: Form) -> Outcome {
    let linted: Vec<Linted> = subjects
        .iter()
        .map(|subject| {
            let findings = inspect::lint(subject);
            let passed = findings.iter().all(|finding| finding.severity != Severity::Error);
            Linted { path: subject.path().to_owned(), passed, findings }
        })
        .collect();
    let failed = linted.iter().any(|linted| !linted.passed);
    Outcome::streamed(Each(linted), failed, move |each: &Each<Linted>, style, out| {
        each.write(
            |linted| &linted.path,
            style,
            out,
            |linted, out| match form {
                Form::Text => write_lines(&text(linted, style), out),
                _ => table(&linted.findings).write(form, style, out),
            },
        )
    })
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new(&[
        Column::Left("severity"),
        Column::Left("rule"),
        Column::Left("subject"),
        Column::Left("evidence"),
        Column::Left("advice"),
    ]);
    for Finding { severity, rule, subject, evidence, advice } in findings {
        let rule = (*rule).to_owned();
        table.row([severity.name().to_owned(), rule, subject.clone(), evidence.clone(), advice.clone()]);
    }
    table
}

fn text(linted: &Linted, style: &Style) -> Vec<String> {
    let mut lines = lines(&linted.findings, style);
    let errors = linted.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    lines.push(match (linted.passed, linted.findings.len()) {
        (false, _) => {
            format!("{}  {errors} errors among {} findings", style.red("FAIL"), linted.findings.len())
        }
        (true, 0) => format!("{}  nothing found", style.green("PASS")),
        (true, n) => format!("{}  no errors among {n} findings", style.green("PASS")),
    });
    lines
}

/// Each finding in two or three lines.
pub(super) fn lines(findings: &[Finding], style: &Style) -> Vec<String> {
    let mut lines = Vec::new();
    for Finding { severity, rule, subject, evidence, advice } in findings {
        let label = format!("{:<7}", severity.name());
        let label = match severity {
            Severity::Error => style.red(&label),
            Severity::Warning => style.bold(&label),
            Severity::Note => style.dim(&label),
        };
        lines.push(format!("{label}  {subject}: {evidence}  {}", style.dim(&format!("[{rule}]"))));
        lines.push(format!("         {advice}"));
    }
    lines
}
