//! Chunks of accounts: fields of windows beside their identity and their rows.

use std::collections::BTreeMap;

use model::{Account, ProfileHead, WindowHead};

use crate::chunk::distinct::Distinct;
use crate::chunk::windows::{Span, WindowInfo};
use crate::codec::column::{ChunkReader, Numbers, Packer, Texts, Unpacker};
use crate::error::Malformed;

/// Outcomes, stages of losses and comments of a chunk: some ten a window.
const CHUNK_COUNTS_MAX: usize = 4 << 20;

/// Fields of a window beside its identity and its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowAccount {
    /// The collector's account of its samples.
    pub account: Account,
    /// The head of the pprof.
    pub profile: ProfileHead,
}

impl WindowAccount {
    /// Adds the account of a window that is rolled up into this one.
    pub(crate) fn add(&mut self, other: &Self) {
        self.account.add(&other.account);
        // The other fields describe all windows of a collector.
        let profile = &mut self.profile;
        profile.time_ns = profile.time_ns.min(other.profile.time_ns);
        profile.duration_ns = profile
            .duration_ns
            .saturating_add(other.profile.duration_ns);
        for comment in &other.profile.comments {
            if !profile.comments.contains(comment) {
                profile.comments.push(comment.clone());
            }
        }
    }
}

/// The head of a window, of both its parts.
pub(crate) fn join_head(info: &WindowInfo, account: WindowAccount) -> WindowHead {
    WindowHead {
        key: info.key(),
        node: info.node.clone(),
        window_ms: info.window_ms(),
        account: account.account,
        profile: account.profile,
    }
}

/// The fields of a pprof's head that most windows have in common.
type ProfileTexts<'a> = (&'a (String, String), [&'a str; 3], &'a [String]);

/// Encodes the accounts of windows.
pub(crate) fn encode_accounts(accounts: &[(Span, &WindowAccount)], packer: &mut Packer) -> Vec<u8> {
    let mut out = Vec::new();
    let rows: Vec<_> = accounts
        .iter()
        .map(|(_, account)| account.account.numbers())
        .collect();
    for column in 0..Account::NUMBERS {
        let numbers = rows.iter().map(|numbers| numbers[column]);
        packer.put_numbers(&mut out, numbers);
    }
    put_counts(
        &mut out,
        accounts
            .iter()
            .map(|(_, account)| &account.account.outcomes),
        packer,
    );
    put_counts(
        &mut out,
        accounts.iter().map(|(_, account)| &account.account.dropped),
        packer,
    );

    let profiles = accounts.iter().map(|(_, account)| &account.profile);
    let times = accounts
        .iter()
        .map(|(span, account)| account.profile.time_ns.wrapping_sub(span.start_ns()));
    packer.put_signed(&mut out, times);
    let durations = accounts
        .iter()
        .map(|(span, account)| account.profile.duration_ns.wrapping_sub(span.window_ns()));
    packer.put_signed(&mut out, durations);
    packer.put_signed(&mut out, profiles.clone().map(|profile| profile.period));

    let mut distinct: Distinct<ProfileTexts<'_>> = Distinct::new();
    let numbers: Vec<u64> = profiles
        .map(|profile| distinct.number(texts_of(profile)))
        .collect();
    packer.put_numbers(&mut out, [distinct.values.len() as u64]);
    packer.put_numbers(&mut out, numbers);
    let comments = distinct
        .values
        .iter()
        .map(|(.., comments)| comments.len() as u64);
    packer.put_numbers(&mut out, comments);
    let texts = distinct
        .values
        .iter()
        .flat_map(|((kind, unit), others, comments)| {
            let comments = comments.iter().map(String::as_str);
            [kind.as_str(), unit]
                .into_iter()
                .chain(*others)
                .chain(comments)
        });
    packer.put_texts(&mut out, texts);
    out
}

fn texts_of(profile: &ProfileHead) -> ProfileTexts<'_> {
    let ProfileHead {
        time_ns: _,
        duration_ns: _,
        period_type,
        period: _,
        comments,
        drop_frames,
        keep_frames,
        default_sample_type,
    } = profile;
    let others = [drop_frames, keep_frames, default_sample_type].map(String::as_str);
    (period_type, others, comments)
}

/// Texts of [`ProfileTexts`] without the comments.
const PROFILE_TEXTS: usize = 5;

/// Reads the accounts of windows.
pub(crate) fn decode_accounts(
    bytes: &[u8],
    windows: &[Span],
    unpacker: &mut Unpacker,
) -> Result<Vec<WindowAccount>, Malformed> {
    let items = windows.len();
    let mut from = ChunkReader::new(bytes, unpacker);
    let mut columns: [Numbers; Account::NUMBERS] = Default::default();
    for column in &mut columns {
        *column = from.take_numbers(items)?;
    }
    let mut rows = Vec::new();
    for _ in 0..items {
        let mut numbers = [0; Account::NUMBERS];
        for (number, column) in numbers.iter_mut().zip(&mut columns) {
            *number = column.next()?;
        }
        rows.push(numbers);
    }
    for column in &columns {
        column.finish()?;
    }
    let outcomes = take_counts(&mut from, items)?;
    let dropped = take_counts(&mut from, items)?;
    let profiles = take_profiles(&mut from, windows)?;
    from.finish()?;
    let counts = outcomes.into_iter().zip(dropped).zip(profiles);
    let account = |(numbers, ((outcomes, dropped), profile))| WindowAccount {
        account: Account::from_numbers(numbers, outcomes, dropped),
        profile,
    };
    Ok(rows.into_iter().zip(counts).map(account).collect())
}

fn take_profiles(
    from: &mut ChunkReader<'_>,
    windows: &[Span],
) -> Result<Vec<ProfileHead>, Malformed> {
    let items = windows.len();
    let mut times = from.take_numbers(items)?;
    let mut durations = from.take_numbers(items)?;
    let mut periods = from.take_numbers(items)?;
    let distinct = from.take_numbers(1)?.next_below(items + 1)? as usize;
    let mut numbers = from.take_numbers(items)?;
    let mut comment_counts = from.take_numbers(distinct)?;
    let mut starts = vec![0_usize];
    for number in 0..distinct {
        let start = starts[number];
        let comments = comment_counts.next_below(CHUNK_COUNTS_MAX + 1)? as usize;
        if start > CHUNK_COUNTS_MAX {
            return Err(Malformed("a chunk has too many comments"));
        }
        starts.push(start + PROFILE_TEXTS + comments);
    }
    let texts = from.take_texts(starts[distinct])?;
    let mut profiles = Vec::new();
    for window in windows {
        let number = numbers.next_below(distinct)? as usize;
        let text = |position: usize| texts.get(starts[number] + position).to_owned();
        let comments = PROFILE_TEXTS..starts[number + 1] - starts[number];
        profiles.push(ProfileHead {
            time_ns: window.start_ns().wrapping_add(times.next_signed()?),
            duration_ns: window.window_ns().wrapping_add(durations.next_signed()?),
            period_type: (text(0), text(1)),
            period: periods.next_signed()?,
            comments: comments.map(text).collect(),
            drop_frames: text(2),
            keep_frames: text(3),
            default_sample_type: text(4),
        });
    }
    for column in [times, durations, periods, numbers, comment_counts] {
        column.finish()?;
    }
    Ok(profiles)
}

/// Writes counts by name: the names, and the number of each count's name.
fn put_counts<'a>(
    out: &mut Vec<u8>,
    maps: impl Iterator<Item = &'a BTreeMap<String, u64>> + Clone,
    packer: &mut Packer,
) {
    let mut names = Distinct::new();
    let counts = || maps.clone().flatten();
    let numbers: Vec<u64> = counts()
        .map(|(name, _)| names.number(name.as_str()))
        .collect();
    packer.put_numbers(out, [names.values.len() as u64]);
    packer.put_texts(out, names.values.iter().copied());
    packer.put_numbers(out, maps.clone().map(|map| map.len() as u64));
    packer.put_numbers(out, numbers);
    packer.put_numbers(out, counts().map(|(_, count)| *count));
}

fn take_counts(
    from: &mut ChunkReader<'_>,
    items: usize,
) -> Result<Vec<BTreeMap<String, u64>>, Malformed> {
    let name_count = from.take_numbers(1)?.next_below(CHUNK_COUNTS_MAX)?;
    let names: Texts = from.take_texts(name_count as usize)?;
    let mut lengths = from.take_numbers(items)?;
    let mut counts = Vec::new();
    let mut all = 0;
    for _ in 0..items {
        let count = lengths.next_below(CHUNK_COUNTS_MAX + 1 - all)?;
        all += count as usize;
        counts.push(count);
    }
    lengths.finish()?;
    let mut numbers = from.take_numbers(all)?;
    let mut values = from.take_numbers(all)?;
    let mut maps = Vec::new();
    for count in counts {
        let mut map = BTreeMap::new();
        for _ in 0..count {
            let name = names.get(numbers.next_below(names.len())? as usize);
            if map.insert(name.to_owned(), values.next()?).is_some() {
                return Err(Malformed("a count comes twice"));
            }
        }
        maps.push(map);
    }
    numbers.finish()?;
    values.finish()?;
    Ok(maps)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that accounts come back, and that damaged bytes never panic.
    #[test]
    fn accounts_come_back() {
        let account = |entries: u64| WindowAccount {
            account: Account {
                entries,
                expected: 5,
                sampled_ns: u64::MAX,
                busy_ns: 7,
                collector_cpu_ns: 8,
                bpf_ns: 9,
                outcomes: [("complete".to_owned(), entries), ("copied".to_owned(), 0)].into(),
                dropped: BTreeMap::new(),
                stolen_ns: 10,
            },
            profile: ProfileHead {
                time_ns: i64::MIN + entries as i64,
                duration_ns: 10,
                period_type: ("cpu".to_owned(), "nanoseconds".to_owned()),
                period: 10_000_000,
                comments: vec![format!("comment {}", entries % 2)],
                drop_frames: "a".to_owned(),
                keep_frames: "b".to_owned(),
                default_sample_type: "cpu".to_owned(),
            },
        };
        let mut accounts: Vec<WindowAccount> = (0..3).map(account).collect();
        accounts.push(WindowAccount::default());
        let span = |start_ms| Span {
            start_ms,
            window_ms: 10_000,
        };
        let spans = [-5, 0, i64::MAX, 20_000].map(span);
        let pairs: Vec<_> = spans.into_iter().zip(&accounts).collect();
        let bytes = encode_accounts(&pairs, &mut Packer::new(1));
        let mut unpacker = Unpacker::default();
        let read = decode_accounts(&bytes, &spans, &mut unpacker).unwrap();
        assert_eq!(read, accounts);
        for at in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            drop(decode_accounts(&damaged, &spans, &mut unpacker));
        }
    }

    #[test]
    fn accounts_are_added_up() {
        let mut sum = WindowAccount::default();
        let mut one = WindowAccount::default();
        one.account.entries = u64::MAX - 1;
        one.account.outcomes = [("copied".to_owned(), 2)].into();
        one.profile.comments = vec!["a".to_owned()];
        sum.add(&one);
        sum.add(&one);
        assert_eq!(sum.account.entries, u64::MAX);
        assert_eq!(sum.account.outcomes["copied"], 4);
        assert_eq!(sum.profile.comments, ["a"]);
    }
}
