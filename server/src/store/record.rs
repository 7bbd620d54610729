//! A window as bytes, and back. Pure.
//!
//! ```text
//! version u8 | 4 x (packed length u32, length u32, CRC32C of the packed bytes u32) | CRC32C of all that u32
//! totals | labels | rows | stacks          each one zstd frame of columns
//! ```
//! A query reads `totals` (who, when, which series, how much in each), then `rows` if a series matches, then
//! `stacks`. `labels` is only read to rebuild the catalog. The numbers of series are the store's own; they stay
//! the same when the catalog is rebuilt, since it learns them from here.

use std::collections::BTreeMap;

use super::SeriesId;
use super::columns::{ColumnReader, ColumnWriter, Damaged, put_strings};
use crate::profile::tables::{FunctionId, LocationId, MappingId, StackId, StringId, TagSetId};
use crate::profile::{
    Account, Function, LabelSet, Line, Location, Mapping, MappingFlags, ProfileHead, Row,
    StackNode, Tables, Tag, TagValue, Unnamed, Window, WindowHead, WindowKey,
};

/// The layout that is described above.
const VERSION: u8 = 2;

/// The same, but that locations without a name never say where their function starts.
const VERSION_BEFORE: u8 = 1;

/// Version, four sections of three numbers, checksum.
pub const HEADER_BYTES: usize = 1 + SECTIONS * 12 + 4;

const SECTIONS: usize = 4;

/// Bytes that a section may unfold to. Profiles have at most 256 MiB by default, and columns are smaller.
const SECTION_BYTES_MAX: usize = 1 << 30;

/// zstd's default: level 9 saves another 6 % on real windows and takes five times as long, and merged
/// segments will be compressed again.
const ZSTD_LEVEL: i32 = 3;

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Head, series and their sums.
    Totals = 0,
    /// Label sets.
    Labels = 1,
    /// Samples.
    Rows = 2,
    /// What samples refer to.
    Stacks = 3,
}

/// What a window's first section says.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowTotals {
    /// Who and when.
    pub head: WindowHead,
    /// The window's series, by their position in the window.
    pub series: Vec<SeriesId>,
    /// Samples of each.
    pub samples: Vec<u64>,
    /// CPU nanoseconds of each.
    pub ns: Vec<u64>,
}

impl WindowTotals {
    /// Bytes on the heap, for bounded caches.
    pub fn heap_bytes(&self) -> usize {
        // 64 bytes an entry of the two small maps: node of a B-tree, a string's header and its text.
        let account = 64 * (self.head.account.outcomes.len() + self.head.account.dropped.len());
        size_of::<Self>() + self.head.node.len() + account + 24 * self.series.len()
    }
}

/// A window that is encoded as far as that is possible without the numbers of its series.
pub struct PreparedWindow {
    /// Who and when.
    pub head: WindowHead,
    /// The label sets.
    pub series: Vec<LabelSet>,
    samples: Vec<u64>,
    ns: Vec<u64>,
    packed: [Packed; 3],
}

impl PreparedWindow {
    /// Bytes that its record will have, but for the small part that is not encoded yet.
    pub fn packed_bytes(&self) -> usize {
        self.packed.iter().map(|section| section.bytes.len()).sum()
    }
}

struct Packed {
    bytes: Vec<u8>,
    unpacked_len: u32,
}

/// Encodes a window: the expensive part, on the thread that received it.
///
/// # Errors
/// zstd has no memory.
pub fn prepare_window(window: Window) -> std::io::Result<PreparedWindow> {
    let Window {
        head,
        series,
        tables,
        rows,
    } = window;
    let mut samples = vec![0; series.len()];
    let mut ns = vec![0; series.len()];
    for row in &rows {
        samples[row.series as usize] += row.samples;
        ns[row.series as usize] += row.ns;
    }
    let packed = [
        pack(encode_labels(&series))?,
        pack(encode_rows(&rows))?,
        pack(encode_tables(&tables))?,
    ];
    Ok(PreparedWindow {
        head,
        series,
        samples,
        ns,
        packed,
    })
}

/// Finishes a record when the numbers of its series are known, one for each label set.
///
/// # Errors
/// zstd has no memory.
pub fn finish_record(prepared: &PreparedWindow, ids: &[SeriesId]) -> std::io::Result<Vec<u8>> {
    let totals = pack(encode_totals(prepared, ids))?;
    let [labels, rows, stacks] = &prepared.packed;
    let sections = [&totals, labels, rows, stacks];
    let mut record =
        Vec::with_capacity(HEADER_BYTES + sections.iter().map(|s| s.bytes.len()).sum::<usize>());
    record.push(VERSION);
    for section in sections {
        record.extend_from_slice(&(section.bytes.len() as u32).to_le_bytes());
        record.extend_from_slice(&section.unpacked_len.to_le_bytes());
        record.extend_from_slice(&crc32c::crc32c(&section.bytes).to_le_bytes());
    }
    record.extend_from_slice(&crc32c::crc32c(&record).to_le_bytes());
    for section in sections {
        record.extend_from_slice(&section.bytes);
    }
    Ok(record)
}

/// Where the sections of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    sections: [SectionPlace; SECTIONS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SectionPlace {
    start: usize,
    packed_len: usize,
    unpacked_len: usize,
    crc: u32,
}

impl RecordHeader {
    /// Reads the header from the first [`HEADER_BYTES`] of a record.
    ///
    /// # Errors
    /// The bytes are damaged, or of a newer version.
    pub fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let header = bytes
            .get(..HEADER_BYTES)
            .ok_or(Damaged("the header is cut"))?;
        let number = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if number(HEADER_BYTES - 4) != crc32c::crc32c(&header[..HEADER_BYTES - 4]) {
            return Err(Damaged("the header's checksum is wrong"));
        }
        if ![VERSION, VERSION_BEFORE].contains(&header[0]) {
            return Err(Damaged(
                "the record has a version that this server does not know",
            ));
        }
        let mut start = HEADER_BYTES;
        let mut sections = [SectionPlace::default(); SECTIONS];
        for (i, section) in sections.iter_mut().enumerate() {
            let at = 1 + 12 * i;
            let packed_len = number(at) as usize;
            *section = SectionPlace {
                start,
                packed_len,
                unpacked_len: number(at + 4) as usize,
                crc: number(at + 8),
            };
            start += packed_len;
        }
        Ok(Self { sections })
    }

    /// Where a section lies in the record: offset and length.
    pub fn place(&self, section: Section) -> (usize, usize) {
        let place = &self.sections[section as usize];
        (place.start, place.packed_len)
    }

    /// Checks and unfolds the bytes of a section.
    ///
    /// # Errors
    /// They are damaged.
    pub fn unpack(&self, section: Section, packed: &[u8]) -> Result<Vec<u8>, Damaged> {
        let place = &self.sections[section as usize];
        if packed.len() != place.packed_len || crc32c::crc32c(packed) != place.crc {
            return Err(Damaged("a section's checksum is wrong"));
        }
        if place.unpacked_len > SECTION_BYTES_MAX {
            return Err(Damaged("a section is too large"));
        }
        match zstd::bulk::decompress(packed, place.unpacked_len) {
            Ok(bytes) if bytes.len() == place.unpacked_len => Ok(bytes),
            _ => Err(Damaged("a section does not unfold")),
        }
    }

    /// Takes a section out of a whole record.
    ///
    /// # Errors
    /// It is damaged.
    pub fn unpack_from(&self, section: Section, record: &[u8]) -> Result<Vec<u8>, Damaged> {
        let (start, length) = self.place(section);
        let packed = record
            .get(start..start + length)
            .ok_or(Damaged("the record is cut"))?;
        self.unpack(section, packed)
    }
}

/// Reads a whole record.
///
/// # Errors
/// It is damaged.
pub fn read_window(record: &[u8]) -> Result<(Window, Vec<SeriesId>), Damaged> {
    let header = RecordHeader::read(record)?;
    let totals = decode_totals(&header.unpack_from(Section::Totals, record)?)?;
    let series = decode_labels(&header.unpack_from(Section::Labels, record)?)?;
    let tables = decode_tables(&header.unpack_from(Section::Stacks, record)?)?;
    let bounds = RowBounds {
        series: series.len(),
        tag_sets: tables.tag_set_count(),
        stacks: tables.stacks.len(),
    };
    let rows = decode_rows(&header.unpack_from(Section::Rows, record)?, bounds)?;
    if totals.series.len() != series.len() {
        return Err(Damaged("totals and labels differ"));
    }
    Ok((
        Window {
            head: totals.head,
            series,
            tables,
            rows,
        },
        totals.series,
    ))
}

fn pack(bytes: Vec<u8>) -> std::io::Result<Packed> {
    let unpacked_len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    Ok(Packed {
        bytes: zstd::bulk::compress(&bytes, ZSTD_LEVEL)?,
        unpacked_len,
    })
}

fn encode_totals(prepared: &PreparedWindow, ids: &[SeriesId]) -> Vec<u8> {
    let mut out = ColumnWriter::default();
    let WindowHead {
        key,
        node,
        window_ms,
        account,
        profile,
    } = &prepared.head;
    out.put_signed(key.start_ms);
    out.put_raw(&key.instance);
    out.put(key.sequence);
    out.put_text(node);
    out.put_signed(*window_ms);
    encode_account(&mut out, account);
    encode_profile_head(&mut out, profile);
    out.put(ids.len() as u64);
    out.put_deltas(ids.iter().map(|id| id.0));
    out.put_column(prepared.samples.iter().copied());
    out.put_column(prepared.ns.iter().copied());
    out.into_bytes()
}

/// Reads [`Section::Totals`].
///
/// # Errors
/// The bytes are damaged.
pub fn decode_totals(bytes: &[u8]) -> Result<WindowTotals, Damaged> {
    let mut from = ColumnReader::new(bytes);
    let start_ms = from.take_signed()?;
    let instance = from
        .take_raw(16)?
        .try_into()
        .map_err(|_| Damaged("the instance is cut"))?;
    let key = WindowKey {
        start_ms,
        instance,
        sequence: from.take()?,
    };
    let node = from.take_text()?.to_owned();
    let window_ms = from.take_signed()?;
    let account = decode_account(&mut from)?;
    let profile = decode_profile_head(&mut from)?;
    let count = from.take_count()?;
    let series = from.take_deltas(count)?.into_iter().map(SeriesId).collect();
    let samples = from.take_column(count)?;
    let ns = from.take_column(count)?;
    from.finish()?;
    Ok(WindowTotals {
        head: WindowHead {
            key,
            node,
            window_ms,
            account,
            profile,
        },
        series,
        samples,
        ns,
    })
}

fn encode_account(out: &mut ColumnWriter, account: &Account) {
    let Account {
        entries,
        expected,
        sampled_ns,
        busy_ns,
        collector_cpu_ns,
        bpf_ns,
        outcomes,
        dropped,
    } = account;
    out.put_column(
        [
            entries,
            expected,
            sampled_ns,
            busy_ns,
            collector_cpu_ns,
            bpf_ns,
        ]
        .into_iter()
        .copied(),
    );
    for counts in [outcomes, dropped] {
        out.put(counts.len() as u64);
        for (name, count) in counts {
            out.put_text(name);
            out.put(*count);
        }
    }
}

fn decode_account(from: &mut ColumnReader<'_>) -> Result<Account, Damaged> {
    let take_counts = |from: &mut ColumnReader<'_>| -> Result<BTreeMap<String, u64>, Damaged> {
        from.take_list(|from| Ok((from.take_text()?.to_owned(), from.take()?)))
    };
    Ok(Account {
        entries: from.take()?,
        expected: from.take()?,
        sampled_ns: from.take()?,
        busy_ns: from.take()?,
        collector_cpu_ns: from.take()?,
        bpf_ns: from.take()?,
        outcomes: take_counts(from)?,
        dropped: take_counts(from)?,
    })
}

fn encode_profile_head(out: &mut ColumnWriter, head: &ProfileHead) {
    let ProfileHead {
        time_ns,
        duration_ns,
        period_type,
        period,
        comments,
        drop_frames,
        keep_frames,
        default_sample_type,
    } = head;
    out.put_signed(*time_ns);
    out.put_signed(*duration_ns);
    out.put_signed(*period);
    for text in [
        &period_type.0,
        &period_type.1,
        drop_frames,
        keep_frames,
        default_sample_type,
    ] {
        out.put_text(text);
    }
    out.put(comments.len() as u64);
    comments.iter().for_each(|comment| out.put_text(comment));
}

fn decode_profile_head(from: &mut ColumnReader<'_>) -> Result<ProfileHead, Damaged> {
    let time_ns = from.take_signed()?;
    let duration_ns = from.take_signed()?;
    let period = from.take_signed()?;
    let period_type = (from.take_text()?.to_owned(), from.take_text()?.to_owned());
    let drop_frames = from.take_text()?.to_owned();
    let keep_frames = from.take_text()?.to_owned();
    let default_sample_type = from.take_text()?.to_owned();
    let comments = from.take_list(|from| Ok(from.take_text()?.to_owned()))?;
    Ok(ProfileHead {
        time_ns,
        duration_ns,
        period_type,
        period,
        comments,
        drop_frames,
        keep_frames,
        default_sample_type,
    })
}

fn encode_labels(series: &[LabelSet]) -> Vec<u8> {
    let mut out = ColumnWriter::default();
    out.put(series.len() as u64);
    series
        .iter()
        .for_each(|labels| put_label_set(&mut out, labels));
    out.into_bytes()
}

/// Writes one label set; the catalog uses the same form.
pub fn put_label_set(out: &mut ColumnWriter, labels: &LabelSet) {
    out.put(labels.iter().len() as u64);
    for (name, value) in labels.iter() {
        out.put_text(name);
        out.put_text(value);
    }
}

/// Reads one label set.
///
/// # Errors
/// The bytes are damaged.
pub fn take_label_set(from: &mut ColumnReader<'_>) -> Result<LabelSet, Damaged> {
    let pairs: Vec<_> = from.take_list(|from| Ok((from.take_text()?, from.take_text()?)))?;
    LabelSet::from_sorted(pairs).map_err(|_| Damaged("a label set is not valid"))
}

/// Reads [`Section::Labels`].
///
/// # Errors
/// The bytes are damaged.
pub fn decode_labels(bytes: &[u8]) -> Result<Vec<LabelSet>, Damaged> {
    let mut from = ColumnReader::new(bytes);
    let series = from.take_list(take_label_set)?;
    from.finish()?;
    Ok(series)
}

fn encode_rows(rows: &[Row]) -> Vec<u8> {
    let mut out = ColumnWriter::default();
    out.put(rows.len() as u64);
    out.put_deltas(rows.iter().map(|row| u64::from(row.series)));
    out.put_column(rows.iter().map(|row| u64::from(row.tags.0)));
    out.put_deltas(rows.iter().map(|row| u64::from(row.stack.0)));
    out.put_column(rows.iter().map(|row| row.samples));
    out.put_column(rows.iter().map(|row| row.ns));
    out.into_bytes()
}

/// How long the tables are that rows refer to.
#[derive(Clone, Copy, Debug)]
pub struct RowBounds {
    /// Series of the window.
    pub series: usize,
    /// Tag sets.
    pub tag_sets: usize,
    /// Stacks.
    pub stacks: usize,
}

/// Reads [`Section::Rows`].
///
/// # Errors
/// The bytes are damaged, or a row refers to what is not there.
pub fn decode_rows(bytes: &[u8], bounds: RowBounds) -> Result<Vec<Row>, Damaged> {
    let mut from = ColumnReader::new(bytes);
    let count = from.take_count()?;
    let series = from.take_delta_references(count, bounds.series)?;
    let tags = from.take_references(count, bounds.tag_sets)?;
    let stacks = from.take_delta_references(count, bounds.stacks)?;
    let samples = from.take_column(count)?;
    let ns = from.take_column(count)?;
    from.finish()?;
    let row = |i: usize| Row {
        series: series[i],
        tags: TagSetId(tags[i]),
        stack: StackId(stacks[i]),
        samples: samples[i],
        ns: ns[i],
    };
    Ok((0..count).map(row).collect())
}

fn encode_tables(tables: &Tables) -> Vec<u8> {
    let mut out = ColumnWriter::default();
    put_strings(&mut out, tables);

    let mappings = &tables.mappings;
    out.put(mappings.len() as u64);
    out.put_column(mappings.iter().map(|m| u64::from(m.file.0)));
    out.put_column(mappings.iter().map(|m| u64::from(m.build_id.0)));
    out.put_column(mappings.iter().map(|m| m.start));
    out.put_column(mappings.iter().map(|m| m.limit));
    out.put_column(mappings.iter().map(|m| m.offset));
    out.put_column(mappings.iter().map(|m| u64::from(m.flags.0)));

    let functions = &tables.functions;
    out.put(functions.len() as u64);
    out.put_deltas(functions.iter().map(|f| u64::from(f.name.0)));
    out.put_deltas(functions.iter().map(|f| u64::from(f.system_name.0)));
    out.put_deltas(functions.iter().map(|f| u64::from(f.file.0)));
    functions.iter().for_each(|f| out.put_signed(f.start_line));

    out.put(tables.lines.len() as u64);
    out.put_deltas(tables.lines.iter().map(|l| u64::from(l.function.0)));
    tables.lines.iter().for_each(|l| out.put_signed(l.line));

    let locations = &tables.locations;
    out.put(locations.len() as u64);
    out.put_column(
        locations
            .iter()
            .map(|l| l.mapping.map_or(0, |m| u64::from(m.0) + 1)),
    );
    out.put_deltas(locations.iter().map(|l| l.address));
    out.put_column(locations.iter().map(|l| l.lines().len() as u64));
    out.put_column(
        locations
            .iter()
            .map(|l| u64::from(l.unnamed.bits()) << 1 | u64::from(l.is_folded)),
    );

    // Number 0 is the empty stack and is not written.
    let stacks = &tables.stacks[1..];
    out.put(stacks.len() as u64);
    out.put_column(
        stacks
            .iter()
            .enumerate()
            .map(|(i, s)| i as u64 + 1 - u64::from(s.parent.0)),
    );
    out.put_deltas(stacks.iter().map(|s| u64::from(s.location.0)));

    encode_tag_sets(&mut out, tables);
    out.into_bytes()
}

fn encode_tag_sets(out: &mut ColumnWriter, tables: &Tables) {
    out.put(tables.tag_set_count() as u64 - 1);
    for set in 1..tables.tag_set_count() as u32 {
        let tags = tables.tag_set(TagSetId(set));
        out.put(tags.len() as u64);
        for tag in tags {
            match tag.value {
                TagValue::Text(text) => {
                    out.put(u64::from(tag.key.0) << 1);
                    out.put(u64::from(text.0));
                }
                TagValue::Number(number, unit) => {
                    out.put(u64::from(tag.key.0) << 1 | 1);
                    out.put_signed(number);
                    out.put(u64::from(unit.0));
                }
            }
        }
    }
}

/// Reads [`Section::Stacks`].
///
/// # Errors
/// The bytes are damaged, or an entry refers to what is not there.
pub fn decode_tables(bytes: &[u8]) -> Result<Tables, Damaged> {
    let mut from = ColumnReader::new(bytes);
    let mut tables = Tables::new();
    from.take_strings(&mut tables)?;
    tables.mappings = decode_mappings(&mut from, tables.string_count())?;
    tables.functions = decode_functions(&mut from, tables.string_count())?;
    let count = from.take_count()?;
    let functions = from.take_delta_references(count, tables.functions.len())?;
    for function in functions {
        tables.lines.push(Line {
            function: FunctionId(function),
            line: from.take_signed()?,
        });
    }
    tables.locations = decode_locations(&mut from, tables.mappings.len(), tables.lines.len())?;
    let count = from.take_count()?;
    let distances = from.take_column(count)?;
    let locations = from.take_delta_references(count, tables.locations.len())?;
    for (i, (distance, location)) in distances.into_iter().zip(locations).enumerate() {
        let number = i as u64 + 1;
        if distance == 0 || distance > number {
            return Err(Damaged("a stack's parent does not come before it"));
        }
        tables.stacks.push(StackNode {
            parent: StackId((number - distance) as u32),
            location: LocationId(location),
        });
    }
    decode_tag_sets(&mut from, &mut tables)?;
    from.finish()?;
    Ok(tables)
}

fn decode_mappings(from: &mut ColumnReader<'_>, strings: usize) -> Result<Vec<Mapping>, Damaged> {
    let count = from.take_count()?;
    let files = from.take_references(count, strings)?;
    let build_ids = from.take_references(count, strings)?;
    let starts = from.take_column(count)?;
    let limits = from.take_column(count)?;
    let offsets = from.take_column(count)?;
    let flags = from.take_references(count, usize::from(MappingFlags::ALL) + 1)?;
    let mapping = |i: usize| Mapping {
        file: StringId(files[i]),
        build_id: StringId(build_ids[i]),
        start: starts[i],
        limit: limits[i],
        offset: offsets[i],
        flags: MappingFlags(flags[i] as u8),
    };
    Ok((0..count).map(mapping).collect())
}

fn decode_functions(from: &mut ColumnReader<'_>, strings: usize) -> Result<Vec<Function>, Damaged> {
    let count = from.take_count()?;
    let names = from.take_delta_references(count, strings)?;
    let system_names = from.take_delta_references(count, strings)?;
    let files = from.take_delta_references(count, strings)?;
    let mut functions = Vec::with_capacity(count);
    for i in 0..count {
        functions.push(Function {
            name: StringId(names[i]),
            system_name: StringId(system_names[i]),
            file: StringId(files[i]),
            start_line: from.take_signed()?,
        });
    }
    Ok(functions)
}

fn decode_locations(
    from: &mut ColumnReader<'_>,
    mappings: usize,
    lines: usize,
) -> Result<Vec<Location>, Damaged> {
    let count = from.take_count()?;
    let mapping_numbers = from.take_references(count, mappings + 1)?;
    let addresses = from.take_deltas(count)?;
    let line_counts = from.take_column(count)?;
    let mut locations = Vec::with_capacity(count);
    let mut lines_start = 0_u64;
    for i in 0..count {
        let lines_end = lines_start.saturating_add(line_counts[i]);
        let bits = from.take()?;
        let unnamed = u32::try_from(bits >> 1).map_err(|_| Damaged("a reason is not one"))?;
        if lines_end > lines as u64 {
            return Err(Damaged("a location has more lines than there are"));
        }
        locations.push(Location {
            mapping: mapping_numbers[i].checked_sub(1).map(MappingId),
            address: addresses[i],
            lines_start: lines_start as u32,
            lines_end: lines_end as u32,
            is_folded: bits & 1 == 1,
            unnamed: Unnamed::from_bits(unnamed),
        });
        lines_start = lines_end;
    }
    if lines_start != lines as u64 {
        return Err(Damaged("lines belong to no location"));
    }
    Ok(locations)
}

fn decode_tag_sets(from: &mut ColumnReader<'_>, tables: &mut Tables) -> Result<(), Damaged> {
    let strings = tables.string_count();
    let string = |number: u64| match u32::try_from(number) {
        Ok(small) if (small as usize) < strings => Ok(StringId(small)),
        _ => Err(Damaged("a tag refers to no string")),
    };
    let sets = from.take_count()?;
    let mut tags = Vec::new();
    for _ in 0..sets {
        tags.clear();
        for _ in 0..from.take_count()? {
            let key = from.take()?;
            let value = match key & 1 {
                0 => TagValue::Text(string(from.take()?)?),
                _ => TagValue::Number(from.take_signed()?, string(from.take()?)?),
            };
            tags.push(Tag {
                key: string(key >> 1)?,
                value,
            });
        }
        tables.push_tag_set(&tags);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::text::window;

    const TEXT: &str = "
        comm=rustc,node=a | main parse>inlined read@[kernel] | 12 | thread=worker
        comm=rustc,node=a | main parse | 3 | thread=worker outcome=truncated
        comm=sort,node=a | 0x10+0xf@/lib/b.so 0x1f@/lib/b.so main 0x7fff | 1
        comm=sort,node=a |  | 2
    ";

    fn encode(window: &Window) -> Vec<u8> {
        let ids: Vec<_> = (0..window.series.len() as u64)
            .map(|n| SeriesId(100 - n))
            .collect();
        finish_record(&prepare_window(window.clone()).unwrap(), &ids).unwrap()
    }

    #[test]
    fn a_window_comes_back_as_it_was() {
        let mut window = window(TEXT);
        window.head.account.outcomes.insert("complete".into(), 17);
        window.head.account.dropped.insert("queue".into(), 1);
        window.head.profile.comments.push("a comment".into());
        window.head.profile.period_type = ("cpu".into(), "nanoseconds".into());
        let (read, ids) = read_window(&encode(&window)).unwrap();
        assert_eq!(read, window);
        assert_eq!(ids, [SeriesId(100), SeriesId(99)]);
    }

    #[test]
    fn totals_are_the_sums_of_rows() {
        let record = encode(&window(TEXT));
        let header = RecordHeader::read(&record).unwrap();
        let totals = decode_totals(&header.unpack_from(Section::Totals, &record).unwrap()).unwrap();
        assert_eq!(totals.samples, [15, 3]);
        assert_eq!(totals.ns, [150_000_000, 30_000_000]);
    }

    #[test]
    fn an_empty_window_comes_back() {
        let window = window("");
        assert_eq!(read_window(&encode(&window)).unwrap().0, window);
    }

    #[test]
    fn every_truncation_and_every_changed_byte_is_noticed() {
        let record = encode(&window(TEXT));
        for end in 0..record.len() {
            assert!(read_window(&record[..end]).is_err(), "cut at {end}");
        }
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 0x10;
            assert!(read_window(&changed).is_err(), "changed at {at}");
        }
    }

    /// Check that the decoders themselves, without the checksums in front of them, survive any change.
    #[test]
    fn no_changed_column_panics() {
        let window = window(TEXT);
        let tables = encode_tables(&window.tables);
        let rows = encode_rows(&window.rows);
        let labels = encode_labels(&window.series);
        let bounds = RowBounds {
            series: 2,
            tag_sets: 3,
            stacks: window.tables.stacks.len(),
        };
        for (bytes, decode) in [
            (
                &tables,
                &(|b: &[u8]| drop(decode_tables(b))) as &dyn Fn(&[u8]),
            ),
            (&rows, &|b: &[u8]| drop(decode_rows(b, bounds))),
            (&labels, &|b: &[u8]| drop(decode_labels(b))),
        ] {
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    decode(&changed);
                    decode(&changed[..at]);
                }
            }
        }
    }
}
