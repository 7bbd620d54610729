//! The parent's side: which addresses are known, which are asked for, and what
//! becomes of a file on which the child fails.

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};
use tracing::{info, warn};

use super::budget::{CpuAllowance, CpuBudget};
use super::cache::{Extent, Links, NameCache, ObjectKey};
use super::child::ChildLimits;
use super::debug_file::{FoundBy, find_debug_file};
use super::facts::{FileFacts, Segment};
use super::jit::{HeldJit, JitProcess, open_in_time};
use super::linked_file::{find_alternative, find_package, find_split};
use super::naming::{Naming, UnnamedReason};
use super::object::{ElfFile, Object};
use super::open::{look_in_time, open_elf};
use super::process::{ChildError, NameProcess, ended_for_memory};
use super::protocol::{
    Answer, Attached, DebugInfo, JitFormat, Notes, Request, RequestObject, Response, SplitFile,
    SplitPart,
};
use super::stats::NamerStats;
use crate::accounts::ProcessAccount;
use crate::clock::thread_cpu;
use crate::patience::Patience;

/// Addresses asked for at once: an answer of some 150 KB, so that neither side
/// holds much, and a time-out costs few names.
const REQUEST_ADDRESSES: usize = 512;
/// A file that keeps failing is tried again after 1, 2, 4, … up to 64 times
/// [`NamerOptions::retry_windows`]: about an hour, with the defaults.
const FAILURE_DOUBLINGS_MAX: u32 = 6;
/// How often a question is asked again with the files that the answer named: for the debug file, for what that shares
/// with others or a package, and four times for 64 split files each, so that 512 addresses may lie in 256 units.
const FOLLOWED_MAX: usize = 6;
/// Children that could not be ended (they wait for a broken disk or network file
/// system); with more of them, no new one is started.
const STUCK_MAX: usize = 4;

/// How names are looked for, and what that may cost.
#[derive(Clone, Debug)]
pub struct NamerOptions {
    /// The collector's own program.
    pub program: PathBuf,
    /// Bytes of names kept. An address takes about 300 (2.5 frames of 64, its
    /// slot, its share of the strings), so 16 MiB are some 50,000 addresses; a
    /// busy node of two cores sees 5,000 different ones in an hour.
    pub cache_bytes_max: usize,
    /// How long the child may take for one request. A program of 34 MB with 27 MB
    /// of debug information takes 70 ms of CPU for 200 scattered addresses, so
    /// this allows for some gigabytes, or for a node where the CPU is scarce.
    pub request_time: Duration,
    /// CPU time of the child and of the thread that asks it. What is not named when
    /// it is spent is asked for in a later window, or named by the server.
    pub cpu: CpuBudget,
    /// How long the child may take in all between two [`Namer::end_window`], by the
    /// clock on the wall, so that no window waits long for its names. Where the CPU is
    /// scarce 4 s left a quarter of a window without names; the four windows that may
    /// wait (40 s) bear 20 s now and then.
    pub window_time: Duration,
    /// Windows after which a reason that may pass is tried again; 6 are a minute.
    pub retry_windows: u64,
    /// Larger files are not named, in bytes. The child maps files and does not
    /// read them whole, so this is far above any real one.
    pub file_bytes_max: u64,
    /// Children that may fail in a row before the next must wait ...
    pub failures_at_once: u32,
    /// ... for this time each. With the defaults, a node full of files that children
    /// die of costs one child, some 100 ms of CPU, in ten seconds. One that they hang
    /// on takes up to [`request_time`](Self::request_time) out of `cpu`, and is let be
    /// at once: 10 s, and a minute later as much again without its debug information,
    /// and then after 2, 4, … up to 64 minutes.
    pub failure_period: Duration,
    /// What the child may take.
    pub child: ChildLimits,
    /// Opens files whose file system may not answer.
    pub patience: Patience,
}

impl Default for NamerOptions {
    fn default() -> Self {
        Self {
            // As the kernel knows it, also after the file was replaced.
            program: "/proc/self/exe".into(),
            cache_bytes_max: 16 << 20,
            request_time: Duration::from_secs(10),
            cpu: CpuBudget {
                // 0.5 s in a window of 10 s. A machine that compiles all the time, and so always has new
                // code, took 0.14 s; 0.5 s name some 3,000 addresses of large programs that are new.
                share: 0.05,
                // When all is new, as at the start: it is there again after 200 s with nothing to name.
                burst: Duration::from_secs(10),
            },
            window_time: Duration::from_secs(20),
            retry_windows: 6,
            file_bytes_max: 16 << 30,
            failures_at_once: 8,
            failure_period: Duration::from_secs(10),
            child: ChildLimits {
                // Large debug information is mapped and not read, but compressed
                // sections are unpacked: 256 MiB are enough for a browser's.
                data_bytes_max: 256 << 20,
                // 3 MB for itself, 5 MB for the kernel's symbols, the rest for files: rustc's and
                // LLVM's symbols take 30. With half of this they were forgotten and sorted again for
                // each window, and naming took 3.4 % of a core on a machine that compiles, not 1.6.
                resident_bytes_max: 48 << 20,
            },
            patience: Patience::default(),
        }
    }
}

/// Names addresses. Owns the child process and the names it gave.
///
/// The child ends with the thread that first asked, so one thread uses a namer.
#[derive(Debug)]
pub struct Namer {
    options: NamerOptions,
    /// Opens files, on an account of its own.
    patience: Patience,
    cache: NameCache,
    process: Option<NameProcess>,
    stuck: Vec<Child>,
    failures: FailureBudget,
    window: u64,
    window_time_used: Duration,
    allowance: CpuAllowance,
    /// Nothing was left of it in this window: nothing more is asked for, since what comes later has fewer samples.
    is_spent: bool,
    /// CPU time of the child that is taken from the allowance already.
    child_cpu_spent: Duration,
    request: u64,
    /// Processes that make code at run time, by number.
    jit: FxHashMap<u32, JitState>,
    jit_files: u64,
    stats: NamerStats,
}

/// What is known of a process that makes code.
#[derive(Debug)]
struct JitState {
    process: JitProcess,
    /// Number of the first of its files in requests to the child.
    files: u64,
    /// The window in which it was asked for last.
    used: u64,
    /// How the child failed on it last, and from which window on it is asked again.
    failure: Option<(Failure, u64)>,
    /// How often in a row it failed.
    failures: u32,
}

impl JitState {
    fn may_ask(&self, window: u64) -> Result<(JitProcess, u64), UnnamedReason> {
        match self.failure {
            Some((failure, until)) if window < until => Err(failure.reason()),
            _ => Ok((self.process.clone(), self.files)),
        }
    }
}

/// Windows that a process without frames is remembered for, and the child's place in its files with it: an hour with the
/// defaults. A state takes some 100 bytes.
const JIT_WINDOWS: u64 = 360;

impl Namer {
    /// A namer without names; its child is started when first needed.
    pub fn new(options: NamerOptions) -> Self {
        let cache = NameCache::new(options.cache_bytes_max, options.retry_windows);
        Self {
            failures: FailureBudget::new(options.failures_at_once, options.failure_period),
            allowance: CpuAllowance::new(options.cpu, Instant::now()),
            patience: options.patience.on_own_account(),
            options,
            cache,
            process: None,
            stuck: Vec::new(),
            window: 0,
            window_time_used: Duration::ZERO,
            is_spent: false,
            child_cpu_spent: Duration::ZERO,
            request: 0,
            jit: FxHashMap::default(),
            jit_files: 0,
            stats: NamerStats::default(),
        }
    }

    /// Tells that a window is over, by which the namer measures when to try again.
    pub fn end_window(&mut self) {
        self.window += 1;
        self.window_time_used = Duration::ZERO;
        self.is_spent = false;
        let window = self.window;
        self.jit.retain(|_, it| it.used + JIT_WINDOWS > window);
        self.stuck
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// The names of `addresses` in `object`, in the same order, which is also the one in which they are asked for.
    ///
    /// An address is that of the instruction: for a caller's frame, the return
    /// address less one. Waits for the child, if at all, for at most
    /// [`NamerOptions::window_time`] in a window, and
    /// [`NamerOptions::request_time`] for the request that was running then.
    pub fn name(&mut self, object: &Object, addresses: &[u64]) -> Vec<Naming> {
        self.on_own_account(|namer| namer.find_names(object, addresses))
    }

    /// Takes the CPU time of this thread, and of those that open files for it, from the allowance.
    fn on_own_account<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = thread_cpu() + self.patience.cpu();
        let result = work(self);
        let cpu = (thread_cpu() + self.patience.cpu()).saturating_sub(before);
        self.stats.asking_cpu += cpu;
        self.allowance.spend(cpu);
        result
    }

    fn find_names(&mut self, object: &Object, addresses: &[u64]) -> Vec<Naming> {
        let key = ObjectKey::from(object);
        let window = self.window;
        let file = self.cache.file(key);
        let mut namings: Vec<Option<Naming>> = addresses
            .iter()
            .map(|address| file.get(*address, window).cloned())
            .collect();
        let missing = missing(addresses, &namings);
        self.stats.cache_hits += namings.iter().flatten().count() as u64;
        let failure = self.ask_all(object, &missing);
        let file = self.cache.file(key);
        for (naming, address) in namings.iter_mut().zip(addresses) {
            if naming.is_none() {
                // What could not be asked for again is what it was.
                *naming = file.last(*address).cloned();
            }
        }
        self.cache.shrink();
        let reason = failure.unwrap_or(UnnamedReason::Limit);
        let namings = namings
            .into_iter()
            .map(|naming| naming.unwrap_or(Naming::Unnamed(reason)));
        namings.inspect(|naming| self.stats.count(naming)).collect()
    }

    /// Where the parts of a file are mapped, if it was read or is held.
    pub fn segments<'a>(&'a mut self, object: &'a Object) -> &'a [Segment] {
        let file = self.cache.file(ObjectKey::from(object));
        match (&file.facts, object) {
            (Some(facts), _) => &facts.segments,
            (None, Object::Elf(file)) => file.held.as_ref().map_or(&[], |it| it.segments()),
            (None, _) => &[],
        }
    }

    /// What a file says about itself, if it was read.
    pub fn facts(&mut self, object: &Object) -> Option<&FileFacts> {
        self.cache.file(ObjectKey::from(object)).facts.as_ref()
    }

    /// Whether names come from a file's debug information, should it have any.
    pub fn uses_debug_info(&mut self, object: &Object) -> bool {
        let file = self.cache.file(ObjectKey::from(object));
        file.uses_debug_info() && !self.stats.unconfined
    }

    /// The names of code that a process made at run time, in the order of its addresses there.
    ///
    /// `held` is what was opened while the process lived, for when it has ended. Nothing is kept of the names but in the
    /// child, which has the newest: other code may lie there the next time.
    pub fn name_jit(&mut self, pid: u32, held: Option<&HeldJit>, addresses: &[u64]) -> Vec<Naming> {
        self.on_own_account(|namer| namer.find_jit_names(pid, held, addresses))
    }

    fn find_jit_names(
        &mut self,
        pid: u32,
        held: Option<&HeldJit>,
        addresses: &[u64],
    ) -> Vec<Naming> {
        let mut namings = vec![Naming::Unnamed(UnnamedReason::Anonymous); addresses.len()];
        match self.find_jit(pid, held) {
            Ok(found) => {
                let result = self.ask_formats(pid, held, found, addresses, &mut namings);
                self.note_jit(pid, result);
            }
            Err(reason) => namings.fill(Naming::Unnamed(reason)),
        }
        namings.iter().for_each(|naming| self.stats.count(naming));
        namings
    }

    /// Asks by what a process writes in either form, in files that are numbered from `files` on.
    fn ask_formats(
        &mut self,
        pid: u32,
        held: Option<&HeldJit>,
        (process, files): (JitProcess, u64),
        addresses: &[u64],
        namings: &mut [Naming],
    ) -> Result<(), Failure> {
        let held = held.filter(|it| it.process == process);
        let formats = [JitFormat::PerfMap, JitFormat::Dump];
        for (format, file) in formats.into_iter().zip(files..) {
            let is_unnamed = |naming: &Naming| matches!(naming, Naming::Unnamed(_));
            if !namings.iter().any(is_unnamed) {
                break;
            }
            let opened = open_in_time(&process, format, &self.patience);
            if let Err(reason @ UnnamedReason::NotAnswering) = opened {
                // The child would hang on what is held, or on what it has open.
                let left = namings.iter_mut().filter(|it| is_unnamed(it));
                left.for_each(|naming| *naming = Naming::Unnamed(reason));
                return Err(Failure::Missing(reason));
            }
            let requested = RequestObject::Jit { file, format };
            let of_held = |reason| held.and_then(|it| it.file(format)).ok_or(reason);
            let opened = opened.or_else(of_held);
            self.ask_jit(pid, requested, &opened, addresses, namings)?;
        }
        Ok(())
    }

    /// Lets a process be for a while after the child failed on it.
    fn note_jit(&mut self, pid: u32, result: Result<(), Failure>) {
        let Some(state) = self.jit.get_mut(&pid) else {
            return;
        };
        match result {
            Ok(()) => (state.failure, state.failures) = (None, 0),
            Err(Failure::Postponed) => {}
            Err(failure) => {
                let doublings = state.failures.min(FAILURE_DOUBLINGS_MAX);
                let windows = self.options.retry_windows << doublings;
                state.failures = state.failures.saturating_add(1);
                state.failure = Some((failure, self.window.saturating_add(windows)));
            }
        }
    }

    /// The process as it is now, or was when it was last seen, and the number of its first file; or why it is not asked for.
    fn find_jit(
        &mut self,
        pid: u32,
        held: Option<&HeldJit>,
    ) -> Result<(JitProcess, u64), UnnamedReason> {
        let window = self.window;
        let process = JitProcess::read(pid).or_else(|| Some(held?.process.clone()));
        let known = self.jit.get_mut(&pid);
        match (process, known) {
            (None, None) => Err(match JitProcess::is_there(pid) {
                true => UnnamedReason::Anonymous,
                false => UnnamedReason::ProcessUnknown,
            }),
            // Gone: the child may have read of it.
            (None, Some(known)) => known.may_ask(window),
            (Some(process), Some(known)) if known.process == process => {
                known.used = window;
                known.may_ask(window)
            }
            (Some(process), _) => {
                let files = self.jit_files;
                self.jit_files += 2;
                let state = JitState {
                    process: process.clone(),
                    files,
                    used: window,
                    failure: None,
                    failures: 0,
                };
                self.jit.insert(pid, state);
                Ok((process, files))
            }
        }
    }

    /// Asks for the addresses that have no name yet. After a failure they all have its reason.
    fn ask_jit(
        &mut self,
        pid: u32,
        requested: RequestObject,
        opened: &Result<OwnedFd, UnnamedReason>,
        addresses: &[u64],
        namings: &mut [Naming],
    ) -> Result<(), Failure> {
        let unnamed = |naming: &&mut Naming| matches!(naming, Naming::Unnamed(_));
        let places = addresses.iter().zip(namings);
        let mut left: Vec<(u64, &mut Naming)> = places
            .filter(|(_, naming)| unnamed(naming))
            .map(|(at, naming)| (*at, naming))
            .collect();
        let object = format!("code made by process {pid}");
        let files: Vec<BorrowedFd<'_>> = opened.iter().map(AsFd::as_fd).collect();
        for start in (0..left.len()).step_by(REQUEST_ADDRESSES) {
            let left = &mut left[start..];
            let asked = &left[..left.len().min(REQUEST_ADDRESSES)];
            let addresses = asked.iter().map(|(address, _)| *address).collect();
            let question = Question {
                object: requested,
                addresses,
                split: Vec::new(),
            };
            let answered = self
                .may_ask()
                .and_then(|()| self.send(question, &files, &object));
            let reason = match &answered {
                Ok(response) => {
                    for ((_, naming), answer) in left.iter_mut().zip(&response.answers) {
                        match answer {
                            // There is no such file, or it says nothing of the code.
                            Answer::Unnamed(UnnamedReason::FileGone | UnnamedReason::Anonymous) => {
                            }
                            answer => {
                                **naming = answer.to_naming(&response.strings, |it| it.into())
                            }
                        }
                    }
                    match opened {
                        Err(reason) if is_all_gone(response) => *reason,
                        _ => continue,
                    }
                }
                Err(failure) => failure.reason(),
            };
            // That there is no file is the rule where nothing describes the code.
            if reason != UnnamedReason::FileGone {
                left.iter_mut()
                    .for_each(|(_, naming)| **naming = Naming::Unnamed(reason));
            }
            return answered.map(drop);
        }
        Ok(())
    }

    /// What was done so far, and what the child takes now.
    pub fn stats(&self) -> NamerStats {
        let child = self.process.as_ref().and_then(NameProcess::account);
        let account = child.unwrap_or_default();
        NamerStats {
            cache_bytes: self.cache.bytes() as u64,
            cache_files: self.cache.files() as u64,
            cache_evictions: self.cache.evictions(),
            cpu_left_s: self.allowance.left_s(),
            child_cpu_ns: self.stats.child_cpu_ns + account.cpu_ns(),
            child_resident_peak_bytes: self
                .stats
                .child_resident_peak_bytes
                .max(account.resident_peak_bytes),
            child,
            ..self.stats.clone()
        }
    }

    /// Number of the child's process, if one runs.
    pub fn child_pid(&self) -> Option<u32> {
        self.process.as_ref().map(NameProcess::pid)
    }

    /// Asks for `addresses` and keeps the answers. `Some`: why the rest has none.
    fn ask_all(&mut self, object: &Object, addresses: &[u64]) -> Option<UnnamedReason> {
        let key = ObjectKey::from(object);
        if let Some(failure) = self.last_failure(object) {
            return Some(failure.reason());
        }
        for addresses in addresses.chunks(REQUEST_ADDRESSES) {
            // Neighbours share what is read for them.
            let mut addresses = addresses.to_vec();
            addresses.sort_unstable();
            let may_ask = self.may_ask();
            match may_ask.and_then(|()| self.ask(object, &addresses)) {
                Ok(answered) => {
                    self.keep(key, &addresses, &answered);
                    if let Some(failure @ (Failure::TimedOut | Failure::Waited)) = answered.cut {
                        self.fail(key, failure);
                        return Some(failure.reason());
                    }
                }
                Err(failure) => {
                    if failure != Failure::Postponed {
                        self.fail(key, failure);
                    }
                    return Some(failure.reason());
                }
            }
        }
        None
    }

    /// How the file failed, if it is let be for that. One that could not be opened is not, as soon as it can: it is held,
    /// or another process maps it.
    fn last_failure(&mut self, object: &Object) -> Option<Failure> {
        let (failure, until) = self.cache.file(ObjectKey::from(object)).failure?;
        let is_over = self.window >= until
            || match (failure, object) {
                (Failure::Missing(_), Object::Elf(file)) => self.open_elf(file).is_ok(),
                _ => false,
            };
        (!is_over).then_some(failure)
    }

    fn keep(&mut self, key: ObjectKey, addresses: &[u64], answered: &Answered) {
        let extent = match answered.cut {
            Some(Failure::Postponed | Failure::Missing(_) | Failure::Waited) => Extent::Cut,
            // What the child failed on is not asked for again.
            Some(Failure::Asked(_) | Failure::TimedOut) | None => Extent::Whole,
        };
        let given = (self.window, extent);
        self.cache.keep(key, addresses, &answered.response, given);
        let file = self.cache.file(key);
        file.failure = None;
        file.failures = 0;
    }

    /// Lets the whole file be for a while.
    fn fail(&mut self, key: ObjectKey, failure: Failure) {
        let file = self.cache.file(key);
        let windows = self.options.retry_windows << file.failures.min(FAILURE_DOUBLINGS_MAX);
        file.failures = file.failures.saturating_add(1);
        file.failure = Some((failure, self.window.saturating_add(windows)));
    }

    /// Asks once, and once more without debug information if the child died of it, or with more of it as long as the
    /// answer says where more is. A child that hung is not made to do so twice: the file's next question goes without.
    fn ask(&mut self, object: &Object, addresses: &[u64]) -> Result<Answered, Failure> {
        let key = ObjectKey::from(object);
        let file = self.cache.file(key);
        let (debug, links) = (file.debug, file.links());
        let uses_debug_info = is_file(object) && debug == DebugInfo::Use;
        let response = match self.ask_once(object, debug, addresses) {
            Err(failure @ (Failure::Asked(_) | Failure::TimedOut)) if uses_debug_info => {
                self.skip_debug_info(key);
                if failure == Failure::TimedOut {
                    return Err(failure);
                }
                self.may_ask()?;
                self.ask_once(object, DebugInfo::Skip, addresses)?
            }
            result => result?,
        };
        let mut answered = Answered {
            response,
            cut: None,
        };
        if let Object::Elf(file) = object
            && self.cache.file(key).debug == DebugInfo::Use
        {
            answered.cut = self
                .ask_on(object, file, addresses, (links, &mut answered.response))
                .err();
        }
        Ok(answered)
    }

    /// Asks again with the files that the last answer named, of which `links` were known before, until an answer names no
    /// more. What is not there by then is not in the names.
    ///
    /// # Errors
    /// Why it was not asked on. The last answer is there all the same.
    fn ask_on(
        &mut self,
        object: &Object,
        file: &ElfFile,
        addresses: &[u64],
        (links, response): (Links, &mut Response),
    ) -> Result<(), Failure> {
        let result = self.ask_further(object, file, addresses, (links, response));
        self.stats.split_files_left += response.wanted.len() as u64;
        if let Err(Failure::Asked(_) | Failure::TimedOut) = result {
            // The next question is not to fail again.
            self.skip_debug_info(ObjectKey::from(object));
        }
        result
    }

    /// [`ask_on`](Self::ask_on), as long as there is time, and until it fails.
    fn ask_further(
        &mut self,
        object: &Object,
        file: &ElfFile,
        addresses: &[u64],
        (mut links, response): (Links, &mut Response),
    ) -> Result<(), Failure> {
        let key = ObjectKey::from(object);
        for _ in 0..FOLLOWED_MAX {
            let now = self.cache.file(key).links();
            let has_more = self.has_more(object, file, links, now);
            if !has_more && response.wanted.is_empty() {
                break;
            }
            self.may_ask()?;
            let split = match has_more {
                // A package has them all.
                true => Vec::new(),
                false => self.find_split(file, &response.wanted),
            };
            links = now;
            *response = self.ask_with(object, DebugInfo::Use, addresses, &split)?;
        }
        Ok(())
    }

    /// Has the file named by its symbol table from now on.
    fn skip_debug_info(&mut self, key: ObjectKey) {
        let file = self.cache.file(key);
        self.stats.files_without_debug_info += u64::from(file.uses_debug_info());
        file.debug = DebugInfo::Skip;
    }

    /// Whether what the file says `now` and did not say `before` leads to a file.
    fn has_more(&mut self, object: &Object, file: &ElfFile, before: Links, now: Links) -> bool {
        let is_linked = now.debug_file && !before.debug_file;
        let is_shared = now.alternative && !before.alternative;
        let is_split = now.split && !before.split;
        (is_linked && self.find_debug_file(object, file, DebugInfo::Use).is_some())
            || (is_shared && self.find_alternative(object, file).is_some())
            || (is_split && self.find_package(object, file).is_some())
    }

    fn find_package(&mut self, object: &Object, file: &ElfFile) -> Option<OwnedFd> {
        let known = self.cache.file(ObjectKey::from(object)).facts.as_ref();
        known.filter(|it| it.is_split)?;
        find_package(file, self.options.file_bytes_max, &self.patience)
    }

    fn find_alternative(&mut self, object: &Object, file: &ElfFile) -> Option<OwnedFd> {
        let known = self.cache.file(ObjectKey::from(object)).facts.as_ref();
        let link = known?.alternative.as_ref()?;
        find_alternative(file, link, self.options.file_bytes_max, &self.patience)
    }

    /// The split files that the child lacks, as far as they are there.
    fn find_split(&mut self, file: &ElfFile, wanted: &[SplitFile]) -> Vec<(u64, Option<OwnedFd>)> {
        let bytes_max = self.options.file_bytes_max;
        let found = wanted
            .iter()
            .map(|it| (it.id, find_split(file, it, bytes_max, &self.patience)));
        let found: Vec<_> = found.collect();
        self.stats.split_files += found.len() as u64;
        let missing = found.iter().filter(|(_, it)| it.is_none());
        self.stats.split_files_missing += missing.count() as u64;
        found
    }

    /// Finds the file with the debug information of one that may have none itself.
    fn find_debug_file(
        &mut self,
        object: &Object,
        file: &ElfFile,
        debug: DebugInfo,
    ) -> Option<(OwnedFd, FoundBy)> {
        let known = self.cache.file(ObjectKey::from(object));
        let has_own = known.facts.as_ref().is_some_and(|it| it.has_debug_info);
        if debug == DebugInfo::Skip || has_own {
            return None;
        }
        let bytes_max = self.options.file_bytes_max;
        find_debug_file(file, known.debug_link(), bytes_max, &self.patience)
    }

    /// Opens a file, if its file system answers.
    fn open_elf(&self, file: &Arc<ElfFile>) -> Result<OwnedFd, UnnamedReason> {
        let (wanted, bytes_max) = (file.clone(), self.options.file_bytes_max);
        let open = move || open_elf(&wanted, bytes_max);
        look_in_time(&self.patience, file.place(), open)
    }

    fn ask_once(
        &mut self,
        object: &Object,
        debug: DebugInfo,
        addresses: &[u64],
    ) -> Result<Response, Failure> {
        self.ask_with(object, debug, addresses, &[])
    }

    fn ask_with(
        &mut self,
        object: &Object,
        debug: DebugInfo,
        addresses: &[u64],
        split: &[(u64, Option<OwnedFd>)],
    ) -> Result<Response, Failure> {
        let number = self.cache.file(ObjectKey::from(object)).number;
        let (mut debug_file, mut alternative, mut package) = (None, None, None);
        let (requested, opened) = match object {
            Object::Kernel => (RequestObject::Kernel, Ok(None)),
            Object::Vdso => (RequestObject::Vdso, Ok(None)),
            Object::Elf(file) => {
                let opened = self.open_elf(file);
                if let Err(reason @ UnnamedReason::NotAnswering) = opened {
                    // The child would hang on what it has open of it.
                    return Err(Failure::Missing(reason));
                }
                debug_file = self.find_debug_file(object, file, debug);
                if debug == DebugInfo::Use {
                    alternative = self.find_alternative(object, file);
                    package = self.find_package(object, file);
                }
                let requested = RequestObject::Elf {
                    file: number,
                    debug,
                    build_id: file.build_id,
                    attached: Attached {
                        file: opened.is_ok(),
                        debug_file: debug_file.as_ref().map(|(_, found_by)| *found_by),
                        alternative: alternative.is_some(),
                        package: package.is_some(),
                    },
                };
                (requested, opened.map(Some))
            }
        };
        let file = opened.as_ref().ok().and_then(Option::as_ref);
        let files = file
            .into_iter()
            .chain(debug_file.as_ref().map(|(it, _)| it))
            .chain(&alternative)
            .chain(&package)
            .chain(split.iter().filter_map(|(_, it)| it.as_ref()));
        let files: Vec<BorrowedFd<'_>> = files.map(AsFd::as_fd).collect();
        let parts = split.iter().map(|(id, file)| SplitPart {
            id: *id,
            attached: file.is_some(),
        });
        let question = Question {
            object: requested,
            addresses: addresses.to_vec(),
            split: parts.collect(),
        };
        let mut response = self.send(question, &files, object)?;
        let key = ObjectKey::from(object);
        let known = self.cache.file(key);
        let is_refused = response.notes.without_debug_info;
        if is_refused && known.uses_debug_info() {
            self.stats.files_without_debug_info += 1;
            info!(%object, "debug information is damaged, using the symbol table");
        }
        known.debug_refused = is_refused;
        if let Some(facts) = response.facts.take() {
            self.cache.keep_facts(key, facts);
        }
        match opened {
            Err(reason) if is_all_gone(&response) => Err(Failure::Missing(reason)),
            _ => Ok(response),
        }
    }

    /// Sends a request with what could be opened. What could not is asked for all the same: the child may have it open
    /// from before.
    fn send(
        &mut self,
        question: Question,
        files: &[BorrowedFd<'_>],
        object: &dyn Display,
    ) -> Result<Response, Failure> {
        self.request += 1;
        let request = Request {
            id: self.request,
            object: question.object,
            addresses: question.addresses,
            split: question.split,
        };
        let started = Instant::now();
        let deadline = started + self.options.request_time;
        let process = self.process()?;
        let result = process.ask(&request, files, deadline);
        self.stats.requests += 1;
        let elapsed = started.elapsed();
        self.window_time_used += elapsed;
        self.spend_child_cpu(elapsed);
        match result {
            Ok(response) => {
                self.read_notes(response.notes);
                Ok(response)
            }
            Err(err) => Err(self.end_failed(&err, object)),
        }
    }

    /// Whether there is time for one more request.
    fn may_ask(&mut self) -> Result<(), Failure> {
        let held_back = &mut self.stats.held_back;
        self.is_spent = self.is_spent || self.allowance.is_spent(Instant::now());
        if self.window_time_used >= self.options.window_time {
            held_back.window_time += 1;
        } else if self.is_spent {
            held_back.cpu_time += 1;
        } else {
            return Ok(());
        }
        Err(Failure::Postponed)
    }

    /// Takes from the allowance what the child has used since it was looked at last. One that died cannot be looked at: it
    /// used at most the time that passed.
    fn spend_child_cpu(&mut self, elapsed: Duration) {
        let pid = self.child_pid();
        let used = match pid.and_then(ProcessAccount::read_cpu) {
            Some(used) => used.saturating_sub(std::mem::replace(&mut self.child_cpu_spent, used)),
            None => elapsed,
        };
        self.allowance.spend(used);
    }

    fn process(&mut self) -> Result<&mut NameProcess, Failure> {
        if self.process.is_none() {
            if self.stuck.len() >= STUCK_MAX || !self.failures.allow(Instant::now()) {
                self.stats.held_back.children += 1;
                return Err(Failure::Postponed);
            }
            let started = NameProcess::start(&self.options.program, self.options.child);
            let process = started.map_err(|err| {
                warn!(%err, "cannot name anything");
                self.stats.ends.not_started += 1;
                self.failures.spend();
                Failure::Postponed
            })?;
            self.stats.starts += 1;
            self.child_cpu_spent = Duration::ZERO;
            self.process = Some(process);
        }
        self.process.as_mut().ok_or(Failure::Postponed)
    }

    fn read_notes(&mut self, notes: Notes) {
        if notes.unconfined && !self.stats.unconfined {
            self.stats.unconfined = true;
            warn!(
                "naming child may not change its root directory, so debug information is not \
                 used; grant CAP_SYS_CHROOT for inlined functions, files and lines"
            );
        }
        if notes.leaving {
            self.stats.ends.memory += 1;
            self.end_process();
        }
    }

    fn end_failed(&mut self, err: &ChildError, object: &dyn Display) -> Failure {
        warn!(%err, %object, "naming child failed");
        self.failures.spend();
        self.end_process();
        let ends = &mut self.stats.ends;
        let asked = Failure::Asked;
        let (count, failure) = match err {
            ChildError::Start(_) => (&mut ends.not_started, asked(UnnamedReason::Limit)),
            ChildError::TimedOut => (&mut ends.timed_out, Failure::TimedOut),
            ChildError::Waits => (&mut ends.timed_out, Failure::Waited),
            ChildError::Protocol(_) => (&mut ends.nonsense, asked(UnnamedReason::Corrupt)),
            ChildError::Died(status) if ended_for_memory(*status) => {
                (&mut ends.died, asked(UnnamedReason::Limit))
            }
            ChildError::Died(_) => (&mut ends.died, asked(UnnamedReason::Corrupt)),
        };
        *count += 1;
        failure
    }

    fn end_process(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        if let Some(account) = process.account() {
            self.stats.child_cpu_ns += account.cpu_ns();
            let peak = &mut self.stats.child_resident_peak_bytes;
            *peak = account.resident_peak_bytes.max(*peak);
        }
        self.stuck.extend(process.end());
    }
}

impl Drop for Namer {
    fn drop(&mut self) {
        self.end_process();
    }
}

/// What is sent to the child.
struct Question {
    object: RequestObject,
    addresses: Vec<u64>,
    split: Vec<SplitPart>,
}

/// An answer about a file.
struct Answered {
    response: Response,
    /// Why there is not more of it, if there may be more.
    cut: Option<Failure>,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no child or no time for it now. That is not the file's fault.
    Postponed,
    /// The file could not be opened.
    Missing(UnnamedReason),
    /// The child failed on it.
    Asked(UnnamedReason),
    /// The child did not answer in time.
    TimedOut,
    /// Nor did the file system that it reads from. That says nothing of what is in the file.
    Waited,
}

impl Failure {
    fn reason(self) -> UnnamedReason {
        match self {
            Self::Postponed | Self::TimedOut => UnnamedReason::Limit,
            Self::Waited => UnnamedReason::NotAnswering,
            Self::Missing(reason) | Self::Asked(reason) => reason,
        }
    }
}

/// Lets children fail a few times at once and then at a slow rate.
#[derive(Debug)]
struct FailureBudget {
    left: u32,
    max: u32,
    /// For one more.
    period: Duration,
    since: Instant,
}

impl FailureBudget {
    fn new(max: u32, period: Duration) -> Self {
        Self {
            left: max,
            max,
            period,
            since: Instant::now(),
        }
    }

    /// Whether another child may be started at `now`.
    fn allow(&mut self, now: Instant) -> bool {
        while self.left < self.max && now.saturating_duration_since(self.since) >= self.period {
            self.left += 1;
            self.since += self.period;
        }
        self.left > 0
    }

    fn spend(&mut self) {
        if self.left == self.max {
            self.since = Instant::now();
        }
        self.left = self.left.saturating_sub(1);
    }
}

fn is_file(object: &Object) -> bool {
    matches!(object, Object::Elf(_))
}

fn is_all_gone(response: &Response) -> bool {
    let gone = Answer::Unnamed(UnnamedReason::FileGone);
    response.answers.iter().all(|answer| *answer == gone)
}

/// The addresses without a naming, each once, in their order.
fn missing(addresses: &[u64], namings: &[Option<Naming>]) -> Vec<u64> {
    let mut seen = FxHashSet::default();
    let missing = addresses.iter().zip(namings);
    missing
        .filter(|(address, naming)| naming.is_none() && seen.insert(**address))
        .map(|(address, _)| *address)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that failures are held back after a burst, and let through again later.
    #[test]
    fn failure_budget_refills_slowly() {
        let period = Duration::from_secs(10);
        let mut budget = FailureBudget::new(8, period);
        for _ in 0..8 {
            assert!(budget.allow(Instant::now()));
            budget.spend();
        }
        let now = Instant::now();
        assert!(!budget.allow(now));
        assert!(budget.allow(now + period));
        budget.spend();
        assert!(!budget.allow(now + period));
        assert!(budget.allow(now + period * 100));
        assert_eq!(budget.left, 8);
    }
}
