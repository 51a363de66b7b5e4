//! Makes the bytes of tensors out of rows, on all threads, while what is done already is being written.

use codec::Encoding;
use model::layout::Role;
use rayon::prelude::*;

use crate::error::Error;
use crate::source::{Rows, Source};
use crate::target::Target;

/// Bytes made between two writes. Two such pieces are held at a time, whatever the size of the model.
const BATCH_BYTES: usize = 8 << 20;
/// Values that a thread makes at a time, in whole rows.
const PIECE_VALUES: usize = 1 << 15;

/// What takes the bytes: a tensor's name, and what comes after the bytes it has so far.
pub type Sink<'a> = &'a mut (dyn FnMut(&str, &[u8]) -> Result<(), format::Error> + Send);

/// Bytes done, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// A tensor to be, and how it is to be encoded.
pub type Encoded = (Target, Encoding);

/// The bytes that tensors will have.
pub fn total_bytes(tensors: &[Encoded]) -> u64 {
    tensors.iter().map(|(target, encoding)| (row_bytes(target, *encoding) * target.rows()) as u64).sum()
}

/// Makes every tensor and hands it on, in order.
///
/// # Errors
/// A weight that the source does not have, values that an encoding does not hold, or what the sink says.
pub fn run(
    tensors: &[Encoded],
    source: &dyn Source,
    sink: Sink<'_>,
    progress: Progress<'_>,
) -> Result<(), Error> {
    let total = total_bytes(tensors);
    let mut done = 0;
    let mut ready: Option<(&str, Vec<u8>)> = None;
    let mut spare = Vec::new();
    for (target, encoding) in tensors {
        let maker = Maker::new(target, *encoding, source)?;
        let batch_rows = (BATCH_BYTES / maker.row_bytes).max(1);
        for start in (0..target.rows()).step_by(batch_rows) {
            let rows = batch_rows.min(target.rows() - start);
            let mut batch = std::mem::take(&mut spare);
            batch.resize(rows * maker.row_bytes, 0);
            let (written, made) = rayon::join(
                || ready.as_ref().map_or(Ok(()), |(name, bytes)| sink(name, bytes)),
                || maker.make(start, &mut batch),
            );
            written?;
            made?;
            if let Some((_, bytes)) = ready.replace((&target.name, batch)) {
                done += bytes.len() as u64;
                spare = bytes;
                progress(done, total);
            }
        }
    }
    if let Some((name, bytes)) = ready {
        sink(name, &bytes)?;
        progress(done + bytes.len() as u64, total);
    }
    Ok(())
}

/// Bytes of a row. Encodings are chosen so that rows have whole blocks.
fn row_bytes(target: &Target, encoding: Encoding) -> usize {
    match encoding.byte_len(target.cols() as u64) {
        Some(bytes) => bytes as usize,
        None => unreachable!("{}: rows of {} in {}", target.name, target.cols(), encoding.name()),
    }
}

/// Makes rows of one tensor.
struct Maker<'a> {
    target: &'a Target,
    encoding: Encoding,
    weights: Vec<(Role, Box<dyn Rows + 'a>)>,
    row_bytes: usize,
}

impl<'a> Maker<'a> {
    fn new(target: &'a Target, encoding: Encoding, source: &'a dyn Source) -> Result<Self, Error> {
        let weights = target.parts.iter().map(|part| match source.weight(target.place, part.role) {
            Some(rows) => Ok((part.role, rows)),
            None => Err(Error::NoWeight { tensor: target.name.clone(), role: format!("{:?}", part.role) }),
        });
        let row_bytes = row_bytes(target, encoding);
        Ok(Maker { target, encoding, weights: weights.collect::<Result<_, _>>()?, row_bytes })
    }

    /// Fills `out` with rows from `start` on.
    fn make(&self, start: usize, out: &mut [u8]) -> Result<(), Error> {
        let cols = self.target.cols();
        let piece_rows = (PIECE_VALUES / cols).max(1);
        out.par_chunks_mut(piece_rows * self.row_bytes).enumerate().try_for_each_init(
            || (Vec::new(), Vec::new()),
            |(values, scratch), (piece, out)| {
                values.resize(out.len() / self.row_bytes * cols, 0.0);
                for (i, values) in values.chunks_exact_mut(cols).enumerate() {
                    self.row(start + piece * piece_rows + i, values, scratch);
                }
                self.encoding
                    .encode(values, None, out)
                    .map_err(|error| Error::Encode { tensor: self.target.name.clone(), error })
            },
        )
    }

    fn row(&self, row: usize, out: &mut [f32], scratch: &mut Vec<f32>) {
        let (part, canonical) = self.target.canonical(row);
        let Some((_, weight)) = self.weights.iter().find(|(role, _)| *role == part.role) else {
            unreachable!("the weights are those of the parts")
        };
        weight.read(canonical, out, scratch);
        weight.held().convert(part.form.held(), out);
        part.form.columns_to_stored(out, scratch);
    }
}
