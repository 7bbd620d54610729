//! The stacks and tag sets of a profile, found by their values.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use model::tables::{StackId, TagSetId};
use model::{StackNode, Tables, Tag};

/// Positions of stacks and tag sets in tables. The hashes are seeded at random.
#[derive(Default)]
pub(super) struct Index {
    hasher: DefaultHashBuilder,
    stacks: HashTable<u32>,
    tag_sets: HashTable<u32>,
}

impl Index {
    /// Makes room for some stacks.
    pub(super) fn reserve_stacks(&mut self, tables: &mut Tables, stacks: usize) {
        tables.stacks.reserve(stacks);
        self.stacks.reserve(stacks, |_| 0);
    }

    /// Finds or adds a stack: one more frame on top of a known stack.
    pub(super) fn intern_stack(&mut self, tables: &mut Tables, node: StackNode) -> StackId {
        // A number of 64 bits takes one step of the hash.
        let hash = |node: &StackNode| {
            let StackNode { parent, location } = *node;
            self.hasher
                .hash_one(u64::from(parent.0) << 32 | u64::from(location.0))
        };
        let own = hash(&node);
        let is_same = |number: &u32| tables.stacks[*number as usize] == node;
        if let Some(known) = self.stacks.find(own, is_same) {
            return StackId(*known);
        }
        let number = tables.stacks.len() as u32;
        tables.stacks.push(node);
        self.stacks
            .insert_unique(own, number, |number| hash(&tables.stacks[*number as usize]));
        StackId(number)
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
