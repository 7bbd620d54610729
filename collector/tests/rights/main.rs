//! The collector with fewer rights than it needs, on the real kernel: each lack has its own true
//! message in `preflight`, at `/readyz` and in the log, and the collector is ready or not as said.
//!
//! Each test is ignored, with the reason, without root or BTF.

mod collector;
mod hungry;
mod restrict;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use ::collector::capability::Capability;
use ::collector::memory::MemoryNeeds;
use ::collector::sample::read_online_cpus;
use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Completion, Trial};
use rustix::process::{Resource, geteuid, getrlimit};
use serde_json::Value;

use crate::collector::{Collector, preflight, run};
use crate::hungry::Hungry;
use crate::restrict::{
    Setting, Words, after_mounts, has_landlock, in_cgroup, in_own_pid_namespace,
    in_own_user_namespace, run_with_landlock, run_with_seccomp, with_eight_capabilities,
    with_memlock, without_calls, without_capability, without_other_processes,
};

const SECCOMP_REMEDY: &str = "use a seccomp profile that permits bpf and perf_event_open: RuntimeDefault of containerd \
    and Docker's default do so for CAP_BPF and CAP_PERFMON; else Unconfined (chart: collector.seccomp.type)";
const CGROUPS_REST: &str = "processes outside of it have no labels `container_id` and `unit`; mount the host's \
    /sys/fs/cgroup read-only at /sys/fs/cgroup";

type Check = fn() -> Result<()>;

const CHECKS: [(&str, Check); 24] = [
    ("all_rights", all_rights),
    ("without_bpf", without_bpf),
    ("without_perfmon", without_perfmon),
    ("without_sys_ptrace", without_sys_ptrace),
    ("without_dac_read_search", without_dac_read_search),
    ("without_syslog", without_syslog),
    ("without_checkpoint_restore", without_checkpoint_restore),
    ("without_sys_chroot", without_sys_chroot),
    ("paranoid_kernel", paranoid_kernel),
    ("seccomp_without_bpf", seccomp_without_bpf),
    ("seccomp_without_perf", seccomp_without_perf),
    ("seccomp_without_both", seccomp_without_both),
    ("no_cgroups", no_cgroups),
    ("own_cgroup_alone", own_cgroup_alone),
    ("memory_limit", memory_limit),
    ("naming_child_out_of_memory", naming_child_out_of_memory),
    ("kptr_restrict", kptr_restrict),
    ("no_btf", no_btf),
    ("own_pid_namespace", own_pid_namespace),
    ("own_user_namespace", own_user_namespace),
    ("unforeseen_failure", unforeseen_failure),
    ("unusable_policy", unusable_policy),
    ("json_log", json_log),
    ("no_tls", no_tls),
];

/// Before Linux 5.11, eBPF maps are locked memory, and reach the limit before perf's buffers do.
const CHECKS_FROM_5_11: [(&str, Check); 2] = [
    ("without_ipc_lock", without_ipc_lock),
    ("locked_memory_in_use", locked_memory_in_use),
];

const CHECKS_WITH_LANDLOCK: [(&str, Check); 1] = [("security_module", security_module)];

const CHECKS_OF_5_10: [(&str, Check); 1] = [("locked_maps", locked_maps)];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(restrict::WITH_SECCOMP) => return run_with_seccomp(arguments),
        Some(restrict::WITH_LANDLOCK) => return run_with_landlock(arguments),
        Some(_) | None => {}
    }
    let mut arguments = Arguments::from_args();
    // They share the limit on locked memory, and kernel settings.
    arguments.test_threads = Some(1);
    let missing = if !geteuid().is_root() {
        Some("needs root: BPF programs are loaded")
    } else if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        Some("needs a kernel with BTF")
    } else {
        None
    };
    let from_5_11 = missing.or(is_5_10().then_some("needs Linux 5.11 or newer"));
    let with_landlock = missing.or((!has_landlock()).then_some("needs a kernel with Landlock"));
    let of_5_10 = missing.or((!is_5_10()).then_some("needs Linux 5.10"));
    let all = CHECKS.map(|check| trial(check, missing)).into_iter();
    let all = all.chain(CHECKS_FROM_5_11.map(|check| trial(check, from_5_11)));
    let all = all.chain(CHECKS_WITH_LANDLOCK.map(|check| trial(check, with_landlock)));
    let all = all.chain(CHECKS_OF_5_10.map(|check| trial(check, of_5_10)));
    libtest_mimic::run(&arguments, all.collect()).exit_code()
}

fn is_5_10() -> bool {
    let release = rustix::system::uname();
    release.release().to_bytes().starts_with(b"5.10.")
}

fn trial((name, check): (&str, Check), missing: Option<&'static str>) -> Trial {
    Trial::ignorable_test(name, move || match missing {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        // Debian's kernels have 3, which needs CAP_SYS_ADMIN.
        None => Setting::set("perf_event_paranoid", "2")
            .and_then(|_setting| check())
            .map(|()| Completion::Completed)
            .map_err(|err| format!("{err:#}").into()),
    })
}

/// What the row of a check says beyond what this machine lacks anyway.
struct Expected<'a> {
    row: &'a str,
    /// The condition at `/readyz`: `degraded` for a collector that is ready.
    condition: &'a str,
}

/// Check that the row is the only one that is new in `preflight`, that `/readyz` and `ready` say the
/// same, that the collector is alive, and that one which cannot sample ends at once by default.
fn expect(before: &Words, expected: &Expected<'_>) -> Result<()> {
    let Expected { row, condition } = *expected;
    let (usual, _) = preflight(&Vec::new())?;
    let (mut rows, status) = preflight(before)?;
    rows.retain(|row| !usual.contains(row));
    ensure!(rows == [row], "{rows:#?}\ninstead of\n{row}");
    let is_ready = condition == "degraded";
    ensure!(status == Some(i32::from(!is_ready)), "status {status:?}");

    let mut collector = Collector::start_waiting(before)?;
    let answer = collector.answer()?;
    let (_, message) = row.split_once(' ').context("a row without result")?;
    let line = format!("{condition}: {message}\n");
    let first = if is_ready { "ready\n" } else { "not ready\n" };
    ensure!(
        answer.0 == is_ready && answer.1.starts_with(first) && answer.1.contains(&line),
        "{answer:?}\ninstead of\n{first}{line}"
    );
    let asked = collector.ready()?;
    ensure!(
        asked == (Some(i32::from(!is_ready)), answer.1.clone()),
        "`ready` says {asked:?}"
    );
    let (health, _) = collector.get("/healthz")?;
    ensure!(health == "HTTP/1.0 200 OK", "{health}");
    let (_, metrics) = collector.get("/metrics")?;
    let gauge = format!("pilotlight_collector_ready {}\n", u8::from(is_ready));
    ensure!(metrics.contains(&gauge), "not `{gauge}` in {metrics}");
    drop(collector);

    if condition == "cannot_sample" {
        let (status, log) = run(before, &[])?;
        let last = format!("pilotlight-collector: cannot sample this machine:\n{message}\n");
        ensure!(status == Some(1), "status {status:?}: {log}");
        ensure!(log.ends_with(&last), "{log}\ndoes not end in\n{last}");
    }
    Ok(())
}

/// Check that root lacks nothing, and that the collector becomes ready.
fn all_rights() -> Result<()> {
    let (rows, status) = preflight(&Vec::new())?;
    ensure!(status == Some(0), "{rows:#?}");
    let mut collector = Collector::start(&Vec::new(), &[])?;
    let (is_ready, text) = collector.answer()?;
    ensure!(is_ready && text.starts_with("ready\n"), "{text}");
    Ok(())
}

/// The row of a missing capability.
fn row_without(capability: Capability) -> String {
    let result = match capability {
        Capability::Bpf | Capability::PerfMon => "fatal",
        _ => "degraded",
    };
    let (name, effect) = (capability.name(), capability.effect());
    format!("{result} {name}: not granted (not in CapEff); {effect}; grant {name}")
}

/// Check the row of a missing capability that nothing else makes up for.
fn lacks(capability: Capability) -> Result<()> {
    let lower = capability.name().to_lowercase();
    let name = lower.strip_prefix("cap_").unwrap_or(&lower);
    let row = row_without(capability);
    let condition = if row.starts_with("fatal") {
        "cannot_sample"
    } else {
        "degraded"
    };
    let row = &row;
    expect(&without_capability(name), &Expected { row, condition })
}

fn without_bpf() -> Result<()> {
    lacks(Capability::Bpf)
}

fn without_perfmon() -> Result<()> {
    lacks(Capability::PerfMon)
}

fn without_sys_ptrace() -> Result<()> {
    lacks(Capability::SysPtrace)
}

fn without_dac_read_search() -> Result<()> {
    lacks(Capability::DacReadSearch)
}

fn without_checkpoint_restore() -> Result<()> {
    lacks(Capability::CheckpointRestore)
}

fn without_sys_chroot() -> Result<()> {
    lacks(Capability::SysChroot)
}

/// Check CAP_SYSLOG on a kernel that hides its addresses from others.
fn without_syslog() -> Result<()> {
    let _setting = Setting::set("kptr_restrict", "1")?;
    lacks(Capability::Syslog)
}

/// Check CAP_IPC_LOCK: not needed with a large limit, and missed with a small one.
fn without_ipc_lock() -> Result<()> {
    let (usual, _) = preflight(&Vec::new())?;
    // Half a mebibyte is more than perf's buffers take on a processor.
    let enough = (read_online_cpus()?.len() as u64) << 19;
    if getrlimit(Resource::Memlock)
        .maximum
        .is_none_or(|limit| limit >= enough)
    {
        let (rows, _) = preflight(&with_memlock(enough, "ipc_lock"))?;
        ensure!(rows == usual, "{rows:#?}");
    }
    let row = &row_without(Capability::IpcLock);
    let condition = "degraded";
    expect(
        &with_memlock(64 << 10, "ipc_lock"),
        &Expected { row, condition },
    )
}

/// Check that a collector for whose buffers others leave too little locked memory says so, and
/// starts when they are gone.
fn locked_memory_in_use() -> Result<()> {
    let cpus = read_online_cpus()?.len() as u64;
    let shared_kb: u64 = fs::read_to_string("/proc/sys/kernel/perf_event_mlock_kb")?
        .trim()
        .parse()?;
    let mut others = Vec::new();
    // Two, since one leaves enough on kernels before 5.12, whose buffers are smaller.
    for _ in 0..2 {
        let mut other = Collector::start(&Vec::new(), &[])?;
        ensure!(other.answer()?.0, "{}", other.log()?);
        others.push(other);
    }
    let (rows, _) = preflight(&with_memlock(64 << 10, "ipc_lock"))?;
    let row = rows.last().context("no row")?;
    let per_cpu: u64 = row
        .split_once(" KiB on each of ")
        .and_then(|(text, _)| text.rsplit_once('(')?.1.parse().ok())
        .with_context(|| format!("no size in {row}"))?;
    let (own, shared) = (per_cpu * cpus, shared_kb * cpus);
    let left = shared + 64 - own;
    let expected = format!(
        "fatal locked_memory: perf's buffers take {own} KiB ({per_cpu} KiB on each of {cpus} processors); the kernel \
         lets all programs of user 0 lock {shared} KiB together (kernel.perf_event_mlock_kb, {shared_kb} KiB on each \
         processor), and this one 64 KiB more (RLIMIT_MEMLOCK): other programs of this user lock more than {left} \
         KiB; nothing is sampled; grant CAP_IPC_LOCK, or raise RLIMIT_MEMLOCK to {own} KiB (LimitMEMLOCK= of \
         systemd, ulimit -l)"
    );
    ensure!(*row == expected, "{row}\ninstead of\n{expected}");
    let mut collector = Collector::start_waiting(&with_memlock(64 << 10, "ipc_lock"))?;
    let (is_ready, text) = collector.answer()?;
    let line = format!("cannot_sample: {}\n", &expected["fatal ".len()..]);
    ensure!(!is_ready && text.contains(&line), "{text}");
    drop(others);
    let (is_ready, text) = collector.wait_answer(|text| !text.contains("cannot_sample"))?;
    ensure!(is_ready, "{text}");
    Ok(())
}

/// Check that eBPF maps which may not be locked are named, and not the capabilities.
fn locked_maps() -> Result<()> {
    let row = "fatal map_memory: before Linux 5.11 eBPF maps are locked memory: up to 41 MiB, and RLIMIT_MEMLOCK is \
        64 KiB; failed to create one of 2 MiB: Operation not permitted (os error 1); nothing is sampled; set \
        RLIMIT_MEMLOCK to unlimited (LimitMEMLOCK=infinity of systemd), or grant CAP_SYS_RESOURCE (chart: collector.extraCapabilities)";
    let condition = "cannot_sample";
    let before = with_memlock(64 << 10, "sys_resource");
    expect(&before, &Expected { row, condition })
}

/// Check that the eight capabilities are enough, also with `perf_event_paranoid` 3, except on the
/// kernels of Debian and Ubuntu, where the setting is named.
fn paranoid_kernel() -> Result<()> {
    let mut before = with_eight_capabilities();
    if is_5_10() {
        let unlimited = ["prlimit", "--memlock=unlimited"].map(str::to_owned);
        before.splice(0..0, unlimited);
    }
    let (rows, status) = preflight(&before)?;
    ensure!(status == Some(0), "{rows:#?}");
    let _setting = Setting::set("perf_event_paranoid", "3")?;
    let version = fs::read_to_string("/proc/version")?;
    if !version.contains("Debian") && !version.contains("Ubuntu") {
        let (at_3, status) = preflight(&before)?;
        ensure!(status == Some(0) && at_3 == rows, "{at_3:#?}");
        return Ok(());
    }
    let row = "fatal perf_event_paranoid: kernel.perf_event_paranoid is 3, from 3 on the kernels of Debian and Ubuntu \
        want CAP_SYS_ADMIN, and perf_event_open fails: Permission denied (os error 13); nothing is sampled; set it to \
        2 on the node: sysctl kernel.perf_event_paranoid=2";
    let condition = "cannot_sample";
    expect(&before, &Expected { row, condition })
}

fn seccomp_without_bpf() -> Result<()> {
    seccomp("bpf")
}

fn seccomp_without_perf() -> Result<()> {
    seccomp("perf_event_open")
}

fn seccomp_without_both() -> Result<()> {
    seccomp("bpf,perf_event_open")
}

/// Check that a filter is named, with the calls that it refuses, although all capabilities are there.
fn seccomp(calls: &str) -> Result<()> {
    let refused: Vec<String> = calls
        .split(',')
        .map(|call| format!("{call} (Operation not permitted (os error 1))"))
        .collect();
    let row = &format!(
        "fatal seccomp: a filter refuses {}; nothing is sampled; {SECCOMP_REMEDY}",
        refused.join(" and ")
    );
    let condition = "cannot_sample";
    expect(&without_calls(calls)?, &Expected { row, condition })
}

/// Check that a security module is named where it refuses what CAP_SYS_PTRACE permits.
fn security_module() -> Result<()> {
    let row = "degraded process_access: failed to read `/proc/1/root`: Permission denied (os error 13); CAP_SYS_PTRACE \
        is granted, so a security module refuses it; the files of such processes cannot be opened: their frames have no \
        names (reason `permission`), and many stacks are incomplete; start the collector without the container runtime's \
        AppArmor profile (`--security-opt apparmor=unconfined`, chart: collector.appArmor.type) and with the SELinux type \
        spc_t (chart: collector.seLinuxOptions.type); the node's kernel log has the refusal";
    let condition = "degraded";
    expect(&without_other_processes()?, &Expected { row, condition })
}

fn no_cgroups() -> Result<()> {
    let row =
        &format!("not_ready cgroups: no cgroups are mounted at /sys/fs/cgroup; {CGROUPS_REST}");
    let before = after_mounts("mount -t tmpfs none /sys/fs/cgroup");
    let condition = "host_cgroups";
    expect(&before, &Expected { row, condition })
}

/// A new cgroup with control over memory, below the root; removed when this is dropped.
struct Cgroup {
    directory: String,
    /// The mount of the hierarchy that samples are labelled by.
    mount: &'static str,
    limit: &'static str,
    /// The file with the number of processes that the kernel ended.
    ends: &'static str,
    layout: &'static str,
}

impl Cgroup {
    fn make() -> Result<Self> {
        let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let (mount, [limit, ends, layout]) = if is_v2 {
            let v2 = ["memory.max", "memory.events", "v2 at /sys/fs/cgroup"];
            ("/sys/fs/cgroup", v2)
        } else {
            let layout = "v1, controller memory at /sys/fs/cgroup/memory";
            let v1 = ["memory.limit_in_bytes", "memory.oom_control", layout];
            ("/sys/fs/cgroup/memory", v1)
        };
        if is_v2 {
            // A cgroup without the controller has no limit; one that has it says so again.
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
                .context("failed to enable the memory controller")?;
        }
        let directory = format!("{mount}/pilotlight-rights-{}", std::process::id());
        fs::create_dir(&directory).with_context(|| format!("failed to make {directory}"))?;
        Ok(Self {
            directory,
            mount,
            limit,
            ends,
            layout,
        })
    }

    /// Limits memory. On v2 the kernel then ends all processes when one is out of memory, as kubelet has it for a container.
    fn limit_memory(&self, bytes: u64) -> Result<()> {
        let directory = Path::new(&self.directory);
        let limit = directory.join(self.limit);
        fs::write(&limit, bytes.to_string())
            .with_context(|| format!("failed to write {limit:?}"))?;
        let group = directory.join("memory.oom.group");
        if group.exists() {
            fs::write(&group, "1").with_context(|| format!("failed to write {group:?}"))?;
        }
        Ok(())
    }

    /// Processes that the kernel ended since the cgroup was out of memory.
    fn ends(&self) -> Result<u64> {
        let path = Path::new(&self.directory).join(self.ends);
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path:?}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(line.context("no `oom_kill`")?.parse()?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes have just been killed, and may not be gone yet.
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.directory).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Check the view of a container without the host's mount.
fn own_cgroup_alone() -> Result<()> {
    let cgroup = Cgroup::make()?;
    let (directory, mount) = (&cgroup.directory, cgroup.mount);
    let row = &format!(
        "not_ready cgroups: {}, whose root is not the host's root cgroup but one below it; {CGROUPS_REST}",
        cgroup.layout
    );
    let before = after_mounts(&format!("mount --bind {directory} {mount}"));
    let condition = "host_cgroups";
    expect(&before, &Expected { row, condition })
}

fn memory_limit() -> Result<()> {
    let cgroup = Cgroup::make()?;
    cgroup.limit_memory(100 << 20)?;
    let cpus = read_online_cpus().context("no processors")?.len();
    let needs = MemoryNeeds::new(cpus, 24 << 20, 64 << 20);
    let (all, kernel) = (needs.bytes() >> 20, needs.kernel >> 20);
    let row = &format!(
        "degraded memory_limit: 100 MiB, and {all} MiB are needed: collector 64 MiB, naming child 40 MiB, eBPF maps \
         and perf's buffers on {cpus} processors {kernel} MiB, --unwind-bytes 24 MiB, --buffer-bytes 64 MiB; the \
         naming child may take 40 MiB; the kernel may end the naming child or the collector (OOM), most likely \
         while the server is away; raise the limit to {all} MiB (chart: collector.resources.limits.memory), or lower --buffer-bytes or --unwind-bytes"
    );
    let condition = "degraded";
    expect(&in_cgroup(&cgroup.directory), &Expected { row, condition })?;
    // In a cgroup namespace, `/proc/self/cgroup` says `/`.
    let mut before = in_cgroup(&cgroup.directory);
    before.extend(["unshare", "--cgroup"].map(str::to_owned));
    let (rows, _) = preflight(&before)?;
    ensure!(rows.iter().any(|found| found == row), "{rows:#?}");
    Ok(())
}

/// Check that a naming child that a file takes beyond its share of the chart's limit ends itself and is counted, and that sampling goes
/// on: the kernel, which would end the whole container, has nothing to do.
fn naming_child_out_of_memory() -> Result<()> {
    let cgroup = Cgroup::make()?;
    cgroup.limit_memory(256 << 20)?;
    let mut collector = Collector::start(&in_cgroup(&cgroup.directory), &[])?;
    let (is_ready, text) = collector.answer()?;
    ensure!(is_ready, "{text}");
    let directory = tempfile::tempdir().context("failed to make a directory")?;
    let _hungry = Hungry::start(directory.path())?;
    let ends = r#"pilotlight_collector_namer_ends_total{reason="out_of_memory"}"#;
    collector.wait_figure(ends, |count| count >= 1.0)?;
    let entries = "pilotlight_collector_entries_total";
    let before = collector.wait_figure(entries, |_| true)?;
    collector.wait_figure(entries, |count| count >= before + 100.0)?;
    let killed = cgroup.ends()?;
    let log = collector.log()?;
    ensure!(killed == 0, "the kernel ended {killed} processes: {log}");
    // A slow machine may have other failures: of files that took too long.
    let is_told = log
        .lines()
        .any(|line| line.contains("naming child failed") && line.contains("hungry"));
    ensure!(is_told, "{log}");
    let (is_ready, text) = collector.answer()?;
    ensure!(is_ready, "{text}");
    Ok(())
}

fn kptr_restrict() -> Result<()> {
    let _setting = Setting::set("kptr_restrict", "2")?;
    let row = "degraded kptr_restrict: kernel.kptr_restrict is 2: the kernel hides its addresses from everybody; \
        kernel frames have no names (reason `permission`); set it to 1 on the node: sysctl kernel.kptr_restrict=1";
    // The setting is the whole machine's, so that it is in each `preflight`.
    let (rows, status) = preflight(&Vec::new())?;
    ensure!(
        status == Some(0) && rows.iter().any(|found| found == row),
        "{rows:#?}"
    );
    let mut collector = Collector::start_waiting(&Vec::new())?;
    let (is_ready, text) = collector.answer()?;
    let line = row.replacen(' ', ": ", 1);
    ensure!(is_ready && text.contains(&line), "{text}");
    Ok(())
}

fn no_btf() -> Result<()> {
    let row = "fatal btf: `/sys/kernel/btf/vmlinux` is missing; nothing is sampled; boot a kernel with \
        CONFIG_DEBUG_INFO_BTF=y, or mount the node's /sys there";
    let before = after_mounts("mount -t tmpfs none /sys/kernel/btf");
    let condition = "cannot_sample";
    expect(&before, &Expected { row, condition })
}

fn own_pid_namespace() -> Result<()> {
    let rest = "processes outside of it are not sampled (outcome `other_namespace`)";
    let row = &format!(
        "not_ready pid_namespace: the collector's own, in which it is the first process; {rest}; start it with \
         `hostPID: true` or `--pid=host`"
    );
    let condition = "host_processes";
    expect(&in_own_pid_namespace(), &Expected { row, condition })?;
    // As on a node that is a container: another process is the first.
    let row = &format!(
        "degraded pid_namespace: a container's: its processes, and those of containers in it, are sampled; {rest}; none \
         if that container is the node, as in kind, minikube and k3d; else start the collector with `hostPID: true` or \
         `--pid=host`"
    );
    let mut before = in_own_pid_namespace();
    before.extend(["sh", "-c", "\"$@\"; exit", "sh"].map(str::to_owned));
    let condition = "degraded";
    expect(&before, &Expected { row, condition })?;
    let row = "fatal pid_namespace: `/proc` is that of another PID namespace than the collector's, or cannot be read; \
        nothing is sampled; start it with `hostPID: true` or `--pid=host`, or mount /proc in its container";
    let mut before = in_own_pid_namespace();
    before.retain(|word| word != "--mount-proc");
    let condition = "cannot_sample";
    expect(&before, &Expected { row, condition })
}

fn own_user_namespace() -> Result<()> {
    let row = "fatal user_namespace: the collector runs in a user namespace of its own, whose capabilities do not \
        count for bpf and perf_event_open; nothing is sampled; start it with `hostUsers: true`, and not in a rootless \
        container";
    let condition = "cannot_sample";
    expect(&in_own_user_namespace(), &Expected { row, condition })
}

/// Check that a failure which the checks do not foresee is not explained by guesses, and that the same
/// process samples when its cause is gone.
fn unforeseen_failure() -> Result<()> {
    // The eBPF maps and the first threads take more descriptors than these.
    let before: Words = ["prlimit", "--nofile=40:"].map(str::to_owned).into();
    let mut collector = Collector::start_waiting(&before)?;
    let (is_ready, text) = collector.answer()?;
    let line = "cannot_sample: start: failed to open the walk's tables: Too many open files (os error 24); the checks \
        found no cause\n";
    ensure!(!is_ready && text.contains(line), "{text}");
    let raised = Command::new("prlimit")
        .args(["--nofile=4096:", "--pid", &collector.pid().to_string()])
        .status()
        .context("failed to run prlimit")?;
    ensure!(raised.success(), "prlimit ended with {raised}");
    let (is_ready, text) = collector.wait_answer(|text| !text.contains("cannot_sample"))?;
    ensure!(is_ready, "{text}");
    let (status, log) = collector.stop()?;
    // No server takes the last windows.
    ensure!(
        status == Some(1) && log.contains("sampling"),
        "{status:?}: {log}"
    );
    Ok(())
}

/// Check that a collector whose policy has no usable source stays and says why, samples when it has one, and ends at once by default.
fn unusable_policy() -> Result<()> {
    let folder = tempfile::tempdir().context("failed to make a directory")?;
    let path = folder.path().join("policy.yaml");
    let file = &*format!("--policy-file={}", path.display());
    let missing = format!("policy: there is no file `{}`", path.display());
    let (status, log) = run(&Vec::new(), &[file])?;
    ensure!(status == Some(1) && log.contains(&missing), "{log}");

    let waits = |arguments: &[&str], cause: &str| {
        let arguments = [&["--on-failure=wait"], arguments].concat();
        let mut collector = Collector::start(&Vec::new(), &arguments)?;
        let (is_ready, text) = collector.answer()?;
        let line = format!("cannot_sample: {cause}");
        ensure!(!is_ready && text.contains(&line), "{text}");
        Ok(collector)
    };
    let kubeconfig = &*format!("--kubeconfig={}/kubeconfig", folder.path().display());
    let cause = "policy: failed to read the kubeconfig file";
    waits(&["--policy-configmap=profiling/policy", kubeconfig], cause)?;

    let mut collector = waits(&[file], &missing)?;
    fs::write(&path, "default: allow").context("failed to write a policy")?;
    let has_started = |text: &str| !text.contains("cannot_sample") && !text.contains("no_policy");
    collector.wait_answer(has_started).map(drop)
}

/// Check that each line of a JSON log is an object, that a collector which waits logs its reason, and
/// that it stops at SIGTERM with status 0.
fn json_log() -> Result<()> {
    let arguments = ["--log-format=json", "--on-failure=wait"];
    let mut collector = Collector::start(&without_capability("bpf"), &arguments)?;
    let (is_ready, text) = collector.answer()?;
    ensure!(!is_ready, "{text}");
    let (status, log) = collector.stop()?;
    ensure!(status == Some(0), "status {status:?}: {log}");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect::<Result<_>>()?;
    let checks = |name: &str| {
        let lines = lines.iter();
        lines
            .filter(|line| line["check"] == *name)
            .collect::<Vec<_>>()
    };
    let row = &checks("CAP_BPF");
    ensure!(
        row.len() == 1
            && row[0]["level"] == "ERROR"
            && row[0]["result"] == "fatal"
            && row[0]["remedy"] == "grant CAP_BPF",
        "{row:?}"
    );
    ensure!(checks("kernel").len() == 1, "{log}");
    Ok(())
}

/// Check that a URL that asks for TLS is refused before anything is sent.
fn no_tls() -> Result<()> {
    let (status, log) = run(&Vec::new(), &["--server=https://127.0.0.1:9"])?;
    let message = "pilotlight-collector: --server is `https://127.0.0.1:9`: expected http://…: the collector has no TLS \
        yet. Profiles cross the network in clear, so use a private network, or a tunnel that encrypts\n";
    ensure!(status == Some(2) && log == message, "{status:?}: {log}");
    Ok(())
}
