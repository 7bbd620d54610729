//! The windows of a record: their heads, accounts and rows.

use std::collections::BTreeMap;
use std::ops::Range;

use model::{Account, ContainerUsage, ProfileHead};

use crate::build::Builder;
use crate::build::row_buffer::Run;
use crate::chunk::accounts::WindowAccount;
use crate::chunk::rows::{SeriesRow, rest_ns, with_rest};
use crate::chunk::windows::{Message, WindowInfo};
use crate::codec::varint::{self, Bytes, unzigzag};
use crate::dictionary::Strings;
use crate::error::Malformed;
use crate::write::WindowEntry;

use super::columns::{
    Deltas, check_below, finish, put_columns, put_signed, take_columns, take_signed,
};
use super::entries::Bounds;

/// Writes windows of a builder.
pub(crate) fn encode_windows(builder: &Builder, windows: Range<usize>, out: &mut Vec<u8>) {
    varint::put(out, windows.len() as u64);
    let entries = &builder.windows[windows.clone()];
    encode_heads(entries, &builder.names.strings, out);
    encode_rows(builder, windows.clone(), out);
    encode_usage(builder, windows, out);
}

fn encode_heads(windows: &[WindowEntry], strings: &Strings, out: &mut Vec<u8>) {
    let (mut heads, mut raw) = (Vec::new(), Vec::new());
    for window in windows {
        encode_head(window, strings, &mut heads, &mut raw);
    }
    put_columns(out, [heads, raw]);
}

/// Writes the numbers of a head, and its bytes that do not pack.
fn encode_head(window: &WindowEntry, strings: &Strings, out: &mut Vec<u8>, raw: &mut Vec<u8>) {
    // SANITY: the builder has all texts of its windows.
    let text = |text: &str| u64::from(strings.find(text).unwrap_or_default());
    let WindowEntry {
        info,
        account: WindowAccount { account, profile },
        digests,
    } = window;
    // A window that was added has one message.
    let message = info.messages.first().copied().unwrap_or_default();
    let digest = digests.first().copied().flatten();
    raw.extend_from_slice(&info.instance);
    raw.extend_from_slice(digest.as_ref().map_or(&[], |digest| digest));
    varint::put(out, u64::from(digest.is_some()));
    varint::put(out, text(&info.node));
    put_signed(out, message.start_ms);
    varint::put(out, message.sequence);
    put_signed(out, message.window_ms);

    for number in account.numbers() {
        varint::put(out, number);
    }
    for counts in [&account.outcomes, &account.dropped] {
        varint::put(out, counts.len() as u64);
        for (name, count) in counts {
            varint::put(out, text(name));
            varint::put(out, *count);
        }
    }

    let ProfileHead {
        time_ns,
        duration_ns,
        period_type,
        period,
        comments,
        drop_frames,
        keep_frames,
        default_sample_type,
    } = profile;
    let span = info.span();
    put_signed(out, time_ns.wrapping_sub(span.start_ns()));
    put_signed(out, duration_ns.wrapping_sub(span.window_ns()));
    put_signed(out, *period);
    for name in [
        &period_type.0,
        &period_type.1,
        drop_frames,
        keep_frames,
        default_sample_type,
    ] {
        varint::put(out, text(name));
    }
    varint::put(out, comments.len() as u64);
    for comment in comments {
        varint::put(out, text(comment));
    }
}

fn encode_rows(builder: &Builder, windows: Range<usize>, out: &mut Vec<u8>) {
    let mut columns: [Vec<u8>; 8] = Default::default();
    let [
        run_counts,
        all_series,
        counts,
        units,
        stacks,
        tags,
        samples,
        rests,
    ] = &mut columns;
    let (mut series_deltas, mut unit_deltas) = (Deltas::default(), Deltas::default());
    let mut first_stack = Deltas::default();
    for window in windows {
        let mut runs = 0;
        for (series, run) in builder.window_runs(window) {
            let Run { count, unit_ns, .. } = run;
            runs += 1;
            series_deltas.put(all_series, u64::from(series));
            varint::put(counts, count as u64);
            unit_deltas.put(units, unit_ns);
            let mut before = None;
            run.read(|row| {
                match before.replace(row.stack) {
                    None => first_stack.put(stacks, u64::from(row.stack)),
                    Some(before) => varint::put(stacks, u64::from(row.stack - before)),
                }
                varint::put(tags, u64::from(row.tags));
                varint::put(samples, row.samples.wrapping_sub(1));
                put_signed(rests, rest_ns(row.samples, row.ns, unit_ns) as i64);
            });
        }
        varint::put(run_counts, runs);
    }
    put_columns(out, columns);
}

fn encode_usage(builder: &Builder, windows: Range<usize>, out: &mut Vec<u8>) {
    let mut columns: [Vec<u8>; 6] = Default::default();
    let [counts, containers, kernel, throttled, unread, excluded] = &mut columns;
    let mut deltas = Deltas::default();
    for window in windows {
        let usage = builder.window_usage(window);
        varint::put(counts, usage.len() as u64);
        for (container, usage) in usage {
            let ContainerUsage {
                kernel_ns,
                throttled_ns,
                unread_ns,
                excluded_samples,
            } = usage;
            deltas.put(containers, u64::from(container));
            varint::put(kernel, kernel_ns);
            varint::put(throttled, throttled_ns);
            varint::put(unread, unread_ns);
            varint::put(excluded, excluded_samples);
        }
    }
    put_columns(out, columns);
}

/// A window that was read, with the texts of its head as numbers of strings.
#[derive(Debug)]
pub(crate) struct NewWindow {
    head: NewHead,
    runs: Vec<NewRun>,
    usage: Vec<(u32, ContainerUsage)>,
}

/// The rows of a series in a window.
#[derive(Debug)]
struct NewRun {
    series: u32,
    rows: Vec<SeriesRow>,
}

#[derive(Debug)]
struct NewHead {
    node: u32,
    instance: [u8; 16],
    message: Message,
    digest: Option<[u8; 16]>,
    numbers: [u64; Account::NUMBERS],
    outcomes: Vec<(u32, u64)>,
    dropped: Vec<(u32, u64)>,
    time_ns: i64,
    duration_ns: i64,
    period: i64,
    texts: [u32; 5],
    comments: Vec<u32>,
}

/// Reads windows.
pub(crate) fn decode_windows(
    from: &mut Bytes<'_>,
    bounds: Bounds,
) -> Result<Vec<NewWindow>, Malformed> {
    // More than a byte each.
    let count = from.take_count()?;
    let mut heads = Vec::new();
    let [mut numbers, mut raw] = take_columns(from)?;
    for _ in 0..count {
        heads.push(decode_head(&mut numbers, &mut raw, bounds)?);
    }
    finish([numbers, raw])?;
    let rows = decode_rows(from, count, bounds)?;
    let usage = decode_usage(from, count, bounds)?;
    let parts = heads.into_iter().zip(rows).zip(usage);
    let window = |((head, runs), usage)| NewWindow { head, runs, usage };
    Ok(parts.map(window).collect())
}

fn decode_head(
    from: &mut Bytes<'_>,
    raw: &mut Bytes<'_>,
    bounds: Bounds,
) -> Result<NewHead, Malformed> {
    let text = |from: &mut Bytes<'_>| check_below(from.take()?, bounds.strings);
    let counts = |from: &mut Bytes<'_>| -> Result<Vec<(u32, u64)>, Malformed> {
        let count = from.take_count()?;
        (0..count)
            .map(|_| Ok((text(from)?, from.take()?)))
            .collect()
    };
    let has_digest = from.take_at_most(1)? == 1;
    let instance = raw.take_array()?;
    let digest = if has_digest {
        Some(raw.take_array()?)
    } else {
        None
    };
    let node = text(from)?;
    let message = Message {
        start_ms: take_signed(from)?,
        sequence: from.take()?,
        window_ms: take_signed(from)?,
    };
    let mut numbers = [0; Account::NUMBERS];
    for number in &mut numbers {
        *number = from.take()?;
    }
    let (outcomes, dropped) = (counts(from)?, counts(from)?);
    let (time_ns, duration_ns) = (take_signed(from)?, take_signed(from)?);
    let period = take_signed(from)?;
    let mut texts = [0; 5];
    for number in &mut texts {
        *number = text(from)?;
    }
    let comments = from.take_count()?;
    let comments: Result<Vec<u32>, Malformed> = (0..comments).map(|_| text(from)).collect();
    Ok(NewHead {
        node,
        instance,
        message,
        digest,
        numbers,
        outcomes,
        dropped,
        time_ns,
        duration_ns,
        period,
        texts,
        comments: comments?,
    })
}

/// The runs of each window.
fn decode_rows(
    from: &mut Bytes<'_>,
    windows: usize,
    bounds: Bounds,
) -> Result<Vec<Vec<NewRun>>, Malformed> {
    let mut columns = take_columns(from)?;
    let [
        run_counts,
        all_series,
        counts,
        units,
        stacks,
        tags,
        samples,
        rests,
    ] = &mut columns;
    let (mut series_deltas, mut unit_deltas) = (Deltas::default(), Deltas::default());
    let mut first_stack = Deltas::default();
    let mut all = Vec::new();
    for _ in 0..windows {
        let mut runs = Vec::new();
        for _ in 0..run_counts.take_at_most(all_series.len())? {
            let series = series_deltas.take_below(all_series, bounds.series)?;
            let count = counts.take_at_most(stacks.len())?;
            let unit_ns = unit_deltas.take(units)?;
            let mut rows: Vec<SeriesRow> = Vec::with_capacity(count);
            for _ in 0..count {
                let stack = match rows.last() {
                    None => first_stack.take_below(stacks, bounds.stacks)?,
                    Some(before) => {
                        let stack = u64::from(before.stack).saturating_add(stacks.take()?);
                        check_below(stack, bounds.stacks)?
                    }
                };
                let tags = check_below(tags.take()?, bounds.tag_sets)?;
                let samples = samples.take()?.wrapping_add(1);
                let rest = unzigzag(rests.take()?) as u64;
                rows.push(SeriesRow {
                    stack,
                    tags,
                    window: 0,
                    samples,
                    ns: with_rest(samples, rest, unit_ns),
                });
            }
            runs.push(NewRun { series, rows });
        }
        all.push(runs);
    }
    finish(columns)?;
    Ok(all)
}

/// The accounts of containers of each window.
fn decode_usage(
    from: &mut Bytes<'_>,
    windows: usize,
    bounds: Bounds,
) -> Result<Vec<Vec<(u32, ContainerUsage)>>, Malformed> {
    let mut columns = take_columns(from)?;
    let [counts, containers, kernel, throttled, unread, excluded] = &mut columns;
    let mut deltas = Deltas::default();
    let mut all = Vec::new();
    for _ in 0..windows {
        let mut own = Vec::new();
        for _ in 0..counts.take_at_most(containers.len())? {
            let container = deltas.take_below(containers, bounds.containers)?;
            let usage = ContainerUsage {
                kernel_ns: kernel.take()?,
                throttled_ns: throttled.take()?,
                unread_ns: unread.take()?,
                excluded_samples: excluded.take()?,
            };
            own.push((container, usage));
        }
        all.push(own);
    }
    finish(columns)?;
    Ok(all)
}

/// Adds a window to a builder that has the entries that it refers to.
pub(crate) fn apply_window(window: NewWindow, builder: &mut Builder) {
    let entry = window.head.to_entry(&builder.names.strings);
    let number = builder.windows.len() as u32;
    for NewRun { series, rows } in &window.runs {
        builder.push_run(*series, number, rows);
    }
    for (container, usage) in window.usage {
        builder.push_usage(container, number, usage);
    }
    builder.push_window(entry);
}

impl NewHead {
    fn to_entry(&self, strings: &Strings) -> WindowEntry {
        let text = |number: u32| strings.get(number).to_owned();
        let counts = |counts: &[(u32, u64)]| -> BTreeMap<String, u64> {
            let counts = counts.iter();
            counts.map(|(name, count)| (text(*name), *count)).collect()
        };
        let account =
            Account::from_numbers(self.numbers, counts(&self.outcomes), counts(&self.dropped));
        let info = WindowInfo {
            node: text(self.node),
            instance: self.instance,
            messages: vec![self.message],
        };
        let span = info.span();
        let [kind, unit, drop_frames, keep_frames, default_sample_type] = self.texts.map(text);
        let profile = ProfileHead {
            time_ns: self.time_ns.wrapping_add(span.start_ns()),
            duration_ns: self.duration_ns.wrapping_add(span.window_ns()),
            period_type: (kind, unit),
            period: self.period,
            comments: self.comments.iter().map(|comment| text(*comment)).collect(),
            drop_frames,
            keep_frames,
            default_sample_type,
        };
        WindowEntry {
            info,
            account: WindowAccount { account, profile },
            digests: vec![self.digest],
        }
    }
}
