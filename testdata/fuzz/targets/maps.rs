//! `/proc/PID/maps`, whose paths may hold anything, and what is read of an ELF file where none is parsed: notes with a build
//! id, and headers.
#![no_main]

mod seeds;

use collector::name::read_headers;
use collector::process::{find_build_id, parse_maps_line};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds([MAPS.into(), make_elf()]), |input: &[u8]| {
    for line in input.split(|byte| *byte == b'\n') {
        let _ = parse_maps_line(line);
    }
    let read = |offset, out: &mut [u8]| {
        let Some(from) = usize::try_from(offset).ok() else { return false };
        let Some(bytes) = from.checked_add(out.len()).and_then(|to| input.get(from..to)) else { return false };
        out.copy_from_slice(bytes);
        true
    };
    let _ = find_build_id(read);
    let facts = read_headers(read);
    assert!(facts.is_none_or(|it| it.segments.len() <= 16));
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
    add_sections(&mut elf);
    elf
}

/// Three sections: none, a debug link, and their names.
fn add_sections(elf: &mut Vec<u8>) {
    const NAMES: &[u8] = b"\0.gnu_debuglink\0.shstrtab\0";
    const LINK: &[u8] = b"a.debug\0\x01\x02\x03\x04";
    let link = elf.len() as u64;
    elf.extend(LINK);
    let names = elf.len() as u64;
    elf.extend(NAMES);
    let sections = elf.len() as u64;
    for (name, offset, bytes) in [(0, 0, 0), (1, link, LINK.len()), (16, names, NAMES.len())] {
        let mut header = [0; 64];
        header[0] = name;
        header[24..32].copy_from_slice(&offset.to_le_bytes());
        header[32..40].copy_from_slice(&(bytes as u64).to_le_bytes());
        elf.extend(header);
    }
    elf[40..48].copy_from_slice(&sections.to_le_bytes());
    (elf[58], elf[60], elf[62]) = (64, 3, 2);
}

fn note(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut note = vec![0; 12];
    (note[0], note[4], note[8]) = (4, content.len() as u8, kind);
    note.extend(b"GNU\0");
    note.extend(content);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}
