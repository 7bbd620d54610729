//! Which pods and which processes of the host are profiled.
//!
//! In: a file with rules, and the facts of a pod, or the unit and the cgroup of a process outside of pods. Out: whether it is
//! profiled, and if not, the rule that excludes it.
//!
//! ```yaml
//! rules:
//! - action: allow
//!   namespaces: [payments]
//!   workloads: [Deployment/cart, "CronJob/*"]
//! - action: deny
//!   namespaces: [payments, "secret-*"]
//! - action: deny
//!   pod_labels: {tier: "pci*"}
//! - action: deny
//!   pod_annotations: {example.com/profile: "false"}
//! - action: deny
//!   units: [vault.service]
//! - action: deny
//!   cgroups: [/machine.slice]
//! default: allow
//! host: allow
//! ```
//!
//! Rules are tried in their order, and the first that matches decides; `default` decides for pods that no rule matches, and `host` for
//! other processes. A rule matches when all its conditions do, and a list when one of its entries does.

mod file;
mod pattern;
mod rule;

use crate::{pod::Pod, rule_file::RuleFileError, workload::Workload};
use rule::{HostMatcher, PodMatcher, Rule};

/// Verdict of a rule, `default` or `host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Allow,
    Deny,
}

/// Verdict on a pod, or on a process outside of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It is profiled.
    Profile,
    /// It is not.
    Exclude {
        /// The rule that says so, for people: `rule 2: deny namespaces payments, secret-*`. At most 256 bytes.
        rule: &'a str,
    },
}

/// Rules, in the order in which they are tried.
#[derive(Debug)]
pub struct Policy {
    pod_rules: Vec<Rule<PodMatcher>>,
    host_rules: Vec<Rule<HostMatcher>>,
    default: Action,
    host: Action,
}

impl Policy {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first mistake, with its line and the number of its rule.
    pub fn parse(text: &str) -> Result<Self, RuleFileError> {
        file::parse_policy(text)
    }

    /// Number of rules.
    pub fn rules(&self) -> usize {
        self.pod_rules.len() + self.host_rules.len()
    }

    /// Whether some pod may be excluded: a rule with conditions on pods denies, or the default does.
    pub fn denies_pods(&self) -> bool {
        let mut rules = self.pod_rules.iter();
        self.default == Action::Deny || rules.any(|rule| rule.action == Action::Deny)
    }

    /// Whether some process outside of pods may be excluded.
    pub fn denies_host(&self) -> bool {
        let mut rules = self.host_rules.iter();
        self.host == Action::Deny || rules.any(|rule| rule.action == Action::Deny)
    }

    /// Decides a pod. A workload that is not known yet is `None`, see [`PodTable::find_pod`](crate::PodTable::find_pod); the result
    /// is `None` while the decision depends on it.
    pub fn decide_pod(&self, pod: &Pod, workload: Option<Workload<'_>>) -> Option<Decision<'_>> {
        for rule in &self.pod_rules {
            if rule.matcher.matches(pod, workload)? {
                return Some(rule.decision());
            }
        }
        Some(decide_rest(self.default, "default: deny"))
    }

    /// Decides the processes of a cgroup outside of pods, by their unit, see [`Identity::unit`](crate::Identity::unit), and the path
    /// of the cgroup.
    pub fn decide_host(&self, unit: Option<&str>, cgroup_path: &str) -> Decision<'_> {
        let mut rules = self.host_rules.iter();
        match rules.find(|rule| rule.matcher.matches(unit, cgroup_path)) {
            Some(rule) => rule.decision(),
            None => decide_rest(self.host, "host: deny"),
        }
    }
}

fn decide_rest(action: Action, rule: &'static str) -> Decision<'static> {
    match action {
        Action::Allow => Decision::Profile,
        Action::Deny => Decision::Exclude { rule },
    }
}
