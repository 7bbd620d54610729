//! The nodes of some stacks of a segment, and of their callers.

use std::ops::Range;

use crate::chunk::callees::CalleeSource;
use crate::chunk::tree::TreeReader;
use crate::error::Damage;
use crate::read::Segment;
use crate::read::callees::CalleeCache;
use crate::read::parallel::Effort;
use crate::read_at::ReadAt;
use crate::section::Section;

use super::tables::Node;

/// The nodes of some stacks and of their callers, parents first; number 0 is the root.
pub(super) struct Nodes {
    pub(super) nodes: Vec<Node>,
    /// The node of each stack; none for those of a damaged chunk.
    pub(super) found: Vec<Option<u32>>,
    /// The beginning of the path to the last node of the chunks so far: those that are in `nodes`, by their number in the segment.
    placed: Vec<(u32, u32)>,
}

/// Reads the nodes of some stacks.
pub(super) fn read_tree<R: ReadAt>(
    segment: &Segment<R>,
    stacks: &[u32],
    effort: Effort<'_>,
    damage: &mut Vec<Damage>,
) -> Nodes {
    let empty = stacks.partition_point(|stack| *stack == 0);
    let mut all = Nodes {
        nodes: vec![Node::default()],
        found: vec![Some(0); empty],
        placed: Vec::new(),
    };
    let tasks = find_chunks(segment, stacks, empty);
    let new = || CalleeCache::new(segment);
    let read = effort.map(&tasks, new, |callees, scratch, (number, range)| {
        let reader = segment.open_tree(*number, scratch)?;
        read_chunk(reader, callees, &stacks[range.clone()])
    });
    let chunks = read.iter().flatten().flatten();
    let count: usize = chunks.map(|chunk| chunk.nodes.len()).sum();
    all.nodes.reserve_exact(count);
    all.found.reserve_exact(stacks.len());
    for ((_, range), read) in tasks.iter().zip(read) {
        match read {
            Some(Ok(chunk)) => all.append(&chunk),
            Some(Err(found)) => damage.push(found),
            // The question was stopped.
            None => {}
        }
        all.found.resize(range.end, None);
    }
    all
}

/// The chunks that have some stacks, and the positions of those in the list.
fn find_chunks<R: ReadAt>(
    segment: &Segment<R>,
    stacks: &[u32],
    mut at: usize,
) -> Vec<(usize, Range<usize>)> {
    let mut chunks = Vec::new();
    // The empty stack is the only one in front of the first chunk.
    while let Some(number) = stacks
        .get(at)
        .and_then(|stack| segment.table(Section::Tree).find(*stack))
    {
        let after = segment.chunks(Section::Tree).get(number + 1);
        let end = after.map_or(stacks.len(), |after| {
            stacks.partition_point(|stack| *stack < after.first)
        });
        chunks.push((number, at..end));
        at = end;
    }
    chunks
}

/// The nodes of some stacks of a chunk. Its own root is number 0.
struct ChunkNodes {
    /// The numbers in the segment of nodes 1 and following, which are on the path to the chunk and so in earlier chunks too.
    above: Vec<u32>,
    nodes: Vec<Node>,
    found: Vec<u32>,
    placed: Vec<(u32, u32)>,
}

fn read_chunk(
    mut reader: TreeReader,
    callees: &mut impl CalleeSource,
    stacks: &[u32],
) -> Result<ChunkNodes, Damage> {
    let first_node = reader.first_node();
    let mut chunk = ChunkNodes {
        above: Vec::new(),
        nodes: vec![Node::default()],
        found: Vec::with_capacity(stacks.len()),
        placed: Vec::new(),
    };
    while let Some(node) = reader.next(callees)? {
        chunk.placed.truncate(node.depth as usize - 1);
        if node.stack.is_none() || stacks.get(chunk.found.len()) != node.stack.as_ref() {
            continue;
        }
        let mut last = chunk.placed.last().map_or(0, |placed| placed.1);
        for on_path in &reader.path()[chunk.placed.len()..] {
            chunk.nodes.push(Node {
                parent: last,
                location: on_path.location,
            });
            last = chunk.nodes.len() as u32 - 1;
            chunk.placed.push((on_path.node, last));
            // All of them are on the path to the first stack: a node that was left does not come again.
            if on_path.node < first_node {
                chunk.above.push(on_path.node);
            }
        }
        chunk.found.push(last);
    }
    Ok(chunk)
}

impl Nodes {
    /// Adds the nodes of the next chunk.
    fn append(&mut self, chunk: &ChunkNodes) {
        let shared = chunk.above.iter().zip(&self.placed);
        let shared = shared.take_while(|(above, placed)| **above == placed.0);
        // The numbers here of the nodes that both have, the root first.
        let mut numbers = vec![0];
        numbers.extend(shared.map(|(_, placed)| placed.1));
        let first = self.nodes.len() as u32;
        let known = numbers.len() as u32;
        let number = |node: u32| match numbers.get(node as usize) {
            Some(number) => *number,
            None => first + (node - known),
        };
        let nodes = chunk.nodes[known as usize..].iter().map(|node| Node {
            parent: number(node.parent),
            ..*node
        });
        self.nodes.extend(nodes);
        self.found
            .extend(chunk.found.iter().map(|node| Some(number(*node))));
        self.placed.clear();
        let placed = chunk.placed.iter();
        self.placed
            .extend(placed.map(|(node, own)| (*node, number(*own))));
    }
}
