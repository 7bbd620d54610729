//! The page's flame graph: a tree in columns, cut to a number of nodes without losing a sample.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use hashbrown::HashMap;
use model::WhyNot;
use model::tables::StringId;
use query::series::Usage;
use query::tree::{FrameId, Node, Tree};

/// Stands in the column `frame` for the root.
pub const ROOT: i32 = -1;

/// Stands in the column `frame` for the children of a node that were cut.
pub const CUT: i32 = -2;

/// A tree in columns, in preorder, siblings with most CPU first.
#[derive(Debug, Default, PartialEq)]
pub struct Graph {
    /// All texts; the first is empty.
    pub strings: Vec<String>,
    /// The frames.
    pub frames: FrameColumns,
    /// The nodes.
    pub nodes: NodeColumns,
    /// Number of nodes without the cut.
    pub node_count: usize,
}

/// Frames; names and files are positions in `strings`.
#[derive(Debug, Default, PartialEq)]
pub struct FrameColumns {
    /// Names.
    pub name: Vec<u32>,
    /// Files that they are in.
    pub binary: Vec<u32>,
    /// Source files.
    pub file: Vec<u32>,
    /// First lines.
    pub line: Vec<i64>,
    /// Kinds.
    pub kind: Vec<u8>,
    /// Of frames without a name, by their position: why, and the build id as a position in `strings`.
    pub why_not: BTreeMap<usize, (WhyNot, u32)>,
}

/// Nodes.
#[derive(Debug, Default, PartialEq)]
pub struct NodeColumns {
    /// Frames from the root.
    pub depth: Vec<u32>,
    /// Position of the frame, [`ROOT`] or [`CUT`].
    pub frame: Vec<i32>,
    /// CPU nanoseconds with all below.
    pub total_ns: Vec<u64>,
    /// CPU nanoseconds of its own.
    pub self_ns: Vec<u64>,
    /// Samples with all below.
    pub samples: Vec<u64>,
    /// Number of hidden nodes of a cut, by its position.
    pub cut: BTreeMap<usize, usize>,
}

/// Lays out a tree, cut to at most `nodes_max` nodes (2 or more).
pub fn lay_out(tree: &Tree, nodes_max: usize) -> Graph {
    let is_kept = choose_nodes(tree, nodes_max);
    let children = tree.children_among(|number| is_kept[number as usize]);
    let cuts = sum_cuts(tree, &is_kept);
    let mut layout = Layout {
        tree,
        graph: Graph::default(),
        strings: HashMap::new(),
        frames: HashMap::new(),
    };
    layout.graph.node_count = tree.nodes().len();
    layout.intern_string(StringId(0));
    let mut pending = vec![Shape::Node(0, 0)];
    while let Some(shape) = pending.pop() {
        let (number, depth) = match shape {
            Shape::Node(number, depth) => (number, depth),
            Shape::Cut(cut, depth) => {
                layout.push_cut(cut, depth);
                continue;
            }
        };
        layout.push_node(number, depth);
        // The cut is drawn last, so it is pushed first.
        let cut = cuts.get(&number);
        pending.extend(cut.map(|cut| Shape::Cut(*cut, depth + 1)));
        let kept = children.of(number).iter().rev();
        pending.extend(kept.map(|child| Shape::Node(*child, depth + 1)));
    }
    layout.graph
}

/// What is drawn, with its depth.
enum Shape {
    Node(u32, u32),
    Cut(Cut, u32),
}

/// The children of a node that are not drawn.
#[derive(Clone, Copy, Default)]
struct Cut {
    usage: Usage,
    /// Nodes, with all below.
    hidden: usize,
}

struct Layout<'a> {
    tree: &'a Tree,
    graph: Graph,
    strings: HashMap<StringId, u32>,
    frames: HashMap<u32, i32>,
}

impl Layout<'_> {
    fn push_node(&mut self, number: u32, depth: u32) {
        let Node {
            frame, own, total, ..
        } = self.tree.nodes()[number as usize];
        let frame = if number == 0 {
            ROOT
        } else {
            self.intern_frame(frame.0)
        };
        let nodes = &mut self.graph.nodes;
        nodes.depth.push(depth);
        nodes.frame.push(frame);
        nodes.total_ns.push(total.ns);
        nodes.self_ns.push(own.ns);
        nodes.samples.push(total.samples);
    }

    fn push_cut(&mut self, Cut { usage, hidden }: Cut, depth: u32) {
        let nodes = &mut self.graph.nodes;
        nodes.cut.insert(nodes.depth.len(), hidden);
        nodes.depth.push(depth);
        nodes.frame.push(CUT);
        nodes.total_ns.push(usage.ns);
        nodes.self_ns.push(usage.ns);
        nodes.samples.push(usage.samples);
    }

    fn intern_frame(&mut self, number: u32) -> i32 {
        if let Some(known) = self.frames.get(&number) {
            return *known;
        }
        let frame = self.tree.frames()[number as usize];
        let (name, binary, file) = (
            self.intern_string(frame.name),
            self.intern_string(frame.binary),
            self.intern_string(frame.file),
        );
        let why_not = self
            .tree
            .why_not(FrameId(number))
            .map(|why| (why.reason, self.intern_string(why.build_id)));
        let frames = &mut self.graph.frames;
        if let Some(why_not) = why_not {
            frames.why_not.insert(frames.name.len(), why_not);
        }
        frames.name.push(name);
        frames.binary.push(binary);
        frames.file.push(file);
        frames.line.push(self.tree.start_line(FrameId(number)));
        frames.kind.push(frame.kind as u8);
        let position = frames.name.len() as i32 - 1;
        self.frames.insert(number, position);
        position
    }

    fn intern_string(&mut self, id: StringId) -> u32 {
        let strings = &mut self.graph.strings;
        *self.strings.entry(id).or_insert_with(|| {
            strings.push(self.tree.string(id).to_owned());
            strings.len() as u32 - 1
        })
    }
}

/// The cut of each kept node that has children which are not kept.
fn sum_cuts(tree: &Tree, is_kept: &[bool]) -> HashMap<u32, Cut> {
    let nodes = tree.nodes();
    let mut cuts: HashMap<u32, Cut> = HashMap::new();
    // A parent of a kept node is kept, so that those below a cut are all hidden.
    let mut sizes = vec![1_u32; nodes.len()];
    for (number, node) in nodes.iter().enumerate().rev() {
        let Node { parent, total, .. } = *node;
        if is_kept[number] {
            continue;
        }
        if is_kept[parent as usize] {
            let cut = cuts.entry(parent).or_default();
            cut.usage.add(total);
            cut.hidden += sizes[number] as usize;
        } else {
            sizes[parent as usize] += sizes[number];
        }
    }
    cuts
}

/// Chooses the nodes with the most CPU, so that they and the nodes for cuts are at most `nodes_max`.
fn choose_nodes(tree: &Tree, nodes_max: usize) -> Vec<bool> {
    let nodes = tree.nodes();
    if nodes.len() <= nodes_max {
        return vec![true; nodes.len()];
    }
    // A parent has at least its child's total and a smaller number, so that it always ranks before it.
    let numbered = nodes.iter().zip(0_u32..);
    let mut by_rank: Vec<(Reverse<u64>, u32)> = numbered
        .map(|(node, number)| (Reverse(node.total.ns), number))
        .collect();
    by_rank.select_nth_unstable(nodes_max);
    by_rank.truncate(nodes_max);
    by_rank.sort_unstable();
    let mut unranked_children = vec![0_u32; nodes.len()];
    for node in &nodes[1..] {
        unranked_children[node.parent as usize] += 1;
    }
    // With the first `kept` of the ranking, a kept node has a cut when its last child is not among them: the number
    // of cuts grows by one with each node that has children, and shrinks with each last child.
    let (mut cuts, mut kept_max) = (0_usize, 1_usize);
    for (rank, (_, number)) in by_rank.iter().enumerate() {
        cuts += usize::from(unranked_children[*number as usize] > 0);
        if rank > 0 {
            let siblings = &mut unranked_children[nodes[*number as usize].parent as usize];
            *siblings -= 1;
            cuts -= usize::from(*siblings == 0);
        }
        if rank + 1 + cuts <= nodes_max {
            kept_max = rank + 1;
        }
    }
    let mut is_kept = vec![false; nodes.len()];
    for (_, number) in &by_rank[..kept_max] {
        is_kept[*number as usize] = true;
    }
    is_kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use query::text::tree;

    /// The graph as indented text: name, total, own.
    fn draw(graph: &Graph) -> String {
        let nodes = &graph.nodes;
        let line = |i: usize| {
            let name = match nodes.frame[i] {
                ROOT => "root".to_owned(),
                CUT => format!("{} cut", nodes.cut[&i]),
                frame => graph.strings[graph.frames.name[frame as usize] as usize].clone(),
            };
            let indent = "  ".repeat(nodes.depth[i] as usize);
            format!(
                "{indent}{name} {} {}\n",
                nodes.total_ns[i] / 10_000_000,
                nodes.self_ns[i] / 10_000_000
            )
        };
        (0..nodes.depth.len()).map(line).collect()
    }

    const TEXT: &str = "
        comm=a | main work deep | 8
        comm=a | main work flat | 4
        comm=a | main rest one | 2
        comm=a | main rest two | 1
        comm=a | other | 3
    ";

    #[test]
    fn a_small_tree_is_whole() {
        let expected = "\
root 18 0
  main 15 0
    work 12 0
      deep 8 8
      flat 4 4
    rest 3 0
      one 2 2
      two 1 1
  other 3 3
";
        let graph = lay_out(&tree(TEXT), 9);
        assert_eq!(draw(&graph), expected);
        assert_eq!((graph.node_count, graph.nodes.depth.len()), (9, 9));
        assert_eq!(graph.strings[0], "");
    }

    #[test]
    fn a_large_tree_is_cut_where_it_is_small() {
        let expected = "\
root 18 0
  main 15 0
    work 12 0
      deep 8 8
      flat 4 4
    rest 3 0
      2 cut 3 3
  other 3 3
";
        assert_eq!(draw(&lay_out(&tree(TEXT), 8)), expected);
        let expected = "\
root 18 0
  main 15 0
    6 cut 15 15
  1 cut 3 3
";
        assert_eq!(draw(&lay_out(&tree(TEXT), 5)), expected);
    }

    #[test]
    fn a_cut_loses_nothing_and_keeps_the_limit() {
        let tree = tree(TEXT);
        for nodes_max in 2..12 {
            let graph = lay_out(&tree, nodes_max);
            assert!(
                graph.nodes.depth.len() <= nodes_max,
                "{nodes_max}:\n{}",
                draw(&graph)
            );
            assert_eq!(
                graph.nodes.self_ns.iter().sum::<u64>(),
                180_000_000,
                "{nodes_max}"
            );
            let shown = graph
                .nodes
                .frame
                .iter()
                .filter(|frame| **frame != CUT)
                .count();
            assert_eq!(
                shown + graph.nodes.cut.values().sum::<usize>(),
                9,
                "{nodes_max}"
            );
        }
    }

    #[test]
    fn an_empty_tree_is_a_root() {
        assert_eq!(draw(&lay_out(&tree(""), 10)), "root 0 0\n");
    }
}
