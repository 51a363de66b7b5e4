//! Compares two passes that run in turns, a piece of the text at a time.

use std::collections::{HashMap, HashSet};

use crate::compare::{Array, Pair, Settings};
use crate::measure::Measure;
use crate::point::order_key;
use crate::precision::Precision;
use crate::report::{Finding, Findings, Report, Side, judge};
use crate::tap::{Extent, Tap, TapError, View};
use crate::tensor::ValuesRef;
use crate::{Error, Trace};

/// Judges a candidate by a reference that runs beside it: neither side's activations are held for longer than a piece.
pub struct Beside {
    sides: [Side; 2],
    settings: Settings,
    /// How many tokens both run on in all.
    tokens: usize,
    points: Vec<Compared>,
    index: HashMap<String, usize>,
    /// What one side offered and the other did not record.
    only: [HashSet<String>; 2],
}

/// A point of which pieces have come.
struct Compared {
    finding: Finding,
    measure: Result<Measure, String>,
    /// Tokens still to come; a state has none.
    to_come: usize,
    /// Both sides' latest values, of a state.
    state: Option<[Vec<f64>; 2]>,
}

/// One piece of the text, as the reference recorded it, while the candidate runs over the same.
pub struct Piece<'a> {
    beside: &'a mut Beside,
    reference: &'a Trace,
    /// Tokens of a point that have come: a head's logits do not come all at once.
    come: HashMap<String, usize>,
}

impl Beside {
    /// Prepares to compare passes over `tokens` tokens. `sides`: what the reference and the candidate are.
    pub fn new(sides: [Side; 2], tokens: usize, settings: Settings) -> Beside {
        let (points, index, only) = (Vec::new(), HashMap::new(), Default::default());
        Beside { sides, settings, tokens, points, index, only }
    }

    /// A tap for the candidate's pass over what the reference recorded as `reference`.
    pub fn piece<'a>(&'a mut self, reference: &'a Trace) -> Piece<'a> {
        let missing =
            reference.names().filter(|name| self.settings.wants(name) && !self.index.contains_key(*name));
        self.only[0].extend(missing.map(str::to_owned).collect::<Vec<_>>());
        Piece { beside: self, reference, come: HashMap::new() }
    }

    /// Judges all pieces.
    ///
    /// # Errors
    /// Nothing was compared.
    pub fn finish(mut self, notes: Vec<String>) -> Result<Report, Error> {
        let tokens = self.tokens;
        self.points.sort_by_key(|point| order_key(&point.finding.name));
        let points = self.points.into_iter().map(|point| point.finish(tokens)).collect();
        let only = self.only.map(|names| {
            let mut names: Vec<String> = names.into_iter().collect();
            names.sort_by(|a, b| (order_key(a), a).cmp(&(order_key(b), b)));
            names
        });
        let findings = Findings {
            contract: self.settings.contract,
            sides: self.sides,
            tokens: Some(tokens),
            notes,
            points,
            only,
        };
        judge(findings, &self.settings.limits)
    }
}

impl Compared {
    fn finish(self, tokens: usize) -> Finding {
        let outcome = match self.measure {
            Err(fault) => Err(fault),
            Ok(_) if self.to_come > 0 => {
                Err(format!("{} of {tokens} tokens were compared", tokens - self.to_come))
            }
            Ok(mut measure) => {
                if let Some([reference, candidate]) = &self.state {
                    measure.add(reference, candidate);
                }
                Ok(measure.finish())
            }
        };
        Finding { outcome, ..self.finding }
    }
}

impl Tap for Piece<'_> {
    fn wants(&self, name: &str) -> bool {
        self.beside.settings.wants(name) && self.reference.info(name).is_some()
    }

    fn record(&mut self, name: &str, view: View<'_>) -> Result<(), TapError> {
        let fault = |e: Error| TapError::new(name, e);
        view.check().map_err(|e| TapError::new(name, e))?;
        let reference = self.reference.get(name).map_err(fault)?;
        let beside = &mut *self.beside;
        let at = *beside.index.entry(name.to_owned()).or_insert_with(|| {
            beside.only[0].remove(name);
            let whole = |shape: &[usize]| {
                let mut shape = shape.to_vec();
                if let (Some(tokens), Extent::Tokens) = (shape.first_mut(), view.extent) {
                    *tokens = beside.tokens;
                }
                shape
            };
            let shapes = [whole(&reference.shape), whole(view.shape)];
            let values = [reference.values.as_ref(), view.values].map(|values| match values {
                ValuesRef::F32(_) => Precision::F32,
                ValuesRef::F64(_) | ValuesRef::I64(_) => Precision::F64,
            });
            let array = |side: usize| Array {
                own: name,
                shape: &shapes[side],
                values: values[side],
                stated: beside.sides[side].precision,
            };
            // Two passes of one program: nothing is to be read otherwise than it stands.
            let Pair { measure, finding } = Pair::new(name, [array(0), array(1)], &beside.settings);
            let same = shapes[0] == shapes[1];
            let fault = || format!("shapes differ: reference {:?}, candidate {:?}", shapes[0], shapes[1]);
            let measure = if same { measure } else { Err(fault()) };
            let to_come = if view.extent == Extent::Tokens { beside.tokens } else { 0 };
            beside.points.push(Compared { finding, measure, to_come, state: None });
            beside.points.len() - 1
        });
        let point = &mut beside.points[at];
        let Ok(measure) = &mut point.measure else { return Ok(()) };
        let a = view.values.to_f64();
        if view.extent == Extent::State {
            let b = reference.values.as_ref().to_f64();
            if b.len() == a.len() {
                point.state = Some([b, a]);
                return Ok(());
            }
        } else if reference.shape[1..] == view.shape[1..] {
            let row: usize = view.shape[1..].iter().product();
            let come = self.come.entry(name.to_owned()).or_default();
            let rows = *come * row..(*come + view.shape[0]) * row;
            *come += view.shape[0];
            if *come <= reference.shape[0] {
                measure.add(&reference.values.as_ref().slice(rows).to_f64(), &a);
                point.to_come = point.to_come.saturating_sub(view.shape[0]);
                return Ok(());
            }
        }
        let fault = format!("shapes differ: reference {:?}, candidate {:?}", reference.shape, view.shape);
        point.measure = Err(fault);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::{TOKENS, f32s, pass, record_in_pieces, spoil};
    use crate::{Collect, Verdict, compare};

    /// Runs both in pieces of these lengths, of which the candidate records the whole at a time or a token.
    fn beside(
        whole: bool,

        reference: &[(String, crate::Tensor)],
        candidate: &[(String, crate::Tensor)],
        pieces: &[usize],
    ) -> Report {
        let mut beside = Beside::new(Default::default(), TOKENS.len(), Settings::default());
        let mut from = 0;
        for &piece in pieces {
            let rows = |points: &[(String, crate::Tensor)]| -> Vec<(String, crate::Tensor)> {
                let cut = |(name, tensor): &(String, crate::Tensor)| {
                    let state = crate::point::parse(name).is_some_and(|(_, k)| k.extent == Extent::State);
                    if state || tensor.shape[0] != TOKENS.len() {
                        return (name.clone(), tensor.clone());
                    }
                    let row: usize = tensor.shape[1..].iter().product();
                    let values = tensor.values.as_ref().slice(from * row..(from + piece) * row).to_values();
                    let shape = [&[piece], &tensor.shape[1..]].concat();
                    (name.clone(), crate::Tensor { shape, values })
                };
                points.iter().map(cut).collect()
            };
            let mut held = Collect::all();
            record_in_pieces(&mut held, &rows(reference), &[piece]);
            let held = held.into_trace();
            let ones = vec![1; piece];
            let parts = if whole { &[piece][..] } else { &ones };
            record_in_pieces(&mut beside.piece(&held), &rows(candidate), parts);
            from += piece;
        }
        beside.finish(Vec::new()).unwrap()
    }

    #[test]
    fn pieces_say_what_two_traces_say() {
        let (reference, mut candidate) = (pass(), pass());
        spoil(&mut candidate, "model.layers.0.linear_attn.g", 3);
        spoil(&mut candidate, "model.layers.0.linear_attn.recurrent_state", 1);
        spoil(&mut candidate, "lm_head", 5);
        let trace = |points: &[(String, crate::Tensor)]| Trace::from_tensors(None, points.to_vec());
        let whole = compare(&trace(&reference), &trace(&candidate), &Settings::default()).unwrap();
        for pieces in [&[5][..], &[1, 4], &[2, 2, 1]] {
            let report = beside(pieces.len() > 1, &reference, &candidate, pieces);
            assert_eq!(report.divergence.unwrap().point, "model.layers.0.linear_attn.g");
            assert_eq!(report.points.len(), whole.points.len());
            for (found, wanted) in report.points.iter().zip(&whole.points) {
                assert_eq!((&found.name, found.measure), (&wanted.name, wanted.measure));
                assert_eq!((found.verdict, &found.shape), (wanted.verdict, &wanted.shape));
                assert_eq!(found.logits.is_some(), wanted.logits.is_some());
            }
        }
        assert!(
            beside(true, &reference, &reference, &[3, 2]).points.iter().all(|p| p.verdict == Verdict::Pass)
        );
    }

    #[test]
    fn what_one_side_lacks_is_named_or_fails() {
        let (reference, mut candidate) = (pass(), pass());
        candidate.retain(|(name, _)| name != "model.norm");
        assert_eq!(beside(true, &reference, &candidate, &[5]).only_reference, ["model.norm"]);
        let mut other = pass();
        let logits = other.iter_mut().find(|(name, _)| name == "lm_head").unwrap();
        logits.1 = f32s(&[5, 3], &[0.0; 15]);
        let report = beside(true, &reference, &other, &[2, 3]);
        assert_eq!(report.divergence.unwrap().point, "lm_head");
        assert!(report.points.last().unwrap().fault.as_ref().unwrap().contains("[5, 3]"));
    }
}
