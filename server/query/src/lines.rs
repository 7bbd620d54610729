//! The lines of one function, and the CPU time at each.

use std::collections::BTreeMap;

use model::tables::LocationId;
use model::{Line, NamedTables, Tables};
use store::StoreError;

use super::frame_names::name_function;
use super::profiles::{NamedSums, Profiles};
use super::selector::Selector;
use super::series::{Usage, sum_by_stack};
use super::sets::PathSets;

/// A function, by all fields that are set. An empty text matches an empty text only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionFilter {
    /// Its name.
    pub name: String,
    /// The file that it is in; `None` matches any.
    pub binary: Option<String>,
    /// Its source file; `None` matches any.
    pub file: Option<String>,
}

/// Samples at a line of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineUsage {
    /// The function itself was running at the line.
    pub own: Usage,
    /// The function or a callee was running; a stack with the line twice counts once.
    pub total: Usage,
}

/// The lines of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineReport {
    /// All samples of the selection.
    pub all: Usage,
    /// Samples of the function.
    pub usage: LineUsage,
    /// The first line of the function, 0 if it is not known.
    pub start_line: i64,
    /// By source file and line, sorted; line 0 stands for an unknown line.
    pub lines: Vec<(String, i64, LineUsage)>,
}

/// Sums the samples of a function by line.
///
/// # Errors
/// The store failed.
pub fn report_lines(
    profiles: Profiles<'_>,
    selector: &Selector,
    function: &FunctionFilter,
) -> Result<LineReport, StoreError> {
    let series = selector.find_series(profiles.snapshot())?;
    let mut sums = Sums::new(function);
    profiles.sum_stacks(&series, &mut |part| sums.add_part(part))?;
    Ok(sums.finish())
}

struct Sums<'a> {
    function: &'a FunctionFilter,
    start_line: i64,
    /// Files and lines, numbered in the order of their first use.
    places: Vec<(String, i64)>,
    place_index: BTreeMap<(String, i64), u32>,
    own: Vec<Usage>,
    through: PathSets,
    all: Usage,
}

/// The lines of a location that are in the function, and whether the innermost of them is running.
#[derive(Clone, Default)]
struct LocationLines {
    places: Vec<u32>,
    is_innermost: bool,
}

/// For each function of the location's tables and of joined lines, whether it matches, apart from the file that it is in.
struct WantedFunctions {
    own: Vec<bool>,
    joined: Vec<bool>,
}

impl WantedFunctions {
    fn is_empty(&self) -> bool {
        !self.own.contains(&true) && !self.joined.contains(&true)
    }
}

impl<'a> Sums<'a> {
    fn new(function: &'a FunctionFilter) -> Self {
        Self {
            function,
            start_line: 0,
            places: Vec::new(),
            place_index: BTreeMap::new(),
            own: Vec::new(),
            through: PathSets::default(),
            all: Usage::default(),
        }
    }

    fn add_part(&mut self, part: &NamedSums<'_>) {
        let tables = part.tables;
        let is_wanted = WantedFunctions {
            own: self.find_functions(&tables),
            joined: tables
                .joined()
                .map_or_else(Vec::new, |joined| self.find_functions(joined)),
        };
        let by_stack = sum_by_stack(part);
        by_stack.iter().for_each(|usage| self.all.add(*usage));
        if is_wanted.is_empty() {
            return;
        }
        let places: Vec<LocationLines> = (0..tables.locations.len() as u32)
            .map(|id| self.find_places(tables, LocationId(id), &is_wanted))
            .collect();
        for (node, usage) in tables.stacks.iter().zip(&by_stack).skip(1) {
            let LocationLines {
                places,
                is_innermost,
            } = &places[node.location.position()];
            if *is_innermost {
                self.own[places[0] as usize].add(*usage);
            }
        }
        let keys_of = |location: LocationId| places[location.position()].places.iter().copied();
        self.through.add_stacks(&tables, &by_stack, keys_of);
    }

    /// For each function of the tables, whether it matches, apart from the file that it is in.
    fn find_functions(&mut self, tables: &Tables) -> Vec<bool> {
        let FunctionFilter { name, file, .. } = self.function;
        let wanted = tables.functions.iter().map(|function| {
            let is_wanted = name_function(tables, function) == name
                && file
                    .as_ref()
                    .is_none_or(|file| tables.string(function.file) == file);
            let line = function.start_line;
            if is_wanted && line > 0 && (self.start_line == 0 || line < self.start_line) {
                self.start_line = line;
            }
            is_wanted
        });
        wanted.collect()
    }

    fn find_places(
        &mut self,
        tables: NamedTables<'_>,
        id: LocationId,
        is_wanted: &WantedFunctions,
    ) -> LocationLines {
        let lines = tables.lines_of(id);
        let is_wanted = if lines.is_joined {
            &is_wanted.joined
        } else {
            &is_wanted.own
        };
        let is_wanted = |line: &Line| is_wanted[line.function.position()];
        let mut found = LocationLines::default();
        if !lines.lines.iter().any(is_wanted) || !self.is_in_binary(&tables, id) {
            return found;
        }
        for (depth, line) in lines.lines.iter().enumerate() {
            if !is_wanted(line) {
                continue;
            }
            found.is_innermost |= depth == 0;
            let file = lines.tables.string(lines.function(line).file);
            let place = (file.to_owned(), line.line);
            let place = self.intern_place(place);
            found.places.push(place);
        }
        found
    }

    fn is_in_binary(&self, tables: &Tables, id: LocationId) -> bool {
        let mapping = tables.locations[id.position()].mapping;
        let path = mapping.map_or("", |mapping| {
            tables.string(tables.mappings[mapping.position()].file)
        });
        self.function
            .binary
            .as_ref()
            .is_none_or(|binary| binary == path)
    }

    fn intern_place(&mut self, place: (String, i64)) -> u32 {
        if let Some(known) = self.place_index.get(&place) {
            return *known;
        }
        let number = self.places.len() as u32;
        self.places.push(place.clone());
        self.own.push(Usage::default());
        self.place_index.insert(place, number);
        number
    }

    fn finish(self) -> LineReport {
        let mut usage = LineUsage::default();
        self.own.iter().for_each(|own| usage.own.add(*own));
        let mut totals = vec![Usage::default(); self.places.len()];
        for (places, through) in self.through.sums() {
            usage.total.add(through);
            places.for_each(|place| totals[place as usize].add(through));
        }
        let lines = self.place_index.into_iter().map(|((file, line), number)| {
            let (own, total) = (self.own[number as usize], totals[number as usize]);
            (file, line, LineUsage { own, total })
        });
        LineReport {
            all: self.all,
            usage,
            start_line: self.start_line,
            lines: lines
                .filter(|(_, _, usage)| *usage != LineUsage::default())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::TestParts;

    /// The report on windows in the test language, where the line of a frame is its name's number: `work_7` is line 7
    /// of `work`.
    fn report(text: &str, function: &FunctionFilter) -> LineReport {
        // The same windows in two parts: sums are carried over.
        let mut parts = TestParts::new(&[text, text]);
        for window in parts.windows_mut() {
            number_lines(&mut window.tables);
        }
        let mut sums = Sums::new(function);
        parts.for_each(|part| sums.add_part(part));
        sums.finish()
    }

    fn number_lines(tables: &mut Tables) {
        let mut lines = Vec::new();
        for number in 0..tables.functions.len() {
            let name = tables.string(tables.functions[number].name).to_owned();
            let (name, line) = name.split_once('_').unwrap();
            lines.push(line.parse().unwrap());
            tables.functions[number].name = tables.push_string(name);
        }
        for line in &mut tables.lines {
            line.line = lines[line.function.position()];
        }
    }

    fn draw(report: &LineReport) -> Vec<String> {
        let line = |(file, line, usage): &(String, i64, LineUsage)| {
            let (own, total) = (usage.own.samples, usage.total.samples);
            format!("{file}:{line} {own} {total}")
        };
        report.lines.iter().map(line).collect()
    }

    fn function(name: &str, binary: Option<&str>, file: Option<&str>) -> FunctionFilter {
        FunctionFilter {
            name: name.to_owned(),
            binary: binary.map(str::to_owned),
            file: file.map(str::to_owned),
        }
    }

    const TEXT: &str = "
        comm=a | main_3 work_7 | 1
        comm=a | main_3 work_8 | 2
        comm=a | main_3 work_8 leaf_1 | 4
        comm=a | main_3 work_8 work_7 | 8
        comm=a | main_4 outer_5>work_9 | 16
        comm=a | main_4 work_9>leaf_2 | 32
        comm=a | main_4 work_7@/lib/b.so | 64
        comm=a | main_4 | 128
    ";

    /// Check that a recursive function counts once a line, and that inlined calls have the line that was running.
    #[test]
    fn a_functions_time_is_summed_by_line() {
        let report = report(TEXT, &function("work", Some("/bin/app"), Some("app.c")));
        assert_eq!(
            draw(&report),
            ["app.c:7 18 18", "app.c:8 4 28", "app.c:9 32 96"]
        );
        let LineUsage { own, total } = report.usage;
        assert_eq!(
            (own.samples, total.samples, report.all.samples),
            (54, 126, 510)
        );
        assert_eq!(report.start_line, 3);
    }

    #[test]
    fn functions_of_other_files_are_others() {
        let draw = |binary, file| draw(&report(TEXT, &function("work", binary, file)));
        assert_eq!(draw(Some("/lib/b.so"), None), ["app.c:7 128 128"]);
        assert_eq!(
            draw(None, None),
            ["app.c:7 146 146", "app.c:8 4 28", "app.c:9 32 96"]
        );
        assert!(draw(None, Some("other.c")).is_empty());
        assert!(draw(Some(""), None).is_empty());
    }
}
