//! Names of code that processes made at run time; the parent's side.
//!
//! In: addresses in a process, with the times at which they were sampled. Out: names from the process's perf map or jitdump. Only the
//! child caches them, with their times: other code may be at the address in the next window.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustc_hash::FxHashMap;
use symbolize::jit::JitFormat;

use super::super::backoff::Backoff;
use super::super::budgeted_child::BudgetedChild;
use super::super::failure::Failure;
use super::super::naming::Naming;
use super::super::protocol::{Answer, JitObject, REQUEST_ADDRESSES, Request, RequestObject};
use super::process::{HeldJit, JitProcess, open_in_time};
use crate::blocking_pool::BlockingPool;
use crate::file::UnnamedReason;

/// Windows for which a process without frames is remembered, and with it the child's position in the process's files: an hour with
/// the defaults. A state takes some 100 bytes.
const JIT_WINDOWS: u64 = 360;

/// An address in code made at run time, and when it was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampledAddress {
    /// The address in the process.
    pub address: u64,
    /// When it was sampled first, nanoseconds of CLOCK_MONOTONIC ...
    pub first_ns: u64,
    /// ... and last.
    pub last_ns: u64,
}

/// Processes that make code at run time, by PID and a time at which they ran.
#[derive(Debug)]
pub(in super::super) struct JitNamer {
    processes: FxHashMap<(u32, u64), JitState>,
    /// Numbers of files in requests to the child so far.
    files: u64,
    window: u64,
    retry_windows: u64,
    pool: BlockingPool,
}

/// The state of a process that makes code.
#[derive(Debug)]
struct JitState {
    process: JitProcess,
    /// Number of the first of its files in requests to the child.
    files: u64,
    /// The window in which it was asked for last.
    used: u64,
    backoff: Backoff,
}

/// A process that makes code, and the numbers of its files in requests to the child.
struct FoundJit {
    process: JitProcess,
    /// Number of the first of its files in requests to the child.
    files: u64,
    /// It has ended: only files that were opened or read before are left.
    is_gone: bool,
}

impl JitState {
    fn find(&self, window: u64, is_gone: bool) -> Result<FoundJit, UnnamedReason> {
        match self.backoff.failure(window) {
            Some(failure) => Err(failure.reason()),
            None => Ok(FoundJit {
                process: self.process.clone(),
                files: self.files,
                is_gone,
            }),
        }
    }
}

impl JitNamer {
    /// No processes. After a failure of the child, a process is tried again after `retry_windows`, then after longer times.
    pub(in super::super) fn new(retry_windows: u64, pool: BlockingPool) -> Self {
        Self {
            processes: FxHashMap::default(),
            files: 0,
            window: 0,
            retry_windows,
            pool,
        }
    }

    /// Forgets processes that have had no frames for long.
    pub(in super::super) fn end_window(&mut self) {
        self.window += 1;
        let window = self.window;
        self.processes
            .retain(|_, state| state.used + JIT_WINDOWS > window);
    }

    /// Names addresses in a process, in their order. `process` is its PID and a time at which it ran.
    pub(in super::super) fn name(
        &mut self,
        child: &mut BudgetedChild,
        process: (u32, u64),
        held: Option<&HeldJit>,
        addresses: &[SampledAddress],
    ) -> Vec<Naming> {
        let mut namings = vec![Naming::Unnamed(UnnamedReason::Anonymous); addresses.len()];
        match self.find(process, held) {
            Ok(found) => {
                let result = self.ask_formats(child, held, &found, addresses, &mut namings);
                if let Some(state) = self.processes.get_mut(&process) {
                    state.backoff.note(result, self.window, self.retry_windows);
                }
            }
            Err(reason) => namings.fill(Naming::Unnamed(reason)),
        }
        namings
    }

    /// Asks the child by the process's perf map, then by its jitdump.
    fn ask_formats(
        &self,
        child: &mut BudgetedChild,
        held: Option<&HeldJit>,
        found: &FoundJit,
        addresses: &[SampledAddress],
        namings: &mut [Naming],
    ) -> Result<(), Failure> {
        let FoundJit {
            process,
            files,
            is_gone,
        } = found;
        let held = held.filter(|held| held.process == *process);
        let formats = [JitFormat::PerfMap, JitFormat::Dump];
        for (format, file) in formats.into_iter().zip(*files..) {
            let is_unnamed = |naming: &Naming| matches!(naming, Naming::Unnamed(_));
            if !namings.iter().any(is_unnamed) {
                break;
            }
            let opened = if *is_gone {
                // Another process may have its number, and write the same files.
                Err(UnnamedReason::FileGone)
            } else {
                open_in_time(process, format, &self.pool)
            };
            if let Err(reason @ UnnamedReason::NotAnswering) = opened {
                // The child would hang on files that it has open, or on those held for it.
                let left = namings.iter_mut().filter(|naming| is_unnamed(naming));
                left.for_each(|naming| *naming = Naming::Unnamed(reason));
                return Err(Failure::Missing(reason));
            }
            let of_held = |reason| held.and_then(|held| held.file(format)).ok_or(reason);
            let opened = opened.or_else(of_held);
            ask(
                child,
                process.pid(),
                (file, format),
                (&opened, addresses, namings),
            )?;
        }
        Ok(())
    }

    /// Finds the process as it is now, or as it was when last seen; otherwise the reason why it has no names.
    fn find(
        &mut self,
        key @ (pid, since_ns): (u32, u64),
        held: Option<&HeldJit>,
    ) -> Result<FoundJit, UnnamedReason> {
        let window = self.window;
        let now = JitProcess::read(pid);
        let is_gone = match &now {
            Some(process) => !process.had_started(since_ns),
            None => !JitProcess::is_there(pid),
        };
        let process = now.filter(|_| !is_gone);
        let process = process.or_else(|| Some(held?.process.clone()));
        let known = self.processes.get_mut(&key);
        match (process, known) {
            (None, None) if is_gone => Err(UnnamedReason::ProcessUnknown),
            (None, None) => Err(UnnamedReason::Anonymous),
            // The process has ended. The child may have read its files before.
            (None, Some(known)) => known.find(window, is_gone),
            (Some(process), Some(known)) if known.process == process => {
                known.used = window;
                known.find(window, is_gone)
            }
            (Some(process), _) => {
                let files = self.files;
                self.files += 2;
                let state = JitState {
                    process: process.clone(),
                    files,
                    used: window,
                    backoff: Backoff::default(),
                };
                self.processes.insert(key, state);
                Ok(FoundJit {
                    process,
                    files,
                    is_gone,
                })
            }
        }
    }
}

/// Asks the child for the addresses that have no name yet. After a failure all of these have its reason.
fn ask(
    child: &mut BudgetedChild,
    pid: u32,
    (file, format): (u64, JitFormat),
    (opened, addresses, namings): (
        &Result<OwnedFd, UnnamedReason>,
        &[SampledAddress],
        &mut [Naming],
    ),
) -> Result<(), Failure> {
    let unnamed = |naming: &&mut Naming| matches!(naming, Naming::Unnamed(_));
    let places = addresses.iter().zip(namings);
    let mut left: Vec<(SampledAddress, &mut Naming)> = places
        .filter(|(_, naming)| unnamed(naming))
        .map(|(at, naming)| (*at, naming))
        .collect();
    let object = format!("code made by process {pid}");
    let files: Vec<BorrowedFd<'_>> = opened.iter().map(AsFd::as_fd).collect();
    for start in (0..left.len()).step_by(REQUEST_ADDRESSES) {
        let left = &mut left[start..];
        let asked = &left[..left.len().min(REQUEST_ADDRESSES)];
        let times = asked.iter().map(|(at, _)| (at.first_ns, at.last_ns));
        let request = Request {
            id: 0,
            object: RequestObject::Jit(JitObject {
                file,
                format,
                times: times.collect(),
            }),
            addresses: asked.iter().map(|(at, _)| at.address).collect(),
            split: Vec::new(),
        };
        let answered = child
            .may_ask()
            .and_then(|()| child.ask(request, &files, &object));
        let reason = match &answered {
            Ok(response) => {
                for ((_, naming), answer) in left.iter_mut().zip(&response.answers) {
                    // The file does not exist, or does not describe the code.
                    let is_nothing = matches!(
                        answer,
                        Answer::Unnamed(UnnamedReason::FileGone | UnnamedReason::Anonymous)
                    );
                    if !is_nothing {
                        **naming = answer.to_naming(&response.strings, |name| name.into());
                    }
                }
                match opened {
                    Err(reason) if response.is_all_gone() => *reason,
                    _ => continue,
                }
            }
            Err(failure) => failure.reason(),
        };
        // Most processes write no such file: a missing one is no reason of its own.
        if reason != UnnamedReason::FileGone {
            left.iter_mut()
                .for_each(|(_, naming)| **naming = Naming::Unnamed(reason));
        }
        return answered.map(drop);
    }
    Ok(())
}
