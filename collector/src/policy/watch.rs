//! The source of a policy, and the thread that follows it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Result, bail};
use metrics::Registry;

use super::{
    excluded::ExcludedPods,
    last_policy::LastPolicy,
    policy_file::PolicyFile,
    reader::{Failure, PolicyReader, PolicyStats},
    state::{PolicyNow, PolicyState, SourceState},
};
use crate::{
    clock::monotonic_ns,
    kubernetes::{ClusterAccess, ConfigMapEvent, ConfigMapWatch, NodePods},
    metrics::Stats,
    readiness::Readiness,
};

/// The key of the policy in its ConfigMap.
const KEY: &str = "policy.yaml";

/// Time for the first answer of the API server before sampling begins without it.
const FIRST_READ_TIME: Duration = Duration::from_secs(2);

/// Time between two lists of the excluded pods under one policy: each new list is a new report to the server.
const LIST_INTERVAL_NS: u64 = 10_000_000_000;

/// The source of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// A file.
    File(PathBuf),
    /// The key `policy.yaml` of a ConfigMap.
    ConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// How the API server is reached.
        access: ClusterAccess,
    },
}

impl fmt::Display for PolicySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::ConfigMap {
                namespace, name, ..
            } => write!(f, "ConfigMap {namespace}/{name}"),
        }
    }
}

/// The policy, followed at its source until this is dropped.
#[derive(Debug, Default)]
pub struct PolicyWatch {
    state: PolicyState,
    stats: Stats<PolicyStats>,
    excluded: ExcludedPods,
    listed: ListedAt,
    _thread: Option<Thread>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "dropping it ends the thread")]
enum Thread {
    File(mpsc::Sender<()>),
    ConfigMap(ConfigMapWatch),
}

/// Generations and time of the last list of excluded pods.
#[derive(Clone, Copy, Debug, Default)]
struct ListedAt {
    generations: Option<(u64, u64)>,
    time_ns: u64,
}

impl PolicyWatch {
    /// Reads the policy, or the last one of the cache directory, and follows its source. Waits some seconds for an API server that
    /// does not answer. No source: no policy.
    ///
    /// # Errors
    /// There is a file, which cannot be used, and no last policy; or the API server's address cannot be read.
    pub fn start(
        source: Option<&PolicySource>,
        cache_dir: Option<&Path>,
        readiness: &Readiness,
    ) -> Result<Self> {
        let Some(source) = source else {
            return Ok(Self::default());
        };
        let state = PolicyState::unread();
        let stats = Stats::default();
        let name = source.to_string();
        let reader = PolicyReader {
            last: cache_dir.map(|folder| LastPolicy::new(folder, &name)),
            source: name,
            state: state.clone(),
            readiness: readiness.clone(),
            stats: stats.clone(),
        };
        reader.restore();
        let thread = match source {
            PolicySource::File(path) => {
                let file = PolicyFile::new(path.clone(), reader);
                if let (PolicyNow::Unread, SourceState::Failing(cause)) =
                    (state.now(), state.source())
                {
                    bail!("{cause}");
                }
                Thread::File(file.follow()?)
            }
            PolicySource::ConfigMap {
                namespace,
                name,
                access,
            } => {
                let on_event = move |event| apply(&reader, event);
                let watch = ConfigMapWatch::start(access, namespace, name, on_event)?;
                if matches!(state.now(), PolicyNow::Unread) {
                    state.wait_for_change(0, FIRST_READ_TIME);
                }
                Thread::ConfigMap(watch)
            }
        };
        Ok(Self {
            state,
            stats,
            _thread: Some(thread),
            ..Self::default()
        })
    }

    /// The policy as it is now.
    pub fn state(&self) -> &PolicyState {
        &self.state
    }

    /// Lists the excluded pods anew, if the policy is another, or the pods are and the last list is some seconds old.
    pub fn list_excluded(&mut self, pods: Option<&NodePods>) {
        let (Some(pods), PolicyNow::Known(known)) = (pods, self.state.now()) else {
            return;
        };
        let policy_generation = self.state.generation();
        let generations = (policy_generation, pods.read(k8s::PodTable::generation));
        let now_ns = monotonic_ns();
        let is_due = match self.listed.generations {
            Some(listed) if listed == generations => false,
            Some((listed, _)) if listed == policy_generation => {
                now_ns.saturating_sub(self.listed.time_ns) >= LIST_INTERVAL_NS
            }
            _ => true,
        };
        if is_due {
            self.excluded = pods.read(|table| ExcludedPods::find(&known.policy, table));
            self.listed = ListedAt {
                generations: Some(generations),
                time_ns: now_ns,
            };
        }
    }

    /// The pods that are not profiled, as last listed.
    pub fn excluded(&self) -> &ExcludedPods {
        &self.excluded
    }

    /// Registers the counts.
    pub fn register(&self, registry: &mut Registry) {
        self.stats.register(registry, PolicyStats::show);
    }
}

fn apply(reader: &PolicyReader, event: ConfigMapEvent) {
    let source = &reader.source;
    match event {
        ConfigMapEvent::Present(mut texts) => match texts.remove(KEY) {
            Some(text) => reader.take(&text),
            None => reader.fail(
                Failure::Refused,
                &format!("{source} (--policy-configmap) has no key `{KEY}`"),
            ),
        },
        ConfigMapEvent::Absent => reader.fail(
            Failure::Missing,
            &format!("there is no {source} (--policy-configmap); one with `default: allow` profiles everything"),
        ),
        ConfigMapEvent::Failed { reason, error } => {
            let remedy = match reason {
                "forbidden" => "; the collector's Role needs get, list and watch of this ConfigMap",
                "unauthorized" => "; the collector's token is not valid",
                _ => "",
            };
            reader.fail(
                Failure::Unreadable,
                &format!("failed to read {source} (--policy-configmap): {reason}: {error}{remedy}"),
            );
        }
    }
}
