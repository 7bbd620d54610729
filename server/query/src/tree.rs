//! One tree of calls from the samples of many windows.
//!
//! Samples are first summed by the number of their stack within the tables that the store shows; then each stack is
//! merged once into the tree, by the names of its frames.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use model::outcome::{OUTCOME_TAG, is_complete};
use model::tables::{StringId, TagSetId};
use model::{Charge, ChildIndex, Dictionary, NamedTables, Tables, WhyNot};
use store::StoreError;

use super::frame_names::LocationFrames;
use super::profiles::{NamedSums, Profiles};
use super::selector::Selector;
use super::series::Usage;

/// Stacks that are merged between two looks at the memory of the tree and at the question: they add 1 MB or less, usually.
const STACKS_A_CHECK: usize = 4096;

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameKind {
    /// Compiled user code.
    Native = 0,
    /// The kernel.
    Kernel = 1,
    /// User code that was inlined into its caller.
    Inlined = 2,
    /// Code without a name.
    Unnamed = 3,
}

/// Identity of a frame. The line is no part of it: calls from two lines of a function are one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Name of the function.
    pub name: StringId,
    /// The file that it is in.
    pub binary: StringId,
    /// Its source file.
    pub file: StringId,
    /// Its kind.
    pub kind: FrameKind,
}

/// Number of a frame in its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId(pub u32);

/// The reason for which a frame has no name, and the build id to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The reason.
    pub reason: WhyNot,
    /// The file's build id, empty if it has none.
    pub build_id: StringId,
}

/// A call. Its parent has a smaller number.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The caller; the root is its own parent.
    pub parent: u32,
    /// The frame; not meaningful for the root.
    pub frame: FrameId,
    /// Samples in the frame itself.
    pub own: Usage,
    /// Samples in it and its callees.
    pub total: Usage,
}

/// A tree of calls. Node 0 is the root.
pub struct Tree {
    pub(super) strings: Dictionary,
    frames: Vec<Frame>,
    start_lines: Vec<i64>,
    why_not: BTreeMap<FrameId, Unknown>,
    frame_index: HashTable<u32>,
    nodes: Vec<Node>,
    child_index: ChildIndex,
    hasher: DefaultHashBuilder,
    charge: Charge,
    /// Samples by outcome, where the outcome is known.
    pub outcomes: BTreeMap<String, Usage>,
    /// Samples with a complete stack, or without a user stack.
    pub complete: Usage,
    /// Samples without a user stack.
    pub kernel_only: Usage,
}

/// Children of nodes.
pub struct Children {
    starts: Vec<u32>,
    list: Vec<u32>,
}

impl Children {
    fn new(nodes: &[Node], is_included: impl Fn(u32) -> bool) -> Self {
        let mut starts = vec![0_u32; nodes.len() + 1];
        let included = || (1..nodes.len() as u32).filter(|number| is_included(*number));
        for number in included() {
            starts[nodes[number as usize].parent as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut ends = starts.clone();
        let mut list = vec![0_u32; starts[nodes.len()] as usize];
        for number in included() {
            let end = &mut ends[nodes[number as usize].parent as usize];
            list[*end as usize] = number;
            *end += 1;
        }
        Self { starts, list }
    }

    fn sort(&mut self, mut compare: impl FnMut(&u32, &u32) -> Ordering) {
        for ends in self.starts.windows(2) {
            let siblings = &mut self.list[ends[0] as usize..ends[1] as usize];
            if siblings.len() > 1 {
                siblings.sort_unstable_by(&mut compare);
            }
        }
    }

    /// The children of a node.
    pub fn of(&self, node: u32) -> &[u32] {
        &self.list[self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize]
    }
}

/// Makes the tree of a selection.
///
/// # Errors
/// The store failed.
pub fn build_tree(profiles: Profiles<'_>, selector: &Selector) -> Result<Tree, StoreError> {
    let series = selector.find_series(profiles.snapshot())?;
    let mut tree = Tree::new();
    tree.charge = profiles.snapshot().question().charge(0)?;
    profiles.sum_stacks(&series, &mut |part| tree.add_part(part))?;
    tree.sum_totals();
    Ok(tree)
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Node {
            parent: 0,
            frame: FrameId(0),
            own: Usage::default(),
            total: Usage::default(),
        };
        Self {
            strings: Dictionary::default(),
            frames: Vec::new(),
            start_lines: Vec::new(),
            why_not: BTreeMap::new(),
            frame_index: HashTable::new(),
            nodes: vec![root],
            child_index: ChildIndex::default(),
            hasher: DefaultHashBuilder::default(),
            charge: Charge::default(),
            outcomes: BTreeMap::new(),
            complete: Usage::default(),
            kernel_only: Usage::default(),
        }
    }

    /// An empty charge on the account of the question that the tree is for.
    pub fn charge(&self) -> Charge {
        self.charge.another()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        // An entry of an index has four bytes and one of control.
        self.strings.heap_bytes()
            + (size_of::<Frame>() + size_of::<i64>()) * self.frames.capacity()
            + size_of::<(FrameId, Unknown)>() * self.why_not.len()
            + size_of::<Node>() * self.nodes.capacity()
            + 5 * self.frame_index.capacity()
            + self.child_index.heap_bytes()
    }

    /// The nodes, parents before their children.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The frames.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The text of a string's number.
    pub fn string(&self, id: StringId) -> &str {
        self.strings.tables().string(id)
    }

    /// The name of a node's frame.
    pub fn name(&self, node: u32) -> &str {
        self.string(self.frames[self.nodes[node as usize].frame.0 as usize].name)
    }

    /// The first line of a frame's function, 0 if it is not known.
    pub fn start_line(&self, frame: FrameId) -> i64 {
        self.start_lines[frame.0 as usize]
    }

    /// The reason for which a frame has no name; `None` for a named frame.
    pub fn why_not(&self, frame: FrameId) -> Option<Unknown> {
        self.why_not.get(&frame).copied()
    }

    /// Samples whose innermost frame has no name, and those that have such a frame anywhere.
    pub fn sum_unnamed(&self) -> (Usage, Usage) {
        let (mut own, mut total) = (Usage::default(), Usage::default());
        let is_unnamed =
            |node: &Node| self.frames[node.frame.0 as usize].kind == FrameKind::Unnamed;
        // For each node, whether it or one of its callers has no name.
        let mut is_below = vec![false; self.nodes.len()];
        for (number, node) in self.nodes.iter().enumerate().skip(1) {
            let above = is_below[node.parent as usize];
            is_below[number] = above || is_unnamed(node);
            if is_unnamed(node) {
                own.add(node.own);
            }
            if is_below[number] && !above {
                total.add(node.total);
            }
        }
        (own, total)
    }

    /// The sum of all samples.
    pub fn total(&self) -> Usage {
        self.nodes[0].total
    }

    /// Finds the children of nodes, in the order of all answers: most CPU first, then by name.
    pub fn children(&self) -> Children {
        self.children_among(|_| true)
    }

    /// As [`Self::children`], of some of the nodes.
    pub fn children_among(&self, is_included: impl Fn(u32) -> bool) -> Children {
        let mut children = Children::new(&self.nodes, is_included);
        children.sort(|a, b| self.compare(*a, *b));
        children
    }

    /// As [`Self::children`], in any order.
    pub fn unsorted_children(&self) -> Children {
        Children::new(&self.nodes, |_| true)
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (&self.nodes[a as usize], &self.nodes[b as usize]);
        b.total
            .ns
            .cmp(&a.total.ns)
            .then_with(|| self.compare_frames(a.frame, b.frame))
    }

    /// The order of frames by their texts, which does not depend on their numbers.
    pub fn compare_frames(&self, a: FrameId, b: FrameId) -> Ordering {
        let said = |id: FrameId| {
            let Frame {
                name,
                binary,
                file,
                kind,
            } = self.frames[id.0 as usize];
            (
                self.string(name),
                self.string(binary),
                self.string(file),
                kind,
            )
        };
        said(a).cmp(&said(b))
    }

    /// The tree below a path of frame names from the root; its root stands for the last name. `None` if no stack
    /// begins with the path.
    pub fn subtree(&self, path: &[String]) -> Option<Self> {
        let children = self.children();
        let mut roots = vec![0_u32];
        for name in path {
            let named = |node: &u32| self.name(*node) == name;
            roots = roots
                .iter()
                .flat_map(|root| children.of(*root))
                .copied()
                .filter(named)
                .collect();
        }
        if roots.is_empty() {
            return None;
        }
        let mut tree = Self::new();
        tree.charge = self.charge.another();
        // It is no larger than this tree. Without memory for it the question is stopped.
        tree.charge.set(self.heap_bytes()).ok()?;
        // Frames of the same name in different files are different nodes; their subtrees are merged.
        let mut pending: Vec<(u32, u32)> = roots.into_iter().map(|root| (root, 0)).collect();
        while let Some((from, to)) = pending.pop() {
            tree.nodes[to as usize]
                .own
                .add(self.nodes[from as usize].own);
            for child in children.of(from) {
                let frame = self.nodes[*child as usize].frame;
                let copy = tree.copy_frame(self, frame);
                pending.push((*child, tree.descend(to, copy)));
            }
        }
        tree.sum_totals();
        Some(tree)
    }

    fn copy_frame(&mut self, from: &Self, id: FrameId) -> FrameId {
        let Frame {
            name,
            binary,
            file,
            kind,
        } = from.frames[id.0 as usize];
        let line = from.start_line(id);
        let name = self.strings.intern_string(from.string(name));
        let binary = self.strings.intern_string(from.string(binary));
        let file = self.strings.intern_string(from.string(file));
        let copy = self.intern_frame(
            Frame {
                name,
                binary,
                file,
                kind,
            },
            line,
        );
        if let Some(Unknown { reason, build_id }) = from.why_not(id) {
            self.note_why_not(copy, reason, from.string(build_id));
        }
        copy
    }

    /// Keeps the reason for which a frame has no name. Files of one path can have several build ids: the kept one
    /// does not depend on the order of the windows.
    pub(super) fn note_why_not(&mut self, frame: FrameId, reason: WhyNot, build_id: &str) {
        let known = self
            .why_not(frame)
            .map(|known| (self.string(known.build_id), known.reason));
        if known.is_none_or(|known| (build_id, reason) < known) {
            let build_id = self.strings.intern_string(build_id);
            self.why_not.insert(frame, Unknown { reason, build_id });
        }
    }

    /// Adds samples.
    pub(crate) fn add_part(&mut self, part: &NamedSums<'_>) {
        let tables = part.tables;
        let in_user: Vec<bool> = tables
            .outermost_user_frames()
            .iter()
            .map(Option::is_some)
            .collect();
        let mut by_stack = vec![Usage::default(); tables.stacks.len()];
        let mut by_tags = vec![[Usage::default(); 2]; tables.tag_set_count()];
        for sum in part.sums {
            let usage = Usage::from(sum);
            by_stack[sum.stack.position()].add(usage);
            by_tags[sum.tags.position()][usize::from(in_user[sum.stack.position()])].add(usage);
        }
        self.add_outcomes(&tables, &by_tags);
        self.add_stacks(tables, &by_stack);
        self.make_room();
    }

    /// Adds the samples of each tag set, without and with a user stack.
    fn add_outcomes(&mut self, tables: &Tables, by_tags: &[[Usage; 2]]) {
        for (number, [kernel, user]) in by_tags.iter().enumerate() {
            let mut usage = *kernel;
            usage.add(*user);
            if usage == Usage::default() {
                continue;
            }
            let outcome = tables.tag_text(TagSetId(number as u32), OUTCOME_TAG);
            if is_complete(outcome) {
                self.complete.add(usage);
            }
            match outcome {
                "" => self.kernel_only.add(*kernel),
                outcome => self
                    .outcomes
                    .entry(outcome.to_owned())
                    .or_default()
                    .add(usage),
            }
        }
    }

    /// Merges stacks into the tree. Only sampled stacks and their callers make nodes.
    fn add_stacks(&mut self, tables: NamedTables<'_>, by_stack: &[Usage]) {
        let mut used: Vec<bool> = by_stack
            .iter()
            .map(|usage| *usage != Usage::default())
            .collect();
        for stack in (1..used.len()).rev() {
            if used[stack] {
                used[tables.stacks[stack].parent.position()] = true;
            }
        }
        if self.nodes.len() == 1 {
            // Nearly each of the first stacks is a node. Memory that is not touched is none until it is charged here.
            self.nodes.reserve_exact(used.len());
            self.child_index.reserve(used.len());
            if !self.make_room() {
                return;
            }
        }
        let mut frames = LocationFrames::new(&tables);
        let mut node_of = vec![0_u32; by_stack.len()];
        self.nodes[0].own.add(by_stack[0]);
        for stack in (1..used.len()).filter(|stack| used[*stack]) {
            if stack.is_multiple_of(STACKS_A_CHECK) && !self.make_room() {
                return;
            }
            let entry = tables.stacks[stack];
            let mut node = node_of[entry.parent.position()];
            for at in frames.of(self, tables, entry.location) {
                node = self.descend(node, frames.list[at]);
            }
            node_of[stack] = node;
            self.nodes[node as usize].own.add(by_stack[stack]);
        }
    }

    /// Takes memory for what the tree has. False if there is none: the question is stopped, and the tree lacks stacks.
    fn make_room(&mut self) -> bool {
        let bytes = self.heap_bytes();
        self.charge.set(bytes).is_ok()
    }

    /// Finds or adds the child of a node with a frame.
    #[inline]
    fn descend(&mut self, parent: u32, frame: FrameId) -> u32 {
        let number = self.child_index.find_or_add(parent, frame.0);
        if number as usize == self.nodes.len() {
            self.nodes.push(Node {
                parent,
                frame,
                own: Usage::default(),
                total: Usage::default(),
            });
        }
        number
    }

    pub(super) fn intern_frame(&mut self, frame: Frame, start_line: i64) -> FrameId {
        let Self {
            frames,
            frame_index,
            hasher,
            start_lines,
            ..
        } = self;
        let hash = hasher.hash_one(frame);
        if let Some(found) = frame_index.find(hash, |&n| frames[n as usize] == frame) {
            let known = &mut start_lines[*found as usize];
            // Two functions of one name in one file: the smaller line, whatever the order.
            if *known == 0 || start_line != 0 && start_line < *known {
                *known = start_line;
            }
            return FrameId(*found);
        }
        frames.push(frame);
        start_lines.push(start_line);
        let number = frames.len() as u32 - 1;
        frame_index.insert_unique(hash, number, |&n| hasher.hash_one(frames[n as usize]));
        FrameId(number)
    }

    pub(crate) fn sum_totals(&mut self) {
        for node in &mut self.nodes {
            node.total = node.own;
        }
        for number in (1..self.nodes.len()).rev() {
            let Node { parent, total, .. } = self.nodes[number];
            self.nodes[parent as usize].total.add(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tree;
    use model::UnnamedReason;

    /// The tree as indented text: name, kind unless native, total and own samples.
    fn draw(tree: &Tree) -> String {
        let children = tree.children();
        let mut pending: Vec<_> = children
            .of(0)
            .iter()
            .rev()
            .map(|child| (*child, 0))
            .collect();
        let mut drawn = String::new();
        while let Some((node, depth)) = pending.pop() {
            pending.extend(
                children
                    .of(node)
                    .iter()
                    .rev()
                    .map(|child| (*child, depth + 1)),
            );
            let Node {
                frame, own, total, ..
            } = tree.nodes()[node as usize];
            let kind = match tree.frames()[frame.0 as usize].kind {
                FrameKind::Native => String::new(),
                other => format!(" {other:?}"),
            };
            let indent = "  ".repeat(depth);
            drawn += &format!(
                "{indent}{}{kind} {} {}\n",
                tree.name(node),
                total.samples,
                own.samples
            );
        }
        drawn
    }

    #[test]
    fn stacks_are_merged() {
        let tree = tree(
            "comm=a | main work read@[kernel] | 3
             comm=a | main work | 1
             comm=b | main outer>inner | 2
             comm=b | main 0x1f@/lib/libb.so 0x20 | 7
             comm=b | idle | 5",
        );
        let expected = "\
main 13 0
  libb.so+0x1f Unnamed 7 0
    [no symbol] Unnamed 7 7
  work 4 1
    read Kernel 3 3
  outer 2 0
    inner Inlined 2 2
idle 5 5
";
        assert_eq!(draw(&tree), expected);
        assert_eq!(
            tree.total(),
            Usage {
                samples: 18,
                ns: 180_000_000
            }
        );
    }

    #[test]
    fn a_frame_of_another_file_is_another_frame() {
        let tree = tree("comm=a | main work@/a | 1\ncomm=a | main work@/b | 1");
        assert_eq!(draw(&tree), "main 2 0\n  work 1 1\n  work 1 1\n");
    }

    #[test]
    fn an_unnamed_frame_has_a_reason() {
        let tree = tree("comm=a | main 0x1f@/lib/libb.so 0x20 | 7");
        let said = |frame: FrameId| {
            let why = tree.why_not(frame)?;
            Some((why.reason, tree.string(why.build_id)))
        };
        let all: Vec<_> = (0..3).map(|frame| said(FrameId(frame))).collect();
        let (named, bare) = (
            Some((WhyNot::Told(UnnamedReason::NoSymbol), "00ff")),
            Some((WhyNot::Told(UnnamedReason::NoSymbol), "")),
        );
        assert_eq!(all, [None, named, bare]);
        assert_eq!(tree.sum_unnamed().1.samples, 7);
        let below = tree.subtree(&["main".to_owned()]).unwrap();
        let why = below.why_not(FrameId(0)).unwrap();
        assert_eq!((why.reason, below.string(why.build_id)), named.unwrap());
    }

    #[test]
    fn addresses_of_one_function_without_a_name_are_one_frame() {
        let tree = tree(
            "comm=a | main 0x10+0x2@/lib/b.so 0x10+0x0@/lib/b.so | 1
             comm=a | main 0x10+0xf@/lib/b.so | 2
             comm=a | main 0x1f@/lib/b.so | 4",
        );
        assert_eq!(
            draw(&tree),
            "main 7 0\n  b.so+0x1f Unnamed 4 4\n  b.so+0x10 Unnamed 3 2\n    b.so+0x10 Unnamed 1 1\n"
        );
    }

    #[test]
    fn outcomes_are_counted_apart() {
        let tree = tree(
            "comm=a | main | 3 | thread=x
             comm=a | main | 2 | thread=x outcome=truncated
             comm=a | main | 4 | outcome=truncated
             comm=a | main | 5 | outcome=copied
             comm=a | main | 6 | outcome=middle_left_out
             comm=a | main read@[kernel] | 7
             comm=a | kthread@[kernel] work@[kernel] | 8
             comm=a | kthread@[kernel] | 9 | outcome=unreadable
             comm=a | | 1",
        );
        assert_eq!(tree.complete.samples, 3 + 5 + 6 + 7 + 8 + 1);
        assert_eq!(tree.kernel_only.samples, 8 + 1);
        assert_eq!(tree.outcomes["truncated"].samples, 6);
        assert_eq!(tree.outcomes["copied"].samples, 5);
        assert_eq!(tree.outcomes["unreadable"].samples, 9);
        assert_eq!(tree.total().samples, 45);
        assert_eq!(tree.nodes()[0].own.samples, 1);
    }

    #[test]
    fn a_subtree_lies_below_a_path() {
        let tree = tree(
            "comm=a | main work deep | 3\ncomm=a | main work@/b deep | 2\ncomm=a | other work | 9",
        );
        let path = |names: &[&str]| {
            names
                .iter()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            draw(&tree.subtree(&path(&["main", "work"])).unwrap()),
            "deep 5 5\n"
        );
        assert_eq!(tree.subtree(&path(&[])).unwrap().total().samples, 14);
        assert!(tree.subtree(&path(&["work"])).is_none());
    }
}
