//! Invariants in case of failures: a killed server, a second collector, an early end.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::expected::ratio;
use e2e::sampled_once::number;
use e2e::statistics::{FALSE_ALARM, poisson_at_most};
use e2e::wait::{TIMEOUT, wait_for_answer};
use run::child::{Privilege, Start};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::names::find_tool;
use crate::rig::{
    self, NODE, Range, Rig, everything, find_program, free_address, now_ms, run_pprof,
};
use crate::workload;

/// Number of times that the server is killed. The store's own test kills it twenty times in the
/// middle of writes.
const KILLS: usize = 3;

type Check = fn() -> Result<()>;

/// All checks here, by name.
pub(crate) const CHECKS: [(&str, Check); 7] = [
    ("server_killed", check_server_killed),
    ("second_collector", check_second_collector),
    ("collector_stopped", check_collector_stopped),
    ("node_reports", check_node_reports),
    ("run_ends_by_itself", check_run_ends_by_itself),
    ("run_interrupted", check_run_interrupted),
    ("run_port_in_use", check_run_port_in_use),
];

/// Check that the server shows the state of each collector: one that samples, one that may not, and one that was stopped.
fn check_node_reports() -> Result<()> {
    let mut rig = Rig::start("reports")?;
    let log = TempDir::new().context("failed to make a directory")?;
    let collector = find_program("pilotlight-collector")?;
    let mut unable = rig::start(Start {
        name: "collector without a right",
        program: &find_tool("setpriv")?,
        arguments: vec![
            "--bounding-set=-perfmon,-sys_admin".to_owned(),
            collector.display().to_string(),
            format!("--server=http://{}", rig.grpc()),
            format!("--metrics-listen={}", free_address()?),
            "--node=unable".to_owned(),
            "--on-failure=wait".to_owned(),
        ],
        privilege: Privilege::Root,
        log: log.path().join("log"),
    })?;
    let own = wait_status(&rig, NODE, "sampling")?;
    let unable_node = wait_status(&rig, "unable", "cannot_sample")?;
    let report = &unable_node["report"];
    let reason = report["reason"].as_str().unwrap_or_default();
    ensure!(
        reason.starts_with("CAP_PERFMON: ") && unable_node["windows"] == 0,
        "it does not say why: {unable_node}"
    );
    let checks = report["checks"].as_array().map_or(&[][..], Vec::as_slice);
    let failed = checks.iter().filter(|check| check["outcome"] == "failed");
    let failed: Vec<_> = failed.map(|check| &check["name"]).collect();
    ensure!(
        failed == ["CAP_PERFMON"],
        "other checks fail too: {unable_node}"
    );
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    ensure!(
        own["report"]["kernel"] == release && own["report"]["reason"] == "",
        "it does not say what it is: {own}"
    );
    unable.stop(TIMEOUT)?;
    wait_status(&rig, "unable", "stopped")?;
    rig.stop_collectors()?;
    wait_status(&rig, NODE, "stopped")?;
    rig.stop_server()
}

/// Waits until a node has this status, and returns the node.
fn wait_status(rig: &Rig, node: &str, status: &str) -> Result<Value> {
    let what = format!("the node `{node}` to be `{status}`");
    wait_for_answer(&what, || {
        let selected = format!(r#"{{node="{node}"}}"#);
        let answer = rig.get_json("/api/v1/nodes", &selected, everything()?, &[])?;
        let found = &answer["nodes"][0];
        Ok((found["status"] == status).then(|| found.clone()))
    })
}

/// Check that a server which is killed repeatedly keeps acknowledged windows, reads them back
/// identically, and receives the windows from the time in which it was down.
fn check_server_killed() -> Result<()> {
    let mut rig = Rig::start("killed")?;
    for _ in 0..KILLS {
        let sent = |rig: &Rig| {
            Ok::<_, anyhow::Error>(
                rig.metrics(0)?
                    .sum("pilotlight_collector_windows_sent_total")
                    .unwrap_or_default(),
            )
        };
        // The first window is short, and may have begun after the last multiple of 10 s.
        let before = sent(&rig)?.max(1.0);
        rig.wait_metrics(0, "a window to be sent", |m| {
            m.sum("pilotlight_collector_windows_sent_total")
                .is_some_and(|sent| sent > before)
        })?;
        // All windows that begin before the end of the last one that is stored now.
        let node = rig.node(everything()?)?.context("nothing was stored")?;
        let acknowledged = Range {
            from_ms: 0,
            to_ms: number(&node, "end_ms")?,
        };
        let stored = rig.get_text("/api/v1/folded", "{}", acknowledged, &[])?;
        let samples = rig
            .node(acknowledged)?
            .context("an acknowledged window is not there")?["samples"]
            .clone();
        rig.kill_server()?;
        rig.wait_metrics(0, "a window to be kept", |m| {
            m.sum("pilotlight_collector_queue_windows")
                .is_some_and(|windows| windows >= 1.0)
        })?;
        rig.restart_server()?;
        let again = rig
            .node(acknowledged)?
            .context("an acknowledged window is gone")?["samples"]
            .clone();
        ensure!(
            again == samples,
            "{samples} samples were acknowledged, {again} are there"
        );
        let read_back = rig.get_text("/api/v1/folded", "{}", acknowledged, &[])?;
        ensure!(
            read_back == stored,
            "the acknowledged windows read back different"
        );
        rig.wait_metrics(0, "the kept windows to be delivered", |m| {
            m.sum("pilotlight_collector_queue_windows") == Some(0.0)
        })?;
    }
    rig.stop_collectors()?;
    rig.check_accounting()?;
    rig.stop_server()
}

/// Check that windows of two collectors of one node are both stored, separately, and that those that
/// count are accounted for; the older collector's are left out.
fn check_second_collector() -> Result<()> {
    let mut rig = Rig::start("twins")?;
    rig.start_collector()?;
    rig.wait_stored(now_ms()? + 10_000)?;
    rig.stop_collectors()?;
    let node = rig.node(everything()?)?.context("nothing was stored")?;
    ensure!(node["instances"] == 2, "two collectors, but: {node}");
    ensure!(
        node["overlap_ns"].as_u64().is_some_and(|ns| ns > 0),
        "two collectors sampled at once, and nothing is left out: {node}"
    );
    rig::check_books(&node)?;
    rig.stop_server()
}

/// Check that SIGTERM in the middle of a window loses no sample.
fn check_collector_stopped() -> Result<()> {
    let mut rig = Rig::start("stopped")?;
    let run = workload::run_for(workload::read_expected("shares_c")?, 4.0)?;
    rig.stop_collectors()?;
    let answer = rig.get_json("/api/v1/top", &run.query, run.range, &[])?;
    let samples = answer["samples"]
        .as_u64()
        .context("no `samples` in the answer")?;
    let expected = ratio(run.truth.cpu_ns, 1_000_000_000) * 100.0;
    let p = poisson_at_most(samples, 0.99 * expected);
    ensure!(
        p >= FALSE_ALARM,
        "{samples} samples of {expected:.1} are stored (p = {p:.1e})"
    );
    rig.check_accounting()?;
    rig.stop_server()
}

/// `pilotlight-run` on free ports in `dir`.
fn run_command(dir: &Path) -> Result<Command> {
    run_command_with(dir, free_address()?)
}

fn run_command_with(dir: &Path, grpc_listen: SocketAddr) -> Result<Command> {
    let mut command = Command::new(find_program("pilotlight-run")?);
    command
        .arg(format!("--dir={}", dir.display()))
        .arg(format!("--http-listen={}", free_address()?))
        .arg(format!("--grpc-listen={grpc_listen}"))
        .arg(format!("--metrics-listen={}", free_address()?))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Seconds of `RUN_FOR`. The first are enough for the start, a window with its names, and `go tool pprof`, but not on a slow machine.
const RUN_SECONDS: [u64; 3] = [25, 100, 300];

/// Check that `RUN_FOR` ends the run with status 0, after one line with the page's URL and one with
/// a working command.
fn check_run_ends_by_itself() -> Result<()> {
    for seconds in RUN_SECONDS {
        if run_for(seconds)? {
            return Ok(());
        }
    }
    bail!("no working command in runs of {RUN_SECONDS:?} s")
}

/// Whether a run of so many seconds had time for a working command.
fn run_for(seconds: u64) -> Result<bool> {
    let dir = tempfile::tempdir().context("failed to make a directory")?;
    let mut running = run_command(dir.path())?
        .env("RUN_FOR", format!("{seconds}s"))
        .spawn()
        .context("failed to start the run")?;
    let stdout = running.stdout.take().context("no standard output")?;
    let mut lines = Vec::new();
    let mut profile = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("failed to read the run's output")?;
        if let Some(url) = pprof_url(&line) {
            // The run may end before the answer.
            profile = run_pprof(dir.path(), url, &[]).ok();
        }
        lines.push(line);
    }
    let output = running
        .wait_with_output()
        .context("failed to wait for the run")?;
    ensure!(
        output.status.success(),
        "ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        lines
            .last()
            .is_some_and(|line| line.starts_with("stopped; stored ")),
        "{lines:#?}"
    );
    let Some(profile) = profile else {
        return Ok(false);
    };
    ensure!(!profile.is_empty(), "an empty profile: {lines:#?}");
    let count = |is_it: &dyn Fn(&str) -> bool| lines.iter().filter(|line| is_it(line)).count();
    let pages = count(&|line| line.starts_with("page "));
    let commands = count(&|line| pprof_url(line).is_some());
    ensure!(
        (pages, commands) == (1, 1),
        "{pages} pages and {commands} commands in {lines:#?}"
    );
    Ok(true)
}

/// The URL in the line `pprof  go tool pprof -top 'URL'`.
fn pprof_url(line: &str) -> Option<&str> {
    line.strip_prefix("pprof ")?.split('\'').nth(1)
}

/// Check that Ctrl-C (SIGINT) ends both programs, with status 0 and the last window stored.
fn check_run_interrupted() -> Result<()> {
    let dir = tempfile::tempdir().context("failed to make a directory")?;
    let mut running = run_command(dir.path())?
        .spawn()
        .context("failed to start the run")?;
    let mut lines = BufReader::new(running.stdout.take().context("no standard output")?).lines();
    let page = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("page ")));
    page.context("the run ended before there was a profile")??;
    let pid = i32::try_from(running.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")?;
    kill_process(pid, Signal::INT).context("failed to interrupt the run")?;
    let last = lines.map_while(Result::ok).last();
    let output = running
        .wait_with_output()
        .context("failed to wait for the run")?;
    ensure!(
        output.status.success(),
        "ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        last.as_ref()
            .is_some_and(|line| line.starts_with("stopped; stored ")),
        "{last:?}"
    );
    Ok(())
}

/// Check that the error for a port in use has the port, and the variable that sets another.
fn check_run_port_in_use() -> Result<()> {
    let dir = tempfile::tempdir().context("failed to make a directory")?;
    let taken = TcpListener::bind("127.0.0.1:0").context("failed to take a port")?;
    let address = taken.local_addr().context("failed to read the port")?;
    let Output { status, stderr, .. } = run_command_with(dir.path(), address)?
        .output()
        .context("failed to run")?;
    let stderr = String::from_utf8_lossy(&stderr);
    ensure!(status.code() == Some(1), "ended with {status}: {stderr}");
    ensure!(
        stderr.contains(&address.to_string())
            && stderr.contains("PILOTLIGHT_GRPC_LISTEN=127.0.0.1:PORT"),
        "{stderr}"
    );
    Ok(())
}
