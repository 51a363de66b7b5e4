//! Tokens, merges and added tokens, checked, as they become a tokenizer.

use super::bpe::{Bpe, Listed};
use super::{Inner, Tokenizer, TokenizerError, gguf};
use tokenizers::models::bpe::Vocab;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper, TokenizerBuilder};

/// The name of the splitting rule of Qwen3.5.
pub(super) const QWEN35: &str = "qwen35";

/// How text is split before merging, by the name that GGUF's `tokenizer.ggml.pre` gives it. Qwen3.5 keeps
/// combining marks (`\p{M}`) with their letters, Qwen2 did not.
const PRE: [(&str, &str); 2] = [
    (
        "qwen2",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        QWEN35,
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

/// The name of a splitting regex.
pub(super) fn name_of(regex: &str) -> Option<&'static str> {
    PRE.iter().find(|(_, known)| *known == regex).map(|(name, _)| *name)
}

/// Names of the known ones, for errors.
pub(super) fn names() -> String {
    PRE.map(|(name, _)| name).join(", ")
}

/// The regex of the rule that GGUF's `tokenizer.ggml.pre` names.
pub fn splitting_regex(pre: &str) -> Option<&'static str> {
    PRE.iter().find(|(name, _)| *name == pre).map(|(_, regex)| *regex)
}

/// The longest added token, in bytes. All are searched in every text by one automaton, whose construction takes time
/// quadratic in the length of a token (16 KiB: 5 s) and up to 2 KiB of memory per byte for few tokens. Real ones have
/// some 30 bytes.
const MAX_ADDED_LEN: usize = 256;

/// All added tokens together, in bytes: with many tokens the automaton takes up to 128 bytes for each. Vocabularies
/// with a token per audio code come near 1 MiB.
const MAX_ADDED_BYTES: usize = 2 << 20;

/// What comes before merging: two steps that a `tokenizer.json` may spell in its own way.
pub(super) struct Pipeline {
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: PreTokenizerWrapper,
}

impl Pipeline {
    /// The family's own: the splitting rule named `pre`, bytes as characters; `nfc` puts that normal form before it.
    pub(super) fn of_qwen(pre: &str, nfc: bool) -> Result<Pipeline, TokenizerError> {
        let Some(regex) = splitting_regex(pre) else {
            return Err(TokenizerError::Unknown { key: gguf::PRE, found: pre.to_owned(), known: names() });
        };
        let pattern = SplitPattern::Regex(regex.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            .map_err(|source| TokenizerError::Library { place: gguf::PRE.to_owned(), source })?;
        let bytes = ByteLevel::new(false, false, false);
        Ok(Pipeline {
            normalizer: nfc.then(|| NFC.into()),
            pre_tokenizer: Sequence::new(vec![split.into(), bytes.into()]).into(),
        })
    }
}

/// A byte-level BPE vocabulary. `place` and `merges_place` say where it was read, for errors.
pub(super) struct Vocabulary {
    pub(super) place: String,
    pub(super) merges_place: String,
    /// Every token that text can become, the added ones included, and its id.
    pub(super) tokens: Vocab,
    /// Pairs of tokens, the best rank first.
    pub(super) merges: Vec<(String, String)>,
    /// Tokens found in the text before it is split; all of them are in `tokens`.
    pub(super) added: Vec<AddedToken>,
    /// Whether a piece of text that is a token is taken whole, however its merges run.
    pub(super) ignore_merges: bool,
}

impl Vocabulary {
    /// Gives `token` the id `id`, unless it has another one already.
    pub(super) fn insert(&mut self, token: String, id: u32) -> Result<(), TokenizerError> {
        match self.tokens.get(&token) {
            Some(&first) if first != id => {
                Err(TokenizerError::TwoIds { place: self.place.clone(), token, first, second: id })
            }
            Some(_) => Ok(()),
            None => {
                self.tokens.insert(token, id);
                Ok(())
            }
        }
    }

    pub(super) fn build(self, pipeline: Pipeline) -> Result<Tokenizer, TokenizerError> {
        let bpe = self.check()?;
        assemble(bpe, &self.added, pipeline, &self.place)
    }

    /// Ids, merges and added tokens.
    pub(super) fn check(&self) -> Result<Bpe, TokenizerError> {
        check_added(&self.added, &self.place)?;
        Bpe::new(Listed {
            place: &self.place,
            merges_place: &self.merges_place,
            tokens: self.tokens.iter().map(|(token, id)| (token.as_str(), *id)).collect(),
            merges: self.merges.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect(),
            ignore_merges: self.ignore_merges,
        })
    }
}

/// A tokenizer of a model, of tokens that are found before it, and of what comes between.
pub(super) fn assemble(
    bpe: Bpe,
    added: &[AddedToken],
    pipeline: Pipeline,
    place: &str,
) -> Result<Tokenizer, TokenizerError> {
    let vocab_size = bpe.vocab_size();
    let mut inner: Inner = TokenizerBuilder::new()
        .with_model(bpe)
        .with_normalizer(pipeline.normalizer)
        .with_pre_tokenizer(Some(pipeline.pre_tokenizer))
        .build()
        .map_err(|source| TokenizerError::Library { place: place.to_owned(), source })?;
    inner.add_tokens(added);
    Ok(Tokenizer { inner, vocab_size })
}

/// Added tokens that can be searched in every text.
pub(super) fn check_added(added: &[AddedToken], place: &str) -> Result<(), TokenizerError> {
    let place = || place.to_owned();
    if let Some(token) = added.iter().find(|token| token.content.len() > MAX_ADDED_LEN) {
        let found = token.content.len();
        return Err(TokenizerError::AddedTooLong { place: place(), found, limit: MAX_ADDED_LEN });
    }
    let found = added.iter().map(|token| token.content.len()).sum();
    if found > MAX_ADDED_BYTES {
        return Err(TokenizerError::TooMuchAdded { place: place(), found, limit: MAX_ADDED_BYTES });
    }
    Ok(())
}

/// The two tokens of a merge written `left right`.
pub(super) fn split_merge<'a>(
    merge: &'a str,
    rank: usize,
    place: &str,
) -> Result<(&'a str, &'a str), TokenizerError> {
    match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok((left, right))
        }
        _ => Err(TokenizerError::MergeForm { place: place.to_owned(), rank, merge: merge.to_owned() }),
    }
}
