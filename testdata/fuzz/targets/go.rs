//! Programs with Go's table of functions. Any bytes give names within the limits, or none.
#![no_main]

mod go_files;
mod seeds;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(go_files::make_go_files()), |input: &[u8]| go_files::try_file(input));
