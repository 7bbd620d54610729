//! Chunks of callees: for each location, the locations that follow it in stacks.
//!
//! A location of a real machine has 1.4 callees, and a call occurs in 2 to 4 nodes of the tree. So the tree says which callee a node
//! is, mostly the first of one, and not which location of several 100,000.

use crate::codec::column::{ChunkReader, Packer, Unpacker};
use crate::codec::varint::zigzag;
use crate::error::{Damage, Malformed};

/// Callers of a chunk.
pub(crate) const CHUNK_CALLERS: usize = 4096;

/// A caller's entry in the section: 0 is the root, and a location has the one after its number.
pub(crate) fn caller_of(location: Option<u32>) -> u32 {
    location.map_or(0, |location| location + 1)
}

/// The callees of some callers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Callees {
    /// The end of each caller's callees.
    ends: Vec<u32>,
    callees: Vec<u32>,
}

impl Callees {
    /// The callees of a caller, sorted.
    #[inline]
    pub(crate) fn of(&self, position: usize) -> &[u32] {
        let start = match position {
            0 => 0,
            _ => self.ends[position - 1],
        };
        &self.callees[start as usize..self.ends[position] as usize]
    }

    /// Number of callers.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The position of a callee among those of its caller.
    pub(crate) fn rank(&self, caller: u32, callee: u32) -> u32 {
        // SANITY: the tree is written with the calls that were collected from it.
        let rank = self.of(caller as usize).binary_search(&callee);
        rank.unwrap_or_default() as u32
    }

    /// Whether each of `locations` locations is called.
    pub(crate) fn called(&self, locations: usize) -> Vec<bool> {
        let mut is_called = vec![false; locations];
        for callee in &self.callees {
            is_called[*callee as usize] = true;
        }
        is_called
    }

    /// The same calls with the new numbers of the locations that are called, in the same order. Others have no callees.
    pub(crate) fn renumber(&self, numbers: &[u32]) -> Self {
        let new = |location: &u32| numbers[*location as usize];
        let is_called = self.called(numbers.len());
        let is_kept = |caller: &usize| *caller == 0 || is_called[*caller - 1];
        let ends = (0..self.len())
            .filter(is_kept)
            .map(|caller| self.ends[caller]);
        Self {
            ends: ends.collect(),
            callees: self.callees.iter().map(new).collect(),
        }
    }

    /// Encodes the callees of `count` callers from `first` on.
    pub(crate) fn encode(&self, first: usize, count: usize, packer: &mut Packer) -> Vec<u8> {
        let callers = first..first + count;
        let mut out = Vec::new();
        let counts = callers.clone().map(|caller| self.of(caller).len() as u64);
        packer.put_numbers(&mut out, counts);
        let gaps = callers.flat_map(|caller| {
            let callees = self.of(caller);
            // Most calls are within a file.
            let first = callees.iter().take(1);
            let first = first.map(move |callee| zigzag(i64::from(*callee) - caller as i64));
            let others = callees
                .windows(2)
                .map(|pair| u64::from(pair[1] - pair[0] - 1));
            first.chain(others)
        });
        packer.put_numbers(&mut out, gaps);
        out
    }

    /// Reads the callees of `items` callers from `first` on, of a tree with `nodes` nodes and `locations` locations.
    pub(crate) fn decode(
        bytes: &[u8],
        first: u32,
        items: usize,
        (locations, nodes): (usize, usize),
        unpacker: &mut Unpacker,
    ) -> Result<Self, Malformed> {
        if items > CHUNK_CALLERS {
            return Err(Malformed("a chunk has too many callers"));
        }
        let mut from = ChunkReader::new(bytes, unpacker);
        let mut counts = from.take_numbers(items)?;
        let mut read = Self::default();
        let mut end = 0;
        for _ in 0..items {
            end += counts.next_below(nodes + 1 - end as usize)?;
            read.ends.push(end);
        }
        counts.finish()?;
        let mut gaps = from.take_numbers(end as usize)?;
        let mut start = 0;
        for (position, end) in read.ends.iter().enumerate() {
            let mut next = first + position as u32;
            for rank in start..*end {
                let callee = if rank == start {
                    gaps.next_delta_below(next, locations)?
                } else {
                    gaps.next_gap_below(next, locations)?
                };
                read.callees.push(callee);
                next = callee + 1;
            }
            start = *end;
        }
        gaps.finish()?;
        from.finish()?;
        Ok(read)
    }
}

/// Source of callees for a reader of the tree.
pub(crate) trait CalleeSource {
    /// The callees of a caller.
    fn callees(&mut self, caller: u32) -> Result<&[u32], Damage>;
}

impl CalleeSource for &Callees {
    fn callees(&mut self, caller: u32) -> Result<&[u32], Damage> {
        Ok(self.of(caller as usize))
    }
}

/// Calls being collected from a tree.
#[derive(Default)]
pub(crate) struct Calls {
    /// Caller and callee. Sorted and each once, up to `sorted`.
    calls: Vec<(u32, u32)>,
    sorted: usize,
}

/// Calls that are kept unsorted at least, so that small trees are sorted once.
const UNSORTED_MIN: usize = 1 << 20;

impl Calls {
    pub(crate) fn add(&mut self, caller: u32, callee: u32) {
        self.calls.push((caller, callee));
        if self.calls.len() >= 2 * self.sorted.max(UNSORTED_MIN) {
            self.sort();
        }
    }

    fn sort(&mut self) {
        self.calls.sort_unstable();
        self.calls.dedup();
        self.sorted = self.calls.len();
    }

    /// The callees of the root and of all locations.
    pub(crate) fn into_callees(mut self, locations: usize) -> Callees {
        self.sort();
        let mut callees = Callees::default();
        for caller in 0..locations as u32 + 1 {
            let rest = &self.calls[callees.callees.len()..];
            let own = rest.iter().take_while(|call| call.0 == caller);
            callees.callees.extend(own.map(|(_, callee)| *callee));
            callees.ends.push(callees.callees.len() as u32);
        }
        callees
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callees_come_back() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut calls = Calls::default();
        let mut expected = std::collections::BTreeSet::new();
        for _ in 0..200_000 {
            let caller = random.u32(0..101);
            let callee = random.u32(0..100) / (1 + caller % 50);
            calls.add(caller, callee);
            expected.insert((caller, callee));
        }
        let callees = calls.into_callees(100);
        let all = (0..101).flat_map(|caller| {
            let own = callees.of(caller as usize).iter();
            own.map(move |callee| (caller, *callee))
        });
        assert!(all.eq(expected.iter().copied()));
        assert_eq!(callees.rank(0, 3), 3);

        let bytes = callees.encode(10, 50, &mut Packer::new(1));
        let mut unpacker = Unpacker::default();
        let read = Callees::decode(&bytes, 10, 50, (100, 10_000), &mut unpacker).unwrap();
        assert!((0..50).all(|position| read.of(position) == callees.of(10 + position)));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            drop(Callees::decode(
                &damaged,
                10,
                50,
                (100, 10_000),
                &mut unpacker,
            ));
        }
    }
}
