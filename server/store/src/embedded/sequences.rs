//! The messages that are stored: their numbers, by the collector's instance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Numbers of messages by instance. A collector numbers its messages from 1, so that a segment has one range of each: some 40 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequences(BTreeMap<[u8; 16], Ranges>);

/// Ranges of numbers that do not touch: the last number by the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn contains(&self, number: u64) -> bool {
        let before = self.0.range(..=number).next_back();
        before.is_some_and(|(_, last)| *last >= number)
    }

    fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        let after = number.checked_add(1).and_then(|next| self.0.remove(&next));
        let last = after.unwrap_or(number);
        match self.0.range_mut(..number).next_back() {
            Some((_, before)) if *before + 1 == number => *before = last,
            _ => drop(self.0.insert(number, last)),
        }
        true
    }

    fn remove(&mut self, number: u64) {
        let Some((first, last)) = self.0.range(..=number).next_back() else {
            return;
        };
        let (first, last) = (*first, *last);
        if last < number {
            return;
        }
        self.0.remove(&first);
        if first < number {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
    }
}

impl Sequences {
    /// Whether a message is among them.
    pub fn contains(&self, instance: &[u8; 16], sequence: u64) -> bool {
        let ranges = self.0.get(instance);
        ranges.is_some_and(|ranges| ranges.contains(sequence))
    }

    /// Number of messages.
    pub fn len(&self) -> u64 {
        let ranges = self.0.values().flat_map(|ranges| &ranges.0);
        let lengths = ranges.map(|(first, last)| (last - first).saturating_add(1));
        lengths.fold(0, u64::saturating_add)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All messages: instance and number.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8; 16], u64)> {
        self.0.iter().flat_map(|(instance, ranges)| {
            let numbers = ranges.0.iter().flat_map(|(first, last)| *first..=*last);
            numbers.map(move |number| (instance, number))
        })
    }

    /// Adds all messages of others.
    pub fn extend(&mut self, others: &Self) {
        for (instance, number) in others.iter() {
            self.insert(*instance, number);
        }
    }

    /// Whether others have all of them.
    pub fn is_within(&self, others: &Self) -> bool {
        self.iter()
            .all(|(instance, number)| others.contains(instance, number))
    }

    /// Adds a message. Returns whether it is new.
    pub fn insert(&mut self, instance: [u8; 16], sequence: u64) -> bool {
        self.0.entry(instance).or_default().insert(sequence)
    }

    /// Removes a message.
    pub fn remove(&mut self, instance: &[u8; 16], sequence: u64) {
        if let Some(ranges) = self.0.get_mut(instance) {
            ranges.remove(sequence);
            if ranges.0.is_empty() {
                self.0.remove(instance);
            }
        }
    }
}

impl FromIterator<([u8; 16], u64)> for Sequences {
    fn from_iter<I: IntoIterator<Item = ([u8; 16], u64)>>(messages: I) -> Self {
        let mut sequences = Self::default();
        for (instance, sequence) in messages {
            sequences.insert(instance, sequence);
        }
        sequences
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Check that ranges have the numbers that a plain set has, in as few ranges as possible.
    #[test]
    fn ranges_are_sets() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut ranges, mut plain) = (Ranges::default(), BTreeSet::new());
        let edges = [0, u64::MAX - 1, u64::MAX];
        for step in 0..20_000 {
            let number = match random.u8(..) {
                0 => edges[random.usize(..3)],
                _ => random.u64(..60),
            };
            if random.bool() {
                assert_eq!(ranges.insert(number), plain.insert(number), "{step}");
            } else {
                ranges.remove(number);
                plain.remove(&number);
            }
            let starts = plain.iter().filter(|number| {
                number
                    .checked_sub(1)
                    .is_none_or(|before| !plain.contains(&before))
            });
            let firsts: Vec<u64> = ranges.0.keys().copied().collect();
            assert_eq!(firsts, starts.copied().collect::<Vec<u64>>());
            for number in (0..61).chain(edges) {
                assert_eq!(ranges.contains(number), plain.contains(&number), "{step}");
            }
        }
    }
}
