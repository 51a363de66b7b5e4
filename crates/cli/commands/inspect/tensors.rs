//! The list of tensors.

use std::path::PathBuf;

use inspect::{Selection, Status, Subject, TensorRow};
use serde::Serialize;

use super::{Each, Form, rows, shape};
use crate::commands::Outcome;
use crate::render::{Column, Style, Table};

#[derive(Serialize)]
struct Listed {
    path: PathBuf,
    files: Vec<PathBuf>,
    tensors: Vec<TensorRow>,
}

pub(super) fn run(subjects: &[Subject], selection: &Selection, form: Form) -> Outcome {
    let list = |subject: &Subject| Listed {
        path: subject.path().to_owned(),
        files: subject.source().files().to_vec(),
        tensors: rows(subject, selection),
    };
    let listed: Vec<Listed> = subjects.iter().map(list).collect();
    Outcome::new(Each(listed), false, move |each: &Each<Listed>, style| {
        each.text(|listed| &listed.path, style, |listed| text(listed, form, style))
    })
}

/// What it is for, and where it is known and not run.
pub(super) fn purpose(row: &TensorRow) -> String {
    let roles = row.roles.iter().map(|role| match serde_json::to_value(role) {
        Ok(serde_json::Value::String(name)) => name,
        other => unreachable!("a role is written as a name, not {other:?}"),
    });
    let roles = roles.collect::<Vec<_>>().join(" | ");
    match row.status {
        Some(Status::Mtp) => format!("{roles} (multi-token prediction, not run)"),
        Some(Status::Vision) => "vision, not run".to_owned(),
        Some(Status::TiedHead) => "not used: the embedding is the head".to_owned(),
        Some(Status::Run) | None => roles,
    }
}

fn text(listed: &Listed, form: Form, style: &Style) -> Vec<String> {
    let mapped = listed.tensors.iter().any(|row| row.status.is_some());
    let split = listed.files.len() > 1;
    let mut columns = vec![
        Column::Left("name"),
        Column::Left("encoding"),
        Column::Left("shape"),
        Column::Left("ne"),
        Column::Right("bytes"),
        Column::Right("offset"),
    ];
    if split {
        columns.push(Column::Left("file"));
    }
    if mapped {
        columns.extend([
            Column::Left("role"),
            Column::Left("to canonical form"),
            Column::Left("in the other format"),
        ]);
    }
    let mut table = Table::of(columns);
    for row in &listed.tensors {
        let ne = row.ne.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let mut entries = vec![
            row.name.clone(),
            row.encoding.to_owned(),
            shape(&row.shape),
            format!("{{{ne}}}"),
            row.bytes.to_string(),
            row.offset.to_string(),
        ];
        if split {
            let file = listed.files.get(row.file).and_then(|file| file.file_name());
            entries.push(file.map_or(String::new(), |name| name.to_string_lossy().into_owned()));
        }
        if mapped {
            entries.extend([purpose(row), row.steps.clone(), row.there.join(" | ")]);
        }
        table.push(entries);
    }
    form.lines(&table, style)
}
