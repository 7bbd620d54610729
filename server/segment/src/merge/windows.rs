//! The windows of all inputs, and their roll-up.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::chunk::accounts::WindowAccount;
use crate::chunk::digests::Digest;
use crate::chunk::rows::WINDOWS_MAX;
use crate::chunk::windows::{Message, WINDOW_MESSAGES_MAX, WindowInfo};
use crate::error::Error;
use crate::overlap::{NodeMessage, find_overlaps};
use crate::read::Segment;
use crate::read_at::ReadAt;
use crate::write::WindowEntry;

use super::in_input;

/// Key of windows of the inputs that become one window of the output: the stretch of time, the node and the collector; and the message, if
/// windows are not rolled up, or whether another collector of the node makes it one that is left out, if they are.
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
        let left_out = find_left_out(&infos);
        let mut groups: BTreeMap<Group, Vec<Source>> = BTreeMap::new();
        for (source, is_left_out) in sources.into_iter().zip(left_out) {
            let group = group_of(&source.info, is_left_out, resolution_ms);
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

fn group_of(info: &WindowInfo, is_left_out: bool, resolution_ms: Option<u64>) -> Group {
    let (start_ms, node, instance, sequence) = info.sort_key();
    let node = node.to_owned();
    let resolution_ms = resolution_ms.and_then(|resolution_ms| i64::try_from(resolution_ms).ok());
    match resolution_ms {
        Some(resolution_ms @ 1..) => {
            let stretch = start_ms.div_euclid(resolution_ms);
            (stretch, node, instance, u64::from(is_left_out))
        }
        _ => (start_ms, node, instance, sequence),
    }
}

/// For each window, whether another collector of its node sampled all of it too, and started later.
fn find_left_out(windows: &[&WindowInfo]) -> Vec<bool> {
    // The inputs that were split from one have the same messages.
    let mut numbers: HashMap<([u8; 16], Message), usize> = HashMap::new();
    let mut messages = Vec::new();
    for info in windows {
        for message in &info.messages {
            let number = numbers.entry((info.instance, *message));
            number.or_insert_with(|| {
                messages.push(NodeMessage {
                    node: &info.node,
                    instance: info.instance,
                    message: *message,
                });
                messages.len() - 1
            });
        }
    }
    let overlaps = find_overlaps(&messages);
    let is_left_out = |info: &&WindowInfo| {
        let mut own = info.messages.iter();
        own.all(|message| overlaps[numbers[&(info.instance, *message)]] >= message.window_ms)
    };
    windows.iter().map(is_left_out).collect()
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
