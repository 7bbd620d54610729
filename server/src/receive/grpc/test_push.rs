//! Pushes of windows that are written in the test language.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "for tests, of which each uses a part"
)]

use ::pprof::protos::{self, Message};
use model::tables::{LocationId, StringId};
use model::{
    ContainerAccount, Function, LabelSet, Line, Location, Mapping, MappingFlags, Row, Tables,
    TagValue, Unnamed, Window, WindowHead,
};
use proto::v1;

/// The push of a window.
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
    let label_set = |set: &LabelSet| v1::LabelSet {
        labels: set.iter().map(label).collect(),
    };
    let container = |account: &ContainerAccount| v1::ContainerAccount {
        labels: Some(label_set(&account.labels)),
        kernel_ns: account.usage.kernel_ns,
        throttled_ns: account.usage.throttled_ns,
        unread_ns: account.usage.unread_ns,
        excluded_samples: account.usage.excluded_samples,
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
        series: window.series.iter().map(label_set).collect(),
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
            stolen_ns: account.stolen_ns,
        }),
        unnamed_location_ids: unnamed.iter().map(|(id, _)| *id).collect(),
        unnamed_reasons: unnamed
            .iter()
            .map(|(_, unnamed)| unnamed.code().into())
            .collect(),
        unnamed_function_distances: unnamed
            .iter()
            .map(|(_, unnamed)| unnamed.function_distance())
            .collect(),
        file_layouts: Vec::new(),
        containers: window.containers.iter().map(container).collect(),
    }
}

/// The pprof that a collector makes of a window: ids are numbers in the tables, plus one.
pub fn profile_of(window: &Window) -> protos::Profile {
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
    tables.own_lines_of(id).iter().map(line).collect()
}
