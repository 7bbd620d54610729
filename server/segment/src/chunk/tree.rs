//! Chunks of the tree: nodes in depth-first order.
//!
//! A chunk begins with the path to the node before it, so that each chunk can be read alone.

use crate::chunk::EncodedChunk;
use crate::chunk::callees::{CalleeSource, Callees, caller_of};
use crate::codec::column::{ChunkReader, Column, Numbers, Packer, Unpacker};
use crate::codec::varint;
use crate::error::{Cause, Damage, Malformed};
use crate::section::Section;

/// Nodes of a chunk: decoded in 0.2 ms, and some ten kilobytes.
pub(crate) const CHUNK_NODES: usize = 1 << 14;

/// Frames of a stack. The receiver takes 4,608; older stores have what a message of 32 MiB could hold, of two bytes and more a
/// frame, so that their deepest stacks can be too deep.
pub(crate) const DEPTH_MAX: usize = 1 << 20;

/// A node on a path: its number and location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathNode {
    pub(crate) node: u32,
    pub(crate) location: u32,
    /// The position of the location among the callees of the node before.
    rank: u32,
}

/// Encodes chunks of the tree.
#[derive(Default)]
pub(crate) struct TreeChunk {
    /// The path to the last node.
    path: Vec<PathNode>,
    nodes: u32,
    stacks: u32,
    /// Head of the chunk.
    head: Vec<PathNode>,
    first_stack: u32,
    ups: Column,
    ranks: Column,
    items: u32,
}

impl TreeChunk {
    /// Adds the next node. Returns the number of its stack, if it is one.
    pub(crate) fn push(
        &mut self,
        depth: u32,
        location: u32,
        is_stack: bool,
        callees: &Callees,
    ) -> Option<u32> {
        if self.items == 0 {
            self.head.clone_from(&self.path);
            self.first_stack = self.stacks + 1;
        }
        let kept = depth as usize - 1;
        let up = (self.path.len() - kept) as u64;
        let sibling = self.path.get(kept).copied();
        self.path.truncate(kept);
        let caller = caller_of(self.path.last().map(|parent| parent.location));
        let rank = callees.rank(caller, location);
        self.ups.push(up << 1 | u64::from(is_stack));
        // Siblings are sorted.
        let first = sibling.map_or(0, |sibling| sibling.rank + 1);
        self.ranks.push(u64::from(rank - first));
        self.path.push(PathNode {
            node: self.nodes,
            location,
            rank,
        });
        self.nodes += 1;
        self.items += 1;
        self.stacks += u32::from(is_stack);
        is_stack.then_some(self.stacks)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.items as usize >= CHUNK_NODES
    }

    /// Stacks so far, with the empty one.
    pub(crate) fn stacks(&self) -> u32 {
        self.stacks + 1
    }

    /// Encodes the nodes since the last chunk, if there are any.
    pub(crate) fn finish(&mut self, packer: &mut Packer) -> Option<EncodedChunk> {
        let items = std::mem::take(&mut self.items);
        if items == 0 {
            return None;
        }
        let mut bytes = Vec::new();
        varint::put(&mut bytes, self.head.len() as u64);
        packer.put_deltas(&mut bytes, self.head.iter().map(|on| u64::from(on.node)));
        packer.put_deltas(
            &mut bytes,
            self.head.iter().map(|on| u64::from(on.location)),
        );
        packer.put_numbers(&mut bytes, self.head.iter().map(|on| u64::from(on.rank)));
        packer.put(&mut bytes, &mut self.ups);
        packer.put(&mut bytes, &mut self.ranks);
        Some(EncodedChunk {
            bytes,
            first: self.first_stack,
            items,
        })
    }
}

/// A node that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreeNode {
    /// 1 for children of the root.
    pub(crate) depth: u32,
    pub(crate) location: u32,
    /// The number of the stack that ends here, if one does.
    pub(crate) stack: Option<u32>,
}

/// Entry of the footer for a chunk of the tree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TreeChunkHead {
    /// Its position in the section.
    pub(crate) number: u32,
    pub(crate) first_node: u32,
    pub(crate) first_stack: u32,
    /// The first stack of the next chunk.
    pub(crate) end_stack: u32,
    pub(crate) items: u32,
}

/// Reads the nodes of a chunk.
pub(crate) struct TreeReader {
    head: TreeChunkHead,
    path: Vec<PathNode>,
    next_stack: u32,
    /// Nodes that were read.
    read: u32,
    ups: Numbers,
    ranks: Numbers,
}

impl TreeReader {
    /// Begins to read a chunk; locations must be below `locations_len`.
    pub(crate) fn new(
        bytes: &[u8],
        head: TreeChunkHead,
        locations_len: usize,
        unpacker: &mut Unpacker,
    ) -> Result<Self, Malformed> {
        let items = head.items as usize;
        if items > CHUNK_NODES {
            return Err(Malformed("a chunk of the tree has too many nodes"));
        }
        let mut from = ChunkReader::new(bytes, unpacker);
        let depth = from.take_at_most(DEPTH_MAX.min(head.first_node as usize))?;
        let mut nodes = from.take_numbers(depth)?;
        let mut locations = from.take_numbers(depth)?;
        let mut ranks = from.take_numbers(depth)?;
        let mut path = Vec::new();
        let mut last = PathNode::default();
        for _ in 0..depth {
            last.node = nodes.next_delta_below(last.node, head.first_node as usize)?;
            last.location = locations.next_delta_below(last.location, locations_len)?;
            last.rank = ranks.next_below(locations_len)?;
            path.push(last);
        }
        nodes.finish()?;
        locations.finish()?;
        ranks.finish()?;
        let reader = Self {
            head,
            path,
            next_stack: head.first_stack,
            read: 0,
            ups: from.take_numbers(items)?,
            ranks: from.take_numbers(items)?,
        };
        from.finish()?;
        Ok(reader)
    }

    /// The number of the chunk's first node.
    pub(crate) fn first_node(&self) -> u32 {
        self.head.first_node
    }

    /// The path to the last node, or to the node before the chunk.
    pub(crate) fn path(&self) -> &[PathNode] {
        &self.path
    }

    /// The next node; none at the end of the chunk.
    ///
    /// # Errors
    /// The chunk is malformed, or callees that it needs are damaged.
    #[inline]
    pub(crate) fn next(
        &mut self,
        callees: &mut impl CalleeSource,
    ) -> Result<Option<TreeNode>, Damage> {
        let number = self.head.number;
        let malformed = |Malformed(what)| Damage {
            section: Section::Tree,
            chunk: number,
            cause: Cause::Malformed(what),
        };
        if self.read == self.head.items {
            self.finish().map_err(malformed)?;
            return Ok(None);
        }
        let (is_stack, rank) = self.read_columns().map_err(malformed)?;
        let caller = caller_of(self.path.last().map(|parent| parent.location));
        let callee = callees.callees(caller)?.get(rank as usize);
        let location = *callee.ok_or_else(|| malformed(Malformed("a node is no callee")))?;
        self.path.push(PathNode {
            node: self.head.first_node + self.read,
            location,
            rank,
        });
        self.read += 1;
        let stack = is_stack.then_some(self.next_stack);
        self.next_stack += u32::from(is_stack);
        Ok(Some(TreeNode {
            depth: self.path.len() as u32,
            location,
            stack,
        }))
    }

    /// Leaves the part of the path that the next node does not have. Returns whether it is a stack, and its position among the callees
    /// of the rest.
    #[inline]
    fn read_columns(&mut self) -> Result<(bool, u32), Malformed> {
        let up = self.ups.next()?;
        let is_stack = up & 1 == 1;
        let kept = usize::try_from(up >> 1)
            .ok()
            .and_then(|up| self.path.len().checked_sub(up))
            .ok_or(Malformed("a node has no parent"))?;
        if kept >= DEPTH_MAX || is_stack && self.next_stack >= self.head.end_stack {
            return Err(Malformed("a chunk of the tree has too many stacks"));
        }
        let first = self.path.get(kept).map_or(0, |sibling| sibling.rank + 1);
        let rank = self.ranks.next_gap_below(first, u32::MAX as usize)?;
        self.path.truncate(kept);
        Ok((is_stack, rank))
    }

    fn finish(&self) -> Result<(), Malformed> {
        if self.next_stack != self.head.end_stack {
            return Err(Malformed("a chunk of the tree lacks stacks"));
        }
        self.ups.finish()?;
        self.ranks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::callees::Calls;

    /// Check that chunks can be read one by one, and that damaged ones never panic.
    #[test]
    fn chunks_can_be_read_alone() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut nodes = Vec::new();
        let mut path: Vec<u32> = Vec::new();
        while nodes.len() < 3 * CHUNK_NODES {
            let kept = random.usize(0..path.len() + 1);
            let first = path.get(kept).map_or(0, |sibling| sibling + 1);
            path.truncate(kept);
            path.push(first + random.u32(0..3));
            nodes.push((path.len() as u32, path[kept], random.bool()));
        }
        let locations = nodes.iter().map(|(_, location, _)| location + 1).max();
        let locations = locations.unwrap_or(0) as usize;
        let mut calls = Calls::default();
        let mut path: Vec<u32> = Vec::new();
        for (depth, location, _) in &nodes {
            path.truncate(*depth as usize - 1);
            calls.add(caller_of(path.last().copied()), *location);
            path.push(*location);
        }
        let callees = calls.into_callees(locations);
        let mut packer = Packer::new(1);
        let mut chunk = TreeChunk::default();
        let mut chunks = Vec::new();
        let mut stacks = Vec::new();
        for (depth, location, is_stack) in nodes.iter().copied() {
            stacks.push(chunk.push(depth, location, is_stack, &callees));
            if chunk.is_full() {
                chunks.extend(chunk.finish(&mut packer));
            }
        }
        chunks.extend(chunk.finish(&mut packer));
        assert_eq!(chunks.len(), 3);
        let mut unpacker = Unpacker::default();
        for (number, chunk) in chunks.iter().enumerate().rev() {
            let first_node = number * CHUNK_NODES;
            let end = first_node + CHUNK_NODES;
            let count = stacks[first_node..end].iter().flatten().count();
            let head = TreeChunkHead {
                number: number as u32,
                first_node: first_node as u32,
                first_stack: chunk.first,
                end_stack: chunk.first + count as u32,
                items: chunk.items,
            };
            let mut read = |bytes: &[u8]| {
                let mut reader = TreeReader::new(bytes, head, locations, &mut unpacker).ok()?;
                let mut read = Vec::new();
                while let Some(node) = reader.next(&mut &callees).ok()? {
                    read.push(node);
                }
                Some(read)
            };
            let expected = nodes[first_node..end].iter().zip(&stacks[first_node..end]);
            let expected = expected.map(|((depth, location, _), stack)| TreeNode {
                depth: *depth,
                location: *location,
                stack: *stack,
            });
            assert!(read(&chunk.bytes).unwrap().into_iter().eq(expected));
            for _ in 0..20 {
                let mut damaged = chunk.bytes.clone();
                let at = random.usize(0..damaged.len());
                damaged[at] ^= 1 << random.u32(0..8);
                drop(read(&damaged));
            }
        }
    }
}
