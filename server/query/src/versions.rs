//! Versions of workloads and programs that ran in a range, and the version that each came after.

use std::cmp::Reverse;

use model::{LabelSet, TimeRange, Unread};
use store::{Store, VersionKey, VersionKind, VersionTimes, Versions};

use super::selection::Selection;

/// Versions in a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionReport {
    /// Start of the oldest windows that the store has.
    pub since_ms: Option<i64>,
    /// The versions, the one that came last first.
    pub versions: Vec<VersionSeen>,
    /// Versions that the store did not keep.
    pub left_out: u64,
    /// Windows whose versions are not known.
    pub unread: Vec<Unread>,
}

/// A version, and when it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionSeen {
    /// Labels of the workload's container, or the program's path.
    pub labels: LabelSet,
    /// Kind of version.
    pub kind: VersionKind,
    /// The image or the build id.
    pub version: String,
    /// When it ran, in the range or not.
    pub times: VersionTimes,
    /// The version of the same workload or program whose first time is the last before its own.
    pub after: Option<String>,
}

/// Lists the versions of the selected workloads and programs that ran in a range. Their times are those of all windows.
pub fn report_versions(store: &dyn Store, selection: &Selection) -> VersionReport {
    let Versions {
        since_ms,
        versions,
        left_out,
        unread,
    } = store.versions();
    let Selection { selector, range } = selection;
    let mut all: Vec<_> = versions.into_iter().collect();
    all.retain(|(key, _)| selector.matches(&key.labels));
    // The versions of one workload or program, in the order in which they came.
    all.sort_by(|a, b| order(a).cmp(&order(b)));
    let groups = all.chunk_by(|(a, _), (b, _)| (a.kind, &a.labels) == (b.kind, &b.labels));
    let mut versions: Vec<VersionSeen> =
        groups.flat_map(|group| list_seen(group, *range)).collect();
    versions.sort_by_key(|seen| Reverse(seen.times.first_ms));
    VersionReport {
        since_ms,
        versions,
        left_out,
        unread,
    }
}

fn order((key, times): &(VersionKey, VersionTimes)) -> (VersionKind, &LabelSet, i64, &str) {
    (key.kind, &key.labels, times.first_ms, &key.version)
}

/// Those of the versions of a workload or program that ran in the range.
fn list_seen(
    group: &[(VersionKey, VersionTimes)],
    range: TimeRange,
) -> impl Iterator<Item = VersionSeen> {
    let seen = group.iter().enumerate();
    let seen = seen.filter(move |(_, (_, times))| {
        times.first_ms < range.to_ms && range.from_ms <= times.last_ms
    });
    seen.map(|(at, (key, times))| {
        let earlier = group[..at].iter();
        let mut earlier = earlier.rev();
        let before = earlier.find(|(_, before)| before.first_ms < times.first_ms);
        VersionSeen {
            labels: key.labels.clone(),
            kind: key.kind,
            version: key.version.clone(),
            times: *times,
            after: before.map(|(key, _)| key.version.clone()),
        }
    })
}

#[cfg(test)]
mod tests {
    use model::text::window_at;
    use store::MemoryStore;

    use super::*;
    use crate::parse_selector;

    /// Check that versions are those that ran in the range, newest first, each with the one before it, also if that is not in the range.
    #[test]
    fn versions_follow_each_other() {
        let store = MemoryStore::default();
        for (sequence, (workload, image)) in (1..).zip([
            ("shop", "shop:1"),
            ("shop", "shop:2"),
            ("cart", "cart:1"),
            ("shop", "shop:1"),
            ("shop", "shop:3"),
        ]) {
            let lines = format!("image={image},workload={workload} | main | 1");
            let window = window_at(&lines, 10_000 * sequence as i64, sequence);
            store.append(window).unwrap();
        }
        let list = |query: &str, from_ms, to_ms| {
            let selection = Selection {
                selector: parse_selector(query).unwrap(),
                range: TimeRange { from_ms, to_ms },
            };
            let report = report_versions(&store, &selection);
            assert_eq!((report.since_ms, report.left_out), (Some(10_000), 0));
            let line = |seen: &VersionSeen| {
                let VersionTimes { first_ms, last_ms } = seen.times;
                let after = seen.after.as_deref().unwrap_or("nothing");
                format!("{} {first_ms} {last_ms} after {after}", seen.version)
            };
            report.versions.iter().map(line).collect::<Vec<_>>()
        };
        let all = [
            "shop:3 50000 50000 after shop:2",
            "cart:1 30000 30000 after nothing",
            "shop:2 20000 20000 after shop:1",
            "shop:1 10000 40000 after nothing",
        ];
        assert_eq!(list("{}", 0, 60_000), all);
        assert_eq!(list("{}", 20_001, 50_000), [all[1], all[3]]);
        assert_eq!(list(r#"{workload="shop"}"#, 50_000, 50_001), all[..1]);
        assert_eq!(list("{}", 50_001, 60_000), [""; 0]);
    }
}
