//! The thread `hold`: opens the files of processes when these are sampled, since they may be gone when their window is named.
//!
//! In: processes, when they are first sampled in a window or have mapped another file since. Out: descriptors of their
//! files, until the last window in which somebody was sampled who maps them has its names. Opening may take long; so nobody
//! waits for this thread.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use anyhow::Result;
use rustc_hash::FxHashMap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{finisher::describe_unread, spawn};
use crate::{
    clock::thread_cpu,
    name::{HeldFile, HeldJit, MappedBy, Relatives, hold},
    patience::Patience,
    process::{FileKind, MappedFile, Mappings},
};

/// Files that are held; beyond, the one used longest ago goes. A window of a machine that compiles has 70, and what is let
/// go is still named as long as it can be opened then. Each takes one descriptor, and a second if it has its debug
/// information elsewhere: 640, or half of what is left (see [`files_max`]). In the kernel each is some 1.5 KB (256 bytes,
/// and the inode and the directory entry that it keeps): 1 MB.
const FILES_MAX: usize = 320;

/// Descriptors that the collector may have in all, if it is permitted: as a rule it starts with 1,024.
const DESCRIPTORS_WANTED: u64 = 4096;

/// Files of one process: most map some 10, and one that maps hundreds must not push out all others.
const PROCESS_FILES_MAX: usize = 128;

/// Processes whose maps and jitdumps of code made at run time are held; beyond, the one sampled longest ago goes. A node has a
/// few such processes; of each two descriptors, 128.
const MADE_MAX: usize = 64;

/// Processes that may wait for the thread. A drain brings at most what started in its 100 ms, 30 at 300 starts a second;
/// so this is patience of 3 s.
const REQUESTS_MAX: usize = 1024;

/// A process whose files are wanted.
pub(super) struct HoldRequest {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) relatives: Relatives,
    pub(super) mappings: Arc<Mappings>,
    /// When it was sampled.
    pub(super) time_ns: u64,
}

/// What the thread did.
#[derive(Clone, Debug, Default)]
pub struct HoldStats {
    /// Files that are held.
    pub files: usize,
    /// Files that were opened to be held.
    pub opened: u64,
    /// Files that could not be opened: their processes had ended, and nobody has the same root.
    pub failed: u64,
    /// Files that were let go for want of room.
    pub evicted: u64,
    /// Processes that were not looked at, since the thread was behind.
    pub dropped: u64,
    /// CPU time of the thread, and of those that open files for it.
    pub cpu: Duration,
}

/// The files that are held. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Held {
    files: Arc<Mutex<HeldFiles>>,
}

#[derive(Default)]
struct HeldFiles {
    known: FxHashMap<Arc<MappedFile>, Known>,
    /// What processes say of the code that they made, and when these were sampled.
    made: FxHashMap<u32, (Arc<HeldJit>, u64)>,
    files_max: usize,
    stats: HoldStats,
}

struct Known {
    held: Arc<HeldFile>,
    /// When a process that maps it was sampled.
    wanted_ns: u64,
}

impl Held {
    /// The descriptor of a file.
    pub(super) fn find(&self, file: &Arc<MappedFile>) -> Option<Arc<HeldFile>> {
        self.lock().known.get(file).map(|it| it.held.clone())
    }

    /// What a process said of the code that it made.
    pub(super) fn find_jit(&self, pid: u32) -> Option<Arc<HeldJit>> {
        self.lock().made.get(&pid).map(|it| it.0.clone())
    }

    /// Lets go what nobody was sampled with since a window ended that has its names now.
    pub(super) fn end_window(&self, end_ns: u64) -> HoldStats {
        let mut files = self.lock();
        let mut ended = Vec::new();
        files.known.retain(|_, it| {
            let is_wanted = it.wanted_ns >= end_ns;
            if !is_wanted {
                ended.push(it.held.clone());
            }
            is_wanted
        });
        let made: Vec<_> = files.made.extract_if(|_, it| it.1 < end_ns).collect();
        files.stats.files = files.known.len();
        let stats = files.stats.clone();
        drop(files);
        // Closing the last descriptor of a deleted file frees its blocks, which takes time.
        drop((ended, made));
        stats
    }

    fn lock(&self) -> MutexGuard<'_, HeldFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldFiles {
    /// Whether the file is held; it is wanted still.
    fn touch(&mut self, file: &Arc<MappedFile>, time_ns: u64) -> bool {
        let Some(known) = self.known.get_mut(file) else {
            return false;
        };
        known.wanted_ns = known.wanted_ns.max(time_ns);
        true
    }

    fn insert_made(&mut self, pid: u32, held: HeldJit, time_ns: u64) {
        // No descriptors are left for files, nor for these.
        if self.files_max == 0 {
            return;
        }
        if self.made.len() >= MADE_MAX && !self.made.contains_key(&pid) {
            let oldest = self.made.iter().min_by_key(|it| it.1.1);
            if let Some(oldest) = oldest.map(|it| *it.0) {
                self.made.remove(&oldest);
                self.stats.evicted += 1;
            }
        }
        self.made.insert(pid, (Arc::new(held), time_ns));
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
            let oldest = self.known.iter().min_by_key(|it| used_ns(it.0, it.1));
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

/// The sampler's end of the thread.
pub(super) struct Holder {
    to: SyncSender<HoldRequest>,
    dropped: Arc<AtomicU64>,
}

impl Holder {
    /// Starts the thread, which keeps what it opens in `held`, and leaves so many descriptors to others. It ends by itself
    /// some time after this was dropped.
    pub(super) fn start(
        held: Held,
        descriptors_reserved: u64,
        patience: &Patience,
    ) -> Result<Self> {
        let reserved = descriptors_reserved + 2 * MADE_MAX as u64;
        held.lock().files_max = files_max(raise_descriptor_limit(), reserved);
        let (to, requests) = sync_channel(REQUESTS_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        let patience = patience.on_own_account();
        spawn("hold", move || run(&held, &requests, &counted, &patience))?;
        Ok(Self { to, dropped })
    }

    /// Asks for the files of a process.
    pub(super) fn push(&self, request: HoldRequest) {
        if let Err(TrySendError::Full(_)) = self.to.try_send(request) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Raises the limit of descriptors if it can be; gives what it is then.
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

/// Files that may be held, with two descriptors each, when others need some of them.
fn files_max(descriptors: u64, reserved: u64) -> usize {
    let left = descriptors.saturating_sub(reserved) / 2;
    FILES_MAX.min(usize::try_from(left).unwrap_or(usize::MAX))
}

fn run(held: &Held, requests: &Receiver<HoldRequest>, dropped: &AtomicU64, patience: &Patience) {
    while let Ok(request) = requests.recv() {
        hold_files(held, &request, patience);
        hold_made(held, &request, patience);
        let mut files = held.lock();
        files.stats.dropped = dropped.load(Ordering::Relaxed);
        files.stats.cpu = thread_cpu() + patience.cpu();
    }
}

/// Opens what a process that makes code says of it, also when it was opened before: it may have been written anew since.
fn hold_made(held: &Held, request: &HoldRequest, patience: &Patience) {
    let HoldRequest {
        pid,
        mappings,
        time_ns,
        ..
    } = request;
    if !mappings.have_made() {
        return;
    }
    let files = mappings.iter().filter(|it| it.file.kind == FileKind::File);
    if let Some(opened) = HeldJit::open(*pid, files.map(|it| &*it.file.path), patience) {
        held.lock().insert_made(*pid, opened, *time_ns);
    }
}

/// Opens the files of a process that are not held yet.
fn hold_files(held: &Held, request: &HoldRequest, patience: &Patience) {
    let HoldRequest {
        pid,
        parent,
        relatives,
        mappings,
        time_ns,
    } = request;
    let mut missing: Vec<(Arc<MappedFile>, MappedBy)> = Vec::new();
    {
        let mut files = held.lock();
        let mapped = mappings.iter().filter(|it| it.file.kind == FileKind::File);
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
        let result = hold(described, relatives.clone(), patience);
        let mut files = held.lock();
        match result {
            Ok(opened) => files.insert(
                file,
                Known {
                    held: Arc::new(opened),
                    wanted_ns: *time_ns,
                },
            ),
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

    /// A process that maps these files, which are there or not, sampled at a time.
    fn request(files: &mut Files, paths: &[&str], time_ns: u64) -> HoldRequest {
        let mut mappings = Mappings::default();
        for (place, path) in (1..).zip(paths) {
            let identity = match std::fs::metadata(path) {
                Ok(found) => FileIdentity::Inode {
                    device: std::os::unix::fs::MetadataExt::dev(&found),
                    inode: std::os::unix::fs::MetadataExt::ino(&found),
                    generation: 0,
                },
                Err(_) => FileIdentity::Path,
            };
            let mapping = Mapping {
                start: place * 0x1000,
                end: place * 0x1000 + 0x1000,
                file_offset: 0,
                file: files.intern(FileKind::File, path.as_bytes(), identity),
                replaced_ns: 0,
            };
            assert!(mappings.insert(mapping, 1));
        }
        HoldRequest {
            // No process: the files are found by their paths.
            pid: 0x7fff_0000,
            parent: 0,
            relatives: Relatives::default(),
            mappings: Arc::new(mappings),
            time_ns,
        }
    }

    fn hold_all(held: &Held, request: &HoldRequest) {
        hold_files(held, request, &Patience::default());
    }

    /// The names of the files that are held.
    fn names(held: &Held) -> Vec<String> {
        let files = held.lock();
        let mut names: Vec<String> = files.known.keys().map(|it| it.path.to_string()).collect();
        names.sort();
        names
    }

    /// Check that files are held until the window has ended in which somebody was sampled with them last, and that a missing
    /// one is counted.
    #[test]
    fn until_their_window_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, name).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (a, b) = (path("a"), path("b"));
        let held = Held::default();
        held.lock().files_max = 2;
        let mut files = Files::new();
        hold_all(&held, &request(&mut files, &[&a, &b, "/nowhere"], 5));
        hold_all(&held, &request(&mut files, &[&b], 12));
        assert_eq!(names(&held), [&*a, &b]);
        let stats = held.end_window(10);
        assert_eq!(names(&held), [&*b]);
        assert_eq!((stats.files, stats.opened, stats.failed), (1, 2, 1));
        // An earlier time does not shorten it.
        hold_all(&held, &request(&mut files, &[&b], 11));
        assert_eq!(held.end_window(12).files, 1);
        assert_eq!(held.end_window(13).files, 0);
    }

    /// Check that the file goes first that was used longest ago, that it is counted, and that none is held where there is no
    /// room for any.
    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| {
            let path = directory.path().join(name);
            std::fs::write(&path, name).unwrap();
            path.to_str().unwrap().to_owned()
        });
        let held = Held::default();
        held.lock().files_max = 2;
        let mut files = Files::new();
        let mut hold_one = |place: usize, time_ns| {
            hold_all(&held, &request(&mut files, &[&paths[place]], time_ns));
        };
        hold_one(0, 1);
        hold_one(1, 2);
        hold_one(0, 3);
        hold_one(2, 4);
        assert_eq!(names(&held), [&*paths[0], &paths[2]]);
        held.lock().files_max = 0;
        hold_one(1, 5);
        assert_eq!(held.end_window(0).evicted, 2);
        assert_eq!(names(&held).len(), 2);
        assert_eq!(files_max(1024, 700), 162);
        assert_eq!(files_max(1024, 2000), 0);
        assert_eq!(files_max(u64::MAX, 700), FILES_MAX);
    }
}
