//! Check that each moment was sampled once, while collectors replace each other.
//!
//! In: accounts of windows of [`WINDOW`], of collectors that sample idle processors too. So the samples that an account expects tell how
//! long its windows are together; and the timers fire at all times, so that the entries tell whether that is true.

use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Length of a window (`--window`): short, so that a gap is found in little time; and long enough for names on a busy machine.
pub const WINDOW: &str = "5s";

/// The same in milliseconds.
pub const WINDOW_MS: u64 = 5000;

/// Milliseconds in which nothing may be sampled when one collector replaces another.
pub const GAP_MS_MAX: u64 = 200;

/// A window that closes late on a busy machine is longer by so much, and the next one shorter.
const LATE_MS_MAX: u64 = 200;

/// CPU time of a sample: 100 a second of each processor.
const SAMPLE_MS: u64 = 10;

/// Timers of each processor.
const TIMERS: u64 = 2;

/// Check the time of each window in a range, in Unix milliseconds, and the whole of it. `ask` gives the node's account of such a range.
/// Returns, for each such time with two collectors, the milliseconds in which neither sampled.
///
/// # Errors
/// One lacks more than a hand-over may take, or something was sampled twice; or `ask` failed.
pub fn check_sampled_once(
    range: &Range<u64>,
    processors: u64,
    ask: impl Fn(Range<u64>) -> Result<Value>,
) -> Result<Vec<u64>> {
    let (mut gaps, mut all_ms) = (Vec::new(), 0);
    for from_ms in (range.start / WINDOW_MS * WINDOW_MS..range.end).step_by(WINDOW_MS as usize) {
        let time = from_ms.max(range.start)..range.end.min(from_ms + WINDOW_MS);
        let node = ask(from_ms..from_ms + WINDOW_MS)?;
        let windows_ms = number(&node, "expected")? * SAMPLE_MS / processors;
        let time_ms = time.end - time.start;
        all_ms += windows_ms;
        ensure!(
            windows_ms <= time_ms + LATE_MS_MAX,
            "sampled twice: windows of {windows_ms} ms in the time {time:?}: {node}"
        );
        ensure!(
            number(&node, "overlap_ns")? == 0,
            "sampled twice: windows in the time {time:?} are left out: {node}"
        );
        let gap_ms = time_ms.saturating_sub(windows_ms);
        ensure!(
            gap_ms < GAP_MS_MAX,
            "{gap_ms} ms not sampled in the time {time:?}: {node}"
        );
        if number(&node, "instances")? > 1 {
            gaps.push(gap_ms);
        }
    }
    ensure!(
        all_ms <= range.end - range.start + LATE_MS_MAX,
        "sampled twice: windows of {all_ms} ms in the time {range:?}"
    );
    check_entries(&ask(range.clone())?, processors)?;
    Ok(gaps)
}

/// Check that the timers fired as often as the lengths of the windows say.
fn check_entries(node: &Value, processors: u64) -> Result<()> {
    let timers = TIMERS * processors;
    let (entries, expected) = (number(node, "entries")?, number(node, "expected")?);
    let collectors = number(node, "instances")?;
    // The lengths are rounded down.
    let most = expected + number(node, "windows")? + timers;
    ensure!(
        entries <= most,
        "sampled twice: {entries} entries, where the timers fire {expected} times: {node}"
    );
    // A processor that the hypervisor does not run has no ticks. A timer loses a part of a period at its start and its stop, and some
    // samples are in windows behind the range, since they waited for their stacks.
    let stolen = number(node, "stolen_ns")? / 1_000_000 / SAMPLE_MS;
    // An idle processor may sleep through its ticks.
    let busy = number(node, "busy_ns")? / 1_000_000 / SAMPLE_MS;
    let least = expected
        .min(busy)
        .saturating_sub(stolen + 2 * timers * collectors + expected / 50);
    ensure!(
        entries >= least,
        "not sampled: {entries} entries, where the timers fire {expected} times: {node}"
    );
    Ok(())
}

/// A number of a node's account.
///
/// # Errors
/// It is not there.
pub fn number(node: &Value, field: &str) -> Result<u64> {
    let number = node[field].as_u64();
    number.with_context(|| format!("no number `{field}` in {node}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(expected: u64, entries: u64, instances: u64) -> Value {
        json!({
            "expected": expected, "entries": entries, "instances": instances, "windows": instances, "stolen_ns": 20_000_000,
            "busy_ns": expected * SAMPLE_MS * 1_000_000, "overlap_ns": 0
        })
    }

    /// The result for two windows of two processors, of which the second has a hand-over: its samples by the lengths of its parts, and
    /// the entries of both.
    fn check(expected: u64, entries: u64) -> Result<Vec<u64>> {
        check_sampled_once(&(5000..15_000), 2, |range| {
            Ok(match (range.start, range.end) {
                (5000, 10_000) => account(1000, 0, 1),
                (10_000, 15_000) => account(expected, 0, 2),
                _ => account(1000 + expected, entries, 2),
            })
        })
    }

    /// Check that a gap of a fifth of a second is too long, and so is any overlap, by the windows and by the entries.
    #[test]
    fn gaps_and_doubles() {
        assert_eq!(check(999, 1998).unwrap(), [5]);
        assert_eq!(check(990, 1990).unwrap(), [50]);
        assert_eq!(check(990, 1933).unwrap(), [50]);
        for (expected, entries) in [(960, 1960), (1041, 2041), (990, 1997), (990, 1932)] {
            assert!(check(expected, entries).is_err(), "{expected} {entries}");
        }
    }

    /// Check that a range that begins and ends within a window is measured by its length.
    #[test]
    fn parts_of_windows() {
        let range = 9500..10_300;
        let ask = |first: u64, second: u64| {
            move |asked: Range<u64>| {
                Ok(match (asked.start, asked.end) {
                    (5000, 10_000) => account(first, 0, 1),
                    (10_000, 15_000) => account(second, 0, 1),
                    _ => account(first + second, first + second, 1),
                })
            }
        };
        assert_eq!(
            check_sampled_once(&range, 2, ask(100, 59)).unwrap(),
            [0_u64; 0]
        );
        assert!(check_sampled_once(&range, 2, ask(60, 59)).is_err());
        assert!(check_sampled_once(&range, 2, ask(100, 0)).is_err());
    }
}
