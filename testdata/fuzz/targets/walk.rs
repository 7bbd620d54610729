//! The unwinder core: any registers, rules and memory give a walk that ends.
#![no_main]

mod seeds;
mod walks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(walks::make_seeds()), |input: &[u8]| walks::try_walk(input));
