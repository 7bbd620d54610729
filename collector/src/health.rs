//! Whether the collector is ready, and whether it works.
//!
//! In: conditions of its parts. Out: the answers of `/readyz` and `/healthz`, and metrics.
//!
//! [`Heartbeat`] tells a collector that hangs.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Registry, register_figures};
use parking_lot::Mutex;

use crate::{
    clock::monotonic_ns,
    hand_over::HandOver,
    metrics::PREFIX,
    preflight::{Report, Verdict},
    readiness::Readiness,
};

/// Time after which a sampling thread that drained nothing counts as broken. It drains ten times a
/// second; on a node without any CPU time to spare a drain can be seconds late.
const BEAT_TIME_MAX: Duration = Duration::from_secs(60);

/// Checks that keep the collector from being ready, and their conditions.
const CONDITIONS: [(&str, &str); 2] = [
    ("cgroups", "host_cgroups"),
    ("pid_namespace", "host_processes"),
];

/// The time of the last drain of the kernel's buffers. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// The sampling thread works.
    pub fn beat(&self) {
        self.0.store(monotonic_ns(), Ordering::Relaxed);
    }

    /// The sampling thread hangs since a time that is too long.
    #[cfg(test)]
    pub(crate) fn stall(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    /// Whether the last beat is too long ago. A thread that has not begun is not late.
    fn is_late(&self, now_ns: u64) -> bool {
        let last_ns = self.0.load(Ordering::Relaxed);
        last_ns != 0 && Duration::from_nanos(now_ns.saturating_sub(last_ns)) > BEAT_TIME_MAX
    }
}

/// The state that probes ask for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Conditions that keep the collector from being ready.
    pub readiness: Readiness,
    /// The sampling thread's sign of life.
    pub heartbeat: Heartbeat,
    /// Whether the collector waits for another one to stop. It is ready meanwhile: only then is the other one stopped in a roll-out.
    pub hand_over: HandOver,
    preflight: Arc<Mutex<Report>>,
}

/// An answer to a probe: whether all is well, and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether all is well.
    pub is_well: bool,
    /// Lines for people.
    pub text: String,
}

impl Health {
    /// Takes the result of the checks at the start. A check that makes profiles useless keeps the
    /// collector from being ready until the next report.
    pub fn set_preflight(&self, report: Report) {
        for (name, condition) in CONDITIONS {
            self.readiness.release(condition);
            for check in report.of(Verdict::NotReady) {
                if check.name == name {
                    self.readiness.hold(condition, check.to_string());
                }
            }
        }
        *self.preflight.lock() = report;
    }

    /// The last report.
    pub fn preflight(&self) -> Report {
        self.preflight.lock().clone()
    }

    /// The answer of `/healthz`: whether a restart would not help.
    pub fn check_health(&self) -> Answer {
        let is_well = !self.heartbeat.is_late(monotonic_ns());
        let text = if is_well {
            "ok\n".to_owned()
        } else {
            // Without a time that grows: each change of the text would be a new report to the server.
            format!(
                "broken: the thread `sample` has not drained the kernel's buffers for more than {} s\n",
                BEAT_TIME_MAX.as_secs()
            )
        };
        Answer { is_well, text }
    }

    /// The answer of `/readyz`: `ready`, or `not ready` and a line `CONDITION: REASON` for each
    /// reason. Lines `waiting: …` and `degraded: …` follow, for another collector and for what this one does without.
    pub fn check_readiness(&self) -> Answer {
        let health = self.check_health();
        let conditions = self.readiness.conditions();
        let is_well = health.is_well && conditions.is_empty();
        let mut text = if is_well { "ready\n" } else { "not ready\n" }.to_owned();
        if !health.is_well {
            text.push_str(&health.text);
        }
        for (condition, reasons) in &conditions {
            for reason in reasons.lines() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{condition}: {reason}");
            }
        }
        if let Some(reason) = self.hand_over.reason() {
            let _ = writeln!(text, "waiting: {reason}");
        }
        for check in self.preflight.lock().of(Verdict::Degraded) {
            let _ = writeln!(text, "degraded: {check}");
        }
        Answer { is_well, text }
    }

    /// Registers the state.
    pub fn register(&self, registry: &mut Registry) {
        let health = self.clone();
        register_figures(registry.sub_registry_with_prefix(PREFIX), move |figures| {
            figures.gauge(
                "ready",
                "1 if /readyz says ready",
                u64::from(health.check_readiness().is_well),
            );
            health.hand_over.show(figures);
            let conditions = health.readiness.conditions();
            figures.gauges(
                "not_ready",
                "Conditions that keep the collector from being ready; /readyz has the reasons",
                ["condition"],
                conditions.keys().map(|condition| ([*condition], 1_u64)),
            );
            let checks = health.preflight().checks;
            let results = checks
                .iter()
                .map(|check| ([check.name, check.verdict.as_str()], 1_u64));
            figures.gauges(
                "preflight",
                "Checks at the start, by their result",
                ["check", "result"],
                results,
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Check;

    fn check(name: &'static str, verdict: Verdict) -> Check {
        Check {
            verdict,
            effect: "less",
            remedy: "do it".into(),
            ..Check::ok(name, "found")
        }
    }

    /// Check that each held condition has its lines, and that the collector is ready after the last
    /// is released.
    #[test]
    fn conditions_are_held_and_released() {
        let health = Health::default();
        health.readiness.hold("cannot_sample", "no BTF\nno CAP_BPF");
        health.readiness.hold("pod_labels", "no pod is listed yet");
        let answer = health.check_readiness();
        assert!(!answer.is_well);
        let text = "not ready\n\
            cannot_sample: no BTF\n\
            cannot_sample: no CAP_BPF\n\
            pod_labels: no pod is listed yet\n";
        assert_eq!(answer.text, text);
        assert_eq!(health.check_health().text, "ok\n");
        health.readiness.release("cannot_sample");
        health.readiness.release("pod_labels");
        assert_eq!(health.check_readiness().text, "ready\n");
    }

    /// Check that a degraded collector is ready and says what it lacks, and that one without the
    /// host's cgroups is not ready until a later report.
    #[test]
    fn reports_count() {
        let health = Health::default();
        let degraded = check("CAP_SYSLOG", Verdict::Degraded);
        let not_ready = check("cgroups", Verdict::NotReady);
        health.set_preflight(Report {
            checks: vec![degraded.clone(), not_ready],
        });
        let text = "not ready\n\
            host_cgroups: cgroups: found; less; do it\n\
            degraded: CAP_SYSLOG: found; less; do it\n";
        assert_eq!(health.check_readiness().text, text);
        health.set_preflight(Report {
            checks: vec![degraded],
        });
        let text = "ready\ndegraded: CAP_SYSLOG: found; less; do it\n";
        assert_eq!(health.check_readiness().text, text);
    }

    /// Check that a collector that waits for another one is ready and says so.
    #[test]
    fn one_that_waits_is_ready() {
        let health = Health::default();
        health.hand_over.wait_for("process 7");
        let text = "ready\n\
            waiting: another collector samples this node, and this one waits for it to stop: process 7\n";
        let answer = health.check_readiness();
        assert!(answer.is_well);
        assert_eq!(answer.text, text);
    }

    /// Check that only a thread that has begun can be late.
    #[test]
    fn a_sampling_thread_that_hangs_is_broken() {
        let heartbeat = Heartbeat::default();
        assert!(!heartbeat.is_late(u64::MAX));
        heartbeat.beat();
        let begun_ns = monotonic_ns();
        assert!(!heartbeat.is_late(begun_ns));
        let later = begun_ns + BEAT_TIME_MAX.as_nanos() as u64 + 1_000_000_000;
        assert!(heartbeat.is_late(later));
    }
}
