//! Workloads: the object that a user made and that a pod runs for.
//!
//! | controlling owner of the pod | workload |
//! | --- | --- |
//! | none | `Pod`, by its own name |
//! | `Node` (a static pod) | `Pod`, by its name without the node's |
//! | `ReplicaSet` of `apps` | the ReplicaSet's controlling owner: a `Deployment`, or a custom resource (Argo's `Rollout`) |
//! | `Job` of `batch` | the Job's controlling owner: a `CronJob`, or a custom resource |
//! | a ReplicaSet or Job without an owner | itself |
//! | any other: `StatefulSet`, `DaemonSet`, a custom resource | that owner; nothing is read of it |

use crate::pod::{Owner, Pod};

/// Kind and name of a workload, in the pod's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload<'a> {
    /// Kind: `Deployment`.
    pub kind: &'a str,
    /// Name.
    pub name: &'a str,
}

/// A kind of owner that may have an owner of its own, which is read from the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    /// `replicasets.apps`
    ReplicaSet,
    /// `jobs.batch`
    Job,
}

impl OwnerKind {
    /// The kind of this owner; `None` if its own owner is not read.
    pub fn of(owner: &Owner) -> Option<Self> {
        let group = owner.api_version.split('/').next();
        match (group, &*owner.kind) {
            (Some("apps"), "ReplicaSet") => Some(Self::ReplicaSet),
            (Some("batch"), "Job") => Some(Self::Job),
            _ => None,
        }
    }
}

/// The workload of a pod, given the owner of its owner if that was read.
pub(crate) fn find_workload<'a>(pod: &'a Pod, above: Option<(&'a str, &'a str)>) -> Workload<'a> {
    const POD: &str = "Pod";
    let Some(owner) = &pod.owner else {
        return Workload {
            kind: POD,
            name: &pod.name,
        };
    };
    if pod.is_static() || &*owner.kind == "Node" {
        // kubelet names the mirror of a static pod NAME-NODE. Without the node it is one workload on all nodes.
        let name = pod.name.strip_suffix(&*pod.node);
        let name = name.and_then(|name| name.strip_suffix('-'));
        return Workload {
            kind: POD,
            name: name.filter(|name| !name.is_empty()).unwrap_or(&pod.name),
        };
    }
    let (kind, name) = above.unwrap_or((&owner.kind, &owner.name));
    Workload { kind, name }
}
