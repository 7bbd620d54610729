//! ELF files as a whole: headers, sections, call frame information and instructions. Any bytes give headers within their limits, or an
//! error; rows within theirs, or an error; rows of each address of code that is asked for; and parts to send that lie within the file, or
//! none.

use collector::unwind::{CodeAddress, read_code};
use collector::upload::{PARTS_MAX, find_parts};
use elf::test_support::ElfBuilder;
use elf::{AlternativeLink, DebugLink, Headers, Limits, ProgramHeader, SEGMENTS_MAX, SectionHeader, find_build_id};
use object::elf::{PT_NOTE, SHT_PROGBITS};

use crate::inputs::elves;

pub(crate) fn run(input: &[u8]) {
    try_headers(input);
    elves::try_file(input);
    try_code(input);
    try_parts(input);
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    elves::make_elves().into_iter().chain([make_elf()]).collect()
}

fn try_headers(input: &[u8]) {
    let _ = find_build_id(input);
    for limits in [Limits::MAPPED, Limits::OBJECTS] {
        let Ok(headers) = Headers::read(input, limits) else { continue };
        let layout = headers.layout();
        assert!(layout.segments().len() <= SEGMENTS_MAX && headers.sections().len() <= limits.sections);
        for segment in layout.segments() {
            let last = segment.file_offset + (segment.bytes - 1);
            assert!(layout.address_of(last).is_some() && layout.offset_of(segment.address).is_some());
        }
        let _ = (headers.build_id(input), DebugLink::read(&headers, input), AlternativeLink::read(&headers, input));
        let data = headers.sections().iter().filter_map(|section| headers.data_of(input, section));
        for data in data.filter(|data| data.memory_bytes() < 1 << 20) {
            let read = data.read(input);
            assert!(read.is_none_or(|read| read.len() as u64 == data.bytes));
        }
    }
}

fn try_code(input: &[u8]) {
    let middle = input.len() as u64 / 2;
    let addresses = [
        CodeAddress::Instruction(middle),
        CodeAddress::Call(middle),
        CodeAddress::Call(u64::MAX),
    ];
    let read = read_code(input, &addresses);
    for address in addresses {
        // The last byte of the numbers has no byte behind it.
        assert!(read.rows.find(address.offset()).is_some() || address.offset() == u64::MAX);
    }
    assert!(read.rows.ranges().is_sorted_by(|one, other| one.end <= other.start));
}

fn try_parts(input: &[u8]) {
    let Some(found) = find_parts(input.len() as u64, input) else { return };
    assert!(found.parts.len() <= PARTS_MAX && found.parts.iter().all(|part| part.bytes > 0));
    assert!(found.parts.iter().all(|part| part.end() <= input.len() as u64));
    assert!(found.parts.windows(2).all(|pair| pair[0].end() < pair[1].offset));
    assert_eq!(found.places(0, u64::MAX).collect::<Vec<_>>(), found.parts);
}

/// A file with two notes, of which the second is a build id, and a debug link.
fn make_elf() -> Vec<u8> {
    let mut elf = ElfBuilder::default();
    let notes = elf.place(&[note(1, &[1; 5]), note(3, &[0xab; 20])].concat());
    elf.segment(ProgramHeader { kind: PT_NOTE, range: notes, ..Default::default() });
    let link = elf.place(b"a.debug\0\x01\x02\x03\x04");
    elf.section(".gnu_debuglink", SectionHeader { kind: SHT_PROGBITS, range: link, ..Default::default() });
    elf.build()
}

fn note(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut note = vec![0; 12];
    (note[0], note[4], note[8]) = (4, content.len() as u8, kind);
    note.extend(b"GNU\0");
    note.extend(content);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}
