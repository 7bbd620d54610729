//! Samples whose stacks are walked in user space.
//!
//! In: samples whose stacks were copied, because the kernel lacked rows or to prove its walk. Out: the same samples with their
//! stacks, in the order in which these were done. Each comes out, at the latest with the frames that the kernel found.

use std::{
    mem, thread,
    time::{Duration, Instant},
};

use metrics::Figures;
use profiler_bpf::{outcome::Outcome, tables::PROCESSES_MAX};
use rustc_hash::FxHashMap;

use super::{
    prover::{Proof, Proved, Prover},
    stacks_by_binary::StacksByBinary,
    unwinder::{self, Request, Unwinder, Walked},
};
use crate::{
    aggregate::Check,
    locate::{Addresses, StackOutcome},
    metrics::Stats,
    process::{Change, Process},
    sample::{Batch, Sample},
};

/// Samples that may wait. Each keeps its kernel frames and its process, some 300 bytes; the unwinder limits the bytes of the
/// copies themselves.
const STACKS_MAX: usize = 16_384;

/// Changes of processes that may wait for the unwinder: two of each process that it knows, of 24 bytes each. It is behind for
/// seconds then. More are dropped, and it forgets all processes: each gets its rows again at its next sample.
const CHANGES_MAX: usize = 2 * PROCESSES_MAX as usize;

/// Wait of a sample: a little longer than the unwinder waits for rows.
pub(super) const WAIT_NS: u64 = unwinder::WAIT_NS + 500_000_000;

/// Time between two messages to the unwinder that say no more than which processes were sampled: it evicts the one that was not
/// sampled for longest.
const SAMPLED_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two looks for results at the end, when nothing else is to be done. Two threads send results: waiting for one of
/// them would miss those of the other.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingStats {
    /// Stacks that a second unwinder walked again, by program and result.
    checked: StacksByBinary,
    /// Stacks that were copied for it and that it did not walk.
    unchecked: u64,
    /// Copied stacks that were not walked.
    dropped: u64,
    /// Changes of processes that the unwinder was not told.
    dropped_changes: u64,
}

impl WaitingStats {
    /// Writes the figures.
    pub(super) fn show(&self, figures: &mut Figures<'_>) {
        figures.counters(
            "checked_stacks",
            "Stacks that a second, independent unwinder (framehop) walked again, by result",
            ["result"],
            ["agreed", "differed"].map(|result| ([result], self.checked.total(result))),
        );
        self.checked.show(
            figures,
            "checked_stacks_by_binary",
            "Stacks that a second unwinder walked again, by program and result",
            "result",
        );
        figures.counter(
            "unchecked_stacks",
            "Stacks that were copied for it and that it could not walk: a file is too large or gone",
            self.unchecked,
        );
        figures.counter(
            "copied_stacks_dropped",
            "Copied stacks that were not unwound because too many waited, or their rows did not come in time",
            self.dropped,
        );
        figures.counter(
            "unwind_changes_dropped",
            "Changes of processes that were dropped because the unwinder was behind: it forgot all processes, and wrote their mappings to the kernel again when they were sampled",
            self.dropped_changes,
        );
    }
}

/// A sample whose stack is known.
pub(super) struct Finished {
    pub(super) sample: Sample,
    pub(super) process: Process,
    pub(super) addresses: Addresses<'static>,
    pub(super) check: Check,
}

/// A sample whose stack is not known yet.
struct Waiting {
    sample: Sample,
    kernel: Vec<u64>,
    process: Process,
    walk: Walk,
}

/// The use of a copied stack.
enum Walk {
    /// It is walked, since the kernel could not.
    InUserSpace {
        /// The innermost frame.
        leaf: u64,
        stack_bytes: usize,
    },
    /// It is walked again, to prove the kernel's walk.
    Again {
        /// The frames that the kernel found.
        frames: Vec<u64>,
    },
}

/// All samples whose stacks are not known yet.
pub(super) struct WaitingStacks {
    unwinder: Unwinder,
    prover: Prover,
    stacks: FxHashMap<u64, Waiting>,
    stack_bytes: usize,
    next_number: u64,
    /// Stacks and changes that the unwinder has not taken yet.
    to_unwind: unwinder::Batch,
    /// The time of the last message to it.
    told: Instant,
    /// Stacks that the unwinder did not take.
    refused: Vec<u64>,
    stats: Stats<WaitingStats>,
}

impl WaitingStacks {
    /// None wait yet.
    pub(super) fn new(unwinder: Unwinder, prover: Prover, stats: Stats<WaitingStats>) -> Self {
        Self {
            unwinder,
            prover,
            stacks: FxHashMap::default(),
            stack_bytes: 0,
            next_number: 0,
            to_unwind: unwinder::Batch::default(),
            told: Instant::now(),
            refused: Vec::new(),
            stats,
        }
    }

    /// Requests the rows that a sample's process lacks, and takes the sample if its stack was copied. Returns whether it did.
    pub(super) fn push(&mut self, batch: &Batch, sample: &Sample, process: &Process) -> bool {
        if sample.outcome == Outcome::NoRows {
            self.request_rows(batch, sample, process)
        } else {
            sample.is_proof && self.prove(batch, sample, process)
        }
    }

    fn request_rows(&mut self, batch: &Batch, sample: &Sample, process: &Process) -> bool {
        let leaf = batch.user_frames(sample).first().copied().unwrap_or(0);
        let mut stack = sample.stack.clone();
        if stack.is_some() && !self.has_room() {
            self.stats.lock().dropped += 1;
            stack = None;
        }
        let walk = stack.as_ref().map(|stack| Walk::InUserSpace {
            leaf,
            stack_bytes: stack.len(),
        });
        let number = walk.map(|walk| self.insert(batch, sample, process, walk));
        self.to_unwind.requests.push(Request {
            pid: sample.pid,
            identity: sample.identity,
            mappings: process.mappings.clone(),
            address: leaf.wrapping_sub(u64::from(!sample.user_leaf_exact)),
            stack: number.zip(stack),
        });
        number.is_some()
    }

    fn has_room(&self) -> bool {
        self.stacks.len() < STACKS_MAX && self.stack_bytes < unwinder::WAITING_BYTES_MAX
    }

    fn prove(&mut self, batch: &Batch, sample: &Sample, process: &Process) -> bool {
        let frames = batch.user_frames(sample).to_vec();
        let stack = sample.stack.clone().filter(|stack| !stack.is_cut());
        let proof = stack.map(|stack| Proof {
            number: self.next_number,
            pid: sample.pid,
            mappings: process.mappings.clone(),
            stack,
            frames: frames.clone(),
        });
        let is_taken = proof.is_some_and(|proof| self.prover.push(proof));
        if is_taken {
            self.insert(batch, sample, process, Walk::Again { frames });
        } else {
            self.stats.lock().unchecked += 1;
        }
        is_taken
    }

    fn insert(&mut self, batch: &Batch, sample: &Sample, process: &Process, walk: Walk) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        if let Walk::InUserSpace { stack_bytes, .. } = walk {
            self.stack_bytes += stack_bytes;
        }
        let waiting = Waiting {
            sample: sample.without_stack(),
            kernel: batch.kernel_frames(sample).to_vec(),
            process: process.clone(),
            walk,
        };
        self.stacks.insert(number, waiting);
        number
    }

    /// Hands the requests of a drain to the unwinder, with the changes of the processes that it knows. Once a second it also hears
    /// which processes were sampled.
    pub(super) fn end_drain(&mut self, changes: Vec<(u32, Change)>, sampled: Vec<u32>) {
        let Self { to_unwind, .. } = self;
        to_unwind.changes.extend(changes);
        to_unwind.sampled.extend(sampled);
        let has_work = !to_unwind.requests.is_empty() || !to_unwind.changes.is_empty();
        if !has_work && self.told.elapsed() < SAMPLED_INTERVAL {
            return;
        }
        self.told = Instant::now();
        to_unwind.sampled.sort_unstable();
        to_unwind.sampled.dedup();
        let Err(refused) = self.unwinder.push(mem::take(&mut self.to_unwind)) else {
            return;
        };
        let stacks = refused
            .requests
            .iter()
            .filter_map(|request| request.stack.as_ref());
        self.refused.extend(stacks.map(|(number, _)| *number));
        tracing::debug!(stacks = self.refused.len(), "the unwinder is behind");
        // A process that lacks rows is sampled again; its changes come only once.
        self.to_unwind.changes = refused.changes;
        self.to_unwind.has_dropped_changes = refused.has_dropped_changes;
        self.limit_changes();
    }

    fn limit_changes(&mut self) {
        let changes = &mut self.to_unwind.changes;
        if changes.len() > CHANGES_MAX {
            self.stats.lock().dropped_changes += changes.len() as u64;
            // Not only the length: the room was for many.
            *changes = Vec::new();
            self.to_unwind.has_dropped_changes = true;
        }
    }

    /// The samples whose stacks are done, and those that have waited too long.
    pub(super) fn poll(&mut self, now_ns: u64) -> Vec<Finished> {
        let mut finished = Vec::new();
        while let Some(walked) = self.unwinder.pop() {
            finished.extend(self.finish_walked(walked));
        }
        while let Some(Proved { number, check }) = self.prover.pop() {
            finished.extend(self.finish_proved(number, check));
        }
        let refused = mem::take(&mut self.refused);
        finished.extend(self.give_up(refused));
        finished.extend(self.give_up_before(now_ns.saturating_sub(WAIT_NS)));
        finished
    }

    /// The samples that were taken before `time_ns`, with the frames that the kernel found.
    fn give_up_before(&mut self, time_ns: u64) -> Vec<Finished> {
        let late = self.stacks.iter();
        let late = late.filter(|(_, waiting)| waiting.sample.time_ns < time_ns);
        let late = late.map(|(number, _)| *number).collect();
        self.give_up(late)
    }

    fn give_up(&mut self, numbers: Vec<u64>) -> Vec<Finished> {
        if !numbers.is_empty() {
            tracing::debug!(stacks = numbers.len(), "copied stacks were not walked");
            self.stats.lock().dropped += numbers.len() as u64;
        }
        let finished = numbers.into_iter().filter_map(|number| {
            let frames = match self.stacks.get(&number)?.walk {
                Walk::Again { .. } => return self.finish_proved(number, Check::None),
                Walk::InUserSpace { leaf, .. } => vec![leaf],
            };
            self.finish_walked(Walked {
                number,
                frames,
                outcome: Outcome::NoRows,
            })
        });
        finished.collect()
    }

    fn finish_walked(&mut self, walked: Walked) -> Option<Finished> {
        let Waiting {
            sample,
            kernel,
            process,
            walk,
        } = self.stacks.remove(&walked.number)?;
        if let Walk::InUserSpace { stack_bytes, .. } = walk {
            self.stack_bytes -= stack_bytes;
        }
        let is_exact = sample.user_leaf_exact;
        Some(Finished {
            addresses: Addresses::of_copy(walked.frames, walked.outcome, is_exact, kernel),
            sample,
            process,
            check: Check::None,
        })
    }

    fn finish_proved(&mut self, number: u64, check: Check) -> Option<Finished> {
        let Waiting {
            sample,
            kernel,
            process,
            walk,
        } = self.stacks.remove(&number)?;
        let mut stats = self.stats.lock();
        match check.name() {
            Some(result) => stats.checked.add(process.exe.as_ref(), result),
            None => stats.unchecked += 1,
        }
        let frames = match walk {
            Walk::Again { frames } => frames,
            Walk::InUserSpace { leaf, .. } => vec![leaf],
        };
        let addresses = Addresses {
            user: frames.into(),
            left_out_after: None,
            is_leaf_exact: sample.user_leaf_exact,
            kernel: kernel.into(),
            is_walked_in_kernel: true,
            outcome: StackOutcome::Walked(sample.outcome),
        };
        Some(Finished {
            sample,
            process,
            addresses,
            check,
        })
    }

    /// Whether a sample waits that was taken before `time_ns`.
    pub(super) fn has_before(&self, time_ns: u64) -> bool {
        let mut waiting = self.stacks.values();
        waiting.any(|waiting| waiting.sample.time_ns < time_ns)
    }

    /// Waits until no sample does, at most for `timeout`. Returns all samples that waited.
    pub(super) fn finish(&mut self, timeout: Duration) -> Vec<Finished> {
        let until = Instant::now() + timeout;
        let mut finished = self.poll(0);
        while !self.stacks.is_empty() && Instant::now() < until {
            thread::sleep(POLL_INTERVAL);
            finished.extend(self.poll(0));
        }
        finished.extend(self.give_up_before(u64::MAX));
        finished
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use profiler_bpf::record::{FLAG_PROOF, FLAG_STACK_COPIED, SampleHeader};

    use super::{
        super::{
            prover::testing::{ProverEnd, detached as detached_prover},
            unwinder::testing::{UnwinderEnd, detached as detached_unwinder},
        },
        *,
    };
    use crate::{
        process::testing::process,
        sample::testing::{sample_record, stack_record},
    };

    /// Stacks whose threads are played by the test.
    struct Fixture {
        stacks: WaitingStacks,
        unwinder: UnwinderEnd,
        prover: ProverEnd,
    }

    fn fixture(batches_max: usize) -> Fixture {
        let (unwinder, unwinder_end) = detached_unwinder(batches_max);
        let (prover, prover_end) = detached_prover();
        Fixture {
            stacks: WaitingStacks::new(unwinder, prover, Stats::default()),
            unwinder: unwinder_end,
            prover: prover_end,
        }
    }

    /// A batch of one sample, taken at this time, with a copied stack.
    fn batch(time_ns: u64, outcome: Outcome, flags: u8) -> Batch {
        let mut batch = Batch::default();
        if flags & FLAG_STACK_COPIED != 0 {
            batch.push_record(&stack_record(time_ns, b"stack")).unwrap();
        }
        let mut record = sample_record(5, time_ns, &[0x1010, 0x1020], &[0x99]);
        record[offset_of!(SampleHeader, outcome)] = outcome as u8;
        record[offset_of!(SampleHeader, flags)] = flags;
        batch.push_record(&record).unwrap();
        batch
    }

    impl Fixture {
        /// Pushes a sample. Returns whether it waits.
        fn push(&mut self, time_ns: u64, outcome: Outcome, flags: u8) -> bool {
            let batch = batch(time_ns, outcome, flags);
            self.stacks.push(&batch, &batch.samples()[0], &process())
        }

        fn push_copy(&mut self, time_ns: u64) -> bool {
            self.push(time_ns, Outcome::NoRows, FLAG_STACK_COPIED)
        }

        fn push_proof(&mut self, time_ns: u64) -> bool {
            let flags = FLAG_STACK_COPIED | FLAG_PROOF;
            self.push(time_ns, Outcome::Complete, flags)
        }
    }

    /// Shows finished samples as "time outcome frames check".
    fn show(finished: &[Finished]) -> Vec<String> {
        let shown = finished.iter().map(|finished| {
            let Addresses { user, outcome, .. } = &finished.addresses;
            let time_ns = finished.sample.time_ns;
            format!(
                "{time_ns} {} {user:x?} {:?}",
                outcome.name(),
                finished.check
            )
        });
        shown.collect()
    }

    /// Check that a copied stack comes back with the unwinder's frames, and a proof with the kernel's and its result.
    #[test]
    fn copies_and_proofs_come_back_from_one_poll() {
        let mut waiting = fixture(8);
        assert!(waiting.push_copy(10));
        assert!(waiting.push_proof(20));
        assert!(!waiting.push(30, Outcome::Complete, 0));
        assert!(!waiting.push(40, Outcome::NoRows, 0));
        waiting.stacks.end_drain(Vec::new(), vec![5]);
        let requests = waiting.unwinder.pop().unwrap().requests;
        let numbers = requests.iter().map(|request| request.stack.is_some());
        assert_eq!(numbers.collect::<Vec<_>>(), [true, false]);
        assert!(waiting.stacks.poll(50).is_empty());
        assert!(waiting.stacks.has_before(11) && !waiting.stacks.has_before(10));

        let number = requests[0].stack.as_ref().unwrap().0;
        let walked = Walked {
            number,
            frames: vec![1, 2, 3],
            outcome: Outcome::Complete,
        };
        waiting.unwinder.results.send(walked).unwrap();
        let proof = waiting.prover.proofs.try_recv().unwrap();
        let proved = Proved {
            number: proof.number,
            check: Check::Agreed,
        };
        waiting.prover.results.send(proved).unwrap();
        let expected = [
            "10 copied [1, 2, 3] None",
            "20 complete [1010, 1020] Agreed",
        ];
        assert_eq!(show(&waiting.stacks.poll(50)), expected);
        assert!(!waiting.stacks.has_before(u64::MAX));
        assert_eq!(waiting.stacks.stack_bytes, 0);
    }

    /// Check that samples that wait for too long come back with what the kernel found, and are counted.
    #[test]
    fn late_stacks_are_given_up() {
        let mut waiting = fixture(8);
        waiting.push_copy(10);
        waiting.push_proof(20);
        waiting.push_copy(30);
        let expected = ["10 no_rows [1010] None", "20 complete [1010, 1020] None"];
        let mut finished = show(&waiting.stacks.poll(WAIT_NS + 25));
        finished.sort();
        assert_eq!(finished, expected);
        assert_eq!(waiting.stacks.stats.lock().dropped, 2);
        assert!(waiting.stacks.has_before(31));
    }

    /// Check that the stacks of a batch that the unwinder has no room for come back at once, and the changes of processes with
    /// the next batch.
    #[test]
    fn a_refused_batch_loses_no_change() {
        let mut waiting = fixture(1);
        waiting
            .stacks
            .end_drain(vec![(4, Change::Ended)], Vec::new());
        waiting.push_copy(10);
        waiting.stacks.end_drain(vec![(5, Change::Ended)], vec![5]);
        assert_eq!(show(&waiting.stacks.poll(11)), ["10 no_rows [1010] None"]);
        assert_eq!(
            waiting.unwinder.pop().unwrap().changes,
            [(4, Change::Ended)]
        );
        waiting
            .stacks
            .end_drain(vec![(6, Change::Ended)], Vec::new());
        let changes = waiting.unwinder.pop().unwrap().changes;
        assert_eq!(changes, [(5, Change::Ended), (6, Change::Ended)]);
    }

    /// Check that changes which the unwinder does not take are dropped at a limit, and that it forgets the processes then.
    #[test]
    fn changes_that_wait_have_a_limit() {
        let mut waiting = fixture(1);
        let changes = |count: usize| vec![(4, Change::Ended); count];
        waiting.stacks.end_drain(changes(1), Vec::new());
        waiting.stacks.end_drain(changes(CHANGES_MAX), Vec::new());
        assert_eq!(waiting.stacks.to_unwind.changes.len(), CHANGES_MAX);
        waiting.stacks.end_drain(changes(1), Vec::new());
        assert!(waiting.stacks.to_unwind.changes.is_empty());
        let dropped = waiting.stacks.stats.lock().dropped_changes;
        assert_eq!(dropped, CHANGES_MAX as u64 + 1);

        waiting.stacks.end_drain(changes(2), Vec::new());
        assert!(!waiting.unwinder.pop().unwrap().has_dropped_changes);
        waiting.stacks.end_drain(changes(3), Vec::new());
        let batch = waiting.unwinder.pop().unwrap();
        assert_eq!((batch.changes.len(), batch.has_dropped_changes), (5, true));
        waiting.stacks.end_drain(changes(1), Vec::new());
        assert!(!waiting.unwinder.pop().unwrap().has_dropped_changes);
    }

    /// Check that drains without work are told together, once a second.
    #[test]
    fn sampled_processes_are_told_once_a_second() {
        let mut waiting = fixture(8);
        waiting.stacks.end_drain(Vec::new(), vec![7, 8]);
        assert!(waiting.unwinder.pop().is_none());
        waiting.stacks.told -= SAMPLED_INTERVAL;
        waiting.stacks.end_drain(Vec::new(), vec![6, 8]);
        assert_eq!(waiting.unwinder.pop().unwrap().sampled, [6, 7, 8]);
        waiting.stacks.end_drain(Vec::new(), vec![9]);
        waiting
            .stacks
            .end_drain(vec![(5, Change::Ended)], Vec::new());
        assert_eq!(waiting.unwinder.pop().unwrap().sampled, [9]);
    }

    /// Check that no more stacks wait than there may, and that their samples are counted all the same.
    #[test]
    fn too_many_copies_do_not_wait() {
        let mut waiting = fixture(8);
        waiting.stacks.stack_bytes = unwinder::WAITING_BYTES_MAX;
        assert!(!waiting.push_copy(10));
        assert_eq!(waiting.stacks.stats.lock().dropped, 1);
        waiting.stacks.end_drain(Vec::new(), Vec::new());
        assert_eq!(waiting.unwinder.pop().unwrap().requests.len(), 1);
    }

    /// Check that the end does not wait once the last proof has its result, nor beyond its time for one that never comes.
    #[test]
    fn the_end_waits_for_proofs_as_for_copies() {
        let mut waiting = fixture(8);
        waiting.push_proof(10);
        let number = waiting.prover.proofs.try_recv().unwrap().number;
        let results = waiting.prover.results.clone();
        let check = Check::Agreed;
        let prover = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            results.send(Proved { number, check })
        });
        let begun = Instant::now();
        let finished = waiting.stacks.finish(Duration::from_secs(60));
        assert_eq!(show(&finished), ["10 complete [1010, 1020] Agreed"]);
        assert!(begun.elapsed() < Duration::from_secs(30));
        prover.join().unwrap().unwrap();

        waiting.push_proof(20);
        waiting.push_copy(30);
        assert_eq!(waiting.stacks.finish(Duration::from_millis(20)).len(), 2);
    }
}
