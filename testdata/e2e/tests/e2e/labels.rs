//! Labels of processes by their cgroups: real directories of the hierarchy that the collector reads, laid out as systemd, kubelet
//! and the container runtimes lay out theirs, and a container of `runc` where kubelet would put it.
//!
//! The guests of `deploy/test-kernels` have version 2 alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
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

/// Check that the samples of containers that live for a tenth of a second, and whose cgroups are removed at once, have their ids, each
/// its own.
fn check_short(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let cgroups = Cgroups::new("short");
    let program = directory.path().join("lb-short");
    make_program(&program)?;
    let id = |number| format!("{:056x}{number:08x}", std::process::id());
    begin_early_in_window()?;
    let from_ms = now_ms()?;
    for number in 0..SHORT_CONTAINERS {
        let path = format!("kubepods/besteffort/pod{:032x}/{}", number, id(number));
        let made = cgroups.make(&path)?;
        let status = start_in(&made, &program, "0.1")?.wait()?;
        ensure!(status.success(), "`lb-short` ended with {status}");
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
    let mut named: Vec<&str> = series
        .iter()
        .map(|series| series["labels"]["container_id"].as_str().unwrap_or("none"))
        .collect();
    named.sort_unstable();
    // Two series, if a sample is from before the program or after its end.
    named.dedup();
    let expected: Vec<String> = (0..SHORT_CONTAINERS).map(id).collect();
    ensure!(named == expected, "{answer}");
    Ok(())
}

/// CPU seconds of the container whose accounts are compared: 400 samples, a standard deviation of 5 %.
const ACCOUNT_SECONDS: &str = "4";

/// CPU seconds of the throttled container, which has 5 ms of a processor in each 100 ms: it is throttled for most of 10 s, also where
/// other programs leave it a tenth of a processor only.
const THROTTLED_SECONDS: &str = "0.5";

/// Check that a container's sampled CPU time is the kernel's within three standard deviations, that one with a quota shows the time
/// for which it was stopped, and that one whose cgroup is removed at once loses little.
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
    begin_early_in_window()?;
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
    let find = |kind: u8| -> Result<Value> {
        let query = format!(r#"{{container_id="{}"}}"#, id(kind));
        let answer = rig.get_json("/api/v1/containers", &query, range(from_ms, ended_ms), &[])?;
        ensure!(answer["count"] == 1, "{answer}");
        Ok(answer)
    };
    let number = |value: &Value| value.as_f64().context("no number");
    let answer = find(1)?;
    let container = &answer["containers"][0];
    let [ratio, deviation, kernel_ns, unread_ns] =
        ["ratio", "ratio_deviation", "kernel_ns", "unread_ns"].map(|name| number(&container[name]));
    let (ratio, kernel_ns) = (ratio?, kernel_ns?);
    let stolen = number(&answer["stolen_ns"])? / kernel_ns;
    let three = 3.0 * deviation?;
    ensure!(
        kernel_ns > 3.9e9
            && unread_ns? == 0.0
            && ratio > 1.0 - three
            && ratio < 1.0 + three + stolen,
        "{answer}"
    );
    if has_quota {
        let answer = find(2)?;
        let container = &answer["containers"][0];
        let [kernel_ns, throttled_ns, unread_ns] =
            ["kernel_ns", "throttled_ns", "unread_ns"].map(|name| number(&container[name]));
        let (kernel_ns, unread_ns) = (kernel_ns?, unread_ns?);
        // It is read once a second, and uses 50 ms in one.
        ensure!(
            throttled_ns? > 1e9 && (0.3e9..0.7e9).contains(&kernel_ns) && unread_ns < 0.2e9,
            "{answer}"
        );
    }
    Ok(())
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
