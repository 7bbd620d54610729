//! Selection of a question: series and windows.

use model::TimeRange;

/// Windows of a segment, by number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowSet {
    is_included: Vec<bool>,
    count: usize,
}

impl WindowSet {
    /// All of `count` windows.
    pub fn all(count: usize) -> Self {
        Self {
            is_included: vec![true; count],
            count,
        }
    }

    /// The windows that start in a range.
    pub fn in_range(starts_ms: &[i64], range: TimeRange) -> Self {
        Self::of(starts_ms, |start_ms| range.contains(*start_ms))
    }

    /// The entries that pass a test, where entries are in the order of windows.
    pub fn of<T>(windows: &[T], is_included: impl FnMut(&T) -> bool) -> Self {
        let is_included: Vec<bool> = windows.iter().map(is_included).collect();
        Self {
            count: is_included
                .iter()
                .filter(|is_included| **is_included)
                .count(),
            is_included,
        }
    }

    /// Whether a window is in the set. One that came after the set was made is not.
    pub fn contains(&self, window: u32) -> bool {
        let is_included = self.is_included.get(window as usize);
        is_included.copied().unwrap_or(false)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.is_included.capacity()
    }

    /// Number of windows in the set.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether all windows of the segment are in the set.
    pub fn is_all(&self) -> bool {
        self.count == self.is_included.len()
    }
}

/// Series and windows of a question.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Numbers of series, sorted.
    pub series: &'a [u32],
    /// The windows.
    pub windows: &'a WindowSet,
}

impl Selection<'_> {
    /// The selected series of `count` from `first` on.
    pub(crate) fn series_in(&self, first: u32, count: u32) -> &[u32] {
        let start = self.series.partition_point(|series| *series < first);
        let rest = &self.series[start..];
        let end = rest.partition_point(|series| *series - first < count);
        &rest[..end]
    }
}
