//! The lines that a source of names has for the locations of tables.
//!
//! Locations without lines or without a source file are looked up, each build id at once, and the lines are laid over the
//! tables ([`NamedTables`](model::NamedTables)). The kernel's locations are not looked up: they count from `_text`, and not
//! from the start of a file.

use std::collections::BTreeMap;

use model::tables::{LocationId, StringId};
use model::{Dictionary, Function, JoinedLines, Line, Tables};
use tracing::warn;

use super::source::{NameSource, SourceFrame};

/// Lines of a location: the same limit as in a message.
const LINES_MAX: usize = 1024;

/// Bytes of a name: some C++ templates have a thousand. An uploaded file may have any length.
const NAME_BYTES_MAX: usize = 16 << 10;

/// Bytes that the names of one set of tables may take: the million addresses of a large program have some 60 MB of them.
const NAMES_BYTES_MAX: usize = 128 << 20;

/// The lines that the source has now for locations that have none, or none with a source file.
pub(crate) fn join_names(tables: &Tables, names: &dyn NameSource) -> JoinedLines {
    let mut lines = JoinedLines::default();
    join_files(tables, &mut lines, &find_unresolved(tables), names);
    lines
}

/// The locations of a file that could get better.
#[derive(Default)]
struct UnresolvedFile {
    locations: Vec<LocationId>,
    /// Whether one of them has no name at all.
    has_unnamed: bool,
}

/// Locations without lines or without a source file, by the build id and the file id of their file.
///
/// Those of the kernel are left out: they count from `_text`, not from the start of a file.
fn find_unresolved(tables: &Tables) -> BTreeMap<[StringId; 2], UnresolvedFile> {
    let ids_of: Vec<Option<[StringId; 2]>> = tables
        .mappings
        .iter()
        .map(|mapping| {
            let is_asked =
                mapping.build_id.0 != 0 && !tables.string(mapping.file).starts_with("[kernel");
            is_asked.then_some([mapping.build_id, mapping.file_id])
        })
        .collect();
    let mut unresolved: BTreeMap<[StringId; 2], UnresolvedFile> = BTreeMap::new();
    for (number, location) in tables.locations.iter().enumerate() {
        let id = LocationId(number as u32);
        let lines = tables.own_lines_of(id);
        if !tables.have_source(lines)
            && let Some(mapping) = location.mapping
            && let Some(ids) = ids_of[mapping.position()]
        {
            let file = unresolved.entry(ids).or_default();
            file.locations.push(id);
            file.has_unnamed |= lines.is_empty();
        }
    }
    unresolved
}

/// Looks up each file once, then joins in the order of the locations.
///
/// A file from a collector names only frames with its file id: it can claim the build id of any other. For a file
/// whose locations all have a name, only present symbols are used: nothing is fetched for it.
fn join_files(
    tables: &Tables,
    lines: &mut JoinedLines,
    unresolved: &BTreeMap<[StringId; 2], UnresolvedFile>,
    names: &dyn NameSource,
) {
    let mut found: Vec<(LocationId, Vec<Line>)> = Vec::new();
    for ([id, file_id], file) in unresolved {
        let [build_id, file_id] = [*id, *file_id].map(|id| tables.string(id));
        let locations = &file.locations;
        let offsets: Vec<u64> = locations
            .iter()
            .map(|id| tables.locations[id.position()].address)
            .collect();
        let mut is_full = false;
        let mut name = |at: usize, frames: &[SourceFrame<'_>]| {
            let dictionary = lines.dictionary_mut();
            is_full = is_full || dictionary.heap_bytes() > NAMES_BYTES_MAX;
            let Some(location) = locations.get(at).filter(|_| !is_full) else {
                return;
            };
            // Lines that the node read from the file itself are replaced only by lines that say more.
            let own = tables.own_lines_of(*location);
            let is_better = match frames.last() {
                Some(outer) => own.is_empty() || !outer.file.is_empty(),
                None => false,
            };
            if is_better {
                found.push((*location, intern_frames(dictionary, frames)));
            }
        };
        if file.has_unnamed || names.knows(build_id) {
            names.name(build_id, &offsets, &mut name);
        }
        if !file_id.is_empty() {
            names.name_sent(file_id, &offsets, &mut name);
        }
        if is_full {
            warn!(
                build_id,
                bytes_max = NAMES_BYTES_MAX,
                "names from symbols take too much memory, left the rest out"
            );
            break;
        }
    }
    // A source may name an address twice, or in any order; the first answer with a source file counts, or else the
    // first.
    let named = lines.tables();
    found.sort_by_key(|(location, lines)| (*location, !named.have_source(lines)));
    found.dedup_by_key(|(location, _)| *location);
    for (location, found) in found {
        lines.join(location, &found);
    }
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
        // As the collector does: an equal system name is repeated.
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

/// The beginning of a text, within the limit.
fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(NAME_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use model::text::window;
    use model::{Import, Location, Mapping, MappingFlags, NamedTables, Unnamed};

    use super::*;
    use crate::names::table::NameTable;

    /// The names of all locations: own and joined, innermost first, with the line.
    fn names_of(dictionary: &Dictionary, names: &NameTable) -> Vec<String> {
        let joined = join_names(dictionary.tables(), names);
        let tables = NamedTables::new(dictionary.tables(), Some(&joined));
        let location = |number: usize| {
            let lines = tables.lines_of(LocationId(number as u32));
            let name = |line: &Line| {
                let function = lines.tables.string(lines.function(line).name);
                format!("{function}:{}", line.line)
            };
            lines.lines.iter().map(name).collect::<Vec<_>>().join("<")
        };
        (0..tables.locations.len()).map(location).collect()
    }

    fn take(dictionary: &mut Dictionary, text: &str) {
        Import::new(&window(text).tables).copy_all(dictionary);
    }

    #[test]
    fn locations_have_the_names_that_the_source_knows() {
        let names = NameTable::default();
        let mut dictionary = Dictionary::default();
        take(
            &mut dictionary,
            "comm=a | main 0x1f@/lib/b.so 0x20@/lib/b.so 0x1f 0x1f@[kernel] | 1",
        );
        let unnamed = ["main:5", "", "", "", ""];
        assert_eq!(names_of(&dictionary, &names), unnamed);
        // An unknown file is asked for, so that the source fetches it.
        assert_eq!(names.calls(), 1);

        names.insert("00ff", 0x1f, &[("inlined", "b.h", 7), ("outer", "b.c", 9)]);
        let named = ["main:5", "inlined:7<outer:9", "", "", ""];
        assert_eq!(names_of(&dictionary, &names), named);
        names.remove("00ff", 0x1f);
        assert_eq!(names_of(&dictionary, &names), unnamed);
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
            file_id: StringId::default(),
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
        assert_eq!(names_of(&dictionary, &names), ["from_symbols:0"; 2]);
        assert_eq!(
            names.asked(),
            0,
            "a file whose locations are named is not fetched"
        );
        names.insert("00ff", 0x10, &[("also_from_symbols", "", 0)]);
        names.insert("00ff", 0x20, &[("inlined", "b.h", 7), ("outer", "b.c", 9)]);
        assert_eq!(
            names_of(&dictionary, &names),
            ["from_symbols:0", "inlined:7<outer:9"]
        );
    }

    #[test]
    fn joined_names_are_bounded() {
        let names = NameTable::default();
        let long = "ä".repeat(NAME_BYTES_MAX);
        names.insert(
            "00ff",
            0x1f,
            &vec![(long.as_str(), "b.c", 1); LINES_MAX + 9],
        );
        let mut dictionary = Dictionary::default();
        take(&mut dictionary, "comm=a | 0x1f@/lib/b.so | 1");
        let joined = join_names(dictionary.tables(), &names);
        let tables = NamedTables::new(dictionary.tables(), Some(&joined));
        let lines = tables.lines_of(LocationId(0));
        assert_eq!(lines.lines.len(), LINES_MAX);
        let name = lines.function(&lines.lines[0]).name;
        assert_eq!(lines.tables.string(name).len(), NAME_BYTES_MAX);
    }
}
