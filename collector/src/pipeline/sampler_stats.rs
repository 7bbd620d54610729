//! Statistics of the sampler, and of the program and tables that it reads with each drain.

use metrics::Figures;
use profiler_bpf::{outcome::Outcome, uncopied::Uncopied};

use crate::{cgroup::CgroupStats, metrics::seconds, process::TableStats, sample::CounterTotals};

/// Counts since the start, and the state of now.
#[derive(Clone, Debug, Default)]
pub(super) struct SamplerStats {
    /// Counters of the eBPF program.
    pub(super) program: CounterTotals,
    /// Samples decoded.
    pub(super) decoded: u64,
    /// Side-band records that could not be read.
    pub(super) side_band_malformed: u64,
    pub(super) processes: TableStats,
    pub(super) cgroups: CgroupStats,
    /// Kernel symbols from records, and how many were forgotten.
    pub(super) kernel_symbols: (usize, u64),
    /// Processors sampled.
    pub(super) cpus: usize,
    /// Samples a second and processor, as configured.
    pub(super) frequency_hz: u32,
    /// Seconds from the start to the first sample.
    pub(super) first_sample_seconds: Option<f64>,
}

impl SamplerStats {
    /// Writes the figures.
    pub(super) fn show(&self, figures: &mut Figures<'_>) {
        self.show_program(figures);
        self.show_samples(figures);
        self.processes.show(figures);
        self.cgroups.show(figures);
        let (symbols, forgotten) = self.kernel_symbols;
        figures.gauge(
            "kernel_symbols",
            "BPF programs and other code that the kernel loaded, unloaded ones included",
            symbols,
        );
        figures.counter(
            "kernel_symbols_forgotten",
            "Those that were forgotten for lack of room",
            forgotten,
        );
    }

    fn show_program(&self, figures: &mut Figures<'_>) {
        let program = &self.program;
        figures.counter("entries", "Entries of the eBPF program", program.entries);
        let outcomes = Outcome::ALL.into_iter().zip(program.outcomes);
        figures.counters(
            "outcomes",
            "Entries by their one outcome; they add up to entries_total",
            ["outcome"],
            outcomes.map(|(outcome, count)| ([outcome.name()], count)),
        );
        let uncopied = Uncopied::ALL.into_iter().zip(program.uncopied);
        figures.counters(
            "uncopied_stacks",
            "Stacks that the eBPF program was to copy and did not, by reason: the processor had copied as much as it may, \
             the ring was half full (samples go first), or had no room",
            ["reason"],
            uncopied.map(|(reason, count)| ([reason.name()], count)),
        );
        figures.counter(
            "copied_stacks_unpaired",
            "Copied stacks whose sample was lost",
            program.unpaired,
        );
        figures.counter(
            "bpf_seconds",
            "Time in the eBPF program, as it measures itself",
            seconds(program.time_ns),
        );
    }

    fn show_samples(&self, figures: &mut Figures<'_>) {
        figures.counter(
            "decoded_samples",
            "Samples read from the ring",
            self.decoded,
        );
        figures.counter(
            "side_band_malformed",
            "Process events that could not be read",
            self.side_band_malformed,
        );
        figures.gauge("cpus", "Processors that are sampled", self.cpus);
        figures.gauge(
            "frequency_hertz",
            "Samples a second and processor, as configured (--frequency)",
            self.frequency_hz,
        );
        if let Some(first) = self.first_sample_seconds {
            figures.gauge(
                "start_to_first_sample_seconds",
                "From the collector's start to its first sample",
                first,
            );
        }
    }
}
