//! The thread `name`: names and labels a window, encodes it as pprof and hands it to the sender.

use std::{cmp::Reverse, mem, sync::Arc};

use metrics::Figures;
use pprof::protos::Message as _;
use profile::LabelSet;
use proto::v1::{FileLayout, OutcomeCount, PushRequest, Segment, SymbolOffer, WindowAccount};

use super::{
    account::Account,
    dropped::{DroppedSamples, Stage},
    label_messages::{label_containers, label_set_message},
    open_files::{OpenFileCache, OpenFileStats},
    sent_layouts::SentLayouts,
    unread_file::describe_unread,
    windows::ClosedWindow,
};
use crate::{
    accounts::ProcessAccount,
    aggregate::{Maker, Window, WindowFile},
    blocking_pool::{BlockingPool, FILE_DEADLINE},
    config::Config,
    file::{ElfFile, FileFormat, HeldFile, UnnamedReason},
    label::{LabelStats, Labeller, WindowLabels},
    metrics::Stats,
    name::{Frame, Namer, NamerStats, Naming, Object, Readings, SampledAddress},
    process::{
        Contents, FileKind, KernelCode, KernelOwner, MappedFile, is_unloaded, module_of,
        read_contents,
    },
    profile::{build_profile, mapping_id, split_module},
    queue::Queue,
    send::Sender,
    upload::{Offer, Offers, SeenFile},
};

/// zstd's level: 3 is its default; higher ones save a tenth of the bytes for twice the time.
const ZSTD_LEVEL: i32 = 3;

/// Layouts in one message, the server's limit. A window of a busy node has some hundred files.
const FILE_LAYOUTS_MAX: usize = 4096;

/// Counts since the start, as of the last window that was named.
#[derive(Clone, Debug, Default)]
pub(super) struct NamingStats {
    pub(super) namer: NamerStats,
    pub(super) held: OpenFileStats,
    pub(super) labels: LabelStats,
}

impl NamingStats {
    /// Writes the figures.
    pub(super) fn show(&self, figures: &mut Figures<'_>) {
        self.namer.show(figures);
        self.held.show(figures);
        self.labels.show(figures);
    }
}

pub(super) struct WindowPublisher {
    node: String,
    instance: [u8; 16],
    sequence: u64,
    namer: Namer,
    held: OpenFileCache,
    kernel_code: KernelCode,
    labeller: Labeller,
    pool: BlockingPool,
    sender: Sender,
    dropped: DroppedSamples,
    stats: Stats<NamingStats>,
    /// Files that the server can ask for; `None` when none are sent.
    offers: Option<Offers>,
    sent_layouts: SentLayouts,
    own_cpu_before_ns: u64,
}

/// The sources of names and labels.
pub(super) struct Names {
    pub(super) namer: Namer,
    pub(super) held: OpenFileCache,
    pub(super) kernel_code: KernelCode,
    pub(super) labeller: Labeller,
    pub(super) pool: BlockingPool,
}

impl WindowPublisher {
    pub(super) fn new(
        config: &Config,
        instance: [u8; 16],
        names: Names,
        sender: Sender,
        (dropped, stats): (DroppedSamples, Stats<NamingStats>),
    ) -> Self {
        let Names {
            namer,
            held,
            kernel_code,
            labeller,
            pool,
        } = names;
        Self {
            node: config.node.clone(),
            instance,
            sequence: 0,
            namer,
            held,
            kernel_code,
            labeller,
            pool,
            sender,
            dropped,
            stats,
            offers: (config.upload_rate > 0).then(|| Offers::new(&config.node)),
            sent_layouts: SentLayouts::default(),
            own_cpu_before_ns: 0,
        }
    }

    /// Files that the server can ask for; `None` when none are sent.
    pub(super) fn offers(&self) -> Option<Offers> {
        self.offers.clone()
    }

    /// Runs until the queue is closed and empty; gives the sender back for its drain.
    pub(super) fn run(mut self, queue: &Queue<ClosedWindow>) -> Sender {
        while let Some(mut closed) = queue.pop() {
            let end_ns = closed.bounds.end_ns;
            self.sent_layouts.begin_window(end_ns);
            let labels = self.label_series(&mut closed);
            let samples = closed.window.samples();
            match self.make_message(closed, &labels) {
                Ok(request) => self.sender.push(&request, samples),
                Err(err) => {
                    tracing::error!(%err, samples, "failed to compress a profile: dropped a window");
                    self.dropped.add(Stage::Name, samples);
                }
            }
            self.namer.end_window();
            let held = self.held.end_window(end_ns);
            *self.stats.lock() = NamingStats {
                namer: self.namer.stats(),
                held,
                labels: self.labeller.stats(),
            };
        }
        self.sender
    }

    /// The label sets of a window, which its rows refer to from now on.
    fn label_series(&mut self, closed: &mut ClosedWindow) -> Vec<LabelSet> {
        let ClosedWindow {
            bounds,
            window,
            account,
            usages: _,
        } = closed;
        let WindowLabels { sets, places } = self.labeller.label(window.series(), bounds.end_ns);
        let dropped = window.group_series(&places);
        if dropped > 0 {
            account.dropped.push((Stage::Relabel, dropped));
            self.dropped.add(Stage::Relabel, dropped);
        }
        sets
    }

    fn make_message(
        &mut self,
        closed: ClosedWindow,
        labels: &[LabelSet],
    ) -> std::io::Result<PushRequest> {
        let ClosedWindow {
            bounds,
            window,
            account,
            usages,
        } = closed;
        let containers = label_containers(&mut self.labeller, &usages, bounds.end_ns);
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
        let series = labels.iter().map(label_set_message).collect();

        self.sequence += 1;
        let unnamed = &built.unnamed;
        Ok(PushRequest {
            collector_instance: self.instance.to_vec(),
            sequence: self.sequence,
            node: self.node.clone(),
            window_start_ms: bounds.start_ms() as i64,
            window_ms: bounds.length_ms() as i64,
            series,
            profile_bytes: profile.len() as u64,
            profile_zstd: profile_zstd.into(),
            account: Some(self.make_account(&window, &account)),
            unnamed_location_ids: unnamed.iter().map(|location| location.id).collect(),
            unnamed_reasons: unnamed
                .iter()
                .map(|location| location.reason.code().into())
                .collect(),
            unnamed_function_distances: unnamed
                .iter()
                .map(|location| location.function_distance)
                .collect(),
            file_layouts,
            containers,
        })
    }

    /// The names of the window's frames, parallel to them, and the layouts of files.
    fn make_account(&mut self, window: &Window, account: &Account) -> WindowAccount {
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
        WindowAccount {
            entries: outcomes.iter().map(|outcome| outcome.count).sum(),
            outcomes,
            expected: account.expected,
            sampled_ns: window.samples() * account.sample_ns,
            busy_ns: account.busy_ns,
            dropped,
            collector_cpu_ns: self.take_own_cpu(),
            bpf_ns: account.bpf_ns,
            stolen_ns: account.stolen_ns,
        }
    }

    /// CPU time of the collector and its naming child since the last call.
    fn take_own_cpu(&mut self) -> u64 {
        let own = ProcessAccount::read_own();
        let own_cpu_ns = own.cpu_ns() + self.namer.stats().child_cpu_ns;
        own_cpu_ns.saturating_sub(mem::replace(&mut self.own_cpu_before_ns, own_cpu_ns))
    }

    ///
    /// Files and frames with most samples are named first, since the CPU time for names is limited.
    fn name_frames(&mut self, window: &Window) -> (Vec<Naming>, Vec<FileLayout>) {
        let mut namings = vec![Naming::Unnamed(UnnamedReason::Limit); window.frames().len()];
        let mut layouts = Vec::new();
        for (file, places) in by_weight(window) {
            let of_place =
                |place: &usize| (window.frames()[*place].offset, window.frame_times()[*place]);
            let (offsets, times): (Vec<u64>, Vec<(u64, u64)>) = places.iter().map(of_place).unzip();
            let first_layout = layouts.len();
            let named = match file.file.kind {
                FileKind::Kernel | FileKind::KernelModule | FileKind::KernelSymbol => {
                    self.name_kernel(&file.file, &offsets, &times)
                }
                _ => self.name_file(file, &offsets, &times, &mut layouts),
            };
            for (place, naming) in places.into_iter().zip(named) {
                for layout in &mut layouts[first_layout..] {
                    layout.mapping_id = mapping_id(window.frames()[place]);
                }
                namings[place] = naming;
            }
        }
        (namings, layouts)
    }

    fn name_file(
        &mut self,
        file: &WindowFile,
        offsets: &[u64],
        times: &[(u64, u64)],
        layouts: &mut Vec<FileLayout>,
    ) -> Vec<Naming> {
        if file.file.kind == FileKind::LeftOut {
            return vec![name_by_path(&file.file.path); offsets.len()];
        }
        if let Some(maker) = file.maker() {
            return self.name_made(maker, offsets, times);
        }
        let object = match self.find_object(file) {
            Ok(object) => object,
            Err(reason) => return vec![Naming::Unnamed(reason); offsets.len()],
        };
        // Only now that the file was looked at.
        match (file.file.format.get(), &file.made_by) {
            (Some(FileFormat::Memory), Some(maker)) => {
                return self.name_made(maker, offsets, times);
            }
            (Some(FileFormat::Other), Some(maker)) => {
                let mut namings = self.name_made(maker, offsets, times);
                let unnamed = namings
                    .iter_mut()
                    .filter(|naming| naming.unnamed().is_some());
                unnamed.for_each(|naming| *naming = Naming::Unnamed(UnnamedReason::Corrupt));
                return namings;
            }
            _ => {}
        }
        let named = self.namer.name(&object, offsets);
        if layouts.len() < FILE_LAYOUTS_MAX {
            layouts.extend(self.make_layout(&object, &named));
        }
        named
    }

    /// The names of a window's frames in the kernel's image, in a module, or in code of which the kernel told.
    ///
    /// Code of the last kind has its name from its record. The rest is named by a reading of `/proc/kallsyms`, which is of
    /// another time than the samples: a name is that of the code that ran only if the same lay there both times.
    fn name_kernel(
        &mut self,
        file: &Arc<MappedFile>,
        offsets: &[u64],
        times: &[(u64, u64)],
    ) -> Vec<Naming> {
        let gone = Naming::Unnamed(UnnamedReason::Replaced);
        if file.kind == FileKind::KernelSymbol {
            let naming = if is_unloaded(file) {
                gone
            } else {
                name_by_path(&file.path)
            };
            return vec![naming; offsets.len()];
        }
        let readings = Readings {
            since_ns: file.since_ns,
            until_ns: file.until_ns(),
        };
        let mut namings = self.namer.name(&Object::Kernel(readings), offsets);
        for ((naming, offset), (first_ns, _)) in namings.iter_mut().zip(offsets).zip(times) {
            let loaded = match file.kind {
                FileKind::KernelModule => KernelOwner::Loaded(file.clone()),
                // Code that counted as the image's when its samples were located may have been unloaded since, with its name.
                _ => self.kernel_code.find_offset(*offset, *first_ns),
            };
            match loaded {
                KernelOwner::Image => {}
                KernelOwner::Unknown => *naming = gone.clone(),
                KernelOwner::Loaded(owner) if owner.kind == FileKind::KernelSymbol => {
                    *naming = name_by_path(&owner.path);
                }
                KernelOwner::Loaded(owner) => {
                    if named_module(naming) != module_of(&owner) && naming.unnamed().is_none() {
                        *naming = gone.clone();
                    }
                }
            }
        }
        namings
    }

    /// The names of code that a process wrote into its memory, or into a file that it maps.
    fn name_made(&mut self, maker: &Maker, offsets: &[u64], times: &[(u64, u64)]) -> Vec<Naming> {
        let sampled = offsets.iter().zip(times);
        let addresses: Vec<SampledAddress> = sampled
            .map(|(offset, (first_ns, last_ns))| SampledAddress {
                address: offset.wrapping_add(maker.bias),
                first_ns: *first_ns,
                last_ns: *last_ns,
            })
            .collect();
        let process = (maker.pid, maker.since_ns);
        let held = self.held.find_jit(process);
        self.namer
            .name_sampled_jit(process, held.as_deref(), &addresses)
    }

    /// The object that names a file's offsets, or the reason why there is none.
    fn find_object(&self, file: &WindowFile) -> Result<Object, UnnamedReason> {
        match file.file.kind {
            FileKind::Kernel | FileKind::KernelModule | FileKind::KernelSymbol => {
                Ok(Object::Kernel(Readings::ALL))
            }
            FileKind::Vdso => Ok(Object::Vdso),
            FileKind::File => {
                let held = self.held.find(&file.file);
                Ok(Object::Elf(Arc::new(describe_file(file, held, &self.pool))))
            }
            FileKind::Anonymous => Err(UnnamedReason::Anonymous),
            FileKind::NoMapping => Err(UnnamedReason::NoMapping),
            FileKind::NoProcess => Err(UnnamedReason::ProcessUnknown),
            FileKind::Limit | FileKind::LeftOut => Err(UnnamedReason::Limit),
        }
    }

    /// How a file with a build id is mapped, which the server gives to tools that disassemble, and what of the file it could be
    /// sent. The layout goes once an hour, and whenever something is lacking.
    fn make_layout(&mut self, object: &Object, named: &[Naming]) -> Option<FileLayout> {
        let Object::Elf(file) = object else {
            return None;
        };
        let build_id = file.build_id?;
        let has_unnamed = named.iter().any(|naming| naming.unnamed().is_some());
        let (offer, file_id) = self.offer(file, object, named).unwrap_or_default();
        let segments = self.namer.segments(object);
        let is_sent = has_unnamed || !segments.is_empty() && self.sent_layouts.take_due(build_id);
        let segments = if is_sent { segments } else { &[] };
        let segments: Vec<Segment> = segments
            .iter()
            .map(|segment| Segment {
                file_offset: segment.file_offset,
                address: segment.address,
                bytes: segment.bytes,
            })
            .collect();
        let says_nothing = segments.is_empty() && offer == Offer::None;
        (!says_nothing).then(|| FileLayout {
            build_id: build_id.to_string(),
            segments,
            offer: SymbolOffer::from(offer).into(),
            file_id,
            mapping_id: 0,
        })
    }

    /// The symbols that a file has and that were not used, and its file id. A file that was used and has no name for an address
    /// does not help the server either.
    fn offer(
        &mut self,
        file: &Arc<ElfFile>,
        object: &Object,
        named: &[Naming],
    ) -> Option<(Offer, String)> {
        let (offers, least) = self.offers.as_ref().zip(find_least(named))?;
        let file_id = offers.file_id(file)?;
        let is_used = self.namer.uses_debug_info(object);
        let thinks = match self.namer.facts(object) {
            Some(_) if is_used && least == Offer::DebugInfo => return None,
            Some(facts) if facts.has_debug_info => Offer::DebugInfo,
            // Its debug information may be in a file of its own.
            Some(_) | None => Offer::Unknown,
        };
        let seen = SeenFile {
            // An open descriptor would keep the file system from being unmounted.
            file: Arc::new(ElfFile {
                held: None,
                ..(**file).clone()
            }),
            thinks,
            least,
        };
        match offers.note(&file_id, seen) {
            Offer::None => None,
            offer => Some((offer, file_id)),
        }
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
        if samples[place] == 0 {
            // All its samples were dropped.
            continue;
        }
        let (weight, _, places) = &mut files[frame.file as usize];
        *weight += samples[place];
        places.push(place);
    }
    files.retain(|(weight, ..)| *weight > 0);
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
            let has_source = frames.last().is_some_and(|frame| !frame.file.is_empty());
            (!has_source).then_some(Offer::DebugInfo)
        }
    });
    least.min()
}

/// The module that a kernel function's name tells.
fn named_module(naming: &Naming) -> Option<&str> {
    match naming {
        Naming::Named(frames) => split_module(&frames.first()?.function).1,
        Naming::Unnamed(_) | Naming::InFunction(_) => None,
    }
}

/// The naming of code whose path is its name.
fn name_by_path(name: &Arc<str>) -> Naming {
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

/// The file with its stamp, and with the build id and the format of its contents, which are read if they are not known.
fn describe_file(file: &WindowFile, held: Option<Arc<HeldFile>>, pool: &BlockingPool) -> ElfFile {
    let WindowFile {
        file, mapped_by, ..
    } = file;
    let mut described = describe_unread(file, mapped_by);
    let is_memory = || file.format.get() == Some(&FileFormat::Memory);
    if file.content_id().is_none() && !is_memory() {
        let resource = described.resource();
        let of_held = held.clone().and_then(|held| {
            let read = move || Contents::read(&held.read()?);
            pool.run(resource, FILE_DEADLINE, read).flatten()
        });
        let mut candidates = described.candidates.iter();
        let mut of_mapping =
            || candidates.find_map(|by| read_contents(by, file.identity, resource, pool));
        if let Some(contents) = of_held.or_else(&mut of_mapping) {
            // The thread that holds the file may have set the same.
            let _ = file.format.set(contents.format);
            if let Some(id) = contents.id {
                // Another thread may not set it: this is the only one that does.
                let _ = file.content.set(id);
                described = describe_unread(file, mapped_by);
            }
        }
    }
    ElfFile { held, ..described }.with_stamp(pool)
}

fn outcome_count(outcome: &str, count: u64) -> OutcomeCount {
    OutcomeCount {
        outcome: outcome.to_owned(),
        count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aggregate::{Check, SeriesKey},
        locate::{LocatedFrame, testing::complete},
        process::{FileIdentity, Files},
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
                let located = complete(frames.into());
                let series = SeriesKey {
                    comm: "a".into(),
                    exe: None,
                    pod_uid: None,
                    container_id: None,
                    unit: None,
                };
                assert!(window.add(1, [0; 16], series, &located, Check::None));
            }
        }
        let order: Vec<(&str, Vec<u64>)> = by_weight(&window)
            .into_iter()
            .map(|(file, places)| {
                let offsets = places.iter().map(|place| window.frames()[*place].offset);
                (&*file.file.path, offsets.collect())
            })
            .collect();
        assert_eq!(order, [("/program", vec![1, 9]), ("/library", vec![8, 7])]);
    }
}
