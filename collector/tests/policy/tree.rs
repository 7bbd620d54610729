//! Cgroups of a test, and programs that use the CPU in them.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use collector::sample::CgroupHierarchy;

/// The layouts of kubelet and the runtimes.
#[derive(Clone, Copy)]
pub(crate) enum Driver {
    /// The directory of a container in that of its pod.
    Cgroupfs,
    /// The scope of a container in its pod's slice.
    Systemd,
    /// CRI-O with crun, which puts the processes into a cgroup of their own.
    Crun,
}

impl Driver {
    pub(crate) const ALL: [Self; 3] = [Self::Cgroupfs, Self::Systemd, Self::Crun];

    /// The path of a pod.
    pub(crate) fn pod(self, number: u32) -> String {
        let uid = uid(number);
        match self {
            Self::Cgroupfs => format!("kubepods/burstable/pod{uid}"),
            Self::Systemd | Self::Crun => {
                let slice = "kubepods-besteffort";
                let uid = uid.replace('-', "_");
                format!("kubepods.slice/{slice}.slice/{slice}-pod{uid}.slice")
            }
        }
    }

    /// The path of the processes of its container.
    pub(crate) fn container(self, number: u32) -> String {
        let (pod, id) = (self.pod(number), format!("{number:064x}"));
        match self {
            Self::Cgroupfs => format!("{pod}/{id}"),
            Self::Systemd => format!("{pod}/cri-containerd-{id}.scope"),
            Self::Crun => format!("{pod}/crio-{id}.scope/container"),
        }
    }
}

/// The uid of a pod.
pub(crate) fn uid(number: u32) -> String {
    format!("{number:08}-1111-4000-8000-000000000000")
}

/// A directory of the hierarchy for a test; dropping removes it.
pub(crate) struct Tree(PathBuf);

impl Tree {
    pub(crate) fn new(hierarchy: &CgroupHierarchy, name: &str) -> Result<Self> {
        let mount = hierarchy.mount().context("no hierarchy")?;
        let top = mount.join(format!("pilotlight-policy-{name}-{}", std::process::id()));
        fs::create_dir(&top).with_context(|| format!("failed to make `{}`", top.display()))?;
        Ok(Self(top))
    }

    pub(crate) fn make(&self, path: &str) -> Result<Cgroup> {
        let path = self.0.join(path);
        fs::create_dir_all(&path)
            .with_context(|| format!("failed to make `{}`", path.display()))?;
        let id = fs::metadata(&path)?.ino();
        Ok(Cgroup { id, path })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A process that was killed leaves its cgroup some milliseconds later.
        for _ in 0..500 {
            remove(&self.0);
            if !self.0.exists() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a cgroup and its descendants, whose control files vanish with them.
fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

pub(crate) struct Cgroup {
    pub(crate) id: u64,
    path: PathBuf,
}

impl Cgroup {
    /// Starts a program that uses the CPU in this cgroup.
    pub(crate) fn burn(&self) -> Result<Burner> {
        let burns = r#"echo $$ >"$0/cgroup.procs" && while :; do :; done"#;
        let child = Command::new("sh")
            .args(["-c", burns])
            .arg(&self.path)
            .stdin(Stdio::null())
            .spawn()
            .context("failed to start a shell")?;
        Ok(Burner(child))
    }
}

/// A program; dropping ends it.
pub(crate) struct Burner(Child);

impl Drop for Burner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
