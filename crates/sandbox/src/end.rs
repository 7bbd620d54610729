//! The end of a process, and its cause.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

/// Wait for the end of a child that was killed, or that closed its socket. A child that waits for a dead disk does not end.
pub(crate) const END_TIME_MAX: Duration = Duration::from_secs(2);

/// The limit that ended a child, as far as its status tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// It was refused memory: Rust aborts when an allocation fails.
    Memory,
    /// It was killed: by the kernel, most likely, which was out of memory.
    Killed,
    /// It used up its processor time.
    CpuTime,
    /// It wrote more than a file may have.
    FileBytes,
    /// It exited, or crashed.
    Other,
}

impl EndCause {
    /// The cause in a status.
    pub fn of(status: ExitStatus) -> Self {
        let ended_by = |signal: Signal| status.signal() == Some(signal.as_raw());
        if ended_by(Signal::ABORT) {
            Self::Memory
        } else if ended_by(Signal::KILL) {
            Self::Killed
        } else if ended_by(Signal::XCPU) {
            Self::CpuTime
        } else if ended_by(Signal::XFSZ) {
            Self::FileBytes
        } else {
            Self::Other
        }
    }
}

/// Waits for a child's end until `deadline`; `None` if it still runs.
pub(crate) fn wait_until(
    child: &mut Child,
    deadline: Instant,
    pause: Duration,
) -> io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() < deadline => thread::sleep(pause),
            None => return Ok(None),
        }
    }
}

/// Waits for the end of a child that is about to end.
pub(crate) fn wait_shortly(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + END_TIME_MAX;
    wait_until(child, deadline, Duration::from_millis(1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the limit of each signal, and that an exit has none.
    #[test]
    fn causes_follow_from_the_signal() {
        let causes = [6, 9, 24, 25, 11, 1 << 8].map(|raw| EndCause::of(ExitStatus::from_raw(raw)));
        assert_eq!(
            causes,
            [
                EndCause::Memory,
                EndCause::Killed,
                EndCause::CpuTime,
                EndCause::FileBytes,
                EndCause::Other,
                EndCause::Other,
            ]
        );
    }
}
