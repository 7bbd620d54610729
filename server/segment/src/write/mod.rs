//! Writers of all segments, built of windows or merged of other segments.

pub(crate) mod dictionary;
pub(crate) mod series;
pub(crate) mod tree;

use std::io::Write;

use model::LabelSet;

use crate::chunk::EncodedChunk;
use crate::chunk::accounts::{WindowAccount, encode_accounts};
use crate::chunk::digests::{Digest, encode_digests};
use crate::chunk::labels::{CHUNK_SETS, LabelChunk};
use crate::chunk::windows::{CHUNK_WINDOWS, WindowInfo, encode_windows};
use crate::codec::column::Packer;
use crate::error::Error;
use crate::file::footer::Summary;
use crate::file::output::Output;
use crate::section::Section;

/// How a segment is written.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// zstd's level for locations, strings and stacks.
    pub dictionary_level: i32,
    /// zstd's level for rows and cells.
    pub row_level: i32,
    /// A mark that the footer keeps: how far the caller has merged the segment.
    pub level: u32,
}

impl WriteOptions {
    /// For a segment that will be merged soon.
    pub const FAST: Self = Self {
        dictionary_level: 1,
        row_level: 1,
        level: 0,
    };

    /// For a segment that stays: dictionaries of real machines become 9 % smaller. Higher levels pack rows no better.
    pub const SMALL: Self = Self {
        dictionary_level: 9,
        row_level: 1,
        level: 0,
    };
}

/// A window of the file, without its rows.
pub(crate) struct WindowEntry {
    pub(crate) info: WindowInfo,
    pub(crate) account: WindowAccount,
    /// The digest of each of its messages, if it has one.
    pub(crate) digests: Vec<Option<Digest>>,
}

/// Writes the identity of windows, in the order of the file.
pub(crate) fn write_windows<W: Write>(
    windows: &[&WindowEntry],
    summary: &mut Summary,
    packer: &mut Packer,
    out: &mut Output<W>,
) -> Result<(), Error> {
    write_window_chunks(Section::Windows, windows, out, |windows| {
        let infos: Vec<_> = windows.iter().map(|window| &window.info).collect();
        encode_windows(&infos, packer)
    })?;
    summary.count_windows(windows.iter().map(|window| &window.info));
    Ok(())
}

/// Writes the accounts of windows, and the digests of their messages.
pub(crate) fn write_accounts<W: Write>(
    windows: &[&WindowEntry],
    packer: &mut Packer,
    out: &mut Output<W>,
) -> Result<(), Error> {
    write_window_chunks(Section::Accounts, windows, out, |windows| {
        let accounts = windows.iter();
        let accounts = accounts.map(|window| (window.info.span(), &window.account));
        encode_accounts(&accounts.collect::<Vec<_>>(), packer)
    })?;
    let digests = windows.iter().flat_map(|window| &window.digests);
    if digests.flatten().next().is_none() {
        return Ok(());
    }
    write_window_chunks(Section::Digests, windows, out, |windows| {
        let digests = windows.iter().flat_map(|window| &window.digests);
        encode_digests(digests.copied(), packer)
    })
}

/// Writes a section that has an entry for each window.
fn write_window_chunks<W: Write>(
    section: Section,
    windows: &[&WindowEntry],
    out: &mut Output<W>,
    mut encode: impl FnMut(&[&WindowEntry]) -> Vec<u8>,
) -> Result<(), Error> {
    let mut first = 0;
    for range in cut_windows(windows) {
        let items = range.len() as u32;
        let chunk = EncodedChunk {
            bytes: encode(range),
            first,
            items,
        };
        out.put(section, &chunk)?;
        first += items;
    }
    Ok(())
}

/// Cuts windows into chunks of [`CHUNK_WINDOWS`], or of windows that have as many messages.
fn cut_windows<'a, 'b>(mut windows: &'b [&'a WindowEntry]) -> Vec<&'b [&'a WindowEntry]> {
    let mut ranges = Vec::new();
    while !windows.is_empty() {
        let mut messages = 0;
        let is_within = |window: &&&WindowEntry| {
            let is_within = messages < CHUNK_WINDOWS;
            messages += window.info.messages.len().max(1);
            is_within
        };
        let count = windows.iter().take_while(is_within).count();
        let (range, rest) = windows.split_at(count);
        ranges.push(range);
        windows = rest;
    }
    ranges
}

/// Writes label sets.
pub(crate) fn write_labels<'a, W: Write>(
    section: Section,
    sets: impl Iterator<Item = &'a LabelSet>,
    packer: &mut Packer,
    out: &mut Output<W>,
) -> Result<(), Error> {
    let sets: Vec<&LabelSet> = sets.collect();
    let mut first = 0;
    for chunk in sets.chunks(CHUNK_SETS) {
        let bytes = LabelChunk::encode(chunk.iter().copied(), packer);
        let items = chunk.len() as u32;
        out.put(
            section,
            &EncodedChunk {
                bytes,
                first,
                items,
            },
        )?;
        first += items;
    }
    Ok(())
}
