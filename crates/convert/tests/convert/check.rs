//! Checks of files that are right, and of files with one mistake each.

use std::fs;
use std::path::{Path, PathBuf};

use codec::Encoding;
use convert::Mock;
use convert::check::{Check, CheckOptions, Checked, Status, check};
use format::{Existing, Limits};
use model::{Checkpoint, Purpose};

use crate::files::{fixture, open};

fn compare(a: &Path, b: &Path) -> Check {
    check(&open(a), &open(b), CheckOptions::default(), &mut |_, _| {})
}

fn failed(check: &Check) -> Vec<&Checked> {
    assert_eq!(check.passed, check.weights.iter().all(|w| w.status.passes()) && check.config.is_empty());
    check.weights.iter().filter(|weight| !weight.status.passes()).collect()
}

#[test]
fn conversions_of_others_are_the_same_model() {
    for (model, file, statuses) in [
        ("golden/dense-f32", "dense-f32-f32.gguf", &[Status::Identical, Status::Explained][..]),
        ("models/moe-experts-f32", "moe-experts-f32-q8_0.gguf", &[Status::Identical, Status::Explained]),
        ("models/moe-packed-bf16", "moe-packed-bf16-bf16.gguf", &[Status::Identical, Status::Explained]),
        ("models/dense-vision-bf16", "dense-vision-bf16-q8_0.gguf", &[Status::Explained]),
    ] {
        let (a, b) = (fixture(model), fixture("gguf-good").join(file));
        for (a, b) in [(&a, &b), (&b, &a)] {
            let check = compare(a, b);
            assert!(check.passed, "{file}: {:?} {:?} {:?}", failed(&check), check.config, check.tokenizer);
            let has = |status: &Status| check.weights.iter().any(|weight| weight.status == *status);
            // Seen from the encoded side, its values are within what they were rounded by.
            assert!(statuses.iter().all(has), "{file}: {:?}", check.weights);
        }
    }
}

/// Two files of different encodings of one model, and of two models.
#[test]
fn encodings_are_bounded_and_other_models_are_not() {
    let room = tempfile::tempdir().unwrap();
    let mock = Mock::preset("tiny-dense").unwrap();
    let [hf, q4] = ["hf", "q4.gguf"].map(|name| room.path().join(name));
    mock.write_hf(&hf, Existing::Refuse, &mut |_, _| {}).unwrap();
    mock.with_dtype(Encoding::Q4_0).write_gguf(&q4, Existing::Refuse, &mut |_, _| {}).unwrap();
    for (a, b) in [(&hf, &q4), (&q4, &hf)] {
        let check = compare(a, b);
        assert!(check.passed, "{:?}", failed(&check));
        let within: Vec<&Checked> =
            check.weights.iter().filter(|weight| weight.status == Status::WithinEncoding).collect();
        assert!(within.len() > 10);
        assert!(within.iter().all(|weight| weight.rmse.unwrap() <= weight.bound.unwrap()), "{within:?}");
    }
    let file = |name: &str| fixture("gguf-good").join(name);
    let other = compare(&file("dense-text-f32-f32.gguf"), &file("dense-f32-f32.gguf"));
    assert!(!other.passed && other.config.iter().any(|d| d.what == "hidden_size"));
}

/// A file with one tensor changed in place.
fn changed(room: &Path, file: &str, tensor: &str, change: impl Fn(&mut [f32], &[usize])) -> PathBuf {
    let good = fixture("gguf-good").join(file);
    let source = format::open(&good, &Limits::default()).unwrap();
    let info = source.tensor(tensor).unwrap_or_else(|| panic!("no {tensor}"));
    let shape: Vec<usize> = info.shape.dims().iter().map(|d| *d as usize).collect();
    let mut values = vec![0.0; shape.iter().product()];
    info.encoding.decode(source.bytes(info), &mut values).unwrap();
    change(&mut values, &shape);
    let mut bytes = fs::read(&good).unwrap();
    let place = &mut bytes[info.offset as usize..][..info.size as usize];
    info.encoding.encode(&values, None, place).unwrap();
    let path = room.join("changed.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

/// Rows of runs in the order of the other format: Hk 4, Hv 8 there.
fn grouped(values: &[f32], run: usize, skip: usize) -> Vec<f32> {
    let mut out = values[..skip].to_vec();
    for group in 0..4 {
        for j in 0..2 {
            out.extend_from_slice(&values[skip + (j * 4 + group) * run..][..run]);
        }
    }
    out
}

type Change = Box<dyn Fn(&mut [f32], &[usize])>;

#[test]
fn mistakes_are_called_by_their_names() {
    let room = tempfile::tempdir().unwrap();
    let replaced = |f: fn(&[f32], &[usize]) -> Vec<f32>| -> Change {
        Box::new(move |values: &mut [f32], shape: &[usize]| {
            let new = f(values, shape);
            values.copy_from_slice(&new);
        })
    };
    let cases: [(&str, Change, &str); 11] = [
        ("blk.0.attn_norm.weight", replaced(|v, _| v.iter().map(|x| x - 1.0).collect()), "exactly -1"),
        ("output_norm.weight", replaced(|v, _| v.iter().map(|x| x + 1.0).collect()), "exactly +1"),
        ("blk.0.ssm_norm.weight", replaced(|v, _| v.iter().map(|x| x + 1.0).collect()), "exactly +1"),
        ("blk.1.attn_gate.weight", replaced(|v, s| grouped(v, 32 * s[1], 0)), "heads are grouped"),
        ("blk.1.attn_qkv.weight", replaced(|v, s| grouped(v, 32 * s[1], 256 * s[1])), "heads are grouped"),
        ("blk.2.ssm_conv1d.weight", replaced(|v, s| grouped(v, 32 * s[1], 256 * s[1])), "heads are grouped"),
        (
            "blk.0.ssm_out.weight",
            replaced(|v, s| v.chunks(s[1]).flat_map(|row| grouped(row, 32, 0)).collect()),
            "heads are grouped",
        ),
        ("blk.0.ssm_a", replaced(|v, _| v.iter().map(|x| (-x).ln()).collect()), "A_log itself"),
        (
            "blk.0.ssm_conv1d.weight",
            replaced(|v, s| v.chunks(s[1]).flat_map(|row| row.iter().rev().copied()).collect()),
            "backwards",
        ),
        ("blk.3.attn_q.weight", replaced(|v, _| v.iter().map(|x| x * 0.5).collect()), "0.500000 times"),
        ("token_embd.weight", replaced(|v, _| [&[v[0] + 1e-6], &v[1..]].concat()), "1 of 65536 values"),
    ];
    for (tensor, change, said) in cases {
        let path = changed(room.path(), "dense-f32-f32.gguf", tensor, change);
        let check = compare(&fixture("golden/dense-f32"), &path);
        let failed = failed(&check);
        assert_eq!(failed.len(), 1, "{tensor}: {failed:?}");
        assert_eq!((failed[0].status, failed[0].b[0].as_str()), (Status::Unexplained, tensor));
        assert!(failed[0].evidence.contains(said), "{tensor}: {}", failed[0].evidence);
    }
}

/// In a block encoding, too: other values are beyond its bound, be it in one row.
#[test]
fn one_wrong_row_is_beyond_the_bound_of_its_blocks() {
    let room = tempfile::tempdir().unwrap();
    let file = "dense-text-f32-q8_0.gguf";
    let path = changed(room.path(), file, "blk.0.ffn_up.weight", |values, shape| {
        let (one, rest) = values.split_at_mut(shape[1]);
        one.swap_with_slice(&mut rest[..shape[1]]);
    });
    let check = compare(&fixture("models/dense-text-f32"), &path);
    let failed = failed(&check);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].evidence.contains("from row 0 on"), "{}", failed[0].evidence);
}

#[test]
fn missing_parts_and_other_words_are_named() {
    let room = tempfile::tempdir().unwrap();
    let whole = open(&fixture("models/dense-vision-bf16"));
    let options = convert::GgufOptions { mtp: convert::Mtp::Drop, ..Default::default() };
    let path = room.path().join("dropped.gguf");
    let conversion = convert::ToGguf::new(&whole, &options).unwrap();
    conversion.write(&path, Existing::Refuse, None, &mut |_, _| {}).unwrap();
    let dropped: Checkpoint = open(&path);
    let strict = check(&whole, &dropped, CheckOptions::default(), &mut |_, _| {});
    assert!(!strict.passed && strict.weights.iter().any(|weight| weight.status == Status::Missing));
    let back = check(&dropped, &whole, CheckOptions::default(), &mut |_, _| {});
    assert!(!back.passed && back.weights.iter().any(|weight| weight.status == Status::Extra));
    assert!(strict.notes.iter().any(|note| note.contains("vision")), "{:?}", strict.notes);
    let lenient = check(
        &whole,
        &dropped,
        CheckOptions { without_mtp: true, ..CheckOptions::default() },
        &mut |_, _| {},
    );
    assert!(lenient.passed, "{:?}", lenient.config);

    // Parts by themselves: what they hold is compared, and only if that was asked for.
    for (options, held) in [
        (convert::GgufOptions { vocab_only: true, ..Default::default() }, 0),
        (convert::GgufOptions { mtp: convert::Mtp::Only, ..Default::default() }, 10),
    ] {
        let conversion = convert::ToGguf::new(&whole, &options).unwrap();
        conversion.write(&path, Existing::Replace, None, &mut |_, _| {}).unwrap();
        assert!(Checkpoint::open(&path, &Limits::default()).is_err(), "no model");
        let open_part = |path: &Path| Checkpoint::open_for(path, &Limits::default(), Purpose::Part).unwrap();
        let part = open_part(&path);
        assert!(part.layout().slots.len() >= held);
        let options = CheckOptions { part: true, ..CheckOptions::default() };
        let fits = check(&whole, &part, options, &mut |_, _| {});
        assert!(fits.passed && fits.weights.len() == part.layout().slots.len(), "{:?}", fits.config);
        assert!(fits.notes.iter().any(|note| note.contains("the part holds")), "{:?}", fits.notes);
        assert!(!check(&whole, &part, CheckOptions::default(), &mut |_, _| {}).passed);
        assert!(!check(&open(&fixture("golden/dense-f32")), &part, options, &mut |_, _| {}).passed);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(10).position(|w| w == b"<|im_end|>").unwrap();
        bytes[at..at + 10].copy_from_slice(b"<|im_END|>");
        fs::write(&path, &bytes).unwrap();
        let check = check(&whole, &open_part(&path), options, &mut |_, _| {});
        assert!(!check.passed && !check.tokenizer.is_empty());
    }

    // Another word of the same length.
    let good = fixture("gguf-good/dense-text-f32-f32.gguf");
    let mut bytes = fs::read(&good).unwrap();
    let at = bytes.windows(10).position(|w| w == b"<|im_end|>").unwrap();
    bytes[at..at + 10].copy_from_slice(b"<|im_END|>");
    let path = room.path().join("word.gguf");
    fs::write(&path, bytes).unwrap();
    let check = compare(&good, &path);
    assert!(!check.passed && check.weights.iter().all(|weight| weight.status == Status::Identical));
    assert!(check.tokenizer.iter().any(|d| d.b.contains("im_END")), "{:?}", check.tokenizer);
}
