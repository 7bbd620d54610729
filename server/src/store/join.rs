//! Names that the node did not know, joined to what is kept of a block.
//!
//! Windows are kept as they came. A location that has no lines gets those of the source of names when a query is about
//! to read it, so that a profile from before an upload is named by it; how it is told from others does not change.
//! One that the node named from a symbol table alone gets lines that have a source file, and so the inlined calls.
//! What was joined counts as the block's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::profile::tables::{LocationId, StringId};
use crate::profile::{Dictionary, Function, Line};
use crate::symbol::{NameSource, SourceFrame};

/// Lines that a location gets: as many as one may come with.
const LINES_MAX: usize = 1024;

/// Bytes of a name: C++ templates have some thousand at times. A file that somebody uploaded may say anything.
const NAME_BYTES_MAX: usize = 16 << 10;

/// Bytes that one block's names may take, of the 256 MiB that the cache has as its default: the million addresses of
/// a large program have some 60 MB of them.
const BLOCK_BYTES_MAX: usize = 128 << 20;

/// Files of which nothing was known are asked for again after this time, by the next query: the source may fetch them
/// from elsewhere, and has its own time after which it tries again.
const ASK_AGAIN_TIME: Duration = Duration::from_secs(60);

/// What was joined to a block, and for what.
#[derive(Clone, Debug, Default)]
pub struct JoinState {
    /// The source's generation.
    generation: u64,
    /// Locations that were asked about, or did not need it.
    locations: usize,
    /// Build ids of files with locations without a name of which nothing was known, and when they were asked for last.
    unknown: BTreeSet<StringId>,
    asked_at: Option<Instant>,
}

impl JoinState {
    /// Says whether nothing has to be done.
    pub fn is_current(&self, dictionary: &Dictionary, names: &dyn NameSource) -> bool {
        self.locations == dictionary.tables().locations.len()
            && self.generation == names.generation()
            && !self.is_to_ask_again()
    }

    fn is_to_ask_again(&self) -> bool {
        let is_long_ago = |asked_at: Instant| asked_at.elapsed() > ASK_AGAIN_TIME;
        !self.unknown.is_empty() && self.asked_at.is_some_and(is_long_ago)
    }

    /// Asks the source about locations that are new; about all that may get better, when it knows something new.
    pub fn join(&mut self, dictionary: &mut Dictionary, names: &dyn NameSource) {
        // Read before anything is asked: what changes in between is asked for again.
        let generation = names.generation();
        if generation != self.generation {
            dictionary.clear_joined();
            *self = Self {
                generation,
                ..Self::default()
            };
        }
        if self.is_to_ask_again() {
            for build_id in &self.unknown {
                let build_id = dictionary.tables().string(*build_id);
                names.name(build_id, &[], &mut |_, _| {});
            }
            self.asked_at = Some(Instant::now());
        }
        let wanting = list_wanting(dictionary, self.locations);
        self.locations = dictionary.tables().locations.len();
        let unknown = join_files(dictionary, &wanting, names);
        if !unknown.is_empty() {
            self.unknown.extend(unknown);
            self.asked_at.get_or_insert_with(Instant::now);
        }
    }
}

/// The locations of a file that could get better.
#[derive(Default)]
struct Wanting {
    locations: Vec<LocationId>,
    /// Whether one of them has no name at all.
    has_unnamed: bool,
}

/// Locations without lines or without a source file from a number on, by the build id of their file.
///
/// Those of the kernel are left out: they count from `_text`, not from the start of a file.
fn list_wanting(dictionary: &Dictionary, from: usize) -> BTreeMap<StringId, Wanting> {
    let tables = dictionary.tables();
    let build_id_of: Vec<Option<StringId>> = tables
        .mappings
        .iter()
        .map(|mapping| {
            let is_asked =
                mapping.build_id.0 != 0 && !tables.string(mapping.file).starts_with("[kernel");
            is_asked.then_some(mapping.build_id)
        })
        .collect();
    let mut wanting: BTreeMap<StringId, Wanting> = BTreeMap::new();
    for (number, location) in tables.locations.iter().enumerate().skip(from) {
        let id = LocationId(number as u32);
        let lines = tables.own_lines_of(id);
        if !tables.have_source(lines)
            && let Some(mapping) = location.mapping
            && let Some(build_id) = build_id_of[mapping.position()]
        {
            let file = wanting.entry(build_id).or_default();
            file.locations.push(id);
            file.has_unnamed |= lines.is_empty();
        }
    }
    wanting
}

/// Asks about each file once, then joins in the order of the locations. Gives the build ids of which nothing is known.
///
/// Where all has a name already, the source is asked only about what it has: it fetches nothing for that.
fn join_files(
    dictionary: &mut Dictionary,
    wanting: &BTreeMap<StringId, Wanting>,
    names: &dyn NameSource,
) -> Vec<StringId> {
    let bytes_max = dictionary.heap_bytes().saturating_add(BLOCK_BYTES_MAX);
    let mut found: Vec<(LocationId, Vec<Line>)> = Vec::new();
    let mut unknown = Vec::new();
    for (id, file) in wanting {
        let tables = dictionary.tables();
        let build_id = tables.string(*id).to_owned();
        if !file.has_unnamed && !names.knows(&build_id) {
            continue;
        }
        let locations = &file.locations;
        let offsets: Vec<u64> = locations
            .iter()
            .map(|id| tables.locations[id.position()].address)
            .collect();
        let mut is_full = false;
        let is_known = names.name(&build_id, &offsets, &mut |at, frames| {
            is_full = is_full || dictionary.heap_bytes() > bytes_max;
            let Some(location) = locations.get(at).filter(|_| !is_full) else {
                return;
            };
            // What the node read from the file itself is only replaced by what says more.
            let own = dictionary.tables().own_lines_of(*location);
            let is_better = match frames.last() {
                Some(outer) => own.is_empty() || !outer.file.is_empty(),
                None => false,
            };
            if is_better {
                found.push((*location, intern_frames(dictionary, frames)));
            }
        });
        if !is_known && file.has_unnamed {
            unknown.push(*id);
        }
        if is_full {
            warn!(
                build_id,
                bytes_max = BLOCK_BYTES_MAX,
                "names of a block take too much memory, the rest is left out"
            );
            break;
        }
    }
    // A source may tell of an address twice, or in any order; the first answer stands.
    found.sort_by_key(|(location, _)| *location);
    found.dedup_by_key(|(location, _)| *location);
    for (location, lines) in found {
        dictionary.join_lines(location, &lines);
    }
    unknown
}

fn intern_frames(dictionary: &mut Dictionary, frames: &[SourceFrame<'_>]) -> Vec<Line> {
    let line = |frame: &SourceFrame<'_>| {
        let SourceFrame {
            function,
            system_name,
            file,
            line,
            start_line,
        } = *frame;
        // As the collector has it: a name of the file that is the same stands there again.
        let system_name = match system_name {
            "" => function,
            other => other,
        };
        let function = Function {
            name: dictionary.intern_string(shorten(function)),
            system_name: dictionary.intern_string(shorten(system_name)),
            file: dictionary.intern_string(shorten(file)),
            start_line: i64::from(start_line),
        };
        Line {
            function: dictionary.intern_function(function),
            line: i64::from(line),
        }
    };
    frames.iter().take(LINES_MAX).map(line).collect()
}

/// The beginning of a text that is too long.
fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(NAME_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::text::window;
    use crate::profile::{Import, Location, Mapping, MappingFlags, Unnamed};
    use crate::symbol::table::NameTable;

    /// The names of all locations: own and joined, innermost first, with the line.
    fn names_of(dictionary: &Dictionary) -> Vec<String> {
        let tables = dictionary.tables();
        let location = |number: usize| {
            let lines = tables.lines_of(LocationId(number as u32)).iter();
            let name = |line: &Line| {
                let function = tables.functions[line.function.position()];
                format!("{}:{}", tables.string(function.name), line.line)
            };
            lines.map(name).collect::<Vec<_>>().join("<")
        };
        (0..tables.locations.len()).map(location).collect()
    }

    fn take(dictionary: &mut Dictionary, text: &str) {
        Import::new(&window(text).tables).copy_all(dictionary);
    }

    #[test]
    fn locations_are_named_when_the_source_learns_of_their_file() {
        let names = NameTable::default();
        let (mut dictionary, mut state) = (Dictionary::default(), JoinState::default());
        take(
            &mut dictionary,
            "comm=a | main 0x1f@/lib/b.so 0x20@/lib/b.so 0x1f 0x1f@[kernel] | 1",
        );
        state.join(&mut dictionary, &names);
        assert_eq!(names_of(&dictionary), ["main:5", "", "", "", ""]);
        assert!(state.is_current(&dictionary, &names));

        names.insert("00ff", 0x1f, &[("inlined", "b.h", 7), ("outer", "b.c", 9)]);
        assert!(!state.is_current(&dictionary, &names));
        state.join(&mut dictionary, &names);
        let expected = ["main:5", "inlined:7<outer:9", "", "", ""];
        assert_eq!(names_of(&dictionary), expected);

        // A window that comes later is asked about alone, and meets the locations that are there.
        let asked = names.asked();
        take(
            &mut dictionary,
            "comm=a | main 0x1f@/lib/b.so 0x30@/lib/b.so | 1",
        );
        assert!(!state.is_current(&dictionary, &names));
        state.join(&mut dictionary, &names);
        assert_eq!(names.asked() - asked, 1);
        assert_eq!(names_of(&dictionary), [&expected[..], &[""]].concat());

        names.remove("00ff", 0x1f);
        state.join(&mut dictionary, &names);
        assert_eq!(names_of(&dictionary), ["main:5", "", "", "", "", ""]);
    }

    /// Check that a name from a symbol table gives way to one with a source file, and to nothing else.
    #[test]
    fn names_without_a_source_file_become_better() {
        let mut dictionary = Dictionary::default();
        let file = dictionary.intern_string("/lib/b.so");
        let build_id = dictionary.intern_string("00ff");
        let mapping = dictionary.intern_mapping(Mapping {
            file,
            build_id,
            start: 0,
            limit: 0,
            offset: 0,
            flags: MappingFlags(MappingFlags::FUNCTIONS),
        });
        for address in [0x10, 0x20] {
            let name = dictionary.intern_string("from_symbols");
            let function = dictionary.intern_function(Function {
                name,
                system_name: name,
                file: StringId(0),
                start_line: 0,
            });
            let location = Location {
                mapping: Some(mapping),
                address,
                lines_start: 0,
                lines_end: 0,
                is_folded: false,
                unnamed: Unnamed::default(),
            };
            dictionary.intern_location(location, &[Line { function, line: 0 }]);
        }
        let names = NameTable::default();
        let mut state = JoinState::default();
        state.join(&mut dictionary, &names);
        assert_eq!(names.asked(), 0, "what has a name is fetched from nowhere");
        names.insert("00ff", 0x10, &[("also_from_symbols", "", 0)]);
        names.insert("00ff", 0x20, &[("inlined", "b.h", 7), ("outer", "b.c", 9)]);
        state.join(&mut dictionary, &names);
        assert_eq!(
            names_of(&dictionary),
            ["from_symbols:0", "inlined:7<outer:9"]
        );
    }

    #[test]
    fn what_is_unknown_is_asked_for_again_after_a_while() {
        let names = NameTable::default();
        let (mut dictionary, mut state) = (Dictionary::default(), JoinState::default());
        take(&mut dictionary, "comm=a | main 0x1f@/lib/b.so | 1");
        state.join(&mut dictionary, &names);
        assert!(state.is_current(&dictionary, &names));
        let calls = names.calls();
        state.asked_at = Instant::now().checked_sub(2 * ASK_AGAIN_TIME);
        assert!(!state.is_current(&dictionary, &names));
        state.join(&mut dictionary, &names);
        assert_eq!(names.calls(), calls + 1);
        assert!(state.is_current(&dictionary, &names));

        names.insert("00ff", 0x1f, &[("found", "b.c", 7)]);
        state.join(&mut dictionary, &names);
        assert_eq!(names_of(&dictionary), ["main:5", "found:7"]);
        state.asked_at = Instant::now().checked_sub(2 * ASK_AGAIN_TIME);
        assert!(state.is_current(&dictionary, &names), "nothing is unknown");
    }

    #[test]
    fn what_a_source_says_is_bounded() {
        let names = NameTable::default();
        let long = "ä".repeat(NAME_BYTES_MAX);
        names.insert(
            "00ff",
            0x1f,
            &vec![(long.as_str(), "b.c", 1); LINES_MAX + 9],
        );
        let (mut dictionary, mut state) = (Dictionary::default(), JoinState::default());
        take(&mut dictionary, "comm=a | 0x1f@/lib/b.so | 1");
        state.join(&mut dictionary, &names);
        let tables = dictionary.tables();
        let lines = tables.lines_of(LocationId(0));
        assert_eq!(lines.len(), LINES_MAX);
        let name = tables.functions[lines[0].function.position()].name;
        assert_eq!(tables.string(name).len(), NAME_BYTES_MAX);
    }
}
