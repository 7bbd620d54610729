//! Reports of nodes: what a collector says of itself, also when it cannot sample.

use serde::{Deserialize, Serialize};

/// Time without a report after which a node counts as silent. Collectors report once a minute, so two were missed.
const SILENT_MS: i64 = 150_000;

/// The last report of a node. Serialized for the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Name of the node.
    pub node: String,
    /// The collector, as in its windows.
    pub instance: [u8; 16],
    /// When the node's first report came, milliseconds since the Unix epoch.
    pub first_ms: i64,
    /// Content of this one.
    #[serde(flatten)]
    pub content: ReportContent,
}

/// Content of a report. Serialized for the catalog, and in the answer to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportContent {
    /// When it came, milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// Version of the collector.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// State of the collector.
    pub state: NodeState,
    /// Why it does not sample.
    pub reason: String,
    /// The results of its checks, in its order.
    pub checks: Vec<NodeCheck>,
    /// Revision of the policy that it follows; empty without one.
    pub policy_revision: String,
    /// State of that policy; `None` without one.
    #[serde(default)]
    pub policy: Option<PolicyReport>,
}

/// State of a node's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// How the policy in force relates to its source.
    pub state: PolicyState,
    /// Why it is not the source's.
    pub reason: String,
    /// Pods that are not sampled, by namespace and name.
    pub excluded: Vec<ExcludedPod>,
    /// All such pods, with those that the list leaves out.
    pub excluded_count: u64,
}

/// How the policy in force relates to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyState {
    /// It is the source's.
    Current,
    /// It is the last one that could be used.
    Last,
    /// None was ever read.
    Unread,
    /// A state of a later version.
    Unknown,
}

/// A pod that is not sampled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExcludedPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// The rule that excludes it.
    pub rule: String,
}

/// State of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It prepares, or waits for another collector to stop.
    Starting,
    /// It samples.
    Sampling,
    /// It cannot sample.
    CannotSample,
    /// It sends its last windows.
    Stopping,
    /// A state of a later version.
    Unknown,
}

/// One thing that a collector needs, or can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCheck {
    /// Name of the check.
    pub name: String,
    /// The result.
    pub outcome: CheckOutcome,
    /// State of the machine.
    pub found: String,
    /// Features that are missing by it.
    pub effect: String,
    /// Remedy.
    pub remedy: String,
}

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// All is well.
    Ok,
    /// The collector works, and does less.
    Degraded,
    /// The collector cannot sample.
    Failed,
    /// A result of a later version.
    Unknown,
}

/// Status of a node now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// Its collector prepares, or waits for another one to stop.
    Starting,
    /// It is sampled.
    Sampling,
    /// Its collector runs and cannot sample.
    CannotSample,
    /// Its collector was told to stop.
    Stopped,
    /// Its reports stopped without a word.
    Silent,
    /// It has sent no report, or one with a state that this server does not know.
    Unknown,
}

impl NodeReport {
    /// Whether this report takes the place of an earlier one. When a collector is replaced, the last word of the old one comes
    /// after the first of the new one.
    pub fn replaces(&self, kept: &Self) -> bool {
        self.content.state != NodeState::Stopping || self.instance == kept.instance
    }

    /// The status at a time in milliseconds since the Unix epoch.
    pub fn status(&self, now_ms: i64) -> NodeStatus {
        let is_silent = now_ms.saturating_sub(self.content.received_ms) > SILENT_MS;
        match self.content.state {
            NodeState::Stopping => NodeStatus::Stopped,
            _ if is_silent => NodeStatus::Silent,
            NodeState::Starting => NodeStatus::Starting,
            NodeState::Sampling => NodeStatus::Sampling,
            NodeState::CannotSample => NodeStatus::CannotSample,
            NodeState::Unknown => NodeStatus::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: NodeState, instance: u8) -> NodeReport {
        NodeReport {
            node: "a".into(),
            instance: [instance; 16],
            first_ms: 0,
            content: ReportContent {
                received_ms: 1000,
                version: String::new(),
                kernel: String::new(),
                state,
                reason: String::new(),
                checks: Vec::new(),
                policy_revision: String::new(),
                policy: None,
            },
        }
    }

    /// Check that a node is silent after two missed reports, unless it said that it stops.
    #[test]
    fn silent_after_two_missed_reports() {
        let status = |state, age_ms| report(state, 1).status(1000 + age_ms);
        for (state, expected) in [
            (NodeState::Starting, NodeStatus::Starting),
            (NodeState::Sampling, NodeStatus::Sampling),
            (NodeState::CannotSample, NodeStatus::CannotSample),
        ] {
            assert_eq!(status(state, SILENT_MS), expected);
            assert_eq!(status(state, SILENT_MS + 1), NodeStatus::Silent);
        }
        let stopped = status(NodeState::Stopping, SILENT_MS + 1);
        assert_eq!(stopped, NodeStatus::Stopped);
        // A clock that was set back.
        assert_eq!(status(NodeState::Sampling, -1), NodeStatus::Sampling);
    }

    /// Check that a collector's last word does not hide the one that replaces it.
    #[test]
    fn the_new_collector_counts() {
        let new = report(NodeState::Sampling, 2);
        assert!(!report(NodeState::Stopping, 1).replaces(&new));
        assert!(report(NodeState::Stopping, 2).replaces(&new));
        assert!(report(NodeState::CannotSample, 3).replaces(&new));
    }
}
