//! Random numbers by position: the n-th of a stream is computed without those before it.
//!
//! A number depends on seed, stream name and position alone, and on arithmetic that is exact or exactly rounded, so it
//! is the same on every machine, in any order, on any thread.

/// 2^64 divided by the golden ratio, made odd: the step of the SplitMix64 generator.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014, with Stafford's thirteenth mix).
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A stream of random numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    key: u64,
}

impl Stream {
    pub(super) fn new(seed: u64, name: &str) -> Stream {
        let absorb = |key: u64, byte: u8| mix((key ^ u64::from(byte)).wrapping_add(STEP));
        Stream { key: name.bytes().fold(mix(seed.wrapping_add(STEP)), absorb) }
    }

    fn word(self, position: u64) -> u64 {
        mix(self.key.wrapping_add(position.wrapping_add(1).wrapping_mul(STEP)))
    }

    /// Uniform over [0, 1), in steps of 2^-53.
    pub(super) fn uniform(self, position: u64) -> f64 {
        (self.word(position) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The sum of eight uniform 16-bit integers less its mean: nearly normal (kurtosis 2.85) and within five
    /// [`DEVIATION`]s, and whole, so that no rounding is involved.
    pub(super) fn bell(self, position: u64) -> f32 {
        const LANES: u64 = 0x0000_ffff_0000_ffff;
        const MEAN: i32 = 4 * 0xffff;
        let lanes = |word: u64| (word & LANES) + ((word >> 16) & LANES);
        let position = position.wrapping_mul(2);
        let sum = lanes(self.word(position)) + lanes(self.word(position.wrapping_add(1)));
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        (sum as i32 - MEAN) as f32 // less than 2^24 in magnitude: exact
    }
}

/// Standard deviation of [`Stream::bell`]: √(8 · (2^32 − 1) / 12).
pub(super) const DEVIATION: f64 = 53_509.919_921_450_08;

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator as published, whose first outputs for seed 1234567 stand in many implementations' tests.
    #[test]
    fn words_are_those_of_splitmix64() {
        let stream = Stream { key: 1_234_567 };
        let words: Vec<u64> = (0..5).map(|i| stream.word(i)).collect();
        assert_eq!(
            words,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    #[test]
    fn the_deviation_is_the_formula() {
        assert!((DEVIATION - (8.0 * (f64::powi(2.0, 32) - 1.0) / 12.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn the_bell_is_one() {
        const N: u64 = 1 << 20;
        let stream = Stream::new(7, "bell");
        let moment = |power| {
            (0..N).map(|i| (f64::from(stream.bell(i)) / DEVIATION).powi(power)).sum::<f64>() / N as f64
        };
        // Of N draws, mean and variance have deviations 1/√N and √2/√N: 1e-3 and 1.4e-3.
        assert!(moment(1).abs() < 5e-3);
        assert!((moment(2) - 1.0).abs() < 7e-3);
        assert!((moment(4) - 2.85).abs() < 5e-2);
    }

    #[test]
    fn streams_differ_by_seed_and_name() {
        let first = |seed, name| Stream::new(seed, name).word(0);
        let words =
            [first(0, "a"), first(1, "a"), first(0, "b"), first(0, "ab"), first(0, "ba"), first(0, "")];
        for (i, word) in words.iter().enumerate() {
            assert!(!words[..i].contains(word));
        }
    }
}
