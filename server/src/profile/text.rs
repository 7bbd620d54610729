//! The tests' and benches' language for windows: a line is `label=value,label=value | outer inner | samples`.
//!
//! A sample stands for 10 ms. A frame is a function's name, with these forms:
//! `work` in the file `/bin/app`, `work@/lib/b.so` in another file, `work@[kernel]` in the kernel, `0x1f@/lib/b.so`
//! without a name, `0x10+0xf@/lib/b.so` with its function's start, `0x1f` without a file, `caller>inlined` one location with an inlined call. A fourth column has
//! tags: `thread=main outcome=truncated`.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "for tests, of which each uses a part"
)]

use ::pprof::protos::{self, Message};
use proto::v1;
use server::profile::tables::{LocationId, StackId, StringId, TagSetId};
use server::profile::{
    Account, Dictionary, Function, LabelSet, Line, Location, Mapping, MappingFlags, ProfileHead,
    Row, StackNode, Tables, Tag, TagValue, Unnamed, Window, WindowHead, WindowKey,
};

/// Nanoseconds that a sample stands for.
pub const SAMPLE_NS: u64 = 10_000_000;

/// The window that the lines describe, of the node `a`, starting at 0.
pub fn window(lines: &str) -> Window {
    window_at(lines, 0, 1)
}

/// The window that the lines describe, with its start and sequence number.
pub fn window_at(lines: &str, start_ms: i64, sequence: u64) -> Window {
    let mut dictionary = Dictionary::default();
    let mut series: Vec<LabelSet> = Vec::new();
    let mut rows = Vec::new();
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels = columns[0]
            .split(',')
            .map(|pair| pair.trim().split_once('=').unwrap());
        let labels = LabelSet::from_sorted(labels).unwrap();
        let index = series
            .iter()
            .position(|known| *known == labels)
            .unwrap_or_else(|| {
                series.push(labels);
                series.len() - 1
            });
        let stack = columns[1]
            .split_whitespace()
            .fold(StackId(0), |parent, frame| {
                let location = intern_frame(&mut dictionary, frame);
                dictionary.intern_stack(StackNode { parent, location })
            });
        let tags = columns
            .get(3)
            .unwrap_or(&"")
            .split_whitespace()
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap();
                let (key, value) = (
                    dictionary.intern_string(key),
                    dictionary.intern_string(value),
                );
                Tag {
                    key,
                    value: TagValue::Text(value),
                }
            });
        let tags: Vec<Tag> = tags.collect();
        let tags = dictionary.intern_tag_set(&tags);
        let samples: u64 = columns[2].parse().unwrap();
        rows.push(Row {
            series: index as u32,
            tags,
            stack,
            samples,
            ns: samples * SAMPLE_NS,
        });
    }
    finish_window(dictionary, series, rows, start_ms, sequence)
}

/// A window of rows that were made in another way.
pub fn finish_window(
    dictionary: Dictionary,
    series: Vec<LabelSet>,
    mut rows: Vec<Row>,
    start_ms: i64,
    sequence: u64,
) -> Window {
    rows.sort();
    let key = WindowKey {
        start_ms,
        instance: [7; 16],
        sequence,
    };
    let samples: u64 = rows.iter().map(|row| row.samples).sum();
    let sampled_ns = samples * SAMPLE_NS;
    let outcomes = [("complete".to_owned(), samples)].into();
    let account = Account {
        entries: samples,
        expected: samples,
        sampled_ns,
        outcomes,
        ..Account::default()
    };
    let profile = ProfileHead {
        time_ns: start_ms * 1_000_000,
        duration_ns: 10_000_000_000,
        ..ProfileHead::default()
    };
    let head = WindowHead {
        key,
        node: "a".into(),
        window_ms: 10_000,
        account,
        profile,
    };
    Window {
        head,
        series,
        tables: dictionary.into_tables(),
        rows,
    }
}

fn intern_frame(dictionary: &mut Dictionary, frame: &str) -> LocationId {
    let (name, file) = frame.split_once('@').unwrap_or((frame, "/bin/app"));
    let bare = name.starts_with("0x").then(|| read_address(name));
    let mapping = (bare.is_none() || frame.contains('@')).then(|| {
        let file = dictionary.intern_string(file);
        let build_id = dictionary.intern_string("00ff");
        let flags = MappingFlags(MappingFlags::FUNCTIONS);
        dictionary.intern_mapping(Mapping {
            file,
            build_id,
            start: 0,
            limit: 1 << 40,
            offset: 0,
            flags,
        })
    });
    let mut lines = Vec::new();
    if bare.is_none() {
        for name in name.rsplit('>') {
            let id = dictionary.intern_string(name);
            let file = dictionary.intern_string("app.c");
            let function = Function {
                name: id,
                system_name: id,
                file,
                start_line: 3,
            };
            lines.push(Line {
                function: dictionary.intern_function(function),
                line: 5,
            });
        }
    }
    // One address a name, so that different names are different locations.
    let address = bare.map(|(address, _)| address).unwrap_or_else(|| {
        name.bytes()
            .fold(7, |sum: u64, b| (sum * 31 + u64::from(b)) & 0xff_ffff)
    });
    let unnamed = bare.map_or_else(Unnamed::default, |(_, distance)| Unnamed::new(4, distance));
    let location = Location {
        mapping,
        address,
        lines_start: 0,
        lines_end: 0,
        is_folded: false,
        unnamed,
    };
    dictionary.intern_location(location, &lines)
}

/// The address that `0x1f` or `0x10+0xf` stands for, and how far into its function it lies, plus one, or 0.
fn read_address(text: &str) -> (u64, u32) {
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap();
    match text.split_once('+') {
        Some((start, distance)) => (hex(start) + hex(distance), hex(distance) as u32 + 1),
        None => (hex(text), 0),
    }
}

/// The message that brings a window.
pub fn push_request(window: &Window) -> v1::PushRequest {
    let bytes = profile_of(window).encode_to_vec();
    let locations = window.tables.locations.iter().enumerate();
    let unnamed: Vec<(u64, Unnamed)> = locations
        .filter(|(_, location)| location.unnamed.code() != 0)
        .map(|(number, location)| (number as u64 + 1, location.unnamed))
        .collect();
    let label = |(name, value): (&str, &str)| v1::Label {
        name: name.into(),
        value: value.into(),
    };
    let counts = |counts: &std::collections::BTreeMap<String, u64>| {
        let count = |(outcome, count): (&String, &u64)| v1::OutcomeCount {
            outcome: outcome.clone(),
            count: *count,
        };
        counts.iter().map(count).collect()
    };
    let WindowHead {
        key,
        node,
        window_ms,
        account,
        profile: _,
    } = &window.head;
    v1::PushRequest {
        collector_instance: key.instance.to_vec(),
        sequence: key.sequence,
        node: node.clone(),
        window_start_ms: key.start_ms,
        window_ms: *window_ms,
        series: window
            .series
            .iter()
            .map(|set| v1::LabelSet {
                labels: set.iter().map(label).collect(),
            })
            .collect(),
        profile_zstd: zstd::encode_all(bytes.as_slice(), 3).unwrap().into(),
        profile_bytes: bytes.len() as u64,
        account: Some(v1::WindowAccount {
            entries: account.entries,
            outcomes: counts(&account.outcomes),
            expected: account.expected,
            sampled_ns: account.sampled_ns,
            busy_ns: account.busy_ns,
            dropped: counts(&account.dropped),
            collector_cpu_ns: account.collector_cpu_ns,
            bpf_ns: account.bpf_ns,
        }),
        unnamed_location_ids: unnamed.iter().map(|(id, _)| *id).collect(),
        unnamed_reasons: unnamed.iter().map(|(_, it)| it.code().into()).collect(),
        unnamed_function_distances: unnamed
            .iter()
            .map(|(_, it)| it.function_distance())
            .collect(),
        file_layouts: Vec::new(),
    }
}

/// The pprof that a collector would make of a window: ids are numbers in the tables, plus one.
fn profile_of(window: &Window) -> protos::Profile {
    let tables = &window.tables;
    let mut strings: Vec<String> = (0..tables.string_count() as u32)
        .map(|id| tables.string(StringId(id)).to_owned())
        .collect();
    let mut add = |text: &str| {
        strings.push(text.to_owned());
        strings.len() as i64 - 1
    };
    let [samples, count, cpu, nanoseconds, series] =
        ["samples", "count", "cpu", "nanoseconds", "series"].map(&mut add);
    let string = |id: StringId| i64::from(id.0);
    let sample = |row: &Row| {
        let tags = tables.tag_set(row.tags).iter().map(|tag| match tag.value {
            TagValue::Text(text) => protos::Label {
                key: string(tag.key),
                str: string(text),
                ..Default::default()
            },
            TagValue::Number(num, unit) => protos::Label {
                key: string(tag.key),
                num,
                num_unit: string(unit),
                ..Default::default()
            },
        });
        let series = protos::Label {
            key: series,
            num: i64::from(row.series),
            ..Default::default()
        };
        protos::Sample {
            location_id: tables
                .walk_stack(row.stack)
                .map(|location| u64::from(location.0) + 1)
                .collect(),
            value: vec![row.samples as i64, row.ns as i64],
            label: std::iter::once(series).chain(tags).collect(),
        }
    };
    let location = |(number, location): (usize, &Location)| protos::Location {
        id: number as u64 + 1,
        mapping_id: location
            .mapping
            .map_or(0, |mapping| u64::from(mapping.0) + 1),
        address: location.address,
        line: lines_of(tables, LocationId(number as u32)),
        is_folded: location.is_folded,
    };
    let mapping = |(number, mapping): (usize, &Mapping)| protos::Mapping {
        id: number as u64 + 1,
        memory_limit: mapping.limit,
        filename: string(mapping.file),
        build_id: string(mapping.build_id),
        has_functions: mapping.flags.has(MappingFlags::FUNCTIONS),
        has_filenames: mapping.flags.has(MappingFlags::FILES),
        has_line_numbers: mapping.flags.has(MappingFlags::LINES),
        has_inline_frames: mapping.flags.has(MappingFlags::INLINES),
        ..Default::default()
    };
    let function = |(number, function): (usize, &Function)| protos::Function {
        id: number as u64 + 1,
        name: string(function.name),
        system_name: string(function.system_name),
        filename: string(function.file),
        start_line: function.start_line,
    };
    protos::Profile {
        sample_type: vec![
            protos::ValueType {
                ty: samples,
                unit: count,
            },
            protos::ValueType {
                ty: cpu,
                unit: nanoseconds,
            },
        ],
        sample: window.rows.iter().map(sample).collect(),
        mapping: tables.mappings.iter().enumerate().map(mapping).collect(),
        location: tables.locations.iter().enumerate().map(location).collect(),
        function: tables.functions.iter().enumerate().map(function).collect(),
        string_table: strings,
        time_nanos: window.head.profile.time_ns,
        duration_nanos: window.head.profile.duration_ns,
        ..Default::default()
    }
}

fn lines_of(tables: &Tables, id: LocationId) -> Vec<protos::Line> {
    let line = |line: &Line| protos::Line {
        function_id: u64::from(line.function.0) + 1,
        line: line.line,
    };
    tables.lines_of(id).iter().map(line).collect()
}

/// A window in words, without the numbers of its tables: two windows with the same samples have the same words.
pub fn describe(window: &Window) -> Vec<String> {
    let tables = &window.tables;
    let row = |row: &Row| {
        let labels = &window.series[row.series as usize];
        let stack: Vec<String> = tables
            .walk_stack(row.stack)
            .map(|id| describe_location(tables, id))
            .collect();
        let tags = describe_tags(tables, row.tags);
        format!(
            "{labels} {tags} {} {} {}",
            stack.join(" < "),
            row.samples,
            row.ns
        )
    };
    let mut rows: Vec<String> = window.rows.iter().map(row).collect();
    rows.sort();
    rows
}

fn describe_location(tables: &Tables, id: LocationId) -> String {
    let location = tables.locations[id.position()];
    let mapping = location.mapping.map(|mapping| {
        let Mapping {
            file,
            build_id,
            start,
            limit,
            offset,
            flags,
        } = tables.mappings[mapping.position()];
        format!(
            "{} {} {start} {limit} {offset} {flags:?}",
            tables.string(file),
            tables.string(build_id)
        )
    });
    let lines = tables.lines_of(id).iter().map(|line| {
        let Function {
            name,
            system_name,
            file,
            start_line,
        } = tables.functions[line.function.position()];
        let [name, system_name, file] = [name, system_name, file].map(|id| tables.string(id));
        format!("{name} {system_name} {file} {start_line} {}", line.line)
    });
    let lines: Vec<String> = lines.collect();
    format!(
        "{mapping:?} {:x} {lines:?} {} {:?}",
        location.address, location.is_folded, location.unnamed
    )
}

fn describe_tags(tables: &Tables, id: TagSetId) -> String {
    let tag = |tag: &Tag| match tag.value {
        TagValue::Text(text) => format!("{}={}", tables.string(tag.key), tables.string(text)),
        TagValue::Number(number, unit) => {
            format!("{}={number}{}", tables.string(tag.key), tables.string(unit))
        }
    };
    tables
        .tag_set(id)
        .iter()
        .map(tag)
        .collect::<Vec<_>>()
        .join(",")
}
