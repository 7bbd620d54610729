//! Call frame information: the input is `.eh_frame` or, by its first byte, `.debug_frame` of a file that is otherwise whole.
#![no_main]

mod elves;
mod seeds;

use collector::unwind::{RuleSet, read_table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(elves::make_sections()), |input: &[u8]| {
    let Some((kind, section)) = input.split_first() else { return };
    let file = elves::wrap(section, kind % 2 == 1);
    let limits = elves::limits();
    let mut rules = RuleSet::new();
    if let Ok(evaluated) = read_table(&*file, &mut rules, &limits) {
        elves::check(&evaluated, &rules, &limits);
    }
});
