//! The naming child as its parent sees it: started, asked, ended.
//!
//! In: requests. Out: answers, or how the child failed. Never waits longer than
//! it was told to.

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

use crate::accounts::ProcessAccount;
use crate::allocator;

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
