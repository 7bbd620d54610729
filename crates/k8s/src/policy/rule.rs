//! One rule of a policy.

use super::{Action, Decision, pattern::Pattern};
use crate::{
    pod::{Pairs, Pod},
    workload::Workload,
};

/// A rule whose conditions were checked.
#[derive(Debug)]
pub(super) struct Rule<Matcher> {
    pub(super) action: Action,
    pub(super) matcher: Matcher,
    /// For people.
    pub(super) text: Box<str>,
}

impl<Matcher> Rule<Matcher> {
    pub(super) fn decision(&self) -> Decision<'_> {
        match self.action {
            Action::Allow => Decision::Profile,
            Action::Deny => Decision::Exclude { rule: &self.text },
        }
    }
}

/// A label or an annotation, and its value.
pub(super) type PairPattern = (Box<str>, Pattern);

/// Conditions on a pod. An empty list is none.
#[derive(Debug)]
pub(super) struct PodMatcher {
    pub(super) namespaces: Vec<Pattern>,
    pub(super) labels: Vec<PairPattern>,
    pub(super) annotations: Vec<PairPattern>,
    pub(super) workloads: Vec<WorkloadPattern>,
}

/// Kind and name of a workload.
#[derive(Debug)]
pub(super) struct WorkloadPattern {
    /// In lower case, since `kubectl` takes `deployment/cart` too.
    pub(super) kind: Pattern,
    pub(super) name: Pattern,
}

impl PodMatcher {
    /// Whether all conditions match; `None` while that depends on a workload that is not known.
    pub(super) fn matches(&self, pod: &Pod, workload: Option<Workload<'_>>) -> Option<bool> {
        let mut namespaces = self.namespaces.iter();
        let is_namespace =
            self.namespaces.is_empty() || namespaces.any(|pattern| pattern.matches(&pod.namespace));
        let has_pairs =
            has_all(&pod.labels, &self.labels) && has_all(&pod.annotations, &self.annotations);
        if !is_namespace || !has_pairs {
            return Some(false);
        } else if self.workloads.is_empty() {
            return Some(true);
        }
        let workload = workload?;
        let kind = workload.kind.to_ascii_lowercase();
        let mut workloads = self.workloads.iter();
        Some(
            workloads
                .any(|pattern| pattern.kind.matches(&kind) && pattern.name.matches(workload.name)),
        )
    }
}

fn has_all(pairs: &Pairs, patterns: &[PairPattern]) -> bool {
    let mut patterns = patterns.iter();
    patterns.all(|(name, pattern)| pairs.get(name).is_some_and(|value| pattern.matches(value)))
}

/// Conditions on a process outside of pods. An empty list is none.
#[derive(Debug)]
pub(super) struct HostMatcher {
    pub(super) units: Vec<Pattern>,
    pub(super) cgroups: Vec<Pattern>,
}

impl HostMatcher {
    pub(super) fn matches(&self, unit: Option<&str>, cgroup_path: &str) -> bool {
        let (mut units, mut cgroups) = (self.units.iter(), self.cgroups.iter());
        let is_unit = self.units.is_empty()
            || unit.is_some_and(|unit| units.any(|pattern| pattern.matches(unit)));
        let is_cgroup =
            self.cgroups.is_empty() || cgroups.any(|pattern| pattern.matches_path(cgroup_path));
        is_unit && is_cgroup
    }
}
