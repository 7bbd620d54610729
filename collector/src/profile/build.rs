//! Builds the pprof of a window.
//!
//! Format: github.com/google/pprof `proto/profile.proto`; `PushRequest.profile_zstd` in
//! `proto/pilotlight/v1/ingest.proto` describes the used parts.

use pprof::protos::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};
use rustc_hash::FxHashMap;

use super::strings::Strings;
use crate::{
    aggregate::{Window, WindowFile, WindowFrame},
    file::UnnamedReason,
    name::{Frame, Naming},
    process::FileKind,
};

/// A profile, and its unnamed locations.
pub struct Built {
    /// The profile.
    pub profile: Profile,
    /// The locations without lines.
    pub unnamed: Vec<UnnamedLocation>,
}

/// A location without lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnnamedLocation {
    /// The location's id in the profile.
    pub id: u64,
    /// The reason for the missing name.
    pub reason: UnnamedReason,
    /// Bytes from the start of its function, plus one; 0 if unknown.
    pub function_distance: u32,
}

/// Builds the profile of a window.
///
/// `namings` is parallel to [`Window::frames`]; frames without samples are left out. Times are in
/// nanoseconds, `start_ns` since the Unix epoch; `sample_ns` is the CPU time of one sample.
pub fn build_profile(
    window: &Window,
    namings: &[Naming],
    start_ns: u64,
    duration_ns: u64,
    sample_ns: u64,
) -> Built {
    let mut strings = Strings::new();
    let Locations {
        mappings,
        functions,
        table,
        ids,
        unnamed,
    } = Locations::build(&mut strings, window, namings);
    let sample = build_samples(&mut strings, window, &ids, sample_ns);
    let mut value_type = |ty, unit| ValueType {
        ty: strings.intern(ty),
        unit: strings.intern(unit),
    };
    let sample_type = vec![
        value_type("samples", "count"),
        value_type("cpu", "nanoseconds"),
    ];
    let period_type = Some(value_type("cpu", "nanoseconds"));
    let default_sample_type = strings.intern("cpu");
    let profile = Profile {
        sample_type,
        sample,
        mapping: mappings.into_used(&table),
        location: table,
        function: functions.table,
        time_nanos: start_ns as i64,
        duration_nanos: duration_ns as i64,
        period_type,
        period: sample_ns as i64,
        default_sample_type,
        string_table: strings.into_table(),
        ..Profile::default()
    };
    Built { profile, unnamed }
}

/// The locations of a window's frames.
struct Locations<'a> {
    mappings: Mappings<'a>,
    functions: Functions,
    table: Vec<Location>,
    /// Parallel to [`Window::frames`]; 0 for a frame without samples.
    ids: Vec<u64>,
    unnamed: Vec<UnnamedLocation>,
}

impl<'a> Locations<'a> {
    fn build(strings: &mut Strings, window: &'a Window, namings: &[Naming]) -> Self {
        let samples_by_frame = window.samples_by_frame();
        let mut is_used = vec![false; window.files().len()];
        for (frame, samples) in window.frames().iter().zip(&samples_by_frame) {
            is_used[frame.file as usize] |= *samples > 0;
        }
        let mut locations = Self {
            mappings: Mappings::new(strings, window.files(), &is_used),
            functions: Functions::default(),
            table: Vec::with_capacity(window.frames().len()),
            ids: Vec::with_capacity(window.frames().len()),
            unnamed: Vec::new(),
        };
        let frames = window.frames().iter().zip(namings);
        for ((frame, naming), samples) in frames.zip(samples_by_frame) {
            let id = if samples == 0 {
                0
            } else {
                let file = &window.files()[frame.file as usize];
                locations.add(strings, *frame, file, naming)
            };
            locations.ids.push(id);
        }
        locations
    }

    /// Adds the location of a frame, and returns its id.
    fn add(
        &mut self,
        strings: &mut Strings,
        frame: WindowFrame,
        file: &WindowFile,
        naming: &Naming,
    ) -> u64 {
        // Ids begin at 1.
        let id = self.table.len() as u64 + 1;
        let mapping = self.mappings.of(strings, frame, naming);
        let address = file.shown_address(frame.offset);
        let mut note_unnamed = |reason, function_distance| {
            self.unnamed.push(UnnamedLocation {
                id,
                reason,
                function_distance,
            });
            Vec::new()
        };
        let line = match naming {
            Naming::Named(frames) => {
                make_lines(strings, &mut self.functions, frames, file.file.kind)
            }
            Naming::Unnamed(reason) => note_unnamed(*reason, 0),
            // A distance of 4 GiB is invalid.
            Naming::InFunction(distance) => {
                note_unnamed(UnnamedReason::NoSymbol, distance.saturating_add(1))
            }
        };
        self.table.push(Location {
            id,
            mapping_id: mapping.id,
            address,
            line,
            is_folded: false,
        });
        id
    }
}

/// The samples of a window, whose frames have these location ids.
fn build_samples(
    strings: &mut Strings,
    window: &Window,
    location_ids: &[u64],
    sample_ns: u64,
) -> Vec<Sample> {
    let key_series = strings.intern("series");
    let key_thread = strings.intern("thread");
    let key_outcome = strings.intern("outcome");
    let mut threads: Vec<Option<i64>> = vec![None; window.threads().len()];
    let mut samples = Vec::with_capacity(window.row_count());
    for (row, count) in window.sorted_rows() {
        let mut label = vec![number_label(key_series, i64::from(row.series))];
        let thread = row.thread as usize;
        let thread = *threads[thread]
            .get_or_insert_with(|| strings.intern(&thread_name(&window.threads()[thread])));
        if thread != 0 {
            label.push(string_label(key_thread, thread));
        }
        if !row.outcome.is_plain() {
            let outcome = strings.intern(row.outcome.name());
            label.push(string_label(key_outcome, outcome));
        }
        if let Some(check) = row.check.name() {
            let key_check = strings.intern("check");
            let check = strings.intern(check);
            label.push(string_label(key_check, check));
        }
        samples.push(Sample {
            location_id: window
                .stack(row.leaf)
                .map(|frame| location_ids[frame.0 as usize])
                .collect(),
            value: vec![count as i64, (count * sample_ns) as i64],
            label,
        });
    }
    samples
}

/// The id of the mapping of a frame's file. Ids begin at 1.
pub(crate) fn mapping_id(frame: WindowFrame) -> u64 {
    u64::from(frame.file) + 1
}

/// One mapping per file, followed by one per kernel module.
struct Mappings<'a> {
    files: &'a [WindowFile],
    table: Vec<Mapping>,
    modules: FxHashMap<String, usize>,
}

impl<'a> Mappings<'a> {
    /// Names of files with frames of dropped samples alone are not written.
    fn new(strings: &mut Strings, files: &'a [WindowFile], is_used: &[bool]) -> Self {
        let table = files.iter().zip(is_used).zip(1..);
        let table = table.map(|((file, is_used), id)| {
            if *is_used {
                make_mapping(strings, file, id)
            } else {
                Mapping::default()
            }
        });
        Self {
            files,
            table: table.collect(),
            modules: FxHashMap::default(),
        }
    }

    /// The mapping of a frame: its file, or the module in its name.
    fn of(&mut self, strings: &mut Strings, frame: WindowFrame, naming: &Naming) -> &mut Mapping {
        let mut place = frame.file as usize;
        if let Some(module) = self.module_of(place, naming) {
            place = *self.modules.entry(module.to_owned()).or_insert_with(|| {
                self.table.push(Mapping {
                    id: self.table.len() as u64 + 1,
                    filename: strings.intern(&format!("[kernel] {module}")),
                    ..Mapping::default()
                });
                self.table.len() - 1
            });
        }
        &mut self.table[place]
    }

    /// The mappings that have a location.
    fn into_used(self, locations: &[Location]) -> Vec<Mapping> {
        let mut is_used = vec![false; self.table.len()];
        for location in locations {
            is_used[location.mapping_id as usize - 1] = true;
        }
        let mut is_used = is_used.into_iter();
        let mut table = self.table;
        table.retain(|_| is_used.next().unwrap_or_default());
        table
    }

    fn module_of<'n>(&self, file: usize, naming: &'n Naming) -> Option<&'n str> {
        match naming {
            Naming::Named(frames) if self.files[file].file.kind == FileKind::Kernel => {
                // For symbols without a record of their own.
                split_module(&frames.first()?.function).1
            }
            _ => None,
        }
    }
}

/// Splits the module from a kernel symbol: `fuse_dev_init [fuse]`. BPF programs have the module
/// `bpf`.
pub(crate) fn split_module(name: &str) -> (&str, Option<&str>) {
    let split = name
        .strip_suffix(']')
        .and_then(|name| name.rsplit_once(" ["));
    split.map_or((name, None), |(name, module)| (name, Some(module)))
}

fn make_mapping(strings: &mut Strings, file: &WindowFile, id: u64) -> Mapping {
    let build_id = file.file.content_id().as_ref().map(ToString::to_string);
    let filename = match file.maker() {
        // Functions of the same name in two programs stay separate, and each program has its own
        // colour.
        Some(maker) => strings.intern(&format!("[JIT] {}", maker.program)),
        None => match split_module(&file.file.path) {
            // Such a symbol's path is its name.
            (_, Some(module)) if file.file.kind == FileKind::KernelSymbol => {
                strings.intern(&format!("[kernel] {module}"))
            }
            _ => strings.intern(&file.file.path),
        },
    };
    // Nothing that depends on the frames of the window, such as the highest address or whether lines are known: stacks come back window
    // after window, and must come back equal.
    Mapping {
        id,
        filename,
        build_id: strings.intern(&build_id.unwrap_or_default()),
        ..Mapping::default()
    }
}

fn make_lines(
    strings: &mut Strings,
    functions: &mut Functions,
    frames: &[Frame],
    kind: FileKind,
) -> Vec<Line> {
    let mut lines = Vec::with_capacity(frames.len());
    for frame in frames {
        let name = strings.intern(match kind {
            FileKind::Kernel | FileKind::KernelModule | FileKind::KernelSymbol => {
                split_module(&frame.function).0
            }
            _ => &frame.function,
        });
        let function_id = functions.intern(Function {
            id: 0,
            name,
            // Like pprof's own writers: repeat the name if there is no other.
            system_name: match &*frame.system_name {
                "" => name,
                system_name => strings.intern(system_name),
            },
            filename: strings.intern(&frame.file),
            start_line: i64::from(frame.start_line),
        });
        lines.push(Line {
            function_id,
            line: i64::from(frame.line),
        });
    }
    lines
}

/// Functions by number, from 1.
#[derive(Default)]
struct Functions {
    table: Vec<Function>,
    places: FxHashMap<(i64, i64, i64, i64), u64>,
}

impl Functions {
    fn intern(&mut self, function: Function) -> u64 {
        let Function {
            id: _,
            name,
            system_name,
            filename,
            start_line,
        } = function;
        let key = (name, system_name, filename, start_line);
        *self.places.entry(key).or_insert_with(|| {
            let id = self.table.len() as u64 + 1;
            self.table.push(Function { id, ..function });
            id
        })
    }
}

fn thread_name(comm: &[u8; 16]) -> String {
    let end = comm
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).into_owned()
}

fn number_label(key: i64, num: i64) -> Label {
    Label {
        key,
        num,
        ..Label::default()
    }
}

fn string_label(key: i64, str: i64) -> Label {
    Label {
        key,
        str,
        ..Label::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use profiler_bpf::outcome::Outcome;

    use super::*;
    use crate::{
        aggregate::{Check, SeriesKey},
        locate::{Located, LocatedFrame, StackOutcome, testing::complete},
        process::{FileIdentity, FileKind, Files},
    };

    fn frame(function: &str, line: u32, inlined: bool) -> Frame {
        Frame {
            function: function.into(),
            system_name: "".into(),
            file: "a.c".into(),
            line,
            column: 0,
            start_line: 1,
            inlined,
        }
    }

    /// One window of three samples: twice `main;leaf` with an inlined function in
    /// the leaf, once `main;?` with an incomplete stack.
    fn built() -> Built {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"/bin/a", FileIdentity::Path);
        let mut window = Window::default();
        let outcomes = [Outcome::Complete, Outcome::Complete, Outcome::Unreadable];
        for (leaf, outcome) in [0x20, 0x20, 0x30].into_iter().zip(outcomes) {
            let located = Located {
                outcome: StackOutcome::Walked(outcome),
                ..complete(
                    [0x10, leaf]
                        .map(|offset| LocatedFrame::stand_in(&file, offset))
                        .into(),
                )
            };
            let series = SeriesKey {
                comm: "a".into(),
                exe: None,
                pod_uid: None,
                container_id: None,
                unit: None,
            };
            assert!(window.add(
                1,
                *b"thread-1\0\0\0\0\0\0\0\0",
                series,
                &located,
                Check::None
            ));
        }
        let namings = [
            Naming::Named(Arc::new([frame("main", 7, false)])),
            Naming::Named(Arc::new([frame("inner", 3, true), frame("leaf", 5, false)])),
            Naming::InFunction(0xf),
        ];
        build_profile(&window, &namings, 5, 10, 10_000_000)
    }

    /// Check stacks, values and labels of the samples.
    #[test]
    fn samples() {
        let Built { profile, .. } = built();
        let text = |at: i64| profile.string_table[at as usize].as_str();
        let mut shown: Vec<String> = profile
            .sample
            .iter()
            .map(|sample| {
                let labels: Vec<String> = sample
                    .label
                    .iter()
                    .map(|label| format!("{}={}{}", text(label.key), text(label.str), label.num))
                    .collect();
                format!(
                    "{:?} {:?} {}",
                    sample.location_id,
                    sample.value,
                    labels.join(" ")
                )
            })
            .collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "[2, 1] [2, 20000000] series=0 thread=thread-10",
                "[3, 1] [1, 10000000] series=0 thread=thread-10 outcome=unreadable0",
            ]
        );
        assert_eq!((profile.time_nanos, profile.duration_nanos), (5, 10));
        assert_eq!(profile.period, 10_000_000);
    }

    /// Check that inlined functions come innermost first, and that a location
    /// without a name keeps its file and offset and says why.
    #[test]
    fn locations() {
        let Built { profile, unnamed } = built();
        let text = |at: i64| profile.string_table[at as usize].as_str();
        let names = |at: usize| -> Vec<&str> {
            profile.location[at]
                .line
                .iter()
                .map(|line| text(profile.function[line.function_id as usize - 1].name))
                .collect()
        };
        assert_eq!(names(1), ["inner", "leaf"]);
        assert_eq!(names(2), [""; 0]);
        assert_eq!(profile.location[2].address, 0x30);
        let expected = UnnamedLocation {
            id: 3,
            reason: UnnamedReason::NoSymbol,
            function_distance: 0x10,
        };
        assert_eq!(unnamed, [expected]);
        let mapping = &profile.mapping[0];
        assert_eq!(text(mapping.filename), "/bin/a");
        assert_eq!(profile.string_table[0], "");
    }

    /// Check that a file's mapping is the same in each window, whatever frames and names the window has.
    #[test]
    fn mappings_do_not_depend_on_frames() {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"/bin/a", FileIdentity::Path);
        let mapping = |offset, naming| {
            let mut window = Window::default();
            let located = complete(vec![LocatedFrame::stand_in(&file, offset)]);
            let series = SeriesKey {
                comm: "a".into(),
                exe: None,
                pod_uid: None,
                container_id: None,
                unit: None,
            };
            assert!(window.add(1, [0; 16], series, &located, Check::None));
            let profile = build_profile(&window, &[naming], 5, 10, 10).profile;
            let [mapping] = &profile.mapping[..] else {
                panic!("{:?}", profile.mapping)
            };
            let text = |at: i64| profile.string_table[at as usize].clone();
            let texts = (text(mapping.filename), text(mapping.build_id));
            let rest = Mapping {
                filename: 0,
                build_id: 0,
                ..mapping.clone()
            };
            (texts, rest)
        };
        let inlined = Naming::Named(Arc::new([frame("inner", 3, true), frame("leaf", 5, false)]));
        let unnamed = Naming::Unnamed(UnnamedReason::Limit);
        assert_eq!(mapping(0x10, inlined), mapping(0x4000, unnamed));
    }

    /// Check that nothing of dropped series is in the profile, and that series with the same labels are one.
    #[test]
    fn dropped_and_joined_series() {
        let mut files = Files::new();
        let [kept, secret] = [b"/bin/kept", b"/bin/hush"]
            .map(|path| files.intern(FileKind::File, path, FileIdentity::Path));
        let mut window = Window::default();
        let added = [("a", &secret, 0x10), ("b", &kept, 0x20), ("c", &kept, 0x20)];
        for (comm, file, offset) in added {
            let located = complete(vec![LocatedFrame::stand_in(file, offset)]);
            let series = SeriesKey {
                comm: comm.into(),
                exe: None,
                pod_uid: None,
                container_id: None,
                unit: None,
            };
            let mut thread = [0; 16];
            thread[..2].copy_from_slice(if comm == "a" { b"hu" } else { b"ke" });
            assert!(window.add(1, thread, series, &located, Check::None));
        }
        assert_eq!(window.group_series(&[None, Some(0), Some(0)]), 1);
        assert_eq!((window.samples(), window.row_count()), (2, 1));
        let namings = ["hush", "kept"].map(|name| Naming::Named(Arc::new([frame(name, 7, false)])));
        let Built { profile, unnamed } = build_profile(&window, &namings, 5, 10, 10);
        assert!(!profile.string_table.iter().any(|text| text.contains("hu")));
        assert_eq!((profile.mapping.len(), profile.mapping[0].id), (1, 2));
        assert_eq!((profile.location.len(), profile.location[0].id), (1, 1));
        assert_eq!(profile.sample.len(), 1);
        assert_eq!(
            (&*profile.sample[0].location_id, profile.sample[0].value[0]),
            (&[1][..], 2)
        );
        assert!(unnamed.is_empty());
    }

    /// Check that kernel modules and JIT code of a program are binaries of their own, and that
    /// names of other functions do not change.
    #[test]
    fn modules_and_made_code_are_binaries() {
        let mut files = Files::new();
        let kernel = files.intern(FileKind::Kernel, b"[kernel]", FileIdentity::Path);
        let made = files.intern(FileKind::Anonymous, b"[anonymous]", FileIdentity::Path);
        let mut window = Window::default();
        let frames = [
            (&made, 1),
            (&made, 2),
            (&kernel, 3),
            (&kernel, 4),
            (&kernel, 5),
        ];
        let located = complete(
            frames
                .map(|(file, offset)| LocatedFrame::stand_in(file, offset))
                .into(),
        );
        let series = SeriesKey {
            comm: "MainThread".into(),
            exe: Some("/usr/bin/node".into()),
            pod_uid: None,
            container_id: None,
            unit: None,
        };
        assert!(window.add(1, [0; 16], series, &located, Check::None));
        let namings = [
            "f [clone .isra.0]",
            "g",
            "read",
            "init [fuse]",
            "exit [fuse]",
        ]
        .map(|name| Naming::Named(Arc::new([frame(name, 0, false)])));
        let profile = build_profile(&window, &namings, 5, 10, 10_000_000).profile;
        let text = |at: i64| profile.string_table[at as usize].as_str();
        let shown: Vec<String> = profile
            .location
            .iter()
            .map(|location| {
                let function = &profile.function[location.line[0].function_id as usize - 1];
                let mapping = &profile.mapping[location.mapping_id as usize - 1];
                format!("{}, {}", text(function.name), text(mapping.filename))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "f [clone .isra.0], [JIT] node",
                "g, [JIT] node",
                "read, [kernel]",
                "init, [kernel] fuse",
                "exit, [kernel] fuse",
            ]
        );
        assert_eq!(profile.mapping.len(), 3);
    }

    /// Check that the reasons have the numbers that the wire gives them.
    #[test]
    fn reasons_are_those_of_the_wire() {
        for reason in UnnamedReason::ALL {
            let wire = proto::v1::UnnamedReason::try_from(i32::from(reason.code()));
            let name = wire.expect("the wire has all reasons").as_str_name();
            let expected = format!("UNNAMED_REASON_{}", reason.as_str().to_uppercase());
            assert_eq!(name, expected);
        }
    }
}
