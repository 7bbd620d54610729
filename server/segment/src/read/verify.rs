//! Checks a whole file.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::chunk::callees::Callees;
use crate::chunk::cells::{AnyCell, Cell, CellReader, UsageCell};
use crate::chunk::dictionary::{
    LocationChunk, decode_functions, decode_mappings, decode_strings, decode_tag_sets,
};
use crate::chunk::labels::{LabelChunk, compare_series};
use crate::chunk::rows::PairRows;
use crate::chunk::windows::WindowInfo;
use crate::codec::column::Unpacker;
use crate::error::{Cause, Damage, Malformed};
use crate::file::footer::{Chunk, Summary};
use crate::read::callees::CalleeCache;
use crate::read::cursor::RowCursor;
use crate::read::parallel::Effort;
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;

impl<R: ReadAt> Segment<R> {
    /// Reads the whole file and checks the checksum of each chunk, that it is as the format says, each reference, that sections agree
    /// with each other, and the counts of the footer. Returns what is damaged; nothing if the file is whole.
    ///
    /// Sections that this version does not know are not read. A check that is stopped has checked a part.
    pub fn verify(&self, effort: Effort<'_>) -> Vec<Damage> {
        let mut chunks = Vec::new();
        for section in Section::ALL {
            let count = self.chunks(section).len();
            chunks.extend((0..count).map(|number| (section, number)));
        }
        let new = || CalleeCache::new(self);
        let checked = effort.map(&chunks, new, |callees, scratch, (section, number)| {
            self.verify_chunk(*section, *number, callees, scratch)
        });
        let mut damage: Vec<Damage> = checked
            .into_iter()
            .flatten()
            .filter_map(Result::err)
            .collect();
        damage.extend(self.verify_windows());
        // A chunk that others need was found by each of them.
        let mut known = HashSet::new();
        damage.retain(|damage| known.insert((damage.section, damage.chunk)));
        if damage.is_empty() && !effort.is_stopped() {
            damage.extend(self.verify_together().err());
        }
        damage
    }

    fn verify_chunk(
        &self,
        section: Section,
        number: usize,
        callees: &mut CalleeCache<'_, R>,
        scratch: &mut Scratch,
    ) -> Result<(), Damage> {
        match section {
            Section::Tree => {
                let mut reader = self.open_tree(number, scratch)?;
                while reader.next(callees)?.is_some() {}
                Ok(())
            }
            Section::Detail => self.read_detail(number, scratch).map(drop),
            Section::Totals => self.verify_rows(number, scratch),
            _ => self.read(section, number, scratch, |bytes, chunk, unpacker| {
                self.verify_bytes(section, bytes, chunk, unpacker)
            }),
        }
    }

    fn verify_bytes(
        &self,
        section: Section,
        bytes: &[u8],
        chunk: &Chunk,
        unpacker: &mut Unpacker,
    ) -> Result<(), Malformed> {
        let items = chunk.items as usize;
        let limits = self.dictionary_limits();
        match section {
            Section::Locations => LocationChunk::decode(bytes, items, limits, unpacker).map(drop),
            Section::Functions => decode_functions(bytes, items, limits, unpacker).map(drop),
            Section::Mappings => decode_mappings(bytes, items, limits, unpacker).map(drop),
            Section::TagSets => decode_tag_sets(bytes, items, limits, unpacker).map(drop),
            Section::Strings => decode_strings(bytes, items, unpacker).map(drop),
            Section::Callees => {
                let counts = (self.count(Section::Locations), self.count(Section::Tree));
                Callees::decode(bytes, chunk.first, items, counts, unpacker).map(drop)
            }
            Section::Cells => self.verify_cells::<Cell>(bytes, items, unpacker),
            Section::Usage => self.verify_cells::<UsageCell>(bytes, items, unpacker),
            Section::Containers | Section::Series => {
                LabelChunk::decode(bytes, items, unpacker).map(drop)
            }
            // Those of windows are read one after the other, and those of rows together.
            Section::Windows | Section::Accounts | Section::Digests => Ok(()),
            Section::Tree | Section::Detail | Section::Totals => Ok(()),
        }
    }

    fn verify_cells<C: AnyCell>(
        &self,
        bytes: &[u8],
        items: usize,
        unpacker: &mut Unpacker,
    ) -> Result<(), Malformed> {
        let mut reader = CellReader::new::<C>(bytes, items, self.window_count(), unpacker)?;
        let mut cells: Vec<C> = Vec::new();
        while reader.next(&mut cells)? {
            cells.clear();
        }
        Ok(())
    }

    fn verify_rows(&self, number: usize, scratch: &mut Scratch) -> Result<(), Damage> {
        let totals = self.open_totals(number, scratch)?;
        let mut detail = self.read_detail(number, scratch)?;
        let mut rows = PairRows::default();
        totals
            .read(|_, head, pair| detail.next_pair(head, pair, &mut rows))
            .map_err(|what| self.malformed(Section::Totals, number, what))?;
        self.finish_detail(number, detail)
    }

    fn verify_windows(&self) -> Vec<Damage> {
        match self.read_windows() {
            Err(damage) => vec![damage],
            Ok(windows) => {
                let accounts = self.read_accounts(&windows).damage;
                let digests = self.read_digests(&windows).damage;
                [accounts, digests].concat()
            }
        }
    }

    /// Checks what no chunk alone shows: orders, and sums of one section in another.
    fn verify_together(&self) -> Result<(), Damage> {
        let windows = self.read_windows()?;
        let is_sorted = |window: &WindowInfo| window.messages.is_sorted();
        self.expect(
            windows.iter().all(is_sorted),
            Section::Windows,
            "messages are not in order",
        )?;
        let keys = windows.iter().map(WindowInfo::sort_key);
        self.expect(
            keys.is_sorted(),
            Section::Windows,
            "windows are not in order",
        )?;
        let labels = self.series_label_sets();
        let ascend = |a: &_, b: &_| compare_series(a, b) == Ordering::Less;
        self.expect(
            labels.is_sorted_by(ascend),
            Section::Series,
            "series are not in order",
        )?;
        let containers = self.read_containers()?;
        let is_sorted = containers.is_sorted_by(ascend);
        self.expect(
            is_sorted,
            Section::Containers,
            "containers are not in order",
        )?;
        let mut summary = *self.summary();
        summary.count_windows(windows.iter());
        self.sum_rows(&mut summary)?;
        self.expect(
            summary == *self.summary(),
            Section::Totals,
            "the footer has other sums",
        )
    }

    /// Adds up all rows, and compares them with the cells of their series.
    fn sum_rows(&self, summary: &mut Summary) -> Result<(), Damage> {
        (summary.pairs, summary.rows) = (0, 0);
        (summary.samples, summary.ns) = (0, 0);
        let mut cursor = RowCursor::new(self);
        let mut sums = vec![(0_u64, 0_u64); self.window_count()];
        for series in 0..self.series_count() as u32 {
            let mut last = None;
            let mut is_sorted = true;
            let cells = cursor.read_series(series, |row| {
                let sum = &mut sums[row.window as usize];
                sum.0 = sum.0.saturating_add(row.samples);
                sum.1 = sum.1.saturating_add(row.ns);
                summary.rows += 1;
                let pair = Some((row.stack, row.tags));
                summary.pairs += u64::from(last != pair);
                is_sorted &= last <= pair;
                last = pair;
            })?;
            let mut is_same = true;
            for cell in cells {
                let sum = std::mem::take(&mut sums[cell.window as usize]);
                is_same &= sum == (cell.samples, cell.ns);
                summary.samples = summary.samples.saturating_add(cell.samples);
                summary.ns = summary.ns.saturating_add(cell.ns);
            }
            self.expect(
                is_same,
                Section::Cells,
                "rows have other sums than their cells",
            )?;
            self.expect(is_sorted, Section::Totals, "rows are not in order")?;
        }
        Ok(())
    }

    fn expect(&self, is_so: bool, section: Section, what: &'static str) -> Result<(), Damage> {
        if is_so {
            return Ok(());
        }
        Err(Damage {
            section,
            chunk: 0,
            cause: Cause::Malformed(what),
        })
    }
}

#[cfg(test)]
mod tests {
    use model::{Question, Stop, text};

    use super::*;
    use crate::build::Builder;
    use crate::chunk::EncodedChunk;
    use crate::chunk::cells::CellWriter;
    use crate::codec::column::Packer;
    use crate::file::output::Output;
    use crate::write::WriteOptions;

    fn build() -> Segment<Vec<u8>> {
        let mut builder = Builder::default();
        for number in 1..4 {
            let lines = "comm=a | main work | 2\ncomm=b | main | 1";
            let window = text::window_at(lines, 10_000 * number, number as u64);
            builder.add(&window).unwrap();
        }
        let mut bytes = Vec::new();
        builder.write(&WriteOptions::FAST, &mut bytes).unwrap();
        Segment::open(bytes).unwrap()
    }

    /// Writes the file again, with other chunks and another summary, and all checksums right.
    fn write_again(
        segment: &Segment<Vec<u8>>,
        change: impl Fn(Section, &mut Vec<u8>),
        summary: &Summary,
    ) -> Segment<Vec<u8>> {
        let mut sections = Section::ALL;
        let offset = |section: &Section| segment.chunks(*section).first().map(|chunk| chunk.offset);
        sections.sort_by_key(offset);
        let mut file = Vec::new();
        let mut out = Output::new(&mut file).unwrap();
        for section in sections {
            for chunk in segment.chunks(section) {
                let start = chunk.offset as usize;
                let mut bytes = segment.source[start..start + chunk.length as usize].to_vec();
                change(section, &mut bytes);
                let chunk = EncodedChunk {
                    bytes,
                    first: chunk.first,
                    items: chunk.items,
                };
                out.put(section, &chunk).unwrap();
            }
        }
        out.finish(summary).unwrap();
        Segment::open(file).unwrap()
    }

    fn messages(damage: &[Damage]) -> Vec<String> {
        damage.iter().map(Damage::to_string).collect()
    }

    /// Check that chunks with right checksums that contradict each other are found.
    #[test]
    fn contradictions_are_found() {
        let segment = build();
        let summary = *segment.summary();
        let same = write_again(&segment, |_, _| {}, &summary);
        assert_eq!(same.source, segment.source);
        assert_eq!(same.verify(Effort::ONE), []);

        for change in [
            |summary: &mut Summary| summary.rows += 1,
            |summary: &mut Summary| summary.samples -= 1,
            |summary: &mut Summary| summary.to_ms += 1,
            |summary: &mut Summary| summary.nodes += 1,
        ] {
            let mut other = summary;
            change(&mut other);
            let damage = write_again(&segment, |_, _| {}, &other).verify(Effort::ONE);
            let expected = "chunk 0 of section totals is malformed: the footer has other sums";
            assert_eq!(messages(&damage), [expected]);
        }

        // The second series has a sample less in its last window.
        let cells = [(0, 2), (1, 2), (2, 2), (0, 1), (1, 1), (2, 0)];
        let cells = cells.map(|(window, samples)| Cell {
            window,
            samples,
            ns: 10_000_000 * samples,
        });
        let mut packer = Packer::new(1);
        let mut writer = CellWriter::default();
        writer.push(&cells[..3], 10_000_000, &mut packer);
        writer.push(&cells[3..], 10_000_000, &mut packer);
        let chunks = writer.finish::<Cell>(&mut packer);
        let replace = |section, bytes: &mut Vec<u8>| {
            if section == Section::Cells {
                bytes.clone_from(&chunks[0].bytes);
            }
        };
        let damage = write_again(&segment, replace, &summary).verify(Effort::ONE);
        let expected =
            "chunk 0 of section cells is malformed: rows have other sums than their cells";
        assert_eq!(messages(&damage), [expected]);
    }

    /// Check that nothing is found after it was stopped.
    #[test]
    fn a_stopped_check_ends() {
        let segment = build();
        let question = Question::unlimited();
        question.stop(Stop::Cancelled);
        let effort = Effort {
            threads: 2,
            question: Some(&question),
        };
        assert_eq!(segment.verify(effort), []);
    }
}
