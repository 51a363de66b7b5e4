//! Comparing a pass with a finished trace while the pass runs.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use crate::compare::{Array, Names, Pair, Settings, check_tokens};
use crate::limits::Limits;
use crate::measure::Live;
use crate::point::order_key;
use crate::precision::Precision;
use crate::report::{Finding, Findings, Report, Side, judge};
use crate::tap::{Extent, Tap, TapError, View, ViewError};
use crate::tensor::ValuesRef;
use crate::{Error, Trace};

/// Which side of the comparison the pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The pass is what the stored trace is judged by.
    Reference,
    /// The pass is judged by the stored trace.
    Candidate,
}

/// A tap that compares each record with a stored trace at once and keeps statistics, not values. Only the latest
/// record of a state is held.
pub struct CompareTap<'t> {
    stored: &'t Trace,
    stored_side: Side,
    names: Names<'t>,
    role: Role,
    side: Side,
    settings: Settings,
    tokens: usize,
    notes: Vec<String>,
    points: Vec<Recorded>,
    index: HashMap<String, usize>,
    /// What the pass offered and the trace lacks.
    lacking: RefCell<HashSet<String>>,
}

/// A point that is being recorded.
struct Recorded {
    extent: Extent,
    /// The recorded shape without the axis of tokens.
    rest: Vec<usize>,
    /// Tokens still to come; a state is complete with its first record.
    to_come: usize,
    finding: Finding,
    /// The reason if nothing can be compared.
    live: Result<Live, String>,
}

impl<'t> CompareTap<'t> {
    /// Prepares to compare a pass over `tokens` with `stored`. `side` says what the pass is; its precision decides
    /// the limits together with that of the stored values. Fails if the trace was made on other tokens.
    pub fn new(
        stored: &'t Trace,
        role: Role,
        side: Side,
        tokens: &[i64],
        settings: Settings,
    ) -> Result<CompareTap<'t>, Error> {
        let (_, notes) = check_tokens(role.sort(Some(tokens), stored.tokens()))?;
        Ok(CompareTap {
            stored,
            stored_side: Side::of(stored.manifest()),
            names: Names::of(stored),
            role,
            side,
            settings,
            tokens: tokens.len(),
            notes,
            points: Vec::new(),
            index: HashMap::new(),
            lacking: RefCell::default(),
        })
    }

    /// Judges by other limits, such as those that only the pass itself gives.
    pub fn set_limits(&mut self, limits: Limits) {
        self.settings.limits = limits;
    }

    /// Judges what was recorded.
    pub fn finish(self) -> Result<Report, Error> {
        let unmatched = self.names.iter().map(|(name, _)| name);
        let unmatched = unmatched.filter(|name| self.settings.wants(name) && !self.index.contains_key(*name));
        let only_stored = unmatched.map(str::to_owned).collect();
        let mut lacking: Vec<_> = self.lacking.into_inner().into_iter().collect();
        lacking.sort_by(|a, b| (order_key(a), a).cmp(&(order_key(b), b)));
        let mut points = Vec::new();
        for point in self.points {
            points.push(point.finish(self.tokens)?);
        }
        if self.role == Role::Candidate {
            points.sort_by_key(|point| self.names.place(&point.name));
        }
        let findings = Findings {
            contract: self.settings.contract,
            sides: self.role.sort(self.side, self.stored_side),
            tokens: Some(self.tokens),
            notes: self.notes,
            points,
            only: self.role.sort(lacking, only_stored),
        };
        judge(findings, &self.settings.limits)
    }

    fn begin(&self, name: &str, view: View<'_>) -> Result<Recorded, Error> {
        let mut shape = view.shape.to_vec();
        if view.extent == Extent::Tokens {
            shape[0] = self.tokens;
        }
        let values = match view.values {
            ValuesRef::F32(_) => Precision::F32,
            ValuesRef::F64(_) | ValuesRef::I64(_) => Precision::F64,
        };
        let recorded = Array { own: name, shape: &shape, values, stated: self.side.precision };
        let own = self.names.own(name).unwrap_or(name);
        let stored = Array::stored(self.stored, own, &self.stored_side)?;
        let Pair { measure, finding } = Pair::new(name, self.role.sort(recorded, stored), &self.settings);
        let live = match measure {
            Ok(measure) => Ok(Live::new(measure, self.role as usize, self.stored.reader(own)?)),
            Err(fault) => Err(fault),
        };
        Ok(Recorded {
            extent: view.extent,
            rest: rest(view).to_vec(),
            to_come: if view.extent == Extent::Tokens { self.tokens } else { 0 },
            finding,
            live,
        })
    }

    fn take(&mut self, name: &str, view: View<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        view.check()?;
        let at = match self.index.get(name) {
            Some(&at) => at,
            None => {
                self.points.push(self.begin(name, view)?);
                self.index.insert(name.to_owned(), self.points.len() - 1);
                self.points.len() - 1
            }
        };
        let point = &mut self.points[at];
        if point.extent != view.extent || point.rest != rest(view) {
            let before = point.rest.clone();
            return Err(ViewError::Changed { before, now: view.shape.to_vec() }.into());
        }
        if view.extent == Extent::Tokens {
            point.to_come = point.to_come.checked_sub(view.shape[0]).ok_or(ViewError::TooManyTokens {
                announced: self.tokens,
                recorded: self.tokens - point.to_come + view.shape[0],
            })?;
        }
        if let Ok(live) = &mut point.live {
            live.add(view)?;
        }
        Ok(())
    }
}

/// The axes that must not change from record to record.
fn rest<'a>(view: View<'a>) -> &'a [usize] {
    &view.shape[usize::from(view.extent == Extent::Tokens)..]
}

impl Role {
    /// The reference's and the candidate's, of what belongs to the pass and to the trace.
    fn sort<T>(self, pass: T, stored: T) -> [T; 2] {
        match self {
            Role::Reference => [pass, stored],
            Role::Candidate => [stored, pass],
        }
    }
}

impl Recorded {
    fn finish(self, tokens: usize) -> Result<Finding, Error> {
        let outcome = match self.live {
            Err(fault) => Err(fault),
            Ok(_) if self.to_come > 0 => {
                Err(format!("the pass recorded {} of {tokens} tokens", tokens - self.to_come))
            }
            Ok(live) => Ok(live.finish()?),
        };
        Ok(Finding { outcome, ..self.finding })
    }
}

impl Tap for CompareTap<'_> {
    fn wants(&self, name: &str) -> bool {
        if !self.settings.wants(name) {
            return false;
        }
        let found = self.names.own(name).is_some();
        if !found {
            let mut lacking = self.lacking.borrow_mut();
            if !lacking.contains(name) {
                lacking.insert(name.to_owned());
            }
        }
        found
    }

    fn record(&mut self, name: &str, view: View<'_>) -> Result<(), TapError> {
        self.take(name, view).map_err(|e| TapError::new(name, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::{self, f32s, pass, record_in_pieces};
    use crate::{Tensor, Values, compare};
    use proptest::prelude::*;

    fn side() -> Side {
        Side { precision: Some(Precision::F32), ..Side::default() }
    }

    fn json(report: &Report) -> serde_json::Value {
        serde_json::to_value(report).unwrap()
    }

    #[test]
    fn both_roles_say_what_two_traces_say() {
        let (reference, mut candidate) = (pass(), pass());
        tests::spoil(&mut candidate, "model.layers.0.linear_attn.g", 3);
        tests::spoil(&mut candidate, "model.layers.0.linear_attn.recurrent_state", 1);
        tests::spoil(&mut candidate, "lm_head", 5);
        candidate.retain(|(name, _)| name != "model.norm");
        candidate.push(("mine".to_owned(), f32s(&[1], &[1.])));
        let tokens = tests::TOKENS;
        let trace = |points: &[(String, Tensor)]| Trace::from_tensors(Some(tokens.to_vec()), points.to_vec());
        let mut expected = compare(&trace(&reference), &trace(&candidate), &Settings::default()).unwrap();
        assert!(!expected.passed);
        for (role, recorded, stored) in [
            (Role::Reference, &reference, trace(&candidate)),
            (Role::Candidate, &candidate, trace(&reference)),
        ] {
            let mut tap = CompareTap::new(&stored, role, side(), tokens, Settings::default()).unwrap();
            record_in_pieces(&mut tap, recorded, &[2, 3]);
            let report = tap.finish().unwrap();
            expected.reference.precision = (role == Role::Reference).then_some(Precision::F32);
            expected.candidate.precision = (role == Role::Candidate).then_some(Precision::F32);
            let (mut found, mut wanted) = (json(&report), json(&expected));
            // Sums over pieces round otherwise; everything else is the same.
            for value in [&mut found, &mut wanted] {
                for point in value["points"].as_array_mut().unwrap() {
                    if let Some(stats) = point["stats"].as_object_mut() {
                        let spread = stats.remove("nmse_centered").unwrap();
                        assert!(spread.is_number());
                    }
                }
            }
            let points = [&mut found, &mut wanted].map(|value| value["points"].take());
            assert_eq!(found, wanted, "{role:?}");
            for (found, wanted) in points[0].as_array().unwrap().iter().zip(points[1].as_array().unwrap()) {
                assert_eq!(found, wanted, "{role:?}");
            }
        }
    }

    #[test]
    fn other_tokens_are_refused_before_the_pass_runs() {
        let stored = Trace::from_tensors(Some(vec![1, 2]), vec![]);
        let new = |tokens: &[i64]| {
            let tap = CompareTap::new(&stored, Role::Reference, side(), tokens, Settings::default());
            tap.map(drop).map_err(|e| e.to_string())
        };
        assert!(new(&[1, 2]).is_ok());
        assert!(new(&[1, 3]).unwrap_err().contains("position 1: the reference has 3, the candidate 2"));
        assert!(new(&[1]).unwrap_err().contains("position 1: the reference has none, the candidate 2"));
    }

    #[test]
    fn an_incomplete_record_fails_its_point() {
        let stored = Trace::from_tensors(Some(vec![1, 2]), vec![("x".to_owned(), f32s(&[2, 1], &[1., 2.]))]);
        let mut tap =
            CompareTap::new(&stored, Role::Candidate, side(), &[1, 2], Settings::default()).unwrap();
        let one = View { shape: &[1, 1], values: ValuesRef::F32(&[1.]), extent: Extent::Tokens };
        tap.record("x", one).unwrap();
        let report = tap.finish().unwrap();
        assert!(!report.passed);
        assert_eq!(report.points[0].fault.as_deref(), Some("the pass recorded 1 of 2 tokens"));
    }

    #[test]
    fn records_that_contradict_each_other_stop_the_pass() {
        let stored = Trace::from_tensors(None, vec![("x".to_owned(), f32s(&[2, 1], &[1., 2.]))]);
        let mut tap =
            CompareTap::new(&stored, Role::Candidate, side(), &[1, 2], Settings::default()).unwrap();
        let view = |shape, values, extent| View { shape, values: ValuesRef::F32(values), extent };
        tap.record("x", view(&[1, 1], &[1.], Extent::Tokens)).unwrap();
        for (view, fault) in [
            (view(&[2, 1], &[1., 2.], Extent::Tokens), "2 tokens were announced, but 3 were recorded"),
            (view(&[1, 2], &[1., 2.], Extent::Tokens), "this one has [1, 2]"),
            (view(&[1, 1], &[1.], Extent::State), "this one has [1, 1]"),
            (view(&[1, 1], &[], Extent::Tokens), "holds 0 values"),
        ] {
            let error = tap.record("x", view).unwrap_err().to_string();
            assert!(error.starts_with("at point `x`") && error.contains(fault), "{error}");
        }
        assert!(
            tap.record("y", view(&[1, 1], &[1.], Extent::Tokens)).unwrap_err().to_string().contains("`y`")
        );
    }

    #[test]
    fn the_last_token_alone_is_compared_with_the_last_row() {
        let rows: Vec<f32> = (0..6).map(|x| x as f32).collect();
        for (role, stored, recorded) in [
            (Role::Reference, f32s(&[1, 1, 2], &rows[4..]), &rows),
            (Role::Reference, f32s(&[3, 2], &rows), &rows),
        ] {
            let stored = Trace::from_tensors(None, vec![("lm_head".to_owned(), stored)]);
            let mut tap = CompareTap::new(&stored, role, side(), &[1, 2, 3], Settings::default()).unwrap();
            let points = [("lm_head".to_owned(), f32s(&[3, 2], recorded))];
            record_in_pieces(&mut tap, &points, &[1, 1, 1]);
            let report = tap.finish().unwrap();
            assert!(report.passed, "{report:?}");
            let logits = report.points[0].logits.as_ref().unwrap();
            assert_eq!(logits.top1_agree, logits.positions);
        }
    }

    #[test]
    fn only_wanted_points_are_asked_for() {
        let stored = Trace::from_tensors(None, pass());
        let points = Some(crate::Globs::new(&["*.mlp"]).unwrap());
        let settings = Settings { points, limits: Limits::default(), ..Settings::default() };
        let mut tap = CompareTap::new(&stored, Role::Reference, side(), tests::TOKENS, settings).unwrap();
        assert!(tap.wants("model.layers.0.mlp"));
        assert!(!tap.wants("model.layers.0") && !tap.wants("model.layers.9.mlp"));
        let recorded: Vec<_> = pass().into_iter().filter(|(name, _)| name == "model.layers.0.mlp").collect();
        record_in_pieces(&mut tap, &recorded, &[5]);
        let report = tap.finish().unwrap();
        assert_eq!(report.points.len(), 1);
        assert_eq!(report.only_reference, ["model.layers.9.mlp"]);
        assert_eq!(report.only_candidate, ["model.layers.1.mlp"]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_judgement(cuts in proptest::collection::vec(0usize..=5, 0..4), at in 0usize..40) {
            let mut candidate = pass();
            let spoilt = at % candidate.len();
            let name = candidate[spoilt].0.clone();
            tests::spoil(&mut candidate, &name, at);
            let stored = Trace::from_tensors(Some(tests::TOKENS.to_vec()), candidate);
            let mut tap =
                CompareTap::new(&stored, Role::Reference, side(), tests::TOKENS, Settings::default()).unwrap();
            let mut cuts = [&[0, 5][..], &cuts].concat();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|w| w[1] - w[0]).collect();
            record_in_pieces(&mut tap, &pass(), &pieces);
            let report = tap.finish().unwrap();
            prop_assert_eq!(report.divergence.unwrap().point, name);
            for point in &report.points {
                prop_assert_eq!(point.within_limit, point.verdict != crate::Verdict::FirstDivergence);
                prop_assert!(point.fault.is_none());
            }
        }
    }

    #[test]
    fn integers_may_come_from_the_pass_as_integers_or_reals() {
        let name = "model.layers.0.mlp.topk_index";
        let stored = Tensor { shape: vec![2, 2], values: Values::F32(vec![3., 1., 0., 2.]) };
        let stored = Trace::from_tensors(None, vec![(name.to_owned(), stored)]);
        let mut tap =
            CompareTap::new(&stored, Role::Reference, side(), &[1, 2], Settings::default()).unwrap();
        let view = View { shape: &[2, 2], values: ValuesRef::I64(&[1, 3, 0, 1]), extent: Extent::Tokens };
        tap.record(name, view).unwrap();
        let report = tap.finish().unwrap();
        let choices = report.points[0].choices.as_ref().unwrap();
        assert_eq!((choices.equal_sets, choices.tokens), (1, 2));
        assert_eq!(report.points[0].measure, 0.5);
        assert!(!report.passed);
    }
}
