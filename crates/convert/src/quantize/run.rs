//! Makes the tensors of a plan: rows from the source through all threads to the sink, while what is done is written.

use rayon::prelude::*;
use serde::Serialize;

use super::error::Error;
use super::importance::Importance;
use super::input::{Input, InputRows, row_bytes};
use super::loss::{Figures, Loss};
use super::plan::{Plan, Planned};
use crate::digest::{Digest, Hash, Hashes};
use crate::pipeline::{Progress, Sink};

/// Bytes made between two writes. Two such pieces are held at a time, whatever the size of the model.
const BATCH_BYTES: usize = 8 << 20;
/// Values that a thread makes at a time, in whole rows: enough blocks to fill the lanes of the encoders.
const PIECE_VALUES: usize = 1 << 15;

/// A tensor that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Made {
    /// What was planned.
    #[serde(flatten)]
    pub planned: Planned,
    /// Bits of a weight.
    pub bits_per_weight: f64,
    /// What it cost; nothing if it was copied.
    #[serde(flatten)]
    pub figures: Option<Figures>,
    /// The hash of its bytes, if asked for.
    #[serde(flatten)]
    pub hash: Option<Hash>,
}

/// Makes every tensor and hands it on, in order.
///
/// # Errors
/// Weights that are no numbers, what encoders refuse, what the sink says.
pub fn run(
    plan: &Plan,
    originals: &[String],
    input: &Input<'_>,
    importance: Option<&Importance>,
    digest: Option<Digest>,
    sink: Sink<'_>,
    progress: Progress<'_>,
) -> Result<Vec<Made>, Error> {
    let mut hashes = digest.map(Hashes::new);
    let mut output = Output {
        sink: &mut |name, bytes| match &mut hashes {
            Some(hashes) => rayon::join(|| sink(name, bytes), || hashes.update(name, bytes)).0,
            None => sink(name, bytes),
        },
        progress,
        ready: None,
        spare: Vec::new(),
        done: 0,
        total: plan.bytes(),
    };
    let mut losses = Vec::with_capacity(plan.tensors.len());
    for (planned, original) in plan.tensors.iter().zip(originals) {
        let tensor = Tensor {
            planned,
            rows: input.rows(original)?,
            importance: importance.filter(|_| planned.weighed).and_then(|i| i.get(original)),
        };
        losses.push(tensor.make(&mut output)?);
    }
    output.flush()?;
    drop(output);
    let mut hashes = hashes.map(Hashes::finish).unwrap_or_default().into_iter().peekable();
    let made = plan.tensors.iter().zip(losses).map(|(planned, loss)| Made {
        planned: planned.clone(),
        bits_per_weight: planned.bytes as f64 * 8.0 / planned.elements().max(1) as f64,
        figures: (planned.from != planned.to).then(|| loss.figures()),
        hash: hashes.next_if(|(name, _)| *name == planned.name).map(|(_, hash)| hash),
    });
    Ok(made.collect())
}

/// What is being written while more is made.
struct Output<'a, 't> {
    sink: Sink<'a>,
    progress: Progress<'a>,
    ready: Option<(&'t str, Vec<u8>)>,
    spare: Vec<u8>,
    done: u64,
    total: u64,
}

impl<'t> Output<'_, 't> {
    /// Writes what is ready while `make` fills so many bytes, which are ready then.
    fn next(
        &mut self,
        name: &'t str,
        len: usize,
        make: impl FnOnce(&mut [u8]) -> Result<Loss, Error> + Send,
    ) -> Result<Loss, Error> {
        let mut batch = std::mem::take(&mut self.spare);
        batch.resize(len, 0);
        let (sink, ready) = (&mut *self.sink, &self.ready);
        let (written, loss) = rayon::join(
            || ready.as_ref().map_or(Ok(()), |(name, bytes)| sink(name, bytes)),
            || make(&mut batch),
        );
        written?;
        let loss = loss?;
        if let Some((_, bytes)) = self.ready.replace((name, batch)) {
            self.wrote(bytes.len());
            self.spare = bytes;
        }
        Ok(loss)
    }

    fn flush(&mut self) -> Result<(), Error> {
        if let Some((name, bytes)) = self.ready.take() {
            (self.sink)(name, &bytes)?;
            self.wrote(bytes.len());
            self.spare = bytes;
        }
        Ok(())
    }

    fn wrote(&mut self, bytes: usize) {
        self.done += bytes as u64;
        (self.progress)(self.done, self.total);
    }
}

/// A tensor that is being made.
pub(super) struct Tensor<'a> {
    pub planned: &'a Planned,
    pub rows: InputRows<'a>,
    /// Of the columns of each of its matrices.
    pub importance: Option<&'a [f32]>,
}

impl<'a> Tensor<'a> {
    fn cols(&self) -> usize {
        self.planned.shape.last().copied().unwrap_or(1) as usize
    }

    fn row_count(&self) -> usize {
        (self.planned.elements() as usize).checked_div(self.cols()).unwrap_or(0)
    }

    fn make<'t>(&self, output: &mut Output<'_, 't>) -> Result<Loss, Error>
    where
        'a: 't,
    {
        let row_bytes = row_bytes(self.planned.to, self.cols());
        let batch_rows = (BATCH_BYTES / row_bytes.max(1)).max(1);
        let mut loss = Loss::default();
        for first in (0..self.row_count()).step_by(batch_rows) {
            let rows = batch_rows.min(self.row_count() - first);
            let batch =
                output.next(&self.planned.name, rows * row_bytes, |out| self.make_rows(first, out))?;
            loss.add(&batch);
        }
        Ok(loss)
    }

    /// Fills `out` with rows from `first` on.
    pub fn make_rows(&self, first: usize, out: &mut [u8]) -> Result<Loss, Error> {
        let (cols, row_bytes) = (self.cols(), row_bytes(self.planned.to, self.cols()));
        let piece_rows = (PIECE_VALUES / cols).max(1);
        let pieces = out
            .par_chunks_mut(piece_rows * row_bytes)
            .enumerate()
            .map_init(Workspace::default, |workspace, (piece, out)| {
                self.make_piece(first + piece * piece_rows, out, workspace)
            });
        let losses: Vec<Loss> = pieces.collect::<Result<_, _>>()?;
        let mut loss = Loss::default();
        losses.iter().for_each(|piece| loss.add(piece));
        Ok(loss)
    }

    fn make_piece(&self, first: usize, out: &mut [u8], workspace: &mut Workspace) -> Result<Loss, Error> {
        let (cols, row_bytes) = (self.cols(), row_bytes(self.planned.to, self.cols()));
        let Workspace { values, decoded, scratch } = workspace;
        let count = out.len() / row_bytes * cols;
        values.resize(count, 0.0);
        decoded.resize(count, 0.0);
        self.rows.read(first, values, scratch);
        if let (true, Some(stored)) = (self.planned.from == self.planned.to, self.rows.stored()) {
            self.check_finite(values, first)?;
            out.copy_from_slice(&stored[first * row_bytes..][..out.len()]);
            return Ok(Loss::default());
        }
        // Each matrix of a stack has weights of its own.
        let rows_each = match self.planned.shape.as_slice() {
            [.., rows, _] => *rows as usize,
            _ => 1,
        };
        let mut loss = Loss::default();
        let (mut row, end) = (first, first + count / cols);
        while row < end {
            let rows = (rows_each - row % rows_each).min(end - row);
            let at = row - first;
            let values = &values[at * cols..][..rows * cols];
            let decoded = &mut decoded[at * cols..][..rows * cols];
            let out = &mut out[at * row_bytes..][..rows * row_bytes];
            let importance = self.importance.map(|weights| &weights[row / rows_each * cols..][..cols]);
            if self.planned.to.block_len() == 1 {
                self.check_finite(values, row)?;
            }
            self.planned.to.encode_fast(values, importance, out, decoded).map_err(|error| match error {
                codec::EncodeError::NotFinite { .. } => match self.check_finite(values, row) {
                    Err(error) => error,
                    Ok(()) => unreachable!("the encoder found what is not finite"),
                },
                error => Error::Encode { tensor: self.planned.name.clone(), row, error },
            })?;
            loss.add(&Loss::of(values, decoded, importance));
            row += rows;
        }
        Ok(loss)
    }

    fn check_finite(&self, values: &[f32], first_row: usize) -> Result<(), Error> {
        // Without an exit on the way, so that it takes several at a time.
        if values.iter().fold(true, |finite, x| finite & x.is_finite()) {
            return Ok(());
        }
        let Some(at) = values.iter().position(|x| !x.is_finite()) else { return Ok(()) };
        let index = first_row as u64 * self.cols() as u64 + at as u64;
        Err(Error::NotFinite { tensor: self.planned.name.clone(), index, value: values[at] })
    }
}

/// A thread's own.
#[derive(Default)]
struct Workspace {
    values: Vec<f32>,
    decoded: Vec<f32>,
    scratch: Vec<f32>,
}
