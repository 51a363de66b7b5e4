//! Every table against `scalar`, to the bit, and `scalar` against the codecs in f64.

use codec::Encoding;
use ndarray::Array2;

use super::digits::{Chunk, Coding, Digits};
use super::fixed::TOKENS;
use super::lane::{LANES, Lane, flat, flat_mut};
use super::superblock::ROWS;
use super::tile::{Panel, TOGETHER, Tokens};
use super::*;

/// Numbers of a small generator.
pub(super) struct Random(pub u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }

    /// −1 to 1.
    fn unit(&mut self) -> f32 {
        self.bits() as i32 as f32 / (1u32 << 31) as f32
    }
}

const CODINGS: [(Coding, Encoding); 25] = [
    (Coding::Q4_0, Encoding::Q4_0),
    (Coding::Q8_0, Encoding::Q8_0),
    (Coding::Q2K, Encoding::Q2K),
    (Coding::Q3K, Encoding::Q3K),
    (Coding::Q4K, Encoding::Q4K),
    (Coding::Q5K, Encoding::Q5K),
    (Coding::Q6K, Encoding::Q6K),
    (Coding::Iq4Nl, Encoding::Iq4Nl),
    (Coding::Iq4Xs, Encoding::Iq4Xs),
    (Coding::Q4_1, Encoding::Q4_1),
    (Coding::Q5_0, Encoding::Q5_0),
    (Coding::Q5_1, Encoding::Q5_1),
    (Coding::Mxfp4, Encoding::Mxfp4),
    (Coding::Nvfp4, Encoding::Nvfp4),
    (Coding::Q1_0, Encoding::Q1_0),
    (Coding::Q2_0, Encoding::Q2_0),
    (Coding::Tq1_0, Encoding::Tq1_0),
    (Coding::Tq2_0, Encoding::Tq2_0),
    (Coding::Iq1S, Encoding::Iq1S),
    (Coding::Iq1M, Encoding::Iq1M),
    (Coding::Iq2Xxs, Encoding::Iq2Xxs),
    (Coding::Iq2Xs, Encoding::Iq2Xs),
    (Coding::Iq2S, Encoding::Iq2S),
    (Coding::Iq3Xxs, Encoding::Iq3Xxs),
    (Coding::Iq3S, Encoding::Iq3S),
];

#[test]
fn every_encoding_of_weights_in_blocks_has_a_row_kernel() {
    for &encoding in Encoding::ALL {
        let coding = Coding::of(encoding, 512);
        assert_eq!(coding.is_some(), encoding.has_whole(), "{encoding}");
        assert!(
            coding.is_none_or(|coding| CODINGS.contains(&(coding, encoding))),
            "{encoding} is tested below"
        );
        assert_eq!(Coding::of(encoding, 64), None);
    }
}

/// Where a block has its factors in half precision.
fn scale_positions(encoding: Encoding) -> &'static [usize] {
    match encoding {
        Encoding::Q2K => &[80, 82],
        Encoding::Q3K => &[108],
        Encoding::Q4K | Encoding::Q5K | Encoding::Q4_1 | Encoding::Q5_1 => &[0, 2],
        Encoding::Q6K => &[208],
        Encoding::Tq1_0 => &[52],
        // Four nibbles, of which the highest has the upper bits of the exponent.
        Encoding::Iq1M => &[54],
        Encoding::Tq2_0 => &[64],
        Encoding::Mxfp4 | Encoding::Nvfp4 => &[],
        _ => &[0],
    }
}

/// Any codes, with scales between 2⁻¹¹ and 2⁻⁷ wherever the encoding keeps them.
fn blocks(encoding: Encoding, cols: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..encoding.byte_len(cols as u64).unwrap()).map(|_| random.bits() as u8).collect();
    for block in bytes.chunks_exact_mut(encoding.block_bytes()) {
        for &at in scale_positions(encoding) {
            block[at + 1] = block[at + 1] & 0x8f | 0x10;
        }
        if encoding == Encoding::Mxfp4 {
            block[0] = 128 - 11 + block[0] % 4;
        }
    }
    bytes
}

/// Activations of every kind: even, with outliers, nearly cancelling, tiny, huge, zero here and there, negative zeros.
pub(super) fn activations(kind: usize, count: usize, random: &mut Random) -> Vec<f32> {
    let value = |i: usize, random: &mut Random| match kind {
        0 => random.unit(),
        1 => random.unit() * if random.bits().is_multiple_of(61) { 3e3 } else { 1.0 },
        2 => [1e4, -1e4][i % 2] + random.unit(),
        3 => random.unit() * 1e-36,
        4 => random.unit() * 1e30,
        5 => {
            if (i / 32).is_multiple_of(2) {
                0.0
            } else {
                -0.0 * random.unit()
            }
        }
        _ => f32::from_bits(random.bits() & 0x7fff_ffff | 1).min(1e20) * random.unit(),
    };
    (0..count).map(|i| value(i, random)).collect()
}

fn pack(table: &Table, x: &[f32], coding: Coding) -> (Vec<Chunk>, Vec<Lane>) {
    let mut chunks = vec![Chunk::ZERO; x.len() / 64];
    let mut minus = vec![Lane::ZERO; x.len().div_ceil(256)];
    (table.pack)(x, coding.layout(), &mut chunks, &mut minus);
    (chunks, minus)
}

fn run(table: &Table, row: &[u8], x: &[f32], coding: Coding) -> f32 {
    let (chunks, minus) = pack(table, x, coding);
    // One of a call's rows.
    let mut sums = [f32::NAN; 2];
    (table.rows(coding))(&[&row[..row.len() / 2], row], Digits { chunks: &chunks, minus: &minus }, &mut sums);
    sums[1]
}

fn decode(encoding: Encoding, bytes: &[u8], cols: usize) -> Vec<f32> {
    let mut values = vec![0f32; cols];
    encoding.decode(bytes, &mut values).unwrap();
    values
}

#[test]
fn every_table_has_the_bits_of_scalar_on_quantized_rows() {
    let mut random = Random(1);
    for (coding, encoding) in CODINGS {
        for units in [2, 4, 6, 8, 28] {
            for kind in 0..7 {
                let cols = 128 * units;
                let (row, x) = (blocks(encoding, cols, &mut random), activations(kind, cols, &mut random));
                let expected = run(&scalar::TABLE, &row, &x, coding);
                for kernels in Kernels::all() {
                    let found = run(kernels.table(), &row, &x, coding);
                    assert_eq!(
                        found.to_bits(),
                        expected.to_bits(),
                        "{kernels:?} {coding:?} {cols} {kind}: {found} {expected}"
                    );
                }
            }
        }
    }
}

/// Odd numbers of units, which only blocks of 32 can have.
#[test]
fn rows_of_odd_units_are_whole() {
    let mut random = Random(2);
    for (coding, encoding) in CODINGS.into_iter().filter(|(_, e)| e.block_len() == 32) {
        for units in [1, 3, 5] {
            let cols = 128 * units;
            let (row, x) = (blocks(encoding, cols, &mut random), activations(0, cols, &mut random));
            let expected = run(&scalar::TABLE, &row, &x, coding);
            let w = decode(encoding, &row, cols);
            let exact: f64 = w.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            assert!(
                (f64::from(expected) - exact).abs() < 1e-5 * cols as f64,
                "{coding:?}: {expected} {exact}"
            );
            for kernels in Kernels::all() {
                let found = run(kernels.table(), &row, &x, coding);
                assert_eq!(found.to_bits(), expected.to_bits(), "{kernels:?} {coding:?} {cols}");
            }
        }
    }
}

/// An activation is off by half of 2⁻²¹ of its block's largest, four of which together times a code are rounded to 24
/// bits; so are their scales and sums. All of it is within this share of the block's largest times its largest weight.
const SHARE: f64 = 1.0 / (1u64 << 20) as f64;

#[test]
fn quantized_rows_are_the_decoded_rows_in_f64() {
    let mut random = Random(3);
    for (coding, encoding) in CODINGS {
        let (mut error, mut power) = (0.0, 0.0);
        for kind in [0, 1, 2, 4] {
            for _ in 0..50 {
                let cols = 1024;
                let (row, x) = (blocks(encoding, cols, &mut random), activations(kind, cols, &mut random));
                let w = decode(encoding, &row, cols);
                let exact: f64 = w.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let bound: f64 = w
                    .chunks(32)
                    .zip(x.chunks(32))
                    .map(|(w, x)| {
                        let largest = |v: &[f32]| v.iter().fold(0f32, |m, v| m.max(v.abs())) as f64;
                        32.0 * largest(w) * largest(x)
                    })
                    .sum();
                let off = (f64::from(run(&scalar::TABLE, &row, &x, coding)) - exact).abs();
                assert!(off <= SHARE * bound, "{coding:?} {kind}: {off:e} of {bound:e}");
                if kind == 0 {
                    error += off * off;
                    power += exact * exact;
                }
            }
        }
        println!("{coding:?}: NMSE {:.1e}", error / power);
        assert!(error / power < 1e-12, "{coding:?}: {:e}", error / power);
    }
}

#[test]
fn not_a_number_stays_not_a_number() {
    let mut random = Random(4);
    for (coding, encoding) in CODINGS {
        let row = blocks(encoding, 512, &mut random);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = activations(0, 512, &mut random);
            x[300] = bad;
            for kernels in Kernels::all() {
                assert!(run(kernels.table(), &row, &x, coding).is_nan(), "{kernels:?} {coding:?} {bad}");
            }
        }
    }
}

#[test]
fn every_table_packs_the_same_digits() {
    let mut random = Random(5);
    for (coding, _) in CODINGS {
        for kind in 0..7 {
            let x = activations(kind, 768, &mut random);
            let (expected, minus) = pack(&scalar::TABLE, &x, coding);
            for kernels in Kernels::all() {
                let (found, found_minus) = pack(kernels.table(), &x, coding);
                for (a, b) in found.iter().zip(&expected) {
                    assert_eq!((a.digits, a.sums), (b.digits, b.sums), "{kernels:?} {coding:?} {kind}");
                    assert_eq!(a.scales.map(f32::to_bits), b.scales.map(f32::to_bits));
                }
                let bits = |lanes: &[Lane]| flat(lanes).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found_minus), bits(&minus));
            }
        }
    }
}

/// `[rows, groups]` of random numbers.
fn lanes(rows: usize, groups: usize, random: &mut Random) -> Vec<Lane> {
    let mut lanes = vec![Lane::ZERO; rows * groups];
    flat_mut(&mut lanes)
        .iter_mut()
        .for_each(|x| *x = random.unit() * [1.0, 1.0, 1e3][random.bits() as usize % 3]);
    lanes
}

/// Rows of `groups` lane groups as [`Tokens`] has them, for tiles of `tile` tokens.
fn interleave(x: &[Lane], groups: usize, tile: usize) -> Vec<Lane> {
    let whole = x.len() / (tile * groups) * tile * groups;
    let mut lanes = Vec::with_capacity(x.len());
    for rows in x[..whole].chunks_exact(tile * groups) {
        for g in 0..groups {
            lanes.extend(rows[g..].iter().step_by(groups));
        }
    }
    lanes.extend_from_slice(&x[whole..]);
    lanes
}

#[test]
fn every_table_has_the_bits_of_scalar_on_tiles() {
    let mut random = Random(6);
    for groups in [1, 2, 63, 64, 65, 130] {
        for (rows, tokens) in [(1, 1), (2, 5), (3, 6), (4, 7), (9, 13), (32, 12)] {
            let (w, x) = (lanes(rows, groups + 1, &mut random), lanes(tokens, groups, &mut random));
            let panel = Panel { lanes: &w, stride: groups + 1 };
            let of = |table: &Table| {
                let x = interleave(&x, groups, table.tile_tokens);
                let mut out = Array2::zeros((tokens, rows));
                let tokens = Tokens { lanes: &x, tokens, groups };
                (table.product)(&panel, tokens, &mut out.view_mut(), &mut Vec::new());
                out
            };
            let expected = of(&scalar::TABLE);
            for t in 0..tokens {
                for r in 0..rows {
                    let w = flat(&w[r * (groups + 1)..][..groups]);
                    let x = flat(&x[t * groups..][..groups]);
                    let terms = || w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                    let (exact, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                    // A lane's sum of n products errs by n roundings of at most its size.
                    let bound = (groups + 5) as f64 * f64::from(f32::EPSILON) / 2.0 * size;
                    assert!((f64::from(expected[[t, r]]) - exact).abs() <= bound);
                }
            }
            for kernels in Kernels::all() {
                let found = of(kernels.table());
                assert!(
                    found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{kernels:?} {rows} {tokens} {groups}"
                );
            }
        }
    }
}

#[test]
fn plain_numbers_have_the_bits_of_decoded_tiles() {
    let mut random = Random(7);
    for encoding in [Encoding::F32, Encoding::F16, Encoding::BF16] {
        for groups in [1, 5, 64, 70] {
            let cols = groups * LANES;
            let rows: Vec<Vec<u8>> = (0..TOGETHER)
                .map(|_| {
                    let values: Vec<f32> = (0..cols).map(|_| random.unit()).collect();
                    let mut bytes = vec![0; encoding.byte_len(cols as u64).unwrap() as usize];
                    encoding.encode(&values, None, &mut bytes).unwrap();
                    bytes
                })
                .collect();
            let x = lanes(1, groups, &mut random);
            for kernels in Kernels::all() {
                let table = kernels.table();
                let numbers = table.numbers(encoding).unwrap();
                let found = numbers(std::array::from_fn(|r| &rows[r][..]), &x);
                for (found, row) in found.iter().zip(&rows) {
                    let expected = (scalar::TABLE.dot)(&decode(encoding, row, cols), flat(&x));
                    assert_eq!(found.to_bits(), expected.to_bits(), "{kernels:?} {encoding} {groups}");
                }
            }
        }
    }
}

#[test]
fn every_table_has_the_bits_of_scalar_on_activations() {
    let mut random = Random(8);
    for len in [1, 7, 8, 16, 33, 64, 257] {
        for kind in [0, 1, 2, 3, 4] {
            let (x, z, gain) = (
                activations(kind, len, &mut random),
                activations(0, len, &mut random),
                activations(0, len, &mut random),
            );
            let of = |table: &Table| {
                let mut all = Vec::new();
                let mut take = |f: &dyn Fn(&mut [f32])| {
                    let mut y = z.clone();
                    f(&mut y);
                    all.extend(y.iter().map(|y| y.to_bits()));
                };
                take(&|y| (table.rms_norm)(&x, &gain, 1e-6, y));
                take(&|y| (table.gated_norm)(&x, &gain, 1e-6, &z, y));
                take(&|y| (table.l2_norm)(y, 0.5));
                take(&|y| {
                    y.copy_from_slice(&z);
                    (table.silu_product)(&x, y);
                });
                take(&|y| (table.sigmoid_product)(&x, &z, y));
                take(&|y| (table.add)(&x, &z, y));
                take(&|y| (table.add_scaled)(y, 0.3, &x));
                take(&|y| (table.convolve)(&[&x, &z], &[&gain, &z], y));
                take(&|y| y[0] = (table.dot)(&x, &z));
                all
            };
            let expected = of(&scalar::TABLE);
            for kernels in Kernels::all() {
                assert!(of(kernels.table()) == expected, "{kernels:?} {len} {kind}");
            }
        }
    }
}

#[test]
fn every_table_has_the_bits_of_scalar_on_the_delta_rule() {
    let mut random = Random(9);
    for (key_dim, value_dim, tokens) in [(8, 8, 3), (16, 40, 2), (32, 130, 5)] {
        let stride = 2 * key_dim + value_dim;
        let mixed = activations(0, tokens * stride, &mut random);
        let state: Vec<f64> =
            activations(0, key_dim * value_dim, &mut random).into_iter().map(f64::from).collect();
        let decay: Vec<f64> = activations(0, tokens, &mut random).iter().map(|x| x.abs().into()).collect();
        let head = DeltaHead {
            mixed: &mixed,
            stride,
            q: 0,
            k: key_dim,
            v: 2 * key_dim,
            decay: &decay,
            beta: &decay,
            key_dim,
            value_dim,
        };
        let of = |table: &Table| {
            let (mut state, mut out) = (state.clone(), vec![0f32; tokens * value_dim]);
            (table.delta_rule)(&head, &mut state, &mut out);
            let state = state.iter().map(|x| x.to_bits());
            state.chain(out.iter().map(|x| x.to_bits().into())).collect::<Vec<u64>>()
        };
        let expected = of(&scalar::TABLE);
        for kernels in Kernels::all() {
            assert!(of(kernels.table()) == expected, "{kernels:?} {key_dim} {value_dim}");
        }
    }
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    for i in -87_000..88_000 {
        let x = i as f32 / 1000.0;
        let (found, exact) = (f64::from(plain::exp(x)), f64::from(x).exp());
        assert!((found / exact - 1.0).abs() < 2.0 * f64::from(f32::EPSILON), "{x}: {found} {exact}");
    }
    for bits in [0x7fc0_0000, 0xffc0_0000, 0x7fc0_0001, 0xffc0_01ff] {
        assert!(plain::exp(f32::from_bits(bits)).is_nan(), "{bits:#x}");
    }
    assert!(plain::exp(-1e30) < 2e-38 && plain::exp(1e30) > 2e38);
}

/// `[rows, cols]` of an encoding times `[tokens, cols]`, as a call of many tokens does it.
fn whole(table: &Table, coding: Super, rows: &[Vec<u8>], x: &[Vec<f32>]) -> Array2<f32> {
    let (superblocks, bytes) = (x[0].len() / COLUMNS, coding.bytes());
    let mut opened = vec![RowTile::ZERO; rows.len().div_ceil(ROWS)];
    let mut tokens = vec![TokenTile::ZERO; x.len().div_ceil(TOKENS)];
    let mut sums = vec![Lane::ZERO; opened.len() * tokens.len() * ROWS];
    for s in 0..superblocks {
        for (r, row) in rows.iter().enumerate() {
            (table.open_row)(coding, &row[s * bytes..][..bytes], r % ROWS, &mut opened[r / ROWS]);
        }
        for (x, tile) in x.chunks(TOKENS).zip(&mut tokens) {
            let mut rows = [[0.0; COLUMNS]; TOKENS];
            for (row, x) in rows.iter_mut().zip(x) {
                row.copy_from_slice(&x[s * COLUMNS..][..COLUMNS]);
            }
            (table.fix_tokens)(&rows, tile);
        }
        (table.add_superblock)(&opened, &tokens, coding.minima(), &mut sums);
    }
    let mut out = Array2::zeros((x.len(), rows.len()));
    (table.scatter)(&sums, &mut out.view_mut());
    out
}

/// Blocks of which every byte that is no scale of the whole block is `byte`.
fn uniform_blocks(encoding: Encoding, cols: usize, byte: u8) -> Vec<u8> {
    let mut bytes = blocks(encoding, cols, &mut Random(0));
    let keep = scale_positions(encoding);
    for block in bytes.chunks_exact_mut(encoding.block_bytes()) {
        for (i, b) in block.iter_mut().enumerate() {
            if !keep.iter().any(|at| (*at..at + 2).contains(&i)) {
                *b = byte;
            }
        }
    }
    bytes
}

#[test]
fn every_table_has_the_bits_of_scalar_on_superblocks() {
    let mut random = Random(10);
    for (coding, encoding) in Super::ALL {
        for (rows, tokens, superblocks) in
            [(1, 1, 1), (3, 17, 2), (16, 16, 1), (17, 8, 3), (5, 9, 1), (64, 33, 2)]
        {
            let cols = superblocks * COLUMNS;
            let mut w: Vec<_> = (0..rows).map(|_| blocks(encoding, cols, &mut random)).collect();
            // Every code and scale at an end: the largest sums there are.
            for (w, byte) in w.iter_mut().skip(1).zip([0, 255, 0x80, 0x7f, 0x0f]) {
                *w = uniform_blocks(encoding, cols, byte);
            }
            let mut x: Vec<_> = (0..tokens).map(|t| activations(t % 7, cols, &mut random)).collect();
            for (x, largest) in x.iter_mut().skip(7).zip([1.0, -1.0]) {
                x.fill(largest);
            }
            let expected = whole(&scalar::TABLE, coding, &w, &x);
            for kernels in Kernels::all() {
                let found = whole(kernels.table(), coding, &w, &x);
                for ((at, found), expected) in found.indexed_iter().zip(&expected) {
                    assert_eq!(
                        found.to_bits(),
                        expected.to_bits(),
                        "{kernels:?} {coding:?} {at:?}: {found} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn superblocks_are_the_decoded_rows_in_f64() {
    let mut random = Random(11);
    for (coding, encoding) in Super::ALL {
        let (mut error, mut power) = (0.0, 0.0);
        let cols = 4 * COLUMNS;
        for kind in [0, 1, 2, 4] {
            let mut w: Vec<_> = (0..20).map(|_| blocks(encoding, cols, &mut random)).collect();
            for (w, byte) in w.iter_mut().zip([0, 255, 0x80, 0x7f, 0x0f]) {
                *w = uniform_blocks(encoding, cols, byte);
            }
            let x: Vec<_> = (0..18).map(|_| activations(kind, cols, &mut random)).collect();
            let found = whole(&scalar::TABLE, coding, &w, &x);
            for ((t, r), found) in found.indexed_iter() {
                let w = decode(encoding, &w[r], cols);
                let exact: f64 = w.iter().zip(&x[t]).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let bound: f64 = w
                    .chunks(COLUMNS)
                    .zip(x[t].chunks(COLUMNS))
                    .map(|(w, x)| {
                        let largest = |v: &[f32]| v.iter().fold(0f32, |m, v| m.max(v.abs())) as f64;
                        COLUMNS as f64 * largest(w) * largest(x)
                    })
                    .sum();
                let off = (f64::from(*found) - exact).abs();
                assert!(off <= SHARE * bound, "{coding:?} {kind} {t} {r}: {off:e} of {bound:e}");
                if kind == 0 {
                    error += off * off;
                    power += exact * exact;
                }
            }
        }
        println!("{coding:?}: NMSE {:.1e}", error / power);
        assert!(error / power < 1e-13, "{coding:?}: {:e}", error / power);
    }
}

#[test]
fn not_a_number_stays_with_its_token() {
    let mut random = Random(12);
    for (coding, encoding) in Super::ALL {
        let w: Vec<_> = (0..3).map(|_| blocks(encoding, 512, &mut random)).collect();
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x: Vec<_> = (0..6).map(|_| activations(0, 512, &mut random)).collect();
            x[4][300] = bad;
            for kernels in Kernels::all() {
                let found = whole(kernels.table(), coding, &w, &x);
                for ((t, _), found) in found.indexed_iter() {
                    assert_eq!(found.is_nan(), t == 4, "{kernels:?} {coding:?} {bad}");
                }
            }
        }
    }
}

#[test]
fn half_precision_widens_as_its_crate_does() {
    for bits in 0..=u16::MAX {
        let (found, expected) = (digits::half(&bits.to_le_bytes()), half::f16::from_bits(bits).to_f32());
        assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#x}");
    }
}

/// Activations taken apart for tiles are those written to be read.
#[cfg(target_arch = "x86_64")]
#[test]
fn fours_are_signed_digits() {
    let Some(kernels) = Kernels::all().into_iter().find(|k| k.name() == "amx") else { return };
    let mut random = Random(13);
    for kind in 0..7 {
        let x = std::array::from_fn(|_| *activations(kind, COLUMNS, &mut random).first_chunk().unwrap());
        let (mut found, mut expected) = (TokenTile::ZERO, TokenTile::ZERO);
        (kernels.table().fix_tokens)(&x, &mut found);
        fixed::fix(&x, &mut expected, fixed::fours);
        assert!(found.lines[..192] == expected.lines[..192], "{kind}");
        let bits = |lane: &Lane| lane.0.map(f32::to_bits);
        assert_eq!(bits(&found.scales), bits(&expected.scales));
        assert!(found.sixteens.iter().map(bits).eq(expected.sixteens.iter().map(bits)));
        assert!(found.thirty_twos.iter().map(bits).eq(expected.thirty_twos.iter().map(bits)));
    }
}
