//! The thread `prove`: unwinds a few stacks again, with an unwinder that shares nothing with ours,
//! and compares.
//!
//! In: stacks that the kernel walked to their end, with copies. Out: whether both agree, frame by
//! frame. The program bounds how many there are (five a second and processor).
//!
//! One in 1,000 complete walks (`--prove-one-in`) comes with a copy of its stack. The result goes
//! into `/metrics` by program, and to the sample as the label `check`.
//!
//! framehop keeps `rsp` and `rbp` alone, reads no memory for an expression, and falls back to the
//! frame pointer elsewhere. OpenSSL's assembly has its frame's address in `rax` or in memory, and
//! so have the callers of signal handlers. If both unwinders differ behind such code, the stack
//! counts as not compared (`unchecked_stacks_total`).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    time::Duration,
};

use anyhow::Result;
use profiler_bpf::settings::USER_FRAMES_MAX;

use super::evaluator::open;
use crate::{
    aggregate::Check,
    blocking_pool::BlockingPool,
    process::{Mapping, Mappings},
    sample::CopiedStack,
    threads::spawn,
    unwind::{MappedSections, Sections, TableKey, are_followed, walk_again},
};

/// Maximum number of waiting stacks. Further ones are dropped and counted.
const QUEUE_MAX: usize = 64;

/// Maximum size of a file's section. Compilers have larger ones: stacks through them are not
/// compared.
const SECTION_BYTES_MAX: u64 = 8 << 20;

/// Size of the section cache, for the most recent files.
const CACHE_BYTES_MAX: usize = 4 << 20;

/// Time limit for reading the sections of a file.
const READ_TIME: Duration = Duration::from_secs(5);

/// A stack to unwind again.
pub(super) struct Proof {
    pub(super) number: u64,
    pub(super) pid: u32,
    pub(super) mappings: Arc<Mappings>,
    pub(super) stack: Arc<CopiedStack>,
    /// Frames of the kernel's walk, innermost first.
    pub(super) frames: Vec<u64>,
}

/// The result of a comparison.
pub(super) struct Proved {
    pub(super) number: u64,
    pub(super) check: Check,
}

/// The sampler's handle of the thread.
pub(super) struct Prover {
    to: SyncSender<Proof>,
    from: Receiver<Proved>,
}

impl Prover {
    /// Starts the thread. It ends after the current proof once this is dropped, and nobody waits
    /// for it: a proof may take seconds if a file system does not answer.
    pub(super) fn start(pool: &BlockingPool) -> Result<Self> {
        let (to, proofs) = sync_channel(QUEUE_MAX);
        let (results, from) = channel();
        let pool = pool.with_own_cpu_account();
        spawn("prove", move || run(&proofs, &results, pool))?;
        Ok(Self { to, from })
    }

    /// Queues a stack. Returns `false` if the queue is full.
    pub(super) fn push(&self, proof: Proof) -> bool {
        self.to.try_send(proof).is_ok()
    }

    /// The next result, if there is one.
    pub(super) fn pop(&self) -> Option<Proved> {
        self.from.try_recv().ok()
    }
}

fn run(proofs: &Receiver<Proof>, results: &Sender<Proved>, pool: BlockingPool) {
    let mut files = Files {
        pool,
        ..Files::default()
    };
    for proof in proofs {
        let check = compare(&proof, &mut files);
        let number = proof.number;
        if results.send(Proved { number, check }).is_err() {
            return;
        }
    }
}

/// Unwinds the stack again, if the sections of all its files are available.
fn compare(proof: &Proof, files: &mut Files) -> Check {
    let Proof {
        pid,
        mappings,
        stack,
        frames,
        ..
    } = proof;
    let mut modules: Vec<MappedSections> = Vec::new();
    for frame in frames {
        // For a return address, the code before it.
        let Some(mapping) = mappings.find(frame.wrapping_sub(1)) else {
            return Check::None;
        };
        let is_known = |module: &MappedSections| module.mapped_at.contains(&mapping.start);
        if modules.iter().any(is_known) {
            continue;
        }
        let Some(key) = TableKey::of(&mapping.file) else {
            // JIT code has no sections.
            continue;
        };
        let Some(sections) = files.find(&key, *pid, mapping) else {
            return Check::None;
        };
        modules.push(MappedSections {
            mapped_at: mapping.start..mapping.end,
            file_offset: mapping.file_offset,
            sections,
        });
    }
    let again = walk_again(
        &stack.registers,
        |address| stack.read(address),
        &modules,
        USER_FRAMES_MAX + 1,
    );
    if again.frames == *frames {
        return Check::Agreed;
    }
    let pairs = again.frames.iter().zip(frames);
    let depth = pairs.take_while(|(a, b)| a == b).count();
    let place = depth
        .checked_sub(1)
        .and_then(|last| frames.get(last).copied());
    let place = place.and_then(|at| Some((mappings.find(at.wrapping_sub(1))?, at)));
    tracing::debug!(
        pid,
        depth,
        ours = frames.len(),
        other = again.frames.len(),
        again.has_ended,
        at = place.map(|(mapping, at)| format!(
            "{}+{:#x}",
            mapping.file.path,
            mapping.offset_of(at)
        )),
        "the second unwinder differs behind this frame"
    );
    if depth == again.frames.len() && !again.has_ended || !are_followed(&frames[..depth], &modules)
    {
        // Both agree so far, but the second unwinder cannot continue, or is guessing.
        return Check::None;
    }
    Check::Differed
}

/// Cached sections of the most recent files.
#[derive(Default)]
struct Files {
    /// The most recently used last; `None` for a file without sections or with too large ones.
    kept: VecDeque<(TableKey, Option<Arc<Sections>>)>,
    bytes: usize,
    pool: BlockingPool,
}

impl Files {
    /// Number of cached entries, with and without sections.
    const FILES_MAX: usize = 256;

    fn find(&mut self, key: &TableKey, pid: u32, mapping: &Mapping) -> Option<Arc<Sections>> {
        if let Some(place) = self.kept.iter().position(|(kept, _)| kept == key) {
            let found = self.kept.remove(place)?;
            let sections = found.1.clone();
            self.kept.push_back(found);
            return sections;
        }
        let opened = open(pid, mapping, &self.pool).ok().flatten();
        let sections = opened.and_then(|(file, resource)| {
            let read = move || Sections::read(&file, SECTION_BYTES_MAX);
            self.pool.run(resource, READ_TIME, read).flatten()
        });
        let sections = sections.map(Arc::new);
        self.bytes += sections.as_ref().map_or(0, |sections| sections.bytes());
        self.kept.push_back((key.clone(), sections.clone()));
        while self.bytes > CACHE_BYTES_MAX || self.kept.len() > Self::FILES_MAX {
            let Some((_, dropped)) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= dropped.map_or(0, |sections| sections.bytes());
        }
        sections
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// The other end of a prover without a thread.
    pub(in super::super) struct ProverEnd {
        pub(in super::super) proofs: Receiver<Proof>,
        pub(in super::super) results: Sender<Proved>,
    }

    /// A prover, and the other end of it.
    pub(in super::super) fn detached() -> (Prover, ProverEnd) {
        let (to, proofs) = sync_channel(QUEUE_MAX);
        let (results, from) = channel();
        (Prover { to, from }, ProverEnd { proofs, results })
    }
}
