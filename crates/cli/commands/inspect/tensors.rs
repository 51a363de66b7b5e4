//! The list of tensors.

use std::io::{self, Write};

use inspect::{Status, TensorRow};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Each, Selected, Sequence, shape};
use crate::commands::Outcome;
use crate::listing::{Form, entries};
use crate::render::{Column, Style};

struct Listed(Selected);

impl Serialize for Listed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Listed(selected) = self;
        let mut listed = serializer.serialize_struct("Listed", 3)?;
        listed.serialize_field("path", selected.subject.path())?;
        listed.serialize_field("files", selected.subject.source().files())?;
        listed.serialize_field("tensors", &Sequence(|| selected.rows()))?;
        listed.end()
    }
}

pub(super) fn run(selected: Vec<Selected>, form: Form) -> Outcome {
    let listed = Each(selected.into_iter().map(Listed).collect());
    Outcome::streamed(listed, false, move |each: &Each<Listed>, style, out| {
        each.write(
            |listed| listed.0.subject.path(),
            style,
            out,
            |Listed(selected), out| write(selected, form, style, out),
        )
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

fn write(selected: &Selected, form: Form, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mapped = selected.rows().any(|row| row.status.is_some());
    let files = selected.subject.source().files();
    let split = files.len() > 1;
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
    let entries = |row: TensorRow| {
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
            let file = files.get(row.file).and_then(|file| file.file_name());
            entries.extend(entries![file.map_or(String::new(), |name| name.to_string_lossy().into_owned())]);
        }
        if mapped {
            entries.extend(entries![purpose(&row), row.steps, row.there.join(" | ")]);
        }
        entries
    };
    form.write(&columns, || selected.rows().map(entries), style, out)
}
