//! Which versions ran, and when: images of workloads' containers, and builds of programs that have no image.

use std::collections::BTreeMap;

use model::{LabelSet, Unread};

/// Labels of a workload's container. They do not change with its pods.
pub const WORKLOAD_LABELS: [&str; 4] = ["container", "namespace", "workload", "workload_kind"];

/// Label of a container's image, with the digest that runs.
const IMAGE_LABEL: &str = "image";

/// Label of a program's path.
pub const PROGRAM_LABEL: &str = "exe";

/// Versions that are kept of a segment. An entry takes some 150 bytes, and a store of a month has 50 segments, so that all of them take
/// 15 MB. A cluster with 300 workloads of two containers that are deployed each day has 1,200 in a day.
pub const SEGMENT_VERSIONS_MAX: usize = 2048;

/// Kind of version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VersionKind {
    /// The image of a workload's container.
    Image,
    /// The build id of a program's file.
    BuildId,
}

/// A version, and what it is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionKey {
    /// Kind of version.
    pub kind: VersionKind,
    /// The [`WORKLOAD_LABELS`] that it has, or the [`PROGRAM_LABEL`].
    pub labels: LabelSet,
    /// The image, or the build id.
    pub version: String,
}

/// When a version ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionTimes {
    /// Start of its first window, in milliseconds since the Unix epoch; of a rolled-up one, of the first window in it.
    pub first_ms: i64,
    /// Start of its last window; of a rolled-up one, of the last window in it.
    pub last_ms: i64,
}

impl VersionTimes {
    pub(crate) fn join(self, other: Self) -> Self {
        Self {
            first_ms: self.first_ms.min(other.first_ms),
            last_ms: self.last_ms.max(other.last_ms),
        }
    }
}

/// The versions that a store has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Start of the oldest windows: a version that was there at that time may be older. `None` without windows.
    pub since_ms: Option<i64>,
    /// The versions, by kind and labels.
    pub versions: BTreeMap<VersionKey, VersionTimes>,
    /// Versions that were not kept, since a segment had more than [`SEGMENT_VERSIONS_MAX`]: each counts once for each segment.
    pub left_out: u64,
    /// Windows whose versions are not known.
    pub unread: Vec<Unread>,
}

/// The versions of some windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionTable {
    /// The versions.
    pub versions: BTreeMap<VersionKey, VersionTimes>,
    /// Those that were not kept.
    pub left_out: u64,
}

impl VersionTable {
    pub(crate) fn add(&mut self, key: VersionKey, times: VersionTimes) {
        let known = self.versions.entry(key).or_insert(times);
        *known = known.join(times);
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (key, times) in &other.versions {
            self.add(key.clone(), *times);
        }
        self.left_out = self.left_out.saturating_add(other.left_out);
    }

    /// Keeps so many: images first, then the builds that ran longest.
    pub(crate) fn limit(&mut self, count: usize) {
        if self.versions.len() <= count {
            return;
        }
        let mut all: Vec<_> = std::mem::take(&mut self.versions).into_iter().collect();
        all.sort_by_key(|(key, times)| (key.kind, times.first_ms.saturating_sub(times.last_ms)));
        self.left_out += (all.len() - count) as u64;
        self.versions = all.into_iter().take(count).collect();
    }
}

/// The version that the labels of a series tell: the image of its container.
pub(crate) fn image_of(labels: &LabelSet) -> Option<VersionKey> {
    let image = labels.value(IMAGE_LABEL);
    let of = labels.iter();
    let of = of.filter(|(name, _)| WORKLOAD_LABELS.contains(name));
    (!image.is_empty()).then(|| VersionKey {
        kind: VersionKind::Image,
        // SANITY: they are some labels of a set, in its order.
        labels: LabelSet::from_sorted(of).unwrap_or_default(),
        version: image.to_owned(),
    })
}

/// The path of a series' program, if no image tells its version.
pub(crate) fn program_of(labels: &LabelSet) -> Option<&str> {
    let path = labels.value(PROGRAM_LABEL);
    let has_image = !labels.value(IMAGE_LABEL).is_empty();
    (!path.is_empty() && !has_image).then_some(path)
}

/// A build of a program.
pub(crate) fn build_of(path: &str, build_id: &str) -> VersionKey {
    VersionKey {
        kind: VersionKind::BuildId,
        // SANITY: the name is one of a label, and the path has bytes.
        labels: LabelSet::from_sorted([(PROGRAM_LABEL, path)]).unwrap_or_default(),
        version: build_id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that images are kept before builds, and builds that ran long before those that ran once, and that the others are counted.
    #[test]
    fn a_full_table_keeps_what_ran_long() {
        let mut table = VersionTable::default();
        let labels = LabelSet::from_sorted([("image", "shop:1"), ("workload", "shop")]);
        let image = image_of(&labels.unwrap()).unwrap();
        let times = |last_ms| VersionTimes {
            first_ms: 10,
            last_ms,
        };
        table.add(image.clone(), times(10));
        for (path, last_ms) in [("/bin/a", 10), ("/bin/b", 90), ("/bin/c", 20)] {
            table.add(build_of(path, "1"), times(last_ms));
        }
        let all = table.clone();
        table.limit(4);
        assert_eq!(table, all);
        table.limit(2);
        assert_eq!(table.left_out, 2);
        let kept: Vec<_> = table.versions.into_keys().collect();
        assert_eq!(kept, [image, build_of("/bin/b", "1")]);
    }
}
