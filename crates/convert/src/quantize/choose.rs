//! Which encoding each tensor gets, as llama-quantize chooses.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use codec::Encoding;
use format::Shape;
use regex::Regex;

use super::error::Error;
use super::importance::Importance;
use super::keys::Keys;
use super::kind::{Kind, kept};
use super::plan::{Plan, Planned};
use super::recipe::{Recipe, Rule, When};

/// A tensor of the source.
#[derive(Clone, Debug)]
pub struct Described {
    /// Its name in the output.
    pub name: String,
    /// Its name in the source and in importance matrices.
    pub original: String,
    /// Outermost dimension first.
    pub shape: Shape,
    /// How it is stored, or would be in an ordinary conversion.
    pub encoding: Encoding,
}

/// What decides about encodings.
#[derive(Clone, Copy, Debug)]
pub enum Scheme {
    /// A recipe.
    Recipe(&'static Recipe),
    /// Every tensor stays what it is.
    Copy,
}

/// What is asked for beside the recipe.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Tensors whose names match get this encoding; the first that matches decides.
    pub tensor_types: Vec<(Regex, Encoding)>,
    /// The encoding of the output matrix.
    pub output: Option<Encoding>,
    /// The encoding of the embedding.
    pub embedding: Option<Encoding>,
    /// No rules, only the recipe's base.
    pub pure: bool,
    /// The output matrix stays what it is.
    pub leave_output: bool,
    /// Encodings by name, for every tensor: what a plan says.
    pub given: Option<BTreeMap<String, Encoding>>,
    /// Blocks may be encoded anew.
    pub allow_requantize: bool,
}

/// A wish out of `REGEX=TYPE`. Like llama-quantize's, the expression is taken in lower case and found anywhere in a name.
///
/// # Errors
/// What else it is.
pub fn parse_tensor_type(text: &str) -> Result<(Regex, Encoding), Error> {
    let wrong = |what: String| Error::Request { what: format!("--tensor-type {text:?}: {what}") };
    let (pattern, name) = text.split_once('=').ok_or_else(|| wrong("expected REGEX=TYPE".to_owned()))?;
    if pattern.is_empty() {
        return Err(wrong("the expression is empty".to_owned()));
    }
    let regex = Regex::new(&pattern.to_lowercase()).map_err(|error| wrong(error.to_string()))?;
    let encoding = Encoding::from_name(name).filter(|encoding| encoding.ggml_id().is_some());
    Ok((regex, encoding.ok_or_else(|| wrong(format!("{name:?} is no encoding of GGUF files")))?))
}

/// What recipes ask about a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Query heads to a key head.
    pub gqa: u64,
    /// Experts, 0 if dense.
    pub experts: u64,
    /// Blocks, those of multi-token prediction included.
    pub layers: u64,
}

impl Facts {
    /// What the keys of a GGUF file say.
    pub fn of(keys: &Keys<'_>) -> Facts {
        let architecture = keys.string("general.architecture").unwrap_or_default();
        let number = |key: &str| keys.number(&format!("{architecture}.{key}")).unwrap_or(0);
        let (heads, key_heads) = (number("attention.head_count"), number("attention.head_count_kv"));
        Facts {
            gqa: heads.checked_div(key_heads).unwrap_or(0),
            experts: number("expert_count"),
            layers: number("block_count"),
        }
    }
}

/// Which of how many like it a tensor is.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// Its number: of the layer where there are experts, else among those seen.
    pub i: u64,
    /// The same, counted always.
    pub counted: u64,
    /// How many there are.
    pub n: u64,
}

impl Position {
    fn is(self, when: When) -> bool {
        let Position { i, counted, n } = self;
        match when {
            When::First(count) => i < count,
            When::Early(part) => i < n / part,
            When::EarlyAsCounted(part) => counted < n / part,
            When::Middle => i >= n / 8 && i < 7 * n / 8,
            When::MoreBits => i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2,
            _ => false,
        }
    }
}

/// The order of tensors in llama-quantize's files: by layer, those of none first, then by name.
pub fn by_layer(a: &str, b: &str) -> Ordering {
    layer(a).cmp(&layer(b)).then_with(|| a.cmp(b))
}

/// The layer in a name that starts with one.
pub fn layer(name: &str) -> Option<u64> {
    let rest = name.strip_prefix("blk.")?;
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

/// Chooses for every tensor, in the order given.
///
/// # Errors
/// Encodings that need importance there is none of, blocks to be encoded anew, plans for another model, rows that
/// nothing fits.
pub fn choose(
    tensors: &[Described],
    facts: Facts,
    scheme: Scheme,
    wishes: &Wishes,
    importance: Option<&Importance>,
) -> Result<Plan, Error> {
    if let Some(given) = &wishes.given {
        compare_names(tensors, given)?;
    }
    let mut chooser = Chooser {
        facts,
        wishes,
        weighed: importance.is_some(),
        tied: !tensors.iter().any(|t| t.name == "output.weight"),
        values: tensors.iter().filter(|t| Kind::of(&t.name).is_values()).count() as u64,
        seen: [0; 4],
    };
    let planned = tensors.iter().map(|tensor| {
        let Choice { to, why, fallback } = match (&wishes.given, scheme) {
            (Some(given), _) => match given.get(&tensor.name) {
                Some(&to) => chooser.fitting(tensor, to, "the plan".to_owned())?,
                None => Choice::stays(tensor, "not in the plan"),
            },
            (None, Scheme::Copy) => Choice::stays(tensor, "copied"),
            (None, Scheme::Recipe(recipe)) => chooser.choose(tensor, recipe)?,
        };
        let weights = importance.and_then(|importance| importance.get(&tensor.original));
        let weighed = to != tensor.encoding && weights.is_some() && to.block_len() > 1;
        Planned::new(tensor, to, why, fallback, weighed)
    });
    let (recipe, file_type) = match scheme {
        Scheme::Recipe(recipe) => (recipe.name, Some(recipe.file_type)),
        Scheme::Copy => ("COPY", None),
    };
    let plan = Plan { recipe: recipe.to_owned(), file_type, tensors: planned.collect::<Result<_, _>>()? };
    check(&plan, importance.is_some(), wishes)?;
    Ok(plan)
}

fn compare_names(tensors: &[Described], given: &BTreeMap<String, Encoding>) -> Result<(), Error> {
    let names: HashSet<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    let missing: Vec<String> =
        tensors.iter().filter(|t| !given.contains_key(&t.name)).map(|t| t.name.clone()).collect();
    let unknown: Vec<String> = given.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
    if missing.is_empty() && unknown.is_empty() { Ok(()) } else { Err(Error::OtherPlan { missing, unknown }) }
}

/// Refuses what would come out as garbage, or not at all.
fn check(plan: &Plan, has_matrix: bool, wishes: &Wishes) -> Result<(), Error> {
    let changed = || plan.tensors.iter().filter(|t| t.from != t.to);
    let blind = changed().filter(|t| !t.weighed && needs_importance(&t.name, t.to, &plan.recipe));
    let tensors: Vec<_> = blind.map(|t| (t.name.clone(), t.to)).collect();
    if !tensors.is_empty() {
        let advice = match has_matrix {
            true => "the importance matrix says nothing about them: make one of this model, or choose others",
            false => "give --imatrix FILE, or another recipe",
        };
        return Err(Error::NeedsImportance { tensors, advice });
    }
    let again = changed().filter(|t| t.from.block_len() > 1);
    let tensors: Vec<_> = again.map(|t| (t.name.clone(), t.from)).collect();
    if !wishes.allow_requantize && !tensors.is_empty() {
        return Err(Error::Requantize { tensors });
    }
    Ok(())
}

/// Whether llama-quantize refuses to make this without importance: so low that the result would be garbage.
pub(super) fn needs_importance(name: &str, to: Encoding, recipe: &str) -> bool {
    if to.needs_importance() {
        return true;
    }
    if matches!(Kind::of(name), Kind::TokenEmbedding | Kind::Output) {
        return false;
    }
    match to {
        Encoding::Iq3Xxs | Encoding::Iq2S | Encoding::Iq1M => true,
        Encoding::Q2K => recipe == "Q2_K_S",
        _ => false,
    }
}

/// What becomes of a tensor, why, and what it would have been if its rows were whole blocks.
struct Choice {
    to: Encoding,
    why: String,
    fallback: Option<Encoding>,
}

impl Choice {
    fn stays(tensor: &Described, why: &str) -> Choice {
        Choice { to: tensor.encoding, why: why.to_owned(), fallback: None }
    }
}

struct Chooser<'a> {
    facts: Facts,
    wishes: &'a Wishes,
    weighed: bool,
    /// Whether the embedding serves as output matrix.
    tied: bool,
    /// How many tensors hold values.
    values: u64,
    /// Tensors that rules were asked about: with values, down, gate, up.
    seen: [u64; 4],
}

impl Chooser<'_> {
    fn choose(&mut self, tensor: &Described, recipe: &'static Recipe) -> Result<Choice, Error> {
        if let Some(why) = kept(&tensor.name, &tensor.shape) {
            return Ok(Choice::stays(tensor, why));
        }
        let kind = Kind::of(&tensor.name);
        if self.wishes.leave_output && kind == Kind::Output {
            return Ok(Choice::stays(tensor, "--leave-output-tensor"));
        }
        let wish = self.wishes.tensor_types.iter().find(|(pattern, _)| pattern.is_match(&tensor.name));
        let named = wish.is_some() && tensor.name == "per_layer_token_embd.weight";
        let asked = match kind {
            Kind::TokenEmbedding if !named => self.wishes.embedding.map(|to| (to, "--token-embedding-type")),
            Kind::Output => self.wishes.output.map(|to| (to, "--output-tensor-type")),
            _ => None,
        };
        if let Some((to, why)) = asked {
            return Ok(Choice { to, why: why.to_owned(), fallback: None });
        }
        if recipe.base.block_len() == 1 {
            return Ok(Choice { to: recipe.base, why: recipe.name.to_owned(), fallback: None });
        }
        let (to, why) = match wish {
            Some((pattern, to)) => (*to, format!("--tensor-type {pattern}")),
            None if self.wishes.pure => (recipe.base, "--pure".to_owned()),
            None => self.by_rules(tensor, kind, recipe)?,
        };
        self.fitting(tensor, to, why)
    }

    fn by_rules(
        &mut self,
        tensor: &Described,
        kind: Kind,
        recipe: &'static Recipe,
    ) -> Result<(Encoding, String), Error> {
        let serves_as_output = kind == Kind::Output || kind == Kind::TokenEmbedding && self.tied;
        if serves_as_output {
            return Ok(match self.wishes.output {
                Some(to) => (to, "--output-tensor-type".to_owned()),
                None if !tensor.shape.row_len().is_multiple_of(recipe.base.block_len() as u64) => {
                    (Encoding::Q8_0, "an output whose rows are no whole blocks".to_owned())
                }
                None => (recipe.output, format!("{}: output", recipe.name)),
            });
        }
        if kind == Kind::TokenEmbedding {
            return Ok((recipe.embedding, format!("{}: embedding", recipe.name)));
        }
        let position = self.position(&tensor.name, kind)?;
        let fits = |rule: &&Rule| {
            rule.of.contains(&kind) && rule.when.iter().all(|when| self.holds(*when, position, tensor))
        };
        Ok(match recipe.rules.iter().copied().flatten().find(fits) {
            Some(rule) => (rule.to, format!("{}: {kind:?} {:?}", recipe.name, rule.when)),
            None => (recipe.base, recipe.name.to_owned()),
        })
    }

    /// Counts the tensor among its like.
    fn position(&mut self, name: &str, kind: Kind) -> Result<Option<Position>, Error> {
        let (at, n) = match kind {
            kind if kind.is_values() => (0, self.values),
            Kind::FfnDown => (1, self.facts.layers),
            Kind::FfnGate => (2, self.facts.layers),
            Kind::FfnUp => (3, self.facts.layers),
            _ => return Ok(None),
        };
        let counted = self.seen[at];
        self.seen[at] += 1;
        let i = match layer(name) {
            _ if at == 0 || self.facts.experts <= 1 => counted,
            Some(layer) if layer < n => layer,
            found => {
                let found = found.map_or("none".to_owned(), |layer| layer.to_string());
                let what = format!("tensor {name:?}: expected a layer below {n} in its name, found {found}");
                return Err(Error::Request { what });
            }
        };
        Ok(Some(Position { i, counted, n }))
    }

    fn holds(&self, when: When, position: Option<Position>, tensor: &Described) -> bool {
        let Facts { gqa, experts, .. } = self.facts;
        match when {
            When::Gqa4 => gqa >= 4,
            When::Experts8 => experts == 8,
            When::NotExperts8 => experts != 8,
            When::Experts4 => experts >= 4,
            When::Weighed => self.weighed,
            When::Unweighed => !self.weighed,
            When::Stacked => match tensor.shape.dims() {
                [.., stacked, _, _] => *stacked > 1,
                _ => false,
            },
            _ => position.is_some_and(|position| position.is(when)),
        }
    }

    /// The encoding, or what stands in for it where rows are no whole blocks.
    fn fitting(&self, tensor: &Described, to: Encoding, why: String) -> Result<Choice, Error> {
        let cols = tensor.shape.row_len();
        let fits = |encoding: Encoding| cols.is_multiple_of(encoding.block_len() as u64);
        if fits(to) {
            return Ok(Choice { to, why, fallback: None });
        }
        let Some(stand_in) = stand_in(to) else {
            return Err(Error::NoFallback { tensor: tensor.name.clone(), encoding: to, cols });
        };
        let stand_in = if fits(stand_in) { stand_in } else { Encoding::F16 };
        let why = format!("rows of {cols} are no whole blocks of {to} ({why})");
        Ok(Choice { to: stand_in, why, fallback: Some(to) })
    }
}

/// What stands in for an encoding of long blocks.
fn stand_in(encoding: Encoding) -> Option<Encoding> {
    use Encoding::*;
    Some(match encoding {
        Iq1S | Iq1M | Iq2Xxs | Iq2Xs | Iq2S | Iq3Xxs | Iq3S | Iq4Xs => Iq4Nl,
        Q2_0 | Q2K | Q3K | Tq1_0 | Tq2_0 => Q4_0,
        Q4K => Q5_0,
        Q5K => Q5_1,
        Q6K => Q8_0,
        short if short.block_len() <= 32 => short,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_in_order_of_number() {
        let mut names = ["blk.10.a", "output.weight", "blk.2.b", "blk.2.a", "a"];
        names.sort_by(|a, b| by_layer(a, b));
        assert_eq!(names, ["a", "output.weight", "blk.2.a", "blk.2.b", "blk.10.a"]);
        assert_eq!((layer("blk.7.x"), layer("blk.x"), layer("v.blk.3.x")), (Some(7), None, None));
    }

    #[test]
    fn more_bits_go_to_both_ends_and_every_third() {
        let of = |n| -> Vec<u64> {
            (0..n).filter(|&i| Position { i, counted: i, n }.is(When::MoreBits)).collect()
        };
        assert_eq!(of(24), [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]);
        assert_eq!(of(4), [2, 3]);
    }
}
