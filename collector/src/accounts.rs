//! CPU time and memory as the kernel accounts for them: the machine's and our own.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::param::clock_ticks_per_second;

const STAT_PATH: &str = "/proc/stat";
const STATUS_PATH: &str = "/proc/self/status";

/// CPU time of the whole machine since it started, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineTime {
    /// User, system and interrupt time of all processors: neither idle, nor waiting
    /// for IO, nor stolen by the hypervisor.
    pub busy_ns: u64,
}

impl MachineTime {
    /// Reads it.
    ///
    /// # Errors
    /// The kernel's account cannot be read.
    pub fn read() -> Result<Self> {
        let stat = fs::read_to_string(STAT_PATH)
            .with_context(|| format!("failed to read `{STAT_PATH}`"))?;
        let ticks = parse_busy_ticks(&stat)
            .with_context(|| format!("failed to find the line `cpu` in `{STAT_PATH}`"))?;
        Ok(Self {
            busy_ns: ticks * (1_000_000_000 / clock_ticks_per_second()),
        })
    }
}

/// Ticks that were not idle, from the first line of `/proc/stat`.
///
/// Format: proc(5): `cpu user nice system idle iowait irq softirq steal guest
/// guest_nice`; user contains guest, nice contains guest_nice.
fn parse_busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

/// CPU time of this process since it started, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnTime {
    /// In its own code.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
}

impl OwnTime {
    /// Reads it.
    pub fn read() -> Self {
        let ticks = fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|stat| parse_own_ticks(&stat));
        let (user, system) = ticks.unwrap_or((0, 0));
        let tick_ns = 1_000_000_000 / clock_ticks_per_second();
        Self {
            user_ns: user * tick_ns,
            system_ns: system * tick_ns,
        }
    }
}

/// User and system ticks (fields 14 and 15) of a `/proc/PID/stat`; the name in
/// parentheses may hold anything.
fn parse_own_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Memory of this process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnMemory {
    /// Resident now.
    pub resident: u64,
    /// The most that ever was.
    pub peak: u64,
}

impl OwnMemory {
    /// Reads it.
    pub fn read() -> Self {
        let status = fs::read_to_string(STATUS_PATH).unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"))
                .and_then(|kib| kib.parse::<u64>().ok())
                .map_or(0, |kib| kib * 1024)
        };
        Self {
            resident: field("VmRSS:"),
            peak: field("VmHWM:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check which columns are busy, on old kernels with fewer of them too.
    #[test]
    fn busy_ticks() {
        let stat = "cpu  1 20 300 9999 9999 4000 50000 9999 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_busy_ticks(stat), Some(54321));
        assert_eq!(parse_busy_ticks("cpu  1 2 3 4 5 6 7"), Some(19));
        assert_eq!(parse_busy_ticks("cpu  1 2 x"), None);
        assert_eq!(parse_busy_ticks("intr 1"), None);
    }

    /// Check that a name with spaces and parentheses does not move the columns.
    #[test]
    fn own_ticks() {
        let stat = "1 (a b) c) R 1 2 3 4 5 6 7 8 9 10 77 88 0 0 20";
        assert_eq!(parse_own_ticks(stat), Some((77, 88)));
        assert_eq!(parse_own_ticks("1 (a"), None);
    }

    /// Check that this process's own accounts are read.
    #[test]
    fn own_accounts() {
        assert!(MachineTime::read().unwrap().busy_ns > 0);
        let memory = OwnMemory::read();
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
    }
}
