//! The verdicts on all cgroups, and the kernel's entries that follow from them. Pure: times are arguments, nanoseconds of
//! CLOCK_MONOTONIC.
//!
//! In: the policy, the node's pods, and changes of the tree of cgroups. Out: the verdict on the cgroup of a sample, and writes to the
//! kernel's map of verdicts.
//!
//! A cgroup within a pod has the pod's verdict, any other its own. The kernel gets an entry only where it would find another verdict
//! without one: for the directory of an excluded pod, and for that of a pod which is allowed below an excluded cgroup (`host: deny`).

use std::{
    collections::{VecDeque, hash_map},
    mem,
    path::Path,
    sync::Arc,
};

use k8s::{Decision, PodTable};
use profiler_bpf::policy::{LEVELS, VERDICTS_MAX};
use rustc_hash::FxHashMap;

use super::{EnforcerStats, KnownPolicy};
use crate::{
    cgroup::{Cgroup, CgroupChange},
    sample::VerdictWrite,
};

/// Time for which the samples of an undecided pod are held, from the moment when it became undecided. The API server tells of a pod
/// at the time when its directory appears, a second before its first container.
const HELD_NS: u64 = 2_000_000_000;

/// Time for which the verdict on a cgroup that ended is kept, for its last samples, as long as its identity: see `cgroup::table`.
const ENDED_KEPT_NS: u64 = 60_000_000_000;

/// Cgroups that ended and are kept: as many as may live, at some 150 bytes each. The oldest are forgotten beyond it.
const ENDED_MAX: usize = 32_768;

/// The verdict on a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its samples are taken.
    Take,
    /// Its samples are not.
    Exclude,
    /// Its samples are held until this time. Without a verdict then, they are dropped.
    Undecided {
        /// Nanoseconds of CLOCK_MONOTONIC.
        until_ns: u64,
    },
}

/// The pod of some cgroups.
struct Pod {
    verdict: Verdict,
    /// Its cgroups in the table.
    cgroups: usize,
    /// Those of them that exist.
    living: usize,
}

struct Node {
    cgroup: Arc<Cgroup>,
    parent: Option<u64>,
    verdict: Verdict,
    is_living: bool,
}

impl Node {
    fn is_excluded(&self) -> bool {
        self.verdict == Verdict::Exclude
    }
}

/// The verdicts.
pub(super) struct VerdictTable {
    /// `None` until it was read.
    policy: Option<Arc<KnownPolicy>>,
    /// By cgroup id; cgroups that ended are among them for a while.
    nodes: FxHashMap<u64, Node>,
    /// Ids of the cgroups that exist, by their paths.
    ids: FxHashMap<Arc<Path>, u64>,
    /// When the cgroups that ended are forgotten, and their ids, in this order.
    ended: VecDeque<(u64, u64)>,
    /// By the uid in the paths of their cgroups.
    pods: FxHashMap<Arc<str>, Pod>,
    /// The kernel's entries, by cgroup id: whether they exclude.
    entries: FxHashMap<u64, bool>,
    entries_max: usize,
    /// An entry that was left out may have room now.
    is_stale: bool,
    writes: Vec<VerdictWrite>,
    left_out: usize,
    limited: u64,
}

impl Default for VerdictTable {
    fn default() -> Self {
        Self::with_entries(VERDICTS_MAX as usize)
    }
}

impl VerdictTable {
    /// A table for a map of so many entries. The policy has not been read.
    fn with_entries(entries_max: usize) -> Self {
        Self {
            policy: None,
            nodes: FxHashMap::default(),
            ids: FxHashMap::default(),
            ended: VecDeque::new(),
            pods: FxHashMap::default(),
            entries: FxHashMap::default(),
            entries_max,
            is_stale: false,
            writes: Vec::new(),
            left_out: 0,
            limited: 0,
        }
    }

    /// The verdict on the cgroup with this id. One that is not known, such as one that was removed before it could be read, may be an
    /// excluded one.
    pub(super) fn verdict(&self, id: u64) -> Verdict {
        match (self.nodes.get(&id), &self.policy) {
            (Some(node), _) => node.verdict,
            (None, Some(known)) if !known.policy.denies_pods() && !known.policy.denies_host() => {
                Verdict::Take
            }
            (None, _) => Verdict::Undecided { until_ns: u64::MAX },
        }
    }

    /// Puts another policy in force.
    pub(super) fn set_policy(
        &mut self,
        policy: Option<Arc<KnownPolicy>>,
        pods: &PodTable,
        now_ns: u64,
    ) {
        self.policy = policy;
        self.decide_pods(pods, now_ns, |_| true);
        let policy = self.policy.clone();
        let hosts = self.nodes.values_mut();
        for node in hosts.filter(|node| node.cgroup.identity.pod_uid.is_none()) {
            node.verdict = decide_host(policy.as_deref(), &node.cgroup);
        }
        self.update_entries();
    }

    /// Decides the pods again, of which some have changed. One that the API server has forgotten, and that still has a cgroup, keeps its
    /// verdict.
    pub(super) fn set_pods(&mut self, pods: &PodTable, now_ns: u64) {
        if self.decide_pods(pods, now_ns, |uid| pods.find_pod(uid).is_some()) {
            self.update_entries();
        }
    }

    /// Applies a change of the tree.
    pub(super) fn apply(&mut self, change: &CgroupChange, pods: &PodTable, now_ns: u64) {
        match change {
            CgroupChange::Appeared(cgroup) => self.add(cgroup.clone(), pods, now_ns),
            CgroupChange::Gone(cgroup) => self.end(cgroup, now_ns),
        }
    }

    /// Forgets cgroups whose last samples have been counted, and writes entries that have room now.
    pub(super) fn maintain(&mut self, now_ns: u64) {
        let is_due = |(until_ns, _): &(u64, u64)| *until_ns <= now_ns;
        while self.ended.len() > ENDED_MAX || self.ended.front().is_some_and(is_due) {
            if let Some((_, id)) = self.ended.pop_front()
                && self.nodes.get(&id).is_some_and(|node| !node.is_living)
            {
                self.forget(id);
            }
        }
        if self.is_stale {
            self.update_entries();
        }
    }

    /// The writes since the last call.
    pub(super) fn take_writes(&mut self) -> Vec<VerdictWrite> {
        mem::take(&mut self.writes)
    }

    /// Notes that the kernel has refused a write.
    pub(super) fn refuse(&mut self, write: VerdictWrite) {
        self.limited += 1;
        if let VerdictWrite::Exclude(id) | VerdictWrite::Take(id) = write {
            self.entries.remove(&id);
            self.left_out += 1;
            self.is_stale = true;
        }
    }

    /// The counts.
    pub(super) fn stats(&self) -> EnforcerStats {
        let living = self.pods.values().filter(|pod| pod.living > 0);
        let (mut excluded_pods, mut undecided_pods) = (0, 0);
        for pod in living {
            match pod.verdict {
                Verdict::Take => {}
                Verdict::Exclude => excluded_pods += 1,
                Verdict::Undecided { .. } => undecided_pods += 1,
            }
        }
        EnforcerStats {
            entries: self.entries.len(),
            left_out: self.left_out,
            limited: self.limited,
            excluded_pods,
            undecided_pods,
        }
    }

    fn add(&mut self, cgroup: Arc<Cgroup>, pods: &PodTable, now_ns: u64) {
        // One that was renamed keeps its id.
        self.forget(cgroup.id);
        let verdict = match &cgroup.identity.pod_uid {
            Some(uid) => self.join_pod(uid, pods, now_ns),
            None => decide_host(self.policy.as_deref(), &cgroup),
        };
        let parent = cgroup.path.parent().and_then(|parent| self.ids.get(parent));
        let node = Node {
            parent: parent.copied(),
            verdict,
            is_living: true,
            cgroup,
        };
        let id = node.cgroup.id;
        self.ids.insert(node.cgroup.path.clone(), id);
        self.nodes.insert(id, node);
        if let Some(excludes) = self.needed_entry(id) {
            self.enter(id, excludes);
        }
    }

    /// Adds a cgroup to its pod, whose verdict it gets.
    fn join_pod(&mut self, uid: &Arc<str>, pods: &PodTable, now_ns: u64) -> Verdict {
        let pod = match self.pods.entry(uid.clone()) {
            hash_map::Entry::Occupied(pod) => pod.into_mut(),
            hash_map::Entry::Vacant(vacant) => {
                let verdict = decide_pod(self.policy.as_deref(), uid, pods, now_ns);
                vacant.insert(Pod {
                    verdict,
                    cgroups: 0,
                    living: 0,
                })
            }
        };
        pod.cgroups += 1;
        pod.living += 1;
        pod.verdict
    }

    fn end(&mut self, cgroup: &Cgroup, now_ns: u64) {
        let id = cgroup.id;
        if self.ids.get(&cgroup.path) == Some(&id) {
            self.ids.remove(&cgroup.path);
        }
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_living) else {
            return;
        };
        node.is_living = false;
        let uid = node.cgroup.identity.pod_uid.as_ref();
        if let Some(pod) = uid.and_then(|uid| self.pods.get_mut(uid)) {
            pod.living -= 1;
        }
        self.ended
            .push_back((now_ns.saturating_add(ENDED_KEPT_NS), id));
        if self.entries.remove(&id).is_some() {
            self.writes.push(VerdictWrite::Remove(id));
        }
        self.is_stale |= self.left_out > 0;
    }

    /// Forgets a cgroup, and its pod with its last one.
    fn forget(&mut self, id: u64) {
        let Some(node) = self.nodes.remove(&id) else {
            return;
        };
        let Some(uid) = node.cgroup.identity.pod_uid.as_ref() else {
            return;
        };
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.cgroups -= 1;
            pod.living -= usize::from(node.is_living);
            if pod.cgroups == 0 {
                self.pods.remove(uid);
            }
        }
    }

    /// Decides those of the pods that are to be decided. Returns whether a verdict has changed.
    fn decide_pods(&mut self, pods: &PodTable, now_ns: u64, is_due: impl Fn(&str) -> bool) -> bool {
        let mut has_changed = false;
        for (uid, pod) in self.pods.iter_mut().filter(|(uid, _)| is_due(uid)) {
            let verdict = decide_pod(self.policy.as_deref(), uid, pods, now_ns);
            let is_still_undecided = matches!(
                (pod.verdict, verdict),
                (Verdict::Undecided { .. }, Verdict::Undecided { .. })
            );
            if pod.verdict != verdict && !is_still_undecided {
                pod.verdict = verdict;
                has_changed = true;
            }
        }
        if has_changed {
            for node in self.nodes.values_mut() {
                let uid = node.cgroup.identity.pod_uid.as_ref();
                if let Some(pod) = uid.and_then(|uid| self.pods.get(uid)) {
                    node.verdict = pod.verdict;
                }
            }
        }
        has_changed
    }

    /// Brings the kernel's entries up to date. 1,000 cgroups take some 0.1 ms.
    fn update_entries(&mut self) {
        let living = self.nodes.iter().filter(|(_, node)| node.is_living);
        let needed = living.filter_map(|(id, _)| Some((*id, self.needed_entry(*id)?)));
        let needed: FxHashMap<u64, bool> = needed.collect();
        let is_missing = |(id, excludes): &(&u64, &bool)| self.entries.get(id) != Some(excludes);
        let missing = needed.iter().filter(is_missing);
        let mut missing: Vec<(bool, u64)> =
            missing.map(|(id, excludes)| (*excludes, *id)).collect();
        // Allowed ones first: what an excluding entry would have kept back is dropped later, what an allowing one would have let
        // through is lost.
        missing.sort_unstable();
        (self.is_stale, self.left_out) = (false, 0);
        // If there is room for both, what stays excluded by another entry is excluded all the time.
        let removes_first = self.entries.len() + missing.len() > self.entries_max;
        if removes_first {
            self.leave_all_but(&needed);
        }
        for (excludes, id) in missing {
            self.enter(id, excludes);
        }
        if !removes_first {
            self.leave_all_but(&needed);
        }
    }

    fn leave_all_but(&mut self, needed: &FxHashMap<u64, bool>) {
        let obsolete = self.entries.extract_if(|id, _| !needed.contains_key(id));
        self.writes
            .extend(obsolete.map(|(id, _)| VerdictWrite::Remove(id)));
    }

    /// The entry that the kernel needs for a cgroup: whether it excludes.
    fn needed_entry(&self, id: u64) -> Option<bool> {
        let node = self.nodes.get(&id)?;
        let mut parents = std::iter::successors(self.parent(node), |parent| self.parent(parent));
        let is_excluded = node.is_excluded();
        let differs = |parent: &&Node| parent.is_excluded() != is_excluded;
        let is_needed = if is_excluded {
            let levels = parents.position(|parent| differs(&parent));
            levels.unwrap_or_else(|| self.depth(node)) % LEVELS == 0
        } else {
            parents.next().is_some_and(|parent| differs(&parent))
        };
        is_needed.then_some(is_excluded)
    }

    fn parent(&self, node: &Node) -> Option<&Node> {
        self.nodes.get(&node.parent?)
    }

    /// The known cgroups above.
    fn depth(&self, node: &Node) -> usize {
        std::iter::successors(self.parent(node), |parent| self.parent(parent)).count()
    }

    fn enter(&mut self, id: u64, excludes: bool) {
        if self.entries.len() >= self.entries_max && !self.entries.contains_key(&id) {
            self.left_out += 1;
            self.limited += 1;
            return;
        }
        self.entries.insert(id, excludes);
        self.writes.push(if excludes {
            VerdictWrite::Exclude(id)
        } else {
            VerdictWrite::Take(id)
        });
    }
}

fn decide_pod(policy: Option<&KnownPolicy>, uid: &str, pods: &PodTable, now_ns: u64) -> Verdict {
    let undecided = Verdict::Undecided {
        until_ns: now_ns.saturating_add(HELD_NS),
    };
    let Some(known) = policy else {
        return undecided;
    };
    if !known.policy.denies_pods() {
        return Verdict::Take;
    }
    let Some((pod, workload)) = pods.find_pod(uid) else {
        return undecided;
    };
    match known.policy.decide_pod(pod, workload) {
        None => undecided,
        Some(Decision::Profile) => Verdict::Take,
        Some(Decision::Exclude { .. }) => Verdict::Exclude,
    }
}

fn decide_host(policy: Option<&KnownPolicy>, cgroup: &Cgroup) -> Verdict {
    let path = format!("/{}", cgroup.path.display());
    let unit = cgroup.identity.unit.as_deref();
    let decision = policy.map(|known| known.policy.decide_host(unit, &path));
    match decision {
        Some(Decision::Exclude { .. }) => Verdict::Exclude,
        Some(Decision::Profile) | None => Verdict::Take,
    }
}

#[cfg(test)]
mod tests;
