//! Addresses and mappings of a pprof, as if one process had loaded all files. Pure.
//!
//! A location is an offset in a file. Tools that disassemble look for its address as linked: they subtract the start
//! of the executable segment from the mapping's start (Go's), or go through the mapping's offset in the file
//! (binutils and google/pprof). Both need a mapping with the address, end and offset of that segment, which the
//! file's layout says.
//!
//! The tools do not ask in which file an address lies when they add up a function's samples, so files must not
//! overlap: each gets its own range, from 2^44 on. Linux loads no file there (programs lie below 4 GiB or from 0x55…
//! on, libraries from 0x7f… on), and neither does the address of code without a file, or of the kernel.

use ::pprof::protos;
use elf::{Layout, Segment};
use hashbrown::HashMap;
use model::tables::StringId;
use model::{Dictionary, Location, Mapping, MappingFlags};

/// Address of the first file.
const START: u64 = 1 << 44;

/// End of the range for files: half of a process's addresses, and 2^46 bytes.
const END: u64 = 1 << 46;

/// Bytes of a file's range. A layout is a collector's claim, and no file has a terabyte of code.
const MAPPING_BYTES_MAX: u64 = 1 << 40;

const PAGE_BYTES: u64 = 4096;

/// Mappings, and the address of each location of a dictionary.
pub(super) struct Placed {
    pub(super) mappings: Vec<protos::Mapping>,
    /// Mapping's id, 0 for none, and address.
    pub(super) locations: Vec<(u64, u64)>,
}

/// Identity of a mapping: file, build id, and the difference between address and file offset. Windows of one file
/// have one mapping each, and a file with several executable segments may have several.
type Key = (StringId, StringId, Option<u64>);

/// The bytes of a file that a mapping has, by file offset.
#[derive(Clone, Copy)]
struct Extent {
    first: u64,
    end: u64,
}

/// Places all locations. `main` is the program: by the format's convention its mapping is the first.
pub(super) fn place(
    dictionary: &Dictionary,
    flags: &[MappingFlags],
    main: Option<StringId>,
    layout_of: &dyn Fn(&str) -> Option<Layout>,
) -> Placed {
    let tables = dictionary.tables();
    let mut layouts: HashMap<StringId, Option<Layout>> = HashMap::new();
    let mut extents: Vec<(Key, Extent, MappingFlags)> = Vec::new();
    let mut positions: HashMap<Key, usize> = HashMap::new();
    let mut found = Vec::with_capacity(tables.locations.len());
    for location in &tables.locations {
        let Some(mapping) = location.mapping else {
            found.push(None);
            continue;
        };
        let flags = flags[mapping.position()];
        let mapping = &tables.mappings[mapping.position()];
        let layout = layouts.entry(mapping.build_id).or_insert_with(|| {
            let build_id = tables.string(mapping.build_id);
            (!build_id.is_empty()).then(|| layout_of(build_id))?
        });
        let (key, extent) = find_extent(mapping, location, layout.as_ref());
        let position = *positions.entry(key).or_insert_with(|| {
            extents.push((key, extent, MappingFlags(0)));
            extents.len() - 1
        });
        let (_, known, known_flags) = &mut extents[position];
        known.first = known.first.min(extent.first);
        known.end = known.end.max(extent.end);
        known_flags.0 |= flags.0;
        found.push(Some(position));
    }

    let mut order: Vec<usize> = (0..extents.len()).collect();
    order.sort_by_key(|position| Some(extents[*position].0.0) != main);
    let mut next = START;
    let mut mappings = Vec::with_capacity(extents.len());
    // For each extent: the mapping's id, and what to add to a file offset.
    let mut moved = vec![(0, 0_u64); extents.len()];
    for position in order {
        let ((file, build_id, delta), extent, flags) = extents[position];
        let start = delta.and_then(|_| reserve(&mut next, extent));
        let id = mappings.len() as u64 + 1;
        let (start, limit, offset) = match start {
            Some(start) => (start, start + (extent.end - extent.first), extent.first),
            // As the collector writes them: addresses are offsets.
            None => (0, extent.end, 0),
        };
        moved[position] = (id, start.wrapping_sub(offset));
        mappings.push(protos::Mapping {
            id,
            memory_start: start,
            memory_limit: limit,
            file_offset: offset,
            filename: i64::from(file.0),
            build_id: i64::from(build_id.0),
            // Each location has a name or a stand-in: the reader has nothing to look up.
            has_functions: true,
            has_filenames: flags.has(MappingFlags::FILES),
            has_line_numbers: flags.has(MappingFlags::LINES),
            has_inline_frames: flags.has(MappingFlags::INLINES),
        });
    }
    let places = tables.locations.iter().zip(found);
    let locations = places.map(|(location, position)| match position {
        Some(position) => {
            let (id, difference) = moved[position];
            (id, location.address.wrapping_add(difference))
        }
        None => (0, location.address),
    });
    let locations = locations.collect();
    Placed {
        mappings,
        locations,
    }
}

/// The mapping of a location, and its part of the file: the pages of the segment, or the collector's mapping.
fn find_extent(mapping: &Mapping, location: &Location, layout: Option<&Layout>) -> (Key, Extent) {
    let of_segment = |segment: &Segment| {
        let address = segment.address_of(location.address)?;
        let extent = Extent {
            first: segment.file_offset - segment.file_offset % PAGE_BYTES,
            end: segment.file_end().checked_next_multiple_of(PAGE_BYTES)?,
        };
        Some((address.wrapping_sub(location.address), extent))
    };
    // Of several segments with the offset, the one that starts last counts, as for names.
    let segment = layout.and_then(|layout| layout.segments().iter().rev().find_map(of_segment));
    let (delta, extent) = match segment {
        Some((delta, extent)) => (Some(delta), extent),
        None => {
            let end = mapping.limit.max(location.address.saturating_add(1));
            (None, Extent { first: 0, end })
        }
    };
    ((mapping.file, mapping.build_id, delta), extent)
}

/// A range of addresses for a file; `None` when there are no more, or for a file that is too large.
fn reserve(next: &mut u64, extent: Extent) -> Option<u64> {
    let bytes = extent.end - extent.first;
    let start = *next;
    if bytes > MAPPING_BYTES_MAX || start + bytes > END {
        return None;
    }
    *next = start + bytes + PAGE_BYTES;
    Some(start)
}
