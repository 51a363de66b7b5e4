//! A trace judged block by block: each is computed from the trace's own input to it.
//!
//! What a layer gets wrong is then not drowned by what the layers before it handed on.

use model::Checkpoint;
use reference::Model;
use trace::{CompareTap, Trace, point};

use crate::layered::{Exact, Layered};
use crate::run::Watched;
use crate::{Error, Run};

/// Runs each block of the reference on the input that the trace has for it, and hands what it computes to `tap`.
/// Returns the layers whose input the trace lacks: they, and the head, got what the reference made of the layer before.
pub(crate) fn teach(
    checkpoint: &Checkpoint,
    trace: &Trace,
    tokens: &[u32],
    how: &Run<'_>,
    tap: &mut CompareTap<'_>,
) -> Result<Vec<String>, Error> {
    let config = checkpoint.config();
    crate::run::check(tokens, config)?;
    let calls = how.split.calls(tokens.len())?;
    let (layers, width) = (config.num_hidden_layers, config.hidden_size);
    // The output of each layer is the next one's input; the last one's is the head's.
    let names = |l: usize| match l {
        0 => "model.embed_tokens".to_owned(),
        l => format!("model.layers.{}", l - 1),
    };
    let given: Vec<Option<&str>> =
        (0..=layers).map(|l| stored(trace, &names(l), tokens.len() * width)).collect();
    how.progress.begin("reading weights", 0);
    let weights = checkpoint.weights(how.non_finite)?;
    let model = Model::new(config, weights, how.precision);
    let model = model.with_kernels(how.kernels).with_activations(how.activations)?;
    let mut pass = Exact::new(model, config);
    how.progress.begin("running", (layers * calls.len()) as u64);
    for (n, call) in calls.into_iter().enumerate() {
        let input = |l: usize, computed: Vec<f64>| -> Result<Vec<f64>, Error> {
            let Some(own) = given[l] else { return Ok(computed) };
            let rows = trace.get(own)?.values.as_ref().to_f64();
            let rows = &rows[call.start * width..call.end * width];
            Ok(rows.iter().map(|&x| how.precision.round(x)).collect())
        };
        let mut tap = Watched { tap: &mut *tap, before: (n * layers) as u64, progress: how.progress };
        let mut x = pass.enter(&tokens[call.clone()], &mut tap)?;
        for l in 0..layers {
            x = pass.block(l, &input(l, x)?, &mut tap)?;
        }
        pass.leave(&input(layers, x)?, &mut tap)?;
        pass.advance(call.len());
    }
    Ok((0..=layers).filter(|&l| given[l].is_none()).map(names).collect())
}

/// What the trace calls a point, if it has all values of it.
pub(crate) fn stored<'t>(trace: &'t Trace, name: &str, values: usize) -> Option<&'t str> {
    let own = trace.names().find(|own| point::canonical(own) == name)?;
    let held: usize = trace.info(own)?.shape.iter().product();
    (held == values).then_some(own)
}
