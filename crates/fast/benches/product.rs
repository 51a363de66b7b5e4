//! A matrix times activations, encoding by encoding, on one thread: one token, whose rows are multiplied straight from
//! their bytes, and a prompt of 64. Weights a second; what comes out is held against `codec` and f64 before it is timed.
//!
//! `cargo bench -p etalon-fast --bench product [-- NAME]`; `ETALON_KERNELS` forces an instruction set.

use std::path::Path;

use codec::Encoding;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fast::{Model, Options};
use model::{Checkpoint, Matrix, NonFinitePolicy};
use ndarray::Array2;

const ROWS: usize = 1024;
const COLS: usize = 1024;
const TOKENS: [usize; 2] = [1, 64];

/// What the fast path promises of every encoding, Σ(a−b)²/Σb².
const LIMIT: f64 = 1e-10;

/// Bell-shaped, as weights and activations are.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f32 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
        };
        uniform() + uniform() + uniform() + uniform()
    }
}

/// The bytes of a random matrix.
fn bytes(encoding: Encoding, draw: &mut Draw) -> Vec<u8> {
    let len = ROWS * COLS / encoding.block_len() * encoding.block_bytes();
    if !encoding.is_encodable() {
        // Any bytes are blocks, but these have scales with moderate exponents: neither infinite nor subnormal.
        return (0..len).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8 & 0x3f | 0x20).collect();
    }
    // Zeros and ones where an encoding has no fractions.
    let whole = encoding.block_len() == 1
        && encoding.encode(&[0.25], None, &mut vec![0; encoding.block_bytes()]).is_err();
    let value = |x: f32| if whole { f32::from(x > 0.0) } else { x * 0.01 };
    let values: Vec<f32> = (0..ROWS * COLS).map(|_| value(draw.next())).collect();
    let importance: Vec<f32> = (0..COLS).map(|_| draw.next().abs()).collect();
    let (mut bytes, mut decoded) = (vec![0; len], vec![0.0; values.len()]);
    encoding.encode_fast(&values, Some(&importance), &mut bytes, &mut decoded).expect("whole rows");
    bytes
}

/// How far `y` is from the decoded weights times `x` in f64.
fn nmse(w: &Matrix<'_>, x: &Array2<f32>, y: &Array2<f32>) -> f64 {
    let (mut off, mut all, mut row) = (0.0, 0.0, vec![0.0; COLS]);
    for n in 0..ROWS {
        w.encoding().decode(w.row_bytes(n), &mut row).expect("a row's bytes");
        for (x, y) in x.outer_iter().zip(y.outer_iter()) {
            let exact: f64 = x.iter().zip(&row).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            off += (f64::from(y[n]) - exact).powi(2);
            all += exact.powi(2);
        }
    }
    off / all
}

fn product(c: &mut Criterion) {
    // Any model lends its threads and its instruction set.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/dense-text-f32");
    let checkpoint = Checkpoint::open(&path, &Default::default()).expect("a fixture");
    let weights = checkpoint.weights(NonFinitePolicy::Refuse).expect("finite weights");
    let options = Options { threads: Some(1), ..Options::default() };
    let model = Model::new(checkpoint.config(), weights, options);
    let mut draw = Draw(1);
    let mut group = c.benchmark_group(format!("product, {}", model.kernels().name()));
    group.throughput(Throughput::Elements((ROWS * COLS) as u64));
    for &encoding in Encoding::ALL {
        let bytes = bytes(encoding, &mut draw);
        let w = Matrix::new(&bytes, encoding, ROWS, COLS).expect("whole rows");
        for tokens in TOKENS {
            let x = Array2::from_shape_simple_fn((tokens, COLS), || draw.next());
            let found = nmse(&w, &x, &model.product(&x, &w));
            assert!(found <= LIMIT, "{encoding}, {tokens} tokens: {found:e}");
            group.bench_function(format!("{encoding}, {tokens}"), |b| b.iter(|| model.product(&x, &w)));
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(100))
        .measurement_time(std::time::Duration::from_millis(500))
        .sample_size(10);
    targets = product
}
criterion_main!(benches);
