//! The CPU time of all pods by their samples, against the kernel's accounts.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::expected::ratio;
use run::http;

use crate::release::{COLLECTORS, WINDOW_MS, now_ms, pod_uids, wait_stored};

/// The chart's limit of a collector's memory.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Two processors use twice this time meanwhile: a tenth of three standard deviations of a minute's samples.
const LATE_MS_MAX: u64 = 100;

/// CPU time of a sample.
const SAMPLE_NS: f64 = 1e7;

/// The CPU time of all that is below the kubelet's cgroup, read at the ends of windows. The cgroup's account goes on when a pod is gone.
#[derive(Debug)]
pub(crate) struct PodsAccount {
    stop: Sender<()>,
    reader: JoinHandle<Result<Vec<Reading>>>,
}

/// Unix milliseconds, a multiple of the window's length, and CPU nanoseconds.
type Reading = (u64, u64);

impl PodsAccount {
    /// Begins to read.
    pub(crate) fn start() -> Self {
        let (stop, stopped) = channel();
        let reader = thread::spawn(move || read_account(&stopped));
        Self { stop, reader }
    }

    /// Check that the sum over all pods of the CPU time sampled since the start is the kernel's, within three standard deviations and
    /// the stolen time.
    pub(crate) fn check(self, http: SocketAddr) -> Result<()> {
        self.stop.send(()).context("the reader has ended")?;
        let readings = self.reader.join().ok().context("the reader panicked")??;
        let [(from_ms, before_ns), .., (to_ms, after_ns)] = readings[..] else {
            anyhow::bail!("no whole window: {readings:?}");
        };
        wait_stored(http, to_ms)?;
        let kernel_ns = ratio(after_ns - before_ns, 1);
        let (from, to) = (from_ms.to_string(), to_ms.to_string());
        let parameters = [
            ("query", r#"{pod=~".+"}"#),
            ("from", &*from),
            ("to", &to),
            ("limit", "1"),
        ];
        let answer = http::get_json(http, "/api/v1/containers", &parameters)?;
        let number = |name: &str| {
            let value = answer["total"][name].as_f64();
            value.with_context(|| format!("no `{name}` in {answer}"))
        };
        let (samples, sampled_ns) = (number("samples")?, number("sampled_ns")?);
        let stolen_ns = answer["stolen_ns"].as_f64().context("no `stolen_ns`")?;
        let three_ns = 3.0 * samples.sqrt() * SAMPLE_NS;
        let line = format!(
            "all pods in {} s: {:.2} s by {samples} samples, {:.2} s by the kernel's account, {:.2} s by those that the collector read; \
             three standard deviations are {:.2} s, stolen were {:.2} s",
            (to_ms - from_ms) / 1000,
            sampled_ns / 1e9,
            kernel_ns / 1e9,
            number("kernel_ns")? / 1e9,
            three_ns / 1e9,
            stolen_ns / 1e9,
        );
        println!("{line}");
        // Of cgroups that ended before they were read, at most `unread_ns` is missing.
        let read_ns = number("kernel_ns")?;
        for (least_ns, most_ns) in [
            (kernel_ns, kernel_ns),
            (read_ns, read_ns + number("unread_ns")?),
        ] {
            ensure!(
                samples > 1000.0
                    && sampled_ns >= least_ns - three_ns
                    && sampled_ns <= most_ns + three_ns + stolen_ns,
                "{line}"
            );
        }
        Ok(())
    }
}

/// Reads the account at each end of a window until it is told to stop.
fn read_account(stopped: &Receiver<()>) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    loop {
        let begun_ms = now_ms()?;
        let end_ms = begun_ms / WINDOW_MS * WINDOW_MS + WINDOW_MS;
        match stopped.recv_timeout(Duration::from_millis(end_ms - begun_ms)) {
            Err(RecvTimeoutError::Timeout) => {
                let cpu_ns = read_ns()?;
                // A thread that the busy machine woke late has an account of a later time.
                if now_ms()? < end_ms + LATE_MS_MAX {
                    readings.push((end_ms, cpu_ns));
                }
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(readings),
        }
    }
}

fn read_ns() -> Result<u64> {
    let v1 = PathBuf::from("/sys/fs/cgroup/cpuacct/kubepods/cpuacct.usage");
    if v1.exists() {
        let text = fs::read_to_string(v1).context("failed to read the account of all pods")?;
        return text.trim().parse().context("the account is no number");
    }
    let text = fs::read_to_string("/sys/fs/cgroup/kubepods/cpu.stat")
        .context("failed to read the account of all pods")?;
    let usage = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    let usage: u64 = usage
        .context("no `usage_usec`")?
        .parse()
        .context("no number")?;
    Ok(usage * 1000)
}

/// Check that the collectors' memory, with that of the kernel for them, has stayed below their limit. Where the kernel does not keep the
/// peak of a cgroup, nothing is checked.
pub(crate) fn check_memory() -> Result<()> {
    for uid in pod_uids(COLLECTORS)? {
        let pod = |class: &str| format!("kubepods/{class}pod{uid}");
        let v1 = "/sys/fs/cgroup/memory";
        let files = ["", "burstable/", "besteffort/"].map(pod).into_iter();
        let mut files = files.flat_map(|pod| {
            [
                format!("{v1}/{pod}/memory.max_usage_in_bytes"),
                format!("/sys/fs/cgroup/{pod}/memory.peak"),
            ]
        });
        if let Some(text) = files.find_map(|file| fs::read_to_string(file).ok()) {
            let bytes: u64 = text.trim().parse().context("the peak is no number")?;
            println!("peak of the collector's memory: {} MiB", bytes >> 20);
            ensure!(bytes < MEMORY_BYTES_MAX, "the collector took {bytes} bytes");
        }
    }
    Ok(())
}
