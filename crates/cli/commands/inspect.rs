//! `etalon inspect`.

use std::path::{Path, PathBuf};

use format::{Shape, TensorInfo};
use model::layout::Role;
use model::{Checkpoint, Config, Dialect, LayerPlan, LayerType, Place, Slot, Step, Use};
use serde::Serialize;
use serde_json::Value;

use crate::commands::Outcome;
use crate::render::{Column, Style, Table};

/// Show configuration, layers and tensors of a checkpoint, and what each tensor is in the other format.
///
/// Whatever is missing, misshapen or unknown is listed, all at once, and the exit status is 2.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon inspect Qwen3.5-0.8B
  etalon inspect model.gguf | grep ssm_
  etalon inspect model.gguf --json | jq '.config.layer_types'")]
pub struct Args {
    /// A directory with config.json and safetensors, or a GGUF file (any part of a split one).
    model: PathBuf,
}

#[derive(Serialize)]
struct Inspection {
    path: PathBuf,
    files: Vec<PathBuf>,
    dialect: Dialect,
    config: Config,
    layers: Vec<LayerPlan>,
    entries: Vec<Entry>,
    notes: Vec<String>,
}

/// A row of the layout map at one place, or tensors that are known and not run.
#[derive(Serialize)]
struct Entry {
    status: Status,
    place: Option<Place>,
    roles: Vec<Role>,
    /// From the file to canonical form; `|` separates the roles of one tensor.
    steps: String,
    /// Names in the other dialect.
    maps_to: Vec<String>,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Run,
    /// Multi-token prediction: known, not run.
    Mtp,
    /// Vision tower: known, not run.
    Vision,
    /// A head beside tied embeddings: the embedding is used in its place.
    TiedHead,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    encoding: &'static str,
    /// Outermost first.
    shape: Vec<u64>,
    /// Innermost first.
    ne: Vec<u64>,
    bytes: u64,
    file: usize,
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let checkpoint = Checkpoint::open(&self.model, &format::Limits::default())?;
        Ok(Outcome::fine(Inspection::of(&checkpoint), text))
    }
}

impl Inspection {
    fn of(checkpoint: &Checkpoint) -> Inspection {
        let (layout, config) = (checkpoint.layout(), checkpoint.config());
        let infos = checkpoint.source().tensors();
        let tensors = |indices: &[usize]| indices.iter().map(|&i| Tensor::of(&infos[i])).collect();
        let mut entries: Vec<Entry> = Vec::new();
        let mut before: &[usize] = &[];
        for slot in &layout.slots {
            let (steps, name) = (steps(slot.stored.steps), other_name(slot, layout.dialect, config));
            match entries.last_mut() {
                // One packed tensor in two roles.
                Some(entry) if before == slot.tensors => {
                    entry.roles.push(slot.spec.role);
                    entry.steps += &format!(" | {steps}");
                    entry.maps_to.push(name);
                }
                _ => entries.push(Entry {
                    status: if matches!(slot.place, Place::Mtp(_)) { Status::Mtp } else { Status::Run },
                    place: Some(slot.place),
                    roles: vec![slot.spec.role],
                    steps,
                    maps_to: vec![name],
                    tensors: tensors(&slot.tensors),
                }),
            }
            before = &slot.tensors;
        }
        for (i, used) in layout.uses.iter().enumerate() {
            let status = match used {
                Use::Slots(_) | Use::Scale => continue,
                Use::Vision => Status::Vision,
                Use::TiedHead => Status::TiedHead,
            };
            let tensors = tensors(&[i]);
            let (roles, maps_to, steps) = (Vec::new(), Vec::new(), String::new());
            entries.push(Entry { status, place: None, roles, steps, maps_to, tensors });
        }
        Inspection {
            path: checkpoint.path().to_owned(),
            files: checkpoint.source().files().to_vec(),
            dialect: layout.dialect,
            config: config.clone(),
            layers: model::plan(config),
            entries,
            notes: config.notes.clone(),
        }
    }
}

impl Tensor {
    fn of(info: &TensorInfo) -> Tensor {
        Tensor {
            name: info.name.clone(),
            encoding: info.encoding.name(),
            shape: info.shape.dims().to_vec(),
            ne: info.shape.to_ne().as_slice().to_vec(),
            bytes: info.size,
            file: info.file,
        }
    }
}

fn steps(steps: &[Step]) -> String {
    steps.iter().map(Step::to_string).collect::<Vec<_>>().join(", ")
}

fn other_name(slot: &Slot, dialect: Dialect, config: &Config) -> String {
    let (other, form) = match dialect {
        Dialect::Hf { .. } => (Dialect::Gguf, &slot.spec.gguf),
        Dialect::Gguf => (Dialect::Hf { prefix: "model." }, &slot.spec.hf[0]),
    };
    other.name(slot.spec, form, slot.place, config.num_hidden_layers, None)
}

fn text(inspection: &Inspection, style: &Style) -> String {
    let mut lines = vec![style.bold(&inspection.path.display().to_string())];
    for file in &inspection.files {
        lines.push(format!("  {}", file.file_name().map(Path::new).unwrap_or(file).display()));
    }
    let (here, there) = match inspection.dialect {
        Dialect::Hf { prefix } => (format!("Hugging Face, names begin with {prefix}"), "in GGUF"),
        Dialect::Gguf => ("GGUF".to_owned(), "in a Hugging Face checkpoint"),
    };
    lines.extend([format!("format  {here}"), String::new(), style.bold("configuration")]);
    lines.extend(settings(&inspection.config));
    let letters: String = inspection.layers.iter().map(|layer| letter(layer.mixer)).collect();
    lines.push(String::new());
    lines.push(style.bold(&format!("{} layers: D DeltaNet, A attention", inspection.layers.len())));
    lines.extend(letters.as_bytes().chunks(80).map(|line| format!("  {}", String::from_utf8_lossy(line))));
    for (status, heading) in [
        (Status::Run, "tensors"),
        (Status::TiedHead, "known and not used: embeddings are tied, so the embedding is the head"),
        (Status::Mtp, "known and not run: multi-token prediction"),
        (Status::Vision, "known and not run: vision"),
    ] {
        let entries: Vec<&Entry> = inspection.entries.iter().filter(|e| e.status == status).collect();
        if entries.is_empty() {
            continue;
        }
        let (count, bytes) = entries
            .iter()
            .flat_map(|e| &e.tensors)
            .fold((0, 0), |(count, bytes), tensor| (count + 1, bytes + tensor.bytes));
        lines.extend([String::new(), style.bold(&format!("{heading}: {count} in {bytes} bytes"))]);
        let mut table = Table::new(&[
            Column::Left("name"),
            Column::Left("encoding"),
            Column::Left("shape"),
            Column::Left("ne"),
            Column::Left("role"),
            Column::Left("to canonical form"),
            Column::Left("there"),
        ]);
        entries.iter().for_each(|entry| table.row(row(entry)));
        let mut rows = table.lines().into_iter().map(|line| format!("  {line}"));
        lines.extend(rows.next().map(|heading| style.dim(&heading.replace("there", there))));
        lines.extend(rows);
    }
    if !inspection.notes.is_empty() {
        lines.extend([String::new(), style.bold("notes")]);
        lines.extend(inspection.notes.iter().map(|note| format!("  {note}")));
    }
    lines.join("\n") + "\n"
}

fn letter(mixer: LayerType) -> char {
    match mixer {
        LayerType::LinearAttention => 'D',
        LayerType::FullAttention => 'A',
    }
}

/// Every setting but those that are shown otherwise.
fn settings(config: &Config) -> Vec<String> {
    let Ok(Value::Object(fields)) = serde_json::to_value(config) else { return Vec::new() };
    let mut table = Table::new(&[Column::Left(""), Column::Left("")]);
    for (field, value) in fields {
        match (field.as_str(), value) {
            ("layer_types" | "notes", _) | (_, Value::Null) => {}
            ("feed_forward", Value::Object(kinds)) => {
                for (kind, sizes) in kinds {
                    table.row(["feed_forward".into(), kind]);
                    for (field, value) in sizes.as_object().into_iter().flatten() {
                        table.row([field.clone(), value.to_string()]);
                    }
                }
            }
            (field, value) => table.row([field.into(), value.to_string()]),
        }
    }
    table.lines().into_iter().skip(1).map(|line| format!("  {line}")).collect()
}

fn row(entry: &Entry) -> [String; 7] {
    let first = &entry.tensors[0];
    let encodings = entry.tensors.iter().map(|t| t.encoding).fold(Vec::new(), |mut seen, encoding| {
        if !seen.contains(&encoding) {
            seen.push(encoding);
        }
        seen
    });
    let roles = entry.roles.iter().map(|role| match serde_json::to_value(role) {
        Ok(Value::String(name)) => name,
        other => unreachable!("a role is written as a name, not {other:?}"),
    });
    let ne = first.ne.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    [
        match entry.tensors.len() {
            1 => first.name.clone(),
            // One an expert, which differ in its number.
            count => first.name.replacen("experts.0.", &format!("experts.{{0..{}}}.", count - 1), 1),
        },
        encodings.join(","),
        Shape::new(first.shape.clone()).to_string(),
        format!("{{{ne}}}"),
        roles.collect::<Vec<_>>().join(" | "),
        entry.steps.clone(),
        entry.maps_to.join(" | "),
    ]
}
