//! Chunks of windows: their identity.

use model::WindowKey;

use crate::chunk::distinct::Distinct;
use crate::codec::column::{ChunkReader, Packer, Unpacker};
use crate::error::Malformed;

/// Windows of a chunk: 90 minutes of 30 nodes, some 40 bytes each.
pub(crate) const CHUNK_WINDOWS: usize = 16 << 10;

/// Messages of a window: rolled up to a month, a window has 259,200 of ten seconds.
pub(crate) const WINDOW_MESSAGES_MAX: usize = 1 << 20;

/// Messages of a chunk: it is full with the window that reaches [`CHUNK_WINDOWS`] of them.
pub(crate) const CHUNK_MESSAGES_MAX: usize = CHUNK_WINDOWS + WINDOW_MESSAGES_MAX;

/// A window as a collector sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    /// Its start, milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// Its number, from 1.
    pub sequence: u64,
    /// Its length in milliseconds.
    pub window_ms: i64,
}

/// Start and length of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start_ms: i64,
    pub(crate) window_ms: i64,
}

impl Span {
    pub(crate) fn start_ns(&self) -> i64 {
        self.start_ms.wrapping_mul(1_000_000)
    }

    pub(crate) fn window_ns(&self) -> i64 {
        self.window_ms.wrapping_mul(1_000_000)
    }
}

/// Identity of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowInfo {
    /// The node.
    pub node: String,
    /// The collector's instance.
    pub instance: [u8; 16],
    /// Messages of the window, by time: one, or several of a window that was rolled up.
    pub messages: Vec<Message>,
}

impl WindowInfo {
    /// Start of the first message.
    pub fn start_ms(&self) -> i64 {
        self.messages.first().map_or(0, |message| message.start_ms)
    }

    /// Start of the last message.
    pub fn last_start_ms(&self) -> i64 {
        self.messages.last().map_or(0, |message| message.start_ms)
    }

    /// From the start of the first message to the end of the last, whatever is missing between them.
    pub fn window_ms(&self) -> i64 {
        let end = |message: &Message| message.start_ms.saturating_add(message.window_ms);
        let end_ms = self.messages.iter().map(end).max();
        end_ms.unwrap_or(0).saturating_sub(self.start_ms())
    }

    /// Time that its messages cover, in milliseconds: what two of them cover counts once.
    pub fn covered_ms(&self) -> i64 {
        let mut until_ms = i64::MIN;
        let own_ms = self.messages.iter().map(|message| {
            let end_ms = message.start_ms.saturating_add(message.window_ms);
            let new_ms = end_ms.saturating_sub(message.start_ms.max(until_ms));
            until_ms = until_ms.max(end_ms);
            new_ms.max(0)
        });
        own_ms.fold(0, i64::saturating_add)
    }

    /// The identity of its first message.
    pub fn key(&self) -> WindowKey {
        WindowKey {
            start_ms: self.start_ms(),
            instance: self.instance,
            sequence: self.messages.first().map_or(0, |message| message.sequence),
        }
    }

    pub(crate) fn span(&self) -> Span {
        Span {
            start_ms: self.start_ms(),
            window_ms: self.window_ms(),
        }
    }

    /// The order of windows in a segment: by time, then by node.
    pub(crate) fn sort_key(&self) -> (i64, &str, [u8; 16], u64) {
        let WindowKey {
            start_ms,
            instance,
            sequence,
        } = self.key();
        (start_ms, &self.node, instance, sequence)
    }
}

pub(crate) fn encode_windows(windows: &[&WindowInfo], packer: &mut Packer) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut nodes, mut instances) = (Distinct::new(), Distinct::new());
    let node_numbers = windows
        .iter()
        .map(|window| nodes.number(window.node.as_str()));
    let node_numbers: Vec<u64> = node_numbers.collect();
    let instance_numbers = windows
        .iter()
        .map(|window| instances.number(window.instance));
    let instance_numbers: Vec<u64> = instance_numbers.collect();
    packer.put_numbers(&mut out, [nodes.values.len() as u64]);
    packer.put_texts(&mut out, nodes.values.iter().copied());
    packer.put_raw(&mut out, &instances.values.concat());
    packer.put_numbers(&mut out, node_numbers);
    packer.put_numbers(&mut out, instance_numbers.iter().copied());
    packer.put_numbers(
        &mut out,
        windows.iter().map(|window| window.messages.len() as u64),
    );

    let messages = || windows.iter().flat_map(|window| &window.messages);
    let start = |message: &Message| message.start_ms as u64;
    packer.put_deltas(&mut out, messages().map(start));
    packer.put_signed(&mut out, messages().map(|message| message.window_ms));
    let mut next = vec![0_u64; instances.values.len()];
    let numbered = windows.iter().zip(&instance_numbers);
    let sequences = numbered.flat_map(|(window, number)| {
        let messages = window.messages.iter();
        messages.map(move |message| (*number as usize, message.sequence))
    });
    // An instance counts its messages, so that the next number is that of the one before plus one.
    let steps = sequences.map(|(instance, sequence)| {
        let expected = std::mem::replace(&mut next[instance], sequence.wrapping_add(1));
        sequence.wrapping_sub(expected) as i64
    });
    packer.put_signed(&mut out, steps);
    out
}

/// Reads the windows of a chunk.
pub(crate) fn decode_windows(
    bytes: &[u8],
    items: usize,
    unpacker: &mut Unpacker,
) -> Result<Vec<WindowInfo>, Malformed> {
    let mut windows = Vec::new();
    read_windows(bytes, items, unpacker, |node, instance, messages| {
        windows.push(WindowInfo {
            node: node.to_owned(),
            instance,
            messages: messages.to_vec(),
        });
    })?;
    Ok(windows)
}

/// Shows the node, instance and messages of each window of a chunk.
pub(crate) fn read_windows(
    bytes: &[u8],
    items: usize,
    unpacker: &mut Unpacker,
    mut visit: impl FnMut(&str, [u8; 16], &[Message]),
) -> Result<(), Malformed> {
    if items > CHUNK_WINDOWS {
        return Err(Malformed("a chunk has too many windows"));
    }
    let mut from = ChunkReader::new(bytes, unpacker);
    let node_count = from.take_numbers(1)?.next_below(items + 1)?;
    let nodes = from.take_texts(node_count as usize)?;
    let instances = from.take_raw(16 * items)?;
    let (instances, []) = instances.as_chunks::<16>() else {
        return Err(Malformed("an instance is cut"));
    };
    let mut node_numbers = from.take_numbers(items)?;
    let mut instance_numbers = from.take_numbers(items)?;
    let mut message_counts = from.take_numbers(items)?;
    let mut windows = Vec::new();
    let mut all = 0;
    for _ in 0..items {
        let node = node_numbers.next_below(nodes.len())?;
        let instance = instance_numbers.next_below(instances.len())?;
        let count = message_counts.next_below(CHUNK_MESSAGES_MAX + 1 - all)?;
        all += count as usize;
        windows.push((node, instance, count));
    }
    let mut starts = from.take_numbers(all)?;
    let mut lengths = from.take_numbers(all)?;
    let mut steps = from.take_numbers(all)?;
    let mut next = vec![0_u64; instances.len()];
    let mut start_ms = 0_i64;
    let mut messages = Vec::new();
    for (node, instance, count) in windows {
        let next = &mut next[instance as usize];
        messages.clear();
        for _ in 0..count {
            start_ms = start_ms.wrapping_add(starts.next_signed()?);
            let sequence = next.wrapping_add(steps.next_signed()? as u64);
            *next = sequence.wrapping_add(1);
            messages.push(Message {
                start_ms,
                sequence,
                window_ms: lengths.next_signed()?,
            });
        }
        let node = nodes.get(node as usize);
        visit(node, instances[instance as usize], &messages);
    }
    for column in [
        node_numbers,
        instance_numbers,
        message_counts,
        starts,
        lengths,
        steps,
    ] {
        column.finish()?;
    }
    from.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start_ms: i64, node: &str, sequences: &[u64]) -> WindowInfo {
        let message = |(at, sequence): (usize, &u64)| Message {
            start_ms: start_ms + 10_000 * at as i64,
            sequence: *sequence,
            window_ms: 10_000 + at as i64,
        };
        WindowInfo {
            node: node.to_owned(),
            instance: [node.len() as u8; 16],
            messages: sequences.iter().enumerate().map(message).collect(),
        }
    }

    /// Check that windows come back, and that damaged bytes never panic.
    #[test]
    fn windows_come_back() {
        let windows = [
            window(-5, "a", &[1]),
            window(10_000, "a", &[2]),
            window(10_000, "bb", &[u64::MAX, 0]),
            window(20_000, "a", &[7]),
        ];
        let all: Vec<_> = windows.iter().collect();
        let bytes = encode_windows(&all, &mut Packer::new(1));
        let mut unpacker = Unpacker::default();
        let read = decode_windows(&bytes, 4, &mut unpacker).unwrap();
        assert_eq!(read, windows);
        for at in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            drop(decode_windows(&damaged, 4, &mut unpacker));
        }
    }

    /// Check that gaps between messages do not count, and that overlaps count once.
    #[test]
    fn messages_cover_their_time() {
        let message = |start_ms, window_ms| Message {
            start_ms,
            sequence: 1,
            window_ms,
        };
        let mut window = window(0, "a", &[]);
        for (messages, window_ms, covered_ms) in [
            (vec![], 0, 0),
            (vec![message(5, 10)], 10, 10),
            (vec![message(5, 10), message(15, 10)], 20, 20),
            (vec![message(5, 10), message(100, 10)], 105, 20),
            (
                vec![message(5, 100), message(15, 10), message(100, 10)],
                105,
                105,
            ),
            (
                vec![message(i64::MIN, i64::MAX), message(i64::MAX, i64::MAX)],
                i64::MAX,
                i64::MAX,
            ),
        ] {
            window.messages = messages;
            assert_eq!(
                (window.window_ms(), window.covered_ms()),
                (window_ms, covered_ms)
            );
        }
    }
}
