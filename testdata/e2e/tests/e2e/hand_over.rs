//! Replacing a collector by another one (`--hand-over`): what both have sampled together.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::sampled_once::{WINDOW, check_sampled_once, number};
use run::child::{Child, Privilege, Start};
use run::http;
use run::metrics::Metrics;
use run::wait::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::rig::{
    self, NODE, Range, Rig, STOP_TIMEOUT, WINDOW_TIMEOUT, find_program, free_address, now_ms,
};

type Check = fn() -> Result<()>;

/// All checks here, by name.
pub(crate) const CHECKS: [(&str, Check); 3] = [
    ("by_lock_file", check_by_lock_file),
    ("by_executable", check_by_executable),
    ("old_killed", check_old_killed),
];

/// Time in which a collector samples alone.
const ALONE: Duration = Duration::from_secs(2);

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
        let name = match self.has_lock_file {
            // So that it is the lock that counts.
            true => format!("collector-{}", self.started),
            false => "collector-of-the-test".to_owned(),
        };
        let program = folder.join(name);
        fs::copy(find_program("pilotlight-collector")?, &program)
            .context("failed to copy the collector")?;
        Ok(program)
    }

    /// Starts a collector, and waits until it is ready.
    fn start(&mut self, rig: &Rig) -> Result<Collector> {
        let metrics = free_address()?;
        let cache_dir = match self.has_lock_file {
            true => self.dir.path().join("cache").display().to_string(),
            false => "none".to_owned(),
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
            ],
            privilege: Privilege::Root,
            log: self.dir.path().join(format!("{}.log", self.started)),
        })?;
        self.started += 1;
        wait_for("the collector to be ready", WINDOW_TIMEOUT, || {
            child.check_alive()?;
            let answer = http::get(metrics, "/readyz", &[]);
            Ok(answer.is_ok_and(|(status, _)| status == 200).then_some(()))
        })?;
        Ok(Collector { child, metrics })
    }
}

impl Collector {
    fn metric(&self, name: &str) -> Result<f64> {
        let metrics = Metrics::parse(&http::get_text(self.metrics, "/metrics", &[])?);
        let name = format!("pilotlight_collector_{name}");
        metrics
            .sum(&name)
            .with_context(|| format!("no metric {name}"))
    }

    /// Check that it is ready, says that it waits, and has not sampled.
    fn check_waits(&self, rig: &Rig) -> Result<()> {
        let said = http::get_text(self.metrics, "/readyz", &[])?;
        ensure!(
            said.starts_with("ready\nwaiting: another collector samples this node"),
            "{said}"
        );
        let figures = [
            self.metric("hand_over_waiting")?,
            self.metric("entries_total")?,
        ];
        ensure!(figures == [1.0, 0.0], "{figures:?}");
        wait_for("the report that it waits", WINDOW_TIMEOUT, || {
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

    fn wait_sampling(&mut self) -> Result<()> {
        wait_for("the new collector to sample", WINDOW_TIMEOUT, || {
            self.child.check_alive()?;
            let samples = self.metric("entries_total")? > 0.0;
            Ok((samples && self.metric("hand_over_waiting")? == 0.0).then_some(()))
        })
    }
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

fn everything() -> Result<Range> {
    Ok(Range {
        from_ms: 0,
        to_ms: now_ms()? + 60_000,
    })
}

/// Check a hand-over by the lock in the shared directory, while the server is away.
fn check_by_lock_file() -> Result<()> {
    let _busy = Busy::start();
    let mut rig = Rig::start_server("lock-file", &[], &[])?;
    let mut collectors = Collectors::new(true)?;
    let mut old = collectors.start(&rig)?;
    let mut new = collectors.start(&rig)?;
    new.check_waits(&rig)?;
    sleep(ALONE);
    rig.kill_server()?;
    old.begin_to_stop()?;
    new.wait_sampling()?;
    // The old one tries for 10 s to send its last windows.
    sleep(ALONE);
    old.child.check_alive()?;
    rig.restart_server()?;
    old.child.stop(STOP_TIMEOUT)?;
    new.child.stop(STOP_TIMEOUT)?;
    check_all(&rig)?;
    rig.stop_server()
}

/// Check hand-overs of collectors without a common directory, which find each other in /proc: three in turn.
fn check_by_executable() -> Result<()> {
    let _busy = Busy::start();
    let mut rig = Rig::start_server("executable", &[], &[])?;
    let mut collectors = Collectors::new(false)?;
    let mut old = collectors.start(&rig)?;
    for _ in 0..2 {
        let mut new = collectors.start(&rig)?;
        new.check_waits(&rig)?;
        sleep(ALONE);
        old.child.stop(STOP_TIMEOUT)?;
        new.wait_sampling()?;
        old = new;
    }
    sleep(ALONE);
    old.child.stop(STOP_TIMEOUT)?;
    check_all(&rig)?;
    rig.stop_server()
}

/// The kernel releases the lock of a killed process at the end of its teardown, which a busy machine does late.
const KILLED_MS_MAX: u64 = 5000;

/// Check that the kernel hands over for a collector that is killed.
fn check_old_killed() -> Result<()> {
    let mut rig = Rig::start_server("old-killed", &[], &[])?;
    let mut collectors = Collectors::new(true)?;
    let mut old = collectors.start(&rig)?;
    let mut new = collectors.start(&rig)?;
    new.check_waits(&rig)?;
    let killed_ms = now_ms()?;
    old.child.kill()?;
    new.wait_sampling()?;
    sleep(ALONE);
    new.child.stop(STOP_TIMEOUT)?;
    let later = Range {
        from_ms: killed_ms,
        ..everything()?
    };
    let node = rig.node(later)?.context("nothing was stored")?;
    let gap_ms = number(&node, "first_ms")?.saturating_sub(killed_ms);
    println!("sampled again {gap_ms} ms after the kill");
    ensure!(gap_ms < KILLED_MS_MAX, "a gap of {gap_ms} ms: {node}");
    rig.stop_server()
}

/// Check that all collectors together have sampled each moment once, but for the gap of a hand-over, and that no window is missing.
fn check_all(rig: &Rig) -> Result<()> {
    let node = rig.node(everything()?)?.context("nothing was stored")?;
    rig::check_books(&node)?;
    let processors = available_parallelism().context("failed to count the processors")?;
    let sampled = number(&node, "first_ms")?..number(&node, "end_ms")?;
    let gaps = check_sampled_once(&sampled, processors.get() as u64, |range| {
        let range = Range {
            from_ms: range.start,
            to_ms: range.end,
        };
        rig.node(range)?.context("no window")
    })?;
    println!("not sampled in the windows with a hand-over: {gaps:?} ms");
    ensure!(!gaps.is_empty(), "no second of two collectors: {node}");
    Ok(())
}
