//! Checks at the start: can this machine be sampled, what does the collector do without, and what can a person do?
//!
//! In: the configuration, `/proc`, `/sys`, and system calls that are tried. Out: a [`Report`], one
//! row a check. [`Facts`] reads and tries; [`check`] is pure and decides. A row names a cause only
//! if the facts prove it: a missing capability by `CapEff`, a seccomp filter by a call that the
//! kernel itself answers differently, the limit on locked memory by the one call that can exceed
//! it. If none of the known causes holds, the row says which were ruled out.

mod checks;
mod facts;
mod report;

pub use checks::check;
pub use facts::{Attempt, BpfLoad, BufferAttempt, Facts, MAP_BYTES_TRIED, Needs, Seccomp};
pub use report::{Check, Report, Verdict};

use crate::config::Config;

/// Reads the facts of this machine and checks them.
pub fn run(config: &Config) -> Report {
    let needs = Needs::of(config);
    check(&Facts::read(&needs), &needs)
}
