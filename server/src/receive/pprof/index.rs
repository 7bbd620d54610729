//! The stacks and tag sets of a profile, found by their values.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use model::tables::{StackId, TagSetId};
use model::{StackNode, Tables, Tag};

/// Callees of a stack that are searched one by one: most stacks have one or two. Others are in a table, so that a sender cannot make
/// a search long.
const LISTED_MAX: usize = 16;

/// Positions of stacks and tag sets in tables. The hashes are seeded at random.
pub(super) struct Index {
    hasher: DefaultHashBuilder,
    /// The listed callees of each stack. A stack that is new has none, so that those above it are added without a search.
    callees: Vec<Callees>,
    unlisted: HashTable<u32>,
    tag_sets: HashTable<u32>,
}

/// Numbers of stacks; 0, the empty one, is no callee.
#[derive(Clone, Copy, Default)]
struct Callees {
    first: u32,
    /// The next listed callee of the same caller.
    next_sibling: u32,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            callees: vec![Callees::default()],
            unlisted: HashTable::new(),
            tag_sets: HashTable::new(),
        }
    }
}

impl Index {
    /// Makes room for some stacks.
    pub(super) fn reserve_stacks(&mut self, tables: &mut Tables, stacks: usize) {
        tables.stacks.reserve(stacks);
        self.callees.reserve(stacks);
    }

    /// Finds or adds a stack: one more frame on top of a known stack.
    pub(super) fn intern_stack(&mut self, tables: &mut Tables, node: StackNode) -> StackId {
        let (mut listed, mut last) = (0, 0);
        let mut next = self.callees[node.parent.position()].first;
        while next != 0 {
            if tables.stacks[next as usize].location == node.location {
                return StackId(next);
            }
            last = next;
            listed += 1;
            next = self.callees[next as usize].next_sibling;
        }
        if listed == LISTED_MAX {
            return self.intern_unlisted(tables, node);
        }
        let number = self.push(tables, node);
        if last == 0 {
            self.callees[node.parent.position()].first = number;
        } else {
            self.callees[last as usize].next_sibling = number;
        }
        StackId(number)
    }

    fn intern_unlisted(&mut self, tables: &mut Tables, node: StackNode) -> StackId {
        // A number of 64 bits takes one step of the hash.
        let hasher = self.hasher.clone();
        let hash = |node: &StackNode| {
            let StackNode { parent, location } = *node;
            hasher.hash_one(u64::from(parent.0) << 32 | u64::from(location.0))
        };
        let own = hash(&node);
        let is_same = |number: &u32| tables.stacks[*number as usize] == node;
        if let Some(known) = self.unlisted.find(own, is_same) {
            return StackId(*known);
        }
        let number = self.push(tables, node);
        self.unlisted
            .insert_unique(own, number, |number| hash(&tables.stacks[*number as usize]));
        StackId(number)
    }

    fn push(&mut self, tables: &mut Tables, node: StackNode) -> u32 {
        tables.stacks.push(node);
        self.callees.push(Callees::default());
        tables.stacks.len() as u32 - 1
    }

    /// Finds or adds a tag set. The order of tags counts; a sender keeps it the same.
    pub(super) fn intern_tag_set(&mut self, tables: &mut Tables, tags: &[Tag]) -> TagSetId {
        if tags.is_empty() {
            return TagSetId(0);
        }
        let Self {
            hasher, tag_sets, ..
        } = self;
        let hash = hasher.hash_one(tags);
        let is_same = |number: &u32| tables.tag_set(TagSetId(*number)) == tags;
        if let Some(known) = tag_sets.find(hash, is_same) {
            return TagSetId(*known);
        }
        let id = tables.push_tag_set(tags);
        tag_sets.insert_unique(hash, id.0, |number| {
            hasher.hash_one(tables.tag_set(TagSetId(*number)))
        });
        id
    }
}

#[cfg(test)]
mod tests {
    use model::tables::LocationId;

    use super::*;

    /// Check that stacks with few and with many callees are found again, and that each is there once.
    #[test]
    fn stacks_are_found_again() {
        let (mut index, mut tables) = (Index::default(), Tables::default());
        let mut intern = |parent: StackId, location: u32| {
            let location = LocationId(location);
            index.intern_stack(&mut tables, StackNode { parent, location })
        };
        let mut rounds = Vec::new();
        for _ in 0..2 {
            let callers: Vec<StackId> = (0..3)
                .map(|location| intern(StackId(0), location))
                .collect();
            let callees = (0..120).map(|number| intern(callers[number % 3], number as u32));
            rounds.push((callees.collect::<Vec<_>>(), callers.clone()));
        }
        assert_eq!(rounds[0], rounds[1]);
        assert_eq!(tables.stacks.len(), 1 + 3 + 120);
        for (number, stack) in rounds[0].0.iter().enumerate() {
            let StackNode { parent, location } = tables.stacks[stack.position()];
            assert_eq!(
                (parent, location.0),
                (rounds[0].1[number % 3], number as u32)
            );
        }
    }
}
