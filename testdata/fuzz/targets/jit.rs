//! Perf maps and jitdumps: any bytes, and valid files that grow, are truncated and restarted, against a plain model of the newest code
//! at an address.
#![no_main]

mod jit_files;
mod seeds;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(jit_files::make_seeds()), |input: &[u8]| jit_files::try_input(input));
