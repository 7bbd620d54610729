//! Compares a segment with the windows that it was made from.
//!
//! Entries of the segment's dictionary are copied into the builder by value, so that equal stacks have equal numbers. Then rows are
//! compared series by series.

use std::collections::BTreeMap;

use model::tables::MappingId;
use model::{FunctionNames, LabelSet, Tables};

use crate::chunk::cells::{Cell, UsageCell};
use crate::chunk::rows::SeriesRow;
use crate::dictionary::{Mapping, invert};
use crate::error::Error;
use crate::read::Segment;
use crate::read::cursor::{CellCursor, RowCursor};
use crate::read::parallel::Effort;
use crate::read_at::ReadAt;
use crate::section::Section;
use crate::write::series::combine_equal;

use super::Builder;
use super::import::Import;

impl Builder {
    /// Compares a segment with the windows that were added: it must have each of them, to the sample, and nothing else. A mapping must
    /// be what all windows say of its file.
    ///
    /// # Errors
    /// A chunk is damaged, or something differs.
    pub fn compare<R: ReadAt>(
        mut self,
        segment: &Segment<R>,
        effort: Effort<'_>,
    ) -> Result<(), Error> {
        let order = self.window_order();
        self.compare_windows(segment, &order)?;
        let windows = invert(&order);
        self.compare_containers(segment, &windows)?;
        let numbers = self.import_all(segment, effort)?;
        self.compare_series(segment, &windows, &numbers)
    }

    fn compare_windows<R: ReadAt>(&self, segment: &Segment<R>, order: &[u32]) -> Result<(), Error> {
        let infos = segment.read_windows()?;
        let own = order.iter().map(|number| &self.windows[*number as usize]);
        let key = |window| format!("window {window}");
        if !own.clone().map(|window| &window.info).eq(&infos) {
            let other = own.zip(&infos).find(|(own, info)| own.info != **info);
            let other = other.map(|(own, _)| key(own.info.key()));
            return Err(differs(other.unwrap_or("the number of windows".to_owned())));
        }
        let accounts = segment.read_accounts(&infos).whole()?;
        let digests = segment.read_digests(&infos).whole()?;
        for ((own, account), digest) in own.zip(&accounts).zip(&digests) {
            if account.as_ref() != Some(&own.account) || own.digests != [*digest] {
                return Err(differs(key(own.info.key())));
            }
        }
        Ok(())
    }

    fn compare_containers<R: ReadAt>(
        &self,
        segment: &Segment<R>,
        windows: &[u32],
    ) -> Result<(), Error> {
        let containers = self.sorted_containers();
        let labels = segment.read_containers()?;
        if !containers.iter().map(|(labels, _)| *labels).eq(&labels) {
            return Err(differs("the list of containers".to_owned()));
        }
        let mut cursor = CellCursor::new(segment, Section::Usage);
        let mut read: Vec<UsageCell> = Vec::new();
        for (number, (labels, container)) in containers.into_iter().enumerate() {
            read.clear();
            cursor.read_series(number as u32, &mut read)?;
            if read != self.usage_cells(container, windows) {
                return Err(differs(format!("the account of {}", describe(labels))));
            }
        }
        Ok(())
    }

    /// Copies all stacks and tag sets of a segment, and compares its mappings.
    fn import_all<R: ReadAt>(
        &mut self,
        segment: &Segment<R>,
        effort: Effort<'_>,
    ) -> Result<ImportedNumbers, Error> {
        let stacks: Vec<u32> = (0..segment.stack_count() as u32).collect();
        let tag_sets: Vec<u32> = (0..segment.tag_set_count() as u32).collect();
        let read = segment.read_stacks(&stacks, &tag_sets, FunctionNames::All, effort);
        let read = read.whole()?;
        let mappings = self.names.mappings.clone();
        let mut import = Import::new(&read.tables, self);
        // Nothing is damaged, so that each was found.
        let stacks = read.stacks.into_iter().map(Option::unwrap_or_default);
        let stacks: Result<Vec<u32>, Error> = stacks.map(|id| import.stack(self, id)).collect();
        let tag_sets = read.tag_sets.into_iter().map(Option::unwrap_or_default);
        let tag_sets: Result<Vec<u32>, Error> =
            tag_sets.map(|id| import.tag_set(self, id)).collect();
        for number in 0..read.tables.mappings.len() as u32 {
            let own = import.imported_mapping(MappingId(number));
            let own = own.and_then(|number| mappings.get(number as usize));
            if !own.is_some_and(|own| self.is_mapping(own, &read.tables, MappingId(number))) {
                let file = read.tables.mappings[number as usize].file;
                let file = read.tables.string(file);
                return Err(differs(format!("the mapping of {file}")));
            }
        }
        Ok(ImportedNumbers {
            stacks: stacks?,
            tag_sets: tag_sets?,
        })
    }

    fn is_mapping(&self, own: &Mapping, tables: &Tables, id: MappingId) -> bool {
        let other = tables.mappings[id.position()];
        let texts = [
            (own.file, other.file),
            (own.build_id, other.build_id),
            (own.file_id, other.file_id),
        ];
        (own.start, own.limit, own.offset, own.flags)
            == (other.start, other.limit, other.offset, other.flags.0)
            && texts
                .iter()
                .all(|(own, other)| self.names.strings.get(*own) == tables.string(*other))
    }

    fn compare_series<R: ReadAt>(
        &self,
        segment: &Segment<R>,
        windows: &[u32],
        numbers: &ImportedNumbers,
    ) -> Result<(), Error> {
        let series = self.sorted_series();
        let labels =
            (0..segment.series_count() as u32).map(|number| segment.series_label_set(number));
        if !series
            .iter()
            .map(|(labels, _)| (*labels).clone())
            .eq(labels)
        {
            return Err(differs("the list of series".to_owned()));
        }
        let mut cursor = RowCursor::new(segment);
        let (mut own, mut read) = (Vec::new(), Vec::new());
        for (number, (labels, series)) in series.into_iter().enumerate() {
            own.clear();
            read.clear();
            let mut own_cells: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            self.read_series_rows(series, windows, |window, row| {
                let cell = own_cells.entry(window).or_default();
                if let Some(row) = row {
                    cell.0 = cell.0.saturating_add(row.samples);
                    cell.1 = cell.1.saturating_add(row.ns);
                    own.push(row);
                }
            });
            let cells = cursor.read_series(number as u32, |row| {
                read.push(SeriesRow {
                    stack: numbers.stacks[row.stack as usize],
                    tags: numbers.tag_sets[row.tags as usize],
                    ..row
                });
            })?;
            let cell = |cell: &Cell| (cell.window, (cell.samples, cell.ns));
            let is_same_cells = own_cells.into_iter().eq(cells.iter().map(cell));
            for rows in [&mut own, &mut read] {
                rows.sort_unstable_by_key(SeriesRow::key);
                combine_equal(rows);
            }
            if !is_same_cells || own != read {
                return Err(differs(format!("the rows of {}", describe(labels))));
            }
        }
        Ok(())
    }
}

/// The builder's numbers of a segment's stacks and tag sets.
struct ImportedNumbers {
    stacks: Vec<u32>,
    tag_sets: Vec<u32>,
}

fn differs(what: String) -> Error {
    Error::Differs(what)
}

fn describe(labels: &LabelSet) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.join(",")
}
