//! Segments that have the same messages, which is so when the list of a replacement was damaged. Pure.

use std::collections::BTreeMap;

use ulid::Ulid;

use super::sequences::Sequences;
use super::span::{SegmentName, Span};

/// The segments to be removed, so that each message is in one merge.
///
/// The new files of a replacement have the messages of all its old ones, and the old ones are removed after all new ones have their names.
/// So if all of a merge's messages are in others, the others are all there, and the merge may not be; else it is whole.
pub fn find_doubled(segments: &BTreeMap<SegmentName, Sequences>) -> Vec<SegmentName> {
    let mut merges: BTreeMap<(Ulid, Span), Sequences> = BTreeMap::new();
    for (name, messages) in segments {
        let known = merges.entry((name.id, name.span)).or_default();
        known.extend(messages);
    }
    let mut removed = Vec::new();
    // The oldest merge first: an input of a merge is older.
    for (merge, messages) in &merges {
        let is_input = |other: &(Ulid, Span)| {
            other < merge && !removed.contains(other) && merges[other].is_within(messages)
        };
        let inputs: Vec<_> = merges.keys().copied().filter(is_input).collect();
        let mut of_inputs = Sequences::default();
        for input in &inputs {
            of_inputs.extend(&merges[input]);
        }
        if inputs.is_empty() {
            continue;
        }
        if of_inputs == *messages {
            removed.push(*merge);
        } else {
            removed.extend(inputs);
        }
    }
    let names = segments.keys().copied();
    names
        .filter(|name| removed.contains(&(name.id, name.span)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::span::Level;

    fn name(level: Level, id: u64, number: u32) -> SegmentName {
        SegmentName {
            span: level.span_of(0),
            id: Ulid::from_parts(id, 0),
            number,
        }
    }

    fn find<const N: usize>(segments: [(SegmentName, &str); N]) -> Vec<SegmentName> {
        let segments = segments.map(|(name, numbers)| {
            let numbers = numbers.split(' ').map(|number| number.parse().unwrap());
            (name, numbers.map(|number| ([1; 16], number)).collect())
        });
        find_doubled(&segments.into())
    }

    /// Check all states that a stopped replacement leaves: of two parts by two files of their hour.
    #[test]
    fn each_message_stays_in_one_merge() {
        let parts = [name(Level::Part, 1, 0), name(Level::Part, 2, 0)];
        let hours = [name(Level::Hour, 3, 0), name(Level::Hour, 3, 1)];
        let other = (name(Level::Part, 4, 0), "9");
        let [first, second] = [(parts[0], "1"), (parts[1], "2")];
        let [begin, rest] = [(hours[0], "1 2"), (hours[1], "1 2")];
        assert_eq!(find([first, second, other]), []);
        assert_eq!(find([first, second, rest, other]), [hours[1]]);
        assert_eq!(find([first, second, begin, rest]), hours);
        assert_eq!(find([second, begin, rest, other]), [parts[1]]);
        assert_eq!(find([begin, rest, other]), []);
    }

    /// Check that a roll-up of one segment, which has the same messages, gives way to it.
    #[test]
    fn a_roll_up_gives_way() {
        let (old, new) = (name(Level::Hour, 1, 0), name(Level::Hour, 2, 0));
        assert_eq!(find([(old, "1 2"), (new, "1 2")]), [new]);
    }
}
