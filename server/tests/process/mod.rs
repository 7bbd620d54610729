//! A server process, and a small disk for it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "for tests, of which each uses a part"
)]

pub(crate) mod cgroup;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::running::{HttpResponse, get, read_addresses};

/// Time after which a test that waits for a condition fails; no machine needs as long.
const DEADLINE: Duration = Duration::from_secs(30);

const NOT_YET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(crate) struct Process {
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

impl Process {
    pub(crate) fn start(data: &Path, options: &[&str]) -> Result<Self, Failed> {
        Self::start_by(&[], data, options)
    }

    /// Starts the server by a command, as in `sh -c 'exec "$@"' sh SERVER …`.
    pub(crate) fn start_by(
        before: &[String],
        data: &Path,
        options: &[&str],
    ) -> Result<Self, Failed> {
        let addresses_file = data.join("addresses.json");
        let _ = std::fs::remove_file(&addresses_file);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(data.join("stderr.log"))?;
        let mut command = command(before, data, options);
        let child = command
            .arg("--addresses-file")
            .arg(&addresses_file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut process = Self {
            child,
            http: NOT_YET,
            grpc: NOT_YET,
        };
        let started = Instant::now();
        loop {
            if let Some((http, grpc)) = read_addresses(&addresses_file) {
                (process.http, process.grpc) = (http, grpc);
                return Ok(process);
            }
            if let Some(status) = process.child.try_wait()? {
                let log = std::fs::read_to_string(data.join("stderr.log"))?;
                return Err(format!("the server ended with {status}:\n{log}").into());
            }
            if started.elapsed() > DEADLINE {
                let log = std::fs::read_to_string(data.join("stderr.log"))?;
                return Err(
                    format!("the server does not listen after {DEADLINE:?}:\n{log}").into(),
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn run_to_end(
        data: &Path,
        options: &[&str],
    ) -> Result<(ExitStatus, String), Failed> {
        let output = command(&[], data, options)
            .stderr(Stdio::piped())
            .output()?;
        Ok((output.status, String::from_utf8(output.stderr)?))
    }

    /// Resets the peak of resident memory.
    pub(crate) fn forget_peak(&self) -> Result<(), Failed> {
        let path = format!("/proc/{}/clear_refs", self.child.id());
        Ok(std::fs::write(path, "5")?)
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64, Failed> {
        self.status_bytes("VmRSS:")
    }

    /// Peak of resident memory since the reset, in bytes.
    pub(crate) fn peak_bytes(&self) -> Result<u64, Failed> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib = kib.ok_or_else(|| format!("no {name}"))?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }

    /// CPU time of all its threads, in seconds; the kernel tells it in ticks.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failed> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // A name may have spaces.
        let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks
            .map(|field| field.parse::<u64>())
            .sum::<Result<_, _>>()?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Kills the server with SIGKILL.
    pub(crate) fn kill(mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn kill_and_restart(self, data: &Path) -> Result<Self, Failed> {
        self.kill()?;
        Self::start(data, &["--reserve-bytes=8MiB"])
    }

    /// Stops the server with SIGTERM, and checks that it ends with 0.
    pub(crate) fn stop(mut self) -> Result<(), Failed> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait()? {
                return if status.success() {
                    Ok(())
                } else {
                    Err(format!("the server ended with {status}").into())
                };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("the server does not stop".into())
    }

    pub(crate) fn get(&self, path: &str) -> Result<HttpResponse, Failed> {
        Ok(get(self.http, path, "test")?)
    }

    pub(crate) fn json(&self, path: &str) -> Result<serde_json::Value, Failed> {
        let response = self.get(path)?;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        Ok(serde_json::from_slice(&response.body)?)
    }

    /// The server's report of its recovery.
    pub(crate) fn recovery(&self, kind: &str) -> Result<u64, Failed> {
        let metrics = self.get("/metrics")?.text();
        let name = format!("pilotlight_server_recovery{{kind=\"{kind}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        Ok(value.ok_or_else(|| format!("no metric {name}"))?.parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed must not leave its server behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(before: &[String], data: &Path, options: &[&str]) -> Command {
    let server = env!("CARGO_BIN_EXE_pilotlight-server");
    let mut words = before.iter().map(String::as_str).chain([server]);
    let mut command = Command::new(words.next().unwrap_or(server));
    command
        .args(words)
        .args([
            "--http-listen=127.0.0.1:0",
            "--grpc-listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            "--log=warn",
            "--data-dir",
        ])
        .arg(data);
    command.args(options).stdin(Stdio::null());
    command
}

pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
    })
}

/// A file system in memory, with a size.
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    pub(crate) fn mount(folder: &Path, size: &str) -> Result<Self, Failed> {
        let path = folder.join("disk");
        std::fs::create_dir(&path)?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file until only `left` bytes are free.
    pub(crate) fn fill(&self, free_bytes: u64) -> Result<PathBuf, Failed> {
        let path = self.path.join(format!("filler-{free_bytes}"));
        let mut file = File::create(&path)?;
        let free = || rustix::fs::statvfs(&self.path).map(|stat| stat.f_bavail * stat.f_frsize);
        while free()? > free_bytes && file.write_all(&[0; 4096]).is_ok() {}
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that a failed test left behind still has files open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn run(command: &mut Command) -> Result<(), Failed> {
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {stderr}").into())
    }
}
