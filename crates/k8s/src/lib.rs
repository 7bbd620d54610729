//! Kubernetes, as seen from one node: which pod, container or systemd unit a process belongs to.
//!
//! Everything here is a pure function of strings and objects that the caller has read. Nothing opens a file or asks the API
//! server.
//!
//! # What it reads
//!
//! | in | out | module |
//! | --- | --- | --- |
//! | the path of a cgroup | [`Identity`]: pod uid, container id, unit | `identity` |
//! | the name of a systemd unit | the label value of all units of its kind | `unit` |
//! | a pod's object, as JSON | [`Pod`] and its [`Container`]s | `object`, `pod`, `container` |
//! | a stream of pods, and the owners of their owners | [`PodTable`]: pod, container and [`Workload`] of a cgroup | `table`, `workload` |
//! | a pod as found by a cgroup | [`Labels`] of its series | `labels` |
//! | a file with rules, and labels | [`Relabeling`]: other labels | `relabel` |
//! | a file with rules, and a pod or a unit | [`Policy`]: whether it is profiled | `policy` |
//!
//! ```
//! use k8s::Identity;
//!
//! let pod = "/kubepods.slice/kubepods-pod019c1fe8_0d92_4aa0_b61c_4df58bdde71c.slice";
//! let id = "9e073649debeec6d511391c9ec7627ee67ce3a3fb508b0fa0437a97f8e58ba98";
//! let path = format!("{pod}/cri-containerd-{id}.scope");
//! let identity = Identity::of_path(&path);
//! assert_eq!(identity.pod_uid.as_deref(), Some("019c1fe8-0d92-4aa0-b61c-4df58bdde71c"));
//! assert_eq!(identity.container_id, Some(id));
//!
//! let service = Identity::of_path("/system.slice/nginx.service");
//! assert_eq!(service.unit.as_deref(), Some("nginx.service"));
//! ```
//!
//! # What the caller does
//!
//! - It passes the path within the hierarchy (`/kubepods/…`, as in `/proc/PID/cgroup`), without the mount point. The paths of
//!   a process in several hierarchies may differ; any one of them is enough.
//! - It joins hierarchies by path. The id of a cgroup, its inode number, belongs to one hierarchy: the same container has a
//!   different id under each v1 controller and under v2.
//! - It feeds the [`PodTable`] from a watch of the node's pods, and answers its requests for owners.
//! - It waits a moment for a container that is not settled: a pod is known a second before its program starts, the ids of its
//!   containers up to a second after.
//!
//! # What it does not do
//!
//! It does not verify a path: a process that may create cgroups can give one the name of another container's.

mod container;
mod hex;
mod identity;
mod labels;
mod object;
mod pod;
mod policy;
mod relabel;
mod rule_file;
mod table;
mod unit;
mod workload;

pub use container::{Container, ContainerKind};
pub use identity::Identity;
pub use labels::{Labels, add_meta_labels, add_pod_labels};
pub use object::PodObject;
pub use pod::{Owner, Pairs, Pod};
pub use policy::{Decision, Policy};
pub use relabel::Relabeling;
pub use rule_file::RuleFileError;
pub use table::{ContainerMatch, Found, OwnerAnswer, OwnerRequest, PodStats, PodTable};
pub use workload::{OwnerKind, Workload};
