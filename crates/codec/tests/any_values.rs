//! Whatever the values, an encoder gives blocks of finite values or says what it will not encode.

use codec::{EncodeError, Encoding};
use proptest::prelude::*;

/// A float of any magnitude, NaN and infinities included, or one of everyday.
fn float() -> impl Strategy<Value = f32> {
    prop_oneof![1 => any::<u32>().prop_map(f32::from_bits), 4 => -1.0..1.0_f32, 1 => Just(0.0)]
}

/// An encoding of blocks, and two rows for it that are all everyday, all of any magnitude, or mixed.
fn rows() -> impl Strategy<Value = (Encoding, Vec<f32>)> {
    let encodings: Vec<Encoding> =
        Encoding::ALL.iter().copied().filter(|e| e.block_len() > 1 && e.is_encodable()).collect();
    proptest::sample::select(encodings).prop_flat_map(|encoding| {
        let len = 2 * encoding.block_len();
        let values = prop_oneof![
            proptest::collection::vec(-1.0..1.0_f32, len),
            proptest::collection::vec(float(), len),
            proptest::collection::vec(any::<f32>(), len),
            proptest::collection::vec(-1e38..1e38_f32, len),
        ];
        (Just(encoding), values)
    })
}

fn importance(len: usize) -> impl Strategy<Value = Vec<f32>> {
    let weight = prop_oneof![0.0..1.0_f32, 0.0..f32::MAX, Just(0.0)];
    proptest::collection::vec(weight, len)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn encodes_finitely_or_refuses(
        (encoding, values) in rows(),
        importance in importance(256),
        weigh in any::<bool>(),
    ) {
        let importance = &importance[..encoding.block_len()];
        let importance = (weigh || encoding.needs_importance()).then_some(importance);
        let mut bytes = vec![0; 2 * encoding.block_bytes()];
        match encoding.encode(&values, importance, &mut bytes) {
            Ok(()) => {
                let mut decoded = vec![f32::NAN; values.len()];
                encoding.decode(&bytes, &mut decoded).unwrap();
                prop_assert!(decoded.iter().all(|y| y.is_finite()), "{encoding}");
                if values.iter().any(|x| x.abs() > 1e20) {
                    prop_assert!(decoded.iter().any(|y| y.abs() > 1e18), "{encoding}: lost silently");
                }
            }
            Err(EncodeError::NotFinite { index, .. }) => {
                prop_assert!(!values[index].is_finite());
                prop_assert!(values[..index].iter().all(|x| x.is_finite()));
            }
            Err(EncodeError::ScaleOverflow { index, .. }) => {
                prop_assert!(index.is_multiple_of(encoding.block_len()));
                prop_assert!(values.iter().all(|x| x.is_finite()));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
