//! Windows of several collectors of one node that were sampled at the same time. Pure.
//!
//! Of two collectors the one that started later counts where both sampled. A collector numbers its windows from 1, and they take 10 s, so
//! that the number and the start of any of its windows tell when it started. With windows of another length that is another time, but the
//! order of two collectors with the same length is right.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::chunk::windows::Message;

/// The usual length of a window.
const WINDOW_MS: i64 = 10_000;

/// A received window of a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeMessage<'a> {
    /// The node.
    pub node: &'a str,
    /// The collector's instance.
    pub instance: [u8; 16],
    /// Its number and time.
    pub message: Message,
}

impl NodeMessage<'_> {
    fn end_ms(&self) -> i64 {
        self.message.start_ms.saturating_add(self.message.window_ms)
    }

    /// A smaller one is of a collector that started later; of two that started at once, one is chosen for all time.
    fn age(&self) -> (Reverse<i64>, [u8; 16]) {
        let before = i64::try_from(self.message.sequence.saturating_sub(1)).unwrap_or(i64::MAX);
        let before_ms = before.saturating_mul(WINDOW_MS);
        (
            Reverse(self.message.start_ms.saturating_sub(before_ms)),
            self.instance,
        )
    }
}

/// For each message, the milliseconds of it that a collector of its node that started later sampled too. If these are all of it, the
/// message can be left out: whatever is left out, each moment of a node is in a message that is not.
///
/// Each message must come once.
pub fn find_overlaps(messages: &[NodeMessage<'_>]) -> Vec<i64> {
    let mut order: Vec<usize> = (0..messages.len()).collect();
    order.sort_unstable_by_key(|at| (messages[*at].node, messages[*at].age()));
    let mut overlaps = vec![0; messages.len()];
    for of_node in order.chunk_by(|a, b| messages[*a].node == messages[*b].node) {
        let mut sampled = SampledTime::default();
        for at in of_node {
            let message = &messages[*at];
            let (start_ms, end_ms) = (message.message.start_ms, message.end_ms());
            overlaps[*at] = sampled.add(start_ms, end_ms, message.instance);
        }
    }
    overlaps
}

/// Collector of a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SampledBy {
    One([u8; 16]),
    Several,
}

/// The time that was sampled: stretches that do not overlap, by their start, with their end.
#[derive(Default)]
struct SampledTime(BTreeMap<i64, (i64, SampledBy)>);

impl SampledTime {
    /// Adds a stretch. Returns the milliseconds of it that another instance has sampled before.
    fn add(&mut self, start_ms: i64, end_ms: i64, instance: [u8; 16]) -> i64 {
        if start_ms >= end_ms {
            return 0;
        }
        self.split_at(start_ms);
        self.split_at(end_ms);
        let own = SampledBy::One(instance);
        let touched = self.0.range(start_ms..end_ms);
        let touched: Vec<_> = touched
            .map(|(start, (end, by))| (*start, *end, *by))
            .collect();
        let (mut overlap_ms, mut free_ms) = (0, start_ms);
        for (from_ms, to_ms, by) in touched {
            self.join(free_ms, from_ms, own);
            self.0.remove(&from_ms);
            if by == own {
                self.join(from_ms, to_ms, own);
            } else {
                overlap_ms += to_ms - from_ms;
                self.join(from_ms, to_ms, SampledBy::Several);
            }
            free_ms = to_ms;
        }
        self.join(free_ms, end_ms, own);
        overlap_ms
    }

    /// Makes a moment the edge of a stretch.
    fn split_at(&mut self, at_ms: i64) {
        if let Some((_, (end, by))) = self.0.range_mut(..at_ms).next_back()
            && *end > at_ms
        {
            let rest = (std::mem::replace(end, at_ms), *by);
            self.0.insert(at_ms, rest);
        }
    }

    /// Adds a stretch that no other overlaps, to the one before if that is alike.
    fn join(&mut self, start_ms: i64, end_ms: i64, by: SampledBy) {
        if start_ms >= end_ms {
            return;
        }
        match self.0.range_mut(..start_ms).next_back() {
            Some((_, (end, before))) if *end == start_ms && *before == by => *end = end_ms,
            _ => drop(self.0.insert(start_ms, (end_ms, by))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(instance: u8, sequence: u64, start_ms: i64, window_ms: i64) -> NodeMessage<'static> {
        NodeMessage {
            node: if instance < 8 { "a" } else { "b" },
            instance: [instance; 16],
            message: Message {
                start_ms,
                sequence,
                window_ms,
            },
        }
    }

    /// Check a hand-over, two collectors at once, and a clock that was set back.
    #[test]
    fn the_collector_that_started_later_counts() {
        let hand_over = [
            message(1, 7, 0, 10),
            message(1, 8, 10, 4),
            message(2, 1, 14, 6),
        ];
        assert_eq!(find_overlaps(&hand_over), [0, 0, 0]);
        let twice = [
            message(1, 7, 0, 10),
            message(1, 8, 10, 10),
            message(2, 1, 4, 6),
            message(2, 2, 10, 10),
            message(9, 1, 0, 20),
        ];
        assert_eq!(find_overlaps(&twice), [6, 10, 0, 0, 0]);
        let at_once = [message(2, 1, 0, 10), message(1, 1, 0, 10)];
        assert_eq!(find_overlaps(&at_once), [10, 0]);
        let set_back = [
            message(1, 1, 0, 10),
            message(1, 2, 5, 10),
            message(2, 1, 7, 1),
        ];
        assert_eq!(find_overlaps(&set_back), [1, 1, 0]);
    }

    /// Check against each millisecond, and that each of them is still in a message that is not left out.
    #[test]
    fn no_time_is_left_out_by_all() {
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..2000 {
            let count: u64 = round % 12;
            let random_message = |sequence| {
                let (start_ms, window_ms) = (random.i64(0..30), random.i64(1..15));
                message(random.u8(6..10), 1 + sequence / 3, start_ms, window_ms)
            };
            let mut messages: Vec<_> = (0..count).map(random_message).collect();
            messages.dedup_by_key(|message| message.age());
            messages.sort_by_key(|message| message.age());
            messages.dedup_by_key(|message| message.age());
            random.shuffle(&mut messages);
            let found = find_overlaps(&messages);
            let has = |message: &NodeMessage<'_>, at_ms: i64| {
                (message.message.start_ms..message.end_ms()).contains(&at_ms)
            };
            for (message, overlap_ms) in messages.iter().zip(&found) {
                let later = |at_ms: &i64| {
                    messages.iter().any(|other| {
                        other.node == message.node
                            && other.instance != message.instance
                            && other.age() < message.age()
                            && has(other, *at_ms)
                    })
                };
                let own_ms = message.message.start_ms..message.end_ms();
                assert_eq!(own_ms.filter(later).count() as i64, *overlap_ms);
            }
            let kept = |node: &'static str| {
                let with = messages.iter().zip(&found);
                with.filter(move |(message, overlap_ms)| {
                    message.node == node && **overlap_ms < message.message.window_ms
                })
            };
            for message in &messages {
                for at_ms in message.message.start_ms..message.end_ms() {
                    assert!(kept(message.node).any(|(other, _)| has(other, at_ms)));
                }
            }
        }
    }
}
