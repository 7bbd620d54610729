//! The life of windows: open, then closing while some samples wait for their stacks, then closed.
//!
//! In: located samples, and the end times of windows. Out: a queue of windows with their accounts.

use std::{collections::BTreeMap, mem, sync::mpsc::Receiver};

use metrics::Figures;

use super::{
    account::{Account, Accounting, Totals},
    container_accounts::ContainerUsage,
    dropped::{DroppedSamples, Stage},
    stacks_by_binary::StacksByBinary,
    window_clock::WindowBounds,
};
use crate::{
    aggregate::{Check, SeriesKey, Window},
    locate::Located,
    metrics::{Stats, seconds},
    queue::Queue,
    sample::Sample,
};

/// An ended window on its way to be named.
pub(super) struct ClosedWindow {
    pub(super) bounds: WindowBounds,
    pub(super) window: Window,
    pub(super) account: Account,
    /// The accounts of containers, when they are read.
    pub(super) usages: Receiver<Vec<ContainerUsage>>,
}

/// Totals and accounts at the end of a window.
pub(super) struct WindowEnd {
    pub(super) cpus: usize,
    pub(super) totals: Totals,
    pub(super) usages: Receiver<Vec<ContainerUsage>>,
}

/// Both clocks at one moment, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) unix_ns: u64,
    pub(super) monotonic_ns: u64,
}

/// A window that has ended but still waits for some samples.
struct Closing {
    closed: ClosedWindow,
    /// The latest time to wait, in nanoseconds of CLOCK_MONOTONIC.
    until_ns: u64,
}

/// Counts since the start, and the last window.
#[derive(Clone, Debug, Default)]
pub(super) struct WindowStats {
    windows: u64,
    /// Number of samples that the used CPU time should give.
    expected: u64,
    sampled_ns: u64,
    busy_ns: u64,
    stolen_ns: u64,
    /// Sampled CPU time divided by used CPU time.
    last_ratio: f64,
    last_rows: usize,
    /// Samples by outcome.
    stacks: BTreeMap<&'static str, u64>,
    /// Incomplete samples by the place where the walk stopped.
    incomplete: StacksByBinary,
}

impl WindowStats {
    fn count(&mut self, closed: &ClosedWindow) {
        let ClosedWindow {
            window, account, ..
        } = closed;
        let sampled_ns = window.samples() * account.sample_ns;
        self.windows += 1;
        self.expected += account.expected;
        self.busy_ns += account.busy_ns;
        self.stolen_ns += account.stolen_ns;
        self.sampled_ns += sampled_ns;
        self.last_rows = window.row_count();
        self.last_ratio = sampled_ns as f64 / account.busy_ns.max(1) as f64;
        for (outcome, count) in window.outcomes() {
            *self.stacks.entry(outcome.name()).or_default() += count;
        }
    }

    /// Writes the figures.
    pub(super) fn show(&self, figures: &mut Figures<'_>) {
        figures.counter("windows", "Windows closed", self.windows);
        figures.counters(
            "stacks",
            "Samples counted into windows, by how their user stacks ended",
            ["outcome"],
            self.stacks
                .iter()
                .map(|(outcome, count)| ([*outcome], *count)),
        );
        self.incomplete.show(
            figures,
            "incomplete_stacks",
            "Samples whose user stack is not complete, by outcome and by the binary of the last frame that was found",
            "outcome",
        );
        figures.gauge(
            "window_stacks",
            "Distinct stacks in the last window",
            self.last_rows,
        );
        self.show_time(figures);
    }

    fn show_time(&self, figures: &mut Figures<'_>) {
        figures.counter(
            "expected_samples",
            "Samples that the CPU time in use (/proc/stat) should have given",
            self.expected,
        );
        figures.counter(
            "sampled_seconds",
            "CPU time sampled",
            seconds(self.sampled_ns),
        );
        figures.counter(
            "busy_seconds",
            "CPU time that the kernel's own accounts (/proc/stat) say was used",
            seconds(self.busy_ns),
        );
        figures.counter(
            "stolen_seconds",
            "Time in which a processor had work and the hypervisor did not run it (/proc/stat): no CPU time, but a \
             timer that comes due in it fires after it",
            seconds(self.stolen_ns),
        );
        figures.gauge(
            "sampled_ratio",
            "CPU time sampled over CPU time used, last window",
            self.last_ratio,
        );
    }
}

/// The windows that samples are counted into.
pub(super) struct Windows {
    bounds: WindowBounds,
    open: Window,
    closing: Option<Closing>,
    accounting: Accounting,
    length_ns: u64,
    queue: Queue<ClosedWindow>,
    dropped: DroppedSamples,
    stats: Stats<WindowStats>,
}

impl Windows {
    /// No window until [`begin`](Self::begin).
    pub(super) fn new(
        length_ns: u64,
        accounting: Accounting,
        queue: Queue<ClosedWindow>,
        (dropped, stats): (DroppedSamples, Stats<WindowStats>),
    ) -> Self {
        Self {
            bounds: WindowBounds::NONE,
            open: Window::default(),
            closing: None,
            accounting,
            length_ns,
            queue,
            dropped,
            stats,
        }
    }

    /// Begins the first window now. Its account counts from these totals on.
    pub(super) fn begin(&mut self, now: Now, totals: Totals) {
        self.bounds = WindowBounds::begin(now.unix_ns, now.monotonic_ns, self.length_ns);
        self.accounting.begin(totals);
    }

    /// The end of the open window, if it is at or before this time.
    pub(super) fn end_by(&self, time_ns: u64) -> Option<u64> {
        Some(self.bounds.end_ns).filter(|end_ns| *end_ns <= time_ns)
    }

    /// Totals at the end of the last window.
    pub(super) fn last_totals(&self) -> Totals {
        self.accounting.last_totals()
    }

    /// Counts samples of the open window that were dropped.
    pub(super) fn drop_samples(&mut self, stage: Stage, samples: u64) {
        self.accounting.drop_samples(stage, samples);
        self.dropped.add(stage, samples);
    }

    /// Counts a sample into the window of its time.
    pub(super) fn add(
        &mut self,
        sample: &Sample,
        series: SeriesKey,
        stack: &Located<'_>,
        check: Check,
    ) {
        if !stack.outcome.is_complete() {
            let binary = stack.frames.first().map(|frame| &frame.file.path);
            let mut stats = self.stats.lock();
            stats.incomplete.add(binary, stack.outcome.name());
        }
        let window = match &mut self.closing {
            Some(closing) if sample.time_ns < closing.closed.bounds.end_ns => {
                &mut closing.closed.window
            }
            _ => &mut self.open,
        };
        if !window.add(sample.pid, sample.comm, series, stack, check) {
            self.drop_samples(Stage::Aggregate, 1);
        }
    }

    /// Ends the open window at `end_ns`, and begins the next. Returns the bounds for closing the
    /// ended window. Returns `None` if that window is empty and the next has ended too: after a
    /// stall (the collector was stopped, the machine suspended) the account goes to the window that
    /// ends the stall.
    pub(super) fn end(&mut self, end_ns: u64, now: Now) -> Option<WindowBounds> {
        let next = self
            .bounds
            .next(now.unix_ns, now.monotonic_ns, self.length_ns);
        let bounds = mem::replace(&mut self.bounds, next).ending(end_ns);
        let is_catching_up = self.open.samples() == 0 && self.bounds.end_ns <= now.monotonic_ns;
        (!is_catching_up).then_some(bounds)
    }

    /// Starts closing the ended window: until `until_ns` it accepts samples that waited for their
    /// stacks.
    pub(super) fn close(&mut self, bounds: WindowBounds, end: WindowEnd, until_ns: u64) {
        let WindowEnd {
            cpus,
            totals,
            usages,
        } = end;
        // An earlier window has waited for as long as this one was open.
        self.finish();
        let closed = ClosedWindow {
            bounds,
            window: mem::take(&mut self.open),
            account: self.accounting.end_window(bounds, cpus, totals),
            usages,
        };
        self.closing = Some(Closing { closed, until_ns });
    }

    /// Whether there is a closing window that need not wait longer. `has_before` tells whether a
    /// sample from before a time waits.
    pub(super) fn is_over(&self, now_ns: u64, has_before: impl FnOnce(u64) -> bool) -> bool {
        self.closing.as_ref().is_some_and(|closing| {
            closing.until_ns <= now_ns || !has_before(closing.closed.bounds.end_ns)
        })
    }

    /// The window that is closing.
    pub(super) fn closing(&mut self) -> Option<&mut Window> {
        Some(&mut self.closing.as_mut()?.closed.window)
    }

    /// Queues the closing window for naming.
    pub(super) fn finish(&mut self) {
        let Some(Closing { mut closed, .. }) = self.closing.take() else {
            return;
        };
        self.stats.lock().count(&closed);
        self.accounting.add_unsent(&mut closed.account);
        if let Some(oldest) = self.queue.push(closed) {
            let samples = oldest.window.samples();
            tracing::error!(samples, "naming fell behind: dropped a window");
            self.dropped.add(Stage::Name, samples);
            self.accounting.keep_unsent(oldest.account, samples);
        }
    }

    /// Marks the end of the queue.
    pub(super) fn end_queue(&self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::{
        locate::testing::complete,
        pipeline::account::SampledTime,
        sample::{Batch, Schedule, testing::sample_record},
    };

    const SECOND: u64 = 1_000_000_000;

    /// The wall clock is 1,000 s ahead of the other.
    fn at(second: u64) -> Now {
        Now {
            unix_ns: (1000 + second) * SECOND,
            monotonic_ns: second * SECOND,
        }
    }

    /// Windows of 10 s that begin at 0 and 2 s, and their queue with room for one window.
    fn windows() -> (Windows, Queue<ClosedWindow>) {
        let queue = Queue::new(1);
        let accounting = Accounting::new(Schedule::new(100), SampledTime::Busy, Totals::default());
        let stats = (DroppedSamples::default(), Stats::default());
        let mut windows = Windows::new(10 * SECOND, accounting, queue.clone(), stats);
        assert_eq!(windows.end_by(u64::MAX - 1), None);
        windows.begin(at(0), Totals::default());
        (windows, queue)
    }

    fn add(windows: &mut Windows, second: u64) {
        let mut batch = Batch::default();
        let record = sample_record(5, second * SECOND, &[], &[]);
        batch.push_record(&record).unwrap();
        let series = SeriesKey {
            comm: "a".into(),
            exe: None,
            pod_uid: None,
            container_id: None,
            unit: None,
        };
        let stack = complete(Vec::new());
        windows.add(&batch.samples()[0], series, &stack, Check::None);
    }

    /// An end on one processor, without accounts of containers.
    fn end(totals: Totals) -> WindowEnd {
        WindowEnd {
            cpus: 1,
            totals,
            usages: channel().1,
        }
    }

    /// Ends the open window at its time, and closes it.
    fn end_and_close(windows: &mut Windows, now: Now, busy_s: u64) {
        let end_ns = windows.end_by(now.monotonic_ns).unwrap();
        let bounds = windows.end(end_ns, now).unwrap();
        let mut totals = Totals::default();
        totals.machine.busy_ns = busy_s * SECOND;
        windows.close(bounds, end(totals), now.monotonic_ns + 5 * SECOND);
    }

    /// Check that late samples are counted into the window of their time while it is closing.
    #[test]
    fn late_samples_go_to_the_closing_window() {
        let (mut windows, queue) = windows();
        add(&mut windows, 1);
        assert_eq!(windows.end_by(2 * SECOND - 1), None);
        end_and_close(&mut windows, at(2), 2);
        add(&mut windows, 1);
        add(&mut windows, 3);
        assert!(!windows.is_over(3 * SECOND, |end_ns| end_ns == 2 * SECOND));
        assert!(windows.is_over(3 * SECOND, |_| false));
        assert!(windows.is_over(7 * SECOND, |_| true));
        windows.finish();
        let closed = queue.pop().unwrap();
        assert_eq!((closed.window.samples(), closed.account.expected), (2, 200));
        let (start_ns, end_ns) = (closed.bounds.start_ns, closed.bounds.end_ns);
        assert_eq!((start_ns, end_ns), (0, 2 * SECOND));
        assert!(!windows.is_over(u64::MAX, |_| false));
        assert_eq!(windows.open.samples(), 1);
    }

    /// Check that a closing window is queued before the next one ends, and that the account of a
    /// window without room in the queue goes to the next.
    #[test]
    fn unsent_windows_are_accounted_for() {
        let (mut windows, queue) = windows();
        add(&mut windows, 1);
        end_and_close(&mut windows, at(2), 2);
        add(&mut windows, 3);
        end_and_close(&mut windows, at(10), 5);
        add(&mut windows, 11);
        end_and_close(&mut windows, at(20), 9);
        windows.finish();
        // The second replaced the first in the queue, and the third replaced the second.
        let third = queue.pop().unwrap();
        assert_eq!(third.account.busy_ns, (2 + 4) * SECOND);
        assert_eq!(third.account.dropped, [(Stage::Name, 1)]);
        add(&mut windows, 21);
        end_and_close(&mut windows, at(30), 10);
        windows.finish();
        let fourth = queue.pop().unwrap();
        assert_eq!(fourth.account.busy_ns, (3 + 1) * SECOND);
        assert_eq!(fourth.account.dropped, [(Stage::Name, 1)]);
        assert_eq!(windows.dropped.at(Stage::Name), 2);
    }

    /// Check that empty windows that have ended when they begin produce no message.
    #[test]
    fn stalls_are_caught_up_with() {
        let (mut windows, queue) = windows();
        let now = at(35);
        let mut closed = 0;
        while let Some(end_ns) = windows.end_by(now.monotonic_ns) {
            if let Some(bounds) = windows.end(end_ns, now) {
                windows.close(bounds, end(Totals::default()), now.monotonic_ns);
                closed += 1;
            }
        }
        assert_eq!(closed, 1);
        windows.finish();
        assert_eq!(queue.pop().unwrap().bounds.end_ns, 30 * SECOND);
    }
}
