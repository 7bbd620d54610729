//! Check that each moment was sampled once, while collectors replace each other.
//!
//! In: the account of each collector's windows, in their turn, of collectors that sample idle processors too. The begin of its first
//! window and the end of its last one are those of its timers, however late a busy machine closes windows; and the timers fire at all
//! times, so that the entries tell whether that is true.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Length of a window (`--window`): long enough for names on a busy machine.
pub const WINDOW: &str = "5s";

/// The same in milliseconds.
pub const WINDOW_MS: u64 = 5000;

/// Milliseconds in which nothing may be sampled when one collector replaces another. They are some 20, and are printed; the limit has
/// room for a busy machine that runs the next collector late.
const GAP_MS_MAX: u64 = WINDOW_MS / 2;

/// CPU time of a sample: 100 a second of each processor.
const SAMPLE_MS: u64 = 10;

/// Timers of each processor.
const TIMERS: u64 = 2;

/// Check that each of these collectors began when the one before had stopped, and sampled for all of its time. Returns the milliseconds
/// between each and the next.
///
/// # Errors
/// They sampled something twice, or not at all.
pub fn check_sampled_once(accounts: &[Value], processors: u64) -> Result<Vec<u64>> {
    for account in accounts {
        check_entries(account, processors)?;
    }
    let pairs = accounts.iter().zip(accounts.iter().skip(1));
    pairs.map(|(old, new)| check_gap(old, new)).collect()
}

fn check_gap(old: &Value, new: &Value) -> Result<u64> {
    let (end_ms, first_ms) = (number(old, "end_ms")?, number(new, "first_ms")?);
    let gap_ms = first_ms.checked_sub(end_ms);
    let gap_ms =
        gap_ms.with_context(|| format!("sampled twice: {new} begins before {old} ends"))?;
    ensure!(
        gap_ms < GAP_MS_MAX,
        "{gap_ms} ms not sampled between {old} and {new}"
    );
    Ok(gap_ms)
}

/// Check that the timers of one collector fired as often as the length of its windows says.
fn check_entries(account: &Value, processors: u64) -> Result<()> {
    let field = |name| number(account, name);
    ensure!(
        field("instances")? == 1 && field("missing_windows")? == 0,
        "not all windows of one collector: {account}"
    );
    let timers = TIMERS * processors;
    let entries = field("entries")?;
    let length_ms = field("end_ms")?.saturating_sub(field("first_ms")?);
    let expected = length_ms * processors / SAMPLE_MS;
    // Each timer may fire at once, and the length is rounded. The clock may be slewed by 500 ppm.
    let most = expected + 2 * timers + expected / 1000;
    ensure!(
        entries <= most,
        "sampled twice: {entries} entries, where the timers fire {expected} times: {account}"
    );
    // A processor that the hypervisor does not run has no ticks. A timer loses a part of a period at its start and its stop, and some
    // samples are in windows behind the range, since they waited for their stacks.
    let stolen = field("stolen_ns")? / 1_000_000 / SAMPLE_MS;
    // An idle processor may sleep through its ticks.
    let busy = field("busy_ns")? / 1_000_000 / SAMPLE_MS;
    let least = expected
        .min(busy)
        .saturating_sub(stolen + 2 * timers + expected / 50);
    ensure!(
        entries >= least,
        "not sampled: {entries} entries, where the timers fire {expected} times: {account}"
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

    /// The account of a collector on two processors.
    fn account(first_ms: u64, end_ms: u64, entries: u64) -> Value {
        json!({
            "first_ms": first_ms, "end_ms": end_ms, "entries": entries, "instances": 1, "missing_windows": 0,
            "stolen_ns": 20_000_000, "busy_ns": (end_ms - first_ms) * 2 * 1_000_000
        })
    }

    /// Check that an overlap is found, and so is a gap that is too long.
    #[test]
    fn turns() {
        let gaps = |first_ms| {
            let new = account(first_ms, first_ms + 5000, 1000);
            check_sampled_once(&[account(0, 5000, 1000), new], 2)
        };
        assert_eq!(gaps(5000).unwrap(), [0]);
        assert_eq!(gaps(5050).unwrap(), [50]);
        assert!(gaps(4999).is_err());
        assert!(gaps(7500).is_err());
    }

    /// Check that entries beyond the windows' length are found, and so are missing ones.
    #[test]
    fn entries() {
        for (entries, is_right) in [(1009, true), (1010, false), (970, true), (969, false)] {
            let checked = check_sampled_once(&[account(0, 5000, entries)], 2);
            assert_eq!(checked.is_ok(), is_right, "{entries}: {checked:?}");
        }
        let mut other = account(0, 5000, 1000);
        other["instances"] = 2.into();
        assert!(check_sampled_once(&[other], 2).is_err());
    }
}
