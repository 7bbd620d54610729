//! Segments without the addresses of named locations are those of windows without them, and can be merged like others.

use fastrand::Rng;
use model::{Line, Tables, Window};
use segment::{Addresses, Section, Segment, WriteOptions, drop_addresses};

use crate::exact::{TWO, build, build_bytes, read_all};
use crate::merges::{OPTIONS, build_parts, merge_all};
use crate::random;
use crate::reference::assert_same_windows;

/// Whether all lines of a location are known, with their functions.
fn is_named(tables: &Tables, lines: &[Line]) -> bool {
    let is_known = |line: &Line| {
        let function = tables.functions[line.function.position()];
        let names = [function.name, function.system_name];
        line.line > 0 && names.iter().any(|name| !tables.string(*name).is_empty())
    };
    !lines.is_empty() && lines.iter().all(is_known)
}

/// The same windows without the addresses of named locations.
fn without_addresses(windows: &[Window]) -> Vec<Window> {
    let mut windows = windows.to_vec();
    let (mut dropped, mut kept) = (0, 0);
    for Window { tables, .. } in &mut windows {
        for position in 0..tables.locations.len() {
            let location = tables.locations[position];
            let lines = location.lines_start as usize..location.lines_end as usize;
            if is_named(tables, &tables.lines[lines]) {
                tables.locations[position].address = 0;
                dropped += 1;
            } else {
                kept += 1;
            }
        }
    }
    assert!(dropped > 0 && kept > 0, "{dropped}, {kept}");
    windows
}

/// Random windows of few functions and lines, so that locations differ in their addresses alone.
fn similar_windows(random: &mut Rng, nodes: usize, count: usize) -> Vec<Window> {
    let mut windows = random::windows(random, nodes, count);
    for Window { tables, .. } in &mut windows {
        let functions = tables.functions.clone();
        for function in &mut tables.functions {
            // Numbers of functions are their first lines.
            *function = functions[function.start_line as usize % 3 % functions.len()];
        }
        for line in &mut tables.lines {
            line.line = line.line.signum();
        }
    }
    windows
}

fn dropped(segment: &Segment<Vec<u8>>) -> Segment<Vec<u8>> {
    let mut bytes = Vec::new();
    let summary = drop_addresses(segment, &WriteOptions::FAST, &mut bytes).unwrap();
    let output = Segment::open(bytes).unwrap();
    assert_eq!(*output.summary(), summary);
    assert_eq!(output.verify(TWO), []);
    output
}

/// The bytes before the footer.
fn chunks_of(bytes: &[u8]) -> &[u8] {
    let segment = Segment::open(bytes).unwrap();
    let sections = Section::ALL.map(|section| segment.section(section).1);
    &bytes[..8 + sections.iter().sum::<u64>() as usize]
}

fn bytes_of(segment: &Segment<Vec<u8>>) -> Vec<u8> {
    let merged = merge_all(std::slice::from_ref(segment), &OPTIONS);
    merged.into_iter().next().unwrap()
}

/// Check that only segments without addresses have the second version of the format.
#[test]
fn segments_with_addresses_are_of_version_1() {
    let windows = similar_windows(&mut Rng::with_seed(20), 1, 3);
    let version = |bytes: &[u8]| bytes[bytes.len() - 16];
    assert_eq!(version(&build_bytes(&windows)), 1);
    let mut bytes = Vec::new();
    drop_addresses(&build(&windows), &WriteOptions::FAST, &mut bytes).unwrap();
    assert_eq!(version(&bytes), 2);
}

#[test]
fn a_segment_without_addresses_is_that_of_windows_without_them() {
    let mut random = Rng::with_seed(21);
    for nodes in 1..5 {
        let windows = similar_windows(&mut random, nodes, 12);
        let expected = without_addresses(&windows);
        let segment = dropped(&build(&windows));
        assert_eq!(segment.summary().addresses, Addresses::Dropped);
        assert_same_windows(&read_all(&segment), &expected);
        let count = |segment: &Segment<Vec<u8>>| segment.section(Section::Locations).0;
        assert!(count(&segment) < count(&build(&windows)) * 9 / 10);
        assert!(chunks_of(&bytes_of(&segment)) == chunks_of(&build_bytes(&expected)));
        let again = dropped(&segment);
        assert!(bytes_of(&again) == bytes_of(&segment), "dropped twice");
    }
}

/// Check that a merge of segments without addresses has none, and that one with others has those of the others and says so.
#[test]
fn segments_without_addresses_are_merged() {
    let mut random = Rng::with_seed(22);
    let windows = similar_windows(&mut random, 4, 20);
    let parts = build_parts(&mut random, &windows, 3);
    let without: Vec<_> = parts.iter().map(dropped).collect();
    let merged = merge_all(&without, &OPTIONS);
    let expected = build_bytes(&without_addresses(&windows));
    assert!(chunks_of(&merged[0]) == chunks_of(&expected));
    let merged = Segment::open(merged[0].clone()).unwrap();
    assert_eq!(merged.summary().addresses, Addresses::Dropped);

    let [first, second, third] = <[_; 3]>::try_from(parts).ok().unwrap();
    let mixed = merge_all(&[dropped(&first), second, third], &OPTIONS);
    let mixed = Segment::open(mixed[0].clone()).unwrap();
    assert_eq!(mixed.summary().addresses, Addresses::PartlyDropped);
    assert!(mixed.section(Section::Locations).0 > merged.section(Section::Locations).0);
    assert!(chunks_of(&bytes_of(&dropped(&mixed))) == chunks_of(&expected));
}

/// Check that each of the segments that one merge wrote stays the part that it was.
#[test]
fn parts_stay_parts() {
    let mut random = Rng::with_seed(23);
    let windows = similar_windows(&mut random, 3, 12);
    let options = segment::MergeOptions {
        nodes_max: 1,
        ..OPTIONS
    };
    let parts = merge_all(&[build(&windows)], &options);
    assert!(parts.len() > 1);
    let parts: Vec<_> = parts
        .into_iter()
        .map(|bytes| Segment::open(bytes).unwrap())
        .collect();
    let without: Vec<_> = parts.iter().map(dropped).collect();
    for (before, after) in parts.iter().zip(&without) {
        let place = |segment: &Segment<Vec<u8>>| {
            let summary = segment.summary();
            (summary.part, summary.parts, segment.has_accounts())
        };
        assert_eq!(place(before), place(after));
        let sums = |segment: &Segment<Vec<u8>>| (segment.summary().samples, segment.summary().ns);
        assert_eq!(sums(before), sums(after));
    }
    let merged = merge_all(&without, &OPTIONS);
    let expected = build_bytes(&without_addresses(&windows));
    assert!(chunks_of(&merged[0]) == chunks_of(&expected));
}
