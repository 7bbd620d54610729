//! The thread `proc`: reads processes off the sampling thread, since a process can block the readers of its memory
//! map.
//!
//! In: requests of the table of processes. Out: snapshots. A scan of all processes gives way to requests for single
//! ones, whose samples wait.

use std::{
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    vec,
};

use anyhow::Result;

use crate::{
    blocking_pool::BlockingPool,
    clock::monotonic_ns,
    process::{Module, ProcessList, ProcessRead, SnapshotReader, read_modules},
    threads::spawn,
};

/// A read that the tables ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcRequest {
    Process(u32),
    AllProcesses,
    /// The modules of the kernel.
    Modules,
}

/// A finished read.
#[derive(Debug)]
pub(super) enum ProcResult {
    Process(ProcessRead),
    /// All processes, after the read of each of them.
    AllProcesses(ProcessList),
    /// The modules of the kernel at a time, nanoseconds of CLOCK_MONOTONIC.
    Modules(Vec<Module>, u64),
}

/// The sampler's end of the thread.
pub(super) struct ProcReader {
    to: Sender<ProcRequest>,
    from: Receiver<ProcResult>,
}

impl ProcReader {
    /// Starts the thread. It ends by itself some time after this was dropped.
    pub(super) fn start(pool: &BlockingPool) -> Result<Self> {
        let (to, requests) = channel();
        let (results, from) = channel();
        let thread = Thread {
            reader: SnapshotReader::new(pool.clone()),
            requests,
            results,
        };
        spawn("proc", move || thread.run())?;
        Ok(Self { to, from })
    }

    /// Queues a read. The tables bound the number of reads under way.
    pub(super) fn push(&self, request: ProcRequest) {
        // The thread ends after this only.
        let _ = self.to.send(request);
    }

    /// The next finished read.
    pub(super) fn pop(&self) -> Option<ProcResult> {
        self.from.try_recv().ok()
    }
}

struct Thread {
    reader: SnapshotReader,
    requests: Receiver<ProcRequest>,
    results: Sender<ProcResult>,
}

/// A read of all processes that is under way.
struct Scan {
    list: ProcessList,
    left: vec::IntoIter<u32>,
}

impl Scan {
    fn begin() -> Self {
        let list = ProcessList::read();
        let pids: Vec<u32> = list.living.keys().copied().collect();
        Self {
            list,
            left: pids.into_iter(),
        }
    }
}

impl Thread {
    /// Runs until the other ends of both channels are dropped.
    fn run(self) {
        let mut scan = None;
        while let Some(request) = self.next(scan.is_some()) {
            let is_heard = match request {
                Some(ProcRequest::Process(pid)) => self.read_process(pid, None),
                Some(ProcRequest::AllProcesses) => {
                    scan = Some(Scan::begin());
                    true
                }
                Some(ProcRequest::Modules) => {
                    self.send(ProcResult::Modules(read_modules(), monotonic_ns()))
                }
                None => self.go_on(&mut scan),
            };
            if !is_heard {
                return;
            }
        }
    }

    /// The next request: `None` at the end, and nothing when none waits and there is other work.
    fn next(&self, has_work: bool) -> Option<Option<ProcRequest>> {
        match self.requests.try_recv() {
            Ok(request) => Some(Some(request)),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) if has_work => Some(None),
            Err(TryRecvError::Empty) => {
                // Another file may have the inode of one that was read by the time of the next request.
                self.reader.forget_build_ids();
                self.requests.recv().ok().map(Some)
            }
        }
    }

    /// Reads the next of all processes.
    fn go_on(&self, scan: &mut Option<Scan>) -> bool {
        let Some(running) = scan else {
            return true;
        };
        if let Some(pid) = running.left.next() {
            return self.read_process(pid, Some(&mut running.list));
        }
        let list = scan.take().map(|scan| scan.list);
        list.is_none_or(|list| self.send(ProcResult::AllProcesses(list)))
    }

    fn read_process(&self, pid: u32, list: Option<&mut ProcessList>) -> bool {
        let read = self.reader.read(pid);
        if let Some(list) = list {
            list.note(&read);
        }
        self.send(ProcResult::Process(read))
    }

    fn send(&self, result: ProcResult) -> bool {
        self.results.send(result).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn wait(reader: &ProcReader) -> ProcResult {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if let Some(result) = reader.pop() {
                return result;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("nothing was read");
    }

    /// Check that a process is read when it is asked for, and that all processes are read before their list.
    #[test]
    fn processes_are_read() {
        let reader = ProcReader::start(&BlockingPool::default()).unwrap();
        let own = std::process::id();
        reader.push(ProcRequest::Process(own));
        let ProcResult::Process(read) = wait(&reader) else {
            panic!("not a process");
        };
        assert!(read.pid == own && read.snapshot.is_ok());
        reader.push(ProcRequest::AllProcesses);
        let mut pids = Vec::new();
        let list = loop {
            match wait(&reader) {
                ProcResult::Process(read) => pids.push(read.pid),
                ProcResult::AllProcesses(list) => break list,
                ProcResult::Modules(..) => panic!("nobody asked"),
            }
        };
        assert!(pids.contains(&own) && list.living[&own].is_some());
    }
}
