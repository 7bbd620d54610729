//! The sums of windows, without their rows.

use model::{ContainerUsage, Messages, SeriesId, WindowHead, WindowOverlap, WindowTotals};

use crate::chunk::accounts::{WindowAccount, join_head};
use crate::chunk::windows::WindowInfo;
use crate::error::{Damage, Partial};
use crate::read::selection::Selection;
use crate::read::source::Source;

/// A window without its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowSums {
    /// Its number in the source.
    pub window: u32,
    /// Its identity. It stands for as many received windows as it has messages, and for the time that these cover.
    pub info: WindowInfo,
    /// Its account; none if that is damaged, or in another segment ([`Segment::has_accounts`](crate::Segment::has_accounts)).
    pub account: Option<WindowAccount>,
    /// The selected series that the window lists, by number.
    pub series: Vec<SeriesSum>,
    /// The kernel's accounts of containers, with their numbers in [`Source::read_containers`].
    pub containers: Vec<(u32, ContainerUsage)>,
}

/// A series in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesSum {
    /// Number of the series.
    pub series: u32,
    /// Its samples.
    pub samples: u64,
    /// Their CPU time, in nanoseconds.
    pub ns: u64,
}

impl WindowSums {
    /// The head of the window; a missing account is empty. Of a rolled-up window it has the first message's identity, and the span from
    /// the first message to the last.
    pub fn head(&self) -> WindowHead {
        join_head(&self.info, self.account.clone().unwrap_or_default())
    }

    /// As a store shows the window, with the store's numbers of the source's series and containers. Whether it overlaps windows of other
    /// sources, the store knows.
    pub fn to_totals(&self, series: &[SeriesId], containers: &[SeriesId]) -> WindowTotals {
        let usage = self.containers.iter();
        let messages = self.info.messages.iter();
        let messages = Messages {
            count: self.info.messages.len() as u64,
            last_sequence: messages.map(|message| message.sequence).max().unwrap_or(0),
        };
        WindowTotals {
            messages,
            head: self.head(),
            series: self
                .series
                .iter()
                .map(|sum| series[sum.series as usize])
                .collect(),
            samples: self.series.iter().map(|sum| sum.samples).collect(),
            ns: self.series.iter().map(|sum| sum.ns).collect(),
            containers: usage
                .map(|(container, usage)| (containers[*container as usize], *usage))
                .collect(),
            overlap: WindowOverlap::default(),
        }
    }
}

/// See [`Source::read_window_sums`].
pub(crate) fn read_window_sums(
    source: &(impl Source + ?Sized),
    selection: &Selection<'_>,
) -> Result<Partial<Vec<WindowSums>>, Damage> {
    let infos = source.read_windows()?;
    let accounts = source.read_accounts(&infos);
    let mut damage = accounts.damage;
    // The position of each window among those that are selected.
    let mut positions = vec![0; infos.len()];
    let mut windows = Vec::new();
    let numbered = infos.into_iter().zip(accounts.value).enumerate();
    for (number, (info, account)) in numbered {
        let window = number as u32;
        if selection.windows.contains(window) {
            positions[number] = windows.len();
            windows.push(WindowSums {
                window,
                info,
                account,
                series: Vec::new(),
                containers: Vec::new(),
            });
        }
    }
    let cells = source.read_cells(selection, &mut |series, cells| {
        for cell in cells {
            windows[positions[cell.window as usize]]
                .series
                .push(SeriesSum {
                    series,
                    samples: cell.samples,
                    ns: cell.ns,
                });
        }
    });
    damage.extend(cells.damage);
    let usage = source.read_usage(&mut |container, cells| {
        let cells = cells.iter();
        for cell in cells.filter(|cell| selection.windows.contains(cell.window)) {
            windows[positions[cell.window as usize]]
                .containers
                .push((container, cell.usage));
        }
    });
    damage.extend(usage.damage);
    Ok(Partial {
        value: windows,
        damage,
    })
}
