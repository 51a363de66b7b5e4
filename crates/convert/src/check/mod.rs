//! Are two checkpoints the same model, whatever files they are in? Every weight, setting and token is held against its
//! counterpart, and what differs is named.

mod bound;
mod compare;
mod diagnose;
mod settings;

use std::collections::HashSet;
use std::path::PathBuf;

use codec::Encoding;
use model::layout::{Role, TensorSpec};
use model::{Checkpoint, Dialect, Place, Slot, Use};
use serde::Serialize;

use crate::check::compare::{Pair, Seen};
use crate::pipeline::Progress;
use crate::stored::form_of;

pub use settings::Difference;

/// What two checkpoints have in common.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The first one's path.
    pub a: PathBuf,
    /// The other one's.
    pub b: PathBuf,
    /// Every weight of either.
    pub weights: Vec<Checked>,
    /// Settings that differ.
    pub config: Vec<Difference>,
    /// What of the vocabularies differs.
    pub tokenizer: Vec<Difference>,
    /// What was not compared, one sentence each.
    pub notes: Vec<String>,
    /// Whether they are the same model.
    pub passed: bool,
}

/// A weight of either checkpoint, or of both.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Where in the model.
    pub place: Place,
    /// What for.
    pub role: Role,
    /// Its tensors in the first checkpoint; of many, the first and the last.
    pub a: Vec<String>,
    /// Its tensors in the other.
    pub b: Vec<String>,
    /// How they hold it: the encodings of the first and of the other.
    pub encodings: [Vec<&'static str>; 2],
    /// The judgement.
    pub status: Status,
    /// What takes the one to the other, or what gives their difference away.
    pub evidence: String,
    /// Root of the mean squared difference, where there is one.
    pub rmse: Option<f64>,
    /// What it may be, by the blocks of the encodings.
    pub bound: Option<f64>,
}

/// The judgement on a weight.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The same bytes in the same order.
    Identical,
    /// The same values by a known transform.
    Explained,
    /// Different by no more than the encoding makes it.
    WithinEncoding,
    /// Different.
    Unexplained,
    /// In the first checkpoint only.
    Missing,
    /// In the other only.
    Extra,
}

impl Status {
    /// All of them, the best first.
    pub const ALL: [Status; 6] = [
        Status::Identical,
        Status::Explained,
        Status::WithinEncoding,
        Status::Unexplained,
        Status::Missing,
        Status::Extra,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Status::Identical => "identical",
            Status::Explained => "explained",
            Status::WithinEncoding => "within encoding",
            Status::Unexplained => "UNEXPLAINED",
            Status::Missing => "MISSING",
            Status::Extra => "EXTRA",
        }
    }

    /// Whether the weight is the same.
    pub fn passes(self) -> bool {
        self <= Status::WithinEncoding
    }
}

/// What is not to count.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Leave out multi-token-prediction blocks that only one of the two has.
    pub without_mtp: bool,
    /// The second checkpoint is a part of the first one's: compare what it holds.
    pub part: bool,
}

/// Compares two checkpoints. `progress` counts bytes of the second.
pub fn check(a: &Checkpoint, b: &Checkpoint, options: CheckOptions, progress: Progress<'_>) -> Check {
    let has_mtp = |checkpoint: &Checkpoint| {
        checkpoint.layout().slots.iter().any(|slot| matches!(slot.place, Place::Mtp(_)))
    };
    let skip_mtp = options.without_mtp && has_mtp(a) != has_mtp(b);
    let mut tokenizer = Vec::new();
    // Reading two vocabularies takes as long as comparing a gigabyte.
    let weights = rayon::in_place_scope(|scope| {
        scope.spawn(|_| tokenizer = settings::vocabularies(a, b));
        weights(a, b, skip_mtp, options.part, progress)
    });
    let mut notes = Vec::new();
    for (checkpoint, used, what) in [
        (a, Use::Vision, "tensors of the vision tower"),
        (b, Use::Vision, "tensors of the vision tower"),
        (a, Use::TiedHead, "heads beside tied embeddings"),
        (b, Use::TiedHead, "heads beside tied embeddings"),
    ] {
        let count = checkpoint.layout().uses.iter().filter(|found| **found == used).count();
        if count > 0 {
            notes.push(format!("not compared: {count} {what} of {}", checkpoint.path().display()));
        }
    }
    if skip_mtp {
        notes.push("not compared: multi-token prediction, which only one of the two has".to_owned());
    }
    if options.part {
        let held = |checkpoint: &Checkpoint| checkpoint.layout().slots.len();
        notes.push(format!("compared: {} weights of {}, those that the part holds", held(b), held(a)));
    }
    let config = settings::configs(a, b, skip_mtp, options.part);
    // Nothing compared is no agreement; a part without weights is a vocabulary and its keys, which are compared.
    let none_to_compare = options.part && b.source().tensors().is_empty();
    let compared = none_to_compare || weights.iter().any(|weight| weight.status.passes());
    let passed = compared
        && weights.iter().all(|weight| weight.status.passes())
        && config.is_empty()
        && tokenizer.is_empty();
    Check { a: a.path().to_owned(), b: b.path().to_owned(), weights, config, tokenizer, notes, passed }
}

/// Judges every weight of either checkpoint.
fn weights(
    a: &Checkpoint,
    b: &Checkpoint,
    skip_mtp: bool,
    part: bool,
    progress: Progress<'_>,
) -> Vec<Checked> {
    let total: u64 = b.source().tensors().iter().map(|info| info.size).sum();
    let (mut done, mut weights, mut seen) = (0, Vec::new(), HashSet::new());
    for slot in &a.layout().slots {
        if skip_mtp && matches!(slot.place, Place::Mtp(_)) {
            continue;
        }
        seen.insert((slot.place, slot.spec.role));
        let Some(other) = b.layout().slot(slot.place, slot.spec.role) else {
            if part {
                continue;
            }
            weights.push(Checked::lone(a, slot, Status::Missing));
            continue;
        };
        weights.push(judge(a, b, slot, other));
        done += bytes(b, other);
        progress(done.min(total), total);
    }
    for slot in &b.layout().slots {
        let skipped = skip_mtp && matches!(slot.place, Place::Mtp(_));
        if !skipped && !seen.contains(&(slot.place, slot.spec.role)) {
            weights.push(Checked::lone(b, slot, Status::Extra));
        }
    }
    weights
}

fn bytes(checkpoint: &Checkpoint, slot: &Slot) -> u64 {
    let size = |&i: &usize| checkpoint.source().tensors()[i].size;
    // A packed tensor is there for two weights.
    let share = if slot.stored.steps.iter().any(|s| matches!(s, model::Step::Half(_))) { 2 } else { 1 };
    slot.tensors.iter().map(size).sum::<u64>() / share
}

impl Checked {
    fn of(
        a: Option<(&Checkpoint, &Slot)>,
        b: Option<(&Checkpoint, &Slot)>,
        place: Place,
        role: Role,
    ) -> Checked {
        let names =
            |side: Option<(&Checkpoint, &Slot)>| side.map_or_else(Vec::new, |(c, slot)| names(c, slot));
        let encodings =
            |side: Option<(&Checkpoint, &Slot)>| side.map_or_else(Vec::new, |(c, slot)| encodings(c, slot));
        Checked {
            place,
            role,
            a: names(a),
            b: names(b),
            encodings: [encodings(a), encodings(b)].map(|of| of.into_iter().map(Encoding::name).collect()),
            status: Status::Unexplained,
            evidence: String::new(),
            rmse: None,
            bound: None,
        }
    }

    fn lone(checkpoint: &Checkpoint, slot: &Slot, status: Status) -> Checked {
        let side = Some((checkpoint, slot));
        let (a, b) = if status == Status::Missing { (side, None) } else { (None, side) };
        let mtp = matches!(slot.place, Place::Mtp(_));
        let evidence = if mtp { "multi-token prediction: not run" } else { "" };
        Checked { status, evidence: evidence.to_owned(), ..Checked::of(a, b, slot.place, slot.spec.role) }
    }
}

fn names(checkpoint: &Checkpoint, slot: &Slot) -> Vec<String> {
    let name = |&i: &usize| checkpoint.source().tensors()[i].name.clone();
    match slot.tensors.as_slice() {
        [first, .., last] => vec![name(first), name(last)],
        few => few.iter().map(name).collect(),
    }
}

fn encodings(checkpoint: &Checkpoint, slot: &Slot) -> Vec<Encoding> {
    let mut encodings = Vec::new();
    for &i in &slot.tensors {
        let encoding = checkpoint.source().tensors()[i].encoding;
        if !encodings.contains(&encoding) {
            encodings.push(encoding);
        }
    }
    encodings
}

/// Compares one weight of two checkpoints.
fn judge(a: &Checkpoint, b: &Checkpoint, slot_a: &Slot, slot_b: &Slot) -> Checked {
    let (place, role) = (slot_a.place, slot_a.spec.role);
    let mut checked = Checked::of(Some((a, slot_a)), Some((b, slot_b)), place, role);
    let (form_a, form_b) = (form_of(a, slot_a), form_of(b, slot_b));
    if (form_a.rows(), form_a.cols()) != (form_b.rows(), form_b.cols()) {
        checked.evidence = format!(
            "{} rows of {} there, {} of {} here",
            form_a.rows(),
            form_a.cols(),
            form_b.rows(),
            form_b.cols()
        );
        return checked;
    }
    let Some(pair) =
        Pair::new(a, b, (place, role), form_a, form_b, [encodings(a, slot_a), encodings(b, slot_b)])
    else {
        checked.evidence = "cannot be read by rows".to_owned();
        return checked;
    };
    let seen = pair.compare();
    let steps = pair.steps();
    checked.rmse = (seen.squares > 0.0).then(|| (seen.squares / seen.count as f64).sqrt());
    checked.bound = seen.bound().map(|squares| (squares / seen.count as f64).sqrt());
    (checked.status, checked.evidence) = match &seen {
        Seen { same_bytes: true, differing: 0, .. } if steps.is_empty() => (Status::Identical, String::new()),
        Seen { differing: 0, .. } => (Status::Explained, pair.explanation(&seen)),
        _ if seen.within_bound() => {
            (Status::WithinEncoding, format!("worst row at {:.0} % of its bound", 100.0 * seen.worst_ratio()))
        }
        _ => (Status::Unexplained, diagnose::evidence(a, b, spec(slot_a), &pair, &seen)),
    };
    checked
}

fn spec(slot: &Slot) -> &'static TensorSpec {
    slot.spec
}

/// Whether a checkpoint is a GGUF file.
fn is_gguf(checkpoint: &Checkpoint) -> bool {
    checkpoint.layout().dialect == Dialect::Gguf
}
