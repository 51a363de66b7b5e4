//! What gives the difference of a weight away: the mistakes that converters make, tried one after the other.

use model::layout::{Role, TensorSpec};
use model::{Checkpoint, Step, Tiling};

use crate::check::compare::{Pair, Seen};
use crate::check::is_gguf;
use crate::form::Held;
use crate::source::Source;

/// Rows that a supposition is tried on before all are.
const TRIED_ROWS: usize = 64;
/// Gains that differ by exactly 1 were rounded at most twice, each time by half a unit of a number below 4.
const ROUNDED_TWICE: f64 = 4.0 * f32::EPSILON as f64;

const TWICE: &str = "were put in tiled order twice, or the wrong way round";

/// One sentence.
pub(super) fn evidence(
    a: &Checkpoint,
    b: &Checkpoint,
    spec: &TensorSpec,
    pair: &Pair<'_>,
    seen: &Seen,
) -> String {
    let found = offset(pair)
        .or_else(|| rate(pair, spec.role))
        .or_else(|| order(a, b, pair, spec))
        .or_else(|| exchanged(a, pair, spec.role))
        .or_else(|| factor(pair));
    let measured = format!(
        "{} of {} values differ, from row {} on",
        seen.differing,
        seen.count,
        seen.first.unwrap_or_default()
    );
    match found {
        Some(found) => format!("{found} ({measured})"),
        None => measured,
    }
}

/// Whether a supposition holds for every value: `holds(a, b)` for the rows of both, as the second holds them.
fn all_rows(
    pair: &Pair<'_>,
    row_of_b: impl Fn(usize) -> usize,
    mut holds: impl FnMut(&[f32], &[f32]) -> bool,
) -> bool {
    let (rows, cols) = (pair.form_a.rows(), pair.form_a.cols());
    let (mut a, mut b, mut unused) = (vec![0.0; cols], vec![0.0; cols], vec![0.0; cols]);
    let mut scratch = Vec::new();
    let mut holds = |row: usize| {
        pair.read(row, &mut a, &mut unused, &mut scratch);
        pair.read(row_of_b(row), &mut unused, &mut b, &mut scratch);
        holds(&a, &b)
    };
    // Spread over all of them, then each.
    let stride = (rows / TRIED_ROWS).max(1);
    (0..rows).step_by(stride).all(&mut holds) && (0..rows).all(&mut holds)
}

fn near(a: f32, b: f32, away: f64) -> bool {
    (f64::from(b) - f64::from(a) - away).abs() <= ROUNDED_TWICE * f64::from(b.abs().max(1.0))
}

/// A norm's gain that is one too large or too small.
fn offset(pair: &Pair<'_>) -> Option<String> {
    for (away, what) in [(1.0, "once too often"), (-1.0, "once too seldom")] {
        if all_rows(pair, |row| row, |a, b| a.iter().zip(b).all(|(a, b)| near(*a, *b, away))) {
            return Some(format!("differs by exactly {away:+}: 1 was added {what}"));
        }
    }
    None
}

/// Whether a value of the first, as the second holds it, and one of the second belong together.
type Supposition<'a> = &'a dyn Fn(f32, f32) -> bool;

/// A decay rate in another form than its file's.
fn rate(pair: &Pair<'_>, role: Role) -> Option<String> {
    if role != Role::ALog {
        return None;
    }
    let relative = |a: f64, b: f64| (a - b).abs() <= 8.0 * f64::from(f32::EPSILON) * a.abs().max(1.0);
    let plain = |held: f32| pair.b.held().canonical(held);
    let suppositions: [(Supposition<'_>, &str); 3] = [
        (
            &|a, b| relative(Held::LogOfNegative.canonical(b), plain(a)),
            "is A_log itself, where −exp(A_log) is meant",
        ),
        (&|a, b| relative(plain(a), Held::Plain.canonical(-b)), "has the other sign"),
        (&|a, b| relative(plain(a), plain(plain(b) as f32)), "went through −exp once too seldom"),
    ];
    suppositions.iter().find_map(|(holds, what)| {
        let all = all_rows(pair, |row| row, |a, b| a.iter().zip(b).all(|(a, b)| holds(*a, *b)));
        all.then(|| (*what).to_owned())
    })
}

/// Value heads in the other order, by trying it; rows of a kernel from back to front.
fn order(a: &Checkpoint, b: &Checkpoint, pair: &Pair<'_>, spec: &TensorSpec) -> Option<String> {
    let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| near(*a, *b, 0.0));
    for step in spec.gguf.steps {
        let Step::Untile { axis, head, skip } = *step else { continue };
        let Some(tiling) = Tiling::new(head, skip, a.config()) else { continue };
        // The order of the other format where this one's is meant; or a step of tiling too many. Where both are the
        // same permutation, the first is the likelier.
        let (stored, canonical) = (|i| tiling.stored(i), |i| tiling.canonical(i));
        let orders: [(&dyn Fn(usize) -> usize, _); 2] = match is_gguf(b) {
            true => [(&canonical, "are grouped where ggml's tiled order is meant"), (&stored, TWICE)],
            false => [(&stored, "are tiled where grouped order is meant"), (&canonical, TWICE)],
        };
        for (moved, what) in orders {
            let found = match axis {
                0 => all_rows(pair, moved, same),
                _ => {
                    let mut back = vec![0.0; pair.form_a.cols()];
                    let moved_columns = |a: &[f32], b: &[f32]| {
                        for (i, value) in back.iter_mut().enumerate() {
                            *value = b[moved(i)];
                        }
                        same(a, &back)
                    };
                    all_rows(pair, |row| row, moved_columns)
                }
            };
            if found {
                return Some(format!("value heads {what}"));
            }
        }
    }
    let backwards = |a: &[f32], b: &[f32]| a.len() > 1 && a.iter().zip(b.iter().rev()).all(|(a, b)| a == b);
    (spec.role == Role::Conv1d && all_rows(pair, |row| row, backwards))
        .then(|| "taps run backwards".to_owned())
}

/// The weight that usually stands beside it.
fn exchanged(a: &Checkpoint, pair: &Pair<'_>, role: Role) -> Option<String> {
    let other = match role {
        Role::GateProj => Role::UpProj,
        Role::UpProj => Role::GateProj,
        Role::ExpertsGate => Role::ExpertsUp,
        Role::ExpertsUp => Role::ExpertsGate,
        Role::SharedGate => Role::SharedUp,
        Role::SharedUp => Role::SharedGate,
        Role::InProjA => Role::InProjB,
        Role::InProjB => Role::InProjA,
        Role::KProj => Role::VProj,
        Role::VProj => Role::KProj,
        Role::QNorm => Role::KNorm,
        Role::KNorm => Role::QNorm,
        _ => return None,
    };
    let weight = a.weight(pair.place(), other)?;
    let cols = pair.form_a.cols();
    let (mut theirs, mut scratch, mut row) = (vec![0.0; cols], Vec::new(), 0);
    let rows = pair.form_a.rows();
    let (mut unused, mut b) = (vec![0.0; cols], vec![0.0; cols]);
    let same = loop {
        if row == rows {
            break true;
        }
        weight.read(row, &mut theirs, &mut scratch);
        weight.held().convert(pair.b.held(), &mut theirs);
        pair.form_b.columns_to_stored(&mut theirs, &mut scratch);
        pair.read(row, &mut unused, &mut b, &mut scratch);
        if !theirs.iter().zip(&b).all(|(a, b)| near(*a, *b, 0.0)) {
            break false;
        }
        row += 1;
    };
    same.then(|| format!("holds what {other:?} is to hold"))
}

/// The same times a constant: a scale that was forgotten.
fn factor(pair: &Pair<'_>) -> Option<String> {
    let mut factor = None;
    let proportional = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).all(|(a, b)| {
            let (a, b) = (f64::from(*a), f64::from(*b));
            if factor.is_none() && a != 0.0 {
                factor = Some(b / a);
            }
            // Rounded to as little as BF16 on either side.
            factor.is_none_or(|factor: f64| (factor * a - b).abs() <= b.abs() / 128.0 && factor != 0.0)
        })
    };
    let all = all_rows(pair, |row| row, proportional);
    factor
        .filter(|factor| all && (factor - 1.0).abs() > 1.0 / 64.0)
        .map(|factor| format!("is {factor:.6} times as large"))
}
