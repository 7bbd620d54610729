//! Facts of the machine, read and tried at the start. The module `checks` judges them.

use std::{
    fs::{self, File},
    io,
    path::Path,
    str::FromStr,
};

use aya::{
    maps::{Array, MapData, MapError},
    programs::{ProgramError, ProgramType},
    sys::{BpfHelper, SyscallError, is_helper_supported},
};
use cgroupfs::MemoryLimit;
use perf_event::{
    Builder,
    events::{Hardware, Software},
};
use rustix::{
    io::Errno,
    process::{Resource, getrlimit, getuid},
};

use crate::{
    config::Config,
    locate::KernelText,
    process::{SideBand, SideBandError},
    sample::{BTF_PATH, CgroupHierarchy, CgroupView, Event, PidNamespace, read_online_cpus},
};

/// The initial namespace: `PROC_USER_INIT_INO` in include/linux/proc_ns.h.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// The smallest ring buffer of the program.
pub const MAP_BYTES_TRIED: u64 = 2 << 20;

/// Settings whose demands on the machine are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Source of the sampling timers.
    pub event: Event,
    /// Whether a kernel that is known to crash is accepted.
    pub force_kernel: bool,
    /// Kernel memory for unwind rows.
    pub unwind_bytes: u64,
    /// Memory for windows that wait for the server.
    pub queue_bytes: u64,
}

impl Needs {
    /// The needs of this configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            event: config.event,
            force_kernel: config.force_kernel,
            unwind_bytes: config.unwind_bytes,
            queue_bytes: config.buffer_bytes,
        }
    }
}

/// The result of a call, with the kernel's error.
pub type Attempt = Result<(), Errno>;

/// The seccomp mode of this process, from `/proc/self/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// No filter.
    Off,
    /// A filter answers some calls in the kernel's place.
    Filter,
}

/// The result of loading an eBPF program that reads kernel memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpfLoad {
    /// The kernel took it.
    Loaded,
    /// The kernel has no helper that reads its memory.
    NoHelper,
    /// The call failed.
    Failed(Errno),
}

/// The result of opening and mapping perf's buffers on all processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferAttempt {
    /// All were mapped.
    Mapped,
    /// Perf events cannot be opened, so there was nothing to map.
    NotTried,
    /// An event could not be opened.
    NotOpened(Errno),
    /// A buffer could not be mapped.
    NotMapped(Errno),
}

/// Facts of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's release.
    pub release: String,
    /// Opening the kernel's BTF.
    pub btf: Attempt,
    /// The mode of lockdown; `None` if it cannot be read here.
    pub lockdown: Option<String>,
    /// The PID namespace.
    pub pid_namespace: PidNamespace,
    /// Whether the user namespace is the host's.
    pub in_host_user_namespace: bool,
    /// The effective capabilities.
    pub effective: u64,
    /// Reading the root directory of process 1 or 2, as the files of a process are opened through its root. CAP_SYS_PTRACE permits
    /// it, security modules may forbid it. Process 2 is the kernel's: some machines protect process 1 alone.
    pub process_root: Attempt,
    /// The seccomp mode.
    pub seccomp: Seccomp,
    /// A call of bpf that opens a path which does not exist. The kernel itself answers ENOENT;
    /// before Linux 6.5 it checks CAP_BPF first.
    pub bpf_call: Attempt,
    /// Loading a program.
    pub bpf_load: BpfLoad,
    /// Creating an eBPF map of [`MAP_BYTES_TRIED`]: less than the program's own.
    pub map_create: Attempt,
    /// A call of perf_event_open with a sample type that does not exist. The kernel itself answers
    /// EINVAL, or EACCES where it checks `perf_event_paranoid` first.
    pub perf_call: Attempt,
    /// Opening a cpu-clock event of all processes on one processor.
    pub perf_open: Attempt,
    /// Opening a cycle counter of all processes on one processor, if it is configured.
    pub cycles_open: Option<Attempt>,
    /// Mapping perf's buffers.
    pub buffers: BufferAttempt,
    /// Locked memory of perf's buffers on each processor.
    pub buffer_bytes_per_cpu: u64,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i64>,
    /// `kernel.perf_event_mlock_kb`.
    pub perf_event_mlock_kb: Option<u64>,
    /// `kernel.kptr_restrict`.
    pub kptr_restrict: Option<u64>,
    /// Whether `/proc/kallsyms` shows addresses; `None` if it cannot be read.
    pub shows_addresses: Option<bool>,
    /// RLIMIT_MEMLOCK; `None`: unlimited.
    pub memlock_bytes: Option<u64>,
    /// The user whose programs share `perf_event_mlock_kb`.
    pub uid: u32,
    /// Number of online processors.
    pub cpus: u64,
    /// The cgroups.
    pub cgroups: CgroupView,
    /// The memory limit.
    pub memory_limit: MemoryLimit,
}

impl Facts {
    /// Reads and tries. Takes some milliseconds; all that it opens is closed again.
    pub fn read(needs: &Needs) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let online = read_online_cpus().unwrap_or_default();
        let cpu = online.first().copied().unwrap_or_default();
        let release = rustix::system::uname();
        let (bpf_load, map_create) = (load_program(), create_map());
        let perf_open = try_event(&mut Builder::new(Software::CPU_CLOCK), cpu);
        let mut side_band = SideBand::new();
        let buffers = match perf_open {
            Ok(()) => map_buffers(&mut side_band, &online),
            Err(_) => BufferAttempt::NotTried,
        };
        Self {
            release: release.release().to_string_lossy().into_owned(),
            btf: try_io(File::open(BTF_PATH)),
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown")
                .ok()
                .and_then(|modes| find_lockdown(&modes)),
            pid_namespace: PidNamespace::detect(),
            // A kernel without user namespaces has no such link.
            in_host_user_namespace: fs::read_link("/proc/self/ns/user")
                .map_or(true, |link| link.as_os_str() == INITIAL_USER_NAMESPACE),
            effective: find_field(&status, "CapEff:")
                .and_then(|text| u64::from_str_radix(text, 16).ok())
                .unwrap_or_default(),
            process_root: try_io(fs::read_link("/proc/1/root"))
                .or_else(|err| try_io(fs::read_link("/proc/2/root")).map_err(|_| err)),
            seccomp: match find_field(&status, "Seccomp:") {
                None | Some("0") => Seccomp::Off,
                Some(_) => Seccomp::Filter,
            },
            bpf_call: call_bpf(),
            bpf_load,
            map_create,
            perf_call: call_perf(),
            cycles_open: match needs.event {
                Event::CpuClock => None,
                Event::Cycles => Some(try_event(&mut Builder::new(Hardware::CPU_CYCLES), cpu)),
            },
            buffers,
            buffer_bytes_per_cpu: side_band.locked_bytes_per_cpu(),
            perf_open,
            perf_event_paranoid: read_setting("perf_event_paranoid"),
            perf_event_mlock_kb: read_setting("perf_event_mlock_kb"),
            kptr_restrict: read_setting("kptr_restrict"),
            shows_addresses: KernelText::read().ok().map(|text| text.is_some()),
            memlock_bytes: getrlimit(Resource::Memlock).current,
            uid: getuid().as_raw(),
            cpus: online.len() as u64,
            cgroups: CgroupView::read(&CgroupHierarchy::detect()),
            memory_limit: MemoryLimit::read(),
        }
    }
}

/// The value of a line `FIELD: VALUE` of `/proc/self/status`.
fn find_field<'a>(status: &'a str, field: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim())
}

/// The word in brackets in a line like `none [integrity] confidentiality`.
fn find_lockdown(modes: &str) -> Option<String> {
    let (_, rest) = modes.split_once('[')?;
    let (mode, _) = rest.split_once(']')?;
    Some(mode.to_owned())
}

fn read_setting<T: FromStr>(name: &str) -> Option<T> {
    let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok()?;
    text.trim().parse().ok()
}

fn try_io<T>(result: io::Result<T>) -> Attempt {
    result.map(drop).map_err(|err| errno(&err))
}

/// The kernel's number of an error. The libraries' own errors have none: EIO stands for them.
fn errno(err: &io::Error) -> Errno {
    Errno::from_io_error(err).unwrap_or(Errno::IO)
}

fn call_bpf() -> Attempt {
    match MapData::from_pin("/proc/self/no-such-file") {
        Err(MapError::SyscallError(SyscallError { io_error, .. })) => match errno(&io_error) {
            Errno::NOENT => Ok(()),
            err => Err(err),
        },
        Ok(_) | Err(_) => Ok(()),
    }
}

fn load_program() -> BpfLoad {
    let helper = BpfHelper::BPF_FUNC_probe_read_kernel;
    match is_helper_supported(ProgramType::PerfEvent, helper) {
        Ok(true) => BpfLoad::Loaded,
        Ok(false) => BpfLoad::NoHelper,
        Err(ProgramError::SyscallError(SyscallError { io_error, .. })) => {
            BpfLoad::Failed(errno(&io_error))
        }
        Err(_) => BpfLoad::Failed(Errno::IO),
    }
}

fn create_map() -> Attempt {
    const ENTRY_BYTES: usize = 4096;
    type Entry = [u8; ENTRY_BYTES];
    match Array::<MapData, Entry>::create((MAP_BYTES_TRIED / ENTRY_BYTES as u64) as u32, 0) {
        Ok(_) => Ok(()),
        Err(MapError::CreateError { io_error, .. }) => Err(errno(&io_error)),
        Err(_) => Err(Errno::IO),
    }
}

fn call_perf() -> Attempt {
    let mut builder = Builder::new(Software::DUMMY);
    builder.attrs_mut().sample_type = 1 << 63;
    match try_io(builder.build()) {
        Err(Errno::INVAL | Errno::ACCESS) => Ok(()),
        other => other,
    }
}

fn try_event(builder: &mut Builder<'_>, cpu: u32) -> Attempt {
    let builder = builder.any_pid().one_cpu(cpu as usize).include_kernel();
    try_io(builder.build())
}

fn map_buffers(side_band: &mut SideBand, online: &[u32]) -> BufferAttempt {
    match side_band.follow(online) {
        Ok(()) => BufferAttempt::Mapped,
        Err(SideBandError::Open { source, .. }) => BufferAttempt::NotOpened(errno(&source)),
        Err(SideBandError::Map { source, .. }) => BufferAttempt::NotMapped(errno(&source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the fields of a status, and the forms of the list of lockdown modes.
    #[test]
    fn fields() {
        let status = "Name:\tx\nCapPrm:\t01\nCapEff:\t000001fffeffffff\nSeccomp:\t2\n";
        assert_eq!(find_field(status, "CapEff:"), Some("000001fffeffffff"));
        assert_eq!(find_field(status, "Seccomp:"), Some("2"));
        assert_eq!(find_field(status, "NoNewPrivs:"), None);
        let mode = |modes| find_lockdown(modes);
        assert_eq!(mode("[none] integrity\n").as_deref(), Some("none"));
        assert_eq!(mode("none [integrity] x").as_deref(), Some("integrity"));
        assert_eq!(mode(""), None);
    }
}
