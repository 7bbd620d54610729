//! Frames without a name: their files, their CPU time, and the reasons.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::tables::{LocationId, StringId};
use model::{Dictionary, NamedTables, UnnamedReason, WhyNot};
use store::StoreError;

use super::frame_names::name_function;
use super::profiles::{NamedSums, Profiles};
use super::selector::Selector;
use super::series::{Usage, sum_by_stack};
use super::sets::PathSets;
use super::stacks::compare_usage;

/// Samples that have a frame without a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnknownUsage {
    /// The innermost frame has no name.
    pub own: Usage,
    /// A frame anywhere in the stack has no name; each sample counts once.
    pub total: Usage,
}

/// A file with frames that have no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBinary {
    /// The file; empty where there is none.
    pub binary: String,
    /// Its build id, empty if it has none.
    pub build_id: String,
    /// The samples.
    pub usage: UnknownUsage,
    /// The same by reason, most CPU first. Totals may overlap: a stack can have several reasons.
    pub reasons: Vec<(WhyNot, UnknownUsage)>,
}

/// Report on frames without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownReport {
    /// All samples of the selection.
    pub all: Usage,
    /// Samples with a frame without a name.
    pub usage: UnknownUsage,
    /// The same by reason, most CPU first. Totals may overlap.
    pub reasons: Vec<(WhyNot, UnknownUsage)>,
    /// The files with the most CPU, by total.
    pub binaries: Vec<UnknownBinary>,
    /// Number of all files.
    pub binary_count: usize,
    /// Samples in files that are not listed; each sample counts once.
    pub rest: UnknownUsage,
}

/// Reports on the frames of a selection that have no name, and lists at most `limit` files.
///
/// # Errors
/// The store failed.
pub fn report_unknown(
    profiles: Profiles<'_>,
    selector: &Selector,
    limit: usize,
) -> Result<UnknownReport, StoreError> {
    let series = selector.find_series(profiles.snapshot())?;
    let mut sums = Sums::default();
    profiles.sum_stacks(&series, &mut |part| sums.add_part(part))?;
    Ok(sums.finish(limit))
}

/// Identity of frames without a name: a file and a reason.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    binary: StringId,
    build_id: StringId,
    reason: WhyNot,
}

/// Sums over the parts so far. Strings and kinds have numbers that are valid for all parts.
#[derive(Default)]
struct Sums {
    strings: Dictionary,
    kinds: Vec<Kind>,
    kind_index: HashMap<Kind, u32>,
    own: Vec<Usage>,
    through: PathSets,
    all: Usage,
}

impl Sums {
    fn add_part(&mut self, part: &NamedSums<'_>) {
        let tables = part.tables;
        let by_stack = sum_by_stack(part);
        let kinds: Vec<Option<u32>> = (0..tables.locations.len() as u32)
            .map(|id| self.kind_of(tables, LocationId(id)))
            .collect();
        for (node, usage) in tables.stacks.iter().zip(&by_stack).skip(1) {
            if let Some(kind) = kinds[node.location.position()] {
                self.own[kind as usize].add(*usage);
            }
        }
        by_stack.iter().for_each(|usage| self.all.add(*usage));
        let kind_of = |location: LocationId| kinds[location.position()];
        self.through.add_stacks(&tables, &by_stack, kind_of);
    }

    /// The kind of a location that has no name, or whose innermost function has none.
    fn kind_of(&mut self, tables: NamedTables<'_>, id: LocationId) -> Option<u32> {
        let lines = tables.lines_of(id);
        let is_unnamed = lines
            .lines
            .first()
            .is_none_or(|line| name_function(lines.tables, lines.function(line)).is_empty());
        if !is_unnamed {
            return None;
        }
        let location = tables.locations[id.position()];
        let mapping = location
            .mapping
            .map(|mapping| tables.mappings[mapping.position()]);
        let mut text = |id: Option<StringId>| {
            let text = id.map_or("", |id| tables.string(id));
            self.strings.intern_string(text)
        };
        let kind = Kind {
            binary: text(mapping.map(|mapping| mapping.file)),
            build_id: text(mapping.map(|mapping| mapping.build_id)),
            reason: WhyNot::of(&tables, &location),
        };
        let number = *self.kind_index.entry(kind).or_insert_with(|| {
            self.kinds.push(kind);
            self.own.push(Usage::default());
            self.kinds.len() as u32 - 1
        });
        Some(number)
    }

    /// Sums kinds by group; kinds without a group are left out.
    fn group<G: Ord>(&self, group_of: impl Fn(Kind) -> Option<G>) -> BTreeMap<G, UnknownUsage> {
        let mut groups: BTreeMap<G, UnknownUsage> = BTreeMap::new();
        for (kind, own) in self.kinds.iter().zip(&self.own) {
            if let Some(group) = group_of(*kind) {
                groups.entry(group).or_default().own.add(*own);
            }
        }
        for (kinds, usage) in self.through.sums() {
            let through: BTreeSet<G> = kinds
                .filter_map(|kind| group_of(self.kinds[kind as usize]))
                .collect();
            for group in through {
                groups.entry(group).or_default().total.add(usage);
            }
        }
        groups.retain(|_, usage| usage.total != Usage::default());
        groups
    }

    fn finish(self, limit: usize) -> UnknownReport {
        let text = |id: StringId| self.strings.tables().string(id);
        let file = |kind: Kind| (kind.binary, kind.build_id);
        let mut files: Vec<_> = self.group(|kind| Some(file(kind))).into_iter().collect();
        files.sort_by(|(a_file, a), (b_file, b)| {
            let names =
                |(binary, build_id): &(StringId, StringId)| (text(*binary), text(*build_id));
            compare_unknown(a, b).then_with(|| names(a_file).cmp(&names(b_file)))
        });
        let binary_count = files.len();
        let left: BTreeSet<_> = files
            .split_off(limit.min(files.len()))
            .into_iter()
            .map(|(file, _)| file)
            .collect();
        let rest = self.group(|kind| left.contains(&file(kind)).then_some(()));
        let by_reason = self.group(|kind| Some((file(kind), kind.reason)));
        let reasons_of = |wanted: (StringId, StringId)| {
            let first = WhyNot::Told(UnnamedReason::NoMapping);
            let reasons = by_reason.range((wanted, first)..=(wanted, WhyNot::Unknown));
            sort_reasons(
                reasons
                    .map(|((_, reason), usage)| (*reason, *usage))
                    .collect(),
            )
        };
        let binary = |(file, usage): ((StringId, StringId), UnknownUsage)| UnknownBinary {
            binary: text(file.0).to_owned(),
            build_id: text(file.1).to_owned(),
            usage,
            reasons: reasons_of(file),
        };
        let reasons = self.group(|kind| Some(kind.reason)).into_iter().collect();
        UnknownReport {
            all: self.all,
            usage: self.group(|_| Some(())).remove(&()).unwrap_or_default(),
            reasons: sort_reasons(reasons),
            binaries: files.into_iter().map(binary).collect(),
            binary_count,
            rest: rest.get(&()).copied().unwrap_or_default(),
        }
    }
}

fn sort_reasons(mut reasons: Vec<(WhyNot, UnknownUsage)>) -> Vec<(WhyNot, UnknownUsage)> {
    reasons.sort_by(|(a_reason, a), (b_reason, b)| {
        compare_unknown(a, b).then_with(|| a_reason.cmp(b_reason))
    });
    reasons
}

/// Most CPU first, by total.
fn compare_unknown(a: &UnknownUsage, b: &UnknownUsage) -> std::cmp::Ordering {
    compare_usage(a.total, b.total).then_with(|| compare_usage(a.own, b.own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::TestParts;
    use model::Unnamed;

    /// The report on windows in the test language, each text a part. The addresses of locations without a name say
    /// the reason: 0x10 to 0x1f is reason 1, and so on.
    fn report(texts: &[&str], limit: usize) -> UnknownReport {
        let mut parts = TestParts::new(texts);
        let windows = parts.windows_mut().iter_mut();
        for location in windows.flat_map(|window| &mut window.tables.locations) {
            if location.lines().is_empty() {
                location.unnamed = Unnamed::new((location.address >> 4) as u8, 0);
            }
        }
        let mut sums = Sums::default();
        parts.for_each(|part| sums.add_part(part));
        sums.finish(limit)
    }

    fn samples(usage: &UnknownUsage) -> String {
        format!("{} of {}", usage.own.samples, usage.total.samples)
    }

    fn draw(report: &UnknownReport) -> Vec<String> {
        let line = |binary: &UnknownBinary| {
            let reason = |(reason, usage): &(WhyNot, UnknownUsage)| {
                format!("{} {}", reason.code(), samples(usage))
            };
            let reasons: Vec<_> = binary.reasons.iter().map(reason).collect();
            let (name, id) = (&binary.binary, &binary.build_id);
            format!(
                "{name} {id} {}: {}",
                samples(&binary.usage),
                reasons.join(", ")
            )
        };
        report.binaries.iter().map(line).collect()
    }

    const PARTS: [&str; 2] = [
        "comm=a | main | 100
         comm=a | main 0x40@/lib/b.so 0x41@/lib/b.so | 10
         comm=a | main 0x40@/lib/b.so work | 20
         comm=a | 0x42@/lib/b.so 0x70@/lib/b.so work | 5
         comm=a | 0x40@/lib/c.so 0x43@/lib/b.so 0x40@/lib/c.so | 3
         comm=a | main 0x20 | 7
         comm=a | | 2",
        "comm=b | main 0x41@/lib/b.so | 1
         comm=b | 0x80 main | 4",
    ];

    #[test]
    fn samples_count_once_for_each_file_and_reason() {
        let report = report(&PARTS, 10);
        assert_eq!(report.all.samples, 152);
        assert_eq!(samples(&report.usage), "21 of 50");
        assert_eq!(
            draw(&report),
            [
                "/lib/b.so 00ff 11 of 39: no_symbol 11 of 39, limit 0 of 5",
                "  7 of 11: anonymous 7 of 7, process_unknown 0 of 4",
                "/lib/c.so 00ff 3 of 3: no_symbol 3 of 3",
            ]
        );
        let reasons: Vec<_> = report
            .reasons
            .iter()
            .map(|(reason, usage)| format!("{} {}", reason.code(), samples(usage)))
            .collect();
        assert_eq!(
            reasons,
            [
                "no_symbol 14 of 39",
                "anonymous 7 of 7",
                "limit 0 of 5",
                "process_unknown 0 of 4"
            ]
        );
        assert_eq!(
            (report.binary_count, samples(&report.rest)),
            (3, "0 of 0".into())
        );
    }

    /// Check that nothing is lost beyond the limit, and that a sample in two files that are cut counts once.
    #[test]
    fn files_beyond_the_limit_are_summed() {
        for (limit, rest) in [
            (0, "21 of 50"),
            (1, "10 of 14"),
            (2, "3 of 3"),
            (3, "0 of 0"),
        ] {
            let report = report(&PARTS, limit);
            assert_eq!((report.binaries.len(), report.binary_count), (limit, 3));
            assert_eq!(samples(&report.rest), rest, "{limit}");
        }
    }

    #[test]
    fn a_fully_named_selection_has_an_empty_report() {
        let report = report(&["comm=a | main work | 3"], 10);
        assert_eq!(report.usage, UnknownUsage::default());
        assert_eq!((draw(&report).len(), report.reasons.len()), (0, 0));
    }
}
