//! Windows that an answer leaves out, since a collector of their node that started later sampled their time too.
//!
//! Mostly a node has one collector at a time. That is known from the first and the last moment of each collector in each segment; only
//! where these overlap the windows themselves are compared. Files of earlier versions are not: they are converted soon.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::WindowOverlap;
use segment::{NodeMessage, WindowInfo, find_overlaps};

/// The longest window that is received. One that starts earlier does not reach into a range.
pub const REACH_MS: i64 = 60_000;

/// The time from the first to the last moment of a collector in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorSpan {
    node: String,
    instance: [u8; 16],
    from_ms: i64,
    to_ms: i64,
}

/// The spans of the collectors that sent windows.
pub fn list_spans(windows: &[WindowInfo]) -> Vec<CollectorSpan> {
    let mut spans: HashMap<(&str, [u8; 16]), (i64, i64)> = HashMap::new();
    for window in windows {
        let from_ms = window.start_ms();
        let to_ms = from_ms.saturating_add(window.window_ms());
        let span = spans.entry((&window.node, window.instance));
        let span = span.or_insert((from_ms, to_ms));
        *span = (span.0.min(from_ms), span.1.max(to_ms));
    }
    let span = |((node, instance), (from_ms, to_ms)): ((&str, _), _)| CollectorSpan {
        node: node.to_owned(),
        instance,
        from_ms,
        to_ms,
    };
    spans.into_iter().map(span).collect()
}

/// The nodes of which two collectors may have sampled at the same time.
pub fn find_nodes<'a>(spans: impl IntoIterator<Item = &'a CollectorSpan>) -> HashSet<&'a str> {
    let mut nodes: HashMap<&str, BTreeMap<[u8; 16], (i64, i64)>> = HashMap::new();
    for span in spans {
        let of_node = nodes.entry(&span.node).or_default();
        let known = of_node.entry(span.instance);
        let known = known.or_insert((span.from_ms, span.to_ms));
        *known = (known.0.min(span.from_ms), known.1.max(span.to_ms));
    }
    let have_overlap = |collectors: &BTreeMap<[u8; 16], (i64, i64)>| {
        let mut spans: Vec<(i64, i64)> = collectors.values().copied().collect();
        spans.sort_unstable();
        spans.windows(2).any(|pair| pair[1].0 < pair[0].1)
    };
    let nodes = nodes.into_iter();
    let found = nodes.filter(|(_, collectors)| have_overlap(collectors));
    found.map(|(node, _)| node).collect()
}

/// The messages that overlap others.
#[derive(Debug, Default)]
pub struct Overlaps(HashMap<([u8; 16], u64), i64>);

impl Overlaps {
    /// Of all windows of some nodes. A window may come several times: those of segments that were split from one do.
    pub fn find(windows: &[WindowInfo]) -> Self {
        let mut seen = HashSet::new();
        let mut messages = Vec::new();
        for window in windows {
            for message in &window.messages {
                if seen.insert((window.instance, message.sequence)) {
                    messages.push(NodeMessage {
                        node: &window.node,
                        instance: window.instance,
                        message: *message,
                    });
                }
            }
        }
        let key = |message: &NodeMessage<'_>| (message.instance, message.message.sequence);
        let overlaps = find_overlaps(&messages);
        let found = messages.iter().zip(overlaps);
        let found = found.filter(|(_, overlap_ms)| *overlap_ms > 0);
        Self(found.map(|(message, ms)| (key(message), ms)).collect())
    }

    /// Whether no window overlaps another.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much of a window overlaps others.
    pub fn of_window(&self, window: &WindowInfo) -> WindowOverlap {
        let mut overlap = WindowOverlap::default();
        if self.is_empty() {
            return overlap;
        }
        for message in &window.messages {
            let overlap_ms = self.0.get(&(window.instance, message.sequence));
            overlap.add(overlap_ms.copied().unwrap_or(0), message.window_ms);
        }
        overlap
    }
}
