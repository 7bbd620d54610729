//! Facts -> the rows of the table. Pure.

use cgroupfs::MemoryLimit;
use rustix::io::Errno;

use super::{
    facts::{BpfLoad, BufferAttempt, Facts, MAP_BYTES_TRIED, Needs, Seccomp},
    report::{Check, Report, Verdict},
};
use crate::{
    capability::{Capability, is_admin},
    memory::MemoryNeeds,
    sample::{BTF_PATH, CgroupHierarchy, Event, PidNamespace},
};

/// A kernel's version: major and minor number.
type Version = (u32, u32);

/// The oldest kernel on which `make test-kernels` runs. Younger than others of what the program needs are the ring buffer
/// (5.8), and tail calls in a program that has functions (5.10).
const OLDEST: Version = (5, 10);

/// Kernels that crash in their own stack walkers when these run from perf events:
/// from and to, both included.
const KNOWN_BAD: [(Version, Version); 2] = [((5, 19), (6, 0)), ((6, 11), (6, 11))];

/// From here on eBPF maps are charged to the memory cgroup, before to RLIMIT_MEMLOCK.
const MAPS_IN_CGROUP: Version = (5, 11);

/// Values of `kernel.perf_event_paranoid` from which the kernels of Debian and Ubuntu want
/// CAP_SYS_ADMIN to open any event. Other kernels know no value above 2.
const PARANOID_ADMIN: i64 = 3;

const NO_SAMPLES: &str = "nothing is sampled";

/// Checks the facts, in the order of the table.
pub fn check(facts: &Facts, needs: &Needs) -> Report {
    let mut checks = vec![
        check_kernel(facts, needs),
        check_btf(facts),
        check_lockdown(facts),
        check_pid_namespace(facts),
        check_user_namespace(facts),
        check_seccomp(facts),
    ];
    checks.extend(Capability::ALL.map(|capability| check_capability(capability, facts)));
    checks.extend(check_process_access(facts));
    checks.push(check_paranoid(facts));
    checks.extend(check_map_memory(facts, needs));
    checks.extend(check_bpf(facts));
    checks.extend(check_perf(facts));
    checks.extend(check_cycles(facts, needs));
    checks.extend(check_buffers(facts));
    checks.push(check_addresses(facts));
    checks.push(check_cgroups(facts));
    checks.push(check_memory_limit(facts, needs));
    Report { checks }
}

fn fatal(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Fatal,
        found: found.into(),
        effect: NO_SAMPLES,
        remedy: remedy.into(),
    }
}

fn check_kernel(facts: &Facts, needs: &Needs) -> Check {
    const NAME: &str = "kernel";
    let release = &facts.release;
    let Some(version) = parse_version(release) else {
        return fatal(
            NAME,
            format!("the release `{release}` has no version"),
            "boot a kernel whose release begins with its version",
        );
    };
    if version < OLDEST {
        let (major, minor) = OLDEST;
        return fatal(
            NAME,
            format!(
                "Linux {release}, and {major}.{minor} or newer is needed: older ones have no BPF ring buffer, or \
                 no tail calls beside functions"
            ),
            "boot a newer kernel",
        );
    }
    if !is_known_bad(version) {
        return Check::ok(NAME, format!("Linux {release}"));
    }
    let found = format!(
        "Linux {release}, which is known to crash while it walks stacks (5.19 to 6.0, and 6.11)"
    );
    if needs.force_kernel {
        return Check::ok(NAME, format!("{found}; accepted by --force-kernel"));
    }
    fatal(
        NAME,
        found,
        "upgrade it, or take the risk with --force-kernel",
    )
}

fn check_btf(facts: &Facts) -> Check {
    const NAME: &str = "btf";
    match facts.btf {
        Ok(()) => Check::ok(NAME, BTF_PATH),
        Err(Errno::NOENT) => fatal(
            NAME,
            format!("`{BTF_PATH}` is missing"),
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, or mount the node's /sys there",
        ),
        Err(err) => fatal(
            NAME,
            format!("failed to open `{BTF_PATH}`: {err}"),
            "let the collector read this file",
        ),
    }
}

/// Lockdown's mode `confidentiality` takes the helpers that read kernel memory away.
fn check_lockdown(facts: &Facts) -> Check {
    const NAME: &str = "lockdown";
    if is_locked_down(facts) {
        return fatal(
            NAME,
            "the mode is confidentiality, in which no eBPF program may read kernel memory",
            "boot with lockdown=integrity, or without lockdown",
        );
    }
    match &facts.lockdown {
        Some(mode) => Check::ok(NAME, mode.as_str()),
        None => Check::ok(NAME, "not visible here"),
    }
}

fn is_locked_down(facts: &Facts) -> bool {
    facts.bpf_load == BpfLoad::NoHelper && facts.lockdown.as_deref() == Some("confidentiality")
}

fn check_pid_namespace(facts: &Facts) -> Check {
    const NAME: &str = "pid_namespace";
    let outside = |verdict, found: &str, remedy: &str| Check {
        name: NAME,
        verdict,
        found: found.to_owned(),
        effect: "processes outside of it are not sampled (outcome `other_namespace`)",
        remedy: remedy.to_owned(),
    };
    match facts.pid_namespace {
        PidNamespace::Host => Check::ok(NAME, "the host's"),
        PidNamespace::Container { .. } => outside(
            Verdict::Degraded,
            "a container's: its processes, and those of containers in it, are sampled",
            "none if that container is the node, as in kind, minikube and k3d; else start the collector with \
             `hostPID: true` or `--pid=host`",
        ),
        PidNamespace::Own { .. } => outside(
            Verdict::NotReady,
            "the collector's own, in which it is the first process",
            "start it with `hostPID: true` or `--pid=host`",
        ),
        PidNamespace::OtherProc => fatal(
            NAME,
            "`/proc` is that of another PID namespace than the collector's, or cannot be read",
            "start it with `hostPID: true` or `--pid=host`, or mount /proc in its container",
        ),
    }
}

/// The kernel looks for capabilities in the host's user namespace, so those of another one do not count.
fn check_user_namespace(facts: &Facts) -> Check {
    const NAME: &str = "user_namespace";
    if facts.in_host_user_namespace {
        return Check::ok(NAME, "the host's");
    }
    fatal(
        NAME,
        "the collector runs in a user namespace of its own, whose capabilities do not count for bpf and \
         perf_event_open",
        "start it with `hostUsers: true`, and not in a rootless container",
    )
}

/// The calls that a filter refuses. The kernel itself answers them differently, except that
/// before Linux 6.5 it refuses bpf without CAP_BPF.
fn refused_calls(facts: &Facts) -> Vec<(&'static str, Errno)> {
    if facts.seccomp == Seccomp::Off {
        return Vec::new();
    }
    let bpf = facts.bpf_call.err().filter(|_| bpf_call_is_telling(facts));
    let calls = [("bpf", bpf), ("perf_event_open", facts.perf_call.err())];
    calls
        .into_iter()
        .filter_map(|(call, err)| Some((call, err?)))
        .collect()
}

fn bpf_call_is_telling(facts: &Facts) -> bool {
    has(facts, Capability::Bpf) || facts.bpf_call != Err(Errno::PERM)
}

/// Whether the kernel lets this process do what the capability permits.
fn has(facts: &Facts, capability: Capability) -> bool {
    facts.in_host_user_namespace && capability.is_in(facts.effective)
}

fn is_refused(facts: &Facts, call: &str) -> bool {
    let refused = refused_calls(facts);
    refused.iter().any(|(refused, _)| *refused == call)
}

fn check_seccomp(facts: &Facts) -> Check {
    const NAME: &str = "seccomp";
    if facts.seccomp == Seccomp::Off {
        return Check::ok(NAME, "no filter");
    }
    let refused = refused_calls(facts);
    if refused.is_empty() && facts.bpf_call.is_err() {
        return Check::ok(
            NAME,
            "a filter, which permits perf_event_open; whether it permits bpf cannot be tried without CAP_BPF",
        );
    }
    if refused.is_empty() {
        return Check::ok(NAME, "a filter, which permits bpf and perf_event_open");
    }
    let refused: Vec<String> = refused
        .into_iter()
        .map(|(call, err)| format!("{call} ({err})"))
        .collect();
    fatal(
        NAME,
        format!("a filter refuses {}", refused.join(" and ")),
        "use a seccomp profile that permits bpf and perf_event_open: RuntimeDefault of containerd and Docker's \
         default do so for CAP_BPF and CAP_PERFMON; else Unconfined (chart: collector.seccomp.type)",
    )
}

fn check_capability(capability: Capability, facts: &Facts) -> Check {
    let name = capability.name();
    if capability.is_in(facts.effective) {
        let scope = if facts.in_host_user_namespace {
            "granted"
        } else {
            "granted in its own user namespace only"
        };
        return Check::ok(name, scope);
    }
    let unneeded = match capability {
        Capability::Syslog if facts.shows_addresses == Some(true) => {
            Some("the kernel shows its addresses to every user".to_owned())
        }
        Capability::IpcLock if facts.perf_event_paranoid.is_some_and(|value| value < 0) => {
            Some("perf_event_paranoid below 0 lifts the limit on perf's buffers".to_owned())
        }
        Capability::IpcLock => {
            let bytes = buffer_bytes(facts);
            let is_enough = facts.memlock_bytes.is_none_or(|limit| limit >= bytes);
            is_enough.then(|| {
                format!(
                    "perf's buffers take {}, and RLIMIT_MEMLOCK is {}",
                    show_bytes(bytes),
                    show_limit(facts.memlock_bytes)
                )
            })
        }
        Capability::Bpf
        | Capability::PerfMon
        | Capability::SysPtrace
        | Capability::DacReadSearch
        | Capability::Syslog
        | Capability::CheckpointRestore
        | Capability::SysChroot => None,
    };
    if let Some(reason) = unneeded {
        return Check::ok(name, format!("not granted, and not needed: {reason}"));
    }
    let verdict = match capability {
        Capability::Bpf | Capability::PerfMon => Verdict::Fatal,
        Capability::SysPtrace
        | Capability::DacReadSearch
        | Capability::Syslog
        | Capability::CheckpointRestore
        | Capability::SysChroot
        | Capability::IpcLock => Verdict::Degraded,
    };
    Check {
        name,
        verdict,
        found: "not granted (not in CapEff)".to_owned(),
        effect: capability.effect(),
        remedy: format!("grant {name}"),
    }
}

/// Reading other processes. For a process with CAP_SYS_PTRACE, only a security module gives EACCES or EPERM (`ptrace_may_access` in
/// kernel/ptrace.c). `None` if the cause of a failure has a row of its own.
fn check_process_access(facts: &Facts) -> Option<Check> {
    const NAME: &str = "process_access";
    match facts.process_root {
        Ok(()) => Some(Check::ok(NAME, "the roots of other processes can be read")),
        Err(err @ (Errno::ACCESS | Errno::PERM)) if has(facts, Capability::SysPtrace) => {
            Some(Check {
                name: NAME,
                verdict: Verdict::Degraded,
                found: format!(
                    "failed to read `/proc/1/root`: {err}; CAP_SYS_PTRACE is granted, so a security module refuses it"
                ),
                effect: "the files of such processes cannot be opened: their frames have no names (reason `permission`), \
                         and many stacks are incomplete",
                remedy: "start the collector without the container runtime's AppArmor profile \
                         (`--security-opt apparmor=unconfined`, chart: collector.appArmor.type) and with the SELinux type \
                         spc_t (chart: collector.seLinuxOptions.type); the node's kernel log has the refusal"
                    .to_owned(),
            })
        }
        Err(_) => None,
    }
}

/// Whether the kernel refused to open an event for its value of `perf_event_paranoid`: it answers
/// EACCES although CAP_PERFMON is there.
fn is_paranoid(facts: &Facts) -> bool {
    facts.perf_open == Err(Errno::ACCESS)
        && has(facts, Capability::PerfMon)
        && !is_admin(facts.effective)
        && facts
            .perf_event_paranoid
            .is_some_and(|value| value >= PARANOID_ADMIN)
}

fn check_paranoid(facts: &Facts) -> Check {
    const NAME: &str = "perf_event_paranoid";
    let Some(value) = facts.perf_event_paranoid else {
        return match facts.perf_call {
            Err(Errno::NOSYS) => fatal(
                NAME,
                "the kernel has no perf events: `/proc/sys/kernel/perf_event_paranoid` is missing",
                "boot a kernel with CONFIG_PERF_EVENTS=y",
            ),
            Ok(()) | Err(_) => Check::ok(NAME, "not visible here"),
        };
    };
    if is_paranoid(facts) {
        return fatal(
            NAME,
            format!(
                "kernel.perf_event_paranoid is {value}, from {PARANOID_ADMIN} on the kernels of Debian and Ubuntu \
                 want CAP_SYS_ADMIN, and perf_event_open fails: {}",
                Errno::ACCESS
            ),
            "set it to 2 on the node: sysctl kernel.perf_event_paranoid=2",
        );
    }
    Check::ok(NAME, value.to_string())
}

/// `None` if the cause of a failure has a row of its own.
fn check_bpf(facts: &Facts) -> Option<Check> {
    const NAME: &str = "bpf";
    let has_capabilities = has(facts, Capability::Bpf) && has(facts, Capability::PerfMon);
    let found = match facts.bpf_load {
        BpfLoad::Loaded => return Some(Check::ok(NAME, "the kernel took a program")),
        BpfLoad::NoHelper => {
            "no eBPF program may read kernel memory: the helper bpf_probe_read_kernel is missing"
                .to_owned()
        }
        BpfLoad::Failed(err) => format!("failed to load a program: {err}"),
    };
    let is_explained = !has_capabilities
        || are_maps_locked(facts)
        || is_refused(facts, NAME)
        || is_locked_down(facts);
    let ruled_out = "the capabilities are granted, no seccomp filter refuses bpf, the user namespace is the host's";
    (!is_explained).then(|| fatal(NAME, format!("{found}; {ruled_out}"), ASK_SECURITY_MODULES))
}

const ASK_SECURITY_MODULES: &str = "look in the node's kernel log for lockdown and for refusals of a security module (SELinux, AppArmor)";

/// `None` if the cause of a failure has a row of its own.
fn check_perf(facts: &Facts) -> Option<Check> {
    const NAME: &str = "perf_event_open";
    let Err(err) = facts.perf_open else {
        return Some(Check::ok(NAME, "the kernel opened a cpu-clock event"));
    };
    let is_explained = !has(facts, Capability::PerfMon)
        || is_refused(facts, NAME)
        || is_paranoid(facts)
        || (err == Errno::NOSYS && facts.perf_event_paranoid.is_none());
    (!is_explained).then(|| {
        let found = format!(
            "failed to open a cpu-clock event: {err}; CAP_PERFMON is granted, no seccomp filter refuses the call, \
             the user namespace is the host's, and perf_event_paranoid is not the cause"
        );
        fatal(NAME, found, ASK_SECURITY_MODULES)
    })
}

fn check_cycles(facts: &Facts, needs: &Needs) -> Option<Check> {
    const NAME: &str = "event";
    // Without any event the other rows have the cause.
    facts.perf_open.ok()?;
    Some(match facts.cycles_open? {
        Ok(()) => Check::ok(NAME, needs.event.to_string()),
        Err(err) => fatal(
            NAME,
            format!("cpu-clock events open, the processor's cycle counter does not: {err}"),
            format!("use --event {}", Event::CpuClock),
        ),
    })
}

/// Locked memory of perf's buffers on all processors.
fn buffer_bytes(facts: &Facts) -> u64 {
    facts.buffer_bytes_per_cpu * facts.cpus
}

/// Perf's buffers. The kernel's rule (`perf_mmap` in kernel/events/core.c): all programs of a user
/// together lock `perf_event_mlock_kb` on each processor, what is beyond counts against the
/// program's RLIMIT_MEMLOCK; EPERM if that is exceeded. CAP_IPC_LOCK and a negative
/// `perf_event_paranoid` lift it. No other rule gives EPERM for these mappings.
fn check_buffers(facts: &Facts) -> Option<Check> {
    const NAME: &str = "locked_memory";
    let bytes = buffer_bytes(facts);
    let buffers = format!(
        "perf's buffers take {} ({} on each of {} processors)",
        show_bytes(bytes),
        show_bytes(facts.buffer_bytes_per_cpu),
        facts.cpus
    );
    let err = match facts.buffers {
        BufferAttempt::Mapped => return Some(Check::ok(NAME, buffers)),
        BufferAttempt::NotTried => return None,
        BufferAttempt::NotOpened(err) => {
            let found =
                format!("failed to open the events of processes: {err}; cpu-clock events open");
            return Some(fatal(NAME, found, ASK_SECURITY_MODULES));
        }
        BufferAttempt::NotMapped(err) => err,
    };
    let is_lifted =
        has(facts, Capability::IpcLock) || facts.perf_event_paranoid.is_some_and(|value| value < 0);
    let (Errno::PERM, false, Some(shared_kb), Some(own_bytes)) = (
        err,
        is_lifted,
        facts.perf_event_mlock_kb,
        facts.memlock_bytes,
    ) else {
        let found = format!(
            "{buffers}, and failed to be mapped: {err}; the limit on locked memory is not the cause"
        );
        return Some(fatal(NAME, found, ASK_SECURITY_MODULES));
    };
    let shared_bytes = shared_kb * 1024 * facts.cpus;
    let others = match (shared_bytes + own_bytes).checked_sub(bytes) {
        Some(left) => format!(
            "other programs of this user lock more than {}",
            show_bytes(left)
        ),
        None => "too little, even if no other program of this user locks memory".to_owned(),
    };
    let found = format!(
        "{buffers}; the kernel lets all programs of user {} lock {} together (kernel.perf_event_mlock_kb, \
         {shared_kb} KiB on each processor), and this one {} more (RLIMIT_MEMLOCK): {others}",
        facts.uid,
        show_bytes(shared_bytes),
        show_bytes(own_bytes),
    );
    let remedy = format!(
        "grant CAP_IPC_LOCK, or raise RLIMIT_MEMLOCK to {} (LimitMEMLOCK= of systemd, ulimit -l)",
        show_bytes(bytes)
    );
    Some(fatal(NAME, found, remedy))
}

const MAP_MEMORY_REMEDY: &str = "set RLIMIT_MEMLOCK to unlimited (LimitMEMLOCK=infinity of systemd), or grant CAP_SYS_RESOURCE \
     (chart: collector.extraCapabilities)";

/// Whether the limit on locked memory keeps eBPF maps from being created. Programs are locked
/// memory there too.
fn are_maps_locked(facts: &Facts) -> bool {
    let is_locked = parse_version(&facts.release).is_some_and(|version| version < MAPS_IN_CGROUP);
    let may_create = has(facts, Capability::Bpf) && !is_refused(facts, "bpf");
    is_locked && may_create && facts.map_create == Err(Errno::PERM) && facts.memlock_bytes.is_some()
}

/// Before 5.11, eBPF maps are locked memory too. aya raises the limit if CAP_SYS_RESOURCE permits it.
fn check_map_memory(facts: &Facts, needs: &Needs) -> Option<Check> {
    const SYS_RESOURCE: u32 = 24;
    if parse_version(&facts.release)? >= MAPS_IN_CGROUP {
        return None;
    }
    const NAME: &str = "map_memory";
    let MemoryNeeds { kernel, unwind, .. } = memory_needs(facts, needs);
    let bytes = kernel + unwind;
    let maps = format!(
        "before Linux 5.11 eBPF maps are locked memory: up to {}, and RLIMIT_MEMLOCK is {}",
        show_bytes(bytes),
        show_limit(facts.memlock_bytes)
    );
    if are_maps_locked(facts) {
        let found = format!(
            "{maps}; failed to create one of {}: {}",
            show_bytes(MAP_BYTES_TRIED),
            Errno::PERM
        );
        return Some(fatal(NAME, found, MAP_MEMORY_REMEDY));
    }
    let may_raise = facts.effective & (1 << SYS_RESOURCE) != 0;
    if may_raise || facts.memlock_bytes.is_none_or(|limit| limit >= bytes) {
        return Some(Check::ok(NAME, maps));
    }
    Some(Check {
        name: NAME,
        verdict: Verdict::Degraded,
        found: maps,
        effect: "the collector may fail to start, or later lack unwind rows",
        remedy: MAP_MEMORY_REMEDY.to_owned(),
    })
}

fn check_addresses(facts: &Facts) -> Check {
    const NAME: &str = "kptr_restrict";
    let value = facts
        .kptr_restrict
        .map_or_else(|| "not visible here".to_owned(), |value| value.to_string());
    let degraded = |found: String, remedy: &str| Check {
        name: NAME,
        verdict: Verdict::Degraded,
        found,
        effect: Capability::Syslog.effect(),
        remedy: remedy.to_owned(),
    };
    match (facts.shows_addresses, facts.kptr_restrict) {
        (Some(true), _) => Check::ok(NAME, format!("{value}, and the kernel shows its addresses")),
        (Some(false), Some(2..)) => degraded(
            format!(
                "kernel.kptr_restrict is {value}: the kernel hides its addresses from everybody"
            ),
            "set it to 1 on the node: sysctl kernel.kptr_restrict=1",
        ),
        (Some(false), _) if !has(facts, Capability::Syslog) => {
            Check::ok(NAME, format!("{value}, so addresses need CAP_SYSLOG"))
        }
        (Some(false), _) => degraded(
            format!(
                "kernel.kptr_restrict is {value} and CAP_SYSLOG is granted, yet the kernel hides its addresses"
            ),
            ASK_SECURITY_MODULES,
        ),
        (None, _) => degraded(
            "`/proc/kallsyms` cannot be read".to_owned(),
            "let the collector read this file",
        ),
    }
}

fn check_cgroups(facts: &Facts) -> Check {
    const NAME: &str = "cgroups";
    let view = &facts.cgroups;
    let layout = match &view.hierarchy {
        CgroupHierarchy::V2 { mount } => format!("v2 at {}", mount.display()),
        CgroupHierarchy::V1 { controller, mount } => {
            format!("v1, controller {controller} at {}", mount.display())
        }
        CgroupHierarchy::None => "no cgroups are mounted at /sys/fs/cgroup".to_owned(),
    };
    if view.shows_node(facts.pid_namespace) {
        return Check::ok(NAME, layout);
    }
    let found = match view.hierarchy {
        CgroupHierarchy::None => layout,
        CgroupHierarchy::V1 { .. } | CgroupHierarchy::V2 { .. } => {
            format!("{layout}, whose root is not the host's root cgroup but one below it")
        }
    };
    Check {
        name: NAME,
        verdict: Verdict::NotReady,
        found,
        effect: "processes outside of it have no labels `container_id` and `unit`",
        remedy: "mount the host's /sys/fs/cgroup read-only at /sys/fs/cgroup".to_owned(),
    }
}

fn memory_needs(facts: &Facts, needs: &Needs) -> MemoryNeeds {
    let cpus = usize::try_from(facts.cpus).unwrap_or(usize::MAX);
    MemoryNeeds::new(cpus, needs.unwind_bytes, needs.queue_bytes)
}

fn check_memory_limit(facts: &Facts, needs: &Needs) -> Check {
    const NAME: &str = "memory_limit";
    let limit = match facts.memory_limit {
        MemoryLimit::Unknown => return Check::ok(NAME, "its own cgroup is not visible here"),
        MemoryLimit::Unlimited => return Check::ok(NAME, "none"),
        MemoryLimit::Bytes(limit) => limit,
    };
    let all = memory_needs(facts, needs);
    let bytes = all.bytes();
    let found = format!(
        "{}, and {} are needed: collector {}, naming child {}, eBPF maps and perf's buffers on {} processors {}, \
         --unwind-bytes {}, --buffer-bytes {}; the naming child may take {}",
        show_bytes(limit),
        show_bytes(bytes),
        show_bytes(all.collector),
        show_bytes(all.child),
        facts.cpus,
        show_bytes(all.kernel),
        show_bytes(all.unwind),
        show_bytes(all.queue),
        show_bytes(all.child_share(limit)),
    );
    if limit >= bytes {
        return Check::ok(NAME, found);
    }
    Check {
        name: NAME,
        verdict: Verdict::Degraded,
        found,
        effect: "the kernel may end the naming child or the collector (OOM), most likely while the server is away",
        remedy: format!(
            "raise the limit to {} (chart: collector.resources.limits.memory), or lower --buffer-bytes or --unwind-bytes",
            show_bytes(bytes)
        ),
    }
}

/// Bytes as KiB, or as MiB where that is a whole number.
fn show_bytes(bytes: u64) -> String {
    if bytes > 0 && bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} KiB", bytes >> 10)
    }
}

fn show_limit(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unlimited".to_owned(), show_bytes)
}

fn is_known_bad(version: Version) -> bool {
    KNOWN_BAD
        .iter()
        .any(|(from, to)| (*from..=*to).contains(&version))
}

/// Major and minor number of a release like `6.1.0-18-amd64`.
fn parse_version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests;
