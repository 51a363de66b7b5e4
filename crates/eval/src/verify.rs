//! Holds the reference against a trace from elsewhere.

use model::Checkpoint;
use reference::Precision;
use trace::{CompareTap, Limits, ModelId, Report, Role, Settings, Side, Trace};

use crate::dump::{chosen, producer};
use crate::teacher::teach;
use crate::tolerance::trace_rows;
use crate::{Error, Run, engine, run};

/// What to judge, and by what.
#[derive(Clone, Debug, Default)]
pub struct Verify {
    /// The tokens that the trace is expected to be of; those it says if absent.
    pub tokens: Option<Vec<u32>>,
    /// Globs of the points to compare; all that the trace has if there are none.
    pub points: Vec<String>,
    /// The limits to judge by.
    pub limits: Limits,
    /// Whether each block is computed from the trace's own input to it.
    pub local: bool,
}

/// The precision to run in for a trace: f64 for one that was computed in f64, or stored so by who does not say, and
/// f32 for the rest.
pub fn precision_for(trace: &Trace) -> Precision {
    let producer = trace.manifest().and_then(|manifest| manifest.producer.as_ref());
    let stated = producer.and_then(|p| p.precision.as_deref()).and_then(trace::Precision::from_name);
    let doubles =
        || trace.names().filter_map(|name| trace.info(name)).any(|info| info.dtype == trace::Dtype::F64);
    if stated.map_or_else(doubles, |stated| stated == trace::Precision::F64) {
        Precision::F64
    } else {
        Precision::F32
    }
}

/// Runs the trace's tokens and judges the trace by what the reference computes.
///
/// # Errors
/// Whatever [`run`] refuses, a trace of other tokens or of unknown ones, one that has no point in common with this
/// model, or a pattern that matches no point.
pub fn verify(checkpoint: &Checkpoint, trace: &Trace, what: &Verify, how: &Run<'_>) -> Result<Report, Error> {
    let tokens = tokens_of(&what.tokens, trace)?;
    let rows = if what.local { trace_rows(trace) } else { Vec::new() };
    let settings = Settings {
        limits: what.limits.clone().with_rows(rows)?,
        points: if what.points.is_empty() { None } else { Some(chosen(&what.points, checkpoint)?) },
        precision: None,
        contract: Some(how.activations.contract().to_owned()),
    };
    let side = Side {
        producer: Some(producer(how)),
        model: Some(ModelId { path: checkpoint.path().display().to_string(), sha256: None }),
        precision: Some(match how.precision {
            Precision::F32 => trace::Precision::F32,
            Precision::F64 => trace::Precision::F64,
        }),
    };
    let signed: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
    let mut tap = CompareTap::new(trace, Role::Reference, side, &signed, settings)?;
    if !what.local {
        run(checkpoint, &tokens, how, &mut tap)?;
        return Ok(tap.finish()?);
    }
    let lacking =
        engine::pool(how.threads())?.install(|| teach(checkpoint, trace, &tokens, how, &mut tap))?;
    let mut report = tap.finish()?;
    report.notes.insert(0, "each block is computed from the trace's own input to it".to_owned());
    if !lacking.is_empty() {
        let names = lacking.join(", ");
        report
            .notes
            .push(format!("inputs that the trace lacks, taken from the reference's layer before: {names}"));
    }
    Ok(report)
}

/// The tokens to run: those given, else the trace's own.
pub(crate) fn tokens_of(given: &Option<Vec<u32>>, trace: &Trace) -> Result<Vec<u32>, Error> {
    match (given, trace.tokens()) {
        (Some(tokens), _) => Ok(tokens.clone()),
        (None, Some(tokens)) => ids(tokens),
        (None, None) => Err(Error::NoTokens),
    }
}

/// A trace's tokens as a model takes them.
fn ids(tokens: &[i64]) -> Result<Vec<u32>, Error> {
    let id = |(position, &token): (usize, &i64)| {
        u32::try_from(token).map_err(|_| Error::TokenId { position, token })
    };
    tokens.iter().enumerate().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trace::{Tensor, Values};

    #[test]
    fn ids_are_not_negative() {
        assert_eq!(ids(&[0, 5]).unwrap(), [0, 5]);
        let error = ids(&[0, -5]).unwrap_err().to_string();
        assert!(error.contains("-5") && error.contains("position 1"), "{error}");
    }

    #[test]
    fn doubles_are_run_in_double_precision() {
        let of = |values| {
            let tensor = Tensor { shape: vec![1], values };
            precision_for(&Trace::from_tensors(None, vec![("lm_head".into(), tensor)]))
        };
        assert_eq!(of(Values::F64(vec![1.0])), Precision::F64);
        assert_eq!(of(Values::F32(vec![1.0])), Precision::F32);
    }
}
