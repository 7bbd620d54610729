//! The thread `enforce`: keeps the kernel's verdicts as the policy wants them, and reads what was excluded.
//!
//! In: the policy in force, the node's pods, and changes of the tree of cgroups. Out: entries of the kernel's map, the verdicts on
//! samples that came through, and the samples that each entry has excluded.
//!
//! A new cgroup is decided on the thread that hears of it, so that the directory of a known pod is in the map a second before its first
//! container. This thread looks for new policies and pods.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{EnforcerStats, KnownPolicy, PolicyNow, PolicyState, Verdict, verdicts::VerdictTable};
use crate::{
    cgroup::{CgroupChange, Subscriber},
    clock::monotonic_ns,
    kubernetes::NodePods,
    metrics::Stats,
    sample::KernelVerdicts,
};

/// Time between two looks at the pods. A new policy wakes the thread.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Time between two readings of what was excluded: 4,096 entries take some 2 ms.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The policy's verdicts. Clones share them.
#[derive(Clone)]
pub struct Enforcer(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    policy: PolicyState,
    pods: NodePods,
    stats: Stats<EnforcerStats>,
}

struct State {
    table: VerdictTable,
    kernel: KernelVerdicts,
    has_warned: bool,
    policy_generation: u64,
    pods_generation: u64,
}

impl Enforcer {
    /// Takes the policy as it is now. `pods` is empty without an API server.
    pub fn new(
        policy: PolicyState,
        pods: NodePods,
        kernel: KernelVerdicts,
        stats: Stats<EnforcerStats>,
    ) -> Self {
        let mut state = State {
            table: VerdictTable::default(),
            kernel,
            has_warned: false,
            policy_generation: policy.generation(),
            pods_generation: 0,
        };
        let now = known(&policy);
        pods.read(|pods| state.table.set_policy(now, pods, monotonic_ns()));
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            policy,
            pods,
            stats,
        }))
    }

    /// Follows the policy and the pods until `stop` is set. `receive` gets the samples that were excluded since the last call, by the
    /// cgroup id of the entry.
    pub fn run(&self, receive: impl Fn(FxHashMap<u64, u64>), stop: &AtomicBool) {
        let mut read = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let generation = self.0.look();
            if read.elapsed() >= READ_INTERVAL {
                read = Instant::now();
                receive(self.0.take_excluded());
            }
            self.0.policy.wait_for_change(generation, LOOK_INTERVAL);
        }
        receive(self.0.take_excluded());
    }

    /// Hears the changes of the tree.
    pub fn subscriber(&self) -> Subscriber {
        let shared = self.0.clone();
        Box::new(move |change| {
            let mut state = shared.state.lock();
            let table = &mut state.table;
            let now_ns = monotonic_ns();
            shared.pods.read(|pods| table.apply(change, pods, now_ns));
            let has_written = state.write();
            // The program does not look up a removed cgroup again, so its remembered verdict may stay.
            if has_written && matches!(change, CgroupChange::Appeared(_)) {
                state.publish();
            }
        })
    }

    /// The verdict on the cgroup with this id.
    pub fn verdict(&self, cgroup_id: u64) -> Verdict {
        self.0.state.lock().table.verdict(cgroup_id)
    }
}

impl Shared {
    fn take_excluded(&self) -> FxHashMap<u64, u64> {
        self.state.lock().kernel.take_excluded()
    }

    /// Applies a new policy, or changes of pods. Returns the policy's generation.
    fn look(&self) -> u64 {
        // Before the policy, which may be a later one.
        let generation = self.policy.generation();
        let now_ns = monotonic_ns();
        let mut state = self.state.lock();
        let State {
            table,
            policy_generation,
            pods_generation,
            ..
        } = &mut *state;
        self.pods.read(|pods| {
            if *policy_generation != generation {
                table.set_policy(known(&self.policy), pods, now_ns);
            } else if *pods_generation != pods.generation() {
                table.set_pods(pods, now_ns);
            }
            (*policy_generation, *pods_generation) = (generation, pods.generation());
        });
        table.maintain(now_ns);
        if state.write() {
            state.publish();
        }
        *self.stats.lock() = state.table.stats();
        generation
    }
}

impl State {
    /// Does the table's writes. Returns whether there were any.
    fn write(&mut self) -> bool {
        let writes = self.table.take_writes();
        let has_writes = !writes.is_empty();
        for write in writes {
            if let Err(err) = self.kernel.write(write) {
                self.table.refuse(write);
                self.warn(&err);
            }
        }
        has_writes
    }

    /// Lets the program forget the verdicts that it remembers.
    fn publish(&mut self) {
        if let Err(err) = self.kernel.publish() {
            self.warn(&err);
        }
    }

    fn warn(&mut self, err: &anyhow::Error) {
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(
                err = format!("{err:#}"),
                "the kernel refuses a verdict of the policy: the collector drops the samples of excluded pods itself (stage policy)"
            );
        }
    }
}

fn known(policy: &PolicyState) -> Option<Arc<KnownPolicy>> {
    match policy.now() {
        PolicyNow::Known(policy) => Some(policy),
        PolicyNow::None | PolicyNow::Unread => None,
    }
}
