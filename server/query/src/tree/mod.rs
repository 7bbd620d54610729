//! One tree of calls from the samples of many windows.
//!
//! Each part of the store, such as a segment, has stacks of its own, of which millions are small, and differ from those of other parts.
//! So the stacks of parts stay apart, in the order of a walk and with sums, 24 bytes each; a [`Walk`] merges them by the names of their
//! frames, from the root on and only as far as somebody looks. What an answer leaves out costs nothing but its sums.

mod part;
mod walk;

use std::collections::BTreeMap;

use model::outcome::{OUTCOME_TAG, is_complete};
use model::tables::TagSetId;
use model::{Charge, Tables};
use store::StoreError;

use self::part::Part;
pub use self::walk::{Node, Walk};
use super::frame_table::{FrameId, FrameKind, FrameTable};
use super::profiles::{NamedSums, Profiles};
use super::selector::Selector;
use super::series::Usage;

/// A frame of a stack of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    part: u32,
    entry: u32,
    /// The position of the frame among those of the stack's location, the outermost first.
    depth: u32,
}

/// Samples of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameUsage {
    /// Of stacks in which it is the innermost one.
    pub own: Usage,
    /// Of stacks that have it, however often.
    pub total: Usage,
}

/// A tree of calls.
#[derive(Default)]
pub struct Tree {
    frames: FrameTable,
    parts: Vec<Part>,
    charge: Charge,
    /// Samples by outcome, where the outcome is known.
    pub outcomes: BTreeMap<String, Usage>,
    /// Samples with a complete stack, or without a user stack.
    pub complete: Usage,
    /// Samples without a user stack.
    pub kernel_only: Usage,
}

/// Makes the tree of a selection.
///
/// # Errors
/// The store failed.
pub fn build_tree(profiles: Profiles<'_>, selector: &Selector) -> Result<Tree, StoreError> {
    let series = selector.find_series(profiles.snapshot())?;
    let mut tree = Tree {
        charge: profiles.snapshot().question().charge(0)?,
        ..Tree::default()
    };
    profiles.sum_stacks(&series, &mut |part| tree.add_part(part))?;
    Ok(tree)
}

impl Tree {
    /// An empty charge on the account of the question that the tree is for.
    pub fn charge(&self) -> Charge {
        self.charge.another()
    }

    /// The frames.
    pub fn frames(&self) -> &FrameTable {
        &self.frames
    }

    /// A walk over the merged stacks.
    pub fn walk(&self) -> Walk<'_> {
        Walk::new(self)
    }

    /// Whether the merged stacks have at most so many nodes, as far as that is seen without merging them.
    pub fn is_surely_within(&self, nodes_max: usize) -> bool {
        let entries = |part: &Part| part.entry_count() as usize;
        self.parts.iter().map(entries).sum::<usize>() <= nodes_max
            && self.parts.iter().map(Part::count_frames).sum::<usize>() < nodes_max
    }

    /// The sum of all samples.
    pub fn total(&self) -> Usage {
        self.parts.iter().map(|part| part.total(0)).sum()
    }

    /// Samples whose innermost frame has no name, and those that have such a frame anywhere.
    pub fn sum_unnamed(&self) -> (Usage, Usage) {
        let (mut own, mut total) = (Usage::default(), Usage::default());
        let is_unnamed = |frame: &FrameId| self.frames.frame(*frame).kind == FrameKind::Unnamed;
        for part in &self.parts {
            let mut counted_until = 0;
            for entry in 1..part.entry_count() {
                let of_entry = part.total(entry);
                if of_entry == Usage::default() {
                    continue;
                }
                let frames = part.frames(entry);
                if entry >= counted_until && frames.iter().any(is_unnamed) {
                    total.add(of_entry);
                    counted_until = part.end(entry);
                }
                if frames.last().is_some_and(is_unnamed) {
                    own.add(part.own(entry));
                }
            }
        }
        (own, total)
    }

    /// The samples of each frame, by number.
    pub fn sum_frames(&self) -> Vec<FrameUsage> {
        let mut sums = vec![FrameUsage::default(); self.frames.frames().len()];
        for part in &self.parts {
            part.add_to_frames(&mut sums);
        }
        sums
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
        let part = Part::new(tables, &by_stack, &mut self.frames);
        self.parts.push(part);
        // If there is no memory for it, the question is stopped.
        let _stopped = self.charge.set(self.heap_bytes());
    }

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize {
        let parts = self.parts.iter().map(Part::heap_bytes);
        self.frames.heap_bytes() + parts.sum::<usize>()
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tree;
    use model::{UnnamedReason, WhyNot};

    /// The tree below a path as indented text: name, kind unless native, total and own samples.
    fn draw_below(tree: &Tree, path: &[String]) -> Option<String> {
        let mut walk = tree.walk();
        let root = walk.find(path)?;
        let mut pending: Vec<_> = walk
            .callees(&root)
            .into_iter()
            .rev()
            .map(|node| (node, 0))
            .collect();
        let mut drawn = String::new();
        while let Some((node, depth)) = pending.pop() {
            let callees = walk.callees(&node);
            let below: u64 = callees.iter().map(|callee| callee.total.samples).sum();
            let frame = tree.frames().frame(node.frame.unwrap());
            let kind = match frame.kind {
                FrameKind::Native => String::new(),
                other => format!(" {other:?}"),
            };
            let (indent, name) = ("  ".repeat(depth), tree.frames().string(frame.name));
            let total = node.total.samples;
            drawn += &format!("{indent}{name}{kind} {total} {}\n", total - below);
            pending.extend(callees.into_iter().rev().map(|callee| (callee, depth + 1)));
        }
        Some(drawn)
    }

    fn draw(tree: &Tree) -> String {
        draw_below(tree, &[]).unwrap()
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
            let why = tree.frames().why_not(frame)?;
            Some((why.reason, tree.frames().string(why.build_id)))
        };
        let all: Vec<_> = (0..3).map(|frame| said(FrameId(frame))).collect();
        let (named, bare) = (
            Some((WhyNot::Told(UnnamedReason::NoSymbol), "00ff")),
            Some((WhyNot::Told(UnnamedReason::NoSymbol), "")),
        );
        assert_eq!(all, [None, named, bare]);
        assert_eq!(tree.sum_unnamed().1.samples, 7);
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
        let below = |names| draw_below(&tree, &path(names));
        assert_eq!(below(&["main", "work"]).unwrap(), "deep 5 5\n");
        assert_eq!(below(&[]).unwrap(), draw(&tree));
        assert_eq!(below(&["work"]), None);
        assert_eq!(tree.total().samples, 14);
    }
}
