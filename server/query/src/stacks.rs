//! Completeness of user stacks: the complete ones, where and why the others ended, and the results of the second
//! unwinder.
//!
//! Parts are added up by numbers: a tag set is read once, the outermost frame and the files of a stack are found once
//! for all of its samples, and only frames where a walk stopped are named.

use std::collections::{BTreeMap, HashMap};

use model::outcome::{CHECK_TAG, COMPLETE, Check, KERNEL_ONLY, OUTCOME_TAG, is_complete};
use model::tables::{LocationId, StringId, TagSetId};
use model::{Dictionary, FunctionNames, NamedTables, SeriesTable, Tables};
use store::StoreError;

use super::frame_names::{describe_unnamed, name_function};
use super::profiles::{NamedSums, Profiles};
use super::selector::Selector;
use super::series::Usage;
use super::sets::PathSets;

/// Label by which comparisons are grouped.
const PROGRAM_LABEL: &str = "exe";

/// The frame where walks stopped: the user frame nearest to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Name of the function; empty, as the file, for stacks without a user frame.
    pub name: String,
    /// The file.
    pub binary: String,
    /// Why the walk stopped.
    pub outcome: String,
    /// The samples.
    pub usage: Usage,
}

/// A file in which walks stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryStops {
    /// The file.
    pub binary: String,
    /// Samples whose walk stopped in it.
    pub stopped: Usage,
    /// All samples with a user frame in it, each counted once: the base of the stopped ones' share. The file `""`
    /// also has the samples without a user frame.
    pub through: Usage,
    /// Stopped samples by outcome, most CPU first.
    pub outcomes: Vec<(String, Usage)>,
}

/// A program with stacks that the second unwinder walked too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramChecks {
    /// The value of the label `exe`, `""` for series without it.
    pub exe: String,
    /// Samples with equal results.
    pub agreed: Usage,
    /// Samples with different results.
    pub differed: Usage,
}

/// Report on the stacks of a selection. Lists are complete, most CPU first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackReport {
    /// All samples.
    pub total: Usage,
    /// Samples with a complete stack, or without a user stack.
    pub complete: Usage,
    /// Samples without a user stack.
    pub kernel_only: Usage,
    /// The samples by outcome; they add up to `total`.
    pub outcomes: Vec<(String, Usage)>,
    /// The incomplete ones by frame and outcome; they add up to `total` without `complete`.
    pub stops: Vec<Stop>,
    /// The same by file.
    pub binaries: Vec<BinaryStops>,
    /// Comparisons by program, most first.
    pub checks: Vec<ProgramChecks>,
}

/// Reports on a selection's stacks.
///
/// # Errors
/// The store failed.
pub fn report_stacks(
    profiles: Profiles<'_>,
    selector: &Selector,
) -> Result<StackReport, StoreError> {
    let series = selector.find_series(profiles.snapshot())?;
    let (program_of, programs) = find_programs(&series);
    let mut sums = Sums::new(programs);
    let names = FunctionNames::Shown;
    profiles.sum_groups(&series, &program_of, names, &mut |part| sums.add_part(part))?;
    Ok(sums.finish())
}

/// A decoded tag set.
#[derive(Clone, Copy)]
struct Tagged {
    /// Number of the outcome.
    outcome: u32,
    is_complete: bool,
    check: Option<Check>,
}

#[derive(Clone, Copy, Default)]
struct CheckSum {
    agreed: Usage,
    differed: Usage,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct StopKey {
    name: StringId,
    binary: StringId,
    outcome: u32,
}

/// Sums over the parts so far. Strings and outcomes have numbers that are valid for all parts.
struct Sums {
    strings: Dictionary,
    outcome_names: Vec<String>,
    by_outcome: Vec<Usage>,
    complete: Usage,
    kernel_only: Usage,
    stops: HashMap<StopKey, Usage>,
    /// Incomplete samples without a user frame.
    frameless: Usage,
    /// The sets of files of stacks.
    files: PathSets,
    /// The programs: the groups of sums.
    programs: Vec<String>,
    checks: Vec<CheckSum>,
}

/// The program of each series, by number, and the programs.
fn find_programs(table: &SeriesTable) -> (Vec<u32>, Vec<String>) {
    let mut programs: Vec<String> = Vec::new();
    let mut known: HashMap<&str, u32> = HashMap::new();
    let mut program_of = Vec::with_capacity(table.len());
    for labels in table.iter() {
        let exe = labels.value(PROGRAM_LABEL);
        program_of.push(*known.entry(exe).or_insert_with(|| {
            programs.push(exe.to_owned());
            programs.len() as u32 - 1
        }));
    }
    (program_of, programs)
}

impl Sums {
    fn new(programs: Vec<String>) -> Self {
        // Outcome 0 is that of samples without one.
        Self {
            strings: Dictionary::default(),
            outcome_names: vec![String::new()],
            by_outcome: vec![Usage::default()],
            complete: Usage::default(),
            kernel_only: Usage::default(),
            stops: HashMap::new(),
            frameless: Usage::default(),
            files: PathSets::default(),
            checks: vec![CheckSum::default(); programs.len()],
            programs,
        }
    }

    fn add_part(&mut self, part: &NamedSums<'_>) {
        let tables = part.tables;
        let tagged: Vec<Tagged> = (0..tables.tag_set_count() as u32)
            .map(|set| self.read_tags(&tables, TagSetId(set)))
            .collect();
        let outermost = tables.outermost_user_frames();
        let mut by_stack = vec![Usage::default(); tables.stacks.len()];
        let mut stops: HashMap<(Option<LocationId>, u32), Usage> = HashMap::new();
        for sum in part.sums {
            let usage = Usage::from(sum);
            let Tagged {
                outcome,
                is_complete,
                check,
            } = tagged[sum.tags.position()];
            let stopped_at = outermost[sum.stack.position()];
            by_stack[sum.stack.position()].add(usage);
            if outcome == 0 && stopped_at.is_none() {
                self.kernel_only.add(usage);
            } else {
                self.by_outcome[outcome as usize].add(usage);
            }
            if is_complete {
                self.complete.add(usage);
            } else {
                stops.entry((stopped_at, outcome)).or_default().add(usage);
            }
            let checks = &mut self.checks[sum.group as usize];
            match check {
                Some(Check::Agreed) => checks.agreed.add(usage),
                Some(Check::Differed) => checks.differed.add(usage),
                None => {}
            }
        }
        self.add_stops(tables, &stops);
        self.add_files(&tables, &by_stack);
    }

    fn read_tags(&mut self, tables: &Tables, set: TagSetId) -> Tagged {
        let name = tables.tag_text(set, OUTCOME_TAG);
        // There are about twenty: a linear search is quicker than hashing.
        let known = self.outcome_names.iter().position(|known| known == name);
        let outcome = known.unwrap_or_else(|| {
            self.outcome_names.push(name.to_owned());
            self.by_outcome.push(Usage::default());
            self.outcome_names.len() - 1
        });
        Tagged {
            outcome: outcome as u32,
            is_complete: is_complete(name),
            check: Check::from_tag(tables.tag_text(set, CHECK_TAG)),
        }
    }

    fn add_stops(
        &mut self,
        tables: NamedTables<'_>,
        stops: &HashMap<(Option<LocationId>, u32), Usage>,
    ) {
        for ((location, outcome), usage) in stops {
            let (name, binary) = match location {
                Some(location) => self.name_outermost(tables, *location),
                None => {
                    self.frameless.add(*usage);
                    (StringId(0), StringId(0))
                }
            };
            let key = StopKey {
                name,
                binary,
                outcome: *outcome,
            };
            self.stops.entry(key).or_default().add(*usage);
        }
    }

    /// The outermost function of the location, and the file.
    fn name_outermost(&mut self, tables: NamedTables<'_>, id: LocationId) -> (StringId, StringId) {
        let location = tables.locations[id.position()];
        let path = file_of(&tables, id);
        let lines = tables.lines_of(id);
        let name = lines
            .lines
            .last()
            .map_or("", |line| name_function(lines.tables, lines.function(line)));
        let name = match name {
            "" => self
                .strings
                .intern_string(&describe_unnamed(path, &location)),
            name => self.strings.intern_string(name),
        };
        (name, self.strings.intern_string(path))
    }

    /// Adds the samples of each stack to its set of files.
    fn add_files(&mut self, tables: &Tables, by_stack: &[Usage]) {
        let in_kernel = tables.kernel_locations();
        let files: Vec<StringId> = tables
            .mappings
            .iter()
            .map(|mapping| self.strings.intern_string(tables.string(mapping.file)))
            .collect();
        let file_of = |location: LocationId| {
            let mapping = tables.locations[location.position()].mapping;
            let is_user = !in_kernel[location.position()];
            is_user.then(|| mapping.map_or(0, |mapping| files[mapping.position()].0))
        };
        self.files.add_stacks(tables, by_stack, file_of);
    }

    fn finish(self) -> StackReport {
        let mut through: HashMap<StringId, Usage> = HashMap::new();
        through.insert(StringId(0), self.frameless);
        for (files, usage) in self.files.sums() {
            for file in files {
                through.entry(StringId(file)).or_default().add(usage);
            }
        }
        let text = |id: StringId| self.strings.tables().string(id).to_owned();
        let mut by_binary: HashMap<StringId, BTreeMap<u32, Usage>> = HashMap::new();
        let mut stops = Vec::with_capacity(self.stops.len());
        for (key, usage) in &self.stops {
            let outcomes = by_binary.entry(key.binary).or_default();
            outcomes.entry(key.outcome).or_default().add(*usage);
            stops.push(Stop {
                name: text(key.name),
                binary: text(key.binary),
                outcome: self.outcome_names[key.outcome as usize].clone(),
                usage: *usage,
            });
        }
        stops.sort_by(|a, b| {
            compare_usage(a.usage, b.usage).then_with(|| {
                (&a.binary, &a.name, &a.outcome).cmp(&(&b.binary, &b.name, &b.outcome))
            })
        });
        let binary = |(id, outcomes): (StringId, BTreeMap<u32, Usage>)| BinaryStops {
            binary: text(id),
            stopped: outcomes.values().copied().sum(),
            through: through.get(&id).copied().unwrap_or_default(),
            outcomes: sort_named(
                outcomes
                    .into_iter()
                    .map(|(outcome, usage)| (self.outcome_names[outcome as usize].clone(), usage))
                    .collect(),
            ),
        };
        let mut binaries: Vec<_> = by_binary.into_iter().map(binary).collect();
        binaries.sort_by(|a, b| {
            compare_usage(a.stopped, b.stopped).then_with(|| a.binary.cmp(&b.binary))
        });
        let mut outcomes: Vec<(String, Usage)> = self
            .outcome_names
            .into_iter()
            .zip(self.by_outcome)
            .map(|(name, usage)| {
                let name = if name.is_empty() {
                    COMPLETE.to_owned()
                } else {
                    name
                };
                (name, usage)
            })
            .collect();
        outcomes.push((KERNEL_ONLY.to_owned(), self.kernel_only));
        outcomes.retain(|(_, usage)| *usage != Usage::default());
        StackReport {
            total: outcomes.iter().map(|(_, usage)| *usage).sum(),
            complete: self.complete,
            kernel_only: self.kernel_only,
            outcomes: sort_named(outcomes),
            stops,
            binaries,
            checks: list_checks(self.programs, self.checks),
        }
    }
}

fn list_checks(programs: Vec<String>, sums: Vec<CheckSum>) -> Vec<ProgramChecks> {
    let mut checks: Vec<ProgramChecks> = programs
        .into_iter()
        .zip(sums)
        .map(|(exe, CheckSum { agreed, differed })| ProgramChecks {
            exe,
            agreed,
            differed,
        })
        .filter(|program| program.agreed.samples + program.differed.samples > 0)
        .collect();
    checks.sort_by(|a, b| {
        let count = |program: &ProgramChecks| program.agreed.samples + program.differed.samples;
        count(b).cmp(&count(a)).then_with(|| a.exe.cmp(&b.exe))
    });
    checks
}

fn file_of(tables: &Tables, id: LocationId) -> &str {
    tables.locations[id.position()]
        .mapping
        .map_or("", |mapping| {
            tables.string(tables.mappings[mapping.position()].file)
        })
}

/// Most CPU first.
pub fn compare_usage(a: Usage, b: Usage) -> std::cmp::Ordering {
    (b.ns, b.samples).cmp(&(a.ns, a.samples))
}

fn sort_named(mut list: Vec<(String, Usage)>) -> Vec<(String, Usage)> {
    list.sort_by(|(a_name, a), (b_name, b)| compare_usage(*a, *b).then_with(|| a_name.cmp(b_name)));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::TestParts;

    /// The report on windows in the test language, each text a part, without a store.
    fn report(texts: &[&str]) -> StackReport {
        let parts = TestParts::new(texts);
        let table = parts.table();
        let (program_of, programs) = find_programs(&table);
        let mut sums = Sums::new(programs);
        parts.for_each_in(&program_of, |part| sums.add_part(part));
        sums.finish()
    }

    fn named(list: &[(String, Usage)]) -> Vec<String> {
        let entry = |(name, usage): &(String, Usage)| format!("{name} {}", usage.samples);
        list.iter().map(entry).collect()
    }

    fn stops(report: &StackReport) -> Vec<String> {
        let stop = |stop: &Stop| {
            let Stop {
                name,
                binary,
                outcome,
                usage,
            } = stop;
            format!("{binary} {name} {outcome} {}", usage.samples)
        };
        report.stops.iter().map(stop).collect()
    }

    #[test]
    fn each_sample_has_one_outcome() {
        let report = report(&[
            "comm=a | main work | 10 | thread=x
             comm=a | main work read@[kernel] | 20
             comm=a | kthread@[kernel] | 3
             comm=a | | 4
             comm=a | work | 5 | outcome=no_rows
             comm=a | main | 6 | outcome=copied",
            "comm=a | main | 7 | outcome=middle_left_out
             comm=b | main | 8 | outcome=copied
             comm=b | main | 1 | outcome=of_a_newer_collector",
        ]);
        assert_eq!(
            named(&report.outcomes),
            [
                "complete 30",
                "copied 14",
                "kernel_only 7",
                "middle_left_out 7",
                "no_rows 5",
                "of_a_newer_collector 1"
            ]
        );
        assert_eq!(report.total.samples, 64);
        assert_eq!(report.complete.samples, 58);
        assert_eq!(report.kernel_only.samples, 7);
        let stopped: Usage = report.stops.iter().map(|stop| stop.usage).sum();
        assert_eq!(stopped.samples, 6);
    }

    #[test]
    fn walks_stop_at_the_user_frame_nearest_to_the_root() {
        let report = report(&[
            "comm=a | outer>inner leaf read@[kernel] | 1 | outcome=bad_frame
             comm=a | outer other@/lib/b.so | 2 | outcome=bad_frame
             comm=a | outer | 4 | outcome=no_rows
             comm=a | 0x1f@/lib/b.so | 8 | outcome=no_rows
             comm=a | read@[kernel] | 16 | outcome=process_unknown",
            "comm=b | outer leaf | 32 | thread=x outcome=bad_frame
             comm=b | outer leaf | 64",
        ]);
        assert_eq!(
            stops(&report),
            [
                "/bin/app outer bad_frame 35",
                "  process_unknown 16",
                "/lib/b.so b.so+0x1f no_rows 8",
                "/bin/app outer no_rows 4",
            ]
        );
    }

    #[test]
    fn a_file_has_the_share_of_stacks_with_its_frames() {
        let report = report(&[
            "comm=a | main work@/lib/b.so main work@/lib/b.so read@[kernel] | 10
             comm=a | main | 20
             comm=a | work@/lib/b.so call | 1 | outcome=no_rows
             comm=a | work@/lib/b.so | 2 | outcome=bad_frame
             comm=a | main@/bin/other | 99
             comm=a | 0x1f main | 6
             comm=a | read@[kernel] | 1 | outcome=process_unknown",
            "comm=a | start@/lib/c.so work@/lib/b.so | 5
             comm=a | main | 4 | outcome=no_rows",
        ]);
        let line = |binary: &BinaryStops| {
            let (stopped, through) = (binary.stopped.samples, binary.through.samples);
            let why = named(&binary.outcomes).join(", ");
            format!("{} {stopped} of {through}: {why}", binary.binary)
        };
        assert_eq!(
            report.binaries.iter().map(line).collect::<Vec<_>>(),
            [
                "/bin/app 4 of 41: no_rows 4",
                "/lib/b.so 3 of 18: bad_frame 2, no_rows 1",
                " 1 of 7: process_unknown 1"
            ]
        );
    }

    #[test]
    fn comparisons_are_summed_by_program() {
        let report = report(&[
            "comm=a,exe=/bin/a | main | 3 | check=agreed
             comm=a,exe=/bin/a | main | 2 | check=differed outcome=no_rows
             comm=a,exe=/bin/a | main | 50
             comm=b | main | 7 | check=agreed
             comm=c,exe=/bin/c | main | 9",
            "comm=d,exe=/bin/a | main | 1 | check=agreed
             comm=a,exe=/bin/a | main | 1 | check=unheard_of",
        ]);
        let line = |program: &ProgramChecks| {
            let (agreed, differed) = (program.agreed.samples, program.differed.samples);
            format!("{:?} {agreed} {differed}", program.exe)
        };
        assert_eq!(
            report.checks.iter().map(line).collect::<Vec<_>>(),
            [r#""" 7 0"#, r#""/bin/a" 4 2"#]
        );
    }

    #[test]
    fn nothing_selected_is_an_empty_report() {
        let report = report(&[]);
        assert_eq!(report.total, Usage::default());
        assert_eq!((report.outcomes.len(), report.stops.len()), (0, 0));
    }
}
