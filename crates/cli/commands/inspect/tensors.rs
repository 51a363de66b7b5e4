//! The list of tensors.

use std::io::{self, Write};
use std::path::PathBuf;

use inspect::{Selection, Status, Subject, TensorRow};
use serde::Serialize;

use super::{Each, rows, shape};
use crate::commands::Outcome;
use crate::listing::{Form, entries};
use crate::render::{Column, Style};

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
    Outcome::streamed(Each(listed), false, move |each: &Each<Listed>, style, out| {
        each.write(|listed| &listed.path, style, out, |listed, out| write(listed, form, style, out))
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
        Some(Status::Scale) => "scales of an FP8 tensor".to_owned(),
        Some(Status::Run) | None => roles,
    }
}

fn write(listed: &Listed, form: Form, style: &Style, out: &mut dyn Write) -> io::Result<()> {
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
    let entries = |row: &'_ TensorRow| {
        let ne = row.ne.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let mut entries = entries![
            row.name.clone(),
            row.encoding,
            shape(&row.shape),
            format!("{{{ne}}}"),
            row.bytes,
            row.offset
        ];
        if split {
            let file = listed.files.get(row.file).and_then(|file| file.file_name());
            entries.extend(entries![file.map_or(String::new(), |name| name.to_string_lossy().into_owned())]);
        }
        if mapped {
            entries.extend(entries![purpose(row), row.steps.clone(), row.there.join(" | ")]);
        }
        entries
    };
    form.write(&columns, || listed.tensors.iter().map(entries), style, out)
}
