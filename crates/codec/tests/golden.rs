//! What ggml 0.25.3 says: `fixtures/codec/quants.npz` holds its bytes and its decoded floats for values of many shapes,
//! `decoded.txt` and `encoded.txt` hashes of what it makes of far more pseudo-random ones (`make_hashes.py`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use codec::{EncodeError, Encoding};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/codec").join(name)
}

struct Quants {
    values: Vec<f32>,
    importance: Vec<f32>,
    /// By encoding and whether importance weighed: its bytes and floats.
    arrays: BTreeMap<(Encoding, bool), (Vec<u8>, Vec<f32>)>,
}

fn array<T: npyz::Deserialize>(archive: &mut ZipArchive<File>, name: &str) -> Vec<T> {
    let file = archive.by_name(&format!("{name}.npy")).unwrap();
    npyz::NpyFile::new(file).unwrap().into_vec().unwrap()
}

fn quants() -> Quants {
    let mut archive = ZipArchive::new(File::open(fixture("quants.npz")).unwrap()).unwrap();
    let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    let (values, importance) = (array(&mut archive, "x"), array(&mut archive, "imatrix"));
    let mut arrays = BTreeMap::new();
    for name in names.iter().filter_map(|name| name.strip_suffix(".npy")) {
        let Some((encoding, kind)) = name.split_once('/') else { continue };
        let Some(suffix) = kind.strip_prefix("bytes") else { continue };
        let key = (Encoding::from_name(encoding).unwrap(), suffix == "_imatrix");
        let decoded = array(&mut archive, &format!("{encoding}/f32{suffix}"));
        arrays.insert(key, (array(&mut archive, name), decoded));
    }
    assert_eq!(arrays.len(), 44);
    Quants { values, importance, arrays }
}

fn decode(encoding: Encoding, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / encoding.block_bytes() * encoding.block_len()];
    encoding.decode(bytes, &mut out).unwrap();
    out
}

/// By the scalar encoder, and by the fast one: the same, down to what they refuse.
fn encode(encoding: Encoding, values: &[f32], importance: Option<&[f32]>) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![0; values.len() / encoding.block_len() * encoding.block_bytes()];
    let scalar = encoding.encode(values, importance, &mut out).map(|()| out.clone());
    let mut decoded = vec![0.0; values.len()];
    let fast = encoding.encode_fast(values, importance, &mut out, &mut decoded).map(|()| out);
    assert_eq!(fast, scalar, "{encoding}");
    scalar
}

#[test]
fn decodes_to_the_same_bits() {
    for ((encoding, importance), (bytes, expected)) in quants().arrays {
        let decoded = decode(encoding, &bytes);
        assert_eq!(decoded.len(), expected.len());
        for (i, (a, b)) in decoded.iter().zip(&expected).enumerate() {
            assert_eq!(
                a.to_bits(),
                b.to_bits(),
                "{encoding} (importance: {importance}), value {i}: {a:e} {b:e}"
            );
        }
    }
}

#[test]
fn encodes_to_the_same_bytes() {
    let quants = quants();
    let row = quants.importance.len();
    for ((encoding, weigh), (expected, _)) in &quants.arrays {
        let importance = weigh.then_some(&quants.importance[..]);
        let bytes = encode(*encoding, &quants.values, importance).unwrap();
        let block = encoding.block_bytes();
        for (i, (a, b)) in bytes.chunks(block).zip(expected.chunks(block)).enumerate() {
            let first = i * encoding.block_len();
            assert_eq!(a, b, "{encoding} (importance: {weigh}), row {}, column {}", first / row, first % row);
        }
    }
}

/// `count` bytes of splitmix64.
fn splitmix(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(count + 7);
    while bytes.len() < count {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((z ^ z >> 31).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    let bytes: Vec<u8> = bytes.into_iter().collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lines(name: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(fixture(name)).unwrap();
    text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// Random bytes reach every code, every grid point and every scale, infinite and NaN ones too.
#[test]
fn decodes_random_blocks_to_the_same_bits() {
    let lines = lines("decoded.txt");
    assert_eq!(lines.len(), 30);
    for line in lines {
        let encoding = Encoding::from_name(&line[0]).unwrap();
        let bytes = splitmix(1, (1 << 18) / encoding.block_bytes() * encoding.block_bytes());
        // No standard promises the payload of a NaN that arithmetic makes.
        let floats = decode(encoding, &bytes).into_iter().flat_map(|y| {
            let bits = if y.is_nan() { 0x7fc0_0000 } else { y.to_bits() };
            bits.to_le_bytes()
        });
        assert_eq!(hex(floats), line[1], "{encoding}");
    }
}

const ROWS: usize = 64;
const ROW: usize = 1024;

/// Rows of several shapes, as `make_hashes.py` makes them: every step is exact or rounds once.
fn values() -> Vec<f32> {
    let bytes = splitmix(2, 8 * ROWS * ROW);
    let quarters: Vec<[u16; 4]> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| std::array::from_fn(|i| u16::from_le_bytes([b[2 * i], b[2 * i + 1]])))
        .collect();
    let mut values = Vec::with_capacity(quarters.len());
    for (r, quarters) in quarters.chunks(ROW).enumerate() {
        let bell = |q: &[u16; 4]| {
            let sum: i32 = q.iter().map(|&q| i32::from(q)).sum();
            (sum - 131_070) as f32 / 65536.0
        };
        values.extend(quarters.iter().enumerate().map(|(i, q)| {
            let x = bell(q);
            let shaped = match r % 8 {
                1 => x * x * x,
                2 => x.abs(),
                3 if q[0] % 4 != 0 || quarters[i / 32 * 32][1] % 4 == 0 => 0.0,
                4 => (x * 4.0).floor() / 4.0,
                5 if q[1] % 61 == 0 => x * 32.0,
                6 => x + 3.0,
                7 => bell(&quarters[i / 8 * 8]),
                _ => x,
            };
            shaped * 2.0_f32.powi((r % 19) as i32 - 10)
        }));
    }
    values
}

fn importance() -> Vec<f32> {
    let bytes = splitmix(3, 8 * ROW);
    let part = |b: &[u8; 8], i: usize| f32::from(u16::from_le_bytes([b[2 * i], b[2 * i + 1]]));
    let weight = |(i, b)| {
        // Some of the first half weighs nothing, most of the second half.
        let nothing = part(b, 2) < 2048.0 || i >= ROW / 2 && part(b, 2) % 8.0 != 0.0;
        if nothing { 0.0 } else { part(b, 0) * part(b, 1) / 4_294_967_296.0 }
    };
    bytes.as_chunks::<8>().0.iter().enumerate().map(weight).collect()
}

#[test]
fn encodes_values_of_many_shapes_to_the_same_bytes() {
    let (values, importance) = (values(), importance());
    let bytes = |floats: &[f32]| floats.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(
        (hex(bytes(&values)), hex(bytes(&importance))),
        (
            "e3647e145b6b6116968183ad7b2401aa3d08aece5abbd088f1c91766aba8dcda".to_owned(),
            "f1158d1ce67218fd3326409c4ad75aa6e30a9644a632f859daa18a7954f89cff".to_owned()
        ),
        "not the values that the hashes are of"
    );
    let lines = lines("encoded.txt");
    assert_eq!(lines.len(), 53);
    for line in lines {
        let encoding = Encoding::from_name(&line[0]).unwrap();
        let importance = (line[1] == "importance").then_some(&importance[..]);
        let encoded = encode(encoding, &values, importance).unwrap();
        assert_eq!(hex(encoded), line[2], "{encoding} {}", line[1]);
    }
}
