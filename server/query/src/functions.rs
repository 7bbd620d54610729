//! Functions by CPU time: their own, and with their callees.

use super::frame_table::{Frame, FrameId};
use std::ops::Range;

use super::series::Usage;
use super::tree::{FrameUsage, Tree};

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

/// A part of a list of functions.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionPage {
    /// Functions of the whole list.
    pub count: usize,
    /// Those of the page.
    pub functions: Vec<FunctionUsage>,
}

/// A page of the functions of a tree whose name or file contains `search`, ignoring case, most CPU first.
pub fn list_functions(
    tree: &Tree,
    order: FunctionOrder,
    search: &str,
    page: Range<usize>,
) -> FunctionPage {
    let mut functions = sum_functions(tree);
    let search = search.to_lowercase();
    if !search.is_empty() {
        functions.retain(|function| {
            let Frame { name, binary, .. } = tree.frames().frame(function.frame);
            [name, binary]
                .iter()
                .any(|text| tree.frames().string(*text).to_lowercase().contains(&search))
        });
    }
    let compare = |a: &FunctionUsage, b: &FunctionUsage| {
        let by = |function: &FunctionUsage| match order {
            FunctionOrder::Own => (function.own.ns, function.total.ns),
            FunctionOrder::Total => (function.total.ns, function.own.ns),
        };
        by(b)
            .cmp(&by(a))
            .then_with(|| tree.frames().compare(a.frame, b.frame))
    };
    let count = functions.len();
    let [start, end] = [page.start, page.end].map(|at| at.min(count));
    // Half a million functions of an hour of builds are sorted in a second, and a page of them is chosen in some milliseconds.
    if end < count {
        functions.select_nth_unstable_by(end, compare);
        functions.truncate(end);
    }
    functions.sort_unstable_by(compare);
    FunctionPage {
        count,
        functions: functions.split_off(start),
    }
}

fn sum_functions(tree: &Tree) -> Vec<FunctionUsage> {
    let sums = tree.sum_frames().into_iter().zip(0_u32..);
    let functions = sums.map(|(FrameUsage { own, total }, frame)| FunctionUsage {
        frame: FrameId(frame),
        own,
        total,
    });
    functions
        .filter(|function| function.total != Usage::default())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tree;

    fn draw(tree: &Tree, order: FunctionOrder, search: &str) -> Vec<String> {
        let line = |f: &FunctionUsage| {
            let name = tree.frames().name(f.frame);
            format!("{name} {} {}", f.own.samples, f.total.samples)
        };
        list_functions(tree, order, search, 0..usize::MAX)
            .functions
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
    fn pages_are_parts_of_the_whole_list() {
        let tree = tree("comm=a | a b c | 3\ncomm=a | d e | 3\ncomm=a | f | 9");
        let list = |page| list_functions(&tree, FunctionOrder::Own, "", page);
        let all = list(0..9).functions;
        for page in [0..0, 0..2, 1..4, 5..6, 4..20, 7..8] {
            let found = list(page.clone());
            assert_eq!(found.count, all.len());
            let expected = all.iter().take(page.end).skip(page.start);
            assert!(found.functions.iter().eq(expected), "{page:?}");
        }
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
