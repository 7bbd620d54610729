//! Samples -> processes, containers, files.
//!
//! In: events of the side band and samples, in one order. Out: a sample's process, its series, its
//! stack as (file, offset), and the files to open for it. Works without the kernel's program.

use rustc_hash::FxHashMap;

use super::{
    open_files::OpenRequest,
    proc_reader::{ProcRequest, ProcResult},
};
use crate::{
    aggregate::{SeriesKey, Window},
    cgroup::{CgroupIdentity, CgroupLookup, CgroupStats, Cgroups},
    clock::monotonic_ns,
    file::{MappedBy, Relatives},
    locate::{Addresses, Located, StandIns, locate_stack},
    process::{
        Change, Found, KernelCode, KernelFrame, Process, ProcessTable, SideBandEvent, TableStats,
        Timed,
    },
    sample::Sample,
};

/// Delay until a process's perf maps and jitdumps are opened again. It doubles each time: six times
/// in a window, about 50 us each.
const REOPEN_NS: u64 = 250_000_000;

/// Number of living processes to add to a file whose own processes have all ended: one is enough,
/// unless it ends too.
const LIVING_PROCESSES_MAX: usize = 2;

/// The last request for the files of a process.
struct LastRequest {
    /// Version of the process's mapped files at that time, see [`Process::files_version`].
    version: u64,
    /// Time at which to open the same files again.
    again_ns: u64,
    /// The time from this request to `again_ns`.
    wait_ns: u64,
}

/// The process of a sample.
#[derive(Debug)]
pub(super) enum Owner {
    /// The process is known; `None` for the idle task, and for a process that is gone.
    Known(Option<Process>),
    /// The process is known, and its cgroup is being read.
    CgroupPending(Option<Process>),
    /// The process is being read.
    Pending,
}

/// Attributes samples to processes, cgroups and files.
pub(super) struct Attribution {
    table: ProcessTable,
    cgroups: Cgroups,
    stand_ins: StandIns,
    kernel_code: KernelCode,
    /// Processes whose files were requested in this window.
    requested: FxHashMap<u32, LastRequest>,
}

impl Attribution {
    /// Starts with the processes in the table, and with the kernel's loaded code.
    pub(super) fn new(mut table: ProcessTable, cgroups: Cgroups, kernel_code: KernelCode) -> Self {
        Self {
            stand_ins: StandIns::new(&mut table),
            table,
            cgroups,
            kernel_code,
            requested: FxHashMap::default(),
        }
    }

    /// Applies an event that precedes all later samples.
    pub(super) fn apply(&mut self, event: Timed) {
        let Timed { time_ns, event } = event;
        match event {
            SideBandEvent::KernelLoad { addresses, name } => {
                self.kernel_code.load(addresses, &name, time_ns);
            }
            SideBandEvent::KernelUnload { addresses, name } => {
                self.kernel_code.unload(addresses, &name, time_ns);
            }
            event => self.table.apply(event, time_ns),
        }
    }

    /// Notes that events were lost at or before this time.
    pub(super) fn distrust(&mut self, time_ns: u64) {
        self.table.distrust(time_ns);
        self.kernel_code.lose(time_ns);
    }

    /// Reads that are due.
    pub(super) fn take_requests(&mut self, now_ns: u64) -> Vec<ProcRequest> {
        let pids = self.table.take_requests();
        let mut requests: Vec<ProcRequest> = pids.into_iter().map(ProcRequest::Process).collect();
        if self.table.begin_scan(now_ns) {
            requests.push(ProcRequest::AllProcesses);
        }
        self.cgroups.request_lookups();
        requests
    }

    /// Applies the result of a read.
    pub(super) fn apply_result(&mut self, result: ProcResult, now_ns: u64) {
        match result {
            ProcResult::Process(read) => self.table.apply_read(read, now_ns),
            ProcResult::AllProcesses(list) => self.table.apply_list(&list),
            ProcResult::Modules(modules, time_ns) => {
                self.kernel_code.set_modules(modules, time_ns);
            }
        }
    }

    /// Finds the process and the cgroup of a sample.
    pub(super) fn find(&mut self, sample: &Sample) -> Owner {
        let process = match sample.pid {
            // The idle task is no process; /proc does not have it.
            0 => None,
            pid => match self.table.find(pid, sample.time_ns) {
                Found::Known(process) => Some(process.clone()),
                Found::Pending => return Owner::Pending,
                Found::Unknown => None,
            },
        };
        match self.find_cgroup(sample) {
            CgroupLookup::Known(_) => Owner::Known(process),
            CgroupLookup::Pending => Owner::CgroupPending(process),
        }
    }

    /// Whether the cgroup of a sample is still to be read.
    pub(super) fn is_cgroup_pending(&self, sample: &Sample) -> bool {
        self.find_cgroup(sample) == CgroupLookup::Pending
    }

    fn find_cgroup(&self, sample: &Sample) -> CgroupLookup {
        // Not the time of the sample: after a stall of the collector, samples are old.
        let now_ns = monotonic_ns();
        self.cgroups.find(sample.cgroup_id, sample.tid, now_ns)
    }

    /// Returns the request to open the files of a sampled process: once in a window, and again
    /// after it has mapped another file. Perf maps and jitdumps may be written at any time, and
    /// their process may end soon after: they are requested more often.
    pub(super) fn request_files(
        &mut self,
        sample: &Sample,
        process: &Process,
    ) -> Option<OpenRequest> {
        if process.mappings.is_empty() || !self.is_request_due(sample, process) {
            return None;
        }
        Some(OpenRequest {
            pid: sample.pid,
            since_ns: process.since_ns,
            parent: process.parent,
            relatives: Relatives {
                ancestors: self.table.ancestors(process),
                cgroup: self.cgroups.container_directory(sample.cgroup_id),
            },
            mappings: process.mappings.clone(),
            time_ns: sample.time_ns,
        })
    }

    fn is_request_due(&mut self, sample: &Sample, process: &Process) -> bool {
        let version = process.files_version;
        let last = self.requested.get(&sample.pid);
        let last = last.filter(|last| last.version == version);
        if last.is_some_and(|last| sample.time_ns < last.again_ns) {
            return false;
        }
        let wait_ns = last.map_or(REOPEN_NS, |last| 2 * last.wait_ns);
        let again_ns = if process.mappings.have_jit_memory() {
            sample.time_ns.saturating_add(wait_ns)
        } else {
            u64::MAX
        };
        let request = LastRequest {
            version,
            again_ns,
            wait_ns,
        };
        self.requested.insert(sample.pid, request);
        true
    }

    /// Locates the kernel's frames of a stack, innermost first.
    pub(super) fn locate_kernel(
        &self,
        addresses: &Addresses<'_>,
        sample: &Sample,
    ) -> Vec<KernelFrame> {
        let instructions = addresses.kernel_instructions();
        self.kernel_code.locate(instructions, sample.time_ns)
    }

    /// Locates a stack, with kernel frames from [`locate_kernel`](Self::locate_kernel).
    pub(super) fn locate<'a>(
        &'a self,
        addresses: &Addresses<'_>,
        sample: &Sample,
        process: Option<&'a Process>,
        kernel_frames: &'a [KernelFrame],
    ) -> Located<'a> {
        locate_stack(
            addresses,
            sample.time_ns,
            process,
            kernel_frames,
            &self.stand_ins,
        )
    }

    /// The series of a sample.
    pub(super) fn series(&mut self, sample: &Sample, process: Option<&Process>) -> SeriesKey {
        let cgroup = match self.find_cgroup(sample) {
            CgroupLookup::Known(identity) => identity,
            CgroupLookup::Pending => CgroupIdentity::default(),
        };
        SeriesKey {
            comm: process.map_or_else(|| sample.thread_name(), |process| process.comm.clone()),
            exe: process.and_then(|process| process.exe.clone()),
            pod_uid: cgroup.pod_uid,
            container_id: cgroup.container_id,
            unit: cgroup.unit,
        }
    }

    /// Makes [`take_changes`](Self::take_changes) report this process from now on.
    pub(super) fn follow(&mut self, pid: u32) {
        self.table.follow(pid);
    }

    /// Changes of the followed processes.
    pub(super) fn take_changes(&mut self) -> Vec<(u32, Change)> {
        self.table.take_changes()
    }

    /// Adds living processes to those files of a window whose own processes have all ended.
    pub(super) fn add_living_processes(&self, window: &mut Window) {
        let orphans = window.orphans(|pid| self.table.is_living(pid));
        for living in self.table.find_living(&orphans, LIVING_PROCESSES_MAX) {
            let mapped_by = MappedBy {
                pid: living.pid,
                parent: living.parent,
                start: living.start,
                end: living.end,
            };
            window.add_process(&living.file, mapped_by);
        }
    }

    /// Drops the state of the window that has ended.
    pub(super) fn end_window(&mut self, now_ns: u64) {
        self.requested.clear();
        self.table.maintain(now_ns);
    }

    /// Kernel symbols from records, and how many were forgotten.
    pub(super) fn kernel_symbols(&self) -> (usize, u64) {
        self.kernel_code.counts()
    }

    /// The counters of the tables.
    pub(super) fn stats(&self) -> (TableStats, CgroupStats) {
        (self.table.stats(), self.cgroups.stats())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cgroup::Watcher,
        file::FileFormat,
        process::{FileIdentity, ProcessRead, SnapshotError},
        sample::{Batch, CgroupHierarchy, testing::sample_record},
    };

    /// A process id that no machine has, so that /proc never knows it.
    const PID: u32 = 0x7fff_0000;

    fn attribution() -> Attribution {
        let cgroups = Cgroups::new(&CgroupHierarchy::None).unwrap();
        Attribution::new(ProcessTable::new(), cgroups, KernelCode::new(0xff00))
    }

    fn exec(comm: &str) -> SideBandEvent {
        SideBandEvent::Exec {
            pid: PID,
            comm: comm.into(),
        }
    }

    fn map(start: u64, path: &str) -> SideBandEvent {
        SideBandEvent::Map {
            pid: PID,
            start,
            end: start + 0x1000,
            file_offset: 0x200,
            path: path.into(),
            identity: FileIdentity::Path,
        }
    }

    fn apply(attribution: &mut Attribution, time_ns: u64, event: SideBandEvent) {
        attribution.apply(Timed { time_ns, event });
    }

    fn batch(pid: u32, time_ns: u64) -> Batch {
        let mut batch = Batch::default();
        let record = sample_record(pid, time_ns, &[0x1010, 0x5021], &[0xff08]);
        batch.push_record(&record).unwrap();
        batch
    }

    /// Shows the attribution of a sample: "comm exe: file+offset …", outermost first.
    fn show(attribution: &mut Attribution, batch: &Batch) -> String {
        let sample = &batch.samples()[0];
        let Owner::Known(process) = attribution.find(sample) else {
            return "pending".into();
        };
        let series = attribution.series(sample, process.as_ref());
        let addresses = Addresses::of_sample(batch, sample);
        let kernel = attribution.locate_kernel(&addresses, sample);
        let located = attribution.locate(&addresses, sample, process.as_ref(), &kernel);
        let frames: String = located
            .frames
            .iter()
            .map(|frame| format!(" {}+{:x}", frame.file.path, frame.offset))
            .collect();
        format!(
            "{} {}:{frames}",
            series.comm,
            series.exe.as_deref().unwrap_or("-")
        )
    }

    /// Check that a sample has the program and the files that its process had at its time.
    #[test]
    fn samples_belong_to_the_program_of_their_time() {
        let mut attribution = attribution();
        apply(&mut attribution, 1, exec("sh"));
        apply(&mut attribution, 2, map(0x1000, "/bin/sh"));
        apply(&mut attribution, 3, map(0x5000, "/lib/c"));
        let first = show(&mut attribution, &batch(PID, 4));
        assert_eq!(
            first, "sh /bin/sh: /lib/c+220 /bin/sh+20f [kernel]+8",
            "outermost first"
        );
        apply(&mut attribution, 5, exec("ls"));
        apply(&mut attribution, 6, map(0x1000, "/bin/ls"));
        let second = show(&mut attribution, &batch(PID, 7));
        assert_eq!(second, "ls /bin/ls: /bin/ls+20f [kernel]+8");
    }

    /// Check that a sample of the idle task, or of a process missing in `/proc`, has its thread's
    /// name and its kernel frames, and that a sample of an unknown process waits for the read.
    #[test]
    fn unknown_processes() {
        let mut attribution = attribution();
        let unknown = "abc -: [process unknown]+0 [kernel]+8";
        assert_eq!(show(&mut attribution, &batch(0, 4)), unknown);
        assert_eq!(show(&mut attribution, &batch(PID, 4)), "pending");
        let expected = [ProcRequest::Process(PID), ProcRequest::AllProcesses];
        assert_eq!(attribution.take_requests(5), expected);
        let read = ProcessRead {
            pid: PID,
            begun_ns: 6,
            snapshot: Err(SnapshotError::Gone),
        };
        attribution.apply_result(ProcResult::Process(read), 7);
        assert_eq!(show(&mut attribution, &batch(PID, 4)), unknown);
        assert_eq!(attribution.stats().0.unknown, 1);
    }

    /// Check that a sample of an unknown cgroup waits for the look-up, with its process.
    #[test]
    fn samples_wait_for_their_cgroup() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = CgroupHierarchy::V2 {
            mount: root.path().to_owned(),
        };
        let cgroups = Cgroups::new(&hierarchy).unwrap();
        let watcher = Watcher::new(cgroups.clone(), Vec::new()).unwrap();
        let mut attribution = Attribution {
            cgroups,
            ..attribution()
        };
        apply(&mut attribution, 1, exec("sh"));
        let batch = batch(PID, 4);
        let sample = &batch.samples()[0];
        let owner = attribution.find(sample);
        assert!(matches!(owner, Owner::CgroupPending(Some(_))));
        assert!(attribution.is_cgroup_pending(sample));
        let thread = std::thread::spawn(move || watcher.run());
        attribution.take_requests(5);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while attribution.is_cgroup_pending(sample) {
            assert!(std::time::Instant::now() < until);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(matches!(attribution.find(sample), Owner::Known(Some(_))));
        drop(attribution);
        thread.join().unwrap();
    }

    /// Check that a kernel frame belongs to the code loaded there at the time of its sample.
    #[test]
    fn kernel_code_is_of_its_time() {
        let mut attribution = attribution();
        let kernel_of = |attribution: &mut Attribution, time_ns| {
            let shown = show(attribution, &batch(0, time_ns));
            shown.split(' ').skip(4).collect::<Vec<_>>().join(" ")
        };
        let loaded = |name: &str| (0xff00..0xff10, name.to_owned());
        for (time_ns, name) in [(10, "a"), (20, "b")] {
            let (addresses, name) = loaded(name);
            apply(
                &mut attribution,
                time_ns,
                SideBandEvent::KernelLoad { addresses, name },
            );
        }
        assert_eq!(kernel_of(&mut attribution, 15), "a+8");
        assert_eq!(kernel_of(&mut attribution, 20), "b+8");
        let (addresses, name) = loaded("b");
        apply(
            &mut attribution,
            30,
            SideBandEvent::KernelUnload { addresses, name },
        );
        let later = kernel_of(&mut attribution, 30_000_000_000);
        assert_eq!(later, "[kernel] unloaded+8");
        attribution.distrust(40_000_000_000);
        assert_eq!(kernel_of(&mut attribution, 50_000_000_000), "[kernel]+8");
    }

    /// Check that a process's files are requested once in a window and again after each change, and
    /// those of a process with JIT code repeatedly, with increasing delays.
    #[test]
    fn files_are_requested_once_in_a_window() {
        let mut attribution = attribution();
        let request = |attribution: &mut Attribution, time_ns| {
            let batch = batch(PID, time_ns);
            let Owner::Known(Some(process)) = attribution.find(&batch.samples()[0]) else {
                panic!("unknown");
            };
            // The `hold` thread has inspected the files.
            for mapping in process.mappings.iter() {
                let _ = mapping.file.format.set(FileFormat::Elf);
            }
            let request = attribution.request_files(&batch.samples()[0], &process);
            request.map(|request| request.mappings.len())
        };
        apply(&mut attribution, 1, exec("sh"));
        assert_eq!(request(&mut attribution, 2), None, "it maps nothing");
        apply(&mut attribution, 3, map(0x1000, "/bin/sh"));
        assert_eq!(request(&mut attribution, 4), Some(1));
        assert_eq!(request(&mut attribution, 10 * REOPEN_NS), None);
        apply(&mut attribution, 5, map(0x5000, "/lib/c"));
        assert_eq!(request(&mut attribution, 6), Some(2));
        attribution.end_window(7);
        assert_eq!(request(&mut attribution, 8), Some(2));
        apply(&mut attribution, 9, map(0x9000, "//anon"));
        let times = (0..64).map(|tick| 10 + tick * REOPEN_NS / 4);
        let requests = times.filter(|time_ns| request(&mut attribution, *time_ns).is_some());
        let ticks: Vec<u64> = requests
            .map(|time_ns| (time_ns - 10) / (REOPEN_NS / 4))
            .collect();
        assert_eq!(ticks, [0, 4, 12, 28, 60]);
    }
}
