//! Windows written in the test language of the crate `profile`, for tests, benches and fuzz targets. A sample stands for 10 ms.

use profile::{Frame, parse_samples};

use crate::tables::{LocationId, StackId, StringId, TagSetId};
use crate::{
    Account, Dictionary, Function, LabelSet, Line, Location, Mapping, MappingFlags, ProfileHead,
    Row, StackNode, Tables, Tag, TagValue, Unnamed, Window, WindowHead, WindowKey,
};

/// Nanoseconds that a sample stands for.
pub const SAMPLE_NS: u64 = 10_000_000;

/// The window that the lines describe, of the node `a`, starting at 0.
///
/// # Panics
/// As [`window_at`].
pub fn window(lines: &str) -> Window {
    window_at(lines, 0, 1)
}

/// The window that the lines describe, with its start and sequence number.
///
/// # Panics
/// A line does not have the language's form: the test has a mistake.
pub fn window_at(lines: &str, start_ms: i64, sequence: u64) -> Window {
    let mut dictionary = Dictionary::default();
    let mut series: Vec<LabelSet> = Vec::new();
    let mut rows = Vec::new();
    for sample in parse_samples(lines).unwrap_or_else(|err| panic!("{err}")) {
        let known = series.iter().position(|known| *known == sample.labels);
        let index = known.unwrap_or_else(|| {
            series.push(sample.labels.clone());
            series.len() - 1
        });
        let stack = sample.stack.iter().fold(StackId(0), |parent, frame| {
            let location = intern_frame(&mut dictionary, frame);
            dictionary.intern_stack(StackNode { parent, location })
        });
        let tags = sample.tags.iter().map(|(key, value)| Tag {
            key: dictionary.intern_string(key),
            value: TagValue::Text(dictionary.intern_string(value)),
        });
        let tags: Vec<Tag> = tags.collect();
        rows.push(Row {
            series: index as u32,
            tags: dictionary.intern_tag_set(&tags),
            stack,
            samples: sample.count,
            ns: sample.count * SAMPLE_NS,
        });
    }
    finish_window(dictionary, series, rows, start_ms, sequence)
}

/// A window of these rows.
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
        containers: Vec::new(),
    }
}

fn intern_frame(dictionary: &mut Dictionary, frame: &Frame<'_>) -> LocationId {
    let mapping = frame.file.map(|file| {
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
            file_id: StringId::default(),
        })
    });
    let lines = frame.functions.iter().map(|name| {
        let name = dictionary.intern_string(name);
        let function = Function {
            name,
            system_name: name,
            file: dictionary.intern_string("app.c"),
            start_line: 3,
        };
        Line {
            function: dictionary.intern_function(function),
            line: 5,
        }
    });
    let lines: Vec<Line> = lines.collect();
    let distance = frame.function_distance.map_or(0, |distance| distance + 1);
    let unnamed = match frame.functions[..] {
        [] => Unnamed::new(4, distance),
        _ => Unnamed::default(),
    };
    let location = Location {
        mapping,
        address: frame.address,
        lines_start: 0,
        lines_end: 0,
        is_folded: false,
        unnamed,
    };
    dictionary.intern_location(location, &lines)
}

/// A window as text, without the numbers of its tables: windows with equal samples have equal texts.
pub fn describe(window: &Window) -> Vec<String> {
    let row = |row: &Row| {
        let labels = &window.series[row.series as usize];
        let stack = describe_stack(&window.tables, labels, row.tags, row.stack);
        format!("{stack} {} {}", row.samples, row.ns)
    };
    let mut rows: Vec<String> = window.rows.iter().map(row).collect();
    rows.sort();
    rows
}

/// A series, tag set and stack as text, without numbers of tables.
pub fn describe_stack(
    tables: &Tables,
    labels: &LabelSet,
    tags: TagSetId,
    stack: StackId,
) -> String {
    let stack: Vec<String> = tables
        .walk_stack(stack)
        .map(|id| describe_location(tables, id))
        .collect();
    let tags = describe_tags(tables, tags);
    format!("{labels} {tags} {}", stack.join(" < "))
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
            file_id,
        } = tables.mappings[mapping.position()];
        format!(
            "{} {} {} {start} {limit} {offset} {flags:?}",
            tables.string(file),
            tables.string(build_id),
            tables.string(file_id)
        )
    });
    let lines = tables.own_lines_of(id).iter().map(|line| {
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
