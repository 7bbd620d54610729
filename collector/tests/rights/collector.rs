//! The collector's program under test.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use collector::probe::ask_readiness;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::restrict::Words;

/// The program under test, from `PILOTLIGHT_BIN_DIR` or else from this build.
fn program() -> String {
    match std::env::var("PILOTLIGHT_BIN_DIR") {
        Ok(folder) => format!("{folder}/pilotlight-collector"),
        Err(_) => env!("CARGO_BIN_EXE_pilotlight-collector").to_owned(),
    }
}

/// A debug build takes about a second to start, much longer on a busy machine or an emulated one. A
/// collector that waits tries again after 10 s.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A command line: words before the program, and its arguments.
fn command(before: &Words, arguments: &[&str]) -> Command {
    let mut all = before.clone();
    all.push(program());
    let mut command = Command::new(&all[0]);
    command
        .args(&all[1..])
        .args(arguments)
        .env("PILOTLIGHT_COLLECTOR_SERVER", "http://127.0.0.1:9")
        .stdin(Stdio::null());
    command
}

/// The rows of `preflight` that are not well, as `RESULT NAME: FOUND; EFFECT; REMEDY`, and the exit
/// status.
pub(crate) fn preflight(before: &Words) -> Result<(Vec<String>, Option<i32>)> {
    let Output { status, stdout, .. } = command(before, &["preflight"])
        .output()
        .with_context(|| format!("failed to run {before:?}"))?;
    let table = String::from_utf8(stdout).context("the table is not UTF-8")?;
    let mut rows: Vec<String> = Vec::new();
    let mut is_bad = false;
    for line in table.lines().skip(1) {
        let text = line.trim_start();
        if text.len() == line.len() {
            let (name, rest) = line.split_once(' ').context("a row without result")?;
            let rest = rest.trim_start();
            let (result, found) = rest.split_once(' ').context("a row without findings")?;
            is_bad = result != "ok";
            if is_bad {
                rows.push(format!("{result} {name}: {}", found.trim_start()));
            }
        } else if let Some(row) = rows.last_mut().filter(|_| is_bad) {
            let (_, text) = text.split_once(": ").context("a line without a key")?;
            row.push_str("; ");
            row.push_str(text);
        }
    }
    ensure!(table.lines().count() > 20, "no table: {table}");
    Ok((rows, status.code()))
}

/// Runs the collector until it ends by itself. Returns the status and its standard error.
pub(crate) fn run(before: &Words, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let collector = Collector::start(before, arguments)?;
    let address = collector.address;
    let (status, log) = collector.wait()?;
    ensure!(TcpListener::bind(address).is_ok(), "it still listens");
    Ok((status, log))
}

/// A running collector; killed when dropped.
pub(crate) struct Collector {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Collector {
    /// Starts it, with a server that does not exist.
    pub(crate) fn start(before: &Words, arguments: &[&str]) -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to find a port")?;
        let address = free.local_addr().context("failed to find a port")?;
        drop(free);
        let dir = tempfile::tempdir().context("failed to make a directory")?;
        let listen = format!("--metrics-listen={address}");
        let mut all = vec![&*listen, "--cache-dir=none"];
        all.extend(arguments);
        let child = command(before, &all)
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log")).context("failed to make a log")?)
            .spawn()
            .with_context(|| format!("failed to run {before:?}"))?;
        Ok(Self {
            child,
            address,
            dir,
        })
    }

    /// Starts it with `--on-failure wait`.
    pub(crate) fn start_waiting(before: &Words) -> Result<Self> {
        Self::start(before, &["--on-failure=wait"])
    }

    /// Waits for an answer of `/readyz` that meets a condition. Returns whether it is ready, and the
    /// text.
    pub(crate) fn wait_answer(&mut self, is_it: impl Fn(&str) -> bool) -> Result<(bool, String)> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let answer = ask_readiness(self.address);
            match answer {
                Ok((is_ready, text)) if is_it(&text) => return Ok((is_ready, text)),
                Ok(_) | Err(_) if Instant::now() < deadline => {}
                other => bail!("waited in vain, at last {other:?}; {}", self.log()?),
            }
            let ended = self.child.try_wait().context("failed to wait")?;
            ensure!(ended.is_none(), "it ended: {ended:?}; {}", self.log()?);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The answer of `/readyz` after the start.
    pub(crate) fn answer(&mut self) -> Result<(bool, String)> {
        self.wait_answer(|text| !text.contains("starting: "))
    }

    /// The first line and the body of the answer to a request.
    pub(crate) fn get(&self, path: &str) -> Result<(String, String)> {
        let mut stream = TcpStream::connect(self.address).context("failed to connect")?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").context("failed to ask")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .context("failed to read")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no header")?;
        let status = head.lines().next().unwrap_or_default();
        Ok((status.to_owned(), body.to_owned()))
    }

    /// Waits until a line of the metrics, by its name and labels, has a value that meets a condition. Returns the value.
    pub(crate) fn wait_figure(&mut self, name: &str, is_it: impl Fn(f64) -> bool) -> Result<f64> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let text = self.get("/metrics").map(|(_, text)| text);
            let value = text.ok().and_then(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim().parse().ok()
            });
            match value.filter(|value| is_it(*value)) {
                Some(value) => return Ok(value),
                None if Instant::now() < deadline => {}
                None => bail!("`{name}` is {value:?}; {}", self.log()?),
            }
            let ended = self.child.try_wait().context("failed to wait")?;
            ensure!(ended.is_none(), "it ended: {ended:?}; {}", self.log()?);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What `pilotlight-collector ready` prints for it, and the exit status.
    pub(crate) fn ready(&self) -> Result<(Option<i32>, String)> {
        let listen = format!("--metrics-listen={}", self.address);
        let output = command(&Vec::new(), &[&listen, "ready"])
            .output()
            .context("failed to run `ready`")?;
        let text = String::from_utf8(output.stdout).context("no UTF-8")?;
        Ok((output.status.code(), text))
    }

    /// Its process id, if the words before the program end in its place.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, and returns its status and log.
    pub(crate) fn stop(self) -> Result<(Option<i32>, String)> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, Signal::TERM).context("failed to signal")?;
        self.wait()
    }

    fn wait(mut self) -> Result<(Option<i32>, String)> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().context("failed to wait")? {
                return Ok((status.code(), self.log()?));
            }
            ensure!(
                Instant::now() < deadline,
                "it does not end: {}",
                self.log()?
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn log(&self) -> Result<String> {
        fs::read_to_string(self.log_path()).context("failed to read the log")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // There is no caller to report a failure to.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
