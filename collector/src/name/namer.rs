//! Names addresses from the cache, and asks the naming child for the others.
//!
//! In: addresses in a file. Out: their names. If an answer names further files with debug information, the namer opens them and
//! repeats the request. When the time runs out before that, the names lack inlined calls or lines, and a request a minute later
//! replaces them. If the child does not answer within 10 s, the file is backed off ([`super::backoff`]), and then tried without
//! its debug information.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use elf::Segment;
use rustc_hash::FxHashSet;
use symbolize::{FileFacts, UseDebugInfo};
use tracing::info;

use super::budgeted_child::BudgetedChild;
use super::cache::{Extent, Links, NameCache, ObjectKey};
use super::failure::Failure;
use super::file_opener::{FileOpener, FoundFiles};
use super::jit::{HeldJit, JitNamer, SampledAddress};
use super::naming::Naming;
use super::object::Object;
use super::options::NamerOptions;
use super::protocol::{
    ElfObject, Facts, REQUEST_ADDRESSES, Request, RequestObject, Response, SplitPart,
};
use super::stats::NamerStats;
use crate::blocking_pool::BlockingPool;
use crate::clock::thread_cpu;
use crate::file::{ElfFile, UnnamedReason};

/// Repetitions of a request with the files that the last answer named: one for the debug file, one for its shared file or
/// package, and four for 64 split files each, so that 512 addresses may lie in 256 units.
const REPETITIONS_MAX: usize = 6;

/// Names addresses. Owns the child process and the names it gave.
///
/// The child ends with the thread that first asked, so one thread uses a namer.
#[derive(Debug)]
pub struct Namer {
    /// Opens files, on an account of its own.
    pool: BlockingPool,
    opener: FileOpener,
    cache: NameCache,
    child: BudgetedChild,
    jit: JitNamer,
    window: u64,
    retry_windows: u64,
    stats: NamerStats,
}

impl Namer {
    /// A namer without names; its child is started when first needed.
    pub fn new(options: NamerOptions) -> Self {
        let retry_windows = options.retry_windows;
        let pool = options.pool.with_own_cpu_account();
        Self {
            opener: FileOpener::new(options.file_bytes_max, pool.clone()),
            cache: NameCache::new(options.cache_bytes_max, retry_windows),
            child: BudgetedChild::new(&options),
            jit: JitNamer::new(retry_windows, pool.clone()),
            pool,
            window: 0,
            retry_windows,
            stats: NamerStats::default(),
        }
    }

    /// Ends a window. Back-off counts windows.
    pub fn end_window(&mut self) {
        self.window += 1;
        self.child.end_window();
        self.jit.end_window();
    }

    /// The names of `addresses` in `object`, in the same order, which is also the one in which they are asked for.
    ///
    /// An address is that of the instruction: for a caller's frame, the return
    /// address less one. Waits for the child, if at all, for at most
    /// [`NamerOptions::window_time`] in a window, and
    /// [`NamerOptions::request_time`] for the request that was running then.
    pub fn name(&mut self, object: &Object, addresses: &[u64]) -> Vec<Naming> {
        self.count_cpu(|namer| namer.find_names(object, addresses))
    }

    /// Does `work`, and charges its CPU time to the budget: this thread's and that of the threads which open files for it.
    fn count_cpu<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = thread_cpu() + self.pool.cpu();
        let result = work(self);
        let cpu = (thread_cpu() + self.pool.cpu()).saturating_sub(before);
        self.stats.asking_cpu += cpu;
        self.child.spend(cpu);
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
                // An address that could not be asked for again keeps its name.
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

    /// The load segments of a file, if it was read or is held.
    pub fn segments<'a>(&'a mut self, object: &'a Object) -> &'a [Segment] {
        let file = self.cache.file(ObjectKey::from(object));
        match (&file.facts, object) {
            (Some(facts), _) => &facts.segments,
            (None, Object::Elf(file)) => file.held.as_ref().map_or(&[], |held| held.segments()),
            (None, _) => &[],
        }
    }

    /// The facts of a file, if it was read.
    pub fn facts(&mut self, object: &Object) -> Option<&FileFacts> {
        self.cache.file(ObjectKey::from(object)).facts.as_ref()
    }

    /// Whether names come from a file's debug information, should it have any.
    pub fn uses_debug_info(&mut self, object: &Object) -> bool {
        let file = self.cache.file(ObjectKey::from(object));
        file.uses_debug_info() && !self.child.is_unconfined()
    }

    /// The names of code that a process made at run time, in the order of its addresses there.
    ///
    /// `held` is what was opened while the process lived, for when it has ended. Nothing is kept of the names but in the
    /// child: other code may lie there the next time. Of each address the newest code counts.
    pub fn name_jit(&mut self, pid: u32, held: Option<&HeldJit>, addresses: &[u64]) -> Vec<Naming> {
        let newest = |address: &u64| SampledAddress {
            address: *address,
            first_ns: u64::MAX,
            last_ns: u64::MAX,
        };
        let addresses: Vec<_> = addresses.iter().map(newest).collect();
        self.name_sampled_jit((pid, u64::MAX), held, &addresses)
    }

    /// As [`name_jit`](Self::name_jit), by the code that was there when the addresses were sampled. Where it was replaced
    /// meanwhile they have no name.
    ///
    /// The process is told by its number and a time, nanoseconds of CLOCK_MONOTONIC, at which it had started: one that
    /// started later has the number of one that has ended.
    pub fn name_sampled_jit(
        &mut self,
        process: (u32, u64),
        held: Option<&HeldJit>,
        addresses: &[SampledAddress],
    ) -> Vec<Naming> {
        self.count_cpu(|namer| {
            let namings = namer.jit.name(&mut namer.child, process, held, addresses);
            namings.iter().for_each(|naming| namer.stats.count(naming));
            namings
        })
    }

    /// Counts so far, and what the child takes now.
    pub fn stats(&self) -> NamerStats {
        self.child.add_to(NamerStats {
            cache_bytes: self.cache.bytes() as u64,
            cache_files: self.cache.files() as u64,
            cache_evictions: self.cache.evictions(),
            ..self.stats.clone()
        })
    }

    /// Number of the child's process, if one runs.
    pub fn child_pid(&self) -> Option<u32> {
        self.child.pid()
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
            let may_ask = self.child.may_ask();
            let answered = may_ask.and_then(|()| self.ask(object, &addresses));
            let failure = match answered {
                Ok(answered) => {
                    self.keep(key, &addresses, &answered);
                    let is_failure =
                        |cut: &Failure| matches!(cut, Failure::TimedOut | Failure::FileSystem);
                    answered.cut.filter(is_failure)
                }
                Err(failure) => Some(failure),
            };
            if let Some(failure) = failure {
                let backoff = &mut self.cache.file(key).backoff;
                backoff.note(Err(failure), self.window, self.retry_windows);
                return Some(failure.reason());
            }
        }
        None
    }

    /// The failure for which the file is backed off. A file that could not be opened is tried again as soon as it can be: when
    /// it is held, or when another process maps it.
    fn last_failure(&mut self, object: &Object) -> Option<Failure> {
        let file = self.cache.file(ObjectKey::from(object));
        let failure = file.backoff.failure(self.window)?;
        let is_over = match (failure, object) {
            (Failure::Missing(_), Object::Elf(file)) => self.opener.open(file).is_ok(),
            _ => false,
        };
        (!is_over).then_some(failure)
    }

    fn keep(&mut self, key: ObjectKey, addresses: &[u64], answered: &Answered) {
        let extent = match answered.cut {
            Some(Failure::Postponed | Failure::Missing(_) | Failure::FileSystem) => Extent::Cut,
            // An address on which the child failed is not asked for again.
            Some(Failure::Child(_) | Failure::TimedOut) | None => Extent::Whole,
        };
        let given = (self.window, extent);
        self.cache.keep(key, addresses, &answered.response, given);
        let backoff = &mut self.cache.file(key).backoff;
        backoff.note(Ok(()), self.window, self.retry_windows);
    }

    /// Sends a request. If the child dies of it, the request is repeated without debug information; if the answer names further
    /// files, with these. If the child hangs, only the file's next request goes without debug information.
    fn ask(&mut self, object: &Object, addresses: &[u64]) -> Result<Answered, Failure> {
        let key = ObjectKey::from(object);
        let file = self.cache.file(key);
        let (debug, links) = (file.debug, file.links());
        let uses_debug_info = matches!(object, Object::Elf(_)) && debug == UseDebugInfo::Yes;
        let response = match self.ask_with(object, debug, addresses, &[]) {
            Err(failure @ (Failure::Child(_) | Failure::TimedOut)) if uses_debug_info => {
                self.skip_debug_info(key);
                if failure == Failure::TimedOut {
                    return Err(failure);
                }
                self.child.may_ask()?;
                self.ask_with(object, UseDebugInfo::No, addresses, &[])?
            }
            result => result?,
        };
        let mut answered = Answered {
            response,
            cut: None,
        };
        if let Object::Elf(file) = object
            && self.cache.file(key).debug == UseDebugInfo::Yes
        {
            let response = &mut answered.response;
            answered.cut = self
                .ask_with_further_files(object, file, addresses, (links, response))
                .err();
            self.stats.split_files_left += answered.response.wanted.len() as u64;
            if let Some(Failure::Child(_) | Failure::TimedOut) = answered.cut {
                // The next request would fail in the same way.
                self.skip_debug_info(key);
            }
        }
        Ok(answered)
    }

    /// Repeats a request with the files that the last answer named, until an answer names no more. `links` were known
    /// before the first request. The last answer replaces `response`.
    ///
    /// # Errors
    /// The reason why a request was not repeated. `response` is the last answer then.
    fn ask_with_further_files(
        &mut self,
        object: &Object,
        file: &Arc<ElfFile>,
        addresses: &[u64],
        (mut links, response): (Links, &mut Response),
    ) -> Result<(), Failure> {
        let key = ObjectKey::from(object);
        for _ in 0..REPETITIONS_MAX {
            let now = self.cache.file(key).links();
            let has_more = self.has_more(key, file, links, now);
            if !has_more && response.wanted.is_empty() {
                break;
            }
            self.child.may_ask()?;
            // A package has all split files.
            let split = if has_more {
                Vec::new()
            } else {
                self.opener.find_split(file, &response.wanted)
            };
            let missing = split.iter().filter(|(_, file)| file.is_none());
            self.stats.split_files += split.len() as u64;
            self.stats.split_files_missing += missing.count() as u64;
            links = now;
            *response = self.ask_with(object, UseDebugInfo::Yes, addresses, &split)?;
        }
        Ok(())
    }

    /// From now on the file is named by its symbol table.
    fn skip_debug_info(&mut self, key: ObjectKey) {
        let file = self.cache.file(key);
        self.stats.files_without_debug_info += u64::from(file.uses_debug_info());
        file.debug = UseDebugInfo::No;
    }

    /// Whether a link that is known `now` and was not known `before` leads to a file.
    fn has_more(&mut self, key: ObjectKey, file: &Arc<ElfFile>, before: Links, now: Links) -> bool {
        let is_linked = now.debug_file && !before.debug_file;
        let is_shared = now.alternative && !before.alternative;
        let is_split = now.split && !before.split;
        if !(is_linked || is_shared || is_split) {
            return false;
        }
        let program = self.opener.open(file).ok();
        let facts = self.cache.file(key).facts.as_ref();
        let found = self.opener.find_linked(file, program.as_ref(), facts);
        (is_linked && found.debug_file.is_some())
            || (is_shared && found.alternative.is_some())
            || (is_split && found.package.is_some())
    }

    fn ask_with(
        &mut self,
        object: &Object,
        debug: UseDebugInfo,
        addresses: &[u64],
        split: &[(u64, Option<OwnedFd>)],
    ) -> Result<Response, Failure> {
        let key = ObjectKey::from(object);
        let number = self.cache.file(key).number;
        let mut found = FoundFiles::default();
        let (requested, opened) = match object {
            Object::Kernel(readings) => (RequestObject::Kernel(*readings), Ok(None)),
            Object::Vdso => (RequestObject::Vdso, Ok(None)),
            Object::Elf(file) => {
                let opened = self.opener.open(file);
                if let Err(reason @ UnnamedReason::NotAnswering) = opened {
                    // The child would hang on what it has open of it.
                    return Err(Failure::Missing(reason));
                }
                if debug == UseDebugInfo::Yes {
                    let facts = self.cache.file(key).facts.as_ref();
                    found = self.opener.find_linked(file, opened.as_ref().ok(), facts);
                }
                let requested = RequestObject::Elf(ElfObject {
                    file: number,
                    debug,
                    build_id: file.build_id,
                    attached: opened.is_ok(),
                    debug_file: found.debug_file.as_ref().map(|(_, found_by)| *found_by),
                    alternative: found.alternative.is_some(),
                    package: found.package.is_some(),
                });
                (requested, opened.map(Some))
            }
        };
        let file = opened.as_ref().ok().and_then(Option::as_ref);
        let files = file
            .into_iter()
            .chain(found.debug_file.as_ref().map(|(file, _)| file))
            .chain(&found.alternative)
            .chain(&found.package)
            .chain(split.iter().filter_map(|(_, file)| file.as_ref()));
        let files: Vec<BorrowedFd<'_>> = files.map(AsFd::as_fd).collect();
        let parts = split.iter().map(|(id, file)| SplitPart {
            id: *id,
            attached: file.is_some(),
        });
        let request = Request {
            id: 0,
            object: requested,
            addresses: addresses.to_vec(),
            split: parts.collect(),
        };
        let mut response = self.child.ask(request, &files, object)?;
        let known = self.cache.file(key);
        let is_refused = response.without_debug_info;
        if is_refused && known.uses_debug_info() {
            self.stats.files_without_debug_info += 1;
            info!(%object, "debug information is damaged, using the symbol table");
        }
        known.debug_refused = is_refused;
        if let Some(Facts(facts)) = response.facts.take() {
            self.cache.keep_facts(key, facts);
        }
        match opened {
            Err(reason) if response.is_all_gone() => Err(Failure::Missing(reason)),
            _ => Ok(response),
        }
    }
}

/// An answer about a file.
struct Answered {
    response: Response,
    /// Why there is not more of it, if there may be more.
    cut: Option<Failure>,
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
