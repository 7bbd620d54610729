//! ELF files as a whole: headers, sections, and what they say of the call frame information. Any bytes give rows within the
//! limits, or an error.
#![no_main]

mod elves;
mod seeds;

use collector::unwind::{Limits, RuleSet, read_table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(elves::make_elves()), |input: &[u8]| {
    let limits = elves::limits();
    let mut rules = RuleSet::new();
    if let Ok(evaluated) = read_table(input, &mut rules, &limits) {
        elves::check(&evaluated, &rules, &limits);
    }
    let small = Limits { rows_max: 3, functions_max: 2, section_bytes_max: 200, work_bytes_max: 300 };
    if let Ok(evaluated) = read_table(input, &mut RuleSet::new(), &small) {
        assert!(evaluated.table.rows().len() <= small.rows_max);
    }
});
