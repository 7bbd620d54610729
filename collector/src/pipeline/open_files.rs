//! The thread `hold`: opens the files of sampled processes, since a file may be gone when its window is named.
//!
//! In: processes, when they are first sampled in a window or have mapped another file since. Out: a cache of descriptors. A file
//! stays in it until all windows with a sample of a process that maps it are named. Opening may take long, so no thread waits
//! for this one.
//!
//! A file is opened 3 to 100 ms after its process's first sample in a window, with its debug
//! information if that is in a file of its own: through the mapping, in the process's root, or,
//! when the process has ended by then, in the root of one of its ancestors or of another process of
//! its cgroup. A file that was found by a path must have the build id of the mapping. Descriptors
//! are `O_PATH`; beyond 320 the least recently used is closed, and all are closed when the last
//! window in which a process was sampled with the file has its names. A file that was not held is
//! looked for by its build id in any process that lives.
//!
//! A descriptor keeps the blocks of a deleted file, and its file system: unmounting the file system
//! of a program that was just sampled may fail (`EBUSY`) for a window and the time to name it, and
//! for a minute more while the child keeps the files that it reads. The root of a container is not
//! concerned: the descriptor is of the mount in its namespace, and the runtime unmounts another
//! one. (An overlay under runc was unmounted at once, and the file was still readable.)
//!
//! `file_gone` remains (counted in `held_files_missed_total`) for a program whose process ended
//! before it was looked at, if no process with the same root is left, no other process maps the
//! same build, and the node has no such file at its path; and for debug information that is put
//! into a container after its program was first sampled, and is gone with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use anyhow::Result;
use metrics::Figures;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::unread_file::describe_unread;
use crate::{
    blocking_pool::BlockingPool,
    clock::thread_cpu,
    file::{HeldFile, MappedBy, Relatives, hold},
    name::HeldJit,
    process::{FileKind, MappedFile, Mappings},
    threads::spawn,
};

/// Files that are held; beyond, the least recently used is closed. A window of a machine that compiles has 70, and a file
/// that was closed is still named as long as it can be opened then. Each takes one descriptor, and a second if it has its debug
/// information elsewhere: 640, or half of what is left (see [`files_max`]). In the kernel each is some 1.5 KB (256 bytes,
/// and the inode and the directory entry that it keeps): 1 MB.
const FILES_MAX: usize = 320;

/// Descriptors that the collector may have in all, if it is permitted: as a rule it starts with 1,024.
const DESCRIPTORS_WANTED: u64 = 4096;

/// Files of one process: most map some 10, and one that maps hundreds must not evict all others.
const PROCESS_FILES_MAX: usize = 128;

/// Processes whose perf maps and jitdumps are held; beyond the limit, those of the least recently
/// sampled process are closed. A node has few such processes; each takes two descriptors, 128 in
/// total.
const MADE_MAX: usize = 64;

/// Maximum number of processes that wait for the thread. A drain brings at most the processes
/// started in its 100 ms: 30 at 300 starts a second, so this lasts for 3 s.
const REQUESTS_MAX: usize = 1024;

/// A process whose files should be opened.
pub(super) struct OpenRequest {
    pub(super) pid: u32,
    /// The time since which the process id belongs to this process: see
    /// [`Process::since_ns`](crate::process::Process::since_ns).
    pub(super) since_ns: u64,
    pub(super) parent: u32,
    pub(super) relatives: Relatives,
    pub(super) mappings: Arc<Mappings>,
    /// When it was sampled.
    pub(super) time_ns: u64,
}

/// Counts since the start, and the files that are open now.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenFileStats {
    /// Files that are held.
    pub files: usize,
    /// Files opened to be held.
    pub opened: u64,
    /// Files that could not be opened: their processes had ended, and no other process has the same
    /// root.
    pub failed: u64,
    /// Files that were evicted to make room.
    pub evicted: u64,
    /// Processes that were skipped because the thread was behind.
    pub dropped: u64,
    /// CPU time of the thread, and of those that open files for it.
    pub cpu: Duration,
}

impl OpenFileStats {
    /// Writes the figures.
    pub(super) fn show(&self, figures: &mut Figures<'_>) {
        figures.gauge(
            "held_files",
            "Files that are held open until the window in which they were sampled has its names",
            self.files,
        );
        figures.counter(
            "held_files_opened",
            "Files that were opened to be held",
            self.opened,
        );
        figures.counters(
            "held_files_missed",
            "Files that were not held, by reason: gone before they were opened, closed for lack of room, or of a process that \
             was not looked at, since too many waited",
            ["reason"],
            [
                (["gone"], self.failed),
                (["evicted"], self.evicted),
                (["behind"], self.dropped),
            ],
        );
        figures.counter(
            "held_files_cpu_seconds",
            "CPU time of opening them",
            self.cpu.as_secs_f64(),
        );
    }
}

/// The cache. Clones share it.
#[derive(Clone, Default)]
pub(super) struct OpenFileCache {
    files: Arc<Mutex<HeldFiles>>,
}

#[derive(Default)]
struct HeldFiles {
    known: FxHashMap<Arc<MappedFile>, Known>,
    /// Perf maps and jitdumps by process (id and start), and the time of the last sample.
    made: FxHashMap<(u32, u64), (Arc<HeldJit>, u64)>,
    files_max: usize,
    stats: OpenFileStats,
}

struct Known {
    held: Arc<HeldFile>,
    /// Time of the last sample of a process that maps it.
    wanted_ns: u64,
}

impl OpenFileCache {
    /// The descriptor of a file.
    pub(super) fn find(&self, file: &Arc<MappedFile>) -> Option<Arc<HeldFile>> {
        self.files
            .lock()
            .known
            .get(file)
            .map(|known| known.held.clone())
    }

    /// The perf map and the jitdump of a process, by its id and the time since which it has this
    /// id.
    pub(super) fn find_jit(&self, process: (u32, u64)) -> Option<Arc<HeldJit>> {
        self.files
            .lock()
            .made
            .get(&process)
            .map(|(held, _)| held.clone())
    }

    /// Closes the files of which no process was sampled since the end of a window that is named
    /// now.
    pub(super) fn end_window(&self, end_ns: u64) -> OpenFileStats {
        let mut files = self.files.lock();
        let mut ended = Vec::new();
        files.known.retain(|_, known| {
            let is_wanted = known.wanted_ns >= end_ns;
            if !is_wanted {
                ended.push(known.held.clone());
            }
            is_wanted
        });
        let made: Vec<_> = files
            .made
            .extract_if(|_, (_, sampled_ns)| *sampled_ns < end_ns)
            .collect();
        files.stats.files = files.known.len();
        let stats = files.stats.clone();
        drop(files);
        // Closing the last descriptor of a deleted file frees its blocks, which takes time.
        drop((ended, made));
        stats
    }
}

impl HeldFiles {
    /// Whether the file is held; if so, updates the time of its last use.
    fn touch(&mut self, file: &Arc<MappedFile>, time_ns: u64) -> bool {
        let Some(known) = self.known.get_mut(file) else {
            return false;
        };
        known.wanted_ns = known.wanted_ns.max(time_ns);
        true
    }

    fn insert_made(&mut self, process: (u32, u64), held: HeldJit, time_ns: u64) {
        // There are no descriptors for files, so none for these.
        if self.files_max == 0 {
            return;
        }
        if self.made.len() >= MADE_MAX && !self.made.contains_key(&process) {
            let oldest = self
                .made
                .iter()
                .min_by_key(|(_, (_, sampled_ns))| *sampled_ns);
            if let Some(oldest) = oldest.map(|(process, _)| *process) {
                self.made.remove(&oldest);
                self.stats.evicted += 1;
            }
        }
        self.made.insert(process, (Arc::new(held), time_ns));
    }

    fn insert(&mut self, file: Arc<MappedFile>, known: Known) {
        if self.files_max == 0 {
            self.stats.evicted += 1;
            return;
        }
        if self.known.len() >= self.files_max {
            let used_ns = |file: &MappedFile, known: &Known| {
                let located_ns = file.used_ns.load(Ordering::Relaxed);
                located_ns.max(known.wanted_ns)
            };
            let oldest = self
                .known
                .iter()
                .min_by_key(|(file, known)| used_ns(file, known));
            if let Some(oldest) = oldest.map(|(file, _)| file.clone()) {
                self.known.remove(&oldest);
                self.stats.evicted += 1;
            }
        }
        self.known.insert(file, known);
        self.stats.opened += 1;
        self.stats.files = self.known.len();
    }
}

/// The sampler's handle of the thread.
pub(super) struct FileOpener {
    to: SyncSender<OpenRequest>,
    dropped: Arc<AtomicU64>,
}

impl FileOpener {
    /// Starts the thread, which adds open files to `held`, and leaves `descriptors_reserved` descriptors to
    /// others. It ends some time after this is dropped.
    pub(super) fn start(
        held: OpenFileCache,
        descriptors_reserved: u64,
        pool: &BlockingPool,
    ) -> Result<Self> {
        let reserved = descriptors_reserved + 2 * MADE_MAX as u64;
        held.files.lock().files_max = files_max(raise_descriptor_limit(), reserved);
        let (to, requests) = sync_channel(REQUESTS_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        let pool = pool.with_own_cpu_account();
        spawn("hold", move || run(&held, &requests, &counted, &pool))?;
        Ok(Self { to, dropped })
    }

    /// Requests opening the files of a process.
    pub(super) fn push(&self, request: OpenRequest) {
        if let Err(TrySendError::Full(_)) = self.to.try_send(request) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Raises the limit of descriptors as far as permitted. Returns the limit.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(DESCRIPTORS_WANTED);
    if current >= wanted {
        return current;
    }
    let raised = Rlimit {
        current: Some(wanted),
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(err) => {
            tracing::warn!(%err, wanted, "failed to raise the limit of open files");
            current
        }
    }
}

/// Number of files that may be held, with two descriptors each, after subtracting reserved
/// descriptors.
fn files_max(descriptors: u64, reserved: u64) -> usize {
    let left = descriptors.saturating_sub(reserved) / 2;
    FILES_MAX.min(usize::try_from(left).unwrap_or(usize::MAX))
}

fn run(
    held: &OpenFileCache,
    requests: &Receiver<OpenRequest>,
    dropped: &AtomicU64,
    pool: &BlockingPool,
) {
    while let Ok(request) = requests.recv() {
        hold_files(held, &request, pool);
        hold_made(held, &request, pool);
        let mut files = held.files.lock();
        files.stats.dropped = dropped.load(Ordering::Relaxed);
        files.stats.cpu = thread_cpu() + pool.cpu();
    }
}

/// Opens the perf map and the jitdump of a process with JIT code, even if they are open: the
/// process may have replaced them.
fn hold_made(held: &OpenFileCache, request: &OpenRequest, pool: &BlockingPool) {
    let OpenRequest {
        pid,
        since_ns,
        mappings,
        time_ns,
        ..
    } = request;
    if !mappings.have_jit_memory() {
        return;
    }
    let files = mappings
        .iter()
        .filter(|mapping| mapping.file.kind == FileKind::File);
    if let Some(opened) = HeldJit::open(*pid, files.map(|mapping| &*mapping.file.path), pool) {
        held.files
            .lock()
            .insert_made((*pid, *since_ns), opened, *time_ns);
    }
}

/// Opens the files of a process that are not held yet.
fn hold_files(held: &OpenFileCache, request: &OpenRequest, pool: &BlockingPool) {
    let OpenRequest {
        pid,
        parent,
        relatives,
        mappings,
        time_ns,
        ..
    } = request;
    let mut missing: Vec<(Arc<MappedFile>, MappedBy)> = Vec::new();
    {
        let mut files = held.files.lock();
        let mapped = mappings
            .iter()
            .filter(|mapping| mapping.file.kind == FileKind::File);
        for mapping in mapped.take(PROCESS_FILES_MAX) {
            let is_asked = missing.iter().any(|(file, _)| *file == mapping.file);
            if !is_asked && !files.touch(&mapping.file, *time_ns) {
                let mapped_by = MappedBy {
                    pid: *pid,
                    parent: *parent,
                    start: mapping.start,
                    end: mapping.end,
                };
                missing.push((mapping.file.clone(), mapped_by));
            }
        }
    }
    for (file, mapped_by) in missing {
        let described = describe_unread(&file, &[mapped_by]);
        let result = hold(described, relatives.clone(), pool);
        let mut files = held.files.lock();
        match result {
            Ok(opened) => {
                if let Some(format) = opened.format() {
                    // The naming thread may have set the same value.
                    let _ = file.format.set(format);
                }
                let known = Known {
                    held: Arc::new(opened),
                    wanted_ns: *time_ns,
                };
                files.insert(file, known);
            }
            Err(reason) => {
                tracing::trace!(pid, file = %file.path, ?reason, "failed to hold a file");
                files.stats.failed += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{FileIdentity, Files, Mapping};

    /// A process that maps these files, existing or not, sampled at a time.
    fn request(files: &mut Files, paths: &[&str], time_ns: u64) -> OpenRequest {
        let mut mappings = Mappings::default();
        for (place, path) in (1..).zip(paths) {
            let identity = match std::fs::metadata(path) {
                Ok(found) => FileIdentity::Inode {
                    device: std::os::unix::fs::MetadataExt::dev(&found),
                    inode: std::os::unix::fs::MetadataExt::ino(&found),
                    generation: 0,
                    claimed_build_id: None,
                },
                Err(_) => FileIdentity::Path,
            };
            let mapping = Mapping::new(
                place * 0x1000..place * 0x1000 + 0x1000,
                0,
                files.intern(FileKind::File, path.as_bytes(), identity),
            );
            assert!(mappings.insert(mapping, 1));
        }
        OpenRequest {
            // No such process: the files are found by their paths.
            pid: 0x7fff_0000,
            since_ns: 0,
            parent: 0,
            relatives: Relatives::default(),
            mappings: Arc::new(mappings),
            time_ns,
        }
    }

    fn hold_all(held: &OpenFileCache, request: &OpenRequest) {
        hold_files(held, request, &BlockingPool::default());
    }

    /// The names of the held files.
    fn names(held: &OpenFileCache) -> Vec<String> {
        let files = held.files.lock();
        let mut names: Vec<String> = files
            .known
            .keys()
            .map(|file| file.path.to_string())
            .collect();
        names.sort();
        names
    }

    /// Check that files are held until the end of the window in which a process was last sampled
    /// with them, and that a missing file is counted.
    #[test]
    fn until_their_window_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, name).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (a, b) = (path("a"), path("b"));
        let held = OpenFileCache::default();
        held.files.lock().files_max = 2;
        let mut files = Files::new();
        hold_all(&held, &request(&mut files, &[&a, &b, "/nowhere"], 5));
        hold_all(&held, &request(&mut files, &[&b], 12));
        assert_eq!(names(&held), [&*a, &b]);
        let stats = held.end_window(10);
        assert_eq!(names(&held), [&*b]);
        assert_eq!((stats.files, stats.opened, stats.failed), (1, 2, 1));
        // An earlier time does not shorten the hold.
        hold_all(&held, &request(&mut files, &[&b], 11));
        assert_eq!(held.end_window(12).files, 1);
        assert_eq!(held.end_window(13).files, 0);
    }

    /// Check that the least recently used file is evicted and counted, and that no file is held
    /// without room for any.
    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| {
            let path = directory.path().join(name);
            std::fs::write(&path, name).unwrap();
            path.to_str().unwrap().to_owned()
        });
        let held = OpenFileCache::default();
        held.files.lock().files_max = 2;
        let mut files = Files::new();
        let mut hold_one = |place: usize, time_ns| {
            hold_all(&held, &request(&mut files, &[&paths[place]], time_ns));
        };
        hold_one(0, 1);
        hold_one(1, 2);
        hold_one(0, 3);
        hold_one(2, 4);
        assert_eq!(names(&held), [&*paths[0], &paths[2]]);
        held.files.lock().files_max = 0;
        hold_one(1, 5);
        assert_eq!(held.end_window(0).evicted, 2);
        assert_eq!(names(&held).len(), 2);
        assert_eq!(files_max(1024, 700), 162);
        assert_eq!(files_max(1024, 2000), 0);
        assert_eq!(files_max(u64::MAX, 700), FILES_MAX);
    }
}
