//! Attention against its definition in f64, and everything that changes no bit of it.

use crate::kernels::Kernels;
use crate::kernels::attention::{Cache, Queries, Room};
use crate::kernels::lane::{LANES, Lane};
use crate::kernels::tests::{Random, activations};

/// Queries of `tokens` tokens and a cache that begins `past` positions before them; its rows hold more than one head.
struct Case {
    heads: usize,
    head_dim: usize,
    past: usize,
    tokens: usize,
    scale: f32,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// Heads, Dh, past, tokens: lane groups whole and not; blocks begun, ended and crossed; one row, a few, and so many that
/// blocks are copied; every number of rows in a tile.
const SHAPES: [[usize; 4]; 12] = [
    [1, 1, 0, 1],
    [1, 8, 0, 3],
    [4, 16, 126, 1],
    [3, 16, 126, 5],
    [2, 17, 127, 2],
    [7, 40, 128, 3],
    [2, 72, 250, 40],
    [1, 64, 120, 140],
    [5, 130, 0, 20],
    [4, 256, 300, 9],
    [6, 33, 1000, 1],
    [13, 24, 255, 2],
];

/// Scores of every kind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Even,
    /// So far apart that few positions count.
    Peaked,
    /// Each block's are above those of the block before, or below.
    Rising,
    Falling,
    Outliers,
    /// Values that nearly cancel.
    Cancelling,
}

const KINDS: [Kind; 6] =
    [Kind::Even, Kind::Peaked, Kind::Rising, Kind::Falling, Kind::Outliers, Kind::Cancelling];

impl Case {
    fn new([heads, head_dim, past, tokens]: [usize; 4], kind: Kind, random: &mut Random) -> Case {
        let (rows, stride) = (past + tokens, 2 * head_dim + 3);
        let numbers = |kind: usize, count: usize, random: &mut Random| activations(kind, count, random);
        let kind_of = |outliers| usize::from(kind == Kind::Outliers && outliers);
        let mut q = numbers(kind_of(true), tokens * heads * head_dim, random);
        let mut k = numbers(0, rows * stride, random);
        let v = numbers(if kind == Kind::Cancelling { 2 } else { kind_of(true) }, rows * stride, random);
        match kind {
            Kind::Peaked => q.iter_mut().for_each(|x| *x *= 40.0),
            Kind::Rising | Kind::Falling => {
                q.iter_mut().for_each(|x| *x = x.abs());
                let slope = if kind == Kind::Rising { 0.02 } else { -0.02 };
                for (p, row) in k.chunks_exact_mut(stride).enumerate() {
                    row.iter_mut().for_each(|x| *x += slope * p as f32);
                }
            }
            _ => {}
        }
        let scale = (1.0 / (head_dim as f64).sqrt()) as f32;
        Case { heads, head_dim, past, tokens, scale, q, k, v }
    }

    fn stride(&self) -> usize {
        2 * self.head_dim + 3
    }

    /// Where the head lies in a row of the cache.
    fn first(&self) -> usize {
        self.head_dim + 2
    }

    /// What a call of these tokens gives, `[T, heads, Dh]`; with caches in f16 if they are given.
    fn call(
        &self,
        kernels: Kernels,
        tokens: std::ops::Range<usize>,
        halves: Option<&[Vec<u8>; 2]>,
    ) -> Vec<f32> {
        let group = self.heads * self.head_dim;
        let queries = Queries {
            q: &self.q[tokens.start * group..],
            stride: group,
            head_dim: self.head_dim,
            positions: self.past + tokens.start + 1,
            scale: self.scale,
        };
        let mut out = vec![f32::NAN; tokens.len() * group];
        let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(group).collect();
        let (stride, first, room) = (self.stride(), self.first(), &mut Room::default());
        match halves {
            None => {
                let cache = Cache { k: &self.k[..], v: &self.v[..], stride, first };
                (kernels.table().attend)(&queries, &cache, room, &mut rows);
            }
            Some([k, v]) => {
                let cache = Cache { k: &k[..], v: &v[..], stride, first };
                (kernels.table().attend_f16)(&queries, &cache, room, &mut rows);
            }
        }
        out
    }

    fn all(&self, kernels: Kernels) -> Vec<f32> {
        self.call(kernels, 0..self.tokens, None)
    }

    /// In calls of `tokens` tokens.
    fn split(&self, kernels: Kernels, tokens: usize) -> Vec<f32> {
        let starts = (0..self.tokens).step_by(tokens);
        starts.flat_map(|t| self.call(kernels, t..self.tokens.min(t + tokens), None)).collect()
    }

    /// The definition in f64, and by how much each output may differ from it.
    fn exact(&self) -> Vec<[f64; 2]> {
        const UNIT: f64 = f32::EPSILON as f64 / 2.0;
        let (dh, mut all) = (self.head_dim, Vec::new());
        let row = |of: &[f32], p: usize| -> Vec<f64> {
            of[p * self.stride() + self.first()..][..dh].iter().map(|&x| x.into()).collect()
        };
        for (i, q) in self.q.chunks_exact(dh).enumerate() {
            let positions = self.past + i / self.heads + 1;
            let terms = |p: usize| -> Vec<f64> {
                q.iter()
                    .zip(row(&self.k, p))
                    .map(|(&q, k)| f64::from(q) * k * f64::from(self.scale))
                    .collect()
            };
            let scores: Vec<f64> = (0..positions).map(|p| terms(p).iter().sum()).collect();
            // A lane adds its products, a tree the lanes; the scale and the difference to the maximum round once more.
            let sizes = (0..positions).map(|p| terms(p).iter().map(|x| x.abs()).sum::<f64>());
            let off = (dh.div_ceil(16) + 7) as f64 * UNIT * sizes.fold(0.0, f64::max);
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let (mut y, mut size) = (vec![0.0; dh], vec![0.0; dh]);
            for (p, weight) in weights.iter().enumerate() {
                for (d, v) in row(&self.v, p).iter().enumerate() {
                    y[d] += weight / sum * v;
                    size[d] += weight / sum * v.abs();
                }
            }
            // Two exponentials of four units each, both in the weights and their sum; additions within a block and of
            // blocks, each of which is scaled.
            let steps = (128 + 3 * positions.div_ceil(128) + 20) as f64;
            let share = (2.0 * off).exp_m1() + steps * UNIT;
            // Weights are never less than e⁻⁸⁷.
            all.extend(y.iter().zip(size).map(|(&y, size)| [y, share * size + 1e-30]));
        }
        all
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn attention_is_softmax_in_f64() {
    let mut random = Random(21);
    for kind in KINDS {
        let (mut error, mut power) = (0.0, 0.0);
        for shape in SHAPES {
            let case = Case::new(shape, kind, &mut random);
            let exact = case.exact();
            for kernels in Kernels::all() {
                for (i, (found, [exact, bound])) in case.all(kernels).iter().zip(&exact).enumerate() {
                    let off = (f64::from(*found) - exact).abs();
                    assert!(off <= *bound, "{kernels:?} {shape:?} {kind:?} {i}: {found} {exact} ±{bound:e}");
                    error += off * off;
                    power += exact * exact;
                }
            }
        }
        println!("{kind:?}: NMSE {:.1e}", error / power);
        // Where scores are large or values cancel, f32 itself is coarser.
        if [Kind::Even, Kind::Rising, Kind::Falling].contains(&kind) {
            assert!(error / power < 1e-12, "{kind:?}: {:e}", error / power);
        }
    }
}

#[test]
fn the_bits_of_a_query_are_its_own() {
    let mut random = Random(22);
    for shape in SHAPES {
        for kind in KINDS {
            let case = Case::new(shape, kind, &mut random);
            let expected = bits(&case.all(Kernels::all()[0]));
            for kernels in Kernels::all() {
                assert!(bits(&case.all(kernels)) == expected, "{kernels:?} {shape:?} {kind:?}");
                for tokens in [1, 2, 7, 24] {
                    let found = bits(&case.split(kernels, tokens));
                    assert!(found == expected, "{kernels:?} {shape:?} {kind:?} by {tokens}");
                }
            }
        }
    }
}

#[test]
fn the_room_left_by_other_calls_changes_nothing() {
    let mut random = Random(23);
    let mut room = Room::default();
    for shape in SHAPES.into_iter().chain(SHAPES.into_iter().rev()) {
        let case = Case::new(shape, Kind::Even, &mut random);
        let kernels = Kernels::detect();
        room.lanes.fill(Lane([f32::NAN; LANES]));
        let mut out = vec![f32::NAN; case.q.len()];
        let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(case.heads * case.head_dim).collect();
        let queries = Queries {
            q: &case.q,
            stride: case.heads * case.head_dim,
            head_dim: case.head_dim,
            positions: case.past + 1,
            scale: case.scale,
        };
        let cache = Cache { k: &case.k[..], v: &case.v[..], stride: case.stride(), first: case.first() };
        (kernels.table().attend)(&queries, &cache, &mut room, &mut rows);
        assert!(bits(&out) == bits(&case.all(kernels)), "{shape:?}");
    }
}

/// Caches in f16 give the bits of the same numbers in f32, in every table: keys of one part of a row, values of another.
#[test]
fn attention_over_f16_is_that_over_the_same_numbers() {
    let mut random = Random(24);
    for shape in SHAPES {
        let mut case = Case::new(shape, Kind::Even, &mut random);
        let halves = [&mut case.k, &mut case.v].map(|of| -> Vec<u8> {
            of.iter_mut()
                .flat_map(|x| {
                    let half = half::f16::from_f32(*x);
                    *x = half.to_f32();
                    half.to_le_bytes()
                })
                .collect()
        });
        let expected = case.all(Kernels::all()[0]);
        assert!(expected.iter().all(|x| x.is_finite() && *x != 0.0));
        for kernels in Kernels::all() {
            for tokens in [1, 5, case.tokens] {
                let starts = (0..case.tokens).step_by(tokens);
                let calls = starts.map(|t| case.call(kernels, t..case.tokens.min(t + tokens), Some(&halves)));
                assert!(
                    bits(&calls.flatten().collect::<Vec<_>>()) == bits(&expected),
                    "{kernels:?} {shape:?}"
                );
            }
        }
    }
}

/// What is no number reaches every query that sees it, and no other.
#[test]
fn not_a_number_reaches_those_who_see_it() {
    let mut random = Random(25);
    for shape in SHAPES.into_iter().filter(|s| s[3] > 1) {
        let mut case = Case::new(shape, Kind::Even, &mut random);
        let (group, at) = (case.heads * case.head_dim, case.past + case.tokens / 2);
        let place = at * case.stride() + case.first() + case.head_dim / 2;
        for kernels in Kernels::all() {
            let before = bits(&case.all(kernels));
            for bad in [f32::NAN, f32::from_bits(0xffc0_0001), f32::INFINITY] {
                let good = std::mem::replace(&mut case.k[place], bad);
                let found = case.all(kernels);
                case.k[place] = good;
                let (unseen, seen) = found.split_at(case.tokens / 2 * group);
                assert!(bits(unseen) == before[..unseen.len()], "{kernels:?} {shape:?} {bad}");
                for (i, row) in seen.chunks_exact(case.head_dim).enumerate() {
                    // A score of −∞ has no weight.
                    let query = case.q[unseen.len() + i * case.head_dim + case.head_dim / 2];
                    let nan = bad.is_nan() || query > 0.0;
                    assert!(row.iter().all(|x| x.is_nan() == nan), "{kernels:?} {shape:?} {bad} {i}");
                }

                let good = std::mem::replace(&mut case.v[place], bad);
                let found = case.all(kernels);
                case.v[place] = good;
                for (i, (found, before)) in found.iter().zip(&before).enumerate() {
                    let sees = i / group >= case.tokens / 2 && i % case.head_dim == case.head_dim / 2;
                    assert_eq!(!found.is_finite(), sees, "{kernels:?} {shape:?} {bad} {i}");
                    assert!(sees || found.to_bits() == *before, "{kernels:?} {shape:?} {bad} {i}");
                }
            }
        }
    }
}

/// Positions whose scores are −∞ have no weight, be they blocks in a row; if there are no others, nothing is defined.
#[test]
fn infinitely_low_scores_have_no_weight() {
    let mut random = Random(26);
    for [from, to, past] in [[0, 128, 200], [0, 200, 300], [128, 256, 300], [130, 301, 300], [0, 301, 300]] {
        let mut case = Case::new([2, 24, past, 1], Kind::Even, &mut random);
        case.q.iter_mut().for_each(|x| *x = x.abs());
        let stride = case.stride();
        // What sees the rest only.
        let keep = |of: &[f32]| [&of[..from * stride], &of[to * stride..]].concat();
        let rest = Case {
            past: past - (to - from).min(past),
            k: keep(&case.k),
            v: keep(&case.v),
            q: case.q.clone(),
            ..case
        };
        for row in case.k[..to * stride].chunks_exact_mut(stride).skip(from) {
            row[case.head_dim + 2] = f32::NEG_INFINITY;
        }
        for kernels in Kernels::all() {
            let found = case.all(kernels);
            if to - from == past + 1 {
                assert!(found.iter().all(|x| x.is_nan()), "{kernels:?} {found:?}");
                continue;
            }
            for (found, [exact, bound]) in found.iter().zip(rest.exact()) {
                let off = (f64::from(*found) - exact).abs();
                assert!(off <= bound, "{kernels:?} {from} {to}: {found} {exact} ±{bound:e}");
            }
        }
    }
}

/// The largest scores and values that f32 has room for.
#[test]
fn nothing_overflows() {
    let mut random = Random(27);
    for (keys, values) in [(1e30, 1.0), (1.0, 1e30), (1e36, 1e34)] {
        let mut case = Case::new([4, 48, 600, 9], Kind::Even, &mut random);
        case.k.iter_mut().for_each(|x| *x *= keys);
        case.v.iter_mut().for_each(|x| *x *= values);
        let largest = case.v.iter().fold(0f32, |m, x| m.max(x.abs()));
        for kernels in Kernels::all() {
            assert!(
                case.all(kernels).iter().all(|x| x.abs() <= 1.001 * largest),
                "{kernels:?} {keys} {values}"
            );
        }
    }
}
