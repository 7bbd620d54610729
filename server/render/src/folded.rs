//! Folded stacks: `root;child;leaf 12`.

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

/// Writes a line for each stack that has samples, the one with most CPU first at each branch.
pub fn fold(tree: &Tree, unit: FoldedUnit) -> String {
    let value = |node: u32| {
        let own = tree.nodes()[node as usize].own;
        match unit {
            FoldedUnit::Samples => own.samples,
            FoldedUnit::Microseconds => own.ns / 1000,
        }
    };
    let mut out = String::new();
    if value(0) > 0 {
        out += &format!("{NO_STACK} {}\n", value(0));
    }
    let children = tree.children();
    let mut stack = String::new();
    let mut pending: Vec<(u32, usize)> = children
        .of(0)
        .iter()
        .rev()
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
            out += &format!("{stack} {}\n", value(node));
        }
        pending.extend(
            children
                .of(node)
                .iter()
                .rev()
                .map(|child| (*child, stack.len())),
        );
    }
    out
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
}
