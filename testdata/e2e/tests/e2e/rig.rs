//! The test rig: a server and a collector on free ports with their own directory, and requests to
//! them.

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
use e2e::wait::{TIMEOUT, wait_while};
use run::child::{Child, Privilege, Start};
use run::http;
use run::metrics::Metrics;
use run::summary::LOST_OUTCOMES;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde::Deserialize;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

/// Node name of all collectors of the tests.
pub(crate) const NODE: &str = "e2e";

/// A server with its store, and any number of collectors.
pub(crate) struct Rig {
    dir: TempDir,
    http: SocketAddr,
    grpc: SocketAddr,
    server: Mutex<Child>,
    collectors: Vec<Collector>,
    /// Words before the collectors' program: a command that starts it in other surroundings.
    before: Vec<String>,
    /// Further options of the collectors.
    options: Vec<String>,
    /// Further options of the server.
    server_options: Vec<String>,
    /// Entries of the BPF programs, read just before the collectors were stopped.
    entries_at_stop: f64,
    /// The time that stopping them took.
    stopping: Duration,
    is_stopped: bool,
}

struct Collector {
    child: Mutex<Child>,
    metrics: SocketAddr,
}

/// Outcomes of samples that are not to be taken.
const UNTAKEN_OUTCOMES: [&str; 2] = ["excluded", "other_namespace"];

/// Unix milliseconds, `from` included, `to` excluded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
}

/// The range of all windows.
pub(crate) fn everything() -> Result<Range> {
    Ok(Range {
        from_ms: 0,
        to_ms: now_ms()? + 60_000,
    })
}

/// Lines of each log that are printed after a failure.
const LOG_LINES: usize = 60;

/// All started programs. Signalling a PID after its process has ended is harmless until the system
/// has used all other PIDs.
static STARTED: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Ends the started programs when the test is interrupted: Ctrl-C in a terminal does not reach
/// them, since they have their own process groups.
pub(crate) fn end_programs_on_signal() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("failed to take signals")?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            for pid in STARTED.lock().iter().flat_map(|pids| pids.iter()) {
                // It may have ended already.
                let _ = kill_process(*pid, Signal::KILL);
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Starts a program that is ended with the test.
pub(crate) fn start(start: Start<'_>) -> Result<Child> {
    let child = Child::start(start)?;
    let pid = i32::try_from(child.pid()).ok().and_then(Pid::from_raw);
    if let (Some(pid), Ok(mut started)) = (pid, STARTED.lock()) {
        started.push(pid);
    }
    Ok(child)
}

/// Returns the missing requirement of the tests, if any.
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

/// Returns the first missing tool.
pub(crate) fn find_missing_tool(tools: &[&str]) -> Option<String> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |tool: &str| std::env::split_paths(&paths).any(|folder| folder.join(tool).is_file());
    let missing = tools.iter().find(|tool| !is_there(tool))?;
    Some(format!("needs `{missing}`"))
}

/// Whether this is a guest of `deploy/test-kernels`: emulated, with read-only files, and with
/// everything built before.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("PILOTLIGHT_E2E_EMULATED").is_some()
}

/// A program under test, from `PILOTLIGHT_BIN_DIR` or else from `cargo build --release`.
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

/// Cargo's target directory: the test is in `target/debug/deps`.
pub(crate) fn target_dir() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .nth(3)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// The ports for listeners of the tests. They are below the system's ports for connections (32,768
/// and up), so that no connection takes a server's port while the server is down, not even one to
/// that port.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// An unused address. Ports are handed out in turn, so no two calls return the same one.
pub(crate) fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Another run of the tests starts with another port.
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
    /// Starts a server and one collector, and waits for the first sample.
    pub(crate) fn start(name: &str) -> Result<Self> {
        Self::start_with(name, &[])
    }

    /// Like [`Self::start`], with options for the collector.
    pub(crate) fn start_with(name: &str, options: &[&str]) -> Result<Self> {
        Self::start_both_with(name, options, &[])
    }

    /// Like [`Self::start`], with options for the collector and the server.
    pub(crate) fn start_both_with(
        name: &str,
        options: &[&str],
        server_options: &[&str],
    ) -> Result<Self> {
        let mut rig = Self::start_server(name, options, server_options)?;
        rig.start_collector()?;
        Ok(rig)
    }

    /// Like [`Self::start`], with the collector started by a command, as in `sh -c 'exec "$@"' sh COLLECTOR …`.
    pub(crate) fn start_by(name: &str, before: Vec<String>) -> Result<Self> {
        let mut rig = Self::start_server(name, &[], &[])?;
        rig.before = before;
        rig.start_collector()?;
        Ok(rig)
    }

    /// Starts a server alone, with options for it and for collectors to come.
    pub(crate) fn start_server(
        name: &str,
        options: &[&str],
        server_options: &[&str],
    ) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("pilotlight-e2e-{name}-"))
            .tempdir()
            .context("failed to make a directory for the test")?;
        let (http, grpc) = (free_address()?, free_address()?);
        let owned = |options: &[&str]| {
            options
                .iter()
                .map(|option| (*option).to_owned())
                .collect::<Vec<_>>()
        };
        let server_options = owned(server_options);
        let server = Mutex::new(start_server(dir.path(), http, grpc, &server_options)?);
        let rig = Self {
            dir,
            http,
            grpc,
            server,
            collectors: Vec::new(),
            before: Vec::new(),
            options: owned(options),
            server_options,
            entries_at_stop: 0.0,
            stopping: Duration::ZERO,
            is_stopped: false,
        };
        rig.wait_ready()?;
        Ok(rig)
    }

    /// The server's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The server's metrics.
    pub(crate) fn server_metrics(&self) -> Result<Metrics> {
        let text = http::get_text(self.http, "/metrics", &[])?;
        Ok(Metrics::parse(&text))
    }

    /// The server's address for collectors.
    pub(crate) fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// The server's HTTP address.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Starts one more collector with the same node name.
    pub(crate) fn start_collector(&mut self) -> Result<()> {
        let metrics = free_address()?;
        let mut arguments = vec![
            format!("--server=http://{}", self.grpc),
            format!("--node={NODE}"),
            format!("--metrics-listen={metrics}"),
        ];
        arguments.extend(self.options.iter().cloned());
        if is_emulated() {
            // An emulated processor is slow: 200 frames at 100 Hz exceed the default budget for
            // walks, and the debug information of our own programs the one for names.
            arguments.push("--walk-budget=10".to_owned());
            arguments.push("--name-cpu=100".to_owned());
        }
        let collector = find_program("pilotlight-collector")?;
        let mut words = self.before.clone();
        words.push(collector.display().to_string());
        words.extend(arguments);
        let child = start(Start {
            name: "collector",
            program: Path::new(&words[0]),
            arguments: words[1..].to_vec(),
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
        self.wait_metrics(index, "its first sample", |metrics| {
            metrics
                .sum("pilotlight_collector_entries_total")
                .is_some_and(|entries| entries > 0.0)
        })
        .map(drop)
    }

    /// Waits until a collector's metrics meet a condition, and returns them.
    pub(crate) fn wait_metrics(
        &self,
        collector: usize,
        what: &str,
        condition: impl Fn(&Metrics) -> bool,
    ) -> Result<Metrics> {
        let child = &self.collectors[collector].child;
        wait_while(
            what,
            || lock(child)?.check_alive(),
            || Ok(Some(self.metrics(collector)?).filter(&condition)),
        )
    }

    /// The process id of a collector, or of the command that has started it.
    pub(crate) fn collector_pid(&self, collector: usize) -> Result<u32> {
        Ok(lock(&self.collectors[collector].child)?.pid())
    }

    /// The current metrics of a collector.
    pub(crate) fn metrics(&self, collector: usize) -> Result<Metrics> {
        Ok(Metrics::parse(&http::get_text(
            self.collectors[collector].metrics,
            "/metrics",
            &[],
        )?))
    }

    /// Stops all collectors in turn; each delivers its last window first. Saves the kernel side's
    /// counters for [`check_accounting`](Self::check_accounting).
    pub(crate) fn stop_collectors(&mut self) -> Result<()> {
        for index in 0..self.collectors.len() {
            let entries = self
                .metrics(index)?
                .sum("pilotlight_collector_entries_total");
            self.entries_at_stop += entries.context("no entries in the metrics")?;
            let stopping = Instant::now();
            lock(&self.collectors[index].child)?.stop(TIMEOUT)?;
            self.stopping += stopping.elapsed();
        }
        Ok(())
    }

    pub(crate) fn stop_server(&mut self) -> Result<()> {
        lock(&self.server)?.stop(TIMEOUT)?;
        self.is_stopped = true;
        Ok(())
    }

    /// kill -9 of the server.
    pub(crate) fn kill_server(&self) -> Result<()> {
        lock(&self.server)?.kill()
    }

    /// Starts the server again with its old data.
    pub(crate) fn restart_server(&self) -> Result<()> {
        *lock(&self.server)? =
            start_server(self.dir.path(), self.http, self.grpc, &self.server_options)?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<()> {
        wait_while(
            "the server to be ready",
            || lock(&self.server)?.check_alive(),
            || {
                let (status, _) = http::get(self.http, "/readyz", &[])?;
                Ok((status == 200).then_some(()))
            },
        )
    }

    /// Check that all programs run.
    fn check_alive(&self) -> Result<()> {
        let collectors = self.collectors.iter().map(|collector| &collector.child);
        let mut programs = collectors.chain([&self.server]);
        programs.try_for_each(|child| lock(child)?.check_alive())
    }

    /// Waits until all collectors' windows for the time `ms` are stored.
    pub(crate) fn wait_stored(&self, ms: u64) -> Result<()> {
        let window_start_ms = ms / 10_000 * 10_000;
        let look = || {
            let range = Range {
                from_ms: window_start_ms,
                to_ms: window_start_ms + 10_000,
            };
            let node = self.node(range)?;
            let instances = node
                .as_ref()
                .and_then(|node| node["instances"].as_u64())
                .unwrap_or_default();
            // A collector's first window is shorter, and may end before.
            let end_ms = node.as_ref().and_then(|node| node["end_ms"].as_u64());
            let is_over = end_ms.is_some_and(|end_ms| end_ms > ms);
            Ok((is_over && instances >= self.collectors.len() as u64).then_some(()))
        };
        wait_while("the last window to be stored", || self.check_alive(), look)
    }

    /// Waits until so many samples of a selection are in windows that begin at this time or later, and returns the range.
    pub(crate) fn wait_samples(&self, query: &str, from_ms: u64, least: u64) -> Result<Range> {
        let what = format!("{least} samples of {query}");
        let look = || {
            let range = Range {
                from_ms,
                to_ms: now_ms()? + 1,
            };
            let samples = self.count_samples(query, range)?;
            Ok((samples >= least).then_some(range))
        };
        wait_while(&what, || self.check_alive(), look)
    }

    /// The samples of a selection.
    pub(crate) fn count_samples(&self, query: &str, range: Range) -> Result<u64> {
        let answer = self.get_json("/api/v1/series", query, range, &[])?;
        let series = answer["series"].as_array().context("no `series`")?;
        let samples = series
            .iter()
            .filter_map(|series| series["samples"].as_u64());
        Ok(samples.sum())
    }

    /// The server's counts for the node within a range.
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

    /// Requests JSON for a selector and a range.
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

    /// Requests text for a selector and a range.
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

    /// The table of `go tool pprof -top` for the same selection; `options` precede the URL.
    pub(crate) fn pprof_top(
        &self,
        query: &str,
        range: Range,
        options: &[&str],
    ) -> Result<BTreeMap<String, Row>> {
        run_pprof(self.dir.path(), &self.pprof_url(query, range), options)
    }

    /// The output of `go tool pprof -list` for the functions that match `pattern`: source code with
    /// the time of each line.
    pub(crate) fn pprof_list(&self, query: &str, range: Range, pattern: &str) -> Result<String> {
        let url = self.pprof_url(query, range);
        run_pprof_tool(self.dir.path(), &url, &["-unit=ns", "-list", pattern])
    }

    fn pprof_url(&self, query: &str, range: Range) -> String {
        let (from, to) = (range.from_ms.to_string(), range.to_ms.to_string());
        let parameters = [("query", query), ("from", &from), ("to", &to)];
        http::url(self.http, "/api/v1/pprof", &parameters)
    }

    /// Check, after the collectors were stopped, that no sample vanished: each entry of the BPF
    /// program, by the kernel side's count, is in the store, or counted as lost or excluded.
    pub(crate) fn check_accounting(&self) -> Result<()> {
        let node = self.node(everything()?)?.context("nothing was stored")?;
        let entries = check_books(&node)?;
        // Until they had stopped, each CPU added 100 per second.
        let cpus = std::thread::available_parallelism().context("failed to count the CPUs")?;
        let at_stop = self.entries_at_stop;
        let at_most = at_stop + 100.0 * as_f64(cpus.get()) * (1.0 + self.stopping.as_secs_f64());
        let stored = as_f64(usize::try_from(entries).unwrap_or(usize::MAX));
        ensure!(
            (at_stop..=at_most).contains(&stored),
            "the kernel side counted {at_stop} to {at_most:.0} entries, but {entries} are in the account: {node}"
        );
        Ok(())
    }
}

/// Check that each entry of a node's account is stored or counted as lost, and that no window is missing. Returns the entries.
pub(crate) fn check_books(node: &Value) -> Result<u64> {
    let Books {
        entries,
        samples,
        outcomes,
        dropped,
        missing_windows,
    } = serde_json::from_value(node.clone())
        .with_context(|| format!("cannot read the account of {node}"))?;
    let all: u64 = outcomes.values().sum();
    let lost: u64 = LOST_OUTCOMES
        .iter()
        .chain(&UNTAKEN_OUTCOMES)
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
    Ok(entries)
}

/// Prints the logs of a test that did not stop its server, since it has failed.
impl Drop for Rig {
    fn drop(&mut self) {
        if self.is_stopped {
            return;
        }
        let collectors = self.collectors.iter().map(|collector| &collector.child);
        for child in collectors.chain([&self.server]) {
            if let Ok(child) = lock(child) {
                eprintln!(
                    "--- {}.log\n{}",
                    child.name(),
                    child.last_lines_of(LOG_LINES)
                );
            }
        }
    }
}

/// A node in the answer of `/api/v1/nodes`.
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
        "--admin-listen=127.0.0.1:0".to_owned(),
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

/// The table of `go tool pprof -top -unit=ns OPTIONS URL`, all functions.
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

/// The output of `go tool pprof OPTIONS URL`.
fn run_pprof_tool(dir: &Path, url: &str, options: &[&str]) -> Result<String> {
    // pprof keeps copies of downloaded profiles in PPROF_TMPDIR.
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
