//! Sums by group of series, stack and tag set.

use std::collections::HashMap;

use model::Charge;

use crate::error::Partial;
use crate::read::Segment;
use crate::read::parallel::Effort;
use crate::read::questions::Pair;
use crate::read::selection::Selection;
use crate::read_at::ReadAt;

/// Sums of a stack that are searched one by one: most stacks have one or two. The others are in a table.
const LISTED_MAX: usize = 16;

/// Sums that there is room for at first: 160 KB.
const SUMS_MIN: usize = 4096;

/// Bytes of an entry of the table: its key, its value and a byte of control.
const UNLISTED_BYTES: usize = 17;

/// No sum.
const NONE: u32 = u32::MAX;

/// Sums by group, stack and tag set, where [`Pair::series`] is the group.
pub(crate) struct GroupSums {
    /// The first sum of each stack, or [`NONE`].
    first: Vec<u32>,
    sums: Vec<ListedSum>,
    unlisted: HashMap<(u32, u32, u32), u32>,
    charge: Charge,
}

struct ListedSum {
    pair: Pair,
    /// The next sum of the stack, or [`NONE`].
    next: u32,
}

fn key(pair: &Pair) -> (u32, u32, u32) {
    (pair.stack, pair.series, pair.tags)
}

impl GroupSums {
    /// For stacks of so many numbers. `charge` gets the memory; if there is none, sums are left out, and the question is stopped.
    pub(crate) fn new(stacks: usize, mut charge: Charge) -> Self {
        let stacks = match charge.set(size_of::<u32>() * stacks) {
            Ok(()) => stacks,
            Err(_) => 0,
        };
        Self {
            first: vec![NONE; stacks],
            sums: Vec::new(),
            unlisted: HashMap::new(),
            charge,
        }
    }

    pub(crate) fn add(&mut self, pair: &Pair) {
        let Some(mut number) = self.first.get(pair.stack as usize).copied() else {
            return;
        };
        for _ in 0..LISTED_MAX {
            if number == NONE {
                self.list(pair);
                return;
            }
            let sum = &mut self.sums[number as usize];
            if key(&sum.pair) == key(pair) {
                add_to(&mut sum.pair, pair);
                return;
            }
            number = sum.next;
        }
        match self.unlisted.get(&key(pair)) {
            Some(number) => add_to(&mut self.sums[*number as usize].pair, pair),
            None => {
                self.unlisted.insert(key(pair), self.sums.len() as u32);
                self.push(pair, NONE);
            }
        }
    }

    /// Adds a sum in front of those of its stack: the last one is likely to be needed again.
    fn list(&mut self, pair: &Pair) {
        let next = self.first[pair.stack as usize];
        self.first[pair.stack as usize] = self.sums.len() as u32;
        self.push(pair, next);
    }

    fn push(&mut self, pair: &Pair, next: u32) {
        if self.sums.len() == self.sums.capacity() && !self.make_room() {
            // So that nothing more is added.
            self.first.clear();
            return;
        }
        self.sums.push(ListedSum { pair: *pair, next });
    }

    /// Takes memory for as many sums again. False if there is none.
    fn make_room(&mut self) -> bool {
        let more = self.sums.len().max(SUMS_MIN);
        let bytes = size_of::<u32>() * self.first.len()
            + size_of::<ListedSum>() * (self.sums.len() + more)
            + UNLISTED_BYTES * self.unlisted.capacity();
        let has_room = self.charge.set(bytes).is_ok();
        if has_room {
            self.sums.reserve_exact(more);
        }
        has_room
    }

    fn join(mut self, other: Self) -> Self {
        other.sums.iter().for_each(|sum| self.add(&sum.pair));
        self
    }

    /// The sums, sorted by stack, group and tag set.
    pub(crate) fn into_pairs(self) -> Vec<Pair> {
        let mut pairs: Vec<Pair> = self.sums.into_iter().map(|sum| sum.pair).collect();
        pairs.sort_unstable_by_key(key);
        pairs
    }
}

fn add_to(sum: &mut Pair, pair: &Pair) {
    sum.samples = sum.samples.saturating_add(pair.samples);
    sum.ns = sum.ns.saturating_add(pair.ns);
}

impl<R: ReadAt> Segment<R> {
    /// See [`Source::sum_groups`](crate::Source::sum_groups).
    pub(crate) fn sum_groups(
        &self,
        selection: &Selection<'_>,
        groups: &[u32],
        effort: Effort<'_>,
    ) -> Partial<Vec<Pair>> {
        let mut group_of = vec![0; self.series_count()];
        for (series, group) in selection.series.iter().zip(groups) {
            group_of[*series as usize] = *group;
        }
        let new = || GroupSums::new(self.stack_count(), effort.charge(0));
        let sums = self.fold_pairs(selection, effort, new, |sums, pair| {
            let series = group_of[pair.series as usize];
            sums.add(&Pair { series, ..*pair });
        });
        let joined = sums.value.into_iter().reduce(GroupSums::join);
        Partial {
            value: joined.map_or(Vec::new(), GroupSums::into_pairs),
            damage: sums.damage,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Check sums of stacks with few and with many tag sets.
    #[test]
    fn sums_are_those_of_a_map() {
        let mut random = fastrand::Rng::with_seed(1);
        for tag_sets in [1, 2, LISTED_MAX as u32 + 1, 200] {
            let mut sums = [(); 2].map(|()| GroupSums::new(5, Charge::default()));
            let mut expected: BTreeMap<(u32, u32, u32), (u64, u64)> = BTreeMap::new();
            for _ in 0..3000 {
                let pair = Pair {
                    series: random.u32(0..3),
                    stack: random.u32(0..5),
                    tags: random.u32(0..tag_sets),
                    samples: random.u64(0..9),
                    ns: random.u64(0..9),
                };
                let sum = expected.entry(key(&pair)).or_default();
                *sum = (sum.0 + pair.samples, sum.1 + pair.ns);
                sums[random.usize(0..2)].add(&pair);
            }
            let [a, b] = sums;
            let pairs = a.join(b).into_pairs();
            let found = pairs
                .iter()
                .map(|pair| (key(pair), (pair.samples, pair.ns)));
            assert!(found.eq(expected));
        }
    }
}
