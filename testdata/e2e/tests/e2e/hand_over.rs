//! Replacing a collector by another one (`--hand-over`): what both have sampled together.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, ensure};
use e2e::sampled_once::{WINDOW, check_sampled_once, number};
use e2e::wait::{TIMEOUT, wait_for_answer, wait_while};
use run::child::{Child, Privilege, Start};
use run::http;
use run::metrics::Metrics;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{self, NODE, Rig, everything, find_program, free_address, now_ms};

type Check = fn() -> Result<()>;

/// All checks here, by name.
pub(crate) const CHECKS: [(&str, Check); 3] = [
    ("by_lock_file", check_by_lock_file),
    ("by_executable", check_by_executable),
    ("old_killed", check_old_killed),
];

/// Entries of a collector that samples alone: those of two seconds of a processor.
const ALONE: f64 = 200.0;

/// Collectors that replace each other.
struct Collectors {
    dir: TempDir,
    /// Whether they share a directory for the lock; else they find each other by the names of their executables.
    has_lock_file: bool,
    started: usize,
}

struct Collector {
    child: Child,
    metrics: SocketAddr,
    /// Its place in the order of starts, and a label of its samples.
    turn: usize,
}

impl Collectors {
    fn new(has_lock_file: bool) -> Result<Self> {
        Ok(Self {
            dir: TempDir::new().context("failed to make a directory")?,
            has_lock_file,
            started: 0,
        })
    }

    /// The next collector's program: a file of its own, as in a pod of its own.
    fn copy_program(&self) -> Result<PathBuf> {
        let folder = self.dir.path().join(self.started.to_string());
        fs::create_dir_all(&folder).context("failed to make a directory")?;
        let name = if self.has_lock_file {
            // So that it is the lock that counts.
            format!("collector-{}", self.started)
        } else {
            "collector-of-the-test".to_owned()
        };
        let program = folder.join(name);
        fs::copy(find_program("pilotlight-collector")?, &program)
            .context("failed to copy the collector")?;
        Ok(program)
    }

    /// Starts a collector, and waits until it is ready.
    fn start(&mut self, rig: &Rig) -> Result<Collector> {
        let metrics = free_address()?;
        let cache_dir = if self.has_lock_file {
            self.dir.path().join("cache").display().to_string()
        } else {
            "none".to_owned()
        };
        let program = self.copy_program()?;
        let mut child = rig::start(Start {
            name: "collector",
            program: &program,
            arguments: vec![
                format!("--server=http://{}", rig.grpc()),
                format!("--node={NODE}"),
                format!("--metrics-listen={metrics}"),
                format!("--cache-dir={cache_dir}"),
                "--hand-over".to_owned(),
                "--include-idle".to_owned(),
                format!("--window={WINDOW}"),
                format!("--label=turn={}", self.started),
            ],
            privilege: Privilege::Root,
            log: self.dir.path().join(format!("{}.log", self.started)),
        })?;
        let turn = self.started;
        self.started += 1;
        wait_while(
            "the collector to be ready",
            || child.check_alive(),
            || {
                let (status, _) = http::get(metrics, "/readyz", &[])?;
                Ok((status == 200).then_some(()))
            },
        )?;
        Ok(Collector {
            child,
            metrics,
            turn,
        })
    }
}

impl Collector {
    /// Check that it is ready, says that it waits, and has not sampled.
    fn check_waits(&self, rig: &Rig) -> Result<()> {
        let said = http::get_text(self.metrics, "/readyz", &[])?;
        ensure!(
            said.starts_with("ready\nwaiting: another collector samples this node"),
            "{said}"
        );
        let figures = [
            read_metric(self.metrics, "hand_over_waiting")?,
            read_metric(self.metrics, "entries_total")?,
        ];
        ensure!(figures == [1.0, 0.0], "{figures:?}");
        wait_for_answer("the report that it waits", || {
            let node = rig.node(everything()?)?.unwrap_or_default();
            let reason = node["report"]["reason"].as_str().unwrap_or_default();
            Ok(
                (node["status"] == "starting" && reason.contains("another collector"))
                    .then_some(()),
            )
        })
    }

    /// SIGTERM; does not wait.
    fn begin_to_stop(&self) -> Result<()> {
        let pid = i32::try_from(self.child.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, Signal::TERM).context("failed to signal")
    }

    /// Waits until it has sampled so much.
    fn wait_entries(&mut self, least: f64) -> Result<()> {
        self.wait_metric("entries_total", least)
    }

    /// Waits until one of its metrics is so much, as long as it runs.
    fn wait_metric(&mut self, name: &str, least: f64) -> Result<()> {
        let address = self.metrics;
        wait_while(
            &format!("{name} of {least}"),
            || self.child.check_alive(),
            || Ok((read_metric(address, name)? >= least).then_some(())),
        )
    }
}

fn read_metric(address: SocketAddr, name: &str) -> Result<f64> {
    let metrics = Metrics::parse(&http::get_text(address, "/metrics", &[])?);
    let name = format!("pilotlight_collector_{name}");
    let value = metrics.sum(&name);
    value.with_context(|| format!("no metric {name}"))
}

/// Threads that keep all processors busy until this is dropped: a part of a window without samples is not stored.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let ends = Arc::<AtomicBool>::default();
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            let ends = ends.clone();
            std::thread::spawn(move || while !ends.load(Ordering::Relaxed) {});
        }
        Self(ends)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Check a hand-over by the lock in the shared directory, while the server is away.
fn check_by_lock_file() -> Result<()> {
    let _busy = Busy::start();
    let mut rig = Rig::start_server("lock-file", &[], &[])?;
    let mut collectors = Collectors::new(true)?;
    let mut old = collectors.start(&rig)?;
    let mut new = collectors.start(&rig)?;
    new.check_waits(&rig)?;
    old.wait_entries(ALONE)?;
    rig.kill_server()?;
    old.begin_to_stop()?;
    new.wait_entries(1.0)?;
    old.wait_metric("queue_windows", 1.0)?;
    // At once: the old one tries for 10 s to send its last windows.
    rig.restart_server()?;
    old.child.stop(TIMEOUT)?;
    new.wait_entries(ALONE)?;
    new.child.stop(TIMEOUT)?;
    check_all(&rig, &[old, new])?;
    rig.stop_server()
}

/// Check hand-overs of collectors without a common directory, which find each other in /proc: three in turn.
fn check_by_executable() -> Result<()> {
    let _busy = Busy::start();
    let mut rig = Rig::start_server("executable", &[], &[])?;
    let mut collectors = Collectors::new(false)?;
    let mut stopped = Vec::new();
    let mut old = collectors.start(&rig)?;
    old.wait_entries(ALONE)?;
    for _ in 0..2 {
        let mut new = collectors.start(&rig)?;
        new.check_waits(&rig)?;
        old.child.stop(TIMEOUT)?;
        stopped.push(old);
        new.wait_entries(ALONE)?;
        old = new;
    }
    old.child.stop(TIMEOUT)?;
    stopped.push(old);
    check_all(&rig, &stopped)?;
    rig.stop_server()
}

/// Check that the kernel hands over for a collector that is killed. It releases the lock at the end of the process's teardown, which a
/// busy machine does late.
fn check_old_killed() -> Result<()> {
    let mut rig = Rig::start_server("old-killed", &[], &[])?;
    let mut collectors = Collectors::new(true)?;
    let mut old = collectors.start(&rig)?;
    let mut new = collectors.start(&rig)?;
    new.check_waits(&rig)?;
    let killed_ms = now_ms()?;
    old.child.kill()?;
    new.wait_entries(ALONE)?;
    new.child.stop(TIMEOUT)?;
    let account = ask_account(&rig, &new)?;
    let gap_ms = number(&account, "first_ms")?.checked_sub(killed_ms);
    let gap_ms =
        gap_ms.with_context(|| format!("sampled before {killed_ms}, the kill: {account}"))?;
    println!("sampled again {gap_ms} ms after the kill");
    rig.stop_server()
}

/// Check that these collectors have sampled each moment once, but for the gaps of the hand-overs, and that no window is missing.
fn check_all(rig: &Rig, collectors: &[Collector]) -> Result<()> {
    let node = rig.node(everything()?)?.context("nothing was stored")?;
    rig::check_books(&node)?;
    let processors = available_parallelism().context("failed to count the processors")?;
    let accounts: Result<Vec<Value>> = collectors
        .iter()
        .map(|collector| ask_account(rig, collector))
        .collect();
    let gaps = check_sampled_once(&accounts?, processors.get() as u64)?;
    println!("not sampled while collectors were replaced: {gaps:?} ms");
    Ok(())
}

/// The account of a collector's windows.
fn ask_account(rig: &Rig, collector: &Collector) -> Result<Value> {
    let query = format!(r#"{{turn="{}"}}"#, collector.turn);
    let mut answer = rig.get_json("/api/v1/nodes", &query, everything()?, &[])?;
    Ok(answer["nodes"][0].take())
}
