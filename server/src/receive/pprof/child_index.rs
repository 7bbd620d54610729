//! Finds the stack of a call: the child of a stack's node by the number of its location.
//!
//! Nearly all nodes have a few children, which are a list; a hash table has those beyond, so that nobody can make a search long. In a tree
//! of 0.7 million nodes that takes a fifth of the time of one hash table for all: the nodes of a list lie near each other, and each step
//! into the table is a cache miss. A node that is new has no children, so that those below it are added without a search.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Children in a node's list. Comparing more of them takes longer than looking one up.
const LISTED_MAX: usize = 16;

/// Ends a list: the root is nobody's child.
const NONE: u32 = 0;

#[derive(Clone, Copy)]
struct Entry {
    parent: u32,
    key: u32,
    first_child: u32,
    next_sibling: u32,
}

/// The nodes of a tree by parent and location. The hashes are seeded at random.
pub(super) struct ChildIndex {
    entries: Vec<Entry>,
    unlisted: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Default for ChildIndex {
    /// Has the root.
    fn default() -> Self {
        let root = Entry {
            parent: NONE,
            key: 0,
            first_child: NONE,
            next_sibling: NONE,
        };
        Self {
            entries: vec![root],
            unlisted: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl ChildIndex {
    /// Makes room for more nodes.
    pub(super) fn reserve(&mut self, more: usize) {
        self.entries.reserve_exact(more);
    }

    /// The child of a node with a key. If there was none, it is the next node.
    #[inline]
    pub(super) fn find_or_add(&mut self, parent: u32, key: u32) -> u32 {
        let mut child = self.entries[parent as usize].first_child;
        for _ in 0..LISTED_MAX {
            if child == NONE {
                return self.list(parent, key);
            }
            let entry = &self.entries[child as usize];
            if entry.key == key {
                return child;
            }
            child = entry.next_sibling;
        }
        self.find_unlisted(parent, key)
    }

    /// Adds a child in front of its siblings: the last one is likely to be needed again.
    fn list(&mut self, parent: u32, key: u32) -> u32 {
        let number = self.entries.len() as u32;
        let first_child = &mut self.entries[parent as usize].first_child;
        let next_sibling = std::mem::replace(first_child, number);
        self.push(parent, key, next_sibling)
    }

    fn find_unlisted(&mut self, parent: u32, key: u32) -> u32 {
        let hash = self.hasher.hash_one((parent, key));
        let is_same = |number: &u32| {
            let entry = &self.entries[*number as usize];
            entry.parent == parent && entry.key == key
        };
        if let Some(found) = self.unlisted.find(hash, is_same) {
            return *found;
        }
        let number = self.push(parent, key, NONE);
        let Self {
            entries,
            unlisted,
            hasher,
        } = self;
        unlisted.insert_unique(hash, number, |number| {
            let entry = &entries[*number as usize];
            hasher.hash_one((entry.parent, entry.key))
        });
        number
    }

    fn push(&mut self, parent: u32, key: u32, next_sibling: u32) -> u32 {
        self.entries.push(Entry {
            parent,
            key,
            first_child: NONE,
            next_sibling,
        });
        self.entries.len() as u32 - 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Check that children are those of a map, whether a node has few or many.
    #[test]
    fn children_are_found_again() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut index = ChildIndex::default();
        let mut expected: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for _ in 0..20_000 {
            let nodes = expected.len() as u32 + 1;
            // The first nodes have up to 100 children.
            let parent = random.u32(0..nodes.min(200));
            let key = random.u32(0..if parent < 20 { 100 } else { 3 });
            let number = *expected.entry((parent, key)).or_insert(nodes);
            assert_eq!(index.find_or_add(parent, key), number);
        }
        assert!(!index.unlisted.is_empty());
    }
}
