//! The account of a window: sampled CPU time compared with used CPU time.

use std::mem;

use profiler_bpf::outcome::Outcome;

use super::{dropped::Stage, window_clock::WindowBounds};
use crate::{
    accounts::MachineTime,
    sample::{CounterTotals, Schedule},
};

/// The account of one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Entries without a record, by outcome.
    pub(super) lost: Vec<(Outcome, u64)>,
    /// Samples dropped between the ring and the window, by stage.
    pub(super) dropped: Vec<(Stage, u64)>,
    pub(super) expected: u64,
    pub(super) busy_ns: u64,
    /// Nanoseconds taken by the hypervisor.
    pub(super) stolen_ns: u64,
    pub(super) bpf_ns: u64,
    /// CPU time of one sample.
    pub(super) sample_ns: u64,
}

impl Account {
    /// Adds the account and the samples of an earlier window that was not sent.
    fn add_unsent(&mut self, unsent: Self, samples: u64) {
        self.lost.extend(unsent.lost);
        self.dropped.extend(unsent.dropped);
        self.dropped.push((Stage::Name, samples));
        self.expected += unsent.expected;
        self.busy_ns += unsent.busy_ns;
        self.stolen_ns += unsent.stolen_ns;
        self.bpf_ns += unsent.bpf_ns;
    }
}

/// Counters of kernel and program since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) program: CounterTotals,
    pub(super) machine: MachineTime,
}

/// The CPU time that is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampledTime {
    /// The time in which processors are busy.
    Busy,
    /// All time of all processors.
    WithIdle,
}

/// Makes the accounts of windows.
pub(super) struct Accounting {
    schedule: Schedule,
    sampled_time: SampledTime,
    /// Totals at the end of the last window.
    before: Totals,
    /// Samples dropped since then, in the order of [`Stage::ALL`].
    dropped: [u64; Stage::ALL.len()],
    /// Accounts and numbers of samples of windows that were dropped since the last sent window.
    unsent: Vec<(Account, u64)>,
}

impl Accounting {
    /// Counts from the totals `before` on.
    pub(super) fn new(schedule: Schedule, sampled_time: SampledTime, before: Totals) -> Self {
        Self {
            schedule,
            sampled_time,
            before,
            dropped: [0; Stage::ALL.len()],
            unsent: Vec::new(),
        }
    }

    /// Counts from these totals on instead.
    pub(super) fn begin(&mut self, totals: Totals) {
        self.before = totals;
    }

    /// The totals at the end of the last window, a substitute for unreadable totals.
    pub(super) fn last_totals(&self) -> Totals {
        self.before
    }

    /// Counts dropped samples of the open window.
    pub(super) fn drop_samples(&mut self, stage: Stage, samples: u64) {
        self.dropped[stage as usize] += samples;
    }

    /// Keeps the account of a window that is not sent, for the next one that is.
    pub(super) fn keep_unsent(&mut self, account: Account, samples: u64) {
        self.unsent.push((account, samples));
    }

    /// Adds the accounts of the unsent windows.
    pub(super) fn add_unsent(&mut self, account: &mut Account) {
        for (unsent, samples) in self.unsent.drain(..) {
            account.add_unsent(unsent, samples);
        }
    }

    /// The account of a window on this many processors that ends now.
    pub(super) fn end_window(&mut self, bounds: WindowBounds, cpus: usize, now: Totals) -> Account {
        let before = mem::replace(&mut self.before, now);
        let busy_ns = now.machine.busy_ns.saturating_sub(before.machine.busy_ns);
        let sampled_ns = match self.sampled_time {
            SampledTime::WithIdle => (bounds.end_ns - bounds.start_ns) * cpus as u64,
            SampledTime::Busy => busy_ns,
        };
        let dropped = mem::take(&mut self.dropped);
        let dropped = Stage::ALL.into_iter().zip(dropped);
        Account {
            lost: lost_since(&before.program, &now.program),
            dropped: dropped.filter(|(_, count)| *count > 0).collect(),
            expected: sampled_ns / self.schedule.sample_ns(),
            busy_ns,
            stolen_ns: now
                .machine
                .stolen_ns
                .saturating_sub(before.machine.stolen_ns),
            bpf_ns: now.program.time_ns.saturating_sub(before.program.time_ns),
            sample_ns: self.schedule.sample_ns(),
        }
    }
}

/// Entries without a record, by outcome.
fn lost_since(before: &CounterTotals, now: &CounterTotals) -> Vec<(Outcome, u64)> {
    Outcome::ALL
        .into_iter()
        .zip(now.outcomes.iter().zip(before.outcomes))
        .filter(|(outcome, _)| !outcome.has_record())
        .map(|(outcome, (now, before))| (outcome, now.saturating_sub(before)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    const BOUNDS: WindowBounds = WindowBounds {
        end_ns: 10 * SECOND,
        ..WindowBounds::NONE
    };

    fn totals(busy_s: u64, ring_full: u64) -> Totals {
        let mut totals = Totals::default();
        totals.machine.busy_ns = busy_s * SECOND;
        totals.machine.stolen_ns = busy_s * SECOND / 10;
        totals.program.time_ns = busy_s;
        for (outcome, count) in Outcome::ALL.iter().zip(&mut totals.program.outcomes) {
            *count = match outcome {
                Outcome::RingFull => ring_full,
                Outcome::Excluded => 3 * busy_s,
                _ => 1000 * busy_s,
            };
        }
        totals
    }

    /// Check that an account counts from the end of the previous window, and expects one sample per
    /// 10 ms of sampled CPU time.
    #[test]
    fn accounts_are_differences() {
        let start = |sampled| Accounting::new(Schedule::new(100), sampled, totals(1, 2));
        let mut accounting = start(SampledTime::Busy);
        accounting.drop_samples(Stage::Decode, 3);
        let first = accounting.end_window(BOUNDS, 4, totals(11, 7));
        assert_eq!((first.expected, first.busy_ns), (1000, 10 * SECOND));
        assert_eq!((first.stolen_ns, first.bpf_ns), (SECOND, 10));
        assert_eq!(first.dropped, [(Stage::Decode, 3)]);
        assert_eq!(first.lost[0], (Outcome::RingFull, 5));
        assert!(first.lost.contains(&(Outcome::Excluded, 30)));
        let second = accounting.end_window(BOUNDS, 4, totals(11, 7));
        let empty = Account {
            sample_ns: SECOND / 100,
            ..Account::default()
        };
        assert_eq!(second, empty);
        let with_idle = start(SampledTime::WithIdle).end_window(BOUNDS, 4, totals(11, 7));
        assert_eq!(with_idle.expected, 4000);
    }

    /// Check that the account of an unsent window is added to the next one once, with its samples.
    #[test]
    fn unsent_accounts_are_in_the_next() {
        let mut accounting =
            Accounting::new(Schedule::new(100), SampledTime::Busy, Totals::default());
        let unsent = accounting.end_window(BOUNDS, 1, totals(5, 0));
        accounting.keep_unsent(unsent, 480);
        let mut account = accounting.end_window(BOUNDS, 1, totals(8, 0));
        accounting.add_unsent(&mut account);
        assert_eq!((account.expected, account.busy_ns), (800, 8 * SECOND));
        assert_eq!(account.dropped, [(Stage::Name, 480)]);
        let mut next = accounting.end_window(BOUNDS, 1, totals(8, 0));
        accounting.add_unsent(&mut next);
        assert!(next.dropped.is_empty());
    }
}
