//! Files with symbols that the server's own process reads: an index, the file of layouts, the plan of a file that a collector sends,
//! and the facts of an ELF file (in the command that uploads); and the child's conversion of an ELF file.
//!
//! Random bytes hardly ever pass the checksums of an index: they are corrected before it is read.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use elf::test_support::ElfBuilder;
use elf::{BuildId, FileRange, Layout, ProgramHeader, SectionHeader, Segment};
use object::elf::{
    PF_R, PF_X, PT_LOAD, SHF_ALLOC, SHF_EXECINSTR, SHT_NOTE, SHT_PROGBITS, SHT_STRTAB, SHT_SYMTAB, SectionFlags,
};
use server::symbol::known_layouts::{LayoutSource, decode};
use server::symbol::plan::UploadPlan;
use symbolize::index::{HEAD_BYTES, Index, IndexHead, Rank, convert, read_elf};

use crate::of_kind;

pub(crate) fn run(input: &[u8]) {
    let Some((&kind, input)) = input.split_first() else { return };
    match kind % 7 {
        0 => drop(read_elf(input)),
        1 => drop(decode(input)),
        2 => drop(IndexHead::decode(input)),
        3 => drop(IndexHead::decode(&mend_head(input.to_vec()))),
        4 => look_up(wrap_body(input)),
        6 => try_plan(input),
        _ => {
            if let Ok(Some(build_id)) = read_elf(input).map(|facts| facts.build_id) {
                let mut out = Cursor::new(Vec::new());
                // The child may die of a file; what it wrote before that is never read.
                let converted = catch_unwind(AssertUnwindSafe(|| convert(input, &build_id, "fuzz", &mut out)));
                if matches!(converted, Ok(Ok(_))) {
                    look_up(out.into_inner());
                }
            }
        }
    }
}

/// Takes parts as a collector could send them. Those that are taken lie in the file and apart, are read as they were written, and
/// each length of the file on the disk says how much has come.
fn try_plan(input: &[u8]) {
    let mut numbers = input.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("they are eight")));
    let Some(file_bytes) = numbers.next() else { return };
    let mut ranges = Vec::new();
    while let (Some(offset), Some(bytes)) = (numbers.next(), numbers.next()) {
        ranges.push(FileRange { offset, bytes });
    }
    let Ok(plan) = UploadPlan::new(file_bytes, ranges) else { return };
    assert!(plan.total_bytes() <= file_bytes);
    assert_eq!(UploadPlan::decode(&plan.encode()).as_ref(), Some(&plan));
    let total = plan.total_bytes();
    for received in [0, 1, total / 2, total - 1, total] {
        let length = plan.length_at(received);
        assert!(length <= file_bytes && plan.received_at(length) == received);
        let left: u64 = plan.places(received, u64::MAX).map(|range| range.bytes).sum();
        assert_eq!(received + left, total);
    }
}

/// Names offsets all over a file with an index: whatever it says, each has a name or none.
fn look_up(index: Vec<u8>) {
    let Ok(index) = Index::from_bytes(index) else { return };
    let offsets: Vec<u64> = (0..64).map(|n| n * 0x101).chain([u64::MAX, u64::from(u32::MAX) - 1]).collect();
    let layout = index.head().layout.clone().unwrap_or_else(layout);
    let _ = index.name(&layout, &offsets, &mut |position, frames| {
        assert!(position < offsets.len() && !frames.is_empty());
    });
}

fn layout() -> Layout {
    Layout::new(vec![Segment { file_offset: 0, address: 0, bytes: u64::MAX }]).expect("it is valid")
}

/// Corrects the checksum of a head.
fn mend_head(mut head: Vec<u8>) -> Vec<u8> {
    if let Some(crc) = head.get(..HEAD_BYTES - 4).map(crc32c::crc32c)
        && let Some(place) = head.get_mut(HEAD_BYTES - 4..HEAD_BYTES)
    {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    head
}

/// A correct head before any body.
fn wrap_body(input: &[u8]) -> Vec<u8> {
    let (cache_bytes, body) = input.split_at(input.len().min(4));
    let cache_bytes = cache_bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let head = IndexHead {
        build_id: "aabb".parse().expect("it is one"),
        rank: Rank::DebugInfo,
        origin: "fuzz".to_owned(),
        created_ms: 1,
        source_bytes: 2,
        unreadable: 0,
        load_address: 0,
        layout: None,
        cache_bytes,
        body_bytes: body.len() as u64,
        body_crc: crc32c::crc32c(body),
    };
    [head.encode(), body.to_vec()].concat()
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let elf = make_elf();
    let build_id: BuildId = "00112233".parse().expect("it is one");
    let mut out = Cursor::new(Vec::new());
    convert(&elf, &build_id, "fuzz", &mut out).expect("the file is whole");
    let index = out.into_inner();
    let cache_bytes = IndexHead::decode(&index).expect("it was made here").cache_bytes;
    let mut layouts = b"PLLAYOU\x02".to_vec();
    let record = (build_id, Some(layout()), LayoutSource::File);
    let record = postcard::to_allocvec(&record).expect("a record has a form");
    layouts.extend((record.len() as u32).to_le_bytes());
    layouts.extend(crc32c::crc32c(&record).to_le_bytes());
    layouts.extend(record);
    assert!(decode(&layouts).1 && decode(&layouts).0.len() == 1);
    vec![
        of_kind(0, &elf),
        of_kind(1, &layouts),
        of_kind(2, &index[..HEAD_BYTES]),
        of_kind(3, &index[..HEAD_BYTES]),
        of_kind(4, &[&(cache_bytes as u32).to_le_bytes(), &index[HEAD_BYTES..]].concat()),
        of_kind(5, &elf),
        of_kind(6, &[1000u64, 0, 64, 100, 10, 900, 100].map(u64::to_le_bytes).concat()),
    ]
}

/// The smallest file that is taken: one load segment, a build id, and a symbol table with one function.
fn make_elf() -> Vec<u8> {
    let mut elf = ElfBuilder::default();
    let code = elf.place(&[0x90; 16]);
    let note = [&[4u32, 4, 3].map(u32::to_le_bytes).concat()[..], b"GNU\0\x00\x11\x22\x33"].concat();
    let note = elf.place(&note);
    let mut symbols = vec![0; 24];
    symbols.extend(1u32.to_le_bytes());
    symbols.extend([0x12, 0, 1, 0]);
    symbols.extend([code.offset, code.bytes].map(u64::to_le_bytes).concat());
    let symbols = elf.place(&symbols);
    let names = elf.place(b"\0work\0");
    let load = FileRange { offset: 0, bytes: names.end() };
    elf.segment(ProgramHeader { kind: PT_LOAD, flags: PF_R | PF_X, range: load, align: 0x1000, ..Default::default() });
    let section = |kind, flags, range| SectionHeader { kind, flags, range, align: 8, ..Default::default() };
    elf.section(".text", section(SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, code));
    elf.section(".note", section(SHT_NOTE, SHF_ALLOC, note));
    elf.section(".symtab", SectionHeader { link: 4, entry_bytes: 24, ..section(SHT_SYMTAB, SectionFlags(0), symbols) });
    elf.section(".strtab", section(SHT_STRTAB, SectionFlags(0), names));
    elf.build()
}
