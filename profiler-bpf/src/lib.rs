//! The ABI between the eBPF program and the collector, and the unwinder core that
//! both of them run.
//!
//! This half of the package has no dependencies and does no IO: it is compiled
//! for the kernel (`bpfel-unknown-none`) and for the host. [`record`] is the
//! layout of what goes through the ring buffer, [`outcome`] names how a sample
//! ended, [`settings`] holds the constants both sides must agree on, [`copy_size`] computes how much of a stack is
//! copied, [`policy`] has the verdicts on cgroups, [`tables`] is the data that the walk searches, and [`unwind`] turns registers and memory into frames. The
//! parts for one processor live in [`arch`].
//!
//! The other half, the binary, is the program that the kernel runs
//! (`src/main.rs`, feature `bpf`).

#![cfg_attr(not(test), no_std)]

pub mod arch;
pub mod copy_size;
pub mod outcome;
pub mod per_cpu;
pub mod policy;
pub mod record;
pub mod settings;
pub mod sources;
pub mod tables;
pub mod uncopied;
pub mod unwind;
