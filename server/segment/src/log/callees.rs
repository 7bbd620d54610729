//! Which locations follow a location in stacks, numbered in the order in which nodes first had them.
//!
//! Most new nodes are a known call in a new stack: the number of the call is small, where that of the location takes three bytes.

use hashbrown::HashMap;

use crate::tree::{ROOT, Tree};

/// The callees of the first nodes of a tree. Callers are locations plus one, or 0 for the root.
pub(crate) struct Callees {
    /// Nodes, with the root.
    nodes: u32,
    of_callers: Vec<Vec<u32>>,
    /// The position of a callee among its caller's.
    positions: HashMap<(u32, u32), u32>,
}

impl Default for Callees {
    fn default() -> Self {
        Self {
            nodes: 1,
            of_callers: Vec::new(),
            positions: HashMap::new(),
        }
    }
}

/// The caller in the nodes below a parent.
pub(super) fn caller_of(parent: u32, location: impl FnOnce(u32) -> u32) -> u32 {
    match parent {
        ROOT => 0,
        parent => location(parent) + 1,
    }
}

impl Callees {
    /// Makes it that of the first `nodes` nodes of a tree.
    pub(super) fn catch_up(&mut self, tree: &Tree, nodes: u32) {
        // It has nodes of a record that was rolled back, or could not be read.
        if self.nodes > nodes {
            *self = Self::default();
        }
        for node in self.nodes..nodes {
            let caller = caller_of(tree.parent(node), |parent| tree.location(parent));
            self.add(caller, tree.location(node));
        }
    }

    /// Adds the next node. Returns the position of its callee, if it was there.
    pub(super) fn add(&mut self, caller: u32, callee: u32) -> Option<u32> {
        self.nodes += 1;
        let at = caller as usize;
        if at >= self.of_callers.len() {
            self.of_callers.resize_with(at + 1, Vec::new);
        }
        let own = &mut self.of_callers[at];
        let next = own.len() as u32;
        let position = *self.positions.entry((caller, callee)).or_insert(next);
        if position == next {
            own.push(callee);
            return None;
        }
        Some(position)
    }

    /// The callee at a position.
    pub(super) fn get(&self, caller: u32, position: u64) -> Option<u32> {
        let own = self.of_callers.get(caller as usize)?;
        own.get(usize::try_from(position).ok()?).copied()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let lists = self.of_callers.iter().map(Vec::capacity);
        size_of::<Vec<u32>>() * self.of_callers.capacity()
            + 4 * lists.sum::<usize>()
            + 13 * self.positions.capacity()
    }
}
