//! The windows of a segment: their identity, their accounts, and each as it was received.

use std::collections::HashMap;

use model::{ContainerAccount, FunctionNames, Window, WindowHead};

use crate::chunk::accounts::{WindowAccount, decode_accounts, join_head};
use crate::chunk::digests::{Digest, decode_digests};
use crate::chunk::windows::{Message, Span, WindowInfo, decode_windows, read_windows};
use crate::error::{Damage, Partial};
use crate::read::parallel::Effort;
use crate::read::questions::{Pair, SegmentRow};
use crate::read::selection::{Selection, WindowSet};
use crate::read::source::Source;
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;

/// A message that brought a window, or a part of a window that was rolled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// The window's number in the source.
    pub window: u32,
    /// The collector's instance.
    pub instance: [u8; 16],
    /// The message.
    pub message: Message,
    /// The digest of its content, if it was given.
    pub digest: Option<Digest>,
}

impl<R: ReadAt> Segment<R> {
    /// Number of windows.
    pub fn window_count(&self) -> usize {
        self.count(Section::Windows)
    }

    /// The start of each window, in milliseconds since the Unix epoch. Much cheaper than all of its identity.
    ///
    /// # Errors
    /// They are damaged.
    pub fn read_window_starts(&self) -> Result<Vec<i64>, Damage> {
        let mut scratch = Scratch::default();
        let mut starts = Vec::with_capacity(self.window_count());
        for number in 0..self.chunks(Section::Windows).len() {
            self.read(
                Section::Windows,
                number,
                &mut scratch,
                |bytes, chunk, unpacker| {
                    read_windows(bytes, chunk.items as usize, unpacker, |_, _, messages| {
                        starts.push(messages.first().map_or(0, |message| message.start_ms));
                    })
                },
            )?;
        }
        Ok(starts)
    }

    /// The identity of each window.
    ///
    /// # Errors
    /// They are damaged.
    pub fn read_windows(&self) -> Result<Vec<WindowInfo>, Damage> {
        let mut scratch = Scratch::default();
        let chunks = 0..self.chunks(Section::Windows).len();
        let chunks = chunks.map(|number| self.read_window_chunk(number, &mut scratch));
        let chunks: Result<Vec<Vec<WindowInfo>>, Damage> = chunks.collect();
        Ok(chunks?.into_iter().flatten().collect())
    }

    fn read_window_chunk(
        &self,
        number: usize,
        scratch: &mut Scratch,
    ) -> Result<Vec<WindowInfo>, Damage> {
        self.read(
            Section::Windows,
            number,
            scratch,
            |bytes, chunk, unpacker| decode_windows(bytes, chunk.items as usize, unpacker),
        )
    }

    /// Whether this segment has the accounts of its windows and containers: of several that were split from one, the first.
    pub fn has_accounts(&self) -> bool {
        self.count(Section::Accounts) > 0 || self.window_count() == 0
    }

    /// The account of each of all windows; those of a damaged chunk are none.
    pub fn read_accounts(&self, windows: &[WindowInfo]) -> Partial<Vec<Option<WindowAccount>>> {
        let mut scratch = Scratch::default();
        let mut accounts = Vec::new();
        let mut damage = Vec::new();
        for (number, chunk) in self.chunks(Section::Accounts).iter().enumerate() {
            let own = &windows[chunk.first as usize..(chunk.first + chunk.items) as usize];
            let spans: Vec<Span> = own.iter().map(WindowInfo::span).collect();
            let read = self.read(
                Section::Accounts,
                number,
                &mut scratch,
                |bytes, _, unpacker| decode_accounts(bytes, &spans, unpacker),
            );
            match read {
                Ok(read) => accounts.extend(read.into_iter().map(Some)),
                Err(found) => {
                    damage.push(found);
                    accounts.resize(accounts.len() + own.len(), None);
                }
            }
        }
        accounts.resize(windows.len(), None);
        Partial {
            value: accounts,
            damage,
        }
    }

    /// The digest of each message of all windows, in their order; those of a damaged chunk are none.
    pub fn read_digests(&self, windows: &[WindowInfo]) -> Partial<Vec<Option<Digest>>> {
        let count = |windows: &[WindowInfo]| -> usize {
            windows.iter().map(|window| window.messages.len()).sum()
        };
        let mut scratch = Scratch::default();
        let mut digests = Vec::new();
        let mut damage = Vec::new();
        for (number, chunk) in self.chunks(Section::Digests).iter().enumerate() {
            let own = &windows[chunk.first as usize..(chunk.first + chunk.items) as usize];
            let messages = count(own);
            let read = self.read(
                Section::Digests,
                number,
                &mut scratch,
                |bytes, _, unpacker| decode_digests(bytes, messages, unpacker),
            );
            match read {
                Ok(read) => digests.extend(read),
                Err(found) => {
                    damage.push(found);
                    digests.resize(digests.len() + messages, None);
                }
            }
        }
        digests.resize(count(windows), None);
        Partial {
            value: digests,
            damage,
        }
    }
}

/// See [`Source::read_messages`].
pub(crate) fn read_messages(
    source: &(impl Source + ?Sized),
) -> Result<Partial<Vec<ReceivedMessage>>, Damage> {
    let windows = source.read_windows()?;
    let Partial {
        value: digests,
        damage,
    } = source.read_digests(&windows);
    let mut digests = digests.into_iter();
    let mut value = Vec::new();
    for (number, window) in windows.iter().enumerate() {
        let messages = window.messages.iter();
        value.extend(
            messages
                .zip(&mut digests)
                .map(|(message, digest)| ReceivedMessage {
                    window: number as u32,
                    instance: window.instance,
                    message: *message,
                    digest,
                }),
        );
    }
    Ok(Partial { value, damage })
}

/// See [`Source::read_whole_windows`].
pub(crate) fn read_whole_windows(
    source: &(impl Source + ?Sized),
    wanted: &WindowSet,
    effort: Effort<'_>,
) -> Result<Vec<Window>, Damage> {
    let infos = source.read_windows()?;
    let accounts = source.read_accounts(&infos).whole()?;
    let all: Vec<u32> = (0..source.series_count() as u32).collect();
    let selection = Selection {
        series: &all,
        windows: wanted,
    };
    let mut series: HashMap<u32, Vec<u32>> = HashMap::new();
    let cells = source.read_cells(&selection, &mut |number, cells| {
        for cell in cells {
            series.entry(cell.window).or_default().push(number);
        }
    });
    cells.whole()?;
    let mut containers = read_window_containers(source, wanted)?;
    let rows = source.read_rows(&selection, effort).whole()?;

    let mut windows = Vec::new();
    let mut rows = &rows[..];
    for (number, info) in infos.iter().enumerate() {
        let number = number as u32;
        if !wanted.contains(number) {
            continue;
        }
        let (own, rest) = rows.split_at(rows.partition_point(|row| row.window == number));
        rows = rest;
        let account = accounts[number as usize].clone().unwrap_or_default();
        let head = join_head(info, account);
        let series = series.remove(&number).unwrap_or_default();
        let containers = containers.remove(&number).unwrap_or_default();
        windows.push(make_window(source, head, &series, own, containers, effort)?);
    }
    Ok(windows)
}

fn read_window_containers(
    source: &(impl Source + ?Sized),
    wanted: &WindowSet,
) -> Result<HashMap<u32, Vec<ContainerAccount>>, Damage> {
    let labels = source.read_containers()?;
    let mut containers: HashMap<u32, Vec<ContainerAccount>> = HashMap::new();
    let usage = source.read_usage(&mut |container, cells| {
        for cell in cells.iter().filter(|cell| wanted.contains(cell.window)) {
            containers
                .entry(cell.window)
                .or_default()
                .push(ContainerAccount {
                    labels: labels[container as usize].clone(),
                    usage: cell.usage,
                });
        }
    });
    usage.whole()?;
    Ok(containers)
}

fn make_window(
    source: &(impl Source + ?Sized),
    head: WindowHead,
    series: &[u32],
    rows: &[SegmentRow],
    containers: Vec<ContainerAccount>,
    effort: Effort<'_>,
) -> Result<Window, Damage> {
    let pairs: Vec<Pair> = rows.iter().map(SegmentRow::pair).collect();
    let mut read = source
        .resolve_pairs(&pairs, FunctionNames::All, effort)
        .whole()?;
    for row in &mut read.rows {
        // A window lists the series of its rows.
        row.series = series.binary_search(&row.series).unwrap_or_default() as u32;
    }
    read.rows.sort_unstable();
    let labels = series.iter().map(|series| source.series_label_set(*series));
    Ok(Window {
        head,
        series: labels.collect(),
        tables: read.tables,
        rows: read.rows,
        containers,
    })
}
