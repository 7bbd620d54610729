//! Merges the stacks of all parts from the root on, as far as somebody looks.

use std::cmp::Ordering;
use std::ops::Range;

use super::{Member, Tree};
use crate::frame_table::FrameId;
use crate::series::Usage;

/// A call: all stacks that begin with the same frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The frame; none of the root.
    pub frame: Option<FrameId>,
    /// Samples in it and its callees.
    pub total: Usage,
    members: Range<usize>,
}

/// Walks over a tree.
pub struct Walk<'a> {
    tree: &'a Tree,
    members: Vec<Member>,
    found: Vec<(FrameId, Usage, Member)>,
}

impl<'a> Walk<'a> {
    /// A walk that begins at the root.
    pub(super) fn new(tree: &'a Tree) -> Self {
        let member = |part| Member {
            part,
            entry: 0,
            depth: 0,
        };
        Self {
            tree,
            members: (0..tree.parts.len() as u32).map(member).collect(),
            found: Vec::new(),
        }
    }

    /// The tree.
    pub fn tree(&self) -> &'a Tree {
        self.tree
    }

    /// The root of the whole tree.
    pub fn root(&self) -> Node {
        Node {
            frame: None,
            total: self.tree.total(),
            members: 0..self.tree.parts.len(),
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Member>() * self.members.capacity()
            + size_of::<(FrameId, Usage, Member)>() * self.found.capacity()
    }

    /// The node's callees, in the order of all answers: most CPU first, then by name.
    pub fn callees(&mut self, node: &Node) -> Vec<Node> {
        self.found.clear();
        for at in node.members.clone() {
            let member = self.members[at];
            let found = &mut self.found;
            self.tree.parts[member.part as usize].visit_callees(member, |frame, total, member| {
                found.push((frame, total, member));
            });
        }
        self.found.sort_unstable_by_key(|(frame, ..)| *frame);
        let mut nodes = Vec::new();
        for same in self.found.chunk_by(|a, b| a.0 == b.0) {
            let start = self.members.len();
            let mut total = Usage::default();
            for (_, usage, member) in same {
                total.add(*usage);
                self.members.push(*member);
            }
            nodes.push(Node {
                frame: Some(same[0].0),
                total,
                members: start..self.members.len(),
            });
        }
        let frames = &self.tree.frames;
        nodes.sort_unstable_by(|a, b| {
            let by_cpu = b.total.ns.cmp(&a.total.ns);
            // Callees have frames.
            by_cpu.then_with(|| match (a.frame, b.frame) {
                (Some(a), Some(b)) => frames.compare(a, b),
                _ => Ordering::Equal,
            })
        });
        nodes
    }

    /// A mark of all nodes so far, for [`Self::rewind`].
    pub fn mark(&self) -> usize {
        self.members.len()
    }

    /// Forgets the nodes that were found since a mark.
    pub fn rewind(&mut self, mark: usize) {
        self.members.truncate(mark);
    }

    /// The node at a path of frame names from the root. Frames of the same name in different files are one. `None` if no stack begins
    /// with the path.
    pub fn find(&mut self, path: &[String]) -> Option<Node> {
        let frames = &self.tree.frames;
        let mut nodes = vec![self.root()];
        for name in path {
            let is_named = |node: &Node| node.frame.is_some_and(|frame| frames.name(frame) == name);
            let callees = nodes.iter().flat_map(|node| self.callees(node));
            nodes = callees.filter(is_named).collect();
        }
        let first = nodes.first()?.clone();
        if nodes.len() == 1 {
            return Some(first);
        }
        let start = self.members.len();
        let mut total = Usage::default();
        for node in nodes {
            total.add(node.total);
            self.members.extend_from_within(node.members);
        }
        Some(Node {
            total,
            members: start..self.members.len(),
            ..first
        })
    }
}
