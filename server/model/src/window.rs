//! A window: ten seconds of one node.

use std::collections::BTreeMap;
use std::fmt;

use crate::LabelSet;
use crate::tables::{StackId, Tables, TagSetId};

/// Values of a sample, as pprof's pairs of type and unit, in this order.
pub const SAMPLE_TYPES: [(&str, &str); 2] = [("samples", "count"), ("cpu", "nanoseconds")];

/// Identity of a window: its start, and the message that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowKey {
    /// Start, milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// The collector's instance.
    pub instance: [u8; 16],
    /// Number of the message, from 1.
    pub sequence: u64,
}

impl fmt::Display for WindowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instance = u128::from_be_bytes(self.instance);
        write!(
            f,
            "{instance:032x}/{} at {} ms",
            self.sequence, self.start_ms
        )
    }
}

/// A window without its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowHead {
    /// Its identity.
    pub key: WindowKey,
    /// The node.
    pub node: String,
    /// Length in milliseconds.
    pub window_ms: i64,
    /// Account of its samples on the node.
    pub account: Account,
    /// Head of the pprof.
    pub profile: ProfileHead,
}

/// The account of a window, as its collector stated it. Counts are of samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Account {
    /// Entries of the BPF program.
    pub entries: u64,
    /// Expected samples: 100 Hz on busy CPUs.
    pub expected: u64,
    /// The sum of all weights, in nanoseconds.
    pub sampled_ns: u64,
    /// Used CPU time by the kernel's accounts, in nanoseconds.
    pub busy_ns: u64,
    /// CPU time of the collector and its child, in nanoseconds.
    pub collector_cpu_ns: u64,
    /// CPU time of the BPF program, in nanoseconds.
    pub bpf_ns: u64,
    /// Entries by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Samples lost after the ring, by stage.
    pub dropped: BTreeMap<String, u64>,
    /// Time that the hypervisor took, in nanoseconds; 0 from collectors that do not state it.
    pub stolen_ns: u64,
}

impl Account {
    /// Number of its numbers.
    pub const NUMBERS: usize = 7;

    /// The numbers, in the order that segments and logs have.
    pub fn numbers(&self) -> [u64; Self::NUMBERS] {
        let Self {
            entries,
            expected,
            sampled_ns,
            busy_ns,
            collector_cpu_ns,
            bpf_ns,
            outcomes: _,
            dropped: _,
            stolen_ns,
        } = *self;
        [
            entries,
            expected,
            sampled_ns,
            busy_ns,
            collector_cpu_ns,
            bpf_ns,
            stolen_ns,
        ]
    }

    /// An account with these [numbers](Self::numbers), outcomes and losses.
    pub fn from_numbers(
        numbers: [u64; Self::NUMBERS],
        outcomes: BTreeMap<String, u64>,
        dropped: BTreeMap<String, u64>,
    ) -> Self {
        let [
            entries,
            expected,
            sampled_ns,
            busy_ns,
            collector_cpu_ns,
            bpf_ns,
            stolen_ns,
        ] = numbers;
        Self {
            entries,
            expected,
            sampled_ns,
            busy_ns,
            collector_cpu_ns,
            bpf_ns,
            outcomes,
            dropped,
            stolen_ns,
        }
    }

    /// Adds the account of another window.
    pub fn add(&mut self, other: &Self) {
        let mut numbers = self.numbers();
        for (sum, number) in numbers.iter_mut().zip(other.numbers()) {
            *sum = sum.saturating_add(number);
        }
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let mut dropped = std::mem::take(&mut self.dropped);
        for (sums, counts) in [
            (&mut outcomes, &other.outcomes),
            (&mut dropped, &other.dropped),
        ] {
            for (name, count) in counts {
                let sum = sums.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        *self = Self::from_numbers(numbers, outcomes, dropped);
    }

    /// Whether the account is right for a window with so many samples and nanoseconds: each entry has an outcome, each sample is one of
    /// the entries that were not dropped, and the sum of the weights is that of the samples.
    pub fn is_balanced(&self, samples: u64, ns: u64) -> bool {
        let sum = |counts: &BTreeMap<String, u64>| {
            let counts = counts.values();
            counts.fold(0, |sum: u64, count| sum.saturating_add(*count))
        };
        let recorded = self.entries.checked_sub(sum(&self.dropped));
        sum(&self.outcomes) == self.entries
            && recorded.is_some_and(|recorded| samples <= recorded)
            && self.sampled_ns == ns
    }
}

/// The kernel's account of one container or systemd unit in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContainerAccount {
    /// The labels that all its series have, without those of processes ([`PROCESS_LABELS`]).
    pub labels: LabelSet,
    /// CPU time and samples.
    pub usage: ContainerUsage,
}

/// Labels of processes, which differ between the series of a container.
pub const PROCESS_LABELS: [&str; 2] = ["comm", "exe"];

/// CPU time by the kernel's account, in nanoseconds, and samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContainerUsage {
    /// CPU time.
    pub kernel_ns: u64,
    /// Time in which it was throttled.
    pub throttled_ns: u64,
    /// CPU time of samples that the account lacks.
    pub unread_ns: u64,
    /// Samples that are not in the profile.
    pub excluded_samples: u64,
}

/// The fields of a pprof that are in no table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProfileHead {
    /// Time of the profile, nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// Its length in nanoseconds.
    pub duration_ns: i64,
    /// Type and unit of the period; both empty when it has none.
    pub period_type: (String, String),
    /// The period.
    pub period: i64,
    /// Comments.
    pub comments: Vec<String>,
    /// Regular expression of frames to drop.
    pub drop_frames: String,
    /// Regular expression of frames to keep all the same.
    pub keep_frames: String,
    /// Name of the sample type to show first.
    pub default_sample_type: String,
}

/// The samples of one series, with one tag set and one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Position of the series among the window's series.
    pub series: u32,
    /// Labels of the samples.
    pub tags: TagSetId,
    /// Their stack.
    pub stack: StackId,
    /// Number of samples.
    pub samples: u64,
    /// CPU time of the samples, in nanoseconds.
    pub ns: u64,
}

/// A complete window.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// All but the samples.
    pub head: WindowHead,
    /// The label sets.
    pub series: Vec<LabelSet>,
    /// Tables that the stacks refer to.
    pub tables: Tables,
    /// The samples, ordered by series.
    pub rows: Vec<Row>,
    /// The kernel's accounts of containers; none from collectors that do not state them.
    pub containers: Vec<ContainerAccount>,
}

impl Window {
    /// Whether its [account is right](Account::is_balanced).
    pub fn is_balanced(&self) -> bool {
        let sum = |number: fn(&Row) -> u64| {
            let numbers = self.rows.iter().map(number);
            numbers.fold(0, u64::saturating_add)
        };
        let (samples, ns) = (sum(|row| row.samples), sum(|row| row.ns));
        self.head.account.is_balanced(samples, ns)
    }
}

#[cfg(test)]
mod tests {
    use crate::Window;
    use crate::text::window;

    #[test]
    fn accounts_balance_or_not() {
        let is_balanced = |change: fn(&mut Window)| {
            let mut window = window("comm=a | main | 3");
            change(&mut window);
            window.is_balanced()
        };
        assert!(is_balanced(|_| {}));
        // Two were lost: one before there was a record, one after it.
        assert!(is_balanced(|window| {
            let account = &mut window.head.account;
            account.entries = 5;
            account.outcomes.insert("ring_full".into(), 1);
            account.outcomes.insert("aggregate".into(), 1);
            account.dropped.insert("aggregate".into(), 1);
        }));
        assert!(!is_balanced(|window| window.head.account.entries = 4));
        assert!(!is_balanced(|window| window.head.account.sampled_ns += 1));
        assert!(!is_balanced(|window| window.rows[0].samples = 4));
        assert!(!is_balanced(|window| {
            window.head.account.dropped.insert("aggregate".into(), 1);
        }));
        assert!(!is_balanced(|window| {
            window
                .head
                .account
                .dropped
                .insert("aggregate".into(), u64::MAX);
        }));
    }
}
