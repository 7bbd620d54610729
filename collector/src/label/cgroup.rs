//! Cgroup ids -> container ids.

use std::{
    fs,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustc_hash::FxHashMap;

use super::find_container_id;

/// Where cgroups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// v1 controllers, the one whose cgroups are most telling first: every runtime
/// puts a container into these.
const V1_CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "freezer"];

/// Which hierarchy the ids belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupHierarchy {
    /// The unified hierarchy.
    V2 {
        /// Where it is mounted.
        mount: PathBuf,
    },
    /// A v1 controller's own hierarchy.
    V1 {
        /// The controller.
        controller: &'static str,
        /// Where it is mounted.
        mount: PathBuf,
    },
    /// None is mounted: there are no container labels.
    None,
}

impl CgroupHierarchy {
    /// Finds the hierarchy in which containers are to be found.
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

    /// The v1 controller, if it is one.
    pub fn v1_controller(&self) -> Option<&'static str> {
        match self {
            Self::V1 { controller, .. } => Some(controller),
            Self::V2 { .. } | Self::None => None,
        }
    }

    fn mount(&self) -> Option<&Path> {
        match self {
            Self::V2 { mount } | Self::V1 { mount, .. } => Some(mount),
            Self::None => None,
        }
    }
}

/// A cgroup that belongs to a container.
#[derive(Clone, Debug)]
struct Container {
    id: Arc<str>,
    directory: Arc<Path>,
}

/// The containers of cgroups, by the cgroups' ids, which are the inode numbers of
/// their directories.
pub struct CgroupTable {
    hierarchy: CgroupHierarchy,
    containers: FxHashMap<u64, Option<Container>>,
    /// When the directories were last read, nanoseconds of the caller's clock.
    read_ns: Option<u64>,
}

impl CgroupTable {
    /// Cgroups known at a time: 110 pods of 5 containers have some 1,000; at 120
    /// bytes each, and 300 more for those of containers, 32,768 are 14 MB at most.
    const CGROUPS_MAX: usize = 32_768;

    /// The directories are read at most this often: once a drain.
    const READ_INTERVAL_NS: u64 = 50_000_000;

    /// An empty table of this hierarchy.
    pub fn new(hierarchy: CgroupHierarchy) -> Self {
        Self {
            hierarchy,
            containers: FxHashMap::default(),
            read_ns: None,
        }
    }

    /// The container that the cgroup with this id belongs to, if to one. A cgroup
    /// that is gone keeps what it had. `now_ns` is any clock that only goes forward.
    pub fn find_container(&mut self, id: u64, now_ns: u64) -> Option<Arc<str>> {
        if id == 0 {
            return None;
        }
        if let Some(container) = self.containers.get(&id) {
            return container.as_ref().map(|it| it.id.clone());
        }
        if self
            .read_ns
            .is_some_and(|read_ns| now_ns < read_ns + Self::READ_INTERVAL_NS)
        {
            return None;
        }
        self.read_ns = Some(now_ns);
        self.read_directories();
        let container = self.containers.get(&id)?.as_ref()?;
        Some(container.id.clone())
    }

    /// The directory of the cgroup with this id, if it belongs to a container that was found.
    pub fn container_directory(&self, id: u64) -> Option<Arc<Path>> {
        let container = self.containers.get(&id)?.as_ref()?;
        Some(container.directory.clone())
    }

    fn read_directories(&mut self) {
        let Some(mount) = self.hierarchy.mount().map(Path::to_owned) else {
            return;
        };
        if self.containers.len() >= Self::CGROUPS_MAX {
            tracing::warn!(
                limit = Self::CGROUPS_MAX,
                "too many cgroups: forgetting those that ended"
            );
            self.containers.clear();
        }
        if let Ok(root) = fs::metadata(&mount) {
            self.containers.insert(root.ino(), None);
        }
        let mut pending = vec![(mount, String::new())];
        while let Some((directory, path)) = pending.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.filter_map(Result::ok) {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if self.containers.len() >= Self::CGROUPS_MAX {
                    return;
                }
                let path = format!("{path}/{}", entry.file_name().to_string_lossy());
                let container = find_container_id(&path).map(|id| Container {
                    id: id.into(),
                    directory: entry.path().into(),
                });
                self.containers.insert(entry.ino(), container);
                pending.push((entry.path(), path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that containers are found by inode numbers, also those that came after
    /// the first look, and that those that went are still known.
    #[test]
    fn containers_by_inode() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(&path).unwrap();
            (fs::metadata(&path).unwrap().ino(), path)
        };
        let [early, late] = ["ab", "cd"].map(|pair| pair.repeat(32));
        let (id, directory) = make(&format!("pods/{early}"));
        let mut table = CgroupTable::new(CgroupHierarchy::V2 {
            mount: root.path().to_owned(),
        });
        assert_eq!(table.find_container(id, 0).as_deref(), Some(&*early));
        assert_eq!(table.container_directory(id).as_deref(), Some(&*directory));
        let (pods, _) = make("pods");
        assert_eq!(table.find_container(pods, 0), None);
        assert_eq!(table.container_directory(pods), None);
        assert_eq!(table.find_container(0, 0), None);

        let (late_id, _) = make(&format!("pods/{late}"));
        assert_eq!(
            table.find_container(late_id, 1),
            None,
            "read again too soon"
        );
        let later = CgroupTable::READ_INTERVAL_NS;
        let found = table.find_container(late_id, later);
        assert_eq!(found.as_deref(), Some(&*late));

        fs::remove_dir(directory).unwrap();
        assert_eq!(table.find_container(u64::MAX, 9 * later), None);
        let gone = table.find_container(id, 9 * later);
        assert_eq!(gone.as_deref(), Some(&*early));
    }
}
