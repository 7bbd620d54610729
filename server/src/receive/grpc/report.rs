//! Checks reports of nodes. Pure.

use model::node_report::{
    CheckOutcome, ExcludedPod, NodeCheck, NodeReport, NodeState, PolicyReport, PolicyState,
    ReportContent,
};
use proto::v1;

use super::check::{check_instance, check_node};
use crate::receive::refusal::Refusal;

/// Checks in one report; a collector has some thirty.
const CHECKS_MAX: usize = 64;

/// Excluded pods in one report, the collector's limit.
const EXCLUDED_MAX: usize = 100;

/// Bytes of a namespace or of a pod's name: Kubernetes' names have 253 at most.
const OBJECT_NAME_BYTES_MAX: usize = 253;

/// Bytes of a rule, the collector's limit.
const RULE_BYTES_MAX: usize = 256;

/// Bytes of a short text: a version, a revision, the name of a check.
const NAME_BYTES_MAX: usize = 64;

/// Bytes of a text for people.
const TEXT_BYTES_MAX: usize = 1024;

/// Makes a report of a message that came at this time. Texts that are too long are cut, and checks that are too many left out, so
/// that no node is hidden for what a later version says.
///
/// # Errors
/// The collector's instance or the node's name.
pub fn check_report(request: v1::ReportRequest, now_ms: i64) -> Result<NodeReport, Refusal> {
    let instance = check_instance(&request.collector_instance)?;
    check_node(&request.node)?;
    let state = match request.state() {
        v1::NodeState::Unspecified => NodeState::Unknown,
        v1::NodeState::Starting => NodeState::Starting,
        v1::NodeState::Sampling => NodeState::Sampling,
        v1::NodeState::CannotSample => NodeState::CannotSample,
        v1::NodeState::Stopping => NodeState::Stopping,
    };
    let checks = request.checks.into_iter().take(CHECKS_MAX);
    Ok(NodeReport {
        node: request.node,
        instance,
        first_ms: now_ms,
        content: ReportContent {
            received_ms: now_ms,
            version: cut(request.version, NAME_BYTES_MAX),
            kernel: cut(request.kernel, NAME_BYTES_MAX),
            state,
            reason: cut(request.reason, TEXT_BYTES_MAX),
            checks: checks.map(read_check).collect(),
            policy_revision: cut(request.policy_revision, NAME_BYTES_MAX),
            policy: request.policy.map(read_policy),
        },
    })
}

fn read_check(check: v1::NodeCheck) -> NodeCheck {
    let outcome = match check.outcome() {
        v1::CheckOutcome::Unspecified => CheckOutcome::Unknown,
        v1::CheckOutcome::Ok => CheckOutcome::Ok,
        v1::CheckOutcome::Degraded => CheckOutcome::Degraded,
        v1::CheckOutcome::Failed => CheckOutcome::Failed,
    };
    NodeCheck {
        name: cut(check.name, NAME_BYTES_MAX),
        outcome,
        found: cut(check.found, TEXT_BYTES_MAX),
        effect: cut(check.effect, TEXT_BYTES_MAX),
        remedy: cut(check.remedy, TEXT_BYTES_MAX),
    }
}

fn read_policy(policy: v1::PolicyReport) -> PolicyReport {
    let state = match policy.state() {
        v1::PolicyState::Unspecified => PolicyState::Unknown,
        v1::PolicyState::Current => PolicyState::Current,
        v1::PolicyState::Last => PolicyState::Last,
        v1::PolicyState::Unread => PolicyState::Unread,
    };
    let excluded = policy.excluded.into_iter().take(EXCLUDED_MAX);
    let excluded = excluded.map(|pod| ExcludedPod {
        namespace: cut(pod.namespace, OBJECT_NAME_BYTES_MAX),
        pod: cut(pod.pod, OBJECT_NAME_BYTES_MAX),
        rule: cut(pod.rule, RULE_BYTES_MAX),
    });
    PolicyReport {
        state,
        reason: cut(policy.reason, TEXT_BYTES_MAX),
        excluded: excluded.collect(),
        excluded_count: policy.excluded_count,
    }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::RefusalReason;

    fn request() -> v1::ReportRequest {
        v1::ReportRequest {
            collector_instance: vec![7; 16],
            node: "a".into(),
            state: v1::NodeState::CannotSample.into(),
            reason: "é".repeat(TEXT_BYTES_MAX),
            checks: vec![
                v1::NodeCheck {
                    outcome: 99,
                    name: "n".repeat(100),
                    ..Default::default()
                };
                CHECKS_MAX + 1
            ],
            policy: Some(v1::PolicyReport {
                state: 99,
                excluded: vec![
                    v1::ExcludedPod {
                        pod: "p".repeat(300),
                        ..Default::default()
                    };
                    EXCLUDED_MAX + 1
                ],
                excluded_count: 1000,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Check that long texts are cut between characters, that further checks and excluded pods are left out, and that what a later
    /// version may say is taken.
    #[test]
    fn a_report_is_cut_to_its_limits() {
        let NodeReport {
            first_ms, content, ..
        } = check_report(request(), 5).unwrap();
        assert_eq!(content.state, NodeState::CannotSample);
        assert_eq!((first_ms, content.received_ms), (5, 5));
        assert_eq!(content.reason.len(), TEXT_BYTES_MAX);
        assert_eq!(content.checks.len(), CHECKS_MAX);
        assert_eq!(content.checks[0].name.len(), NAME_BYTES_MAX);
        assert_eq!(content.checks[0].outcome, CheckOutcome::Unknown);
        let policy = content.policy.unwrap();
        assert_eq!(policy.state, PolicyState::Unknown);
        assert_eq!(policy.excluded.len(), EXCLUDED_MAX);
        assert_eq!(policy.excluded[0].pod.len(), OBJECT_NAME_BYTES_MAX);
        assert_eq!(policy.excluded_count, 1000);
        let later = v1::ReportRequest {
            state: 99,
            ..request()
        };
        let later = check_report(later, 5).unwrap();
        assert_eq!(later.content.state, NodeState::Unknown);
    }

    /// Check that a report of nobody is refused.
    #[test]
    fn a_report_needs_a_node() {
        for wrong in [
            v1::ReportRequest {
                node: String::new(),
                ..request()
            },
            v1::ReportRequest {
                collector_instance: vec![1],
                ..request()
            },
        ] {
            let refusal = check_report(wrong, 5).unwrap_err();
            assert_eq!(refusal.reason, RefusalReason::Identity);
        }
    }
}
