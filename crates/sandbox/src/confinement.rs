//! Privileges and resources that a child gives up before it reads untrusted bytes.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, chdir, chroot, getrlimit, nice,
    set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};
use thiserror::Error;

/// Seconds of processor time between the warning, SIGXCPU, and SIGKILL. The warning's default action ends the process, and
/// its status then names the limit, as SIGKILL's would not.
const CPU_SECONDS_TO_KILL: u64 = 5;

/// Limits of a confined child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Capabilities that it keeps if it has them.
    pub capabilities: CapabilitySet,
    /// Private memory in bytes; mapped files do not count. A child mostly dies when the kernel refuses more.
    pub data_bytes_max: u64,
    /// Open descriptors.
    pub open_files_max: u64,
    /// Seconds of processor time, for a child with one task.
    pub cpu_seconds_max: Option<u64>,
    /// Bytes of a file that it writes.
    pub file_bytes_max: Option<u64>,
    /// Scheduling priority, 0 to 19; 19 is the lowest.
    pub nice: i32,
}

/// The files that a child can open by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRoot {
    /// Its descriptors: its root directory is its own `/proc/PID/fd`. A path in a hostile file, such as `/dev/watchdog` or
    /// `../../etc/shadow`, leads nowhere.
    Descriptors,
    /// All files: it was not permitted to change its root directory.
    Everything,
}

impl FileRoot {
    /// The path of a descriptor.
    pub fn path_of(self, descriptor: RawFd) -> PathBuf {
        match self {
            Self::Descriptors => format!("/{descriptor}").into(),
            Self::Everything => format!("/proc/self/fd/{descriptor}").into(),
        }
    }
}

/// A step of the confinement failed. The child must not read anything then.
#[derive(Debug, Error)]
#[error("failed to {step}: {cause}")]
pub struct ConfinementError {
    step: &'static str,
    #[source]
    cause: rustix::io::Errno,
}

impl From<ConfinementError> for io::Error {
    fn from(err: ConfinementError) -> Self {
        Self::new(io::Error::from(err.cause).kind(), err)
    }
}

impl Confinement {
    /// Confines the calling process, which must have one thread. This cannot be undone.
    ///
    /// # Errors
    /// A limit or a signal could not be set, or a capability not be dropped. Priority, out-of-memory score and root directory may stay
    /// as they were: unprivileged processes cannot change them everywhere.
    pub fn enter(self) -> Result<FileRoot, ConfinementError> {
        let Self {
            capabilities,
            data_bytes_max,
            open_files_max,
            cpu_seconds_max,
            file_bytes_max,
            nice: priority,
        } = self;
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(failed_to("ask for a signal at the parent's death"))?;
        let _ = nice(priority);
        // Out of memory, the kernel should end this process and not the one with the data. This comes before the process becomes
        // undumpable: its files in /proc belong to root from then on.
        let _ = fs::write("/proc/self/oom_score_adj", "1000");
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(failed_to("keep other processes from reading this one"))?;
        // Not the address space: mapped files may be larger than memory.
        limit(Resource::Data, [data_bytes_max; 2], "limit private memory")?;
        limit(Resource::Nofile, [open_files_max; 2], "limit descriptors")?;
        limit(Resource::Core, [0; 2], "forbid core dumps")?;
        limit(Resource::Nproc, [0; 2], "forbid further processes")?;
        if let Some(max) = file_bytes_max {
            limit(Resource::Fsize, [max; 2], "limit written bytes")?;
        }
        if let Some(max) = cpu_seconds_max {
            let kill = max.saturating_add(CPU_SECONDS_TO_KILL);
            limit(Resource::Cpu, [max, kill], "limit processor time")?;
        }
        let root = change_root();
        keep_capabilities(capabilities).map_err(failed_to("drop capabilities"))?;
        set_no_new_privs(true).map_err(failed_to("forbid new privileges"))?;
        Ok(root)
    }
}

fn failed_to(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> ConfinementError {
    move |cause| ConfinementError { step, cause }
}

/// Sets the soft and the hard limit.
fn limit(
    resource: Resource,
    [soft, hard]: [u64; 2],
    step: &'static str,
) -> Result<(), ConfinementError> {
    // Raising a hard limit needs a privilege. A lower limit that is set already is kept.
    let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Rlimit {
        current: Some(soft.min(allowed)),
        maximum: Some(hard.min(allowed)),
    };
    setrlimit(resource, limit).map_err(failed_to(step))
}

fn change_root() -> FileRoot {
    // The kernel resolves `self` here, once, to this process.
    match chroot("/proc/self/fd").and_then(|()| chdir("/")) {
        Ok(()) => FileRoot::Descriptors,
        Err(_) => FileRoot::Everything,
    }
}

fn keep_capabilities(wanted: CapabilitySet) -> rustix::io::Result<()> {
    let kept = capabilities(None)?.permitted & wanted;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}
