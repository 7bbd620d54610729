//! A pod: what is kept of its object.

use std::collections::BTreeMap;

use crate::{
    container::{Container, ContainerKind},
    hex::is_hex,
    object::{ContainerSpec, ContainerStatus, PodObject, cut_text},
};

/// Bytes to keep of the labels and annotations of a pod, as names and values. Ten labels have 0.5 kB; a mesh's annotations have a few
/// more. Kubernetes takes 256 KiB of annotations.
const PAIR_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a label's or an annotation's value; longer ones are left out. Labels have at most 63. Longer annotations are documents,
/// such as `kubectl.kubernetes.io/last-applied-configuration`.
const VALUE_BYTES_MAX: usize = 1024;

/// Containers to keep of a pod. Pods have 1 to 5; 64 of them take 64 × (512 + 512 + 4 × 88) bytes, 88 KB, at most.
const CONTAINERS_MAX: usize = 64;

/// Labels or annotations, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(Box<[(Box<str>, Box<str>)]>);

impl Pairs {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(known, _)| (**known).cmp(name));
        Some(&self.0[found.ok()?].1)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    fn heap_bytes(&self) -> usize {
        let pairs = self.0.iter();
        pairs
            .map(|(name, value)| size_of::<(Box<str>, Box<str>)>() + name.len() + value.len())
            .sum()
    }
}

/// The object that controls a pod, as named in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Group and version: `apps/v1`.
    pub api_version: Box<str>,
    /// Kind: `ReplicaSet`.
    pub kind: Box<str>,
    /// Name, in the pod's namespace.
    pub name: Box<str>,
    /// Uid.
    pub uid: Box<str>,
}

/// A pod of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// The uid in the paths of its cgroups: for a static pod the hash of its manifest, which is 32 hexadecimal digits.
    pub path_uid: Box<str>,
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// `spec.nodeName`.
    pub node: Box<str>,
    /// Labels.
    pub labels: Pairs,
    /// Annotations.
    pub annotations: Pairs,
    /// The controlling owner; `None` for a bare pod.
    pub owner: Option<Owner>,
    /// Containers of all three lists.
    pub containers: Vec<Container>,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Box<str>,
    /// `status.podIP`.
    pub ip: Box<str>,
    /// `status.hostIP`.
    pub host_ip: Box<str>,
    /// The status of the condition `Ready`: `True`, `False` or `Unknown`.
    pub ready: Box<str>,
    /// Labels, annotations and containers that exceed the limits of this crate and were left out.
    pub left_out: usize,
}

impl From<PodObject> for Pod {
    fn from(object: PodObject) -> Self {
        let PodObject {
            metadata,
            spec,
            status,
        } = object;
        let text = |text: Option<String>| cut_text(text.unwrap_or_default());
        let owners = metadata.owner_references.unwrap_or_default();
        let owner = owners
            .into_iter()
            .find(|owner| owner.controller == Some(true));
        let owner = owner.map(|owner| Owner {
            api_version: text(owner.api_version),
            kind: text(owner.kind),
            name: text(owner.name),
            uid: text(owner.uid),
        });
        let uid = text(metadata.uid);
        let annotations = metadata.annotations.unwrap_or_default();
        let path_uid = static_uid(&annotations, owner.as_ref()).unwrap_or_else(|| uid.clone());

        let mut limit = PairLimit {
            left_bytes: PAIR_BYTES_MAX,
            left_out: 0,
        };
        let labels = limit.keep(metadata.labels.unwrap_or_default());
        let annotations = limit.keep(annotations);
        let lists = [
            (
                ContainerKind::Regular,
                spec.containers,
                status.container_statuses,
            ),
            (
                ContainerKind::Init,
                spec.init_containers,
                status.init_container_statuses,
            ),
            (
                ContainerKind::Ephemeral,
                spec.ephemeral_containers,
                status.ephemeral_container_statuses,
            ),
        ];
        let lists = lists.into_iter().flat_map(|(kind, specs, statuses)| {
            join_containers(
                kind,
                specs.unwrap_or_default(),
                statuses.unwrap_or_default(),
            )
        });
        let mut containers: Vec<Container> = lists.collect();
        let left_out = limit.left_out + containers.len().saturating_sub(CONTAINERS_MAX);
        containers.truncate(CONTAINERS_MAX);
        containers.shrink_to_fit();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions
            .into_iter()
            .find(|condition| condition.kind.as_deref() == Some("Ready"));
        Self {
            path_uid,
            uid,
            namespace: text(metadata.namespace),
            name: text(metadata.name),
            node: text(spec.node_name),
            labels,
            annotations,
            owner,
            containers,
            phase: text(status.phase),
            ip: text(status.pod_ip),
            host_ip: text(status.host_ip),
            ready: text(ready.and_then(|condition| condition.status)),
            left_out,
        }
    }
}

impl Pod {
    /// Whether all its containers have ended for good.
    pub fn has_ended(&self) -> bool {
        matches!(&*self.phase, "Succeeded" | "Failed")
    }

    /// Whether kubelet made it of a manifest on the node; the API server has a mirror of it.
    pub fn is_static(&self) -> bool {
        self.path_uid != self.uid
    }

    /// The container that has or had this id.
    pub fn find_container(&self, id: &str) -> Option<&Container> {
        let mut containers = self.containers.iter();
        containers.find(|container| container.has_id(id))
    }

    /// Keeps the ids of containers that the same pod had before.
    pub(crate) fn keep_ids(&mut self, before: &Self) {
        for container in &mut self.containers {
            let mut known = before.containers.iter();
            if let Some(known) = known.find(|known| known.name == container.name) {
                container.keep_ids(known);
            }
        }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let Self {
            uid,
            path_uid,
            namespace,
            name,
            node,
            labels,
            annotations,
            owner,
            containers,
            phase,
            ip,
            host_ip,
            ready,
            left_out: _,
        } = self;
        let texts = [
            uid, path_uid, namespace, name, node, phase, ip, host_ip, ready,
        ];
        let owner = owner.iter().flat_map(|owner| {
            let Owner {
                api_version,
                kind,
                name,
                uid,
            } = owner;
            [api_version, kind, name, uid]
        });
        let texts = texts.into_iter().chain(owner).map(|text| text.len());
        let containers = containers.iter();
        size_of::<Self>()
            + texts.sum::<usize>()
            + labels.heap_bytes()
            + annotations.heap_bytes()
            + containers
                .map(|container| size_of::<Container>() + container.heap_bytes())
                .sum::<usize>()
    }
}

/// The uid in a static pod's paths. kubelet writes it to the mirror that it creates at the API server, and names the node as its
/// owner. Any user may annotate an ordinary pod, so both are required.
fn static_uid(annotations: &BTreeMap<String, String>, owner: Option<&Owner>) -> Option<Box<str>> {
    let hash = annotations.get("kubernetes.io/config.hash")?;
    let is_mirror = annotations.contains_key("kubernetes.io/config.mirror");
    let is_of_node = owner.is_some_and(|owner| &*owner.kind == "Node");
    (is_mirror && is_of_node && is_hex(hash, 32)).then(|| hash.as_str().into())
}

fn join_containers(
    kind: ContainerKind,
    specs: Vec<ContainerSpec>,
    statuses: Vec<ContainerStatus>,
) -> impl Iterator<Item = Container> {
    specs.into_iter().map(move |spec| {
        let status = statuses.iter().find(|status| status.name == spec.name);
        Container::new(spec, kind, status)
    })
}

struct PairLimit {
    left_bytes: usize,
    left_out: usize,
}

impl PairLimit {
    /// Keeps the shortest pairs. A policy may decide by one of these, which long ones must not push out.
    fn keep(&mut self, pairs: BTreeMap<String, String>) -> Pairs {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by_key(|(name, value)| name.len() + value.len());
        let kept = pairs.into_iter().filter(|(name, value)| {
            let bytes = name.len() + value.len();
            let is_kept = value.len() <= VALUE_BYTES_MAX && bytes <= self.left_bytes;
            if is_kept {
                self.left_bytes -= bytes;
            } else {
                self.left_out += 1;
            }
            is_kept
        });
        let kept = kept.map(|(name, value)| (name.into(), value.into()));
        let mut kept: Vec<_> = kept.collect();
        kept.sort_unstable();
        Pairs(kept.into())
    }
}
