//! A gzipped pprof of a selection, for `go tool pprof` and everything else that reads it.
//!
//! The same selection of the same windows gives the same bytes, whatever was in a cache: entries are numbered as
//! they come, and windows and samples come in the store's order.

use std::io::{self, Write};

use ::pprof::protos::{self, Message};
use flate2::{Compression, write::GzEncoder};
use hashbrown::HashMap;

use crate::profile::tables::{LocationId, StackId, StringId, TagSetId};
use crate::profile::{
    Dictionary, Function, Import, Line, Mapping, MappingFlags, SAMPLE_TYPES, TagValue,
};
use crate::query::Selection;
use crate::query::series::Usage;
use crate::query::tree::describe_unnamed;
use crate::store::{Part, SeriesTable, Store, StoreError};

/// Nanoseconds between samples at 100 Hz. Each timer has its own period, and each sample its own weight; readers use
/// this only to say how it was sampled.
const PERIOD_NS: i64 = 10_000_000;

/// What makes two samples one.
type SampleKey = (u32, TagSetId, StackId);

#[derive(Default)]
struct Merge {
    dictionary: Dictionary,
    positions: HashMap<SampleKey, usize>,
    samples: Vec<(SampleKey, Usage)>,
    span_ms: Option<(i64, i64)>,
}

/// Why there is no pprof.
#[derive(Debug, thiserror::Error)]
pub enum PprofError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// gzip failed.
    #[error("failed to compress the profile: {0}")]
    Compress(#[from] io::Error),
}

/// Merges the samples of a selection.
///
/// # Errors
/// The store failed.
pub fn render_pprof(store: &dyn Store, selection: &Selection) -> Result<Vec<u8>, PprofError> {
    let table = selection.find_series(store)?;
    let mut merge = Merge::default();
    if !table.is_empty() {
        store.scan_rows(selection.range, &table, &mut |part| {
            merge.add_part(part, &table)
        })?;
    }
    // Levels above 3 win 5 % and take twice as long.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(3));
    gzip.write_all(&merge.finish(&table).encode_to_vec())?;
    Ok(gzip.finish()?)
}

impl Merge {
    fn add_part(&mut self, part: &Part<'_>, table: &SeriesTable) {
        let mut import = Import::joined(part.tables);
        for window in part.windows {
            let positions: Vec<_> = window.series.iter().map(|id| table.position(*id)).collect();
            let (from_ms, to_ms) = (window.key.start_ms, window.key.start_ms + window.window_ms);
            let (first_ms, last_ms) = self.span_ms.unwrap_or((from_ms, to_ms));
            self.span_ms = Some((first_ms.min(from_ms), last_ms.max(to_ms)));
            for row in &window.rows {
                let Some(position) = positions[row.series as usize] else {
                    continue;
                };
                let tags = import.tag_set(&mut self.dictionary, row.tags);
                let stack = import.stack(&mut self.dictionary, row.stack);
                self.add_sample(
                    (position as u32, tags, stack),
                    Usage {
                        samples: row.samples,
                        ns: row.ns,
                    },
                );
            }
        }
    }

    fn add_sample(&mut self, key: SampleKey, usage: Usage) {
        let position = *self.positions.entry(key).or_insert_with(|| {
            self.samples.push((key, Usage::default()));
            self.samples.len() - 1
        });
        self.samples[position].1.add(usage);
    }

    fn finish(mut self, table: &SeriesTable) -> protos::Profile {
        self.name_unnamed();
        let mut strings = self.dictionary;
        let sample_type = SAMPLE_TYPES.map(|(ty, unit)| protos::ValueType {
            ty: index(strings.intern_string(ty)),
            unit: index(strings.intern_string(unit)),
        });
        let mut labels_of = HashMap::new();
        let mut sample = Vec::with_capacity(self.samples.len());
        for ((series, tags, stack), usage) in &self.samples {
            let labels = labels_of.entry(*series).or_insert_with(|| {
                let mut label = |name: &str, value: &str| protos::Label {
                    key: index(strings.intern_string(name)),
                    str: index(strings.intern_string(value)),
                    ..Default::default()
                };
                table
                    .labels(*series as usize)
                    .iter()
                    .map(|(name, value)| label(name, value))
                    .collect::<Vec<_>>()
            });
            let tables = strings.tables();
            let tags = tables.tag_set(*tags).iter().map(|tag| match tag.value {
                TagValue::Text(text) => protos::Label {
                    key: index(tag.key),
                    str: index(text),
                    ..Default::default()
                },
                TagValue::Number(num, unit) => protos::Label {
                    key: index(tag.key),
                    num,
                    num_unit: index(unit),
                    ..Default::default()
                },
            });
            sample.push(protos::Sample {
                location_id: tables
                    .walk_stack(*stack)
                    .map(|location| u64::from(location.0) + 1)
                    .collect(),
                value: vec![signed(usage.samples), signed(usage.ns)],
                label: labels.iter().cloned().chain(tags).collect(),
            });
        }
        let (from_ms, to_ms) = self.span_ms.unwrap_or_default();
        protos::Profile {
            sample_type: sample_type.to_vec(),
            sample,
            mapping: mappings(&strings),
            location: locations(&strings),
            function: functions(&strings),
            time_nanos: from_ms.saturating_mul(1_000_000),
            duration_nanos: (to_ms - from_ms).saturating_mul(1_000_000),
            period_type: Some(sample_type[1].clone()),
            period: PERIOD_NS,
            default_sample_type: sample_type[1].ty,
            string_table: (0..strings.tables().string_count() as u32)
                .map(|id| strings.tables().string(StringId(id)).to_owned())
                .collect(),
            ..Default::default()
        }
    }

    /// Gives locations without a name the one that the page shows. Left alone, `go tool pprof` would look for the
    /// files on the machine it runs on and take the offsets for addresses.
    fn name_unnamed(&mut self) {
        let tables = self.dictionary.tables();
        let mut named = Vec::new();
        for (number, location) in tables
            .locations
            .iter()
            .enumerate()
            .filter(|(_, location)| location.lines().is_empty())
        {
            let path = location.mapping.map_or("", |mapping| {
                tables.string(tables.mappings[mapping.position()].file)
            });
            named.push((LocationId(number as u32), describe_unnamed(path, location)));
        }
        for (location, name) in named {
            let name = self.dictionary.intern_string(&name);
            let function = Function {
                name,
                system_name: name,
                file: StringId(0),
                start_line: 0,
            };
            let function = self.dictionary.intern_function(function);
            self.dictionary
                .set_line(location, Line { function, line: 0 });
        }
    }
}

fn mappings(dictionary: &Dictionary) -> Vec<protos::Mapping> {
    let mut flags = flags_of(dictionary).into_iter();
    let mappings = dictionary.tables().mappings.iter().enumerate();
    let convert = |(number, mapping): (usize, &Mapping)| {
        let flags = flags.next().unwrap_or_default();
        protos::Mapping {
            id: number as u64 + 1,
            memory_start: mapping.start,
            memory_limit: mapping.limit,
            file_offset: mapping.offset,
            filename: index(mapping.file),
            build_id: index(mapping.build_id),
            // Each location has a name or stands for itself: nothing is left for the reader to look up.
            has_functions: true,
            has_filenames: flags.has(MappingFlags::FILES),
            has_line_numbers: flags.has(MappingFlags::LINES),
            has_inline_frames: flags.has(MappingFlags::INLINES),
        }
    };
    mappings.map(convert).collect()
}

/// What the names of each mapping have: what its sender said, and what was found later.
fn flags_of(dictionary: &Dictionary) -> Vec<MappingFlags> {
    let tables = dictionary.tables();
    let mut flags: Vec<MappingFlags> = tables.mappings.iter().map(|m| m.flags).collect();
    for (number, location) in tables.locations.iter().enumerate() {
        let Some(mapping) = location.mapping else {
            continue;
        };
        let lines = tables.lines_of(LocationId(number as u32));
        let flags = &mut flags[mapping.position()].0;
        if tables.have_source(lines) {
            *flags |= MappingFlags::FILES;
        }
        if lines.iter().any(|line| line.line != 0) {
            *flags |= MappingFlags::LINES;
        }
        if lines.len() > 1 {
            *flags |= MappingFlags::INLINES;
        }
    }
    flags
}

fn locations(dictionary: &Dictionary) -> Vec<protos::Location> {
    let tables = dictionary.tables();
    let convert = |(number, location): (usize, &crate::profile::Location)| protos::Location {
        id: number as u64 + 1,
        mapping_id: location
            .mapping
            .map_or(0, |mapping| u64::from(mapping.0) + 1),
        address: location.address,
        line: tables
            .lines_of(LocationId(number as u32))
            .iter()
            .map(|line| protos::Line {
                function_id: u64::from(line.function.0) + 1,
                line: line.line,
            })
            .collect(),
        is_folded: location.is_folded,
    };
    tables.locations.iter().enumerate().map(convert).collect()
}

fn functions(dictionary: &Dictionary) -> Vec<protos::Function> {
    let convert = |(number, function): (usize, &Function)| protos::Function {
        id: number as u64 + 1,
        name: index(function.name),
        system_name: index(function.system_name),
        filename: index(function.file),
        start_line: function.start_line,
    };
    dictionary
        .tables()
        .functions
        .iter()
        .enumerate()
        .map(convert)
        .collect()
}

fn index(id: StringId) -> i64 {
    i64::from(id.0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
