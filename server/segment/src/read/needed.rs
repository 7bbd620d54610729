//! Which entries of a section a question needs.

use hashbrown::HashMap;

/// Entries that a list of all positions is used for, however few are needed: 64 KiB.
const DENSE_ENTRIES: usize = 16 << 10;

/// A list of all positions is used if at least one of this many entries is needed. A look-up in it takes a tenth of one in a map, but
/// each page that is touched takes the kernel 250 ns.
const DENSE_SHARE: usize = 32;

/// Entries that are needed, and their positions among those.
pub(crate) struct Needed {
    positions: Positions,
    numbers: Vec<u32>,
}

enum Positions {
    /// The position plus one of each entry, or 0.
    Dense(Vec<u32>),
    Sparse(HashMap<u32, u32>),
}

impl Needed {
    /// Of `count` entries, about `expected` will be added.
    pub(crate) fn new(count: usize, expected: usize) -> Self {
        let is_dense = count <= DENSE_ENTRIES || expected >= count / DENSE_SHARE;
        Self {
            positions: if is_dense {
                Positions::Dense(vec![0; count])
            } else {
                Positions::Sparse(HashMap::with_capacity(expected))
            },
            numbers: Vec::new(),
        }
    }

    /// These of `count` entries, about `expected`.
    pub(crate) fn of(count: usize, expected: usize, numbers: impl Iterator<Item = u32>) -> Self {
        let mut needed = Self::new(count, expected);
        for number in numbers {
            needed.add(number);
        }
        needed.sort();
        needed
    }

    /// Adds an entry. False if it was there.
    pub(crate) fn add(&mut self, number: u32) -> bool {
        let is_new = match &mut self.positions {
            Positions::Dense(positions) => {
                std::mem::replace(&mut positions[number as usize], 1) == 0
            }
            Positions::Sparse(positions) => positions.insert(number, 0).is_none(),
        };
        if is_new {
            self.numbers.push(number);
        }
        is_new
    }

    /// Sorts what was added, and numbers it.
    pub(crate) fn sort(&mut self) {
        self.numbers.sort_unstable();
        for (position, number) in self.numbers.iter().enumerate() {
            match &mut self.positions {
                Positions::Dense(positions) => positions[*number as usize] = position as u32 + 1,
                Positions::Sparse(positions) => {
                    positions.insert(*number, position as u32);
                }
            }
        }
    }

    /// Entries that were added.
    pub(crate) fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// The position of an entry that was added.
    pub(crate) fn position(&self, number: u32) -> usize {
        match &self.positions {
            Positions::Dense(positions) => positions[number as usize] as usize - 1,
            Positions::Sparse(positions) => positions[&number] as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_maps_number_alike() {
        for expected in [0, 1 << 20] {
            let mut needed = Needed::new(1 << 20, expected);
            assert_eq!(
                [7, 1 << 19, 7, 0].map(|number| needed.add(number)),
                [true, true, false, true]
            );
            needed.sort();
            assert_eq!(needed.numbers(), [0, 7, 1 << 19]);
            assert_eq!(
                [0, 7, 1 << 19].map(|number| needed.position(number)),
                [0, 1, 2]
            );
        }
    }
}
