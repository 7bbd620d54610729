//! The parts of the collector that enforce a policy, and what comes out of the kernel.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use collector::{
    cgroup::{Cgroups, Watcher},
    clock::monotonic_ns,
    kubernetes::{ClusterAccess, NodePods, PodWatch, PodWatchOptions},
    metrics::Stats,
    policy::{Enforcer, EnforcerStats, KnownPolicy, PolicyState, SourceState},
    sample::{
        Batch, CgroupHierarchy, Event, PidNamespace, Program, ProgramOptions, Schedule, Timers,
        read_online_cpus,
    },
};
use k8s::Policy;
use profiler_bpf::outcome::Outcome;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{fake_api::FakeApi, tree::uid};

const POD: &str = include_str!("../../../testdata/pods/bare.json");

/// Seen samples, and the program's count of excluded ones.
#[derive(Default)]
struct Seen {
    /// Number and last time by cgroup id.
    samples: HashMap<u64, (u64, u64)>,
    excluded: u64,
    drains: u64,
}

/// The program with its timers, the cgroups, the pods and the policy.
pub(crate) struct Rig {
    pub(crate) enforcer: Enforcer,
    api: FakeApi,
    pods: NodePods,
    policy: PolicyState,
    stats: Stats<EnforcerStats>,
    seen: Arc<Mutex<Seen>>,
    /// Excluded samples by the cgroup id of the entry.
    excluded: Arc<Mutex<HashMap<u64, u64>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    cgroups: Cgroups,
    _pod_watch: PodWatch,
    _directory: TempDir,
}

impl Rig {
    pub(crate) fn start(hierarchy: &CgroupHierarchy, policy: &str) -> Result<Self> {
        let api = FakeApi::start();
        let directory = TempDir::new()?;
        let pods = NodePods::default();
        let options = PodWatchOptions::new(write_kubeconfig(&directory, &api)?, "node-1");
        let pod_watch = PodWatch::start(options, pods.clone())?;
        let online = read_online_cpus()?;
        let mut program = Program::load(&ProgramOptions {
            cpus: online.len(),
            hierarchy,
            walk_budget_ppm: 8000,
            prove_one_in: 0,
            has_policy: true,
            namespace: PidNamespace::detect(),
        })?;
        let state = PolicyState::unread();
        state.set(known(policy)?, SourceState::Current);
        let stats = Stats::default();
        let kernel = program.take_verdicts().context("no verdicts")?;
        let enforcer = Enforcer::new(state.clone(), pods.clone(), kernel, stats.clone());
        let cgroups = Cgroups::new(hierarchy)?;
        let watcher = Watcher::new(cgroups.clone(), vec![enforcer.subscriber()]);
        let watcher = watcher.context("no hierarchy")?;
        thread::spawn(move || watcher.run());
        let stop = Arc::<AtomicBool>::default();
        let excluded = Arc::<Mutex<HashMap<u64, u64>>>::default();
        let (own, flag, counts) = (enforcer.clone(), stop.clone(), excluded.clone());
        let enforces = thread::spawn(move || {
            let receive = |more: rustc_hash::FxHashMap<u64, u64>| {
                let mut counts = counts.lock().expect("no test panicked");
                for (id, count) in more {
                    *counts.entry(id).or_default() += count;
                }
            };
            own.run(receive, &flag);
        });
        let schedule = Schedule::new(100);
        let mut timers = Timers::new(Event::CpuClock, schedule, false, program.descriptor()?)?;
        timers.follow(&online)?;
        timers.start()?;
        let seen = Arc::<Mutex<Seen>>::default();
        let (own, flag) = (seen.clone(), stop.clone());
        let drains = thread::spawn(move || {
            let _timers = timers;
            while !flag.load(Ordering::Relaxed) {
                drain(&mut program, &own);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let rig = Self {
            enforcer,
            api,
            pods,
            policy: state,
            stats,
            seen,
            excluded,
            stop,
            threads: vec![enforces, drains],
            cgroups,
            _pod_watch: pod_watch,
            _directory: directory,
        };
        wait_until("pods and cgroups are known", || {
            rig.pods.has_listed() && rig.cgroups.stats().scans > 0
        })?;
        Ok(rig)
    }

    /// The API server tells of a pod.
    pub(crate) fn apply_pod(&self, number: u32, namespace: &str) {
        let mut pod: Value = serde_json::from_str(POD).expect("a pod");
        pod["metadata"]["name"] = json!(format!("pod-{number}"));
        pod["metadata"]["namespace"] = json!(namespace);
        pod["metadata"]["uid"] = json!(uid(number));
        self.api.cluster().apply(pod);
    }

    /// Puts a policy in force. Returns the time.
    pub(crate) fn set_policy(&self, text: &str) -> u64 {
        let now_ns = monotonic_ns();
        self.policy
            .set(known(text).expect("a policy"), SourceState::Current);
        now_ns
    }

    /// Samples with this cgroup id.
    pub(crate) fn samples(&self, id: u64) -> u64 {
        self.of(id).0
    }

    /// The time of the last one, nanoseconds of CLOCK_MONOTONIC.
    pub(crate) fn last_ns(&self, id: u64) -> u64 {
        self.of(id).1
    }

    fn of(&self, id: u64) -> (u64, u64) {
        let seen = self.seen.lock().expect("no test panicked");
        seen.samples.get(&id).copied().unwrap_or_default()
    }

    /// The program's count of the outcome `excluded`.
    pub(crate) fn excluded(&self) -> u64 {
        self.seen.lock().expect("no test panicked").excluded
    }

    /// Samples that the entry of this cgroup has excluded.
    pub(crate) fn excluded_by(&self, id: u64) -> u64 {
        let excluded = self.excluded.lock().expect("no test panicked");
        excluded.get(&id).copied().unwrap_or_default()
    }

    pub(crate) fn stats(&self) -> EnforcerStats {
        *self.stats.lock()
    }

    /// Waits until all samples so far have been seen.
    pub(crate) fn wait_drained(&self) -> Result<()> {
        let drains = || self.seen.lock().expect("no test panicked").drains;
        let before = drains();
        wait_until("drains", || drains() >= before + 2)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn drain(program: &mut Program, seen: &Mutex<Seen>) {
    let mut batch = Batch::default();
    program.drain(&mut batch);
    let counters = program.read_counters().expect("counters");
    let mut seen = seen.lock().expect("no test panicked");
    for sample in batch.samples() {
        let (count, last_ns) = seen.samples.entry(sample.cgroup_id).or_default();
        *count += 1;
        *last_ns = sample.time_ns.max(*last_ns);
    }
    seen.excluded = counters.outcomes[Outcome::Excluded as usize];
    seen.drains += 1;
    let outcomes: u64 = counters.outcomes.iter().sum();
    // The entry of a program that runs just now has no outcome yet.
    assert!(outcomes <= counters.entries, "{counters:?}");
}

fn known(text: &str) -> Result<Arc<KnownPolicy>> {
    Ok(Arc::new(KnownPolicy {
        policy: Policy::parse(text)?,
        revision: String::new(),
    }))
}

fn write_kubeconfig(directory: &TempDir, api: &FakeApi) -> Result<ClusterAccess> {
    let path = directory.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", api.address)}}],
        "users": [{"name": "test", "user": {"token": "secret"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    fs::write(&path, text.to_string())?;
    Ok(ClusterAccess::Kubeconfig(path))
}

pub(crate) fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_done() {
        ensure!(Instant::now() < until, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
