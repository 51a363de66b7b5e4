//! Decoding speed of every encoding, in bytes of f32 written per second by one thread.
//!
//! `cargo bench -p etalon-codec --bench decode [-- NAME]`

use codec::Encoding;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Values decoded at a time: 256 KiB of output, which stays in a second-level cache.
const VALUES: usize = 1 << 16;

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Bytes(4 * VALUES as u64));
    for &encoding in Encoding::ALL {
        let len = VALUES / encoding.block_len() * encoding.block_bytes();
        // Any bytes are blocks, but these have scales with moderate exponents: neither infinite nor subnormal.
        let bytes: Vec<u8> =
            (0..len).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8 & 0x3f | 0x20).collect();
        let mut out = vec![0.0; VALUES];
        group.bench_function(encoding.name(), |b| {
            b.iter(|| encoding.decode(&bytes, &mut out).unwrap());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1))
        .sample_size(20);
    targets = decode
}
criterion_main!(benches);
