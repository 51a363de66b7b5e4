//! How far an encoding may take a block from the values it was made of.

use codec::Encoding;

/// Scales are halves: relative error of a half, half a unit in its last place.
const HALF: f64 = 1.0 / 2048.0;

/// The largest error of a value, as a part of the largest magnitude in its block; none where a value is exact but for
/// rounding by itself.
///
/// With `n` steps on each side of zero a step is `1/n`; encoders that search for the best scale may clip the end, or
/// take a coarser one, by up to one step, so a whole step is allowed where they do and half of one where they do not.
/// Encodings with a minimum have their steps over a range of at most 2. Scales and minima that are quantized themselves
/// (to 6 bits of the largest in a super-block, of 4 in Q2_K, of 8 in Q6_K) add half of their own step times the largest
/// code.
fn of_largest(encoding: Encoding) -> Option<f64> {
    Some(match encoding {
        Encoding::Q8_0 => 0.5 / 127.0 + HALF,
        Encoding::Q4_0 => 1.0 / 8.0 + HALF,
        Encoding::Q5_0 => 1.0 / 16.0 + HALF,
        Encoding::Q4_1 => 1.0 / 15.0 + 2.0 * HALF,
        Encoding::Q5_1 => 1.0 / 31.0 + 2.0 * HALF,
        Encoding::Q6K => 1.0 / 32.0 + 0.5 / 128.0 + HALF,
        Encoding::Q5K => 2.0 / 31.0 + 3.0 * 0.5 / 63.0 + 2.0 * HALF,
        Encoding::Q4K => 2.0 / 15.0 + 3.0 * 0.5 / 63.0 + 2.0 * HALF,
        Encoding::Q3K => 1.0 / 4.0 + 0.5 / 32.0 + HALF,
        Encoding::Q2K => 2.0 / 3.0 + 3.0 * 0.5 / 15.0 + 2.0 * HALF,
        // The widest gap of the table is 24 of 127, and one end reaches 113 only.
        Encoding::Iq4Nl => 24.0 / 127.0 + HALF,
        Encoding::Iq4Xs => 24.0 / 127.0 + 0.5 / 32.0 + HALF,
        // Numbers up to 6, the widest gap is 2; the power of two may leave a quarter of the range unused or clipped.
        Encoding::Mxfp4 | Encoding::Nvfp4 => 2.0 / 6.0,
        // Chosen by patterns of several values: bounded by the energy alone.
        Encoding::Iq3S
        | Encoding::Iq3Xxs
        | Encoding::Iq2S
        | Encoding::Iq2Xs
        | Encoding::Iq2Xxs
        | Encoding::Iq1S
        | Encoding::Iq1M
        | Encoding::Tq1_0
        | Encoding::Tq2_0
        | Encoding::Q1_0
        | Encoding::Q2_0 => 1.0,
        _ => return None,
    })
}

/// The largest sum of squared errors that `encoding` leaves in a row of these values; none if it is no block encoding.
///
/// Besides the error of a value, a block's error is bounded by its energy: zeros would have that, and every encoder
/// looks for something better.
pub(super) fn squares(encoding: Encoding, row: &[f32]) -> Option<f64> {
    let part = of_largest(encoding)?;
    let block = |block: &[f32]| {
        let largest = block.iter().fold(0f64, |largest, x| largest.max(f64::from(x.abs())));
        let energy: f64 = block.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let error = part * largest;
        (error * error * block.len() as f64).min(energy)
    };
    Some(row.chunks(encoding.block_len()).map(block).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encoders stay within it, on values of several shapes; what was made of other values does not.
    #[test]
    fn encoders_stay_within_and_others_do_not() {
        let noise = |seed: u32, i: u32| {
            let mixed = (i.wrapping_mul(0x9e37_79b9) ^ seed).wrapping_mul(0x85eb_ca6b);
            (mixed ^ mixed >> 15) as f32 / u32::MAX as f32 - 0.5
        };
        let bell = |seed: u32, i: u32| (0..6).map(|k| noise(seed + k * 977, i)).sum::<f32>();
        let outliers = |seed, i| if i % 97 == 3 { 9.0 * bell(seed, i) } else { bell(seed, i) };
        let shapes: [&dyn Fn(u32, u32) -> f32; 3] = [&noise, &bell, &outliers];
        let mut encodings = 0;
        for &encoding in Encoding::ALL {
            if of_largest(encoding).is_none() || !encoding.is_encodable() || encoding.needs_importance() {
                continue;
            }
            for shape in shapes {
                let row = |seed| (0..2048).map(|i| shape(seed, i)).collect::<Vec<f32>>();
                let (values, others) = (row(1), row(54_321));
                let mut bytes = vec![0; encoding.byte_len(2048).unwrap() as usize];
                encoding.encode(&values, None, &mut bytes).unwrap();
                let mut decoded = vec![0.0; 2048];
                encoding.decode(&bytes, &mut decoded).unwrap();
                let error = |from: &[f32]| -> f64 {
                    from.iter().zip(&decoded).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum()
                };
                let bound = squares(encoding, &values).unwrap();
                assert!(error(&values) <= bound, "{encoding}: {} of {bound}", error(&values));
                assert!(error(&others) > squares(encoding, &others).unwrap(), "{encoding}");
            }
            encodings += 1;
        }
        assert!(encodings > 15, "{encodings}");
    }
}
