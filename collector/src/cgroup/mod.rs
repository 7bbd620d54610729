//! The node's cgroups: which container, pod or unit a cgroup id belongs to.
//!
//! In: the directories of the hierarchy from which the program takes the ids of samples, and ids of samples. Out: the [`Cgroup`]
//! of an id, also for a while after it was removed, [`CgroupChange`]s to subscribers, and the kernel's account of CPU time.
//!
//! A thread reads the directories once, and then follows inotify's events: a new cgroup is known some 0.1 ms after its directory
//! was made, as a rule before its first process is sampled. An id that is not known by then is looked up by the path in
//! `/proc/TID/cgroup`, one directory. No sample makes the thread read the whole tree.
//!
//! Ids are inode numbers of one hierarchy: the same cgroup has other ids in others, and 1 is the root of each. To find a cgroup in
//! the hierarchy of another controller, join by [`Cgroup::path`].

mod cpu;
mod table;
mod tree;
mod watcher;

use std::{path::Path, sync::Arc};

use k8s::Identity;

pub use cpu::{CpuFiles, CpuTime};
pub use table::{CgroupLookup, CgroupStats};
pub use watcher::{Cgroups, Subscriber, Watcher};

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its id: the inode number of its directory in the hierarchy that is followed.
    pub id: u64,
    /// Its directory, relative to the hierarchy's mount point; empty for the root.
    pub path: Arc<Path>,
    /// The meaning of its path.
    pub identity: CgroupIdentity,
}

impl Cgroup {
    /// The cgroup with this directory.
    pub(crate) fn new(id: u64, path: &Path) -> Self {
        let text = format!("/{}", path.to_string_lossy());
        Self {
            id,
            path: path.into(),
            identity: Identity::of_path(&text).into(),
        }
    }
}

/// The pod, container and unit of a cgroup: an owned [`Identity`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupIdentity {
    /// Uid of the Kubernetes pod.
    pub pod_uid: Option<Arc<str>>,
    /// Id of the container.
    pub container_id: Option<Arc<str>>,
    /// The systemd unit, outside of pods.
    pub unit: Option<Arc<str>>,
}

impl From<Identity<'_>> for CgroupIdentity {
    fn from(identity: Identity<'_>) -> Self {
        let Identity {
            pod_uid,
            container_id,
            unit,
        } = identity;
        Self {
            pod_uid: pod_uid.map(Into::into),
            container_id: container_id.map(Into::into),
            unit: unit.map(Into::into),
        }
    }
}

/// A change of the tree of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupChange {
    /// The cgroup was made, or found. A cgroup that was renamed goes, and appears again with the same id.
    Appeared(Arc<Cgroup>),
    /// The cgroup was removed.
    Gone(Arc<Cgroup>),
}
