//! CPU time of cgroups by the kernel's own accounts.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::sample::CgroupHierarchy;

/// Bytes of a `cpu.stat`: some 20 lines.
const STAT_BYTES_MAX: u64 = 4096;

/// CPU time of a cgroup and those below it, in nanoseconds, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// User and system time.
    pub used_ns: u64,
    /// Time in which it was throttled by its CPU quota, without those below it.
    pub throttled_ns: u64,
}

impl CpuTime {
    /// The time since an earlier reading.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            used_ns: self.used_ns.saturating_sub(before.used_ns),
            throttled_ns: self.throttled_ns.saturating_sub(before.throttled_ns),
        }
    }
}

/// Files of the accounts.
#[derive(Clone, Debug)]
pub enum CpuFiles {
    /// `cpu.stat` of the unified hierarchy.
    V2 {
        /// Its mount point.
        mount: PathBuf,
    },
    /// `cpuacct.usage` of one v1 hierarchy and `cpu.stat` of another, or of the same.
    V1 {
        /// Mount point of the controller `cpuacct`.
        cpuacct: PathBuf,
        /// Mount point of the controller `cpu`.
        cpu: PathBuf,
    },
}

impl CpuFiles {
    /// The accounts beside the hierarchy that is followed; `None` if there is none, or without the controller `cpuacct`.
    pub fn detect(hierarchy: &CgroupHierarchy) -> Option<Self> {
        match hierarchy {
            CgroupHierarchy::V2 { mount } => Some(Self::V2 {
                mount: mount.clone(),
            }),
            CgroupHierarchy::V1 { mount, .. } => {
                let mounts = mount.parent()?;
                let cpuacct = mounts.join("cpuacct");
                let cpu = mounts.join("cpu");
                let is_there = cpuacct.join("cpuacct.usage").exists();
                is_there.then_some(Self::V1 { cpuacct, cpu })
            }
            CgroupHierarchy::None => None,
        }
    }

    /// Reads the account of the cgroup at a path below the mount point; `None` when it is gone. Hierarchies are joined by path: ids
    /// differ. Opening and reading a file takes some 5 us.
    pub fn read(&self, path: &Path) -> Option<CpuTime> {
        match self {
            Self::V2 { mount } => {
                let text = read_text(&mount.join(path).join("cpu.stat"))?;
                Some(CpuTime {
                    used_ns: find_number(&text, "usage_usec")?.saturating_mul(1000),
                    throttled_ns: find_number(&text, "throttled_usec")
                        .unwrap_or(0)
                        .saturating_mul(1000),
                })
            }
            Self::V1 { cpuacct, cpu } => {
                let used = read_text(&cpuacct.join(path).join("cpuacct.usage"))?;
                // A cgroup may have no directory under this controller.
                let stat = read_text(&cpu.join(path).join("cpu.stat")).unwrap_or_default();
                Some(CpuTime {
                    used_ns: used.trim().parse().ok()?,
                    throttled_ns: find_number(&stat, "throttled_time").unwrap_or(0),
                })
            }
        }
    }
}

fn read_text(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file: File = fs::File::open(path).ok()?;
    file.take(STAT_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The number of a line `name number`. Pure.
///
/// Format: the kernel's Documentation/admin-guide/cgroup-v2.rst, `cpu.stat`; that of v1 (scheduler/sched-bwc.rst) is the same with
/// other names.
fn find_number(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check both versions' files, and that a cgroup that is gone has no account.
    #[test]
    fn accounts_of_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let mount = |name: &str| root.path().join(name);
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let time = |used_ns, throttled_ns| {
            Some(CpuTime {
                used_ns,
                throttled_ns,
            })
        };
        write(
            "v2/a/cpu.stat",
            "usage_usec 12\nuser_usec 9\nthrottled_usec 3\n",
        );
        write("v2/b/cpu.stat", "usage_usec 7\nthrottled_usec_x 3\n");
        let v2 = CpuFiles::V2 { mount: mount("v2") };
        assert_eq!(v2.read(Path::new("a")), time(12_000, 3000));
        assert_eq!(v2.read(Path::new("b")), time(7000, 0));
        assert_eq!(v2.read(Path::new("c")), None);

        write("cpuacct/cpuacct.usage", "99\n");
        write("cpuacct/a/cpuacct.usage", "13\n");
        write(
            "cpu/a/cpu.stat",
            "nr_periods 5\nnr_throttled 1\nthrottled_time 4\n",
        );
        write("cpuacct/b/cpuacct.usage", "17\n");
        let v1 = CgroupHierarchy::V1 {
            controller: "memory",
            mount: mount("memory"),
        };
        let v1 = CpuFiles::detect(&v1).unwrap();
        assert_eq!(v1.read(Path::new("a")), time(13, 4));
        assert_eq!(v1.read(Path::new("b")), time(17, 0));
        assert_eq!(v1.read(Path::new("c")), None);
        assert_eq!(
            v1.read(Path::new("a")).unwrap().since(CpuTime {
                used_ns: 3,
                throttled_ns: 9
            }),
            CpuTime {
                used_ns: 10,
                throttled_ns: 0
            }
        );
    }
}
