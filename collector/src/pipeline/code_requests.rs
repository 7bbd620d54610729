//! Requests for rows of code without call frame information, and their allowance of CPU time.
//!
//! In: addresses at which stacks stopped, in files whose rows are there. Out: jobs for the evaluators, one at a time for each file.
//!
//! An address takes 30 to 500 us, but new ones are rare: a program's first seconds bring some hundreds. All together have 10 ms a
//! second, 1 % of a processor, and up to a minute's worth at once. An address beyond that gets no row; a later sample asks again.

use profiler_bpf::settings::WALKED_FRAMES_MAX;
use rustc_hash::FxHashMap;

use super::evaluator::{Job, Work};
use crate::{
    process::Mapping,
    unwind::{CodeAddress, TableKey},
};

/// CPU time of a second.
const NS_PER_SECOND: u64 = 10_000_000;

/// CPU time that may be saved up: the addresses of a few programs that start at once.
const SAVED_NS_MAX: i64 = 600_000_000;

/// Addresses of one job. It may exceed the allowance, by some milliseconds.
const JOB_ADDRESSES_MAX: usize = 16;

/// Addresses that wait: a stack asks for one at a time, and there are at most as many stacks as bytes for copies of them. 64 KiB.
const ADDRESSES_MAX: usize = WALKED_FRAMES_MAX;

/// Time after which a file that could not be read is tried again: a process that mapped it may have ended, and another maps it.
const UNREADABLE_RETRY_NS: u64 = 2_000_000_000;

/// Files that could not be read; beyond that many, all are tried again.
const UNREADABLE_MAX: usize = 1_024;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestStats {
    /// Addresses without a row because the CPU time was used up.
    pub(super) no_cpu_time: u64,
    /// Addresses without a row because too many waited.
    pub(super) no_room: u64,
    /// Addresses without a row because the file could not be read.
    pub(super) unreadable: u64,
}

/// All requests.
pub(super) struct CodeRequests {
    files: FxHashMap<TableKey, FileRequests>,
    /// Files that could not be read, and when they are tried again.
    unreadable: FxHashMap<TableKey, u64>,
    waiting: usize,
    left_ns: i64,
    filled_ns: u64,
    stats: RequestStats,
}

/// Requests of one file.
struct FileRequests {
    pid: u32,
    mapping: Mapping,
    waiting: Vec<CodeAddress>,
    running: Vec<CodeAddress>,
}

impl CodeRequests {
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            files: FxHashMap::default(),
            unreadable: FxHashMap::default(),
            waiting: 0,
            left_ns: SAVED_NS_MAX,
            filled_ns: now_ns,
            stats: RequestStats::default(),
        }
    }

    /// Adds an address. Returns whether its row will come.
    pub(super) fn push(
        &mut self,
        key: &TableKey,
        (pid, mapping): (u32, &Mapping),
        address: CodeAddress,
        now_ns: u64,
    ) -> bool {
        if self.has(key, address) {
            return true;
        }
        if self
            .unreadable
            .get(key)
            .is_some_and(|retry_ns| now_ns < *retry_ns)
        {
            self.stats.unreadable += 1;
            return false;
        }
        self.fill(now_ns);
        if self.left_ns <= 0 {
            self.stats.no_cpu_time += 1;
            return false;
        }
        if self.waiting >= ADDRESSES_MAX {
            self.stats.no_room += 1;
            return false;
        }
        let new = || FileRequests {
            pid,
            mapping: mapping.clone(),
            waiting: Vec::new(),
            running: Vec::new(),
        };
        let file = self.files.entry(key.clone()).or_insert_with(new);
        file.waiting.push(address);
        self.waiting += 1;
        true
    }

    /// Whether an address was asked for, and has no answer yet.
    pub(super) fn has(&self, key: &TableKey, address: CodeAddress) -> bool {
        let file = self.files.get(key);
        file.is_some_and(|file| file.waiting.contains(&address) || file.running.contains(&address))
    }

    /// Takes the jobs of all files of which none is running.
    pub(super) fn take_jobs(&mut self) -> Vec<Job> {
        let files = self.files.iter_mut();
        let idle = files.filter(|(_, file)| file.running.is_empty() && !file.waiting.is_empty());
        let jobs = idle.map(|(key, file)| {
            let count = file.waiting.len().min(JOB_ADDRESSES_MAX);
            file.running = file.waiting.drain(..count).collect();
            self.waiting -= count;
            Job {
                key: key.clone(),
                pid: file.pid,
                mapping: file.mapping.clone(),
                work: Work::Code(file.running.clone()),
            }
        });
        jobs.collect()
    }

    /// Takes the end of a file's job.
    pub(super) fn finish(&mut self, key: &TableKey, cpu_ns: u64) {
        self.left_ns -= i64::try_from(cpu_ns).unwrap_or(i64::MAX);
        let Some(file) = self.files.get_mut(key) else {
            return;
        };
        file.running.clear();
        if file.waiting.is_empty() {
            self.files.remove(key);
        }
    }

    /// The file of a job could not be read.
    pub(super) fn set_unreadable(&mut self, key: &TableKey, now_ns: u64) {
        if self.unreadable.len() >= UNREADABLE_MAX {
            self.unreadable.clear();
        }
        self.unreadable
            .insert(key.clone(), now_ns + UNREADABLE_RETRY_NS);
    }

    pub(super) fn stats(&self) -> RequestStats {
        self.stats
    }

    fn fill(&mut self, now_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.filled_ns);
        let more_ns = passed_ns / (1_000_000_000 / NS_PER_SECOND);
        self.left_ns = self
            .left_ns
            .saturating_add_unsigned(more_ns)
            .min(SAVED_NS_MAX);
        self.filled_ns = self.filled_ns.max(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{FileIdentity, FileKind, Files};

    struct Fixture {
        requests: CodeRequests,
        key: TableKey,
        mapping: Mapping,
    }

    impl Fixture {
        fn new() -> Self {
            let file = Files::new().intern(FileKind::File, b"/a", FileIdentity::Path);
            Self {
                requests: CodeRequests::new(0),
                key: TableKey::of(&file).unwrap(),
                mapping: Mapping::new(0x1000..0x2000, 0, file),
            }
        }

        fn push(&mut self, offset: u64, now_ns: u64) -> bool {
            let address = CodeAddress::Call(offset);
            let by = (1, &self.mapping);
            self.requests.push(&self.key, by, address, now_ns)
        }

        fn jobs(&mut self) -> Vec<usize> {
            let jobs = self.requests.take_jobs().into_iter();
            let counts = jobs.map(|job| match job.work {
                Work::Code(addresses) => addresses.len(),
                Work::CallFrameInformation => 0,
            });
            counts.collect()
        }
    }

    /// Check that an address is asked for once, that a file has one job at a time, and that nothing is left behind.
    #[test]
    fn one_job_a_file() {
        let mut fixture = Fixture::new();
        for offset in (0..20).chain(0..20) {
            assert!(fixture.push(offset, 0));
        }
        assert_eq!((fixture.jobs(), fixture.jobs()), (vec![16], vec![]));
        assert!(fixture.requests.has(&fixture.key, CodeAddress::Call(3)));
        fixture.requests.finish(&fixture.key, 1_000);
        assert!(!fixture.requests.has(&fixture.key, CodeAddress::Call(3)));
        assert!(fixture.requests.has(&fixture.key, CodeAddress::Call(19)));
        assert_eq!(fixture.jobs(), [4]);
        fixture.requests.finish(&fixture.key, 1_000);
        assert!(fixture.requests.files.is_empty() && fixture.requests.waiting == 0);
    }

    /// Check that a file that could not be read is left alone for a while.
    #[test]
    fn unreadable_files() {
        let mut fixture = Fixture::new();
        assert!(fixture.push(1, 0));
        assert_eq!(fixture.jobs(), [1]);
        fixture.requests.finish(&fixture.key, 1_000);
        fixture.requests.set_unreadable(&fixture.key, 5);
        assert!(!fixture.push(1, 6));
        assert_eq!(fixture.requests.stats().unreadable, 1);
        assert!(fixture.push(1, 5 + UNREADABLE_RETRY_NS));
    }

    /// Check that used up CPU time refuses, is counted, and comes back at its rate; and the limit of addresses.
    #[test]
    fn limits() {
        let mut fixture = Fixture::new();
        let spend = |fixture: &mut Fixture, ns| fixture.requests.finish(&fixture.key, ns);
        spend(&mut fixture, 605_000_000);
        assert!(!fixture.push(1, 400_000_000));
        assert!(fixture.push(1, 600_000_000));
        spend(&mut fixture, 1_000_000);
        assert!(!fixture.push(2, 600_000_000));
        // After a day of rest there is a minute's worth.
        let now_ns = 86_400_000_000_000;
        assert!(fixture.push(2, now_ns));
        spend(&mut fixture, 600_000_000);
        assert!(!fixture.push(3, now_ns));
        assert_eq!(fixture.requests.stats().no_cpu_time, 3);
        let now_ns = 2 * now_ns;
        let taken = (10..10_000).filter(|offset| fixture.push(*offset, now_ns));
        assert_eq!(taken.count() + 2, ADDRESSES_MAX);
        assert!(fixture.requests.stats().no_room > 1_000);
    }
}
