//! Files with rules of relabelling.
#![no_main]

mod pod_objects;
mod seeds;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds([pod_objects::RULES.into()]), |input: &str| pod_objects::try_rules(input));
