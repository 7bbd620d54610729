//! Reasons for frames without a name: codes, words and remedies.
//!
//! The collector states the reason. The server refines it: for a file without a build id, and for the kernel.

use std::collections::BTreeMap;

use profile::UnnamedReason::{
    self, Anonymous, Corrupt, FileGone, Limit, NoMapping, NoSymbol, NotAnswering, Permission,
    ProcessUnknown, Replaced,
};

use crate::tables::{Location, Tables};
use crate::window::Window;

/// Why a frame has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WhyNot {
    /// The collector's reason.
    Told(UnnamedReason),
    /// The file has no symbol for the address, and no build id to find others by.
    NoBuildId,
    /// The collector gave no reason, or one of a newer collector.
    Unknown,
}

impl WhyNot {
    /// All reasons.
    pub fn all() -> impl Iterator<Item = Self> {
        let told = UnnamedReason::ALL.into_iter().map(Self::Told);
        told.chain([Self::NoBuildId, Self::Unknown])
    }

    /// The reason for a location without a name.
    pub fn of(tables: &Tables, location: &Location) -> Self {
        let mapping = location
            .mapping
            .map(|mapping| tables.mappings[mapping.position()]);
        match (location.unnamed.reason(), mapping) {
            (Some(NoSymbol), Some(mapping))
                if !is_build_id(tables.string(mapping.build_id))
                    && !is_kernel(tables.string(mapping.file)) =>
            {
                Self::NoBuildId
            }
            (Some(reason), _) => Self::Told(reason),
            (None, _) => Self::Unknown,
        }
    }

    /// The code in answers and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Told(reason) => reason.as_str(),
            Self::NoBuildId => "no_build_id",
            Self::Unknown => "unknown",
        }
    }

    /// Description.
    pub fn words(self) -> &'static str {
        match self {
            Self::Told(NoMapping) => {
                "the address is in no file or memory area that the collector knew of"
            }
            Self::Told(Anonymous) => {
                "executable memory without a file: a just-in-time compiler wrote it and left no map of its names"
            }
            Self::Told(FileGone) => {
                "the file was gone before it could be read, and no other process had it"
            }
            Self::Told(NoSymbol) => {
                "no symbol covers the address: the file is stripped, or its compiler gave this code none; and nothing was found \
                 for its build id: no debug file below /usr/lib/debug of the node or its container, and no symbols on the server"
            }
            Self::NoBuildId => {
                "no symbol covers the address: the file is stripped, or its compiler gave this code none; and it has no build id \
                 by which others could be found"
            }
            Self::Told(Permission) => "the collector may not read it",
            Self::Told(Corrupt) => "the file's symbols could not be parsed",
            Self::Told(Limit) => {
                "a limit of the collector was reached before the address was named"
            }
            Self::Told(ProcessUnknown) => {
                "the process ended before its mappings, or the map of the code that it made, were read"
            }
            Self::Told(NotAnswering) => "the file system that the file is on did not answer",
            Self::Told(Replaced) => {
                "the code was unloaded or replaced at about the time of the sample, so that its name is not certain"
            }
            Self::Unknown => "the collector gave no reason that this server knows",
        }
    }

    /// Remedy for frames in this file; the build id may be empty.
    pub fn advice(self, binary: &str, build_id: &str) -> String {
        let upload = format!(
            "upload the unstripped file or its debug file for build id {build_id} with `pilotlight-server debuginfo upload \
             FILE`, or let the server ask a debuginfod with --debuginfod-url; profiles that are stored get their names too"
        );
        let rebuild = "link it with -Wl,--build-id, so that its symbols can be found";
        match self {
            Self::Told(Permission) if is_kernel(binary) => {
                "set the sysctl kernel.kptr_restrict to 0 or 1, give the collector CAP_SYSLOG, and start it again".into()
            }
            Self::Told(Limit) if is_kernel(binary) || is_jit(binary) => {
                "wait: the collector names it in later windows, when its budget allows (--name-cpu; \
                 pilotlight_collector_name_requests_held_back_total has the limit); stored profiles do not get these names"
                    .into()
            }
            Self::Told(Replaced) => {
                "nothing: code that stays in its place has its name in the next window; a jitdump has the times at which code is \
                 replaced, a perf map has not"
                    .into()
            }
            _ if is_kernel(binary) => {
                "look at /proc/kallsyms on the node: the kernel has no symbol at this address".into()
            }
            Self::Told(NoSymbol | FileGone | Corrupt | Permission | Limit)
                if is_build_id(build_id) =>
            {
                match self {
                    Self::Told(Limit) => format!(
                        "wait: the server asks the collector for the file's symbols, and names these frames when it has them; if that \
                         does not happen, the collector sends nothing (--upload-rate 0), or \
                         pilotlight_collector_uploads_total has the reason: {upload}"
                    ),
                    Self::Told(Permission) => {
                        format!("give the collector the right to read it (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH), or {upload}")
                    }
                    Self::Told(NoSymbol) => {
                        format!(
                            "install its debug package (Debian's NAME-dbgsym) on the node or in the container, or {upload}; {UNCOVERED}"
                        )
                    }
                    _ => upload,
                }
            }
            Self::NoBuildId | Self::Told(NoSymbol) => {
                format!("install it unstripped on the node, or {rebuild}; {UNCOVERED}")
            }
            Self::Told(FileGone | Corrupt) => {
                format!("keep the file in place while its processes run, and {rebuild}")
            }
            Self::Told(Permission) => {
                "give the collector the right to read it: CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH".into()
            }
            Self::Told(Limit) => format!(
                "wait: the collector names it in later windows, when its budget allows (--name-cpu); stored profiles do not get \
                 these names: {rebuild}"
            ),
            Self::Told(Anonymous) => advise_jit(binary),
            Self::Told(NoMapping | ProcessUnknown) => {
                "nothing, if the process was very short; if it lives long, the collector's metrics have the events that \
                 it lost"
                    .into()
            }
            Self::Told(NotAnswering) => {
                "find out why the file system hangs (the server of a network file system, or the process of a FUSE one): \
                 `ps -eo state,wchan:32,comm` shows the processes on the node that wait for it, and \
                 pilotlight_collector_files_hanging counts the collector's own accesses; names come when it answers"
                    .into()
            }
            Self::Unknown => "update the server: the collector is newer".into(),
        }
    }
}

/// For files that have a symbol table: assemblers and GHC write no symbols of local code.
const UNCOVERED: &str =
    "a file that has its symbols already needs debug information (-g) for this code";

/// Collectors name the file of JIT code with this prefix and the program's name.
const JIT_PREFIX: &str = "[JIT] ";

/// Options of runtimes with JIT compilers that write the names of their code where the collector looks.
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
        // With `-X perf` its code has a map.
        "without `-X perf`, CPython makes no code: a library in the process does (wasmtime, numba); switch on the perf map or \
         jitdump of that library (wasmtime: the profiler of its Config)",
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

/// The advice for the program that made the code, or for all programs if it is not known.
fn advise_jit(binary: &str) -> String {
    let program = binary.strip_prefix(JIT_PREFIX).unwrap_or_default();
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

/// Samples and locations of a window without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnnamedCounts {
    /// All samples.
    pub samples: u64,
    /// By reason: samples whose innermost frame has no name, and locations without a name.
    pub unnamed: BTreeMap<WhyNot, (u64, u64)>,
    /// Samples whose innermost frame has no name, by reason and file. The file's name may be empty.
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
fn is_jit(file: &str) -> bool {
    file.starts_with(JIT_PREFIX)
}

/// The file that a location lies in, or nothing.
fn binary_of<'a>(tables: &'a Tables, location: &Location) -> &'a str {
    let mapping = location.mapping.map(|id| tables.mappings[id.position()]);
    mapping.map_or("", |mapping| tables.string(mapping.file))
}

fn is_kernel(file: &str) -> bool {
    file.starts_with("[kernel")
}

/// Whether this is a build id. For a file without one, collectors send `file-` and a hash of its contents, which
/// identifies it but finds no symbols.
fn is_build_id(text: &str) -> bool {
    !text.is_empty() && !text.starts_with("file-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unnamed;
    use crate::text::window;

    #[test]
    fn each_reason_has_words_and_advice_of_its_own() {
        let mut codes: Vec<_> = WhyNot::all().map(WhyNot::code).collect();
        let mut words: Vec<_> = WhyNot::all().map(WhyNot::words).collect();
        for list in [&mut codes, &mut words] {
            list.sort_unstable();
            list.dedup();
            assert_eq!(list.len(), WhyNot::all().count());
        }
        for reason in WhyNot::all() {
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
            WhyNot::Told(NoSymbol)
                .advice("/bin/a", "00ff")
                .contains("build id 00ff")
        );
        assert!(
            WhyNot::NoBuildId
                .advice("/bin/a", "")
                .contains("-Wl,--build-id")
        );
        assert!(
            WhyNot::Told(Permission)
                .advice("[kernel]", "")
                .contains("kptr_restrict")
        );
        for (binary, expected) in [
            ("[JIT] node", "--perf-basic-prof"),
            ("[JIT] python3.13", "a library in the process"),
            ("[JIT] java", "Compiler.perfmap"),
        ] {
            let advice = WhyNot::Told(Anonymous).advice(binary, "");
            assert!(
                advice.contains(expected) && !advice.contains("others"),
                "{advice}"
            );
        }
        for binary in ["[JIT] node", "[kernel]"] {
            let advice = WhyNot::Told(Limit).advice(binary, "");
            assert!(advice.starts_with("wait"), "{advice}");
            assert!(
                !advice.contains("-Wl") && !advice.contains("kallsyms"),
                "{advice}"
            );
        }
        for binary in ["[JIT] nodes", "[anonymous]", ""] {
            assert!(
                WhyNot::Told(Anonymous)
                    .advice(binary, "")
                    .contains("others")
            );
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
        let unnamed = [(WhyNot::Told(NoSymbol), (8, 2))].into();
        let by_binary = [((WhyNot::Told(NoSymbol), "/lib/b.so".to_owned()), 8)].into();
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
    fn each_number_of_the_collector_has_its_reason() {
        let mut tables = window("comm=a | 0x1f@/lib/b.so 0x2f@[kernel] 0x3f | 1").tables;
        for number in 0..=11 {
            tables.locations[0].unnamed = Unnamed::new(number, 0);
            let reason = UnnamedReason::from_code(number);
            let expected = reason.map_or(WhyNot::Unknown, WhyNot::Told);
            assert_eq!(WhyNot::of(&tables, &tables.locations[0]), expected);
        }
        tables.locations[0].unnamed = Unnamed::new(4, 0);
        for mapping in &mut tables.mappings {
            mapping.build_id = Default::default();
        }
        let whys: Vec<_> = tables
            .locations
            .iter()
            .map(|l| WhyNot::of(&tables, l))
            .collect();
        let no_symbol = WhyNot::Told(NoSymbol);
        assert_eq!(whys, [WhyNot::NoBuildId, no_symbol, no_symbol]);
        let hash = tables.push_string("file-781692cd655dc705ba9bcb8fb5e12ee5");
        tables.mappings[0].build_id = hash;
        let why = WhyNot::of(&tables, &tables.locations[0]);
        assert_eq!(why, WhyNot::NoBuildId);
        let advice = why.advice("/bin/a", tables.string(hash));
        assert!(advice.contains("-Wl,--build-id"), "{advice}");
    }
}
