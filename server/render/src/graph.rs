//! The page's flame graph: a tree in columns, cut to a number of nodes without losing a sample.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use hashbrown::HashMap;
use model::tables::StringId;
use model::{Stop, WhyNot};
use query::frame_table::{FrameId, FrameTable};
use query::series::Usage;
use query::tree::{Node, Walk};

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
}

impl Graph {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let texts = self
            .strings
            .iter()
            .map(|text| size_of::<String>() + text.capacity());
        let a_frame = 3 * size_of::<u32>() + size_of::<i64>() + 1;
        let a_node = size_of::<u32>() + size_of::<i32>() + 3 * size_of::<u64>();
        texts.sum::<usize>()
            + a_frame * self.frames.name.capacity()
            + a_node * self.nodes.depth.capacity()
    }
}

/// Calls that are chosen between two looks at the memory for them and at the question: they add 1 MB or less, usually.
const CALLS_A_CHECK: usize = 4096;

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
    /// Number of callees that a cut stands for, by its position.
    pub cut: BTreeMap<usize, u32>,
}

/// Lays out the tree below a node, cut to at most `nodes_max` nodes (2 or more).
///
/// # Errors
/// The question was stopped.
pub fn lay_out(mut walk: Walk<'_>, root: Node, nodes_max: usize) -> Result<Graph, Stop> {
    let tree = walk.tree();
    let shown = choose_calls(&mut walk, root, nodes_max)?;
    // Callees are behind their callers, those of one caller in the order in which they are drawn.
    let mut first_callee = vec![0_u32; shown.len() + 1];
    for call in shown.iter().skip(1) {
        first_callee[call.caller as usize + 1] += 1;
    }
    for at in 1..first_callee.len() {
        first_callee[at] += first_callee[at - 1];
    }
    let mut next = first_callee.clone();
    let mut callees = vec![0_u32; shown.len()];
    for (number, call) in shown.iter().enumerate().skip(1) {
        let place = &mut next[call.caller as usize];
        callees[*place as usize] = number as u32;
        *place += 1;
    }
    let mut layout = Layout {
        table: tree.frames(),
        graph: Graph::default(),
        strings: HashMap::new(),
        frames: HashMap::new(),
    };
    layout.intern_string(StringId(0));
    let mut pending = vec![Shape::Call(0, 0)];
    while let Some(shape) = pending.pop() {
        match shape {
            Shape::Call(number, depth) => {
                let call = &shown[number as usize];
                layout.push_call(call, depth);
                // The cut is drawn last, so it is pushed first.
                if call.hidden.callees > 0 {
                    pending.push(Shape::Cut(call.hidden, depth + 1));
                }
                let [start, end] =
                    [number, number + 1].map(|at| first_callee[at as usize] as usize);
                let below = callees[start..end].iter().rev();
                pending.extend(below.map(|callee| Shape::Call(*callee, depth + 1)));
            }
            Shape::Cut(hidden, depth) => layout.push_cut(hidden, depth),
        }
    }
    Ok(layout.graph)
}

/// What is drawn, with its depth.
enum Shape {
    Call(u32, u32),
    Cut(Hidden, u32),
}

/// A call that is drawn.
struct Call {
    /// The position of its caller, which is before it. The root is its own.
    caller: u32,
    frame: Option<FrameId>,
    total: Usage,
    own: Usage,
    hidden: Hidden,
}

/// The callees of a call that are not drawn.
#[derive(Clone, Copy, Default)]
struct Hidden {
    callees: u32,
    usage: Usage,
}

struct Layout<'a> {
    table: &'a FrameTable,
    graph: Graph,
    strings: HashMap<StringId, u32>,
    frames: HashMap<FrameId, i32>,
}

impl Layout<'_> {
    fn push_call(&mut self, call: &Call, depth: u32) {
        let frame = call.frame.map_or(ROOT, |frame| self.intern_frame(frame));
        let nodes = &mut self.graph.nodes;
        nodes.depth.push(depth);
        nodes.frame.push(frame);
        nodes.total_ns.push(call.total.ns);
        nodes.self_ns.push(call.own.ns);
        nodes.samples.push(call.total.samples);
    }

    fn push_cut(&mut self, Hidden { callees, usage }: Hidden, depth: u32) {
        let nodes = &mut self.graph.nodes;
        nodes.cut.insert(nodes.depth.len(), callees);
        nodes.depth.push(depth);
        nodes.frame.push(CUT);
        nodes.total_ns.push(usage.ns);
        nodes.self_ns.push(usage.ns);
        nodes.samples.push(usage.samples);
    }

    fn intern_frame(&mut self, id: FrameId) -> i32 {
        if let Some(known) = self.frames.get(&id) {
            return *known;
        }
        let frame = self.table.frame(id);
        let (name, binary, file) = (
            self.intern_string(frame.name),
            self.intern_string(frame.binary),
            self.intern_string(frame.file),
        );
        let why_not = self
            .table
            .why_not(id)
            .map(|why| (why.reason, self.intern_string(why.build_id)));
        let frames = &mut self.graph.frames;
        if let Some(why_not) = why_not {
            frames.why_not.insert(frames.name.len(), why_not);
        }
        frames.name.push(name);
        frames.binary.push(binary);
        frames.file.push(file);
        frames.line.push(self.table.start_line(id));
        frames.kind.push(frame.kind as u8);
        let position = frames.name.len() as i32 - 1;
        self.frames.insert(id, position);
        position
    }

    fn intern_string(&mut self, id: StringId) -> u32 {
        let strings = &mut self.graph.strings;
        *self.strings.entry(id).or_insert_with(|| {
            strings.push(self.table.string(id).to_owned());
            strings.len() as u32 - 1
        })
    }
}

/// The calls that were found, each with the position of its caller, and the order in which they are taken.
struct Candidates {
    found: Vec<(Node, u32)>,
    order: Order,
}

enum Order {
    /// As they were found, callers before their callees. The number of those that were taken.
    Found(usize),
    /// Those with the most CPU first; of equal ones, the one that was found first.
    Cpu(BinaryHeap<(u64, Reverse<u32>)>),
}

impl Candidates {
    fn new(order: Order) -> Self {
        let found = Vec::new();
        Self { found, order }
    }

    fn push(&mut self, node: Node, caller: u32) {
        if let Order::Cpu(left) = &mut self.order {
            left.push((node.total.ns, Reverse(self.found.len() as u32)));
        }
        self.found.push((node, caller));
    }

    fn pop(&mut self) -> Option<(Node, u32)> {
        let at = match &mut self.order {
            Order::Found(taken) => {
                *taken += 1;
                *taken - 1
            }
            Order::Cpu(left) => left.pop()?.1.0 as usize,
        };
        self.found.get(at).cloned()
    }

    /// Forgets those with the least CPU, of which no more than `count` will be taken.
    fn keep(&mut self, count: usize) {
        let Order::Cpu(left) = &mut self.order else {
            return;
        };
        if left.len() <= 2 * count {
            return;
        }
        let mut all = std::mem::take(left).into_vec();
        if let Some(last) = count.checked_sub(1) {
            all.select_nth_unstable_by(last, |a, b| b.cmp(a));
        }
        all.truncate(count);
        *left = all.into();
    }

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize {
        let left = match &self.order {
            Order::Found(_) => 0,
            Order::Cpu(left) => left.capacity(),
        };
        size_of::<(Node, u32)>() * self.found.capacity() + size_of::<(u64, Reverse<u32>)>() * left
    }
}

/// Chooses the calls with the most CPU, so that they and the nodes for cuts are at most `nodes_max`.
///
/// No call has more CPU than its caller, so callees are looked for when their caller is chosen, and not before.
fn choose_calls(walk: &mut Walk<'_>, root: Node, nodes_max: usize) -> Result<Vec<Call>, Stop> {
    let mut charge = walk.tree().charge();
    // If all are kept, there is nothing to choose.
    let mut candidates = Candidates::new(if walk.tree().is_surely_within(nodes_max) {
        Order::Found(0)
    } else {
        Order::Cpu(BinaryHeap::new())
    });
    candidates.push(root, 0);
    let mut calls: Vec<Call> = Vec::new();
    // A chosen call has a cut until its last callee is chosen too.
    let (mut cuts, mut kept) = (0_usize, 1_usize);
    while calls.len() < nodes_max
        && let Some((node, caller)) = candidates.pop()
    {
        if calls.len().is_multiple_of(CALLS_A_CHECK) {
            let bytes = candidates.heap_bytes() + size_of::<Call>() * calls.capacity();
            charge.set(walk.heap_bytes() + bytes)?;
        }
        if let Some(caller) = calls.get_mut(caller as usize) {
            caller.hidden.callees -= 1;
            caller.hidden.usage = caller.hidden.usage.less(node.total);
            cuts -= usize::from(caller.hidden.callees == 0);
        }
        let number = calls.len() as u32;
        let callees = walk.callees(&node);
        let mut hidden = Hidden {
            callees: callees.len() as u32,
            usage: Usage::default(),
        };
        for callee in callees {
            hidden.usage.add(callee.total);
            candidates.push(callee, number);
        }
        cuts += usize::from(hidden.callees > 0);
        calls.push(Call {
            caller,
            frame: node.frame,
            total: node.total,
            own: node.total.less(hidden.usage),
            hidden,
        });
        if calls.len() + cuts <= nodes_max {
            kept = calls.len();
        }
        candidates.keep(nodes_max - calls.len());
    }
    for call in calls.split_off(kept) {
        if let Some(caller) = calls.get_mut(call.caller as usize) {
            caller.hidden.callees += 1;
            caller.hidden.usage.add(call.total);
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use query::text::tree;
    use query::tree::Tree;

    fn lay_out(tree: &Tree, nodes_max: usize) -> Graph {
        let walk = tree.walk();
        let root = walk.root();
        super::lay_out(walk, root, nodes_max).unwrap()
    }

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
        assert_eq!(graph.nodes.depth.len(), 9);
        assert_eq!(lay_out(&tree(TEXT), 100), graph);
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
    2 cut 15 15
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
            let is_cut = !graph.nodes.cut.is_empty();
            assert_eq!(is_cut, nodes_max < 9, "{nodes_max}");
        }
    }

    #[test]
    fn an_empty_tree_is_a_root() {
        assert_eq!(draw(&lay_out(&tree(""), 10)), "root 0 0\n");
    }
}
