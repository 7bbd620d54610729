//! Labels of processes by their cgroups: real directories of the hierarchy that the collector reads, laid out as systemd, kubelet
//! and the container runtimes lay out theirs, and a container of `runc` where kubelet would put it.
//!
//! The guests of `deploy/test-kernels` have version 2 alone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::expected::ratio;
use e2e::statistics::{FALSE_ALARM, poisson_at_least, poisson_at_most};
use e2e::wait::wait_for_answer;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::names::{Bundle, begin_early_in_window, compile, range};
use crate::rig::{Rig, is_emulated, now_ms};
use crate::workload;

/// A check with the shared rig.
type Check = fn(&Rig) -> Result<()>;

/// The checks, by name.
pub(crate) const CHECKS: [(&str, Check); 3] = [
    ("cgroups", check),
    ("short_lives", check_short),
    ("cpu_accounts", check_accounts),
];

/// CPU seconds of each program: 50 samples.
const SECONDS: &str = "0.5";

/// The minimum for a verdict.
const SAMPLES_MIN: u64 = 20;

const MOUNT: &str = "/sys/fs/cgroup";

/// A process, and its expected labels.
struct Row {
    /// Name of the process.
    comm: &'static str,
    /// Its cgroup below the test's own.
    path: String,
    container_id: Option<String>,
    unit: Option<&'static str>,
    /// `runc` creates the cgroup.
    is_container: bool,
}

fn make_rows() -> Vec<Row> {
    // Unique on this machine.
    let task = format!("{:032x}", std::process::id());
    let id = task.repeat(2);
    let row = |comm, path: String, unit| Row {
        comm,
        path,
        container_id: None,
        unit,
        is_container: false,
    };
    let pod = "kubepods/burstable/pod404bd273-57bc-4508-a386-e2b76d3c9cfe";
    let slice = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod404bd273_57bc_4508_a386_e2b76d3c9cff.slice";
    let (scope_id, static_id) = (format!("{task}{:032x}", 1), format!("{task}{:032x}", 2));
    vec![
        row(
            "lb-service",
            "system.slice/lb.service".into(),
            Some("lb.service"),
        ),
        row(
            "lb-run",
            format!("system.slice/run-r{task}.scope"),
            Some("run-*.scope"),
        ),
        row(
            "lb-conmon",
            format!("system.slice/crio-conmon-{id}.scope"),
            Some("crio-conmon-*.scope"),
        ),
        row(
            "lb-podman-pod",
            format!("machine.slice/machine-libpod_pod_{id}.slice"),
            None,
        ),
        Row {
            container_id: Some(format!("{task}-1234567890")),
            ..row("lb-fargate", format!("ecs/{task}/{task}-1234567890"), None)
        },
        Row {
            container_id: Some(id.clone()),
            // An emulated guest has no runc.
            is_container: !is_emulated(),
            ..row("lb-container", format!("{pod}/{id}"), None)
        },
        Row {
            container_id: Some(scope_id.clone()),
            ..row(
                "lb-scope",
                format!("{slice}/cri-containerd-{scope_id}.scope"),
                None,
            )
        },
        Row {
            container_id: Some(static_id.clone()),
            ..row(
                "lb-static",
                format!("kubepods.slice/kubepods-pod{task}.slice/crio-{static_id}.scope"),
                None,
            )
        },
    ]
}

/// Check the labels of each row.
fn check(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let cgroups = Cgroups::new("rows");
    let rows = make_rows();
    begin_early_in_window()?;
    let from_ms = now_ms()?;
    for row in &rows {
        let status = start(row, directory.path(), &cgroups)?.wait()?;
        ensure!(status.success(), "`{}` ended with {status}", row.comm);
    }
    let ended_ms = now_ms()?;
    drop(cgroups);
    rig.wait_stored(ended_ms)?;
    for row in &rows {
        let query = format!(r#"{{comm="{}"}}"#, row.comm);
        let answer = rig.get_json("/api/v1/series", &query, range(from_ms, ended_ms), &[])?;
        let series = answer["series"].as_array().context("no `series`")?;
        let samples = series
            .iter()
            .filter_map(|series| series["samples"].as_u64());
        let is_right = series.iter().all(|series| {
            let label = |name| series["labels"][name].as_str();
            label("container_id") == row.container_id.as_deref() && label("unit") == row.unit
        });
        ensure!(
            is_right && samples.sum::<u64>() >= SAMPLES_MIN,
            "`{}` in `{}`: {answer}",
            row.comm,
            row.path
        );
    }
    Ok(())
}

/// Containers that live one after another, for 0.1 s of CPU time each.
const SHORT_CONTAINERS: usize = 20;

/// Those of them that are sampled at least. One has ten samples, and none by chance once in 22,000 times (e^-10), so that two have none
/// in one run of 2.5 million (190 · e^-20).
const SHORT_SAMPLED_MIN: usize = SHORT_CONTAINERS - 1;

/// Check that the samples of containers that live for a tenth of a second, and whose cgroups are removed as soon as the collector has
/// read them, have their ids, each its own.
fn check_short(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let cgroups = Cgroups::new("short");
    let program = directory.path().join("lb-short");
    make_program(&program)?;
    let id = |number| format!("{:056x}{number:08x}", std::process::id());
    let from_ms = now_ms()?;
    for number in 0..SHORT_CONTAINERS {
        let path = format!("kubepods/besteffort/pod{:032x}/{}", number, id(number));
        let made = cgroups.make(&path)?;
        let status = start_in(&made, &program, "0.1")?.wait()?;
        ensure!(status.success(), "`lb-short` ended with {status}");
        wait_for_answer("the collector to have read a cgroup", || {
            Ok(is_watched(rig.collector_pid(0)?, &made)?.then_some(()))
        })?;
        for directory in made {
            remove_cgroups(directory.parent().unwrap_or(&directory));
        }
    }
    let ended_ms = now_ms()?;
    drop(cgroups);
    rig.wait_stored(ended_ms)?;
    let query = r#"{comm="lb-short"}"#;
    let answer = rig.get_json("/api/v1/series", query, range(from_ms, ended_ms), &[])?;
    let series = answer["series"].as_array().context("no `series`")?;
    // Two series, if a sample is from before the program or after its end.
    let named: BTreeSet<&str> = series
        .iter()
        .map(|series| series["labels"]["container_id"].as_str().unwrap_or("none"))
        .collect();
    let expected: BTreeSet<String> = (0..SHORT_CONTAINERS).map(id).collect();
    ensure!(
        named.iter().all(|id| expected.contains(*id)) && named.len() >= SHORT_SAMPLED_MIN,
        "{answer}"
    );
    Ok(())
}

/// Whether a process watches one of these directories: the collector watches each cgroup that it reads.
fn is_watched(pid: u32, directories: &[PathBuf]) -> Result<bool> {
    let mut watched = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        // `inotify wd:1 ino:2f sdev:1c mask:…` with hexadecimal numbers. A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines().filter(|line| line.starts_with("inotify ")) {
            let number = |name: &str| {
                let word = line.split(' ').find_map(|word| word.strip_prefix(name));
                word.and_then(|digits| u64::from_str_radix(digits, 16).ok())
            };
            watched.insert((number("sdev:"), number("ino:")));
        }
    }
    let mut directories = directories
        .iter()
        .filter_map(|directory| fs::metadata(directory).ok());
    Ok(directories.any(|found| {
        // File systems without a disk have the major number 0; user space sees the minor one in two parts.
        let device = found.dev() & 0xff | found.dev() >> 12 & !0xff;
        watched.contains(&(Some(device), Some(found.ino())))
    }))
}

/// CPU seconds of the container whose accounts are compared: 400 samples, a standard deviation of 5 %.
const ACCOUNT_SECONDS: &str = "4";

/// CPU seconds of the throttled container, which has 5 ms of a processor in each 100 ms: it is throttled for most of 10 s, also where
/// other programs leave it a tenth of a processor only.
const THROTTLED_SECONDS: &str = "0.5";

/// Check that a container's sampled CPU time is the kernel's as far as chance allows, that one with a quota shows the time for which it
/// was stopped, and that one whose cgroup is removed at once loses less than half.
fn check_accounts(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let cgroups = Cgroups::new("accounts");
    let program = directory.path().join("lb-account");
    make_program(&program)?;
    let id = |kind: u8| format!("{kind:02x}{:062x}", std::process::id());
    let make = |kind: u8| cgroups.make(&format!("kubepods/pod{:032x}/{}", kind, id(kind)));
    let [free, throttled] = [make(1)?, make(2)?];
    let has_quota = throttled
        .iter()
        .any(|directory| set_quota(directory).is_ok());
    let from_ms = now_ms()?;
    let mut children = vec![start_in(&free, &program, ACCOUNT_SECONDS)?];
    if has_quota {
        children.push(start_in(&throttled, &program, THROTTLED_SECONDS)?);
    }
    for child in &mut children {
        let status = child.wait()?;
        ensure!(status.success(), "`lb-account` ended with {status}");
    }
    throttled
        .iter()
        .for_each(|directory| remove_cgroups(directory));
    let ended_ms = now_ms()?;
    rig.wait_stored(ended_ms)?;
    drop(cgroups);
    let find = |kind: u8| -> Result<Account> {
        let query = format!(r#"{{container_id="{}"}}"#, id(kind));
        let answer = rig.get_json("/api/v1/containers", &query, range(from_ms, ended_ms), &[])?;
        Account::read(answer)
    };
    let container = find(1)?;
    container.check_sampled()?;
    ensure!(
        container.kernel_ns > 3_900_000_000 && container.unread_ns == 0,
        "{container:?}"
    );
    if has_quota {
        let container = find(2)?;
        container.check_sampled()?;
        // It is read once a second, and uses 50 ms in one of some ten; a busy machine reads it less often.
        ensure!(
            container.throttled_ns > 1_000_000_000
                && container.kernel_ns < 700_000_000
                && container.unread_ns * 2 < container.sampled_ns,
            "{container:?}"
        );
    }
    Ok(())
}

/// A container's CPU time, nanoseconds.
#[derive(Debug, Deserialize)]
struct Account {
    samples: u64,
    sampled_ns: u64,
    kernel_ns: u64,
    unread_ns: u64,
    throttled_ns: u64,
    /// Of the node.
    #[serde(default)]
    stolen_ns: u64,
}

impl Account {
    /// The only one of an answer.
    fn read(mut answer: Value) -> Result<Self> {
        ensure!(answer["count"] == 1, "{answer}");
        let mut account: Self = serde_json::from_value(answer["containers"][0].take())
            .with_context(|| format!("an account of another form: {answer}"))?;
        account.stolen_ns = answer["stolen_ns"].as_u64().context("no `stolen_ns`")?;
        Ok(account)
    }

    /// Check that the samples in the kernel's account are as many as its CPU time gives, and no more than with the stolen time.
    fn check_sampled(&self) -> Result<()> {
        let sample_ns = self.sampled_ns / self.samples.max(1);
        let samples = (self.sampled_ns - self.unread_ns) / sample_ns.max(1);
        let expected = |ns: u64| ratio(ns, 1_000_000_000) * 100.0;
        let too_few = poisson_at_most(samples, expected(self.kernel_ns));
        let too_many = poisson_at_least(samples, expected(self.kernel_ns + self.stolen_ns));
        ensure!(
            too_few >= FALSE_ALARM && too_many >= FALSE_ALARM,
            "{samples} samples, not as the kernel's account says (p = {:.1e}): {self:?}",
            too_few.min(too_many)
        );
        Ok(())
    }
}

/// Gives a cgroup a twentieth of a processor. An error where it has no CPU controller.
fn set_quota(directory: &Path) -> Result<()> {
    let v1 = fs::exists(directory.join("cpu.cfs_quota_us"))?;
    let (name, quota) = if v1 {
        ("cpu.cfs_quota_us", "5000")
    } else {
        ("cpu.max", "5000 100000")
    };
    ensure!(fs::exists(directory.join(name))?, "no quota");
    Ok(fs::write(directory.join(name), quota)?)
}

fn start(row: &Row, directory: &Path, cgroups: &Cgroups) -> Result<Child> {
    if row.is_container {
        let program = format!("/{}", row.comm);
        let bundle = Bundle::make(&directory.join("bundle"), &[&program, SECONDS])?;
        bundle.set_cgroup(&format!("/{}/{}", cgroups.top, row.path))?;
        compile(&bundle.root().join(row.comm), "burn", &["-static"])?;
        return bundle.start(1);
    }
    let program = directory.join(row.comm);
    make_program(&program)?;
    start_in(&cgroups.make(&row.path)?, &program, SECONDS)
}

/// Makes a program that uses as many CPU seconds as its argument says. An emulated guest has no compiler.
fn make_program(path: &Path) -> Result<()> {
    if !is_emulated() {
        return compile(path, "burn", &[]);
    }
    let built = workload::build()?.join("shares_c");
    let copied = fs::copy(&built, path).map(drop);
    copied.with_context(|| format!("failed to copy `{}`", built.display()))
}

/// Starts a program in these cgroups, one of each hierarchy.
pub(crate) fn start_in(cgroups: &[PathBuf], program: &Path, seconds: &str) -> Result<Child> {
    let moves = r#"program=$1; shift; for cgroup; do echo $$ >"$cgroup/cgroup.procs" || exit; done; exec "$program" "$0""#;
    Command::new("sh")
        .args(["-c", moves, seconds])
        .arg(program)
        .args(cgroups)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("failed to start a shell")
}

/// The cgroups of this test; dropping removes them.
pub(crate) struct Cgroups {
    /// Name of the top directory.
    top: String,
}

impl Cgroups {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            top: format!("pilotlight-e2e-{name}-{}", std::process::id()),
        }
    }

    /// Name of the directory that has all of them, below the mount point.
    pub(crate) fn top(&self) -> &str {
        &self.top
    }

    /// Creates a cgroup in each hierarchy that the collector reads.
    pub(crate) fn make(&self, path: &str) -> Result<Vec<PathBuf>> {
        let is_v2 = Path::new(MOUNT).join("cgroup.controllers").exists();
        let hierarchies = if is_v2 {
            &[""][..]
        } else {
            &["memory", "cpu", "cpuacct", "pids", "freezer"]
        };
        let mounts = hierarchies.iter().map(|name| Path::new(MOUNT).join(name));
        let mounts = mounts.filter(|mount| mount.join("cgroup.procs").exists());
        mounts
            .map(|mount| {
                let directory = mount.join(&self.top).join(path);
                fs::create_dir_all(&directory)
                    .with_context(|| format!("failed to make `{}`", directory.display()))?;
                Ok(directory)
            })
            .collect()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let mounts = fs::read_dir(MOUNT).into_iter().flatten().flatten();
        let mounts = mounts.map(|mount| mount.path()).chain([MOUNT.into()]);
        for mount in mounts {
            remove_cgroups(&mount.join(&self.top));
        }
    }
}

/// Removes a cgroup and its descendants, whose control files vanish with them.
fn remove_cgroups(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}
