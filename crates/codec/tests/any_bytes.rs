//! Every byte string of the right length is a valid encoding, whatever the encoding.

use codec::Encoding;
use proptest::prelude::*;

/// An encoding and the bytes of up to four of its blocks.
fn blocks() -> impl Strategy<Value = (Encoding, Vec<u8>)> {
    (proptest::sample::select(Encoding::ALL), 0..=4_usize).prop_flat_map(|(encoding, blocks)| {
        let bytes = proptest::collection::vec(any::<u8>(), blocks * encoding.block_bytes());
        (Just(encoding), bytes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decodes_block_by_block_as_at_once((encoding, bytes) in blocks()) {
        let len = bytes.len() / encoding.block_bytes() * encoding.block_len();
        let mut whole = vec![0.0; len];
        encoding.decode(&bytes, &mut whole).unwrap();
        let mut parts = vec![0.0; len];
        for (bytes, out) in bytes.chunks(encoding.block_bytes()).zip(parts.chunks_mut(encoding.block_len())) {
            encoding.decode(bytes, out).unwrap();
        }
        for (a, b) in whole.iter().zip(&parts) {
            prop_assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{encoding}: {a} {b}");
        }
    }

    #[test]
    fn refuses_any_other_length((encoding, mut bytes) in blocks(), short in any::<bool>()) {
        let len = bytes.len() / encoding.block_bytes() * encoding.block_len();
        let mut out = vec![0.0; len];
        if short && !bytes.is_empty() {
            bytes.pop();
        } else {
            bytes.push(0);
        }
        prop_assert!(encoding.decode(&bytes, &mut out).is_err());
    }
}
