//! The naming child as its parent sees it: started, asked, ended.
//!
//! In: requests. Out: answers, or how the child failed. Never waits longer than
//! it was told to.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use thiserror::Error;

use super::channel::{Deadline, receive_frame, send_frame};
use super::child::{CHILD_ARGUMENT, ChildLimits};
use super::protocol::{ProtocolError, Request, Response, decode_response, encode_request};

/// How long a child that was killed, or that said it would end, may take to be
/// gone. One that waits for a broken disk cannot be ended at all.
const END_TIME: Duration = Duration::from_secs(2);

/// How a child failed its parent.
#[derive(Debug, Error)]
pub(super) enum ChildError {
    /// It could not be started.
    #[error("failed to start the naming child: {0}")]
    Start(io::Error),
    /// It ended before it answered.
    #[error("naming child ended: {0:?}")]
    Died(Option<ExitStatus>),
    /// It did not answer in time.
    #[error("naming child did not answer in time")]
    TimedOut,
    /// Its answer was not one.
    #[error("naming child sent nonsense: {0}")]
    Protocol(ProtocolError),
}

/// CPU and memory of a child, as the kernel accounts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildUsage {
    /// Number of the process.
    pub pid: u32,
    /// CPU time, user and system, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory in bytes, that of mapped files included.
    pub resident_bytes: u64,
    /// The part of it that belongs to no file, in bytes.
    pub private_bytes: u64,
    /// The most that was ever resident, in bytes.
    pub resident_peak_bytes: u64,
}

/// A running child.
#[derive(Debug)]
pub(super) struct NameProcess {
    child: Child,
    socket: UnixStream,
    frame: Vec<u8>,
}

impl NameProcess {
    /// Starts `program` as a naming child.
    pub(super) fn start(program: &Path, limits: ChildLimits) -> Result<Self, ChildError> {
        let (socket, childs) = UnixStream::pair().map_err(ChildError::Start)?;
        let child = Command::new(program)
            .arg(CHILD_ARGUMENT)
            .arg(limits.data_bytes_max.to_string())
            .arg(limits.resident_bytes_max.to_string())
            .env_clear()
            // Ctrl-C in a terminal goes to the whole group; the last window still wants names.
            .process_group(0)
            // So that glibc gives back what was freed: without these it lets the
            // limits grow to 32 MB with the largest block that was ever freed.
            .env("MALLOC_MMAP_THRESHOLD_", "65536")
            .env("MALLOC_TRIM_THRESHOLD_", "131072")
            .stdin(OwnedFd::from(childs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(ChildError::Start)?;
        Ok(Self {
            child,
            socket,
            frame: Vec::new(),
        })
    }

    /// Asks, and waits for the answer until `deadline`. After an error the child
    /// is of no more use.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        file: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<Response, ChildError> {
        let deadline = Deadline::At(deadline);
        send_frame(&self.socket, &encode_request(request), file, deadline)
            .map_err(|err| self.failure(&err))?;
        let mut unexpected = None;
        let received = receive_frame(&self.socket, &mut self.frame, &mut unexpected, deadline)
            .map_err(|err| self.failure(&err))?;
        if !received {
            return Err(ChildError::Died(self.wait()));
        }
        decode_response(&self.frame, request.id, request.addresses.len())
            .map_err(ChildError::Protocol)
    }

    /// What the child has used so far; `None` when it can no longer be seen.
    pub(super) fn usage(&self) -> Option<ChildUsage> {
        let pid = self.child.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(ChildUsage {
            pid,
            cpu_ns: parse_cpu_ns(&stat, rustix::param::clock_ticks_per_second())?,
            // A child that has ended has no memory.
            resident_bytes: parse_bytes(&status, "VmRSS:").unwrap_or(0),
            private_bytes: parse_bytes(&status, "RssAnon:").unwrap_or(0),
            resident_peak_bytes: parse_bytes(&status, "VmHWM:").unwrap_or(0),
        })
    }

    /// Number of the process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes sure that the child ends. `Some` is a child that does not, not even
    /// when killed; it must be tried again later.
    pub(super) fn end(mut self) -> Option<Child> {
        // It may have ended, which is what is wanted.
        let _ = self.child.kill();
        match self.wait() {
            Some(_) => None,
            None => Some(self.child),
        }
    }

    fn failure(&mut self, err: &io::Error) -> ChildError {
        match err.kind() {
            io::ErrorKind::TimedOut => ChildError::TimedOut,
            io::ErrorKind::InvalidData => ChildError::Protocol(ProtocolError::TooLarge),
            _ => ChildError::Died(self.wait()),
        }
    }

    fn wait(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + END_TIME;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Whether the child ended because it was refused memory: Rust aborts when an
/// allocation fails, and the kernel's own killer uses SIGKILL.
pub(super) fn ended_for_memory(status: Option<ExitStatus>) -> bool {
    let signal = status.and_then(|status| status.signal());
    [Signal::ABORT, Signal::KILL]
        .into_iter()
        .any(|memory| signal == Some(memory.as_raw()))
}

/// User and system time of a `/proc/PID/stat` line. Pure.
fn parse_cpu_ns(stat: &str, ticks_per_second: u64) -> Option<u64> {
    // The name in brackets may hold anything, brackets and spaces included.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    // After the name: state is field 3, user time 14, system time 15.
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let tick_ns = 1_000_000_000_u64.checked_div(ticks_per_second)?;
    user.checked_add(system)?.checked_mul(tick_ns)
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

    /// Check both files of a process with a nasty name.
    #[test]
    fn usage_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 3 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse_cpu_ns(stat, 100), Some(150_000_000));
        assert_eq!(parse_cpu_ns("7 (a", 100), None);
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(parse_bytes(status, "VmRSS:"), Some(1 << 20));
        assert_eq!(parse_bytes(status, "RssAnon:"), None);
    }
}
