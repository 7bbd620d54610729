//! The report of the node's state to the server. Pure.

use proto::v1::{
    CheckOutcome, ExcludedPod, NodeCheck, NodeState, PolicyReport,
    PolicyState as PolicyReportState, ReportRequest,
};

use crate::{
    config::Config,
    health::Health,
    policy::{ExcludedPods, PolicyNow, PolicyState, SourceState},
    preflight::{Check, Verdict},
};

/// The condition of a collector that has not sampled yet.
pub const STARTING: &str = "starting";

/// The condition of a collector that cannot sample here.
pub const CANNOT_SAMPLE: &str = "cannot_sample";

/// The first report, of a collector that starts. `kernel` is the kernel's release.
pub fn first_report(config: &Config, instance: [u8; 16], kernel: String) -> ReportRequest {
    ReportRequest {
        collector_instance: instance.to_vec(),
        node: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel,
        state: NodeState::Starting.into(),
        ..ReportRequest::default()
    }
}

/// Brings a report up to date. A collector that stops says nothing else.
pub fn update_report(report: &mut ReportRequest, health: &Health, is_stopping: bool) {
    let conditions = health.readiness.conditions();
    let waits = health.hand_over.reason();
    let alive = health.check_health();
    let state = if is_stopping {
        NodeState::Stopping
    } else if conditions.contains_key(CANNOT_SAMPLE) || !alive.is_well {
        NodeState::CannotSample
    } else if conditions.contains_key(STARTING) || waits.is_some() {
        NodeState::Starting
    } else {
        NodeState::Sampling
    };
    let broken = (!alive.is_well).then(|| alive.text.trim_end().to_owned());
    let reasons: Vec<String> = broken
        .into_iter()
        .chain(conditions.into_values())
        .chain(waits)
        .collect();
    report.state = state.into();
    report.reason = reasons.join("\n");
    report.checks = health.preflight().checks.iter().map(describe).collect();
}

/// Brings the policy in a report up to date.
pub fn update_policy(report: &mut ReportRequest, policy: &PolicyState, excluded: &ExcludedPods) {
    let (now, source) = (policy.now(), policy.source());
    report.policy_revision = match &now {
        PolicyNow::Known(known) => known.revision.clone(),
        PolicyNow::None | PolicyNow::Unread => String::new(),
    };
    let state = match (now, &source) {
        (PolicyNow::None, _) => {
            report.policy = None;
            return;
        }
        (PolicyNow::Unread, _) => PolicyReportState::Unread,
        (PolicyNow::Known(_), SourceState::Current) => PolicyReportState::Current,
        (PolicyNow::Known(_), SourceState::Failing(_)) => PolicyReportState::Last,
    };
    let ExcludedPods { listed, count } = excluded;
    let listed = listed.iter().map(|pod| ExcludedPod {
        namespace: pod.namespace.clone(),
        pod: pod.pod.clone(),
        rule: pod.rule.clone(),
    });
    report.policy = Some(PolicyReport {
        state: state.into(),
        reason: match source {
            SourceState::Current => String::new(),
            SourceState::Failing(reason) => reason,
        },
        excluded: listed.collect(),
        excluded_count: *count as u64,
    });
}

fn describe(check: &Check) -> NodeCheck {
    let outcome = match check.verdict {
        Verdict::Ok => CheckOutcome::Ok,
        // The collector samples; what it lacks is in the reason too.
        Verdict::Degraded | Verdict::NotReady => CheckOutcome::Degraded,
        Verdict::Fatal => CheckOutcome::Failed,
    };
    NodeCheck {
        name: check.name.to_owned(),
        outcome: outcome.into(),
        found: check.found.clone(),
        effect: check.effect.to_owned(),
        remedy: check.remedy.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        policy::{self, KnownPolicy},
        preflight::Report,
    };

    /// Check the state and the reason at each step of a collector's life.
    #[test]
    fn states() {
        let health = Health::default();
        let told = |is_stopping| {
            let mut report = ReportRequest::default();
            update_report(&mut report, &health, is_stopping);
            (report.state(), report.reason)
        };
        health.readiness.hold(STARTING, "it loads");
        assert_eq!(told(false), (NodeState::Starting, "it loads".into()));
        health.readiness.release(STARTING);
        health.readiness.hold(CANNOT_SAMPLE, "no BTF\nno CAP_BPF");
        let unable = (NodeState::CannotSample, "no BTF\nno CAP_BPF".into());
        assert_eq!(told(false), unable);
        health.readiness.release(CANNOT_SAMPLE);
        assert_eq!(told(false), (NodeState::Sampling, String::new()));
        health.readiness.hold("host_cgroups", "not mounted");
        assert_eq!(told(false), (NodeState::Sampling, "not mounted".into()));
        assert_eq!(told(true).0, NodeState::Stopping);
        health.readiness.release("host_cgroups");
        health.hand_over.wait_for("process 7");
        let (state, reason) = told(false);
        assert_eq!(state, NodeState::Starting);
        assert!(reason.ends_with("waits for it to stop: process 7"));
        health.hand_over.end();
        assert_eq!(told(false), (NodeState::Sampling, String::new()));
        health.heartbeat.beat();
        assert_eq!(told(false), (NodeState::Sampling, String::new()));
        health.heartbeat.stall();
        health.readiness.hold("host_cgroups", "not mounted");
        let (state, reason) = told(false);
        assert_eq!(state, NodeState::CannotSample);
        let lines: Vec<&str> = reason.lines().collect();
        assert!(lines[0].starts_with("broken: the thread `sample` has not drained"));
        assert_eq!(lines[1..], ["not mounted"]);
    }

    /// Check that all checks are reported, in their order.
    #[test]
    fn checks() {
        let health = Health::default();
        let bad = |name, verdict| Check {
            verdict,
            effect: "less",
            remedy: "do it".into(),
            ..Check::ok(name, "found")
        };
        let checks = vec![
            Check::ok("kernel", "Linux 6.1"),
            bad("CAP_SYSLOG", Verdict::Degraded),
            bad("cgroups", Verdict::NotReady),
            bad("btf", Verdict::Fatal),
        ];
        health.set_preflight(Report { checks });
        let mut report = ReportRequest::default();
        update_report(&mut report, &health, false);
        let told: Vec<_> = report
            .checks
            .iter()
            .map(|check| (check.name.as_str(), check.outcome(), check.remedy.as_str()))
            .collect();
        let expected = [
            ("kernel", CheckOutcome::Ok, ""),
            ("CAP_SYSLOG", CheckOutcome::Degraded, "do it"),
            ("cgroups", CheckOutcome::Degraded, "do it"),
            ("btf", CheckOutcome::Failed, "do it"),
        ];
        assert_eq!(told, expected);
    }

    /// Check what is told of a policy that is not configured, never read, current, and the last good one.
    #[test]
    fn policies() {
        let told = |policy: &PolicyState| {
            let excluded = ExcludedPods {
                listed: vec![policy::ExcludedPod {
                    namespace: "shop".into(),
                    pod: "cart".into(),
                    rule: "default: deny".into(),
                }],
                count: 7,
            };
            let mut report = ReportRequest::default();
            update_policy(&mut report, policy, &excluded);
            let policy = report.policy.as_ref();
            let state = policy.map(|policy| (policy.state(), policy.reason.clone()));
            (
                state,
                report.policy_revision.clone(),
                policy.map_or(0, |policy| policy.excluded_count),
            )
        };
        let none = PolicyState::default();
        assert_eq!(told(&none), (None, String::new(), 0));
        let policy = PolicyState::unread();
        policy.set_source(SourceState::Failing("no file".into()));
        let state = Some((PolicyReportState::Unread, "no file".into()));
        assert_eq!(told(&policy), (state, String::new(), 7));
        let known = Arc::new(KnownPolicy {
            policy: k8s::Policy::parse("default: deny").unwrap(),
            revision: "abc".into(),
        });
        policy.set(known.clone(), SourceState::Current);
        let state = Some((PolicyReportState::Current, String::new()));
        assert_eq!(told(&policy), (state, "abc".into(), 7));
        policy.set(known, SourceState::Failing("gone".into()));
        let state = Some((PolicyReportState::Last, "gone".into()));
        assert_eq!(told(&policy), (state, "abc".into(), 7));
    }
}
