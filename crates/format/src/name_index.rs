//! From names to positions, without a second copy of the names.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Positions in a list that somebody else holds, found by name.
///
/// Keeps four bytes an entry; the hash is keyed at random, so that a hostile file cannot choose its collisions.
#[derive(Default)]
pub(crate) struct NameIndex {
    positions: HashTable<u32>,
    hash: RandomState,
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
        let Ok(position) = u32::try_from(position) else {
            unreachable!("a list in memory has fewer names than 32 bits count")
        };
        let hash = self.hash.hash_one(name);
        let same = |&i: &u32| name_at(i as usize) == name;
        match self.positions.entry(hash, same, |&i| self.hash.hash_one(name_at(i as usize))) {
            Entry::Occupied(earlier) => Err(*earlier.get() as usize),
            Entry::Vacant(free) => {
                free.insert(position);
                Ok(())
            }
        }
    }

    /// The position that was added under `name`.
    pub(crate) fn find<'n>(&self, name: &[u8], name_at: impl Fn(usize) -> &'n [u8]) -> Option<usize> {
        let same = |&i: &u32| name_at(i as usize) == name;
        self.positions.find(self.hash.hash_one(name), same).map(|&i| i as usize)
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
