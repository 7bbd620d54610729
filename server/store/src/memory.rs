//! A store in memory: the plain one that others are compared with.
//!
//! It looks at every window for every question, and shows each with tables of its own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use model::{
    FunctionNames, LabelSet, Messages, NodeReport, Question, Row, SeriesId, SeriesTable, StackSum,
    StackSums, Tables, TimeRange, Unread, Window, WindowHead, WindowKey, WindowOverlap,
    WindowTotals,
};
use parking_lot::RwLock;

use crate::store::{
    Appended, REPORTS_MAX, SeriesFilter, Snapshot, Store, StoreError, StoreNumbers, StoreState,
};
use crate::versions::{VersionTable, build_of, image_of, program_of};
use crate::{Kept, VersionTimes, Versions};

/// A store in memory. Its windows are gone with it.
#[derive(Default)]
pub struct MemoryStore(RwLock<Content>);

#[derive(Default)]
struct Content {
    windows: BTreeMap<WindowKey, Arc<StoredWindow>>,
    /// The digest of each message.
    messages: HashMap<([u8; 16], u64), [u8; 16]>,
    /// By the numbers of series.
    labels: Vec<Arc<LabelSet>>,
    numbers: HashMap<Arc<LabelSet>, SeriesId>,
    reports: BTreeMap<String, NodeReport>,
}

struct StoredWindow {
    totals: WindowTotals,
    tables: Tables,
    rows: Vec<Row>,
}

/// Windows of a store in memory.
struct MemorySnapshot<'a> {
    store: &'a MemoryStore,
    question: Arc<Question>,
    /// By time, each with what other windows have of its time.
    windows: Vec<(Arc<StoredWindow>, WindowOverlap)>,
}

impl MemorySnapshot<'_> {
    /// The windows that are not left out.
    fn kept(&self) -> impl Iterator<Item = &Arc<StoredWindow>> {
        let windows = self.windows.iter();
        let kept = windows.filter(|(_, overlap)| !overlap.is_left_out());
        kept.map(|(window, _)| window)
    }

    /// The series of some windows that a filter selects.
    fn find_in<'w>(
        &self,
        windows: impl Iterator<Item = &'w Arc<StoredWindow>>,
        filter: &SeriesFilter<'_>,
    ) -> SeriesTable {
        let series = windows.flat_map(|window| &window.totals.series);
        let ids: HashSet<SeriesId> = series.copied().collect();
        let content = self.store.0.read();
        let found = ids.into_iter().filter_map(|id| {
            let labels = &content.labels[id.0 as usize];
            filter.selects(labels).then(|| (id, Arc::clone(labels)))
        });
        SeriesTable::new(found.collect())
    }
}

/// Whether the collector of `other` counts where both sampled: it is another one of the node, and started later. Its first window was
/// ten seconds for each window before `other`. Of two that started at once, the one with the smaller instance counts.
fn counts_over(other: &WindowHead, window: &WindowHead) -> bool {
    let started_ms =
        |head: &WindowHead| head.key.start_ms - 10_000 * (head.key.sequence as i64 - 1);
    let (other_ms, own_ms) = (started_ms(other), started_ms(window));
    other.node == window.node
        && other.key.instance != window.key.instance
        && (other_ms > own_ms || other_ms == own_ms && other.key.instance < window.key.instance)
}

/// How much of a window is in windows that count over it.
fn find_overlap<'a>(
    window: &WindowHead,
    all: impl Iterator<Item = &'a WindowHead>,
) -> WindowOverlap {
    let end_ms = |head: &WindowHead| head.key.start_ms + head.window_ms;
    let others = all.filter(|other| counts_over(other, window));
    let shared = others.map(|other| {
        let from_ms = other.key.start_ms.max(window.key.start_ms);
        (from_ms, end_ms(other).min(end_ms(window)))
    });
    let mut shared: Vec<(i64, i64)> = shared.collect();
    shared.sort_unstable();
    let (mut overlap_ms, mut until_ms) = (0, window.key.start_ms);
    for (from_ms, to_ms) in shared {
        overlap_ms += (to_ms - from_ms.max(until_ms)).max(0);
        until_ms = until_ms.max(to_ms);
    }
    WindowOverlap {
        overlap_ms,
        sampled_ms: window.window_ms,
    }
}

impl Content {
    fn number(&mut self, labels: LabelSet) -> SeriesId {
        let labels = Arc::new(labels);
        let next = SeriesId(self.labels.len() as u64);
        let id = *self.numbers.entry(Arc::clone(&labels)).or_insert(next);
        if id == next {
            self.labels.push(labels);
        }
        id
    }

    fn add_versions(&self, window: &StoredWindow, table: &mut VersionTable) {
        let StoredWindow {
            totals,
            tables,
            rows,
        } = window;
        let start_ms = totals.head.key.start_ms;
        let times = VersionTimes {
            first_ms: start_ms,
            last_ms: start_ms,
        };
        let labels = |id: SeriesId| &self.labels[id.0 as usize];
        for id in &totals.series {
            if let Some(key) = image_of(labels(*id)) {
                table.add(key, times);
            }
        }
        for row in rows {
            let Some(path) = program_of(labels(totals.series[row.series as usize])) else {
                continue;
            };
            for location in tables.walk_stack(row.stack) {
                let mapping = tables.locations[location.position()].mapping;
                let Some(mapping) = mapping.map(|id| tables.mappings[id.position()]) else {
                    continue;
                };
                let build_id = tables.string(mapping.build_id);
                if tables.string(mapping.file) == path && !build_id.is_empty() {
                    table.add(build_of(path, build_id), times);
                }
            }
        }
    }

    fn insert(&mut self, window: Window) {
        let Window {
            head,
            series,
            tables,
            rows,
            containers,
        } = window;
        let key = head.key;
        let series: Vec<SeriesId> = series
            .into_iter()
            .map(|labels| self.number(labels))
            .collect();
        let messages = Messages {
            count: 1,
            last_sequence: key.sequence,
        };
        let mut totals = WindowTotals {
            messages,
            head,
            samples: vec![0; series.len()],
            ns: vec![0; series.len()],
            containers: Vec::new(),
            series,
            overlap: WindowOverlap::default(),
        };
        for row in &rows {
            totals.samples[row.series as usize] += row.samples;
            totals.ns[row.series as usize] += row.ns;
        }
        for account in containers {
            let id = self.number(account.labels);
            totals.containers.push((id, account.usage));
        }
        let window = Arc::new(StoredWindow {
            totals,
            tables,
            rows,
        });
        self.windows.insert(key, window);
    }
}

impl Store for MemoryStore {
    fn append(&self, window: Window) -> Result<Appended, StoreError> {
        let mut content = self.0.write();
        let WindowKey {
            start_ms: _,
            instance,
            sequence,
        } = window.head.key;
        let digest = window.digest();
        if let Some(stored) = content.messages.get(&(instance, sequence)) {
            return if *stored == digest {
                Ok(Appended::Duplicate)
            } else {
                Err(StoreError::OtherContent { sequence })
            };
        }
        content.messages.insert((instance, sequence), digest);
        content.insert(window);
        Ok(Appended::Stored)
    }

    fn ask(
        &self,
        range: TimeRange,
        question: &Arc<Question>,
    ) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let content = self.0.read();
        let in_range = |key: &WindowKey| range.contains(key.start_ms);
        let windows = content.windows.iter().filter(|(key, _)| in_range(key));
        let all = content.windows.values();
        let with_overlap = |window: &Arc<StoredWindow>| {
            let heads = all.clone().map(|window| &window.totals.head);
            let overlap = find_overlap(&window.totals.head, heads);
            (Arc::clone(window), overlap)
        };
        Ok(Box::new(MemorySnapshot {
            store: self,
            question: Arc::clone(question),
            windows: windows.map(|(_, window)| with_overlap(window)).collect(),
        }))
    }

    fn put_report(&self, mut report: NodeReport) -> Result<(), StoreError> {
        let reports = &mut self.0.write().reports;
        if let Some(kept) = reports.get(&report.node) {
            if !report.replaces(kept) {
                return Ok(());
            }
            report.first_ms = kept.first_ms;
        } else if reports.len() >= REPORTS_MAX {
            let oldest = reports
                .values()
                .min_by_key(|report| report.content.received_ms);
            if let Some(node) = oldest.map(|oldest| oldest.node.clone()) {
                reports.remove(&node);
            }
        }
        reports.insert(report.node.clone(), report);
        Ok(())
    }

    fn reports(&self) -> Result<Vec<NodeReport>, StoreError> {
        Ok(self.0.read().reports.values().cloned().collect())
    }

    fn versions(&self) -> Versions {
        let content = self.0.read();
        let mut table = VersionTable::default();
        for window in content.windows.values() {
            content.add_versions(window, &mut table);
        }
        let first = content.windows.keys().map(|key| key.start_ms).min();
        Versions {
            since_ms: first,
            versions: table.versions,
            ..Versions::default()
        }
    }

    fn state(&self) -> StoreState {
        StoreState {
            readable: Ok(()),
            writable: Ok(()),
            space: Err(StoreError::Failed("memory has no file system".into())),
        }
    }

    fn numbers(&self) -> StoreNumbers {
        StoreNumbers::default()
    }

    fn damage(&self) -> Vec<Unread> {
        Vec::new()
    }

    fn kept(&self) -> Kept {
        Kept::default()
    }
}

impl Snapshot for MemorySnapshot<'_> {
    fn question(&self) -> &Arc<Question> {
        &self.question
    }

    fn version(&self) -> u64 {
        self.windows.len() as u64
    }

    fn estimate_bytes(&self, _: &SeriesFilter<'_>) -> u64 {
        let rows = self.windows.iter().map(|(window, _)| window.rows.len());
        (size_of::<Row>() * rows.sum::<usize>()) as u64
    }

    fn find_series(&self, filter: &SeriesFilter<'_>) -> Result<SeriesTable, StoreError> {
        let windows = self.windows.iter().map(|(window, _)| window);
        Ok(self.find_in(windows, filter))
    }

    fn list_series(&self, filter: &SeriesFilter<'_>) -> Result<SeriesTable, StoreError> {
        Ok(self.find_in(self.kept(), filter))
    }

    fn find_labels(&self, ids: &[SeriesId]) -> Result<Vec<Arc<LabelSet>>, StoreError> {
        let content = self.store.0.read();
        let labels = |id: &SeriesId| {
            let labels = content.labels.get(id.0 as usize).cloned();
            labels.ok_or_else(|| StoreError::Failed(format!("there is no series {}", id.0)))
        };
        ids.iter().map(labels).collect()
    }

    fn scan_totals(&self, visit: &mut dyn FnMut(&WindowTotals)) -> Result<(), StoreError> {
        for (window, overlap) in &self.windows {
            visit(&WindowTotals {
                overlap: *overlap,
                ..window.totals.clone()
            });
        }
        Ok(())
    }

    fn sum_stacks(
        &self,
        series: &SeriesTable,
        groups: &[u32],
        _names: FunctionNames,
        visit: &mut dyn FnMut(&StackSums<'_>),
    ) -> Result<(), StoreError> {
        for window in self.kept() {
            self.question.check()?;
            let sum = |row: &Row| {
                let position = series.position(window.totals.series[row.series as usize])?;
                Some(StackSum {
                    group: groups[position],
                    stack: row.stack,
                    tags: row.tags,
                    samples: row.samples,
                    ns: row.ns,
                })
            };
            let sums: Vec<StackSum> = window.rows.iter().filter_map(sum).collect();
            if !sums.is_empty() {
                visit(&StackSums {
                    tables: &window.tables,
                    sums: &sums,
                });
            }
        }
        Ok(())
    }

    fn has_overlaps(&self) -> Result<bool, StoreError> {
        let mut windows = self.windows.iter();
        Ok(windows.any(|(_, overlap)| overlap.overlap_ms > 0))
    }

    fn lacks_addresses(&self) -> bool {
        false
    }

    fn unread(&self) -> Vec<Unread> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use model::node_report::{NodeState, ReportContent};

    use super::*;

    /// Check that of too many nodes the one is forgotten that was silent longest.
    #[test]
    fn reports_are_limited() {
        let store = MemoryStore::default();
        let put = |node: usize, received_ms| {
            let report = NodeReport {
                node: node.to_string(),
                instance: [1; 16],
                first_ms: received_ms,
                content: ReportContent {
                    received_ms,
                    version: String::new(),
                    kernel: String::new(),
                    state: NodeState::Sampling,
                    reason: String::new(),
                    checks: Vec::new(),
                    policy_revision: String::new(),
                    policy: None,
                },
            };
            store.put_report(report).unwrap();
        };
        for node in 0..REPORTS_MAX {
            put(node, node as i64);
        }
        put(0, 1_000_000);
        put(REPORTS_MAX, 1_000_001);
        let nodes: HashSet<String> = (store.reports().unwrap().into_iter())
            .map(|report| report.node)
            .collect();
        assert_eq!(nodes.len(), REPORTS_MAX);
        assert!(nodes.contains("0") && !nodes.contains("1"));
    }
}
