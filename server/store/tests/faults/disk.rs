//! A disk in memory, whose operations fail, and which loses in a crash what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;
use segment::ReadAt;
use store::embedded::disk::{Disk, DiskFile};

/// What goes wrong, by the number of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// So many operations fail with this error, and the machine crashes so many operations after the first of them.
    Fail {
        at: u64,
        count: u64,
        kind: io::ErrorKind,
        crash_after: Option<u64>,
    },
    /// Nothing reaches the disk from then on.
    Crash { at: u64 },
}

/// The disk. Each crash makes another one.
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    random: Rng,
    /// Files by name, as programs see them.
    live: BTreeMap<PathBuf, Arc<Mutex<Inode>>>,
    /// Files by name, as a crash leaves them.
    durable: BTreeMap<PathBuf, Arc<Mutex<Inode>>>,
    /// Changes of names that are in `live` and not in `durable`, by folder.
    renames: BTreeMap<PathBuf, Vec<NameChange>>,
    /// Folders, and whether their name is durable.
    folders: BTreeMap<PathBuf, bool>,
    operations: u64,
    failures: u64,
    fault: Option<Fault>,
    /// Operations with a name, on paths with a part, fail so many times more.
    broken: Vec<([&'static str; 2], u64)>,
    /// The machine crashes so many operations after the first failure.
    crash_after: Option<u64>,
    crash_at: Option<u64>,
    /// The last failure was that of a machine that crashed: nothing of it is done.
    is_crashed: bool,
    is_paused: bool,
    writes_short: bool,
    trace: Vec<String>,
    /// Numbers of the operations that change something, and of the others.
    changing: Vec<u64>,
    reading: Vec<u64>,
}

/// Bytes that reach the disk together.
const SECTOR_BYTES: usize = 512;

#[derive(Clone)]
enum NameChange {
    Set(PathBuf, Arc<Mutex<Inode>>),
    Removed(PathBuf),
    Renamed(PathBuf, PathBuf),
}

#[derive(Clone, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Changes of the content that are not durable.
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Written(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(length) => content.resize(*length as usize, 0),
            Self::Written(offset, bytes) => {
                let start = *offset as usize;
                let end = start + bytes.len();
                content.resize(content.len().max(end), 0);
                content[start..end].copy_from_slice(bytes);
            }
        }
    }
}

impl Inode {
    /// The content after a crash: what is durable, all that was written, or some sectors of that.
    fn after_crash(&self, random: &mut Rng) -> Vec<u8> {
        let mut written = self.durable.clone();
        for change in &self.changes {
            change.apply(&mut written);
        }
        match random.u8(0..4) {
            0 | 1 => self.durable.clone(),
            2 => written,
            _ => {
                let mut content = self.durable.clone();
                content.resize(written.len(), 0);
                for start in (0..written.len()).step_by(SECTOR_BYTES) {
                    let end = written.len().min(start + SECTOR_BYTES);
                    if random.bool() {
                        content[start..end].copy_from_slice(&written[start..end]);
                    }
                }
                content
            }
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Arc<Mutex<Inode>>>) {
        match self {
            Self::Set(path, inode) => drop(names.insert(path.clone(), Arc::clone(inode))),
            Self::Removed(path) => drop(names.remove(path)),
            Self::Renamed(from, to) => {
                let inode = names.remove(from);
                names.extend(inode.map(|inode| (to.clone(), inode)));
            }
        }
    }
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(State {
            random: Rng::with_seed(seed),
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            renames: BTreeMap::new(),
            folders: BTreeMap::new(),
            operations: 0,
            failures: 0,
            fault: None,
            broken: Vec::new(),
            crash_after: None,
            crash_at: None,
            is_crashed: false,
            is_paused: false,
            writes_short: false,
            trace: Vec::new(),
            changing: Vec::new(),
            reading: Vec::new(),
        })
    }

    fn of(state: State) -> Self {
        let state = Arc::new(Mutex::new(state));
        Self { state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets operations from now on fail: those of the fault are counted from here.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.state();
        (state.fault, state.operations, state.failures) = (fault, 0, 0);
        (state.changing, state.reading) = (Vec::new(), Vec::new());
        state.crash_at = None;
        state.crash_after = match fault {
            Some(Fault::Fail { crash_after, .. }) => crash_after,
            _ => None,
        };
    }

    /// Lets operations with these names, on paths with these parts, fail so many times.
    pub(crate) fn break_operations(&self, broken: &[[&'static str; 2]], times: u64) {
        let broken = broken.iter().map(|broken| (*broken, times));
        self.state().broken = broken.collect();
    }

    /// Lets the machine crash so many operations after the first that fails.
    pub(crate) fn crash_after_failure(&self, operations: u64) {
        self.state().crash_after = Some(operations);
    }

    /// Writes write a part of what they are given.
    pub(crate) fn write_short(&self) {
        self.state().writes_short = true;
    }

    /// No fault while a question is asked.
    pub(crate) fn pause<T>(&self, ask: impl FnOnce() -> T) -> T {
        self.state().is_paused = true;
        let answer = ask();
        self.state().is_paused = false;
        answer
    }

    /// The operations since the fault was set, without those that were paused: those that change something, and the others.
    pub(crate) fn operations(&self) -> [Vec<u64>; 2] {
        let state = self.state();
        [state.changing.clone(), state.reading.clone()]
    }

    /// Operations that failed since the fault was set.
    pub(crate) fn failures(&self) -> u64 {
        self.state().failures
    }

    /// What was done, shown when a test fails.
    pub(crate) fn trace(&self) -> String {
        let state = self.state();
        let last = state.trace.len().saturating_sub(60);
        state.trace[last..].join("\n")
    }

    /// Flips a bit of a file, also on the disk.
    pub(crate) fn flip(&self, path: &Path, bit: usize) {
        let inode = self.state().find(path).unwrap();
        let mut inode = inode.lock().unwrap();
        let mut content = inode.content.clone();
        content[bit / 8] ^= 1 << (bit % 8);
        *inode = Inode {
            durable: content.clone(),
            content,
            changes: Vec::new(),
        };
    }

    /// Length of a file.
    pub(crate) fn length(&self, path: &Path) -> usize {
        let inode = self.state().find(path).unwrap();
        let inode = inode.lock().unwrap();
        inode.content.len()
    }

    /// The names of all files.
    pub(crate) fn names(&self) -> Vec<PathBuf> {
        self.state().live.keys().cloned().collect()
    }

    /// The disk after a crash: without what was not synced, or with a part of it.
    pub(crate) fn crash(&self) -> Self {
        let mut state = self.state();
        let state = &mut *state;
        let random = &mut state.random;
        let mut names = state.durable.clone();
        for changes in state.renames.values() {
            // A journal has the changes of a folder in their order.
            let kept = if random.bool() {
                0
            } else {
                random.usize(0..=changes.len())
            };
            changes[..kept]
                .iter()
                .for_each(|change| change.apply(&mut names));
        }
        let lost = state.folders.iter().filter(|(_, is_durable)| !**is_durable);
        let lost: Vec<&PathBuf> = lost.map(|(folder, _)| folder).collect();
        names.retain(|path, _| !lost.iter().any(|folder| path.starts_with(folder)));
        let mut after = BTreeMap::new();
        for (path, inode) in names {
            let inode = inode.lock().unwrap();
            let content = inode.after_crash(random);
            let inode = Inode {
                durable: content.clone(),
                content,
                changes: Vec::new(),
            };
            after.insert(path, Arc::new(Mutex::new(inode)));
        }
        let folders = state.folders.iter().filter(|(_, is_durable)| **is_durable);
        Self::of(State {
            random: random.fork(),
            durable: after.clone(),
            live: after,
            renames: BTreeMap::new(),
            folders: folders.map(|(folder, _)| (folder.clone(), true)).collect(),
            operations: 0,
            failures: 0,
            fault: None,
            broken: Vec::new(),
            crash_after: None,
            crash_at: None,
            is_crashed: false,
            is_paused: false,
            writes_short: state.writes_short,
            trace: Vec::new(),
            changing: Vec::new(),
            reading: Vec::new(),
        })
    }
}

/// Operations that change nothing.
const READING: [&str; 5] = ["open", "size", "read", "list", "space"];

impl State {
    /// Counts an operation. Returns the error that it fails with.
    fn begin(&mut self, name: &str, path: &Path) -> io::Result<()> {
        if self.is_paused {
            return Ok(());
        }
        self.operations += 1;
        let operation = self.operations;
        let is_reading = READING.contains(&name);
        if is_reading {
            self.reading.push(operation)
        } else {
            self.changing.push(operation)
        }
        let is_crashed = self.crash_at.is_some_and(|at| operation >= at)
            || matches!(self.fault, Some(Fault::Crash { at }) if operation >= at);
        let needs_no_room = is_reading || name == "remove";
        let error = match self.fault {
            _ if is_crashed => Some(io::ErrorKind::Other),
            Some(Fault::Fail {
                at, count, kind, ..
            }) if operation >= at
                && self.failures < count
                && !(kind == io::ErrorKind::StorageFull && needs_no_room) =>
            {
                Some(kind)
            }
            _ => None,
        };
        let text = path.to_string_lossy();
        let broken = self.broken.iter_mut();
        let mut broken = broken.filter(|([operation, part], times)| {
            *operation == name && text.contains(part) && *times > 0
        });
        let is_broken = broken.next().map(|(_, times)| *times -= 1).is_some();
        let error = error.or(is_broken.then_some(io::ErrorKind::Other));
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let outcome = error.map_or("", |_| " FAILS");
        self.trace
            .push(format!("{operation} {name} {file}{outcome}"));
        let Some(kind) = error else { return Ok(()) };
        self.failures += 1;
        self.is_crashed = is_crashed;
        let crash_at = self.crash_after.map(|after| operation + after);
        self.crash_at = self.crash_at.or(crash_at);
        Err(io::Error::new(kind, "a fault of the test"))
    }

    fn find(&self, path: &Path) -> io::Result<Arc<Mutex<Inode>>> {
        let found = self.live.get(path).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, path: &Path, change: NameChange) {
        change.apply(&mut self.live);
        let folder = path.parent().unwrap().to_owned();
        self.renames.entry(folder).or_default().push(change);
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.begin("create", path)?;
        if !state.folders.contains_key(path.parent().unwrap()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = match state.live.get(path).cloned() {
            Some(known) => {
                let mut file = known.lock().unwrap();
                file.content.clear();
                file.changes.push(Change::Length(0));
                drop(file);
                known
            }
            None => {
                let inode = Arc::new(Mutex::new(Inode::default()));
                let change = NameChange::Set(path.to_owned(), Arc::clone(&inode));
                state.change_names(path, change);
                inode
            }
        };
        drop(state);
        Ok(Arc::new(self.file(path, inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.begin("open", path)?;
        let inode = state.find(path)?;
        drop(state);
        Ok(Arc::new(self.file(path, inode)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin("rename", to)?;
        state.find(from)?;
        assert_eq!(from.parent(), to.parent());
        state.change_names(to, NameChange::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin("link", to)?;
        let inode = state.find(from)?;
        if state.live.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change_names(to, NameChange::Set(to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin("remove", path)?;
        state.find(path)?;
        state.change_names(path, NameChange::Removed(path.to_owned()));
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin("create_folder", path)?;
        state.folders.entry(path.to_owned()).or_insert(false);
        // The directory itself is there before the store is.
        let above = path.parent().unwrap().to_owned();
        state.folders.entry(above).or_insert(true);
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.state().begin("remove_folder", path)?;
        Err(io::ErrorKind::DirectoryNotEmpty.into())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let begun = state.begin("sync_folder", path);
        if begun.is_err() && (state.is_crashed || state.random.bool()) {
            return begun;
        }
        // A sync that fails may have done it.
        for change in state.renames.remove(path).unwrap_or_default() {
            change.apply(&mut state.durable);
        }
        for (folder, is_durable) in &mut state.folders {
            *is_durable |= folder.parent() == Some(path);
        }
        begun
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state();
        state.begin("list", folder)?;
        if !state.folders.contains_key(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let files = state.live.keys().chain(state.folders.keys());
        let inside = files.filter(|path| path.parent() == Some(folder));
        let inside: BTreeSet<PathBuf> = inside.cloned().collect();
        Ok(inside.into_iter().collect())
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        self.state().begin("space", path)?;
        Ok((1 << 40, 1 << 41))
    }
}

impl SimDisk {
    fn file(&self, path: &Path, inode: Arc<Mutex<Inode>>) -> SimFile {
        SimFile {
            state: Arc::clone(&self.state),
            path: path.to_owned(),
            inode,
        }
    }
}

struct SimFile {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    inode: Arc<Mutex<Inode>>,
}

impl SimFile {
    fn begin(&self, name: &str) -> (io::Result<()>, MutexGuard<'_, State>) {
        let mut state = self.state.lock().unwrap();
        (state.begin(name, &self.path), state)
    }

    fn change(&self, change: Change) {
        let mut inode = self.inode.lock().unwrap();
        change.apply(&mut inode.content);
        inode.changes.push(change);
    }
}

impl ReadAt for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.begin("size").0?;
        Ok(self.inode.lock().unwrap().content.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.begin("read").0?;
        self.inode
            .lock()
            .unwrap()
            .content
            .read_exact_at(buffer, offset)
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let (begun, mut state) = self.begin("write");
        let mut written = bytes.len();
        if begun.is_err() {
            // A part of it may be there.
            written = state.random.usize(0..=written);
        } else if state.writes_short {
            written = state.random.usize(1..=written);
        }
        let is_lost = state.is_crashed && begun.is_err();
        drop(state);
        if !is_lost {
            self.change(Change::Written(offset, bytes[..written].to_vec()));
        }
        begun.map(|()| written)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.begin("set_len").0?;
        self.change(Change::Length(bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (begun, mut state) = self.begin("sync");
        if begun.is_err() && state.is_crashed {
            return begun;
        }
        let mut inode = self.inode.lock().unwrap();
        let is_done = begun.is_ok() || state.random.bool();
        let changes = std::mem::take(&mut inode.changes);
        if is_done {
            changes
                .iter()
                .for_each(|change| change.apply(&mut inode.durable));
        } else if state.random.bool() {
            // As on Linux: what a sync failed to write is not written by the next one.
            inode.changes = changes;
        }
        begun
    }
}
