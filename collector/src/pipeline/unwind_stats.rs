//! Counters of the thread `unwind`.

use std::{collections::BTreeMap, time::Duration};

use metrics::Figures;
use profiler_bpf::outcome::Outcome;

use super::{code_requests::RequestStats, row_store::RowStoreStats};
use crate::unwind::{ReadCode, TablesStats};

/// Counts since the start, and current sizes.
#[derive(Clone, Debug, Default)]
pub(super) struct UnwindStats {
    /// The unwind tables in the kernel.
    pub(super) tables: TablesStats,
    /// Kernel memory of these tables.
    pub(super) table_bytes: u64,
    /// Changes written to these tables.
    pub(super) writes: u64,
    /// Writes that the kernel refused.
    pub(super) write_errors: u64,
    /// Files whose rows were made from call frame information, or read from the disk.
    pub(super) evaluated: u64,
    /// CPU time of making and reading rows.
    pub(super) evaluation_cpu: Duration,
    /// Jobs that read code without call frame information.
    pub(super) code_jobs: u64,
    /// CPU time of these jobs.
    pub(super) code_cpu: Duration,
    /// Addresses whose instructions do not tell the caller, by reason.
    pub(super) undecided: BTreeMap<&'static str, u64>,
    /// Requests for such rows.
    pub(super) code_requests: RequestStats,
    /// The rows on disk.
    pub(super) row_store: RowStoreStats,
    /// Stacks that were copied to user space and walked there, by outcome.
    pub(super) copied: BTreeMap<&'static str, u64>,
    /// Copied stacks that wait for rows.
    pub(super) waiting: usize,
}

impl UnwindStats {
    /// Counts a copied stack that was walked.
    pub(super) fn count_copied(&mut self, outcome: Outcome) {
        *self.copied.entry(outcome.name()).or_default() += 1;
    }

    /// Counts a job that read code.
    pub(super) fn count_code(&mut self, read: Option<&ReadCode>, cpu: Duration) {
        self.code_jobs += 1;
        self.code_cpu += cpu;
        let undecided = read.iter().flat_map(|read| &read.undecided);
        for (reason, count) in undecided {
            *self.undecided.entry(reason).or_default() += count;
        }
    }

    /// Writes the figures.
    pub(super) fn show(&self, figures: &mut Figures<'_>) {
        self.show_stacks(figures);
        self.show_tables(figures);
        self.show_work(figures);
        self.show_code(figures);
    }

    fn show_stacks(&self, figures: &mut Figures<'_>) {
        figures.counters(
            "copied_stacks",
            "Stacks that were copied and unwound in user space, by outcome",
            ["outcome"],
            self.copied
                .iter()
                .map(|(outcome, count)| ([*outcome], *count)),
        );
        figures.gauge(
            "copied_stacks_waiting",
            "Copied stacks that wait for the rows of a file",
            self.waiting,
        );
    }

    fn show_tables(&self, figures: &mut Figures<'_>) {
        let tables = &self.tables;
        for (name, help, value) in [
            (
                "unwind_files",
                "Files whose unwind rows are in the kernel, files with equal rows counted once",
                tables.files as u64,
            ),
            (
                "unwind_files_known",
                "Files of sampled processes that the unwinder knows",
                tables.files_known as u64,
            ),
            (
                "unwind_files_waiting",
                "Files whose rows are not in the kernel for lack of room",
                tables.files_waiting as u64,
            ),
            ("unwind_rows", "Unwind rows in the kernel", tables.rows),
            ("unwind_rules", "Distinct unwind rules", tables.rules as u64),
            (
                "unwind_row_bytes",
                "Bytes of the pages of rows",
                tables.bytes,
            ),
            (
                "unwind_blocks",
                "Blocks of 64 KiB of code with rows in the kernel",
                tables.blocks.into(),
            ),
            (
                "unwind_processes",
                "Processes whose mappings are in the kernel",
                tables.processes as u64,
            ),
            (
                "unwind_mappings",
                "Mappings of these processes",
                tables.mappings.into(),
            ),
        ] {
            figures.gauge(name, help, value);
        }
        figures.counter(
            "unwind_evictions",
            "Files whose rows were evicted from the kernel, because pages, blocks or numbers of rules were used up",
            tables.evictions,
        );
        figures.counter(
            "unwind_file_evictions",
            "Files that were evicted from the full table of known files, the least recently used first",
            tables.file_evictions,
        );
        figures.counter(
            "unwind_rules_reused",
            "Numbers of rules that were given to another rule",
            tables.rules_reused,
        );
        let refused = tables.refused;
        figures.counters(
            "unwind_refused",
            "Files, blocks, mappings and processes without unwind rows, by reason",
            ["reason"],
            [
                (["too_large"], refused.too_large),
                (["code_too_large"], refused.blocks),
                (["rows_too_dense"], refused.dense_blocks),
                (["unreadable"], refused.unreadable),
                (["no_room"], refused.no_room),
                (["rules"], refused.rules),
                (["files"], refused.files),
                (["mappings"], refused.mappings),
                (["processes"], refused.processes),
            ],
        );
    }

    fn show_code(&self, figures: &mut Figures<'_>) {
        let tables = &self.tables;
        figures.gauge(
            "unwind_code_ranges",
            "Ranges of code without call frame information that have rows by instructions",
            tables.code_ranges,
        );
        figures.counter(
            "unwind_code_jobs",
            "Readings of code without call frame information, of up to 16 addresses each",
            self.code_jobs,
        );
        figures.counter(
            "unwind_code_seconds",
            "CPU time of making rows by instructions",
            self.code_cpu.as_secs_f64(),
        );
        figures.counters(
            "unwind_code_undecided",
            "Addresses in code without call frame information whose instructions do not tell the caller, by reason",
            ["reason"],
            self.undecided.iter().map(|(reason, count)| ([*reason], *count)),
        );
        let refused = [
            ("cpu_time", self.code_requests.no_cpu_time),
            ("requests", self.code_requests.no_room),
            ("unreadable", self.code_requests.unreadable),
            ("ranges", tables.code_evictions),
        ];
        figures.counters(
            "unwind_code_refused",
            "Addresses whose rows by instructions were not made, and files whose were forgotten (`ranges`), by reason",
            ["reason"],
            refused.map(|(reason, count)| ([reason], count)),
        );
    }

    fn show_work(&self, figures: &mut Figures<'_>) {
        figures.counter(
            "unwind_writes",
            "Changes written to the kernel's unwind tables",
            self.writes,
        );
        figures.counter(
            "unwind_write_errors",
            "Writes to the unwind tables that the kernel refused",
            self.write_errors,
        );
        figures.counter(
            "unwind_evaluated_files",
            "Files whose unwind rows were made, or read from the cache",
            self.evaluated,
        );
        figures.counter(
            "unwind_evaluation_seconds",
            "CPU time of making and reading unwind rows",
            self.evaluation_cpu.as_secs_f64(),
        );
        let stored = &self.row_store;
        figures.counters(
            "unwind_cache_files",
            "Files with unwind rows in the cache on disk, by result",
            ["result"],
            [
                (["read"], stored.reads),
                (["written"], stored.writes),
                (["evicted"], stored.evictions),
                (["damaged"], stored.damaged),
                (["error"], stored.errors),
            ],
        );
        figures.gauge(
            "unwind_cache_bytes",
            "Bytes of the unwind rows in the cache on disk",
            stored.bytes,
        );
    }
}
