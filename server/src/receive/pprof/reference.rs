//! prost's decoder of the `pprof` crate's types, with which the scanner must agree: for tests and fuzz targets.

#![allow(unreachable_pub, reason = "only fuzz targets see it from outside")]

use std::fmt::Debug;

use ::pprof::protos::{self, Message};
use model::LabelSet;
use model::text::describe_stack;

use super::entry::{Function, Label, Line, Location, Mapping, Sample};
use super::scan::{GROUP, Malformed};
use super::{CountedProfile, ProfileContext, UnnamedLocations};
use crate::receive::profile_bytes::ProfileBytes;

/// Series of checked profiles.
const SERIES: usize = 2;

/// Scans any bytes as an entry of a table, of kind 0 to 3. Returns whether they are one.
///
/// # Panics
/// prost reads something else.
pub fn check_entry(kind: u8, bytes: &[u8]) -> bool {
    match kind % 4 {
        0 => {
            // What was there before must go.
            let mut sample = Sample {
                locations: vec![7],
                values: vec![7],
                labels: vec![Label::default()],
            };
            let scanned = sample.read(bytes);
            let decoded = protos::Sample::decode(bytes).ok();
            compare(scanned.map(|()| sample), decoded.map(sample_of))
        }
        1 => {
            let mut location = Location {
                id: 7,
                lines: vec![Line::default()],
                ..Location::default()
            };
            let scanned = location.read(bytes);
            let decoded = protos::Location::decode(bytes).ok();
            compare(scanned.map(|()| location), decoded.map(location_of))
        }
        2 => {
            let decoded = protos::Mapping::decode(bytes).ok();
            compare(Mapping::read(bytes), decoded.map(mapping_of))
        }
        _ => {
            let decoded = protos::Function::decode(bytes).ok();
            compare(Function::read(bytes), decoded.map(function_of))
        }
    }
}

fn compare<T: PartialEq + Debug>(scanned: Result<T, Malformed>, decoded: Option<T>) -> bool {
    match (scanned, decoded) {
        (Ok(scanned), Some(decoded)) => assert_eq!(scanned, decoded),
        // prost skips groups, which no writer of profiles has.
        (Err(GROUP), _) | (Err(_), None) => return false,
        (scanned, decoded) => panic!("scanned {scanned:?}, and prost read {decoded:?}"),
    }
    true
}

fn sample_of(sample: protos::Sample) -> Sample {
    let label = |label: protos::Label| Label {
        key: label.key,
        text: label.str,
        number: label.num,
        unit: label.num_unit,
    };
    Sample {
        locations: sample.location_id,
        values: sample.value,
        labels: sample.label.into_iter().map(label).collect(),
    }
}

fn location_of(location: protos::Location) -> Location {
    let line = |line: protos::Line| Line {
        function_id: line.function_id,
        line: line.line,
    };
    Location {
        id: location.id,
        mapping_id: location.mapping_id,
        address: location.address,
        lines: location.line.into_iter().map(line).collect(),
        is_folded: location.is_folded,
    }
}

fn mapping_of(mapping: protos::Mapping) -> Mapping {
    Mapping {
        id: mapping.id,
        memory_start: mapping.memory_start,
        memory_limit: mapping.memory_limit,
        file_offset: mapping.file_offset,
        filename: mapping.filename,
        build_id: mapping.build_id,
        has: [
            mapping.has_functions,
            mapping.has_filenames,
            mapping.has_line_numbers,
            mapping.has_inline_frames,
        ],
    }
}

fn function_of(function: protos::Function) -> Function {
    Function {
        id: function.id,
        name: function.name,
        system_name: function.system_name,
        filename: function.filename,
        start_line: function.start_line,
    }
}

/// Reads any bytes as a profile. Returns whether they are one.
///
/// # Panics
/// A profile has other samples than prost finds in it, or bytes are refused as malformed that prost decodes, or the profile is checked with
/// another result than it is read with.
pub fn check_profile(bytes: &[u8]) -> bool {
    let context = ProfileContext {
        series_count: SERIES,
        window_ms: 10_000,
        packed_bytes: bytes.len() as u64,
        unnamed: UnnamedLocations::default(),
        files: &[],
    };
    let plain = || ProfileBytes::Plain(bytes.into());
    let decoded = protos::Profile::decode(bytes);
    let counted = CountedProfile::new(plain(), context);
    let read = counted.and_then(|mut counted| {
        let checked = counted.check();
        let read = counted.read();
        assert_eq!(checked.err(), read.as_ref().err().cloned());
        read
    });
    match (read, decoded) {
        (Ok(_), Ok(profile)) if is_long(&profile) => true,
        (Ok(content), Ok(profile)) => {
            let labels = LabelSet::default();
            let describe = |row: &model::Row| {
                let stack = describe_stack(&content.tables, &labels, row.tags, row.stack);
                format!("{} {stack} {} {}", row.series, row.samples, row.ns)
            };
            let mut rows: Vec<String> = content.rows.iter().map(describe).collect();
            let mut expected: Vec<String> = (profile.sample.iter())
                .map(|sample| describe_sample(&profile, sample, &labels))
                .collect();
            rows.sort();
            expected.sort();
            assert_eq!(rows, expected);
            true
        }
        (Ok(_), Err(err)) => panic!("taken, and prost refuses it: {err}"),
        (Err(refusal), decoded) => {
            let is_malformed = refusal.message.contains("not a pprof");
            assert!(
                !is_malformed || refusal.message.contains(GROUP.0) || decoded.is_err(),
                "prost takes it: {refusal}"
            );
            false
        }
    }
}

/// Whether the samples take more than some hundred megabytes as text.
fn is_long(profile: &protos::Profile) -> bool {
    let frames = profile.sample.iter().map(|sample| sample.location_id.len());
    let lines = profile.location.iter().map(|location| location.line.len());
    frames.sum::<usize>() * (1 + lines.max().unwrap_or_default()) > 1 << 20
}

/// A sample as [`describe_stack`] writes it.
fn describe_sample(
    profile: &protos::Profile,
    sample: &protos::Sample,
    labels: &LabelSet,
) -> String {
    let text = |at: i64| profile.string_table[at as usize].as_str();
    let is_series = |label: &&protos::Label| text(label.key) == "series";
    let series = sample.label.iter().find(is_series);
    let tag = |label: &protos::Label| match text(label.str) {
        "" => format!("{}={}{}", text(label.key), label.num, text(label.num_unit)),
        value => format!("{}={value}", text(label.key)),
    };
    let tags = sample.label.iter().filter(|label| !is_series(label));
    let tags: Vec<String> = tags.map(tag).collect();
    let frames = sample.location_id.iter();
    let frames: Vec<String> = frames.map(|id| describe_frame(profile, *id)).collect();
    format!(
        "{} {labels} {} {} {} {}",
        series.map_or(-1, |label| label.num),
        tags.join(","),
        frames.join(" < "),
        sample.value[0],
        sample.value[1]
    )
}

fn describe_frame(profile: &protos::Profile, id: u64) -> String {
    let text = |at: i64| profile.string_table[at as usize].as_str();
    let location = profile.location.iter().find(|location| location.id == id);
    let location = location.cloned().unwrap_or_default();
    let is_own = |mapping: &&protos::Mapping| mapping.id == location.mapping_id;
    let mapping = profile.mapping.iter().find(is_own).map(|mapping| {
        let Mapping {
            memory_start,
            memory_limit,
            file_offset,
            has,
            ..
        } = mapping_of(mapping.clone());
        let flags = has.iter().zip([1, 2, 4, 8]);
        let flags = model::MappingFlags(flags.filter(|(has, _)| **has).map(|(_, bit)| bit).sum());
        format!(
            "{} {}  {memory_start} {memory_limit} {file_offset} {flags:?}",
            text(mapping.filename),
            text(mapping.build_id)
        )
    });
    let line = |line: &protos::Line| {
        let is_own = |function: &&protos::Function| function.id == line.function_id;
        let function = profile.function.iter().find(is_own);
        let function = function.cloned().unwrap_or_default();
        let texts = [function.name, function.system_name, function.filename].map(text);
        format!("{} {} {}", texts.join(" "), function.start_line, line.line)
    };
    let lines: Vec<String> = location.line.iter().map(line).collect();
    format!(
        "{mapping:?} {:x} {lines:?} {} {:?}",
        location.address,
        location.is_folded,
        model::Unnamed::default()
    )
}
