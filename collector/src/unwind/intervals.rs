//! Places in an array of the kernel: first fit, and given back only when nobody can be reading them.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

/// Free and used places `0..size` of an array.
///
/// What is given back was in the program's reach until a moment ago: it is free again when
/// [`release`](Self::release) is called with the time at which it was [`retire`](Self::retire)d.
#[derive(Debug)]
pub(super) struct Intervals {
    /// Length of each free interval by its start; neighbours are always one.
    free: BTreeMap<u32, u32>,
    /// What waits to be free, in the order of the turns.
    retired: VecDeque<(Turn, Range<u32>)>,
    used: u32,
}

/// Number of a batch of writes: see [`Turns`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

impl Intervals {
    /// All of `0..size` is free.
    pub(super) fn new(size: u32) -> Self {
        let free = (size > 0).then_some((0, size)).into_iter().collect();
        Self {
            free,
            retired: VecDeque::new(),
            used: 0,
        }
    }

    /// Takes the first `len` places that are free in a row; `None` when there are not so many.
    pub(super) fn allocate(&mut self, len: u32) -> Option<u32> {
        if len == 0 {
            return None;
        }
        let (&start, &free) = self.free.iter().find(|(_, free)| **free >= len)?;
        self.free.remove(&start);
        if free > len {
            self.free.insert(start + len, free - len);
        }
        self.used += len;
        Some(start)
    }

    /// Gives places back that the program may still be reading.
    pub(super) fn retire(&mut self, range: Range<u32>, turn: Turn) {
        if !range.is_empty() {
            self.retired.push_back((turn, range));
        }
    }

    /// Frees what was retired up to `turn`.
    pub(super) fn release(&mut self, turn: Turn) {
        while let Some((_, range)) = self.retired.pop_front_if(|(retired, _)| *retired <= turn) {
            self.free(range);
        }
    }

    fn free(&mut self, range: Range<u32>) {
        let Range { mut start, mut end } = range;
        self.used -= end - start;
        if let Some((&before, &len)) = self.free.range(..start).next_back()
            && before + len == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(len) = self.free.remove(&end) {
            end += len;
        }
        self.free.insert(start, end - start);
    }

    /// Places that are used, or not yet free again.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Places that will be free in a moment.
    pub(super) fn retired(&self) -> u32 {
        let ranges = self.retired.iter().map(|(_, range)| range);
        ranges.map(|it| it.end - it.start).sum()
    }

    /// Whether all places are free.
    pub(super) fn is_unused(&self) -> bool {
        self.used == 0
    }

    /// The longest row of free places.
    #[cfg(test)]
    pub(super) fn longest_free(&self) -> u32 {
        self.free.values().copied().max().unwrap_or(0)
    }
}

/// How long a run of the program may take: it is bounded by its instructions and takes 10 us, a
/// hundred in a bad case. A virtual processor that its host takes away may stop in the middle of
/// one, for some milliseconds.
const GRACE_NS: u64 = 100_000_000;

/// Which batches of writes no program can be reading around any more.
#[derive(Debug, Default)]
pub(super) struct Turns {
    current: Turn,
    /// Turns that ended, and when, at the latest.
    ended: VecDeque<(Turn, u64)>,
}

impl Turns {
    /// The batch that is being made.
    pub(super) fn current(&self) -> Turn {
        self.current
    }

    /// The batch that was made is in the kernel now, at `now_ns`. Gives the last turn whose retired
    /// places nobody can be reading.
    pub(super) fn end(&mut self, now_ns: u64) -> Option<Turn> {
        self.ended.push_back((self.current, now_ns));
        self.current.0 += 1;
        let mut over = None;
        while let Some((turn, _)) = self
            .ended
            .pop_front_if(|(_, ended_ns)| *ended_ns + GRACE_NS <= now_ns)
        {
            over = Some(turn);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::random::Random;

    /// Check that places are taken from the front, and that neighbours become one.
    #[test]
    fn first_fit_and_neighbours() {
        let mut places = Intervals::new(10);
        assert_eq!(places.allocate(0), None);
        assert_eq!(places.allocate(4), Some(0));
        assert_eq!(places.allocate(4), Some(4));
        assert_eq!(places.allocate(3), None);
        places.retire(0..4, Turn(1));
        places.retire(4..8, Turn(2));
        assert_eq!((places.used(), places.retired()), (8, 8));
        places.release(Turn(0));
        assert_eq!(places.allocate(3), None);
        places.release(Turn(1));
        assert_eq!((places.used(), places.longest_free()), (4, 4));
        places.release(Turn(2));
        assert!(places.is_unused());
        assert_eq!(places.allocate(10), Some(0));
    }

    /// Check against a list of flags: no place is given twice, none is lost, none too early.
    #[test]
    fn random_operations() {
        const SIZE: usize = 200;
        let mut random = Random::new(7);
        let mut places = Intervals::new(SIZE as u32);
        let mut taken = [false; SIZE];
        let mut used: Vec<Range<u32>> = Vec::new();
        let mut waiting: Vec<(Turn, Range<u32>)> = Vec::new();
        for turn in 0..20_000 {
            match random.below(3) {
                0 => {
                    let len = 1 + random.below(20) as u32;
                    let longest = taken.chunk_by(|a, b| a == b).filter(|it| !it[0]);
                    let longest = longest.map(<[bool]>::len).max().unwrap_or(0) as u32;
                    assert_eq!(places.longest_free(), longest);
                    let found = places.allocate(len);
                    assert_eq!(found.is_some(), longest >= len);
                    if let Some(start) = found {
                        for place in &mut taken[start as usize..][..len as usize] {
                            assert!(!*place);
                            *place = true;
                        }
                        used.push(start..start + len);
                    }
                }
                1 if !used.is_empty() => {
                    let range = used.swap_remove(random.below(used.len() as u64) as usize);
                    places.retire(range.clone(), Turn(turn));
                    waiting.push((Turn(turn), range));
                }
                _ => {
                    let until = Turn(turn.saturating_sub(random.below(9)));
                    places.release(until);
                    for (_, range) in waiting.extract_if(.., |(turn, _)| *turn <= until) {
                        taken[range.start as usize..range.end as usize].fill(false);
                    }
                }
            }
            let count = taken.iter().filter(|it| **it).count();
            assert_eq!(places.used() as usize, count);
        }
    }

    /// Check that a turn is over only when the time has passed since it ended.
    #[test]
    fn turns_end() {
        let mut turns = Turns::default();
        assert_eq!(turns.current(), Turn(0));
        assert_eq!(turns.end(5), None);
        assert_eq!(turns.end(6), None);
        assert_eq!(turns.end(GRACE_NS + 5), Some(Turn(0)));
        assert_eq!(turns.end(GRACE_NS + 5), None);
        assert_eq!(turns.end(GRACE_NS + 6), Some(Turn(1)));
        assert_eq!(turns.end(2 * GRACE_NS + 5), Some(Turn(3)));
    }
}
