//! The thread `cgroup`: follows the tree of cgroups, and looks single ones up.

use std::{
    fs::{self, File},
    io::Read as _,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cgroupfs::find_path;
use parking_lot::{Mutex, MutexGuard};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use super::{
    CgroupChange, CgroupIdentity, CgroupLookup, CgroupStats,
    table::{CGROUPS_MAX, CgroupTable},
    tree::{EventsRead, Tree},
};
use crate::{
    clock::monotonic_ns,
    sample::{CgroupHierarchy, CgroupView, PidNamespace},
};

/// The number of inotify watches that one user may have in all its programs.
const WATCHES_MAX_PATH: &str = "/proc/sys/fs/inotify/max_user_watches";

/// Time between two looks at what has expired, and at whether the thread is still needed.
const TICK: Duration = Duration::from_secs(1);

/// Time between two scans while a part of the tree is not watched. 1,000 cgroups take 5 ms.
const PARTIAL_SCAN_INTERVAL: Duration = Duration::from_secs(60);

/// Scans after lost events take at most one part in so many of the time.
const SCAN_SHARE: u32 = 20;

/// Bytes of a `/proc/TID/cgroup`: 16 hierarchies with paths of `PATH_MAX`.
const PROCESS_CGROUP_BYTES_MAX: u64 = 64 << 10;

/// Receives each change of the tree, in the order in which it was seen. It runs on the watcher's thread, and delays the changes after it.
pub type Subscriber = Box<dyn FnMut(&CgroupChange) + Send>;

/// The cgroups of the node. Clones share them.
#[derive(Clone)]
pub struct Cgroups(Arc<Shared>);

struct Shared {
    table: Mutex<CgroupTable>,
    /// The mount point; `None` without a hierarchy.
    mount: Option<Arc<Path>>,
    v1_controller: Option<&'static str>,
    shows_node: bool,
    /// Wakes the watcher.
    wake: OwnedFd,
}

impl Cgroups {
    /// The cgroups of this hierarchy. None is known until a [`Watcher`] runs.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub fn new(hierarchy: &CgroupHierarchy) -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags).context("failed to make an eventfd")?;
        Ok(Self(Arc::new(Shared {
            table: Mutex::default(),
            mount: hierarchy.mount().map(Into::into),
            v1_controller: hierarchy.v1_controller(),
            shows_node: CgroupView::read(hierarchy).shows_node(PidNamespace::detect()),
            wake,
        })))
    }

    /// The identity of the cgroup with this id, in which this thread was sampled. A cgroup that was removed keeps its identity for a
    /// minute. `now_ns` is a time of CLOCK_MONOTONIC.
    pub fn find(&self, id: u64, tid: u32, now_ns: u64) -> CgroupLookup {
        if self.0.mount.is_none() {
            return CgroupLookup::Known(CgroupIdentity::default());
        }
        self.0.table().find(id, tid, now_ns)
    }

    /// The directory of the cgroup with this id, if it belongs to a known container.
    pub fn container_directory(&self, id: u64) -> Option<Arc<Path>> {
        let mount = self.0.mount.as_deref()?;
        let cgroup = self.0.table().get(id).cloned()?;
        let is_container = cgroup.identity.container_id.is_some();
        is_container.then(|| mount.join(&cgroup.path).into())
    }

    /// Starts the look-ups that [`find`](Self::find) has asked for.
    pub fn request_lookups(&self) {
        if self.0.table().has_wanted() {
            // Full after 2^64 - 2 writes without a read.
            let _ = rustix::io::write(&self.0.wake, &1_u64.to_ne_bytes());
        }
    }

    /// The counters.
    pub fn stats(&self) -> CgroupStats {
        CgroupStats {
            shows_node: self.0.shows_node,
            ..self.0.table().stats()
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, CgroupTable> {
        self.table.lock()
    }
}

/// Follows the tree of cgroups.
pub struct Watcher {
    cgroups: Cgroups,
    tree: Tree,
    subscribers: Vec<Subscriber>,
    /// When to read the whole tree.
    scan_at: Option<Instant>,
    scan_took: Duration,
    scanned: Instant,
    has_warned: bool,
}

impl Watcher {
    /// A watcher for these cgroups; `None` without a hierarchy. It may use half of the watches that its user has: other programs need
    /// some too (kubelet, systemd).
    pub fn new(cgroups: Cgroups, subscribers: Vec<Subscriber>) -> Option<Self> {
        let limit = fs::read_to_string(WATCHES_MAX_PATH).ok();
        let limit = limit.and_then(|text| text.trim().parse::<usize>().ok());
        let watches_max = limit.map_or(CGROUPS_MAX, |limit| limit / 2);
        Self::with_watches(cgroups, subscribers, watches_max)
    }

    fn with_watches(
        cgroups: Cgroups,
        subscribers: Vec<Subscriber>,
        watches_max: usize,
    ) -> Option<Self> {
        let mount = cgroups.0.mount.clone()?;
        Some(Self {
            cgroups,
            tree: Tree::new(mount, watches_max),
            subscribers,
            scan_at: Some(Instant::now()),
            scan_took: Duration::ZERO,
            scanned: Instant::now(),
            has_warned: false,
        })
    }

    /// Runs until all others have dropped the cgroups.
    pub fn run(mut self) {
        while Arc::strong_count(&self.cgroups.0) > 1 {
            self.turn(TICK);
        }
    }

    /// Waits for events, and applies them; then looks up what samples wait for, and reads the whole tree if that is due.
    fn turn(&mut self, timeout: Duration) {
        let until_scan = self
            .scan_at
            .map(|at| at.saturating_duration_since(Instant::now()));
        self.wait(until_scan.map_or(timeout, |until_scan| until_scan.min(timeout)));
        if self.tree.apply_events() == EventsRead::Lost {
            self.cgroups.0.table().stats_mut().overflows += 1;
            let at = self.scanned + self.scan_took * SCAN_SHARE;
            self.scan_at = Some(self.scan_at.map_or(at, |due| due.min(at)));
        }
        self.publish();
        if self.scan_at.is_some_and(|at| at <= Instant::now()) {
            self.scan();
        }
        self.look_up_wanted();
        self.publish();
        self.cgroups.0.table().expire(monotonic_ns());
        self.warn();
    }

    fn wait(&self, timeout: Duration) {
        let wake = &self.cgroups.0.wake;
        let inotify = self.tree.inotify();
        let mut descriptors: Vec<PollFd<'_>> = [Some(wake), inotify]
            .into_iter()
            .flatten()
            .map(|descriptor| PollFd::new(descriptor, PollFlags::IN))
            .collect();
        let timeout = Timespec::try_from(timeout).ok();
        // A signal only makes the turn shorter.
        let _ = poll(&mut descriptors, timeout.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(wake, &mut count);
    }

    fn scan(&mut self) {
        let begun = Instant::now();
        self.tree.scan();
        self.scanned = Instant::now();
        self.scan_took = begun.elapsed();
        self.scan_at = (self.tree.unwatched() > 0).then(|| {
            let wait = self.scan_took * SCAN_SHARE;
            self.scanned + wait.max(PARTIAL_SCAN_INTERVAL)
        });
        self.cgroups.0.table().stats_mut().scans += 1;
        self.publish();
    }

    fn look_up_wanted(&mut self) {
        let wanted = self.cgroups.0.table().take_wanted();
        for (id, tid) in wanted {
            let text = read_process(tid);
            let path = text.as_deref();
            let path = path.and_then(|text| find_path(text, self.cgroups.0.v1_controller));
            let is_found = path.is_some_and(|path| self.tree.look_up(id, path));
            let mut table = self.cgroups.0.table();
            if is_found {
                table.stats_mut().found += 1;
            } else {
                table.miss(id, monotonic_ns());
            }
        }
    }

    /// Passes the tree's changes on.
    fn publish(&mut self) {
        for change in self.tree.take_changes() {
            self.cgroups.0.table().apply(&change, monotonic_ns());
            for subscriber in &mut self.subscribers {
                subscriber(&change);
            }
        }
        let counts = self.tree.take_counts();
        let mut table = self.cgroups.0.table();
        let stats = table.stats_mut();
        stats.vanished += counts.vanished;
        stats.limited += counts.limited;
        stats.unwatched = self.tree.unwatched();
    }

    /// Says once why a part of the tree is not watched.
    fn warn(&mut self) {
        let Some(errno) = self.tree.take_failure() else {
            return;
        };
        if self.has_warned {
            return;
        }
        self.has_warned = true;
        let remedy = match errno {
            Errno::NOSPC => {
                "the inotify watches of this user are used up: raise the sysctl fs.inotify.max_user_watches, of which the \
                 collector takes one for each cgroup, and half at most"
            }
            Errno::MFILE => {
                "this user has too many inotify instances: raise the sysctl fs.inotify.max_user_instances"
            }
            _ => "the kernel refuses it",
        };
        tracing::warn!(
            %errno,
            unwatched = self.tree.unwatched(),
            "failed to watch the tree of cgroups: new cgroups are looked up when they are sampled, and all are read once a minute; \
             {remedy}"
        );
    }
}

fn read_process(tid: u32) -> Option<String> {
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{tid}/cgroup")).ok()?;
    file.take(PROCESS_CGROUP_BYTES_MAX)
        .read_to_end(&mut text)
        .ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::MetadataExt as _,
        path::PathBuf,
        process::{Child, Command},
        sync::{
            atomic::{AtomicU64, Ordering},
            mpsc::{Receiver, channel},
        },
        thread,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A watcher whose turns are the test's, and its changes.
    struct Fixture {
        root: PathBuf,
        cgroups: Cgroups,
        watcher: Watcher,
        changes: Receiver<CgroupChange>,
    }

    fn fixture(root: &Path, watches_max: usize) -> Fixture {
        let hierarchy = CgroupHierarchy::V2 {
            mount: root.to_owned(),
        };
        let cgroups = Cgroups::new(&hierarchy).unwrap();
        let (sender, changes) = channel();
        let subscriber: Subscriber = Box::new(move |change| sender.send(change.clone()).unwrap());
        let watcher = Watcher::with_watches(cgroups.clone(), vec![subscriber], watches_max);
        let mut fixture = Fixture {
            root: root.to_owned(),
            cgroups,
            watcher: watcher.unwrap(),
            changes,
        };
        fixture.turn();
        fixture
    }

    impl Fixture {
        /// One turn that does not wait.
        fn turn(&mut self) {
            self.watcher.turn(Duration::ZERO);
        }

        fn make(&self, path: &str) -> u64 {
            let path = self.root.join(path);
            fs::create_dir_all(&path).unwrap();
            fs::metadata(path).unwrap().ino()
        }

        fn remove(&self, path: &str) {
            fs::remove_dir(self.root.join(path)).unwrap();
        }

        /// The identity of a cgroup, as "pod container unit"; "?" if it is not known.
        fn show(&self, id: u64) -> String {
            match self.cgroups.find(id, 0, monotonic_ns()) {
                CgroupLookup::Pending => "?".into(),
                CgroupLookup::Known(identity) => {
                    let CgroupIdentity {
                        pod_uid,
                        container_id,
                        unit,
                    } = identity;
                    let values = [pod_uid, container_id, unit];
                    values
                        .map(|value| value.map_or("-".into(), |value| value.to_string()))
                        .join(" ")
                }
            }
        }

        /// The changes since the last call, as "+path" and "-path", sorted.
        fn changes(&self) -> Vec<String> {
            let shown = self.changes.try_iter().map(|change| match change {
                CgroupChange::Appeared(cgroup) => format!("+{}", cgroup.path.display()),
                CgroupChange::Gone(cgroup) => format!("-{}", cgroup.path.display()),
            });
            shown.collect()
        }
    }

    fn container_path(digit: &str) -> String {
        format!("kubepods/pod{}/{}", "1".repeat(32), digit.repeat(64))
    }

    /// Check that cgroups at all depths are found at the start, and that later ones, their removal and their renaming are followed.
    #[test]
    fn the_tree_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let early = container_path("a");
        fs::create_dir_all(root.path().join(&early)).unwrap();
        let mut fixture = fixture(root.path(), CGROUPS_MAX);
        let early_id = fixture.make(&early);
        let pod_uid = "1".repeat(32);
        let container = |digit: &str| format!("{pod_uid} {} -", digit.repeat(64));
        assert_eq!(fixture.show(early_id), container("a"));
        let pod = format!("kubepods/pod{pod_uid}");
        assert_eq!(
            fixture.changes(),
            ["+", "+kubepods", &format!("+{pod}"), &format!("+{early}")]
        );
        assert_eq!(
            fixture
                .cgroups
                .container_directory(early_id)
                .unwrap()
                .as_ref(),
            root.path().join(&early)
        );
        assert_eq!(
            fixture.cgroups.container_directory(fixture.make(&pod)),
            None
        );

        let late = format!("{}/below/it", container_path("b"));
        let late_id = fixture.make(&late);
        let unit_id = fixture.make("a.service");
        fixture.turn();
        assert_eq!(fixture.show(late_id), container("b"));
        assert_eq!(fixture.show(unit_id), "- - a.service");
        assert_eq!(fixture.changes().len(), 4);
        assert_eq!(fixture.cgroups.stats().living, 8);
        assert_eq!(fixture.watcher.tree.unwatched(), 0);

        fixture.remove(&early);
        let renamed = fixture.root.join("a.service");
        fs::rename(renamed, fixture.root.join("b.service")).unwrap();
        fixture.turn();
        assert_eq!(
            fixture.changes(),
            [&format!("-{early}"), "-a.service", "+b.service"]
        );
        assert_eq!(
            fixture.show(early_id),
            container("a"),
            "it keeps its identity"
        );
        assert_eq!(fixture.show(unit_id), "- - b.service");

        // One that was made below the renamed directory, and one of a name that was used before.
        let below = fixture.make("b.service/x");
        let again = fixture.make(&early);
        fixture.turn();
        assert_eq!(
            (fixture.show(below), fixture.show(again)),
            ("- - b.service".into(), container("a"))
        );
        assert_eq!(fixture.cgroups.stats().not_found, 0);
    }

    /// Check that cgroups that were removed before the watcher looked leave nothing behind, and that one of the same name that was
    /// made again is known by its own id.
    #[test]
    fn short_lives_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let mut fixture = fixture(root.path(), CGROUPS_MAX);
        fixture.changes();
        for _ in 0..100 {
            fixture.make("a.service/below");
            fixture.remove("a.service/below");
            fixture.remove("a.service");
        }
        fixture.turn();
        assert_eq!(fixture.cgroups.stats().living, 1);
        assert_eq!(fixture.cgroups.stats().vanished, 100);
        assert!(fixture.changes().is_empty());
        let first = fixture.make("a.service");
        fixture.turn();
        // Another directory may get the inode that is free again.
        fixture.make("other");
        fs::rename(root.path().join("other"), root.path().join("a.service")).unwrap();
        let second = fixture.make("a.service");
        assert_ne!(first, second);
        fixture.turn();
        assert_eq!(fixture.show(second), "- - a.service");
        assert_eq!(fixture.cgroups.stats().living, 2);
        assert_eq!(fixture.watcher.tree.unwatched(), 0);
    }

    /// Check that lost events make one scan, which finds what they would have announced.
    #[test]
    fn lost_events_are_made_up_for() {
        // In memory, if possible: thousands of directories are made.
        let root = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let queue: usize = queue.trim().parse().unwrap();
        let mut fixture = fixture(root.path(), CGROUPS_MAX);
        let old = fixture.make("old.service");
        fixture.turn();
        fixture.remove("old.service");
        // Two events each.
        for number in 0..=queue / 2 {
            fixture.make(&format!("n{number}"));
            fixture.remove(&format!("n{number}"));
        }
        let new = fixture.make("new.service/below");
        fs::create_dir(root.path().join("last.service")).unwrap();
        let until = Instant::now() + LONG;
        while fixture.cgroups.stats().scans < 2 && Instant::now() < until {
            fixture.watcher.turn(Duration::from_millis(10));
        }
        let stats = fixture.cgroups.stats();
        assert_eq!((stats.overflows, stats.scans), (1, 2));
        assert_eq!((stats.living, stats.ended), (4, 1));
        assert_eq!(fixture.show(new), "- - new.service");
        assert_eq!(fixture.show(old), "- - old.service");
        let after = fixture.make("new.service/below/after");
        fixture.turn();
        assert_eq!(fixture.show(after), "- - new.service");
        assert_eq!(fixture.watcher.scan_at, None);
    }

    /// Check that without enough watches the rest of the tree is still read at the start, that what is missed later is looked up, and
    /// that all is watched once there are enough.
    #[test]
    fn too_few_watches() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b/c")).unwrap();
        let mut fixture = fixture(root.path(), 2);
        assert_eq!(fixture.cgroups.stats().living, 4);
        assert_eq!(fixture.cgroups.stats().unwatched, 2);
        assert!(fixture.watcher.has_warned);
        let unseen = fixture.make("a/b/c/d.service");
        fixture.turn();
        assert_eq!(fixture.show(unseen), "?");
        assert!(
            !fixture
                .watcher
                .tree
                .look_up(unseen + 1, Path::new("a/b/c/d.service"))
        );
        assert!(
            fixture
                .watcher
                .tree
                .look_up(unseen, Path::new("a/b/c/d.service"))
        );
        fixture.turn();
        assert_eq!(fixture.show(unseen), "- - d.service");

        fixture.watcher.tree = Tree::new(root.path().into(), CGROUPS_MAX);
        fixture.watcher.scan_at = Some(Instant::now());
        fixture.turn();
        let stats = fixture.cgroups.stats();
        assert_eq!((stats.living, stats.unwatched, stats.scans), (5, 0, 2));
    }

    /// A real hierarchy in which this process may make cgroups, and its ids.
    fn real_hierarchy() -> Option<CgroupHierarchy> {
        let hierarchy = CgroupHierarchy::detect();
        let probe = hierarchy
            .mount()?
            .join(format!("pilotlight-test-probe-{}", std::process::id()));
        fs::create_dir(&probe).ok()?;
        fs::remove_dir(probe).ok()?;
        Some(hierarchy)
    }

    /// A directory of the test in the real hierarchy; dropping removes it.
    struct Top(PathBuf);

    impl Drop for Top {
        fn drop(&mut self) {
            for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path());
            }
            let _ = fs::remove_dir(&self.0);
        }
    }

    /// Processes that sleep; dropping ends them.
    struct Sleepers(Vec<Child>);

    impl Drop for Sleepers {
        fn drop(&mut self) {
            for child in &mut self.0 {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    /// Check, in the kernel's own hierarchy, that a thousand cgroups that live for some 40 ms each while twenty processes move through
    /// them are seen, and leave neither entries nor watches behind; and that a cgroup that was never announced is looked up by one
    /// of its processes.
    #[test]
    fn a_thousand_cgroups_of_the_kernel() {
        let Some(hierarchy) = real_hierarchy() else {
            eprintln!("not checked: no cgroup can be made");
            return;
        };
        let top = hierarchy
            .mount()
            .unwrap()
            .join(format!("pilotlight-test-{}", std::process::id()));
        let cgroups = Cgroups::new(&hierarchy).unwrap();
        let (sender, changes) = channel();
        let own = PathBuf::from(top.file_name().unwrap());
        let subscriber: Subscriber = Box::new(move |change| {
            let (CgroupChange::Appeared(cgroup) | CgroupChange::Gone(cgroup)) = change;
            // Other programs make cgroups too.
            if cgroup.path.starts_with(&own) {
                sender.send(change.clone()).unwrap();
            }
        });
        let mut watcher = Watcher::new(cgroups.clone(), vec![subscriber]).unwrap();
        watcher.turn(Duration::ZERO);
        let begin = cgroups.stats();
        fs::create_dir(&top).unwrap();
        let top = Top(top);
        let sleepers = (0..20).map(|_| Command::new("sleep").arg("600").spawn().unwrap());
        let sleepers = Sleepers(sleepers.collect());
        let pids: Vec<u32> = sleepers.0.iter().map(Child::id).collect();

        let folder = top.0.clone();
        let turns = Arc::new(AtomicU64::new(0));
        let done = turns.clone();
        let makes = thread::spawn(move || {
            let mut ids = Vec::new();
            let name = |number: usize| folder.join(format!("{number}.service"));
            for number in 0..1000 {
                let (cgroup, pid) = (name(number), pids[number % pids.len()].to_string());
                fs::create_dir(&cgroup).unwrap();
                ids.push(fs::metadata(&cgroup).unwrap().ino());
                // The process leaves the cgroup of the round before, which can be removed then.
                fs::write(cgroup.join("cgroup.procs"), pid).unwrap();
                if let Some(before) = number.checked_sub(pids.len()) {
                    fs::remove_dir(name(before)).unwrap();
                }
                // Each lives for as many turns of the watcher as there are processes.
                let before = done.load(Ordering::Relaxed);
                while done.load(Ordering::Relaxed) == before {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            for (number, pid) in (1000 - pids.len()..1000).zip(&pids) {
                fs::write(folder.join("cgroup.procs"), pid.to_string()).unwrap();
                fs::remove_dir(name(number)).unwrap();
            }
            ids
        });
        while !makes.is_finished() {
            watcher.turn(Duration::from_millis(1));
            turns.fetch_add(1, Ordering::Relaxed);
        }
        let ids = makes.join().unwrap();
        watcher.turn(Duration::ZERO);
        let seen = changes
            .try_iter()
            .filter(|change| matches!(change, CgroupChange::Appeared(_)));
        let seen: Vec<u64> = seen
            .map(|change| {
                let (CgroupChange::Appeared(cgroup) | CgroupChange::Gone(cgroup)) = change;
                cgroup.id
            })
            .collect();
        let named = ids.iter().filter(|id| {
            let found = cgroups.find(**id, 0, monotonic_ns());
            matches!(found, CgroupLookup::Known(identity) if identity.unit.is_some())
        });
        let (named, vanished) = (named.count(), cgroups.stats().vanished as usize);
        eprintln!("{named} of 1000 were seen, {vanished} were removed before they were read");
        assert_eq!(seen.len(), 1 + named);
        assert!(
            named + vanished >= 1000 && named >= 900,
            "{named} {vanished}"
        );

        // A watcher that has missed the announcement finds the cgroup by a process.
        let pid = sleepers.0[0].id();
        let missed = top.0.join("missed.service");
        fs::create_dir(&missed).unwrap();
        let id = fs::metadata(&missed).unwrap().ino();
        fs::write(missed.join("cgroup.procs"), pid.to_string()).unwrap();
        let late = Cgroups::new(&hierarchy).unwrap();
        let mut blind = Watcher::with_watches(late.clone(), Vec::new(), 0).unwrap();
        blind.scan_at = None;
        assert_eq!(late.find(id, pid, 0), CgroupLookup::Pending);
        assert_eq!(late.find(id + 1_000_000, pid, 0), CgroupLookup::Pending);
        blind.turn(Duration::ZERO);
        assert!(
            matches!(late.find(id, pid, 0), CgroupLookup::Known(identity) if identity.unit.is_some())
        );
        let stats = late.stats();
        assert_eq!(
            (stats.found, stats.not_found, stats.scans, stats.living),
            (1, 1, 0, 3)
        );

        drop(sleepers);
        let until = Instant::now() + LONG;
        while fs::remove_dir(&missed).is_err() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        drop(top);
        watcher.turn(Duration::ZERO);
        let end = cgroups.stats();
        assert!(end.living.abs_diff(begin.living) < 10, "{begin:?} {end:?}");
        assert_eq!(end.unwatched, 0);
        let inotify = std::os::fd::AsRawFd::as_raw_fd(watcher.tree.inotify().unwrap());
        let watches = fs::read_to_string(format!("/proc/self/fdinfo/{inotify}")).unwrap();
        let watches = watches.lines().filter(|line| line.starts_with("inotify"));
        assert_eq!(watches.count(), end.living, "watches in the kernel");
        cgroups.0.table().expire(u64::MAX);
        assert_eq!(cgroups.stats().ended, 0);
    }
}
