//! The thread `prove`: unwinds a few stacks again, with an unwinder that shares nothing with ours,
//! and compares.
//!
//! In: stacks that the kernel walked to their end, with copies. Out: whether both agree, frame by
//! frame. The program bounds how many there are (five a second and processor).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use object::ReadCache;
use profiler_bpf::settings::USER_FRAMES_MAX;

use super::{evaluator::open, spawn};
use crate::{
    aggregate::Check,
    patience::Patience,
    process::{Mapping, Mappings},
    sample::CopiedStack,
    unwind::{MappedSections, Sections, TableKey, are_followed, walk_again},
};

/// Stacks that may wait. They are dropped beyond, which is counted.
const QUEUE_MAX: usize = 64;

/// Bytes of a section of one file. A compiler's are larger: stacks through it are not compared.
const SECTION_BYTES_MAX: u64 = 8 << 20;

/// Bytes of sections kept, of the files that were met last.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// How long reading the sections of a file may take.
const READ_TIME: Duration = Duration::from_secs(5);

/// A stack to be walked again.
pub(super) struct Proof {
    pub(super) number: u64,
    pub(super) pid: u32,
    pub(super) mappings: Arc<Mappings>,
    pub(super) stack: Arc<CopiedStack>,
    /// What the kernel found, innermost first.
    pub(super) frames: Vec<u64>,
}

/// What came of it.
pub(super) struct Proved {
    pub(super) number: u64,
    pub(super) check: Check,
}

/// The sampler's end of the thread.
pub(super) struct Prover {
    to: Option<SyncSender<Proof>>,
    from: Receiver<Proved>,
    thread: Option<JoinHandle<()>>,
}

impl Prover {
    /// Starts the thread.
    pub(super) fn start(patience: &Patience) -> Result<Self> {
        let (to, proofs) = sync_channel(QUEUE_MAX);
        let (results, from) = channel();
        let patience = patience.on_own_account();
        let thread = spawn("prove", move || run(&proofs, &results, patience))?;
        Ok(Self {
            to: Some(to),
            from,
            thread: Some(thread),
        })
    }

    /// Hands over a stack. Gives `false` when too many wait.
    pub(super) fn push(&self, proof: Proof) -> bool {
        self.to
            .as_ref()
            .is_some_and(|to| to.try_send(proof).is_ok())
    }

    /// A stack that was compared meanwhile.
    pub(super) fn pop(&self) -> Option<Proved> {
        self.from.try_recv().ok()
    }
}

impl Drop for Prover {
    fn drop(&mut self) {
        self.to = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(proofs: &Receiver<Proof>, results: &Sender<Proved>, patience: Patience) {
    let mut files = Files {
        patience,
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

/// Walks the stack again, through files whose sections can all be had.
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
        // Of a return address, the code before it.
        let Some(mapping) = mappings.find(frame.wrapping_sub(1)) else {
            return Check::None;
        };
        let is_known = |it: &MappedSections| it.mapped_at.contains(&mapping.start);
        if modules.iter().any(is_known) {
            continue;
        }
        let Some(key) = TableKey::of(&mapping.file) else {
            // Code made at run time has no sections.
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
    let place = depth.checked_sub(1).and_then(|it| frames.get(it).copied());
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
        // So far both are the same, and it knows no more, or guesses.
        return Check::None;
    }
    Check::Differed
}

/// The sections of files, those that were met last.
#[derive(Default)]
struct Files {
    /// In the order in which they were met; `None` for one that has none, or too large ones.
    kept: VecDeque<(TableKey, Option<Arc<Sections>>)>,
    bytes: usize,
    patience: Patience,
}

impl Files {
    /// Entries kept, with and without sections.
    const FILES_MAX: usize = 256;

    fn find(&mut self, key: &TableKey, pid: u32, mapping: &Mapping) -> Option<Arc<Sections>> {
        if let Some(place) = self.kept.iter().position(|(it, _)| it == key) {
            let found = self.kept.remove(place)?;
            let sections = found.1.clone();
            self.kept.push_back(found);
            return sections;
        }
        let opened = open(pid, mapping, &self.patience).ok().flatten();
        let sections = opened.and_then(|(file, place)| {
            let read = move || Sections::read(&ReadCache::new(file), SECTION_BYTES_MAX);
            self.patience.run(place, READ_TIME, read).flatten()
        });
        let sections = sections.map(Arc::new);
        self.bytes += sections.as_ref().map_or(0, |it| it.bytes());
        self.kept.push_back((key.clone(), sections.clone()));
        while self.bytes > CACHE_BYTES_MAX || self.kept.len() > Self::FILES_MAX {
            let Some((_, dropped)) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= dropped.map_or(0, |it| it.bytes());
        }
        sections
    }
}
