//! The windows of all inputs, and their roll-up.

use std::collections::{BTreeMap, HashSet};

use crate::chunk::accounts::WindowAccount;
use crate::chunk::digests::Digest;
use crate::chunk::rows::WINDOWS_MAX;
use crate::chunk::windows::{Message, WINDOW_MESSAGES_MAX, WindowInfo};
use crate::error::Error;
use crate::read::Segment;
use crate::read_at::ReadAt;
use crate::write::WindowEntry;

use super::in_input;

/// What makes windows of the inputs one window of the output: the stretch of time, the node and the collector; and the message, if
/// windows are not rolled up, or whether another collector of the node has a window at the same time, if they are.
type Group = (i64, String, [u8; 16], u64);

/// The windows of the outputs.
pub(super) struct MergedWindows {
    windows: Vec<WindowEntry>,
    /// For each input, the number of each of its windows.
    pub(super) numbers: Vec<Vec<u32>>,
    pub(super) resolution_ms: u64,
    /// Whether any input has accounts.
    pub(super) have_accounts: bool,
}

/// A window of an input.
struct Source {
    input: usize,
    number: usize,
    info: WindowInfo,
    account: Option<WindowAccount>,
    digests: Vec<Option<Digest>>,
}

impl MergedWindows {
    pub(super) fn read<R: ReadAt>(
        inputs: &[&Segment<R>],
        resolution_ms: Option<u64>,
    ) -> Result<Self, Error> {
        let mut sources = Vec::new();
        for (input, segment) in inputs.iter().enumerate() {
            sources.extend(read_sources(input, segment)?);
        }
        let infos: Vec<&WindowInfo> = sources.iter().map(|source| &source.info).collect();
        let overlaps = find_overlaps(&infos);
        let mut groups: BTreeMap<Group, Vec<Source>> = BTreeMap::new();
        for (source, overlaps) in sources.into_iter().zip(overlaps) {
            let group = group_of(&source.info, overlaps, resolution_ms);
            groups.entry(group).or_default().push(source);
        }
        let mut merged = Vec::new();
        for mut sources in groups.into_values() {
            sources.sort_by(|a, b| a.info.sort_key().cmp(&b.info.sort_key()));
            let numbers: Vec<_> = sources
                .iter()
                .map(|source| (source.input, source.number))
                .collect();
            merged.push((join(sources)?, numbers));
        }
        if merged.len() > WINDOWS_MAX {
            return Err(Error::TooLarge("more windows than 22 bits can number"));
        }
        merged.sort_by(|(a, _), (b, _)| a.info.sort_key().cmp(&b.info.sort_key()));

        let numbers = inputs.iter().map(|segment| vec![0; segment.window_count()]);
        let mut numbers: Vec<Vec<u32>> = numbers.collect();
        for (number, (_, sources)) in merged.iter().enumerate() {
            for (input, window) in sources {
                numbers[*input][*window] = number as u32;
            }
        }
        let before = inputs.iter().map(|segment| segment.summary().resolution_ms);
        let mut accounts = inputs.iter().map(|segment| segment.has_accounts());
        Ok(Self {
            have_accounts: accounts.any(|has_accounts| has_accounts),
            windows: merged.into_iter().map(|(window, _)| window).collect(),
            numbers,
            resolution_ms: before.max().unwrap_or(0).max(resolution_ms.unwrap_or(0)),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.windows.len()
    }

    /// The windows, in the order of the file.
    pub(super) fn list(&self) -> Vec<&WindowEntry> {
        self.windows.iter().collect()
    }
}

fn read_sources<R: ReadAt>(input: usize, segment: &Segment<R>) -> Result<Vec<Source>, Error> {
    let infos = segment.read_windows().map_err(in_input(input))?;
    let accounts = segment.read_accounts(&infos).whole();
    let accounts = accounts.map_err(in_input(input))?;
    let digests = segment.read_digests(&infos).whole();
    let mut digests = digests.map_err(in_input(input))?.into_iter();
    let windows = infos.into_iter().zip(accounts).enumerate();
    let sources = windows.map(|(number, (info, account))| Source {
        input,
        number,
        digests: digests.by_ref().take(info.messages.len()).collect(),
        info,
        account,
    });
    Ok(sources.collect())
}

fn group_of(info: &WindowInfo, overlaps: bool, resolution_ms: Option<u64>) -> Group {
    let (start_ms, node, instance, sequence) = info.sort_key();
    let node = node.to_owned();
    let resolution_ms = resolution_ms.and_then(|resolution_ms| i64::try_from(resolution_ms).ok());
    match resolution_ms {
        Some(resolution_ms @ 1..) => {
            let stretch = start_ms.div_euclid(resolution_ms);
            (stretch, node, instance, u64::from(overlaps))
        }
        _ => (start_ms, node, instance, sequence),
    }
}

/// For each window, whether one of its messages overlaps a message of another collector of the node.
fn find_overlaps(windows: &[&WindowInfo]) -> Vec<bool> {
    let mut spans = Vec::new();
    for (window, info) in windows.iter().enumerate() {
        spans.extend(info.messages.iter().map(|message| NodeSpan {
            node: &info.node,
            start_ms: message.start_ms,
            end_ms: message.start_ms.saturating_add(message.window_ms),
            instance: info.instance,
            window,
        }));
    }
    let mut overlaps = vec![false; windows.len()];
    spans.sort_unstable_by_key(|span| (span.node, span.start_ms));
    // First a span is compared with those that start before it; then, with time running backwards, with those that start after it.
    for _ in 0..2 {
        for of_node in spans.chunk_by(|a, b| a.node == b.node) {
            let mut last = LastEnds::default();
            for span in of_node {
                overlaps[span.window] |= last.of_others(span.instance) > span.start_ms;
                last.add(span);
            }
        }
        for span in &mut spans {
            (span.start_ms, span.end_ms) = (!span.end_ms, !span.start_ms);
        }
        spans.reverse();
    }
    overlaps
}

struct NodeSpan<'a> {
    node: &'a str,
    start_ms: i64,
    end_ms: i64,
    instance: [u8; 16],
    window: usize,
}

/// The last end of any collector's spans, and the last one of the others.
struct LastEnds {
    instance: [u8; 16],
    own_ms: i64,
    others_ms: i64,
}

impl Default for LastEnds {
    fn default() -> Self {
        Self {
            instance: [0; 16],
            own_ms: i64::MIN,
            others_ms: i64::MIN,
        }
    }
}

impl LastEnds {
    fn of_others(&self, instance: [u8; 16]) -> i64 {
        if instance == self.instance {
            self.others_ms
        } else {
            self.own_ms
        }
    }

    fn add(&mut self, span: &NodeSpan<'_>) {
        if span.instance == self.instance {
            self.own_ms = self.own_ms.max(span.end_ms);
        } else if span.end_ms > self.own_ms {
            self.others_ms = self.own_ms;
            (self.instance, self.own_ms) = (span.instance, span.end_ms);
        } else {
            self.others_ms = self.others_ms.max(span.end_ms);
        }
    }
}

/// Joins windows of one collector, by time. An account counts once, whichever inputs have it.
fn join(sources: Vec<Source>) -> Result<WindowEntry, Error> {
    let mut messages: Vec<(Message, Option<Digest>)> = Vec::new();
    let mut accounted: HashSet<Message> = HashSet::new();
    let mut sum: Option<WindowAccount> = None;
    let (node, instance) = match sources.first() {
        Some(first) => (first.info.node.clone(), first.info.instance),
        None => Default::default(),
    };
    for source in sources {
        let own = &source.info.messages;
        messages.extend(own.iter().copied().zip(source.digests));
        let is_known = own.iter().all(|message| accounted.contains(message));
        if let Some(account) = source.account
            && (!is_known || own.is_empty())
        {
            accounted.extend(own);
            match &mut sum {
                Some(sum) => sum.add(&account),
                None => sum = Some(account),
            }
        }
    }
    // Of the inputs that were split from one, only the first has digests.
    messages.sort_unstable();
    messages.dedup_by(|(message, digest), (kept, kept_digest)| {
        let is_same = message == kept && (kept_digest.is_none() || digest == kept_digest);
        if is_same {
            *kept_digest = *digest;
        }
        is_same
    });
    if messages.len() > WINDOW_MESSAGES_MAX {
        return Err(Error::TooLarge("a window of more than 2^20 messages"));
    }
    let (messages, digests) = messages.into_iter().unzip();
    Ok(WindowEntry {
        info: WindowInfo {
            node,
            instance,
            messages,
        },
        account: sum.unwrap_or_default(),
        digests,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check against all pairs of windows.
    #[test]
    fn overlaps_are_found() {
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..500 {
            let window = |_| {
                let instance = random.u8(0..4);
                let messages = (0..random.usize(1..3)).map(|_| Message {
                    start_ms: random.i64(-50..50),
                    sequence: 1,
                    window_ms: random.i64(1..10),
                });
                WindowInfo {
                    node: format!("node-{}", instance / 3),
                    instance: [instance; 16],
                    messages: messages.collect(),
                }
            };
            let windows: Vec<WindowInfo> = (0..round % 20).map(window).collect();
            let overlap = |a: &Message, b: &Message| {
                let end_ms = |message: &Message| message.start_ms + message.window_ms;
                a.start_ms < end_ms(b) && b.start_ms < end_ms(a)
            };
            let expected = windows.iter().map(|window| {
                let is_other = |other: &&WindowInfo| {
                    other.node == window.node && other.instance != window.instance
                };
                let mut others = windows
                    .iter()
                    .filter(is_other)
                    .flat_map(|other| &other.messages);
                others.any(|other| {
                    window
                        .messages
                        .iter()
                        .any(|message| overlap(message, other))
                })
            });
            let expected: Vec<bool> = expected.collect();
            assert_eq!(find_overlaps(&windows.iter().collect::<Vec<_>>()), expected);
        }
    }
}
