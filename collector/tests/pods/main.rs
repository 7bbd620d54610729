//! The watch of the node's pods against an API server that each test controls, and its memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod churn;
mod fake_api;
mod policy;

use std::{
    env, fs,
    io::Read as _,
    net::{SocketAddr, TcpListener},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use collector::{
    kubernetes::{ClusterAccess, NO_LABELS, NodePods, PodWatch, PodWatchOptions},
    readiness::Readiness,
};
use fake_api::FakeApi;
use k8s::ContainerMatch;
use metrics::{Exposition, Registry};
use serde_json::{Value, json};
use tempfile::TempDir;

const DEPLOYMENT: &str = include_str!("../../../testdata/pods/deployment.json");
const BARE: &str = include_str!("../../../testdata/pods/bare.json");

const DEPLOYMENT_UID: &str = "00000001-0000-4000-8000-000000000000";
const REPLICA_SET_UID: &str = "00000101-0000-4000-8000-000000000000";

fn pod(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

/// A bare pod with its number in name and uid.
fn numbered(number: usize) -> Value {
    let mut pod = pod(BARE);
    pod["metadata"]["name"] = json!(format!("shell-{number:05}"));
    pod["metadata"]["uid"] = json!(uid(number));
    pod
}

fn uid(number: usize) -> String {
    format!("{number:08}-1111-4000-8000-000000000000")
}

/// A running watch.
struct Watch {
    pods: NodePods,
    readiness: Readiness,
    registry: Registry,
    _watch: PodWatch,
    _directory: TempDir,
}

impl Watch {
    fn start(address: SocketAddr) -> Self {
        Self::start_with(address, Duration::from_secs(60))
    }

    fn start_with(address: SocketAddr, list_deadline: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pods = NodePods::default();
        let mut registry = Registry::default();
        pods.register(&mut registry);
        let readiness = Readiness::default();
        let options = PodWatchOptions {
            list_deadline,
            readiness: readiness.clone(),
            ..PodWatchOptions::new(write_kubeconfig(&directory, address), "node-1")
        };
        Self {
            _watch: PodWatch::start(options, pods.clone()).unwrap(),
            _directory: directory,
            pods,
            readiness,
            registry,
        }
    }

    fn metric(&self, name: &str) -> String {
        let text = Exposition::Text.encode(&self.registry).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let value = line.and_then(|line| line.split(' ').nth(1));
        value.unwrap_or_default().to_owned()
    }

    fn knows(&self, uid: &str) -> bool {
        self.pods.read(|table| table.find(uid, None).is_some())
    }

    /// The workload of a pod as "kind/name", and whether it is settled.
    fn workload(&self, uid: &str) -> (String, bool) {
        self.pods.read(|table| {
            let found = table.find(uid, None).expect("a known pod");
            let workload = found.workload;
            (
                format!("{}/{}", workload.kind, workload.name),
                found.is_settled,
            )
        })
    }
}

fn write_kubeconfig(directory: &TempDir, address: SocketAddr) -> ClusterAccess {
    let path = directory.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "test", "user": {"token": "secret"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    fs::write(&path, text.to_string()).unwrap();
    ClusterAccess::Kubeconfig(path)
}

/// Far more than any condition takes, also on a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(180);

#[track_caller]
fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) {
    let until = Instant::now() + WAIT_TIMEOUT;
    while !is_done() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Check that the pods of the node are listed by a stream, that the owner of two pods' ReplicaSet is read once, and that nothing else
/// is asked for.
#[test]
fn pods_and_owners() {
    let api = FakeApi::start();
    {
        let mut cluster = api.cluster();
        let mut second = pod(DEPLOYMENT);
        second["metadata"]["name"] = json!("cart-2");
        second["metadata"]["uid"] = json!(uid(2));
        cluster.apply(pod(DEPLOYMENT));
        cluster.apply(second);
        let owner = ("Deployment".into(), "cart".into());
        let replica_set = (REPLICA_SET_UID.into(), Some(owner));
        cluster.owners.insert("cart-6d4f9c7b5".into(), replica_set);
    }
    let watch = Watch::start(api.address);
    wait_until("listed", || {
        watch.pods.has_listed() && watch.pods.is_connected()
    });
    wait_until("owned", || watch.workload(DEPLOYMENT_UID).1);
    assert_eq!(watch.workload(&uid(2)), ("Deployment/cart".into(), true));
    let id = "a".repeat(64);
    watch.pods.read(|table| {
        let found = table.find(DEPLOYMENT_UID, Some(&id)).unwrap();
        assert!(
            matches!(found.container, ContainerMatch::Named(container) if &*container.name == "app")
        );
    });
    let selector = "fieldSelector=spec.nodeName%3Dnode-1";
    assert_eq!(
        api.requests(&["watch=true", "sendInitialEvents=true", selector]),
        1
    );
    assert_eq!(api.requests(&["/replicasets/cart-6d4f9c7b5"]), 1);
    assert_eq!(api.requests(&[]), 2, "{:?}", api.cluster().requests);
    assert_eq!(watch.metric("kubernetes_pods"), "2");
    assert_eq!(watch.metric("kubernetes_listed"), "1");
    assert_eq!(
        watch.metric("kubernetes_owner_requests_total{result=\"owned\"}"),
        "1"
    );
}

/// Check that an API server that does not stream lists is asked for pages of 100.
#[test]
fn pages() {
    let api = FakeApi::start();
    api.cluster().has_no_streaming = true;
    for number in 0..250 {
        api.cluster().apply(numbered(number));
    }
    let watch = Watch::start(api.address);
    wait_until("listed", || watch.pods.has_listed());
    assert_eq!(watch.metric("kubernetes_pods"), "250");
    assert!(watch.knows(&uid(249)));
    assert_eq!(api.requests(&["limit=100"]), 3);
    api.cluster().apply(numbered(300));
    wait_until("watched", || watch.knows(&uid(300)));
    assert_eq!(
        watch.metric("kubernetes_errors_total{reason=\"other\"}"),
        "0"
    );
}

/// Check that changes arrive, and that a watch whose connection ends goes on from the last bookmark.
#[test]
fn events_and_bookmarks() {
    let api = FakeApi::start();
    let mut creating = pod(include_str!("../../../testdata/pods/creating.json"));
    api.cluster().apply(creating.clone());
    let watch = Watch::start(api.address);
    wait_until("listed", || watch.pods.has_listed());
    let uid_of = "00000011-0000-4000-8000-000000000000";
    let id = "f".repeat(64);
    let is_named = || {
        let is_settled = |table: &k8s::PodTable| table.find(uid_of, Some(&id)).unwrap().is_settled;
        watch.pods.read(is_settled)
    };
    assert!(!is_named());
    creating["status"]["containerStatuses"][0]["containerID"] = json!(format!("containerd://{id}"));
    api.cluster().apply(creating);
    wait_until("named", is_named);
    api.cluster().delete("web");
    let deleted = "kubernetes_events_total{kind=\"deleted\"}";
    wait_until("deleted", || watch.metric(deleted) == "1");
    assert!(is_named(), "a pod that is gone keeps its containers");
    let version = api.cluster().bookmark();
    api.cluster().apply(numbered(1));
    wait_until("added", || watch.knows(&uid(1)));
    let version_after = version + 1;
    api.cluster().bookmark();
    // Only a bookmark has this version.
    wait_until("sent", || api.cluster().sent > version_after);
    api.cluster().close_watches();
    let from = format!("resourceVersion={}", version_after + 1);
    wait_until("watched again", || {
        api.requests(&["watch=true", &from]) == 1
    });
    api.cluster().apply(numbered(2));
    wait_until("added", || watch.knows(&uid(2)));
    assert_eq!(
        watch.metric("kubernetes_events_total{kind=\"list_done\"}"),
        "1"
    );
}

/// Check that pods are listed again when the API server has forgotten the version, whether it says so by an event of the watch or by
/// the status of its answer.
#[test]
fn versions_that_are_gone() {
    let api = FakeApi::start();
    api.cluster().apply(numbered(1));
    let watch = Watch::start(api.address);
    wait_until("listed", || watch.pods.has_listed());
    for (lists, is_status) in [(2, false), (3, true)] {
        {
            let mut cluster = api.cluster();
            cluster.expire(is_status);
            cluster.apply(numbered(lists));
        }
        wait_until("listed again", || watch.knows(&uid(lists)));
        wait_until("the list is done", || {
            watch.metric("kubernetes_events_total{kind=\"list_done\"}") == lists.to_string()
        });
        let gone = "kubernetes_errors_total{reason=\"gone\"}";
        assert_eq!(watch.metric(gone), (lists - 1).to_string());
    }
    assert!(watch.knows(&uid(1)) && watch.pods.is_connected());
}

/// Check that pods come when the API server does, and that those that are known stay when it goes away and comes again.
#[test]
fn no_server() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let watch = Watch::start(address);
    let unreachable = "kubernetes_errors_total{reason=\"unreachable\"}";
    wait_until("counted", || watch.metric(unreachable) != "0");
    assert!(!watch.pods.has_listed() && !watch.pods.is_connected());
    let api = FakeApi::start_at(address);
    api.cluster().apply(numbered(1));
    wait_until("known", || watch.knows(&uid(1)));
    let errors = watch.metric(unreachable);
    drop(api);
    wait_until("counted", || watch.metric(unreachable) != errors);
    assert!(!watch.pods.is_connected());
    assert!(watch.knows(&uid(1)) && watch.pods.has_listed());
    // A wait would have no end.
    assert!(!watch.pods.wait_until(u64::MAX, || false, |_| false));
}

/// Check that missing rights are counted as such, and that the watch works once they are there; without the right to read owners the
/// ReplicaSet is the workload.
#[test]
fn missing_rights() {
    let api = FakeApi::start();
    api.cluster().apply(pod(DEPLOYMENT));
    api.cluster().refuses_pods = Some(403);
    api.cluster().refuses_owners = Some(403);
    let watch = Watch::start(api.address);
    let forbidden = "kubernetes_errors_total{reason=\"forbidden\"}";
    wait_until("counted", || watch.metric(forbidden) != "0");
    assert!(!watch.pods.has_listed());
    let conditions = watch.readiness.conditions();
    assert!(
        conditions[NO_LABELS].contains("forbidden"),
        "{conditions:?}"
    );
    assert!(
        conditions[NO_LABELS].contains("ClusterRole"),
        "{conditions:?}"
    );
    api.cluster().refuses_pods = None;
    wait_until("known", || watch.knows(DEPLOYMENT_UID));
    wait_until("ready", || watch.readiness.conditions().is_empty());
    let refused = "kubernetes_owner_requests_total{result=\"forbidden\"}";
    wait_until("refused", || watch.metric(refused) == "1");
    let expected = ("ReplicaSet/cart-6d4f9c7b5".into(), false);
    assert_eq!(watch.workload(DEPLOYMENT_UID), expected);
}

/// Check that a slow API server is waited for, and that a list of one that does not answer begins anew.
#[test]
fn slow_servers() {
    let api = FakeApi::start();
    api.cluster().apply(numbered(1));
    api.cluster().delay = Duration::from_millis(300);
    let slow = Watch::start(api.address);
    wait_until("known", || slow.knows(&uid(1)));
    api.cluster().delay = Duration::from_secs(3600);
    let watch = Watch::start_with(api.address, Duration::from_millis(500));
    let stalled = "kubernetes_errors_total{reason=\"stalled\"}";
    wait_until("counted", || !["0", "1"].contains(&&*watch.metric(stalled)));
    api.cluster().delay = Duration::ZERO;
    wait_until("known", || watch.knows(&uid(1)));
}

/// Check that an API server with TLS is connected to.
#[test]
fn tls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let access = write_kubeconfig(&directory, listener.local_addr().unwrap());
    let ClusterAccess::Kubeconfig(path) = &access else {
        panic!("a file was written");
    };
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replace("http://", "https://")).unwrap();
    let options = PodWatchOptions::new(access, "node-1");
    let _watch = PodWatch::start(options, NodePods::default()).unwrap();
    let (mut connection, _) = listener.accept().unwrap();
    let mut hello = [0; 6];
    connection.read_exact(&mut hello).unwrap();
    // RFC 8446: a handshake record, and in it the message of the client's hello.
    assert_eq!((hello[0], hello[5]), (22, 1));
}

/// Check that a kubeconfig file that is missing or wrong is named.
#[test]
fn wrong_kubeconfig() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    let start = || {
        let access = ClusterAccess::Kubeconfig(path.clone());
        let options = PodWatchOptions::new(access, "node-1");
        let result = PodWatch::start(options, NodePods::default());
        format!("{:#}", result.unwrap_err())
    };
    let missing = start();
    assert!(missing.contains("(--kubeconfig)"), "{missing}");
    fs::write(&path, "clusters: [").unwrap();
    let wrong = start();
    assert!(wrong.contains("kubeconfig` (--kubeconfig)"), "{wrong}");
}

/// The variable by which this program is told to watch in a process of its own.
const CHILD_VARIABLE: &str = "PILOTLIGHT_TEST_PODS_API";

/// Check the memory of a watch of 1,000 pods of 5 kB against one of none: at most 16 MB more, with a stream and with pages.
#[test]
fn memory_of_1000_pods() {
    if let Ok(address) = env::var(CHILD_VARIABLE) {
        return show_memory(address.parse().unwrap());
    }
    let none = FakeApi::start();
    let many = FakeApi::start();
    let paged = FakeApi::start();
    paged.cluster().has_no_streaming = true;
    for api in [&many, &paged] {
        for number in 0..1000 {
            api.cluster().apply(large(number));
        }
    }
    let [none, streamed, paged] = [none, many, paged].map(|api| measure(api.address));
    println!("no pods {none} kB, 1,000 pods {streamed} kB by a stream, {paged} kB by pages");
    for memory in [streamed, paged] {
        assert!(memory - none < 16_000, "{memory} kB against {none} kB");
    }
}

/// A pod of 5 kB, 40 % of it managed fields.
fn large(number: usize) -> Value {
    let mut pod = numbered(number);
    let labels = (0..10).map(|label| {
        (
            format!("example.com/label-{label}"),
            json!("a-value-of-some-length"),
        )
    });
    pod["metadata"]["labels"] = Value::Object(labels.collect());
    pod["metadata"]["managedFields"][0]["fieldsV1"]["f:status"]["f:x"] = json!("x".repeat(2000));
    pod["spec"]["containers"][0]["env"] = json!([{"name": "X", "value": "x".repeat(1000)}]);
    pod
}

/// Watches in another process; returns its peak of resident memory in kB.
fn measure(address: SocketAddr) -> i64 {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "memory_of_1000_pods", "--nocapture"])
        .env(CHILD_VARIABLE, address.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.split_once("VmHWM:"));
    let (_, value) = line.unwrap_or_else(|| panic!("{text}"));
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

fn show_memory(address: SocketAddr) {
    let watch = Watch::start(address);
    wait_until("listed", || watch.pods.has_listed());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:"));
    println!("{}", peak.unwrap());
}
