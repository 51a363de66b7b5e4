//! What the values of a tensor are like: extremes, moments, a histogram, the spread of its rows, the scales of its blocks.

use format::{TensorInfo, TensorSource};
use rayon::prelude::*;

use crate::moments::{Moments, RUN};

/// Values that a thread takes at a time; a multiple of every block.
const PIECE: usize = 1 << 18;
/// Values that histogram and scales are taken from, evenly over the tensor, if it has more.
const SAMPLE: usize = 1 << 16;
/// Rows shorter than this are taken many at a time.
const SHORT: usize = 64;
/// Runs in which the sample is taken; a multiple of every block.
const SAMPLE_RUN: usize = 512;
/// Rows whose norms are held for their median, evenly over the tensor, if it has more.
const HELD_ROWS: usize = 1 << 18;
/// Bins of a histogram.
pub const BINS: usize = 24;

/// What the values of a tensor are like. Moments and extremes are those of its finite values.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stats {
    /// Values.
    pub count: u64,
    /// Not a number.
    pub nan: u64,
    /// Infinities of both signs.
    pub infinite: u64,
    /// Zeros of both signs.
    pub zeros: u64,
    /// Nearer to zero than normal f32 numbers.
    pub subnormals: u64,
    /// The least.
    pub min: Option<f32>,
    /// The greatest.
    pub max: Option<f32>,
    /// The largest magnitude.
    pub absmax: Option<f32>,
    /// Where it is first, outermost index first.
    pub absmax_at: Option<Vec<u64>>,
    /// Their mean.
    pub mean: Option<f64>,
    /// Standard deviation, of the values themselves (n, not n − 1).
    pub std: Option<f64>,
    /// √ of the mean square.
    pub rms: Option<f64>,
    /// Fourth central moment over the squared variance: 3 for a normal distribution. Absent if they are all alike.
    pub kurtosis: Option<f64>,
    /// Norms of rows; absent for a single row. Of very many rows, the median is that of an even sample.
    pub row_norms: Option<Spread>,
    /// Counts between `min` and `max`, in equal steps.
    pub histogram: Vec<u32>,
    /// Values that histogram and blocks were taken from.
    pub sampled: u64,
    /// Scales and codes, of block encodings.
    pub blocks: Option<Box<BlockStats>>,
}

/// Smallest, middle and largest.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Middle.
    pub median: f64,
    /// Largest.
    pub max: f64,
}

/// Scales and codes of sampled blocks.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BlockStats {
    /// Blocks that were taken apart.
    pub blocks: u64,
    /// Magnitudes of the factor of whole blocks, where the encoding has one.
    pub factor: Option<Spread>,
    /// Magnitudes of the scales of groups.
    pub scale: Option<Spread>,
    /// Share of groups whose scale is zero.
    pub zero_scales: f64,
    /// Share of codes at either end of their range; absent where nearly all are, of two or three levels.
    pub saturated: Option<f64>,
}

/// Statistics of one tensor, on all threads. `progress` hears of bytes that were read, from any thread.
pub fn stats(source: &dyn TensorSource, info: &TensorInfo, progress: &(dyn Fn(u64) + Sync)) -> Stats {
    let bytes = source.bytes(info);
    let count = info.shape.elements().unwrap_or(0);
    let row_len = usize::try_from(info.shape.row_len()).unwrap_or(0).max(1);
    // Rows that are longer than a piece are few.
    let rows = if row_len <= PIECE { count as usize / row_len } else { 0 };
    let tensor =
        Tensor { info, bytes, count: count as usize, row_len, row_step: rows.div_ceil(HELD_ROWS).max(1) };
    let pieces = tensor.pieces();
    let read = |&(start, end): &(usize, usize)| {
        let found = tensor.piece(start, end);
        progress((tensor.byte(end) - tensor.byte(start)) as u64);
        found
    };
    let found: Vec<(Moments, Rows)> = match pieces.len() {
        1 => pieces.iter().map(read).collect(),
        _ => pieces.par_iter().map(read).collect(),
    };
    let mut moments = Moments::new();
    let mut rows = Rows::new();
    for ((part, of_piece), (start, _)) in found.iter().zip(&pieces) {
        moments.join(part);
        rows.join(of_piece, (start / row_len).div_ceil(tensor.row_step));
    }
    tensor.describe(&moments, rows)
}

struct Tensor<'a> {
    info: &'a TensorInfo,
    bytes: &'a [u8],
    count: usize,
    row_len: usize,
    /// Of so many rows, the first one's norm is held.
    row_step: usize,
}

/// Sums of squares of rows.
struct Rows {
    /// Of the rows that are held.
    held: Vec<f64>,
    /// Least and most of all rows that a piece has whole.
    ends: [f64; 2],
}

impl Rows {
    fn new() -> Rows {
        Rows { held: Vec::new(), ends: [f64::INFINITY, f64::NEG_INFINITY] }
    }

    /// Adds the rows of a piece, the first of which that it holds is the `from`-th held one: parts of the same row add up.
    fn join(&mut self, piece: &Rows, from: usize) {
        self.held.resize(self.held.len().max(from + piece.held.len()), 0.0);
        self.held[from..].iter_mut().zip(&piece.held).for_each(|(sum, part)| *sum += part);
        self.ends = [self.ends[0].min(piece.ends[0]), self.ends[1].max(piece.ends[1])];
    }

    fn norms(self) -> Option<Spread> {
        let several = self.held.len() > 1;
        let held = Spread::of(self.held).filter(|_| several)?;
        Some(Spread {
            min: held.min.min(self.ends[0]).sqrt(),
            median: held.median.sqrt(),
            max: held.max.max(self.ends[1]).sqrt(),
        })
    }
}

impl Tensor<'_> {
    /// Ranges of values: whole rows, or whole blocks of one row.
    fn pieces(&self) -> Vec<(usize, usize)> {
        let step = if self.row_len <= PIECE { PIECE / self.row_len * self.row_len } else { PIECE };
        let rows = (0..self.count).step_by(self.row_len.max(step));
        rows.flat_map(|row| {
            let end = (row + self.row_len.max(step)).min(self.count);
            (row..end).step_by(step).map(move |start| (start, (start + step).min(end)))
        })
        .collect()
    }

    /// Where a value's block starts.
    fn byte(&self, value: usize) -> usize {
        value / self.info.encoding.block_len() * self.info.encoding.block_bytes()
    }

    /// Decodes whole blocks.
    fn decode(&self, start: usize, out: &mut [f32]) {
        let bytes = self.bytes.get(self.byte(start)..self.byte(start + out.len())).unwrap_or_default();
        if self.info.encoding.decode(bytes, out).is_err() {
            unreachable!("a tensor has the bytes of its shape");
        }
    }

    /// Moments of a piece, and the sum of squares of each row in it.
    fn piece(&self, start: usize, end: usize) -> (Moments, Rows) {
        let mut moments = Moments::new();
        let mut rows = Rows::new();
        let mut values = [0f32; RUN];
        // Rows that are no whole number of blocks do not occur; short ones are decoded many at a time.
        let together = if self.row_len < RUN { RUN / self.row_len * self.row_len } else { RUN };
        let mut row_sum = 0.0;
        let mut at = start;
        while at < end {
            let left_in_row = self.row_len - at % self.row_len;
            let len = if self.row_len < RUN { together } else { RUN.min(left_in_row) }.min(end - at);
            let values = &mut values[..len];
            self.decode(at, values);
            if self.row_len < SHORT {
                moments.take(values, at as u64);
                for row in values.chunks(self.row_len) {
                    self.add_row(&mut rows, at / self.row_len, sum_of_squares(row));
                    at += row.len();
                }
                continue;
            }
            for row in values.chunks(self.row_len) {
                row_sum += moments.take(row, at as u64);
                at += row.len();
                if at.is_multiple_of(self.row_len) || at == end {
                    self.add_row(&mut rows, (at - 1) / self.row_len, row_sum);
                    row_sum = 0.0;
                }
            }
        }
        (moments, rows)
    }

    fn add_row(&self, rows: &mut Rows, row: usize, squares: f64) {
        if row.is_multiple_of(self.row_step) {
            rows.held.push(squares);
        }
        if self.row_len <= PIECE {
            rows.ends = [rows.ends[0].min(squares), rows.ends[1].max(squares)];
        }
    }

    fn describe(&self, moments: &Moments, rows: Rows) -> Stats {
        let n = moments.finite as f64;
        let any = moments.finite > 0;
        let [s1, s2, s3, s4] = moments.sums.map(|sum| sum / n);
        let variance = (s2 - s1 * s1).max(0.0);
        let fourth = s4 - 4.0 * s1 * s3 + 6.0 * s1 * s1 * s2 - 3.0 * s1.powi(4);
        // Below this the difference of the sums is their rounding.
        let spread = variance > 1e-12 * s2;
        let at = moments.largest.map(|(_, index)| {
            let mut index = index;
            let mut place: Vec<u64> = Vec::new();
            for &dim in self.info.shape.dims().iter().rev() {
                place.insert(0, index % dim.max(1));
                index /= dim.max(1);
            }
            place
        });
        let (histogram, sampled, blocks) = self.sample(moments);
        Stats {
            count: self.count as u64,
            nan: moments.nan,
            infinite: moments.infinite,
            zeros: moments.zeros,
            subnormals: moments.subnormals,
            min: any.then_some(moments.min),
            max: any.then_some(moments.max),
            absmax: moments.largest.filter(|_| any).map(|(value, _)| value),
            absmax_at: at.filter(|_| any),
            mean: any.then_some(s1),
            std: any.then_some(variance.sqrt()),
            rms: any.then_some(s2.sqrt()),
            kurtosis: (any && spread).then(|| fourth / (variance * variance)),
            row_norms: rows.norms(),
            histogram,
            sampled,
            blocks: blocks.map(Box::new),
        }
    }

    fn sample(&self, moments: &Moments) -> (Vec<u32>, u64, Option<BlockStats>) {
        let mut histogram = vec![0u32; BINS];
        let encoding = self.info.encoding;
        let mut anatomy = (encoding.block_len() > 1).then(Blocks::default);
        let mut sampled = 0;
        let runs = self.count.div_ceil(SAMPLE_RUN);
        let taken = runs.min(SAMPLE / SAMPLE_RUN);
        let (least, width) = (f64::from(moments.min), f64::from(moments.max) - f64::from(moments.min));
        let per_width = if width > 0.0 { BINS as f64 / width } else { 0.0 };
        let mut values = [0f32; SAMPLE_RUN];
        for i in 0..taken {
            // Evenly from the first to the last.
            let start = i * runs / taken * SAMPLE_RUN;
            let values = &mut values[..SAMPLE_RUN.min(self.count - start)];
            self.decode(start, values);
            for value in values.iter().filter(|value| value.is_finite()) {
                let bin = (f64::from(*value) - least) * per_width;
                histogram[(bin as usize).min(BINS - 1)] += 1;
            }
            sampled += values.len() as u64;
            if let Some(blocks) = &mut anatomy {
                let bytes = &self.bytes[self.byte(start)..self.byte(start + values.len())];
                bytes.chunks_exact(encoding.block_bytes()).for_each(|block| blocks.add(encoding, block));
            }
        }
        (histogram, sampled, anatomy.map(Blocks::describe))
    }
}

/// Blocks taken apart, so far.
#[derive(Default)]
struct Blocks {
    blocks: u64,
    factors: Vec<f64>,
    scales: Vec<f64>,
    zero: u64,
    codes: u64,
    saturated: u64,
}

impl Blocks {
    fn add(&mut self, encoding: codec::Encoding, block: &[u8]) {
        let Some(anatomy) = encoding.anatomy(block) else { return };
        self.blocks += 1;
        if let Some((_, d)) = anatomy.factors.first() {
            self.factors.push(f64::from(d.abs()));
        }
        self.scales.extend(anatomy.groups.iter().map(|group| f64::from(group.scale.abs())));
        self.zero += anatomy.groups.iter().filter(|group| group.scale == 0.0).count() as u64;
        if let Some((lowest, highest)) = anatomy.ends {
            let codes = anatomy.codes.iter().flatten();
            self.codes += codes.clone().count() as u64;
            self.saturated += codes.filter(|&&code| code <= lowest || code >= highest).count() as u64;
        }
    }

    fn describe(self) -> BlockStats {
        BlockStats {
            blocks: self.blocks,
            zero_scales: if self.scales.is_empty() {
                0.0
            } else {
                self.zero as f64 / self.scales.len() as f64
            },
            saturated: (self.codes > 0).then(|| self.saturated as f64 / self.codes as f64),
            factor: Spread::of(self.factors),
            scale: Spread::of(self.scales),
        }
    }
}

/// Of the finite ones.
fn sum_of_squares(values: &[f32]) -> f64 {
    values.iter().filter(|value| value.is_finite()).map(|&value| f64::from(value) * f64::from(value)).sum()
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        let middle = values.len() / 2;
        if values.is_empty() {
            return None;
        }
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
        Some(Spread { min, median: *median, max })
    }
}
