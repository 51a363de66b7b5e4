//! The judgement: which points agree, and which is the first that does not.

use std::collections::HashSet;

use serde::Serialize;

use crate::Error;
use crate::choices::ChoiceStats;
use crate::flow::{Standing, unexplained};
use crate::limits::{Limit, Limits};
use crate::logits::LogitStats;
use crate::manifest::{Manifest, ModelId, Producer};
use crate::measure::Measured;
use crate::point::{self, order_key};
use crate::precision::Precision;
use crate::stats::{Stats, number};

/// How one set of activations compares with another. Serialises to the JSON that `--json` prints; numbers that are
/// not finite become the strings `"NaN"`, `"Infinity"` and `"-Infinity"`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this form: [`Report::VERSION`].
    pub version: u32,
    /// Version of the arithmetic's contract, as the caller states it.
    pub contract: Option<String>,
    /// Whether every compared point is within its limit.
    pub passed: bool,
    /// The first point that is not, and what usually causes that.
    pub divergence: Option<Divergence>,
    /// Where the reference comes from.
    pub reference: Side,
    /// Where the candidate comes from.
    pub candidate: Side,
    /// How many tokens both ran on, if either side says.
    pub tokens: Option<usize>,
    /// Remarks on the comparison as a whole.
    pub notes: Vec<String>,
    /// The compared points in the reference's execution order.
    pub points: Vec<PointReport>,
    /// Points that only the reference has, in its order.
    pub only_reference: Vec<String>,
    /// Points that only the candidate has, in its order.
    pub only_candidate: Vec<String>,
    /// The user's limits that matched no compared point.
    pub unused_limits: Vec<String>,
}

/// Where one side of a comparison comes from.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Side {
    /// The program that made it, if it says.
    pub producer: Option<Producer>,
    /// The model it was made with, if it says.
    pub model: Option<ModelId>,
    /// The precision it was computed in: as stated, else taken from each array's type.
    pub precision: Option<Precision>,
}

/// What is known of the first divergence.
#[derive(Clone, Debug, Serialize)]
pub struct Divergence {
    /// The first point beyond its limit.
    pub point: String,
    /// The usual causes of a divergence that starts there.
    pub causes: Vec<&'static str>,
    /// Points between it and the last one that agrees which only one side has: the fault may lie in one of them.
    pub uncompared_before: Vec<String>,
    /// Further points beyond their limits although all that they are computed from is far better: faults of their own.
    pub independent: Vec<String>,
}

/// Where a point stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within its limit, as all points are.
    Pass,
    /// Within its limit and before the first divergence: what it is computed from is right as well.
    Exonerated,
    /// The first in execution order that is beyond its limit.
    FirstDivergence,
    /// After the first divergence, within its limit or not.
    Downstream,
}

/// One compared point.
#[derive(Clone, Debug, Serialize)]
pub struct PointReport {
    /// Its name, as the table of points spells it.
    pub name: String,
    /// The reference's shape.
    pub shape: Vec<usize>,
    /// Where it stands.
    pub verdict: Verdict,
    /// Whether it is within its limit itself.
    pub within_limit: bool,
    /// What is held against the limit: `nmse`, or the share of tokens with other choices. NaN if nothing could be
    /// measured.
    #[serde(serialize_with = "number")]
    pub measure: f64,
    /// The largest measure that passes.
    #[serde(serialize_with = "number")]
    pub limit: f64,
    /// Where the limit comes from: the user's pattern, or `built-in` with the coarser side's precision.
    pub limit_from: String,
    /// Distances, for real numbers.
    pub stats: Option<Stats>,
    /// First choices and divergence, for logits.
    pub logits: Option<LogitStats>,
    /// Agreement, for choices of experts.
    pub choices: Option<ChoiceStats>,
    /// Why nothing could be measured: shapes that do not fit, an incomplete record.
    pub fault: Option<String>,
    /// What was read otherwise than it stands.
    pub notes: Vec<String>,
}

/// What the comparison found at one point, not yet judged.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) notes: Vec<String>,
    pub(crate) precision: Precision,
    pub(crate) outcome: Result<Measured, String>,
}

/// All that a comparison found, not yet judged.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) contract: Option<String>,
    pub(crate) sides: [Side; 2],
    pub(crate) tokens: Option<usize>,
    pub(crate) notes: Vec<String>,
    /// In the reference's execution order.
    pub(crate) points: Vec<Finding>,
    pub(crate) only: [Vec<String>; 2],
}

impl Side {
    pub(crate) fn of(manifest: Option<&Manifest>) -> Side {
        let producer = manifest.and_then(|m| m.producer.clone());
        let precision = producer.as_ref().and_then(|p| p.precision.as_deref()).and_then(Precision::from_name);
        Side { producer, model: manifest.and_then(|m| m.model.clone()), precision }
    }
}

impl Report {
    /// The version of the form that this crate writes.
    pub const VERSION: u32 = 1;
}

/// Judges each point by its limit, and all by the first that is beyond.
pub(crate) fn judge(findings: Findings, limits: &Limits) -> Result<Report, Error> {
    let Findings { contract, sides: [reference, candidate], tokens, notes, points, only } = findings;
    let [only_reference, only_candidate] = only;
    if points.is_empty() {
        let first = |names: &[String]| names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        return Err(Error::NothingCompared {
            reference: first(&only_reference),
            candidate: first(&only_candidate),
        });
    }
    let mut used = HashSet::new();
    let mut points: Vec<_> = points
        .into_iter()
        .map(|finding| {
            let limit = limits.of(&finding.name, finding.precision);
            used.extend(limit.entry);
            point_report(finding, limit, limits)
        })
        .collect();
    let first = points.iter().position(|point| !point.within_limit);
    for (at, point) in points.iter_mut().enumerate() {
        point.verdict = match first {
            None => Verdict::Pass,
            Some(first) if at < first => Verdict::Exonerated,
            Some(first) if at == first => Verdict::FirstDivergence,
            Some(_) => Verdict::Downstream,
        };
    }
    let divergence = first.map(|at| diverged(&points, at, [&only_reference, &only_candidate]));
    let unused = limits.entries().iter().enumerate().filter(|(at, _)| !used.contains(at));
    Ok(Report {
        version: Report::VERSION,
        contract,
        passed: first.is_none(),
        divergence,
        reference,
        candidate,
        tokens,
        notes,
        only_reference,
        only_candidate,
        unused_limits: unused.map(|(_, (pattern, _))| pattern.clone()).collect(),
        points,
    })
}

fn point_report(finding: Finding, limit: Limit, limits: &Limits) -> PointReport {
    let Finding { name, shape, notes, precision, outcome } = finding;
    let (stats, logits, choices, fault) = match outcome {
        Ok(Measured::Real(stats, logits)) => (Some(stats), logits, None, None),
        Ok(Measured::Choices(choices)) => (None, None, Some(choices), None),
        Err(fault) => (None, None, None, Some(fault)),
    };
    let measure = match (&stats, &choices) {
        (Some(stats), _) => stats.nmse,
        (_, Some(choices)) => choices.differing(),
        _ => f64::NAN,
    };
    PointReport {
        name,
        shape,
        verdict: Verdict::Pass,
        // NaN is not within anything.
        within_limit: measure <= limit.value,
        measure,
        limit: limit.value,
        limit_from: match (limit.entry, limit.label) {
            (Some(entry), _) => limits.entries()[entry].0.clone(),
            (None, Some(label)) => label,
            // Choices are exact in any precision.
            (None, None) if choices.is_some() => "built-in".to_owned(),
            (None, None) => format!("built-in {precision}"),
        },
        stats,
        logits,
        choices,
        fault,
        notes,
    }
}

fn diverged(points: &[PointReport], first: usize, only: [&[String]; 2]) -> Divergence {
    let name = &points[first].name;
    let causes = point::parse(name).map_or(&[][..], |(_, kind)| kind.causes).to_vec();
    let after = first.checked_sub(1).map(|before| order_key(&points[before].name));
    let between = |name: &&String| {
        let key = order_key(name);
        after.is_none_or(|after| key > after) && key < order_key(&points[first].name)
    };
    let mut uncompared: Vec<_> = only.into_iter().flatten().filter(between).cloned().collect();
    uncompared.sort_by_key(|name| order_key(name));
    let standings = points.iter().map(|p| (p.name.as_str(), Standing::new(p.measure, p.within_limit)));
    let mut independent = unexplained(&standings.collect());
    independent.retain(|other| other != name);
    Divergence { point: name.clone(), causes, uncompared_before: uncompared, independent }
}

#[cfg(test)]
mod tests {
    use crate::{Settings, Tensor, Trace, Values, compare};
    use serde_json::Value;

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    /// Others parse this: a changed name is a new version.
    #[test]
    fn the_names_in_the_json_are_stable() {
        let trace = |logit| {
            let tensor = |values| Tensor { shape: vec![1, 2], values };
            let points = vec![
                ("model.layers.0.mlp.topk_index".to_owned(), tensor(Values::I64(vec![3, logit as i64]))),
                ("lm_head".to_owned(), tensor(Values::F32(vec![1.0, logit]))),
            ];
            Trace::from_tensors(Some(vec![7]), points)
        };
        let json =
            serde_json::to_value(compare(&trace(0.0), &trace(2.0), &Settings::default()).unwrap()).unwrap();
        let top = "version contract passed divergence reference candidate tokens notes points only_reference \
                   only_candidate unused_limits";
        assert_eq!(keys(&json), top.split(' ').collect::<Vec<_>>());
        assert_eq!(keys(&json["divergence"]), ["point", "causes", "uncompared_before", "independent"]);
        assert_eq!(keys(&json["reference"]), ["producer", "model", "precision"]);
        let [choices, logits] = json["points"].as_array().unwrap().as_slice() else { panic!("{json}") };
        let point =
            "name shape verdict within_limit measure limit limit_from stats logits choices fault notes";
        assert_eq!(keys(logits), point.split(' ').collect::<Vec<_>>());
        let stats = "count nmse nmse_centered max_abs worst cosine nonfinite_reference nonfinite_candidate";
        assert_eq!(keys(&logits["stats"]), stats.split(' ').collect::<Vec<_>>());
        assert_eq!(keys(&logits["stats"]["worst"]), ["index", "reference", "candidate", "relative"]);
        let found = "positions top1_agree disagreements kl_mean kl_max kl_max_at";
        assert_eq!(keys(&logits["logits"]), found.split(' ').collect::<Vec<_>>());
        let disagreement = "position reference candidate reference_margin candidate_margin";
        assert_eq!(keys(&logits["logits"]["disagreements"][0]), disagreement.split(' ').collect::<Vec<_>>());
        let agreement = "entries equal_entries tokens equal_sets first_difference";
        assert_eq!(keys(&choices["choices"]), agreement.split(' ').collect::<Vec<_>>());
        assert_eq!(keys(&choices["choices"]["first_difference"]), ["token", "reference", "candidate"]);
        assert_eq!(
            (&choices["verdict"], &logits["verdict"]),
            (&"first_divergence".into(), &"downstream".into())
        );
        assert_eq!(logits["stats"]["worst"]["relative"], "Infinity");
    }
}
