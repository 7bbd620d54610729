//! The memory limit of the own cgroup.
//!
//! In a container with a cgroup namespace, `/proc/self/cgroup` says `/` whatever the host's tree
//! has. Then the directory is found by the process's id in its `cgroup.procs`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::process_path::find_path;

/// Directories that are searched: as many as cgroups get labels. A full node has 1,000, which take
/// 30 ms.
const DIRECTORIES_MAX: usize = 32_768;

/// v1 writes the largest multiple of a page for no limit.
const UNLIMITED_FROM: u64 = 1 << 62;

/// The limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// The own cgroup is not visible, or memory is not accounted for.
    Unknown,
    /// There is none.
    Unlimited,
    /// The smallest of the own cgroup and those above it.
    Bytes(u64),
}

impl MemoryLimit {
    /// Reads it for this process.
    pub fn read() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::read_below(Path::new("/sys/fs/cgroup"), &own, std::process::id())
    }

    fn read_below(mount: &Path, own: &str, pid: u32) -> Self {
        let (root, controller, file) = if mount.join("cgroup.controllers").exists() {
            (mount.to_owned(), None, "memory.max")
        } else {
            (
                mount.join("memory"),
                Some("memory"),
                "memory.limit_in_bytes",
            )
        };
        let path = find_path(own, controller).map(|path| root.join(path));
        let is_own = |directory: &PathBuf| lists_process(directory, pid);
        let directory = path
            .filter(is_own)
            .or_else(|| find_directory(&root, is_own));
        let Some(directory) = directory else {
            return Self::Unknown;
        };
        let levels = directory
            .ancestors()
            .take_while(|level| level.starts_with(&root));
        let limits = levels.filter_map(|level| {
            let limit = fs::read_to_string(level.join(file)).ok()?;
            limit.trim().parse().ok()
        });
        match limits.min() {
            Some(bytes) if bytes < UNLIMITED_FROM => Self::Bytes(bytes),
            _ => Self::Unlimited,
        }
    }
}

fn lists_process(directory: &Path, pid: u32) -> bool {
    let pid = pid.to_string();
    let processes = fs::read_to_string(directory.join("cgroup.procs"));
    processes.is_ok_and(|processes| processes.lines().any(|line| line == pid))
}

/// The first directory of a tree that meets a condition.
fn find_directory(root: &Path, is_it: impl Fn(&PathBuf) -> bool) -> Option<PathBuf> {
    let mut pending = vec![root.to_owned()];
    for _ in 0..DIRECTORIES_MAX {
        let directory = pending.pop()?;
        if is_it(&directory) {
            return Some(directory);
        }
        let entries = fs::read_dir(&directory).into_iter().flatten();
        for entry in entries.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Check that the smallest limit above the own cgroup counts, with and without the right path.
    #[test]
    fn unified() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "cgroup.controllers", "memory\n");
        write(root.path(), "kubepods/memory.max", "1000\n");
        write(root.path(), "kubepods/pod/memory.max", "500\n");
        write(root.path(), "kubepods/pod/own/memory.max", "max\n");
        write(root.path(), "kubepods/pod/own/cgroup.procs", "6\n7\n");
        write(root.path(), "kubepods/other/cgroup.procs", "77\n");
        for own in ["0::/kubepods/pod/own\n", "0::/\n", ""] {
            let limit = MemoryLimit::read_below(root.path(), own, 7);
            assert_eq!(limit, MemoryLimit::Bytes(500), "{own}");
        }
        let elsewhere = MemoryLimit::read_below(root.path(), "0::/", 8);
        assert_eq!(elsewhere, MemoryLimit::Unknown);
    }

    /// Check v1, whose largest number is no limit.
    #[test]
    fn v1() {
        let root = tempfile::tempdir().unwrap();
        let own = "9:cpu,cpuacct:/x\n4:memory:/a\n0::/y\n";
        write(root.path(), "memory/a/cgroup.procs", "7\n");
        let limits = ["9223372036854771712\n", "104857600\n"].map(|limit| {
            write(root.path(), "memory/a/memory.limit_in_bytes", limit);
            MemoryLimit::read_below(root.path(), own, 7)
        });
        assert_eq!(
            limits,
            [MemoryLimit::Unlimited, MemoryLimit::Bytes(100 << 20)]
        );
    }
}
