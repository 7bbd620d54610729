//! A window's pprof.
//!
//! Format: github.com/google/pprof `proto/profile.proto`; what of it is used, and
//! how, stands at `PushRequest.profile_zstd` in `proto/pilotlight/v1/ingest.proto`.

use pprof::protos::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};
use proto::v1::UnnamedReason;
use rustc_hash::FxHashMap;

use super::strings::Strings;
use crate::{
    aggregate::{FrameIndex, Window, WindowFile, WindowFrame},
    name::{Frame, Naming, UnnamedReason as Reason},
    process::FileKind,
};

/// A profile, and what it could not name.
pub struct Built {
    /// The profile.
    pub profile: Profile,
    /// The locations without lines.
    pub unnamed: Vec<UnnamedLocation>,
}

/// A location without lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnnamedLocation {
    /// Its number in the profile.
    pub id: u64,
    /// Why it has none.
    pub reason: UnnamedReason,
    /// Bytes from the start of its function, plus one; 0 when that is not known.
    pub function_distance: u32,
}

impl UnnamedLocation {
    fn new(id: u64, reason: Reason, function_distance: u32) -> Self {
        let code = i32::from(reason.code());
        Self {
            id,
            reason: UnnamedReason::try_from(code).unwrap_or_default(),
            function_distance,
        }
    }
}

/// Makes the profile of a window.
///
/// `namings` are parallel to [`Window::frames`]. Times are nanoseconds,
/// `start_ns` since the Unix epoch; `sample_ns` is the CPU time that one sample stands for.
pub fn build_profile(
    window: &Window,
    namings: &[Naming],
    start_ns: u64,
    duration_ns: u64,
    sample_ns: u64,
) -> Built {
    let mut strings = Strings::new();
    let mut functions = Functions::default();
    let mut unnamed = Vec::new();
    let mut mappings = Mappings::new(&mut strings, window.files());
    let mut locations = Vec::with_capacity(window.frames().len());
    for (index, (frame, naming)) in window.frames().iter().zip(namings).enumerate() {
        let id = location_id(FrameIndex(index as u32));
        let mapping = mappings.of(&mut strings, *frame, naming);
        mapping.memory_limit = mapping.memory_limit.max(frame.offset.saturating_add(1));
        let line = match naming {
            Naming::Named(frames) => {
                mapping.has_functions = true;
                mapping.has_filenames |= frames.iter().any(|it| !it.file.is_empty());
                mapping.has_line_numbers |= frames.iter().any(|it| it.line != 0);
                mapping.has_inline_frames |= frames.len() > 1;
                let kind = window.files()[frame.file as usize].file.kind;
                make_lines(&mut strings, &mut functions, frames, kind)
            }
            Naming::Unnamed(reason) => {
                unnamed.push(UnnamedLocation::new(id, *reason, 0));
                Vec::new()
            }
            Naming::InFunction(distance) => {
                // One that is 4 GiB long is none.
                let distance = distance.saturating_add(1);
                unnamed.push(UnnamedLocation::new(id, Reason::NoSymbol, distance));
                Vec::new()
            }
        };
        locations.push(Location {
            id,
            mapping_id: mapping.id,
            address: frame.offset,
            line,
            is_folded: false,
        });
    }

    let key_series = strings.intern("series");
    let key_thread = strings.intern("thread");
    let key_outcome = strings.intern("outcome");
    let threads: Vec<i64> = window
        .threads()
        .iter()
        .map(|name| strings.intern(&thread_name(name)))
        .collect();
    let mut samples = Vec::with_capacity(window.row_count());
    for (row, count) in window.sorted_rows() {
        let mut label = vec![number_label(key_series, i64::from(row.series))];
        let thread = threads[row.thread as usize];
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
            location_id: window.stack(row.leaf).map(location_id).collect(),
            value: vec![count as i64, (count * sample_ns) as i64],
            label,
        });
    }

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
        sample: samples,
        mapping: mappings.table,
        location: locations,
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

/// Location ids begin at 1.
fn location_id(frame: FrameIndex) -> u64 {
    u64::from(frame.0) + 1
}

/// One mapping for each file, and behind them one for each module of the kernel.
struct Mappings<'a> {
    files: &'a [WindowFile],
    table: Vec<Mapping>,
    modules: FxHashMap<String, usize>,
}

impl<'a> Mappings<'a> {
    fn new(strings: &mut Strings, files: &'a [WindowFile]) -> Self {
        let table = files.iter().zip(1..);
        Self {
            files,
            table: table
                .map(|(file, id)| make_mapping(strings, file, id))
                .collect(),
            modules: FxHashMap::default(),
        }
    }

    /// Where a frame lies: in its file, or in the module that its name tells.
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

    fn module_of<'n>(&self, file: usize, naming: &'n Naming) -> Option<&'n str> {
        match naming {
            Naming::Named(frames) if self.files[file].file.kind == FileKind::Kernel => {
                split_module(&frames.first()?.function).1
            }
            _ => None,
        }
    }
}

/// The kernel's symbols have their module behind them: `fuse_dev_init [fuse]`. BPF programs are of the module `bpf`.
fn split_module(name: &str) -> (&str, Option<&str>) {
    let split = name.strip_suffix(']').and_then(|it| it.rsplit_once(" ["));
    split.map_or((name, None), |(name, module)| (name, Some(module)))
}

fn make_mapping(strings: &mut Strings, file: &WindowFile, id: u64) -> Mapping {
    let build_id = file.file.content.get().map(ToString::to_string);
    let filename = match &file.made_by {
        // So that functions of two programs with one name are two, and each program has a colour.
        Some(program) => strings.intern(&format!("[JIT] {program}")),
        None => strings.intern(&file.file.path),
    };
    Mapping {
        id,
        memory_start: 0,
        memory_limit: 0,
        file_offset: 0,
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
            FileKind::Kernel => split_module(&frame.function).0,
            _ => &frame.function,
        });
        let function_id = functions.intern(Function {
            id: 0,
            name,
            // As pprof's own writers do: the same name again when there is no other.
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
        locate::{Located, LocatedFrame, StackOutcome},
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
                frames: [0x10, leaf]
                    .map(|offset| LocatedFrame::stand_in(&file, offset))
                    .into(),
                outcome: StackOutcome::Walked(outcome),
                parent: 0,
            };
            let series = SeriesKey {
                comm: "a".into(),
                exe: None,
                container_id: None,
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
                    .map(|it| format!("{}={}{}", text(it.key), text(it.str), it.num))
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
        assert!(mapping.has_functions && mapping.has_inline_frames);
        assert_eq!(mapping.memory_limit, 0x31);
        assert_eq!(profile.string_table[0], "");
    }

    /// Check that a module of the kernel and the code that a program made are binaries of their own, and that the names of
    /// other functions are left as they are.
    #[test]
    fn modules_and_made_code_are_binaries() {
        let mut files = Files::new();
        let kernel = files.intern(FileKind::Kernel, b"[kernel]", FileIdentity::Path);
        let made = files.intern(FileKind::Anonymous, b"[anonymous]", FileIdentity::Path);
        let mut window = Window::default();
        let located = Located {
            frames: [
                (&made, 1),
                (&made, 2),
                (&kernel, 3),
                (&kernel, 4),
                (&kernel, 5),
            ]
            .map(|(file, offset)| LocatedFrame::stand_in(file, offset))
            .into(),
            outcome: StackOutcome::Walked(Outcome::Complete),
            parent: 0,
        };
        let series = SeriesKey {
            comm: "MainThread".into(),
            exe: Some("/usr/bin/node".into()),
            container_id: None,
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
                assert!(mapping.has_functions && mapping.memory_limit > location.address);
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
}
