//! Matches the tensors of a file with the rows of the layout map, and accounts for every one.

use std::collections::HashMap;

use codec::Encoding;
use format::{TensorInfo, TensorSource};

use crate::checkpoint::Purpose;
use crate::config::{Config, FeedForward, LayerType};
use crate::dim::{self, Dim};
use crate::error::Problem;
use crate::layout::{ROWS, Role, Scope, Stored, TensorSpec};
use crate::step::Step;

/// Which names and forms a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Hugging Face safetensors; the text model's names carry this prefix.
    Hf {
        /// `model.` or `model.language_model.`.
        prefix: &'static str,
    },
    /// GGUF.
    Gguf,
}

/// Which part of the model a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Outside the layers.
    Global,
    /// A layer of the main model.
    Layer(usize),
    /// A multi-token-prediction block.
    Mtp(usize),
}

/// A row of the layout map at one place, and the tensors of the file that hold it.
#[derive(Debug)]
pub struct Slot {
    /// The row.
    pub spec: &'static TensorSpec,
    /// Where.
    pub place: Place,
    /// The form that this file uses.
    pub stored: &'static Stored,
    /// Indices into the source's tensors: one, or one an expert.
    pub tensors: Vec<usize>,
}

/// What a tensor of the file is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// Holds these slots (indices into [`Layout::slots`]).
    Slots(Vec<usize>),
    /// Part of the vision tower: known, not run.
    Vision,
    /// A head beside tied embeddings: Transformers uses the embedding instead, and so do we.
    TiedHead,
    /// Scales of the blocks of an FP8 tensor.
    Scale,
}

/// Every tensor of a checkpoint, accounted for.
#[derive(Debug)]
pub struct Layout {
    /// Names and forms used.
    pub dialect: Dialect,
    /// In the order of the layer plan.
    pub slots: Vec<Slot>,
    /// One entry for each of the source's tensors, in file order.
    pub uses: Vec<Use>,
    /// The tensor of block scales that belongs to a tensor in FP8.
    pub scales: HashMap<usize, usize>,
    /// Whether it has MLX's layout: kernels `[C, K, 1]`, and gains that hold `1 + w` already.
    pub mlx: bool,
    index: HashMap<(Place, Role), usize>,
}

/// HF's prefixes of the text model, and of what is not text.
const TEXT_PREFIXES: [&str; 3] = ["model.language_model.", MLX_PREFIX, "model."];
const VISION_PREFIXES: [&str; 3] = ["model.visual.", "visual.", "vision_tower."];
/// MLX puts the whole text model, head included, under a name of its own.
const MLX_PREFIX: &str = "language_model.model.";

/// Rows and columns that share a scale in an FP8 tensor.
pub const FP8_BLOCK: usize = 128;
/// What the name of the scales ends with, behind that of the tensor.
const FP8_SCALE: &str = "_scale_inv";

/// Beyond this many unknown tensors, no nearest name is looked for.
const NEAREST_LOOKUPS: usize = 64;

impl Dialect {
    /// Which of HF's prefixes a directory uses.
    pub fn of_hf(source: &dyn TensorSource) -> Dialect {
        let has = |prefix: &&&str| {
            source.tensors().iter().any(|t| {
                t.name.starts_with(**prefix) && !VISION_PREFIXES.iter().any(|v| t.name.starts_with(v))
            })
        };
        Dialect::Hf { prefix: TEXT_PREFIXES.iter().find(has).copied().unwrap_or("model.") }
    }

    fn forms(self, spec: &'static TensorSpec) -> &'static [Stored] {
        match self {
            Dialect::Hf { .. } => spec.hf,
            Dialect::Gguf => std::slice::from_ref(&spec.gguf),
        }
    }

    /// The name of a stored tensor at a place; `expert` fills in `{}`.
    pub fn name(
        self,
        spec: &TensorSpec,
        form: &Stored,
        place: Place,
        layers: usize,
        expert: Option<usize>,
    ) -> String {
        let name = match expert {
            Some(e) => form.name.replacen("{}", &e.to_string(), 1),
            None => form.name.to_owned(),
        };
        match (self, place) {
            (Dialect::Gguf, Place::Global) => name,
            (Dialect::Gguf, Place::Layer(l)) => format!("blk.{l}.{name}"),
            (Dialect::Gguf, Place::Mtp(i)) => format!("blk.{}.{name}", layers + i),
            (Dialect::Hf { prefix }, Place::Global) if spec.role == Role::LmHead => {
                if prefix == MLX_PREFIX {
                    format!("language_model.{name}")
                } else {
                    name
                }
            }
            (Dialect::Hf { prefix }, Place::Global) => format!("{prefix}{name}"),
            (Dialect::Hf { prefix }, Place::Layer(l)) => format!("{prefix}layers.{l}.{name}"),
            (Dialect::Hf { .. }, Place::Mtp(_)) if spec.scope == Scope::Mtp => format!("mtp.{name}"),
            (Dialect::Hf { .. }, Place::Mtp(i)) => format!("mtp.layers.{i}.{name}"),
        }
    }
}

/// Every (place, row) that a model of this configuration can have, in the order of the forward pass.
pub fn slots(config: &Config) -> impl Iterator<Item = (Place, &'static TensorSpec)> {
    let moe = matches!(config.feed_forward, FeedForward::Moe { .. });
    let in_layer = move |scope: Scope, mixer: LayerType| match scope {
        Scope::Layer => true,
        Scope::Mixer(m) => m == mixer,
        Scope::Dense => !moe,
        Scope::Moe => moe,
        Scope::Global | Scope::Mtp => false,
    };
    let global = |spec: &&TensorSpec| spec.scope == Scope::Global;
    let (before, after): (Vec<_>, Vec<_>) =
        ROWS.iter().filter(global).partition(|spec| spec.role == Role::EmbedTokens);
    let layers = config.layer_types.iter().enumerate().flat_map(move |(l, &mixer)| {
        ROWS.iter().filter(move |s| in_layer(s.scope, mixer)).map(move |s| (Place::Layer(l), s))
    });
    let mtp = (0..config.mtp_num_hidden_layers).flat_map(move |i| {
        ROWS.iter()
            .filter(move |s| in_layer(s.scope, LayerType::FullAttention) || (s.scope == Scope::Mtp && i == 0))
            .map(move |s| (Place::Mtp(i), s))
    });
    let at_global = |s| (Place::Global, s);
    before.into_iter().map(at_global).chain(layers).chain(after.into_iter().map(at_global)).chain(mtp)
}

impl Layout {
    /// Matches every tensor of `source` with its row.
    ///
    /// # Errors
    /// All that is missing, misshapen, unknown, packed or ambiguous, at once.
    pub fn resolve(
        source: &dyn TensorSource,
        config: &Config,
        dialect: Dialect,
        purpose: Purpose,
    ) -> Result<Layout, Vec<Problem>> {
        let mut resolver = Resolver {
            source,
            config,
            dialect,
            purpose,
            kernels: [0; 2],
            scales: HashMap::new(),
            by_name: source.tensors().iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect(),
            uses: vec![None; source.tensors().len()],
            slots: Vec::new(),
            problems: Vec::new(),
        };
        let contradicted = resolver.layer_types();
        for (place, spec) in slots(config) {
            if !contradicted.contains(&place) || !matches!(spec.scope, Scope::Mixer(_)) {
                resolver.place(place, spec);
            }
        }
        resolver.rest();
        let mlx = resolver.is_mlx();
        if !resolver.problems.is_empty() {
            return Err(resolver.problems);
        }
        let index = resolver.slots.iter().enumerate().map(|(i, s)| ((s.place, s.spec.role), i)).collect();
        let uses = resolver.uses.into_iter().flatten().collect();
        Ok(Layout { dialect, slots: resolver.slots, uses, scales: resolver.scales, mlx, index })
    }

    /// The slot of a role at a place.
    pub fn slot(&self, place: Place, role: Role) -> Option<&Slot> {
        self.index.get(&(place, role)).map(|&i| &self.slots[i])
    }
}

struct Resolver<'a> {
    source: &'a dyn TensorSource,
    config: &'a Config,
    dialect: Dialect,
    purpose: Purpose,
    /// Convolutions with taps innermost, and with taps before an axis of length 1 as MLX has them.
    kernels: [usize; 2],
    scales: HashMap<usize, usize>,
    by_name: HashMap<&'a str, usize>,
    uses: Vec<Option<Use>>,
    slots: Vec<Slot>,
    problems: Vec<Problem>,
}

impl Resolver<'_> {
    fn names(&self, spec: &TensorSpec, form: &Stored, place: Place) -> Vec<String> {
        let layers = self.config.num_hidden_layers;
        if form.steps.contains(&Step::StackExperts) {
            let experts = Dim::Experts.size(self.config);
            (0..experts).map(|e| self.dialect.name(spec, form, place, layers, Some(e))).collect()
        } else {
            vec![self.dialect.name(spec, form, place, layers, None)]
        }
    }

    fn find(&self, names: &[String]) -> Vec<Option<usize>> {
        names.iter().map(|n| self.by_name.get(n.as_str()).copied()).collect()
    }

    /// Layers whose tensors are those of the other mixer: one clear problem instead of a dozen missing and
    /// unknown names.
    fn layer_types(&mut self) -> Vec<Place> {
        let mut contradicted = Vec::new();
        for (l, &expected) in self.config.layer_types.iter().enumerate() {
            let place = Place::Layer(l);
            let of = |mixer: LayerType| ROWS.iter().filter(move |s| s.scope == Scope::Mixer(mixer));
            let found = |resolver: &Self, mixer| -> Vec<usize> {
                of(mixer)
                    .flat_map(|s| resolver.dialect.forms(s).iter().map(move |f| (s, f)))
                    .flat_map(|(s, f)| resolver.find(&resolver.names(s, f, place)))
                    .flatten()
                    .collect()
            };
            let other = match expected {
                LayerType::LinearAttention => LayerType::FullAttention,
                LayerType::FullAttention => LayerType::LinearAttention,
            };
            let strangers = found(self, other);
            if !strangers.is_empty() && found(self, expected).is_empty() {
                for i in strangers {
                    self.uses[i] = Some(Use::Slots(Vec::new()));
                }
                self.problems.push(Problem::LayerType { layer: l, expected, found: other });
                contradicted.push(place);
            }
        }
        contradicted
    }

    fn place(&mut self, place: Place, spec: &'static TensorSpec) {
        let forms = self.dialect.forms(spec);
        let present: Vec<_> = forms
            .iter()
            .map(|form| {
                let names = self.names(spec, form, place);
                let found = self.find(&names);
                (form, names, found)
            })
            .filter(|(_, _, found)| found.iter().any(Option::is_some))
            .collect();
        let tied = spec.role == Role::LmHead && self.config.tie_word_embeddings;
        match present.as_slice() {
            [] if tied || matches!(place, Place::Mtp(_)) || self.purpose == Purpose::Part => {}
            [] => {
                let name = self.names(spec, &forms[0], place).swap_remove(0);
                self.problems
                    .push(Problem::Missing { name, shape: dim::describe(forms[0].axes, self.config) });
            }
            [(_, _, found)] if tied => {
                for i in found.iter().flatten() {
                    self.uses[*i] = Some(Use::TiedHead);
                }
            }
            [(form, names, found)] => self.take(place, spec, form, names, found),
            [(_, a, found_a), (_, b, found_b), ..] => {
                self.problems.push(Problem::Ambiguous { name: a[0].clone(), other: b[0].clone() });
                for i in found_a.iter().chain(found_b).flatten() {
                    self.uses[*i] = Some(Use::Slots(Vec::new()));
                }
            }
        }
    }

    fn take(
        &mut self,
        place: Place,
        spec: &'static TensorSpec,
        form: &'static Stored,
        names: &[String],
        found: &[Option<usize>],
    ) {
        let slot = self.slots.len();
        for (name, found) in names.iter().zip(found) {
            let Some(i) = *found else {
                let shape = dim::describe(form.axes, self.config);
                self.problems.push(Problem::Missing { name: name.clone(), shape });
                continue;
            };
            // A packed tensor that holds two slots is checked for the first.
            if let Some(Use::Slots(others)) = &mut self.uses[i] {
                others.push(slot);
                continue;
            }
            self.uses[i] = Some(Use::Slots(vec![slot]));
            let info = &self.source.tensors()[i];
            let scaled = info.encoding == Encoding::F8E4M3 && self.take_scales(i);
            if let Some(problem) = self.check(info, form, scaled) {
                self.problems.push(problem);
            }
        }
        let tensors = found.iter().flatten().copied().collect();
        self.slots.push(Slot { spec, place, stored: form, tensors });
    }

    /// Finds the scales of an FP8 tensor, of which there is one for each block of 128 × 128.
    fn take_scales(&mut self, tensor: usize) -> bool {
        let info = &self.source.tensors()[tensor];
        let Some(&scale) = self.by_name.get(format!("{}{FP8_SCALE}", info.name).as_str()) else {
            return false;
        };
        let found = &self.source.tensors()[scale];
        let [outer @ .., rows, cols] = info.shape.dims() else { return false };
        let blocks = [rows, cols].map(|size| size.div_ceil(FP8_BLOCK as u64));
        let expected: Vec<u64> = outer.iter().copied().chain(blocks).collect();
        let plain = matches!(found.encoding, Encoding::F32 | Encoding::BF16 | Encoding::F16);
        if self.purpose == Purpose::Run || !plain || found.shape.dims() != expected {
            return false;
        }
        self.uses[scale] = Some(Use::Scale);
        self.scales.insert(tensor, scale);
        true
    }

    /// Whether kernels are laid out as MLX has them; all must be in the same way.
    fn is_mlx(&mut self) -> bool {
        let [_, mlx] = self.kernels;
        if self.kernels.iter().all(|count| *count > 0) {
            let name = "linear_attn.conv1d.weight".to_owned();
            let other = format!("{mlx} of them in MLX's layout [C, K, 1]");
            self.problems.push(Problem::Ambiguous { name, other });
        }
        mlx > 0
    }

    fn check(&mut self, info: &TensorInfo, form: &Stored, scaled: bool) -> Option<Problem> {
        use Encoding::*;
        let name = info.name.clone();
        match info.encoding {
            U8 | I8 => {
                let what = format!("is {}: bitsandbytes or another packed form", info.encoding.name());
                return Some(Problem::Packed { name, what });
            }
            F8E4M3 | F8E5M2 if !scaled => {
                let what = format!("is {}: FP8 whose scales stand elsewhere", info.encoding.name());
                return Some(Problem::Packed { name, what });
            }
            I16 | I32 | I64 | U16 | U32 | U64 | Bool | F64 | Q8_1 | Q8K => {
                return Some(Problem::Encoding { name, found: info.encoding.name() });
            }
            _ => {}
        }
        let expected: Vec<u64> = form.axes.iter().map(|d| d.size(self.config) as u64).collect();
        let found = info.shape.dims();
        // ggml cannot tell [1, D] from [D]: its writers leave either.
        let trimmed = |dims: &[u64]| match self.dialect {
            Dialect::Gguf => dims.iter().copied().skip_while(|&d| d == 1).collect(),
            Dialect::Hf { .. } => dims.to_vec(),
        };
        if let ([channels, 1, taps], [Dim::Qkv, Dim::One, Dim::Taps]) = (expected.as_slice(), form.axes)
            && *taps > 1
        {
            let mlx = found == [*channels, *taps, 1] && self.purpose != Purpose::Run;
            self.kernels[usize::from(mlx)] += 1;
            if mlx {
                return None;
            }
        }
        let same = trimmed(found) == trimmed(&expected);
        (!same).then(|| Problem::Misshapen {
            name,
            expected: dim::describe(form.axes, self.config),
            found: info.shape.to_string(),
            hint: misshapen_hint(&expected, found),
        })
    }

    /// What no row took: vision is known, the rest is a problem each.
    fn rest(&mut self) {
        let mut known: Option<Vec<String>> = None;
        let mut lookups = 0;
        for (i, info) in self.source.tensors().iter().enumerate() {
            if self.uses[i].is_some() {
                continue;
            }
            let hf = matches!(self.dialect, Dialect::Hf { .. });
            if hf && VISION_PREFIXES.iter().any(|p| info.name.starts_with(p)) {
                self.uses[i] = Some(Use::Vision);
                continue;
            }
            if let Some(what) = packed_companion(&info.name) {
                self.problems.push(Problem::Packed { name: info.name.clone(), what: what.into() });
                continue;
            }
            lookups += 1;
            let nearest = (lookups <= NEAREST_LOOKUPS).then(|| {
                let known = known.get_or_insert_with(|| self.known_names());
                nearest(&info.name, known)
            });
            self.problems.push(Problem::Unknown { name: info.name.clone(), nearest: nearest.flatten() });
        }
    }

    /// Every name that a row gives in this dialect, of experts the first only.
    fn known_names(&self) -> Vec<String> {
        let layers = self.config.num_hidden_layers;
        slots(self.config)
            .flat_map(|(place, spec)| {
                self.dialect
                    .forms(spec)
                    .iter()
                    .map(move |form| self.dialect.name(spec, form, place, layers, Some(0)))
            })
            .collect()
    }
}

fn nearest(name: &str, known: &[String]) -> Option<String> {
    // Below this similarity a suggestion misleads more than it helps.
    const SIMILAR: f64 = 0.6;
    known
        .iter()
        .map(|k| (strsim::normalized_levenshtein(name, k), k))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .map(|(_, k)| k.clone())
}

/// Tensors that only packed checkpoints have, by how their names end.
fn packed_companion(name: &str) -> Option<&'static str> {
    const COMPANIONS: &[(&str, &str)] = &[
        (".weight_scale_inv", "belongs to FP8 weights with block scales"),
        (".weight_scale", "belongs to FP8 or NVFP4 weights"),
        (".weight_scale_2", "belongs to NVFP4 weights"),
        (".input_scale", "belongs to FP8 or NVFP4 weights"),
        (".absmax", "belongs to bitsandbytes weights"),
        (".quant_map", "belongs to bitsandbytes weights"),
        (".SCB", "belongs to bitsandbytes int8 weights"),
        ("bitsandbytes__nf4", "belongs to bitsandbytes NF4 weights"),
        ("bitsandbytes__fp4", "belongs to bitsandbytes FP4 weights"),
        (".qweight", "is a GPTQ or AWQ weight"),
        (".qzeros", "belongs to GPTQ or AWQ weights"),
        (".g_idx", "belongs to GPTQ weights"),
        (".scales", "belongs to GPTQ, AWQ or MLX weights"),
        (".biases", "belongs to MLX weights"),
    ];
    COMPANIONS.iter().find(|(end, _)| name.ends_with(end)).map(|(_, what)| *what)
}

fn misshapen_hint(expected: &[u64], found: &[u64]) -> &'static str {
    match (expected, found) {
        ([c, 1, k], [fc, fk, 1]) if c == fc && k == fk => {
            " (MLX layout: its norms already hold 1 + w as well; convert the checkpoint first)"
        }
        ([a, b], [fa, fb]) if a == fb && b == fa => " (transposed)",
        ([e, a, b], [fe, fa, fb]) if e == fe && a == fb && b == fa => " (each expert transposed)",
        ([a, b], [fa, fb]) if b == fb && a != fa => " (another number of rows than the configuration says)",
        _ => "",
    }
}
