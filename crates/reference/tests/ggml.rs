//! What ggml's scalar code says: `fixtures/ggml/dots.npz` holds its bytes of activations and the bits of its inner products,
//! `fixtures/codec/quants.npz` the rows of weights to go with them. `tools/ggml_dots.py` made the former.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use codec::Encoding;
use reference::ggml::{Partner, dot};
use zip::ZipArchive;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

struct Archive(ZipArchive<File>);

impl Archive {
    fn open(name: &str) -> Archive {
        Archive(ZipArchive::new(File::open(fixture(name)).unwrap()).unwrap())
    }

    fn has(&self, name: &str) -> bool {
        self.0.file_names().any(|file| file.strip_suffix(".npy") == Some(name))
    }

    fn read<T: npyz::Deserialize>(&mut self, name: &str) -> Vec<T> {
        let file = self.0.by_name(&format!("{name}.npy")).unwrap();
        npyz::NpyFile::new(file).unwrap().into_vec().unwrap()
    }
}

/// Rows of weights, rows of activations, and the bits of every product.
struct Case {
    encoding: Encoding,
    rows: Vec<u8>,
    x: Vec<f32>,
    width: usize,
    bits: Vec<u32>,
}

impl Case {
    fn rows(&self) -> std::slice::ChunksExact<'_, u8> {
        self.rows.chunks_exact(self.encoding.byte_len(self.width as u64).unwrap() as usize)
    }

    fn products<'a>(
        &'a self,
        spoil: &'a dyn Fn(&mut [u8], &mut [f32]),
    ) -> impl Iterator<Item = (usize, usize, f32, f32)> + 'a {
        let tokens = self.x.len() / self.width;
        self.rows().enumerate().flat_map(move |(r, row)| {
            self.x.chunks_exact(self.width).enumerate().map(move |(t, x)| {
                let (mut row, mut x) = (row.to_vec(), x.to_vec());
                spoil(&mut row, &mut x);
                let found = dot(self.encoding, &row, &x).unwrap();
                (r, t, found, f32::from_bits(self.bits[r * tokens + t]))
            })
        })
    }
}

const WIDTHS: [(&str, &str, usize); 2] = [("x", "dots", 512), ("long", "long", 1280)];

fn cases() -> Vec<Case> {
    let (mut dots, mut quants) = (Archive::open("ggml/dots.npz"), Archive::open("codec/quants.npz"));
    let mut cases = Vec::new();
    for &encoding in Encoding::ALL.iter().filter(|encoding| Partner::of(**encoding).is_some()) {
        for (activations, kind, width) in WIDTHS {
            let name = format!("{encoding}/{kind}");
            if !dots.has(&name) {
                assert_eq!((encoding, kind), (Encoding::F32, "dots"), "no {name} in the fixture");
                continue;
            }
            let of_quants = [format!("{encoding}/bytes"), format!("{encoding}/bytes_imatrix")];
            let rows = match kind {
                "dots" => quants.read(of_quants.iter().find(|name| quants.has(name)).unwrap()),
                _ => dots.read(&format!("{encoding}/rows")),
            };
            let (x, bits) = (dots.read(activations), dots.read(&name));
            cases.push(Case { encoding, rows, x, width, bits });
        }
    }
    assert_eq!(cases.len(), 55);
    cases
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[test]
fn every_encoding_has_ggmls_bits() {
    let mut judged: BTreeMap<Encoding, usize> = BTreeMap::new();
    for case in cases() {
        for (r, t, found, expected) in case.products(&|_, _| {}) {
            let Case { encoding, width, .. } = case;
            assert!(
                same(found, expected),
                "{encoding}, width {width}, row {r}, token {t}: {found:e}, ggml has {expected:e}"
            );
            *judged.entry(encoding).or_default() += usize::from(expected != 0.0 && expected.is_finite());
        }
    }
    assert_eq!(judged.len(), 28);
    for (encoding, products) in judged {
        assert!(products > 20, "{encoding}: {products}");
    }
}

#[test]
fn activations_have_ggmls_bytes() {
    let mut dots = Archive::open("ggml/dots.npz");
    let forms = [
        ("q8_0", Partner::Q8_0),
        ("q8_1", Partner::Q8_1),
        ("q8_K", Partner::Q8K),
        ("f16", Partner::F16),
        ("bf16", Partner::BF16),
    ];
    for (name, partner) in forms {
        for (of, name, width) in [("x", name.to_owned(), 512), ("long", format!("long_{name}"), 1280)] {
            let (x, expected): (Vec<f32>, Vec<u8>) = (dots.read(of), dots.read(&name));
            let row = expected.len() / (x.len() / width);
            for (t, (x, expected)) in x.chunks(width).zip(expected.chunks(row)).enumerate() {
                assert_eq!(partner.bytes(x), expected, "{name}, row {t}");
            }
        }
    }
}

/// ggml's encoder of files and its rounding of activations are one function.
#[test]
fn activations_in_q8_0_are_what_files_hold() {
    let x: Vec<f32> = Archive::open("ggml/dots.npz").read("x");
    for x in x.chunks(512) {
        let mut file = vec![0; 512 / 32 * 34];
        Encoding::Q8_0.encode(x, None, &mut file).unwrap();
        assert_eq!(Partner::Q8_0.bytes(x), file);
    }
}

/// What a wrong product looks like: the fixture must tell. `at`: bytes of a block that are spoilt.
#[test]
fn a_wrong_product_is_told() {
    let spoilt = |encoding: Encoding, at: std::ops::Range<usize>, change: &dyn Fn(u8) -> u8| {
        let spoil = |row: &mut [u8], _: &mut [f32]| {
            for block in row.chunks_exact_mut(encoding.block_bytes()) {
                block[at.clone()].iter_mut().for_each(|byte| *byte = change(*byte));
            }
        };
        let cases = cases().into_iter().filter(|case| case.encoding == encoding);
        let differ = |case: Case| {
            let products = case.products(&spoil).filter(|(.., expected)| *expected != 0.0);
            products.filter(|(_, _, found, expected)| !same(*found, *expected)).count()
        };
        cases.map(differ).sum::<usize>()
    };
    // Minima dropped: the second factor is zero.
    for encoding in [Encoding::Q4K, Encoding::Q5K, Encoding::Q4_1, Encoding::Q5_1] {
        assert!(spoilt(encoding, 2..4, &|_| 0) > 50, "{encoding}");
    }
    assert!(spoilt(Encoding::Q2K, 82..84, &|_| 0) > 50);
    // Scales off by one, signs of a grid lost, the shift's sign.
    assert!(spoilt(Encoding::Q6K, 192..208, &|s| s ^ 1) > 50);
    assert!(spoilt(Encoding::Iq2S, 34..66, &|_| 0) > 50);
    assert!(spoilt(Encoding::Iq1S, 35..36, &|b| b ^ 0x80) > 50);
    // As it is, nothing differs.
    assert_eq!(spoilt(Encoding::Q4K, 2..4, &|byte| byte), 0);
}

/// What rounds an activation the other way changes a product: ties of the fixture are rounded as ggml's scalar code does.
#[test]
fn other_rounding_of_activations_is_told() {
    for encoding in [Encoding::Q8_0, Encoding::Q4K, Encoding::BF16, Encoding::F16] {
        let case = cases().into_iter().find(|case| case.encoding == encoding && case.width == 512).unwrap();
        let nudge = |_: &mut [u8], x: &mut [f32]| {
            x.iter_mut().filter(|x| x.fract().abs() == 0.5).for_each(|x| *x = x.next_down());
        };
        // The row of ties, where nothing but their direction has changed.
        let differ = case
            .products(&nudge)
            .filter(|(_, t, found, expected)| *t == 8 && !same(*found, *expected))
            .count();
        let plain = encoding == Encoding::F16 || encoding == Encoding::BF16;
        assert!(plain || differ > 5, "{encoding}: {differ}");
    }
}

/// The order in which f32 sums grow is part of the definition: a sum in f64 has other bits.
#[test]
fn the_order_of_sums_is_told() {
    for case in cases().into_iter().filter(|case| case.width == 1280 && case.encoding.block_len() > 1) {
        let mut differ = 0;
        let block = (case.encoding.block_len().max(256), case.encoding);
        for (row, bits) in case.rows().zip(case.bits.chunks(case.x.len() / case.width)) {
            for (x, bits) in case.x.chunks_exact(case.width).zip(bits) {
                let bytes = block.1.byte_len(block.0 as u64).unwrap() as usize;
                let blocks = row.chunks_exact(bytes).zip(x.chunks_exact(block.0));
                let sum: f64 = blocks.map(|(row, x)| f64::from(dot(block.1, row, x).unwrap())).sum();
                differ += usize::from(!same(sum as f32, f32::from_bits(*bits)));
            }
        }
        assert!(differ > 3, "{}: {differ}", case.encoding);
    }
}

#[test]
fn what_ggml_does_not_multiply_has_no_product() {
    for encoding in [Encoding::F64, Encoding::F8E4M3, Encoding::Q8K, Encoding::Q8_1, Encoding::U8] {
        assert_eq!(dot(encoding, &vec![0; encoding.block_bytes()], &vec![0.0; encoding.block_len()]), None);
    }
    assert_eq!(dot(Encoding::Q8_0, &[0; 34], &[0.0; 64]), None);
    assert!(dot(Encoding::Q8_0, &[1; 34], &[f32::NAN; 32]).unwrap().is_nan());
}
