//! Code that other code replaced.
//!
//! In: pieces of code, in the order in which they were replaced. Out: the pieces that lay at an address, the latest first. Over the
//! limit, the oldest is evicted.

use std::cell::OnceCell;
use std::collections::VecDeque;

use super::when::When;

/// The fuzzer's files are small; smaller limits are reached too.
pub(super) const SMALLER: usize = if cfg!(fuzzing) { 1 << 10 } else { 1 };

/// Replaced pieces; the oldest is evicted. A window is named some seconds after its end: with 4,096 a process may replace a hundred
/// pieces a second. With names of 100 bytes they take 0.7 MB, and their index 0.1 MB.
pub(super) const REPLACED_MAX: usize = 4096 / SMALLER;
/// Bytes of a name, which is cut.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// A piece, or a part of one, that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) name: Box<[u8]>,
    pub(super) since: When,
    pub(super) until: When,
}

/// Replaced pieces.
#[derive(Debug, Default)]
pub(super) struct ReplacedCode {
    /// The oldest first.
    pieces: VecDeque<Replaced>,
    /// Made for the first look-up after a change.
    index: OnceCell<IntervalTree>,
}

impl ReplacedCode {
    /// Adds a piece.
    pub(super) fn push(&mut self, piece: Replaced) {
        self.index.take();
        if self.pieces.len() >= REPLACED_MAX {
            self.pieces.pop_front();
        }
        self.pieces.push_back(piece);
    }

    /// The pieces that lay at an address, the latest first.
    pub(super) fn find(&self, address: u64) -> impl Iterator<Item = &Replaced> {
        let index = self.index.get_or_init(|| {
            let pieces = self.pieces.iter();
            IntervalTree::new(pieces.map(|piece| (piece.start, piece.end)))
        });
        let places = index.find(address).into_iter().rev();
        places.map(|place| &self.pieces[place as usize])
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Bytes that the pieces take.
    pub(super) fn bytes(&self) -> usize {
        let pieces = self.pieces.iter();
        pieces
            .map(|piece| size_of::<Replaced>() + piece.name.len())
            .sum()
    }
}

impl PartialEq for ReplacedCode {
    fn eq(&self, other: &Self) -> bool {
        self.pieces == other.pieces
    }
}

impl Eq for ReplacedCode {}

/// Intervals that may overlap, sorted by start: the middle of each part of the array is the root of a tree over that part.
#[derive(Debug)]
struct IntervalTree(Vec<Node>);

#[derive(Debug)]
struct Node {
    start: u64,
    end: u64,
    /// The largest end in the part.
    end_max: u64,
    place: u32,
}

impl IntervalTree {
    fn new(intervals: impl Iterator<Item = (u64, u64)>) -> Self {
        let nodes = (0..).zip(intervals).map(|(place, (start, end))| Node {
            start,
            end,
            end_max: end,
            place,
        });
        let mut nodes: Vec<Node> = nodes.collect();
        nodes.sort_by_key(|node| node.start);
        set_end_max(&mut nodes);
        Self(nodes)
    }

    /// The places of the intervals in which an address lies, in their order.
    fn find(&self, address: u64) -> Vec<u32> {
        let mut places = Vec::new();
        find_in(&self.0, address, &mut places);
        places.sort_unstable();
        places
    }
}

fn set_end_max(nodes: &mut [Node]) -> u64 {
    let (left, rest) = nodes.split_at_mut(nodes.len() / 2);
    let Some((root, right)) = rest.split_first_mut() else {
        return 0;
    };
    root.end_max = root.end.max(set_end_max(left)).max(set_end_max(right));
    root.end_max
}

fn find_in(nodes: &[Node], address: u64, places: &mut Vec<u32>) {
    let (left, rest) = nodes.split_at(nodes.len() / 2);
    let Some((root, right)) = rest.split_first() else {
        return;
    };
    if address >= root.end_max {
        return;
    }
    find_in(left, address, places);
    if address >= root.start {
        if address < root.end {
            places.push(root.place);
        }
        find_in(right, address, places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check against a look at each interval, nested and equal ones included.
    #[test]
    fn intervals_at_an_address() {
        let intervals: Vec<(u64, u64)> = (0..200)
            .map(|number| {
                let start = number * 7_919 % 97;
                (start, start + 1 + number * 31 % 23)
            })
            .collect();
        for count in [0, 1, 2, 3, 200] {
            let intervals = &intervals[..count];
            let tree = IntervalTree::new(intervals.iter().copied());
            for address in 0..125 {
                let at = |place: &u32| {
                    let (start, end) = intervals[*place as usize];
                    (start..end).contains(&address)
                };
                let expected: Vec<u32> = (0..count as u32).filter(at).collect();
                assert_eq!(tree.find(address), expected, "{count} at {address}");
            }
        }
    }
}
