//! The naming child as its parent sees it: started for the first request, and replaced after a failure.
//!
//! In: requests with descriptors. Out: answers, or the child's failure. Never waits longer than the time of one request.

use std::fmt::Display;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use sandbox::{
    ChildFailure, ChildProcess, ChildProgram, EndCause, RestartLimits, RestartingChild, StartError,
    encode_message,
};
use thiserror::Error;
use tracing::warn;

use super::failure::Failure;
use super::options::{CHILD_ARGUMENT, NamerOptions};
use super::protocol::{FRAMES, ProtocolError, Request, Response, decode_response};
use super::stats::ChildEnds;
use crate::accounts::ProcessAccount;
use crate::file::UnnamedReason;
use sandbox::allocator;

/// Children that cannot be killed since they wait for a disk or file system that does not answer. With so many, no further one
/// is started.
const STUCK_MAX: usize = 4;

/// The child, or the right to start the next one.
#[derive(Debug)]
pub(super) struct NamingChild {
    child: RestartingChild,
    request_time: Duration,
    requests: u64,
    /// CPU time of the running child in its requests so far.
    cpu_counted: Duration,
    stats: NamingChildStats,
}

/// Counts and cost of the children.
#[derive(Clone, Debug, Default)]
pub(super) struct NamingChildStats {
    /// Requests that were sent.
    pub(super) requests: u64,
    /// Children that were started.
    pub(super) starts: u64,
    /// Children that ended, by reason.
    pub(super) ends: ChildEnds,
    /// Requests that were not sent since too many children had failed just before.
    pub(super) backed_off: u64,
    /// Whether the child may not change its root directory.
    pub(super) unconfined: bool,
    /// CPU time of those that ended and of the one that runs, in nanoseconds.
    pub(super) cpu_ns: u64,
    /// The most memory that any of them had resident, in bytes.
    pub(super) resident_peak_bytes: u64,
    /// The child that runs.
    pub(super) running: Option<ProcessAccount>,
}

/// The result and the cost of one request.
pub(super) struct RequestOutcome {
    /// The time that it took, including that of starting a child.
    pub(super) elapsed: Duration,
    /// CPU time of the child.
    pub(super) cpu: Duration,
    /// The answer.
    pub(super) result: Result<Response, Failure>,
}

#[derive(Debug, Error)]
enum AskError {
    #[error("naming {0}")]
    Failed(#[from] ChildFailure),
    #[error("naming child sent nonsense: {0}")]
    Protocol(#[from] ProtocolError),
}

impl NamingChild {
    /// No child so far.
    pub(super) fn new(options: &NamerOptions) -> Self {
        let limits = options.child;
        let program = ChildProgram {
            path: options.program.clone(),
            arguments: vec![
                CHILD_ARGUMENT.into(),
                limits.data_bytes_max.to_string().into(),
                limits.resident_bytes_max.to_string().into(),
            ],
            environment: allocator::SMALL
                .map(|(name, value)| (name.into(), value.into()))
                .to_vec(),
        };
        let restarts = RestartLimits {
            failures_at_once: options.failures_at_once,
            failure_period: options.failure_period,
            stuck_max: STUCK_MAX,
        };
        Self {
            child: RestartingChild::new(program, FRAMES, restarts),
            request_time: options.request_time,
            requests: 0,
            cpu_counted: Duration::ZERO,
            stats: NamingChildStats::default(),
        }
    }

    /// Number of the process, if one runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.running().map(ChildProcess::pid)
    }

    /// Whether the child may not change its root directory.
    pub(super) fn is_unconfined(&self) -> bool {
        self.stats.unconfined
    }

    /// Counts so far, and the cost of the running child.
    pub(super) fn stats(&self) -> NamingChildStats {
        let running = self.pid().and_then(ProcessAccount::read);
        let account = running.unwrap_or_default();
        let stats = self.stats.clone();
        NamingChildStats {
            cpu_ns: stats.cpu_ns + account.cpu_ns(),
            resident_peak_bytes: stats.resident_peak_bytes.max(account.resident_peak_bytes),
            running,
            ..stats
        }
    }

    /// Sends a request about `object`, which gets a number here, and waits for the answer.
    ///
    /// # Errors
    /// There is no child to ask.
    pub(super) fn ask(
        &mut self,
        mut request: Request,
        files: &[BorrowedFd<'_>],
        object: &dyn Display,
    ) -> Result<RequestOutcome, Failure> {
        let started = Instant::now();
        self.requests += 1;
        request.id = self.requests;
        let deadline = started + self.request_time;
        let result = exchange(self.running_child()?, &request, files, deadline);
        self.stats.requests += 1;
        let elapsed = started.elapsed();
        // The CPU time of a dead child is unknown. It is at most the time that passed.
        let cpu = match self.pid().and_then(ProcessAccount::read_cpu) {
            Some(used) => used.saturating_sub(std::mem::replace(&mut self.cpu_counted, used)),
            None => elapsed,
        };
        let result = match result {
            Ok(response) => {
                self.read_child_state(&response);
                Ok(response)
            }
            Err(err) => Err(self.end_failed(&err, object)),
        };
        Ok(RequestOutcome {
            elapsed,
            cpu,
            result,
        })
    }

    fn running_child(&mut self) -> Result<&mut ChildProcess, Failure> {
        if self.child.running().is_none() {
            match self.child.start() {
                Ok(_) => {}
                Err(StartError::BackedOff) => {
                    self.stats.backed_off += 1;
                    return Err(Failure::Postponed);
                }
                Err(err @ StartError::Failed(_)) => {
                    warn!(%err, "cannot name anything");
                    self.stats.ends.not_started += 1;
                    return Err(Failure::Postponed);
                }
            }
            self.stats.starts += 1;
            self.cpu_counted = Duration::ZERO;
        }
        self.child.running_mut().ok_or(Failure::Postponed)
    }

    fn read_child_state(&mut self, response: &Response) {
        if response.unconfined && !self.stats.unconfined {
            self.stats.unconfined = true;
            warn!(
                "naming child may not change its root directory, so debug information is not \
                 used; grant CAP_SYS_CHROOT for inlined functions, files and lines"
            );
        }
        if response.leaving {
            self.stats.ends.memory += 1;
            self.count_account();
            self.child.end();
        }
    }

    fn end_failed(&mut self, err: &AskError, object: &dyn Display) -> Failure {
        warn!(%err, %object, "naming child failed");
        self.count_account();
        self.child.end_failed();
        let ends = &mut self.stats.ends;
        let (count, failure) = match err {
            AskError::Failed(ChildFailure::TimedOut) => (&mut ends.timed_out, Failure::TimedOut),
            AskError::Failed(ChildFailure::Asleep) => (&mut ends.timed_out, Failure::FileSystem),
            AskError::Failed(ChildFailure::Ended(status)) => match status.map(EndCause::of) {
                Some(EndCause::Memory) => (
                    &mut ends.out_of_memory,
                    Failure::Child(UnnamedReason::Limit),
                ),
                Some(EndCause::Killed) => (&mut ends.died, Failure::Child(UnnamedReason::Limit)),
                _ => (&mut ends.died, Failure::Child(UnnamedReason::Corrupt)),
            },
            AskError::Failed(ChildFailure::Nonsense(_) | ChildFailure::NotSent(_))
            | AskError::Protocol(_) => (&mut ends.nonsense, Failure::Child(UnnamedReason::Corrupt)),
        };
        *count += 1;
        failure
    }

    /// Adds the CPU time and the peak memory of the child to the statistics, before the child ends.
    fn count_account(&mut self) {
        if let Some(account) = self.pid().and_then(ProcessAccount::read) {
            self.stats.cpu_ns += account.cpu_ns();
            let peak = &mut self.stats.resident_peak_bytes;
            *peak = account.resident_peak_bytes.max(*peak);
        }
    }
}

fn exchange(
    child: &mut ChildProcess,
    request: &Request,
    files: &[BorrowedFd<'_>],
    deadline: Instant,
) -> Result<Response, AskError> {
    let request_bytes = encode_message(request).map_err(ProtocolError::Message)?;
    let answer = child.ask(&request_bytes, files, deadline)?;
    Ok(decode_response(
        answer,
        request.id,
        request.addresses.len(),
    )?)
}
