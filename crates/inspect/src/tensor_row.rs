//! Every tensor of a checkpoint with all that is known about it.

use model::layout::Role;
use model::{Config, Dialect, Place, Slot, Step, Use};

use crate::class::{Class, layer_of_name};
use crate::subject::Subject;

/// What becomes of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The forward pass reads it.
    Run,
    /// Multi-token prediction: known, not run.
    Mtp,
    /// Vision tower: known, not run.
    Vision,
    /// A head beside tied embeddings: the embedding is used in its place.
    TiedHead,
    /// Scales of the blocks of an FP8 tensor: applied with it.
    Scale,
}

/// A tensor.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TensorRow {
    /// Its name in the file.
    pub name: String,
    /// How its elements are stored.
    pub encoding: &'static str,
    /// Outermost first, as in PyTorch.
    pub shape: Vec<u64>,
    /// Innermost first, as in ggml.
    pub ne: Vec<u64>,
    /// The number of elements.
    pub elements: u64,
    /// The number of bytes.
    pub bytes: u64,
    /// Bytes from the start of its file.
    pub offset: u64,
    /// Which of the checkpoint's files holds it.
    pub file: usize,
    /// Its layer, if it is in one; a multi-token-prediction block counts as GGUF has it.
    pub layer: Option<usize>,
    /// The part of the model.
    pub class: Class,
    /// What becomes of it, if the layout map knows.
    pub status: Option<Status>,
    /// What it is for.
    pub roles: Vec<Role>,
    /// From the file to canonical form; `|` separates the roles of one tensor.
    pub steps: String,
    /// Its names in the other kind of file.
    pub there: Vec<String>,
}

impl TensorRow {
    /// The tensor that stands at this place in the order of the files.
    ///
    /// A row takes more memory than what it is made of: of very many, make each when it is wanted.
    ///
    /// # Panics
    /// If there are not so many tensors.
    pub fn of(subject: &Subject, place: usize) -> TensorRow {
        let info = &subject.source().tensors()[place];
        let mut row = TensorRow {
            name: info.name.clone(),
            encoding: info.encoding.name(),
            shape: info.shape.dims().to_vec(),
            ne: info.shape.to_ne().as_slice().to_vec(),
            elements: info.shape.elements().unwrap_or(0),
            bytes: info.size,
            offset: info.offset,
            file: info.file,
            layer: layer_of_name(&info.name),
            class: Class::of_name(&info.name),
            status: None,
            roles: Vec::new(),
            steps: String::new(),
            there: Vec::new(),
        };
        if let Some((config, layout)) = subject.layout() {
            match &layout.uses[place] {
                Use::Vision => (row.status, row.class) = (Some(Status::Vision), Class::Vision),
                Use::TiedHead => row.status = Some(Status::TiedHead),
                Use::Scale => row.status = Some(Status::Scale),
                Use::Slots(slots) => {
                    slots.iter().for_each(|&slot| row.fill(&layout.slots[slot], layout.dialect, config));
                }
            }
        }
        row
    }

    /// One row a tensor, in the order of the files.
    pub fn all(subject: &Subject) -> impl Iterator<Item = TensorRow> {
        (0..subject.source().tensors().len()).map(|place| TensorRow::of(subject, place))
    }

    fn fill(&mut self, slot: &Slot, dialect: Dialect, config: &Config) {
        let layers = config.num_hidden_layers;
        (self.status, self.class, self.layer) = match slot.place {
            Place::Global => (Some(Status::Run), Class::of_role(slot.spec.role), None),
            Place::Layer(l) => (Some(Status::Run), Class::of_role(slot.spec.role), Some(l)),
            Place::Mtp(i) => (Some(Status::Mtp), Class::Mtp, Some(layers + i)),
        };
        if !self.roles.is_empty() {
            self.steps += " | ";
        }
        self.roles.push(slot.spec.role);
        self.steps += &slot.stored.steps.iter().map(Step::to_string).collect::<Vec<_>>().join(", ");
        let (other, form) = match dialect {
            Dialect::Hf { .. } => (Dialect::Gguf, &slot.spec.gguf),
            Dialect::Gguf => (Dialect::Hf { prefix: "model." }, &slot.spec.hf[0]),
        };
        self.there.push(other.name(slot.spec, form, slot.place, layers, None));
    }
}
