//! The trees of all inputs, merged while they are read.

use std::collections::VecDeque;

use crate::chunk::tree::{TreeNode, TreeReader};
use crate::error::{Damage, Error};
use crate::read::callees::CalleeCache;
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;

use super::in_input;

/// The nodes of an input that some stacks need, in the order of the file.
struct TreeStream<'a, R> {
    segment: &'a Segment<R>,
    scratch: Scratch,
    callees: CalleeCache<'a, R>,
    next_chunk: usize,
    reader: Option<TreeReader>,
    /// The stacks that are needed, or all.
    used: Option<&'a [bool]>,
    /// The path to the last node that was read: its locations, and whether they were given out.
    path: Vec<(u32, bool)>,
    ready: VecDeque<TreeNode>,
}

impl<R: ReadAt> TreeStream<'_, R> {
    fn next(&mut self) -> Result<Option<TreeNode>, Damage> {
        let Some(used) = self.used else {
            return self.read();
        };
        while self.ready.is_empty() {
            let Some(node) = self.read()? else {
                return Ok(None);
            };
            self.path.truncate(node.depth as usize - 1);
            self.path.push((node.location, false));
            if node.stack.is_some_and(|stack| used[stack as usize]) {
                for (level, (location, is_ready)) in self.path.iter_mut().enumerate() {
                    if !std::mem::replace(is_ready, true) {
                        self.ready.push_back(TreeNode {
                            depth: level as u32 + 1,
                            location: *location,
                            stack: None,
                        });
                    }
                }
                if let Some(last) = self.ready.back_mut() {
                    last.stack = node.stack;
                }
            }
        }
        Ok(self.ready.pop_front())
    }

    fn read(&mut self) -> Result<Option<TreeNode>, Damage> {
        loop {
            if let Some(reader) = &mut self.reader {
                let node = reader.next(&mut self.callees)?;
                if node.is_some() {
                    return Ok(node);
                }
            }
            if self.next_chunk == self.segment.chunks(Section::Tree).len() {
                return Ok(None);
            }
            let reader = self.segment.open_tree(self.next_chunk, &mut self.scratch)?;
            self.reader = Some(reader);
            self.next_chunk += 1;
        }
    }
}

/// A node of the merged tree, with the number of its location among those of all inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct MergedNode {
    pub(super) depth: u32,
    pub(super) location: u32,
}

/// Merges the trees of all inputs: each node comes once.
///
/// A stream's next node is a child of a node on the path to its last one. All these parents are on the merged path, since no stream
/// leaves a subtree before the others have. So the deepest of the next nodes is the next of all, and of several with its depth the
/// one with the first location.
pub(super) struct TreeMerge<'a, R> {
    streams: Vec<TreeStream<'a, R>>,
    heads: Vec<Option<TreeNode>>,
    location_numbers: &'a [Vec<u32>],
    stacks: Vec<(usize, u32)>,
}

impl<'a, R: ReadAt> TreeMerge<'a, R> {
    /// Merges the nodes that some stacks of each input need, or all.
    pub(super) fn new(
        inputs: &'a [&'a Segment<R>],
        location_numbers: &'a [Vec<u32>],
        used: Option<&'a [Vec<bool>]>,
    ) -> Result<Self, Error> {
        let stream = |(input, segment): (usize, &&'a Segment<R>)| TreeStream {
            segment,
            scratch: Scratch::default(),
            callees: CalleeCache::new(segment),
            next_chunk: 0,
            reader: None,
            used: used.map(|used| &used[input][..]),
            path: Vec::new(),
            ready: VecDeque::new(),
        };
        let mut merge = Self {
            streams: inputs.iter().enumerate().map(stream).collect(),
            heads: vec![None; inputs.len()],
            location_numbers,
            stacks: Vec::new(),
        };
        for input in 0..inputs.len() {
            merge.advance(input)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, input: usize) -> Result<(), Error> {
        let numbers = &self.location_numbers[input];
        let next = self.streams[input].next().map_err(in_input(input))?;
        self.heads[input] = next.map(|node| TreeNode {
            location: numbers[node.location as usize],
            ..node
        });
        Ok(())
    }

    /// The next node.
    pub(super) fn next(&mut self) -> Result<Option<MergedNode>, Error> {
        let order = |node: &TreeNode| (u32::MAX - node.depth, node.location);
        let Some(first) = self.heads.iter().flatten().map(order).min() else {
            return Ok(None);
        };
        self.stacks.clear();
        for input in 0..self.heads.len() {
            if let Some(node) = self.heads[input]
                && order(&node) == first
            {
                self.stacks.extend(node.stack.map(|stack| (input, stack)));
                self.advance(input)?;
            }
        }
        let (up, location) = first;
        Ok(Some(MergedNode {
            depth: u32::MAX - up,
            location,
        }))
    }

    /// The inputs that have the last node as a stack that is needed, and its number there.
    pub(super) fn stacks(&self) -> &[(usize, u32)] {
        &self.stacks
    }
}
