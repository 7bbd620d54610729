//! What the release may do, and what the collector does without an API server.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::wait::wait_for_answer;
use run::http;
use run::metrics::Metrics;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::leftovers::processes_with_names;
use crate::release::{
    COLLECTOR, COLLECTORS, NAMESPACE, RELEASE, collector_address, kubectl, now_ms, pod_uids,
};

/// The collector's rights as `kubectl auth can-i --list` has them, beyond those of a new account.
const COLLECTOR_RIGHTS: [&str; 3] = [
    "jobs.batch [] [] [get]",
    "pods [] [] [list watch]",
    "replicasets.apps [] [] [get]",
];

/// An account to which nobody has given rights.
const NEW_ACCOUNT: &str = "system:serviceaccount:default:default";

/// Numbers of the collector's capabilities, in the order of docs/install.md: BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH, SYSLOG,
/// CHECKPOINT_RESTORE, SYS_CHROOT, IPC_LOCK.
const COLLECTOR_CAPABILITIES: [u32; 8] = [39, 38, 19, 2, 34, 40, 18, 14];

const SYS_ADMIN: u32 = 21;

/// Check that the collector's account has [`COLLECTOR_RIGHTS`] and these, and no others.
pub(crate) fn check_account(further: &[&str]) -> Result<()> {
    let rights = |account: &str| -> Result<BTreeSet<String>> {
        let list = kubectl(&["auth", "can-i", "--list", "--as", account])?;
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(list.lines().map(words).collect())
    };
    let own = rights(&format!("system:serviceaccount:{NAMESPACE}:{COLLECTOR}"))?;
    let others = rights(NEW_ACCOUNT)?;
    ensure!(!others.is_empty(), "no list of rights");
    let more: BTreeSet<String> = own.difference(&others).cloned().collect();
    let expected = COLLECTOR_RIGHTS.iter().chain(further);
    ensure!(
        more == expected.map(|right| (*right).to_owned()).collect(),
        "the collector's account has these rights beyond a new one's: {more:#?}"
    );
    Ok(())
}

/// Check that no process of the release has or could get CAP_SYS_ADMIN, and that those of the collectors have no capabilities but
/// the chart's.
pub(crate) fn check_capabilities() -> Result<()> {
    let bit = |number: u32| 1_u64 << number;
    let allowed = COLLECTOR_CAPABILITIES.into_iter().map(bit).sum::<u64>();
    let release = format!("app.kubernetes.io/name={RELEASE}");
    let processes = find_processes(&release)?;
    for process in &processes {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let held = process.capabilities(set)?;
            ensure!(held & bit(SYS_ADMIN) == 0, "{process:?}: {set} {held:#x}");
        }
    }
    let collectors = find_processes(COLLECTORS)?;
    let mut held = 0;
    for process in &collectors {
        // The sandbox has the runtime's set.
        if process.name != "pause" {
            held |= process.capabilities("CapBnd")?;
        }
    }
    ensure!(
        processes.len() > collectors.len() && held != 0 && held & !allowed == 0,
        "the collectors hold {held:#x}, and the chart's are {allowed:#x}: {processes:?}"
    );
    Ok(())
}

/// Check that a collector that starts while the API server does not answer profiles, says what is missing, and labels samples as
/// soon as the API server is there.
pub(crate) fn check_without_api_server(http: SocketAddr) -> Result<()> {
    let collector = collector_address()?;
    let processes = find_processes(COLLECTORS)?;
    let api_server = processes_with_names(&["kube-apiserver"])?;
    let stopped = Stopped::stop(&api_server)?;
    for process in processes.iter().filter(|process| process.name != "pause") {
        process.signal(Signal::KILL)?;
    }
    let answer = |is_wanted: &dyn Fn(u16, &str) -> bool| {
        wait_for_answer("the collector's answer", || {
            let answer = http::get(collector, "/readyz", &[])?;
            Ok(Some(answer).filter(|(status, text)| is_wanted(*status, text)))
        })
    };
    let (status, text) = answer(&|_, text| text.contains("no_labels: "))?;
    ensure!(
        status == 503 && text.starts_with("not ready\n"),
        "{status}: {text}"
    );
    wait_for_answer("its first sample", || {
        let text = http::get_text(collector, "/metrics", &[])?;
        let entries = Metrics::parse(&text).sum("pilotlight_collector_entries_total");
        Ok(entries.filter(|entries| *entries > 0.0))
    })?;
    // The window in which it was killed has samples with labels, of the collector before.
    let next_window_ms = now_ms()? / 10_000 * 10_000 + 10_000;
    thread::sleep(Duration::from_millis(
        next_window_ms.saturating_sub(now_ms()?),
    ));
    let count = |query: &str, from_ms: u64| -> Result<usize> {
        let from = from_ms.to_string();
        let series = http::get_json(http, "/api/v1/series", &[("query", query), ("from", &from)])?;
        Ok(series["series"].as_array().context("no series")?.len())
    };
    let without = wait_for_answer("containers without pods", || {
        let without = count(r#"{container_id=~".+", pod=""}"#, next_window_ms)?;
        Ok((without > 0).then_some(without))
    })?;
    ensure!(
        count(r#"{pod=~".+"}"#, next_window_ms)? == 0,
        "no pod is known"
    );
    println!("without an API server: {without} series with the ids of containers");
    drop(stopped);
    answer(&|status, _| status == 200)?;
    let again_ms = now_ms()?;
    wait_for_answer("labels of pods", || {
        Ok((count(r#"{pod=~".+"}"#, again_ms)? > 0).then_some(()))
    })
}

/// Processes that do not run until this is dropped.
struct Stopped<'a>(&'a [String]);

impl<'a> Stopped<'a> {
    fn stop(pids: &'a [String]) -> Result<Self> {
        let stopped = Self(pids);
        stopped.signal(Signal::STOP)?;
        Ok(stopped)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.0.iter().try_for_each(|pid| send_signal(pid, signal))
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        // A process that has ended needs none.
        let _ = self.signal(Signal::CONT);
    }
}

#[derive(Debug)]
struct Process {
    pid: String,
    name: String,
    /// `/proc/PID/status`.
    status: String,
}

impl Process {
    fn capabilities(&self, set: &str) -> Result<u64> {
        let mut lines = self.status.lines();
        let value = lines.find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
        let value = value.with_context(|| format!("no {set}"))?.trim();
        u64::from_str_radix(value, 16).with_context(|| format!("{set} is {value}"))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        send_signal(&self.pid, signal)
    }
}

/// Signals a process, unless it has ended.
fn send_signal(pid: &str, signal: Signal) -> Result<()> {
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    match kill_process(pid.context("no process id")?, signal) {
        Err(Errno::SRCH) => Ok(()),
        result => result.context("failed to signal"),
    }
}

/// The processes of the pods with these labels, by their cgroups.
fn find_processes(selector: &str) -> Result<Vec<Process>> {
    let uids = pod_uids(selector)?;
    let cgroups: Vec<String> = uids.iter().map(|uid| format!("/pod{uid}/")).collect();
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").context("failed to list processes")? {
        let entry = entry.context("failed to list processes")?;
        let pid = entry.file_name().to_string_lossy().into_owned();
        // A process may end meanwhile.
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let cgroup = read("cgroup");
        if cgroups.iter().any(|pod| cgroup.contains(pod)) {
            let name = read("comm").trim().to_owned();
            let status = read("status");
            // The runtime starts a probe's command in the container's cgroup, and gives up its own rights there.
            if !status.is_empty() && !name.starts_with("runc") {
                processes.push(Process { pid, name, status });
            }
        }
    }
    ensure!(!processes.is_empty(), "no process of a pod with {selector}");
    Ok(processes)
}
