//! A gzipped pprof of a selection, for `go tool pprof` and other readers.
//!
//! The same selection of the same windows gives the same bytes, whatever was in a cache: entries are numbered in the
//! order of their first use, and windows and samples come in the store's order.

use std::cmp::Reverse;
use std::hash::BuildHasher;
use std::io::{self, Write};

use ::pprof::protos::{self, Message};
use elf::Layout;
use flate2::{Compression, write::GzEncoder};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use model::tables::{LocationId, StackId, StringId, TagSetId};
use model::{
    Charge, Dictionary, Function, FunctionNames, Import, Line, MappingFlags, SAMPLE_TYPES,
    SeriesTable, TagValue, TimeRange,
};
use query::frame_names::describe_unnamed;
use query::overlap::sum_overlap;
use query::series::Usage;
use query::{NamedSums, Profiles, Selector};
use store::{Snapshot, StoreError};

use super::mappings::{Placed, place};

/// Comment of a profile of windows whose addresses were dropped.
const LACKS_ADDRESSES: &str =
    "addresses of frames with function and line were dropped from rolled-up windows";

/// Nanoseconds between samples at 100 Hz. Each timer has its own period, and each sample its own weight; readers only
/// display this.
const PERIOD_NS: i64 = 10_000_000;

/// Identity of a sample.
type SampleKey = (u32, TagSetId, StackId);

/// Samples between two looks at the memory and at the question: their stacks add 1 MB or less, usually.
const SAMPLES_A_CHECK: usize = 4096;

/// Bytes that are packed at once: each call has its cost.
const PACKED_AT_ONCE: usize = 64 << 10;

#[derive(Default)]
struct Merge {
    dictionary: Dictionary,
    samples: Vec<(SampleKey, Usage)>,
    /// The positions of samples, by their key.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    charge: Charge,
}

/// Why no pprof was made.
#[derive(Debug, thiserror::Error)]
pub enum PprofError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be written.
    #[error("failed to write the profile: {0}")]
    Write(#[from] io::Error),
}

/// Merges the samples of a selection, and writes them to `out`, which is returned; `None` if there are none.
///
/// Locations of files whose layout `layout_of` knows by build id have addresses, so that they can be disassembled.
///
/// # Errors
/// The store failed, or `out` did.
pub fn render_pprof<W: Write>(
    profiles: Profiles<'_>,
    selector: &Selector,
    layout_of: &dyn Fn(&str) -> Option<Layout>,
    out: W,
) -> Result<Option<W>, PprofError> {
    let snapshot = profiles.snapshot();
    let table = selector.find_series(snapshot)?;
    let mut merge = Merge {
        charge: snapshot.question().charge(0).map_err(StoreError::from)?,
        ..Merge::default()
    };
    let each: Vec<u32> = (0..table.len() as u32).collect();
    let names = FunctionNames::All;
    profiles.sum_groups(&table, &each, names, &mut |part| merge.add_part(part))?;
    if merge.samples.is_empty() {
        return Ok(None);
    }
    let span = find_span(snapshot, &table)?;
    let unread = snapshot.unread();
    let overlap = sum_overlap(snapshot, selector)?.describe();
    let addresses = snapshot
        .lacks_addresses()
        .then(|| LACKS_ADDRESSES.to_owned());
    let comments = unread.iter().map(query::unread::describe);
    let comments: Vec<String> = comments.chain(overlap).chain(addresses).collect();
    // Levels above 3 save 5 % and take twice as long.
    let mut parts = Parts {
        out: GzEncoder::new(out, Compression::new(3)),
        encoded: Vec::new(),
    };
    merge.name_unnamed();
    let mut profile = merge.write_samples(&table, &mut parts)?;
    profile.time_nanos = span.from_ms.saturating_mul(1_000_000);
    profile.duration_nanos = (span.to_ms - span.from_ms).saturating_mul(1_000_000);
    let dictionary = &mut merge.dictionary;
    let comments = comments.iter();
    profile.comment = comments
        .map(|comment| index(dictionary.intern_string(comment)))
        .collect();
    profile.mapping = merge.write_tables(&table, layout_of, &mut parts)?;
    parts.write(&profile)?;
    parts.flush()?;
    Ok(Some(parts.out.finish()?))
}

/// Writes a profile in parts: all entries together take many times the memory of what they are made of. Readers of protocol buffers join
/// the lists of messages that follow each other.
struct Parts<W> {
    out: W,
    encoded: Vec<u8>,
}

impl<W: Write> Parts<W> {
    fn write(&mut self, part: &protos::Profile) -> io::Result<()> {
        part.encode(&mut self.encoded).map_err(io::Error::other)?;
        if self.encoded.len() >= PACKED_AT_ONCE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.encoded)?;
        self.encoded.clear();
        Ok(())
    }
}

/// The time that the windows of these series cover.
fn find_span(snapshot: &dyn Snapshot, series: &SeriesTable) -> Result<TimeRange, StoreError> {
    let mut span: Option<TimeRange> = None;
    snapshot.scan_totals(&mut |totals| {
        let mut ids = totals.series.iter();
        if !totals.overlap.is_left_out() && ids.any(|id| series.position(*id).is_some()) {
            let from_ms = totals.head.key.start_ms;
            let to_ms = from_ms.saturating_add(totals.head.window_ms);
            let span = span.get_or_insert(TimeRange { from_ms, to_ms });
            span.from_ms = span.from_ms.min(from_ms);
            span.to_ms = span.to_ms.max(to_ms);
        }
    })?;
    Ok(span.unwrap_or(TimeRange {
        from_ms: 0,
        to_ms: 0,
    }))
}

impl Merge {
    fn add_part(&mut self, part: &NamedSums<'_>) {
        let mut import = Import::named(part.tables);
        for (number, sum) in part.sums.iter().enumerate() {
            if number.is_multiple_of(SAMPLES_A_CHECK) && !self.make_room() {
                return;
            }
            let tags = import.tag_set(&mut self.dictionary, sum.tags);
            let stack = import.stack(&mut self.dictionary, sum.stack);
            self.add_sample((sum.group, tags, stack), sum.into());
        }
        self.make_room();
    }

    /// Takes memory for all of it. False if there is none: the question is stopped.
    fn make_room(&mut self) -> bool {
        let bytes = self.dictionary.heap_bytes()
            + size_of::<(SampleKey, Usage)>() * self.samples.capacity()
            + 5 * self.index.capacity();
        self.charge.set(bytes).is_ok()
    }

    fn add_sample(&mut self, key: SampleKey, usage: Usage) {
        let Self {
            samples,
            index,
            hasher,
            ..
        } = self;
        let entry = index.entry(
            hasher.hash_one(key),
            |at| samples[*at as usize].0 == key,
            |at| hasher.hash_one(samples[*at as usize].0),
        );
        let at = *entry.or_insert(samples.len() as u32).get();
        if at as usize == samples.len() {
            samples.push((key, Usage::default()));
        }
        samples[at as usize].1.add(usage);
    }

    /// Writes the samples. Returns the profile without what each of many things has an entry for.
    fn write_samples(
        &mut self,
        table: &SeriesTable,
        out: &mut Parts<impl Write>,
    ) -> Result<protos::Profile, PprofError> {
        let strings = &mut self.dictionary;
        let sample_type = SAMPLE_TYPES.map(|(ty, unit)| protos::ValueType {
            ty: index(strings.intern_string(ty)),
            unit: index(strings.intern_string(unit)),
        });
        let mut labels_of = HashMap::new();
        for (number, ((series, tags, stack), usage)) in self.samples.iter().enumerate() {
            if number.is_multiple_of(SAMPLES_A_CHECK) && self.charge.check().is_err() {
                break;
            }
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
            let sample = protos::Sample {
                location_id: tables
                    .walk_stack(*stack)
                    .map(|location| u64::from(location.0) + 1)
                    .collect(),
                value: vec![signed(usage.samples), signed(usage.ns)],
                label: labels.iter().cloned().chain(tags).collect(),
            };
            out.write(&protos::Profile {
                sample: vec![sample],
                ..Default::default()
            })?;
        }
        Ok(protos::Profile {
            sample_type: sample_type.to_vec(),
            period_type: Some(sample_type[1].clone()),
            period: PERIOD_NS,
            default_sample_type: sample_type[1].ty,
            ..Default::default()
        })
    }

    /// Writes what the samples refer to. Returns the mappings.
    fn write_tables(
        &self,
        table: &SeriesTable,
        layout_of: &dyn Fn(&str) -> Option<Layout>,
        out: &mut Parts<impl Write>,
    ) -> io::Result<Vec<protos::Mapping>> {
        let dictionary = &self.dictionary;
        let main = self.find_main(table);
        let flags = flags_of(dictionary);
        let Placed {
            mappings,
            locations: places,
        } = place(dictionary, &flags, main, layout_of);
        let tables = dictionary.tables();
        for (number, (location, place)) in tables.locations.iter().zip(places).enumerate() {
            let lines = tables.own_lines_of(LocationId(number as u32)).iter();
            let lines = lines.map(|line| protos::Line {
                function_id: u64::from(line.function.0) + 1,
                line: line.line,
            });
            let location = protos::Location {
                id: number as u64 + 1,
                mapping_id: place.0,
                address: place.1,
                line: lines.collect(),
                is_folded: location.is_folded,
            };
            out.write(&protos::Profile {
                location: vec![location],
                ..Default::default()
            })?;
        }
        for (number, function) in tables.functions.iter().enumerate() {
            let function = protos::Function {
                id: number as u64 + 1,
                name: index(function.name),
                system_name: index(function.system_name),
                filename: index(function.file),
                start_line: function.start_line,
            };
            out.write(&protos::Profile {
                function: vec![function],
                ..Default::default()
            })?;
        }
        for id in 0..tables.string_count() as u32 {
            out.write(&protos::Profile {
                string_table: vec![tables.string(StringId(id)).to_owned()],
                ..Default::default()
            })?;
        }
        Ok(mappings)
    }

    /// The main program of the profile: the mapped one with the most CPU time.
    fn find_main(&self, table: &SeriesTable) -> Option<StringId> {
        let tables = self.dictionary.tables();
        let files = tables.mappings.iter().map(|mapping| mapping.file);
        let files: HashMap<&str, StringId> =
            files.map(|file| (tables.string(file), file)).collect();
        let mut programs: HashMap<StringId, u64> = HashMap::new();
        for ((series, _, _), usage) in &self.samples {
            let mut labels = table.labels(*series as usize).iter();
            let program = labels.find(|(name, _)| *name == "exe");
            if let Some(file) = program.and_then(|(_, path)| files.get(path)) {
                *programs.entry(*file).or_default() += usage.ns;
            }
        }
        // The first of equals, so that the answer is deterministic.
        let most = programs
            .into_iter()
            .max_by_key(|(file, ns)| (*ns, Reverse(*file)));
        most.map(|(file, _)| file)
    }

    /// Gives locations without a name the page's stand-in. Without it, `go tool pprof` would look for the files on
    /// its own machine and take the offsets for addresses.
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

/// Kinds of names of each mapping: those that its sender stated, and those that were joined.
fn flags_of(dictionary: &Dictionary) -> Vec<MappingFlags> {
    let tables = dictionary.tables();
    let mut flags: Vec<MappingFlags> = tables.mappings.iter().map(|m| m.flags).collect();
    for (number, location) in tables.locations.iter().enumerate() {
        let Some(mapping) = location.mapping else {
            continue;
        };
        let lines = tables.own_lines_of(LocationId(number as u32));
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

fn index(id: StringId) -> i64 {
    i64::from(id.0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
