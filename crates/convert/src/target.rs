//! The tensors of a checkpoint to be, and the weights that each is made of.

use format::Shape;
use model::layout::{Role, Stored, TensorSpec};
use model::{Config, Dialect, Place, Step};

use crate::form::Form;

/// How a Hugging Face checkpoint holds its routed experts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Experts {
    /// All of a layer's in two tensors: gate and up projections, and down projections.
    Packed,
    /// Three tensors an expert.
    Split,
}

/// A tensor of a checkpoint to be.
#[derive(Debug)]
pub struct Target {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file.
    pub shape: Shape,
    /// Where in the model it belongs.
    pub place: Place,
    /// The weights it holds rows of: one, or the two of a packed tensor.
    pub parts: Vec<Part>,
    /// Which of its weights' tensors it is: the expert's number, or 0.
    pub number: usize,
}

/// A weight in a [`Target`].
#[derive(Debug)]
pub struct Part {
    /// The weight.
    pub role: Role,
    /// How the file holds it.
    pub form: Form,
}

impl Target {
    /// Length of its rows, as blocks run along them.
    pub fn cols(&self) -> usize {
        self.parts[0].form.cols()
    }

    /// How many of them.
    pub fn rows(&self) -> usize {
        let elements = self.shape.dims().iter().product::<u64>();
        elements as usize / self.cols()
    }

    /// Which of the weights row `row` of this tensor belongs to, and its canonical row there.
    pub fn canonical_part(&self, row: usize) -> (usize, usize) {
        let held = |(at, part): (usize, &Part)| Some((at, part.form.canonical(self.number, row)?));
        match self.parts.iter().enumerate().find_map(held) {
            Some(found) => found,
            None => unreachable!("{}: row {row} belongs to none of its weights", self.name),
        }
    }
}

/// Every tensor that a model of this configuration has in a dialect, in the order of the forward pass. `experts` is
/// for Hugging Face; GGUF has one form.
pub fn targets(config: &Config, dialect: Dialect, experts: Experts) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for (place, spec) in model::slots(config) {
        if spec.role == Role::LmHead && config.tie_word_embeddings {
            continue;
        }
        let stored = stored(spec, dialect, experts);
        let form = Form::new(spec, stored, config);
        let count = form.tensors(config);
        for number in 0..count {
            let name = dialect.name(spec, stored, place, config.num_hidden_layers, Some(number));
            let part = Part { role: spec.role, form: form.clone() };
            // The two weights of a packed tensor stand together in the layout map.
            if let Some(packed) = targets.last_mut().filter(|last| last.name == name) {
                packed.parts.push(part);
                continue;
            }
            let shape = Shape::new(stored.axes.iter().map(|dim| dim.size(config) as u64).collect());
            targets.push(Target { name, shape, place, parts: vec![part], number });
        }
    }
    targets
}

fn stored(spec: &'static TensorSpec, dialect: Dialect, experts: Experts) -> &'static Stored {
    match dialect {
        Dialect::Gguf => &spec.gguf,
        Dialect::Hf { .. } => {
            let split = |stored: &&Stored| stored.steps.contains(&Step::StackExperts);
            let found = spec.hf.iter().find(split).filter(|_| experts == Experts::Split);
            found.unwrap_or(&spec.hf[0])
        }
    }
}
