//! The lanes against the scalar encoders, which `tests/golden.rs` holds against ggml.

use proptest::prelude::*;

use super::*;
use crate::table::Encode;

/// Every instruction set gives what the scalar encoder does.
fn check(encoding: Encoding, values: &[f32], importance: Option<&[f32]>) {
    let mut expected = vec![0; values.len() / encoding.block_len() * encoding.block_bytes()];
    // Without the checks around it, so that scales that overflow are compared, too.
    match (encoding.row().encode, importance) {
        (Encode::Blocks(encode), _) => encode(values, importance, &mut expected),
        (Encode::BlocksByImportance(encode), Some(importance)) => encode(values, importance, &mut expected),
        _ => panic!("{encoding} is no encoding of blocks, or needs importance"),
    }
    for kernels in Kernels::all() {
        let mut found = vec![0; expected.len()];
        assert!(encode(kernels, encoding, values, importance, &mut found), "{encoding}");
        let blocks = found.chunks(encoding.block_bytes()).zip(expected.chunks(encoding.block_bytes()));
        for (block, (found, expected)) in blocks.enumerate() {
            let values = &values[block * encoding.block_len()..][..encoding.block_len()];
            assert_eq!(found, expected, "{encoding} with {}, block {block}: {values:?}", kernels.name());
        }
    }
}

fn encodings() -> Vec<Encoding> {
    let fast = |encoding: &Encoding| encode(Kernels::Scalar, *encoding, &[], Some(&[]), &mut []);
    Encoding::ALL.iter().copied().filter(fast).collect()
}

/// Numbers that trip encoders: of any bits, everyday ones, zeros, ties on a grid, subnormals, extremes.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -1.0..1.0_f32,
        2 => Just(0.0_f32),
        2 => (-32..32_i32).prop_map(|q| q as f32 / 4.0),
        1 => any::<f32>().prop_filter("finite", |x| x.is_finite()),
        1 => (0..1000_u32, any::<bool>()).prop_map(|(bits, minus)| f32::from_bits(bits) * if minus { -1.0 } else { 1.0 }),
        1 => prop_oneof![Just(1e4_f32), Just(-1e4), Just(1e-6), Just(3e-15), Just(-2e-16), Just(-0.0)],
    ]
}

/// A block: mixed numbers, everyday ones at some scale, runs of equal ones, positive ones, mostly zeros, a one-hot.
fn block() -> impl Strategy<Value = Vec<f32>> {
    let everyday = || proptest::collection::vec(-1.0..1.0_f32, 256);
    prop_oneof![
        2 => proptest::collection::vec(number(), 256),
        6 => (everyday(), -30..20_i32).prop_map(|(x, e)| x.into_iter().map(|x| x * x * x * 2.0_f32.powi(e)).collect()),
        1 => everyday().prop_map(|x| (0..256).map(|i| x[i / 8]).collect()),
        1 => everyday().prop_map(|x| x.into_iter().map(f32::abs).collect()),
        1 => everyday().prop_map(|x| x.into_iter().map(|x| if x.abs() < 0.9 { 0.0 } else { x }).collect()),
        1 => everyday().prop_map(|x| (0..256).map(|i| x[i] * 10.0_f32.powi(i as i32 / 32 * 3 - 12)).collect()),
        1 => (number(), 0..256_usize).prop_map(|(x, at)| (0..256).map(|i| if i == at { x } else { 0.0 }).collect()),
        1 => number().prop_map(|x| vec![x; 256]),
    ]
}

fn importance() -> impl Strategy<Value = Vec<f32>> {
    let weight = prop_oneof![6 => 0.0..1.0_f32, 1 => Just(0.0_f32), 1 => 0.0..1e6_f32, 1 => 0.0..1e-30_f32];
    prop_oneof![
        6 => proptest::collection::vec(weight, 512),
        1 => Just(vec![0.0; 512]),
        1 => Just(vec![1.0; 512]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lanes_give_the_scalar_bytes(blocks in proptest::collection::vec(block(), 1..40), importance in importance()) {
        let mut blocks = blocks;
        for encoding in encodings() {
            if !encoding.needs_importance() {
                check(encoding, &blocks.concat(), None);
            }
        }
        if blocks.len() % 2 == 1 {
            blocks.push(vec![0.25; 256]);
        }
        for encoding in encodings() {
            check(encoding, &blocks.concat(), Some(&importance));
        }
    }
}

#[test]
fn rounding_is_that_of_single_numbers() {
    struct Round(Vec<f32>);
    impl WithSimd for Round {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for (low, high) in [(-32, 31), (0, 15), (-4, 3)] {
                for x in &self.0 {
                    let nearest = crate::arithmetic::nearest(*x);
                    let mut found = [0.0; MOST];
                    let lanes = Lanes::splat(simd, *x);
                    lanes.nearest(low, high).store(&mut found);
                    assert_eq!(found[0], nearest.min(high).max(low) as f32, "{x}");
                    if lanes.within(search::TAME).all() {
                        lanes.nearest_tame(low, high).store(&mut found);
                        assert_eq!(found[0], nearest.min(high).max(low) as f32, "{x}");
                        lanes.nearest_tame_up_to(high).store(&mut found);
                        assert_eq!(found[0], nearest.min(high) as f32, "{x}");
                        lanes.floor_tame().store(&mut found);
                        assert_eq!(found[0], x.floor(), "{x}");
                        assert_eq!(vector::to_bytes(&found)[0], x.floor() as i32 as u8, "{x}");
                    }
                    let (integer, byte) = lanes.nearest_and_byte(high);
                    integer.store(&mut found);
                    assert_eq!(found[0], nearest.min(high) as f32, "{x}");
                    byte.store(&mut found);
                    assert_eq!(found[0], f32::from(nearest.min(high) as u8), "{x}");
                }
            }
        }
    }
    let mut numbers: Vec<f32> = (-80..80).map(|q| q as f32 / 2.0).collect();
    numbers.extend([
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        4_194_303.5,
        -4_194_304.0,
        -4_194_305.0,
    ]);
    // Integers, and what is just beside them.
    numbers.extend((-300..300).flat_map(|q| [(q as f32).next_down(), (q as f32).next_up()]));
    numbers.extend((0..100_000_u32).map(|i| f32::from_bits(i.wrapping_mul(42_949) << 3)));
    for kernels in Kernels::all() {
        kernels.dispatch(Round(numbers.clone()));
    }
}

/// The sign of a zero reaches the bytes of some.
#[test]
fn zeros_of_both_signs_and_blocks_without_a_negative_value() {
    let zeros =
        [vec![0.0; 256], vec![-0.0; 256], (0..256).map(|i| if i % 2 == 0 { 0.0 } else { -0.0 }).collect()];
    let among = |zero: f32, sign: f32| (0..256).map(move |i| if i % 3 == 0 { zero } else { sign * i as f32 });
    let mut values = zeros.concat();
    for zero in [0.0, -0.0] {
        values.extend(among(zero, 0.25));
        values.extend(among(zero, -0.25));
    }
    for encoding in encodings() {
        if !encoding.needs_importance() {
            check(encoding, &values, None);
        }
        check(encoding, &values, Some(&[1.0; 256]));
    }
}
