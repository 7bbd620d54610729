//! ELF files as a whole: headers, sections, and what they say of the call frame information. Any bytes give rows within the
//! limits, or an error.
#![no_main]

mod elves;
mod seeds;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(elves::make_elves()), |input: &[u8]| elves::try_file(input));
