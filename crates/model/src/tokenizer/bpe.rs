//! Byte-level BPE: the characters of a piece of text merge into tokens, the pair of the best rank first.
//!
//! It stands in for the library's own model of the same rule, which keeps every token and merge in strings of their own
//! and takes a quarter of a second for 248,320 of them. Here all texts lie in one string, and the tables hold numbers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use hashbrown::HashTable;
use rayon::prelude::*;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::{Model, Token};

use super::TokenizerError;

/// What a vocabulary says, before it is checked. The places are for errors.
pub(super) struct Listed<'a> {
    pub(super) place: &'a str,
    pub(super) merges_place: &'a str,
    /// Every token that text can become, and its id.
    pub(super) tokens: Vec<(&'a str, u32)>,
    /// Pairs of tokens, the best rank first.
    pub(super) merges: Vec<(&'a str, &'a str)>,
    /// Whether a piece of text that is a token is taken whole, however its merges run.
    pub(super) ignore_merges: bool,
}

/// The model. Tokens go by their place in the order of ids, so that nothing depends on how large or sparse ids are.
pub(super) struct Bpe {
    tokens: Tokens,
    /// By rank.
    merges: Vec<Merge>,
    /// Ranks, by the pair.
    by_pair: HashTable<u32>,
    ignore_merges: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Merge {
    left: u32,
    right: u32,
    whole: u32,
}

/// A character that no token stands for.
#[derive(Debug, thiserror::Error)]
#[error("no token stands for {0:?}")]
pub(super) struct Missing(pub(super) char);

impl Bpe {
    /// Checks as it goes: each text and each id once, each pair once, of tokens that are there and make one.
    pub(super) fn new(listed: Listed<'_>) -> Result<Bpe, TokenizerError> {
        let Listed { place, merges_place, tokens, merges, ignore_merges } = listed;
        let too_many = |place: &str, found| TokenizerError::TooManyTokens { place: place.to_owned(), found };
        if u32::try_from(merges.len()).is_err() {
            return Err(too_many(merges_place, merges.len()));
        }
        let tokens = Tokens::new(place, tokens)?;
        let find = |whole: &mut String, &(left, right): &(&str, &str)| {
            whole.clear();
            whole.push_str(left);
            whole.push_str(right);
            Some(Merge { left: tokens.find(left)?, right: tokens.find(right)?, whole: tokens.find(whole)? })
        };
        // Three look-ups in a table that no cache holds, for each of a quarter of a million.
        let found: Vec<Option<Merge>> = merges.par_iter().map_init(String::new, find).collect();
        let mut bpe = Bpe {
            merges: Vec::with_capacity(merges.len()),
            by_pair: HashTable::with_capacity(merges.len()),
            tokens,
            ignore_merges,
        };
        for (rank, (merge, &(left, right))) in found.into_iter().zip(&merges).enumerate() {
            let place = || merges_place.to_owned();
            let owned = || (left.to_owned(), right.to_owned());
            let Some(merge) = merge else {
                let missing = [left, right].into_iter().find(|text| bpe.tokens.find(text).is_none());
                let missing = missing.map_or_else(|| format!("{left}{right}"), str::to_owned);
                let (left, right) = owned();
                return Err(TokenizerError::MergeUnknown { place: place(), rank, left, right, missing });
            };
            if !bpe.push(merge) {
                let (left, right) = owned();
                return Err(TokenizerError::MergeTwice { place: place(), rank, left, right });
            }
        }
        Ok(bpe)
    }

    /// Appends a merge, unless its pair has one.
    fn push(&mut self, merge: Merge) -> bool {
        let Bpe { merges, by_pair, tokens, .. } = self;
        let hash = |merge: &Merge| tokens.hasher.hash_one((merge.left, merge.right));
        let same = |&rank: &u32| {
            let other = &merges[rank as usize];
            (other.left, other.right) == (merge.left, merge.right)
        };
        if by_pair.find(hash(&merge), same).is_some() {
            return false;
        }
        by_pair.insert_unique(hash(&merge), merges.len() as u32, |&rank| hash(&merges[rank as usize]));
        merges.push(merge);
        true
    }

    /// One more than the highest id.
    pub(super) fn vocab_size(&self) -> usize {
        self.tokens.ids.last().map_or(0, |&id| id as usize + 1)
    }

    fn rank(&self, left: u32, right: u32) -> Option<u32> {
        let same = |&rank: &u32| {
            let merge = &self.merges[rank as usize];
            (merge.left, merge.right) == (left, right)
        };
        self.by_pair.find(self.tokens.hasher.hash_one((left, right)), same).copied()
    }

    /// The tokens of a piece of text, and where each begins.
    fn merge(&self, piece: &str) -> Result<Vec<(u32, usize)>, Missing> {
        if self.ignore_merges
            && let Some(token) = self.tokens.find(piece)
        {
            return Ok(vec![(token, 0)]);
        }
        let mut symbols = Vec::with_capacity(piece.len());
        for (start, c) in piece.char_indices() {
            let token = self.tokens.find(c.encode_utf8(&mut [0; 4])).ok_or(Missing(c))?;
            let at = symbols.len();
            symbols.push(Symbol { token, start, previous: at.wrapping_sub(1), next: at + 1, merged: false });
        }
        let mut waiting = BinaryHeap::new();
        for at in 1..symbols.len() {
            let rank = self.rank(symbols[at - 1].token, symbols[at].token);
            waiting.extend(rank.map(|rank| Reverse((rank, at - 1))));
        }
        // The best rank first, of equal ones the leftmost. What has changed since a pair was noted makes the note stale.
        while let Some(Reverse((rank, at))) = waiting.pop() {
            let (Merge { left, right, whole }, next) = (self.merges[rank as usize], symbols[at].next);
            let stands = !symbols[at].merged && symbols[at].token == left;
            if !stands || symbols.get(next).is_none_or(|symbol| symbol.token != right) {
                continue;
            }
            symbols[next].merged = true;
            symbols[at].token = whole;
            symbols[at].next = symbols[next].next;
            let (previous, next) = (symbols[at].previous, symbols[at].next);
            if let Some(after) = symbols.get_mut(next) {
                after.previous = at;
                let rank = self.rank(whole, after.token);
                waiting.extend(rank.map(|rank| Reverse((rank, at))));
            }
            if let Some(before) = symbols.get(previous) {
                let rank = self.rank(before.token, whole);
                waiting.extend(rank.map(|rank| Reverse((rank, previous))));
            }
        }
        Ok(symbols.into_iter().filter(|s| !s.merged).map(|s| (s.token, s.start)).collect())
    }
}

/// A token within a piece of text, between its neighbours; at the ends those are out of range.
struct Symbol {
    token: u32,
    start: usize,
    previous: usize,
    next: usize,
    /// It is part of the one before.
    merged: bool,
}

/// Texts and ids, in the order of ids.
struct Tokens {
    text: String,
    /// Where each token's text ends in that of all.
    ends: Vec<usize>,
    ids: Vec<u32>,
    by_text: HashTable<u32>,
    /// Keyed at random, so that no file can choose texts that collide.
    hasher: RandomState,
}

impl Tokens {
    fn new(place: &str, mut listed: Vec<(&str, u32)>) -> Result<Tokens, TokenizerError> {
        let place = || place.to_owned();
        if u32::try_from(listed.len()).is_err() {
            return Err(TokenizerError::TooManyTokens { place: place(), found: listed.len() });
        }
        listed.sort_by_key(|(_, id)| *id);
        let hasher = RandomState::new();
        let mut tokens = Tokens {
            text: String::with_capacity(listed.iter().map(|(text, _)| text.len()).sum()),
            ends: Vec::with_capacity(listed.len()),
            ids: Vec::with_capacity(listed.len()),
            by_text: HashTable::with_capacity(listed.len()),
            hasher,
        };
        for (index, &(text, id)) in listed.iter().enumerate() {
            if let Some(first) = tokens.find(text) {
                let (token, first) = (text.to_owned(), tokens.ids[first as usize]);
                return Err(TokenizerError::TwoIds { place: place(), token, first, second: id });
            }
            if tokens.ids.last() == Some(&id) {
                return Err(TokenizerError::SharedId { place: place(), id });
            }
            tokens.text.push_str(text);
            tokens.ends.push(tokens.text.len());
            tokens.ids.push(id);
            let hash = |&index: &u32| tokens.hasher.hash_one(listed[index as usize].0);
            tokens.by_text.insert_unique(hash(&(index as u32)), index as u32, hash);
        }
        Ok(tokens)
    }

    fn text(&self, token: u32) -> &str {
        let start = token.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        &self.text[start..self.ends[token as usize]]
    }

    fn find(&self, text: &str) -> Option<u32> {
        self.by_text.find(self.hasher.hash_one(text), |&token| self.text(token) == text).copied()
    }
}

impl Model for Bpe {
    type Trainer = BpeTrainer;

    fn tokenize(&self, piece: &str) -> tokenizers::Result<Vec<Token>> {
        let merged = self.merge(piece)?;
        let ends = merged.iter().skip(1).map(|(_, start)| *start).chain([piece.len()]);
        let token = |(&(token, start), end): (&(u32, usize), usize)| {
            Token::new(self.tokens.ids[token as usize], piece[start..end].to_owned(), (start, end))
        };
        Ok(merged.iter().zip(ends).map(token).collect())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        Some(self.tokens.ids[self.tokens.find(token)? as usize])
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        let token = self.tokens.ids.binary_search(&id).ok()?;
        Some(self.tokens.text(token as u32).to_owned())
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        let tokens = self.tokens.ids.iter().enumerate();
        tokens.map(|(token, &id)| (self.tokens.text(token as u32).to_owned(), id)).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.tokens.ids.len()
    }

    fn save(&self, _: &Path, _: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("a tokenizer is read here, and written by whoever has its files".into())
    }

    fn get_trainer(&self) -> BpeTrainer {
        BpeTrainer::default()
    }
}

impl std::fmt::Debug for Bpe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bpe of {} tokens and {} merges", self.tokens.ids.len(), self.merges.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::models::bpe::{self, BPE};

    use super::*;

    fn listed<'a>(tokens: &[(&'a str, u32)], merges: &[(&'a str, &'a str)]) -> Listed<'a> {
        let (tokens, merges) = (tokens.to_vec(), merges.to_vec());
        Listed { place: "tokens", merges_place: "merges", tokens, merges, ignore_merges: false }
    }

    /// A vocabulary whose merges make each other: `picks` choose pairs of tokens that are there already.
    fn grown(picks: &[(usize, usize)]) -> (Vec<String>, Vec<(String, String)>) {
        let mut tokens: Vec<String> = ["a", "b", "c", "Ġ"].map(String::from).into();
        let mut merges: Vec<(String, String)> = Vec::new();
        for (left, right) in picks {
            let pair = (tokens[left % tokens.len()].clone(), tokens[right % tokens.len()].clone());
            let whole = pair.0.clone() + &pair.1;
            if !merges.contains(&pair) && whole.len() < 24 {
                if !tokens.contains(&whole) {
                    tokens.push(whole);
                }
                merges.push(pair);
            }
        }
        (tokens, merges)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Ids, texts and places of the library's own model, whatever the merges and the order of ids.
        #[test]
        fn merges_as_the_library_does(
            picks in prop::collection::vec((0usize..40, 0usize..40), 0..30),
            shift in 0u32..5,
            ignore_merges in any::<bool>(),
            text in "[abcĠ]{0,30}|(ab){0,20}|a{0,40}|[abĠx]{0,8}",
        ) {
            let (tokens, merges) = grown(&picks);
            let id = |i: usize| 7 * ((i as u32 + shift) % tokens.len() as u32);
            let vocab = tokens.iter().enumerate().map(|(i, token)| (token.clone(), id(i)));
            let theirs = BPE::builder()
                .vocab_and_merges(vocab.collect::<bpe::Vocab>(), merges.clone())
                .unk_token("none".to_owned())
                .ignore_merges(ignore_merges)
                .build()
                .unwrap();
            let tokens: Vec<_> = tokens.iter().enumerate().map(|(i, token)| (token.as_str(), id(i))).collect();
            let merges: Vec<_> = merges.iter().map(|(l, r)| (l.as_str(), r.as_str())).collect();
            let ours = Bpe::new(Listed { ignore_merges, ..listed(&tokens, &merges) }).unwrap();
            match (ours.tokenize(&text), theirs.tokenize(&text)) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                (ours, theirs) => prop_assert!(ours.is_err() && theirs.is_err() && text.contains('x')),
            }
            for &(text, id) in &tokens {
                prop_assert_eq!((ours.token_to_id(text), ours.id_to_token(id)), (Some(id), Some(text.to_owned())));
            }
            prop_assert_eq!(ours.get_vocab(), Model::get_vocab(&theirs));
        }
    }

    #[test]
    fn what_is_listed_twice_is_refused() {
        let said = |tokens: &[(&'static str, u32)], merges: &[(&'static str, &'static str)]| {
            Bpe::new(listed(tokens, merges)).unwrap_err().to_string()
        };
        assert!(said(&[("b", 9), ("a", 3), ("b", 5)], &[]).contains("\"b\" has two ids, 5 and 9"));
        assert!(said(&[("b", 9), ("a", 9)], &[]).contains("id 9 belongs to more than one"));
        let tokens = [("a", 0), ("aa", 1)];
        assert!(said(&tokens, &[("a", "a"), ("a", "a")]).contains("merge 1"));
        assert!(said(&tokens, &[("a", "a"), ("a", "aa")]).contains("needs token \"aaa\""));
        assert!(said(&tokens, &[("a", "b")]).contains("needs token \"b\""));
    }

    #[test]
    fn no_token_and_no_text_are_fine() {
        let bpe = Bpe::new(listed(&[], &[])).unwrap();
        assert_eq!(bpe.vocab_size(), 0);
        assert_eq!(bpe.tokenize("").unwrap(), []);
        assert!(bpe.tokenize("a").unwrap_err().to_string().contains("'a'"));
        assert_eq!(bpe.id_to_token(0), None);
    }
}
