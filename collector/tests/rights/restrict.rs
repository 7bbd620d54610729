//! Commands that start a program with fewer rights, or in other surroundings.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use ::collector::capability::Capability;
use anyhow::{Context as _, Result, bail};
use landlock::{AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetCreated};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// First argument that makes this test program install a seccomp filter and run another program.
pub(crate) const WITH_SECCOMP: &str = "with-seccomp";

/// First argument that makes this test program confine itself by Landlock and run another program.
pub(crate) const WITH_LANDLOCK: &str = "with-landlock";

/// The words before a program and its arguments.
pub(crate) type Words = Vec<String>;

fn words(words: &[&str]) -> Words {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Without a capability, by its name in lower case. CAP_SYS_ADMIN would stand for some of them.
pub(crate) fn without_capability(name: &str) -> Words {
    words(&["setpriv", &format!("--bounding-set=-sys_admin,-{name}")])
}

/// With no capabilities but these eight, as docs/install.md has them.
pub(crate) fn with_eight_capabilities() -> Words {
    let kept = Capability::ALL.map(|capability| {
        let name = capability.name().to_lowercase();
        format!("+{}", name.strip_prefix("cap_").unwrap_or(&name))
    });
    let set = format!("--bounding-set=-all,{}", kept.join(","));
    words(&["setpriv", &set])
}

/// With this limit on locked memory, and without a capability.
pub(crate) fn with_memlock(bytes: u64, without: &str) -> Words {
    let mut command = words(&["prlimit", &format!("--memlock={bytes}")]);
    command.extend(without_capability(without));
    command
}

/// With a filter that refuses these system calls with EPERM, as container runtimes do.
pub(crate) fn without_calls(calls: &str) -> Result<Words> {
    let own = std::env::current_exe().context("failed to find this program")?;
    Ok(words(&[&own.display().to_string(), WITH_SECCOMP, calls]))
}

/// With a security module that refuses to read the processes outside, as AppArmor's profiles of container runtimes do.
pub(crate) fn without_other_processes() -> Result<Words> {
    let own = std::env::current_exe().context("failed to find this program")?;
    Ok(words(&[&own.display().to_string(), WITH_LANDLOCK]))
}

/// Whether the kernel has Landlock.
pub(crate) fn has_landlock() -> bool {
    new_ruleset().is_ok()
}

/// In a PID namespace of its own; ends with the command.
pub(crate) fn in_own_pid_namespace() -> Words {
    words(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
}

/// As root of a user namespace of its own.
pub(crate) fn in_own_user_namespace() -> Words {
    words(&["unshare", "--user", "--map-root-user"])
}

/// In a mount namespace that this script changes.
pub(crate) fn after_mounts(script: &str) -> Words {
    let script = format!("set -e; {script}; exec \"$@\"");
    words(&["unshare", "--mount", "sh", "-c", &script, "sh"])
}

/// In this directory of a cgroup hierarchy.
pub(crate) fn in_cgroup(directory: &str) -> Words {
    let script = format!("set -e; echo $$ > {directory}/cgroup.procs; exec \"$@\"");
    words(&["sh", "-c", &script, "sh"])
}

/// The program of [`without_calls`]: `with-seccomp CALL,CALL PROGRAM ARGUMENT…`.
pub(crate) fn run_with_seccomp(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let failed = (|| {
        let calls = arguments.next().context("no calls")?;
        let program = arguments.next().context("no program")?;
        install_filter(&calls)?;
        Err(Command::new(program).args(arguments).exec().into())
    })()
    .unwrap_or_else(|err: anyhow::Error| err);
    eprintln!("{WITH_SECCOMP}: {failed:#}");
    ExitCode::FAILURE
}

/// The program of [`without_other_processes`]: `with-landlock PROGRAM ARGUMENT…`.
pub(crate) fn run_with_landlock(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let failed = (|| {
        let program = arguments.next().context("no program")?;
        new_ruleset()?.restrict_self()?;
        Err(Command::new(program).args(arguments).exec().into())
    })()
    .unwrap_or_else(|err: anyhow::Error| err);
    eprintln!("{WITH_LANDLOCK}: {failed:#}");
    ExitCode::FAILURE
}

/// A program under any Landlock rules may not read processes outside; these forbid it nothing else that a collector does.
fn new_ruleset() -> Result<RulesetCreated> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::MakeBlock)?
        .create()
        .context("failed to make Landlock rules")
}

fn install_filter(calls: &str) -> Result<()> {
    let mut rules = BTreeMap::new();
    for call in calls.split(',') {
        let number = match call {
            "bpf" => libc::SYS_bpf,
            "perf_event_open" => libc::SYS_perf_event_open,
            other => bail!("no call `{other}`"),
        };
        rules.insert(number, Vec::new());
    }
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64)?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter(&program).context("failed to install the filter")
}

/// A kernel setting; its value before comes back when this is dropped.
pub(crate) struct Setting {
    path: String,
    before: String,
}

impl Setting {
    pub(crate) fn set(name: &str, value: &str) -> Result<Self> {
        let path = format!("/proc/sys/kernel/{name}");
        let before = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        fs::write(&path, value).with_context(|| format!("failed to write {path}"))?;
        Ok(Self { path, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(err) = fs::write(&self.path, &self.before) {
            eprintln!("failed to restore {}: {err}", self.path);
        }
    }
}
