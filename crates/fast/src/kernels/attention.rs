//! Softmax attention of some tokens over the cache of one key-value head, a block of positions at a time.
//!
//! Every query of every token is a row. What is loaded of a block serves all rows, and several rows and positions share
//! registers, but no row's arithmetic knows of another: scores are [`dot`](super::tile::dot)s, blocks are counted from
//! position 0, and a block's sums join the rest in order. So the bits are those of a token alone, on every instruction set.

#[cfg(test)]
mod tests;

use super::lane::{LANES, Lane, Lanes, flat, flat_mut};
use super::plain::exp;

/// Positions whose weighted values are summed before they join the rest: bounds the error of long contexts, and what is
/// loaded of them stays in the second-level cache.
const BLOCK: usize = 128;

/// Positions whose keys stay in the first-level cache while all rows go by.
const NEAR: usize = 16;

/// Scores of a row that are found together: as many as [`Lanes::sums`] adds.
const TOGETHER: usize = 4;

/// From so many rows on, copying a block to where its lines do not compete for a few sets of the first-level cache
/// costs less than it saves.
const COPIED: usize = 24;

/// Queries of successive tokens that read the same key-value head.
pub(crate) struct Queries<'a> {
    /// `[T, heads, Dh]`, tokens `stride` apart.
    pub q: &'a [f32],
    pub stride: usize,
    pub head_dim: usize,
    /// Positions that the first token sees, itself among them; the next one sees one more.
    pub positions: usize,
    pub scale: f32,
}

/// The cache of one key-value head: rows `stride` numbers apart, from `first` on.
pub(crate) struct Cache<'a, H: Held + ?Sized> {
    pub k: &'a H,
    pub v: &'a H,
    pub stride: usize,
    pub first: usize,
}

/// Cached numbers, whatever they are held in.
pub(crate) trait Held {
    /// All of them, if they need no widening.
    fn numbers(&self) -> Option<&[f32]>;
    /// `to.len()` of them from `at` on.
    fn read<L: Lanes>(&self, at: usize, to: &mut [f32]);
}

impl Held for [f32] {
    #[inline(always)]
    fn numbers(&self) -> Option<&[f32]> {
        Some(self)
    }

    #[inline(always)]
    fn read<L: Lanes>(&self, at: usize, to: &mut [f32]) {
        to.copy_from_slice(&self[at..at + to.len()]);
    }
}

/// f16, the low byte first.
impl Held for [u8] {
    #[inline(always)]
    fn numbers(&self) -> Option<&[f32]> {
        None
    }

    #[inline(always)]
    fn read<L: Lanes>(&self, at: usize, to: &mut [f32]) {
        let (groups, rest) = self[2 * at..2 * (at + to.len())].as_chunks::<{ 2 * LANES }>();
        let (lanes, last) = to.as_chunks_mut::<LANES>();
        for (lane, group) in lanes.iter_mut().zip(groups) {
            L::load_f16(group).store(lane);
        }
        for (x, bytes) in last.iter_mut().zip(rest.as_chunks::<2>().0) {
            *x = half::f16::from_le_bytes(*bytes).to_f32();
        }
    }
}

/// Working space, kept from call to call: its size depends on the rows, not on the positions.
#[derive(Default)]
pub(crate) struct Room {
    /// One piece of memory: pieces of many sizes would each begin huge pages of their own.
    lanes: Vec<Lane>,
    rows: Vec<Row>,
    factors: Vec<[f32; 2]>,
}

/// The parts of a room.
struct Parts<'a> {
    /// Queries, what their blocks so far sum to, and the sums of this block: a tile of rows after the other,
    /// `[groups, rows]` each.
    queries: &'a mut [Lane],
    sums: &'a mut [Lane],
    block: &'a mut [Lane],
    /// Scores of a block and then their weights: `[rows, BLOCK]`.
    scores: &'a mut [f32],
    /// Keys or values of a block.
    panel: &'a mut [Lane],
    rows: &'a mut [Row],
    /// What a row's sums of this block and those before it are to be multiplied by.
    factors: &'a mut [[f32; 2]],
}

impl Room {
    /// For rows that lie like this.
    #[inline(always)]
    fn parts(&mut self, shape: Shape) -> Parts<'_> {
        let lanes = shape.rows * shape.groups;
        let scores = shape.rows * BLOCK / LANES;
        let panel = if shape.copied() { BLOCK } else { NEAR } * apart(shape.groups);
        let needed = 3 * lanes + scores + panel;
        if self.lanes.len() < needed {
            self.lanes = Vec::new();
            self.lanes = vec![Lane::ZERO; needed];
        }
        self.rows.resize(shape.rows, Row { max: f32::NEG_INFINITY, sum: 0.0 });
        self.factors.resize(shape.rows, [0.0; 2]);
        let (queries, rest) = self.lanes.split_at_mut(lanes);
        let (sums, rest) = rest.split_at_mut(lanes);
        let (block, rest) = rest.split_at_mut(lanes);
        let (scores, rest) = rest.split_at_mut(scores);
        let (panel, _) = rest.split_at_mut(panel);
        let (rows, factors) = (&mut self.rows[..], &mut self.factors[..]);
        Parts { queries, sums, block, scores: flat_mut(scores), panel, rows, factors }
    }
}

/// What a row's blocks so far have come to: the weights in `sums` are `e^(score − max)`, `sum` is theirs.
#[derive(Clone, Copy)]
struct Row {
    max: f32,
    sum: f64,
}

impl Row {
    /// Adds a block; returns what its sums and those so far are to be multiplied by. The first block has none before it.
    ///
    /// Where both maxima are −∞ that is NaN, as the definition has it if all scores are.
    #[inline(always)]
    fn join(&mut self, block: Row, first: bool) -> [f32; 2] {
        if first {
            *self = block;
            return [1.0, 0.0];
        }
        let max = larger(self.max, block.max);
        let [new, old] = [exp(block.max - max), exp(self.max - max)];
        self.sum = self.sum * f64::from(old) + block.sum * f64::from(new);
        self.max = max;
        [new, old]
    }

    /// `1 / Σ weights`.
    #[inline(always)]
    fn share(&self) -> f32 {
        // If all scores are −∞, there is none.
        if self.max.is_finite() { (1.0 / self.sum) as f32 } else { f32::NAN }
    }
}

/// The larger. A score that is NaN is passed over: its own weight is NaN, and so is the sum.
#[inline(always)]
fn larger(max: f32, x: f32) -> f32 {
    if x > max { x } else { max }
}

/// How rows lie in tiles, and what they see.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    /// Rows of a tile; the last may have fewer.
    tile: usize,
    /// Lane groups of a row.
    groups: usize,
    heads: usize,
    positions: usize,
}

impl Shape {
    /// Whether there are so many rows that blocks are copied.
    #[inline(always)]
    fn copied(&self) -> bool {
        self.rows >= COPIED
    }

    /// Positions of the block from `start` on that a row sees.
    #[inline(always)]
    fn seen(&self, row: usize, start: usize) -> usize {
        (self.positions + row / self.heads).saturating_sub(start).min(BLOCK)
    }

    /// Tiles of which a row sees something of the block: their first rows and numbers of rows.
    #[inline(always)]
    fn tiles(&self, start: usize) -> impl Iterator<Item = (usize, usize)> {
        let shape = *self;
        (0..shape.rows)
            .step_by(shape.tile)
            .map(move |row| (row, shape.tile.min(shape.rows - row)))
            .filter(move |(row, rows)| shape.seen(row + rows - 1, start) > 0)
    }

    /// Where a row's first lane group lies, and how far apart its groups are.
    #[inline(always)]
    fn lanes(&self, row: usize) -> (usize, usize) {
        let first = row / self.tile * self.tile;
        (first * self.groups + row - first, self.tile.min(self.rows - first))
    }
}

/// `$body` with a number of rows as a constant.
macro_rules! constant {
    ($rows:expr, $R:ident => $body:expr) => {
        constant!(@ $rows, $R => $body, 1 2 3 4 5 6)
    };
    (@ $rows:expr, $R:ident => $body:expr, $($n:literal)*) => {
        match $rows {
            $($n => {
                const $R: usize = $n;
                $body
            })*
            _ => unreachable!("no instruction set has tiles of more rows"),
        }
    };
}

/// `softmax(q·kᵀ·scale) v`, each token over the positions it sees; `out` has a row of `[heads, Dh]` for each.
///
/// `R` rows share what is loaded, and `C` lane groups of values.
#[inline(always)]
pub(crate) fn attend<L: Lanes, const R: usize, const C: usize, H: Held + ?Sized>(
    queries: &Queries<'_>,
    cache: &Cache<'_, H>,
    room: &mut Room,
    out: &mut [&mut [f32]],
) {
    let Some(heads) = out.first().map(|token| token.len() / queries.head_dim) else { return };
    let rows = heads * out.len();
    let shape = Shape {
        rows,
        tile: rows.div_ceil(rows.div_ceil(R)),
        groups: queries.head_dim.div_ceil(LANES),
        heads,
        positions: queries.positions,
    };
    let parts = &mut room.parts(shape);
    parts.begin(queries, shape);
    let end = queries.positions + out.len() - 1;
    for start in (0..end).step_by(BLOCK) {
        let count = BLOCK.min(end - start);
        scores::<L, H>(cache, queries.head_dim, start, count, shape, parts);
        for (row, scores) in parts.scores.chunks_exact_mut(BLOCK).enumerate() {
            let seen = shape.seen(row, start);
            if seen > 0 {
                let block = weigh(&mut scores[..seen], queries.scale);
                parts.factors[row] = parts.rows[row].join(block, start == 0);
            }
        }
        values::<L, C, H>(cache, queries.head_dim, start, count, shape, parts);
        join::<L>(start, shape, parts);
    }
    parts.finish(queries.head_dim, shape, out);
}

impl Parts<'_> {
    /// Takes the queries in, what fills up their last lane group zero.
    #[inline(always)]
    fn begin(&mut self, queries: &Queries<'_>, shape: Shape) {
        self.sums.fill(Lane::ZERO);
        for row in 0..shape.rows {
            let at = row / shape.heads * queries.stride + row % shape.heads * queries.head_dim;
            let (first, apart) = shape.lanes(row);
            for (g, q) in queries.q[at..][..queries.head_dim].chunks(LANES).enumerate() {
                let lane = &mut self.queries[first + g * apart];
                *lane = Lane::ZERO;
                lane.0[..q.len()].copy_from_slice(q);
            }
        }
    }

    /// Writes every row's sums, divided by those of its weights.
    #[inline(always)]
    fn finish(&self, head_dim: usize, shape: Shape, out: &mut [&mut [f32]]) {
        let heads = out.iter_mut().flat_map(|token| token.chunks_exact_mut(head_dim));
        for ((row, y), sums) in heads.enumerate().zip(&*self.rows) {
            let (share, (first, apart)) = (sums.share(), shape.lanes(row));
            for (g, y) in y.chunks_mut(LANES).enumerate() {
                for (y, x) in y.iter_mut().zip(&self.sums[first + g * apart].0) {
                    *y = x * share;
                }
            }
        }
    }
}

/// Lane groups from a copied row to the next: an odd number of lines, so that successive rows lie in different sets.
fn apart(groups: usize) -> usize {
    groups | 1
}

/// Rows of keys or values, of whole lane groups, `stride` numbers apart.
#[derive(Clone, Copy)]
struct Panel<'a> {
    numbers: &'a [f32],
    stride: usize,
    groups: usize,
}

impl<'a> Panel<'a> {
    /// Positions `from` on: in place, or copied if they have to be widened or filled up or if `copy` says so.
    #[inline(always)]
    fn of<L: Lanes, H: Held + ?Sized>(
        held: &'a H,
        (stride, first): (usize, usize),
        positions: std::ops::Range<usize>,
        head_dim: usize,
        copy: bool,
        to: &'a mut [Lane],
    ) -> Panel<'a> {
        let groups = head_dim.div_ceil(LANES);
        if let Some(numbers) = held.numbers()
            && !copy
            && head_dim.is_multiple_of(LANES)
        {
            return Panel { numbers: &numbers[positions.start * stride + first..], stride, groups };
        }
        let apart = apart(groups);
        for (p, row) in positions.zip(to.chunks_exact_mut(apart)) {
            row[groups - 1] = Lane::ZERO;
            held.read::<L>(p * stride + first, &mut flat_mut(row)[..head_dim]);
        }
        Panel { numbers: flat(to), stride: apart * LANES, groups }
    }

    #[inline(always)]
    fn row(&self, p: usize) -> &'a [[f32; LANES]] {
        &self.numbers[p * self.stride..].as_chunks().0[..self.groups]
    }
}

/// Scores of a block of positions, before they are scaled. Those of positions that a row does not see may be anything.
#[inline(always)]
fn scores<L: Lanes, H: Held + ?Sized>(
    cache: &Cache<'_, H>,
    head_dim: usize,
    start: usize,
    count: usize,
    shape: Shape,
    parts: &mut Parts<'_>,
) {
    let rows_apart = (cache.stride, cache.first);
    for near in (0..count).step_by(NEAR) {
        let len = NEAR.min(count - near);
        let positions = start + near..start + near + len;
        let copy = shape.copied();
        let keys = Panel::of::<L, H>(cache.k, rows_apart, positions, head_dim, copy, parts.panel);
        for (first, rows) in shape.tiles(start) {
            let seen = shape.seen(first + rows - 1, start).saturating_sub(near).min(len);
            let queries = &parts.queries[first * shape.groups..][..rows * shape.groups];
            for p in (0..seen).step_by(TOGETHER) {
                // Twice the last one rather than one that is not there.
                let keys: [_; TOGETHER] = std::array::from_fn(|i| keys.row((p + i).min(len - 1)));
                let to = &mut parts.scores[first * BLOCK + near + p..];
                constant!(rows, N => dots::<L, N>(queries, keys, to));
            }
        }
    }
}

/// Inner products of the rows of a tile with some keys, in the lanes of [`dot`](super::tile::dot); `to` has the rows'
/// scores `BLOCK` apart.
#[inline(always)]
fn dots<L: Lanes, const N: usize>(queries: &[Lane], keys: [&[[f32; LANES]]; TOGETHER], to: &mut [f32]) {
    let mut sums = [[L::splat(0.0); TOGETHER]; N];
    let groups = queries.len() / N;
    let [a, b, c, d] = keys;
    let (a, b, c, d) = (&a[..groups], &b[..groups], &c[..groups], &d[..groups]);
    for (g, queries) in queries.chunks_exact(N).enumerate() {
        let keys = [L::load(&a[g]), L::load(&b[g]), L::load(&c[g]), L::load(&d[g])];
        for n in 0..N {
            let query = L::load(&queries[n].0);
            for i in 0..TOGETHER {
                sums[n][i] = sums[n][i].add_product(query, keys[i]);
            }
        }
    }
    for n in 0..N {
        to[n * BLOCK..][..TOGETHER].copy_from_slice(&L::sums(sums[n]));
    }
}

/// Scales scores and makes weights of them: `e^(x − max)`.
#[inline(always)]
fn weigh(x: &mut [f32], scale: f32) -> Row {
    let (whole, rest) = x.as_chunks_mut::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for x in &mut *whole {
        for l in 0..LANES {
            x[l] *= scale;
            lanes[l] = larger(lanes[l], x[l]);
        }
    }
    for (x, lane) in rest.iter_mut().zip(&mut lanes) {
        *x *= scale;
        *lane = larger(*lane, *x);
    }
    let mut max = f32::NEG_INFINITY;
    for lane in lanes {
        max = larger(max, lane);
    }
    // Weights of a block whose scores are all −∞ are next to nothing, not NaN: other blocks may outweigh it.
    let from = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let mut lanes = [0f64; LANES];
    for x in whole {
        for l in 0..LANES {
            x[l] = exp(x[l] - from);
            lanes[l] += f64::from(x[l]);
        }
    }
    for (x, lane) in rest.iter_mut().zip(&mut lanes) {
        *x = exp(*x - from);
        *lane += f64::from(*x);
    }
    let mut sum = 0.0;
    for lane in lanes {
        sum += lane;
    }
    Row { max, sum }
}

/// Sums the weighted values of a block, in the order of positions.
#[inline(always)]
fn values<L: Lanes, const C: usize, H: Held + ?Sized>(
    cache: &Cache<'_, H>,
    head_dim: usize,
    start: usize,
    count: usize,
    shape: Shape,
    parts: &mut Parts<'_>,
) {
    parts.block.fill(Lane::ZERO);
    let copy = shape.copied();
    let part = if copy { BLOCK } else { NEAR };
    for near in (0..count).step_by(part) {
        let positions = start + near..start + count.min(near + part);
        let rows_apart = (cache.stride, cache.first);
        let values = Panel::of::<L, H>(cache.v, rows_apart, positions, head_dim, copy, parts.panel);
        for group in (0..shape.groups).step_by(C) {
            let columns = C.min(shape.groups - group);
            for (first, rows) in shape.tiles(start) {
                // What all rows see, then what some see.
                let seen = |row: usize| shape.seen(row, start).saturating_sub(near).min(part);
                let all = seen(first);
                let sums = &mut parts.block[first * shape.groups + group * rows..];
                let weights = &parts.scores[first * BLOCK + near..];
                constant!(rows, N => add::<L, N, C>(weights, values, 0..all, group, columns, sums, N));
                for row in 1..rows {
                    let some = all..seen(first + row);
                    let (weights, sums) = (&weights[row * BLOCK..], &mut sums[row..]);
                    add::<L, 1, C>(weights, values, some, group, columns, sums, rows);
                }
            }
        }
    }
}

/// Adds weighted values of some positions to the sums of `N` rows: `columns` lane groups of them from `group` on, at
/// most `C`. Sums of a group are `apart` from those of the next, weights of a row `BLOCK` from those of the next.
#[inline(always)]
fn add<L: Lanes, const N: usize, const C: usize>(
    weights: &[f32],
    values: Panel<'_>,
    positions: std::ops::Range<usize>,
    group: usize,
    columns: usize,
    sums: &mut [Lane],
    apart: usize,
) {
    if positions.is_empty() {
        return;
    }
    if columns == C {
        return add_columns::<L, N, C>(weights, values, positions, group, sums, apart);
    }
    for c in 0..columns {
        let sums = &mut sums[c * apart..];
        add_columns::<L, N, 1>(weights, values, positions.clone(), group + c, sums, apart);
    }
}

#[inline(always)]
fn add_columns<L: Lanes, const N: usize, const C: usize>(
    weights: &[f32],
    values: Panel<'_>,
    positions: std::ops::Range<usize>,
    group: usize,
    sums: &mut [Lane],
    apart: usize,
) {
    let mut lanes = [[L::splat(0.0); C]; N];
    let mut rows: [&[f32]; N] = [&[]; N];
    for n in 0..N {
        rows[n] = &weights[n * BLOCK..][..positions.end];
        for c in 0..C {
            lanes[n][c] = L::load(&sums[c * apart + n].0);
        }
    }
    for p in positions {
        let row: &[[f32; LANES]; C] = values.row(p)[group..].first_chunk().expect("groups of the row");
        let mut numbers = [L::splat(0.0); C];
        for c in 0..C {
            numbers[c] = L::load(&row[c]);
        }
        for n in 0..N {
            let weight = L::splat(rows[n][p]);
            for c in 0..C {
                lanes[n][c] = lanes[n][c].add_product(weight, numbers[c]);
            }
        }
    }
    for n in 0..N {
        for c in 0..C {
            lanes[n][c].store(&mut sums[c * apart + n].0);
        }
    }
}

/// Adds a block's sums to those before it.
#[inline(always)]
fn join<L: Lanes>(start: usize, shape: Shape, parts: &mut Parts<'_>) {
    for (first, rows) in shape.tiles(start) {
        let at = first * shape.groups;
        let (sums, block) = (&mut parts.sums[at..], &parts.block[at..]);
        for row in 0..rows {
            if shape.seen(first + row, start) == 0 {
                continue;
            }
            let [new, old] = parts.factors[first + row];
            let (new, old) = (L::splat(new), L::splat(old));
            for g in 0..shape.groups {
                let (sum, block) = (&mut sums[g * rows + row].0, &block[g * rows + row].0);
                L::load(sum).times(old).add_product(L::load(block), new).store(sum);
            }
        }
    }
}
