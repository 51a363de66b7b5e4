//! What is done with bytes of any kind, by a test and, through a `#[path]`, by a fuzz target.

use codec::Encoding;

/// The first byte chooses an encoding, the others are its blocks: any bytes decode, and what they decode to either encodes to
/// something finite or is refused. How many blocks there were, and of what.
pub fn codec_decode(input: &[u8]) -> Option<(Encoding, usize)> {
    let (&choice, bytes) = input.split_first()?;
    let encoding = Encoding::ALL[usize::from(choice) % Encoding::ALL.len()];
    let blocks = bytes.len() / encoding.block_bytes();
    let bytes = &bytes[..blocks * encoding.block_bytes()];
    let mut values = vec![0.0; blocks * encoding.block_len()];
    encoding.decode(bytes, &mut values).expect("the lengths agree");

    // Once unweighed, once weighed by the values' own magnitudes.
    let importance: Vec<f32> = values.iter().map(|x| x.abs()).collect();
    for importance in [None, Some(&importance[..])] {
        let mut encoded = vec![0; bytes.len()];
        if encoding.encode(&values, importance, &mut encoded).is_ok() {
            let mut again = vec![0.0; values.len()];
            encoding.decode(&encoded, &mut again).expect("the lengths agree");
            if encoding.block_len() > 1 {
                assert!(again.iter().all(|y| y.is_finite()), "{encoding}");
            }
        }
    }
    Some((encoding, blocks))
}
