//! The samples of series in windows, without all else that windows have.

use model::{SeriesId, SeriesTable, WindowTotals};

/// The samples of series in some windows.
#[derive(Clone, Debug, Default)]
pub struct WindowCells {
    /// The windows. A window whose series are in several files may come several times.
    pub windows: Vec<WindowSpan>,
    /// The samples of a series in a window.
    pub cells: Vec<WindowCell>,
}

/// The time of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowSpan {
    /// Its start, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// Its end.
    pub end_ms: i64,
}

/// The samples of a series in a window.
#[derive(Clone, Copy, Debug)]
pub struct WindowCell {
    /// Position of the series in the table that was asked for.
    pub series: u32,
    /// Position of the window.
    pub window: u32,
    /// Samples.
    pub samples: u64,
    /// Their CPU time, in nanoseconds.
    pub ns: u64,
}

impl WindowSpan {
    pub(crate) fn new(start_ms: i64, window_ms: i64) -> Self {
        Self {
            start_ms,
            end_ms: start_ms.saturating_add(window_ms),
        }
    }
}

impl WindowCells {
    /// The cells of one window.
    pub(crate) fn of(totals: &WindowTotals, series: &SeriesTable) -> Self {
        let window = WindowSpan::new(totals.head.key.start_ms, totals.head.window_ms);
        let cell = |(at, id): (usize, &SeriesId)| {
            Some(WindowCell {
                series: series.position(*id)? as u32,
                window: 0,
                samples: totals.samples[at],
                ns: totals.ns[at],
            })
        };
        Self {
            windows: vec![window],
            cells: totals.series.iter().enumerate().filter_map(cell).collect(),
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        size_of::<WindowSpan>() * self.windows.capacity()
            + size_of::<WindowCell>() * self.cells.capacity()
    }
}
