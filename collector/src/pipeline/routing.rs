//! Which samples are counted, wait for a read, or are dropped.
//!
//! In: a sample, its process and cgroup as far as they are known, the policy's verdict, and the time. Out: its [`Route`]. Keeps the
//! waiting samples, and what each cgroup had counted and dropped for its CPU account.

use rustc_hash::FxHashMap;

use super::{
    attribution::Owner,
    dropped::Stage,
    unattributed::{Unattributed, Waiting, WaitsFor},
};
use crate::{
    policy::{Enforcer, Verdict},
    process::Process,
    sample::{Batch, Sample},
};

/// The next step of a sample.
#[derive(Debug)]
pub(super) enum Route {
    /// It is counted. The process is `None` for the idle task, and for one that is gone or was not read in time.
    Count(Option<Process>),
    /// It is kept, and routed again later.
    Wait(WaitsFor),
    /// It is dropped.
    Drop(Stage),
}

impl Route {
    /// A sample waits until its process and cgroup have been read and its pod is decided, at most until `until_ns`. Then it is counted
    /// without process and cgroup, and dropped without a decision.
    fn of(owner: Owner, verdict: Verdict, until_ns: u64, now_ns: u64) -> Self {
        let (waits_for, process) = match (owner, verdict) {
            (_, Verdict::Exclude) => return Self::Drop(Stage::Policy),
            (Owner::Known(process), Verdict::Take) => return Self::Count(process),
            (Owner::Known(process) | Owner::CgroupPending(process), _) => {
                (WaitsFor::Cgroup(process.clone()), process)
            }
            (Owner::Pending, _) => (WaitsFor::Process, None),
        };
        match verdict {
            Verdict::Undecided { until_ns: held_ns } if now_ns >= until_ns.min(held_ns) => {
                Self::Drop(Stage::Undecided)
            }
            Verdict::Take if now_ns >= until_ns => Self::Count(process),
            _ => Self::Wait(waits_for),
        }
    }
}

/// Routes samples.
pub(super) struct Routing {
    /// `None` without a policy.
    enforcer: Option<Enforcer>,
    waiting: Unattributed,
    /// CPU time of a sample.
    sample_ns: u64,
    usage: SampledUsage,
}

/// Samples of each cgroup since the last message to the accounts, by cgroup id.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SampledUsage {
    /// CPU time sampled, in nanoseconds.
    pub(super) sampled: FxHashMap<u64, u64>,
    /// Samples that the policy dropped.
    pub(super) excluded: FxHashMap<u64, u64>,
}

impl Routing {
    /// No sample waits.
    pub(super) fn new(enforcer: Option<Enforcer>, sample_ns: u64) -> Self {
        Self {
            enforcer,
            waiting: Unattributed::default(),
            sample_ns,
            usage: SampledUsage::default(),
        }
    }

    /// Drops a sample that the policy excludes. Its process need not be looked for.
    pub(super) fn exclude(&mut self, sample: &Sample) -> Option<Stage> {
        if self.verdict(sample) != Verdict::Exclude {
            return None;
        }
        self.note_dropped(sample);
        Some(Stage::Policy)
    }

    /// Routes a sample, and keeps it if it is to wait.
    pub(super) fn route(
        &mut self,
        (batch, sample): (&Batch, &Sample),
        owner: Owner,
        until_ns: u64,
        now_ns: u64,
    ) -> Route {
        let verdict = self.verdict(sample);
        let mut route = Route::of(owner, verdict, until_ns, now_ns);
        if let Route::Wait(waits_for) = &route {
            let waiting = Waiting {
                waits_for: waits_for.clone(),
                until_ns,
            };
            if !self.waiting.push(batch, sample, waiting) {
                // Without room its time is over.
                let owner = waits_for.clone().into();
                route = Route::of(owner, verdict, until_ns, u64::MAX);
            }
        }
        match route {
            Route::Count(_) => {
                *self.usage.sampled.entry(sample.cgroup_id).or_default() += self.sample_ns;
            }
            Route::Wait(_) => {}
            Route::Drop(_) => self.note_dropped(sample),
        }
        route
    }

    fn verdict(&self, sample: &Sample) -> Verdict {
        let enforcer = self.enforcer.as_ref();
        enforcer.map_or(Verdict::Take, |enforcer| enforcer.verdict(sample.cgroup_id))
    }

    fn note_dropped(&mut self, sample: &Sample) {
        *self.usage.excluded.entry(sample.cgroup_id).or_default() += 1;
    }

    /// Takes the waiting samples, to be routed again.
    pub(super) fn take_waiting(&mut self) -> (Batch, Vec<Waiting>) {
        self.waiting.take()
    }

    /// Whether a sample waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a sample from before `time_ns` waits.
    pub(super) fn has_before(&self, time_ns: u64) -> bool {
        self.waiting.has_before(time_ns)
    }

    /// Takes what was counted and dropped since the last call.
    pub(super) fn take_usage(&mut self) -> SampledUsage {
        std::mem::take(&mut self.usage)
    }
}

impl From<WaitsFor> for Owner {
    fn from(waits_for: WaitsFor) -> Self {
        match waits_for {
            WaitsFor::Process => Self::Pending,
            WaitsFor::Cgroup(process) => Self::CgroupPending(process),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process::testing::process, sample::testing::sample_record};

    const UNDECIDED: Verdict = Verdict::Undecided { until_ns: 50 };

    /// Shows a route as a word, and whether it has the process.
    fn show(route: &Route) -> String {
        let has = |process: &Option<Process>| if process.is_some() { " a process" } else { "" };
        match route {
            Route::Count(process) => format!("count{}", has(process)),
            Route::Wait(WaitsFor::Process) => "wait for a process".to_owned(),
            Route::Wait(WaitsFor::Cgroup(process)) => {
                format!("wait for the cgroup of{}", has(process))
            }
            Route::Drop(stage) => format!("drop {}", stage.name()),
        }
    }

    fn known() -> Owner {
        Owner::Known(Some(process()))
    }

    fn cgroup_pending() -> Owner {
        Owner::CgroupPending(Some(process()))
    }

    /// Check each owner with each verdict, before and after the time until which a sample waits (100) or its pod is held (50).
    #[test]
    fn routes() {
        let waits = "wait for the cgroup of a process";
        for (owner, verdict, now_ns, expected) in [
            (known as fn() -> Owner, Verdict::Take, 0, "count a process"),
            (known, Verdict::Take, 100, "count a process"),
            (known, Verdict::Exclude, 0, "drop policy"),
            (known, UNDECIDED, 49, waits),
            (known, UNDECIDED, 50, "drop undecided"),
            (known, Verdict::Undecided { until_ns: 200 }, 99, waits),
            (
                known,
                Verdict::Undecided { until_ns: 200 },
                100,
                "drop undecided",
            ),
            (cgroup_pending, Verdict::Take, 99, waits),
            (cgroup_pending, Verdict::Take, 100, "count a process"),
            (cgroup_pending, Verdict::Exclude, 0, "drop policy"),
            (cgroup_pending, UNDECIDED, 49, waits),
            (cgroup_pending, UNDECIDED, 50, "drop undecided"),
            (|| Owner::Pending, Verdict::Take, 99, "wait for a process"),
            (|| Owner::Pending, Verdict::Take, 100, "count"),
            (|| Owner::Pending, Verdict::Exclude, 0, "drop policy"),
            (|| Owner::Pending, UNDECIDED, 49, "wait for a process"),
            (|| Owner::Pending, UNDECIDED, 50, "drop undecided"),
            (|| Owner::Known(None), Verdict::Take, 0, "count"),
        ] {
            let route = Route::of(owner(), verdict, 100, now_ns);
            assert_eq!(show(&route), expected, "{:?} {verdict:?} {now_ns}", owner());
        }
    }

    /// Check that a sample that waits comes out again with what it waits for, and that one without room is counted at once; and that
    /// the CPU time of those that are counted is noted.
    #[test]
    fn samples_wait_while_there_is_room() {
        let mut batch = Batch::default();
        batch.push_record(&sample_record(5, 10, &[1], &[])).unwrap();
        let sample = &batch.samples()[0];
        let mut routing = Routing::new(None, 7);
        assert_eq!(routing.exclude(sample), None);
        let mut route = |owner| show(&routing.route((&batch, sample), owner, 100, 0));
        assert_eq!(route(cgroup_pending()), "wait for the cgroup of a process");
        let mut waiting = 1;
        while route(Owner::Pending) == "wait for a process" {
            waiting += 1;
        }
        assert_eq!(route(Owner::Pending), "count");
        assert_eq!(route(cgroup_pending()), "count a process");
        assert!(routing.is_waiting() && routing.has_before(11) && !routing.has_before(10));
        let (_, taken) = routing.take_waiting();
        assert_eq!((taken.len(), taken[0].until_ns), (waiting, 100));
        assert!(matches!(taken[0].waits_for, WaitsFor::Cgroup(Some(_))));
        assert!(!routing.is_waiting());
        let usage = routing.take_usage();
        assert_eq!(usage.sampled[&sample.cgroup_id], 3 * 7);
        assert!(usage.excluded.is_empty());
        assert_eq!(routing.take_usage(), SampledUsage::default());
    }
}
