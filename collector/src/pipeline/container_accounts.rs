//! The thread `accounts`: CPU time of containers and systemd units by the kernel's own accounts.
//!
//! In: changes of the tree of cgroups, the CPU time sampled in each cgroup, and the ends of windows. Out: one account for each container
//! and unit and window.
//!
//! Every account is read at the end of a window, and those of sampled cgroups each second. The kernel's account ends with the directory,
//! 40 to 70 ms after the last process, so that the CPU time after the last reading is lost: at most a second of it, which is told by the
//! samples since ([`ContainerUsage::unread_ns`]). A window's readings are 0.1 s late at most; the differences of consecutive windows
//! leave nothing out.
//!
//! The kernel counts a cgroup's descendants with it. A container in a unit, or a unit in a container, has labels of its own, so that its
//! time is taken out of the outer one's. What an inner one used after its last reading stays with the outer.

use std::{
    mem,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    },
};

use anyhow::Result;
use metrics::Figures;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    cgroup::{Cgroup, CgroupChange, CgroupIdentity, CpuFiles, CpuTime, Subscriber},
    metrics::{Stats, seconds},
    threads::spawn,
};

/// Accounts that are read: 110 pods of 5 containers have some 700. Two files of 5 us each, at the end of each window: 8,192 take 80 ms
/// of 10 s. The server takes as many in a message.
const ACCOUNTS_MAX: usize = 8192;

/// Messages that may wait: twice the cgroups of the tree, which all come at the start. 40 bytes each.
const MESSAGES_MAX: usize = 65_536;

/// An account of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ContainerUsage {
    pub(super) identity: CgroupIdentity,
    /// CPU time without that of inner accounts.
    pub(super) kernel: CpuTime,
    /// CPU time of samples that `kernel` lacks, nanoseconds.
    pub(super) unread_ns: u64,
    /// Samples that the policy excludes.
    pub(super) excluded: u64,
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ContainerStats {
    accounts: usize,
    kernel_ns: u64,
    sampled_ns: u64,
    throttled_ns: u64,
    unread_ns: u64,
    limited: u64,
    lost_messages: u64,
}

impl ContainerStats {
    /// Writes the figures.
    pub(super) fn show(&self, figures: &mut Figures<'_>) {
        figures.gauge(
            "containers",
            "Containers and systemd units whose CPU accounts are read",
            self.accounts,
        );
        figures.counter(
            "container_kernel_seconds",
            "CPU time of containers and systemd units by the kernel's accounts (cpuacct, cpu.stat)",
            seconds(self.kernel_ns),
        );
        figures.counter(
            "container_sampled_seconds",
            "CPU time sampled in containers and systemd units whose account is read",
            seconds(self.sampled_ns),
        );
        figures.counter(
            "container_unread_seconds",
            "Part of it that the kernel's accounts lack, because the cgroup ended after its last reading",
            seconds(self.unread_ns),
        );
        figures.counter(
            "container_throttled_seconds",
            "Time in which containers and systemd units were throttled by their CPU quotas",
            seconds(self.throttled_ns),
        );
        figures.counter(
            "container_limits",
            "Containers and systemd units without an account because there were too many, and messages lost because too many waited",
            self.limited + self.lost_messages,
        );
    }
}

enum Message {
    Changed(CgroupChange),
    /// CPU time of samples since the last such message, by cgroup id.
    Sampled(FxHashMap<u64, u64>),
    /// Samples that the policy has excluded since the last such message, by cgroup id.
    Excluded(FxHashMap<u64, u64>),
    BeginWindow,
    EndWindow(Sender<Vec<ContainerUsage>>),
}

/// The sampler's end of the thread.
#[derive(Clone)]
pub(super) struct ContainerAccounts {
    to: Option<SyncSender<Message>>,
    stats: Stats<ContainerStats>,
}

impl ContainerAccounts {
    /// Starts the thread, which ends when all of its other ends are dropped. Without files there are no accounts.
    pub(super) fn start(files: Option<CpuFiles>, stats: Stats<ContainerStats>) -> Result<Self> {
        let Some(files) = files else {
            tracing::warn!(
                "the controller cpuacct is not mounted in /sys/fs/cgroup: sampled CPU time is not compared with the kernel's by container"
            );
            return Ok(Self { to: None, stats });
        };
        let (to, messages) = sync_channel(MESSAGES_MAX);
        let thread_stats = stats.clone();
        spawn("accounts", move || {
            let mut table = AccountTable::default();
            run(
                &mut table,
                &messages,
                |path| files.read(path),
                &thread_stats,
            );
        })?;
        Ok(Self {
            to: Some(to),
            stats,
        })
    }

    /// Hears the changes of the tree.
    pub(super) fn subscriber(&self) -> Subscriber {
        let own = self.clone();
        Box::new(move |change| own.send(Message::Changed(change.clone())))
    }

    /// Counts CPU time that was sampled, by cgroup id.
    pub(super) fn add_sampled(&self, sampled: FxHashMap<u64, u64>) {
        self.send(Message::Sampled(sampled));
    }

    /// Counts samples that the policy has excluded, by the id of their cgroup or of its pod's.
    pub(super) fn add_excluded(&self, excluded: FxHashMap<u64, u64>) {
        if !excluded.is_empty() {
            self.send(Message::Excluded(excluded));
        }
    }

    /// Begins the first window: nothing before it counts.
    pub(super) fn begin_window(&self) {
        self.send(Message::BeginWindow);
    }

    /// Ends a window. Its accounts come when they are read.
    pub(super) fn end_window(&self) -> Receiver<Vec<ContainerUsage>> {
        let (reply, accounts) = channel();
        self.send(Message::EndWindow(reply));
        accounts
    }

    fn send(&self, message: Message) {
        let sent = self.to.as_ref().map(|to| to.try_send(message));
        if let Some(Err(TrySendError::Full(_))) = sent {
            self.stats.lock().lost_messages += 1;
        }
    }
}

fn run(
    table: &mut AccountTable,
    messages: &Receiver<Message>,
    read: impl Fn(&Path) -> Option<CpuTime>,
    stats: &Stats<ContainerStats>,
) {
    for message in messages {
        match message {
            Message::Changed(CgroupChange::Appeared(cgroup)) => table.add(cgroup, &read),
            Message::Changed(CgroupChange::Gone(cgroup)) => table.end(&cgroup),
            Message::Sampled(sampled) => table.add_sampled(sampled, &read),
            Message::Excluded(excluded) => table.add_excluded(&excluded),
            Message::BeginWindow => table.begin_window(&read),
            Message::EndWindow(reply) => {
                // The sampler leaves the answer at its end.
                let _ = reply.send(table.end_window(&read));
            }
        }
        let mut shared = stats.lock();
        *shared = ContainerStats {
            accounts: table.accounts.len(),
            lost_messages: shared.lost_messages,
            ..table.stats.clone()
        };
    }
}

/// The account of a cgroup that has labels of its own.
struct Account {
    cgroup: Arc<Cgroup>,
    /// The account that contains this one.
    outer: Option<u64>,
    last: CpuTime,
    /// Since the window began.
    used: CpuTime,
    unread_ns: u64,
    excluded: u64,
    has_ended: bool,
}

impl Account {
    /// Reads the account. Returns whether it is still there.
    fn read(&mut self, read: impl Fn(&Path) -> Option<CpuTime>) -> bool {
        let Some(now) = read(&self.cgroup.path) else {
            return false;
        };
        let used = now.since(self.last);
        self.used.used_ns += used.used_ns;
        self.used.throttled_ns += used.throttled_ns;
        self.last = now;
        true
    }
}

/// The accounts of the cgroups that exist, and of those that ended in this window. Reads by a function.
#[derive(Default)]
struct AccountTable {
    /// By cgroup id.
    accounts: FxHashMap<u64, Account>,
    /// The account of each cgroup, its own or that of the one around it, by cgroup id.
    owners: FxHashMap<u64, u64>,
    /// The cgroup ids of paths.
    ids: FxHashMap<Arc<Path>, u64>,
    /// Cgroups that ended in this window: their samples may still come.
    ended: FxHashSet<u64>,
    stats: ContainerStats,
}

impl AccountTable {
    /// Adds a cgroup, with an account of its own if its identity differs from that of the one around it.
    fn add(&mut self, cgroup: Arc<Cgroup>, read: impl Fn(&Path) -> Option<CpuTime>) {
        let parent = cgroup.path.parent().and_then(|parent| self.ids.get(parent));
        let outer = parent.and_then(|parent| self.owners.get(parent)).copied();
        let around = outer.and_then(|outer| self.accounts.get(&outer));
        let none = CgroupIdentity::default();
        let is_new = cgroup.identity != *around.map_or(&none, |outer| &outer.cgroup.identity);
        self.ids.insert(cgroup.path.clone(), cgroup.id);
        // One that was renamed keeps its id.
        self.ended.remove(&cgroup.id);
        if !is_new {
            if let Some(outer) = outer {
                self.owners.insert(cgroup.id, outer);
            }
            return;
        }
        if self.accounts.len() >= ACCOUNTS_MAX {
            self.stats.limited += 1;
            return;
        }
        let account = Account {
            // A new cgroup has used next to nothing; others may be old.
            last: read(&cgroup.path).unwrap_or_default(),
            outer,
            used: CpuTime::default(),
            unread_ns: 0,
            excluded: 0,
            has_ended: false,
            cgroup,
        };
        self.owners.insert(account.cgroup.id, account.cgroup.id);
        self.accounts.insert(account.cgroup.id, account);
    }

    /// Notes that a cgroup was removed.
    fn end(&mut self, cgroup: &Cgroup) {
        if self.ids.get(&cgroup.path) == Some(&cgroup.id) {
            self.ids.remove(&cgroup.path);
        }
        if let Some(account) = self.accounts.get_mut(&cgroup.id) {
            account.has_ended = true;
        }
        self.ended.insert(cgroup.id);
    }

    /// Adds CPU time that was sampled since the last call, and reads the accounts that it belongs to.
    fn add_sampled(
        &mut self,
        sampled: FxHashMap<u64, u64>,
        read: impl Fn(&Path) -> Option<CpuTime>,
    ) {
        let mut by_account: FxHashMap<u64, u64> = FxHashMap::default();
        for (id, ns) in sampled {
            if let Some(owner) = self.owners.get(&id) {
                *by_account.entry(*owner).or_default() += ns;
            }
        }
        for (id, ns) in by_account {
            let Some(account) = self.accounts.get_mut(&id) else {
                continue;
            };
            self.stats.sampled_ns += ns;
            if account.has_ended || !account.read(&read) {
                account.unread_ns += ns;
            }
        }
    }

    /// Adds samples that the policy has excluded.
    fn add_excluded(&mut self, excluded: &FxHashMap<u64, u64>) {
        for (id, samples) in excluded {
            let owner = self.owners.get(id);
            if let Some(account) = owner.and_then(|owner| self.accounts.get_mut(owner)) {
                account.excluded += samples;
            }
        }
    }

    /// Reads all accounts, and begins the first window with them.
    fn begin_window(&mut self, read: impl Fn(&Path) -> Option<CpuTime>) {
        let before = self.stats.clone();
        self.end_window(read);
        self.stats = before;
    }

    /// Reads all accounts, and begins the next window.
    fn end_window(&mut self, read: impl Fn(&Path) -> Option<CpuTime>) -> Vec<ContainerUsage> {
        let mut inner: FxHashMap<u64, u64> = FxHashMap::default();
        for account in self.accounts.values_mut() {
            if !account.has_ended {
                account.read(&read);
            }
            if let Some(outer) = account.outer {
                *inner.entry(outer).or_default() += account.used.used_ns;
            }
        }
        let mut usages = Vec::new();
        for (id, account) in &mut self.accounts {
            let mut kernel = mem::take(&mut account.used);
            let inner_ns = inner.get(id).copied().unwrap_or(0);
            kernel.used_ns = kernel.used_ns.saturating_sub(inner_ns);
            let unread_ns = mem::take(&mut account.unread_ns);
            self.stats.kernel_ns += kernel.used_ns;
            self.stats.throttled_ns += kernel.throttled_ns;
            self.stats.unread_ns += unread_ns;
            let excluded = mem::take(&mut account.excluded);
            if kernel != CpuTime::default() || unread_ns > 0 || excluded > 0 {
                usages.push(ContainerUsage {
                    identity: account.cgroup.identity.clone(),
                    kernel,
                    unread_ns,
                    excluded,
                });
            }
        }
        for id in self.ended.drain() {
            self.owners.remove(&id);
            self.accounts.remove(&id);
        }
        usages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A table whose kernel is the test's.
    #[derive(Default)]
    struct Fixture {
        table: AccountTable,
        kernel: FxHashMap<String, CpuTime>,
    }

    fn read(kernel: &FxHashMap<String, CpuTime>, path: &Path) -> Option<CpuTime> {
        kernel.get(path.to_str().unwrap()).copied()
    }

    impl Fixture {
        fn cgroup(id: u64, path: &str) -> Arc<Cgroup> {
            Arc::new(Cgroup::new(id, Path::new(path)))
        }

        fn set(&mut self, path: &str, used_ms: u64, throttled_ms: u64) {
            let time = CpuTime {
                used_ns: used_ms * MS,
                throttled_ns: throttled_ms * MS,
            };
            self.kernel.insert(path.into(), time);
        }

        fn add(&mut self, id: u64, path: &str) {
            self.table
                .add(Self::cgroup(id, path), |path| read(&self.kernel, path));
        }

        fn sample(&mut self, id: u64, ms: u64) {
            self.table
                .add_sampled([(id, ms * MS)].into_iter().collect(), |path| {
                    read(&self.kernel, path)
                });
        }

        fn end(&mut self, id: u64, path: &str) {
            self.kernel.remove(path);
            self.table.end(&Self::cgroup(id, path));
        }

        /// Ends a window: "name kernel throttled unread" in milliseconds, sorted. The name is the first character of a container's id,
        /// or the unit.
        fn end_window(&mut self) -> Vec<String> {
            let usages = self.table.end_window(|path| read(&self.kernel, path));
            let shown = usages.iter().map(|usage| {
                let CgroupIdentity {
                    container_id, unit, ..
                } = &usage.identity;
                let container = container_id.as_deref().map_or("", |id| &id[..1]);
                let unit = unit.as_deref().unwrap_or("");
                let CpuTime {
                    used_ns,
                    throttled_ns,
                } = usage.kernel;
                format!(
                    "{container}{unit} {} {} {}",
                    used_ns / MS,
                    throttled_ns / MS,
                    usage.unread_ns / MS
                )
            });
            let mut shown: Vec<String> = shown.collect();
            shown.sort();
            shown
        }
    }

    fn container(digit: &str) -> String {
        format!("kubepods/pod{}/{}", "1".repeat(32), digit.repeat(64))
    }

    /// Check that a window has what was used in it, of each container once, and that what a cgroup had used before it was found is left
    /// out.
    #[test]
    fn windows_have_what_was_used_in_them() {
        let mut fixture = Fixture::default();
        let [a, b] = ["a", "b"].map(container);
        let pod = a.rsplit_once('/').unwrap().0.to_owned();
        fixture.set(&pod, 1000, 0);
        fixture.set(&a, 900, 5);
        for (id, path) in [(1, ""), (2, "kubepods"), (3, &pod), (4, &a)] {
            fixture.add(id, path);
        }
        fixture.add(5, &format!("{a}/below"));
        assert!(fixture.end_window().is_empty());
        fixture.set(&a, 1150, 25);
        fixture.set(&pod, 1300, 0);
        fixture.add(6, &b);
        fixture.set(&b, 40, 0);
        // The pod itself used 10 ms, beside its containers' 290 ms.
        assert_eq!(fixture.end_window(), [" 10 0 0", "a 250 20 0", "b 40 0 0"]);
        assert!(fixture.end_window().is_empty());
        fixture.set(&a, 1151, 25);
        fixture.set(&pod, 1301, 0);
        assert_eq!(fixture.end_window(), ["a 1 0 0"]);
    }

    /// Check that sampled accounts are read in between, so that one that ends loses only what was sampled after; and that nothing of an
    /// ended cgroup remains.
    #[test]
    fn ended_cgroups_are_partly_unread() {
        let mut fixture = Fixture::default();
        let a = container("a");
        fixture.add(1, "");
        fixture.set(&a, 0, 0);
        fixture.add(4, &a);
        let below = format!("{a}/below");
        fixture.add(5, &below);
        fixture.set(&a, 700, 0);
        fixture.sample(5, 690);
        fixture.end(5, &below);
        fixture.end(4, &a);
        fixture.sample(4, 30);
        fixture.sample(5, 10);
        fixture.sample(99, 10);
        assert_eq!(fixture.end_window(), ["a 700 0 40"]);
        let stats = &fixture.table.stats;
        assert_eq!(
            (stats.kernel_ns, stats.sampled_ns, stats.unread_ns),
            (700 * MS, 730 * MS, 40 * MS)
        );
        assert!(fixture.end_window().is_empty());
        let AccountTable {
            accounts,
            owners,
            ids,
            ended,
            ..
        } = &fixture.table;
        assert!(accounts.is_empty() && owners.is_empty() && ended.is_empty());
        assert_eq!(ids.len(), 1, "the root");
    }

    /// Check that the time of a container in a unit is not the unit's too, and that a renamed unit goes on.
    #[test]
    fn inner_accounts_are_taken_out_of_outer_ones() {
        let mut fixture = Fixture::default();
        let inner = format!("user@1000.service/{}", "c".repeat(64));
        for (id, path) in [(1, ""), (2, "user@1000.service"), (3, &inner)] {
            fixture.set(path, 0, 0);
            fixture.add(id, path);
        }
        fixture.set("user@1000.service", 500, 0);
        fixture.set(&inner, 200, 0);
        assert_eq!(
            fixture.end_window(),
            ["cuser@1000.service 200 0 0", "user@1000.service 300 0 0"]
        );
        fixture.end(3, &inner);
        fixture.end(2, "user@1000.service");
        fixture.set("b.service", 500, 0);
        fixture.add(2, "b.service");
        fixture.set("b.service", 600, 0);
        assert_eq!(fixture.end_window(), ["b.service 100 0 0"]);
        assert_eq!(fixture.table.accounts.len(), 1);
    }

    /// Check that excluded samples are in the account of the cgroup that was named, once, also without CPU time.
    #[test]
    fn excluded_samples_have_an_account() {
        let mut fixture = Fixture::default();
        let container = container("a");
        let pod = container.rsplit_once('/').unwrap().0.to_owned();
        for (id, path) in [(1, ""), (2, &*pod), (3, &container), (4, "x")] {
            fixture.add(id, path);
        }
        let excluded = [(2, 5), (3, 2), (4, 1), (99, 1)].into_iter().collect();
        fixture.table.add_excluded(&excluded);
        let usages = fixture.table.end_window(|_| None);
        let mut shown: Vec<_> = usages
            .iter()
            .map(|usage| (usage.identity.container_id.is_some(), usage.excluded))
            .collect();
        shown.sort_unstable();
        assert_eq!(shown, [(false, 5), (true, 2)]);
        assert!(fixture.table.end_window(|_| None).is_empty());
    }

    /// Check that accounts beyond the limit are left out and counted.
    #[test]
    fn accounts_are_bounded() {
        let mut fixture = Fixture::default();
        for id in 0..=ACCOUNTS_MAX as u64 {
            fixture.add(id, &format!("u{id}.service"));
        }
        assert_eq!(fixture.table.accounts.len(), ACCOUNTS_MAX);
        assert_eq!(fixture.table.stats.limited, 1);
    }

    /// Check that the thread answers in order, also a subscriber's changes, and that without accounts the answer comes at once.
    #[test]
    fn the_thread_answers() {
        let root = tempfile::tempdir().unwrap();
        let files = CpuFiles::V2 {
            mount: root.path().into(),
        };
        let accounts = ContainerAccounts::start(Some(files), Stats::default()).unwrap();
        let stat = root.path().join("a.service/cpu.stat");
        std::fs::create_dir(stat.parent().unwrap()).unwrap();
        let write = |usage: &str| std::fs::write(&stat, format!("usage_usec {usage}\n")).unwrap();
        write("5");
        let mut subscriber = accounts.subscriber();
        subscriber(&CgroupChange::Appeared(Fixture::cgroup(7, "a.service")));
        assert!(accounts.end_window().recv().unwrap().is_empty());
        write("9");
        accounts.add_sampled([(7, 10 * MS)].into_iter().collect());
        let usages = accounts.end_window().recv().unwrap();
        assert_eq!((usages.len(), usages[0].kernel.used_ns), (1, 4000));
        assert_eq!(accounts.stats.lock().sampled_ns, 10 * MS);
        let none = ContainerAccounts::start(None, Stats::default()).unwrap();
        assert!(none.end_window().recv().is_err());
    }
}
