//! The thread `name`: names, labels, pprof, and on to the sender.

use std::{cmp::Reverse, sync::Arc};

use pprof::protos::Message as _;
use proto::v1::{FileLayout, OutcomeCount, PushRequest, Segment, SymbolOffer, WindowAccount};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{holder::Held, sampler::ClosedWindow};
use crate::{
    accounts::ProcessAccount,
    aggregate::{Window, WindowFile},
    config::Config,
    label::make_label_set,
    metrics::{SharedMetrics, Stage},
    name::{
        ElfFile, FileKey, Frame, HeldFile, Inode, MappedBy, Namer, Naming, Object, UnnamedReason,
    },
    patience::{LOOK_TIME, Patience},
    process::{ContentId, FileIdentity, FileKind, MappedFile, identify, read_content_id},
    profile::build_profile,
    queue::Queue,
    send::Sender,
    upload::{Offer, Offers, SeenFile},
};

/// zstd's level: 3 is its default; higher ones save a tenth of the bytes for twice the time.
const ZSTD_LEVEL: i32 = 3;

/// Layouts in one message, the server's limit. A window of a busy node has some hundred files.
const FILE_LAYOUTS_MAX: usize = 4096;

pub(super) struct Finisher {
    node: String,
    instance: [u8; 16],
    sequence: u64,
    namer: Namer,
    held: Held,
    patience: Patience,
    sender: Sender,
    metrics: SharedMetrics,
    /// What the server could be sent; `None` when nothing is.
    offers: Option<Offers>,
    own_cpu_before_ns: u64,
}

impl Finisher {
    pub(super) fn new(
        config: &Config,
        naming: (Namer, Held, Patience),
        sender: Sender,
        metrics: SharedMetrics,
    ) -> Self {
        let (namer, held, patience) = naming;
        Self {
            node: config.node.clone(),
            instance: draw_instance(),
            sequence: 0,
            namer,
            held,
            patience,
            sender,
            metrics,
            offers: (config.upload_rate > 0).then(Offers::default),
            own_cpu_before_ns: 0,
        }
    }

    /// The collector's name in its messages.
    pub(super) fn instance(&self) -> [u8; 16] {
        self.instance
    }

    /// What the server could be sent, if anything is.
    pub(super) fn offers(&self) -> Option<Offers> {
        self.offers.clone()
    }

    /// Runs until the queue is closed and empty; gives the sender back for its drain.
    pub(super) fn run(mut self, queue: &Queue<ClosedWindow>) -> Sender {
        while let Some(closed) = queue.pop() {
            let samples = closed.window.samples();
            let end_ns = closed.bounds.end_ns;
            match self.finish(closed) {
                Ok(request) => self.sender.push(&request, samples),
                Err(err) => {
                    tracing::error!(%err, samples, "failed to compress a profile: dropped a window");
                    self.metrics.lock().drop_samples(Stage::Name, samples);
                }
            }
            self.namer.end_window();
            let held = self.held.end_window(end_ns);
            let mut metrics = self.metrics.lock();
            metrics.namer = self.namer.stats();
            metrics.held = held;
            metrics.patience = self.patience.stats();
            metrics.name_queue = queue.len();
            drop(metrics);
        }
        self.sender
    }

    fn finish(&mut self, closed: ClosedWindow) -> std::io::Result<PushRequest> {
        let ClosedWindow {
            bounds,
            window,
            account,
        } = closed;
        let (namings, file_layouts) = self.name_frames(&window);
        let duration_ns = bounds.end_ns - bounds.start_ns;
        let built = build_profile(
            &window,
            &namings,
            bounds.start_unix_ns,
            duration_ns,
            account.sample_ns,
        );
        let profile = built.profile.encode_to_vec();
        let profile_zstd = zstd::bulk::compress(&profile, ZSTD_LEVEL)?;
        let series = window
            .series()
            .iter()
            .map(|series| make_label_set(&self.node, series))
            .collect();

        // Entries are the samples in the window and those that ended without a record.
        let mut outcomes: Vec<OutcomeCount> = window
            .outcomes()
            .into_iter()
            .map(|(outcome, count)| outcome_count(outcome.name(), count))
            .collect();
        let lost = account.lost.iter();
        outcomes.extend(lost.map(|(outcome, count)| outcome_count(outcome.name(), *count)));
        let dropped: Vec<OutcomeCount> = account
            .dropped
            .iter()
            .map(|(stage, count)| outcome_count(stage.name(), *count))
            .collect();
        outcomes.extend(dropped.iter().cloned());
        let entries = outcomes.iter().map(|it| it.count).sum();

        let own = ProcessAccount::read_own();
        let own_cpu_ns = own.cpu_ns() + self.namer.stats().child_cpu_ns;
        let collector_cpu_ns = own_cpu_ns.saturating_sub(self.own_cpu_before_ns);
        self.own_cpu_before_ns = own_cpu_ns;
        self.sequence += 1;
        let unnamed = &built.unnamed;
        Ok(PushRequest {
            collector_instance: self.instance.to_vec(),
            sequence: self.sequence,
            node: self.node.clone(),
            window_start_ms: (bounds.start_unix_ns / 1_000_000) as i64,
            window_ms: (duration_ns / 1_000_000) as i64,
            series,
            profile_bytes: profile.len() as u64,
            profile_zstd: profile_zstd.into(),
            account: Some(WindowAccount {
                entries,
                outcomes,
                expected: account.expected,
                sampled_ns: window.samples() * account.sample_ns,
                busy_ns: account.busy_ns,
                dropped,
                collector_cpu_ns,
                bpf_ns: account.bpf_ns,
            }),
            unnamed_location_ids: unnamed.iter().map(|it| it.id).collect(),
            unnamed_reasons: unnamed.iter().map(|it| it.reason.into()).collect(),
            unnamed_function_distances: unnamed.iter().map(|it| it.function_distance).collect(),
            file_layouts,
        })
    }

    /// The names of the window's frames, parallel to them, and the layouts of files in which some have none.
    ///
    /// What has most samples is asked for first, for when the time does not last.
    fn name_frames(&mut self, window: &Window) -> (Vec<Naming>, Vec<FileLayout>) {
        let mut namings = vec![Naming::Unnamed(UnnamedReason::Limit); window.frames().len()];
        let mut layouts = Vec::new();
        for (file, places) in by_weight(window) {
            let offsets: Vec<u64> = places
                .iter()
                .map(|it| window.frames()[*it].offset)
                .collect();
            let named = self.name_file(file, &offsets, &mut layouts);
            for (place, naming) in places.into_iter().zip(named) {
                namings[place] = naming;
            }
        }
        (namings, layouts)
    }

    fn name_file(
        &mut self,
        file: &WindowFile,
        offsets: &[u64],
        layouts: &mut Vec<FileLayout>,
    ) -> Vec<Naming> {
        if file.file.kind == FileKind::LeftOut {
            return vec![name_left_out(&file.file.path); offsets.len()];
        }
        if let (FileKind::Anonymous, Some(by)) = (file.file.kind, file.mapped_by.last()) {
            let held = self.held.find_jit(by.pid);
            return self.namer.name_jit(by.pid, held.as_deref(), offsets);
        }
        let object = match self.find_object(file) {
            Ok(object) => object,
            Err(reason) => return vec![Naming::Unnamed(reason); offsets.len()],
        };
        let named = self.namer.name(&object, offsets);
        if layouts.len() < FILE_LAYOUTS_MAX {
            layouts.extend(self.make_layout(&object, &named));
        }
        named
    }

    /// What a file's offsets are to be named in, or why they cannot be.
    fn find_object(&self, file: &WindowFile) -> Result<Object, UnnamedReason> {
        match file.file.kind {
            FileKind::Kernel => Ok(Object::Kernel),
            FileKind::Vdso => Ok(Object::Vdso),
            FileKind::File => {
                let held = self.held.find(&file.file);
                Ok(Object::Elf(Arc::new(describe_file(
                    file,
                    held,
                    &self.patience,
                ))))
            }
            FileKind::Anonymous => Err(UnnamedReason::Anonymous),
            FileKind::NoMapping => Err(UnnamedReason::NoMapping),
            FileKind::NoProcess => Err(UnnamedReason::ProcessUnknown),
            FileKind::Limit | FileKind::LeftOut => Err(UnnamedReason::Limit),
        }
    }

    /// How a file with a build id is mapped, and what of it the server could be sent, where something is lacking.
    fn make_layout(&mut self, object: &Object, named: &[Naming]) -> Option<FileLayout> {
        let Object::Elf(file) = object else {
            return None;
        };
        let build_id = file.build_id?;
        let has_unnamed = named.iter().any(|it| it.unnamed().is_some());
        let offer = self.offer(file, object, named);
        let segments = match has_unnamed {
            true => self.namer.segments(object),
            false => &[],
        };
        let segments: Vec<Segment> = segments
            .iter()
            .map(|it| Segment {
                file_offset: it.file_offset,
                address: it.address,
                bytes: it.bytes,
            })
            .collect();
        let says_nothing = segments.is_empty() && offer == Offer::None;
        (!says_nothing).then(|| FileLayout {
            build_id: build_id.to_string(),
            segments,
            offer: SymbolOffer::from(offer).into(),
        })
    }

    /// What the node has of a file and did not use. A file that it used and that has no name for an address is no help
    /// elsewhere.
    fn offer(&mut self, file: &Arc<ElfFile>, object: &Object, named: &[Naming]) -> Offer {
        let Some((offers, least)) = self.offers.as_ref().zip(find_least(named)) else {
            return Offer::None;
        };
        let is_used = self.namer.uses_debug_info(object);
        let thinks = match self.namer.facts(object) {
            Some(_) if is_used && least == Offer::DebugInfo => return Offer::None,
            Some(facts) if facts.has_debug_info => Offer::DebugInfo,
            // Its debug information may be in a file of its own.
            Some(_) | None => Offer::Unknown,
        };
        let seen = SeenFile {
            // What is held is let go when its window is named, lest it keep a file system from being unmounted.
            file: Arc::new(ElfFile {
                held: None,
                ..(**file).clone()
            }),
            thinks,
            least,
        };
        file.build_id
            .map_or(Offer::None, |build_id| offers.note(build_id, seen))
    }
}

/// The window's files with the places of their frames, those with most samples first.
fn by_weight(window: &Window) -> Vec<(&WindowFile, Vec<usize>)> {
    let samples = window.samples_by_frame();
    let mut files: Vec<(u64, &WindowFile, Vec<usize>)> = window
        .files()
        .iter()
        .map(|file| (0, file, Vec::new()))
        .collect();
    for (place, frame) in window.frames().iter().enumerate() {
        let (weight, _, places) = &mut files[frame.file as usize];
        *weight += samples[place];
        places.push(place);
    }
    files.sort_by_key(|(weight, ..)| Reverse(*weight));
    for (.., places) in &mut files {
        places.sort_by_key(|place| Reverse(samples[*place]));
    }
    files
        .into_iter()
        .map(|(_, file, places)| (file, places))
        .collect()
}

/// The least that helps a file's frames: names, where they have none for a reason that lies with the node; debug information,
/// where all have names, but some no source file.
fn find_least(named: &[Naming]) -> Option<Offer> {
    let least = named.iter().filter_map(|naming| match naming {
        Naming::Unnamed(UnnamedReason::Limit | UnnamedReason::Corrupt) => Some(Offer::SymbolTable),
        Naming::Unnamed(_) | Naming::InFunction(_) => None,
        Naming::Named(frames) => {
            let has_source = frames.last().is_some_and(|it| !it.file.is_empty());
            (!has_source).then_some(Offer::DebugInfo)
        }
    });
    least.min()
}

/// What stands for frames that were left out has no code, and is its own name.
fn name_left_out(name: &Arc<str>) -> Naming {
    let none: Arc<str> = "".into();
    Naming::Named(
        [Frame {
            function: name.clone(),
            system_name: none.clone(),
            file: none,
            line: 0,
            column: 0,
            start_line: 0,
            inlined: false,
        }]
        .into(),
    )
}

/// The file with the identity that its contents give it, for which it is read if it must be.
fn describe_file(file: &WindowFile, held: Option<Arc<HeldFile>>, patience: &Patience) -> ElfFile {
    let WindowFile {
        file, mapped_by, ..
    } = file;
    let mut described = describe_unread(file, mapped_by);
    if file.content.get().is_none() {
        let (identity, candidates) = (file.identity, described.candidates.clone());
        let of_held = held.clone();
        let read = move || {
            let read = |it: &MappedBy| read_content_id(it.pid, it.start, it.end, identity);
            let of_held = of_held.and_then(|it| identify(&it.read()?));
            of_held.or_else(|| candidates.iter().find_map(read))
        };
        if let Some(id) = patience.run(described.place(), LOOK_TIME, read).flatten() {
            // Another thread may not set it: this is the only one that does.
            let _ = file.content.set(id);
            described = describe_unread(file, mapped_by);
        }
    }
    ElfFile { held, ..described }
}

/// The file as far as it is known without reading it.
pub(super) fn describe_unread(file: &MappedFile, mapped_by: &[MappedBy]) -> ElfFile {
    let content = file.content.get().copied();
    let build_id = match content {
        Some(ContentId::BuildId(id)) => Some(id),
        Some(ContentId::Hash(_)) | None => None,
    };
    let inode = match file.identity {
        FileIdentity::Inode { device, inode, .. } => Some(Inode {
            major: rustix::fs::major(device),
            minor: rustix::fs::minor(device),
            number: inode,
        }),
        FileIdentity::BuildId(_) | FileIdentity::Path => None,
    };
    let key = match content {
        Some(ContentId::BuildId(id)) => FileKey::BuildId(id),
        Some(ContentId::Hash(hash)) => FileKey::FileId(hash),
        // Gone before it was opened: named, if at all, by path and inode.
        None => FileKey::FileId(xxhash_rust::xxh3::xxh3_128(
            format!("{}\0{:?}", file.path, file.identity).as_bytes(),
        )),
    };
    ElfFile {
        key,
        path: file.path.to_string().into(),
        build_id,
        inode,
        candidates: mapped_by.iter().rev().copied().collect(),
        held: None,
    }
}

fn outcome_count(outcome: &str, count: u64) -> OutcomeCount {
    OutcomeCount {
        outcome: outcome.to_owned(),
        count,
    }
}

/// 16 random bytes, or without a source of them the time and the process number,
/// which no other collector has at the same time on the same node.
fn draw_instance() -> [u8; 16] {
    let mut instance = [0; 16];
    if getrandom(&mut instance, GetRandomFlags::empty()) != Ok(instance.len()) {
        instance[..8].copy_from_slice(&crate::clock::unix_ns().to_le_bytes());
        instance[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    }
    instance
}

#[cfg(test)]
mod tests {
    use profiler_bpf::outcome::Outcome;

    use super::*;
    use crate::{
        aggregate::{Check, SeriesKey},
        locate::{Located, LocatedFrame, StackOutcome},
        process::Files,
    };

    /// Check that files and their frames are named in the order of their samples, callers included.
    #[test]
    fn what_has_most_samples_is_first() {
        let mut files = Files::new();
        let [program, library] = [b"/program", b"/library"]
            .map(|path| files.intern(FileKind::File, path, FileIdentity::Path));
        let mut window = Window::default();
        // Outermost first: the program's 1 calls all others.
        for (leaf, samples) in [((&library, 7), 1), ((&library, 8), 3), ((&program, 9), 2)] {
            for _ in 0..samples {
                let stack = [(&program, 1), leaf];
                let frames = stack.map(|(file, offset)| LocatedFrame::stand_in(file, offset));
                let located = Located {
                    frames: frames.into(),
                    outcome: StackOutcome::Walked(Outcome::Complete),
                    parent: 0,
                };
                let series = SeriesKey {
                    comm: "a".into(),
                    exe: None,
                    container_id: None,
                };
                assert!(window.add(1, [0; 16], series, &located, Check::None));
            }
        }
        let order: Vec<(&str, Vec<u64>)> = by_weight(&window)
            .into_iter()
            .map(|(file, places)| {
                let offsets = places.iter().map(|it| window.frames()[*it].offset);
                (&*file.file.path, offsets.collect())
            })
            .collect();
        assert_eq!(order, [("/program", vec![1, 9]), ("/library", vec![8, 7])]);
    }
}
