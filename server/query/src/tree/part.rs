//! The stacks of one part of the store, with sums, in the order of a walk.

use model::NamedTables;
use model::tables::{LocationId, StackNode};

use super::{FrameUsage, Member};
use crate::frame_names::LocationFrames;
use crate::frame_table::{FrameId, FrameTable};
use crate::series::Usage;

/// From this number on, a code is the position of a list of frames; below it, it is the number of the only frame.
const LISTS: u32 = 1 << 31;

/// A stack. Its callees follow it, each with its own: a node's samples lie between it and its end.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// The frames of its innermost location. Until they are known, the location.
    code: FrameId,
    /// The first entry behind its callees.
    end: u32,
    /// The samples of all entries before it.
    before: Usage,
}

/// Stacks with sums. Entry 0 is the empty stack.
pub(super) struct Part {
    /// One more than there are stacks, for the sum of all.
    entries: Vec<Entry>,
    lists: FrameLists,
}

/// The frames of locations that have several, the outermost first.
#[derive(Default)]
struct FrameLists {
    frames: Vec<FrameId>,
    ends: Vec<u32>,
}

impl FrameLists {
    /// A code for the frames that were added last, from `start` on.
    fn finish(&mut self, start: usize) -> FrameId {
        if let [single] = self.frames[start..]
            && single.0 < LISTS
        {
            self.frames.truncate(start);
            return single;
        }
        self.ends.push(self.frames.len() as u32);
        FrameId(LISTS + self.ends.len() as u32 - 1)
    }

    fn list<'a>(&'a self, code: &'a FrameId) -> &'a [FrameId] {
        let Some(at) = code.0.checked_sub(LISTS) else {
            return std::slice::from_ref(code);
        };
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.ends[before as usize]);
        &self.frames[start as usize..self.ends[at as usize] as usize]
    }
}

impl Part {
    /// The stacks of tables, with the samples of each. Names are added to `table`.
    pub(super) fn new(tables: NamedTables<'_>, by_stack: &[Usage], table: &mut FrameTable) -> Self {
        let mut part = Self {
            entries: sort_depth_first(&tables.stacks, by_stack),
            lists: FrameLists::default(),
        };
        let root = part.lists.finish(0);
        let mut frames = LocationFrames::new(tables, table);
        let mut codes: Vec<Option<FrameId>> = vec![None; tables.locations.len()];
        part.entries[0].code = root;
        for entry in 1..part.entry_count() {
            // A stack without samples is never looked at.
            if part.total(entry) == Usage::default() {
                continue;
            }
            let location = LocationId(part.entries[entry as usize].code.0);
            let code = codes[location.position()].get_or_insert_with(|| {
                let start = part.lists.frames.len();
                frames.list(location, &mut part.lists.frames);
                part.lists.finish(start)
            });
            part.entries[entry as usize].code = *code;
        }
        part
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Entry>() * self.entries.capacity()
            + 4 * (self.lists.frames.capacity() + self.lists.ends.capacity())
    }

    /// Number of stacks, with the empty one.
    pub(super) fn entry_count(&self) -> u32 {
        self.entries.len() as u32 - 1
    }

    /// Frames of all stacks, those that they share counted once.
    pub(super) fn count_frames(&self) -> usize {
        let sampled =
            (1..self.entry_count()).filter(|entry| self.total(*entry) != Usage::default());
        sampled.map(|entry| self.frames(entry).len()).sum()
    }

    /// The first entry behind an entry's callees.
    pub(super) fn end(&self, entry: u32) -> u32 {
        self.entries[entry as usize].end
    }

    /// Samples of a stack and of all that begin with it.
    pub(super) fn total(&self, entry: u32) -> Usage {
        let Entry { end, before, .. } = self.entries[entry as usize];
        self.entries[end as usize].before.less(before)
    }

    /// Samples of a stack itself.
    pub(super) fn own(&self, entry: u32) -> Usage {
        let at = entry as usize;
        self.entries[at + 1].before.less(self.entries[at].before)
    }

    /// The frames of a stack's innermost location, the outermost first; none of the empty stack.
    pub(super) fn frames(&self, entry: u32) -> &[FrameId] {
        self.lists.list(&self.entries[entry as usize].code)
    }

    /// Adds the samples of each frame.
    pub(super) fn add_to_frames(&self, sums: &mut [FrameUsage]) {
        let mut path: Vec<u32> = Vec::new();
        // How often each frame is on the path.
        let mut on_path = vec![0_u32; sums.len()];
        for entry in 1..self.entry_count() {
            while let Some(left) = path.pop_if(|last| self.end(*last) <= entry) {
                for frame in self.frames(left) {
                    on_path[frame.position()] -= 1;
                }
            }
            let total = self.total(entry);
            if total == Usage::default() {
                continue;
            }
            let frames = self.frames(entry);
            for frame in frames {
                let times = &mut on_path[frame.position()];
                if *times == 0 {
                    sums[frame.position()].total.add(total);
                }
                *times += 1;
            }
            if let Some(innermost) = frames.last() {
                sums[innermost.position()].own.add(self.own(entry));
            }
            path.push(entry);
        }
    }

    /// Shows the callees of a frame of a stack that have samples.
    pub(super) fn visit_callees(
        &self,
        Member { part, entry, depth }: Member,
        mut visit: impl FnMut(FrameId, Usage, Member),
    ) {
        // At one location, a frame calls the one that was inlined into it, and no other.
        if let Some(frame) = self.frames(entry).get(depth as usize + 1) {
            let depth = depth + 1;
            visit(*frame, self.total(entry), Member { part, entry, depth });
            return;
        }
        let end = self.end(entry);
        let mut callee = entry + 1;
        while callee < end {
            let total = self.total(callee);
            if total != Usage::default()
                && let Some(frame) = self.frames(callee).first()
            {
                let member = Member {
                    part,
                    entry: callee,
                    depth: 0,
                };
                visit(*frame, total, member);
            }
            callee = self.end(callee);
        }
    }
}

/// Puts each stack before its callees, and those before the next stack.
fn sort_depth_first(stacks: &[StackNode], by_stack: &[Usage]) -> Vec<Entry> {
    let mut sizes = vec![1_u32; stacks.len()];
    for (number, stack) in stacks.iter().enumerate().skip(1).rev() {
        sizes[stack.parent.position()] += sizes[number];
    }
    let mut entries = vec![Entry::default(); stacks.len() + 1];
    // Where the next callee of each stack goes.
    let mut free = vec![0_u32; stacks.len()];
    for (number, stack) in stacks.iter().enumerate() {
        let parent = stack.parent.position();
        let at = free[parent];
        free[parent] += sizes[number];
        free[number] = at + 1;
        entries[at as usize] = Entry {
            code: FrameId(stack.location.0),
            end: at + sizes[number],
            before: by_stack[number],
        };
    }
    let mut sum = Usage::default();
    for entry in &mut entries {
        let own = std::mem::replace(&mut entry.before, sum);
        sum.add(own);
    }
    entries
}

#[cfg(test)]
mod tests {
    use model::tables::StackId;

    use super::*;

    /// Check stacks that were added in any order: each has the samples of those that begin with it.
    #[test]
    fn totals_are_those_of_all_that_begin_with_a_stack() {
        let mut random = fastrand::Rng::with_seed(5);
        let stacks: Vec<StackNode> = (0..500)
            .map(|number: u32| StackNode {
                parent: StackId(random.u32(0..number.max(1))),
                location: LocationId(number),
            })
            .collect();
        let usage = |samples| Usage {
            samples,
            ns: 10 * samples,
        };
        let own: Vec<Usage> = stacks.iter().map(|_| usage(random.u64(0..3))).collect();
        let mut totals = own.clone();
        for (number, stack) in stacks.iter().enumerate().skip(1).rev() {
            let total = totals[number];
            totals[stack.parent.position()].add(total);
        }
        let entries = sort_depth_first(&stacks, &own);
        let part = Part {
            entries,
            lists: FrameLists::default(),
        };
        assert_eq!(part.entry_count(), 500);
        for entry in 0..500 {
            let number = part.entries[entry as usize].code.position();
            assert_eq!(part.own(entry), own[number]);
            assert_eq!(part.total(entry), totals[number]);
        }
    }
}
