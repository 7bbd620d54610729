//! Check a policy in a ConfigMap: changes, mistakes, a deletion, an API server that goes away, and restarts.

use collector::{
    kubernetes::{ConfigMapWatch, NodePods},
    policy::{NO_POLICY, PolicyNow, PolicySource, PolicyState, PolicyWatch, SourceState},
    readiness::Readiness,
    threads::has_panicked,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{DEPLOYMENT, Watch, fake_api::FakeApi, pod, wait_until, write_kubeconfig};

const DENY_SHOP: &str = "rules: [{action: deny, namespaces: [shop]}]";

struct Policy {
    watch: PolicyWatch,
    readiness: Readiness,
    _directory: TempDir,
}

impl Policy {
    fn start(api: &FakeApi, cache: Option<&TempDir>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = PolicySource::ConfigMap {
            namespace: "profiling".into(),
            name: "policy".into(),
            access: write_kubeconfig(&directory, api.address),
        };
        let readiness = Readiness::default();
        let cache = cache.map(TempDir::path);
        Self {
            watch: PolicyWatch::start(Some(&source), cache, &readiness).unwrap(),
            readiness,
            _directory: directory,
        }
    }

    /// What becomes of the pods: "all", "some" may be denied, or "none" was read.
    fn now(&self) -> &'static str {
        match self.watch.state().now() {
            PolicyNow::Known(known) if known.policy.denies_pods() => "some",
            PolicyNow::Known(_) | PolicyNow::None => "all",
            PolicyNow::Unread => "none",
        }
    }

    #[track_caller]
    fn wait_for(&self, expected: &str) {
        wait_until("a change of the policy", || self.now() == expected);
    }

    #[track_caller]
    fn wait_for_failure(&self, expected: &str) {
        wait_until(expected, || failing(self.watch.state()).contains(expected));
    }
}

fn failing(state: &PolicyState) -> String {
    match state.source() {
        SourceState::Failing(text) => text,
        SourceState::Current => String::new(),
    }
}

fn set(api: &FakeApi, text: &str) {
    api.cluster()
        .set_config_map(Some(json!({"policy.yaml": text})));
}

/// Check that a policy is there when the watch has started, that changes are followed, and that only the one
/// ConfigMap is asked for.
#[test]
fn changes_are_followed() {
    let api = FakeApi::start();
    set(&api, DENY_SHOP);
    let policy = Policy::start(&api, None);
    assert_eq!(policy.now(), "some");
    assert!(policy.readiness.conditions().is_empty());
    set(&api, "default: allow");
    policy.wait_for("all");
    api.cluster().close_watches();
    set(&api, "default: deny");
    policy.wait_for("some");
    let asked = api.requests(&["/configmaps"]);
    assert!(asked > 2);
    assert_eq!(
        asked,
        api.requests(&["fieldSelector=metadata.name%3Dpolicy"])
    );
}

/// Check that a mistake, a missing key and a deletion leave the last policy in force and are told, and that a policy comes back.
#[test]
fn the_last_policy_stays() {
    let api = FakeApi::start();
    set(&api, DENY_SHOP);
    let policy = Policy::start(&api, None);
    set(&api, "rules:\n- {action: deny}\n");
    policy.wait_for_failure("has a mistake: line 2, rule 1: a rule without a condition");
    api.cluster()
        .set_config_map(Some(json!({"policy": DENY_SHOP})));
    policy.wait_for_failure(
        "ConfigMap profiling/policy (--policy-configmap) has no key `policy.yaml`",
    );
    api.cluster().set_config_map(None);
    policy.wait_for_failure("there is no ConfigMap profiling/policy");
    assert_eq!(policy.now(), "some");
    set(&api, "default: allow");
    policy.wait_for("all");
    assert_eq!(failing(policy.watch.state()), "");
}

/// Check that nothing is decided and the collector is not ready while no policy was ever read, with the cause: there is none, or the
/// API server refuses.
#[test]
fn a_policy_that_was_never_read() {
    let api = FakeApi::start();
    api.cluster().refuses_config_maps = Some(403);
    let policy = Policy::start(&api, None);
    assert_eq!(policy.now(), "none");
    let reason = || {
        policy
            .readiness
            .conditions()
            .remove(NO_POLICY)
            .unwrap_or_default()
    };
    wait_until("the cause", || reason().contains("forbidden"));
    assert!(
        reason().contains("the collector's Role needs get, list and watch"),
        "{}",
        reason()
    );
    assert!(reason().ends_with("no pod is profiled until a policy was read"));
    api.cluster().refuses_config_maps = None;
    wait_until("the other cause", || {
        reason().contains("there is no ConfigMap")
    });
    set(&api, DENY_SHOP);
    wait_until("the policy", || policy.now() == "some");
    assert_eq!(reason(), "");
}

/// Check that a collector that starts without the API server has the last policy, and follows the API server when it comes.
#[test]
fn a_start_without_the_api_server() {
    let cache = tempfile::tempdir().unwrap();
    let api = FakeApi::start();
    set(&api, DENY_SHOP);
    let first = Policy::start(&api, Some(&cache));
    // It is written after it is in force.
    let kept = cache.path().join("policy.yaml");
    wait_until("the kept policy", || kept.exists());
    drop(first);
    api.cluster().refuses_config_maps = Some(503);
    let policy = Policy::start(&api, Some(&cache));
    assert_eq!(policy.now(), "some");
    assert!(policy.readiness.conditions().is_empty());
    policy
        .wait_for_failure("failed to read ConfigMap profiling/policy (--policy-configmap): server");
    set(&api, "default: allow");
    api.cluster().refuses_config_maps = None;
    wait_until("the policy", || policy.now() == "all");
}

/// Check that an API server that was away is no failure once it is back, although the ConfigMap is the same.
#[test]
fn an_api_server_that_comes_back() {
    let api = FakeApi::start();
    set(&api, DENY_SHOP);
    let policy = Policy::start(&api, None);
    api.cluster().refuses_config_maps = Some(503);
    api.cluster().close_watches();
    policy
        .wait_for_failure("failed to read ConfigMap profiling/policy (--policy-configmap): server");
    assert_eq!(policy.now(), "some");
    api.cluster().refuses_config_maps = None;
    wait_until("the policy's source", || {
        failing(policy.watch.state()).is_empty()
    });
}

/// Check that the node's excluded pods are listed with their rule, and anew with another policy.
#[test]
fn excluded_pods() {
    let api = FakeApi::start();
    api.cluster().apply(pod(DEPLOYMENT));
    set(&api, DENY_SHOP);
    let watch = Watch::start(api.address);
    let mut policy = Policy::start(&api, None);
    wait_until("the pod", || watch.pods.has_listed());
    let mut list = |pods: Option<&NodePods>| {
        policy.watch.list_excluded(pods);
        let listed = policy.watch.excluded().listed.iter();
        let listed = listed.map(|pod| format!("{}/{}: {}", pod.namespace, pod.pod, pod.rule));
        listed.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(list(None), "");
    let expected = "shop/cart-6d4f9c7b5-x2x7q: rule 1: deny namespaces shop";
    assert_eq!(list(Some(&watch.pods)), expected);
    set(&api, "default: allow");
    wait_until("no excluded pod", || list(Some(&watch.pods)).is_empty());
}

/// Check that a panic of the watch is noted, so that the collector exits.
#[test]
fn a_panic_is_noted() {
    let api = FakeApi::start();
    let directory = tempfile::tempdir().unwrap();
    let access = write_kubeconfig(&directory, api.address);
    let panic = |_| panic!("as the test wants it");
    let watch = ConfigMapWatch::start(&access, "profiling", "policy", panic).unwrap();
    wait_until("the note of a panic", has_panicked);
    drop(watch);
}
