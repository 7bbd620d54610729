//! The thread `pods`: watches the node's pods, and reads the owners of their ReplicaSets and Jobs one by one.

use std::{
    future::pending,
    pin::{Pin, pin},
    time::Duration,
};

use anyhow::Result;
use futures_util::StreamExt as _;
use k8s::{OwnerAnswer, OwnerKind, OwnerRequest};
use k8s_openapi::api::{apps::v1::ReplicaSet, batch::v1::Job};
use kube::{
    Api, Client,
    api::ObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, InitialListStrategy, watcher},
    },
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    access::ClusterAccess,
    error::{is_start_gone, reason_of, reason_of_client, refuses_streaming},
    node_pods::NodePods,
    watched_pod::WatchedPod,
};
use crate::{clock::monotonic_ns, readiness::Readiness, threads::spawn};

/// Pods in one page of a list, for API servers that do not stream lists. A page of 5 kB each takes 0.5 MB.
const PAGE_PODS: u32 = 100;

/// Longest time between two events of a list. The API server answers a request within a minute, or not at all.
const LIST_DEADLINE: Duration = Duration::from_secs(60);

/// Time for reading one owner.
const OWNER_DEADLINE: Duration = Duration::from_secs(10);

/// Wait after an owner could not be read: an API server that refuses one refuses all.
const OWNER_PAUSE: Duration = Duration::from_secs(30);

/// Wait before a watch is restarted.
const RESTART_WAIT: Duration = Duration::from_secs(1);

/// Interval at which pods that ended some time ago leave the table.
const MAINTAIN_INTERVAL: Duration = Duration::from_secs(10);

/// The condition of a collector that does not know the node's pods yet.
pub const NO_LABELS: &str = "no_labels";

/// Options of a watch.
#[derive(Clone, Debug)]
pub struct PodWatchOptions {
    /// How the API server is reached.
    pub access: ClusterAccess,
    /// `spec.nodeName` of the pods.
    pub node: String,
    /// Time without an event after which a list is restarted.
    pub list_deadline: Duration,
    /// Has the condition [`NO_LABELS`] until all pods were listed.
    pub readiness: Readiness,
}

impl PodWatchOptions {
    /// Watches the pods of this node.
    pub fn new(access: ClusterAccess, node: &str) -> Self {
        Self {
            access,
            node: node.to_owned(),
            list_deadline: LIST_DEADLINE,
            readiness: Readiness::default(),
        }
    }
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct PodWatch {
    _stop: oneshot::Sender<()>,
}

impl PodWatch {
    /// Starts to watch. The API server may still be unreachable.
    ///
    /// # Errors
    /// The credentials cannot be read, or the thread not be started.
    pub fn start(options: PodWatchOptions, pods: NodePods) -> Result<Self> {
        let (runtime, client) = options.access.connect()?;
        options.readiness.hold(
            NO_LABELS,
            "the API server has not told of the node's pods yet, so that samples have no labels of pods",
        );
        let (stop, stopped) = oneshot::channel();
        let mut watch_loop = WatchLoop {
            client,
            options,
            pods,
            owners_from: Instant::now(),
        };
        spawn("pods", move || {
            runtime.block_on(async {
                tokio::select! {
                    () = watch_loop.run() => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { _stop: stop })
    }
}

struct WatchLoop {
    client: Client,
    options: PodWatchOptions,
    pods: NodePods,
    /// When owners may be read again.
    owners_from: Instant,
}

/// Why a watch is restarted.
enum Restart {
    /// The API server does not stream lists.
    WithPages,
    /// No further event of a list came.
    Stalled,
    /// The API server no longer has the resource version from which the watch continues. kube's watcher would repeat its request for
    /// ever.
    Gone,
}

type OwnerRead = Pin<Box<dyn Future<Output = (OwnerRequest, OwnerResult)> + Send>>;

impl WatchLoop {
    async fn run(&mut self) {
        let mut strategy = InitialListStrategy::StreamingList;
        loop {
            match self.watch(strategy.clone()).await {
                Restart::WithPages => strategy = InitialListStrategy::ListWatch,
                Restart::Stalled => self.note_error("stalled", &"a list of pods did not go on"),
                Restart::Gone => self.note_error("gone", &"the version of the watch is gone"),
            }
            sleep(RESTART_WAIT).await;
        }
    }

    async fn watch(&mut self, strategy: InitialListStrategy) -> Restart {
        let is_streaming = strategy == InitialListStrategy::StreamingList;
        let config = watcher::Config {
            initial_list_strategy: strategy,
            page_size: (!is_streaming).then_some(PAGE_PODS),
            ..watcher::Config::default().fields(&format!("spec.nodeName={}", self.options.node))
        };
        let api = Api::<WatchedPod>::all(self.client.clone());
        let mut events = pin!(watcher(api, config).default_backoff());
        let deadline = self.options.list_deadline;
        let after_deadline = || Instant::now() + deadline;
        let mut list_deadline = Some(after_deadline());
        let mut owner: Option<OwnerRead> = None;
        let mut maintain_at = Instant::now() + MAINTAIN_INTERVAL;
        loop {
            if owner.is_none() {
                owner = self.next_owner();
            }
            let is_paused = owner.is_none() && self.owners_from > Instant::now();
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        let is_listing = match &event {
                            Event::Init | Event::InitApply(_) => true,
                            Event::InitDone | Event::Apply(_) | Event::Delete(_) => false,
                        };
                        list_deadline = is_listing.then(after_deadline);
                        self.apply(event);
                    }
                    Some(Err(err)) if is_streaming && refuses_streaming(&err) => {
                        tracing::debug!(%err, "the API server does not stream lists");
                        return Restart::WithPages;
                    }
                    Some(Err(err)) if is_start_gone(&err) => return Restart::Gone,
                    Some(Err(err)) => {
                        list_deadline = list_deadline.map(|_| after_deadline());
                        self.note_error(reason_of(&err), &err);
                    }
                    None => return Restart::Stalled,
                },
                (request, result) = next_read(&mut owner) => {
                    owner = None;
                    self.set_owner(&request, result);
                }
                () = sleep_until(self.owners_from), if is_paused => {}
                () = sleep_until(maintain_at) => {
                    maintain_at = Instant::now() + MAINTAIN_INTERVAL;
                    self.maintain(monotonic_ns());
                }
                () = wait_for(list_deadline) => return Restart::Stalled,
            }
        }
    }

    fn apply(&self, event: Event<WatchedPod>) {
        let now_ns = monotonic_ns();
        if matches!(event, Event::InitDone) {
            self.options.readiness.release(NO_LABELS);
        }
        let was_connected = self.pods.change(|state| {
            let (table, stats) = (&mut state.table, &mut state.stats);
            let kind = match event {
                Event::Init => {
                    table.begin_list();
                    return stats.is_connected;
                }
                Event::InitApply(watched) => {
                    table.apply(watched.pod, now_ns);
                    "listed"
                }
                Event::InitDone => {
                    table.end_list(now_ns);
                    "list_done"
                }
                Event::Apply(watched) => {
                    table.apply(watched.pod, now_ns);
                    "applied"
                }
                Event::Delete(watched) => {
                    table.delete(watched.pod, now_ns);
                    "deleted"
                }
            };
            *stats.events.entry(kind).or_default() += 1;
            std::mem::replace(&mut stats.is_connected, true)
        });
        if !was_connected && self.pods.is_connected() {
            tracing::info!(node = self.options.node, "watching the node's pods");
        }
    }

    fn maintain(&self, now_ns: u64) {
        self.pods.change(|state| {
            state.table.maintain(now_ns);
            if state.table.has_listed() {
                state.stats.note_quiet(now_ns);
            }
        });
    }

    fn note_error(&self, reason: &'static str, err: &dyn std::fmt::Display) {
        let now_ns = monotonic_ns();
        let (was_connected, count) = self
            .pods
            .change(|state| state.stats.note_error(reason, now_ns));
        let remedy = match reason {
            "forbidden" => "; the collector's ClusterRole needs list and watch of pods",
            "unauthorized" => "; the collector's token is not valid",
            _ => "",
        };
        if !self.pods.has_listed() {
            let text = format!("samples have no labels of pods: {reason}: {err}{remedy}");
            self.options
                .readiness
                .hold(NO_LABELS, text.replace('\n', " "));
        }
        // Once for an API server that stays away, not at each try.
        if was_connected || count == 1 {
            tracing::warn!(
                %err,
                reason,
                "failed to watch the node's pods: new pods have no labels until this works{remedy}"
            );
        }
    }

    fn next_owner(&self) -> Option<OwnerRead> {
        if self.owners_from > Instant::now() {
            return None;
        }
        let request = self.pods.read(|table| table.next_owner(monotonic_ns()))?;
        let client = self.client.clone();
        Some(Box::pin(async move {
            let result = timeout(OWNER_DEADLINE, read_owner(client, &request)).await;
            let result = result.unwrap_or(OwnerResult::Failed("timeout"));
            (request, result)
        }))
    }

    fn set_owner(&mut self, request: &OwnerRequest, result: OwnerResult) {
        let (name, answer) = match result {
            OwnerResult::Owned { kind, name } => ("owned", OwnerAnswer::Owned { kind, name }),
            OwnerResult::Alone => ("alone", OwnerAnswer::Alone),
            OwnerResult::Gone => ("gone", OwnerAnswer::Alone),
            OwnerResult::Failed(reason) => {
                self.owners_from = Instant::now() + OWNER_PAUSE;
                (reason, OwnerAnswer::Failed)
            }
        };
        let count = self.pods.change(|state| {
            state.table.set_owner(request, answer, monotonic_ns());
            let count = state.stats.owners.entry(name).or_default();
            *count += 1;
            *count
        });
        if name == "forbidden" && count == 1 {
            tracing::warn!(
                "the API server refuses to tell the owners of ReplicaSets and Jobs, so that these are the workloads: the \
                 collector's ClusterRole needs get of replicasets.apps and jobs.batch"
            );
        }
    }
}

async fn next_read(read: &mut Option<OwnerRead>) -> (OwnerRequest, OwnerResult) {
    match read {
        Some(read) => read.await,
        None => pending().await,
    }
}

async fn wait_for(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

enum OwnerResult {
    Owned {
        kind: Box<str>,
        name: Box<str>,
    },
    Alone,
    /// It is gone, or another object has its name.
    Gone,
    Failed(&'static str),
}

async fn read_owner(client: Client, request: &OwnerRequest) -> OwnerResult {
    let (namespace, name) = (&*request.namespace, &*request.name);
    let read = match request.kind {
        OwnerKind::ReplicaSet => {
            let api = Api::<ReplicaSet>::namespaced(client, namespace);
            let object = api.get_metadata_opt(name).await;
            object.map(|object| object.map(|object| object.metadata))
        }
        OwnerKind::Job => {
            let api = Api::<Job>::namespaced(client, namespace);
            let object = api.get_metadata_opt(name).await;
            object.map(|object| object.map(|object| object.metadata))
        }
    };
    match read {
        Ok(Some(metadata)) if metadata.uid.as_deref() == Some(&*request.uid) => {
            find_controller(metadata)
        }
        Ok(_) => OwnerResult::Gone,
        Err(err) => OwnerResult::Failed(reason_of_client(&err)),
    }
}

fn find_controller(metadata: ObjectMeta) -> OwnerResult {
    let mut owners = metadata.owner_references.into_iter().flatten();
    match owners.find(|owner| owner.controller == Some(true)) {
        Some(owner) => OwnerResult::Owned {
            kind: owner.kind.into(),
            name: owner.name.into(),
        },
        None => OwnerResult::Alone,
    }
}
