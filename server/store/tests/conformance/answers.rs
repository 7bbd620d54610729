//! Questions, and their answers as text: without a store's own numbers and order of equals, so that those of two stores can be
//! compared.

use std::collections::BTreeMap;

use model::text::describe_stack;
use model::{FunctionNames, LabelSet, NodeReport, SeriesId, SeriesTable, TimeRange, WindowKey};
use store::{SeriesFilter, Snapshot, Store, VersionKey, VersionTimes, Versions};

/// All times.
pub(crate) const ALWAYS: TimeRange = TimeRange {
    from_ms: i64::MIN,
    to_ms: i64::MAX,
};

/// A choice of series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Labels with these values.
    pub(crate) equal: Vec<(&'static str, String)>,
    /// A label whose value has this part.
    pub(crate) part: Option<(&'static str, String)>,
}

impl Filter {
    fn ask<R>(&self, ask: impl FnOnce(&SeriesFilter<'_>) -> R) -> R {
        let part = |labels: &LabelSet| {
            let part = self.part.as_ref();
            part.is_none_or(|(name, part)| labels.value(name).contains(part.as_str()))
        };
        let equal = self.equal.iter();
        ask(&SeriesFilter {
            equal: equal.map(|(name, value)| (*name, value.as_str())).collect(),
            matches: &part,
        })
    }
}

/// The series that have a window in the range.
pub(crate) fn list_series(store: &dyn Store, range: TimeRange, filter: &Filter) -> Vec<String> {
    let snapshot = store.snapshot(range).unwrap();
    let table = filter.ask(|filter| snapshot.list_series(filter)).unwrap();
    sorted(table.iter().map(LabelSet::to_string).collect())
}

/// The series that are found: at least those that have a window in the range.
pub(crate) fn find_series(store: &dyn Store, range: TimeRange, filter: &Filter) -> Vec<String> {
    let snapshot = store.snapshot(range).unwrap();
    let table = filter.ask(|filter| snapshot.find_series(filter)).unwrap();
    sorted(table.iter().map(LabelSet::to_string).collect())
}

/// The sums of each window.
pub(crate) fn totals(snapshot: &dyn Snapshot) -> BTreeMap<WindowKey, Vec<Vec<String>>> {
    let mut shown = BTreeMap::new();
    let mut last_ms = None;
    let labels = |ids: Vec<SeriesId>| snapshot.find_labels(&ids).unwrap();
    snapshot
        .scan_totals(&mut |totals| {
            let series = labels(totals.series.clone()).into_iter().enumerate();
            let series = series
                .map(|(i, labels)| format!("{labels} {} {}", totals.samples[i], totals.ns[i]));
            let ids = totals.containers.iter().map(|(id, _)| *id).collect();
            let containers = labels(ids).into_iter().zip(&totals.containers);
            let containers = containers.map(|(labels, (_, usage))| format!("{labels} {usage:?}"));
            let lines = [sorted(series.collect()), sorted(containers.collect())];
            let overlap = totals.overlap.is_left_out().then_some("left out");
            let part = totals.overlap.share_of(1_000_000);
            let head = vec![format!("{:?} {overlap:?} {part}", totals.head)];

            let key = totals.head.key;
            assert!(last_ms <= Some(key.start_ms), "{key} comes late");
            last_ms = Some(key.start_ms);
            let window = [vec![head], lines.into()].concat();
            let shown_before = shown.insert(key, window);
            assert!(shown_before.is_none(), "{key} is shown twice");
        })
        .unwrap();
    shown
}

/// Samples and CPU time of the chosen series, by labels, tags and stack.
pub(crate) fn stacks(snapshot: &dyn Snapshot, filter: &Filter) -> BTreeMap<String, [u64; 2]> {
    let table = filter.ask(|filter| snapshot.find_series(filter)).unwrap();
    let mut shown: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    snapshot
        .sum_stacks(&table, &each(&table), FunctionNames::All, &mut |part| {
            for sum in part.sums {
                let labels = table.labels(sum.group as usize);
                let stack = describe_stack(part.tables, labels, sum.tags, sum.stack);
                let [samples, ns] = shown.entry(stack).or_default();
                (*samples, *ns) = (*samples + sum.samples, *ns + sum.ns);
            }
        })
        .unwrap();
    assert_eq!(snapshot.unread(), []);
    shown
}

/// The last report of each node.
pub(crate) fn reports(store: &dyn Store) -> Vec<NodeReport> {
    store.reports().unwrap()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Each series in a group of its own.
pub(crate) fn each(series: &SeriesTable) -> Vec<u32> {
    (0..series.len() as u32).collect()
}

/// The versions that ran, with their times from a start.
pub(crate) fn versions(store: &dyn Store) -> Vec<String> {
    let Versions {
        since_ms: _,
        versions,
        left_out,
        unread,
    } = store.versions();
    assert_eq!((left_out, unread), (0, Vec::new()));
    let line = |(key, times): (&VersionKey, &VersionTimes)| {
        let VersionKey {
            kind,
            labels,
            version,
        } = key;
        let VersionTimes { first_ms, last_ms } = times;
        format!("{kind:?} {labels} {version} {first_ms} {last_ms}")
    };
    versions.iter().map(line).collect()
}
