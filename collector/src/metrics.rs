//! The collector's own figures, as Prometheus text.
//!
//! The stages write into one [`Metrics`]; the HTTP thread renders it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use profiler_bpf::outcome::Outcome;

use crate::{
    accounts::ProcessAccount,
    name::{NamerStats, UnnamedReason},
    patience::PatienceStats,
    pipeline::{HoldStats, RowStoreStats},
    process::TableStats,
    sample::CounterTotals,
    send::{DropReason, SenderStats, UploadEnd, UploadStats},
    unwind::TablesStats,
};

/// Where a sample can be lost after the program sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The record could not be decoded.
    Decode,
    /// The window's table of stacks was full.
    Aggregate,
    /// Windows came faster than they could be named.
    Name,
    /// The server was away for too long, or refused the window.
    Send,
}

impl Stage {
    /// All stages in their order.
    pub const ALL: [Self; 4] = [Self::Decode, Self::Aggregate, Self::Name, Self::Send];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Aggregate => "aggregate",
            Self::Name => "name",
            Self::Send => "send",
        }
    }
}

/// All figures. Counters are since the start.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// What the program counted.
    pub program: CounterTotals,
    /// Samples decoded.
    pub decoded: u64,
    /// Samples counted into windows, by how their stacks ended.
    pub stacks_by_outcome: BTreeMap<&'static str, u64>,
    /// Stacks that a second unwinder looked at, by binary and result.
    pub checked_stacks: StacksByBinary,
    /// Copied stacks that it did not look at: too many waited, or a file's sections could not be had.
    pub unchecked_stacks: u64,
    /// Of them the incomplete ones, by where they stopped.
    pub incomplete_stacks: StacksByBinary,
    /// Samples lost, by stage, in the order of [`Stage::ALL`].
    pub dropped: [u64; Stage::ALL.len()],
    /// Samples that the CPU time in use should have given.
    pub expected: u64,
    /// CPU time sampled, nanoseconds.
    pub sampled_ns: u64,
    /// CPU time that the kernel says was used, nanoseconds.
    pub busy_ns: u64,
    /// CPU time that the hypervisor took, nanoseconds.
    pub stolen_ns: u64,
    /// The last window: sampled over used CPU time.
    pub last_window_ratio: f64,
    /// Distinct rows in the last window.
    pub last_window_rows: u64,
    /// Windows closed.
    pub windows: u64,
    /// Windows waiting for their names.
    pub name_queue: usize,
    /// Side-band records that could not be read.
    pub side_band_malformed: u64,
    /// The process table.
    pub processes: TableStats,
    /// The namer and its child.
    pub namer: NamerStats,
    /// Files that the server asked for.
    pub uploads: UploadStats,
    /// Files that are held open until they are named.
    pub held: HoldStats,
    /// Files whose file systems do not answer.
    pub patience: PatienceStats,
    /// Unwinding in user space, and the kernel's tables.
    pub unwind: UnwindStats,
    /// Bytes of the program's maps, without the tables.
    pub map_bytes: u64,
    /// Processors sampled.
    pub cpus: usize,
    /// Seconds from the start to the first sample.
    pub first_sample_seconds: Option<f64>,
}

/// Figures of the thread `unwind`.
#[derive(Clone, Debug, Default)]
pub struct UnwindStats {
    /// What is in the kernel's tables.
    pub tables: TablesStats,
    /// Bytes of kernel memory of the tables.
    pub table_bytes: u64,
    /// Changes that were written to them.
    pub writes: u64,
    /// Times that the kernel refused a write.
    pub write_errors: u64,
    /// Files evaluated.
    pub evaluated: u64,
    /// CPU time that it took.
    pub evaluation_cpu: Duration,
    /// What is kept on disk.
    pub kept: RowStoreStats,
    /// Stacks that were copied to user space and walked there, by how that ended.
    pub copied: BTreeMap<&'static str, u64>,
    /// Copied stacks that were not walked, since the thread was behind.
    pub copied_dropped: u64,
    /// Copied stacks that wait for rows.
    pub waiting: usize,
}

impl UnwindStats {
    /// Counts a copied stack that was walked.
    pub fn count_copied(&mut self, outcome: Outcome) {
        *self.copied.entry(outcome.name()).or_default() += 1;
    }
}

/// Stacks by a binary and by what is said of them: an outcome, or a result.
#[derive(Clone, Debug, Default)]
pub struct StacksByBinary {
    counts: BTreeMap<(Arc<str>, &'static str), u64>,
    binaries: BTreeSet<Arc<str>>,
}

impl StacksByBinary {
    /// Adds the values of a family; `says` is the label of what is said of the stacks.
    fn render(&self, text: &mut Text, family: &str, says: &str) {
        for ((binary, said), count) in &self.counts {
            let labels = [("binary", &**binary), (says, *said)];
            text.value(family, &labels, *count as f64);
        }
    }

    /// Binaries with a name of their own, those that were seen first. Each has up to ten outcomes,
    /// and a metrics store keeps each of these 500 for as long as it keeps anything.
    const BINARIES_MAX: usize = 50;

    /// What stands for all others, and for a stack without any frame.
    const OTHERS: &'static str = "[others]";

    /// Counts a stack.
    pub fn add(&mut self, binary: Option<&Arc<str>>, outcome: &'static str) {
        let is_named = |binary: &&Arc<str>| {
            self.binaries.contains(*binary) || self.binaries.len() < Self::BINARIES_MAX
        };
        let binary = match binary.filter(is_named) {
            Some(binary) => binary.clone(),
            None => Self::OTHERS.into(),
        };
        if *binary != *Self::OTHERS {
            self.binaries.insert(binary.clone());
        }
        *self.counts.entry((binary, outcome)).or_default() += 1;
    }
}

/// The figures, shared by the stages.
#[derive(Clone, Default)]
pub struct SharedMetrics(Arc<Mutex<Metrics>>);

impl SharedMetrics {
    /// The figures, to read or to write.
    pub fn lock(&self) -> MutexGuard<'_, Metrics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics {
    /// Counts samples that were lost at a stage.
    pub fn drop_samples(&mut self, stage: Stage, samples: u64) {
        self.dropped[stage as usize] += samples;
    }

    /// The figures in Prometheus' text format, version 0.0.4.
    pub fn render(&self, send: &SenderStats, own: ProcessAccount) -> String {
        let mut text = Text::default();
        self.render_samples(&mut text, send);
        self.render_windows(&mut text, send);
        self.render_cost(&mut text, own);
        self.render_unwinding(&mut text);
        self.render_processes_and_names(&mut text);
        self.render_uploads(&mut text);
        self.render_held(&mut text);
        self.render_patience(&mut text);
        text.0
    }

    fn render_samples(&self, text: &mut Text, send: &SenderStats) {
        text.counter(
            "entries_total",
            "Entries of the eBPF program.",
            self.program.entries as f64,
        );
        text.counters(
            "outcomes_total",
            "Entries by their one outcome; they add up to entries_total.",
            "outcome",
            Outcome::ALL
                .map(Outcome::name)
                .into_iter()
                .zip(self.program.outcomes),
        );
        text.counter(
            "expected_samples_total",
            "Samples that the CPU time in use (/proc/stat) should have given.",
            self.expected as f64,
        );
        text.counter(
            "decoded_samples_total",
            "Samples read from the ring.",
            self.decoded as f64,
        );
        text.counters(
            "stacks_total",
            "Samples counted into windows, by how their user stacks ended.",
            "outcome",
            self.stacks_by_outcome
                .iter()
                .map(|(it, count)| (*it, *count)),
        );
        let mut dropped = self.dropped;
        dropped[Stage::Send as usize] += send.dropped.iter().map(|it| it.samples).sum::<u64>();
        text.counters(
            "dropped_total",
            "Samples lost after the ring, by stage.",
            "stage",
            Stage::ALL.map(Stage::name).into_iter().zip(dropped),
        );
        text.counter(
            "sampled_seconds_total",
            "CPU time sampled.",
            seconds(self.sampled_ns),
        );
        text.counter(
            "busy_seconds_total",
            "CPU time that the kernel's own accounts (/proc/stat) say was used.",
            seconds(self.busy_ns),
        );
        text.counter(
            "stolen_seconds_total",
            "Time in which a processor had work and the hypervisor did not run it (/proc/stat): no CPU time, but a \
             timer that comes due in it fires after it.",
            seconds(self.stolen_ns),
        );
        text.gauge(
            "sampled_ratio",
            "CPU time sampled over CPU time used, last window.",
            self.last_window_ratio,
        );
    }

    fn render_windows(&self, text: &mut Text, send: &SenderStats) {
        text.counter("windows_total", "Windows closed.", self.windows as f64);
        text.gauge(
            "stacks",
            "Distinct stacks in the last window.",
            self.last_window_rows as f64,
        );
        text.gauge(
            "name_queue_windows",
            "Windows waiting for their names.",
            self.name_queue as f64,
        );
        text.gauge(
            "queue_windows",
            "Windows waiting for the server.",
            send.queue_windows as f64,
        );
        text.gauge(
            "queue_bytes",
            "Bytes of the windows waiting for the server.",
            send.queue_bytes as f64,
        );
        text.counter(
            "windows_sent_total",
            "Windows that the server stored.",
            send.sent_windows as f64,
        );
        text.counter(
            "sent_samples_total",
            "Samples that the server stored.",
            send.sent_samples as f64,
        );
        text.counter(
            "send_retries_total",
            "Tries to send a window that failed and were or will be repeated.",
            send.retries as f64,
        );
        text.counters(
            "windows_dropped_total",
            "Windows that the server did not get, by reason.",
            "reason",
            DropReason::ALL.map(|it| (it.as_str(), send.dropped_for(it).windows)),
        );
        text.gauge(
            "server_connected",
            "Whether the last try reached the server.",
            f64::from(u8::from(send.connected)),
        );
        text.counter(
            "sent_bytes_total",
            "Bytes of the windows that the server stored.",
            send.sent_bytes as f64,
        );
    }

    fn render_cost(&self, text: &mut Text, own: ProcessAccount) {
        text.counter(
            "bpf_seconds_total",
            "Time in the eBPF program, as it measures itself.",
            seconds(self.program.time_ns),
        );
        text.gauge(
            "bpf_map_bytes",
            "Kernel memory of the eBPF program's maps.",
            (self.map_bytes + self.unwind.table_bytes) as f64,
        );
        text.family(
            "cpu_seconds_total",
            "counter",
            "CPU time of the collector and of its naming child.",
        );
        for (mode, time_ns) in [("user", own.user_ns), ("system", own.system_ns)] {
            text.value(
                "cpu_seconds_total",
                &[("part", "collector"), ("mode", mode)],
                seconds(time_ns),
            );
        }
        let child = self.namer.child.unwrap_or_default();
        text.value(
            "cpu_seconds_total",
            &[("part", "namer"), ("mode", "all")],
            seconds(self.namer.child_cpu_ns),
        );
        text.family("resident_bytes", "gauge", "Resident memory.");
        text.value(
            "resident_bytes",
            &[("part", "collector")],
            own.resident_bytes as f64,
        );
        text.value(
            "resident_bytes",
            &[("part", "namer")],
            child.resident_bytes as f64,
        );
        text.family(
            "resident_peak_bytes",
            "gauge",
            "The most memory that was ever resident.",
        );
        text.value(
            "resident_peak_bytes",
            &[("part", "collector")],
            own.resident_peak_bytes as f64,
        );
        text.value(
            "resident_peak_bytes",
            &[("part", "namer")],
            self.namer.child_resident_peak_bytes as f64,
        );
        text.gauge("cpus", "Processors that are sampled.", self.cpus as f64);
        if let Some(first) = self.first_sample_seconds {
            text.gauge(
                "start_to_first_sample_seconds",
                "From the collector's start to its first sample.",
                first,
            );
        }
    }

    fn render_unwinding(&self, text: &mut Text) {
        let unwind = &self.unwind;
        text.counters(
            "checked_stacks_total",
            "Stacks that a second, independent unwinder (framehop) walked again, by result.",
            "result",
            ["agreed", "differed"].map(|result| {
                let counts = self.checked_stacks.counts.iter();
                let counts = counts.filter(|((_, it), _)| *it == result);
                (result, counts.map(|(_, count)| count).sum())
            }),
        );
        text.family(
            "checked_stacks_by_binary_total",
            "counter",
            "The same by program.",
        );
        self.checked_stacks
            .render(text, "checked_stacks_by_binary_total", "result");
        text.counter(
            "unchecked_stacks_total",
            "Stacks that were copied for it and that it could not walk: a file is too large or gone.",
            self.unchecked_stacks as f64,
        );
        text.family(
            "incomplete_stacks_total",
            "counter",
            "Samples whose user stack is not complete, by outcome and by the binary of the last frame that was found.",
        );
        self.incomplete_stacks
            .render(text, "incomplete_stacks_total", "outcome");
        text.counters(
            "copied_stacks_total",
            "Stacks that were copied and unwound in user space, by how that ended.",
            "outcome",
            unwind.copied.iter().map(|(it, count)| (*it, *count)),
        );
        text.counter(
            "copied_stacks_dropped_total",
            "Copied stacks that were not unwound because too many waited.",
            unwind.copied_dropped as f64,
        );
        text.gauge(
            "copied_stacks_waiting",
            "Copied stacks that wait for the rows of a file.",
            unwind.waiting as f64,
        );
        let tables = &unwind.tables;
        for (name, help, value) in [
            (
                "unwind_files",
                "Files whose unwind rows are in the kernel.",
                tables.files as u64,
            ),
            (
                "unwind_files_waiting",
                "Files whose rows are known and have no room in the kernel.",
                tables.files_aside as u64,
            ),
            ("unwind_rows", "Unwind rows in the kernel.", tables.rows),
            (
                "unwind_rules",
                "Distinct unwind rules.",
                tables.rules as u64,
            ),
            (
                "unwind_row_bytes",
                "Bytes of the pages of rows.",
                tables.bytes,
            ),
            (
                "unwind_blocks",
                "Blocks of 64 KiB of code with rows in the kernel.",
                tables.blocks.into(),
            ),
            (
                "unwind_processes",
                "Processes whose mappings are in the kernel.",
                tables.processes as u64,
            ),
            ("unwind_mappings", "Their mappings.", tables.mappings.into()),
        ] {
            text.gauge(name, help, value as f64);
        }
        text.counter(
            "unwind_writes_total",
            "Changes written to the kernel's unwind tables.",
            unwind.writes as f64,
        );
        text.counter(
            "unwind_write_errors_total",
            "Times that the kernel refused one.",
            unwind.write_errors as f64,
        );
        text.counter(
            "unwind_evaluated_files_total",
            "Files whose unwind rows were made, or read from the cache.",
            unwind.evaluated as f64,
        );
        text.counter(
            "unwind_evaluation_seconds_total",
            "CPU time that it took.",
            unwind.evaluation_cpu.as_secs_f64(),
        );
        let kept = &unwind.kept;
        text.counters(
            "unwind_cache_files_total",
            "Files with unwind rows in the cache on disk, by what became of them.",
            "result",
            [
                ("read", kept.reads),
                ("written", kept.writes),
                ("evicted", kept.evictions),
                ("damaged", kept.damaged),
                ("error", kept.errors),
            ],
        );
        text.gauge(
            "unwind_cache_bytes",
            "Bytes of the files that are there.",
            kept.bytes as f64,
        );
        text.counter(
            "unwind_evictions_total",
            "Files whose rows were pushed out of the kernel for want of room.",
            tables.evictions as f64,
        );
        let refused = tables.refused;
        text.counters(
            "unwind_refused_total",
            "What has no unwind rows because of a limit or an error, by reason.",
            "reason",
            [
                ("too_large", refused.too_large),
                ("code_too_large", refused.blocks),
                ("rows_too_dense", refused.dense_blocks),
                ("unreadable", refused.unreadable),
                ("no_room", refused.no_room),
                ("rules", refused.rules),
                ("mappings", refused.mappings),
                ("processes", refused.processes),
            ],
        );
    }

    fn render_processes_and_names(&self, text: &mut Text) {
        let table = &self.processes;
        text.gauge(
            "processes",
            "Processes in the table.",
            table.processes as f64,
        );
        text.gauge(
            "mapped_files",
            "Files that processes map.",
            table.files as f64,
        );
        text.counter(
            "side_band_lost_total",
            "Process events that the kernel lost; /proc is then read again.",
            table.events_lost as f64,
        );
        text.counter(
            "side_band_malformed_total",
            "Process events that could not be read.",
            self.side_band_malformed as f64,
        );
        text.counter(
            "processes_read_late_total",
            "Processes read from /proc when a sample named them.",
            table.read_late as f64,
        );
        text.counter(
            "processes_unknown_total",
            "Samples whose process was gone before anything was known of it.",
            table.unknown as f64,
        );
        text.counter(
            "process_limits_total",
            "Processes and mappings refused because a limit was reached.",
            table.limited as f64,
        );
        let names = &self.namer;
        text.counter(
            "names_total",
            "Addresses that were to be named.",
            names.addresses as f64,
        );
        text.counter(
            "names_cached_total",
            "Of them, known already.",
            names.cache_hits as f64,
        );
        text.counters(
            "names_unnamed_total",
            "Of them, left without a name, by reason.",
            "reason",
            UnnamedReason::ALL
                .map(UnnamedReason::as_str)
                .into_iter()
                .zip(names.unnamed),
        );
        text.gauge(
            "name_cache_bytes",
            "Bytes of names kept.",
            names.cache_bytes as f64,
        );
        text.counter(
            "name_cache_evictions_total",
            "Files whose names were dropped for want of room.",
            names.cache_evictions as f64,
        );
        text.counter(
            "name_cpu_seconds_total",
            "CPU time of naming, in the child and in the thread that asks it (--name-cpu).",
            names.asking_cpu.as_secs_f64() + seconds(names.child_cpu_ns),
        );
        text.gauge(
            "name_cpu_left_seconds",
            "CPU time that naming may use now; below 0 when it has used more and waits.",
            names.cpu_left_s,
        );
        text.counters(
            "name_requests_held_back_total",
            "Requests for up to 512 names that were put off, by reason: the CPU time was spent (--name-cpu), or the window's \
             time, or too many naming children had failed just before.",
            "reason",
            [
                ("cpu_time", names.held_back.cpu_time),
                ("window_time", names.held_back.window_time),
                ("children", names.held_back.children),
            ],
        );
        text.counter(
            "name_files_without_debug_info_total",
            "Files whose debug information could not be used, so that the symbol table served.",
            names.files_without_debug_info as f64,
        );
        text.counters(
            "name_split_files_total",
            "Files with split debug information (.dwo) that names needed, by what became of it.",
            "result",
            [
                ("found", names.split_files - names.split_files_missing),
                ("missing", names.split_files_missing),
                ("left", names.split_files_left),
            ],
        );
        let ends = names.ends;
        text.counters(
            "namer_ends_total",
            "Naming children that ended, by reason.",
            "reason",
            [
                ("memory", ends.memory),
                ("died", ends.died),
                ("timed_out", ends.timed_out),
                ("nonsense", ends.nonsense),
                ("not_started", ends.not_started),
            ],
        );
    }
}

impl Metrics {
    fn render_uploads(&self, text: &mut Text) {
        let uploads = &self.uploads;
        text.counter(
            "uploads_asked_total",
            "Files with symbols that the server asked for.",
            uploads.asked as f64,
        );
        text.counters(
            "uploads_total",
            "Of them, those that came to an end, by what that was.",
            "result",
            UploadEnd::ALL
                .map(UploadEnd::as_str)
                .into_iter()
                .zip(uploads.ends),
        );
        text.gauge(
            "uploads_waiting",
            "Of them, those that wait or are on their way.",
            uploads.waiting as f64,
        );
        text.counter(
            "uploaded_bytes_total",
            "Bytes of them that the server took.",
            uploads.sent_bytes as f64,
        );
        text.counter(
            "upload_resumed_bytes_total",
            "Bytes of them that the server still had after a break.",
            uploads.resumed_bytes as f64,
        );
        text.counter(
            "upload_retries_total",
            "Tries to send a file that failed and were repeated.",
            uploads.retries as f64,
        );
    }

    fn render_patience(&self, text: &mut Text) {
        let patience = &self.patience;
        text.gauge(
            "files_hanging",
            "Threads that wait for a file system that does not answer. No file there is opened as long.",
            patience.left as f64,
        );
        text.counters(
            "files_not_opened_total",
            "Looks at files that came to nothing: their file system did not answer in time, or was not asked since it hangs, or \
             too many others do.",
            "reason",
            [
                ("not_answering", patience.left_behind),
                ("hangs", patience.refused),
            ],
        );
    }

    fn render_held(&self, text: &mut Text) {
        let held = &self.held;
        text.gauge(
            "held_files",
            "Files that are held open until the window in which they were sampled has its names.",
            held.files as f64,
        );
        text.counter(
            "held_files_opened_total",
            "Files that were opened to be held.",
            held.opened as f64,
        );
        text.counters(
            "held_files_missed_total",
            "Files that were not held, by reason: gone before they were opened, let go for want of room, or of a process that \
             was not looked at, since too many waited.",
            "reason",
            [
                ("gone", held.failed),
                ("evicted", held.evicted),
                ("behind", held.dropped),
            ],
        );
        text.counter(
            "held_files_cpu_seconds_total",
            "CPU time of opening them.",
            held.cpu.as_secs_f64(),
        );
    }
}

/// A label's value, which may be any path: the format wants three characters escaped.
fn escape(value: &str) -> Cow<'_, str> {
    match value.contains(['\\', '"', '\n']) {
        true => value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
            .into(),
        false => value.into(),
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Text being written.
#[derive(Default)]
struct Text(String);

impl Text {
    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "counter", help);
        self.value(name, &[], value);
    }

    /// A family of counters that one label tells apart.
    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        counts: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.family(name, "counter", help);
        for (said, count) in counts {
            self.value(name, &[(label, said)], count as f64);
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.value(name, &[], value);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let name = format!("pilotlight_collector_{name}");
        // SANITY: writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "pilotlight_collector_{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that paths are escaped, and that the number of binaries is bounded.
    #[test]
    fn incomplete_stacks() {
        let mut metrics = Metrics::default();
        let stacks = &mut metrics.incomplete_stacks;
        stacks.add(Some(&"/a\"b\\c\n".into()), "no_rows");
        stacks.add(None, "no_rows");
        for number in 0..60 {
            stacks.add(Some(&format!("/{number}").into()), "bad_frame");
        }
        let text = metrics.render(&SenderStats::default(), ProcessAccount::default());
        let name = "pilotlight_collector_incomplete_stacks_total";
        for line in [
            "{binary=\"/a\\\"b\\\\c\\n\",outcome=\"no_rows\"} 1",
            "{binary=\"[others]\",outcome=\"no_rows\"} 1",
            "{binary=\"[others]\",outcome=\"bad_frame\"} 11",
            "{binary=\"/48\",outcome=\"bad_frame\"} 1",
        ] {
            assert!(text.contains(&format!("{name}{line}\n")), "{line}");
        }
    }

    /// Check that each family is announced once, before its values.
    #[test]
    fn families() {
        let text = Metrics::default().render(&SenderStats::default(), ProcessAccount::default());
        let mut announced = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(!announced.contains(&name), "{name}");
                announced.push(name);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(announced.last(), Some(&name));
            }
        }
        assert!(announced.len() > 30);
        assert!(text.contains("pilotlight_collector_outcomes_total{outcome=\"ring_full\"} 0\n"));
    }
}
