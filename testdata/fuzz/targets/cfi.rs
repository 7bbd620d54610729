//! Call frame information: the input is `.eh_frame` or, by its first byte, `.debug_frame` of a file that is otherwise whole.
#![no_main]

mod elves;
mod seeds;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(elves::make_sections()), |input: &[u8]| elves::try_section(input));
