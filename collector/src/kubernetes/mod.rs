//! The pods of this node, from the API server.
//!
//! In: a watch of the pods with this node's name. Out: a table of pods that other threads read, see [`k8s::PodTable`]. Nothing waits for
//! the API server but labels, and those for some seconds: profiling goes on without it.
//!
//! Rights: `list` and `watch` of pods, `get` of replicasets.apps and jobs.batch, in all namespaces. A [`ConfigMapWatch`] needs `get`,
//! `list` and `watch` of its one ConfigMap.

mod access;
mod config_map;
mod error;
mod node_pods;
mod stats;
mod watch;
mod watched_pod;

pub use access::{ClusterAccess, has_service_account, is_in_pod};
pub use config_map::{ConfigMapEvent, ConfigMapWatch};
pub use node_pods::NodePods;
pub use watch::{NO_LABELS, PodWatch, PodWatchOptions};
