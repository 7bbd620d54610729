//! The CPU time of all pods by their samples, against the kernel's accounts.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle, available_parallelism};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::expected::ratio;
use run::http;

use crate::release::{COLLECTORS, WINDOW_MS, now_ms, pod_uids, wait_stored};

/// The chart's limit of a collector's memory.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// CPU time of a sample.
const SAMPLE_NS: f64 = 1e7;

/// The CPU time of all that is below the kubelet's cgroup, read at the ends of windows. The cgroup's account goes on when a pod is gone.
#[derive(Debug)]
pub(crate) struct PodsAccount {
    stop: Sender<()>,
    reader: JoinHandle<Result<Vec<Reading>>>,
}

/// The account at the end of a window.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Unix milliseconds, a multiple of the window's length.
    end_ms: u64,
    cpu_ns: u64,
    /// Time from the window's end until the account was read: a busy machine wakes the reader late.
    late_ms: u64,
}

impl PodsAccount {
    /// Begins to read, and returns after the first reading.
    pub(crate) fn start() -> Result<Self> {
        let (stop, stopped) = channel();
        let (begin, begun) = channel();
        let reader = thread::spawn(move || read_account(&begin, &stopped));
        // If the reader has failed, `agrees` returns its error.
        let _ = begun.recv();
        Ok(Self { stop, reader })
    }

    /// Whether the sum over all pods of the CPU time sampled since the start is the kernel's, within three standard deviations and
    /// the stolen time. By chance it is not in one sample of 370 for each of the two accounts, so that a second sample must decide: a
    /// correct profiler fails one run in 17,000 (two versions of cgroups, (2 · 0.0027)² each).
    pub(crate) fn agrees(self, http: SocketAddr) -> Result<bool> {
        // If the reader has failed, its error follows.
        let _ = self.stop.send(());
        let readings = self.reader.join().ok().context("the reader panicked")??;
        let [before, .., after] = readings[..] else {
            anyhow::bail!("no whole window: {readings:?}");
        };
        wait_stored(http, after.end_ms)?;
        let processors = available_parallelism().context("failed to count the processors")?;
        // All processors may have worked for pods until a late reading.
        let most_ns = |reading: Reading| processors.get() as u64 * reading.late_ms * 1_000_000;
        let kernel_ns = after.cpu_ns - before.cpu_ns;
        let kernel = [
            ratio(kernel_ns.saturating_sub(most_ns(after)), 1),
            ratio(kernel_ns + most_ns(before), 1),
        ];
        let (from, to) = (before.end_ms.to_string(), after.end_ms.to_string());
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
            "all pods in {} s: {:.2} s by {samples} samples, {:.2} to {:.2} s by the kernel's account, {:.2} s by those that the collector \
             read; three standard deviations are {:.2} s, stolen were {:.2} s",
            (after.end_ms - before.end_ms) / 1000,
            sampled_ns / 1e9,
            kernel[0] / 1e9,
            kernel[1] / 1e9,
            number("kernel_ns")? / 1e9,
            three_ns / 1e9,
            stolen_ns / 1e9,
        );
        println!("{line}");
        ensure!(samples > 1000.0, "too few for a verdict: {line}");
        // Of cgroups that ended before they were read, at most `unread_ns` is missing.
        let read_ns = number("kernel_ns")?;
        let read = [read_ns, read_ns + number("unread_ns")?];
        Ok([kernel, read].iter().all(|[least_ns, most_ns]| {
            sampled_ns >= least_ns - three_ns && sampled_ns <= most_ns + three_ns + stolen_ns
        }))
    }
}

/// Reads the account at each end of a window until it is told to stop, and twice at least. Tells of the first reading.
fn read_account(begin: &Sender<()>, stopped: &Receiver<()>) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    let mut is_stopped = false;
    loop {
        let now = now_ms()?;
        let end_ms = now / WINDOW_MS * WINDOW_MS + WINDOW_MS;
        let wait = Duration::from_millis(end_ms - now);
        if is_stopped {
            thread::sleep(wait);
        } else {
            is_stopped = stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
        }
        // A stop may come before the end.
        if now_ms()? >= end_ms {
            let cpu_ns = read_ns()?;
            let late_ms = now_ms()? - end_ms;
            readings.push(Reading {
                end_ms,
                cpu_ns,
                late_ms,
            });
            // Nobody waits any more after the first time.
            let _ = begin.send(());
        }
        if is_stopped && readings.len() >= 2 {
            return Ok(readings);
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
