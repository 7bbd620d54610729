//! The first section: head, series and their sums.

use std::collections::BTreeMap;

#[cfg(any(test, feature = "test-support"))]
use model::ContainerAccount;
use model::{
    Account, ContainerUsage, Messages, ProfileHead, SeriesId, WindowHead, WindowKey, WindowOverlap,
    WindowTotals,
};

#[cfg(any(test, feature = "test-support"))]
use super::super::columns::ColumnWriter;
use super::super::columns::{ColumnReader, Damaged};
#[cfg(any(test, feature = "test-support"))]
use super::encode::PreparedWindow;

#[cfg(any(test, feature = "test-support"))]
pub(super) fn encode_totals(
    prepared: &PreparedWindow,
    ids: &[SeriesId],
    containers: &[SeriesId],
) -> Vec<u8> {
    let mut out = ColumnWriter::default();
    let WindowHead {
        key,
        node,
        window_ms,
        account,
        profile,
    } = &prepared.head;
    out.put_signed(key.start_ms);
    out.put_raw(&key.instance);
    out.put(key.sequence);
    out.put_text(node);
    out.put_signed(*window_ms);
    encode_account(&mut out, account);
    encode_profile_head(&mut out, profile);
    out.put(ids.len() as u64);
    out.put_deltas(ids.iter().map(|id| id.0));
    out.put_column(prepared.samples.iter().copied());
    out.put_column(prepared.ns.iter().copied());
    out.put(account.stolen_ns);
    encode_containers(&mut out, &prepared.containers, containers);
    out.into_bytes()
}

#[cfg(any(test, feature = "test-support"))]
fn encode_containers(out: &mut ColumnWriter, accounts: &[ContainerAccount], ids: &[SeriesId]) {
    let column = |read: fn(&ContainerUsage) -> u64| {
        let usages = accounts.iter().map(|account| &account.usage);
        usages.map(read)
    };
    out.put(ids.len() as u64);
    out.put_deltas(ids.iter().map(|id| id.0));
    out.put_column(column(|usage| usage.kernel_ns));
    out.put_column(column(|usage| usage.throttled_ns));
    out.put_column(column(|usage| usage.unread_ns));
    out.put_column(column(|usage| usage.excluded_samples));
}

fn decode_containers(
    from: &mut ColumnReader<'_>,
) -> Result<Vec<(SeriesId, ContainerUsage)>, Damaged> {
    let count = from.take_count()?;
    let ids = from.take_deltas(count)?;
    let kernel_ns = from.take_column(count)?;
    let throttled_ns = from.take_column(count)?;
    let unread_ns = from.take_column(count)?;
    let excluded_samples = from.take_column(count)?;
    let account = |i: usize| {
        let usage = ContainerUsage {
            kernel_ns: kernel_ns[i],
            throttled_ns: throttled_ns[i],
            unread_ns: unread_ns[i],
            excluded_samples: excluded_samples[i],
        };
        (SeriesId(ids[i]), usage)
    };
    Ok((0..count).map(account).collect())
}

/// Reads [`Section::Totals`](super::Section::Totals).
///
/// # Errors
/// The bytes are damaged.
pub fn decode_totals(bytes: &[u8]) -> Result<WindowTotals, Damaged> {
    let mut from = ColumnReader::new(bytes);
    let start_ms = from.take_signed()?;
    let instance = from
        .take_raw(16)?
        .try_into()
        .map_err(|_| Damaged("the instance is cut"))?;
    let key = WindowKey {
        start_ms,
        instance,
        sequence: from.take()?,
    };
    let node = from.take_text()?.to_owned();
    let window_ms = from.take_signed()?;
    let mut account = decode_account(&mut from)?;
    let profile = decode_profile_head(&mut from)?;
    let count = from.take_count()?;
    let series = from.take_deltas(count)?.into_iter().map(SeriesId).collect();
    let samples = from.take_column(count)?;
    let ns = from.take_column(count)?;
    let mut containers = Vec::new();
    // Records of earlier versions end here.
    if !from.is_empty() {
        account.stolen_ns = from.take()?;
        containers = decode_containers(&mut from)?;
    }
    from.finish()?;
    let messages = Messages {
        count: 1,
        last_sequence: key.sequence,
    };
    Ok(WindowTotals {
        messages,
        head: WindowHead {
            key,
            node,
            window_ms,
            account,
            profile,
        },
        series,
        samples,
        ns,
        containers,
        overlap: WindowOverlap::default(),
    })
}

#[cfg(any(test, feature = "test-support"))]
fn encode_account(out: &mut ColumnWriter, account: &Account) {
    // The last one, stolen time, is at the end of the section since version 4.
    let numbers = &account.numbers()[..Account::NUMBERS - 1];
    out.put_column(numbers.iter().copied());
    for counts in [&account.outcomes, &account.dropped] {
        out.put(counts.len() as u64);
        for (name, count) in counts {
            out.put_text(name);
            out.put(*count);
        }
    }
}

fn decode_account(from: &mut ColumnReader<'_>) -> Result<Account, Damaged> {
    let take_counts = |from: &mut ColumnReader<'_>| -> Result<BTreeMap<String, u64>, Damaged> {
        from.take_list(|from| Ok((from.take_text()?.to_owned(), from.take()?)))
    };
    let mut numbers = [0; Account::NUMBERS];
    for number in &mut numbers[..Account::NUMBERS - 1] {
        *number = from.take()?;
    }
    let outcomes = take_counts(from)?;
    Ok(Account::from_numbers(numbers, outcomes, take_counts(from)?))
}

#[cfg(any(test, feature = "test-support"))]
fn encode_profile_head(out: &mut ColumnWriter, head: &ProfileHead) {
    let ProfileHead {
        time_ns,
        duration_ns,
        period_type,
        period,
        comments,
        drop_frames,
        keep_frames,
        default_sample_type,
    } = head;
    out.put_signed(*time_ns);
    out.put_signed(*duration_ns);
    out.put_signed(*period);
    for text in [
        &period_type.0,
        &period_type.1,
        drop_frames,
        keep_frames,
        default_sample_type,
    ] {
        out.put_text(text);
    }
    out.put(comments.len() as u64);
    comments.iter().for_each(|comment| out.put_text(comment));
}

fn decode_profile_head(from: &mut ColumnReader<'_>) -> Result<ProfileHead, Damaged> {
    let time_ns = from.take_signed()?;
    let duration_ns = from.take_signed()?;
    let period = from.take_signed()?;
    let period_type = (from.take_text()?.to_owned(), from.take_text()?.to_owned());
    let drop_frames = from.take_text()?.to_owned();
    let keep_frames = from.take_text()?.to_owned();
    let default_sample_type = from.take_text()?.to_owned();
    let comments = from.take_list(|from| Ok(from.take_text()?.to_owned()))?;
    Ok(ProfileHead {
        time_ns,
        duration_ns,
        period_type,
        period,
        comments,
        drop_frames,
        keep_frames,
        default_sample_type,
    })
}
