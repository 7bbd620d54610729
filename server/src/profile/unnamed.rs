//! Why a frame has no name: codes, words, and what to do about it.
//!
//! The collector says why it could not name a location; what is known here besides (that the file has no build id, that
//! it is the kernel) makes the answer more precise.

use std::collections::BTreeMap;

use super::tables::{Location, Tables};
use super::window::Window;

/// Why a frame has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WhyNot {
    /// The address lies in no mapping that the collector knew.
    NoMapping,
    /// Executable memory without a file, and nothing that describes it.
    Anonymous,
    /// The file was gone before it could be read.
    FileGone,
    /// The file has no symbol for the address, and nothing else was found for its build id.
    NoSymbol,
    /// The file has no symbol for the address, and no build id by which others could be found.
    NoBuildId,
    /// The file, or the kernel's symbols, may not be read.
    Permission,
    /// The file could not be parsed.
    Corrupt,
    /// A limit of the collector was reached.
    Limit,
    /// The process ended before its mappings were known.
    ProcessUnknown,
    /// The file system that the file is on did not answer.
    NotAnswering,
    /// The collector gave no reason, or one that this server does not know.
    Unknown,
}

impl WhyNot {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::NoMapping,
        Self::Anonymous,
        Self::FileGone,
        Self::NoSymbol,
        Self::NoBuildId,
        Self::Permission,
        Self::Corrupt,
        Self::Limit,
        Self::ProcessUnknown,
        Self::NotAnswering,
        Self::Unknown,
    ];

    /// Why a location without a name has none.
    pub fn of(tables: &Tables, location: &Location) -> Self {
        let mapping = location
            .mapping
            .map(|mapping| tables.mappings[mapping.position()]);
        match location.unnamed.code() {
            1 => Self::NoMapping,
            2 => Self::Anonymous,
            3 => Self::FileGone,
            4 if mapping.is_some_and(|mapping| {
                !is_build_id(tables.string(mapping.build_id))
                    && !is_kernel(tables.string(mapping.file))
            }) =>
            {
                Self::NoBuildId
            }
            4 => Self::NoSymbol,
            5 => Self::Permission,
            6 => Self::Corrupt,
            7 => Self::Limit,
            8 => Self::ProcessUnknown,
            9 => Self::NotAnswering,
            _ => Self::Unknown,
        }
    }

    /// The code in answers and metrics: the collector's own where it has one.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoMapping => "no_mapping",
            Self::Anonymous => "anonymous",
            Self::FileGone => "file_gone",
            Self::NoSymbol => "no_symbol",
            Self::NoBuildId => "no_build_id",
            Self::Permission => "permission",
            Self::Corrupt => "corrupt",
            Self::Limit => "limit",
            Self::ProcessUnknown => "process_unknown",
            Self::NotAnswering => "not_answering",
            Self::Unknown => "unknown",
        }
    }

    /// What happened.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoMapping => {
                "the address lies in no file or memory area that the collector knew of"
            }
            Self::Anonymous => {
                "executable memory without a file: a just-in-time compiler wrote it and left no map of its names"
            }
            Self::FileGone => {
                "the file was gone before it could be read, and no other process had it"
            }
            Self::NoSymbol => {
                "the file is stripped, and nothing was found for its build id: no debug file below /usr/lib/debug of the node \
                 or its container, and no symbols on the server"
            }
            Self::NoBuildId => {
                "the file is stripped, and has no build id by which its symbols could be found"
            }
            Self::Permission => "the collector may not read it",
            Self::Corrupt => "the file's symbols could not be parsed",
            Self::Limit => "a limit of the collector was reached before the address was named",
            Self::ProcessUnknown => {
                "the process ended before its mappings, or the map of the code that it made, were read"
            }
            Self::NotAnswering => "the file system that the file is on did not answer",
            Self::Unknown => "the collector gave no reason that this server knows",
        }
    }

    /// What a person can do about frames in this file; the build id may be empty.
    pub fn advice(self, binary: &str, build_id: &str) -> String {
        let upload = format!(
            "upload the unstripped file or its debug file for build id {build_id} with `pilotlight-server debuginfo upload \
             FILE`, or let the server ask a debuginfod with --debuginfod-url; profiles that are stored get their names too"
        );
        let rebuild = "link it with -Wl,--build-id, so that its symbols can be found by what it is";
        match self {
            Self::Permission if is_kernel(binary) => {
                "set the sysctl kernel.kptr_restrict to 0 or 1, give the collector CAP_SYSLOG, and start it again".into()
            }
            Self::Limit if is_kernel(binary) || is_made(binary) => {
                "wait: the collector names it in later windows, when its budget allows (--name-cpu; \
                 pilotlight_collector_name_requests_held_back_total says what was in the way), but not what is stored"
                    .into()
            }
            _ if is_kernel(binary) => {
                "look at the kernel's /proc/kallsyms on the node: it has no symbol there".into()
            }
            Self::NoSymbol | Self::FileGone | Self::Corrupt | Self::Permission | Self::Limit
                if is_build_id(build_id) =>
            {
                match self {
                    Self::Limit => format!(
                        "wait: the server asks the collector for the file's symbols and names these frames too when they are \
                         there; if it stays, the collector sends nothing (--upload-rate 0), or \
                         pilotlight_collector_uploads_total says why: {upload}"
                    ),
                    Self::Permission => {
                        format!("give the collector the right to read it (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH), or {upload}")
                    }
                    Self::NoSymbol => {
                        format!("install its debug package (Debian's NAME-dbgsym) on the node or in the container, or {upload}")
                    }
                    _ => upload,
                }
            }
            Self::NoBuildId | Self::NoSymbol => {
                format!("install it unstripped on the node, or {rebuild}")
            }
            Self::FileGone | Self::Corrupt => {
                format!("keep the file in place while its processes run, and {rebuild}")
            }
            Self::Permission => {
                "give the collector the right to read it: CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH".into()
            }
            Self::Limit => format!(
                "wait: the collector names it in later windows, when its budget allows (--name-cpu), but not what is \
                 stored: {rebuild}"
            ),
            Self::Anonymous => advise_jit(binary),
            Self::NoMapping | Self::ProcessUnknown => {
                "nothing, where processes are very short; if it is a long-lived one, the collector's metrics say which \
                 events it lost"
                    .into()
            }
            Self::NotAnswering => {
                "see why the file system hangs (the server of a network file system, or the process that serves it): what \
                 waits for it on the node is in `ps -eo state,wchan:32,comm` in state D or S, and \
                 pilotlight_collector_files_hanging counts the collector's own; names come by themselves when it answers"
                    .into()
            }
            Self::Unknown => "update the server: the collector is newer".into(),
        }
    }
}

/// What collectors call code that a program makes at run time, before the program's name.
const MADE_PREFIX: &str = "[JIT] ";

/// How programs that make code at run time are told to write its names where the collector looks.
const JITS: [(&str, &str); 9] = [
    ("node", "start it with `node --perf-basic-prof`"),
    (
        "deno",
        "start it with `deno run --v8-flags=--perf-basic-prof`",
    ),
    (
        "java",
        "start it with -XX:+PreserveFramePointer, and now and then call `jcmd PID Compiler.perfmap` (JDK 17 and later), or \
         use an agent that writes /tmp/perf-PID.map; on OpenJ9 start it with -XX:+PerfTool",
    ),
    (
        "dotnet",
        "start it with DOTNET_PerfMapEnabled=1 in its environment",
    ),
    ("beam.smp", "start it with `erl +JPperf true`"),
    (
        "python3",
        "start it with `python3 -X perf` (3.12 and later)",
    ),
    (
        "ruby",
        "start it with `ruby --yjit --yjit-perf` (3.3 and later)",
    ),
    (
        "julia",
        "start it with ENABLE_JITPROFILING=1 in its environment",
    ),
    ("wasmtime", "start it with `wasmtime run --profile=perfmap`"),
];

/// The advice for the program that made the code, or all of it.
fn advise_jit(binary: &str) -> String {
    let program = binary.strip_prefix(MADE_PREFIX).unwrap_or_default();
    // `python3.12` is `python3`.
    let is_version = |rest: &str| {
        rest.bytes()
            .all(|byte| byte == b'.' || byte.is_ascii_digit())
    };
    let known = JITS
        .iter()
        .find(|(name, _)| program.strip_prefix(name).is_some_and(is_version));
    match known {
        Some((_, advice)) => (*advice).to_owned(),
        None => {
            let all = JITS.map(|(name, advice)| format!("{name}: {advice}"));
            let rest = "others: let them write /tmp/perf-PID.map, or a jitdump that they map";
            format!("{}; {rest}", all.join("; "))
        }
    }
}

/// How much of a window came without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnnamedCounts {
    /// All samples.
    pub samples: u64,
    /// By reason, the samples whose innermost frame has no name, and the locations that have none.
    pub unnamed: BTreeMap<WhyNot, (u64, u64)>,
    /// These samples by reason and file, whose name may be empty.
    pub by_binary: BTreeMap<(WhyNot, String), u64>,
}

impl UnnamedCounts {
    /// Counts a window.
    pub fn of(window: &Window) -> Self {
        let tables = &window.tables;
        let mut counts = Self::default();
        for location in &tables.locations {
            if location.lines().is_empty() {
                counts.entry(tables, location).1 += 1;
            }
        }
        for row in &window.rows {
            counts.samples = counts.samples.saturating_add(row.samples);
            let leaf = tables.walk_stack(row.stack).next();
            let Some(location) = leaf.map(|leaf| tables.locations[leaf.position()]) else {
                continue;
            };
            if location.lines().is_empty() {
                let samples = &mut counts.entry(tables, &location).0;
                *samples = samples.saturating_add(row.samples);
                let binary = binary_of(tables, &location).to_owned();
                let key = (WhyNot::of(tables, &location), binary);
                let samples = counts.by_binary.entry(key).or_default();
                *samples = samples.saturating_add(row.samples);
            }
        }
        counts
    }

    fn entry(&mut self, tables: &Tables, location: &Location) -> &mut (u64, u64) {
        self.unnamed
            .entry(WhyNot::of(tables, location))
            .or_default()
    }
}

/// Whether the code was made at run time.
fn is_made(file: &str) -> bool {
    file.starts_with(MADE_PREFIX)
}

/// The file that a location lies in, or nothing.
fn binary_of<'a>(tables: &'a Tables, location: &Location) -> &'a str {
    let mapping = location.mapping.map(|it| tables.mappings[it.position()]);
    mapping.map_or("", |it| tables.string(it.file))
}

fn is_kernel(file: &str) -> bool {
    file.starts_with("[kernel")
}

/// Whether this says which build a file is. Of a file that does not say it, collectors send `file-` and a hash of its
/// contents, which tells it from others and leads to no symbols.
fn is_build_id(text: &str) -> bool {
    !text.is_empty() && !text.starts_with("file-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Unnamed;
    use crate::profile::text::window;

    #[test]
    fn each_reason_has_words_and_advice_of_its_own() {
        let mut codes: Vec<_> = WhyNot::ALL.map(WhyNot::code).to_vec();
        let mut words: Vec<_> = WhyNot::ALL.map(WhyNot::words).to_vec();
        for list in [&mut codes, &mut words] {
            list.sort_unstable();
            list.dedup();
            assert_eq!(list.len(), WhyNot::ALL.len());
        }
        for reason in WhyNot::ALL {
            for (binary, build_id) in [
                ("/bin/a", "00ff"),
                ("/bin/a", ""),
                ("[kernel]", "00ff"),
                ("", ""),
            ] {
                assert!(!reason.advice(binary, build_id).is_empty());
                let names_it = reason.advice(binary, build_id).contains("build id 00ff");
                assert!(!names_it || binary == "/bin/a" && build_id == "00ff");
            }
        }
        assert!(
            WhyNot::NoSymbol
                .advice("/bin/a", "00ff")
                .contains("build id 00ff")
        );
        assert!(
            WhyNot::NoBuildId
                .advice("/bin/a", "")
                .contains("-Wl,--build-id")
        );
        assert!(
            WhyNot::Permission
                .advice("[kernel]", "")
                .contains("kptr_restrict")
        );
        for (binary, expected) in [
            ("[JIT] node", "--perf-basic-prof"),
            ("[JIT] python3.13", "-X perf"),
            ("[JIT] java", "Compiler.perfmap"),
        ] {
            let advice = WhyNot::Anonymous.advice(binary, "");
            assert!(
                advice.contains(expected) && !advice.contains("others"),
                "{advice}"
            );
        }
        for binary in ["[JIT] node", "[kernel]"] {
            let advice = WhyNot::Limit.advice(binary, "");
            assert!(advice.starts_with("wait"), "{advice}");
            assert!(
                !advice.contains("-Wl") && !advice.contains("kallsyms"),
                "{advice}"
            );
        }
        for binary in ["[JIT] nodes", "[anonymous]", ""] {
            assert!(WhyNot::Anonymous.advice(binary, "").contains("others"));
        }
    }

    #[test]
    fn a_window_is_counted_by_reason() {
        let counts = UnnamedCounts::of(&window(
            "comm=a | main 0x1f@/lib/b.so | 7
             comm=a | 0x1f@/lib/b.so main | 9
             comm=a | main 0x2f@/lib/b.so | 1
             comm=a | main | 20
             comm=a | | 3",
        ));
        let unnamed = [(WhyNot::NoSymbol, (8, 2))].into();
        let by_binary = [((WhyNot::NoSymbol, "/lib/b.so".to_owned()), 8)].into();
        assert_eq!(
            counts,
            UnnamedCounts {
                samples: 40,
                unnamed,
                by_binary
            }
        );
    }

    #[test]
    fn the_collectors_numbers_are_told_apart() {
        let mut tables = window("comm=a | 0x1f@/lib/b.so 0x2f@[kernel] 0x3f | 1").tables;
        let numbers: Vec<_> = (0..=10)
            .map(|number| {
                tables.locations[0].unnamed = Unnamed::new(number, 0);
                WhyNot::of(&tables, &tables.locations[0])
            })
            .collect();
        use WhyNot::{
            Anonymous, Corrupt, FileGone, Limit, NoBuildId, NoMapping, NoSymbol, NotAnswering,
            Permission, ProcessUnknown, Unknown,
        };
        let expected = [
            Unknown,
            NoMapping,
            Anonymous,
            FileGone,
            NoSymbol,
            Permission,
            Corrupt,
            Limit,
            ProcessUnknown,
            NotAnswering,
            Unknown,
        ];
        assert_eq!(numbers, expected);
        tables.locations[0].unnamed = Unnamed::new(4, 0);
        for mapping in &mut tables.mappings {
            mapping.build_id = Default::default();
        }
        let whys: Vec<_> = tables
            .locations
            .iter()
            .map(|l| WhyNot::of(&tables, l))
            .collect();
        assert_eq!(whys, [NoBuildId, NoSymbol, NoSymbol]);
        let hash = tables.push_string("file-781692cd655dc705ba9bcb8fb5e12ee5");
        tables.mappings[0].build_id = hash;
        assert_eq!(WhyNot::of(&tables, &tables.locations[0]), NoBuildId);
        let advice = NoBuildId.advice("/bin/a", tables.string(hash));
        assert!(advice.contains("-Wl,--build-id"), "{advice}");
    }
}
