//! Labels of a pod's processes: those that every series has, and those that only relabelling sees.
//!
//! Names of the second kind are those of Prometheus' service discovery of pods (`kubernetes_sd_configs`, role `pod`; source:
//! discovery/kubernetes/pod.go), as far as a pod's object has them.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    container::ContainerKind,
    table::{ContainerMatch, Found},
};

/// Label names and values.
pub type Labels = BTreeMap<Cow<'static, str>, String>;

/// Adds the labels that every series of a pod has: `namespace`, `workload_kind`, `workload`, `pod`, and as far as they are known
/// `container`, `image` and `version`. `container_id` is a label only while the container's name is not known: an id changes with each
/// restart.
pub fn add_pod_labels(found: &Found<'_>, container_id: Option<&str>, labels: &mut Labels) {
    let Found {
        pod,
        container,
        workload,
        is_settled: _,
    } = found;
    let mut add = |name: &'static str, value: &str| {
        labels.insert(name.into(), value.to_owned());
    };
    add("namespace", &pod.namespace);
    add("workload_kind", workload.kind);
    add("workload", workload.name);
    add("pod", &pod.name);
    if let Some(version) = pod.labels.get("app.kubernetes.io/version") {
        add("version", version);
    }
    match (container, container_id) {
        (ContainerMatch::Named(container), _) => {
            add("container", &container.name);
            add("image", &container.image_label());
        }
        (ContainerMatch::Unknown, Some(id)) => add("container_id", id),
        _ => {}
    }
}

/// Adds the labels `__meta_kubernetes_…` of a pod.
pub fn add_meta_labels(found: &Found<'_>, container_id: Option<&str>, labels: &mut Labels) {
    let pod = found.pod;
    let mut add = |name: Cow<'static, str>, value: &str| {
        if !value.is_empty() {
            labels.insert(name, value.to_owned());
        }
    };
    add("__meta_kubernetes_namespace".into(), &pod.namespace);
    let fields = [
        ("__meta_kubernetes_pod_name", &*pod.name),
        ("__meta_kubernetes_pod_uid", &pod.uid),
        ("__meta_kubernetes_pod_node_name", &pod.node),
        ("__meta_kubernetes_pod_ip", &pod.ip),
        ("__meta_kubernetes_pod_host_ip", &pod.host_ip),
        ("__meta_kubernetes_pod_phase", &pod.phase),
    ];
    for (name, value) in fields {
        add(name.into(), value);
    }
    add(
        "__meta_kubernetes_pod_ready".into(),
        &pod.ready.to_lowercase(),
    );
    if let Some(owner) = &pod.owner {
        add("__meta_kubernetes_pod_controller_kind".into(), &owner.kind);
        add("__meta_kubernetes_pod_controller_name".into(), &owner.name);
    }
    for (list, pairs) in [("label", &pod.labels), ("annotation", &pod.annotations)] {
        for (name, value) in pairs.iter() {
            let name = make_label_name(name);
            add(format!("__meta_kubernetes_pod_{list}_{name}").into(), value);
            add(
                format!("__meta_kubernetes_pod_{list}present_{name}").into(),
                "true",
            );
        }
    }
    let ContainerMatch::Named(container) = found.container else {
        return;
    };
    let is_init = matches!(container.kind, ContainerKind::Init | ContainerKind::Sidecar);
    let id = container_id.map(|id| match &*container.runtime {
        "" => id.to_owned(),
        runtime => format!("{runtime}://{id}"),
    });
    let fields = [
        ("__meta_kubernetes_pod_container_name", &*container.name),
        ("__meta_kubernetes_pod_container_image", &container.image),
        (
            "__meta_kubernetes_pod_container_id",
            id.as_deref().unwrap_or_default(),
        ),
        (
            "__meta_kubernetes_pod_container_init",
            if is_init { "true" } else { "false" },
        ),
    ];
    for (name, value) in fields {
        add(name.into(), value);
    }
}

/// A Kubernetes name as part of a label name: every character that label names do not have becomes `_`.
fn make_label_name(name: &str) -> String {
    let valid = |char: char| {
        if char.is_ascii_alphanumeric() {
            char
        } else {
            '_'
        }
    };
    name.chars().map(valid).collect()
}
