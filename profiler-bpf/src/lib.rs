//! What the eBPF program and the collector agree on, and the unwinder core that
//! both of them run.
//!
//! This half of the package has no dependencies and does no IO: it is compiled
//! for the kernel (`bpfel-unknown-none`) and for the host. [`record`] is the
//! layout of what goes through the ring buffer, [`outcome`] names how a sample
//! ended, [`settings`] holds the constants both sides must agree on, [`tables`] is
//! what the walk searches, and [`unwind`] turns registers and memory into frames. What depends on the
//! processor lives in [`arch`].
//!
//! The other half, the binary, is the program that the kernel runs
//! (`src/main.rs`, feature `bpf`).

#![cfg_attr(not(test), no_std)]

pub mod arch;
pub mod outcome;
pub mod per_cpu;
pub mod record;
pub mod settings;
pub mod tables;
pub mod unwind;
