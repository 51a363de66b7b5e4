//! Tokens, merges and added tokens, checked, as they become a tokenizer.

use super::{Inner, Tokenizer, TokenizerError, gguf};
use std::collections::HashSet;
use tokenizers::models::bpe::{BPE, Vocab};
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

/// Named as the unknown token, and in no vocabulary, so that a byte without a token is an error of the library:
/// without any unknown token it drops such bytes silently.
const NO_TOKEN: &str = "\0no token";

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
        let vocab_size = self.check()?;
        let bpe = BPE::builder()
            .vocab_and_merges(self.tokens, self.merges)
            .unk_token(NO_TOKEN.to_owned())
            .ignore_merges(self.ignore_merges)
            .build()
            .map_err(|source| TokenizerError::Library { place: self.merges_place, source })?;
        let mut inner: Inner = TokenizerBuilder::new()
            .with_model(bpe)
            .with_normalizer(pipeline.normalizer)
            .with_pre_tokenizer(Some(pipeline.pre_tokenizer))
            .build()
            .map_err(|source| TokenizerError::Library { place: self.place, source })?;
        inner.add_tokens(&self.added);
        Ok(Tokenizer { inner, vocab_size })
    }

    /// Ids, merges and added tokens. Returns one more than the highest id.
    pub(super) fn check(&self) -> Result<usize, TokenizerError> {
        let vocab_size = self.check_ids()?;
        self.check_merges()?;
        self.check_added()?;
        Ok(vocab_size)
    }

    /// One more than the highest id; each id must be there once.
    fn check_ids(&self) -> Result<usize, TokenizerError> {
        let mut ids: Vec<u32> = self.tokens.values().copied().collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(TokenizerError::SharedId { place: self.place.clone(), id: pair[0] }),
            None => Ok(ids.last().map_or(0, |&id| id as usize + 1)),
        }
    }

    /// Each pair must be listed once, and both tokens and what they make must be there.
    fn check_merges(&self) -> Result<(), TokenizerError> {
        let mut seen = HashSet::with_capacity(self.merges.len());
        let mut whole = String::new();
        for (rank, (left, right)) in self.merges.iter().enumerate() {
            whole.clear();
            whole.push_str(left);
            whole.push_str(right);
            let [left_id, right_id, whole_id] = [left, right, &whole].map(|token| self.tokens.get(token));
            let (Some(left_id), Some(right_id), Some(_)) = (left_id, right_id, whole_id) else {
                let missing = match (left_id, right_id) {
                    (None, _) => left.clone(),
                    (_, None) => right.clone(),
                    _ => whole,
                };
                return Err(TokenizerError::MergeUnknown {
                    place: self.merges_place.clone(),
                    rank,
                    left: left.clone(),
                    right: right.clone(),
                    missing,
                });
            };
            if !seen.insert((left_id, right_id)) {
                return Err(TokenizerError::MergeTwice {
                    place: self.merges_place.clone(),
                    rank,
                    left: left.clone(),
                    right: right.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_added(&self) -> Result<(), TokenizerError> {
        let place = || self.place.clone();
        if let Some(token) = self.added.iter().find(|token| token.content.len() > MAX_ADDED_LEN) {
            let found = token.content.len();
            return Err(TokenizerError::AddedTooLong { place: place(), found, limit: MAX_ADDED_LEN });
        }
        let found = self.added.iter().map(|token| token.content.len()).sum();
        if found > MAX_ADDED_BYTES {
            return Err(TokenizerError::TooMuchAdded { place: place(), found, limit: MAX_ADDED_BYTES });
        }
        Ok(())
    }
}

/// The two tokens of a merge written `left right`.
pub(super) fn split_merge(merge: &str, rank: usize, place: &str) -> Result<(String, String), TokenizerError> {
    match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err(TokenizerError::MergeForm { place: place.to_owned(), rank, merge: merge.to_owned() }),
    }
}
