//! What a conversion will do, tensor by tensor, before it does any of it.

use std::collections::HashSet;

use codec::Encoding;
use model::layout::Role;
use model::{Checkpoint, Dialect, Place, Slot, Step, Use};
use serde::Serialize;

use crate::error::Error;
use crate::pipeline::Encoded;
use crate::stored::form_of;
use crate::target::{Experts, Target, targets};

/// What becomes of multi-token-prediction blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mtp {
    /// They are converted with the rest.
    #[default]
    Keep,
    /// They are left out.
    Drop,
    /// Only they are converted, with the embedding, the final norm and the head.
    Only,
}

impl Mtp {
    /// Whether tensors of this place and role are converted.
    fn keeps(self, place: Place, role: Role) -> bool {
        let block = matches!(place, Place::Mtp(_));
        match self {
            Mtp::Keep => true,
            Mtp::Drop => !block,
            Mtp::Only => block || matches!(role, Role::EmbedTokens | Role::FinalNorm | Role::LmHead),
        }
    }
}

/// Every tensor of a source, and every tensor that is made of them.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// In the order of the file to be.
    pub tensors: Vec<Planned>,
    /// Tensors of the source that are not converted.
    pub left: Vec<Left>,
}

/// A tensor to be.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// What it is made of: tensors of the source.
    pub from: Vec<String>,
    /// What is done to their values and rows, in words; empty if they are copied.
    pub transform: String,
    /// Encodings of those tensors, each once.
    pub source_encodings: Vec<&'static str>,
    /// Its own encoding.
    pub encoding: &'static str,
    /// Outermost first.
    pub shape: Vec<u64>,
    /// Bytes.
    pub bytes: u64,
}

/// A tensor of the source that is not converted, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Left {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: Why,
    /// Bytes.
    pub bytes: u64,
}

/// Why a tensor is not converted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Of the vision tower: known, and no part of the text model.
    Vision,
    /// A head beside tied embeddings, which nothing reads.
    TiedHead,
    /// Left out by request.
    Dropped,
}

impl Plan {
    /// Bytes of all tensors to be.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }
}

/// The tensors that a source's are converted to, in their order in the file, and what is said about them.
///
/// # Errors
/// Multi-token-prediction blocks of which parts are missing, or that are asked for and not there.
pub fn plan(
    source: &Checkpoint,
    dialect: Dialect,
    experts: Experts,
    mtp: Mtp,
    encode: impl Fn(&Target) -> Encoding,
) -> Result<(Vec<Encoded>, Plan), Error> {
    complete_mtp(source, mtp)?;
    let kept = |target: &Target| {
        let role = target.parts[0].role;
        mtp.keeps(target.place, role) && source.layout().slot(target.place, role).is_some()
    };
    let targets = targets(source.config(), dialect, experts).into_iter().filter(kept);
    let targets = match dialect {
        Dialect::Gguf => in_order_of(source, targets.collect()),
        Dialect::Hf { .. } => targets.collect(),
    };
    let tensors: Vec<Encoded> = targets
        .into_iter()
        .map(|target| {
            let encoding = encode(&target);
            (target, encoding)
        })
        .collect();
    let planned = tensors.iter().map(|(target, encoding)| describe(source, target, *encoding)).collect();
    let plan = Plan { tensors: planned, left: left(source, mtp) };
    Ok((tensors, plan))
}

/// A model runs without these blocks, so that opening it does not ask for them; half a block is of no use to anybody.
fn complete_mtp(source: &Checkpoint, mtp: Mtp) -> Result<(), Error> {
    let blocks = |place: &Place| matches!(place, Place::Mtp(_));
    let present = source.layout().slots.iter().any(|slot| blocks(&slot.place));
    if mtp == Mtp::Only && !present {
        return Err(Error::NoMtp { path: source.path().to_owned() });
    }
    let (dialect, layers) = (source.layout().dialect, source.config().num_hidden_layers);
    let missing = model::slots(source.config())
        .filter(|(place, spec)| blocks(place) && source.layout().slot(*place, spec.role).is_none())
        .map(|(place, spec)| {
            let stored = if dialect == Dialect::Gguf { &spec.gguf } else { &spec.hf[0] };
            dialect.name(spec, stored, place, layers, Some(0))
        });
    let missing: Vec<String> = missing.collect();
    if present && mtp != Mtp::Drop && !missing.is_empty() {
        return Err(Error::PartialMtp { path: source.path().to_owned(), missing: missing.join(", ") });
    }
    Ok(())
}

/// The order that llama.cpp's converter writes in: that of the source's tensors by file and name, each when all that
/// it is made of has come by; a GGUF source keeps its own.
fn in_order_of(source: &Checkpoint, targets: Vec<Target>) -> Vec<Target> {
    let (infos, layout) = (source.source().tensors(), source.layout());
    let mut order: Vec<usize> = (0..infos.len()).collect();
    if matches!(layout.dialect, Dialect::Hf { .. }) {
        let files = source.source().files();
        let key = |&i: &usize| (files[infos[i].file].file_name(), infos[i].name.as_str());
        order.sort_by(|a, b| key(a).cmp(&key(b)));
    }
    let mut rank = vec![0; infos.len()];
    order.iter().enumerate().for_each(|(at, &i)| rank[i] = at);
    // Experts that stand alone are merged when the last of any kind has come by: down, then gate, then up.
    let is_stacked = |slot: &Slot| slot.stored.steps.contains(&Step::StackExperts);
    let of = |slot: &Slot| slot.tensors.iter().map(|&i| rank[i]).max().unwrap_or(0);
    let last = |slot: &Slot| match is_stacked(slot) {
        true => {
            let layer = layout.slots.iter().filter(|s| s.place == slot.place && is_stacked(s));
            layer.map(of).max().unwrap_or(0)
        }
        false => of(slot),
    };
    let within = |role| match role {
        Role::ExpertsDown => 0,
        Role::ExpertsGate => 1,
        Role::ExpertsUp => 2,
        _ => 0,
    };
    let mut targets: Vec<((usize, i32), Target)> = targets
        .into_iter()
        .map(|target| {
            let role = target.parts[0].role;
            let rank = layout.slot(target.place, role).map_or(0, last);
            ((rank, within(role)), target)
        })
        .collect();
    targets.sort_by_key(|(key, _)| *key);
    targets.into_iter().map(|(_, target)| target).collect()
}

fn describe(source: &Checkpoint, target: &Target, encoding: Encoding) -> Planned {
    let infos = source.source().tensors();
    let slots =
        target.parts.iter().filter_map(|part| Some((part, source.layout().slot(target.place, part.role)?)));
    let (mut from, mut encodings, mut transform) = (Vec::new(), Vec::new(), Vec::new());
    for (part, slot) in slots {
        // Of experts that stand alone, those that are rows of this tensor.
        let alone = target.parts[0].form.tensors(source.config()) > 1 && slot.tensors.len() > 1;
        let tensors = if alone { &slot.tensors[target.number..=target.number] } else { &slot.tensors[..] };
        for &i in tensors {
            if !from.contains(&infos[i].name) {
                from.push(infos[i].name.clone());
            }
            if !encodings.contains(&infos[i].encoding.name()) {
                encodings.push(infos[i].encoding.name());
            }
        }
        for step in form_of(source, slot).steps_to(&part.form) {
            if !transform.contains(&step) {
                transform.push(step);
            }
        }
    }
    let shape = target.shape.dims().to_vec();
    let bytes = encoding.byte_len(target.cols() as u64).unwrap_or(0) * target.rows() as u64;
    Planned {
        name: target.name.clone(),
        from,
        transform: transform.join(", "),
        source_encodings: encodings,
        encoding: encoding.name(),
        shape,
        bytes,
    }
}

fn left(source: &Checkpoint, mtp: Mtp) -> Vec<Left> {
    let layout = source.layout();
    let kept: HashSet<usize> = (layout.slots.iter())
        .filter(|slot| mtp.keeps(slot.place, slot.spec.role))
        .flat_map(|slot| slot.tensors.iter().copied())
        .collect();
    let why = |i: usize, used: &Use| match used {
        Use::Vision => Some(Why::Vision),
        Use::TiedHead => Some(Why::TiedHead),
        Use::Slots(_) => (!kept.contains(&i)).then_some(Why::Dropped),
    };
    let infos = source.source().tensors();
    let entry = |(i, used): (usize, &Use)| {
        Some(Left { why: why(i, used)?, name: infos[i].name.clone(), bytes: infos[i].size })
    };
    layout.uses.iter().enumerate().filter_map(entry).collect()
}
