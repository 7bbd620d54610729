//! `/proc/PID/maps`, whose paths may hold anything, and ELF notes with a build id.
#![no_main]

mod seeds;

use collector::process::{find_build_id, parse_maps_line};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds([MAPS.into(), make_elf()]), |input: &[u8]| {
    for line in input.split(|byte| *byte == b'\n') {
        let _ = parse_maps_line(line);
    }
    let _ = find_build_id(|offset, out| {
        let Some(from) = usize::try_from(offset).ok() else { return false };
        let Some(bytes) = from.checked_add(out.len()).and_then(|to| input.get(from..to)) else { return false };
        out.copy_from_slice(bytes);
        true
    });
});

const MAPS: &str = "\
55d0c0a00000-55d0c0a2c000 r-xp 00002000 fe:00 1835 /usr/bin/a\\040b\\012c (deleted)
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7ffe3c5f2000-7ffe3c5f4000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";

/// A header, two program headers of which the second is of notes, and two notes of which the second is a build id.
fn make_elf() -> Vec<u8> {
    let mut elf = vec![0; 64 + 2 * 56];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 2;
    let notes = [note(1, &[1; 5]), note(3, &[0xab; 20])].concat();
    let start = elf.len() as u8;
    elf[64] = 1;
    let header = &mut elf[64 + 56..];
    header[0] = 4;
    header[8] = start;
    header[32] = notes.len() as u8;
    elf.extend(notes);
    elf
}

fn note(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut note = vec![0; 12];
    (note[0], note[4], note[8]) = (4, content.len() as u8, kind);
    note.extend(b"GNU\0");
    note.extend(content);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}
