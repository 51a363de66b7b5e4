//! Quantized files against those of llama-quantize (`fixtures/quantize/make.py`), and what is refused.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use codec::Encoding;
use convert::Mock;
use convert::quantize::{
    Budget, Error, Importance, Job, Model, Receipt, Request, Scheme, Set, Source, Wishes, ZeroCounts,
    find_recipe, parse_tensor_type, read_plan,
};
use format::gguf::{Draft, Value};
use format::{Existing, Limits, Metadata, Shape, TensorSource};
use sha2::{Digest, Sha256};

use crate::files::{entries, fixture};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The importance that `make.py` makes up.
fn importance(model: &dyn TensorSource, path: &Path) {
    let mut draft = Draft::new(path);
    let datasets = ["made up"].into_iter().collect::<format::gguf::Array>();
    draft.put("general.architecture", "imatrix").unwrap();
    draft.put("imatrix.datasets", &datasets).unwrap();
    draft.put("imatrix.chunk_count", 5u32).unwrap();
    draft.put("imatrix.chunk_size", 512u32).unwrap();
    let mut data: Vec<(String, Vec<u8>)> = Vec::new();
    for (number, info) in model.tensors().iter().enumerate() {
        let dims = info.shape.dims();
        if dims.len() < 2 || info.name == "token_embd.weight" {
            continue;
        }
        let (cols, matrices) = (info.shape.row_len(), if dims.len() > 2 { dims[0] } else { 1 });
        let sum = |i: u64| ((i * 37 + number as u64 * 11) % 101 + u64::from(i % 7 == 3) * 1000) as f32;
        let bytes = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        let (sums, counts) = (format!("{}.in_sum2", info.name), format!("{}.counts", info.name));
        draft.tensor(&sums, Encoding::F32, &Shape::new(vec![matrices, cols])).unwrap();
        draft.tensor(&counts, Encoding::F32, &Shape::new(vec![matrices, 1])).unwrap();
        data.push((sums, bytes((0..matrices * cols).map(sum).collect())));
        data.push((counts, bytes((0..matrices).map(|m| (3 + m % 2) as f32).collect())));
    }
    let mut writer = draft.create(Existing::Refuse).unwrap();
    data.iter().for_each(|(name, bytes)| writer.write(name, bytes).unwrap());
    writer.finish().unwrap();
}

/// What `make.py` hashes.
fn listing(path: &Path) -> String {
    let source = format::open(path, &Limits::default()).unwrap();
    let mut lines = String::new();
    for info in source.tensors() {
        let ne: Vec<String> = info.shape.to_ne().as_slice().iter().map(u64::to_string).collect();
        let hash = hex(source.bytes(info));
        writeln!(lines, "{} {} {} {hash}", info.name, info.encoding, ne.join("x")).unwrap();
    }
    let Metadata::Gguf(keys) = source.metadata() else { panic!("it is GGUF") };
    for (key, value) in keys.iter() {
        if ["general.file_type", "general.quantization_version"].contains(&key)
            || key.starts_with("quantize.") && key != "quantize.imatrix.file"
        {
            match value {
                Value::U32(number) => writeln!(lines, "{key} {number}").unwrap(),
                Value::String(text) => writeln!(lines, "{key} {text}").unwrap(),
                other => panic!("{key}: {other:?}"),
            }
        }
    }
    hex(lines.as_bytes())
}

fn request(recipe: &str) -> Request {
    Request::of(match recipe {
        "COPY" => Scheme::Copy,
        name => Scheme::Recipe(find_recipe(name).unwrap()),
    })
}

fn quantize(
    source: &Source,
    request: &Request,
    importance: Option<&Importance>,
    path: &Path,
) -> Result<Receipt, Error> {
    let model = Model::new(source)?;
    let job = Job::new(&model, request, importance)?;
    job.write(path, Existing::Replace, Some(convert::Digest::Sha256), None, &mut |_, _| {})
}

fn mock(preset: &str, path: &Path) {
    Mock::preset(preset).unwrap().write_gguf(path, Existing::Refuse, &mut |_, _| {}).unwrap();
}

/// Every recipe, dense and with experts, with rows that fit blocks and rows that do not, weighed and not. Encoding all of
/// them takes minutes: the grids' encoders are tried on one model, and one or two of them on the others.
#[test]
fn files_are_those_of_llama_quantize() {
    let room = tempfile::tempdir().unwrap();
    let lines = std::fs::read_to_string(fixture("quantize/hashes.txt")).unwrap();
    let mut sources: HashMap<&str, (Source, Importance)> = HashMap::new();
    let (mut same, mut refused) = (0, 0);
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, recipe, weighed, expected] = words[..] else { panic!("{line}") };
        if name != "dense-vision-bf16"
            && recipe.starts_with("IQ")
            && !["IQ4_XS", "IQ3_XXS", "IQ2_M"].contains(&recipe)
        {
            continue;
        }
        let (source, importance) = sources.entry(name).or_insert_with(|| {
            let mut path = fixture(&format!("gguf-good/{name}-bf16.gguf"));
            if !path.exists() {
                path = room.path().join(format!("{name}.gguf"));
                mock(name, &path);
            }
            let there = room.path().join(name);
            std::fs::create_dir(&there).unwrap();
            importance(
                format::open(&path, &Limits::default()).unwrap().as_ref(),
                &there.join("imatrix.gguf"),
            );
            let importance = Importance::open(&there.join("imatrix.gguf"), ZeroCounts::Error).unwrap();
            (Source::open(&path).unwrap(), importance)
        });
        let request = request(recipe);
        let importance = (weighed == "weighed").then_some(&*importance);
        let out = room.path().join("out.gguf");
        match quantize(source, &request, importance, &out) {
            Ok(receipt) => {
                assert_eq!(listing(&out), expected, "{line}");
                let hash = receipt.tensors[0].hash.clone().unwrap().hex;
                let made = format::open(&out, &Limits::default()).unwrap();
                assert_eq!(hash, hex(made.bytes(&made.tensors()[0])));
                same += 1;
            }
            Err(error) => {
                assert_eq!(expected, "refused", "{line}: {error}");
                refused += 1;
            }
        }
    }
    assert!(same > 100 && refused > 5, "{same} compared, {refused} refused");
}

/// Runs of the same, as `make_types.py` writes them.
fn runs(types: &[Encoding]) -> String {
    let runs: Vec<String> = types
        .chunk_by(|a, b| a == b)
        .map(|run| format!("{}*{}", run[0].name().to_uppercase(), run.len()))
        .collect();
    runs.join(" ")
}

/// Many shapes, by all recipes: few and many layers, two to eight query heads to a key head, up to 64 experts. Only what is
/// chosen is compared.
#[test]
fn types_are_those_of_llama_quantize() {
    let room = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture("quantize/types.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (mut same, mut refused) = (0, 0);
    for (name, config) in expected["models"].as_object().unwrap() {
        let path = room.path().join("model.gguf");
        let mock = Mock::from_config(name, config).unwrap();
        mock.write_gguf(&path, Existing::Replace, &mut |_, _| {}).unwrap();
        let there = room.path().join(name);
        importance(format::open(&path, &Limits::default()).unwrap().as_ref(), &there);
        let importance = Importance::open(&there, ZeroCounts::Error).unwrap();
        let source = Source::open(&path).unwrap();
        let model = Model::new(&source).unwrap();
        let types = expected["types"].as_object().unwrap();
        for (of, expected) in types.iter().filter(|(of, _)| of.split(' ').next() == Some(name)) {
            let words: Vec<&str> = of.split(' ').collect();
            let [_, recipe, weighed] = words[..] else { panic!("{of}") };
            let importance = (weighed == "weighed").then_some(&importance);
            let job = match Job::new(&model, &request(recipe), importance) {
                Ok(job) => job,
                Err(error) => {
                    assert_eq!(expected, "refused", "{of}: {error}");
                    refused += 1;
                    continue;
                }
            };
            let mut tensors: Vec<_> = job.plan().tensors.iter().filter(|t| t.shape.len() > 1).collect();
            let key = |name: &str| -> (String, Option<u64>) {
                let Some((layer, rest)) = name.strip_prefix("blk.").and_then(|name| name.split_once('.'))
                else {
                    return (name.to_owned(), None);
                };
                (rest.to_owned(), Some(layer.parse().unwrap()))
            };
            tensors.sort_by_key(|tensor| key(&tensor.name));
            let found: Vec<Encoding> = tensors.iter().map(|tensor| tensor.to).collect();
            assert_eq!(expected, &runs(&found), "{of}");
            same += 1;
        }
    }
    assert!(same > 600 && refused > 80, "{same} compared, {refused} refused");
}

/// The importance matrices that llama-imatrix writes, of both kinds, say the same where they overlap.
#[test]
fn both_kinds_of_importance_are_read() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("old.dat");
    let mut bytes = 1i32.to_le_bytes().to_vec();
    let name = "blk.0.attn_q.weight";
    bytes.extend((name.len() as i32).to_le_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend(4i32.to_le_bytes());
    bytes.extend(3i32.to_le_bytes());
    bytes.extend([2.0f32, 4.0, 6.0].into_iter().flat_map(f32::to_le_bytes));
    bytes.extend(7i32.to_le_bytes());
    bytes.extend(3i32.to_le_bytes());
    bytes.extend(b"set");
    std::fs::write(&path, &bytes).unwrap();
    let importance = Importance::open(&path, ZeroCounts::Error).unwrap();
    assert_eq!(importance.get(name).unwrap(), [0.5, 1.0, 1.5]);
    assert_eq!(
        (importance.chunks(), importance.datasets(), importance.len()),
        (7, &["set".to_owned()][..], 1)
    );
    // Cut anywhere within the entries, it says where.
    for cut in 0..bytes.len() - 11 {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let error = Importance::open(&path, ZeroCounts::Error).err().unwrap().to_string();
        assert!(
            error.contains("old.dat") && (error.contains("byte") || error.contains("says nothing")),
            "{error}"
        );
    }
}

#[test]
fn experts_without_tokens_follow_the_policy() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("imatrix.gguf");
    let mut draft = Draft::new(&path);
    let datasets = ["x"].into_iter().collect::<format::gguf::Array>();
    draft.put("imatrix.datasets", &datasets).unwrap();
    draft.put("imatrix.chunk_count", 1u32).unwrap();
    draft.put("imatrix.chunk_size", 1u32).unwrap();
    draft.tensor("e.in_sum2", Encoding::F32, &Shape::new(vec![3, 2])).unwrap();
    draft.tensor("e.counts", Encoding::F32, &Shape::new(vec![3, 1])).unwrap();
    let mut writer = draft.create(Existing::Refuse).unwrap();
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    writer.write("e.in_sum2", &bytes(&[2.0, 4.0, 0.0, 0.0, 9.0, 3.0])).unwrap();
    writer.write("e.counts", &bytes(&[2.0, 0.0, 3.0])).unwrap();
    writer.finish().unwrap();
    let open = |policy| Importance::open(&path, policy);
    assert_eq!(open(ZeroCounts::Uniform).unwrap().get("e").unwrap(), [1.0, 2.0, 1.0, 1.0, 3.0, 1.0]);
    let neighbours = open(ZeroCounts::Neighbours).unwrap();
    assert_eq!(neighbours.get("e").unwrap(), [1.0, 2.0, 2.0, 1.5, 3.0, 1.0]);
    assert_eq!(neighbours.unreached()[0].experts, [1]);
    let error = open(ZeroCounts::Error).err().unwrap().to_string();
    assert!(error.contains("e (1 of 3: 1)"), "{error}");
}

#[test]
fn what_cannot_be_made_well_is_refused_by_name() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("m.gguf");
    mock("tiny-dense", &path);
    let source = Source::open(&path).unwrap();
    let out = room.path().join("out.gguf");
    let refused = |request: &Request, source: &Source, importance: Option<&Importance>| {
        let error = quantize(source, request, importance, &out).err().unwrap().to_string();
        assert!(!out.exists());
        error
    };
    let error = refused(&request("IQ2_XS"), &source, None);
    assert!(
        error.contains("without importance") && error.contains("blk.0.attn_gate.weight as IQ2_XS"),
        "{error}"
    );
    assert_eq!(find_recipe("q4_km").err(), Some("Q4_K_M"));
    assert_eq!(find_recipe("15").unwrap().name, "Q4_K_M");

    // Importance of another model: other names, then other lengths.
    let other = room.path().join("other.gguf");
    importance(
        format::open(&fixture("gguf-good/dense-vision-bf16-bf16.gguf"), &Limits::default()).unwrap().as_ref(),
        &other,
    );
    let mut matrix = Importance::open(&other, ZeroCounts::Error).unwrap();
    let error = Model::new(&source).unwrap().check_importance(&mut matrix).err().unwrap().to_string();
    assert!(error.contains("of another model") && error.contains("expected 256"), "{error}");
    matrix.filter(&["ffn_up".to_owned()], &["blk.0".to_owned()]);
    assert!(matrix.get("blk.0.ffn_up.weight").is_none() && matrix.get("blk.1.ffn_up.weight").is_some());

    // What is quantized already.
    let once = room.path().join("once.gguf");
    quantize(&source, &request("Q8_0"), None, &once).unwrap();
    let again = Source::open(&once).unwrap();
    assert!(refused(&request("Q4_K_M"), &again, None).contains("--allow-requantize"));

    // A weight that is no number: its tensor and place are named, whether it is encoded or copied.
    for (name, at) in [("blk.1.ffn_up.weight", 300), ("blk.2.attn_norm.weight", 7)] {
        let mut bytes = std::fs::read(&path).unwrap();
        let reader = format::open(&path, &Limits::default()).unwrap();
        let info = reader.tensor(name).unwrap();
        let (size, place) = (info.encoding.block_bytes(), info.offset as usize);
        let nan = &f32::NAN.to_le_bytes()[4 - size..];
        bytes[place + at * size..][..size].copy_from_slice(nan);
        let broken = room.path().join("broken.gguf");
        std::fs::write(&broken, bytes).unwrap();
        let error = refused(&request("Q4_K_M"), &Source::open(&broken).unwrap(), None);
        assert!(error.contains(name) && error.contains(&format!("element {at} is NaN")), "{error}");
    }
    let left = entries(room.path());
    assert_eq!(left, ["broken.gguf", "m.gguf", "once.gguf", "other.gguf"]);
}

/// Blocks that are not there may have been pruned, but not a part of one that is; and one name that is known does not make a
/// matrix this model's.
#[test]
fn importance_about_other_tensors_is_refused() {
    let room = tempfile::tempdir().unwrap();
    let [dense, experts, matrix] = ["m.gguf", "experts.gguf", "i.gguf"].map(|name| room.path().join(name));
    mock("tiny-dense", &dense);
    mock("tiny-moe", &experts);
    let source = Source::open(&dense).unwrap();
    let model = Model::new(&source).unwrap();
    importance(format::open(&experts, &Limits::default()).unwrap().as_ref(), &matrix);
    let mut of_experts = Importance::open(&matrix, ZeroCounts::Error).unwrap();
    let error = model.check_importance(&mut of_experts).err().unwrap().to_string();
    assert!(error.contains("of another model") && error.contains("blk.0.ffn_down_exps.weight"), "{error}");
    of_experts.filter(&[], &["exps".to_owned(), "shexp".to_owned(), "gate_inp".to_owned()]);
    assert_eq!(model.check_importance(&mut of_experts).unwrap(), Vec::<String>::new());

    let bytes = std::fs::read(&matrix).unwrap();
    for (named, refused) in [(b"lay.", true), (b"blk.", false)] {
        // Blocks 7 to 9 are beyond the model's.
        let bytes = replace(&replace(&bytes, b"blk.", named), b".3.a", b".8.a");
        std::fs::write(&matrix, bytes).unwrap();
        let mut renamed = Importance::open(&matrix, ZeroCounts::Error).unwrap();
        renamed.filter(&[], &["exp".to_owned(), "gate_inp".to_owned()]);
        assert!(renamed.get("output.weight").is_some());
        match model.check_importance(&mut renamed) {
            Err(error) => {
                assert!(refused && error.to_string().contains("of another model"), "{error}");
            }
            Ok(unknown) => {
                assert!(!refused && unknown.contains(&"blk.8.attn_v.weight".to_owned()), "{unknown:?}");
            }
        }
    }
}

/// Every occurrence; both are equally long, so that offsets stay.
fn replace(bytes: &[u8], from: &[u8; 4], to: &[u8; 4]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(4) {
        if bytes[at..].starts_with(from) {
            bytes[at..at + 4].copy_from_slice(to);
        }
    }
    bytes
}

#[test]
fn wishes_overrule_recipes_and_plans_repeat_them() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("m.gguf");
    mock("tiny-dense", &path);
    let source = Source::open(&path).unwrap();
    let out = room.path().join("out.gguf");
    let mut wished = request("Q4_K_M");
    wished.wishes = Wishes {
        tensor_types: vec![parse_tensor_type("FFN_(up|gate)=q5_0").unwrap()],
        embedding: Some(Encoding::Q8_0),
        ..Wishes::default()
    };
    wished.overrides = vec![Set::parse("general.name=str:wished").unwrap()];
    wished.prune = vec![1];
    quantize(&source, &wished, None, &out).unwrap();
    let made = format::open(&out, &Limits::default()).unwrap();
    assert_eq!(made.tensor("blk.1.ffn_up.weight").unwrap().encoding, Encoding::Q5_0);
    assert_eq!(made.tensor("token_embd.weight").unwrap().encoding, Encoding::Q8_0);
    assert!(made.tensor("blk.3.ffn_up.weight").is_none(), "four layers less one");
    let Metadata::Gguf(keys) = made.metadata() else { panic!("it is GGUF") };
    assert_eq!(keys.get_str("general.name"), Ok("wished"));
    assert_eq!(keys.get_u64("qwen35.block_count"), Ok(3));
    assert_eq!(keys.get_array("qwen35.attention.recurrent_layers").unwrap().len(), 3);
    assert_eq!(
        keys.get_array("qwen35.rope.dimension_sections").unwrap().len(),
        4,
        "as many as there were layers"
    );

    // A plan as JSON, and the file that it made, lead to the same bytes.
    let model = Model::new(&source).unwrap();
    let first = room.path().join("first.gguf");
    let job = Job::new(&model, &request("Q3_K_M"), None).unwrap();
    let json = room.path().join("plan.json");
    std::fs::write(&json, serde_json::to_string(job.plan()).unwrap()).unwrap();
    job.write(&first, Existing::Refuse, None, None, &mut |_, _| {}).unwrap();
    for plan in [&json, &first] {
        let (given, file_type) = read_plan(plan).unwrap();
        let mut like = Request { file_type, ..Request::of(Scheme::Copy) };
        like.wishes.given = Some(given.clone());
        quantize(&source, &like, None, &out).unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&first).unwrap());
        let mut given = given;
        given.remove("output_norm.weight");
        given.insert("other".to_owned(), Encoding::F32);
        like.wishes.given = Some(given);
        let error = quantize(&source, &like, None, &out).err().unwrap().to_string();
        assert!(error.contains("output_norm.weight") && error.contains("the model has no other"), "{error}");
    }
}

/// A smaller budget never loses less, is kept to, and measured losses are taken up again.
#[test]
fn budgets_are_kept() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("m.gguf");
    mock("tiny-dense", &path);
    let source = Source::open(&path).unwrap();
    let model = Model::new(&source).unwrap();
    let state = room.path().join("state.json");
    let mut before = u64::MAX;
    for bits in [9.0, 6.0, 4.66, 4.0] {
        let budget = Budget::BitsPerWeight(bits);
        let fitted = model.fit(budget, &Request::of(Scheme::Copy), None, &state, &mut |_, _| {}).unwrap();
        let mut wanted = Request::of(Scheme::Copy);
        wanted.wishes.given = Some(fitted.given);
        let plan = Job::new(&model, &wanted, None).unwrap().plan().clone();
        assert!(
            plan.bits_per_weight() <= bits && plan.bits_per_weight() > bits - 0.3,
            "{}",
            plan.bits_per_weight()
        );
        assert!(plan.bytes() < before);
        before = plan.bytes();
    }
    let kept = std::fs::read_to_string(&state).unwrap();
    assert!(kept.contains("blk.0.ffn_down.weight") && kept.contains("Q6_K"));
    let error = model.fit(Budget::Bytes(1000), &Request::of(Scheme::Copy), None, &state, &mut |_, _| {});
    assert!(matches!(error, Err(Error::TooSmall { budget: 1000, .. })));
    assert_eq!(std::fs::read_to_string(&state).unwrap(), kept);
}

/// From Hugging Face the same file as by way of GGUF; with several threads the same as with one.
#[test]
fn the_way_does_not_matter() {
    let room = tempfile::tempdir().unwrap();
    let hf = Source::open(&fixture("golden/moe-f32")).unwrap();
    let gguf = room.path().join("f32.gguf");
    let checkpoint = model::Checkpoint::open(&fixture("golden/moe-f32"), &Limits::default()).unwrap();
    let conversion = convert::ToGguf::new(&checkpoint, &convert::GgufOptions::default()).unwrap();
    conversion.write(&gguf, Existing::Refuse, None, &mut |_, _| {}).unwrap();
    let (a, b, c) = (room.path().join("a.gguf"), room.path().join("b.gguf"), room.path().join("c.gguf"));
    quantize(&hf, &request("Q5_K_M"), None, &a).unwrap();
    quantize(&Source::open(&gguf).unwrap(), &request("Q5_K_M"), None, &b).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let alone = pool.install(|| quantize(&hf, &request("Q5_K_M"), None, &c)).unwrap();
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&c).unwrap());
    assert!(alone.tensors.iter().any(|made| made.figures.is_some_and(|figures| figures.rmse > 0.0)));
}
