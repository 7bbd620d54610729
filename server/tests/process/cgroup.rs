//! A cgroup with a memory limit, as a container has one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

/// A new cgroup below the root; removed when this is dropped.
pub(crate) struct MemoryCgroup {
    directory: PathBuf,
    /// Its file with the number of processes that the kernel ended.
    ends: &'static str,
}

impl MemoryCgroup {
    /// Makes one with this limit. On v2 the kernel ends all of its processes when one is out of memory, as kubelet has it.
    pub(crate) fn make(bytes: u64) -> Result<Self, Failed> {
        let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let (mount, ends) = if is_v2 {
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
            ("/sys/fs/cgroup", "memory.events")
        } else {
            ("/sys/fs/cgroup/memory", "memory.oom_control")
        };
        let name = format!("pilotlight-server-{}", std::process::id());
        let directory = Path::new(mount).join(name);
        fs::create_dir(&directory)?;
        let cgroup = Self { directory, ends };
        if is_v2 {
            cgroup.write("memory.max", bytes)?;
            cgroup.write("memory.oom.group", 1)?;
        } else {
            cgroup.write("memory.limit_in_bytes", bytes)?;
        }
        Ok(cgroup)
    }

    fn write(&self, file: &str, value: u64) -> Result<(), Failed> {
        Ok(fs::write(self.directory.join(file), value.to_string())?)
    }

    /// Words before a program that start it in the cgroup.
    pub(crate) fn words(&self) -> [String; 4] {
        let directory = self.directory.display();
        let script = format!("echo $$ >{directory}/cgroup.procs && exec \"$@\"");
        ["sh", "-c", &script, "sh"].map(str::to_owned)
    }

    /// Processes that the kernel ended since the cgroup was out of memory.
    pub(crate) fn ends(&self) -> Result<u64, Failed> {
        let text = fs::read_to_string(self.directory.join(self.ends))?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(line.ok_or("no `oom_kill`")?.parse()?)
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // Its processes have just been killed, and may not be gone yet.
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.directory).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
