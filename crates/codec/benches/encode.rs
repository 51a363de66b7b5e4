//! Encoding speed of every block encoding, in values a second of one thread: the scalar encoder, and the one in lanes.
//!
//! `cargo bench -p etalon-codec --bench encode [-- NAME]`

use codec::Encoding;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Values encoded at a time, as a thread of a conversion does.
const VALUES: usize = 1 << 15;
const ROW: usize = 1024;

fn encode(c: &mut Criterion) {
    // Sums of four draws: bell-shaped, as weights are.
    let mut state = 1_u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    let values: Vec<f32> = (0..VALUES).map(|_| (draw() + draw() + draw() + draw()) * 0.01).collect();
    let importance: Vec<f32> = (0..ROW).map(|_| draw().abs()).collect();
    let mut decoded = vec![0.0; VALUES];
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(VALUES as u64));
    for &encoding in Encoding::ALL.iter().filter(|e| e.is_encodable() && e.block_len() > 1) {
        let mut out = vec![0; VALUES / encoding.block_len() * encoding.block_bytes()];
        for importance in [None, Some(&importance[..])] {
            if importance.is_none() && encoding.needs_importance() {
                continue;
            }
            let weighed = if importance.is_some() { " weighed" } else { "" };
            group.bench_function(format!("{encoding}{weighed} scalar"), |b| {
                b.iter(|| encoding.encode(&values, importance, &mut out).unwrap());
            });
            group.bench_function(format!("{encoding}{weighed} fast"), |b| {
                b.iter(|| encoding.encode_fast(&values, importance, &mut out, &mut decoded).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(50))
        .measurement_time(std::time::Duration::from_millis(300))
        .sample_size(10);
    targets = encode
}
criterion_main!(benches);
