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
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use thiserror::Error;

use crate::accounts::ProcessAccount;
use crate::allocator;
use crate::process::after_name;

use super::channel::{Deadline, receive_frame, send_frame};
use super::child::{CHILD_ARGUMENT, ChildLimits};
use super::protocol::{ProtocolError, Request, Response, decode_response, encode_request};

/// How long a child that was killed, or that said it would end, may take to be
/// gone. One that waits for a broken disk cannot be ended at all.
const END_TIME: Duration = Duration::from_secs(2);

/// How often, and after which pauses, it is looked whether the child waits.
const LOOKS: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(2);

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
    /// It did not answer in time, since it waits for a file system, which it only reads from.
    #[error("naming child waits for a file system")]
    Waits,
    /// Its answer was not one.
    #[error("naming child sent nonsense: {0}")]
    Protocol(ProtocolError),
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
            .envs(allocator::LIMITS)
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
        files: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<Response, ChildError> {
        let deadline = Deadline::At(deadline);
        send_frame(&self.socket, &encode_request(request), files, deadline)
            .map_err(|err| self.failure(&err))?;
        let mut unexpected = Vec::new();
        let received = receive_frame(&self.socket, &mut self.frame, &mut unexpected, deadline)
            .map_err(|err| self.failure(&err))?;
        if !received {
            return Err(ChildError::Died(self.wait()));
        }
        decode_response(&self.frame, request.id, request.addresses.len())
            .map_err(ChildError::Protocol)
    }

    /// What the child has used so far; `None` when it can no longer be seen.
    pub(super) fn account(&self) -> Option<ProcessAccount> {
        ProcessAccount::read(self.child.id())
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

    /// Whether the child sleeps. While it has a question, it waits for nothing but files: one that works runs, or would like to,
    /// but for the moments in which a page comes from the disk.
    fn waits(&self) -> bool {
        let path = format!("/proc/{}/stat", self.child.id());
        (0..LOOKS).all(|look| {
            if look > 0 {
                thread::sleep(LOOK_PAUSE);
            }
            let stat = fs::read(&path).unwrap_or_default();
            matches!(parse_state(&stat), Some(b'S' | b'D'))
        })
    }

    fn failure(&mut self, err: &io::Error) -> ChildError {
        match err.kind() {
            io::ErrorKind::TimedOut if self.waits() => ChildError::Waits,
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
/// The state in a process's `stat`, the third word.
fn parse_state(stat: &[u8]) -> Option<u8> {
    after_name(stat)?.trim_ascii_start().first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the state of this process, and of names that are odd.
    #[test]
    fn states_are_read() {
        let own = fs::read("/proc/thread-self/stat").unwrap();
        assert_eq!(parse_state(&own), Some(b'R'));
        assert_eq!(parse_state(b"7 (a) S) D 1 2"), Some(b'D'));
        assert_eq!(parse_state(b"7 (a)"), None);
        assert_eq!(parse_state(b""), None);
    }
}
