//! Which builds of its program a series ran, and when: the files with the program's path in its stacks.

use std::collections::{HashMap, HashSet};

use crate::chunk::dictionary::{LocationChunk, decode_mappings, decode_strings};
use crate::chunk::rows::SeriesRow;
use crate::chunk::windows::WindowInfo;
use crate::dictionary::{Interned, Mapping};
use crate::error::Damage;
use crate::read::callees::CalleeCache;
use crate::read::cursor::RowCursor;
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;

/// A series, and the path of its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Number of the series.
    pub series: u32,
    /// The path.
    pub path: String,
}

/// A file with the path of a series' program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFile {
    /// Position of the program in the list that was asked for.
    pub program: usize,
    /// Build id of the file.
    pub build_id: String,
    /// Start of the first message of the first window that has it, in milliseconds since the Unix epoch.
    pub first_ms: i64,
    /// Start of the last message of the last window that has it.
    pub last_ms: i64,
}

/// The files of programs, by the numbers of mappings, and the sets of them that stacks have. A stack mostly has one, so that there are
/// few sets.
pub(crate) struct FileSets {
    /// Path and build id; none of other files.
    files: Vec<Option<[String; 2]>>,
    sets: Interned<Box<[u32]>>,
}

/// The set of no files.
const EMPTY: u32 = 0;

/// Files of a set. A stack of 4,608 frames that are each in another file would have sets with ten million files.
const SET_FILES_MAX: usize = 8;

impl FileSets {
    /// With all mappings of a source, in their order: path and build id.
    pub(crate) fn new<'a>(
        programs: &[Program],
        mappings: impl Iterator<Item = [&'a str; 2]>,
    ) -> Self {
        let paths = programs.iter().map(|program| program.path.as_str());
        let paths: HashSet<&str> = paths.collect();
        let file = |[path, build_id]: [&str; 2]| {
            let is_wanted = !build_id.is_empty() && paths.contains(path);
            is_wanted.then(|| [path.to_owned(), build_id.to_owned()])
        };
        let mut sets = Interned::default();
        sets.intern(Box::default());
        Self {
            files: mappings.map(file).collect(),
            sets,
        }
    }

    /// The set of a stack whose caller has `set`, and whose last location is in a mapping: its number plus one, 0 for none.
    pub(crate) fn add(&mut self, set: u32, mapping: u32) -> u32 {
        let Some(file) = mapping.checked_sub(1) else {
            return set;
        };
        let own = &self.sets.entries()[set as usize];
        let is_kept = self.files[file as usize].is_some() && own.len() < SET_FILES_MAX;
        if !is_kept || own.contains(&file) {
            return set;
        }
        let mut files = own.to_vec();
        files.push(file);
        files.sort_unstable();
        self.sets.intern(files.into())
    }

    /// The files of a program, the one at `position`, that the sets of its series have, with the times of these.
    pub(crate) fn resolve(
        &self,
        position: usize,
        program: &Program,
        times: SetTimes,
    ) -> Vec<ProgramFile> {
        let mut found: HashMap<&str, (i64, i64)> = HashMap::new();
        for (set, times) in times.into_map() {
            for file in &self.sets.entries()[set as usize] {
                if let Some([path, build_id]) = &self.files[*file as usize]
                    && *path == program.path
                {
                    let known = found.entry(build_id).or_insert(times);
                    *known = join(*known, times);
                }
            }
        }
        let file = |(build_id, (first_ms, last_ms)): (&str, (i64, i64))| ProgramFile {
            program: position,
            build_id: build_id.to_owned(),
            first_ms,
            last_ms,
        };
        found.into_iter().map(file).collect()
    }
}

/// First and last time of each set of files in the rows of a series.
#[derive(Default)]
pub(crate) struct SetTimes {
    times: HashMap<u32, (i64, i64)>,
    /// The set of the last row, whose times are not in the map yet: rows are sorted by stack, and mostly have the set of the row before.
    last: Option<(u32, (i64, i64))>,
}

impl SetTimes {
    pub(crate) fn add(&mut self, set: u32, times: (i64, i64)) {
        match &mut self.last {
            Some((last, known)) if *last == set => *known = join(*known, times),
            last => {
                let before = last.replace((set, times));
                self.keep(before);
            }
        }
    }

    fn keep(&mut self, row: Option<(u32, (i64, i64))>) {
        if let Some((set, times)) = row.filter(|(set, _)| *set != EMPTY) {
            let known = self.times.entry(set).or_insert(times);
            *known = join(*known, times);
        }
    }

    fn into_map(mut self) -> HashMap<u32, (i64, i64)> {
        let last = self.last.take();
        self.keep(last);
        self.times
    }
}

fn join(a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// The starts of the first and the last message of a window.
pub(crate) fn message_times(window: &WindowInfo) -> (i64, i64) {
    (window.start_ms(), window.last_start_ms())
}

impl<R: ReadAt> Segment<R> {
    /// The files of programs, sorted by series as the programs are. In memory are four bytes for each location and each stack.
    ///
    /// # Errors
    /// Something that they need is damaged.
    pub fn read_program_files(&self, programs: &[Program]) -> Result<Vec<ProgramFile>, Damage> {
        if programs.is_empty() {
            return Ok(Vec::new());
        }
        let mut sets = self.read_file_sets(programs)?;
        let stack_sets = self.read_stack_sets(&mut sets)?;
        let windows = self.read_windows()?;
        let times: Vec<_> = windows.iter().map(message_times).collect();
        let mut cursor = RowCursor::new(self);
        let mut found = Vec::new();
        for (position, program) in programs.iter().enumerate() {
            let mut set_times = SetTimes::default();
            cursor.read_series(program.series, |row: SeriesRow| {
                set_times.add(stack_sets[row.stack as usize], times[row.window as usize]);
            })?;
            found.extend(sets.resolve(position, program, set_times));
        }
        Ok(found)
    }

    fn read_file_sets(&self, programs: &[Program]) -> Result<FileSets, Damage> {
        let limits = self.dictionary_limits();
        let mut scratch = Scratch::default();
        let mut mappings: Vec<Mapping> = Vec::new();
        for number in 0..self.chunks(Section::Mappings).len() {
            let read = self.read(
                Section::Mappings,
                number,
                &mut scratch,
                |bytes, chunk, unpacker| {
                    decode_mappings(bytes, chunk.items as usize, limits, unpacker)
                },
            )?;
            mappings.extend(read);
        }
        let numbers = mappings.iter();
        let numbers = numbers.flat_map(|mapping| [mapping.file, mapping.build_id]);
        let texts = self.read_some_strings(numbers, &mut scratch)?;
        let text = |number: u32| texts[&number].as_str();
        let mappings = mappings.iter();
        let mappings = mappings.map(|mapping| [text(mapping.file), text(mapping.build_id)]);
        Ok(FileSets::new(programs, mappings))
    }

    fn read_some_strings(
        &self,
        numbers: impl Iterator<Item = u32>,
        scratch: &mut Scratch,
    ) -> Result<HashMap<u32, String>, Damage> {
        let mut wanted: Vec<u32> = numbers.collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut texts = HashMap::new();
        for (number, chunk) in self.chunks(Section::Strings).iter().enumerate() {
            let end = chunk.first + chunk.items;
            let start = wanted.partition_point(|number| *number < chunk.first);
            let own = wanted[start..].iter().take_while(|number| **number < end);
            if own.clone().next().is_none() {
                continue;
            }
            let read = self.read(
                Section::Strings,
                number,
                scratch,
                |bytes, chunk, unpacker| decode_strings(bytes, chunk.items as usize, unpacker),
            )?;
            texts.extend(own.map(|number| {
                let text = read.get((number - chunk.first) as usize);
                (*number, text.to_owned())
            }));
        }
        Ok(texts)
    }

    /// The set of files of each stack.
    fn read_stack_sets(&self, sets: &mut FileSets) -> Result<Vec<u32>, Damage> {
        let mut scratch = Scratch::default();
        let mappings = self.read_location_mappings(&mut scratch)?;
        let mut callees = CalleeCache::new(self);
        let mut stack_sets = vec![EMPTY; self.stack_count()];
        // Of the path to the last node.
        let mut path: Vec<u32> = Vec::new();
        for number in 0..self.chunks(Section::Tree).len() {
            let mut reader = self.open_tree(number, &mut scratch)?;
            while let Some(node) = reader.next(&mut callees)? {
                path.truncate(node.depth as usize - 1);
                let caller = path.last().copied().unwrap_or(EMPTY);
                let set = sets.add(caller, mappings[node.location as usize]);
                path.push(set);
                if let Some(stack) = node.stack {
                    stack_sets[stack as usize] = set;
                }
            }
        }
        Ok(stack_sets)
    }

    /// The mapping of each location: its number plus one, 0 for none.
    fn read_location_mappings(&self, scratch: &mut Scratch) -> Result<Vec<u32>, Damage> {
        let limits = self.dictionary_limits();
        let mut mappings = Vec::with_capacity(self.count(Section::Locations));
        for number in 0..self.chunks(Section::Locations).len() {
            let chunk = self.read(
                Section::Locations,
                number,
                scratch,
                |bytes, chunk, unpacker| {
                    LocationChunk::decode(bytes, chunk.items as usize, limits, unpacker)
                },
            )?;
            mappings.extend(chunk.locations.iter().map(|location| location.mapping));
        }
        Ok(mappings)
    }
}
