//! What the server reads of symbols in its own process: an index, the file of layouts, the plan of a file that a collector sends, and
//! what an uploaded ELF file says about itself (in the command that uploads); and what the child makes of such a file.
//!
//! An index has checksums, which random bytes hardly ever pass: they are set right before it is read.
#![no_main]

mod seeds;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libfuzzer_sys::fuzz_target;
use server::symbol::BuildId;
use server::symbol::convert::convert;
use server::symbol::elf::read_elf;
use server::symbol::index::{HEAD_BYTES, Index, IndexHead, Rank};
use server::symbol::known_layouts::decode;
use server::symbol::layout::{Layout, Segment};
use server::symbol::plan::{FileRange, UploadPlan};

fuzz_target!(init: prepare(), |input: &[u8]| {
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
});

/// Takes parts as a collector could send them. Those that are taken lie in the file and apart, are read as they were written, and
/// each length of the file on the disk says how much has come.
fn try_plan(input: &[u8]) {
    let mut numbers = input.chunks_exact(8).map(|it| u64::from_le_bytes(it.try_into().expect("they are eight")));
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
        let left: u64 = plan.places(received, u64::MAX).map(|it| it.bytes).sum();
        assert_eq!(received + left, total);
    }
}

/// Panics that are caught, as a look-up does those of the symcache's reader, are no finding; one that is not still ends the
/// run.
fn prepare() {
    std::panic::set_hook(Box::new(|_| {}));
    seeds::write_seeds(make_seeds());
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

/// Sets the checksum of a head right.
fn mend_head(mut head: Vec<u8>) -> Vec<u8> {
    if let Some(crc) = head.get(..HEAD_BYTES - 4).map(crc32c::crc32c)
        && let Some(place) = head.get_mut(HEAD_BYTES - 4..HEAD_BYTES)
    {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    head
}

/// A right head before any body.
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

fn make_seeds() -> Vec<Vec<u8>> {
    let elf = make_elf();
    let build_id: BuildId = "00112233".parse().expect("it is one");
    let mut out = Cursor::new(Vec::new());
    convert(&elf, &build_id, "fuzz", &mut out).expect("the file is whole");
    let index = out.into_inner();
    let cache_bytes = IndexHead::decode(&index).expect("it was made here").cache_bytes;
    let mut layouts = b"PLLAYOU\x01".to_vec();
    let mut record = vec![1, 8];
    record.extend(b"00112233");
    layout().encode(&mut record);
    layouts.extend((record.len() as u32).to_le_bytes());
    layouts.extend(crc32c::crc32c(&record).to_le_bytes());
    layouts.extend(record);
    assert!(decode(&layouts).1 && decode(&layouts).0.len() == 1);
    vec![
        seeds::of_kind(0, &elf),
        seeds::of_kind(1, &layouts),
        seeds::of_kind(2, &index[..HEAD_BYTES]),
        seeds::of_kind(3, &index[..HEAD_BYTES]),
        seeds::of_kind(4, &[&(cache_bytes as u32).to_le_bytes(), &index[HEAD_BYTES..]].concat()),
        seeds::of_kind(5, &elf),
        seeds::of_kind(6, &[1000u64, 0, 64, 100, 10, 900, 100].map(u64::to_le_bytes).concat()),
    ]
}

/// The smallest file that is taken: one load segment, a build id, and a symbol table with one function.
fn make_elf() -> Vec<u8> {
    const HEADER: usize = 64;
    let names = b"\0.text\0.note\0.symtab\0.strtab\0";
    let strings = b"\0work\0";
    let mut note = Vec::new();
    for number in [4u32, 4, 3] {
        note.extend(number.to_le_bytes());
    }
    note.extend(b"GNU\0\x00\x11\x22\x33");
    let mut symbols = vec![0; 24];
    symbols.extend(1u32.to_le_bytes());
    symbols.extend([0x12, 0, 1, 0]);
    symbols.extend([HEADER as u64 + 56, 16].map(u64::to_le_bytes).concat());
    let parts: [&[u8]; 5] = [&[0x90; 16], &note, &symbols, strings, names];
    let mut body = Vec::new();
    let mut places = Vec::new();
    for part in parts {
        while body.len() % 8 != 0 {
            body.push(0);
        }
        places.push(((HEADER + 56 + body.len()) as u64, part.len() as u64));
        body.extend(part);
    }
    while body.len() % 8 != 0 {
        body.push(0);
    }
    let sections_at = (HEADER + 56 + body.len()) as u64;

    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([3u16, 62].map(u16::to_le_bytes).concat());
    elf.extend(1u32.to_le_bytes());
    elf.extend([0, HEADER as u64, sections_at].map(u64::to_le_bytes).concat());
    elf.extend(0u32.to_le_bytes());
    elf.extend([64u16, 56, 1, 64, 6, 5].map(u16::to_le_bytes).concat());
    elf.extend([1u32, 5].map(u32::to_le_bytes).concat());
    let bytes = (HEADER + 56 + body.len()) as u64;
    elf.extend([0, 0, 0, bytes, bytes, 0x1000].map(u64::to_le_bytes).concat());
    elf.extend(body);
    // Name, kind, flags, place, link, info, entry size of: nothing, .text, .note, .symtab, .strtab, the sections' names.
    elf.extend([0; 64]);
    for (number, (name, kind, flags, link, info, size)) in
        [(1u32, 1u32, 6u64, 0u32, 0u32, 0u64), (7, 7, 2, 0, 0, 0), (13, 2, 0, 4, 1, 24), (21, 3, 0, 0, 0, 0), (21, 3, 0, 0, 0, 0)]
            .into_iter()
            .enumerate()
    {
        let (offset, bytes) = places[number];
        elf.extend([name, kind].map(u32::to_le_bytes).concat());
        elf.extend([flags, offset, offset, bytes].map(u64::to_le_bytes).concat());
        elf.extend([link, info].map(u32::to_le_bytes).concat());
        elf.extend([8, size].map(u64::to_le_bytes).concat());
    }
    elf
}
