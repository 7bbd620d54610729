//! The directories of the hierarchy, and the inotify watches that keep them current.
//!
//! In: the mount point, and events of the kernel. Out: [`CgroupChange`]s.
//!
//! A directory is watched first and then listed, so that none of its children is missed: one that is made in between is both
//! announced and listed. The reverse holds for removal: a directory that is gone when it is read is left out, and a late event of an
//! earlier directory of the same name is recognized by the inode number.
//!
//! kernfs, unlike other file systems, keeps a watch when the directory is removed (`IN_DELETE_SELF` comes only when the link count
//! is 0, which kernfs does not set), so that the watch is removed here, with the inode that it pins.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io, mem,
    ops::Bound,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustc_hash::FxHashMap;
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

use super::{Cgroup, CgroupChange, table::CGROUPS_MAX};

/// The watched events: a cgroup is made, removed or renamed. Control files, which the kernel makes itself, cause none.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// Bytes of events that are read at once: some 400 events with names of container ids.
const EVENT_BYTES: usize = 32 << 10;

/// Events that are applied before look-ups and scans have their turn: the length of the kernel's queue
/// (`fs.inotify.max_queued_events`).
const EVENTS_AT_ONCE_MAX: usize = 16_384;

/// A directory of the hierarchy.
struct Directory {
    cgroup: Arc<Cgroup>,
    watch: Option<i32>,
    /// The scan that found it last.
    scan: u64,
}

/// Counts of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TreeCounts {
    /// Directories that were removed before they could be read.
    pub(super) vanished: u64,
    /// Directories left out because there were too many.
    pub(super) limited: u64,
}

/// The result of reading events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventsRead {
    /// All events were applied.
    Applied,
    /// Events were lost: a scan is needed.
    Lost,
}

/// All directories below the mount point.
pub(super) struct Tree {
    mount: Arc<Path>,
    inotify: Option<OwnedFd>,
    /// Watches that this tree may use.
    watches_max: usize,
    /// By path below the mount point. The descendants of a path follow it directly.
    directories: BTreeMap<Arc<Path>, Directory>,
    watches: FxHashMap<i32, Arc<Path>>,
    scan: u64,
    counts: TreeCounts,
    /// Why watches are lacking, until it is reported.
    failure: Option<Errno>,
    changes: Vec<CgroupChange>,
}

impl Tree {
    /// A tree that is not read yet.
    pub(super) fn new(mount: Arc<Path>, watches_max: usize) -> Self {
        Self {
            mount,
            inotify: None,
            watches_max,
            directories: BTreeMap::new(),
            watches: FxHashMap::default(),
            scan: 0,
            counts: TreeCounts::default(),
            failure: None,
            changes: Vec::new(),
        }
    }

    /// The descriptor that is readable when events wait; `None` when the kernel gave none.
    pub(super) fn inotify(&self) -> Option<&OwnedFd> {
        self.inotify.as_ref()
    }

    /// Directories without a watch.
    pub(super) fn unwatched(&self) -> usize {
        self.directories.len() - self.watches.len()
    }

    /// The changes since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<CgroupChange> {
        mem::take(&mut self.changes)
    }

    /// The counts since the last call.
    pub(super) fn take_counts(&mut self) -> TreeCounts {
        mem::take(&mut self.counts)
    }

    /// The error for which a directory could not be watched, since the last call.
    pub(super) fn take_failure(&mut self) -> Option<Errno> {
        self.failure.take()
    }

    /// Reads all directories, and forgets those that are gone.
    pub(super) fn scan(&mut self) {
        if self.inotify.is_none() {
            match inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) {
                Ok(inotify) => self.inotify = Some(inotify),
                Err(errno) => self.failure = Some(errno),
            }
        }
        self.scan += 1;
        if !self.visit(PathBuf::new()) {
            // A directory that cannot be listed, for lack of descriptors say, hides its children.
            return;
        }
        let scan = self.scan;
        let gone = self
            .directories
            .iter()
            .filter(|(_, directory)| directory.scan != scan);
        let gone: Vec<Arc<Path>> = gone.map(|(path, _)| path.clone()).collect();
        for path in gone.iter().rev() {
            self.forget(path);
        }
    }

    /// Reads the directories from this one down. Returns whether all could be listed.
    fn visit(&mut self, path: PathBuf) -> bool {
        let mut is_complete = true;
        let mut pending = vec![path];
        while let Some(path) = pending.pop() {
            let Some(links) = self.read_directory(&path) else {
                continue;
            };
            // A directory has two links, and one for each directory in it.
            if links == 2 {
                continue;
            }
            match list_directories(&self.mount.join(&path)) {
                Ok(names) => pending.extend(names.iter().map(|name| path.join(name))),
                Err(err) => is_complete &= err.kind() == io::ErrorKind::NotFound,
            }
        }
        is_complete
    }

    /// Watches a directory, and notes it. Returns its number of links, if it is there and there is room.
    fn read_directory(&mut self, path: &Path) -> Option<u64> {
        let known = self.directories.get(path);
        if known.is_none() && self.directories.len() >= CGROUPS_MAX {
            self.counts.limited += 1;
            return None;
        }
        let known_watch = known.and_then(|known| known.watch);
        let watch = self.watch(path, known_watch);
        let metadata = fs::symlink_metadata(self.mount.join(path));
        let metadata = metadata.ok().filter(fs::Metadata::is_dir);
        let Some(metadata) = metadata else {
            self.counts.vanished += 1;
            if watch != known_watch {
                self.unwatch(watch);
            }
            return None;
        };
        let known = self.directories.get_mut(path);
        if let Some(known) = known.filter(|known| known.cgroup.id == metadata.ino()) {
            known.scan = self.scan;
            let before = mem::replace(&mut known.watch, watch);
            let path = known.cgroup.path.clone();
            self.note_watch(watch, path);
            if before != watch {
                self.unwatch(before);
            }
        } else {
            // Another directory had this name.
            self.remove(path);
            let cgroup = Arc::new(Cgroup::new(metadata.ino(), path));
            self.note_watch(watch, cgroup.path.clone());
            self.changes.push(CgroupChange::Appeared(cgroup.clone()));
            let directory = Directory {
                cgroup: cgroup.clone(),
                watch,
                scan: self.scan,
            };
            self.directories.insert(cgroup.path.clone(), directory);
        }
        Some(metadata.nlink())
    }

    /// Watches a directory, again if it is watched.
    fn watch(&mut self, path: &Path, known: Option<i32>) -> Option<i32> {
        let inotify = self.inotify.as_ref()?;
        if known.is_none() && self.watches.len() >= self.watches_max {
            self.failure = Some(Errno::NOSPC);
            return None;
        }
        match inotify::add_watch(inotify, self.mount.join(path), EVENTS) {
            Ok(watch) => Some(watch),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(errno) => {
                self.failure = Some(errno);
                None
            }
        }
    }

    fn note_watch(&mut self, watch: Option<i32>, path: Arc<Path>) {
        if let Some(watch) = watch {
            self.watches.insert(watch, path);
        }
    }

    fn unwatch(&mut self, watch: Option<i32>) {
        if let (Some(watch), Some(inotify)) = (watch, &self.inotify) {
            self.watches.remove(&watch);
            // The kernel has removed it if it saw the directory's end.
            let _ = inotify::remove_watch(inotify, watch);
        }
    }

    /// Applies the events that wait, at most as many as one queue of the kernel holds.
    pub(super) fn apply_events(&mut self) -> EventsRead {
        let mut read = EventsRead::Applied;
        for event in self.read_events() {
            let Event { watch, kind, name } = event;
            if kind.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT) {
                read = EventsRead::Lost;
            }
            let parent = self
                .watches
                .get(&watch)
                .filter(|_| kind.contains(ReadFlags::ISDIR));
            // A watch that was removed has late events.
            let Some(path) = parent.map(|parent| parent.join(OsStr::from_bytes(&name))) else {
                continue;
            };
            if kind.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                self.visit(path);
            } else if kind.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                self.remove_unless_there(&path);
            }
        }
        read
    }

    fn read_events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(inotify) = &self.inotify else {
            return events;
        };
        let mut buffer = vec![mem::MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        // An event in the buffer would be lost with it.
        while events.len() < EVENTS_AT_ONCE_MAX || !reader.is_buffer_empty() {
            let Ok(event) = reader.next() else {
                break;
            };
            events.push(Event {
                watch: event.wd(),
                kind: event.events(),
                name: event
                    .file_name()
                    .map_or_else(Vec::new, |name| name.to_bytes().to_vec()),
            });
        }
        events
    }

    /// Removes a directory and its descendants, unless the directory is there: the event is of an earlier one of its name.
    fn remove_unless_there(&mut self, path: &Path) {
        let Some(known) = self.directories.get(path) else {
            return;
        };
        let inode = fs::symlink_metadata(self.mount.join(path)).map(|metadata| metadata.ino());
        if inode.ok() != Some(known.cgroup.id) {
            self.remove(path);
        }
    }

    /// Removes a directory and its descendants.
    fn remove(&mut self, path: &Path) {
        let from_here = self
            .directories
            .range::<Path, _>((Bound::Included(path), Bound::Unbounded));
        let paths = from_here.map(|(path, _)| path.clone());
        let paths: Vec<Arc<Path>> = paths.take_while(|below| below.starts_with(path)).collect();
        for path in paths.iter().rev() {
            self.forget(path);
        }
    }

    fn forget(&mut self, path: &Path) {
        if let Some(directory) = self.directories.remove(path) {
            self.unwatch(directory.watch);
            self.changes.push(CgroupChange::Gone(directory.cgroup));
        }
    }

    /// Finds the cgroup with this id at a path, and notes it and the directories above it. Reads no other directory. Returns whether
    /// it is there.
    pub(super) fn look_up(&mut self, id: u64, path: &Path) -> bool {
        let inode = fs::symlink_metadata(self.mount.join(path)).map(|metadata| metadata.ino());
        if inode.ok() != Some(id) {
            return false;
        }
        let ancestors: Vec<&Path> = path.ancestors().collect();
        for path in ancestors.into_iter().rev() {
            if !self.directories.contains_key(path) {
                self.read_directory(path);
            }
        }
        self.directories
            .get(path)
            .is_some_and(|directory| directory.cgroup.id == id)
    }
}

/// An event of the kernel.
struct Event {
    watch: i32,
    kind: ReadFlags,
    name: Vec<u8>,
}

/// The names of the directories in a directory.
fn list_directories(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}
