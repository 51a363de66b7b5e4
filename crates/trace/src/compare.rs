//! Comparing two finished traces.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::limits::Limits;
use crate::measure::Measure;
use crate::precision::Precision;
use crate::report::{Finding, Findings, Report, Side, judge};
use crate::{Error, Globs, Trace, point};

/// How to compare.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The limits to judge by.
    pub limits: Limits,
    /// Which points to compare; all that both sides have if absent.
    pub points: Option<Globs>,
    /// The precision to judge by, where the traces' own word is not to be taken.
    pub precision: Option<Precision>,
    /// Version of the arithmetic's contract, to be stated in the report.
    pub contract: Option<String>,
}

impl Settings {
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.points.as_ref().is_none_or(|globs| globs.matches(name))
    }
}

/// Compares what `candidate` holds with what `reference` holds, point by point, a block of values at a time.
///
/// Names with a prefix that Transformers' wrappers add are taken for those of the table. Fails if both sides say
/// on which tokens they ran and these differ, if a file cannot be read, or if no point is on both sides.
pub fn compare(reference: &Trace, candidate: &Trace, settings: &Settings) -> Result<Report, Error> {
    let (tokens, notes) = check_tokens([reference.tokens(), candidate.tokens()])?;
    let sides = [reference, candidate].map(|trace| Side::of(trace.manifest()));
    let [ours, theirs] = [reference, candidate].map(Names::of);
    let mut points = Vec::new();
    let mut only_reference = Vec::new();
    for (name, own) in ours.iter().filter(|(name, _)| settings.wants(name)) {
        let Some(other) = theirs.own(name) else {
            only_reference.push(name.to_owned());
            continue;
        };
        let stored = [(reference, own), (candidate, other)];
        let [a, b] = [0, 1].map(|side| Array::stored(stored[side].0, stored[side].1, &sides[side]));
        let pair = Pair::new(name, [a?, b?], settings);
        let outcome = match pair.measure {
            Ok(measure) => Ok(measure.run([reference.reader(own)?, candidate.reader(other)?])?),
            Err(fault) => Err(fault),
        };
        points.push(Finding { outcome, ..pair.finding });
    }
    let only_candidate =
        theirs.iter().map(|(name, _)| name).filter(|name| settings.wants(name) && ours.own(name).is_none());
    let only = [only_reference, only_candidate.map(str::to_owned).collect()];
    let contract = settings.contract.clone();
    judge(Findings { contract, sides, tokens, notes, points, only }, &settings.limits)
}

/// The names of a trace's points as the table spells them, beside the trace's own, in the trace's order.
pub(crate) struct Names<'t> {
    pairs: Vec<(Cow<'t, str>, &'t str)>,
    index: HashMap<String, usize>,
}

impl<'t> Names<'t> {
    pub(crate) fn of(trace: &'t Trace) -> Names<'t> {
        let mut pairs = Vec::new();
        let mut index = HashMap::new();
        for own in trace.names() {
            // Where two would share the table's name, the one that has it exactly keeps it.
            let plain = point::canonical(own);
            let plain = if plain == own || trace.info(&plain).is_none() { plain } else { Cow::Borrowed(own) };
            index.entry(plain.clone().into_owned()).or_insert(pairs.len());
            pairs.push((plain, own));
        }
        Names { pairs, index }
    }

    /// The table's names and the trace's own.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'t str)> {
        self.pairs.iter().map(|(plain, own)| (&**plain, *own))
    }

    /// What the trace calls the point with this name.
    pub(crate) fn own(&self, name: &str) -> Option<&'t str> {
        Some(self.pairs[self.place(name)?].1)
    }

    /// Where the point with this name stands in the trace.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }
}

/// One side of a pair.
pub(crate) struct Array<'a> {
    /// What its trace calls it.
    pub(crate) own: &'a str,
    pub(crate) shape: &'a [usize],
    /// The precision of its values as they are stored or recorded.
    pub(crate) values: Precision,
    /// The precision that its producer states.
    pub(crate) stated: Option<Precision>,
}

impl<'a> Array<'a> {
    pub(crate) fn stored(trace: &'a Trace, own: &'a str, side: &Side) -> Result<Array<'a>, Error> {
        let missing = || Error::NoSuchPoint { name: own.to_owned(), available: trace.len() };
        let info = trace.info(own).ok_or_else(missing)?;
        Ok(Array { own, shape: &info.shape, values: Precision::of(info.dtype), stated: side.precision })
    }
}

/// Two arrays of one point that are about to be compared.
pub(crate) struct Pair {
    pub(crate) measure: Result<Measure, String>,
    /// What is known before any value is read.
    pub(crate) finding: Finding,
}

impl Pair {
    /// `arrays`: the reference's and the candidate's.
    pub(crate) fn new(name: &str, arrays: [Array<'_>; 2], settings: &Settings) -> Pair {
        let [reference, candidate] = &arrays;
        let mut notes = Vec::new();
        for (array, side) in arrays.iter().zip(["reference", "candidate"]) {
            if array.own != name {
                notes.push(format!("the {side} calls it `{}`", array.own));
            }
        }
        let measure = Measure::new(name, reference.shape, candidate.shape);
        if let Ok(measure) = &measure {
            notes.extend_from_slice(&measure.alignment().notes);
        }
        // The coarser of all that is known decides.
        let precisions = arrays.iter().map(|array| array.values.max(array.stated.unwrap_or(Precision::F64)));
        let precision = settings.precision.or(precisions.max()).unwrap_or(Precision::F64);
        let finding = Finding {
            name: name.to_owned(),
            shape: reference.shape.to_vec(),
            notes,
            precision,
            outcome: Err("nothing was recorded".to_owned()),
        };
        Pair { measure, finding }
    }
}

/// How many tokens both sides ran on, and a note for each that does not say.
pub(crate) fn check_tokens(sides: [Option<&[i64]>; 2]) -> Result<(Option<usize>, Vec<String>), Error> {
    let unknown = sides.iter().zip(["reference", "candidate"]).filter(|(tokens, _)| tokens.is_none());
    let notes = unknown
        .map(|(_, side)| format!("the {side} does not say on which tokens it ran: not checked"))
        .collect();
    let [Some(reference), Some(candidate)] = sides else {
        return Ok((sides.into_iter().flatten().next().map(<[i64]>::len), notes));
    };
    let longer = reference.len().max(candidate.len());
    match (0..longer).find(|&at| reference.get(at) != candidate.get(at)) {
        None => Ok((Some(longer), notes)),
        Some(position) => Err(Error::TokensDiffer {
            position,
            reference: reference.get(position).copied(),
            candidate: candidate.get(position).copied(),
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::point::KINDS;
    use crate::tap::{Extent, Tap, View};
    use crate::tensor::{Tensor, Values};
    use crate::{Manifest, Producer, Verdict};

    pub(crate) const TOKENS: &[i64] = &[11, 12, 13, 14, 15];

    pub(crate) fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor { shape: shape.to_vec(), values: Values::F32(values.to_vec()) }
    }

    /// All points of a dense DeltaNet layer and an attention layer with experts, of arbitrary small values.
    pub(crate) fn pass() -> Vec<(String, Tensor)> {
        let mut points = Vec::new();
        let mut noise = 1u32;
        let mut next = move || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let experts = ["mlp.gate", "mlp.topk_index", "mlp.topk_weight", "mlp.experts", "mlp.shared_expert"];
        let foreign = |suffix: &str, layer: usize| match layer {
            0 => suffix.starts_with("self_attn") || experts.contains(&suffix),
            _ => suffix.starts_with("linear_attn") || ["mlp.gate_proj", "mlp.up_proj"].contains(&suffix),
        };
        let mut add = |kind: &point::PointKind, layer: usize| {
            let rest = if kind.axes.len() == 3 { vec![2, 3] } else { vec![6] };
            let shape = [&[if kind.extent == Extent::Tokens { TOKENS.len() } else { 2 }], &rest[..]].concat();
            let n: usize = shape.iter().product();
            let values = match kind.class {
                point::LimitClass::Index => Values::I64((0..n as i64).map(|at| at * 7 % 31).collect()),
                _ => Values::F32((0..n).map(|_| next()).collect()),
            };
            points.push((kind.name(layer), Tensor { shape, values }));
        };
        let (before, after): (Vec<_>, Vec<_>) =
            KINDS.iter().filter(|k| !k.in_layer).partition(|k| k.suffix == "model.embed_tokens");
        before.iter().for_each(|kind| add(kind, 0));
        for layer in [0, 1] {
            KINDS
                .iter()
                .filter(|k| k.in_layer && !foreign(k.suffix, layer))
                .for_each(|kind| add(kind, layer));
        }
        after.iter().for_each(|kind| add(kind, 0));
        points
    }

    /// Changes one value of a point: by 1 % of the largest, or to another choice.
    pub(crate) fn spoil(points: &mut [(String, Tensor)], name: &str, at: usize) {
        let tensor = &mut points.iter_mut().find(|(n, _)| n == name).unwrap().1;
        match &mut tensor.values {
            Values::F32(v) => {
                let at = at % v.len();
                v[at] += 0.01;
            }
            Values::I64(v) => {
                let at = at % v.len();
                v[at] += 100;
            }
            Values::F64(_) => unreachable!("the pass is in single precision"),
        }
    }

    /// Offers points to a tap as a pass does that runs over its tokens in pieces of these lengths.
    pub(crate) fn record_in_pieces(tap: &mut dyn Tap, points: &[(String, Tensor)], pieces: &[usize]) {
        let mut from = 0;
        for &piece in pieces {
            for (name, tensor) in points.iter().filter(|(name, _)| tap.wants(name)).collect::<Vec<_>>() {
                let state = point::parse(name).is_some_and(|(_, kind)| kind.extent == Extent::State);
                let extent = if state { Extent::State } else { Extent::Tokens };
                let row: usize = tensor.shape[1..].iter().product();
                let mut shape = tensor.shape.clone();
                let mut values = tensor.values.as_ref();
                if !state {
                    shape[0] = piece;
                    values = values.slice(from * row..(from + piece) * row);
                }
                tap.record(name, View { shape: &shape, values, extent }).unwrap();
            }
            from += piece;
        }
    }

    fn trace(points: Vec<(String, Tensor)>) -> Trace {
        Trace::from_tensors(Some(TOKENS.to_vec()), points)
    }

    fn judge(candidate: Vec<(String, Tensor)>) -> Report {
        compare(&trace(pass()), &trace(candidate), &Settings::default()).unwrap()
    }

    #[test]
    fn a_trace_agrees_with_itself() {
        let report = judge(pass());
        assert!(report.passed && report.divergence.is_none() && report.notes.is_empty());
        assert_eq!(report.tokens, Some(5));
        assert_eq!(report.points.len(), pass().len());
        for point in &report.points {
            assert_eq!((point.verdict, point.measure), (Verdict::Pass, 0.0), "{}", point.name);
            let integers = point.choices.is_some();
            assert_eq!(point.limit_from, if integers { "built-in" } else { "built-in f32" });
        }
        assert!(report.only_reference.is_empty() && report.only_candidate.is_empty());
    }

    #[test]
    fn one_changed_value_anywhere_is_found_there() {
        for (at, (name, _)) in pass().iter().enumerate() {
            let mut candidate = pass();
            spoil(&mut candidate, name, at);
            let report = judge(candidate);
            assert!(!report.passed);
            let divergence = report.divergence.unwrap();
            assert_eq!(divergence.point, *name);
            assert!(!divergence.causes.is_empty() && divergence.independent.is_empty());
            for (place, point) in report.points.iter().enumerate() {
                let expected = match place.cmp(&at) {
                    std::cmp::Ordering::Less => Verdict::Exonerated,
                    std::cmp::Ordering::Equal => Verdict::FirstDivergence,
                    std::cmp::Ordering::Greater => Verdict::Downstream,
                };
                assert_eq!(point.verdict, expected, "{name}: {}", point.name);
                assert_eq!(point.within_limit, place != at, "{name}: {}", point.name);
            }
        }
    }

    #[test]
    fn the_worst_value_is_shown_at_its_index() {
        let mut candidate = pass();
        let name = "model.layers.0.linear_attn.core_attn_out";
        spoil(&mut candidate, name, 2 * 6 + 4);
        let report = judge(candidate);
        let point = report.points.iter().find(|p| p.name == name).unwrap();
        let worst = point.stats.as_ref().unwrap().worst.as_ref().unwrap();
        assert_eq!(worst.index, [2, 1, 1]);
        assert!((worst.candidate - worst.reference - 0.01).abs() < 1e-6);
    }

    #[test]
    fn two_faults_in_two_branches_are_both_named() {
        let mut candidate = pass();
        for name in ["in_proj_z", "g", "norm"] {
            spoil(&mut candidate, &format!("model.layers.0.linear_attn.{name}"), 0);
        }
        let divergence = judge(candidate).divergence.unwrap();
        assert_eq!(divergence.point, "model.layers.0.linear_attn.in_proj_z");
        assert_eq!(divergence.independent, ["model.layers.0.linear_attn.g"]);
    }

    #[test]
    fn points_of_one_side_are_listed_and_suspected() {
        let mut candidate = pass();
        candidate.retain(|(name, _)| !name.contains("in_proj_") && name != "model.norm");
        candidate.push(("mine".to_owned(), f32s(&[1], &[1.])));
        spoil(&mut candidate, "model.layers.0.linear_attn.conv1d", 0);
        let report = judge(candidate);
        assert_eq!(report.only_candidate, ["mine"]);
        assert_eq!(report.only_reference.len(), 5);
        let divergence = report.divergence.unwrap();
        assert_eq!(divergence.uncompared_before, report.only_reference[..4]);
    }

    #[test]
    fn not_a_number_fails_whatever_the_limit() {
        let limits = Limits::new(vec![("*".to_owned(), f64::INFINITY)]).unwrap();
        let settings = Settings { limits, ..Settings::default() };
        for bad in [f32::NAN, f32::INFINITY] {
            let points = || vec![("x".to_owned(), f32s(&[2], &[1., bad]))];
            let report = compare(&trace(points()), &trace(points()), &settings).unwrap();
            assert!(!report.passed);
            let stats = report.points[0].stats.as_ref().unwrap();
            assert_eq!((stats.nonfinite_reference, stats.nonfinite_candidate), (1, 1));
        }
    }

    #[test]
    fn limits_are_overridden_and_unused_ones_reported() {
        let mut candidate = pass();
        spoil(&mut candidate, "model.layers.1.mlp", 0);
        let entries = vec![("*.mlp".to_owned(), 0.5), ("*.mpl".to_owned(), 0.5)];
        let settings = Settings { limits: Limits::new(entries).unwrap(), ..Settings::default() };
        let report = compare(&trace(pass()), &trace(candidate), &settings).unwrap();
        assert!(report.passed);
        assert_eq!(report.unused_limits, ["*.mpl"]);
        let point = report.points.iter().find(|p| p.name == "model.layers.1.mlp").unwrap();
        assert_eq!((point.limit, point.limit_from.as_str()), (0.5, "*.mlp"));
        assert!(point.measure > 0.0);
    }

    #[test]
    fn the_coarser_side_decides_the_limit() {
        let real = |noise: f64| -> Vec<f64> {
            (0..64).map(|n| f64::from(n) + 1.0 + noise * (f64::from(n * 37 % 64) - 32.0)).collect()
        };
        let point = |values| vec![("model.norm".to_owned(), Tensor { shape: vec![1, 64], values })];
        let reference = trace(point(Values::F64(real(0.0))));
        let limit = |candidate: &Trace, settings: &Settings| {
            let report = compare(&reference, candidate, settings).unwrap();
            (report.passed, report.points[0].limit_from.clone())
        };
        // Relative noise of 1e-8: fine for single precision, a fault in double.
        let noisy = real(1e-8);
        let single = trace(point(Values::F32(noisy.iter().map(|&x| x as f32).collect())));
        let double = trace(point(Values::F64(noisy)));
        assert_eq!(limit(&single, &Settings::default()), (true, "built-in f32".to_owned()));
        assert_eq!(limit(&double, &Settings::default()), (false, "built-in f64".to_owned()));
        let asked = Settings { precision: Some(Precision::BF16), ..Settings::default() };
        assert_eq!(limit(&double, &asked), (true, "built-in bf16".to_owned()));
        assert!(limit(&trace(point(Values::F64(real(0.0)))), &Settings::default()).0);
    }

    #[test]
    fn a_stated_precision_counts_as_much_as_a_stored_one() {
        let side = |precision: &str| {
            let producer = Producer { precision: Some(precision.to_owned()), ..Producer::default() };
            Side::of(Some(&Manifest { producer: Some(producer), ..Manifest::default() }))
        };
        let judged = |stated: Option<&str>, values| {
            let stated = stated.and_then(|name| side(name).precision);
            let array = || Array { own: "x", shape: &[1], values, stated };
            Pair::new("x", [array(), array()], &Settings::default()).finding.precision
        };
        assert_eq!(judged(None, Precision::F64), Precision::F64);
        assert_eq!(judged(Some("torch.bfloat16"), Precision::F32), Precision::BF16);
        assert_eq!(judged(Some("f64"), Precision::F32), Precision::F32);
        assert_eq!(judged(Some("int4"), Precision::F32), Precision::F32);
    }

    #[test]
    fn hooked_names_and_shapes_are_recognised_and_said() {
        let hooked = pass().into_iter().map(|(name, mut tensor)| {
            match tensor.shape[..] {
                [5, 2, 3] => tensor.shape = vec![10, 3],
                _ => tensor.shape.insert(0, 1),
            }
            (name.replace("model.", "model.language_model."), tensor)
        });
        let report = judge(hooked.collect());
        assert!(report.passed, "{:?}", report.divergence);
        assert_eq!(report.points.len(), pass().len());
        let note = |name: &str| &report.points.iter().find(|p| p.name == name).unwrap().notes;
        assert_eq!(note("lm_head"), &["candidate [1, 5, 6] read as [5, 6]"]);
        let q_norm = note("model.layers.1.self_attn.q_norm");
        assert_eq!(q_norm[0], "the candidate calls it `model.language_model.layers.1.self_attn.q_norm`");
        assert_eq!(q_norm[1], "candidate [10, 3] read as [5, 2, 3]");
    }

    #[test]
    fn shapes_that_do_not_fit_fail_by_name() {
        let mut candidate = pass();
        let lm_head = candidate.last_mut().unwrap();
        lm_head.1.shape = vec![6, 5];
        let report = judge(candidate);
        let point = report.points.last().unwrap();
        assert_eq!(point.verdict, Verdict::FirstDivergence);
        assert!(point.measure.is_nan() && point.stats.is_none());
        assert!(point.fault.as_ref().unwrap().contains("reference [5, 6], candidate [6, 5]"));
    }

    #[test]
    fn four_columns_of_state_are_compared_by_their_last_three() {
        let name = "model.layers.0.linear_attn.conv_state".to_owned();
        let reference = trace(vec![(name.clone(), f32s(&[2, 3], &[1., 2., 3., 4., 5., 6.]))]);
        let candidate = trace(vec![(name, f32s(&[1, 2, 4], &[9., 1., 2., 3., 9., 4., 5., 6.5]))]);
        let report = compare(&reference, &candidate, &Settings::default()).unwrap();
        let stats = report.points[0].stats.as_ref().unwrap();
        assert_eq!((stats.count, stats.max_abs), (6, 0.5));
        assert_eq!(stats.worst.as_ref().unwrap().index, [1, 2]);
        let swapped = compare(&candidate, &reference, &Settings::default()).unwrap();
        assert_eq!(swapped.points[0].stats.as_ref().unwrap().worst.as_ref().unwrap().index, [0, 1, 3]);
    }

    #[test]
    fn tokens_must_agree_where_both_are_known() {
        let of = |tokens: Option<&[i64]>| Trace::from_tensors(tokens.map(<[i64]>::to_vec), pass());
        let settings = Settings::default();
        let error = compare(&of(Some(&[1, 2])), &of(Some(&[1, 3])), &settings).unwrap_err().to_string();
        assert!(error.contains("position 1: the reference has 2, the candidate 3"), "{error}");
        let report = compare(&of(Some(&[1, 2])), &of(None), &settings).unwrap();
        assert_eq!(report.notes, ["the candidate does not say on which tokens it ran: not checked"]);
        assert_eq!(report.tokens, Some(2));
        assert_eq!(compare(&of(None), &of(None), &settings).unwrap().notes.len(), 2);
    }

    #[test]
    fn comparing_nothing_is_an_error() {
        let candidate = vec![("mine".to_owned(), f32s(&[1], &[1.]))];
        let error = compare(&trace(pass()), &trace(candidate), &Settings::default()).unwrap_err().to_string();
        assert!(error.contains("nothing was compared"), "{error}");
        assert!(error.contains("model.embed_tokens") && error.contains("candidate: mine"), "{error}");
        let points = Some(Globs::new(&["no.such"]).unwrap());
        let settings = Settings { points, ..Settings::default() };
        assert!(compare(&trace(pass()), &trace(pass()), &settings).is_err());
        let empty = || trace(vec![("x".to_owned(), f32s(&[0], &[]))]);
        let report = compare(&empty(), &empty(), &Settings::default()).unwrap();
        assert!(!report.passed, "an empty array agrees with nothing");
    }

    #[test]
    fn a_name_with_and_without_its_wrapping_is_not_confused() {
        let points = vec![
            ("model.language_model.norm".to_owned(), f32s(&[1], &[7.])),
            ("model.norm".to_owned(), f32s(&[1], &[1.])),
        ];
        let candidate = vec![("model.norm".to_owned(), f32s(&[1], &[1.]))];
        let report = compare(&trace(points), &trace(candidate), &Settings::default()).unwrap();
        assert!(report.passed);
        assert_eq!(report.only_reference, ["model.language_model.norm"]);
    }
}
