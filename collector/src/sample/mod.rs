//! Sampling: events, timers, the program and its ring.
//!
//! In: the kernel. Out: [`Batch`]es of decoded samples, and the program's
//! counters. It never looks at processes or files: the next stage does.

mod batch;
mod btf;
mod cgroup_hierarchy;
mod cpus;
mod kernel_tables;
mod kernel_verdicts;
mod maps;
mod pid_namespace;
mod program;
mod schedule;
mod timers;

#[cfg(test)]
pub(crate) use batch::testing;
pub use batch::{Batch, CopiedStack, DecodeError, Sample};
pub use btf::{BTF_PATH, KernelOffsets};
pub use cgroup_hierarchy::{CgroupHierarchy, CgroupView};
pub use cpus::{CpuListError, parse_cpu_list, read_online_cpus};
pub use kernel_tables::KernelTables;
pub use kernel_verdicts::{KernelVerdicts, VerdictWrite};
pub use pid_namespace::PidNamespace;
pub use program::{CounterTotals, Program, ProgramOptions, map_bytes};
pub use schedule::Schedule;
pub use timers::{Event, Timers};
