//! From names to positions, without a second copy of the names.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Positions in a list that somebody else holds, found by name.
///
/// Keeps eight bytes an entry; the hash is keyed at random, so that a hostile file cannot choose its collisions.
#[derive(Default)]
pub(crate) struct NameIndex {
    positions: HashTable<usize>,
    hash: RandomState,
}

/// Room that is made at once for names that a file declares and has bytes for; beyond, it is made as they are found.
const RESERVED: u64 = 1 << 20;

/// How many of the declared entries to make room for before the first is read. Growing step by step leaves as much
/// again in pieces that were outgrown.
pub(crate) fn room(declared: u64) -> usize {
    declared.min(RESERVED) as usize
}

impl NameIndex {
    /// For so many names without growing.
    pub(crate) fn with_capacity(n: usize) -> NameIndex {
        NameIndex { positions: HashTable::with_capacity(n), hash: RandomState::default() }
    }

    /// Adds `position` under `name`; if the name is taken, changes nothing and returns where.
    pub(crate) fn insert<'n>(
        &mut self,
        name: &[u8],
        position: usize,
        name_at: impl Fn(usize) -> &'n [u8],
    ) -> Result<(), usize> {
        let hash = self.hash.hash_one(name);
        let same = |&i: &usize| name_at(i) == name;
        match self.positions.entry(hash, same, |&i| self.hash.hash_one(name_at(i))) {
            Entry::Occupied(earlier) => Err(*earlier.get()),
            Entry::Vacant(free) => {
                free.insert(position);
                Ok(())
            }
        }
    }

    /// The position that was added under `name`.
    pub(crate) fn find<'n>(&self, name: &[u8], name_at: impl Fn(usize) -> &'n [u8]) -> Option<usize> {
        self.positions.find(self.hash.hash_one(name), |&i| name_at(i) == name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_added_and_refuses_it_twice() {
        let names: Vec<String> = (0..1000).map(|i| format!("name {i}")).collect();
        let at = |i: usize| names[i].as_bytes();
        let mut index = NameIndex::default();
        for (i, name) in names.iter().enumerate() {
            assert_eq!(index.insert(name.as_bytes(), i, at), Ok(()));
        }
        for (i, name) in names.iter().enumerate() {
            assert_eq!(index.find(name.as_bytes(), at), Some(i));
            assert_eq!(index.insert(name.as_bytes(), 7, at), Err(i));
        }
        assert_eq!(index.find(b"name 1000", at), None);
    }
}
