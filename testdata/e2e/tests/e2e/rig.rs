//! The test language: a server and a collector on free ports with a directory of their own, and questions to them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::graph::FlameGraph;
use e2e::pprof::{self, Row};
use run::child::{Child, Privilege, Start};
use run::http;
use run::metrics::Metrics;
use run::summary::LOST_OUTCOMES;
use run::wait::wait_for;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde::Deserialize;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

/// Node name of every collector here.
pub(crate) const NODE: &str = "e2e";
/// A window is 10 s; it is delivered within a second or two of its end, but for a machine with other work.
pub(crate) const WINDOW_TIMEOUT: Duration = Duration::from_secs(60);
/// A second or two, but where each instruction is translated.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(120);

/// A server with its store, and any number of collectors.
pub(crate) struct Rig {
    dir: TempDir,
    http: SocketAddr,
    grpc: SocketAddr,
    server: Mutex<Child>,
    collectors: Vec<Collector>,
    /// What the collectors are started with beside their addresses.
    options: Vec<String>,
    /// And the server.
    server_options: Vec<String>,
    /// Entries of the BPF programs, just before their collectors were stopped.
    entries_at_stop: f64,
    /// How long it took to stop them.
    stopping: Duration,
}

struct Collector {
    child: Mutex<Child>,
    metrics: SocketAddr,
}

/// Unix milliseconds, `from` included, `to` excluded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
}

/// Every program that was started; a pid of one that ended is harmless to signal until the system has used all others.
static STARTED: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Ends the started programs when the test is interrupted: they are in groups of their own, so that Ctrl-C in a terminal
/// does not reach them.
pub(crate) fn end_programs_on_signal() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("failed to take signals")?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            for pid in STARTED.lock().iter().flat_map(|pids| pids.iter()) {
                // One that has ended is what is wanted.
                let _ = kill_process(*pid, Signal::KILL);
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Starts a program that ends with the test.
pub(crate) fn start(start: Start<'_>) -> Result<Child> {
    let child = Child::start(start)?;
    let pid = i32::try_from(child.pid()).ok().and_then(Pid::from_raw);
    if let (Some(pid), Ok(mut started)) = (pid, STARTED.lock()) {
        started.push(pid);
    }
    Ok(child)
}

/// What keeps the tests from running here, when something does.
pub(crate) fn find_missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("needs root: BPF programs are loaded".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("needs a kernel with BTF: /sys/kernel/btf/vmlinux is missing".to_owned());
    }
    for program in [
        "pilotlight-server",
        "pilotlight-collector",
        "pilotlight-run",
    ] {
        if let Err(error) = find_program(program) {
            return Some(format!("{error:#}"));
        }
    }
    if is_emulated() {
        return None;
    }
    for (tool, argument) in [
        ("go", "version"),
        ("cc", "--version"),
        ("make", "--version"),
        ("objcopy", "--version"),
        ("xz", "--version"),
        ("curl", "--version"),
        ("runc", "--version"),
    ] {
        if Command::new(tool).arg(argument).output().is_err() {
            return Some(format!("needs `{tool}`"));
        }
    }
    None
}

/// Says which of these tools is not there, if any.
pub(crate) fn find_missing_tool(tools: &[&str]) -> Option<String> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&paths).any(|it| it.join(tool).is_file());
    let missing = tools.iter().find(|tool| !is_there(tool))?;
    Some(format!("needs `{missing}`"))
}

/// Whether this is a guest of `deploy/test-kernels`: each instruction is translated, files cannot be written, and what the
/// test needs was built before.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("PILOTLIGHT_E2E_EMULATED").is_some()
}

/// One of the programs under test: from `PILOTLIGHT_BIN_DIR`, else as `cargo build --release` leaves it.
pub(crate) fn find_program(name: &str) -> Result<PathBuf> {
    let dir = std::env::var_os("PILOTLIGHT_BIN_DIR")
        .map_or_else(|| target_dir().join("release"), PathBuf::from);
    let path = dir.join(name);
    ensure!(
        path.is_file(),
        "`{}` is missing; build it: cargo build --release",
        path.display()
    );
    Ok(path)
}

/// Where cargo puts what it builds: the test itself lies in `target/debug/deps`.
pub(crate) fn target_dir() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .nth(3)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// The ports that tests listen on: below those that the system gives to connections (32,768 and up), so
/// that none of these takes the port of a server while it is down, not even one to that very port.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// An address that nobody listens on. Two addresses never meet, because ports are handed out in turn.
pub(crate) fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Another run of the tests begins elsewhere.
    let begin = (std::process::id() % u32::from(count)) as u16;
    for _ in 0..count {
        let turn = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORTS.start + turn));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("failed to find a free port from {} on", PORTS.start)
}

pub(crate) fn now_ms() -> Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    u64::try_from(since.as_millis()).context("the clock is far in the future")
}

impl Rig {
    /// Starts a server and one collector, and waits until the first sample was taken.
    pub(crate) fn start(name: &str) -> Result<Self> {
        Self::start_with(name, &[])
    }

    /// As [`Self::start`], the collector with these options.
    pub(crate) fn start_with(name: &str, options: &[&str]) -> Result<Self> {
        Self::start_both_with(name, options, &[])
    }

    /// As [`Self::start`], the collector with these options, and the server with those.
    pub(crate) fn start_both_with(
        name: &str,
        options: &[&str],
        server_options: &[&str],
    ) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("pilotlight-e2e-{name}-"))
            .tempdir()
            .context("failed to make a directory for the test")?;
        let (http, grpc) = (free_address()?, free_address()?);
        let owned = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let server_options = owned(server_options);
        let server = Mutex::new(start_server(dir.path(), http, grpc, &server_options)?);
        let mut rig = Self {
            dir,
            http,
            grpc,
            server,
            collectors: Vec::new(),
            options: owned(options),
            server_options,
            entries_at_stop: 0.0,
            stopping: Duration::ZERO,
        };
        rig.wait_ready()?;
        rig.start_collector()?;
        Ok(rig)
    }

    /// The server's data.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The server's own figures.
    pub(crate) fn server_metrics(&self) -> Result<Metrics> {
        let text = http::get_text(self.http, "/metrics", &[])?;
        Ok(Metrics::parse(&text))
    }

    /// Where the server answers.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Starts one more collector, with the same node name as the others.
    pub(crate) fn start_collector(&mut self) -> Result<()> {
        let metrics = free_address()?;
        let mut arguments = vec![
            format!("--server=http://{}", self.grpc),
            format!("--node={NODE}"),
            format!("--metrics-listen={metrics}"),
        ];
        arguments.extend(self.options.iter().cloned());
        if is_emulated() {
            // An emulated processor is slow: 200 frames at 100 Hz take more than the share of its time that a walk may have.
            arguments.push("--walk-budget=10".to_owned());
        }
        let child = start(Start {
            name: "collector",
            program: &find_program("pilotlight-collector")?,
            arguments,
            privilege: Privilege::Root,
            log: self
                .dir
                .path()
                .join(format!("collector-{}.log", self.collectors.len())),
        })?;
        self.collectors.push(Collector {
            child: Mutex::new(child),
            metrics,
        });
        let index = self.collectors.len() - 1;
        self.wait_metrics(index, "its first sample", START_TIMEOUT, |metrics| {
            metrics
                .sum("pilotlight_collector_entries_total")
                .is_some_and(|entries| entries > 0.0)
        })
        .map(drop)
    }

    /// Waits until the metrics of a collector fulfil a condition, and returns them.
    pub(crate) fn wait_metrics(
        &self,
        collector: usize,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&Metrics) -> bool,
    ) -> Result<Metrics> {
        let Collector {
            child,
            metrics: address,
        } = &self.collectors[collector];
        wait_for(what, timeout, || {
            lock(child)?.check_alive()?;
            let metrics =
                http::get_text(*address, "/metrics", &[]).map(|text| Metrics::parse(&text));
            Ok(metrics.ok().filter(&condition))
        })
    }

    /// The metrics of a collector now.
    pub(crate) fn metrics(&self, collector: usize) -> Result<Metrics> {
        Ok(Metrics::parse(&http::get_text(
            self.collectors[collector].metrics,
            "/metrics",
            &[],
        )?))
    }

    /// Stops all collectors in turn; each delivers its last window first. What the kernel side had counted until then is
    /// kept for [`check_books`](Self::check_books).
    pub(crate) fn stop_collectors(&mut self) -> Result<()> {
        for index in 0..self.collectors.len() {
            let entries = self
                .metrics(index)?
                .sum("pilotlight_collector_entries_total");
            self.entries_at_stop += entries.context("no entries in the metrics")?;
            let stopping = Instant::now();
            lock(&self.collectors[index].child)?.stop(STOP_TIMEOUT)?;
            self.stopping += stopping.elapsed();
        }
        Ok(())
    }

    pub(crate) fn stop_server(&mut self) -> Result<()> {
        lock(&self.server)?.stop(STOP_TIMEOUT)
    }

    /// kill -9 of the server.
    pub(crate) fn kill_server(&self) -> Result<()> {
        lock(&self.server)?.kill()
    }

    /// Starts the server again on what it left behind.
    pub(crate) fn restart_server(&self) -> Result<()> {
        *lock(&self.server)? =
            start_server(self.dir.path(), self.http, self.grpc, &self.server_options)?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<()> {
        wait_for("the server to be ready", START_TIMEOUT, || {
            lock(&self.server)?.check_alive()?;
            Ok(http::get(self.http, "/readyz", &[])
                .is_ok_and(|(status, _)| status == 200)
                .then_some(()))
        })
    }

    /// Waits until the window of the moment `ms` is stored, of every collector.
    pub(crate) fn wait_stored(&self, ms: u64) -> Result<()> {
        let window_start_ms = ms / 10_000 * 10_000;
        wait_for("the last window to be stored", WINDOW_TIMEOUT, || {
            lock(&self.server)?.check_alive()?;
            for collector in &self.collectors {
                lock(&collector.child)?.check_alive()?;
            }
            let range = Range {
                from_ms: window_start_ms,
                to_ms: window_start_ms + 10_000,
            };
            let node = self.node(range)?;
            let instances = node
                .as_ref()
                .and_then(|node| node["instances"].as_u64())
                .unwrap_or_default();
            // A collector's first window is shorter than others, and ends before.
            let end_ms = node.as_ref().and_then(|node| node["end_ms"].as_u64());
            let is_over = end_ms.is_some_and(|it| it > ms);
            Ok((is_over && instances >= self.collectors.len() as u64).then_some(()))
        })
    }

    /// The server's account of the node within a range.
    pub(crate) fn node(&self, range: Range) -> Result<Option<Value>> {
        let answer = self.get_json("/api/v1/nodes", "{}", range, &[])?;
        let nodes = answer["nodes"]
            .as_array()
            .context("no `nodes` in the answer")?;
        ensure!(
            nodes.iter().all(|node| node["node"] == NODE),
            "nodes that nobody started: {nodes:?}"
        );
        ensure!(nodes.len() <= 1, "one node is listed {} times", nodes.len());
        Ok(nodes.first().cloned())
    }

    /// Asks for JSON within a selector and a range.
    pub(crate) fn get_json(
        &self,
        path: &str,
        query: &str,
        range: Range,
        more: &[(&str, &str)],
    ) -> Result<Value> {
        let text = self.get_text(path, query, range, more)?;
        serde_json::from_str(&text).with_context(|| format!("`{path}` did not answer in JSON"))
    }

    /// Asks for text within a selector and a range.
    pub(crate) fn get_text(
        &self,
        path: &str,
        query: &str,
        range: Range,
        more: &[(&str, &str)],
    ) -> Result<String> {
        let (from, to) = (range.from_ms.to_string(), range.to_ms.to_string());
        let mut parameters = vec![
            ("query", query),
            ("from", from.as_str()),
            ("to", to.as_str()),
        ];
        parameters.extend_from_slice(more);
        http::get_text(self.http, path, &parameters)
    }

    /// The uncut flame graph of a selection.
    pub(crate) fn flame_graph(&self, query: &str, range: Range) -> Result<FlameGraph> {
        let answer = self.get_json(
            "/api/v1/flamegraph",
            query,
            range,
            &[("max_nodes", "200000")],
        )?;
        serde_json::from_value(answer).context("failed to read the flame graph")
    }

    /// What `go tool pprof -top` says of the same selection; `options` go before the address.
    pub(crate) fn pprof_top(
        &self,
        query: &str,
        range: Range,
        options: &[&str],
    ) -> Result<BTreeMap<String, Row>> {
        run_pprof(self.dir.path(), &self.pprof_url(query, range), options)
    }

    /// What `go tool pprof -list` says of the functions that `pattern` matches: their source with the time of each line.
    pub(crate) fn pprof_list(&self, query: &str, range: Range, pattern: &str) -> Result<String> {
        let url = self.pprof_url(query, range);
        run_pprof_tool(self.dir.path(), &url, &["-unit=ns", "-list", pattern])
    }

    fn pprof_url(&self, query: &str, range: Range) -> String {
        let (from, to) = (range.from_ms.to_string(), range.to_ms.to_string());
        let parameters = [("query", query), ("from", &from), ("to", &to)];
        http::url(self.http, "/api/v1/pprof", &parameters)
    }

    /// Check that nothing vanished, after the collectors were stopped: all that the BPF program entered, as the kernel side
    /// counts it, is in the store or counted as lost.
    pub(crate) fn check_books(&self) -> Result<()> {
        let everything = Range {
            from_ms: 0,
            to_ms: now_ms()? + 60_000,
        };
        let node = self.node(everything)?.context("nothing was stored")?;
        let Books {
            entries,
            samples,
            outcomes,
            dropped,
            missing_windows,
        } = serde_json::from_value(node.clone())
            .with_context(|| format!("cannot read the books of {node}"))?;
        let all: u64 = outcomes.values().sum();
        let lost: u64 = LOST_OUTCOMES
            .iter()
            .filter_map(|outcome| outcomes.get(*outcome))
            .chain(dropped.values())
            .sum();
        ensure!(
            all == entries,
            "{entries} entries, but the outcomes add up to {all}: {node}"
        );
        ensure!(
            samples + lost == entries,
            "{entries} entries, but {samples} samples and {lost} lost: {node}"
        );
        ensure!(missing_windows == 0, "windows are missing: {node}");
        // Until they had stopped, 100 more a second on each CPU.
        let cpus = std::thread::available_parallelism().context("failed to count the CPUs")?;
        let at_stop = self.entries_at_stop;
        let at_most = at_stop + 100.0 * as_f64(cpus.get()) * (1.0 + self.stopping.as_secs_f64());
        let stored = as_f64(usize::try_from(entries).unwrap_or(usize::MAX));
        ensure!(
            (at_stop..=at_most).contains(&stored),
            "the kernel side counted {at_stop} to {at_most:.0} entries, but {entries} are in the books: {node}"
        );
        Ok(())
    }
}

/// A node's account, as `/api/v1/nodes` has it.
#[derive(Debug, Deserialize)]
struct Books {
    entries: u64,
    samples: u64,
    outcomes: BTreeMap<String, u64>,
    dropped: BTreeMap<String, u64>,
    missing_windows: u64,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of samples, far below 2^53"
)]
fn as_f64(count: usize) -> f64 {
    count as f64
}

fn start_server(
    dir: &Path,
    http: SocketAddr,
    grpc: SocketAddr,
    options: &[String],
) -> Result<Child> {
    let mut arguments = vec![
        format!("--http-listen={http}"),
        format!("--grpc-listen={grpc}"),
        format!("--data-dir={}", dir.join("data").display()),
    ];
    arguments.extend_from_slice(options);
    start(Start {
        name: "server",
        program: &find_program("pilotlight-server")?,
        arguments,
        privilege: Privilege::Same,
        log: dir.join("server.log"),
    })
}

/// `go tool pprof -top -unit=ns OPTIONS URL`, all functions.
pub(crate) fn run_pprof(dir: &Path, url: &str, options: &[&str]) -> Result<BTreeMap<String, Row>> {
    let top = [
        "-top",
        "-unit=ns",
        "-nodecount=1000000",
        "-nodefraction=0",
        "-edgefraction=0",
    ];
    let text = run_pprof_tool(dir, url, &[&top, options].concat())?;
    pprof::parse_top(&text)
}

/// What `go tool pprof OPTIONS URL` writes.
fn run_pprof_tool(dir: &Path, url: &str, options: &[&str]) -> Result<String> {
    // pprof keeps a copy of what it fetched in its PPROF_TMPDIR.
    let copies = dir.join("pprof");
    fs::create_dir_all(&copies)
        .with_context(|| format!("failed to make `{}`", copies.display()))?;
    let output = Command::new("go")
        .args(["tool", "pprof"])
        .args(options)
        .arg(url)
        .env("PPROF_TMPDIR", copies)
        .output()
        .context("failed to run `go tool pprof`")?;
    if !output.status.success() {
        bail!(
            "`go tool pprof {url}` ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn lock(child: &Mutex<Child>) -> Result<std::sync::MutexGuard<'_, Child>> {
    child
        .lock()
        .ok()
        .context("another test panicked while it held a program")
}
