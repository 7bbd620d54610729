//! Places in an array of the kernel: first fit, and free again only when no run of the program can be reading them.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use super::epochs::Epoch;

/// Free and used places `0..size` of an array.
///
/// The program may still be reading a place that is given back: the place is free again when [`release`](Self::release) is called
/// with the epoch in which it was [`retire`](Self::retire)d.
#[derive(Debug)]
pub(super) struct Intervals {
    /// Length of each free interval by its start; neighbours are always one.
    free: BTreeMap<u32, u32>,
    /// Places that wait to be free, in the order of the epochs.
    retired: VecDeque<(Epoch, Range<u32>)>,
    used: u32,
}

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

    /// Retires places that the program may still be reading.
    pub(super) fn retire(&mut self, range: Range<u32>, epoch: Epoch) {
        if !range.is_empty() {
            self.retired.push_back((epoch, range));
        }
    }

    /// Frees the places that were retired up to `epoch`.
    pub(super) fn release(&mut self, epoch: Epoch) {
        while let Some((_, range)) = self.retired.pop_front_if(|(retired, _)| *retired <= epoch) {
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
        ranges.map(|range| range.end - range.start).sum()
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

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// Check that places are taken from the front, and that neighbours become one.
    #[test]
    fn first_fit_and_neighbours() {
        let mut places = Intervals::new(10);
        assert_eq!(places.allocate(0), None);
        assert_eq!(places.allocate(4), Some(0));
        assert_eq!(places.allocate(4), Some(4));
        assert_eq!(places.allocate(3), None);
        places.retire(0..4, Epoch::of(1));
        places.retire(4..8, Epoch::of(2));
        assert_eq!((places.used(), places.retired()), (8, 8));
        places.release(Epoch::of(0));
        assert_eq!(places.allocate(3), None);
        places.release(Epoch::of(1));
        assert_eq!((places.used(), places.longest_free()), (4, 4));
        places.release(Epoch::of(2));
        assert!(places.is_unused());
        assert_eq!(places.allocate(10), Some(0));
    }

    /// Check against a list of flags: no place is given twice, none is lost, none too early.
    #[test]
    fn random_operations() {
        const SIZE: usize = 200;
        let mut random = Rng::with_seed(7);
        let mut places = Intervals::new(SIZE as u32);
        let mut taken = [false; SIZE];
        let mut used: Vec<Range<u32>> = Vec::new();
        let mut waiting: Vec<(Epoch, Range<u32>)> = Vec::new();
        for epoch in 0..20_000 {
            match random.u64(..3) {
                0 => {
                    let len = 1 + random.u64(..20) as u32;
                    let longest = taken.chunk_by(|a, b| a == b).filter(|run| !run[0]);
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
                    let range = used.swap_remove(random.usize(..used.len()));
                    places.retire(range.clone(), Epoch::of(epoch));
                    waiting.push((Epoch::of(epoch), range));
                }
                _ => {
                    let until = Epoch::of(epoch.saturating_sub(random.u64(..9)));
                    places.release(until);
                    for (_, range) in waiting.extract_if(.., |(epoch, _)| *epoch <= until) {
                        taken[range.start as usize..range.end as usize].fill(false);
                    }
                }
            }
            let count = taken.iter().filter(|is_taken| **is_taken).count();
            assert_eq!(places.used() as usize, count);
        }
    }
}
