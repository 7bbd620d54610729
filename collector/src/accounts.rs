//! CPU time and memory as the kernel accounts for them: the machine's, and those
//! of single processes.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use rustix::param::clock_ticks_per_second;

const STAT_PATH: &str = "/proc/stat";

/// CPU time of the whole machine since it started, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineTime {
    /// User, system and interrupt time of all processors: neither idle, nor waiting
    /// for IO, nor stolen.
    pub busy_ns: u64,
    /// Time in which a processor had work and the hypervisor did not run it.
    pub stolen_ns: u64,
}

impl MachineTime {
    /// Reads it.
    ///
    /// # Errors
    /// The kernel's account cannot be read.
    pub fn read() -> Result<Self> {
        let stat = fs::read_to_string(STAT_PATH)
            .with_context(|| format!("failed to read `{STAT_PATH}`"))?;
        Self::parse(&stat, tick_ns())
            .with_context(|| format!("failed to find the line `cpu` in `{STAT_PATH}`"))
    }

    /// The first line of a `/proc/stat`. Pure.
    ///
    /// Format: proc(5): `cpu user nice system idle iowait irq softirq steal guest
    /// guest_nice`; user contains guest, nice contains guest_nice. Kernels before
    /// 2.6.11 have no steal.
    fn parse(stat: &str, tick_ns: u64) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        let [
            user,
            nice,
            system,
            _idle,
            _iowait,
            irq,
            softirq,
            ref rest @ ..,
        ] = ticks[..]
        else {
            return None;
        };
        Some(Self {
            busy_ns: (user + nice + system + irq + softirq) * tick_ns,
            stolen_ns: rest.first().unwrap_or(&0) * tick_ns,
        })
    }
}

/// CPU time and memory of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessAccount {
    /// CPU time in its own code, nanoseconds.
    pub user_ns: u64,
    /// CPU time in the kernel, nanoseconds.
    pub system_ns: u64,
    /// Resident memory in bytes, that of mapped files included.
    pub resident_bytes: u64,
    /// The part of it that belongs to no file, in bytes.
    pub private_bytes: u64,
    /// The most that was ever resident, in bytes.
    pub resident_peak_bytes: u64,
}

impl ProcessAccount {
    /// Reads this process's account; zeros if it cannot be read.
    pub fn read_own() -> Self {
        Self::read_from("self").unwrap_or_default()
    }

    /// Reads the account of a process; `None` when it can no longer be seen.
    pub fn read(pid: u32) -> Option<Self> {
        Self::read_from(&pid.to_string())
    }

    /// The CPU time alone of a process; `None` when it can no longer be seen.
    pub fn read_cpu(pid: u32) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let account = Self::parse(&stat, "", tick_ns())?;
        Some(Duration::from_nanos(account.cpu_ns()))
    }

    /// CPU time, user and system, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        self.user_ns + self.system_ns
    }

    fn read_from(process: &str) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        Self::parse(&stat, &status, tick_ns())
    }

    /// A `/proc/PID/stat` and a `/proc/PID/status`. Pure.
    fn parse(stat: &str, status: &str, tick_ns: u64) -> Option<Self> {
        // The name in parentheses may hold anything, parentheses and spaces included.
        let (_, rest) = stat.rsplit_once(')')?;
        // After the name: state is field 3, user time 14, system time 15.
        let mut fields = rest.split_ascii_whitespace().skip(11);
        let mut time_ns = || fields.next()?.parse::<u64>().ok()?.checked_mul(tick_ns);
        Some(Self {
            user_ns: time_ns()?,
            system_ns: time_ns()?,
            // A process that has ended has no memory.
            resident_bytes: parse_bytes(status, "VmRSS:").unwrap_or(0),
            private_bytes: parse_bytes(status, "RssAnon:").unwrap_or(0),
            resident_peak_bytes: parse_bytes(status, "VmHWM:").unwrap_or(0),
        })
    }
}

fn tick_ns() -> u64 {
    1_000_000_000 / clock_ticks_per_second().max(1)
}

/// A line such as `VmRSS: 1234 kB` of a `/proc/PID/status` file. Pure.
fn parse_bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK_NS: u64 = 10_000_000;

    /// Check which columns are busy and which is stolen, on old kernels with fewer
    /// of them too.
    #[test]
    fn machine_time() {
        let parse = |stat| {
            let time = MachineTime::parse(stat, TICK_NS)?;
            Some((time.busy_ns / TICK_NS, time.stolen_ns / TICK_NS))
        };
        let stat = "cpu  1 20 300 9999 9999 4000 50000 7 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse(stat), Some((54321, 7)));
        assert_eq!(parse("cpu  1 2 3 4 5 6 7"), Some((19, 0)));
        assert_eq!(parse("cpu  1 2 x"), None);
        assert_eq!(parse("intr 1"), None);
    }

    /// Check that a name with spaces and parentheses does not move the columns, and
    /// that memory that is not told is none.
    #[test]
    fn process_account() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 3 0 0 20 0 1 0 100 0 0";
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let account = ProcessAccount {
            user_ns: 120_000_000,
            system_ns: 30_000_000,
            resident_bytes: 1 << 20,
            private_bytes: 0,
            resident_peak_bytes: 2 << 20,
        };
        assert_eq!(ProcessAccount::parse(stat, status, TICK_NS), Some(account));
        assert_eq!(account.cpu_ns(), 150_000_000);
        let ended = ProcessAccount::parse(stat, "Name:\tx\n", TICK_NS);
        assert_eq!(ended.map(|account| account.resident_bytes), Some(0));
        assert_eq!(ProcessAccount::parse("1 (a", status, TICK_NS), None);
    }

    /// Check that this machine's and this process's own accounts are read.
    #[test]
    fn own_accounts() {
        assert!(MachineTime::read().unwrap().busy_ns > 0);
        let own = ProcessAccount::read_own();
        assert!(own.resident_bytes > 0 && own.resident_peak_bytes >= own.resident_bytes);
        let by_pid = ProcessAccount::read(std::process::id()).unwrap();
        assert!(by_pid.cpu_ns() >= own.cpu_ns());
        assert_eq!(ProcessAccount::read(0x7fff_ffff), None);
    }
}
