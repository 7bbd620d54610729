//! The fields of a pod's object that are read, as the API server sends them.
//!
//! In: JSON of `v1.Pod`. All other fields are skipped while reading, `managedFields` above all, which are 40 % of a pod. Any field
//! may be missing or null: an object that a newer server extends stays readable.
//!
//! Source: the types of k8s.io/api core/v1 (`types.go`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Bytes to keep of a single text that the API server should have limited itself: names have 253, ids 64 and a prefix, images 255 and
/// a tag of 128.
const TEXT_BYTES_MAX: usize = 512;

/// A text without what exceeds its limit.
pub(crate) fn cut_text(mut text: String) -> Box<str> {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text.into_boxed_str()
}

/// A pod as the API server sends it. [`Pod`](crate::Pod) is made of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodObject {
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) spec: Spec,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) status: Status,
}

impl PodObject {
    /// `metadata.resourceVersion`: the version at which a watch of the object continues.
    pub fn resource_version(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    pub(crate) owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct OwnerReference {
    pub(crate) api_version: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) controller: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    pub(crate) node_name: Option<String>,
    pub(crate) containers: Option<Vec<ContainerSpec>>,
    pub(crate) init_containers: Option<Vec<ContainerSpec>>,
    pub(crate) ephemeral_containers: Option<Vec<ContainerSpec>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerSpec {
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) name: String,
    pub(crate) image: Option<String>,
    pub(crate) restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<String>,
    #[serde(rename = "hostIP")]
    pub(crate) host_ip: Option<String>,
    pub(crate) conditions: Option<Vec<Condition>>,
    pub(crate) container_statuses: Option<Vec<ContainerStatus>>,
    pub(crate) init_container_statuses: Option<Vec<ContainerStatus>>,
    pub(crate) ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) status: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerStatus {
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) name: String,
    #[serde(rename = "containerID")]
    pub(crate) container_id: Option<String>,
    #[serde(rename = "imageID")]
    pub(crate) image_id: Option<String>,
    pub(crate) state: Option<State>,
    pub(crate) last_state: Option<State>,
}

impl ContainerStatus {
    /// The ids, with the runtime's prefix, the current one first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        let states = [&self.state, &self.last_state].into_iter().flatten();
        let ended = states.filter_map(|state| state.terminated.as_ref()?.container_id.as_deref());
        self.container_id.as_deref().into_iter().chain(ended)
    }

    /// Whether the container waits for init containers.
    pub(crate) fn is_held(&self) -> bool {
        let waiting = self.state.as_ref().and_then(|state| state.waiting.as_ref());
        waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("PodInitializing"))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) waiting: Option<Waiting>,
    pub(crate) terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Waiting {
    pub(crate) reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Terminated {
    #[serde(rename = "containerID")]
    pub(crate) container_id: Option<String>,
}

/// Go writes null for lists and structures that are not set.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
