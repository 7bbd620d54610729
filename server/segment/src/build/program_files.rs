//! The files of programs in an open block.

use crate::read::program_files::{FileSets, Program, ProgramFile, SetTimes, message_times};

use super::Builder;
use crate::tree::ROOT;

pub(super) fn read_program_files(builder: &Builder, programs: &[Program]) -> Vec<ProgramFile> {
    let names = &builder.names;
    let text = |number: u32| names.strings.get(number);
    let mappings = names.mappings.iter();
    let mappings = mappings.map(|mapping| [text(mapping.file), text(mapping.build_id)]);
    let mut sets = FileSets::new(programs, mappings);
    // A node's parent has a smaller number.
    let mut stack_sets: Vec<u32> = vec![0];
    for node in ROOT + 1..builder.tree.len() as u32 {
        let caller = stack_sets[builder.tree.parent(node) as usize];
        let location = builder.locations.get(builder.tree.location(node)).0;
        stack_sets.push(sets.add(caller, location.mapping));
    }
    let mut found = Vec::new();
    for (position, program) in programs.iter().enumerate() {
        let mut times = SetTimes::default();
        for run in builder.rows[program.series as usize].runs() {
            let of_run = message_times(&builder.windows[run.window as usize].info);
            run.read(|row| times.add(stack_sets[row.stack as usize], of_run));
        }
        found.extend(sets.resolve(position, program, times));
    }
    found
}
