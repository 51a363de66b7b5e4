//! The grids of the IQ encodings: the few hundred points, of all that small integers could make, that a code may name.
//!
//! The files hold a point in each little-endian u16, coordinate i in bits `i·BITS..`. An encoding gives each
//! coordinate its own level.

/// Points of eight two-bit coordinates (of which only 0, 1, 2 occur).
pub(crate) const IQ1: [[u8; 8]; 2048] = unpack::<2048, 8, 2>(include_bytes!("grid/iq1.bin"));
/// Points of eight two-bit coordinates (of which only 0, 1, 2 occur).
pub(crate) const IQ2_XXS: [[u8; 8]; 256] = unpack::<256, 8, 2>(include_bytes!("grid/iq2_xxs.bin"));
/// Points of eight two-bit coordinates (of which only 0, 1, 2 occur).
pub(crate) const IQ2_XS: [[u8; 8]; 512] = unpack::<512, 8, 2>(include_bytes!("grid/iq2_xs.bin"));
/// Points of eight two-bit coordinates (of which only 0, 1, 2 occur).
pub(crate) const IQ2_S: [[u8; 8]; 1024] = unpack::<1024, 8, 2>(include_bytes!("grid/iq2_s.bin"));
/// Points of four three-bit coordinates.
pub(crate) const IQ3_XXS: [[u8; 4]; 256] = unpack::<256, 4, 3>(include_bytes!("grid/iq3_xxs.bin"));
/// Points of four three-bit coordinates.
pub(crate) const IQ3_S: [[u8; 4]; 512] = unpack::<512, 4, 3>(include_bytes!("grid/iq3_s.bin"));

const fn unpack<const POINTS: usize, const DIM: usize, const BITS: usize>(
    packed: &[u8],
) -> [[u8; DIM]; POINTS] {
    assert!(packed.len() == 2 * POINTS);
    let mut points = [[0; DIM]; POINTS];
    let mut i = 0;
    while i < POINTS {
        let point = u16::from_le_bytes([packed[2 * i], packed[2 * i + 1]]);
        let mut k = 0;
        while k < DIM {
            points[i][k] = (point >> (BITS * k) & ((1 << BITS) - 1)) as u8;
            k += 1;
        }
        i += 1;
    }
    points
}

/// Gives each coordinate its level.
pub(crate) const fn with_levels<const POINTS: usize, const DIM: usize, const LEVELS: usize>(
    points: &[[u8; DIM]; POINTS],
    levels: &[i8; LEVELS],
) -> [[i8; DIM]; POINTS] {
    let mut grid = [[0; DIM]; POINTS];
    let mut i = 0;
    while i < POINTS {
        let mut k = 0;
        while k < DIM {
            grid[i][k] = levels[points[i][k] as usize];
            k += 1;
        }
        i += 1;
    }
    grid
}

/// Eight signs of which only seven are stored: the number of minuses is even.
#[inline(always)]
pub(crate) fn even_signs(seven: u32) -> u8 {
    const SIGNS: [u8; 128] = {
        let mut signs = [0; 128];
        let mut i = 0;
        while i < 128 {
            signs[i] = i as u8 | ((i.count_ones() % 2) as u8) << 7;
            i += 1;
        }
        signs
    };
    SIGNS[(seven & 127) as usize]
}

/// y = ±step·level, minus where the bit is set.
#[inline(always)]
pub(crate) fn dequantize<const DIM: usize>(step: f32, point: &[i8; DIM], signs: u8, out: &mut [f32; DIM]) {
    for (i, (y, level)) in out.iter_mut().zip(point).enumerate() {
        let magnitude = step * f32::from(*level);
        *y = if signs & 1 << i == 0 { magnitude } else { -magnitude };
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    /// The grids define the formats: whoever changes one must mean it.
    #[test]
    fn the_grids_are_those_of_the_formats() {
        let files: [(&[u8], &str); 6] = [
            (
                include_bytes!("grid/iq1.bin"),
                "e9ffebfc997ad6023063a667c0bf4eedd8ebf7f56b3da399cbc7d1b1f7ea52c6",
            ),
            (
                include_bytes!("grid/iq2_xxs.bin"),
                "915952ebc4af8ddba8113583ca1316fc818843f7b825bbf1a25ae1c39bf0e16d",
            ),
            (
                include_bytes!("grid/iq2_xs.bin"),
                "f66435966ca8d64e9e4a6e3c91e64afcf9015e700ec85962f527283ebae207b9",
            ),
            (
                include_bytes!("grid/iq2_s.bin"),
                "e6e75e121b65e8afa5c1f92b71463cfbe217b83893f438acde22fd5db06a43f7",
            ),
            (
                include_bytes!("grid/iq3_xxs.bin"),
                "c9678803c61b2210fbd8cbbb3f965a835409cd7d88a04d086d236261bd221d11",
            ),
            (
                include_bytes!("grid/iq3_s.bin"),
                "353274c58dd7d8dc5ee960dc8fc54ff9164eaf2b49206b841cd49415cf393f81",
            ),
        ];
        for (file, expected) in files {
            let hash: String = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, expected);
        }
    }
}
