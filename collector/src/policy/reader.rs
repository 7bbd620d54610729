//! Texts of a policy's source -> the policy in force.
//!
//! In: each text that the source has, and each failure to get one. Out: [`PolicyState`], the file of the last policy, counts, and a
//! condition while none was ever read.

use std::{collections::BTreeMap, sync::Arc};

use k8s::Policy;
use metrics::Figures;

use super::{
    last_policy::LastPolicy,
    state::{KnownPolicy, PolicyNow, PolicyState, SourceState, revision_of},
};
use crate::{metrics::Stats, readiness::Readiness};

/// The condition of a collector that has no policy yet, although one is configured.
pub const NO_POLICY: &str = "no_policy";

/// Why a source has no policy that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// Its text has a mistake.
    Refused,
    /// It is gone.
    Missing,
    /// It cannot be read.
    Unreadable,
}

/// Counts since the start, and the policy in force.
#[derive(Clone, Debug, Default)]
pub(super) struct PolicyStats {
    /// Texts and failures, by what became of them.
    reads: BTreeMap<&'static str, u64>,
    /// Rules and revision of the policy in force.
    known: Option<(usize, String)>,
    /// The policy in force is not the source's.
    is_failing: bool,
    /// Policies that could not be kept in the cache directory.
    keep_errors: u64,
}

/// Results of a read, as in `policy_reads_total`.
const RESULTS: [&str; 5] = ["applied", "unchanged", "refused", "missing", "unreadable"];

impl PolicyStats {
    pub(super) fn show(&self, figures: &mut Figures<'_>) {
        let reads = RESULTS.map(|result| {
            let count = self.reads.get(result).copied().unwrap_or_default();
            ([result], count)
        });
        figures.counters(
            "policy_reads",
            "Looks at the policy's source that found something new, by result",
            ["result"],
            reads,
        );
        figures.gauge(
            "policy_failing",
            "1 if the source of the policy has none that can be used, so that the last one is in force, or none was ever read",
            u64::from(self.is_failing),
        );
        let (rules, revision) = self.known.clone().unzip();
        figures.gauge(
            "policy_rules",
            "Rules of the policy in force",
            rules.unwrap_or_default(),
        );
        figures.gauges(
            "policy_revision",
            "The revision of the policy in force, as a label; none before a policy was read",
            ["revision"],
            revision.map(|revision| ([revision], 1_u64)),
        );
        figures.counter(
            "policy_keep_errors",
            "Policies that could not be written to the cache directory, so that a restart lacks them",
            self.keep_errors,
        );
    }
}

/// Applies what a source has.
#[derive(Debug)]
pub(super) struct PolicyReader {
    /// The source, for people.
    pub(super) source: String,
    pub(super) state: PolicyState,
    pub(super) readiness: Readiness,
    pub(super) stats: Stats<PolicyStats>,
    /// File of the last policy; `None` without a cache directory.
    pub(super) last: Option<LastPolicy>,
}

impl PolicyReader {
    /// Puts the policy in force that was read last before this start.
    pub(super) fn restore(&self) {
        self.stats.lock().is_failing = true;
        self.hold_unread(&format!(
            "the policy of {} has not been read yet",
            self.source
        ));
        let Some(last) = &self.last else {
            return;
        };
        let text = match last.read() {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(err) => {
                tracing::warn!(%err, "failed to read the last policy in the cache directory (--cache-dir)");
                return;
            }
        };
        if let Ok(policy) = Policy::parse(&text) {
            let revision = revision_of(&text);
            tracing::info!(
                revision,
                "the last policy is in force until the source is read"
            );
            let source = SourceState::Failing(format!(
                "the policy of {} has not been read since this start; the last one stays in force",
                self.source
            ));
            self.put_in_force(policy, revision, source);
        }
    }

    /// The source has this text.
    pub(super) fn take(&self, text: &str) {
        let revision = revision_of(text);
        if let PolicyNow::Known(known) = self.state.now()
            && known.revision == revision
        {
            self.state.set_source(SourceState::Current);
            self.note("unchanged");
            return;
        }
        match Policy::parse(text) {
            Ok(policy) => {
                tracing::info!(
                    revision,
                    rules = policy.rules(),
                    source = self.source,
                    "a policy is in force"
                );
                self.put_in_force(policy, revision.clone(), SourceState::Current);
                self.note("applied");
                self.keep(&revision, text);
            }
            Err(err) => self.fail(
                Failure::Refused,
                &format!("the policy of {} has a mistake: {err}", self.source),
            ),
        }
    }

    fn put_in_force(&self, policy: Policy, revision: String, source: SourceState) {
        self.stats.lock().known = Some((policy.rules(), revision.clone()));
        self.readiness.release(NO_POLICY);
        self.state
            .set(Arc::new(KnownPolicy { policy, revision }), source);
    }

    fn keep(&self, revision: &str, text: &str) {
        let Some(last) = &self.last else {
            return;
        };
        if let Err(err) = last.write(revision, text) {
            self.stats.lock().keep_errors += 1;
            tracing::warn!(
                %err,
                "failed to keep the policy in the cache directory (--cache-dir): a restart without its source lacks it"
            );
        }
    }

    /// The source has no policy that can be used, for this cause, which names the remedy.
    pub(super) fn fail(&self, failure: Failure, cause: &str) {
        self.note(match failure {
            Failure::Refused => "refused",
            Failure::Missing => "missing",
            Failure::Unreadable => "unreadable",
        });
        let text = match self.state.now() {
            PolicyNow::Known(known) => {
                format!(
                    "{cause}; the last policy, revision {}, stays in force",
                    known.revision
                )
            }
            PolicyNow::None | PolicyNow::Unread => self.hold_unread(cause),
        };
        let source = SourceState::Failing(text.clone());
        // A source that stays as it is is told of once.
        if self.state.source() != source {
            tracing::warn!("{text}");
            self.state.set_source(source);
        }
    }

    fn hold_unread(&self, cause: &str) -> String {
        let text = format!("{cause}; no pod is profiled until a policy was read");
        self.readiness.hold(NO_POLICY, text.clone());
        text
    }

    fn note(&self, result: &'static str) {
        let mut stats = self.stats.lock();
        *stats.reads.entry(result).or_default() += 1;
        stats.is_failing = !matches!(result, "applied" | "unchanged");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(cache: Option<&std::path::Path>) -> PolicyReader {
        let reader = PolicyReader {
            source: "file /p".into(),
            state: PolicyState::unread(),
            readiness: Readiness::default(),
            stats: Stats::default(),
            last: cache.map(|cache| LastPolicy::new(cache, "file /p")),
        };
        reader.restore();
        reader
    }

    fn revision(reader: &PolicyReader) -> Option<String> {
        match reader.state.now() {
            PolicyNow::Known(known) => Some(known.revision.clone()),
            PolicyNow::None | PolicyNow::Unread => None,
        }
    }

    fn failing(reader: &PolicyReader) -> String {
        match reader.state.source() {
            SourceState::Failing(text) => text,
            SourceState::Current => String::new(),
        }
    }

    /// Check that a revision is the start of what `sha256sum` writes.
    #[test]
    fn revisions() {
        // printf 'host: deny' | sha256sum
        assert_eq!(revision_of("host: deny"), "37880ca2a052");
    }

    /// Check that a policy with a mistake, and one that is gone, leave the last one in force and say so, that nothing is in force
    /// before one was read, and that the collector is not ready then.
    #[test]
    fn the_last_good_policy_stays() {
        let reader = reader(None);
        assert!(reader.readiness.conditions()[NO_POLICY].contains("has not been read yet"));
        reader.take("host: maybe");
        assert_eq!(revision(&reader), None);
        let text = "the policy of file /p has a mistake: line 1: unknown variant `maybe`, expected one of allow, deny";
        assert!(failing(&reader).starts_with(text), "{}", failing(&reader));
        assert_eq!(reader.readiness.conditions()[NO_POLICY], failing(&reader));

        reader.take("host: deny");
        let good = Some(revision_of("host: deny"));
        assert_eq!(
            (revision(&reader), failing(&reader)),
            (good.clone(), String::new())
        );
        assert!(reader.readiness.conditions().is_empty());
        reader.take("");
        assert!(
            failing(&reader).contains("stays in force"),
            "{}",
            failing(&reader)
        );
        reader.fail(Failure::Missing, "it is gone");
        assert!(failing(&reader).starts_with("it is gone; the last policy, revision "));
        assert_eq!(revision(&reader), good);
        let generation = reader.state.generation();
        reader.take("host: deny");
        assert_eq!(failing(&reader), "");
        assert_eq!(reader.state.generation(), generation);
        let stats = reader.stats.lock().clone();
        let expected = [
            ("applied", 1),
            ("missing", 1),
            ("refused", 2),
            ("unchanged", 1),
        ];
        assert_eq!(stats.reads, expected.into());
        assert!(!stats.is_failing);
    }

    /// Check that a restart without the source has the last policy, and says that it is not the source's.
    #[test]
    fn a_restart_has_the_last_policy() {
        let directory = tempfile::tempdir().unwrap();
        reader(Some(directory.path())).take("host: deny");
        let reader = reader(Some(directory.path()));
        assert_eq!(revision(&reader), Some(revision_of("host: deny")));
        assert!(failing(&reader).contains("not been read since this start"));
        assert!(reader.readiness.conditions().is_empty());
        assert!(reader.stats.lock().is_failing);
        reader.take("host: deny");
        assert_eq!(failing(&reader), "");
    }
}
