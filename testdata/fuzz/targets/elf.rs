//! ELF files as a whole: headers, sections, and what they say of the call frame information. Any bytes give rows within the
//! limits, or an error; and parts to send that lie within the file, or none.
#![no_main]

mod elves;
mod seeds;

use collector::upload::{PARTS_MAX, find_parts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(elves::make_elves()), |input: &[u8]| {
    elves::try_file(input);
    try_parts(input);
});

fn try_parts(input: &[u8]) {
    let found = find_parts(input.len() as u64, |at, buffer| {
        let from = usize::try_from(at).ok().and_then(|at| input.get(at..)?.get(..buffer.len()));
        from.is_some_and(|from| {
            buffer.copy_from_slice(from);
            true
        })
    });
    let Some(found) = found else { return };
    assert!(found.parts.len() <= PARTS_MAX && found.parts.iter().all(|it| it.bytes > 0));
    assert!(found.parts.iter().all(|it| it.end() <= input.len() as u64));
    assert!(found.parts.windows(2).all(|it| it[0].end() < it[1].offset));
    assert_eq!(found.places(0, u64::MAX).collect::<Vec<_>>(), found.parts);
}
