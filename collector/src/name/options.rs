//! Options and limits of naming.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::budget::CpuBudget;
use crate::blocking_pool::BlockingPool;

/// First argument of the collector's program that makes it a naming child; its
/// two others are [`ChildLimits`]. Not for people.
pub const CHILD_ARGUMENT: &str = "name-child";

/// Limits of the child's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildLimits {
    /// Private memory in bytes. The kernel refuses more; the child dies of it.
    pub data_bytes_max: u64,
    /// Resident memory in bytes, mapped files included. Above it the child forgets
    /// what it parsed; if that is not enough, it ends after its answer.
    pub resident_bytes_max: u64,
}

/// Options and limits of naming.
#[derive(Clone, Debug)]
pub struct NamerOptions {
    /// The collector's own program.
    pub program: PathBuf,
    /// Bytes of names kept. An address takes about 300 (2.5 frames of 64, its
    /// slot, its share of the strings), so 16 MiB are some 50,000 addresses; a
    /// busy node of two cores sees 5,000 different ones in an hour.
    pub cache_bytes_max: usize,
    /// Time of one request to the child. A program of 34 MB with 27 MB
    /// of debug information takes 70 ms of CPU for 200 scattered addresses, so
    /// this allows for some gigabytes, or for a node where the CPU is scarce.
    pub request_time: Duration,
    /// CPU time of the child and of the thread that asks it. When it is spent, the
    /// remaining addresses are named in a later window or by the server.
    pub cpu: CpuBudget,
    /// The clock by which [`cpu`](Self::cpu) grows.
    pub clock: fn() -> Instant,
    /// Wall-clock time of all requests between two [`Namer::end_window`], so that no
    /// window waits long for its names. Where the CPU is scarce, 4 s left a quarter of
    /// a window without names; the four windows that may wait (40 s) bear 20 s now
    /// and then.
    pub window_time: Duration,
    /// Windows after which a file is tried again that had no names for a passing reason; 6 are a minute.
    pub retry_windows: u64,
    /// Size limit of a file that is named, in bytes. The child reads only parts of it, so
    /// this is far above any real file.
    pub file_bytes_max: u64,
    /// Children that may fail in a row before the next must wait ...
    pub failures_at_once: u32,
    /// ... for this time each. With the defaults, a node full of files that children
    /// die of costs one child, some 100 ms of CPU, in ten seconds. One that they hang
    /// on takes up to [`request_time`](Self::request_time) out of `cpu`, and is backed off
    /// at once: 10 s, and a minute later as much again without its debug information,
    /// and then after 2, 4, … up to 64 minutes.
    pub failure_period: Duration,
    /// Limits of the child.
    pub child: ChildLimits,
    /// Opens files whose file system may not answer.
    pub pool: BlockingPool,
    /// Set when the collector ends: from then on all windows together have 2 s.
    pub is_ending: Arc<AtomicBool>,
}

impl Default for NamerOptions {
    fn default() -> Self {
        Self {
            // As the kernel knows it, also after the file was replaced.
            program: "/proc/self/exe".into(),
            cache_bytes_max: 16 << 20,
            request_time: Duration::from_secs(10),
            cpu: CpuBudget {
                // 0.5 s in a window of 10 s. A machine that compiles all the time, and so always has new
                // code, took 0.14 s; 0.5 s name some 3,000 addresses of large programs that are new.
                share: 0.05,
                // When all is new, as at the start: it is there again after 200 s with nothing to name.
                burst: Duration::from_secs(10),
            },
            clock: Instant::now,
            window_time: Duration::from_secs(20),
            retry_windows: 6,
            file_bytes_max: 16 << 30,
            failures_at_once: 8,
            failure_period: Duration::from_secs(10),
            child: ChildLimits {
                // Large debug information is not held as a whole, but compressed
                // sections are unpacked: 256 MiB are enough for a browser's.
                data_bytes_max: 256 << 20,
                // 8 MB of program and libraries, 5 MB for the kernel's symbols, 18 MB for the debug information of libc and CPython, the
                // rest for units. With 32 MB these two were decompressed again for each request on a machine that compiles.
                resident_bytes_max: 40 << 20,
            },
            pool: BlockingPool::default(),
            is_ending: Arc::default(),
        }
    }
}
