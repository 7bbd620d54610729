//! From the bytes of a pprof to tables and rows. Pure.
//!
//! Takes the form that the protocol agrees on and nothing else: two sample types, offsets in files instead of
//! addresses, and the numeric label `series` on each sample. Entries that are equal become one; nothing else is
//! lost.

use std::iter::repeat;

use ::pprof::protos::{self, Message};
use hashbrown::HashMap;

use super::refusal::{Refusal, RefusalReason};
use crate::profile::SAMPLE_TYPES;
use crate::profile::tables::{FunctionId, LocationId, MappingId, StackId, StringId};
use crate::profile::{
    Dictionary, Function, Line, Location, Mapping, MappingFlags, ProfileHead, Row, StackNode,
    Tables, Tag, TagValue, Unnamed,
};

/// Locations a stack: the collector keeps 1,024 user and 128 kernel frames; four times that leaves room.
const STACK_LOCATIONS_MAX: usize = 4 * (1024 + 128);

/// Lines a location: each is one inlined call.
const LINES_MAX: usize = 1024;

/// Labels a sample.
const TAGS_MAX: usize = 32;

/// CPU time of one window: 2^53 ns are 104 days, which 900,000 CPUs would use in 10 s. Beyond 2^53 a number is not
/// exact in JSON.
const WINDOW_NS_MAX: u64 = 1 << 53;

/// What is in a profile.
pub struct ProfileContent {
    /// What it says about itself.
    pub head: ProfileHead,
    /// What its samples refer to.
    pub tables: Tables,
    /// Its samples, ordered by series.
    pub rows: Vec<Row>,
}

/// Why locations have no name, as parallel lists.
#[derive(Clone, Copy, Default)]
pub struct UnnamedLocations<'a> {
    /// pprof's ids of the locations.
    pub ids: &'a [u64],
    /// The reasons.
    pub reasons: &'a [i32],
    /// How far into their functions they lie, plus one; or nothing.
    pub function_distances: &'a [u32],
}

/// Reads a profile whose samples are of `series_count` series.
///
/// # Errors
/// The first thing that is wrong, named.
pub fn read_profile(
    bytes: &[u8],
    series_count: usize,
    unnamed: UnnamedLocations<'_>,
) -> Result<ProfileContent, Refusal> {
    let profile =
        protos::Profile::decode(bytes).map_err(|err| refuse(format!("not a pprof: {err}")))?;
    let mut reader = Reader::new(&profile)?;
    let head = reader.read_head()?;
    reader.read_mappings()?;
    reader.read_functions()?;
    reader.read_locations(unnamed)?;
    let rows = reader.read_samples(series_count)?;
    Ok(ProfileContent {
        head,
        tables: reader.dictionary.into_tables(),
        rows,
    })
}

fn refuse(message: String) -> Refusal {
    Refusal::new(RefusalReason::Profile, format!("profile: {message}"))
}

struct Reader<'a> {
    profile: &'a protos::Profile,
    dictionary: Dictionary,
    strings: Vec<StringId>,
    mappings: HashMap<u64, MappingId>,
    functions: HashMap<u64, FunctionId>,
    locations: HashMap<u64, LocationId>,
}

impl<'a> Reader<'a> {
    fn new(profile: &'a protos::Profile) -> Result<Self, Refusal> {
        if profile
            .string_table
            .first()
            .is_none_or(|first| !first.is_empty())
        {
            return Err(refuse("string_table[0] must be the empty string".into()));
        }
        let mut dictionary = Dictionary::default();
        let strings = profile
            .string_table
            .iter()
            .map(|text| dictionary.intern_string(text))
            .collect();
        Ok(Self {
            profile,
            dictionary,
            strings,
            mappings: HashMap::with_capacity(profile.mapping.len()),
            functions: HashMap::with_capacity(profile.function.len()),
            locations: HashMap::with_capacity(profile.location.len()),
        })
    }

    fn string(&self, index: i64, whose: impl Fn() -> String) -> Result<StringId, Refusal> {
        let found = usize::try_from(index)
            .ok()
            .and_then(|at| self.strings.get(at));
        found.copied().ok_or_else(|| {
            refuse(format!(
                "{}: string {index} of a table of {}",
                whose(),
                self.strings.len()
            ))
        })
    }

    fn text(&self, index: i64, whose: &str) -> Result<&'a str, Refusal> {
        self.string(index, || whose.to_owned())?;
        Ok(&self.profile.string_table[index as usize])
    }

    fn read_head(&self) -> Result<ProfileHead, Refusal> {
        let profile = self.profile;
        let mut types = Vec::new();
        for value_type in &profile.sample_type {
            types.push((
                self.text(value_type.ty, "sample_type")?,
                self.text(value_type.unit, "sample_type")?,
            ));
        }
        if types != SAMPLE_TYPES {
            return Err(refuse(format!(
                "sample_type is {types:?}, and must be {SAMPLE_TYPES:?}"
            )));
        }
        let period_type = match &profile.period_type {
            Some(of) => (
                self.text(of.ty, "period_type")?.into(),
                self.text(of.unit, "period_type")?.into(),
            ),
            None => Default::default(),
        };
        let mut comments = Vec::new();
        for comment in &profile.comment {
            comments.push(self.text(*comment, "comment")?.to_owned());
        }
        Ok(ProfileHead {
            time_ns: profile.time_nanos,
            duration_ns: profile.duration_nanos,
            period_type,
            period: profile.period,
            comments,
            drop_frames: self.text(profile.drop_frames, "drop_frames")?.into(),
            keep_frames: self.text(profile.keep_frames, "keep_frames")?.into(),
            default_sample_type: self
                .text(profile.default_sample_type, "default_sample_type")?
                .into(),
        })
    }

    fn read_mappings(&mut self) -> Result<(), Refusal> {
        for mapping in &self.profile.mapping {
            let id = mapping.id;
            let whose = || format!("mapping {id}");
            if mapping.memory_start != 0 || mapping.file_offset != 0 {
                return Err(refuse(format!(
                    "mapping {id}: memory_start and file_offset must be 0: addresses are offsets"
                )));
            }
            let statements = [
                (mapping.has_functions, MappingFlags::FUNCTIONS),
                (mapping.has_filenames, MappingFlags::FILES),
                (mapping.has_line_numbers, MappingFlags::LINES),
                (mapping.has_inline_frames, MappingFlags::INLINES),
            ];
            let flags = statements
                .iter()
                .filter(|(made, _)| *made)
                .map(|(_, flag)| flag)
                .sum();
            let copy = Mapping {
                file: self.string(mapping.filename, whose)?,
                build_id: self.string(mapping.build_id, whose)?,
                start: mapping.memory_start,
                limit: mapping.memory_limit,
                offset: mapping.file_offset,
                flags: MappingFlags(flags),
            };
            let copy = self.dictionary.intern_mapping(copy);
            insert_unique(&mut self.mappings, id, copy, "mapping")?;
        }
        Ok(())
    }

    fn read_functions(&mut self) -> Result<(), Refusal> {
        for function in &self.profile.function {
            let id = function.id;
            let whose = || format!("function {id}");
            let copy = Function {
                name: self.string(function.name, whose)?,
                system_name: self.string(function.system_name, whose)?,
                file: self.string(function.filename, whose)?,
                start_line: function.start_line,
            };
            let copy = self.dictionary.intern_function(copy);
            insert_unique(&mut self.functions, id, copy, "function")?;
        }
        Ok(())
    }

    fn read_locations(&mut self, unnamed: UnnamedLocations<'_>) -> Result<(), Refusal> {
        let mut unnamed = read_unnamed(unnamed)?;
        let mut lines = Vec::new();
        for location in &self.profile.location {
            let id = location.id;
            let mapping = self.find_mapping(location)?;
            if location.line.len() > LINES_MAX {
                return Err(refuse(format!(
                    "location {id}: {} lines, and at most {LINES_MAX} are taken",
                    location.line.len()
                )));
            }
            lines.clear();
            for line in &location.line {
                let Some(function) = self.functions.get(&line.function_id) else {
                    return Err(refuse(format!(
                        "location {id}: no function {}",
                        line.function_id
                    )));
                };
                lines.push(Line {
                    function: *function,
                    line: line.line,
                });
            }
            let unnamed = unnamed.remove(&id);
            if unnamed.is_some() && !lines.is_empty() {
                return Err(refuse(format!(
                    "location {id} is listed as unnamed, and has lines"
                )));
            }
            let copy = Location {
                mapping,
                address: location.address,
                lines_start: 0,
                lines_end: 0,
                is_folded: location.is_folded,
                unnamed: unnamed.unwrap_or_default(),
            };
            let copy = self.dictionary.intern_location(copy, &lines);
            insert_unique(&mut self.locations, id, copy, "location")?;
        }
        match unnamed.keys().min() {
            Some(id) => Err(refuse(format!(
                "unnamed_location_ids has {id}, which is not a location"
            ))),
            None => Ok(()),
        }
    }

    fn find_mapping(&self, location: &protos::Location) -> Result<Option<MappingId>, Refusal> {
        let id = location.id;
        if location.mapping_id == 0 {
            return Ok(None);
        }
        let Some(&mapping) = self.mappings.get(&location.mapping_id) else {
            return Err(refuse(format!(
                "location {id}: no mapping {}",
                location.mapping_id
            )));
        };
        let limit = self.dictionary.tables().mappings[mapping.position()].limit;
        if limit != 0 && location.address >= limit {
            return Err(refuse(format!(
                "location {id}: address {:#x} is beyond the limit {limit:#x} of mapping {}",
                location.address, location.mapping_id
            )));
        }
        Ok(Some(mapping))
    }

    fn read_samples(&mut self, series_count: usize) -> Result<Vec<Row>, Refusal> {
        let profile = self.profile;
        let mut rows = Vec::with_capacity(profile.sample.len());
        let mut tags = Vec::new();
        let (mut all_samples, mut all_ns) = (0_u64, 0_u64);
        for (at, sample) in profile.sample.iter().enumerate() {
            let (samples, ns) = read_values(at, &sample.value)?;
            all_samples = all_samples.saturating_add(samples);
            all_ns = all_ns.saturating_add(ns);
            let series = self.read_tags(at, &sample.label, series_count, &mut tags)?;
            let tags = self.dictionary.intern_tag_set(&tags);
            let stack = self.read_stack(at, &sample.location_id)?;
            rows.push(Row {
                series,
                tags,
                stack,
                samples,
                ns,
            });
        }
        if all_samples > WINDOW_NS_MAX || all_ns > WINDOW_NS_MAX {
            return Err(refuse(format!(
                "the samples add up to more than {WINDOW_NS_MAX}"
            )));
        }
        rows.sort_unstable();
        Ok(rows)
    }

    fn read_stack(&mut self, at: usize, ids: &[u64]) -> Result<StackId, Refusal> {
        if ids.len() > STACK_LOCATIONS_MAX {
            return Err(refuse(format!(
                "sample {at}: {} locations, and at most {STACK_LOCATIONS_MAX} are taken",
                ids.len()
            )));
        }
        let mut stack = StackId(0);
        // pprof has the innermost frame first; the tree grows from the outermost.
        for id in ids.iter().rev() {
            let Some(&location) = self.locations.get(id) else {
                return Err(refuse(format!("sample {at}: no location {id}")));
            };
            stack = self.dictionary.intern_stack(StackNode {
                parent: stack,
                location,
            });
        }
        Ok(stack)
    }

    /// Fills `tags` with all labels but `series`, whose value it returns.
    fn read_tags(
        &self,
        at: usize,
        labels: &[protos::Label],
        series_count: usize,
        tags: &mut Vec<Tag>,
    ) -> Result<u32, Refusal> {
        if labels.len() > TAGS_MAX {
            return Err(refuse(format!(
                "sample {at}: {} labels, and at most {TAGS_MAX} are taken",
                labels.len()
            )));
        }
        tags.clear();
        let mut series = None;
        for label in labels {
            let key = self.string(label.key, || format!("sample {at}"))?;
            let text = self.string(label.str, || format!("sample {at}"))?;
            let unit = self.string(label.num_unit, || format!("sample {at}"))?;
            let name = &self.profile.string_table[label.key as usize];
            if tags.iter().any(|tag| tag.key == key) || (name == "series" && series.is_some()) {
                return Err(refuse(format!("sample {at}: label {name:?} comes twice")));
            }
            match name.as_str() {
                "series"
                    if label.str == 0
                        && usize::try_from(label.num).is_ok_and(|n| n < series_count) =>
                {
                    series = Some(label.num as u32);
                }
                "series" => {
                    let number = label.num;
                    return Err(refuse(format!(
                        "sample {at}: series {number} of a table of {series_count}"
                    )));
                }
                "thread" | "outcome" | "check" if label.num != 0 => {
                    return Err(refuse(format!(
                        "sample {at}: label {name:?} must be a string"
                    )));
                }
                _ if text.0 == 0 => tags.push(Tag {
                    key,
                    value: TagValue::Number(label.num, unit),
                }),
                _ => tags.push(Tag {
                    key,
                    value: TagValue::Text(text),
                }),
            }
        }
        series.ok_or_else(|| refuse(format!("sample {at} has no label \"series\"")))
    }
}

fn read_values(at: usize, values: &[i64]) -> Result<(u64, u64), Refusal> {
    let &[samples, ns] = values else {
        return Err(refuse(format!(
            "sample {at}: {} values instead of 2",
            values.len()
        )));
    };
    match (u64::try_from(samples), u64::try_from(ns)) {
        (Ok(samples), Ok(ns)) => Ok((samples, ns)),
        _ => Err(refuse(format!("sample {at}: negative value in {values:?}"))),
    }
}

fn read_unnamed(unnamed: UnnamedLocations<'_>) -> Result<HashMap<u64, Unnamed>, Refusal> {
    let UnnamedLocations {
        ids,
        reasons,
        function_distances,
    } = unnamed;
    if ids.len() != reasons.len() {
        return Err(refuse(format!(
            "{} unnamed_location_ids and {} unnamed_reasons",
            ids.len(),
            reasons.len()
        )));
    }
    if ![0, ids.len()].contains(&function_distances.len()) {
        return Err(refuse(format!(
            "{} unnamed_location_ids and {} unnamed_function_distances",
            ids.len(),
            function_distances.len()
        )));
    }
    // Collectors from before do not send them.
    let function_distances = function_distances.iter().copied().chain(repeat(0));
    let mut read = HashMap::with_capacity(ids.len());
    for ((id, reason), function_distance) in ids.iter().zip(reasons).zip(function_distances) {
        // A reason of a newer collector that this server does not know is kept as its number.
        let Ok(reason) = u8::try_from(*reason) else {
            return Err(refuse(format!(
                "unnamed_reasons has {reason}, which cannot be a reason"
            )));
        };
        let unnamed = Unnamed::new(reason, function_distance);
        if read.insert(*id, unnamed).is_some() {
            return Err(refuse(format!("unnamed_location_ids has {id} twice")));
        }
    }
    Ok(read)
}

fn insert_unique<T>(
    ids: &mut HashMap<u64, T>,
    id: u64,
    value: T,
    what: &str,
) -> Result<(), Refusal> {
    if id == 0 {
        return Err(refuse(format!("a {what} has the id 0")));
    }
    match ids.insert(id, value) {
        Some(_) => Err(refuse(format!("{what} {id} comes twice"))),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proto::v1;

    /// A small valid profile: two samples of two series.
    fn profile() -> protos::Profile {
        let strings = [
            "",
            "samples",
            "count",
            "cpu",
            "nanoseconds",
            "series",
            "main",
            "/bin/app",
            "00ff",
            "thread",
            "worker",
        ];
        let value_type = |ty, unit| protos::ValueType { ty, unit };
        let series = |num| protos::Label {
            key: 5,
            num,
            ..Default::default()
        };
        let thread = protos::Label {
            key: 9,
            str: 10,
            ..Default::default()
        };
        protos::Profile {
            sample_type: vec![value_type(1, 2), value_type(3, 4)],
            sample: vec![
                protos::Sample {
                    location_id: vec![2, 1],
                    value: vec![3, 30_000_000],
                    label: vec![series(1), thread],
                },
                protos::Sample {
                    location_id: vec![1],
                    value: vec![1, 10_000_000],
                    label: vec![series(0)],
                },
            ],
            mapping: vec![protos::Mapping {
                id: 1,
                memory_limit: 0x1000,
                filename: 7,
                build_id: 8,
                ..Default::default()
            }],
            location: vec![
                protos::Location {
                    id: 1,
                    mapping_id: 1,
                    address: 0x10,
                    line: vec![protos::Line {
                        function_id: 1,
                        line: 3,
                    }],
                    ..Default::default()
                },
                protos::Location {
                    id: 2,
                    mapping_id: 1,
                    address: 0x20,
                    ..Default::default()
                },
            ],
            function: vec![protos::Function {
                id: 1,
                name: 6,
                ..Default::default()
            }],
            string_table: strings.map(String::from).to_vec(),
            ..Default::default()
        }
    }

    /// A valid message with that profile.
    pub(crate) fn push_request(window_start_ms: i64, sequence: u64) -> v1::PushRequest {
        let bytes = profile().encode_to_vec();
        let series = |comm: &str| v1::LabelSet {
            labels: vec![v1::Label {
                name: "comm".into(),
                value: comm.into(),
            }],
        };
        v1::PushRequest {
            collector_instance: vec![7; 16],
            sequence,
            node: "a".into(),
            window_start_ms,
            window_ms: 10_000,
            series: vec![series("sort"), series("rustc")],
            profile_zstd: zstd::encode_all(bytes.as_slice(), 3).unwrap().into(),
            profile_bytes: bytes.len() as u64,
            account: Some(v1::WindowAccount::default()),
            unnamed_location_ids: vec![2],
            unnamed_reasons: vec![4],
            unnamed_function_distances: vec![3],
            file_layouts: Vec::new(),
        }
    }

    fn read(profile: &protos::Profile) -> Result<ProfileContent, Refusal> {
        read_profile(
            &profile.encode_to_vec(),
            2,
            UnnamedLocations {
                ids: &[2],
                reasons: &[4],
                function_distances: &[3],
            },
        )
    }

    /// Check that the change of a valid profile is refused with a text that has these words.
    fn check_refused(words: &str, change: impl FnOnce(&mut protos::Profile)) {
        let mut changed = profile();
        change(&mut changed);
        let refusal = read(&changed)
            .err()
            .unwrap_or_else(|| panic!("taken, and should be refused: {words}"));
        assert!(refusal.message.contains(words), "{refusal}");
    }

    #[test]
    fn a_valid_profile_is_read() {
        let content = read(&profile()).unwrap();
        let tables = &content.tables;
        assert_eq!(
            content
                .rows
                .iter()
                .map(|row| row.series)
                .collect::<Vec<_>>(),
            [0, 1]
        );
        let row = content.rows[1];
        assert_eq!((row.samples, row.ns), (3, 30_000_000));
        assert_eq!(tables.tag_text(row.tags, "thread"), "worker");
        let stack: Vec<_> = tables
            .walk_stack(row.stack)
            .map(|l| tables.locations[l.position()])
            .collect();
        assert_eq!(
            stack
                .iter()
                .map(|l| (l.address, l.unnamed.code()))
                .collect::<Vec<_>>(),
            [(0x20, 4), (0x10, 0)]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        check_refused("string_table[0]", |p| p.string_table.clear());
        check_refused("string_table[0]", |p| p.string_table[0] = "x".into());
        check_refused("sample_type is", |p| p.sample_type.swap(0, 1));
        check_refused("sample_type is", |p| p.sample_type.clear());
        check_refused("sample_type: string 99", |p| p.sample_type[0].ty = 99);
        check_refused("drop_frames: string -1", |p| p.drop_frames = -1);
        check_refused("mapping 1: string 11", |p| p.mapping[0].filename = 11);
        check_refused("mapping 1 comes twice", |p| {
            p.mapping.push(p.mapping[0].clone())
        });
        check_refused("a mapping has the id 0", |p| p.mapping[0].id = 0);
        check_refused("memory_start", |p| p.mapping[0].memory_start = 4096);
        check_refused("function 1: string -5", |p| p.function[0].system_name = -5);
        check_refused("function 1 comes twice", |p| {
            p.function.push(p.function[0].clone())
        });
        check_refused("location 1: no function 9", |p| {
            p.location[0].line[0].function_id = 9
        });
        check_refused("location 1: no mapping 9", |p| p.location[0].mapping_id = 9);
        check_refused("beyond the limit", |p| p.location[0].address = 0x1000);
        check_refused("location 1 comes twice", |p| {
            p.location.push(p.location[0].clone())
        });
        check_refused("listed as unnamed", |p| {
            p.location[1].line = p.location[0].line.clone()
        });
        check_refused("unnamed_location_ids has 2", |p| p.location[1].id = 3);
        check_refused("sample 0: no location 7", |p| {
            p.sample[0].location_id[0] = 7
        });
        check_refused("sample 0: 1 values", |p| p.sample[0].value.truncate(1));
        check_refused("sample 0: negative", |p| p.sample[0].value[1] = -1);
        check_refused("add up to more", |p| p.sample[0].value[1] = i64::MAX);
        check_refused("sample 0 has no label \"series\"", |p| {
            p.sample[0].label.truncate(0)
        });
        check_refused("series 2 of a table of 2", |p| p.sample[0].label[0].num = 2);
        check_refused("series -1 of a table of 2", |p| {
            p.sample[0].label[0].num = -1
        });
        check_refused("comes twice", |p| {
            let again = p.sample[0].label[0].clone();
            p.sample[0].label.push(again);
        });
        check_refused("must be a string", |p| p.sample[0].label[1].num = 1);
        for name in ["outcome", "check"] {
            check_refused("must be a string", |p| {
                p.string_table.push(name.into());
                p.sample[0].label[1].key = p.string_table.len() as i64 - 1;
                p.sample[0].label[1].str = 0;
                p.sample[0].label[1].num = 1;
            });
        }
        check_refused("at most 32", |p| {
            p.sample[0].label = vec![Default::default(); 33]
        });
        check_refused("locations, and at most", |p| {
            p.sample[0].location_id = vec![1; 5000]
        });
    }

    #[test]
    fn no_truncation_panics() {
        let bytes = profile().encode_to_vec();
        for end in 0..bytes.len() {
            let _ = read_profile(&bytes[..end], 2, UnnamedLocations::default());
        }
    }

    #[test]
    fn no_changed_byte_panics() {
        let bytes = profile().encode_to_vec();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = read_profile(
                    &changed,
                    2,
                    UnnamedLocations {
                        ids: &[2],
                        reasons: &[4],
                        function_distances: &[3],
                    },
                );
            }
        }
    }
}
