//! A long-lived child, as its parent uses it.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::channel::{Channel, FrameError, FrameLimits, Received};
use crate::end::wait_shortly;
use crate::program::ChildProgram;

/// The state of a late child is read several times, with pauses: a working child may sleep while a page comes from the disk.
const LOOKS: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Why a child did not answer. It cannot be used after that.
#[derive(Debug, Error)]
pub enum ChildFailure {
    /// It ended, or closed its socket, before it answered. There is no status if it still runs.
    #[error("child ended: {0:?}")]
    Ended(Option<ExitStatus>),
    /// It was still working at the deadline.
    #[error("child did not answer in time")]
    TimedOut,
    /// It was asleep at the deadline: it waits for a file system.
    #[error("child waits for a file system")]
    Asleep,
    /// Its answer is no frame.
    #[error("child sent nonsense: {0}")]
    Nonsense(FrameError),
    /// The request is over a limit of the channel, and was not sent.
    #[error("failed to ask the child: {0}")]
    NotSent(FrameError),
}

/// A running child.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
    channel: Channel,
    answer: Vec<u8>,
}

impl ChildProcess {
    /// Starts `program` with a socket as its standard input. Its standard error is this program's.
    ///
    /// # Errors
    /// The program cannot be started, or the process has no descriptor or memory left.
    pub fn start(program: &ChildProgram, limits: FrameLimits) -> io::Result<Self> {
        let (ours, childs) = UnixStream::pair()?;
        let child = program
            .command()
            .stdin(OwnedFd::from(childs))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self {
            child,
            channel: Channel::new(ours, limits),
            answer: Vec::new(),
        })
    }

    /// Sends one request with descriptors beside it, and waits for the answer until `deadline`.
    ///
    /// # Errors
    /// The child did not answer. The caller ends it then.
    pub fn ask(
        &mut self,
        request: &[u8],
        files: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<&[u8], ChildFailure> {
        let deadline = Some(deadline);
        match self.channel.send(request, files, deadline) {
            Ok(()) => {}
            Err(err @ (FrameError::TooLarge { .. } | FrameError::TooManyFiles { .. })) => {
                return Err(ChildFailure::NotSent(err));
            }
            Err(err) => return Err(self.explain(err)),
        }
        match self.channel.receive(&mut self.answer, deadline) {
            Ok(Received::Frame) => Ok(&self.answer),
            Ok(Received::Closed) => Err(ChildFailure::Ended(wait_shortly(&mut self.child))),
            Err(err) => Err(self.explain(err)),
        }
    }

    /// Number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the child. Returns it if it does not end even then.
    pub(crate) fn end(mut self) -> Option<Child> {
        // Killing only fails after the child has ended.
        let _ = self.child.kill();
        match wait_shortly(&mut self.child) {
            Some(_) => None,
            None => Some(self.child),
        }
    }

    fn explain(&mut self, err: FrameError) -> ChildFailure {
        match err {
            FrameError::TimedOut if self.is_asleep() => ChildFailure::Asleep,
            FrameError::TimedOut => ChildFailure::TimedOut,
            FrameError::TooLarge { .. } | FrameError::TooManyFiles { .. } => {
                ChildFailure::Nonsense(err)
            }
            FrameError::Truncated | FrameError::Io(_) => {
                ChildFailure::Ended(wait_shortly(&mut self.child))
            }
        }
    }

    /// Whether the child sleeps. While it has a request, it only ever waits for files.
    fn is_asleep(&self) -> bool {
        let path = format!("/proc/{}/stat", self.child.id());
        (0..LOOKS).all(|look| {
            if look > 0 {
                thread::sleep(LOOK_PAUSE);
            }
            let stat = fs::read(&path).unwrap_or_default();
            matches!(parse_state(&stat), Some(b'S' | b'D'))
        })
    }
}

/// The state in a process's `stat`, the third word. The second is its name in parentheses, which may hold anything.
fn parse_state(stat: &[u8]) -> Option<u8> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat[end + 1..].trim_ascii_start().first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the state of this process, and odd names.
    #[test]
    fn states_are_read() {
        let own = fs::read("/proc/thread-self/stat").unwrap();
        assert_eq!(parse_state(&own), Some(b'R'));
        assert_eq!(parse_state(b"7 (a) S) D 1 2"), Some(b'D'));
        assert_eq!(parse_state(b"7 (a)"), None);
        assert_eq!(parse_state(b""), None);
    }
}
