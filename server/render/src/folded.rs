//! Folded stacks: `root;child;leaf 12`.

use std::io::{self, Write};

use query::Tree;

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
    let children = tree.children();
    let is_kept = |node: &u32| tree.nodes()[*node as usize].total.ns >= options.ns_min;
    let value = |node: u32| {
        let mut own = tree.nodes()[node as usize].own;
        let below = children.of(node).iter();
        for child in below.filter(|child| !is_kept(child)) {
            own.add(tree.nodes()[*child as usize].total);
        }
        match options.unit {
            FoldedUnit::Samples => own.samples,
            FoldedUnit::Microseconds => own.ns / 1000,
        }
    };
    if value(0) > 0 {
        writeln!(out, "{NO_STACK} {}", value(0))?;
    }
    let mut stack = String::new();
    let mut pending: Vec<(u32, usize)> = children
        .of(0)
        .iter()
        .rev()
        .filter(|child| is_kept(child))
        .map(|child| (*child, 0))
        .collect();
    while let Some((node, stack_length)) = pending.pop() {
        stack.truncate(stack_length);
        if !stack.is_empty() {
            stack.push(';');
        }
        // Separators of frames and lines cannot be part of a name in this format.
        stack.extend(tree.name(node).chars().map(|c| match c {
            ';' => ':',
            c if c.is_control() => ' ',
            c => c,
        }));
        if value(node) > 0 {
            writeln!(out, "{stack} {}", value(node))?;
        }
        pending.extend(
            children
                .of(node)
                .iter()
                .rev()
                .filter(|child| is_kept(child))
                .map(|child| (*child, stack.len())),
        );
    }
    Ok(())
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
