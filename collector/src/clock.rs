//! The clocks: CLOCK_MONOTONIC for order and lengths, CLOCK_REALTIME for people, and a thread's own for its CPU time.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC, the clock of samples and side-band events.
pub fn monotonic_ns() -> u64 {
    to_ns(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds since the Unix epoch.
pub fn unix_ns() -> u64 {
    to_ns(clock_gettime(ClockId::Realtime))
}

/// CPU time that the calling thread has used.
pub fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Converts a process's start time, which `/proc` has in clock ticks since the machine started, to nanoseconds of CLOCK_MONOTONIC. If
/// the machine was suspended after the process had started, the result is too early by the time of suspension.
pub(crate) fn monotonic_of_ticks(ticks: u64) -> u64 {
    let suspended_ns = to_ns(clock_gettime(ClockId::Boottime)).saturating_sub(monotonic_ns());
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(tick_ns).saturating_sub(suspended_ns)
}

fn to_ns(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
