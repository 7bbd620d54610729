//! What segments must answer, by maps of texts.

use std::collections::BTreeMap;

use model::tables::{LocationId, StackId, TagSetId};
use model::{LabelSet, Tables, TagValue, Window, WindowKey};

/// Samples and nanoseconds.
pub(crate) type Sums = (u64, u64);

/// A row of a window, without any number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TextRow {
    pub(crate) labels: LabelSet,
    pub(crate) stack: String,
    pub(crate) tags: String,
}

/// The rows of a window; equal ones are added up.
pub(crate) fn rows_of(window: &Window) -> BTreeMap<TextRow, Sums> {
    let mut rows = BTreeMap::new();
    for row in &window.rows {
        let text = TextRow {
            labels: window.series[row.series as usize].clone(),
            stack: describe_stack(&window.tables, row.stack),
            tags: describe_tags(&window.tables, row.tags),
        };
        let sums: &mut Sums = rows.entry(text).or_default();
        *sums = (sums.0 + row.samples, sums.1 + row.ns);
    }
    rows
}

/// The rows of some windows, added up.
pub(crate) fn sum_rows<'a>(windows: impl Iterator<Item = &'a Window>) -> BTreeMap<TextRow, Sums> {
    let mut all = BTreeMap::new();
    for (row, (samples, ns)) in windows.flat_map(rows_of) {
        let sums: &mut Sums = all.entry(row).or_default();
        *sums = (sums.0 + samples, sums.1 + ns);
    }
    all
}

/// A stack from the root to the leaf, with all that its frames say. Of a mapping only the file and its build id count.
pub(crate) fn describe_stack(tables: &Tables, stack: StackId) -> String {
    let mut frames: Vec<String> = tables
        .walk_stack(stack)
        .map(|id| describe_location(tables, id))
        .collect();
    frames.reverse();
    frames.join(" > ")
}

fn describe_location(tables: &Tables, id: LocationId) -> String {
    let location = tables.locations[id.position()];
    let mapping = location.mapping.map(|mapping| {
        let mapping = tables.mappings[mapping.position()];
        (tables.string(mapping.file), tables.string(mapping.build_id))
    });
    let lines = tables.own_lines_of(id).iter().map(|line| {
        let function = tables.functions[line.function.position()];
        let texts =
            [function.name, function.system_name, function.file].map(|text| tables.string(text));
        (texts, function.start_line, line.line)
    });
    let lines: Vec<_> = lines.collect();
    format!(
        "{mapping:?} {:x} {lines:?} {} {:?}",
        location.address, location.is_folded, location.unnamed
    )
}

pub(crate) fn describe_tags(tables: &Tables, tags: TagSetId) -> String {
    let tags = tables.tag_set(tags).iter().map(|tag| match tag.value {
        TagValue::Text(text) => format!("{}={}", tables.string(tag.key), tables.string(text)),
        TagValue::Number(number, unit) => format!(
            "{}={number} {}",
            tables.string(tag.key),
            tables.string(unit)
        ),
    });
    tags.collect::<Vec<_>>().join(",")
}

/// Windows by identity.
pub(crate) fn by_key(windows: &[Window]) -> BTreeMap<WindowKey, &Window> {
    windows
        .iter()
        .map(|window| (window.head.key, window))
        .collect()
}

/// Checks that windows are the same, whatever the numbers in their tables.
pub(crate) fn assert_same_windows(found: &[Window], expected: &[Window]) {
    let (found, expected) = (by_key(found), by_key(expected));
    assert!(found.keys().eq(expected.keys()), "the windows are others");
    for (key, found) in found {
        let expected = expected[&key];
        assert_eq!(found.head, expected.head);
        let sorted = |window: &Window| {
            let mut series = window.series.clone();
            series.sort_unstable();
            let mut containers = window.containers.clone();
            containers.sort_by(|a, b| a.labels.cmp(&b.labels));
            (series, containers)
        };
        assert_eq!(sorted(found), sorted(expected), "{key}");
        assert!(
            rows_of(found) == rows_of(expected),
            "the rows of {key} are others"
        );
    }
}
