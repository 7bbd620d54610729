//! An API server in this process that a test controls: lists in pages, watches with and without initial events, owners.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State},
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

/// What the server has and does. A test changes it at any time.
#[derive(Default)]
pub(crate) struct Cluster {
    pods: BTreeMap<String, Value>,
    /// Events by version, from 1 on.
    events: Vec<Value>,
    /// Owners of ReplicaSets and Jobs, by name: uid, and kind and name of the controller.
    pub(crate) owners: HashMap<String, (String, Option<(String, String)>)>,
    /// All requests, as path and query.
    pub(crate) requests: Vec<String>,
    /// Watches with initial events are refused, as by API servers before 1.27.
    pub(crate) has_no_streaming: bool,
    /// All requests for pods get this status.
    pub(crate) refuses_pods: Option<u16>,
    /// All requests for owners get this status.
    pub(crate) refuses_owners: Option<u16>,
    /// Watches from an earlier version are refused.
    first_version: usize,
    /// Requests for pods are answered after this time.
    pub(crate) delay: Duration,
    /// Number of times that all connections of watches were closed.
    closed: usize,
    /// The highest position of an event that a watch was given.
    pub(crate) sent: usize,
    /// The one ConfigMap, and all its versions as events, from version 2 on.
    config_map: Option<Value>,
    config_map_events: Vec<Value>,
    /// All requests for ConfigMaps get this status.
    pub(crate) refuses_config_maps: Option<u16>,
}

impl Cluster {
    /// Adds or replaces a pod.
    pub(crate) fn apply(&mut self, mut pod: Value) {
        let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
        let version = self.events.len() + 1;
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        let is_known = self.pods.insert(name, pod.clone()).is_some();
        let kind = if is_known { "MODIFIED" } else { "ADDED" };
        self.events.push(json!({"type": kind, "object": pod}));
    }

    /// Deletes a pod.
    pub(crate) fn delete(&mut self, name: &str) {
        let mut pod = self.pods.remove(name).expect("a known pod");
        let version = self.events.len() + 1;
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        self.events.push(json!({"type": "DELETED", "object": pod}));
    }

    fn pod_events(&self) -> &[Value] {
        &self.events
    }

    fn config_map_events(&self) -> &[Value] {
        &self.config_map_events
    }

    /// Creates, changes or deletes the ConfigMap.
    pub(crate) fn set_config_map(&mut self, data: Option<Value>) {
        let version = self.config_map_events.len() + 2;
        let object = |data: Value| {
            let metadata = json!({"name": "policy", "namespace": "profiling", "resourceVersion": version.to_string()});
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data})
        };
        let kind = match (&data, &self.config_map) {
            (None, _) => "DELETED",
            (Some(_), None) => "ADDED",
            (Some(_), Some(_)) => "MODIFIED",
        };
        let event = json!({"type": kind, "object": object(data.clone().unwrap_or_default())});
        self.config_map_events.push(event);
        self.config_map = data.map(object);
    }

    /// Sends a bookmark with a new version. Returns the version.
    pub(crate) fn bookmark(&mut self) -> usize {
        let version = self.events.len() + 1;
        self.events.push(bookmark(version, json!({})));
        version
    }

    /// Ends all watches, as a load balancer does.
    pub(crate) fn close_watches(&mut self) {
        self.closed += 1;
    }

    /// Forgets all versions: watches get an error, or if `is_status` they end and cannot go on.
    pub(crate) fn expire(&mut self, is_status: bool) {
        if is_status {
            self.close_watches();
            self.first_version = self.events.len() + 1;
        } else {
            let gone = status(410, "too old resource version");
            self.events.push(json!({"type": "ERROR", "object": gone}));
        }
    }
}

fn bookmark(version: usize, annotations: Value) -> Value {
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}})
}

fn status(code: u16, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "", "code": code,
    })
}

fn refuse(code: u16, message: &str) -> Response {
    let code_of = StatusCode::from_u16(code).expect("a status");
    (code_of, status(code, message).to_string()).into_response()
}

type Shared = Arc<Mutex<Cluster>>;

/// A running server. It ends when it is dropped.
pub(crate) struct FakeApi {
    pub(crate) address: SocketAddr,
    cluster: Shared,
    _stop: oneshot::Sender<()>,
}

impl FakeApi {
    /// Starts a server of a free port.
    pub(crate) fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts a server of this address.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let cluster = Shared::default();
        let router = Router::new()
            .route("/api/v1/pods", get(answer_pods))
            .route(
                "/api/v1/namespaces/profiling/configmaps",
                get(answer_config_maps),
            )
            .route(
                "/apis/apps/v1/namespaces/{namespace}/replicasets/{name}",
                get(answer_owner),
            )
            .route(
                "/apis/batch/v1/namespaces/{namespace}/jobs/{name}",
                get(answer_owner),
            )
            .with_state(cluster.clone());
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    ended = axum::serve(listener, router) => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            cluster,
            _stop: stop,
        }
    }

    pub(crate) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap()
    }

    /// Requests so far that have all these parts.
    pub(crate) fn requests(&self, parts: &[&str]) -> usize {
        let cluster = self.cluster();
        let requests = cluster.requests.iter();
        requests
            .filter(|request| parts.iter().all(|part| request.contains(part)))
            .count()
    }
}

async fn answer_pods(
    State(cluster): State<Shared>,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let delay = {
        let mut cluster = cluster.lock().unwrap();
        cluster.requests.push(uri.to_string());
        cluster.delay
    };
    tokio::time::sleep(delay).await;
    let locked = cluster.lock().unwrap();
    if let Some(code) = locked.refuses_pods {
        return refuse(code, "pods is forbidden: User cannot list resource");
    }
    if !query.contains_key("watch") {
        return list(&locked, &query);
    }
    let version: usize = query["resourceVersion"].parse().unwrap();
    let is_initial = query
        .get("sendInitialEvents")
        .is_some_and(|value| value == "true");
    if is_initial && locked.has_no_streaming {
        return refuse(422, "sendInitialEvents is forbidden for watch");
    }
    let mut first = String::new();
    let mut position = version;
    if is_initial {
        for pod in locked.pods.values() {
            first += &format!("{}\n", json!({"type": "ADDED", "object": pod}));
        }
        position = locked.events.len();
        let end = json!({"k8s.io/initial-events-end": "true"});
        first += &format!("{}\n", bookmark(position.max(1), end));
    } else if version < locked.first_version {
        return refuse(410, "too old resource version");
    }
    let closed = locked.closed;
    drop(locked);
    Body::from_stream(watch(
        cluster,
        Cluster::pod_events,
        (first, position),
        closed,
    ))
    .into_response()
}

/// The initial events, and then each new one from a position on.
fn watch(
    cluster: Shared,
    events: fn(&Cluster) -> &[Value],
    start: (String, usize),
    closed: usize,
) -> impl stream::Stream<Item = Result<String, std::io::Error>> {
    stream::unfold(start, move |(first, mut position)| {
        let cluster = cluster.clone();
        async move {
            if !first.is_empty() {
                return Some((Ok(first), (String::new(), position)));
            }
            loop {
                {
                    let mut cluster = cluster.lock().unwrap();
                    if cluster.closed != closed {
                        return None;
                    }
                    if let Some(event) = events(&cluster).get(position) {
                        let line = format!("{event}\n");
                        position += 1;
                        cluster.sent = cluster.sent.max(position);
                        return Some((Ok(line), (String::new(), position)));
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })
}

fn list(cluster: &Cluster, query: &HashMap<String, String>) -> Response {
    let number = |name| query.get(name).map(|text: &String| text.parse().unwrap());
    let skipped: usize = number("continue").unwrap_or(0);
    let limit = number("limit").unwrap_or(usize::MAX);
    let items: Vec<&Value> = cluster.pods.values().skip(skipped).take(limit).collect();
    let end = skipped + items.len();
    let token = if end < cluster.pods.len() {
        end.to_string()
    } else {
        String::new()
    };
    let version = cluster.events.len().max(1).to_string();
    let metadata = json!({"resourceVersion": version, "continue": token});
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items});
    list.to_string().into_response()
}

async fn answer_config_maps(
    State(cluster): State<Shared>,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let mut locked = cluster.lock().unwrap();
    locked.requests.push(uri.to_string());
    if let Some(code) = locked.refuses_config_maps {
        return refuse(code, "configmaps is forbidden: User cannot list resource");
    }
    if !query.contains_key("watch") {
        let version = (locked.config_map_events.len() + 1).to_string();
        let items: Vec<&Value> = locked.config_map.iter().collect();
        let metadata = json!({"resourceVersion": version});
        let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items});
        return list.to_string().into_response();
    }
    let version: usize = query["resourceVersion"].parse().unwrap();
    let closed = locked.closed;
    drop(locked);
    let start = (String::new(), version - 1);
    Body::from_stream(watch(cluster, Cluster::config_map_events, start, closed)).into_response()
}

async fn answer_owner(
    State(cluster): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    uri: Uri,
) -> Response {
    let mut cluster = cluster.lock().unwrap();
    cluster.requests.push(uri.to_string());
    if let Some(code) = cluster.refuses_owners {
        return refuse(code, "forbidden");
    }
    let Some((uid, controller)) = cluster.owners.get(&name) else {
        return refuse(404, "not found");
    };
    let owners = controller.as_ref().map(|(kind, name)| {
        json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}])
    });
    let metadata =
        json!({"name": name, "namespace": namespace, "uid": uid, "ownerReferences": owners});
    let object = json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
    });
    object.to_string().into_response()
}
