//! The trees of all inputs as one.

use std::collections::VecDeque;

use crate::chunk::tree::{TreeNode, TreeReader};
use crate::codec::varint::{self, Bytes};
use crate::error::{Damage, Error};
use crate::read::callees::CalleeCache;
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;

use super::in_input;

/// The merged tree. Planning walks it once for each output, and each output twice, which takes a tenth of the time of reading the
/// inputs' trees: so it is kept, in 5 bytes a node, 10 MB for the nodes of a full segment.
pub(super) struct MergedTree {
    /// For each node in depth-first order, as a number: two times the nodes on the path that are left before it, plus one if it is a
    /// stack.
    ups: Vec<u8>,
    /// The location of each node, as all inputs number them.
    locations: Vec<u32>,
    /// For each input, the number of each of its stacks among those of all inputs.
    pub(super) stacks: Vec<Vec<u32>>,
    /// Stacks of all inputs, with the empty one.
    pub(super) stack_count: usize,
}

impl MergedTree {
    /// Merges the trees of all inputs: each node comes once.
    pub(super) fn read<R: ReadAt>(
        inputs: &[&Segment<R>],
        location_numbers: &[Vec<u32>],
    ) -> Result<Self, Error> {
        let stacks = inputs.iter().map(|segment| vec![0; segment.stack_count()]);
        let mut tree = Self {
            ups: Vec::new(),
            locations: Vec::new(),
            stacks: stacks.collect(),
            stack_count: 1,
        };
        let mut merge = TreeMerge::new(inputs, location_numbers)?;
        let mut depth_before = 0;
        while let Some((depth, location)) = merge.next()? {
            let up = depth_before + 1 - depth;
            varint::put(
                &mut tree.ups,
                u64::from(up) << 1 | u64::from(!merge.stacks.is_empty()),
            );
            tree.locations.push(location);
            for (input, stack) in &merge.stacks {
                tree.stacks[*input][*stack as usize] = tree.stack_count as u32;
            }
            tree.stack_count += usize::from(!merge.stacks.is_empty());
            depth_before = depth;
        }
        Ok(tree)
    }

    /// All nodes, in depth-first order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = TreeNode> {
        let mut ups = Bytes::new(&self.ups);
        let (mut depth, mut stacks) = (0, 1);
        self.locations.iter().map_while(move |location| {
            let up = ups.take().ok()?;
            depth = depth + 1 - (up >> 1) as u32;
            let stack = (up & 1 == 1).then_some(stacks);
            stacks += u32::from(stack.is_some());
            Some(TreeNode {
                depth,
                location: *location,
                stack,
            })
        })
    }

    /// The nodes that some stacks need, which alone are stacks then; or all nodes.
    pub(super) fn nodes_of(&self, used: Option<&[bool]>) -> impl Iterator<Item = TreeNode> {
        let mut nodes = self.nodes();
        // The path to the last node: its locations, and whether they were given out.
        let mut path: Vec<(u32, bool)> = Vec::new();
        let mut ready = VecDeque::new();
        std::iter::from_fn(move || {
            let Some(used) = used else {
                return nodes.next();
            };
            while ready.is_empty() {
                let node = nodes.next()?;
                path.truncate(node.depth as usize - 1);
                path.push((node.location, false));
                if node.stack.is_some_and(|stack| used[stack as usize]) {
                    let given_out = path.iter().rposition(|(_, is_given_out)| *is_given_out);
                    let first = given_out.map_or(0, |last| last + 1);
                    for (level, (location, is_given_out)) in path.iter_mut().enumerate().skip(first)
                    {
                        *is_given_out = true;
                        ready.push_back(TreeNode {
                            depth: level as u32 + 1,
                            location: *location,
                            stack: node.stack.filter(|_| level as u32 + 1 == node.depth),
                        });
                    }
                }
            }
            ready.pop_front()
        })
    }
}

/// The nodes of an input in the order of the file.
struct TreeStream<'a, R> {
    segment: &'a Segment<R>,
    scratch: Scratch,
    callees: CalleeCache<'a, R>,
    next_chunk: usize,
    reader: Option<TreeReader>,
}

impl<R: ReadAt> TreeStream<'_, R> {
    fn next(&mut self) -> Result<Option<TreeNode>, Damage> {
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

/// Merges the trees of all inputs while they are read.
///
/// A stream's next node is a child of a node on the path to its last one. All these parents are on the merged path, since no stream
/// leaves a subtree before the others have. So the deepest of the next nodes is the next of all, and of several with its depth the
/// one with the first location.
struct TreeMerge<'a, R> {
    streams: Vec<TreeStream<'a, R>>,
    /// The place of each stream's next node in the order of the merge, or [`END`].
    heads: Vec<u64>,
    /// The stack of each stream's next node.
    head_stacks: Vec<Option<u32>>,
    location_numbers: &'a [Vec<u32>],
    /// The inputs that have the last node as a stack, and its number there.
    stacks: Vec<(usize, u32)>,
}

/// Behind all nodes: no depth is 0.
const END: u64 = u64::MAX;

impl<'a, R: ReadAt> TreeMerge<'a, R> {
    fn new(inputs: &'a [&'a Segment<R>], location_numbers: &'a [Vec<u32>]) -> Result<Self, Error> {
        let stream = |segment: &&'a Segment<R>| TreeStream {
            segment,
            scratch: Scratch::default(),
            callees: CalleeCache::new(segment),
            next_chunk: 0,
            reader: None,
        };
        let mut merge = Self {
            streams: inputs.iter().map(stream).collect(),
            heads: vec![END; inputs.len()],
            head_stacks: vec![None; inputs.len()],
            location_numbers,
            stacks: Vec::new(),
        };
        for input in 0..inputs.len() {
            merge.advance(input)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, input: usize) -> Result<(), Error> {
        let next = self.streams[input].next().map_err(in_input(input))?;
        (self.heads[input], self.head_stacks[input]) = match next {
            Some(node) => {
                let location = self.location_numbers[input][node.location as usize];
                let up = u64::from(u32::MAX - node.depth);
                (up << 32 | u64::from(location), node.stack)
            }
            None => (END, None),
        };
        Ok(())
    }

    /// The depth and location of the next node.
    fn next(&mut self) -> Result<Option<(u32, u32)>, Error> {
        let first = self.heads.iter().copied().min().unwrap_or(END);
        if first == END {
            return Ok(None);
        }
        self.stacks.clear();
        for input in 0..self.heads.len() {
            if self.heads[input] == first {
                let stack = self.head_stacks[input];
                self.stacks.extend(stack.map(|stack| (input, stack)));
                self.advance(input)?;
            }
        }
        Ok(Some((u32::MAX - (first >> 32) as u32, first as u32)))
    }
}
