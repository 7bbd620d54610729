//! The tree of stacks while a segment is being made: each node once, found by its parent and location.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Children that are searched one by one. Their nodes are mostly near each other, so that this costs a fifth of a look-up in one
/// large table; nodes with more children have the others in a table.
const LISTED_MAX: usize = 16;

/// The root: the empty stack.
pub(crate) const ROOT: u32 = 0;

/// A tree of (parent, location). A node's parent has a smaller number.
pub(crate) struct Tree {
    /// All fields of a node are in one cache line: a search is bound by memory.
    nodes: Vec<Node>,
    unlisted: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    parent: u32,
    location: u32,
    /// The first listed child, or [`ROOT`].
    first_child: u32,
    /// The next listed child of the same parent, or [`ROOT`].
    next_sibling: u32,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            unlisted: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

/// A node in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrderedNode {
    pub(crate) node: u32,
    /// 1 for children of the root.
    pub(crate) depth: u32,
}

impl Tree {
    /// Number of nodes, with the root.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn parent(&self, node: u32) -> u32 {
        self.nodes[node as usize].parent
    }

    pub(crate) fn location(&self, node: u32) -> u32 {
        self.nodes[node as usize].location
    }

    /// Finds the child of a node with a location.
    pub(crate) fn find_child(&self, parent: u32, location: u32) -> Option<u32> {
        let mut listed = 0;
        for child in self.listed_children(parent) {
            if self.location(child) == location {
                return Some(child);
            }
            listed += 1;
        }
        if listed < LISTED_MAX {
            return None;
        }
        let hash = self.hasher.hash_one((parent, location));
        let is_same = |node: &u32| (self.parent(*node), self.location(*node)) == (parent, location);
        self.unlisted.find(hash, is_same).copied()
    }

    fn listed_children(&self, parent: u32) -> impl Iterator<Item = u32> {
        let first = self.nodes[parent as usize].first_child;
        let next = |child: &u32| Some(self.nodes[*child as usize].next_sibling);
        std::iter::successors(Some(first), next).take_while(|child| *child != ROOT)
    }

    /// Finds or adds the child of a node with a location.
    pub(crate) fn child(&mut self, parent: u32, location: u32) -> u32 {
        self.find_child(parent, location)
            .unwrap_or_else(|| self.add_child(parent, location))
    }

    fn add_child(&mut self, parent: u32, location: u32) -> u32 {
        let children = self.listed_children(parent);
        let (listed, last) = children.fold((0, ROOT), |(listed, _), child| (listed + 1, child));
        let node = self.push(parent, location);
        if listed == LISTED_MAX {
            let Self {
                nodes,
                unlisted,
                hasher,
            } = self;
            let hash = |number: &u32| {
                let Node {
                    parent, location, ..
                } = nodes[*number as usize];
                hasher.hash_one((parent, location))
            };
            unlisted.insert_unique(hash(&node), node, hash);
        } else if last == ROOT {
            self.nodes[parent as usize].first_child = node;
        } else {
            // At the end of the list: frequent children come first, and so are found first.
            self.nodes[last as usize].next_sibling = node;
        }
        node
    }

    fn push(&mut self, parent: u32, location: u32) -> u32 {
        self.nodes.push(Node {
            parent,
            location,
            ..Node::default()
        });
        self.nodes.len() as u32 - 1
    }

    /// All nodes but the root, parents before their children and each subtree in one piece, children in the order of `location_ranks`.
    pub(crate) fn sorted(&self, location_ranks: &[u32]) -> Vec<OrderedNode> {
        let nodes: Vec<u32> = (1..self.len() as u32).collect();
        // Nodes lie near their parents.
        let (starts, mut children) = sort_by_number(&nodes, self.len(), |node| self.parent(node));
        let rank = |node: &u32| location_ranks[self.location(*node) as usize];
        for ends in starts.windows(2) {
            let siblings = &mut children[ends[0]..ends[1]];
            if siblings.len() > 1 {
                siblings.sort_unstable_by_key(rank);
            }
        }

        let mut sorted = Vec::with_capacity(nodes.len());
        // The children that are still to be visited, of each node on the path.
        let children_of = |node: u32| starts[node as usize]..starts[node as usize + 1];
        let mut path = vec![children_of(ROOT)];
        while let Some(pending) = path.last_mut() {
            match pending.next() {
                None => {
                    path.pop();
                }
                Some(position) => {
                    let node = children[position];
                    let depth = path.len() as u32;
                    sorted.push(OrderedNode { node, depth });
                    path.push(children_of(node));
                }
            }
        }
        sorted
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Node>() * self.nodes.capacity() + 5 * self.unlisted.capacity()
    }
}

/// Sorts entries by a number below `bound`; equal ones stay in their order. Also gives the start of each number.
pub(crate) fn sort_by_number(
    entries: &[u32],
    bound: usize,
    number: impl Fn(u32) -> u32,
) -> (Vec<usize>, Vec<u32>) {
    let mut starts = vec![0; bound + 1];
    for entry in entries {
        starts[number(*entry) as usize + 1] += 1;
    }
    for position in 1..starts.len() {
        starts[position] += starts[position - 1];
    }
    let mut next = starts.clone();
    let mut sorted = vec![0; entries.len()];
    for entry in entries {
        let position = &mut next[number(*entry) as usize];
        sorted[*position] = *entry;
        *position += 1;
    }
    (starts, sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that nodes are found again, few and many children alike, and that the order does not depend on their arrival.
    #[test]
    fn trees_are_sorted_by_location() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut stacks: Vec<Vec<u32>> = Vec::new();
        for _ in 0..500 {
            let mut stack = vec![random.u32(0..100)];
            stack.resize_with(random.usize(1..5), || random.u32(0..3));
            stacks.push(stack);
        }
        let ranks: Vec<u32> = (0..100).map(|location| 99 - location).collect();
        let mut orders = Vec::new();
        for _ in 0..2 {
            let mut tree = Tree::default();
            let mut insert = |stack: &[u32]| {
                let child = |parent, location: &u32| tree.child(parent, *location);
                stack.iter().fold(ROOT, child)
            };
            let nodes: Vec<u32> = stacks.iter().map(|stack| insert(stack)).collect();
            assert!(stacks.iter().map(|stack| insert(stack)).eq(nodes));
            let sorted = tree.sorted(&ranks);
            assert_eq!(sorted.len() + 1, tree.len());
            let mut path: Vec<u32> = Vec::new();
            let mut before = Vec::new();
            let mut order = Vec::new();
            for OrderedNode { node, depth } in sorted {
                path.truncate(depth as usize - 1);
                path.push(ranks[tree.location(node) as usize]);
                assert_eq!(path.len(), depth as usize);
                assert!(before < path);
                before = path.clone();
                order.push(path.clone());
            }
            orders.push(order);
            random.shuffle(&mut stacks);
        }
        assert_eq!(orders[0], orders[1]);
    }
}
