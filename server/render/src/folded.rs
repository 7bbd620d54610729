//! Folded stacks: `root;child;leaf 12`.

use std::io::{self, Write};

use query::Tree;
use query::series::Usage;
use query::tree::Node;

/// Stands for a stack without any frame.
const NO_STACK: &str = "[no stack]";

/// Unit of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldedUnit {
    /// Samples.
    Samples,
    /// CPU time in microseconds.
    Microseconds,
}

/// How stacks are folded.
#[derive(Clone, Copy, Debug)]
pub struct FoldedOptions {
    /// The unit of the numbers.
    pub unit: FoldedUnit,
    /// A frame with less CPU time than this has no line of its own: it counts for its caller.
    pub ns_min: u64,
}

/// Writes a line for each stack that has samples, the one with most CPU first at each branch.
///
/// # Errors
/// `out` failed.
pub fn write_folded(tree: &Tree, options: FoldedOptions, out: &mut impl Write) -> io::Result<()> {
    let mut walk = tree.walk();
    let root = walk.root();
    let mut stack = String::new();
    // With each call the length of its caller's stack, and what the walk knew before its callees.
    let mut pending: Vec<(Node, usize, usize)> = vec![(root, 0, walk.mark())];
    while let Some((node, stack_length, mark)) = pending.pop() {
        walk.rewind(mark);
        stack.truncate(stack_length);
        if let Some(frame) = node.frame {
            push_name(&mut stack, tree.frames().name(frame));
        }
        let mut callees = walk.callees(&node);
        callees.retain(|callee| callee.total.ns >= options.ns_min);
        let below: Usage = callees.iter().map(|callee| callee.total).sum();
        let own = node.total.less(below);
        let value = match options.unit {
            FoldedUnit::Samples => own.samples,
            FoldedUnit::Microseconds => own.ns / 1000,
        };
        if value > 0 {
            let stack = if stack.is_empty() { NO_STACK } else { &stack };
            writeln!(out, "{stack} {value}")?;
        }
        let mark = walk.mark();
        let callees = callees.into_iter().rev();
        pending.extend(callees.map(|callee| (callee, stack.len(), mark)));
    }
    Ok(())
}

/// Adds a frame to a stack. Separators of frames and lines cannot be part of a name in this format.
fn push_name(stack: &mut String, name: &str) {
    if !stack.is_empty() {
        stack.push(';');
    }
    stack.extend(name.chars().map(|c| match c {
        ';' => ':',
        c if c.is_control() => ' ',
        c => c,
    }));
}

/// As [`write_folded`], all stacks as one text.
pub fn fold(tree: &Tree, unit: FoldedUnit) -> String {
    let mut out = Vec::new();
    // SANITY: a vector takes all bytes, and names are UTF-8.
    let _written = write_folded(tree, FoldedOptions { unit, ns_min: 0 }, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use query::text;

    #[test]
    fn stacks_are_folded() {
        let tree = text::tree(
            "comm=a | main a;b | 3\ncomm=a | main | 1\ncomm=a | main x\u{1}y z | 4\ncomm=a | | 2",
        );
        assert_eq!(
            fold(&tree, FoldedUnit::Samples),
            "[no stack] 2\nmain 1\nmain;x y;z 4\nmain;a:b 3\n"
        );
        assert!(fold(&tree, FoldedUnit::Microseconds).contains("main;a:b 30000\n"));
        assert_eq!(fold(&text::tree(""), FoldedUnit::Samples), "");
    }

    #[test]
    fn small_frames_count_for_their_callers() {
        let tree = text::tree(
            "comm=a | main work deep | 1\ncomm=a | main work | 4\ncomm=a | main rest | 1\ncomm=a | other | 1",
        );
        let fold = |ns_min| {
            let unit = FoldedUnit::Samples;
            let mut out = Vec::new();
            write_folded(&tree, FoldedOptions { unit, ns_min }, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(fold(20_000_000), "[no stack] 1\nmain 1\nmain;work 5\n");
        assert_eq!(fold(10_000_000).lines().count(), 4);
    }
}
