//! Sums by group of series, stack and tag set.

use std::collections::HashMap;

use crate::error::Partial;
use crate::read::Segment;
use crate::read::parallel::Effort;
use crate::read::questions::Pair;
use crate::read::selection::Selection;
use crate::read_at::ReadAt;

/// Sums of a stack that are searched one by one: most stacks have one or two. The others are in a table.
const LISTED_MAX: usize = 16;

/// No sum.
const NONE: u32 = u32::MAX;

/// Sums by group, stack and tag set, where [`Pair::series`] is the group.
pub(crate) struct GroupSums {
    /// The first sum of each stack, or [`NONE`].
    first: Vec<u32>,
    sums: Vec<ListedSum>,
    unlisted: HashMap<(u32, u32, u32), u32>,
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
    pub(crate) fn new(stacks: usize) -> Self {
        Self {
            first: vec![NONE; stacks],
            sums: Vec::new(),
            unlisted: HashMap::new(),
        }
    }

    pub(crate) fn add(&mut self, pair: &Pair) {
        let mut number = self.first[pair.stack as usize];
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
        self.sums.push(ListedSum { pair: *pair, next });
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
        let new = || GroupSums::new(self.stack_count());
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
            let mut sums = [GroupSums::new(5), GroupSums::new(5)];
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
