//! The cgroup hierarchy whose ids the eBPF program puts into samples.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::PidNamespace;

/// Below it, cgroup hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// v1 controllers, in order of preference. Every container runtime makes a cgroup for each container in
/// all of these.
const V1_CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "freezer"];

/// A mounted hierarchy, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupHierarchy {
    /// The unified hierarchy.
    V2 {
        /// Its mount point.
        mount: PathBuf,
    },
    /// A v1 controller's own hierarchy.
    V1 {
        /// The controller.
        controller: &'static str,
        /// Its mount point.
        mount: PathBuf,
    },
    /// None is mounted: there are no container labels.
    None,
}

impl CgroupHierarchy {
    /// Finds the hierarchy that has the cgroups of containers.
    pub fn detect() -> Self {
        let mount = PathBuf::from(MOUNT);
        if mount.join("cgroup.controllers").exists() {
            return Self::V2 { mount };
        }
        V1_CONTROLLERS
            .into_iter()
            .map(|controller| (controller, mount.join(controller)))
            .find(|(_, mount)| mount.join("cgroup.procs").exists())
            .map_or(Self::None, |(controller, mount)| Self::V1 {
                controller,
                mount,
            })
    }

    /// Whether the mount shows all cgroups of the host. A container's own mount shows its own cgroup as the root.
    fn has_host_root(&self) -> bool {
        // kernfs numbers the nodes of a hierarchy from 1, and makes the root first: `__kernfs_new_node` in fs/kernfs/dir.c.
        const ROOT_INODE: u64 = 1;
        let root = self.mount().and_then(|mount| fs::metadata(mount).ok());
        root.is_some_and(|root| root.ino() == ROOT_INODE)
    }

    /// Whether the root of the mount is this process's own cgroup.
    fn has_own_root(&self) -> bool {
        let own = std::process::id().to_string();
        let processes = self.mount().map(|mount| mount.join("cgroup.procs"));
        let processes = processes.and_then(|path| fs::read_to_string(path).ok());
        processes.is_some_and(|processes| processes.lines().any(|pid| pid == own))
    }

    /// The v1 controller, if it is one.
    pub fn v1_controller(&self) -> Option<&'static str> {
        match self {
            Self::V1 { controller, .. } => Some(controller),
            Self::V2 { .. } | Self::None => None,
        }
    }

    /// Its mount point, if it has one.
    pub fn mount(&self) -> Option<&Path> {
        match self {
            Self::V2 { mount } | Self::V1 { mount, .. } => Some(mount),
            Self::None => None,
        }
    }
}

/// The part of the node's cgroups that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupView {
    /// The hierarchy that samples are labelled by.
    pub hierarchy: CgroupHierarchy,
    /// Whether its root is the host's.
    pub has_host_root: bool,
    /// Whether its root is this process's own cgroup.
    pub has_own_root: bool,
}

impl CgroupView {
    /// Reads the root of a hierarchy.
    pub fn read(hierarchy: &CgroupHierarchy) -> Self {
        Self {
            has_host_root: hierarchy.has_host_root(),
            has_own_root: hierarchy.has_own_root(),
            hierarchy: hierarchy.clone(),
        }
    }

    /// Whether all cgroups of the node are there, for a collector in this PID namespace. On a node that is a container, the
    /// node's root cgroup is not the host's. Pure.
    pub fn shows_node(&self, namespace: PidNamespace) -> bool {
        let is_nested = namespace.nested().is_some();
        let has_node_root = is_nested && !self.has_own_root;
        self.has_host_root || (has_node_root && self.hierarchy != CgroupHierarchy::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a directory with another inode number than a hierarchy's root is not taken for the host's.
    #[test]
    fn mounts_without_the_host_root() {
        let v2 = |mount: &Path| CgroupHierarchy::V2 {
            mount: mount.to_owned(),
        };
        let own = tempfile::tempdir().unwrap();
        assert!(!v2(own.path()).has_host_root());
        assert!(!CgroupHierarchy::None.has_host_root());
    }
}
