//! Offered files that would give a window better names. Pure.

use hashbrown::HashMap;
use model::UnnamedReason;
use model::tables::{Location, LocationId, Tables};
use symbolize::index::Rank;

use super::check::CheckedFile;
use crate::symbol::collector_uploads::{MissingNames, Offer};

/// Finds the offered files whose frames lack names, or files and lines. A file without a file id is not asked for: it
/// could name other files that claim its build id.
pub fn find_missing_names(files: &[CheckedFile], tables: &Tables) -> Vec<MissingNames> {
    let offered = files.iter().filter(|file| file.offer != Offer::None);
    let offered = offered.filter_map(|file| Some((file.file_id?, file)));
    let mut lacks: HashMap<String, Option<Rank>> = offered
        .clone()
        .map(|(file_id, _)| (file_id.to_string(), None))
        .collect();
    if lacks.is_empty() {
        return Vec::new();
    }
    for (number, location) in tables.locations.iter().enumerate() {
        let Some(lack) = find_lack(tables, LocationId(number as u32), location) else {
            continue;
        };
        let mapping = location
            .mapping
            .map(|mapping| tables.mappings[mapping.position()]);
        let file_id = mapping.map_or("", |mapping| tables.string(mapping.file_id));
        if let Some(known) = lacks.get_mut(file_id) {
            *known = Some(known.map_or(lack, |known| known.min(lack)));
        }
    }
    offered
        .filter_map(|(file_id, file)| {
            Some(MissingNames {
                file_id,
                build_id: file.build_id,
                offer: file.offer,
                lacks: (*lacks.get(&file_id.to_string())?)?,
            })
        })
        .collect()
}

/// The information that a location lacks and its file could give.
fn find_lack(tables: &Tables, id: LocationId, location: &Location) -> Option<Rank> {
    let lines = tables.own_lines_of(id);
    if lines.is_empty() {
        // The node has the file: it could not be parsed there, or a limit was reached.
        let reason = location.unnamed.reason();
        let is_unused = matches!(reason, Some(UnnamedReason::Corrupt | UnnamedReason::Limit));
        return is_unused.then_some(Rank::SymbolTable);
    }
    (!tables.have_source(lines)).then_some(Rank::DebugInfo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Unnamed;
    use model::text::window;

    /// Check that only offered files count that have a frame without a source file, or without a name for a reason
    /// that the file can remedy.
    #[test]
    fn only_names_that_the_file_has_are_missing() {
        let text = "comm=a | main 0x1f@/lib/b.so 0x2f@/lib/c.so | 7";
        let mut tables = window(text).tables;
        let ids = ["aa", "bb", "cc"];
        for (number, id) in ids.iter().enumerate() {
            tables.mappings[number].file_id = tables.push_string(id);
        }
        let with = |offer| {
            ids.map(|id| CheckedFile {
                // Of all three files: it is a claim only.
                build_id: "00ff".parse().unwrap(),
                file_id: Some(id.parse().unwrap()),
                layout: None,
                offer,
            })
        };
        let found = |tables: &Tables, offer| -> Vec<_> {
            let found = find_missing_names(&with(offer), tables).into_iter();
            found
                .map(|file| (file.file_id.to_string(), file.lacks))
                .collect()
        };
        // `main` has a source file, and the other two have no symbol at their addresses.
        assert!(found(&tables, Offer::DebugInfo).is_empty());
        let at = |tables: &Tables, address| {
            let mut locations = tables.locations.iter();
            locations.position(|location| location.address == address)
        };
        let limited = at(&tables, 0x1f).unwrap();
        tables.locations[limited].unnamed = Unnamed::new(UnnamedReason::Limit.code(), 0);
        for function in &mut tables.functions {
            function.file = Default::default();
        }
        let expected = [("aa", Rank::DebugInfo), ("bb", Rank::SymbolTable)];
        let expected = expected.map(|(id, rank)| (id.to_owned(), rank));
        for offer in [Offer::Unknown, Offer::SymbolTable, Offer::DebugInfo] {
            assert_eq!(found(&tables, offer), expected);
        }
        assert!(found(&tables, Offer::None).is_empty());
        let mut nameless = with(Offer::DebugInfo);
        nameless.iter_mut().for_each(|file| file.file_id = None);
        assert!(find_missing_names(&nameless, &tables).is_empty());
    }
}
