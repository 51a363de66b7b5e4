//! What llama-quantize's recipes say, as data: a base encoding, and rules for what gets another one.

use codec::Encoding::{self, *};

use super::kind::Kind;
use super::kind::Kind::*;

/// A recipe: which encoding each kind of tensor gets.
#[derive(Debug)]
pub struct Recipe {
    /// As llama-quantize spells it, or its name here.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// `general.file_type`.
    pub file_type: u32,
    /// What no rule is for.
    pub base: Encoding,
    /// The output matrix, or an embedding that serves as one; Q8_0 where rows are no whole blocks of the base.
    pub output: Encoding,
    /// An embedding beside an output matrix.
    pub embedding: Encoding,
    /// The first rule that fits decides.
    pub rules: &'static [&'static [Rule]],
    /// A line about it.
    pub summary: &'static str,
}

/// Tensors of these kinds, if all conditions hold, get this encoding.
#[derive(Debug)]
pub struct Rule {
    /// Kinds of tensors.
    pub of: &'static [Kind],
    /// All must hold.
    pub when: &'static [When],
    /// The encoding.
    pub to: Encoding,
}

/// A condition. Positions are those of `choose::Position`: n tensors, i the number of this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At least four query heads share a key head.
    Gqa4,
    /// There are just eight experts.
    Experts8,
    /// There are not.
    NotExperts8,
    /// There are at least four experts.
    Experts4,
    /// There is an importance matrix.
    Weighed,
    /// There is none.
    Unweighed,
    /// i below this.
    First(u64),
    /// i below n over this.
    Early(u64),
    /// The same, of tensors counted as they come even where the others go by layer.
    EarlyAsCounted(u64),
    /// Neither in the first nor the last eighth.
    Middle,
    /// In the first or last eighth, or every third between.
    MoreBits,
    /// A stack of matrices, one an expert.
    Stacked,
}

use When::*;

const fn rule(of: &'static [Kind], when: &'static [When], to: Encoding) -> Rule {
    Rule { of, when, to }
}

/// All matrices that hold values: alone, or with queries and keys.
const V: &[Kind] = &[AttnV, AttnQkv, AttnKvB];
const K: &[Kind] = &[AttnK];
const Q: &[Kind] = &[AttnQ];
const OUT: &[Kind] = &[AttnOutput];
const DOWN: &[Kind] = &[FfnDown];
const GATE_UP: &[Kind] = &[FfnGate, FfnUp];
const FFN: &[Kind] = &[FfnGate, FfnUp, FfnDown];
const ALL: &[Kind] = Kind::ALL;

/// Models of eight experts have small attention matrices.
const EIGHT: &[Rule] = &[rule(V, &[Experts8], Q8_0), rule(K, &[Experts8], Q8_0)];
/// And may spend on the output of attention.
const EIGHT_OUT: &[Rule] = &[rule(OUT, &[Experts8], Q5K)];
/// The smallest, whose values are hurt most; what is left to a base of about two bits.
const TWO_BITS: &[Rule] = &[
    rule(V, &[Gqa4], Q4K),
    rule(V, &[Experts4], Q4K),
    rule(V, &[], Q2K),
    rule(K, &[Experts8], Q4K),
    rule(DOWN, &[EarlyAsCounted(8)], Q2K),
    rule(OUT, &[Experts8], Q5K),
];
const TWO_AND_A_HALF_BITS: &[Rule] = &[
    rule(V, &[Gqa4], Q4K),
    rule(V, &[Experts4], Q4K),
    rule(V, &[], Iq3S),
    rule(K, &[Experts8], Q4K),
    rule(DOWN, &[EarlyAsCounted(8)], Iq3S),
    rule(OUT, &[Experts8], Q5K),
    rule(OUT, &[], Iq3S),
];

/// A recipe of one encoding but for the output.
const fn plain(name: &'static str, file_type: u32, base: Encoding, summary: &'static str) -> Recipe {
    Recipe { name, aliases: &[], file_type, base, output: Q6K, embedding: base, rules: &[EIGHT], summary }
}

/// A recipe of plain numbers, which has no exceptions.
const fn numbers(name: &'static str, file_type: u32, base: Encoding, summary: &'static str) -> Recipe {
    Recipe { name, aliases: &[], file_type, base, output: base, embedding: base, rules: &[], summary }
}

/// Every recipe of llama-quantize, and below them those of this project.
#[rustfmt::skip]
pub static RECIPES: &[Recipe] = &[
    plain("Q1_0", 40, Q1_0, "1.125 bits: signs"),
    Recipe { embedding: Q4K, ..plain("Q2_0", 41, Q2_0, "2.25 bits: integers") },
    Recipe {
        rules: &[EIGHT, &[rule(DOWN, &[Weighed, Early(8)], Q4_1)]],
        ..plain("Q4_0", 2, Q4_0, "4.5 bits, symmetric")
    },
    plain("Q4_1", 3, Q4_1, "5 bits, with minima"),
    Recipe {
        output: Q8_0,
        embedding: Q8_0,
        rules: &[&[rule(ALL, &[Stacked], Mxfp4), rule(ALL, &[], Q8_0)]],
        ..plain("MXFP4_MOE", 38, Mxfp4, "experts in 4-bit floats, the rest in Q8_0")
    },
    Recipe {
        rules: &[EIGHT, &[rule(DOWN, &[Weighed, Early(8)], Q5_1)]],
        ..plain("Q5_0", 8, Q5_0, "5.5 bits, symmetric")
    },
    plain("Q5_1", 9, Q5_1, "6 bits, with minima"),
    Recipe { output: Q5K, embedding: Q2K, rules: &[TWO_BITS], ..plain("IQ2_XXS", 19, Iq2Xxs, "2.06 bits") },
    Recipe { output: Q5K, embedding: Q2K, rules: &[TWO_BITS], ..plain("IQ2_XS", 20, Iq2Xs, "2.31 bits") },
    Recipe { output: Q5K, embedding: Iq3S, rules: &[TWO_AND_A_HALF_BITS], ..plain("IQ2_S", 28, Iq2Xs, "2.5 bits") },
    Recipe { output: Q5K, embedding: Iq3S, rules: &[TWO_AND_A_HALF_BITS], ..plain("IQ2_M", 29, Iq2S, "2.7 bits") },
    Recipe {
        output: Q5K,
        embedding: Q2K,
        rules: &[TWO_BITS, &[rule(OUT, &[], Iq2Xxs)]],
        ..plain("IQ1_S", 24, Iq1S, "1.56 bits")
    },
    Recipe {
        output: Q5K,
        embedding: Q2K,
        rules: &[TWO_BITS, &[rule(OUT, &[], Iq2Xxs)]],
        ..plain("IQ1_M", 31, Iq1M, "1.75 bits")
    },
    Recipe { embedding: Q4K, ..plain("TQ1_0", 36, Tq1_0, "1.69 bits, for ternary models") },
    Recipe { embedding: Q4K, ..plain("TQ2_0", 37, Tq2_0, "2.06 bits, for ternary models") },
    Recipe {
        rules: &[EIGHT, EIGHT_OUT, &[
            rule(V, &[Gqa4], Q4K), rule(V, &[], Q3K), rule(DOWN, &[], Q3K), rule(OUT, &[], Q3K),
        ]],
        ..plain("Q2_K", 10, Q2K, "about 3 bits")
    },
    Recipe {
        rules: &[EIGHT, &[rule(V, &[Gqa4], Q4K), rule(DOWN, &[Early(8)], Q4K)]],
        ..plain("Q2_K_S", 21, Q2K, "2.6 bits; needs importance")
    },
    Recipe {
        output: Q5K,
        embedding: Iq3S,
        rules: &[EIGHT, EIGHT_OUT, &[
            rule(V, &[Gqa4], Q4K), rule(V, &[Unweighed], Iq3S),
            rule(K, &[], Iq2S), rule(Q, &[], Iq2S),
            rule(DOWN, &[Unweighed, Early(8)], Q4K), rule(DOWN, &[Unweighed], Q3K),
            rule(OUT, &[], Iq3S),
        ]],
        ..plain("IQ3_XXS", 23, Iq3Xxs, "3.06 bits")
    },
    Recipe { rules: &[EIGHT, EIGHT_OUT, &[rule(V, &[Gqa4], Q4K)]], ..plain("IQ3_S", 26, Iq3S, "3.44 bits") },
    Recipe {
        rules: &[EIGHT, EIGHT_OUT, &[
            rule(V, &[], Q4K),
            rule(DOWN, &[Early(8)], Q4K), rule(DOWN, &[Experts8, MoreBits], Q4K),
            rule(OUT, &[], Q4K),
        ]],
        ..plain("IQ3_M", 27, Iq3S, "3.66 bits")
    },
    Recipe {
        rules: &[EIGHT, EIGHT_OUT, &[
            rule(V, &[Gqa4], Q4K), rule(K, &[], Iq3Xxs), rule(Q, &[], Iq3Xxs), rule(GATE_UP, &[Middle], Iq3Xxs),
        ]],
        ..plain("IQ3_XS", 22, Iq3S, "3.3 bits")
    },
    Recipe { rules: &[EIGHT, EIGHT_OUT], ..plain("Q3_K_S", 11, Q3K, "3.44 bits") },
    Recipe {
        aliases: &["Q3_K"],
        rules: &[EIGHT, EIGHT_OUT, &[
            rule(V, &[First(2)], Q5K), rule(V, &[], Q4K),
            rule(DOWN, &[Early(16)], Q5K), rule(DOWN, &[], Q4K),
            rule(OUT, &[], Q4K),
        ]],
        ..plain("Q3_K_M", 12, Q3K, "about 3.9 bits")
    },
    Recipe {
        rules: &[EIGHT, &[rule(V, &[], Q5K), rule(DOWN, &[], Q5K), rule(OUT, &[NotExperts8], Q5K)]],
        ..plain("Q3_K_L", 13, Q3K, "about 4.3 bits")
    },
    Recipe {
        rules: &[EIGHT, EIGHT_OUT, &[rule(V, &[Gqa4], Q5K), rule(DOWN, &[Unweighed, Early(8)], Q5K)]],
        ..plain("IQ4_NL", 25, Iq4Nl, "4.5 bits, uneven levels")
    },
    Recipe {
        rules: &[EIGHT, EIGHT_OUT, &[rule(V, &[Gqa4], Q5K), rule(DOWN, &[Unweighed, Early(8)], Q5K)]],
        ..plain("IQ4_XS", 30, Iq4Xs, "4.25 bits, uneven levels")
    },
    Recipe {
        rules: &[EIGHT, EIGHT_OUT, &[rule(V, &[First(4)], Q5K), rule(DOWN, &[Early(8)], Q5K)]],
        ..plain("Q4_K_S", 14, Q4K, "4.5 bits and a bit for the first layers")
    },
    Recipe {
        aliases: &["Q4_K"],
        rules: &[EIGHT, EIGHT_OUT, &[rule(V, &[MoreBits], Q6K), rule(DOWN, &[MoreBits], Q6K)]],
        ..plain("Q4_K_M", 15, Q4K, "about 4.8 bits")
    },
    plain("Q5_K_S", 16, Q5K, "5.5 bits"),
    Recipe {
        aliases: &["Q5_K"],
        rules: &[EIGHT, &[rule(V, &[MoreBits], Q6K), rule(DOWN, &[MoreBits], Q6K)]],
        ..plain("Q5_K_M", 17, Q5K, "about 5.7 bits")
    },
    plain("Q6_K", 18, Q6K, "6.56 bits"),
    Recipe { output: Q8_0, ..plain("Q8_0", 7, Q8_0, "8.5 bits") },
    numbers("F16", 1, F16, "16-bit floats"),
    numbers("BF16", 32, BF16, "the upper halves of 32-bit floats"),
    numbers("F32", 0, F32, "32-bit floats"),
    // What is published for the 9B model, encoding by encoding, and with ends that bring it to the published size
    // (docs/quantize.md has the arithmetic). What it does not name stays with the base.
    Recipe {
        output: Q8_0,
        embedding: Q8_0,
        rules: &[QWEN35],
        ..plain("QWEN35_9B", 30, Iq4Xs, "IQ4_XS, Q6_K/Q5_K where the state is read and written, Q8_0 ends: 5.35 bits of 9B")
    },
    Recipe {
        output: Q5K,
        embedding: Q5K,
        rules: &[QWEN35],
        ..plain("QWEN35_9B_S", 30, Iq4Xs, "the same with Q5_K ends: 4.67 bits of 9B")
    },
];

const QWEN35: &[Rule] = &[
    rule(&[SsmOut], &[], Q6K),
    rule(&[SsmBeta], &[], Q5K),
    rule(&[AttnV], &[], Q5K),
    rule(OUT, &[], Q5K),
    rule(FFN, &[], Iq4Xs),
];

/// The recipe of this name, in any case, or of this `general.file_type`. The error is the nearest name there is.
pub fn find(name: &str) -> Result<&'static Recipe, &'static str> {
    let names = |recipe: &'static Recipe| std::iter::once(recipe.name).chain(recipe.aliases.iter().copied());
    let number = name.parse().ok();
    let named = |recipe: &&Recipe| {
        number == Some(recipe.file_type) || names_of(recipe).any(|own| own.eq_ignore_ascii_case(name))
    };
    if let Some(recipe) = RECIPES.iter().find(named) {
        return Ok(recipe);
    }
    let wanted = name.to_ascii_uppercase();
    let distance = |own: &&str| strsim::damerau_levenshtein(own, &wanted);
    Err(RECIPES.iter().flat_map(names).min_by_key(distance).unwrap_or("Q4_K_M"))
}

fn names_of<'r>(recipe: &'r Recipe) -> impl Iterator<Item = &'static str> + 'r {
    std::iter::once(recipe.name).chain(recipe.aliases.iter().copied())
}

#[cfg(test)]
mod tests {
    use format::Shape;
    use model::Dialect;

    use super::*;
    use crate::Mock;
    use crate::quantize::choose::{Described, Facts, Scheme, Wishes, choose};
    use crate::quantize::plan::Plan;
    use crate::target::{Experts, targets};

    /// Of a preset, which need not be written for that.
    fn plan(preset: &str, recipe: &str) -> Plan {
        let mock = Mock::preset(preset).unwrap();
        let config = mock.config();
        let describe = |target: crate::target::Target| Described {
            encoding: crate::gguf::encoding(&target, BF16),
            original: target.name.clone(),
            shape: Shape::new(target.shape.dims().iter().copied().skip_while(|&dim| dim == 1).collect()),
            name: target.name,
        };
        let tensors = targets(config, Dialect::Gguf, Experts::Packed).into_iter().map(describe);
        let facts = Facts {
            gqa: (config.num_attention_heads / config.num_key_value_heads) as u64,
            experts: 0,
            layers: config.num_hidden_layers as u64,
        };
        let scheme = Scheme::Recipe(find(recipe).unwrap());
        choose(&tensors.collect::<Vec<_>>(), facts, scheme, &Wishes::default(), None).unwrap()
    }

    /// The figures of docs/quantize.md.
    #[test]
    fn the_9b_recipes_come_to_what_is_written_down() {
        let spelled = plan("9b", "QWEN35_9B");
        assert_eq!(spelled.elements(), 8_953_803_264);
        assert_eq!(format!("{:.3}", spelled.bits_per_weight()), "5.347");
        let to = |name: &str| spelled.tensors.iter().find(|t| t.name == name).unwrap().to;
        for (name, encoding) in [
            ("token_embd.weight", Q8_0),
            ("output.weight", Q8_0),
            ("blk.0.ssm_out.weight", Q6K),
            ("blk.0.ssm_beta.weight", Q5K),
            ("blk.3.attn_v.weight", Q5K),
            ("blk.3.attn_output.weight", Q5K),
            ("blk.31.ffn_down.weight", Iq4Xs),
            ("blk.0.attn_qkv.weight", Iq4Xs),
        ] {
            assert_eq!(to(name), encoding, "{name}");
        }
        let blocks = Plan {
            tensors: spelled.tensors.iter().filter(|t| t.name.starts_with("blk.")).cloned().collect(),
            recipe: spelled.recipe,
            file_type: spelled.file_type,
        };
        assert_eq!(format!("{:.3}", blocks.bits_per_weight()), "4.420");
        assert_eq!(format!("{:.3}", plan("9b", "QWEN35_9B_S").bits_per_weight()), "4.665");
    }
}
