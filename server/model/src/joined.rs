//! Lines that were found for locations later, laid over the tables.

use std::ops::Deref;

use crate::dictionary::Dictionary;
use crate::tables::{Function, Line, LocationId, Tables};

/// Lines that were found later, with tables of their own for the functions and strings that they refer to. They are not
/// stored, and no part of a location's identity.
#[derive(Default)]
pub struct JoinedLines {
    dictionary: Dictionary,
    /// The locations that have some, sorted, and the ends of their ranges in `lines`.
    ends: Vec<(LocationId, u32)>,
    lines: Vec<Line>,
}

impl JoinedLines {
    /// The tables that the lines refer to.
    pub fn tables(&self) -> &Tables {
        self.dictionary.tables()
    }

    /// The dictionary in which functions of lines are interned before they are joined.
    pub fn dictionary_mut(&mut self) -> &mut Dictionary {
        &mut self.dictionary
    }

    /// Joins lines to a location whose own lines name no source file. Called in ascending order of locations.
    pub fn join(&mut self, id: LocationId, lines: &[Line]) {
        debug_assert!(self.ends.last().is_none_or(|(last, _)| *last < id));
        self.lines.extend_from_slice(lines);
        self.ends.push((id, self.lines.len() as u32));
    }

    fn lines_of(&self, id: LocationId) -> Option<&[Line]> {
        let at = self
            .ends
            .binary_search_by_key(&id, |(location, _)| *location)
            .ok()?;
        let start = if at == 0 { 0 } else { self.ends[at - 1].1 };
        Some(&self.lines[start as usize..self.ends[at].1 as usize])
    }

    /// Bytes on the heap, for bounded caches.
    pub fn heap_bytes(&self) -> usize {
        self.dictionary.heap_bytes()
            + size_of::<Line>() * self.lines.capacity()
            + size_of::<(LocationId, u32)>() * self.ends.capacity()
    }
}

/// Tables, and the lines that were joined to their locations.
#[derive(Clone, Copy)]
pub struct NamedTables<'a> {
    own: &'a Tables,
    joined: Option<&'a JoinedLines>,
}

impl<'a> NamedTables<'a> {
    /// Lays lines over tables, if there are any.
    pub fn new(own: &'a Tables, joined: Option<&'a JoinedLines>) -> Self {
        // Without an entry, no location is looked up in it.
        let joined = joined.filter(|joined| !joined.ends.is_empty());
        Self { own, joined }
    }

    /// The tables that the locations refer to.
    pub fn own(self) -> &'a Tables {
        self.own
    }

    /// The tables that joined lines refer to, if there are any.
    pub fn joined(self) -> Option<&'a Tables> {
        self.joined.map(JoinedLines::tables)
    }

    /// The lines of a location: its own, or those joined to it.
    pub fn lines_of(self, id: LocationId) -> Lines<'a> {
        let own = Lines {
            tables: self.own,
            lines: self.own.own_lines_of(id),
            is_joined: false,
        };
        match self.joined {
            Some(joined) if !own.have_source() => joined.lines_of(id).map_or(own, |lines| Lines {
                tables: joined.tables(),
                lines,
                is_joined: true,
            }),
            _ => own,
        }
    }
}

impl<'a> From<&'a Tables> for NamedTables<'a> {
    fn from(own: &'a Tables) -> Self {
        Self { own, joined: None }
    }
}

impl Deref for NamedTables<'_> {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        self.own
    }
}

/// The lines of a location, innermost inlined call first, with the tables that they refer to.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    /// The tables of their functions.
    pub tables: &'a Tables,
    /// The lines.
    pub lines: &'a [Line],
    /// Whether they were joined: `tables` are not those of the location then.
    pub is_joined: bool,
}

impl<'a> Lines<'a> {
    /// The function of a line.
    pub fn function(self, line: &Line) -> &'a Function {
        &self.tables.functions[line.function.position()]
    }

    /// Whether they name a source file.
    pub fn have_source(self) -> bool {
        self.tables.have_source(self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Import;
    use crate::text::window;

    /// Check that joined lines are shown and counted, are no part of a location's identity, and are copied on demand.
    #[test]
    fn joined_lines_are_no_part_of_a_locations_identity() {
        let text = "comm=a | main 0x1f@/lib/b.so 0x2f@/lib/b.so | 1";
        let window = window(text);
        let mut all = Dictionary::default();
        Import::new(&window.tables).copy_all(&mut all);
        let mut joined = JoinedLines::default();
        let main = all.tables().own_lines_of(LocationId(0))[0];
        let main = Line {
            function: Import::new(all.tables()).function(joined.dictionary_mut(), main.function),
            line: 7,
        };
        let (bytes, id) = (joined.heap_bytes(), LocationId(2));
        joined.join(id, &[main, main]);
        assert!(joined.heap_bytes() > bytes);
        let named = NamedTables::new(all.tables(), Some(&joined));
        assert_eq!(named.lines_of(id).lines, [main, main]);
        assert_eq!(named.own_lines_of(id), []);
        assert_eq!(named.lines_of(LocationId(1)).lines, []);

        let mut copies = [Dictionary::default(), Dictionary::default()];
        Import::new(all.tables()).copy_all(&mut copies[0]);
        Import::named(named).copy_all(&mut copies[1]);
        for (copy, lines, reason) in [(&copies[0], 0, 4), (&copies[1], 2, 0)] {
            let tables = copy.tables();
            let found = tables.own_lines_of(id);
            assert_eq!(found.len(), lines);
            assert_eq!(tables.locations[id.position()].unnamed.code(), reason);
            for line in found {
                let name = tables.functions[line.function.position()].name;
                assert_eq!((tables.string(name), line.line), ("main", 7));
            }
        }
        assert_eq!(all.tables(), copies[0].tables());
        Import::new(&window.tables).copy_all(&mut all);
        assert_eq!(all.tables().locations.len(), 3);
    }
}
