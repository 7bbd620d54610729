//! A pod in the form that kube's watcher needs: few fields, and the resource version from which a watch continues.

use std::borrow::Cow;

use k8s::{Pod, PodObject};
use kube::{Resource, api::ObjectMeta, core::ClusterResourceScope};
use serde::Deserialize;

/// A pod of a watch.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "PodObject")]
pub(super) struct WatchedPod {
    /// Only the resource version.
    metadata: ObjectMeta,
    pub(super) pod: Pod,
}

impl From<PodObject> for WatchedPod {
    fn from(object: PodObject) -> Self {
        Self {
            metadata: ObjectMeta {
                resource_version: object.resource_version().map(Into::into),
                ..ObjectMeta::default()
            },
            pod: object.into(),
        }
    }
}

impl Resource for WatchedPod {
    type DynamicType = ();
    // Pods are in namespaces; these are watched in all of them.
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
