//! Everything that stacks refer to, each entry once, while a segment is being made.
//!
//! Entries are found by their whole value, never by a hash alone. Their numbers here are in the order of arrival; the file has the
//! order of their contents, which is the same whatever arrived first.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hash};
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

/// A function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Function {
    pub(crate) name: u32,
    pub(crate) system_name: u32,
    pub(crate) file: u32,
    pub(crate) start_line: i64,
    /// Kind of language: an open list, 0 if it is not known.
    pub(crate) language: u32,
}

/// The name under which a function is shown: that of its file's symbol table if it has no other.
pub(crate) fn shown_name(function: &Function) -> u32 {
    match function.name {
        0 => function.system_name,
        name => name,
    }
}

/// A function at a location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    pub(crate) function: u32,
    pub(crate) line: i64,
    /// [`LINE_INLINED`] and others.
    pub(crate) flags: u32,
}

/// A flag of lines: the function was inlined into that of the next line. Other bits are kept.
#[cfg_attr(not(test), expect(dead_code, reason = "no window has it yet"))]
pub(crate) const LINE_INLINED: u32 = 1;

/// A flag of locations: pprof's `is_folded`, other functions may have this address too. Other bits are kept.
pub(crate) const LOCATION_FOLDED: u32 = 1;

/// A flag of locations: code of an interpreter, for which frames of the interpreted program stand.
#[cfg_attr(not(test), expect(dead_code, reason = "no window has it yet"))]
pub(crate) const LOCATION_INTERPRETER: u32 = 2;

/// A file. Only its path, build id and file id make it another one: a file that claims the build id of another has another file id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) file: u32,
    pub(crate) build_id: u32,
    /// The lowest start.
    pub(crate) start: u64,
    /// The highest limit.
    pub(crate) limit: u64,
    /// The lowest offset.
    pub(crate) offset: u64,
    /// Flags of all senders, or-ed.
    pub(crate) flags: u8,
    pub(crate) file_id: u32,
}

/// A place in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location {
    /// Number of the file plus one, 0 for none.
    pub(crate) mapping: u32,
    pub(crate) address: u64,
    /// [`LOCATION_FOLDED`], [`LOCATION_INTERPRETER`] and others.
    pub(crate) flags: u32,
    /// The bits of [`model::Unnamed`].
    pub(crate) unnamed: u32,
    /// Its lines, as positions in the table of lines: the innermost inlined call first.
    pub(crate) lines: Range<u32>,
}

impl Location {
    /// Its part of a table of lines.
    pub(crate) fn lines_in<'a>(&self, lines: &'a [Line]) -> &'a [Line] {
        &lines[self.lines.start as usize..self.lines.end as usize]
    }
}

/// A label of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tag {
    pub(crate) key: u32,
    pub(crate) value: TagValue,
}

/// The value of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TagValue {
    Text(u32),
    Number(i64, u32),
}

/// Texts, each once. Number 0 is `""`.
pub(crate) struct Strings {
    text: String,
    ends: Vec<usize>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Default for Strings {
    fn default() -> Self {
        Self {
            text: String::new(),
            ends: vec![0],
            index: HashTable::new(),
            // Seeded at random, since names come from untrusted programs.
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl Strings {
    /// Finds a text.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        if text.is_empty() {
            return Some(0);
        }
        let hash = self.hasher.hash_one(text);
        let is_same = |number: &u32| self.get(*number) == text;
        self.index.find(hash, is_same).copied()
    }

    /// Finds or adds a text.
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let hash = self.hasher.hash_one(text);
        if let Some(known) = self.index.find(hash, |number| self.get(*number) == text) {
            return *known;
        }
        self.text.push_str(text);
        self.ends.push(self.text.len());
        let number = self.ends.len() as u32 - 1;
        let Self {
            text,
            ends,
            index,
            hasher,
        } = self;
        index.insert_unique(hash, number, |number| {
            hasher.hash_one(slice(text, ends, *number))
        });
        number
    }

    pub(crate) fn get(&self, number: u32) -> &str {
        slice(&self.text, &self.ends, number)
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.text.capacity() + 8 * self.ends.capacity() + 5 * self.index.capacity()
    }
}

fn slice<'a>(text: &'a str, ends: &[usize], number: u32) -> &'a str {
    let start = match number {
        0 => 0,
        _ => ends[number as usize - 1],
    };
    &text[start..ends[number as usize]]
}

/// Entries of one kind, each once.
pub(crate) struct Interned<T> {
    entries: Vec<T>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<T: Hash + Eq> Interned<T> {
    /// Finds an entry.
    pub(crate) fn find(&self, entry: &T) -> Option<u32> {
        let hash = self.hasher.hash_one(entry);
        let is_same = |number: &u32| self.entries[*number as usize] == *entry;
        self.index.find(hash, is_same).copied()
    }

    /// Finds or adds an entry.
    pub(crate) fn intern(&mut self, entry: T) -> u32 {
        let Self {
            entries,
            index,
            hasher,
        } = self;
        let hash = hasher.hash_one(&entry);
        if let Some(known) = index.find(hash, |number| entries[*number as usize] == entry) {
            return *known;
        }
        entries.push(entry);
        let number = entries.len() as u32 - 1;
        index.insert_unique(hash, number, |number| {
            hasher.hash_one(&entries[*number as usize])
        });
        number
    }

    pub(crate) fn entries(&self) -> &[T] {
        &self.entries
    }

    #[cfg(test)]
    pub(crate) fn entry_mut(&mut self, number: u32) -> &mut T {
        &mut self.entries[number as usize]
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<T>() * self.entries.capacity() + 5 * self.index.capacity()
    }
}

/// Strings, functions, files and tag sets.
pub(crate) struct Names {
    pub(crate) strings: Strings,
    pub(crate) functions: Interned<Function>,
    /// The path, build id and file id of each file.
    files: Interned<[u32; 3]>,
    pub(crate) mappings: Vec<Mapping>,
    /// Number 0 is the empty set.
    pub(crate) tag_sets: Interned<Box<[Tag]>>,
}

impl Default for Names {
    fn default() -> Self {
        let mut tag_sets = Interned::default();
        tag_sets.intern(Box::default());
        Self {
            strings: Strings::default(),
            functions: Interned::default(),
            files: Interned::default(),
            mappings: Vec::new(),
            tag_sets,
        }
    }
}

impl Names {
    /// Finds a file by its path, build id and file id.
    pub(crate) fn find_mapping(&self, key: [u32; 3]) -> Option<u32> {
        self.files.find(&key)
    }

    /// Finds or adds a file, and adds what this mapping says of it.
    pub(crate) fn intern_mapping(&mut self, mapping: &Mapping) -> u32 {
        let key = [mapping.file, mapping.build_id, mapping.file_id];
        let number = self.files.intern(key);
        if number as usize == self.mappings.len() {
            self.mappings.push(*mapping);
        }
        let known = &mut self.mappings[number as usize];
        known.start = known.start.min(mapping.start);
        known.limit = known.limit.max(mapping.limit);
        known.offset = known.offset.min(mapping.offset);
        known.flags |= mapping.flags;
        number
    }

    /// Finds a file by its path, build id and file id.
    pub(crate) fn find_file(&self, texts: [&str; 3]) -> Option<u32> {
        let [file, build_id, file_id] = texts.map(|text| self.strings.find(text));
        self.files.find(&[file?, build_id?, file_id?])
    }

    /// The numbers of the files in the order of path, build id and file id.
    pub(crate) fn sorted_mappings(&self) -> Vec<u32> {
        let key = |number: &u32| {
            let mapping = &self.mappings[*number as usize];
            let texts = [mapping.file, mapping.build_id, mapping.file_id];
            texts.map(|text| self.strings.get(text))
        };
        let mut numbers: Vec<u32> = (0..self.mappings.len() as u32).collect();
        numbers.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        numbers
    }

    /// The numbers of the tag sets in the order of their contents; the empty set is the first.
    pub(crate) fn sorted_tag_sets(&self) -> Vec<u32> {
        let sets = self.tag_sets.entries();
        let mut numbers: Vec<u32> = (0..sets.len() as u32).collect();
        numbers.sort_unstable_by(|a, b| {
            let tags = |number: &u32| sets[*number as usize].iter();
            tags(a)
                .map(|tag| self.tag_key(tag))
                .cmp(tags(b).map(|tag| self.tag_key(tag)))
        });
        numbers
    }

    fn tag_key(&self, tag: &Tag) -> (&str, bool, i64, &str) {
        let key = self.strings.get(tag.key);
        match tag.value {
            TagValue::Text(text) => (key, false, 0, self.strings.get(text)),
            TagValue::Number(number, unit) => (key, true, number, self.strings.get(unit)),
        }
    }

    /// The order of lists of lines by their contents.
    pub(crate) fn compare_lines(&self, a: &[Line], b: &[Line]) -> Ordering {
        let lines = a.iter().zip(b).map(|(a, b)| {
            self.compare_functions(a.function, b.function)
                .then_with(|| (a.line, a.flags).cmp(&(b.line, b.flags)))
        });
        lines
            .fold(Ordering::Equal, Ordering::then)
            .then(a.len().cmp(&b.len()))
    }

    fn compare_functions(&self, a: u32, b: u32) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        let key = |number: u32| {
            let Function {
                name,
                system_name,
                file,
                start_line,
                language,
            } = self.functions.entries()[number as usize];
            let texts = [name, system_name, file].map(|text| self.strings.get(text));
            (texts, start_line, language)
        };
        key(a).cmp(&key(b))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        // A tag set has two tags or so.
        self.strings.heap_bytes()
            + self.functions.heap_bytes()
            + self.files.heap_bytes()
            + size_of::<Mapping>() * self.mappings.capacity()
            + self.tag_sets.heap_bytes()
            + 2 * size_of::<Tag>() * self.tag_sets.entries().len()
    }
}

/// The position of each number in a list of all numbers.
pub(crate) fn invert(order: &[u32]) -> Vec<u32> {
    let mut positions = vec![0; order.len()];
    for (position, number) in order.iter().enumerate() {
        positions[*number as usize] = position as u32;
    }
    positions
}

/// The order of locations: file, address, then contents. File numbers must be those of the sorted files.
pub(crate) fn compare_locations(
    names: &Names,
    (a, a_lines): (&Location, &[Line]),
    (b, b_lines): (&Location, &[Line]),
) -> Ordering {
    let place = |location: &Location| (location.mapping, location.address);
    let marks = |location: &Location| (location.flags, location.unnamed);
    place(a)
        .cmp(&place(b))
        .then_with(|| marks(a).cmp(&marks(b)))
        .then_with(|| names.compare_lines(a_lines, b_lines))
}

/// Locations, each once.
#[derive(Default)]
pub(crate) struct Locations {
    entries: Vec<Location>,
    lines: Vec<Line>,
    /// The last location at each address: one that has no name yet gets it later, and is not sent without it again.
    places: HashTable<u32>,
    /// The others, so that many at one address cannot make a look-up slow.
    others: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// The address of a location: mostly one location has it.
fn place(location: &Location) -> (u32, u64) {
    (location.mapping, location.address)
}

/// A location without its lines.
fn marks(location: &Location) -> (u32, u64, u32, u32) {
    let Location {
        mapping,
        address,
        flags,
        unnamed,
        lines: _,
    } = *location;
    (mapping, address, flags, unnamed)
}

impl Locations {
    /// The last location at the address of a location.
    pub(crate) fn last_at(&self, location: &Location) -> Option<u32> {
        let hash = self.hasher.hash_one(place(location));
        let is_there = |number: &u32| place(&self.entries[*number as usize]) == place(location);
        self.places.find(hash, is_there).copied()
    }

    /// Finds a location with its lines; the range of lines in `location` is ignored.
    pub(crate) fn find(&self, location: &Location, lines: &[Line]) -> Option<u32> {
        self.find_near(self.last_at(location)?, location, lines)
    }

    /// Finds a location that has the address of another.
    fn find_near(&self, last: u32, location: &Location, lines: &[Line]) -> Option<u32> {
        let is_same = |number: u32| {
            let (known, known_lines) = self.get(number);
            marks(known) == marks(location) && known_lines == lines
        };
        if is_same(last) {
            return Some(last);
        }
        let hash = self.hasher.hash_one((marks(location), lines));
        self.others.find(hash, |number| is_same(*number)).copied()
    }

    /// Finds or adds a location with its lines; the range of lines in `location` is ignored.
    pub(crate) fn intern(&mut self, location: Location, lines: &[Line]) -> u32 {
        let last = self.last_at(&location);
        if let Some(known) = last.and_then(|last| self.find_near(last, &location, lines)) {
            return known;
        }
        let hash = self.hasher.hash_one(place(&location));
        let number = self.push(location, lines);
        let Self {
            entries,
            lines,
            places,
            others,
            hasher,
        } = self;
        let Some(last) = last else {
            places.insert_unique(hash, number, |number| {
                hasher.hash_one(place(&entries[*number as usize]))
            });
            return number;
        };
        if let Some(place) = places.find_mut(hash, |number| *number == last) {
            *place = number;
        }
        let hash = |number: &u32| {
            let location = &entries[*number as usize];
            hasher.hash_one((marks(location), location.lines_in(lines)))
        };
        others.insert_unique(hash(&last), last, hash);
        number
    }

    fn push(&mut self, location: Location, lines: &[Line]) -> u32 {
        let start = self.lines.len() as u32;
        self.lines.extend_from_slice(lines);
        self.entries.push(Location {
            lines: start..self.lines.len() as u32,
            ..location
        });
        self.entries.len() as u32 - 1
    }

    /// A location and its lines.
    pub(crate) fn get(&self, number: u32) -> (&Location, &[Line]) {
        let location = &self.entries[number as usize];
        (location, location.lines_in(&self.lines))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Location>() * self.entries.capacity()
            + size_of::<Line>() * self.lines.capacity()
            + 5 * (self.places.capacity() + self.others.capacity())
    }
}

#[cfg(test)]
impl Locations {
    pub(crate) fn mark_all(&mut self, line_flags: u32, location_flags: u32) {
        self.lines
            .iter_mut()
            .for_each(|line| line.flags = line_flags);
        let locations = self.entries.iter_mut();
        locations.for_each(|location| location.flags = location_flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that several locations at one address are found again, and that the last one is found first.
    #[test]
    fn the_last_location_at_an_address_is_found_first() {
        let mut locations = Locations::default();
        let line = |line| Line {
            line,
            ..Line::default()
        };
        let unnamed = Location {
            address: 7,
            unnamed: 1,
            ..Location::default()
        };
        let named = Location {
            unnamed: 0,
            ..unnamed.clone()
        };
        let entries = [
            (&unnamed, vec![]),
            (&named, vec![line(1)]),
            (&named, vec![line(2)]),
        ];
        for _ in 0..2 {
            for (number, (location, lines)) in entries.iter().enumerate() {
                assert_eq!(locations.intern((*location).clone(), lines), number as u32);
                assert_eq!(locations.find(location, lines), Some(number as u32));
            }
            assert_eq!(locations.last_at(&unnamed), Some(2));
        }
        assert_eq!(locations.find(&named, &[line(3)]), None);
        assert_eq!(locations.len(), 3);
    }
}
