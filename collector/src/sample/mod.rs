//! Sampling: events, timers, the program and its ring.
//!
//! In: the kernel. Out: [`Batch`]es of decoded samples, and what the program
//! counted. It never looks at processes or files: that is the next stage's.

mod batch;
mod btf;
mod cpus;
mod kernel_tables;
mod program;
mod schedule;
mod timers;

pub use batch::{Batch, CopiedStack, DecodeError, Sample};
pub use btf::{BTF_PATH, KernelOffsets};
pub use cpus::{CpuListError, parse_cpu_list, read_online_cpus};
pub use kernel_tables::KernelTables;
pub use program::{CounterTotals, Program, ProgramOptions};
pub use schedule::Schedule;
pub use timers::{Event, Timers};
