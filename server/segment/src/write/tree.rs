//! Writes the tree of a segment, and the callees by which it is coded.

use std::io::Write;

use crate::chunk::EncodedChunk;
use crate::chunk::callees::{CHUNK_CALLERS, Callees, Calls, caller_of};
use crate::chunk::tree::TreeChunk;
use crate::codec::column::Packer;
use crate::error::Error;
use crate::file::footer::Summary;
use crate::file::output::Output;
use crate::section::Section;
use crate::tree::{ROOT, Tree};

/// Writes nodes in the order of the file.
pub(crate) struct TreeWriter<'a> {
    callees: &'a Callees,
    chunk: TreeChunk,
}

impl<'a> TreeWriter<'a> {
    /// Writes the callees. The nodes that are added later must be calls that they have.
    pub(crate) fn new<W: Write>(
        callees: &'a Callees,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<Self, Error> {
        for first in (0..callees.len()).step_by(CHUNK_CALLERS) {
            let items = (callees.len() - first).min(CHUNK_CALLERS);
            let chunk = EncodedChunk {
                bytes: callees.encode(first, items, packer),
                first: first as u32,
                items: items as u32,
            };
            out.put(Section::Callees, &chunk)?;
        }
        let chunk = TreeChunk::default();
        Ok(Self { callees, chunk })
    }

    /// Adds the next node. Returns the number of its stack, if it is one.
    pub(crate) fn push<W: Write>(
        &mut self,
        depth: u32,
        location: u32,
        is_stack: bool,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<Option<u32>, Error> {
        if self.chunk.is_full() {
            self.finish_chunk(packer, out)?;
        }
        Ok(self.chunk.push(depth, location, is_stack, self.callees))
    }

    fn finish_chunk<W: Write>(
        &mut self,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        match self.chunk.finish(packer) {
            Some(chunk) => out.put(Section::Tree, &chunk),
            None => Ok(()),
        }
    }

    /// Writes the last nodes. Adds to the summary.
    pub(crate) fn finish<W: Write>(
        mut self,
        summary: &mut Summary,
        packer: &mut Packer,
        out: &mut Output<W>,
    ) -> Result<(), Error> {
        self.finish_chunk(packer, out)?;
        summary.stacks = u64::from(self.chunk.stacks());
        Ok(())
    }
}

/// Writes a tree with these numbers of its locations, in whose order they are in the file. Returns the stack of each node that is one.
pub(crate) fn write_tree<W: Write>(
    tree: &Tree,
    location_numbers: &[u32],
    is_stack: &[bool],
    summary: &mut Summary,
    packer: &mut Packer,
    out: &mut Output<W>,
) -> Result<Vec<u32>, Error> {
    let nodes = tree.sorted(location_numbers);
    let location = |node: u32| location_numbers[tree.location(node) as usize];
    let mut calls = Calls::default();
    for ordered in &nodes {
        let parent = tree.parent(ordered.node);
        let caller = caller_of((parent != ROOT).then(|| location(parent)));
        calls.add(caller, location(ordered.node));
    }
    let callees = calls.into_callees(location_numbers.len());
    let mut stacks = vec![0; tree.len()];
    let mut writer = TreeWriter::new(&callees, packer, out)?;
    for ordered in &nodes {
        let node = ordered.node as usize;
        let location = location(ordered.node);
        let stack = writer.push(ordered.depth, location, is_stack[node], packer, out)?;
        stacks[node] = stack.unwrap_or_default();
    }
    writer.finish(summary, packer, out)?;
    Ok(stacks)
}
