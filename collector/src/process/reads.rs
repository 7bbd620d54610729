//! The processes that are to be read from `/proc`; pure.
//!
//! A process is read when it is sampled without an event of it, or when events were lost since. Each read costs some 100 us, so
//! that a process that cannot be read is not read for each of its samples.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{SideBandEvent, Timed};

/// Reads that may be under way: 100 ms of work.
const PENDING_MAX: usize = 1024;

/// Reads a second in the long run, and at once. 200 reads are 2 % of a processor; after a loss of events every process that is
/// sampled is read, some hundreds.
const READS_PER_SECOND: u64 = 200;
const READS_AT_ONCE: u64 = 2000;

/// Back-off of a process that did not exist. If another process gets its id, there is an event.
const ABSENT_NS: u64 = 1_000_000_000;

/// Back-off of a process whose read missed its deadline.
const TIMED_OUT_NS: u64 = 10_000_000_000;

/// Processes that are not read again for a while; beyond, all are forgotten. 16 bytes each.
const ABSENT_MAX: usize = 8192;

/// Events kept of processes that are being read. At 300 execs of 30 mappings a second they are those of 7 s, and 200 bytes each.
const EVENTS_MAX: usize = 65_536;

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requested {
    /// The process is being read.
    Pending,
    /// It did not exist, or could not be read, a short time ago.
    Absent,
    /// Too many are being read.
    Limited,
}

/// Reads that are under way, and those that failed.
#[derive(Default)]
pub(super) struct Reads {
    /// Processes that are being read.
    pending: FxHashSet<u32>,
    requests: Vec<u32>,
    /// Until when processes are not read again.
    absent: FxHashMap<u32, u64>,
    budget: Budget,
    /// Events since reads began, by process.
    events: FxHashMap<u32, Vec<Timed>>,
    event_count: usize,
    /// All processes are being read.
    is_scanning: bool,
}

impl Reads {
    /// Requests the read of a process, unless it is being read, or did not exist.
    pub(super) fn request(&mut self, pid: u32, now_ns: u64) -> Requested {
        if self.pending.contains(&pid) {
            return Requested::Pending;
        }
        if self.absent.get(&pid).is_some_and(|until| now_ns < *until) {
            return Requested::Absent;
        }
        if self.pending.len() >= PENDING_MAX || !self.budget.take(now_ns) {
            return Requested::Limited;
        }
        self.pending.insert(pid);
        self.requests.push(pid);
        Requested::Pending
    }

    /// The processes to read.
    pub(super) fn take_requests(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.requests)
    }

    /// All processes are being read from now on.
    pub(super) fn begin_scan(&mut self) {
        self.is_scanning = true;
    }

    /// All processes have been read.
    pub(super) fn end_scan(&mut self) {
        self.is_scanning = false;
        let pending = &self.pending;
        self.events.retain(|pid, _| pending.contains(pid));
        self.event_count = self.events.values().map(Vec::len).sum();
    }

    /// Keeps an event of a process that may be being read. Returns whether there was room.
    pub(super) fn keep(&mut self, pid: u32, event: &SideBandEvent, time_ns: u64) -> bool {
        if !self.is_scanning && !self.pending.contains(&pid) {
            return true;
        }
        if self.event_count >= EVENTS_MAX {
            return false;
        }
        self.event_count += 1;
        self.events.entry(pid).or_default().push(Timed {
            time_ns,
            event: event.clone(),
        });
        true
    }

    /// Ends the read of a process, which began at `begun_ns`. Returns the events that came later.
    pub(super) fn end(&mut self, pid: u32, begun_ns: u64) -> Vec<Timed> {
        self.pending.remove(&pid);
        self.absent.remove(&pid);
        let mut events = self.events.remove(&pid).unwrap_or_default();
        self.event_count -= events.len();
        events.retain(|event| event.time_ns >= begun_ns);
        events
    }

    /// The process does not exist.
    pub(super) fn note_absent(&mut self, pid: u32, now_ns: u64) {
        self.insert_absent(pid, now_ns + ABSENT_NS);
    }

    /// The read of the process missed its deadline.
    pub(super) fn note_timed_out(&mut self, pid: u32, now_ns: u64) {
        self.insert_absent(pid, now_ns + TIMED_OUT_NS);
    }

    /// There was an event of the process: it exists.
    pub(super) fn forget_absent(&mut self, pid: u32) {
        self.absent.remove(&pid);
    }

    fn insert_absent(&mut self, pid: u32, until_ns: u64) {
        if self.absent.len() >= ABSENT_MAX {
            self.absent.clear();
        }
        self.absent.insert(pid, until_ns);
    }
}

/// A rate limit: tokens that come back with time.
struct Budget {
    left: u64,
    filled_ns: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: READS_AT_ONCE,
            filled_ns: 0,
        }
    }
}

impl Budget {
    const NS_PER_READ: u64 = 1_000_000_000 / READS_PER_SECOND;

    fn take(&mut self, now_ns: u64) -> bool {
        let come_back = now_ns.saturating_sub(self.filled_ns) / Self::NS_PER_READ;
        if come_back > 0 {
            self.left = self.left.saturating_add(come_back).min(READS_AT_ONCE);
            self.filled_ns += come_back * Self::NS_PER_READ;
        }
        let has_token = self.left > 0;
        self.left -= u64::from(has_token);
        has_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Check that a process is read once at a time, not again at once when it was not there, and again after a while or when an
    /// event told of it.
    #[test]
    fn a_process_is_not_read_for_each_sample() {
        let mut reads = Reads::default();
        assert_eq!(reads.request(7, 10), Requested::Pending);
        assert_eq!(reads.request(7, 11), Requested::Pending);
        assert_eq!(reads.take_requests(), [7]);
        reads.end(7, 10);
        reads.note_absent(7, 20);
        assert_eq!(reads.request(7, 21), Requested::Absent);
        reads.forget_absent(7);
        assert_eq!(reads.request(7, 22), Requested::Pending);
        reads.end(7, 22);
        reads.note_timed_out(7, 30);
        assert_eq!(reads.request(7, 30 + SECOND), Requested::Absent);
        assert_eq!(reads.request(7, 30 + TIMED_OUT_NS), Requested::Pending);
        assert_eq!(reads.take_requests(), [7, 7]);
    }

    /// Check that no more are read than may be, at once and in the long run.
    #[test]
    fn reads_have_a_budget() {
        let mut reads = Reads::default();
        let read = |reads: &mut Reads, pids: std::ops::Range<u32>, now_ns| {
            let requested = pids.map(|pid| {
                let requested = reads.request(pid, now_ns);
                reads.end(pid, now_ns);
                requested
            });
            requested
                .filter(|requested| *requested == Requested::Pending)
                .count() as u64
        };
        assert_eq!(read(&mut reads, 0..10_000, 1), READS_AT_ONCE);
        let later = 10 * SECOND;
        assert_eq!(read(&mut reads, 0..10_000, later), 10 * READS_PER_SECOND);
        let pending = (0..2000)
            .filter(|pid| Reads::request(&mut reads, *pid, 100 * SECOND) == Requested::Pending);
        assert_eq!(pending.count(), PENDING_MAX);
    }

    /// Check that the events of a process that is being read are kept, those after its read began are given back, and that
    /// nothing is left afterwards.
    #[test]
    fn events_during_a_read_are_kept() {
        let mut reads = Reads::default();
        let exit = |pid| SideBandEvent::Exit { pid };
        reads.request(7, 10);
        for (pid, time_ns) in [(7, 11), (8, 12), (7, 13)] {
            assert!(reads.keep(pid, &exit(pid), time_ns));
        }
        let events = reads.end(7, 12);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].time_ns, 13);
        reads.begin_scan();
        for pid in 0..EVENTS_MAX as u32 {
            assert!(reads.keep(pid, &exit(pid), 14));
        }
        assert!(!reads.keep(8, &exit(8), 15));
        assert_eq!(reads.end(8, 14).len(), 1);
        assert!(reads.keep(8, &exit(8), 15));
        reads.end_scan();
        assert_eq!((reads.event_count, reads.events.len()), (0, 0));
        assert!(reads.keep(8, &exit(8), 16) && reads.events.is_empty());
    }
}
