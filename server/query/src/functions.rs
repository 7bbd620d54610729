//! Functions by CPU time: their own, and with their callees.

use super::series::Usage;
use super::tree::{Frame, FrameId, Tree};

/// CPU time of one function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FunctionUsage {
    /// The function.
    pub frame: FrameId,
    /// In the function itself.
    pub own: Usage,
    /// In the function and its callees; a recursive function counts once for each stack.
    pub total: Usage,
}

/// Order of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionOrder {
    /// Time in the function itself.
    Own,
    /// Time in the function and its callees.
    Total,
}

/// The functions of a tree whose name or file contains `search`, ignoring case, most CPU first.
pub fn list_functions(tree: &Tree, order: FunctionOrder, search: &str) -> Vec<FunctionUsage> {
    let mut functions = sum_functions(tree);
    let search = search.to_lowercase();
    if !search.is_empty() {
        functions.retain(|function| {
            let Frame { name, binary, .. } = tree.frames()[function.frame.0 as usize];
            [name, binary]
                .iter()
                .any(|text| tree.string(*text).to_lowercase().contains(&search))
        });
    }
    functions.sort_by(|a, b| {
        let by = |function: &FunctionUsage| match order {
            FunctionOrder::Own => (function.own.ns, function.total.ns),
            FunctionOrder::Total => (function.total.ns, function.own.ns),
        };
        by(b)
            .cmp(&by(a))
            .then_with(|| tree.compare_frames(a.frame, b.frame))
    });
    functions
}

fn sum_functions(tree: &Tree) -> Vec<FunctionUsage> {
    let none = |frame: u32| FunctionUsage {
        frame: FrameId(frame),
        own: Usage::default(),
        total: Usage::default(),
    };
    let mut functions: Vec<_> = (0..tree.frames().len() as u32).map(none).collect();
    let mut depth_of = vec![0_u32; functions.len()];
    let children = tree.unsorted_children();
    // Each node comes up twice: when the walk enters it and when it leaves it.
    let mut pending: Vec<(u32, bool)> = children.of(0).iter().map(|child| (*child, true)).collect();
    while let Some((number, is_entered)) = pending.pop() {
        let node = tree.nodes()[number as usize];
        let depth = &mut depth_of[node.frame.0 as usize];
        if !is_entered {
            *depth -= 1;
            continue;
        }
        *depth += 1;
        let function = &mut functions[node.frame.0 as usize];
        function.own.add(node.own);
        if *depth == 1 {
            function.total.add(node.total);
        }
        pending.push((number, false));
        pending.extend(children.of(number).iter().map(|child| (*child, true)));
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tree;

    fn draw(tree: &Tree, order: FunctionOrder, search: &str) -> Vec<String> {
        let line = |f: &FunctionUsage| {
            let name = tree.string(tree.frames()[f.frame.0 as usize].name);
            format!("{name} {} {}", f.own.samples, f.total.samples)
        };
        list_functions(tree, order, search)
            .iter()
            .map(line)
            .collect()
    }

    #[test]
    fn functions_are_summed_over_all_stacks() {
        let tree = tree(
            "comm=a | main work | 3\ncomm=a | main work read@[kernel] | 4\ncomm=a | other work | 2\ncomm=a | | 1",
        );
        assert_eq!(
            draw(&tree, FunctionOrder::Own, ""),
            ["work 5 9", "read 4 4", "main 0 7", "other 0 2"]
        );
        assert_eq!(
            draw(&tree, FunctionOrder::Total, ""),
            ["work 5 9", "main 0 7", "read 4 4", "other 0 2"]
        );
        assert_eq!(draw(&tree, FunctionOrder::Total, "KERN"), ["read 4 4"]);
    }

    #[test]
    fn a_recursive_function_counts_once_a_stack() {
        let tree = tree("comm=a | main f g f g f | 3\ncomm=a | main f | 2");
        assert_eq!(
            draw(&tree, FunctionOrder::Total, ""),
            ["f 5 5", "main 0 5", "g 0 3"]
        );
    }
}
