//! The pods of the node that a policy excludes, for people.

use k8s::{Decision, PodTable, Policy};

/// Pods to list: kubelet takes 110 on a node by default. With 60 bytes of namespace and name and a rule of 60 they take 12 KB of a
/// report, and 57 KB at most.
const LISTED_MAX: usize = 100;

/// In place of a rule, for a pod that a rule may exclude.
const UNDECIDED: &str = "not decided: a rule is for workloads, and the pod's is not known yet";

/// A pod that is not profiled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExcludedPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// The rule that excludes it.
    pub rule: String,
}

/// The pods that are not profiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExcludedPods {
    /// The first ones by namespace and name.
    pub listed: Vec<ExcludedPod>,
    /// All of them.
    pub count: usize,
}

impl ExcludedPods {
    /// The pods of a table that a policy excludes, or may exclude. Those that ended do not count.
    pub fn find(policy: &Policy, table: &PodTable) -> Self {
        let excluded = table.iter().filter_map(|(pod, workload)| {
            let rule = match policy.decide_pod(pod, workload) {
                Some(Decision::Profile) => return None,
                Some(Decision::Exclude { rule }) => rule,
                None if policy.denies_pods() => UNDECIDED,
                None => return None,
            };
            Some((&*pod.namespace, &*pod.name, rule))
        });
        let mut excluded: Vec<_> = excluded.collect();
        excluded.sort_unstable();
        let count = excluded.len();
        excluded.truncate(LISTED_MAX);
        let listed = excluded
            .into_iter()
            .map(|(namespace, pod, rule)| ExcludedPod {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                rule: rule.to_owned(),
            });
        Self {
            listed: listed.collect(),
            count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s::{OwnerAnswer, PodObject};

    const POD: &str = include_str!("../../../testdata/pods/deployment.json");

    /// Check that excluded and undecided pods are listed in order, up to the limit, and that those that ended do not count.
    #[test]
    fn pods_are_listed() {
        let mut table = PodTable::default();
        let mut apply = |number: usize, phase: &str| {
            let mut pod: serde_json::Value = serde_json::from_str(POD).unwrap();
            pod["metadata"]["uid"] = format!("{number:08}-0000-4000-8000-000000000000").into();
            pod["metadata"]["name"] = format!("cart-{number:03}").into();
            pod["status"]["phase"] = phase.into();
            let object: PodObject = serde_json::from_value(pod).unwrap();
            table.apply(object.into(), 0);
        };
        for number in (0..120).rev() {
            apply(number, "Running");
        }
        apply(120, "Succeeded");
        let parse = |text| Policy::parse(text).unwrap();
        let by_namespace = parse("rules: [{action: deny, namespaces: [shop]}]");
        let excluded = ExcludedPods::find(&by_namespace, &table);
        assert_eq!((excluded.count, excluded.listed.len()), (120, 100));
        let first = ExcludedPod {
            namespace: "shop".into(),
            pod: "cart-000".into(),
            rule: "rule 1: deny namespaces shop".into(),
        };
        assert_eq!(excluded.listed[0], first);

        let by_workload = parse("rules: [{action: deny, workloads: [Deployment/other]}]");
        let undecided = ExcludedPods::find(&by_workload, &table);
        assert_eq!(
            (undecided.count, &*undecided.listed[0].rule),
            (120, UNDECIDED)
        );
        while let Some(owner) = table.next_owner(0) {
            let (kind, name) = ("Deployment".into(), "cart".into());
            table.set_owner(&owner, OwnerAnswer::Owned { kind, name }, 0);
        }
        let none = ExcludedPods::find(&by_workload, &table);
        assert_eq!(none, ExcludedPods::default());
    }
}
