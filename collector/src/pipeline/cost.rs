//! CPU time and memory of the collector and of its naming child.

use metrics::{Figures, Registry, register_figures};

use super::{unwind_stats::UnwindStats, window_publisher::NamingStats};
use crate::{
    accounts::ProcessAccount,
    metrics::{Stats, seconds},
};

/// Registers CPU time, memory and the bytes of the eBPF maps, read at each scrape. `map_bytes` does not include the unwind tables.
pub(super) fn register_cost(
    registry: &mut Registry,
    naming: Stats<NamingStats>,
    unwind: Stats<UnwindStats>,
    map_bytes: u64,
) {
    register_figures(registry, move |figures| {
        let naming = naming.lock().clone();
        show_processes(figures, ProcessAccount::read_own(), &naming);
        figures.gauge(
            "bpf_map_bytes",
            "Kernel memory of the eBPF program's maps",
            map_bytes + unwind.lock().table_bytes,
        );
    });
}

fn show_processes(figures: &mut Figures<'_>, own: ProcessAccount, naming: &NamingStats) {
    let namer = &naming.namer;
    let child = namer.child.unwrap_or_default();
    figures.counters(
        "cpu_seconds",
        "CPU time of the collector and of its naming child",
        ["part", "mode"],
        [
            (["collector", "user"], seconds(own.user_ns)),
            (["collector", "system"], seconds(own.system_ns)),
            (["namer", "all"], seconds(namer.child_cpu_ns)),
        ],
    );
    figures.gauges(
        "resident_bytes",
        "Resident memory",
        ["part"],
        [
            (["collector"], own.resident_bytes),
            (["namer"], child.resident_bytes),
        ],
    );
    figures.gauges(
        "resident_peak_bytes",
        "Peak of resident memory",
        ["part"],
        [
            (["collector"], own.resident_peak_bytes),
            (["namer"], namer.child_resident_peak_bytes),
        ],
    );
}
